//! What comes out of the script's two pipes: lines for the spool, and words for the engine.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use super::now_ms;
use crate::attempt;
use crate::files;
use crate::lines::{Lines, MAX_LINE_BYTES, MAX_WORD_BYTES, Piece};
use crate::mask::Masker;
use crate::output::{Spool, Stream};
use crate::status::{Failure, Progress, Totals};
use crate::words::{self, Word, shorten};

/// How much is read from a pipe at once.
const READ_BYTES: usize = 256 * 1024;
/// At the end, when everything that the attempt started is gone, so much is read at most of each pipe:
/// more than a pipe holds can only come from outside.
const DRAIN_ROUNDS: usize = 16;
/// How many lines of standard error are kept for the error message, and how long each may be.
const TAIL_LINES: usize = 20;
const TAIL_LINE_CHARS: usize = 500;
/// Between two writes of the progress.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// One of the script's two pipes.
struct Source {
    stream: Stream,
    pipe: Option<File>,
    lines: Lines,
}

impl Source {
    fn new(stream: Stream, pipe: File) -> Self {
        Self { stream, pipe: Some(pipe), lines: Lines::default() }
    }

    /// What the pipe holds now. Empty when that is nothing; the pipe is closed at its end.
    fn read<'b>(&mut self, buffer: &'b mut [u8]) -> &'b [u8] {
        let Some(pipe) = &mut self.pipe else { return &[] };
        loop {
            match pipe.read(buffer) {
                Ok(length) if length > 0 => return &buffer[..length],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return &[],
                Ok(_) | Err(_) => {
                    self.pipe = None;
                    return &[];
                }
            }
        }
    }
}

/// Reads the pipes and keeps what they say.
pub(super) struct Collector<'a> {
    directory: &'a Path,
    out: Source,
    err: Source,
    buffer: Vec<u8>,
    /// Read from standard error after what is being handled, see [`Collector::read`].
    held: Vec<u8>,
    log: Log,
    progress_written: Option<Instant>,
}

/// What was collected.
pub(super) struct Collected {
    pub result: Option<serde_json::Value>,
    pub failure: Option<Failure>,
    pub stderr_tail: Vec<String>,
    pub output: Totals,
}

impl<'a> Collector<'a> {
    pub(super) fn new(directory: &'a Path, spool: Spool, masker: Masker, out: File, err: File) -> Self {
        Self {
            directory,
            out: Source::new(Stream::Out, out),
            err: Source::new(Stream::Err, err),
            buffer: vec![0; READ_BYTES],
            held: Vec::new(),
            log: Log {
                spool,
                masker,
                result: None,
                failure: None,
                stderr_tail: VecDeque::new(),
                progress: None,
            },
            progress_written: None,
        }
    }

    /// What to wait for.
    pub(super) fn pipes(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        [&self.out, &self.err].into_iter().filter_map(|source| source.pipe.as_ref()).map(AsFd::as_fd)
    }

    /// When to come back at the latest, though nothing is to be read.
    pub(super) fn due(&self) -> Option<Instant> {
        if !self.held.is_empty() {
            return Some(Instant::now());
        }
        self.log.progress.as_ref().and(self.progress_written).map(|written| written + PROGRESS_INTERVAL)
    }

    /// Reads what the pipes hold now, at most [`READ_BYTES`] of each. Whether that was anything.
    ///
    /// A value that is announced on one stream and then printed on the other must not be seen, though
    /// the pipes keep no order between them. So both are read before what was read of either is
    /// handled, and standard error once more, since something may have come after standard output was
    /// looked at; that is kept for the next time.
    pub(super) fn read(&mut self) -> bool {
        let mut any = false;
        if self.held.is_empty() {
            any |= self.take_in(Stream::Err);
        } else {
            any = true;
            let held = std::mem::take(&mut self.held);
            self.err.lines.push(&held);
        }
        any |= self.take_in(Stream::Out);
        let late = self.err.read(&mut self.buffer);
        self.log.announced(late);
        self.held.extend_from_slice(late);
        self.handle();
        self.write_progress(false);
        any
    }

    fn take_in(&mut self, stream: Stream) -> bool {
        let source = match stream {
            Stream::Out => &mut self.out,
            Stream::Err => &mut self.err,
        };
        let read = source.read(&mut self.buffer);
        self.log.announced(read);
        source.lines.push(read);
        !read.is_empty()
    }

