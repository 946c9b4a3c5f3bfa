//! How bytes on disk are checked before they are parsed.
//!
//! Each stored piece of JSON has a head of fixed width that names its length and its checksum in
//! eight lower-case hexadecimal digits each. The head is itself part of the JSON around it, so that
//! a file stays readable by anything that reads JSON. This module has the digits, the templates that
//! heads must match byte for byte, and a scanner that reads a file front to back through one buffer.

use std::io;
use std::path::PathBuf;

use super::disk::DiskFile;
use crate::store::StoreError;

/// Digits of a length or a checksum.
pub(super) const DIGITS: usize = 8;

/// How much the scanner reads at a time.
const CHUNK_BYTES: u64 = 256 * 1024;

/// Writes a number in the form that [`number`] reads.
pub(super) fn digits(value: u32) -> [u8; DIGITS] {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut text = [b'0'; DIGITS];
    for (place, digit) in text.iter_mut().rev().enumerate() {
        *digit = HEX[(value >> (4 * place)) as usize & 0xf];
    }
    text
}

/// Reads eight lower-case hexadecimal digits; anything else, capitals too, is `None`.
pub(super) fn number(text: &[u8]) -> Option<u32> {
    if text.len() != DIGITS {
        return None;
    }
    text.iter().try_fold(0, |value: u32, byte| {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u32::from(digit))
    })
}

/// Whether bytes are the beginning of something that matches a template. A `?` in the template
/// stands for one lower-case hexadecimal digit, any other byte for itself.
pub(super) fn begins(template: &[u8], bytes: &[u8]) -> bool {
    bytes.len() <= template.len()
        && bytes.iter().zip(template).all(|(byte, expected)| match expected {
            b'?' => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
            other => byte == other,
        })
}

/// Something that can be read at any place.
pub(super) trait ReadAt {
    /// Fills the buffer from `offset` on, or fails.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
}

impl ReadAt for [u8] {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let bytes = self.get(start..).and_then(|rest| rest.get(..buffer.len()));
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// An open file that knows its name. The handle outlives the name: who still reads a record from a
/// file that a checkpoint has just removed reads it to the end.
pub(super) struct DataFile {
    /// Where it is, or was.
    pub(super) path: PathBuf,
    /// The handle.
    pub(super) file: Box<dyn DiskFile>,
}

impl DataFile {
    /// An error that names this file.
    pub(super) fn error(&self, source: io::Error) -> StoreError {
        StoreError::Io { path: self.path.clone(), source }
    }
}

impl ReadAt for DataFile {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }
}

/// Why something could not be read.
#[derive(Debug)]
pub(super) enum ReadError {
    /// The system refused.
    Io(io::Error),
    /// The bytes are not what was written.
    Damaged {
        /// Where, from the start of the file.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        ReadError::Io(error)
    }
}

impl ReadError {
    pub(super) fn damaged(offset: u64, reason: impl Into<String>) -> Self {
        ReadError::Damaged { offset, reason: reason.into() }
    }

    /// The error that the caller of the store sees, with the file's name.
    pub(super) fn in_file(self, path: &std::path::Path) -> StoreError {
        let path = path.to_owned();
        match self {
            ReadError::Io(source) => StoreError::Io { path, source },
            ReadError::Damaged { offset, reason } => StoreError::Corrupt { path, offset, reason },
        }
    }
}

/// Reads a source front to back through one buffer, which grows to the largest piece asked for.
pub(super) struct Scanner<'s, S: ?Sized> {
    source: &'s S,
    length: u64,
    start: u64,
    buffer: Vec<u8>,
}

impl<'s, S: ReadAt + ?Sized> Scanner<'s, S> {
    /// A scanner over the first `length` bytes of a source.
    pub(super) fn new(source: &'s S, length: u64) -> Self {
        Self { source, length, start: 0, buffer: Vec::new() }
    }

    /// The number of bytes it covers.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Leaves the zeros at the end out of what it covers. JSON holds no byte of value zero, so these
    /// were never written: some filesystems leave them after a loss of power.
    pub(super) fn trim_zeros(&mut self) -> io::Result<()> {
        let mut chunk = vec![0; CHUNK_BYTES as usize];
        while self.length > 0 {
            let size = self.length.min(CHUNK_BYTES);
            let window = &mut chunk[..size as usize];
            self.source.read_exact_at(window, self.length - size)?;
            match window.iter().rposition(|byte| *byte != 0) {
                Some(last) => {
                    self.length = self.length - size + last as u64 + 1;
                    break;
                }
                None => self.length -= size,
            }
        }
        Ok(())
    }

    /// The bytes from `offset` on: so many, or fewer where the source ends.
    pub(super) fn bytes(&mut self, offset: u64, count: u64) -> io::Result<&[u8]> {
        let end = offset.saturating_add(count).min(self.length);
        let offset = offset.min(end);
        let buffered = self.start..self.start + self.buffer.len() as u64;
        if offset < buffered.start || end > buffered.end {
            let size = (end - offset).max(CHUNK_BYTES).min(self.length - offset);
            self.buffer.resize(size as usize, 0);
            self.start = offset;
            self.source.read_exact_at(&mut self.buffer, offset)?;
        }
        let first = (offset - self.start) as usize;
        Ok(&self.buffer[first..first + (end - offset) as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_read_back_and_capitals_are_not() {
        for value in [0, 1, 0x9abc_def0, u32::MAX] {
            assert_eq!(number(&digits(value)), Some(value));
        }
        assert_eq!(digits(0xab), *b"000000ab");
        assert_eq!(number(b"000000AB"), None);
        assert_eq!(number(b"00000ab"), None);
        assert_eq!(number(b"+00000ab"), None);
    }

    #[test]
    fn scanner_reads_across_its_buffer_and_stops_at_the_end() -> io::Result<()> {
        let bytes: Vec<u8> = (0..600_000_u32).map(|n| (n % 251) as u8).collect();
        let mut scanner = Scanner::new(bytes.as_slice(), bytes.len() as u64);
        let mut offset = 0;
        while offset < 600_000 {
            let piece = scanner.bytes(offset, 7_919)?;
            let expected = &bytes[offset as usize..(offset as usize + 7_919).min(600_000)];
            assert_eq!(piece, expected);
            offset += 7_919;
        }
        assert!(scanner.bytes(600_000, 10)?.is_empty());
        assert!(scanner.bytes(u64::MAX, 10)?.is_empty());
        Ok(())
    }

    #[test]
    fn zeros_at_the_end_are_not_covered() -> io::Result<()> {
        let mut bytes = vec![b'x'; 10];
        bytes.extend(vec![0; 700_000]);
        let mut scanner = Scanner::new(bytes.as_slice(), bytes.len() as u64);
        scanner.trim_zeros()?;
        assert_eq!(scanner.length(), 10);
        let mut scanner = Scanner::new(&bytes[10..], bytes.len() as u64 - 10);
        scanner.trim_zeros()?;
        assert_eq!(scanner.length(), 0);
        Ok(())
    }
}
