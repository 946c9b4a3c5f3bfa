//! Several engines on one store, in one process: each sees the store through a wrapper of its own, behind
//! which it can be held up as a stalled process is.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use clap::Parser;
use orchestrator_engine::config::{Arguments, Config};
use orchestrator_engine::engine::{Ended, Engine};
use orchestrator_engine::follow::Follower;
use orchestrator_engine::membership::{About, LeaseTimes, Membership};
use orchestrator_engine::queue::{Queue, QueueOptions};
use orchestrator_engine::service::EngineService;
use orchestrator_protocol::Error;
use orchestrator_protocol::request::{Call, StopMode};
use orchestrator_protocol::service::{Caller, Service};
use orchestrator_protocol::task::RetryPolicy;
use orchestrator_storage::{
    Changes, Commit, Count, Key, Operation, Page, Query, Record, Sequence, Store, StoreError, StoreHealth,
    StoreResult, Table,
};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::{store, wait};

/// A store that others share: closing it closes nothing, and it can be held up.
pub struct SharedStore {
    inner: Arc<dyn Store>,
    is_stalled: watch::Sender<bool>,
    stalls_at: Mutex<Option<&'static str>>,
    forgets: AtomicBool,
    loses_answer: AtomicBool,
    refuses_output: AtomicBool,
    refuses_renewals: AtomicBool,
    refusals: AtomicU64,
}

impl SharedStore {
    /// One more view of a store.
    pub fn new(inner: &Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Self {
            inner: Arc::clone(inner),
            is_stalled: watch::Sender::new(false),
            stalls_at: Mutex::default(),
            forgets: AtomicBool::new(false),
            loses_answer: AtomicBool::new(false),
            refuses_output: AtomicBool::new(false),
            refuses_renewals: AtomicBool::new(false),
            refusals: AtomicU64::new(0),
        })
    }

    /// Holds up every call from now on, or lets those that wait, and all later ones, through.
    pub fn stall(&self, is_stalled: bool) {
        self.is_stalled.send_replace(is_stalled);
    }

    /// Holds up every call from the next commit on that writes a record whose identifier begins like this.
    ///
    /// # Panics
    /// When another thread has panicked here.
    pub fn stall_at(&self, id: &'static str) {
        *self.stalls_at.lock().unwrap() = Some(id);
    }

    /// Waits until calls are held up.
    pub async fn stalled(&self) {
        // The sender lives as long as this does.
        let _ = self.is_stalled.subscribe().wait_for(|is_stalled| *is_stalled).await;
    }

    /// Answers the next question for changes by saying that they are not known any more.
    pub fn forget_changes(&self) {
        self.forgets.store(true, Ordering::SeqCst);
    }

    /// Makes the next commit, and answers that it is not known whether it was made.
    pub fn lose_answer(&self) {
        self.loses_answer.store(true, Ordering::SeqCst);
    }

    /// Refuses what attempts have printed from now on, as a storage that is away does; or takes it again.
    pub fn refuse_output(&self, refuses: bool) {
        self.refuses_output.store(refuses, Ordering::SeqCst);
    }

    /// Refuses to renew leases from now on, as a storage that is away does; or renews them again.
    pub fn refuse_renewals(&self, refuses: bool) {
        self.refuses_renewals.store(refuses, Ordering::SeqCst);
    }

    /// How often it has refused what attempts have printed.
    pub fn refusals(&self) -> u64 {
        self.refusals.load(Ordering::SeqCst)
    }

    fn stall_before(&self, operations: &[Operation]) {
        let mut stalls_at = self.stalls_at.lock().unwrap();
        let is_meant = |id: &str| operations.iter().any(|operation| operation.key.id.starts_with(id));
        if stalls_at.is_some_and(is_meant) {
            *stalls_at = None;
            self.stall(true);
        }
    }

    async fn ready(&self) {
        // The sender lives as long as this does.
        let _ = self.is_stalled.subscribe().wait_for(|is_stalled| !is_stalled).await;
    }
}

