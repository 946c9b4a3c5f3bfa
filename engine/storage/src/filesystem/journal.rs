//! The journal: what a commit writes and syncs.
//!
//! A journal file is a row of commits. Each is one JSON array on a line of its own (a body that
//! holds line breaks keeps them):
//!
//! ```text
//! ["0000006e","5f0c1a2b","91d3c07e",{"seq":7,"ops":[{"put":{"table":"task",…,"body":{…}}}]}]
//!   length     checksum   of the two before
//! ```
//!
//! The length and the checksum (CRC-32) are those of the object. The third number is the checksum of
//! the head itself, so that a damaged length is told from a commit that was cut short: only the
//! latter may be dropped. [`read`] is the whole of reading as a pure function.

use std::borrow::Cow;
use std::io;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::frame::{DIGITS, ReadAt, ReadError, Scanner, begins, digits, number};
use crate::record::{Change, Fields, Key, MAX_ID_BYTES, Operation, Revision, Sequence, Table};
use crate::request::revision_after;

const HEAD: &[u8; 34] = br#"["????????","????????","????????","#;
const TAIL: &[u8; 2] = b"]\n";
const LENGTH_AT: usize = 2;
const CHECKSUM_AT: usize = LENGTH_AT + DIGITS + 3;
const HEAD_CHECKSUM_AT: usize = CHECKSUM_AT + DIGITS + 3;

/// Where the body of a put lies, from the start of the buffer or file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) offset: u64,
    pub(super) length: u32,
    pub(super) checksum: u32,
}

/// Appends a commit to a buffer and says where the bodies are in it, one for each put.
///
/// # Errors
/// When the commit is longer than a length can say, or cannot be written as JSON. The buffer is
/// then as it was.
pub(super) fn encode(
    buffer: &mut Vec<u8>,
    sequence: Sequence,
    operations: &[Operation],
) -> io::Result<Vec<Span>> {
    let start = buffer.len();
    let result = encode_unchecked(buffer, sequence, operations);
    if result.is_err() {
        buffer.truncate(start);
    }
    result
}

fn encode_unchecked(
    buffer: &mut Vec<u8>,
    sequence: Sequence,
    operations: &[Operation],
) -> io::Result<Vec<Span>> {
    let start = buffer.len();
    buffer.extend_from_slice(HEAD);
    let payload = buffer.len();
    let mut spans = Vec::new();
    buffer.extend_from_slice(format!("{{\"seq\":{sequence},\"ops\":[").as_bytes());
    let mut first = true;
    for operation in operations {
        let (word, fields) = match &operation.change {
            Change::Put { fields, body } => ("put", Some((fields, body))),
            Change::Import { fields, body, .. } => ("import", Some((fields, body))),
            Change::Delete => ("delete", None),
            Change::Check => continue,
        };
        if !first {
            buffer.push(b',');
        }
        first = false;
        buffer.extend_from_slice(
            format!("{{\"{word}\":{{\"table\":\"{}\",\"id\":", operation.key.table).as_bytes(),
        );
        serde_json::to_writer(&mut *buffer, &*operation.key.id)?;
        if let Some((fields, body)) = fields {
            let revision = revision_after(operation);
            buffer.extend_from_slice(format!(",\"revision\":{revision},\"fields\":").as_bytes());
            serde_json::to_writer(&mut *buffer, fields)?;
            buffer.extend_from_slice(b",\"body\":");
            spans.push(span(buffer.len() as u64, body.get())?);
            buffer.extend_from_slice(body.get().as_bytes());
        }
        buffer.extend_from_slice(b"}}");
    }
    buffer.extend_from_slice(b"]}");
    let length = u32::try_from(buffer.len() - payload).map_err(|_| io::ErrorKind::FileTooLarge)?;
    let checksum = crc32fast::hash(&buffer[payload..]);
    buffer.extend_from_slice(TAIL);
    let head = &mut buffer[start..payload];
    head[LENGTH_AT..][..DIGITS].copy_from_slice(&digits(length));
    head[CHECKSUM_AT..][..DIGITS].copy_from_slice(&digits(checksum));
    let own = crc32fast::hash(&head[..HEAD_CHECKSUM_AT]);
    head[HEAD_CHECKSUM_AT..][..DIGITS].copy_from_slice(&digits(own));
    Ok(spans)
}

