//! The reader of the spool, in the engine: also while it grows, also while its middle is dropped.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::{CHUNK_BYTES, DIRECTORY, Line, Stream, segment_path};

/// What a reader finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A line.
    Line(Line),
    /// So many lines are missing here, of both streams.
    Dropped {
        /// Lines.
        lines: u64,
        /// Bytes.
        bytes: u64,
    },
}

/// Where a reader is. As text it is a token, with which another reader can go on, also in another
/// process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Position {
    segment: u64,
    offset: u64,
    /// The number of the last line that was read.
    last: u64,
    /// The bytes of all lines up to it.
    bytes: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}.{}.{}", self.segment, self.offset, self.last, self.bytes)
    }
}

/// A text that is no [`Position`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a position in an output: four numbers with dots between them are")]
pub struct PositionError;

impl FromStr for Position {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Self, PositionError> {
        let numbers: Vec<u64> =
            text.split('.').map(str::parse).collect::<Result<_, _>>().map_err(|_| PositionError)?;
        let [segment, offset, last, bytes] = numbers[..] else { return Err(PositionError) };
        Ok(Self { segment, offset, last, bytes })
    }
}

/// Reads the spool, also while it grows.
#[derive(Debug)]
pub struct Reader {
    directory: PathBuf,
    /// Of what was handed on.
    position: Position,
    file: Option<File>,
    /// What was read from the file after the position.
    rest: Vec<u8>,
    stream: Option<Stream>,
}

impl Reader {
    /// From the first line on. The attempt need not have started yet.
    pub fn open(attempt: &Path) -> Self {
        Self::resume(attempt, Position::default())
    }

    /// From a position on.
    pub fn resume(attempt: &Path, position: Position) -> Self {
        Self { directory: attempt.join(DIRECTORY), position, file: None, rest: Vec::new(), stream: None }
    }

    /// From the last so many lines on; of one stream, where one is given. Takes no longer when the
    /// output is long.
    pub fn last(attempt: &Path, lines: u64, stream: Option<Stream>) -> io::Result<Self> {
        if lines == 0 {
            let mut reader = Self::last(attempt, 1, None)?;
            while !reader.read()?.is_empty() {}
            return Ok(Self { stream, ..reader });
        }
        let mut reader = Self { stream, ..Self::open(attempt) };
        let mut wanted = lines;
        for segment in segments(&reader.directory)?.into_iter().rev() {
            let file = match File::open(segment_path(&reader.directory, segment)) {
                Ok(file) => file,
                // Dropped in this moment.
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                Err(error) => return Err(error),
            };
            if let Some((offset, first)) = seek_back(&file, &mut wanted, stream)? {
                reader.position = Position {
                    segment,
                    offset,
                    last: first.number.saturating_sub(1),
                    bytes: first.bytes_before,
                };
            }
            if wanted == 0 {
                break;
            }
        }
        Ok(reader)
    }

    /// Only the lines of one stream; what is missing is told as before.
    #[must_use]
    pub fn only(self, stream: Stream) -> Self {
        Self { stream: Some(stream), ..self }
    }

    /// Where it is: after what was read last.
    pub fn position(&self) -> Position {
        self.position
    }

    /// What is there and was not read before, at most about 256 KiB of it. Empty when there is nothing
    /// now.
    pub fn read(&mut self) -> io::Result<Vec<Entry>> {
        loop {
            let Some(file) = &mut self.file else {
                if !self.open_segment()? {
                    return Ok(Vec::new());
                }
                continue;
            };
            // Looked for before the last read, so that nothing comes in between.
            let next = next_segment(&self.directory, self.position.segment)?;
            let read = Read::by_ref(file).take(CHUNK_BYTES as u64).read_to_end(&mut self.rest)?;
            let entries = self.take_lines()?;
            if !entries.is_empty() {
                return Ok(entries);
            }
            if read == 0 {
                let Some(next) = next else { return Ok(Vec::new()) };
                self.go_to(next);
            }
        }
    }

    /// Opens the segment of the position, or the oldest after it. `false` where there is none.
    fn open_segment(&mut self) -> io::Result<bool> {
        match File::open(segment_path(&self.directory, self.position.segment)) {
            Ok(mut file) => {
                file.seek(SeekFrom::Start(self.position.offset))?;
                self.file = Some(file);
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Dropped since.
                let next = next_segment(&self.directory, self.position.segment)?;
                if let Some(next) = next {
                    self.go_to(next);
                }
                Ok(next.is_some())
            }
            Err(error) => Err(error),
        }
    }

    fn go_to(&mut self, segment: u64) {
        self.file = None;
        self.rest.clear();
        self.position = Position { segment, offset: 0, ..self.position };
    }

    fn take_lines(&mut self) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', &self.rest) {
            let line = parse(&self.rest[start..end])?;
            start = end + 1;
            let missing = line.number.saturating_sub(self.position.last + 1);
            if missing > 0 {
                let bytes = line.bytes_before.saturating_sub(self.position.bytes);
                entries.push(Entry::Dropped { lines: missing, bytes });
            }
            self.position.last = line.number;
            self.position.bytes = line.bytes_before + line.text.len() as u64;
            if self.stream.is_none_or(|stream| stream == line.stream) {
                entries.push(Entry::Line(line));
            }
        }
        self.position.offset += start as u64;
        self.rest.drain(..start);
        Ok(entries)
    }
}

fn parse(line: &[u8]) -> io::Result<Line> {
    serde_json::from_slice(line)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("a line of the spool: {error}")))
}

/// From a segment's end, the place of the first of the last `wanted` lines in it, and that line. Counts
/// `wanted` down.
fn seek_back(file: &File, wanted: &mut u64, stream: Option<Stream>) -> io::Result<Option<(u64, Line)>> {
    let mut found = None;
    let mut from = file.metadata()?.len();
    // From `from` on, what belongs to a line that begins before.
    let mut chunk = Vec::new();
    while from > 0 && *wanted > 0 {
        let length = from.min(CHUNK_BYTES as u64);
        from -= length;
        let mut before = vec![0; usize::try_from(length).unwrap_or(CHUNK_BYTES)];
        file.read_exact_at(&mut before, from)?;
        before.append(&mut chunk);
        chunk = before;
        // What stands after the last line end is not whole yet.
        let Some(mut end) = memchr::memrchr(b'\n', &chunk) else { continue };
        while *wanted > 0 {
            let start = match memchr::memrchr(b'\n', &chunk[..end]) {
                Some(line_end) => line_end + 1,
                None if from == 0 => 0,
                None => break,
            };
            let line = parse(&chunk[start..end])?;
            if stream.is_none_or(|stream| stream == line.stream) {
                *wanted -= 1;
            }
            found = Some((from + start as u64, line));
            if start == 0 {
                break;
            }
            end = start - 1;
        }
        chunk.truncate(end + 1);
    }
    Ok(found)
}

/// The numbers of the segments that are there, oldest first; 0 is the head.
fn segments(directory: &Path) -> io::Result<Vec<u64>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut numbers = vec![0];
    numbers.extend(entries.filter_map(|entry| {
        let name = entry.ok()?.file_name();
        name.to_str()?.strip_prefix("tail-")?.strip_suffix(".jsonl")?.parse::<u64>().ok()
    }));
    numbers.sort_unstable();
    Ok(numbers)
}

/// The oldest segment after one, if there is any.
fn next_segment(directory: &Path, index: u64) -> io::Result<Option<u64>> {
    Ok(segments(directory)?.into_iter().find(|number| *number > index))
}

#[cfg(test)]
mod tests;