#[async_trait]
impl Store for SharedStore {
    async fn get(&self, key: &Key) -> StoreResult<Option<Record>> {
        self.ready().await;
        self.inner.get(key).await
    }

    async fn list(&self, query: &Query) -> StoreResult<Page> {
        self.ready().await;
        self.inner.list(query).await
    }

    async fn counts(&self, table: Table) -> StoreResult<Vec<Count>> {
        self.ready().await;
        self.inner.counts(table).await
    }

    async fn commit(&self, operations: Vec<Operation>) -> StoreResult<Commit> {
        self.stall_before(&operations);
        self.ready().await;
        let refuses = |reason: &str| {
            Err(StoreError::Away { location: "the store".to_owned(), reason: reason.to_owned() })
        };
        if self.refuses_output.load(Ordering::SeqCst)
            && operations.iter().any(|operation| operation.key.table == Table::LogSegment)
        {
            self.refusals.fetch_add(1, Ordering::SeqCst);
            return refuses("it takes no output");
        }
        if self.refuses_renewals.load(Ordering::SeqCst)
            && operations.iter().any(|operation| operation.key.id.ends_with("/lease"))
        {
            return refuses("it renews no lease");
        }
        let commit = self.inner.commit(operations).await;
        if self.loses_answer.swap(false, Ordering::SeqCst) {
            let (location, reason) = ("the store".to_owned(), "its answer was lost".to_owned());
            return Err(StoreError::OutcomeUnknown { location, reason });
        }
        commit
    }

    async fn sequence(&self) -> StoreResult<Sequence> {
        self.ready().await;
        self.inner.sequence().await
    }

