//! Packed files: the records of a table as readable JSON.
//!
//! A packed file is a JSON array with one record a line, so that `open` in Nushell shows a table:
//!
//! ```text
//! [
//! {"crc":"5f0c1a2b","len":"000000d4","id":"…","revision":3,"fields":{…},"body":{…}},
//! …
//! ]
//! ```
//!
//! `len` counts the bytes from `"id"` to the closing brace, and `crc` is their CRC-32. The manifest
//! has the length and the checksum of the whole file. A packed file is written once and never
//! changed, so nothing in it may ever be torn.

use std::borrow::Cow;
use std::io;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::frame::{DIGITS, ReadAt, ReadError, Scanner, begins, digits, number};
use super::journal::{Span, span};
use crate::record::{Fields, MAX_ID_BYTES, Revision};

const OPEN: &[u8; 2] = b"[\n";
const CLOSE: &[u8; 3] = b"\n]\n";
const BETWEEN: &[u8; 2] = b",\n";
const HEAD: &[u8; 35] = br#"{"crc":"????????","len":"????????","#;
const CHECKSUM_AT: usize = 8;
const LENGTH_AT: usize = CHECKSUM_AT + DIGITS + 9;

/// The pieces of a packed file that stand before the first record and after the last.
pub(super) fn open_array(buffer: &mut Vec<u8>) {
    buffer.extend_from_slice(OPEN);
}

/// Ends the array.
pub(super) fn close_array(buffer: &mut Vec<u8>) {
    buffer.extend_from_slice(CLOSE);
}

/// Appends a record to a buffer and says where in the buffer its body starts.
pub(super) fn encode(
    buffer: &mut Vec<u8>,
    first: bool,
    id: &str,
    revision: Revision,
    fields: &Fields,
    body: &str,
) -> io::Result<usize> {
    if !first {
        buffer.extend_from_slice(BETWEEN);
    }
    let start = buffer.len();
    buffer.extend_from_slice(HEAD);
    let payload = buffer.len();
    buffer.extend_from_slice(b"\"id\":");
    serde_json::to_writer(&mut *buffer, id)?;
    buffer.extend_from_slice(format!(",\"revision\":{revision},\"fields\":").as_bytes());
    serde_json::to_writer(&mut *buffer, fields)?;
    buffer.extend_from_slice(b",\"body\":");
    let body_at = buffer.len();
    buffer.extend_from_slice(body.as_bytes());
    buffer.push(b'}');
    let length = u32::try_from(buffer.len() - payload).map_err(|_| io::ErrorKind::FileTooLarge)?;
    let checksum = crc32fast::hash(&buffer[payload..]);
    buffer[start + CHECKSUM_AT..][..DIGITS].copy_from_slice(&digits(checksum));
    buffer[start + LENGTH_AT..][..DIGITS].copy_from_slice(&digits(length));
    Ok(body_at)
}

/// A record as a packed file has it.
pub(super) struct PackedRecord {
    pub(super) offset: u64,
    pub(super) id: Box<str>,
    pub(super) revision: Revision,
    pub(super) fields: Fields,
    pub(super) body: Span,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordLine<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    revision: Revision,
    fields: Fields,
    #[serde(borrow)]
    body: &'a RawValue,
}

/// Reads a packed file record by record.
pub(super) struct Reader<'s, S: ?Sized> {
    scanner: Scanner<'s, S>,
    offset: u64,
    checksum: crc32fast::Hasher,
    payload: Vec<u8>,
}

impl<'s, S: ReadAt + ?Sized> Reader<'s, S> {
    /// A reader of a source of `length` bytes.
    pub(super) fn new(source: &'s S, length: u64) -> Self {
        Self {
            scanner: Scanner::new(source, length),
            offset: 0,
            checksum: crc32fast::Hasher::new(),
            payload: Vec::new(),
        }
    }

    /// The checksum of everything read so far.
    pub(super) fn checksum(&self) -> u32 {
        self.checksum.clone().finalize()
    }

    fn take(&mut self, count: u64) -> Result<&[u8], ReadError> {
        let bytes = self.scanner.bytes(self.offset, count)?;
        if (bytes.len() as u64) < count {
            return Err(ReadError::damaged(self.offset, "the file ends too early"));
        }
        self.checksum.update(bytes);
        self.offset += count;
        Ok(bytes)
    }

    /// The next record; `None` at the end of the array, which must be the end of the file.
    pub(super) fn next(&mut self) -> Result<Option<PackedRecord>, ReadError> {
        let at = self.offset;
        if at == 0 {
            if self.take(OPEN.len() as u64)? != OPEN {
                return Err(ReadError::damaged(at, "no array starts here"));
            }
        } else if self.scanner.length() - at == CLOSE.len() as u64 {
            return match self.take(CLOSE.len() as u64)? == CLOSE {
                true => Ok(None),
                false => Err(ReadError::damaged(at, "the array does not end here")),
            };
        } else if self.take(BETWEEN.len() as u64)? != BETWEEN {
            return Err(ReadError::damaged(at, "no record follows here"));
        }
        let offset = self.offset;
        let head = self.take(HEAD.len() as u64)?;
        let field = |at: usize| number(&head[at..at + DIGITS]);
        let (true, Some(checksum), Some(length)) = (begins(HEAD, head), field(CHECKSUM_AT), field(LENGTH_AT))
        else {
            return Err(ReadError::damaged(offset, "no record starts here"));
        };
        let payload_at = self.offset;
        let mut payload = std::mem::take(&mut self.payload);
        payload.clear();
        // The object of the record without what is checked already: an opening brace and the rest.
        payload.push(b'{');
        payload.extend_from_slice(self.take(u64::from(length))?);
        if crc32fast::hash(&payload[1..]) != checksum {
            return Err(ReadError::damaged(offset, "a record has a wrong checksum"));
        }
        let record = parse(&payload, payload_at)
            .map_err(|reason| ReadError::damaged(payload_at, format!("not a record: {reason}")))?;
        self.payload = payload;
        Ok(Some(PackedRecord { offset, ..record }))
    }
}

/// Parses the object of a record whose part after the brace starts at `payload_at` in its file.
fn parse(object: &[u8], payload_at: u64) -> Result<PackedRecord, String> {
    let line: RecordLine<'_> = serde_json::from_slice(object).map_err(|error| error.to_string())?;
    if line.id.is_empty() || line.id.len() > MAX_ID_BYTES || line.revision == 0 {
        return Err(format!("an identifier of {} bytes at revision {}", line.id.len(), line.revision));
    }
    // The body borrows from the object, so its address tells its place.
    let within = line.body.get().as_ptr() as usize - object.as_ptr() as usize - 1;
    let body = span(payload_at + within as u64, line.body.get()).map_err(|error| error.to_string())?;
    Ok(PackedRecord { offset: 0, id: line.id.into(), revision: line.revision, fields: line.fields, body })
}
