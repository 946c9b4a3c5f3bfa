//! Records in a file that any release can read: JSON lines.
//!
//! ```text
//! {"crc":"5f0c1a2b","header":{"format":"orchestrator-records","version":1,"epoch":0,"records":2}}
//! {"crc":"91d3c07e","record":{"table":"task","id":"…","revision":3,"fields":{…},"body":"{…}"}}
//! {"crc":"0c77e1d4","record":{…}}
//! {"crc":"8a1f20b3","end":{"records":2,"checksum":"…"}}
//! ```
//!
//! The number is the CRC-32 of what stands behind the comma, without the last brace, so that a line that
//! was changed is named. Lines that are missing, doubled or out of order are noticed by the order of the
//! keys, the count and the checksum, which is that of the store
//! ([`Tally::checksum`](super::content::Tally::checksum)). A body is a
//! string, because it comes back byte for byte, line breaks included. Records come table by table, each
//! in ascending order. What a store says of itself is not exported.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::content::{Tally, Walk, counted, same};
use super::state::{Epoch, Place, StorageState, read_state};
use super::target::Target;
use super::{MigrationError, Phase, Steering};
use crate::record::{Change, Expect, Fields, Key, MAX_ID_BYTES, Operation, Record, Revision, Table};
use crate::store::Store;

/// What a file is called where a storage is named.
pub const BACKEND: &str = "file";
/// The version that this release writes, and the newest that it reads.
const VERSION: u32 = 1;
const FORMAT: &str = "orchestrator-records";

/// No line is longer, in bytes.
const MAX_LINE: u64 = 2 * 1024 * 1024 * 1024;

/// A commit to the target holds so many records, or so many bytes of bodies.
const BATCH_RECORDS: usize = 500;
const BATCH_BYTES: usize = 1024 * 1024;

