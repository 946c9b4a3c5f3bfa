//! Checkpoints: the records as packed files, so that the journals before can go.
//!
//! A checkpoint starts when the journals have grown by more than the records themselves take, so its
//! cost is a constant share of the commits'. The committer turns to a new journal and takes a
//! snapshot of the index; a thread of its own then writes all records into packed files, puts the new
//! manifest in place, tells the index where the bodies are now, and removes the old files. A crash at
//! any point leaves the old manifest with all its files, or the new one with all of its own.

use std::path::PathBuf;
use std::sync::Arc;

use super::frame::DataFile;
use super::index::{Entry, Location};
use super::journal::Span;
use super::manifest::{Manifest, PackedEntry, SCHEMA_VERSION, packed_name};
use super::packed;
use super::shared::{Shared, count, read_body};
use crate::record::{Sequence, Table};
use crate::store::{StoreError, StoreResult};

/// A packed file is closed when it has grown past this.
const FILE_BYTES: u64 = 32 * 1024 * 1024;

/// How much is written at a time.
const WRITE_BYTES: usize = 1024 * 1024;

/// How many records are moved in the index at a time: the commits wait meanwhile.
const MOVES_AT_A_TIME: usize = 2_000;

/// What a checkpoint needs to know.
pub(super) struct Checkpoint {
    pub(super) shared: Arc<Shared>,
    /// The records, as the commit `sequence` left them.
    pub(super) snapshot: Vec<(Table, Arc<str>, Arc<Entry>)>,
    pub(super) sequence: Sequence,
    pub(super) generation: u64,
    /// The journal that the commits after `sequence` go to.
    pub(super) first_journal: u64,
    /// The files that the new manifest makes superfluous.
    pub(super) obsolete: Vec<PathBuf>,
}

/// What has become of a checkpoint.
pub(super) enum Outcome {
    /// It is in place, with these packed files.
    Done(Vec<PathBuf>),
    /// It was given up, and these files may or may not be named by the manifest that is in place.
    GivenUp(Vec<PathBuf>),
}

impl Checkpoint {
    /// Does it. Failures are logged: the store goes on with its journals.
    pub(super) fn run(self) -> Outcome {
        let mut writer = Writer::new(&self);
        let written = self.write_records(&mut writer);
        let paths: Vec<PathBuf> = writer.files.iter().map(|file| file.path.clone()).collect();
        let locations = match written {
            Ok(locations) => locations,
            Err(error) => {
                self.give_up(error.as_ref());
                for path in &paths {
                    remove(&self.shared, path);
                }
                return Outcome::GivenUp(Vec::new());
            }
        };
        let manifest = Manifest {
            schema_version: SCHEMA_VERSION,
            generation: self.generation,
            sequence: self.sequence,
            first_journal: self.first_journal,
            packed: writer.entries,
        };
        if let Err(error) = manifest.store(&self.shared.layout, &*self.shared.disk) {
            // The rename may have happened: both generations must stay whole.
            self.give_up(Some(&error));
            return Outcome::GivenUp(paths);
        }
        self.move_records(&locations);
        for path in &self.obsolete {
            remove(&self.shared, path);
        }
        count(&self.shared.counters.checkpoints, 1);
        Outcome::Done(paths)
    }

    fn give_up(&self, error: Option<&StoreError>) {
        count(&self.shared.counters.failed_checkpoints, 1);
        if let Some(error) = error {
            let cause = std::error::Error::source(error).map(ToString::to_string);
            tracing::warn!(%error, cause, generation = self.generation, "a checkpoint was given up");
        }
    }

    /// Writes all records and says where each body is now. The error is `None` when the store is
    /// being closed.
    fn write_records(&self, writer: &mut Writer<'_>) -> Result<Vec<Location>, Option<StoreError>> {
        let mut locations = Vec::with_capacity(self.snapshot.len());
        for (table, id, entry) in &self.snapshot {
            if self.shared.is_closed() {
                return Err(None);
            }
            locations.push(writer.write(*table, id, entry)?);
        }
        writer.end_file()?;
        let directory = &self.shared.layout.tasks;
        self.shared
            .disk
            .sync_directory(directory)
            .map_err(|source| StoreError::Io { path: directory.clone(), source })?;
        Ok(locations)
    }

