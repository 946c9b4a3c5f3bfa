//! What other engines have changed, brought into this one's memory.
//!
//! Everything here reads a record as it is now and puts that into force. So it does no harm to learn
//! something twice, late, or in another order than it happened: the last look counts, and whoever follows
//! the changes looks again after each. What this engine has in hand itself, an attempt that it is just
//! claiming, is passed over, and looked at again should nothing come of it.

use std::collections::{BTreeSet, HashSet};

use futures::stream::{self, TryStreamExt};
use orchestrator_protocol::Error;
use orchestrator_protocol::task::{Task, TaskId, TaskKind, TaskStatus};
use orchestrator_storage::{Filter, Table};

use super::control::pauses_key;
use super::draft::{LockRecord, due_as_learnt, entry, lock_key, parse_slot, slot_key};
use super::{Pauses, Queue, locked};
use crate::records;
use crate::records::status_filter;

/// How many records are looked at side by side.
pub const SIDE_BY_SIDE: usize = 16;

/// What was found of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Learnt {
    /// It is there.
    Stored,
    /// It was removed.
    Removed,
}

impl Queue {
    /// Looks at a task that another may have changed.
    pub async fn learn_task(&self, id: TaskId) -> Result<Learnt, Error> {
        let record = self.store.get(&records::task_key(id)).await.map_err(records::storage_error)?;
        let Some(record) = record else {
            let mut schedule = locked(&self.schedule);
            schedule.remove(id);
            // Only what has ended is ever removed, and not while something that it let down still waits.
            schedule.completed(id);
            return Ok(Learnt::Removed);
        };
        let task: Task = records::read(&record)?;
        let due = match task.kind() {
            TaskKind::Workflow => self.workflow_learnt(&task),
            TaskKind::Command | TaskKind::Action => self.task_learnt(&task, record.revision),
        };
        self.events.changed([(&task, record.revision)].into_iter());
        self.wake.notify_one();
        self.tell(due).await;
        Ok(Learnt::Stored)
    }

    /// Looks at a task that was passed over while it was in hand here; later, should that fail.
    pub(super) async fn learn_again(&self, id: TaskId) -> Result<(), Error> {
        let learnt = self.learn_task(id).await;
        if learnt.is_err() {
            locked(&self.unlearnt).insert(id);
        }
        learnt.map(drop)
    }

    fn workflow_learnt(&self, workflow: &Task) -> Vec<TaskId> {
        let mut schedule = locked(&self.schedule);
        if let Some(lock) = &workflow.lock
            && workflow.status.is_final()
        {
            schedule.release(lock, workflow.id);
        }
        match workflow.status {
            TaskStatus::Completed => schedule.completed(workflow.id),
            TaskStatus::Failed | TaskStatus::Cancelled => return vec![workflow.id],
            TaskStatus::Pending | TaskStatus::Running => {}
        }
        Vec::new()
    }

    /// Puts the state of a task into force. Returns whom to ask about.
    fn task_learnt(&self, task: &Task, revision: u64) -> Vec<TaskId> {
        self.leave_what_has_gone_on(task);
        let running = locked(&self.running);
        let in_hand = running.get(&task.id);
        let mut schedule = locked(&self.schedule);
        match task.status {
            TaskStatus::Pending => {
                let is_known =
                    in_hand.is_some_and(|running| running.fence == 0 || running.revision >= revision);
                if is_known || schedule.revision(task.id) >= Some(revision) {
                    return Vec::new();
                }
                let entry = entry(task, revision, self.fits(task), due_as_learnt(task));
                let due = entry.waits_for.iter().copied().collect();
                schedule.insert(entry);
                return due;
            }
            // A claim of which it was not known whether it was made: whoever claims it again learns that.
            TaskStatus::Running if in_hand.is_none() && self.is_own(task) => {
                if schedule.revision(task.id).is_none() {
                    schedule.insert(entry(task, revision, true, None));
                }
            }
            TaskStatus::Running => {
                schedule.remove_until(task.id, revision);
                if task.cancel.is_some()
                    && let Some(running) = in_hand
                    && (running.fence == task.fence || running.fence == 0)
                {
                    running.cancel.cancel();
                }
            }
            TaskStatus::Completed => {
                schedule.remove_until(task.id, revision);
                schedule.completed(task.id);
            }
            TaskStatus::Failed | TaskStatus::Cancelled => {
                schedule.remove_until(task.id, revision);
                return vec![task.id];
            }
        }
        Vec::new()
    }

