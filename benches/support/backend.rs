//! The backends of storage: where they keep their records, how they are opened, and the work that they do.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use orchestrator_storage::filesystem::{FilesystemOptions, FilesystemStore};
use orchestrator_storage::migration::state::Place;
#[cfg(feature = "surrealdb")]
use orchestrator_storage::surrealdb::{EmbeddedOptions, SurrealStore};
use orchestrator_storage::{
    Change, Changes, Commit, Count, Key, Operation, Page, Query, Record, Sequence, Store, StoreHealth,
    StoreResult, Table,
};
use tempfile::TempDir;
use tokio::sync::watch;

use crate::process::{Process, disk_bytes};
#[cfg(feature = "surrealdb")]
use crate::server::Server;

/// A backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Backend {
    /// In a directory, by this process.
    Filesystem,
    /// SurrealDB inside this process, on RocksDB.
    #[cfg(feature = "surrealdb")]
    Embedded,
    /// A SurrealDB server on loopback, on RocksDB.
    #[cfg(feature = "surrealdb")]
    Server,
}

impl Backend {
    /// Those of this build.
    #[cfg(feature = "surrealdb")]
    pub const ALL: &[Self] = &[Self::Filesystem, Self::Embedded, Self::Server];
    /// Those of this build.
    #[cfg(not(feature = "surrealdb"))]
    pub const ALL: &[Self] = &[Self::Filesystem];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Filesystem => "filesystem",
            #[cfg(feature = "surrealdb")]
            Self::Embedded => "surrealdb-embedded",
            #[cfg(feature = "surrealdb")]
            Self::Server => "surrealdb-server",
        }
    }

    /// The one with a name.
    pub fn with_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|backend| backend.name() == name)
    }
}

/// Where the records of one store are: a directory, and for a server its process, which ends with this.
pub struct Home {
    backend: Backend,
    #[cfg(feature = "surrealdb")]
    server: Option<Server>,
    directory: PathBuf,
    _temporary: Option<TempDir>,
}

impl Home {
    /// A new one, which is removed in the end.
    pub fn fresh(backend: Backend) -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let directory = temporary.path().to_owned();
        Self { _temporary: Some(temporary), ..Self::at(backend, &directory) }
    }

    /// The one in a directory.
    pub fn at(backend: Backend, directory: &Path) -> Self {
        Self {
            backend,
            #[cfg(feature = "surrealdb")]
            server: (backend == Backend::Server).then(|| Server::start(directory)),
            directory: directory.to_owned(),
            _temporary: None,
        }
    }

    /// Its backend.
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// Its directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where it is, in the words of a migration.
    pub fn place(&self) -> Place {
        Place { backend: self.backend.name().to_owned(), location: self.directory.display().to_string() }
    }

    /// The process that holds what is stored here.
    pub fn process(&self) -> Process {
        #[cfg(feature = "surrealdb")]
        if let Some(server) = &self.server {
            return server.process();
        }
        Process::this()
    }

    /// What it takes on the disk, in bytes.
    pub fn disk_bytes(&self) -> u64 {
        disk_bytes(&self.directory)
    }

    /// Opens the store.
    pub async fn open(&self) -> Arc<Counted> {
        let store: Opened = match self.backend {
            Backend::Filesystem => {
                let options = FilesystemOptions::new(&self.directory);
                Opened::Filesystem(Arc::new(FilesystemStore::open(options).unwrap()))
            }
            #[cfg(feature = "surrealdb")]
            Backend::Embedded => {
                let store = SurrealStore::open_embedded(EmbeddedOptions::new(&self.directory)).await;
                Opened::Other(Arc::new(store.unwrap()))
            }
            #[cfg(feature = "surrealdb")]
            Backend::Server => {
                let options = self.server.as_ref().unwrap().options();
                Opened::Other(Arc::new(SurrealStore::open_server(options).await.unwrap()))
            }
        };
        Arc::new(Counted {
            store,
            process: self.process(),
            commits: AtomicU64::new(0),
            records_written: AtomicU64::new(0),
            records_read: AtomicU64::new(0),
        })
    }
}