    fn move_records(&self, locations: &[Location]) {
        for (records, locations) in
            self.snapshot.chunks(MOVES_AT_A_TIME).zip(locations.chunks(MOVES_AT_A_TIME))
        {
            let moves = records.iter().zip(locations);
            let moves = moves.map(|((table, id, entry), to)| (*table, id, entry, to.clone()));
            self.shared.index_mut().relocate(moves);
        }
        self.shared.index_mut().forget_unused_strings();
    }
}

/// Removes a file that nothing names any more. If it stays, the next start removes it.
fn remove(shared: &Shared, path: &std::path::Path) {
    if let Err(error) = shared.disk.remove(path) {
        tracing::warn!(path = %path.display(), %error, "a superfluous file could not be removed");
    }
}

/// Writes packed files one after the other.
struct Writer<'c> {
    shared: &'c Shared,
    generation: u64,
    files: Vec<Arc<DataFile>>,
    entries: Vec<PackedEntry>,
    /// Of the file that is being written.
    open: bool,
    written: u64,
    checksum: crc32fast::Hasher,
    buffer: Vec<u8>,
}

impl<'c> Writer<'c> {
    fn new(checkpoint: &'c Checkpoint) -> Self {
        Self {
            shared: &checkpoint.shared,
            generation: checkpoint.generation,
            files: Vec::new(),
            entries: Vec::new(),
            open: false,
            written: 0,
            checksum: crc32fast::Hasher::new(),
            buffer: Vec::new(),
        }
    }

    fn write(&mut self, table: Table, id: &str, entry: &Entry) -> StoreResult<Location> {
        let other_table = self.entries.last().is_none_or(|last| last.table != table);
        if !self.open || other_table || self.written >= FILE_BYTES {
            self.end_file()?;
            self.start_file(table)?;
        }
        let body = read_body(&entry.location)?;
        let (Some(file), Some(packed)) = (self.files.last(), self.entries.last_mut()) else {
            return Err(StoreError::Failed { reason: "a checkpoint has no open file".to_owned() });
        };
        let file = file.clone();
        let first = packed.records == 0;
        packed.records += 1;
        let at = packed::encode(&mut self.buffer, first, id, entry.revision, &entry.fields(), body.get())
            .map_err(|source| file.error(source))?;
        let span = Span { offset: self.written + at as u64, ..entry.location.span };
        if self.buffer.len() >= WRITE_BYTES {
            self.flush()?;
        }
        Ok(Location { file, span })
    }

    fn start_file(&mut self, table: Table) -> StoreResult<()> {
        let name = packed_name(table, self.generation, self.files.len() as u64 + 1);
        let path = self.shared.layout.packed(&name);
        let file =
            self.shared.disk.create(&path).map_err(|source| StoreError::Io { path: path.clone(), source })?;
        self.files.push(Arc::new(DataFile { path, file }));
        self.entries.push(PackedEntry { table, file: name, records: 0, bytes: 0, checksum: 0 });
        self.open = true;
        self.written = 0;
        self.checksum = crc32fast::Hasher::new();
        packed::open_array(&mut self.buffer);
        Ok(())
    }

    fn end_file(&mut self) -> StoreResult<()> {
        if !self.open {
            return Ok(());
        }
        packed::close_array(&mut self.buffer);
        self.flush()?;
        self.open = false;
        if let (Some(file), Some(entry)) = (self.files.last(), self.entries.last_mut()) {
            file.file.sync().map_err(|source| file.error(source))?;
            entry.bytes = self.written;
            entry.checksum = self.checksum.clone().finalize();
        }
        Ok(())
    }

    fn flush(&mut self) -> StoreResult<()> {
        if let Some(file) = self.files.last() {
            file.file.write_all_at(&self.buffer, self.written).map_err(|source| file.error(source))?;
            self.checksum.update(&self.buffer);
            self.written += self.buffer.len() as u64;
            count(&self.shared.counters.checkpoint_bytes_written, self.buffer.len() as u64);
        }
        self.buffer.clear();
        Ok(())
    }
}
