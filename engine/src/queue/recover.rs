//! What a new engine finds: pauses, locks, pending tasks, and tasks that it was running in an earlier life.
//!
//! Where several engines share the store, what runs on the others stays with them. A store of one engine's
//! own holds only what is this engine's, whatever the engine before it was called.

use std::collections::HashSet;

use orchestrator_protocol::Error;
use orchestrator_protocol::task::{Task, TaskId, TaskKind, TaskStatus};
use orchestrator_storage::{Filter, Record, Table};
use tokio_util::sync::CancellationToken;

use super::control::pauses_key;
use super::draft::{LockRecord, due, due_as_learnt, entry, parse_slot};
use super::{Pauses, Queue, locked};
use crate::records::{self, status_filter};

/// A task that was running when the engine before this one ended.
#[derive(Debug)]
pub struct Found {
    /// The task.
    pub task: Task,
    /// Fires when it is to be called off.
    pub cancel: CancellationToken,
}

impl Queue {
    /// Builds the schedule from the store. Returns the tasks that are stored as running: what became of
    /// each must be found out, and said by [`Queue::finish`] or [`Queue::hand_back`], or it goes on.
    pub async fn recover(&self) -> Result<Vec<Found>, Error> {
        if let Some(record) = self.store.get(&pauses_key()).await.map_err(records::storage_error)? {
            self.apply_pauses(records::read::<Pauses>(&record)?);
        }
        self.each(Table::Lock, Filter::default(), |record| {
            let lock: LockRecord = records::read(record)?;
            if let Some(name) = record.key.id.strip_prefix("lock/") {
                locked(&self.schedule).hold(name, lock.holder);
            } else if self.is_foreign(&lock)
                && let Some((group, slot)) = parse_slot(&record.key)
            {
                self.foreign_slot_taken(group, slot);
            }
            Ok(())
        })
        .await?;
        let mut found = Vec::new();
        let mut not_ended: HashSet<TaskId> = HashSet::new();
        self.each(Table::Task, status_filter(TaskStatus::Running), |record| {
            let task: Task = records::read(record)?;
            not_ended.insert(task.id);
            if task.kind() != TaskKind::Workflow && self.is_own(&task) {
                found.push(Found { cancel: self.adopt(&task, record.revision), task });
            }
            Ok(())
        })
        .await?;
        let mut dependencies: HashSet<TaskId> = HashSet::new();
        self.each(Table::Task, status_filter(TaskStatus::Pending), |record| {
            let task: Task = records::read(record)?;
            not_ended.insert(task.id);
            if task.kind() != TaskKind::Workflow {
                // Who said it may have had another clock, also an engine before this one.
                let due = due(&task).min(due_as_learnt(&task));
                let entry = entry(&task, record.revision, self.fits(&task), due);
                dependencies.extend(&entry.waits_for);
                locked(&self.schedule).insert(entry);
            }
            Ok(())
        })
        .await?;
        self.tell(dependencies.difference(&not_ended).copied().collect()).await;
        self.continue_cancellations().await?;
        Ok(found)
    }

    /// Workflows whose cancellation was accepted before all of their tasks were told.
    pub async fn continue_cancellations(&self) -> Result<(), Error> {
        let mut cancelled = Vec::new();
        for status in [TaskStatus::Pending, TaskStatus::Running] {
            let filter = Filter { kind: Some(TaskKind::Workflow.as_str().into()), ..status_filter(status) };
            self.each(Table::Task, filter, |record| {
                let task: Task = records::read(record)?;
                cancelled.extend(task.cancel.map(|cancel| (task.id, cancel.reason)));
                Ok(())
            })
            .await?;
        }
        for (id, reason) in cancelled {
            self.cancel(id, &reason).await?;
        }
        Ok(())
    }

    /// Whether an attempt that is stored as running is this engine's.
    pub(super) fn is_own(&self, task: &Task) -> bool {
        let engine = task.claim.as_ref().map(|claim| &claim.engine);
        !self.options.is_shared || engine == Some(&self.options.engine)
    }

    pub(super) async fn each(
        &self,
        table: Table,
        filter: Filter,
        mut visit: impl FnMut(&Record) -> Result<(), Error>,
    ) -> Result<(), Error> {
        records::each(&*self.store, table, filter, |record| visit(&record)).await
    }
}
