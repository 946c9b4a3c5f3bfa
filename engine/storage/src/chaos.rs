//! A store that fails on purpose, around any other: for the tests of whatever stands on a store.
//!
//! [`ChaosStore`] hands calls on to the store inside it, and decides by a seeded generator when to
//! answer with an error instead: before the call, so that nothing has happened, or after a commit
//! whose author then cannot know whether it happened. After such a [`StoreError::Failed`] every commit
//! fails, as the contract has it, until [`ChaosStore::reopen`]. The same seed and the same row of
//! calls give the same faults.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::watch;

use crate::record::{Commit, Key, Operation, Record, Sequence, Table};
use crate::store::{Changes, Count, Page, Query, Store, StoreError, StoreHealth, StoreResult};

/// How often what goes wrong: probabilities from 0 (never) to 1 (always).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ChaosPlan {
    /// Where the generator starts.
    pub seed: u64,
    /// A read answers [`StoreError::Io`].
    pub read_error: f64,
    /// A commit answers [`StoreError::Io`] and is not made.
    pub commit_error: f64,
    /// A commit answers [`StoreError::Full`] and is not made.
    pub full: f64,
    /// A commit answers [`StoreError::Failed`]; every second one of these was made.
    pub outcome_unknown: f64,
    /// A call waits before it begins.
    pub delay: f64,
    /// How long at most.
    pub max_delay: Duration,
}

impl ChaosPlan {
    /// A plan in which nothing goes wrong: set what should.
    pub fn calm(seed: u64) -> Self {
        Self {
            seed,
            read_error: 0.0,
            commit_error: 0.0,
            full: 0.0,
            outcome_unknown: 0.0,
            delay: 0.0,
            max_delay: Duration::ZERO,
        }
    }
}

/// A store with faults.
pub struct ChaosStore<S: Store + ?Sized> {
    inner: Arc<S>,
    plan: ChaosPlan,
    state: Mutex<State>,
}

struct State {
    random: StdRng,
    failed: bool,
}

/// What happens to a commit.
enum Fate {
    Made,
    Refused(StoreError),
    Unknown { made: bool },
}

impl<S: Store + ?Sized> ChaosStore<S> {
    /// Wraps a store.
    pub fn new(inner: Arc<S>, plan: ChaosPlan) -> Self {
        let state = State { random: StdRng::seed_from_u64(plan.seed), failed: false };
        Self { inner, plan, state: Mutex::new(state) }
    }

    /// The store inside: what has really happened.
    pub fn inner(&self) -> &Arc<S> {
        &self.inner
    }

    /// Stands for opening the store again: commits are accepted after a failure.
    pub fn reopen(&self) {
        self.with_state(|state| state.failed = false);
    }

    fn with_state<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn wait(&self) {
        let delay = self.with_state(|state| {
            let delayed = state.random.random_bool(self.plan.delay);
            delayed.then(|| self.plan.max_delay.mul_f64(state.random.random::<f64>()))
        });
        if let Some(delay) = delay {
            tokio::time::sleep(delay).await;
        }
    }

    async fn before_read(&self) -> StoreResult<()> {
        self.wait().await;
        match self.with_state(|state| state.random.random_bool(self.plan.read_error)) {
            true => Err(injected_error()),
            false => Ok(()),
        }
    }

    fn fate(&self) -> Fate {
        self.with_state(|state| {
            if state.failed {
                return Fate::Refused(failed());
            }
            let mut strikes = |probability| state.random.random_bool(probability);
            if strikes(self.plan.commit_error) {
                Fate::Refused(injected_error())
            } else if strikes(self.plan.full) {
                let source = io::Error::new(io::ErrorKind::StorageFull, "injected fault");
                Fate::Refused(StoreError::Full { location: "chaos".to_owned(), source })
            } else if strikes(self.plan.outcome_unknown) {
                Fate::Unknown { made: strikes(0.5) }
            } else {
                Fate::Made
            }
        })
    }
}

fn injected_error() -> StoreError {
    StoreError::Io { path: PathBuf::from("chaos"), source: io::Error::other("injected fault") }
}

fn failed() -> StoreError {
    StoreError::Failed { reason: "injected fault".to_owned() }
}

#[async_trait]
impl<S: Store + ?Sized> Store for ChaosStore<S> {
    async fn get(&self, key: &Key) -> StoreResult<Option<Record>> {
        self.before_read().await?;
        self.inner.get(key).await
    }

    async fn list(&self, query: &Query) -> StoreResult<Page> {
        self.before_read().await?;
        self.inner.list(query).await
    }

    async fn counts(&self, table: Table) -> StoreResult<Vec<Count>> {
        self.before_read().await?;
        self.inner.counts(table).await
    }

    async fn commit(&self, operations: Vec<Operation>) -> StoreResult<Commit> {
        self.wait().await;
        match self.fate() {
            Fate::Made => self.inner.commit(operations).await,
            Fate::Refused(error) => Err(error),
            Fate::Unknown { made } => {
                if made {
                    // A commit that is refused anyway is refused as ever: its outcome is known.
                    self.inner.commit(operations).await?;
                }
                self.with_state(|state| state.failed = true);
                Err(failed())
            }
        }
    }

    async fn sequence(&self) -> StoreResult<Sequence> {
        self.before_read().await?;
        self.inner.sequence().await
    }

    async fn changes(&self, after: Sequence, limit: usize) -> StoreResult<Changes> {
        self.before_read().await?;
        self.inner.changes(after, limit).await
    }

    fn watch(&self) -> watch::Receiver<Sequence> {
        self.inner.watch()
    }

    async fn health(&self) -> StoreHealth {
        let health = self.inner.health().await;
        match self.with_state(|state| state.failed) {
            true => StoreHealth { writable: false, reason: Some(failed().to_string()), ..health },
            false => health,
        }
    }

    async fn close(&self) -> StoreResult<()> {
        self.inner.close().await
    }
}
