//! The manifest: which files make up the store.
//!
//! `queue/manifest.json` names the packed files of one generation and the first journal that comes
//! after them. It is replaced by an atomic rename, which is the one moment at which a checkpoint
//! happens. Like a record it begins with its checksum; its `schema_version` can be read without it,
//! so that a newer release's manifest is told from a damaged one.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::disk::Disk;
use super::frame::{DIGITS, begins, digits, number};
use crate::record::{Sequence, Table};
use crate::store::{StoreError, StoreResult};

/// The version of the layout that this release writes.
pub(super) const SCHEMA_VERSION: u32 = 1;

/// No manifest is longer: one line for each packed file would mean terabytes of records.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

const HEAD: &[u8; 18] = br#"{"crc":"????????","#;
const CHECKSUM_AT: usize = 8;

/// What the manifest says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    /// The version of the layout.
    pub(super) schema_version: u32,
    /// Grows with each checkpoint; 0 before the first.
    pub(super) generation: u64,
    /// The newest commit that the packed files hold.
    pub(super) sequence: Sequence,
    /// The number of the first journal that is not in the packed files.
    pub(super) first_journal: u64,
    /// The packed files.
    pub(super) packed: Vec<PackedEntry>,
}

/// A packed file as the manifest names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PackedEntry {
    /// Whose records it holds.
    pub(super) table: Table,
    /// Its name within `tasks`.
    pub(super) file: String,
    /// How many records it holds.
    pub(super) records: u64,
    /// How long it is.
    pub(super) bytes: u64,
    /// Its CRC-32.
    pub(super) checksum: u32,
}

#[derive(Deserialize)]
struct Version {
    schema_version: u32,
}

impl Manifest {
    /// The manifest of an empty store.
    pub(super) fn empty() -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            generation: 0,
            sequence: 0,
            first_journal: 1,
            packed: Vec::new(),
        }
    }

    fn encode(&self) -> serde_json::Result<Vec<u8>> {
        let mut bytes = HEAD.to_vec();
        let object = serde_json::to_vec_pretty(self)?;
        bytes.extend_from_slice(&object[1..]);
        bytes.push(b'\n');
        let checksum = crc32fast::hash(&bytes[HEAD.len()..]);
        bytes[CHECKSUM_AT..][..DIGITS].copy_from_slice(&digits(checksum));
        Ok(bytes)
    }

    /// Reads a manifest from the bytes of its file.
    ///
    /// # Errors
    /// [`StoreError::NewerSchema`], and [`StoreError::Corrupt`] for anything else that is not whole.
    pub(super) fn decode(bytes: &[u8], path: &Path) -> StoreResult<Self> {
        let corrupt = |reason: String| StoreError::Corrupt { path: path.to_owned(), offset: 0, reason };
        let Version { schema_version } = serde_json::from_slice(bytes)
            .map_err(|error| corrupt(format!("the manifest is not valid: {error}")))?;
        if schema_version > SCHEMA_VERSION {
            return Err(StoreError::NewerSchema { found: schema_version, known: SCHEMA_VERSION });
        }
        let head = bytes.get(..HEAD.len()).filter(|head| begins(HEAD, head));
        let checksum = head.and_then(|head| number(&head[CHECKSUM_AT..][..DIGITS]));
        if checksum != Some(crc32fast::hash(&bytes[HEAD.len().min(bytes.len())..])) {
            return Err(corrupt("the manifest has a wrong checksum".to_owned()));
        }
        serde_json::from_slice(bytes).map_err(|error| corrupt(format!("the manifest is not valid: {error}")))
    }

    /// Reads the manifest of a store; `None` where there is none.
    pub(super) fn load(layout: &Layout, disk: &dyn Disk) -> StoreResult<Option<Self>> {
        let path = layout.manifest();
        let io = |source| StoreError::Io { path: path.clone(), source };
        let file = match disk.open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io(error)),
        };
        let length = file.length().map_err(io)?;
        if length > MAX_BYTES {
            let reason = format!("a manifest of {length} bytes");
            return Err(StoreError::Corrupt { path, offset: 0, reason });
        }
        let mut bytes = vec![0; length as usize];
        file.read_exact_at(&mut bytes, 0).map_err(io)?;
        Self::decode(&bytes, &path).map(Some)
    }

    /// Puts this manifest in the place of the one that is there, durably.
    ///
    /// # Errors
    /// After an error either of the two may be in place.
    pub(super) fn store(&self, layout: &Layout, disk: &dyn Disk) -> StoreResult<()> {
        let (path, temporary) = (layout.manifest(), layout.temporary_manifest());
        let io = |source| StoreError::Io { path: temporary.clone(), source };
        let bytes = self.encode().map_err(|error| io(error.into()))?;
        match disk.remove(&temporary) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io(error)),
            _ => {}
        }
        let file = disk.create(&temporary).map_err(io)?;
        file.write_all_at(&bytes, 0).map_err(io)?;
        file.sync().map_err(io)?;
        drop(file);
        disk.rename(&temporary, &path)
            .and_then(|()| disk.sync_directory(&layout.queue))
            .map_err(|source| StoreError::Io { path: path.clone(), source })
    }
}

