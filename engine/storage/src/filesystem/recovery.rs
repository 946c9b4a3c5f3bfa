//! Opening a store: read everything, check everything, and only then change anything.
//!
//! The manifest names the packed files and the first journal; the journals are replayed in order, and
//! each commit's number must follow the one before. The one thing that may be wrong is the end of the
//! last journal, where a commit can have been cut short before it was acknowledged: it is cut off,
//! with a warning. Anything else that is not as it was written stops the start, is named, and is left
//! as it is. Files that an interrupted checkpoint has left behind are removed at the end.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::committer::{BATCH_BYTES, OpenJournal, is_full};
use super::directory_lock::DirectoryLock;
use super::disk::Disk;
use super::frame::DataFile;
use super::index::{Applied, Index, Location};
use super::journal::{self, JournalCommit};
use super::manifest::{Layout, Manifest, PackedEntry, is_packed_name, journal_number};
use super::packed;
use crate::record::{Key, Sequence};
use crate::store::{StoreError, StoreResult};

/// How much of a journal's end is copied at a time.
const COPY_BYTES: u64 = 1024 * 1024;

/// A store as it was found.
pub(super) struct Recovered {
    pub(super) lock: DirectoryLock,
    pub(super) index: Index,
    pub(super) generation: u64,
    /// The open journal.
    pub(super) journal: OpenJournal,
    /// The other files that make up the store.
    pub(super) files: Vec<PathBuf>,
    /// The length of all journals.
    pub(super) journal_bytes: u64,
}

/// Opens the store in a directory, or creates an empty one.
pub(super) fn recover(layout: &Layout, disk: &dyn Disk) -> StoreResult<Recovered> {
    create_directories(layout, disk)?;
    let lock = DirectoryLock::take(&layout.root)?;
    let mut found = Found::list(layout)?;
    let manifest = match Manifest::load(layout, disk)? {
        Some(manifest) => manifest,
        None => create(layout, disk, &mut found)?,
    };
    let mut index = Index::starting_at(manifest.sequence);
    let mut files = Vec::new();
    for entry in &manifest.packed {
        files.push(load_packed(layout, disk, entry, &mut index)?);
    }
    let mut journals = Vec::new();
    for number in journals_from(manifest.first_journal, &found, layout)? {
        journals.push((number, load_journal(layout, disk, number, &mut index)?));
    }
    // A torn end is one only where nothing follows: after the last journal that holds anything.
    for (place, (_, loaded)) in journals.iter().enumerate() {
        let follows = journals[place + 1..].iter().any(|(_, later)| later.total > 0);
        if loaded.torn() && follows {
            return Err(StoreError::Corrupt {
                path: loaded.file.path.clone(),
                offset: loaded.whole,
                reason: "a commit is cut short, and a later journal follows".to_owned(),
            });
        }
    }
    for (_, loaded) in &journals {
        loaded.repair()?;
    }
    remove_leftovers(layout, disk, &manifest, &found);
    let journal_bytes = journals.iter().map(|(_, loaded)| loaded.whole).sum();
    let Some((number, last)) = journals.pop() else {
        return Err(missing(&layout.journal(manifest.first_journal)));
    };
    files.extend(journals.into_iter().map(|(_, loaded)| loaded.file.path.clone()));
    // Of generations that came to nothing, names may still be taken by files that could not be removed.
    let generation = found.newest_generation().max(manifest.generation);
    let journal = OpenJournal { number, file: last.file, length: last.whole };
    Ok(Recovered { lock, index, generation, journal, files, journal_bytes })
}

fn missing(path: &Path) -> StoreError {
    let reason = "it is missing, and the manifest names it".to_owned();
    StoreError::Corrupt { path: path.to_owned(), offset: 0, reason }
}

fn io_at(path: &Path) -> impl Fn(io::Error) -> StoreError {
    move |source| StoreError::Io { path: path.to_owned(), source }
}

/// Creates what is missing of the directories, and makes each new name durable.
fn create_directories(layout: &Layout, disk: &dyn Disk) -> StoreResult<()> {
    for directory in [&layout.root, &layout.queue, &layout.tasks] {
        let new: Vec<&Path> = directory.ancestors().take_while(|path| !path.exists()).collect();
        disk.create_directory(directory).map_err(io_at(directory))?;
        for parent in new.iter().filter_map(|path| path.parent()) {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            disk.sync_directory(parent).map_err(io_at(parent))?;
        }
    }
    Ok(())
}

