//! The backends on SurrealDB: in the engine's own process on RocksDB, and on a server that several
//! engines may share.
//!
//! One implementation keeps the contract in both. A record is a row of its table; a commit is one
//! statement, which is one transaction; commits that wait at the same time share one. Several engines
//! meet in the database alone: each numbers its commits, keeps its own part of the counts and writes a
//! log of what it has changed, so that no two of them wait for each other unless they change the same
//! record.
//!
//! - `row`, `schema`: what is stored.
//! - `link`, `embedded`, `tls`: the way to the database.
//! - `plan`, `committer`: commits.
//! - `listing`: pages.
//! - `feed`, `follower`: what has changed, also by others.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use surrealdb::types::{Object, Value};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::record::{Commit, Key, Operation, Record, Sequence, Table};
use crate::request::{check_commit, check_id, check_query};
use crate::store::{Changes, Count, Page, Query, Store, StoreError, StoreHealth, StoreResult};

mod committer;
mod embedded;
mod feed;
mod follower;
mod link;
mod listing;
mod plan;
mod row;
mod schema;
mod tls;

use committer::Committer;
use embedded::Embedded;
use feed::Feed;
use follower::{Follower, Progress};
use link::{Link, Trouble};
use plan::Request;
pub use schema::{bootstrap, stored_version};

/// How many commits may wait for the committer before their authors wait for room.
const WAITING_COMMITS: usize = 1024;
/// Where the records are, inside the engine's process.
const NAMESPACE: &str = "orchestrator";
const DATABASE: &str = "tasks";
/// The writer's name inside the engine's process, where there is one at a time.
const EMBEDDED_WRITER: &str = "embedded";

/// A name and a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user.
    pub username: String,
    /// The password.
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

/// How to open a store in this process.
#[derive(Debug, Clone)]
pub struct EmbeddedOptions {
    /// The data directory; the store is in `orchestrator.db` within it. Created when it is missing.
    pub data_dir: PathBuf,
}

impl EmbeddedOptions {
    /// The usual way.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self { data_dir: data_dir.into() }
    }
}

/// How to open a store on a server.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// `ws://`, `wss://`, `http://` or `https://`, host and port. Events of other engines come at once
    /// over a web socket, and with the next look over HTTP.
    pub url: String,
    /// The namespace.
    pub namespace: String,
    /// The database in it.
    pub database: String,
    /// The database's user; without one the server must let everybody in.
    pub credentials: Option<Credentials>,
    /// How long a call waits for the server before it answers [`StoreError::Away`].
    pub patience: Duration,
    /// What is left of an engine that has written nothing for so long is put together with that of others
    /// when a store is opened.
    pub retire_after: Duration,
    /// Between two looks at what other engines have written. Over a web socket the server tells of it as
    /// well.
    pub poll_interval: Duration,
}

impl ServerOptions {
    /// The usual way: namespace `orchestrator`, database `tasks`, ten seconds of patience, a day, and half a
    /// second.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            namespace: NAMESPACE.to_owned(),
            database: DATABASE.to_owned(),
            credentials: None,
            patience: Duration::from_secs(10),
            retire_after: Duration::from_secs(24 * 60 * 60),
            poll_interval: Duration::from_millis(500),
        }
    }
}

/// What the store's handle and its tasks share.
struct Shared {
    link: Link,
    feed: Feed,
    /// Set once it is not known what the disk holds; never taken back.
    failure: OnceLock<String>,
    closed: AtomicBool,
    /// The names under which this store has written.
    own_names: Mutex<HashSet<String>>,
}

impl Shared {
    fn own_names(&self) -> MutexGuard<'_, HashSet<String>> {
        self.own_names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A store on SurrealDB.
///
/// Closing it waits until what was accepted is durable, and lets go of the directory or the connection.
/// One that is dropped finishes what it was given in the background.
pub struct SurrealStore {
    shared: Arc<Shared>,
    /// The store's directory; `None` on a server.
    directory: Option<PathBuf>,
    running: Mutex<Option<Running>>,
    /// Reads hold it shared, closing holds it alone: the datastore ends when nobody reads.
    reading: tokio::sync::RwLock<()>,
}

/// The tasks as long as they run.
struct Running {
    requests: mpsc::Sender<Request>,
    committer: JoinHandle<()>,
    follower: Option<JoinHandle<()>>,
    embedded: Option<Embedded>,
}

impl SurrealStore {
    /// Opens the store of a data directory, or creates an empty one.
    ///
    /// # Errors
    /// [`StoreError::InUse`] while another one has it open; [`StoreError::NewerSchema`];
    /// [`StoreError::Database`] with the database's words when it cannot read what is there, and
    /// [`StoreError::Io`]: then nothing was changed.
    pub async fn open_embedded(options: EmbeddedOptions) -> StoreResult<Self> {
        let directory = options.data_dir.join("orchestrator.db");
        let (embedded, client) = Embedded::open(&directory).await?;
        Self::on_embedded(embedded, client, Some(directory)).await
    }

