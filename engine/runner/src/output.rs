//! The spool: what a script printed, with times, in files of bounded size.
//!
//! Each line is a JSON object: `n` its number, `b` the bytes before it, `t` the time in milliseconds
//! since the Unix epoch, `s` `out` or `err`, `l` the text, and `c` when a line was so long that it goes
//! on in the next one. The first half of the bound is in `head.jsonl`; what comes after is in a ring of
//! four segments, of which the oldest is removed. So the beginning and the end are kept, and a gap in
//! the numbers says how much is missing in between.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The directory in the attempt's directory.
pub const DIRECTORY: &str = "output";
/// How many segments there are after the head.
const SEGMENTS: u64 = 4;
/// How much is read at once.
const CHUNK_BYTES: usize = 256 * 1024;

/// Where a line was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// A line of the spool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Its number; 1 for the first.
    #[serde(rename = "n")]
    pub number: u64,
    /// The bytes of all lines before it.
    #[serde(rename = "b")]
    pub bytes_before: u64,
    /// When it was read, in milliseconds since the Unix epoch.
    #[serde(rename = "t")]
    pub time_ms: u64,
    /// Where it was written.
    #[serde(rename = "s")]
    pub stream: Stream,
    /// The text, masked, without its end.
    #[serde(rename = "l")]
    pub text: String,
    /// Whether the next line of the stream goes on with it.
    #[serde(rename = "c", default, skip_serializing_if = "std::ops::Not::not")]
    pub continues: bool,
}

fn segment_path(directory: &Path, index: u64) -> PathBuf {
    match index {
        0 => directory.join("head.jsonl"),
        index => directory.join(format!("tail-{index:08}.jsonl")),
    }
}

/// Writes the spool.
#[derive(Debug)]
pub struct Spool {
    directory: PathBuf,
    limit: u64,
    index: u64,
    file: File,
    file_bytes: u64,
    buffer: Vec<u8>,
    lines: u64,
    bytes: u64,
    unwritten: u64,
}

impl Spool {
    /// An empty spool below an attempt's directory.
    pub fn create(attempt: &Path, limit_bytes: u64) -> io::Result<Self> {
        let directory = attempt.join(DIRECTORY);
        fs::create_dir(&directory)?;
        let file = create_segment(&directory, 0)?;
        Ok(Self {
            directory,
            limit: limit_bytes,
            index: 0,
            file,
            file_bytes: 0,
            buffer: Vec::new(),
            lines: 0,
            bytes: 0,
            unwritten: 0,
        })
    }

    /// Adds a line; it is written by [`Spool::flush`] at the latest.
    pub fn add(&mut self, time_ms: u64, stream: Stream, text: &str, continues: bool) {
        self.lines += 1;
        let line = Line {
            number: self.lines,
            bytes_before: self.bytes,
            time_ms,
            stream,
            text: text.to_owned(),
            continues,
        };
        self.bytes += text.len() as u64;
        let start = self.buffer.len();
        if serde_json::to_writer(&mut self.buffer, &line).is_err() {
            self.buffer.truncate(start);
            self.unwritten += 1;
            return;
        }
        self.buffer.push(b'\n');
        let room = if self.index == 0 { self.limit / 2 } else { self.limit / (2 * SEGMENTS) };
        if self.file_bytes + self.buffer.len() as u64 > room {
            self.flush();
            if self.file_bytes >= room && self.next_segment().is_err() {
                // The old segment goes on growing: better too much than nothing.
            }
        } else if self.buffer.len() >= CHUNK_BYTES {
            self.flush();
        }
    }

    /// Writes what was added.
    pub fn flush(&mut self) {
        if self.buffer.is_empty() {
            return;
        }
        if self.file.write_all(&self.buffer).is_err() {
            // What was written of it is cut off, so that the next line starts a line.
            let _ = self.file.set_len(self.file_bytes);
            let _ = self.file.seek(SeekFrom::Start(self.file_bytes));
            self.unwritten += memchr::memchr_iter(b'\n', &self.buffer).count() as u64;
        } else {
            self.file_bytes += self.buffer.len() as u64;
        }
        self.buffer.clear();
    }

    fn next_segment(&mut self) -> io::Result<()> {
        let file = create_segment(&self.directory, self.index + 1)?;
        self.index += 1;
        self.file = file;
        self.file_bytes = 0;
        if self.index > SEGMENTS {
            fs::remove_file(segment_path(&self.directory, self.index - SEGMENTS))?;
        }
        Ok(())
    }

    /// Lines, bytes, and lines that could not be written.
    pub fn totals(&self) -> crate::status::Totals {
        crate::status::Totals { lines: self.lines, bytes: self.bytes, unwritten_lines: self.unwritten }
    }
}

fn create_segment(directory: &Path, index: u64) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(segment_path(directory, index))
}

/// What a reader finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A line.
    Line(Line),
    /// So many lines are missing here.
    Dropped {
        /// Lines.
        lines: u64,
        /// Bytes.
        bytes: u64,
    },
}

