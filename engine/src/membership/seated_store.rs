//! A store as one of several engines sees it: every commit holds only as long as the engine has its seat.
//!
//! Each commit carries a check of the engine's seat, at the revision with which it was taken. Whoever
//! takes over the engine's work removes the engine from its seat first, in one commit. So of an engine
//! that was held up for so long that others go on with its work, nothing is written any more, however
//! late it comes: the storage itself refuses it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use orchestrator_storage::{
    Changes, Commit, Count, Key, Operation, Page, Query, Record, Revision, Sequence, Store, StoreError,
    StoreHealth, StoreResult, Table,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::records;

/// A store whose commits hold only while a seat is as it was taken.
pub struct SeatedStore {
    inner: Arc<dyn Store>,
    seat: Key,
    revision: Revision,
    lost: CancellationToken,
    /// Commits that were made here and that whoever follows the changes has not come to yet.
    own: Mutex<BTreeSet<Sequence>>,
}

impl SeatedStore {
    /// The store for whoever has taken a seat, written with this revision.
    pub fn new(inner: Arc<dyn Store>, seat: Key, revision: Revision) -> Self {
        Self { inner, seat, revision, lost: CancellationToken::new(), own: Mutex::default() }
    }

    /// The store behind it, for what is not an engine's work: its lease.
    pub fn inner(&self) -> &Arc<dyn Store> {
        &self.inner
    }

    /// Fires when the seat is lost.
    pub fn lost(&self) -> &CancellationToken {
        &self.lost
    }

    /// The check that every commit carries.
    pub fn check(&self) -> Operation {
        records::check(self.seat.clone(), self.revision)
    }

    /// Takes note that the seat is lost, when that is what a commit's error says.
    pub fn judge(&self, error: StoreError) -> StoreError {
        match error {
            StoreError::Conflict { key } if key == self.seat => {
                self.lost.cancel();
                StoreError::Unseated
            }
            other => other,
        }
    }

    /// Of the commits up to a sequence: those that were made here. They are forgotten.
    pub fn take_own(&self, upto: Sequence) -> BTreeSet<Sequence> {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        let later = own.split_off(&(upto + 1));
        std::mem::replace(&mut own, later)
    }
}

#[async_trait]
impl Store for SeatedStore {
    async fn get(&self, key: &Key) -> StoreResult<Option<Record>> {
        self.inner.get(key).await
    }

    async fn list(&self, query: &Query) -> StoreResult<Page> {
        self.inner.list(query).await
    }

    async fn counts(&self, table: Table) -> StoreResult<Vec<Count>> {
        self.inner.counts(table).await
    }

    async fn commit(&self, mut operations: Vec<Operation>) -> StoreResult<Commit> {
        if self.lost.is_cancelled() {
            return Err(StoreError::Unseated);
        }
        if operations.is_empty() {
            return self.inner.commit(operations).await;
        }
        operations.push(self.check());
        let mut commit = self.inner.commit(operations).await.map_err(|error| self.judge(error))?;
        commit.revisions.pop();
        self.own.lock().unwrap_or_else(PoisonError::into_inner).insert(commit.sequence);
        Ok(commit)
    }

    async fn sequence(&self) -> StoreResult<Sequence> {
        self.inner.sequence().await
    }

    async fn changes(&self, after: Sequence, limit: usize) -> StoreResult<Changes> {
        self.inner.changes(after, limit).await
    }

    fn watch(&self) -> watch::Receiver<Sequence> {
        self.inner.watch()
    }

    async fn health(&self) -> StoreHealth {
        let health = self.inner.health().await;
        if self.lost.is_cancelled() {
            return StoreHealth { writable: false, reason: Some(StoreError::Unseated.to_string()), ..health };
        }
        health
    }

    async fn close(&self) -> StoreResult<()> {
        self.inner.close().await
    }
}
