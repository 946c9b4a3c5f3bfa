//! The contract that every storage backend keeps.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::record::{Commit, Key, Operation, Record, Sequence, Table};

/// The result of a storage call.
pub type StoreResult<T> = Result<T, StoreError>;

/// What can go wrong in any backend. A backend's private errors are the `source` of these.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another commit came first: read the record again and decide anew. Nothing was written.
    #[error("{key} was changed by another commit")]
    Conflict {
        /// A record whose expectation did not hold.
        key: Key,
    },
    /// The medium is full. Nothing was written; the store goes on, and a later commit may succeed.
    #[error("no space left for the store in {location}")]
    Full {
        /// Where: a directory or a server's address.
        location: String,
        /// The system's words.
        #[source]
        source: std::io::Error,
    },
    /// Another process has this store open.
    #[error("another engine already uses the data directory {}", path.display())]
    InUse {
        /// The store's directory.
        path: PathBuf,
    },
    /// Something stored cannot be read. Nothing was changed.
    #[error("{} cannot be read at byte {offset}: {reason}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// The store was written by a newer release.
    #[error("the store has schema version {found}, and this release knows versions up to {known}")]
    NewerSchema {
        /// What is stored.
        found: u32,
        /// What this release knows.
        known: u32,
    },
    /// The request makes no sense: an empty or overlong identifier, a key named twice in a commit.
    #[error("invalid storage request: {reason}")]
    Invalid {
        /// What is wrong with it.
        reason: String,
    },
    /// The medium failed, and it is not known what it holds: nothing more is acknowledged until the
    /// store has been opened again.
    #[error("the store failed and must be opened again: {reason}")]
    Failed {
        /// What happened first.
        reason: String,
    },
    /// A read or a write failed, and nothing was changed.
    #[error("storage input or output failed on {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's words.
        #[source]
        source: std::io::Error,
    },
    /// The database cannot be reached now. Nothing was written; the store goes on by itself when the
    /// database is back.
    #[error("the database at {location} cannot be reached: {reason}")]
    Away {
        /// Its address.
        location: String,
        /// What was tried, and what came of it.
        reason: String,
    },
    /// The connection was lost while a commit was under way, and the database has not been back in time
    /// to say whether it happened. The store goes on: read again and decide anew.
    #[error("it is not known whether the database at {location} has made a commit: {reason}")]
    OutcomeUnknown {
        /// Its address.
        location: String,
        /// What happened.
        reason: String,
    },
    /// The database has answered with an error, or with something that this release does not understand.
    /// Nothing was changed.
    #[error("the database at {location} does not do what it is asked: {reason}")]
    Database {
        /// A directory or a server's address.
        location: String,
        /// The database's words.
        reason: String,
    },
    /// The author has lost its seat among those who share the store: others have taken over its work, or
    /// are about to. Nothing was written, and nothing will be in this life of it.
    #[error("this engine has lost its seat: others have taken over its work")]
    Unseated,
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

/// In which order a listing goes. Records of a table are ordered by identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// Newest first: descending identifiers.
    #[default]
    NewestFirst,
    /// Ascending identifiers.
    OldestFirst,
}

/// Which records a listing returns. Every field that is set must match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// One of these states; empty means any.
    pub statuses: Vec<Arc<str>>,
    /// This group.
    pub group: Option<Arc<str>>,
    /// This kind.
    pub kind: Option<Arc<str>>,
    /// Belongs to this record.
    pub parent: Option<Arc<str>>,
    /// Carries all of these labels.
    pub labels: Vec<(Arc<str>, Arc<str>)>,
    /// Created at or after this time, in milliseconds since the Unix epoch.
    pub created_from_ms: Option<i64>,
    /// Created before this time, in milliseconds since the Unix epoch.
    pub created_before_ms: Option<i64>,
    /// Ended before this time, in milliseconds since the Unix epoch.
    pub ended_before_ms: Option<i64>,
}

/// Where a listing goes on: the identifier of the last record that was looked at.
pub type Cursor = Arc<str>;

