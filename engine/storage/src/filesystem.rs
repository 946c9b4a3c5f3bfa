//! The default backend: a journal of JSON lines and packed, readable JSON.
//!
//! Everything lies in `{data_dir}/queue.rkvs`: `queue/` has the manifest and the journals, `tasks/`
//! the packed files. A commit is one line at the end of the newest journal, synced before it is
//! acknowledged; commits that wait at the same time share one write and one sync. What is kept in
//! memory is an index; bodies are read from the files when they are asked for. From time to time a
//! checkpoint writes the records into packed files and removes the journals before it.
//!
//! - [`journal`], `packed`, `manifest`, `frame`: the formats.
//! - `index`: what is in memory.
//! - `committer`, `checkpoint`: the two threads that write.
//! - `recovery`: opening.
//! - [`disk`], [`faulty_disk`]: what lies below, and a seeded stand-in that fails.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot, watch};

use crate::record::{Commit, Key, Operation, Record, Sequence, Table};
use crate::request::{check_commit, check_id, check_query};
use crate::store::{Changes, Count, Page, Query, Store, StoreError, StoreHealth, StoreResult};

mod checkpoint;
mod committer;
mod directory_lock;
pub mod disk;
pub mod faulty_disk;
mod frame;
mod index;
pub mod journal;
mod manifest;
mod merge;
mod packed;
mod recovery;
mod shared;

use committer::{Committer, Request, Space, Thresholds};
use disk::{Disk, RealDisk};
use index::Entry;
use manifest::Layout;
pub use shared::IoCounters;
use shared::{Shared, count, read_body};

/// How many commits may wait for the committer before their authors wait for room: several times
/// what one batch takes, so that the disk never waits for authors.
const WAITING_COMMITS: usize = 1024;

/// How to open a store.
#[derive(Debug, Clone)]
pub struct FilesystemOptions {
    /// The data directory; the store is in `queue.rkvs` within it. Created when it is missing.
    pub data_dir: PathBuf,
    /// A checkpoint starts when the journals have grown by more than this since the last one, and by
    /// more than all records take, in bytes.
    pub checkpoint_bytes: u64,
    /// Commits are refused as [`StoreError::Full`] while less than this is free, in bytes; 0 uses the
    /// disk up to its end.
    pub min_free_bytes: u64,
}

impl FilesystemOptions {
    /// The usual way: checkpoints from 16 MiB of journals on, and 1 MiB kept free.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self { data_dir: data_dir.into(), checkpoint_bytes: 16 * 1024 * 1024, min_free_bytes: 1024 * 1024 }
    }
}

/// A store in a directory of this machine.
///
/// Closing it or dropping it waits until what was accepted is durable, and lets go of the directory.
pub struct FilesystemStore {
    shared: Arc<Shared>,
    min_free_bytes: u64,
    committer: Mutex<Option<Running>>,
}

/// The committer as long as it runs.
struct Running {
    requests: mpsc::Sender<Request>,
    thread: JoinHandle<()>,
}

impl FilesystemStore {
    /// Opens the store of a data directory, or creates an empty one. This reads all of it; call it
    /// where blocking is allowed.
    ///
    /// # Errors
    /// [`StoreError::InUse`] while another one has it open; [`StoreError::NewerSchema`];
    /// [`StoreError::Corrupt`] and [`StoreError::Io`], which name the file: then nothing was changed.
    pub fn open(options: FilesystemOptions) -> StoreResult<Self> {
        Self::open_on(options, Arc::new(RealDisk))
    }

    /// Opens a store on a disk of the caller's choice.
    ///
    /// # Errors
    /// As [`FilesystemStore::open`].
    pub fn open_on(options: FilesystemOptions, disk: Arc<dyn Disk>) -> StoreResult<Self> {
        let FilesystemOptions { data_dir, checkpoint_bytes, min_free_bytes } = options;
        let layout = Layout::new(data_dir.join("queue.rkvs"));
        let recovered = recovery::recover(&layout, &*disk)?;
        let shared = Arc::new(Shared::new(layout, disk, recovered.index));
        let committer = Committer {
            shared: shared.clone(),
            thresholds: Thresholds { checkpoint_bytes, min_free_bytes },
            journal: recovered.journal,
            generation: recovered.generation,
            files: recovered.files,
            journal_bytes: recovered.journal_bytes,
            checkpoint: None,
            space: Space::default(),
            buffer: Vec::new(),
            _lock: recovered.lock,
        };
        let (requests, receiver) = mpsc::channel(WAITING_COMMITS);
        let thread = std::thread::Builder::new()
            .name("store-committer".to_owned())
            .spawn(move || committer.run(receiver))
            .map_err(|source| StoreError::Io { path: shared.layout.root.clone(), source })?;
        let committer = Mutex::new(Some(Running { requests, thread }));
        Ok(Self { shared, min_free_bytes, committer })
    }