    /// Opens an empty store that forgets everything when it is closed: for tests.
    ///
    /// # Errors
    /// [`StoreError::Database`] with the database's words.
    pub async fn open_in_memory() -> StoreResult<Self> {
        let (embedded, client) = Embedded::in_memory().await?;
        Self::on_embedded(embedded, client, None).await
    }

    async fn on_embedded(
        embedded: Embedded,
        client: surrealdb::Surreal<surrealdb::engine::local::Db>,
        directory: Option<PathBuf>,
    ) -> StoreResult<Self> {
        let location = directory.as_ref().map_or("memory".into(), |path| path.display().to_string());
        let link = Link::embedded(client, location);
        match Self::prepare_embedded(&link).await {
            Ok(()) => Self::start(link, EMBEDDED_WRITER.to_owned(), Some(embedded), directory).await,
            Err(error) => {
                link.close().await;
                if let Err(reason) = embedded.close().await {
                    tracing::warn!(reason, "the database did not end well");
                }
                Err(error)
            }
        }
    }

    async fn prepare_embedded(link: &Link) -> StoreResult<()> {
        schema::make_database(link, NAMESPACE, DATABASE).await?;
        schema::prepare(link).await
    }

    /// Opens a store on a server.
    ///
    /// # Errors
    /// [`StoreError::Away`] when the server cannot be reached or does not let this user in;
    /// [`StoreError::NewerSchema`]; [`StoreError::Database`] when it refuses;
    /// [`StoreError::Invalid`] for a namespace or a database that cannot be one.
    pub async fn open_server(options: ServerOptions) -> StoreResult<Self> {
        schema::check_name("namespace", &options.namespace)?;
        schema::check_name("database", &options.database)?;
        let retire_after = options.retire_after;
        let (namespace, database) = (options.namespace.clone(), options.database.clone());
        let is_open_to_all = options.credentials.is_none();
        let link = Link::server(options);
        if is_open_to_all {
            schema::make_database(&link, &namespace, &database).await?;
        }
        schema::prepare(&link).await?;
        if let Err(trouble) = follower::retire(&link, retire_after).await {
            // Another engine that starts may have been quicker.
            tracing::warn!(?trouble, "what engines of the past have left is not put together");
        }
        Self::start(link, committer::new_name(), None, None).await
    }

    async fn start(
        link: Link,
        name: String,
        embedded: Option<Embedded>,
        directory: Option<PathBuf>,
    ) -> StoreResult<Self> {
        let fail = |trouble: Trouble| trouble.of_read(&link.location);
        let writer = committer::register(&link, name.clone()).await.map_err(fail)?;
        let seen: Progress = follower::progress(&link).await.map_err(fail)?;
        let poll_interval = link.poll_interval();
        let shared = Arc::new(Shared {
            link,
            feed: Feed::new(seen.values().sum()),
            failure: OnceLock::new(),
            closed: AtomicBool::new(false),
            own_names: Mutex::new(HashSet::from([name])),
        });
        let (requests, receiver) = mpsc::channel(WAITING_COMMITS);
        let committer = Committer::new(Arc::clone(&shared), writer);
        let committer = tokio::spawn(committer.run(receiver));
        let follower = poll_interval.map(|poll_interval| {
            tokio::spawn(Follower { shared: Arc::clone(&shared), seen, poll_interval }.run())
        });
        let running = Mutex::new(Some(Running { requests, committer, follower, embedded }));
        Ok(Self { shared, directory, running, reading: tokio::sync::RwLock::new(()) })
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open_or_closed(&self) -> StoreResult<()> {
        if self.shared.closed.load(Ordering::Acquire) { Err(StoreError::Closed) } else { Ok(()) }
    }

    /// What a reader is told of its trouble.
    fn told(&self, trouble: Trouble) -> StoreError {
        trouble.of_read(&self.shared.link.location)
    }

    async fn read(&self, text: &str, values: Object) -> StoreResult<Value> {
        let _reading = self.reading.read().await;
        self.open_or_closed()?;
        self.shared.link.read(text, values).await.map_err(|trouble| self.told(trouble))
    }
}

impl Drop for SurrealStore {
    fn drop(&mut self) {
        // The committer ends with its channel.
        if let Some(Running { follower: Some(follower), .. }) = self.running().take() {
            follower.abort();
        }
    }
}

#[async_trait]
impl Store for SurrealStore {
    async fn get(&self, key: &Key) -> StoreResult<Option<Record>> {
        check_id(key)?;
        let values = row::object([("id", Value::RecordId(row::record_id(key)))]);
        match self.read("RETURN (SELECT * FROM ONLY $id)", values).await? {
            Value::None => Ok(None),
            found => {
                let record = row::record(key.table, found);
                record.map(Some).map_err(|reason| self.told(Trouble::Refused(reason)))
            }
        }
    }