/// Where the files of a store are.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    /// The store's directory.
    pub(super) root: PathBuf,
    /// Manifest and journals.
    pub(super) queue: PathBuf,
    /// Packed files.
    pub(super) tasks: PathBuf,
}

impl Layout {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { queue: root.join("queue"), tasks: root.join("tasks"), root }
    }

    pub(super) fn manifest(&self) -> PathBuf {
        self.queue.join("manifest.json")
    }

    pub(super) fn temporary_manifest(&self) -> PathBuf {
        self.queue.join("manifest.json.tmp")
    }

    pub(super) fn journal(&self, number: u64) -> PathBuf {
        self.queue.join(format!("journal-{number:08}.jsonl"))
    }

    pub(super) fn packed(&self, name: &str) -> PathBuf {
        self.tasks.join(name)
    }
}

/// The name of a packed file.
pub(super) fn packed_name(table: Table, generation: u64, number: u64) -> String {
    format!("{table}-{generation:08}-{number:04}.json")
}

/// Whether a name is one that [`packed_name`] gives.
pub(super) fn is_packed_name(name: &str) -> bool {
    let Some(rest) = name.strip_suffix(".json") else { return false };
    Table::ALL.iter().any(|table| {
        rest.strip_prefix(table.as_str())
            .and_then(|rest| rest.strip_prefix('-'))
            .and_then(|rest| rest.split_once('-'))
            .is_some_and(|(generation, number)| is_number(generation, 8) && is_number(number, 4))
    })
}

/// The number of a journal, from its name.
pub(super) fn journal_number(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("journal-")?.strip_suffix(".jsonl")?;
    if is_number(digits, 8) { digits.parse().ok() } else { None }
}

/// Whether this is how a number of at least `width` places is written.
fn is_number(text: &str, width: usize) -> bool {
    text.len() >= width
        && text.bytes().all(|byte| byte.is_ascii_digit())
        && (text.len() == width || !text.starts_with('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_from_foreign_ones() {
        for table in Table::ALL {
            assert!(is_packed_name(&packed_name(table, 1, 1)));
            assert!(is_packed_name(&packed_name(table, 1_234_567_890, 12_345)));
        }
        for foreign in
            ["task.json", "task-00000001-0001.json.bak", "task-1-1.json", "notes-00000001-0001.json"]
        {
            assert!(!is_packed_name(foreign), "{foreign}");
        }
        assert_eq!(journal_number("journal-00000012.jsonl"), Some(12));
        for foreign in ["journal-12.jsonl", "journal-+0000012.jsonl", "journal-000000012.jsonl", "old"] {
            assert_eq!(journal_number(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn a_flip_of_any_byte_is_refused() -> serde_json::Result<()> {
        let entry = PackedEntry {
            table: Table::Task,
            file: packed_name(Table::Task, 3, 1),
            records: 7,
            bytes: 1_000,
            checksum: 5,
        };
        let manifest = Manifest { generation: 3, sequence: 20, packed: vec![entry], ..Manifest::empty() };
        let bytes = manifest.encode()?;
        assert_eq!(Manifest::decode(&bytes, Path::new("m")).ok(), Some(manifest));
        for place in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[place] ^= 1 << bit;
                assert!(Manifest::decode(&damaged, Path::new("m")).is_err(), "byte {place} bit {bit}");
            }
        }
        Ok(())
    }
}
