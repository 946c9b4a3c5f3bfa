//! Stores with something in them, what they hold, a store that stops at the n-th commit, and one that asks a test
//! before it does anything.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use futures::future::BoxFuture;
use orchestrator_storage::filesystem::{FilesystemOptions, FilesystemStore};
use orchestrator_storage::migration::Plan;
use orchestrator_storage::migration::state::{Place, state_key};
use orchestrator_storage::{
    Change, Changes, Commit, Count, Expect, Fields, Filter, Key, Operation, Order, Page, Query, Record,
    Revision, Sequence, Store, StoreError, StoreHealth, StoreResult, Table,
};
use serde_json::value::RawValue;
use tokio::sync::watch;

pub type Content = BTreeMap<Key, (Revision, Fields, String)>;

pub fn open(directory: &Path) -> Arc<FilesystemStore> {
    let options = FilesystemOptions { min_free_bytes: 0, ..FilesystemOptions::new(directory) };
    Arc::new(FilesystemStore::open(options).unwrap())
}

pub fn place(directory: &Path) -> Place {
    Place { backend: "filesystem".into(), location: directory.display().to_string() }
}

pub fn plan(id: &str, from: &Path, to: &Path) -> Plan {
    Plan { migration: id.into(), from: place(from), to: place(to) }
}

pub fn put(key: &Key, expect: Expect, text: &str) -> Operation {
    let body = RawValue::from_string(text.to_owned()).unwrap().into();
    let fields = Fields {
        status: Some("Pending".into()),
        group: Some("g".into()),
        labels: [("l".into(), text.len().to_string().into())].into(),
        created_at_ms: 5,
        ..Fields::default()
    };
    Operation { key: key.clone(), expect, change: Change::Put { fields, body } }
}

/// Fills a store: records of every table, of different revisions, some of them made anew, bodies with line
/// breaks, and one that is removed.
pub async fn fill(store: &dyn Store, records: usize) {
    for table in Table::ALL {
        let keys: Vec<Key> = (0..records).map(|n| Key::new(table, format!("{n:05} \"é\"\n"))).collect();
        store
            .commit(keys.iter().map(|key| put(key, Expect::Absent, "{ \"n\" :\r\n 1 }")).collect())
            .await
            .unwrap();
        for (n, key) in keys.iter().enumerate() {
            for revision in 1..=(n as u64 % 4) {
                store
                    .commit(vec![put(key, Expect::Revision(revision), &revision.to_string())])
                    .await
                    .unwrap();
            }
        }
        let gone = Key::new(table, "gone");
        store.commit(vec![put(&gone, Expect::Absent, "0")]).await.unwrap();
        let expect = Expect::Revision(1);
        store.commit(vec![Operation { key: gone, expect, change: Change::Delete }]).await.unwrap();
    }
}

/// What a store holds, without the record of its state.
pub async fn content(store: &dyn Store) -> Content {
    let mut content = Content::new();
    for table in Table::ALL {
        let order = Order::OldestFirst;
        let mut query = Query { table, filter: Filter::default(), order, after: None, limit: 1_000 };
        loop {
            let page = store.list(&query).await.unwrap();
            content.extend(
                page.records.into_iter().map(|record| {
                    (record.key, (record.revision, record.fields, record.body.get().to_owned()))
                }),
            );
            match page.next {
                Some(next) => query.after = Some(next),
                None => break,
            }
        }
    }
    content.remove(&state_key());
    content
}

/// The sums of the counts that a store keeps.
pub async fn counted(store: &dyn Store) -> u64 {
    let mut records = 0;
    for table in Table::ALL {
        records += store.counts(table).await.unwrap().iter().map(|count| count.records).sum::<u64>();
    }
    records - u64::from(store.get(&state_key()).await.unwrap().is_some())
}

/// The power that some stores share: after so many commits there is none.
pub struct Power {
    left: AtomicI64,
    /// Whether the commit at which it fails is still made.
    made: bool,
}

impl Power {
    pub fn for_commits(commits: i64, made: bool) -> Arc<Self> {
        Arc::new(Self { left: AtomicI64::new(commits), made })
    }

    pub fn is_out(&self) -> bool {
        self.left.load(Ordering::SeqCst) < 0
    }
}

/// A store of a process that ends at a commit: nothing that comes after it reaches the store inside.
/// Closing it leaves that one open.
pub struct Mortal {
    pub inner: Arc<dyn Store>,
    pub power: Arc<Power>,
}