/// Reads the spool, also while it grows.
#[derive(Debug)]
pub struct Reader {
    directory: PathBuf,
    current: Option<(u64, File)>,
    rest: Vec<u8>,
    last: u64,
    bytes: u64,
}

impl Reader {
    /// From the first line on. The attempt need not have started yet.
    pub fn open(attempt: &Path) -> Self {
        Self { directory: attempt.join(DIRECTORY), current: None, rest: Vec::new(), last: 0, bytes: 0 }
    }

    /// What is there and was not read before, at most about 256 KiB of it. Empty when there is nothing
    /// now.
    pub fn read(&mut self) -> io::Result<Vec<Entry>> {
        loop {
            let Some((index, file)) = &mut self.current else {
                match File::open(segment_path(&self.directory, 0)) {
                    Ok(file) => self.current = Some((0, file)),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
                    Err(error) => return Err(error),
                }
                continue;
            };
            // Looked for before the last read, so that nothing comes in between.
            let next = next_segment(&self.directory, *index)?;
            let read = Read::by_ref(file).take(CHUNK_BYTES as u64).read_to_end(&mut self.rest)?;
            let entries = self.take_lines()?;
            if !entries.is_empty() {
                return Ok(entries);
            }
            if read == 0 {
                let Some(next) = next else { return Ok(Vec::new()) };
                match File::open(segment_path(&self.directory, next)) {
                    Ok(file) => {
                        self.rest.clear();
                        self.current = Some((next, file));
                    }
                    // Removed in this moment: a later one is there.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }

    fn take_lines(&mut self) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', &self.rest) {
            let line: Line = serde_json::from_slice(&self.rest[start..end]).map_err(|error| {
                io::Error::new(io::ErrorKind::InvalidData, format!("a line of the spool: {error}"))
            })?;
            start = end + 1;
            if line.number > self.last + 1 {
                let (lines, bytes) =
                    (line.number - self.last - 1, line.bytes_before.saturating_sub(self.bytes));
                entries.push(Entry::Dropped { lines, bytes });
            }
            self.last = line.number;
            self.bytes = line.bytes_before + line.text.len() as u64;
            entries.push(Entry::Line(line));
        }
        self.rest.drain(..start);
        Ok(entries)
    }
}

/// The oldest segment after one, if there is any.
fn next_segment(directory: &Path, index: u64) -> io::Result<Option<u64>> {
    let numbers = fs::read_dir(directory)?.filter_map(|entry| {
        let name = entry.ok()?.file_name();
        name.to_str()?.strip_prefix("tail-")?.strip_suffix(".jsonl")?.parse::<u64>().ok()
    });
    Ok(numbers.filter(|number| *number > index).min())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

    use super::*;

    fn read_all(reader: &mut Reader) -> Vec<Entry> {
        let mut all = Vec::new();
        loop {
            let entries = reader.read().unwrap();
            if entries.is_empty() {
                return all;
            }
            all.extend(entries);
        }
    }

    #[test]
    fn a_reader_follows_what_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let mut reader = Reader::open(directory.path());
        assert_eq!(read_all(&mut reader), []);
        let mut spool = Spool::create(directory.path(), 1 << 20).unwrap();
        spool.add(1, Stream::Out, "one", false);
        spool.flush();
        assert_eq!(read_all(&mut reader).len(), 1);
        spool.add(2, Stream::Err, "two", false);
        assert_eq!(read_all(&mut reader), []);
        spool.flush();
        let [Entry::Line(line)] = &read_all(&mut reader)[..] else { panic!("not one line") };
        assert_eq!((line.number, line.stream, line.text.as_str()), (2, Stream::Err, "two"));
    }

    #[test]
    fn the_beginning_and_the_end_are_kept_and_the_gap_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let limit = 64 * 1024;
        let mut spool = Spool::create(directory.path(), limit).unwrap();
        let total = 20_000_u64;
        for number in 1..=total {
            spool.add(number, Stream::Out, &format!("line {number}"), false);
        }
        spool.flush();
        let stored: u64 = fs::read_dir(directory.path().join(DIRECTORY))
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap().len())
            .sum();
        assert!(stored <= limit + limit / 4, "{stored} bytes are kept of {limit}");
        let entries = read_all(&mut Reader::open(directory.path()));
        let (mut lines, mut dropped) = (0, 0);
        for entry in &entries {
            match entry {
                Entry::Line(_) => lines += 1,
                Entry::Dropped { lines, bytes } => {
                    dropped += lines;
                    assert!(*bytes > 0);
                }
            }
        }
        assert_eq!(lines + dropped, total);
        assert!(matches!(entries.first(), Some(Entry::Line(line)) if line.number == 1));
        assert!(matches!(entries.last(), Some(Entry::Line(line)) if line.number == total));
        assert_eq!(entries.iter().filter(|entry| matches!(entry, Entry::Dropped { .. })).count(), 1);
    }
}
