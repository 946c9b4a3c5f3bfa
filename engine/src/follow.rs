//! Following what other engines commit to the store that they share with this one.
//!
//! The store tells which records were changed; the queue looks at each of them ([`crate::queue::learn`]).
//! What this engine has committed itself it knows already; only locks are looked at again, since somebody
//! may have looked at one just before. A store that has forgotten what was changed is read again, whole.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, TryStreamExt};
use orchestrator_protocol::Error;
use orchestrator_protocol::task::TaskId;
use orchestrator_storage::{Changes, Key, Sequence, Store, Table};
use tracing::{debug, warn};

use crate::membership::seated_store::SeatedStore;
use crate::queue::Queue;
use crate::queue::draft::parse_slot;
use crate::queue::learn::{Learnt, SIDE_BY_SIDE};
use crate::records;

/// Between two looks when the store gives no hint.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// How many changes are read at once.
const BATCH: usize = 1_000;

/// Follows one store for one engine.
pub struct Follower {
    queue: Arc<Queue>,
    store: Arc<SeatedStore>,
    attempts_dir: PathBuf,
    /// The last commit that the queue knows of.
    after: Sequence,
}

impl Follower {
    /// A follower of everything after a commit. Whatever was committed before must be known, or is learnt
    /// by reading everything after that commit's number was asked for.
    pub fn new(queue: Arc<Queue>, store: Arc<SeatedStore>, attempts_dir: PathBuf, after: Sequence) -> Self {
        Self { queue, store, attempts_dir, after }
    }

    /// Follows until the seat is lost.
    pub async fn run(mut self) {
        let mut newest = self.store.watch();
        let lost = self.store.lost().clone();
        while !lost.is_cancelled() {
            match self.catch_up().await {
                Ok(true) => continue,
                Ok(false) => {
                    tokio::select! {
                        // Without anybody who gives hints there is still the interval.
                        Ok(()) = newest.changed() => {}
                        () = tokio::time::sleep(POLL_INTERVAL) => {}
                        () = lost.cancelled() => {}
                    }
                }
                Err(error) => {
                    warn!(%error, "what other engines have changed cannot be read; trying again");
                    tokio::time::sleep(POLL_INTERVAL).await;
                }
            }
        }
    }

    /// Looks at the changes that have come, some at a time. Whether there were any.
    pub async fn catch_up(&mut self) -> Result<bool, Error> {
        match self.store.changes(self.after, BATCH).await.map_err(records::storage_error)? {
            Changes::Since { upto, keys } => {
                let own = self.store.take_own(upto);
                let is_known =
                    |sequence: &Sequence, key: &Key| own.contains(sequence) && key.table != Table::Lock;
                let keys: BTreeSet<Key> =
                    keys.into_iter().filter(|(at, key)| !is_known(at, key)).map(|(_, key)| key).collect();
                self.look_at(keys).await?;
                let has_moved = upto != self.after;
                self.after = upto;
                Ok(has_moved)
            }
            Changes::Gone { upto } => {
                warn!("the store has forgotten what was changed; reading everything again");
                self.queue.learn_all().await?;
                self.after = upto;
                Ok(true)
            }
        }
    }

    async fn look_at(&self, keys: BTreeSet<Key>) -> Result<(), Error> {
        // What is held and what is paused comes before what is to run.
        for key in &keys {
            match key.table {
                Table::Lock => match (key.id.strip_prefix("lock/"), parse_slot(key)) {
                    (Some(name), _) => self.queue.learn_lock(name).await?,
                    (None, Some((group, slot))) => self.queue.learn_slot(group, slot).await?,
                    (None, None) => debug!(%key, "a lock of a kind that is not known here"),
                },
                Table::Control => self.queue.learn_pauses().await?,
                _ => {}
            }
        }
        let tasks = keys.iter().filter(|key| key.table == Table::Task).filter_map(|key| key.id.parse().ok());
        stream::iter(tasks.map(Ok))
            .try_for_each_concurrent(SIDE_BY_SIDE, |id: TaskId| async move {
                if self.queue.learn_task(id).await? == Learnt::Removed {
                    self.remove_attempts(id);
                }
                Ok(())
            })
            .await
    }

    /// A task that another engine has removed takes along what it printed here.
    fn remove_attempts(&self, id: TaskId) {
        if let Err(error) = std::fs::remove_dir_all(self.attempts_dir.join(id.to_string()))
            && error.kind() != std::io::ErrorKind::NotFound
        {
            warn!(task = %id, %error, "the logs of a removed task cannot be removed");
        }
    }
}