/// Creates an empty store where there is none.
fn create(layout: &Layout, disk: &dyn Disk, found: &mut Found) -> StoreResult<Manifest> {
    let manifest = Manifest::empty();
    let first = layout.journal(manifest.first_journal);
    // A start that broke off right here leaves an empty journal: nothing was ever committed to it.
    let broke_off = match std::fs::metadata(&first) {
        Ok(metadata) => metadata.is_file() && metadata.len() == 0 && found.journals.len() == 1,
        Err(error) if error.kind() == io::ErrorKind::NotFound => found.journals.is_empty(),
        Err(error) => return Err(io_at(&first)(error)),
    };
    if !broke_off || !found.packed.is_empty() {
        let reason = "it is missing, though there are journals or packed files".to_owned();
        return Err(StoreError::Corrupt { path: layout.manifest(), offset: 0, reason });
    }
    if found.journals.is_empty() {
        disk.create(&first).map_err(io_at(&first))?;
        found.journals.push(manifest.first_journal);
    }
    disk.sync_directory(&layout.queue).map_err(io_at(&layout.queue))?;
    manifest.store(layout, disk)?;
    Ok(manifest)
}

/// The files of the directories, by what their names say.
struct Found {
    journals: Vec<u64>,
    packed: Vec<String>,
}

impl Found {
    fn list(layout: &Layout) -> StoreResult<Self> {
        let mut found = Self { journals: Vec::new(), packed: Vec::new() };
        for name in names(&layout.queue)? {
            let text = name.to_str();
            if let Some(number) = text.and_then(journal_number) {
                found.journals.push(number);
            } else if !matches!(text, Some("manifest.json" | "manifest.json.tmp")) {
                foreign(&layout.queue.join(&name));
            }
        }
        for name in names(&layout.tasks)? {
            match name.to_str() {
                Some(name) if is_packed_name(name) => found.packed.push(name.to_owned()),
                _ => foreign(&layout.tasks.join(&name)),
            }
        }
        found.journals.sort_unstable();
        Ok(found)
    }

    fn newest_generation(&self) -> u64 {
        let number = |name: &String| name.rsplit('-').nth(1).and_then(|digits| digits.parse().ok());
        self.packed.iter().filter_map(number).max().unwrap_or(0)
    }
}

fn names(directory: &Path) -> StoreResult<Vec<OsString>> {
    let entries = std::fs::read_dir(directory).map_err(io_at(directory))?;
    entries.map(|entry| entry.map(|entry| entry.file_name()).map_err(io_at(directory))).collect()
}

fn foreign(path: &Path) {
    tracing::warn!(path = %path.display(), "a file in the store's directory is not the store's; left alone");
}

/// The numbers of the journals to replay: none may be missing.
fn journals_from(first: u64, found: &Found, layout: &Layout) -> StoreResult<Vec<u64>> {
    let numbers: Vec<u64> = found.journals.iter().copied().filter(|number| *number >= first).collect();
    let last = numbers.last().copied().unwrap_or(first);
    match (first..=last).find(|number| numbers.binary_search(number).is_err()) {
        Some(number) => Err(missing(&layout.journal(number))),
        None => Ok(numbers),
    }
}

fn open(disk: &dyn Disk, path: PathBuf) -> StoreResult<(Arc<DataFile>, u64)> {
    let file = match disk.open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(missing(&path)),
        Err(source) => return Err(StoreError::Io { path, source }),
    };
    let file = DataFile { path, file };
    let length = file.file.length().map_err(|source| file.error(source))?;
    Ok((Arc::new(file), length))
}

/// Loads the records of a packed file.
fn load_packed(
    layout: &Layout,
    disk: &dyn Disk,
    entry: &PackedEntry,
    index: &mut Index,
) -> StoreResult<PathBuf> {
    let (file, length) = open(disk, layout.packed(&entry.file))?;
    let corrupt = |offset, reason: String| StoreError::Corrupt { path: file.path.clone(), offset, reason };
    if length != entry.bytes {
        return Err(corrupt(length, format!("the manifest says {} bytes, not {length}", entry.bytes)));
    }
    let mut reader = packed::Reader::new(&*file, length);
    let mut records = 0;
    while let Some(record) = reader.next().map_err(|error| error.in_file(&file.path))? {
        let key = Key::new(entry.table, record.id);
        if index.revision(&key) != 0 {
            return Err(corrupt(record.offset, format!("{key} is there twice")));
        }
        let location = Location { file: file.clone(), span: record.body };
        index.put(key.table, key.id, record.revision, record.fields, location);
        records += 1;
    }
    if records != entry.records || reader.checksum() != entry.checksum {
        return Err(corrupt(0, "it is not the file that the manifest names".to_owned()));
    }
    Ok(file.path.clone())
}

