//! The attempts of engines that have lost their seats: they are ended, so that others can be begun.
//!
//! Every engine does this, at intervals and whenever it has noticed something; the first one to commit
//! wins, by the fence of the attempt. Each such commit carries a check that the seat is still free: an
//! engine that is back looks after its attempts itself. An attempt without a lease is left alone: its script
//! goes on. That is how a task runs that is to be held, and one that was begun when its engine had a store
//! of its own, whose records have moved since.

use std::collections::BTreeMap;

use orchestrator_protocol::Error;
use orchestrator_protocol::task::{AttemptOutcome, Task, TaskId, TaskKind, TaskStatus};
use orchestrator_storage::{Change, Expect, Operation, Store, StoreError, Table};
use tracing::info;

use super::Queue;
use super::finish::Ending;
use crate::membership::{self, Seat};
use crate::records::{self, status_filter};

/// Takes the leases off all attempts: one engine has their store for itself from here on, so nobody else will
/// begin them anew, also where the records move on to a store that engines share.
///
/// # Errors
/// Those of the storage.
pub async fn end_leases(store: &dyn Store) -> Result<(), Error> {
    let mut leased = Vec::new();
    records::each(store, Table::Task, status_filter(TaskStatus::Running), |record| {
        let mut task: Task = records::read(&record)?;
        if let Some(claim) = task.claim.as_mut().filter(|claim| claim.is_leased) {
            claim.is_leased = false;
            leased.push(records::put_task(&task, Expect::Revision(record.revision))?);
        }
        Ok(())
    })
    .await?;
    for operation in leased {
        match store.commit(vec![operation]).await {
            // It has gone on meanwhile. What still runs is seen when an engine is opened on the store.
            Ok(_) | Err(StoreError::Conflict { .. }) => {}
            Err(error) => return Err(records::storage_error(error)),
        }
    }
    Ok(())
}

impl Queue {
    /// Ends the attempts of engines that have no seat. Returns the tasks.
    pub async fn take_over(&self) -> Result<Vec<TaskId>, Error> {
        let mut attempts_by_engine: BTreeMap<String, Vec<(TaskId, u64)>> = BTreeMap::new();
        self.each(Table::Task, status_filter(TaskStatus::Running), |record| {
            let task: Task = records::read(record)?;
            if task.kind() != TaskKind::Workflow
                && let Some(claim) = &task.claim
                && claim.is_leased
                && claim.engine != self.options.engine
            {
                attempts_by_engine.entry(claim.engine.clone()).or_default().push((task.id, task.fence));
            }
            Ok(())
        })
        .await?;
        let (mut ended, mut failed) = (Vec::new(), None);
        for (engine, attempts) in attempts_by_engine {
            // Asked once for all of an engine that is there.
            match membership::seat(&*self.store, &engine).await {
                Ok(Seat::Free(_)) => {}
                Ok(Seat::Taken) => continue,
                Err(error) => {
                    failed = failed.or(Some(error));
                    continue;
                }
            }
            for (id, fence) in attempts {
                match self.end_lost(id, fence, &engine).await {
                    Ok(true) => {
                        info!(task = %id, engine, "its engine is lost; the attempt has ended");
                        ended.push(id);
                    }
                    Ok(false) => {}
                    // One that cannot be ended keeps no other.
                    Err(error) => failed = failed.or(Some(error)),
                }
            }
        }
        failed.map_or(Ok(ended), Err)
    }

    /// Calls a task off, as [`Queue::cancel`] does, and ends its attempt also when it is held for an engine
    /// that has no seat. What is left of that attempt is ended when its engine is back.
    pub async fn cancel_by_force(&self, id: TaskId, reason: &str) -> Result<Vec<TaskId>, Error> {
        let others = self.cancel(id, reason).await?;
        if self.options.is_shared {
            for id in others.iter().copied().chain([id]) {
                let task = self.task(id).await?;
                if let (TaskStatus::Running, Some(claim)) = (task.status, task.claim) {
                    self.end_lost(id, task.fence, &claim.engine).await?;
                }
            }
        }
        Ok(others)
    }

    /// How many attempts are stored as running on each engine.
    pub async fn running_by_engine(&self) -> Result<BTreeMap<String, u64>, Error> {
        let mut running = BTreeMap::new();
        self.each(Table::Task, status_filter(TaskStatus::Running), |record| {
            let task: Task = records::read(record)?;
            if let Some(claim) = task.claim {
                *running.entry(claim.engine).or_default() += 1;
            }
            Ok(())
        })
        .await?;
        Ok(running)
    }

    /// Ends one attempt of an engine, if that has no seat. Whether it was ended.
    async fn end_lost(&self, id: TaskId, fence: u64, engine: &str) -> Result<bool, Error> {
        loop {
            let Seat::Free(expect) = membership::seat(&*self.store, engine).await? else {
                return Ok(false);
            };
            let mut draft = self.draft();
            let message = format!("the engine that it ran on is lost: {engine} has not renewed its lease");
            let ending = Ending::bare(AttemptOutcome::Lost, Some(message));
            if !self.draft_ending(&mut draft, id, fence, &ending).await? {
                return Ok(false);
            }
            let key = membership::seat_key(engine);
            draft.operation(Operation { key, expect, change: Change::Check });
            if self.commit(draft).await?.is_some() {
                return Ok(true);
            }
        }
    }
}