fn dead<T>() -> StoreResult<T> {
    Err(StoreError::Failed { reason: "the process has ended".to_owned() })
}

#[async_trait]
impl Store for Mortal {
    async fn get(&self, key: &Key) -> StoreResult<Option<Record>> {
        if self.power.is_out() { dead() } else { self.inner.get(key).await }
    }

    async fn list(&self, query: &Query) -> StoreResult<Page> {
        if self.power.is_out() { dead() } else { self.inner.list(query).await }
    }

    async fn counts(&self, table: Table) -> StoreResult<Vec<Count>> {
        if self.power.is_out() { dead() } else { self.inner.counts(table).await }
    }

    async fn commit(&self, operations: Vec<Operation>) -> StoreResult<Commit> {
        match self.power.left.fetch_sub(1, Ordering::SeqCst) {
            0 if self.power.made => {
                self.inner.commit(operations).await?;
                dead()
            }
            ..=0 => dead(),
            _ => self.inner.commit(operations).await,
        }
    }

    async fn sequence(&self) -> StoreResult<Sequence> {
        if self.power.is_out() { dead() } else { self.inner.sequence().await }
    }

    async fn changes(&self, after: Sequence, limit: usize) -> StoreResult<Changes> {
        if self.power.is_out() { dead() } else { self.inner.changes(after, limit).await }
    }

    fn watch(&self) -> watch::Receiver<Sequence> {
        self.inner.watch()
    }

    async fn health(&self) -> StoreHealth {
        self.inner.health().await
    }

    async fn close(&self) -> StoreResult<()> {
        Ok(())
    }
}

/// What a test says before a store reads or commits: an error is what the store answers then.
pub type Say = BoxFuture<'static, StoreResult<()>>;

/// What is asked.
type Hook = Box<dyn Fn(&[Operation]) -> Say + Send + Sync>;

/// A store that asks a test before it reads (with no operations) and before it commits, and that may know the
/// changes of its newest commits only. Closing it leaves the one inside open.
pub struct Hooked {
    inner: Arc<dyn Store>,
    hook: Hook,
    /// Of how many commits it knows what they have changed.
    remembers: Sequence,
}

impl Hooked {
    pub fn around(
        inner: Arc<dyn Store>,
        hook: impl Fn(&[Operation]) -> Say + Send + Sync + 'static,
    ) -> Arc<dyn Store> {
        Arc::new(Self { inner, hook: Box::new(hook), remembers: Sequence::MAX })
    }

    /// One that does what it is asked.
    pub fn forgetful(inner: Arc<dyn Store>, remembers: Sequence) -> Arc<dyn Store> {
        let hook = |_: &[Operation]| -> Say { Box::pin(async { Ok(()) }) };
        Arc::new(Self { inner, hook: Box::new(hook), remembers })
    }
}

#[async_trait]
impl Store for Hooked {
    async fn get(&self, key: &Key) -> StoreResult<Option<Record>> {
        (self.hook)(&[]).await?;
        self.inner.get(key).await
    }

    async fn list(&self, query: &Query) -> StoreResult<Page> {
        (self.hook)(&[]).await?;
        self.inner.list(query).await
    }

    async fn counts(&self, table: Table) -> StoreResult<Vec<Count>> {
        self.inner.counts(table).await
    }

    async fn commit(&self, operations: Vec<Operation>) -> StoreResult<Commit> {
        (self.hook)(&operations).await?;
        self.inner.commit(operations).await
    }

    async fn sequence(&self) -> StoreResult<Sequence> {
        self.inner.sequence().await
    }

    async fn changes(&self, after: Sequence, limit: usize) -> StoreResult<Changes> {
        let upto = self.inner.sequence().await?;
        match upto.saturating_sub(after) > self.remembers {
            true => Ok(Changes::Gone { upto }),
            false => self.inner.changes(after, limit).await,
        }
    }

    fn watch(&self) -> watch::Receiver<Sequence> {
        self.inner.watch()
    }

    async fn health(&self) -> StoreHealth {
        self.inner.health().await
    }

    async fn close(&self) -> StoreResult<()> {
        Ok(())
    }
}

/// Whether a commit marks a store as the truth.
pub fn activates(operations: &[Operation]) -> bool {
    operations.iter().any(|operation| {
        operation.key == state_key()
            && matches!(&operation.change, Change::Put { body, .. } if body.get().contains(r#""state":"active""#))
    })
}

/// An error after which the same may succeed.
pub fn passing_error() -> StoreError {
    StoreError::Io { path: "target".into(), source: std::io::Error::other("injected fault") }
}