    /// Handles the lines that were read.
    fn handle(&mut self) {
        let now = now_ms();
        let is_err_end = self.err.pipe.is_none() && self.held.is_empty();
        let is_out_end = self.out.pipe.is_none();
        for (source, is_end) in [(&mut self.out, is_out_end), (&mut self.err, is_err_end)] {
            while let Some(piece) = source.lines.next(self.log.masker.longest(), is_end) {
                self.log.take(now, source.stream, &piece);
            }
        }
        self.log.spool.flush();
    }

    fn write_progress(&mut self, is_last: bool) {
        let is_due = self.progress_written.is_none_or(|written| written.elapsed() >= PROGRESS_INTERVAL);
        if !(is_due || is_last) {
            return;
        }
        if let Some(progress) = self.log.progress.take() {
            // It is shown while it lasts; a full disk costs nothing else.
            let _ = files::replace(&self.directory.join(attempt::PROGRESS), &progress);
            self.progress_written = Some(Instant::now());
        }
    }

    /// Reads what is left in the pipes: nothing of the attempt writes any more.
    pub(super) fn finish(mut self) -> Collected {
        for _ in 0..DRAIN_ROUNDS {
            if !self.read() {
                break;
            }
        }
        // Somebody outside may hold their other ends.
        (self.out.pipe, self.err.pipe) = (None, None);
        self.err.lines.push(&std::mem::take(&mut self.held));
        self.handle();
        self.write_progress(true);
        Collected {
            result: self.log.result,
            failure: self.log.failure,
            stderr_tail: self.log.stderr_tail.into(),
            output: self.log.spool.totals(),
        }
    }
}

/// Where lines go.
struct Log {
    spool: Spool,
    masker: Masker,
    result: Option<serde_json::Value>,
    failure: Option<Failure>,
    stderr_tail: VecDeque<String>,
    progress: Option<Progress>,
}

impl Log {
    /// Masks what is announced in what was read, before anything of it is handled.
    fn announced(&mut self, read: &[u8]) {
        for value in words::announced(read) {
            // Refusals are told when the line's turn comes.
            let _ = self.masker.add(value);
        }
    }

    fn take(&mut self, now: u64, stream: Stream, piece: &Piece<'_>) {
        match piece {
            Piece::Line(line) => match words::parse(line) {
                Some(word) => self.hear(now, stream, line, word),
                None => self.print(now, stream, line, 0..line.len(), false),
            },
            Piece::Part { text, range, continues } => {
                self.print(now, stream, text, range.clone(), *continues);
            }
            Piece::LongWord(name) => {
                self.note(now, &format!("a '::{name}' of more than {MAX_WORD_BYTES} bytes is not kept"));
            }
        }
    }

    fn hear(&mut self, now: u64, stream: Stream, line: &[u8], word: Word) {
        match word {
            Word::Mask(value) => {
                if let Err(why) = self.masker.add(&value) {
                    self.note(now, &format!("a value that was announced is not masked: {why}"));
                }
            }
            Word::Progress(progress) => {
                let message = shorten(self.masker.mask_str(&progress.message));
                self.progress = Some(Progress { message, ..progress });
            }
            Word::Result(value) => self.result = Some(self.masker.mask_json(value)),
            Word::BadResult(why) => {
                if line.len() <= MAX_LINE_BYTES {
                    self.print(now, stream, line, 0..line.len(), false);
                }
                self.note(now, &format!("a '::result' is not kept: {}", self.masker.mask_str(&why)));
            }
            Word::Fail(failure) => {
                let message = shorten(self.masker.mask_str(&failure.message));
                self.failure = Some(Failure { message, ..failure });
            }
        }
    }

    fn print(
        &mut self,
        now: u64,
        stream: Stream,
        text: &[u8],
        range: std::ops::Range<usize>,
        continues: bool,
    ) {
        let masked = self.masker.mask_range(text, range);
        let line = String::from_utf8_lossy(&masked);
        self.spool.add(now, stream, &line, continues);
        if stream == Stream::Err {
            if self.stderr_tail.len() == TAIL_LINES {
                self.stderr_tail.pop_front();
            }
            self.stderr_tail.push_back(line.chars().take(TAIL_LINE_CHARS).collect());
        }
    }

    /// Says something in the runner's own name.
    fn note(&mut self, now: u64, text: &str) {
        note(&mut self.spool, now, text);
    }
}

/// Adds a line in the runner's own name.
pub(super) fn note(spool: &mut Spool, now: u64, text: &str) {
    spool.add(now, Stream::Err, &format!("orchestrator: {text}"), false);
}