/// The span of a body that starts at `offset`.
pub(super) fn span(offset: u64, body: &str) -> io::Result<Span> {
    let length = u32::try_from(body.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
    Ok(Span { offset, length, checksum: crc32fast::hash(body.as_bytes()) })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CommitLine<'a> {
    seq: Sequence,
    #[serde(borrow)]
    ops: Vec<OperationLine<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum OperationLine<'a> {
    #[serde(borrow)]
    Put(PutLine<'a>),
    /// As a put, but its revision need not follow from the one before.
    #[serde(borrow)]
    Import(PutLine<'a>),
    #[serde(borrow)]
    Delete(DeleteLine<'a>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PutLine<'a> {
    table: Table,
    #[serde(borrow)]
    id: Cow<'a, str>,
    revision: Revision,
    fields: Fields,
    #[serde(borrow)]
    body: &'a RawValue,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DeleteLine<'a> {
    table: Table,
    #[serde(borrow)]
    id: Cow<'a, str>,
}

/// A commit as a journal has it.
#[derive(Debug, PartialEq, Eq)]
pub struct JournalCommit {
    /// Where it starts, in bytes.
    pub(super) offset: u64,
    /// How long it is, in bytes.
    pub(super) length: u64,
    /// Its number.
    pub(super) sequence: Sequence,
    /// What it changed.
    pub(super) operations: Vec<JournalOperation>,
}

/// A change as a journal has it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct JournalOperation {
    pub(super) key: Key,
    /// `None` for a removal.
    pub(super) put: Option<(Revision, Fields, Span)>,
    /// Whether the revision was chosen by whoever copied the record.
    pub(super) imported: bool,
}

impl JournalCommit {
    /// The commit's number.
    pub fn sequence(&self) -> Sequence {
        self.sequence
    }

    /// The records it wrote or removed.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.operations.iter().map(|operation| &operation.key)
    }
}

/// What a journal holds.
#[derive(Debug, PartialEq, Eq)]
pub struct Journal {
    /// The commits, in order.
    pub commits: Vec<JournalCommit>,
    /// Up to where the file is whole, in bytes.
    pub whole_bytes: u64,
    /// How many bytes of a commit that was cut short follow.
    pub torn_bytes: u64,
}

/// A journal that was changed by something other than the store.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the journal is damaged at byte {offset}: {reason}")]
pub struct Damaged {
    /// Where, in bytes.
    pub offset: u64,
    /// What is wrong.
    pub reason: String,
}

/// Reads a whole journal that lies in memory: its commits, and how much of a torn one follows.
///
/// # Errors
/// [`Damaged`] for anything but whole commits and, at the end, the beginning of one.
pub fn read(bytes: &[u8]) -> Result<Journal, Damaged> {
    let damaged = |error| match error {
        ReadError::Damaged { offset, reason } => Damaged { offset, reason },
        ReadError::Io(error) => Damaged { offset: 0, reason: error.to_string() },
    };
    let total = bytes.len() as u64;
    let mut reader = Reader::new(bytes, total).map_err(damaged)?;
    let mut commits = Vec::new();
    while let Some(commit) = reader.next().map_err(damaged)? {
        commits.push(commit);
    }
    let whole_bytes = reader.whole_bytes();
    Ok(Journal { commits, whole_bytes, torn_bytes: total - whole_bytes })
}

/// Reads a journal commit by commit, holding one at a time in memory.
pub(super) struct Reader<'s, S: ?Sized> {
    scanner: Scanner<'s, S>,
    offset: u64,
}

impl<'s, S: ReadAt + ?Sized> Reader<'s, S> {
    /// A reader of a source of `length` bytes.
    pub(super) fn new(source: &'s S, length: u64) -> Result<Self, ReadError> {
        let mut scanner = Scanner::new(source, length);
        scanner.trim_zeros()?;
        Ok(Self { scanner, offset: 0 })
    }

    /// Up to where it has read whole commits.
    pub(super) fn whole_bytes(&self) -> u64 {
        self.offset
    }

    /// The next whole commit; `None` at the end, be it clean or torn.
    pub(super) fn next(&mut self) -> Result<Option<JournalCommit>, ReadError> {
        let offset = self.offset;
        let head = self.scanner.bytes(offset, HEAD.len() as u64)?;
        if !begins(HEAD, head) {
            return Err(ReadError::damaged(offset, "no commit starts here"));
        }
        if head.len() < HEAD.len() {
            return Ok(None);
        }
        let field = |at: usize| number(&head[at..at + DIGITS]);
        let own = crc32fast::hash(&head[..HEAD_CHECKSUM_AT]);
        let (Some(length), Some(checksum)) = (field(LENGTH_AT), field(CHECKSUM_AT)) else {
            return Err(ReadError::damaged(offset, "no commit starts here"));
        };
        if field(HEAD_CHECKSUM_AT) != Some(own) {
            return Err(ReadError::damaged(offset, "the head of a commit has a wrong checksum"));
        }
        let payload_at = offset + HEAD.len() as u64;
        let tail_at = payload_at + u64::from(length);
        let end = tail_at + TAIL.len() as u64;
        if end > self.scanner.length() {
            return Ok(None);
        }
        let bytes = self.scanner.bytes(payload_at, end - payload_at)?;
        let (payload, tail) = bytes.split_at(bytes.len() - TAIL.len());
        if crc32fast::hash(payload) != checksum {
            return Err(ReadError::damaged(offset, "a commit has a wrong checksum"));
        }
        if tail != TAIL {
            return Err(ReadError::damaged(tail_at, "a commit does not end where it should"));
        }
        let commit = parse(payload, payload_at)
            .map_err(|reason| ReadError::damaged(payload_at, format!("not a commit: {reason}")))?;
        self.offset = end;
        Ok(Some(JournalCommit { offset, length: end - offset, ..commit }))
    }
}

/// Parses the object of a commit that starts at `payload_at` in its file.
fn parse(payload: &[u8], payload_at: u64) -> Result<JournalCommit, String> {
    let line: CommitLine<'_> = serde_json::from_slice(payload).map_err(|error| error.to_string())?;
    let mut operations = Vec::with_capacity(line.ops.len());
    for operation in line.ops {
        let imported = matches!(operation, OperationLine::Import(_));
        let (table, id, put) = match operation {
            OperationLine::Put(line) | OperationLine::Import(line) => {
                let PutLine { table, id, revision, fields, body } = line;
                // The body borrows from the payload, so its address tells its place.
                let within = body.get().as_ptr() as usize - payload.as_ptr() as usize;
                let span = span(payload_at + within as u64, body.get()).map_err(|e| e.to_string())?;
                (table, id, Some((revision, fields, span)))
            }
            OperationLine::Delete(DeleteLine { table, id }) => (table, id, None),
        };
        if id.is_empty() || id.len() > MAX_ID_BYTES {
            return Err(format!("an identifier of {} bytes", id.len()));
        }
        operations.push(JournalOperation { key: Key::new(table, &*id), put, imported });
    }
    Ok(JournalCommit { offset: 0, length: 0, sequence: line.seq, operations })
}

#[cfg(test)]
mod tests;
