//! The writer of the spool, in the runner.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{CHUNK_BYTES, DIRECTORY, SEGMENTS, Stream, segment_path};
use crate::status::Totals;

/// A [`super::Line`] that is not kept.
#[derive(Serialize)]
struct LineOut<'a> {
    n: u64,
    b: u64,
    t: u64,
    s: Stream,
    l: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    c: bool,
}

/// So many lines and bytes.
#[derive(Debug, Clone, Copy, Default)]
struct Amount {
    lines: u64,
    bytes: u64,
}

impl Amount {
    fn add(&mut self, other: Amount) {
        self.lines += other.lines;
        self.bytes += other.bytes;
    }
}

/// Writes the spool.
///
/// A disk that is full or fails never stops the script: what cannot be written is counted, and the
/// numbers of the lines after it tell a reader that something is missing.
#[derive(Debug)]
pub struct Spool {
    directory: PathBuf,
    limit: u64,
    index: u64,
    file: File,
    file_bytes: u64,
    /// What the segments hold that may be removed, oldest first, and the present one last.
    segments: VecDeque<Amount>,
    buffer: Vec<u8>,
    buffered: Amount,
    all: Amount,
    dropped: Amount,
    unwritten: Amount,
}

impl Spool {
    /// An empty spool below an attempt's directory, of at most so many bytes and one line.
    pub fn create(attempt: &Path, limit_bytes: u64) -> io::Result<Self> {
        let directory = attempt.join(DIRECTORY);
        fs::create_dir(&directory)?;
        let file = create_segment(&directory, 0)?;
        Ok(Self::over(directory, limit_bytes, file))
    }

    fn over(directory: PathBuf, limit: u64, file: File) -> Self {
        Self {
            directory,
            limit,
            index: 0,
            file,
            file_bytes: 0,
            segments: VecDeque::from([Amount::default()]),
            buffer: Vec::new(),
            buffered: Amount::default(),
            all: Amount::default(),
            dropped: Amount::default(),
            unwritten: Amount::default(),
        }
    }

    /// Adds a line; it is written by [`Spool::flush`] at the latest.
    pub fn add(&mut self, time_ms: u64, stream: Stream, text: &str, continues: bool) {
        let line = Amount { lines: 1, bytes: text.len() as u64 };
        let out = LineOut {
            n: self.all.lines + 1,
            b: self.all.bytes,
            t: time_ms,
            s: stream,
            l: text,
            c: continues,
        };
        self.all.add(line);
        let start = self.buffer.len();
        if serde_json::to_writer(&mut self.buffer, &out).is_err() {
            self.buffer.truncate(start);
            self.unwritten.add(line);
            return;
        }
        self.buffer.push(b'\n');
        let room = if self.index == 0 { self.limit / 2 } else { self.limit / (2 * SEGMENTS) };
        if self.file_bytes + self.buffer.len() as u64 > room {
            let this = self.buffer.split_off(start);
            self.flush();
            if self.file_bytes > 0 || self.index == 0 {
                self.next_segment();
            }
            self.buffer = this;
        }
        self.buffered.add(line);
        if self.buffer.len() >= CHUNK_BYTES {
            self.flush();
        }
    }

    /// Writes what was added, whole lines in one call.
    pub fn flush(&mut self) {
        if self.buffer.is_empty() {
            return;
        }
        let amount = std::mem::take(&mut self.buffered);
        if self.file.write_all(&self.buffer).is_ok() {
            self.file_bytes += self.buffer.len() as u64;
            if let Some(segment) = self.segments.back_mut() {
                segment.add(amount);
            }
        } else {
            // What was written of it is cut off, so that the next line starts a line.
            let _ = self.file.set_len(self.file_bytes);
            let _ = self.file.seek(SeekFrom::Start(self.file_bytes));
            self.unwritten.add(amount);
        }
        self.buffer.clear();
    }

    fn next_segment(&mut self) {
        // Where there can be none, the old one goes on growing: better too much than nothing.
        let Ok(file) = create_segment(&self.directory, self.index + 1) else { return };
        if self.index == 0 {
            // The head is never removed.
            self.segments.clear();
        }
        self.index += 1;
        self.file = file;
        self.file_bytes = 0;
        self.segments.push_back(Amount::default());
        if self.index > SEGMENTS {
            // What cannot be removed is only read.
            let removed = fs::remove_file(segment_path(&self.directory, self.index - SEGMENTS));
            if let (Ok(()), Some(segment)) = (removed, self.segments.pop_front()) {
                self.dropped.add(segment);
            }
        }
    }

    /// How much was added, and what of it is not there any more.
    pub fn totals(&self) -> Totals {
        Totals {
            lines: self.all.lines,
            bytes: self.all.bytes,
            dropped_lines: self.dropped.lines,
            dropped_bytes: self.dropped.bytes,
            unwritten_lines: self.unwritten.lines,
            unwritten_bytes: self.unwritten.bytes,
        }
    }
}

fn create_segment(directory: &Path, index: u64) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(segment_path(directory, index))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn a_full_disk_costs_lines_and_they_are_counted() {
        let directory = tempfile::tempdir().unwrap();
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut spool = Spool::over(directory.path().to_owned(), 1 << 20, full);
        spool.add(1, Stream::Out, "one", false);
        spool.add(1, Stream::Err, "three", false);
        spool.flush();
        assert_eq!((spool.totals().unwritten_lines, spool.totals().unwritten_bytes), (2, 8));
        // There is room again.
        spool.file = create_segment(directory.path(), 0).unwrap();
        spool.add(2, Stream::Out, "four", false);
        spool.flush();
        assert_eq!((spool.totals().lines, spool.totals().unwritten_lines), (3, 2));
        let text = fs::read_to_string(directory.path().join("head.jsonl")).unwrap();
        assert_eq!(text, "{\"n\":3,\"b\":8,\"t\":2,\"s\":\"out\",\"l\":\"four\"}\n");
    }
}
