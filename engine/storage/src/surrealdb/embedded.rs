//! The engine of the database in this process, on RocksDB: opening and closing it.
//!
//! The only place that uses what the client's crate does not promise to keep: its settings can be given
//! in no other way, and only who holds the datastore itself can wait for its end.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use surrealdb::Surreal;
use surrealdb::engine::local::Db;
use surrealdb_cnf::ConfigMap;
use surrealdb_engine_local::Datastore;

use crate::store::{StoreError, StoreResult};

/// What RocksDB keeps of its blocks in memory, in bytes. Without it half of the machine's memory.
const BLOCK_CACHE_BYTES: usize = 64 * 1024 * 1024;
/// One table of what is written and not yet in a file, in bytes, and how many of them there may be. As many
/// stay in memory, so that a commit can be checked against those it has raced with. Without these, as on
/// any machine with 16 GiB or more, 128 MiB and 8.
const WRITE_BUFFER_BYTES: usize = 16 * 1024 * 1024;
const WRITE_BUFFERS: usize = 4;
/// How long a directory that this process has just let go of may stay locked.
const RELEASE_PATIENCE: Duration = Duration::from_secs(10);
const RELEASE_INTERVAL: Duration = Duration::from_millis(5);

/// Directories that a store of this process holds. A lock on any other one that this process has, it has
/// only still.
static HELD: LazyLock<Mutex<HashSet<PathBuf>>> = LazyLock::new(Mutex::default);

fn held<T>(work: impl FnOnce(&mut HashSet<PathBuf>) -> T) -> T {
    work(&mut HELD.lock().unwrap_or_else(PoisonError::into_inner))
}

/// A directory's place in [`HELD`].
struct Hold(PathBuf);

impl Drop for Hold {
    fn drop(&mut self) {
        held(|directories| directories.remove(&self.0));
    }
}

/// An open datastore.
pub(super) struct Embedded {
    datastore: Arc<Datastore>,
    hold: Option<Hold>,
}

impl Embedded {
    /// Opens the datastore of a directory, or creates an empty one.
    pub(super) async fn open(directory: &Path) -> StoreResult<(Self, Surreal<Db>)> {
        let io = |source| StoreError::Io { path: directory.to_owned(), source };
        std::fs::create_dir_all(directory).map_err(io)?;
        let canonical = directory.canonicalize().map_err(io)?;
        let address = match canonical.to_str() {
            Some(path) if !path.contains('?') => format!("rocksdb://{path}"),
            _ => {
                let reason = format!("{} cannot be named to the database", canonical.display());
                return Err(StoreError::Invalid { reason });
            }
        };
        let in_use = || StoreError::InUse { path: directory.to_owned() };
        if !held(|directories| directories.insert(canonical.clone())) {
            return Err(in_use());
        }
        let hold = Hold(canonical);
        let deadline = Instant::now() + RELEASE_PATIENCE;
        loop {
            match Self::start(&address).await {
                Ok((datastore, client)) => return Ok((Self { datastore, hold: Some(hold) }, client)),
                // This process holds no such directory, so a lock that it has is about to go.
                Err(reason) if is_own_lock(&reason) && Instant::now() < deadline => {
                    tokio::time::sleep(RELEASE_INTERVAL).await;
                }
                Err(reason) if is_lock(&reason) => return Err(in_use()),
                Err(reason) => {
                    let location = directory.display().to_string();
                    return Err(StoreError::Database { location, reason });
                }
            }
        }
    }

    /// A store that forgets everything: for tests.
    pub(super) async fn in_memory() -> StoreResult<(Self, Surreal<Db>)> {
        let started = Self::start("memory").await;
        let (datastore, client) =
            started.map_err(|reason| StoreError::Database { location: "memory".to_owned(), reason })?;
        Ok((Self { datastore, hold: None }, client))
    }

    async fn start(address: &str) -> Result<(Arc<Datastore>, Surreal<Db>), String> {
        let settings = ConfigMap::empty()
            .with_key_value("rocksdb_block_cache_size", BLOCK_CACHE_BYTES.to_string())
            .with_key_value("rocksdb_write_buffer_size", WRITE_BUFFER_BYTES.to_string())
            .with_key_value("rocksdb_max_write_buffer_number", WRITE_BUFFERS.to_string())
            .with_key_value("datastore_sync", "every");
        // The version is settled before the tasks that write are started.
        let datastore = Datastore::builder()
            .with_config(settings)
            .without_maintenance_tasks()
            .build_with_path(address)
            .await
            .map_err(|error| format!("{error:#}"))?;
        datastore.check_version().await.map_err(|error| format!("{error:#}"))?;
        datastore.bootstrap().await.map_err(|error| format!("{error:#}"))?;
        datastore.start_maintenance_tasks();
        let client = Surreal::<Db>::unstable_from_datastore(Arc::clone(&datastore), None)
            .await
            .map_err(|error| error.to_string())?;
        Ok((datastore, client))
    }

    /// Ends the datastore, and waits until its directory is free. Its clients are gone already.
    pub(super) async fn close(self) -> Result<(), String> {
        let Self { datastore, hold } = self;
        let ended = datastore.shutdown().await.map_err(|error| format!("{error:#}"));
        let gone = Arc::downgrade(&datastore);
        drop(datastore);
        let deadline = Instant::now() + RELEASE_PATIENCE;
        while gone.strong_count() > 0 && Instant::now() < deadline {
            tokio::time::sleep(RELEASE_INTERVAL).await;
        }
        drop(hold);
        ended
    }
}

/// Whether a start has failed because somebody has the directory. The name of the lock's file alone tells
/// nothing: it is also in what is said when the file cannot be opened.
fn is_lock(reason: &str) -> bool {
    reason.contains("While lock file") || is_own_lock(reason)
}

/// Whether that is this process.
fn is_own_lock(reason: &str) -> bool {
    reason.contains("lock hold by current process")
}