    /// Calls off an attempt that is under way here although the task has gone on without it: somebody else
    /// has ended it.
    fn leave_what_has_gone_on(&self, task: &Task) {
        if let Some(running) = locked(&self.running).get(&task.id)
            && running.fence != 0
            && (running.fence < task.fence
                || (running.fence == task.fence && task.status != TaskStatus::Running))
        {
            running.cancel.cancel();
        }
    }

    /// Looks who holds a lock.
    pub async fn learn_lock(&self, name: &str) -> Result<(), Error> {
        let _learning = self.learning.lock().await;
        let record = self.store.get(&lock_key(name)).await.map_err(records::storage_error)?;
        match record {
            Some(record) => {
                let lock: LockRecord = records::read(&record)?;
                locked(&self.schedule).hold(name, lock.holder);
            }
            // Who is just taking it here will take it nevertheless.
            None => locked(&self.schedule).free(name),
        }
        self.wake.notify_one();
        Ok(())
    }

    /// Looks whether another engine holds a slot.
    pub async fn learn_slot(&self, group: &str, slot: u32) -> Result<(), Error> {
        let _learning = self.learning.lock().await;
        let record = self.store.get(&slot_key(group, slot)).await.map_err(records::storage_error)?;
        let lock = record.map(|record| records::read::<LockRecord>(&record)).transpose()?;
        match lock {
            Some(lock) if self.is_foreign(&lock) => self.foreign_slot_taken(group, slot),
            _ => self.foreign_slot_freed(group, slot),
        }
        Ok(())
    }

    /// Looks what is paused.
    pub async fn learn_pauses(&self) -> Result<(), Error> {
        let _pausing = self.pausing.lock().await;
        let record = self.store.get(&pauses_key()).await.map_err(records::storage_error)?;
        let pauses = record.map(|record| records::read::<Pauses>(&record)).transpose()?;
        self.apply_pauses(pauses.unwrap_or_default());
        Ok(())
    }

    /// Looks at everything again, since it is not known what was changed. Whoever listens is told that
    /// something is missing.
    pub async fn learn_all(&self) -> Result<(), Error> {
        self.events.skip();
        self.learn_pauses().await?;
        let (mut locks, mut slots) = (BTreeSet::new(), BTreeSet::new());
        self.each(Table::Lock, Filter::default(), |record| {
            locks.extend(record.key.id.strip_prefix("lock/").map(String::from));
            slots.extend(parse_slot(&record.key).map(|(group, slot)| (group.to_owned(), slot)));
            Ok(())
        })
        .await?;
        locks.extend(locked(&self.schedule).held_locks());
        slots.extend(locked(&self.foreign_slots).iter().cloned());
        for lock in locks {
            self.learn_lock(&lock).await?;
        }
        for (group, slot) in slots {
            self.learn_slot(&group, slot).await?;
        }
        // What is waited for as well: it may have ended, and is in no other of these then.
        let mut tasks: HashSet<TaskId> = {
            let schedule = locked(&self.schedule);
            schedule.ids().chain(schedule.waited_for()).collect()
        };
        tasks.extend(locked(&self.running).keys());
        for status in [TaskStatus::Pending, TaskStatus::Running] {
            self.each(Table::Task, status_filter(status), |record| {
                tasks.insert(records::read::<Task>(record)?.id);
                Ok(())
            })
            .await?;
        }
        stream::iter(tasks.into_iter().map(Ok))
            .try_for_each_concurrent(SIDE_BY_SIDE, |id| async move { self.learn_task(id).await.map(drop) })
            .await
    }

    /// Whether a slot is held by another engine.
    pub(super) fn is_foreign(&self, slot: &LockRecord) -> bool {
        self.options.is_shared && slot.engine.as_ref() != Some(&self.options.engine)
    }

    pub(super) fn foreign_slot_taken(&self, group: &str, slot: u32) {
        if locked(&self.foreign_slots).insert((group.to_owned(), slot)) {
            self.note_slot(group, slot);
            locked(&self.schedule).adopt(group);
        }
    }

    pub(super) fn foreign_slot_freed(&self, group: &str, slot: u32) {
        if locked(&self.foreign_slots).remove(&(group.to_owned(), slot)) {
            self.give_slot_back(group, slot);
            locked(&self.schedule).stopped(group);
            self.wake.notify_one();
        }
    }
}