    async fn changes(&self, after: Sequence, limit: usize) -> StoreResult<Changes> {
        self.ready().await;
        if self.forgets.swap(false, Ordering::SeqCst) {
            return Ok(Changes::Gone { upto: self.inner.sequence().await? });
        }
        self.inner.changes(after, limit).await
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

/// A store in a directory, to be shared.
pub async fn store(directory: &Path) -> Arc<dyn Store> {
    store::open(&directory.join("store")).await
}

/// Times that make an engine lost after five seconds.
pub fn short_times() -> LeaseTimes {
    LeaseTimes {
        renew: Duration::from_millis(200),
        scripts: Duration::from_secs(3),
        lost: Duration::from_secs(5),
    }
}

/// Waits for a condition in a test with tasks of its own.
///
/// # Panics
/// When it does not come true in time.
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + wait::PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(tokio::time::Instant::now() < deadline, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// An engine without processes: a queue with a seat, which follows the others. Attempts are claimed and
/// ended by the test.
pub struct Peer {
    /// Its queue.
    pub queue: Arc<Queue>,
    /// Its place among the others.
    pub membership: Arc<Membership>,
    /// Its view of the store.
    pub store: Arc<SharedStore>,
    following: JoinHandle<()>,
    keeping: JoinHandle<()>,
}

impl Peer {
    /// An engine of this name, with its data directory under another.
    pub async fn join(inner: &Arc<dyn Store>, directory: &Path, name: &str) -> Self {
        Self::join_with(inner, directory, name, LeaseTimes::default(), |_| {}).await
    }

    /// The same with times and options.
    pub async fn join_with(
        inner: &Arc<dyn Store>,
        directory: &Path,
        name: &str,
        times: LeaseTimes,
        change: impl FnOnce(&mut QueueOptions),
    ) -> Self {
        let store = SharedStore::new(inner);
        let data_dir = directory.join(name);
        fs::create_dir_all(data_dir.join("attempts")).unwrap();
        let mut options = QueueOptions {
            engine: name.into(),
            is_shared: true,
            labels: std::collections::BTreeMap::new(),
            boot_id: "test".into(),
            retry: RetryPolicy { max_retries: 3, base_ms: 1, cap_ms: 1 },
            grace_ms: 0,
            group_limits: std::collections::HashMap::new(),
            max_parallel: 8,
        };
        change(&mut options);
        let about = About {
            host: format!("{name}.example"),
            boot_id: orchestrator_runner::identity::boot_id().unwrap(),
            labels: options.labels.clone(),
            ..About::default()
        };
        let seat = Arc::clone(&store) as Arc<dyn Store>;
        let membership =
            Membership::join(seat, name.to_owned(), uuid(), about, times, &data_dir).await.unwrap();
        let keeping = {
            let membership = Arc::clone(&membership);
            tokio::spawn(async move { membership.keep().await })
        };
        let after = membership.store().sequence().await.unwrap();
        let queue = Arc::new(Queue::new(Arc::clone(membership.store()) as _, options));
        queue.recover().await.unwrap();
        let follower = Follower::new(
            Arc::clone(&queue),
            Arc::clone(membership.store()),
            data_dir.join("attempts"),
            after,
        );
        let following = tokio::spawn(follower.run());
        Self { queue, membership, store, following, keeping }
    }

    /// Stops following what the others do.
    pub fn stop_following(&self) {
        self.following.abort();
    }

    /// Stops giving signs of life.
    pub fn fall_silent(&self) {
        self.keeping.abort();
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.following.abort();
        self.keeping.abort();
    }
}

fn uuid() -> String {
    orchestrator_protocol::task::TaskId::generate().to_string()
}

/// A whole engine inside this process, with real runners.
pub struct Member {
    /// What answers for it.
    pub service: Arc<EngineService>,
    /// Its view of the store.
    pub store: Arc<SharedStore>,
    /// Its data directory.
    pub data_dir: PathBuf,
    running: JoinHandle<anyhow::Result<Ended>>,
}

impl Member {
    /// Starts an engine of this name. `runner` is the program that supervises attempts.
    pub async fn start(
        inner: &Arc<dyn Store>,
        directory: &Path,
        name: &str,
        runner: &str,
        times: LeaseTimes,
    ) -> Self {
        Self::open(inner, directory, name, runner, times).await.unwrap()
    }

    /// The same, which may fail.
    pub async fn open(
        inner: &Arc<dyn Store>,
        directory: &Path,
        name: &str,
        runner: &str,
        times: LeaseTimes,
    ) -> anyhow::Result<Self> {
        let data_dir = directory.join(name);
        let socket = data_dir.join("engine.sock");
        let arguments = [
            "orchestrator",
            "--no-http",
            "--max-parallel",
            "2",
            "--data-dir",
            data_dir.to_str().unwrap(),
            "--socket",
            socket.to_str().unwrap(),
        ];
        let mut config = Config::load(Arguments::parse_from(arguments)).unwrap();
        config.runner = runner.into();
        config.runner_args = Vec::new();
        fs::create_dir_all(config.attempts_dir()).unwrap();
        let store = SharedStore::new(inner);
        let engine = Engine::on_shared_store(config, Arc::clone(&store) as _, times).await?;
        let service = engine.service();
        Ok(Self { service, store, data_dir, running: tokio::spawn(engine.run()) })
    }

    /// Asks a question.
    pub async fn ask<C: Call>(&self, call: C) -> Result<C::Reply, Error> {
        let response = self.service.call(&Caller::Local { pid: None }, call.into()).await?;
        Ok(C::reply(response).unwrap())
    }

    /// Its name.
    pub fn name(&self) -> String {
        self.service.queue.options().engine.clone()
    }

    /// Ends it as `kill -9` does: nothing that it does reaches the store any more.
    pub async fn crash(self) {
        self.store.stall(true);
        self.running.abort();
        let _ = self.running.await;
    }

    /// Stops it and leaves its scripts running.
    pub async fn stop(self) -> Ended {
        let _ = self.service.stop.send(StopMode::Now).await;
        self.ended().await
    }

    /// Waits until it has ended by itself.
    pub async fn ended(self) -> Ended {
        tokio::time::timeout(wait::PATIENCE, self.running).await.unwrap().unwrap().unwrap()
    }
}