/// A journal whose commits are in the index.
struct Loaded {
    file: Arc<DataFile>,
    /// Its length as found.
    total: u64,
    /// Up to where it holds whole commits.
    whole: u64,
    /// The length of its last commit.
    last_commit: u64,
}

/// Replays a journal.
fn load_journal(layout: &Layout, disk: &dyn Disk, number: u64, index: &mut Index) -> StoreResult<Loaded> {
    let (file, total) = open(disk, layout.journal(number))?;
    let located = |error: super::frame::ReadError| error.in_file(&file.path);
    let mut reader = journal::Reader::new(&*file, total).map_err(located)?;
    let mut last_commit = 0;
    while let Some(commit) = reader.next().map_err(located)? {
        let offset = commit.offset;
        last_commit = commit.length;
        replay(commit, &file, index).map_err(|reason| StoreError::Corrupt {
            path: file.path.clone(),
            offset,
            reason,
        })?;
    }
    let whole = reader.whole_bytes();
    Ok(Loaded { file, total, whole, last_commit })
}

/// Applies a commit to the index, if it follows from what is there.
fn replay(commit: JournalCommit, file: &Arc<DataFile>, index: &mut Index) -> Result<(), String> {
    let expected: Sequence = index.sequence() + 1;
    if commit.sequence != expected {
        return Err(format!("commit {} stands where {expected} should", commit.sequence));
    }
    let mut changes = Vec::with_capacity(commit.operations.len());
    for operation in commit.operations {
        let before = index.revision(&operation.key);
        let put = match operation.put {
            Some((0, ..)) => return Err(format!("{} is written at revision 0", operation.key)),
            Some((revision, ..)) if revision != before + 1 && !operation.imported => {
                return Err(format!("{} goes from revision {before} to {revision}", operation.key));
            }
            None if before == 0 => return Err(format!("{} is removed, but not there", operation.key)),
            put => put,
        };
        let located = |span| Location { file: file.clone(), span };
        let put = put.map(|(revision, fields, span)| (revision, fields, located(span)));
        changes.push(Applied { key: operation.key, put });
    }
    index.apply(commit.sequence, changes);
    Ok(())
}

impl Loaded {
    fn torn(&self) -> bool {
        self.whole < self.total
    }

    /// Cuts off a torn end and makes durable what was read.
    ///
    /// After a sync that failed the system may show bytes that never reached the disk, and a further
    /// sync would not notice. So what the last batch may have held is written once more.
    fn repair(&self) -> StoreResult<()> {
        let file = &self.file.file;
        if self.torn() {
            let bytes = self.total - self.whole;
            tracing::warn!(
                path = %self.file.path.display(), offset = self.whole, bytes,
                "the last commit was cut short before it was acknowledged; it is cut off"
            );
            file.truncate(self.whole).map_err(|source| self.file.error(source))?;
        }
        let mut at = self.whole.saturating_sub(BATCH_BYTES as u64 + self.last_commit);
        let mut buffer = Vec::new();
        while at < self.whole {
            buffer.resize(COPY_BYTES.min(self.whole - at) as usize, 0);
            file.read_exact_at(&mut buffer, at).map_err(|source| self.file.error(source))?;
            match file.write_all_at(&buffer, at) {
                // Where the filesystem copies what it overwrites, a full disk has no room for that.
                Err(error) if is_full(&error) => break,
                result => result.map_err(|source| self.file.error(source))?,
            }
            at += buffer.len() as u64;
        }
        file.sync().map_err(|source| self.file.error(source))
    }
}

/// Removes what an interrupted checkpoint has left behind.
fn remove_leftovers(layout: &Layout, disk: &dyn Disk, manifest: &Manifest, found: &Found) {
    let journals = found.journals.iter().filter(|number| **number < manifest.first_journal);
    let journals = journals.map(|number| layout.journal(*number));
    let named = |name: &String| manifest.packed.iter().any(|entry| entry.file == *name);
    let packed = found.packed.iter().filter(|name| !named(name)).map(|name| layout.packed(name));
    for path in journals.chain(packed).chain([layout.temporary_manifest()]) {
        match disk.remove(&path) {
            Ok(()) => tracing::info!(path = %path.display(), "removed what a checkpoint had left behind"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(path = %path.display(), %error, "a leftover could not be removed"),
        }
    }
}