    async fn list(&self, query: &Query) -> StoreResult<Page> {
        check_query(query)?;
        let _reading = self.reading.read().await;
        self.open_or_closed()?;
        listing::page(&self.shared.link, query).await.map_err(|trouble| self.told(trouble))
    }

    async fn counts(&self, table: Table) -> StoreResult<Vec<Count>> {
        let rows = self.read(listing::COUNTS, listing::counts_of(table)).await?;
        let sums = listing::sums(rows).map_err(|reason| self.told(Trouble::Refused(reason)))?;
        let positive = |((status, group), n): (_, i64)| match u64::try_from(n) {
            Ok(records @ 1..) => Some(Count { status, group, records }),
            _ => None,
        };
        Ok(BTreeMap::into_iter(sums).filter_map(positive).collect())
    }

    async fn commit(&self, operations: Vec<Operation>) -> StoreResult<Commit> {
        check_commit(&operations)?;
        let requests = match &*self.running() {
            Some(running) => running.requests.clone(),
            None => return Err(StoreError::Closed),
        };
        let gone = || StoreError::Failed { reason: "the committer has ended".to_owned() };
        let (reply, answer) = oneshot::channel();
        requests.send(Request { operations, reply }).await.map_err(|_| gone())?;
        drop(requests);
        answer.await.map_err(|_| gone())?
    }

    async fn sequence(&self) -> StoreResult<Sequence> {
        self.open_or_closed()?;
        Ok(self.shared.feed.sequence())
    }

    async fn changes(&self, after: Sequence, limit: usize) -> StoreResult<Changes> {
        self.open_or_closed()?;
        Ok(self.shared.feed.changes(after, limit))
    }

    fn watch(&self) -> watch::Receiver<Sequence> {
        self.shared.feed.watch()
    }

    async fn health(&self) -> StoreHealth {
        let reason = match self.read("RETURN true", Object::new()).await {
            Err(StoreError::Closed) => Some(StoreError::Closed.to_string()),
            _ if self.shared.failure.get().is_some() => self.shared.failure.get().cloned(),
            Err(error) => Some(error.to_string()),
            Ok(_) => None,
        };
        let free = |directory: &PathBuf| rustix::fs::statvfs(directory).ok();
        let free = self.directory.as_ref().and_then(free);
        StoreHealth {
            writable: reason.is_none(),
            reason,
            free_bytes: free.map(|numbers| numbers.f_bavail.saturating_mul(numbers.f_frsize)),
            backend: if self.shared.link.is_shared() { "surrealdb-server" } else { "surrealdb-embedded" },
            location: self.shared.link.location.clone(),
        }
    }

    async fn close(&self) -> StoreResult<()> {
        self.shared.closed.store(true, Ordering::Release);
        let Some(Running { requests, committer, follower, embedded }) = self.running().take() else {
            return Ok(());
        };
        drop(requests);
        let ended = committer.await;
        if let Some(follower) = follower {
            follower.abort();
            // Its end is a cancellation.
            let _ = follower.await;
        }
        let _alone = self.reading.write().await;
        self.shared.link.close().await;
        let location = || self.shared.link.location.clone();
        if let Some(embedded) = embedded {
            let closed = embedded.close().await;
            closed.map_err(|reason| StoreError::Database { location: location(), reason })?;
        }
        ended.map_err(|_| StoreError::Failed { reason: "the committer ended early".to_owned() })
    }
}