    /// The work done since the store was opened.
    pub fn counters(&self) -> IoCounters {
        self.shared.counters.snapshot()
    }

    /// Where the store is.
    pub fn directory(&self) -> &std::path::Path {
        &self.shared.layout.root
    }

    fn requests(&self) -> StoreResult<mpsc::Sender<Request>> {
        let running = self.committer.lock().unwrap_or_else(PoisonError::into_inner);
        running.as_ref().map(|running| running.requests.clone()).ok_or(StoreError::Closed)
    }

    /// Lets the committer finish, and takes its thread, the first time.
    fn stop(&self) -> Option<JoinHandle<()>> {
        self.shared.closed.store(true, Ordering::Release);
        let running = self.committer.lock().unwrap_or_else(PoisonError::into_inner).take();
        running.map(|running| running.thread)
    }

    /// Runs something that reads files where blocking is allowed.
    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> StoreResult<T> + Send + 'static,
    ) -> StoreResult<T> {
        self.open_or_closed()?;
        let shared = self.shared.clone();
        blocking(move || work(&shared)).await?
    }

    fn open_or_closed(&self) -> StoreResult<()> {
        if self.shared.is_closed() { Err(StoreError::Closed) } else { Ok(()) }
    }
}

impl Drop for FilesystemStore {
    fn drop(&mut self) {
        if let Some(thread) = self.stop() {
            // It has logged what it had to say.
            let _ = thread.join();
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> StoreResult<T> {
    let result = tokio::task::spawn_blocking(work).await;
    result.map_err(|error| StoreError::Failed { reason: format!("a storage thread ended early: {error}") })
}

/// Reads the body that belongs to an entry.
fn record(shared: &Shared, key: Key, entry: &Entry) -> StoreResult<Record> {
    let body = read_body(&entry.location)?.into();
    count(&shared.counters.records_read, 1);
    Ok(Record { key, revision: entry.revision, fields: entry.fields(), body })
}

#[async_trait]
impl Store for FilesystemStore {
    async fn get(&self, key: &Key) -> StoreResult<Option<Record>> {
        check_id(key)?;
        self.open_or_closed()?;
        let Some(entry) = self.shared.index().entry(key).cloned() else { return Ok(None) };
        let key = key.clone();
        self.read(move |shared| record(shared, key, &entry).map(Some)).await
    }

    async fn list(&self, query: &Query) -> StoreResult<Page> {
        check_query(query)?;
        let query = query.clone();
        self.read(move |shared| {
            let listing = shared.index().list(&query);
            let found = listing.found.into_iter();
            let records = found.map(|(id, entry)| record(shared, Key { table: query.table, id }, &entry));
            Ok(Page { records: records.collect::<StoreResult<_>>()?, next: listing.next })
        })
        .await
    }

    async fn counts(&self, table: Table) -> StoreResult<Vec<Count>> {
        self.open_or_closed()?;
        Ok(self.shared.index().counts(table))
    }

    async fn commit(&self, operations: Vec<Operation>) -> StoreResult<Commit> {
        check_commit(&operations)?;
        let (reply, answer) = oneshot::channel();
        let request = Request { operations, reply };
        let gone = || {
            let reason = "the committer has ended".to_owned();
            StoreError::Failed { reason: self.shared.failure.get().cloned().unwrap_or(reason) }
        };
        self.requests()?.send(request).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    async fn sequence(&self) -> StoreResult<Sequence> {
        self.open_or_closed()?;
        Ok(self.shared.index().sequence())
    }

    async fn changes(&self, after: Sequence, limit: usize) -> StoreResult<Changes> {
        self.open_or_closed()?;
        Ok(self.shared.index().changes(after, limit))
    }

    fn watch(&self) -> watch::Receiver<Sequence> {
        self.shared.newest.subscribe()
    }

    async fn health(&self) -> StoreHealth {
        let shared = self.shared.clone();
        let free = blocking(move || shared.disk.free_bytes(&shared.layout.root)).await;
        let free_bytes = free.ok().and_then(Result::ok);
        let reason = if self.shared.is_closed() {
            Some("the store is closed".to_owned())
        } else if let Some(reason) = self.shared.failure.get() {
            Some(reason.clone())
        } else {
            free_bytes
                .filter(|free| *free < self.min_free_bytes)
                .map(|free| format!("{free} bytes are free, {} are needed", self.min_free_bytes))
        };
        StoreHealth {
            writable: reason.is_none(),
            reason,
            free_bytes,
            backend: "filesystem",
            location: self.shared.layout.root.display().to_string(),
        }
    }

    async fn close(&self) -> StoreResult<()> {
        let Some(thread) = self.stop() else { return Ok(()) };
        blocking(move || thread.join())
            .await?
            .map_err(|_| StoreError::Failed { reason: "the committer ended early".to_owned() })
    }
}