/// Why a file could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum PortableError {
    /// The file cannot be written or read.
    #[error("{} cannot be used", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// The system's words.
        #[source]
        source: io::Error,
    },
    /// The file is not whole. Nothing was imported.
    #[error("{} is damaged at line {line}: {reason}", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// Which line, counted from 1.
        line: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// The file was written by a newer release.
    #[error("{} has version {found}, and this release knows versions up to {VERSION}", path.display())]
    Newer {
        /// Which.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// The store failed, or may not be used for this.
    #[error(transparent)]
    Store(#[from] MigrationError),
}

/// What was exported or imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// How many records.
    pub records: u64,
    /// What they add up to.
    pub checksum: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    format: String,
    version: u32,
    epoch: Epoch,
    records: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordLine {
    table: Table,
    id: String,
    revision: Revision,
    fields: Fields,
    body: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct End {
    records: u64,
    checksum: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line {
    Header(Header),
    Record(RecordLine),
    End(End),
}

const HEAD: &str = "{\"crc\":\"";
const DIGITS: usize = 8;

/// Writes the records of a store that nobody else writes to into a new file, which its owner alone may read.
/// The file appears under its name only when it is whole and durable.
///
/// # Errors
/// Those of the store, which must be the truth, and of the file. A file of that name is not overwritten.
pub async fn export(store: &dyn Store, path: &Path, steering: &Steering) -> Result<Moved, PortableError> {
    let file_error = |source| PortableError::File { path: path.to_owned(), source };
    let held = read_state(store).await.map_err(MigrationError::Source)?;
    let epoch = match &held.state {
        StorageState::Active { epoch } => *epoch,
        StorageState::Sealed { to, .. } => return Err(MigrationError::SourceSealed { to: to.clone() }.into()),
        StorageState::Migrating { from, .. } | StorageState::Ready { from, .. } => {
            return Err(MigrationError::SourceIncomplete { from: from.clone() }.into());
        }
    };
    if path.symlink_metadata().is_ok() {
        return Err(file_error(io::Error::new(io::ErrorKind::AlreadyExists, "it exists already")));
    }
    let mut scratch = path.as_os_str().to_owned();
    scratch.push(".part");
    let scratch = PathBuf::from(scratch);
    match std::fs::remove_file(&scratch) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(file_error(error)),
        _ => {}
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&scratch);
    let written = match file {
        Ok(file) => write_records(store, epoch, file, path, steering).await,
        Err(error) => Err(file_error(error)),
    };
    // An engine that begins to work on the records writes their state anew, and its changes need not show in
    // how many there are.
    let written = match (written, read_state(store).await) {
        (Ok(_), Ok(now)) if now.expect != held.expect => Err(MigrationError::NotAlone(
            "an engine has begun to work on the records meanwhile: stop it and begin again".to_owned(),
        )
        .into()),
        (Ok(_), Err(error)) => Err(MigrationError::Source(error).into()),
        (written, _) => written,
    };
    let moved = match written {
        Ok(moved) => moved,
        Err(error) => {
            // Half a file is of no use; that it could not be written is what is told.
            let _ = std::fs::remove_file(&scratch);
            return Err(error);
        }
    };
    std::fs::rename(&scratch, path).map_err(file_error)?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent).and_then(|parent| parent.sync_all()).map_err(file_error)?;
    steering.enter(Phase::Done, moved.records);
    Ok(moved)
}

async fn write_records(
    store: &dyn Store,
    epoch: Epoch,
    file: File,
    path: &Path,
    steering: &Steering,
) -> Result<Moved, PortableError> {
    let file_error = |source| PortableError::File { path: path.to_owned(), source };
    let mut file = BufWriter::new(file);
    let records = counted(store).await.map_err(MigrationError::Source)?;
    let mut write = |line: &Line| write_line(&mut file, line).map_err(file_error);
    write(&Line::Header(Header { format: FORMAT.into(), version: VERSION, epoch, records }))?;
    steering.enter(Phase::Copying, records);
    let mut tally = Tally::default();
    for table in Table::ALL {
        let mut walk = Walk::new(store, table);
        while let Some(record) = walk.next().await.map_err(MigrationError::Source)? {
            tally.add(&record);
            steering.reach(tally.records);
            steering.check()?;
            write(&Line::Record(RecordLine {
                table,
                id: record.key.id.to_string(),
                revision: record.revision,
                fields: record.fields,
                body: record.body.get().to_owned(),
            }))?;
        }
    }
    write(&Line::End(End { records: tally.records, checksum: tally.checksum() }))?;
    let file = file.into_inner().map_err(|error| file_error(error.into_error()))?;
    file.sync_all().map_err(file_error)?;
    match tally.records == records {
        true => Ok(Moved { records, checksum: tally.checksum() }),
        false => Err(MigrationError::Outrun.into()),
    }
}

fn write_line(file: &mut impl Write, line: &Line) -> io::Result<()> {
    let object = serde_json::to_string(line)?;
    // Without its braces: the line is the outer object.
    let inner = &object[1..object.len() - 1];
    writeln!(file, "{HEAD}{:08x}\",{inner}}}", crc32fast::hash(inner.as_bytes()))
}

/// Reads a file to its end and says what is in it, without importing anything.
///
/// # Errors
/// [`PortableError::Damaged`], which names the line, and [`PortableError::Newer`].
pub fn check(path: &Path) -> Result<Moved, PortableError> {
    let mut lines = Lines::open(path)?;
    while lines.next()?.is_some() {}
    Ok(Moved { records: lines.tally.records, checksum: lines.tally.checksum() })
}

/// Reads a file into a store: into an empty one, or one in which an import of this file was broken off.
/// The whole file is checked first. Until everything is in and was compared, an engine refuses to start
/// on the store.
///
/// # Errors
/// Those of the file, when nothing was imported, and of the store.
pub async fn import(path: &Path, target: &dyn Store, steering: &Steering) -> Result<Moved, PortableError> {
    let checked = check(path)?;
    let from = Place { backend: BACKEND.into(), location: path.display().to_string() };
    let found = read_state(target).await.map_err(MigrationError::Target)?;
    let is_begun = match found.state.clone() {
        StorageState::Migrating { from: of, .. } if of == from => true,
        StorageState::Migrating { from, .. } | StorageState::Ready { from, .. } => {
            return Err(MigrationError::TargetTaken { from }.into());
        }
        StorageState::Sealed { to, .. } => return Err(MigrationError::TargetSealed { to }.into()),
        StorageState::Active { .. } => match counted(target).await.map_err(MigrationError::Target)? {
            0 => false,
            records => return Err(MigrationError::TargetNotEmpty { records }.into()),
        },
    };
    let mut lines = Lines::open(path)?;
    let epoch = lines.epoch;
    let mark = StorageState::Migrating { migration: "import".into(), epoch, from, source: None };
    let mut target = Target::take(target, found, mark).await?;
    if is_begun {
        clear(&target).await?;
    }
    steering.enter(Phase::Copying, checked.records);
    let (mut batch, mut bytes) = (Vec::new(), 0);
    while let Some(Record { key, revision, fields, body }) = lines.next()? {
        bytes += body.get().len();
        let change = Change::Import { revision, fields, body };
        batch.push(Operation { key, expect: Expect::Absent, change });
        if batch.len() == BATCH_RECORDS || bytes >= BATCH_BYTES {
            target.commit(std::mem::take(&mut batch)).await?;
            bytes = 0;
            steering.check()?;
            steering.reach(lines.tally.records);
        }
    }
    target.commit(batch).await?;
    compare(path, target.store, steering).await?;
    target.mark(StorageState::Active { epoch }).await?;
    steering.enter(Phase::Done, checked.records);
    Ok(checked)
}

/// Whether a store holds what a file holds, record by record.
async fn compare(path: &Path, target: &dyn Store, steering: &Steering) -> Result<(), PortableError> {
    let mut lines = Lines::open(path)?;
    steering.enter(Phase::Verifying, lines.announced);
    let mut tally = Tally::default();
    for table in Table::ALL {
        let mut walk = Walk::new(target, table);
        while let Some(found) = walk.next().await.map_err(MigrationError::Target)? {
            tally.add(&found);
            steering.reach(tally.records);
            if !lines.next()?.is_some_and(|record| same(&record, &found)) {
                return Err(MigrationError::Unlike { key: found.key }.into());
            }
        }
    }
    let rest = lines.next()?;
    let kept = counted(target).await.map_err(MigrationError::Target)?;
    if rest.is_some() || lines.tally != tally || kept != tally.records {
        return Err(MigrationError::Sums {
            source_records: lines.announced,
            target_records: kept,
            source_checksum: lines.tally.checksum(),
            target_checksum: tally.checksum(),
        }
        .into());
    }
    Ok(())
}

/// Removes what an import that was broken off has left.
async fn clear(target: &Target<'_>) -> Result<(), MigrationError> {
    for table in Table::ALL {
        let mut walk = Walk::new(target.store, table);
        let mut batch = Vec::new();
        loop {
            let record = walk.next().await.map_err(MigrationError::Target)?;
            let ended = record.is_none();
            batch.extend(record.map(|record| Operation {
                key: record.key,
                expect: Expect::Revision(record.revision),
                change: Change::Delete,
            }));
            if batch.len() == BATCH_RECORDS || ended {
                target.commit(std::mem::take(&mut batch)).await?;
            }
            if ended {
                break;
            }
        }
    }
    Ok(())
}

/// The records of a file, each line checked.
struct Lines {
    path: PathBuf,
    file: BufReader<File>,
    line: u64,
    epoch: Epoch,
    /// How many records the header promises.
    announced: u64,
    last: Option<(usize, String)>,
    tally: Tally,
    ended: bool,
}

impl Lines {
    fn open(path: &Path) -> Result<Self, PortableError> {
        let file =
            File::open(path).map_err(|source| PortableError::File { path: path.to_owned(), source })?;
        let mut lines = Self {
            path: path.to_owned(),
            file: BufReader::new(file),
            line: 0,
            epoch: 0,
            announced: 0,
            last: None,
            tally: Tally::default(),
            ended: false,
        };
        match lines.read()? {
            Line::Header(header) if header.format == FORMAT && header.version > VERSION => {
                Err(PortableError::Newer { path: path.to_owned(), found: header.version })
            }
            Line::Header(header) if header.format == FORMAT => {
                (lines.epoch, lines.announced) = (header.epoch, header.records);
                Ok(lines)
            }
            _ => Err(lines.damaged("it is not the header of exported records")),
        }
    }

    fn damaged(&self, reason: impl Into<String>) -> PortableError {
        PortableError::Damaged { path: self.path.clone(), line: self.line, reason: reason.into() }
    }

    fn bytes(&mut self) -> Result<Vec<u8>, PortableError> {
        let mut bytes = Vec::new();
        let read = io::Read::take(&mut self.file, MAX_LINE).read_until(b'\n', &mut bytes);
        read.map_err(|source| PortableError::File { path: self.path.clone(), source })?;
        Ok(bytes)
    }

    fn read(&mut self) -> Result<Line, PortableError> {
        self.line += 1;
        let bytes = self.bytes()?;
        if bytes.is_empty() {
            return Err(self.damaged("the file ends before its last line"));
        }
        let Some(line) = bytes.strip_suffix(b"\n") else {
            return Err(self.damaged("the line is cut short"));
        };
        let text = std::str::from_utf8(line).map_err(|error| self.damaged(error.to_string()))?;
        let parts = text
            .strip_prefix(HEAD)
            .and_then(|rest| rest.split_at_checked(DIGITS))
            .and_then(|(digits, rest)| Some((digits, rest.strip_prefix("\",")?.strip_suffix('}')?)));
        let Some((digits, inner)) = parts else {
            return Err(self.damaged("it does not begin with a checksum"));
        };
        if digits != format!("{:08x}", crc32fast::hash(inner.as_bytes())) {
            return Err(self.damaged("its checksum is wrong"));
        }
        serde_json::from_str(&format!("{{{inner}}}")).map_err(|error| self.damaged(error.to_string()))
    }

    /// The next record; `None` after the last, when the end of the file has been found whole.
    fn next(&mut self) -> Result<Option<Record>, PortableError> {
        if self.ended {
            return Ok(None);
        }
        match self.read()? {
            Line::Header(_) => Err(self.damaged("a second header")),
            Line::End(end) => {
                if end.records != self.tally.records || self.announced != end.records {
                    return Err(self.damaged(format!(
                        "{} records were read, the file was written with {} and announces {}",
                        self.tally.records, end.records, self.announced
                    )));
                }
                if end.checksum != self.tally.checksum() {
                    return Err(self.damaged("the checksum of all records is wrong"));
                }
                self.line += 1;
                if !self.bytes()?.is_empty() {
                    return Err(self.damaged("something follows the end"));
                }
                self.ended = true;
                Ok(None)
            }
            Line::Record(RecordLine { table, id, revision, fields, body }) => {
                let place = Table::ALL.iter().position(|known| *known == table).unwrap_or_default();
                if id.is_empty() || id.len() > MAX_ID_BYTES || revision == 0 {
                    let reason = format!("an identifier of {} bytes at revision {revision}", id.len());
                    return Err(self.damaged(reason));
                }
                let order = (place, id);
                if self.last.as_ref().is_some_and(|last| *last >= order) {
                    return Err(self.damaged(format!("{table}/{} is out of order", order.1)));
                }
                let body = RawValue::from_string(body).map_err(|error| self.damaged(error.to_string()))?;
                let key = Key::new(table, order.1.as_str());
                self.last = Some(order);
                let record = Record { key, revision, fields, body: body.into() };
                self.tally.add(&record);
                Ok(Some(record))
            }
        }
    }
}