enum Opened {
    Filesystem(Arc<FilesystemStore>),
    #[cfg(feature = "surrealdb")]
    Other(Arc<dyn Store>),
}

/// The work that a store has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Work {
    /// Commits that were made.
    pub commits: u64,
    /// Records that they have written or removed.
    pub records_written: u64,
    /// Records that were read.
    pub records_read: u64,
    /// Syncs, where the backend counts them.
    pub syncs: Option<u64>,
    /// Bytes written: to the journal where the backend counts that, else what its process has written to
    /// files.
    pub bytes_written: u64,
    /// Bytes that its process has read from files, whether or not they came from the disk.
    pub bytes_read: u64,
}

impl Work {
    /// What was done since an earlier moment.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            commits: self.commits - earlier.commits,
            records_written: self.records_written - earlier.records_written,
            records_read: self.records_read - earlier.records_read,
            syncs: self.syncs.zip(earlier.syncs).map(|(now, before)| now - before),
            bytes_written: self.bytes_written - earlier.bytes_written,
            bytes_read: self.bytes_read - earlier.bytes_read,
        }
    }
}

/// A store that counts what it is asked to do.
pub struct Counted {
    store: Opened,
    process: Process,
    commits: AtomicU64,
    records_written: AtomicU64,
    records_read: AtomicU64,
}

impl Counted {
    /// What it has done since it was opened; the bytes, since its process was started.
    pub fn work(&self) -> Work {
        let io = self.process.io();
        let journal = match &self.store {
            Opened::Filesystem(store) => Some(store.counters()),
            #[cfg(feature = "surrealdb")]
            Opened::Other(_) => None,
        };
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Work {
            commits: value(&self.commits),
            records_written: value(&self.records_written),
            records_read: value(&self.records_read),
            syncs: journal.map(|journal| journal.syncs),
            bytes_written: journal.map_or(io.written, |journal| journal.bytes_written),
            bytes_read: io.read,
        }
    }

    fn inner(&self) -> &dyn Store {
        match &self.store {
            Opened::Filesystem(store) => &**store,
            #[cfg(feature = "surrealdb")]
            Opened::Other(store) => &**store,
        }
    }
}

fn count(counter: &AtomicU64, amount: usize) {
    counter.fetch_add(amount as u64, Ordering::Relaxed);
}

#[async_trait]
impl Store for Counted {
    async fn get(&self, key: &Key) -> StoreResult<Option<Record>> {
        let record = self.inner().get(key).await?;
        count(&self.records_read, usize::from(record.is_some()));
        Ok(record)
    }

    async fn list(&self, query: &Query) -> StoreResult<Page> {
        let page = self.inner().list(query).await?;
        count(&self.records_read, page.records.len());
        Ok(page)
    }

    async fn counts(&self, table: Table) -> StoreResult<Vec<Count>> {
        self.inner().counts(table).await
    }

    async fn commit(&self, operations: Vec<Operation>) -> StoreResult<Commit> {
        let written =
            operations.iter().filter(|operation| !matches!(operation.change, Change::Check)).count();
        let commit = self.inner().commit(operations).await?;
        count(&self.commits, 1);
        count(&self.records_written, written);
        Ok(commit)
    }

    async fn sequence(&self) -> StoreResult<Sequence> {
        self.inner().sequence().await
    }

    async fn changes(&self, after: Sequence, limit: usize) -> StoreResult<Changes> {
        self.inner().changes(after, limit).await
    }

    fn watch(&self) -> watch::Receiver<Sequence> {
        self.inner().watch()
    }

    async fn health(&self) -> StoreHealth {
        self.inner().health().await
    }

    async fn close(&self) -> StoreResult<()> {
        self.inner().close().await
    }
}