/// One page of a listing.
#[derive(Debug, Clone)]
pub struct Query {
    /// The table.
    pub table: Table,
    /// Which records.
    pub filter: Filter,
    /// In which order.
    pub order: Order,
    /// After this record, in that order.
    pub after: Option<Cursor>,
    /// At most so many, 1 to 10 000.
    pub limit: usize,
}

/// A page of a listing.
#[derive(Debug, Clone)]
pub struct Page {
    /// The records.
    pub records: Vec<Record>,
    /// Where the next page starts; `None` at the end.
    pub next: Option<Cursor>,
}

/// How many records of a table have a state and a group. Kept, not counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Count {
    /// The state.
    pub status: Option<Arc<str>>,
    /// The group.
    pub group: Option<Arc<str>>,
    /// How many; never 0.
    pub records: u64,
}

/// Commits that came after a sequence, oldest first.
#[derive(Debug, Clone)]
pub enum Changes {
    /// All keys that commits up to `upto` (inclusive) have written or removed since.
    Since {
        /// The last commit that this answer covers.
        upto: Sequence,
        /// What they changed, in order; a key can come more than once.
        keys: Vec<(Sequence, Key)>,
    },
    /// The store no longer knows: list again.
    Gone {
        /// The store's newest commit.
        upto: Sequence,
    },
}

/// What a health check learned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreHealth {
    /// Whether commits are accepted now.
    pub writable: bool,
    /// Why not.
    pub reason: Option<String>,
    /// Free space in bytes, where the backend can tell.
    pub free_bytes: Option<u64>,
    /// The backend's name: `filesystem`, `surrealdb-embedded`, `surrealdb-server`.
    pub backend: &'static str,
    /// Where it keeps the records.
    pub location: String,
}

/// A store of versioned records.
///
/// What a commit has acknowledged is durable. A read may see a commit just before it is; a commit
/// made after that read is never durable without it. Methods may be called from many tasks at once;
/// commits that do not touch the same records do not fail each other. A future that is dropped does
/// not undo the commit it waited for.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Reads one record; `None` where there is none.
    async fn get(&self, key: &Key) -> StoreResult<Option<Record>>;

    /// One page of records. A page may hold fewer records than its limit and still have a next one.
    async fn list(&self, query: &Query) -> StoreResult<Page>;

    /// The numbers of records by state and group, kept up to date by every commit of this store. Those
    /// of another engine's newest commits may follow a moment later.
    async fn counts(&self, table: Table) -> StoreResult<Vec<Count>>;

    /// Changes records: all operations or none, durable when it returns. A key may stand in one
    /// operation only. No operation at all is [`StoreError::Invalid`]. Expectations, also those of
    /// [`Change::Check`](crate::Change::Check), hold at the moment of the commit, against all commits
    /// that are made at the same time.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when an expectation does not hold; [`StoreError::Full`] without
    /// space; [`StoreError::Away`] while the database cannot be reached; when it cannot be known whether
    /// the commit happened [`StoreError::OutcomeUnknown`], after which the author reads again, or
    /// [`StoreError::Failed`], after which the author must open the store again first.
    async fn commit(&self, operations: Vec<Operation>) -> StoreResult<Commit>;

    /// The number of the newest durable commit; 0 for an empty store.
    async fn sequence(&self) -> StoreResult<Sequence>;

    /// What was changed after a sequence, at most about `limit` keys.
    async fn changes(&self, after: Sequence, limit: usize) -> StoreResult<Changes>;

    /// A hint that there is something new to read: the newest sequence. It may be late, and it may
    /// skip numbers; [`Store::changes`] is the truth.
    fn watch(&self) -> watch::Receiver<Sequence>;

    /// Whether it works, and how much room there is. Never fails: a failure is its answer.
    async fn health(&self) -> StoreHealth;

    /// Makes everything durable and lets go of what the store holds. Later calls answer
    /// [`StoreError::Closed`].
    async fn close(&self) -> StoreResult<()>;
}
