//! What goes out to run: the next task, claimed in one commit with its lock and its slot.

use chrono::{DateTime, Utc};
use orchestrator_protocol::Error;
use orchestrator_protocol::request::EngineMode;
use orchestrator_protocol::state::Transition;
use orchestrator_protocol::task::{Attempt, CancelRequest, Claim, OnEngineLoss, Task, TaskId, TaskStatus};
use orchestrator_storage::{Expect, Fields, Revision};
use tokio::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

use super::draft::{LockRecord, due_as_learnt, slot_key};
use super::{Queue, Running, locked};
use crate::records;
use crate::schedule::Entry;

/// How long nothing is claimed after the storage has refused a claim.
const HOLD_BACK: Duration = Duration::from_secs(1);

/// A task that this engine has claimed and must run.
#[derive(Debug)]
pub struct Claimed {
    /// The task, as committed.
    pub task: Task,
    /// Fires when it is to be called off.
    pub cancel: CancellationToken,
}

/// What came of the attempt to claim a task.
enum Claiming {
    /// It is this engine's, and has this revision now.
    Claimed(Box<Task>, Revision),
    /// The stored task is not to be run after all.
    Gone,
    /// Its time has not come: back in line until then.
    NotYet(DateTime<Utc>, Revision),
    /// Another holds its lock: back in line until the lock is free.
    Locked(String),
    /// Another engine has taken the slot: back in line, for another one.
    SlotTaken,
}

/// A place in a group.
enum Slot {
    /// The group has no limit.
    Unlimited,
    /// This one, which is ours now.
    Taken(u32),
    /// None is free.
    Full,
}

impl Queue {
    /// Takes the next task out of the schedule, if there is one and there is room to run it. Whoever
    /// takes it must pass it to [`Queue::claim`].
    pub fn next(&self) -> Option<Entry> {
        if *self.mode.borrow() != EngineMode::Active || self.is_held_back() {
            locked(&self.schedule).wake(Utc::now());
            return None;
        }
        let mut running = locked(&self.running);
        let mut schedule = locked(&self.schedule);
        // Also without room: a time that has come is waited for no more.
        schedule.wake(Utc::now());
        let under_way = running.values().filter(|running| !running.has_ended).count();
        if under_way >= self.options.max_parallel as usize {
            return None;
        }
        loop {
            let entry = schedule.next(Utc::now())?;
            let known = running.get(&entry.id).map(|running| running.revision);
            if known.is_none() {
                running.insert(entry.id, new_running(&entry, CancellationToken::new()));
                return Some(entry);
            }
            schedule.stopped(&entry.group);
            if known < Some(entry.revision) {
                // Cancelled and revived while it was being claimed: that claim makes way first.
                schedule.insert(entry);
                return None;
            }
            // Made from a look at the store that the claim has overtaken.
        }
    }

    /// Claims a task that [`Queue::next`] gave out: `None` when the stored task is not to be run after
    /// all. On an error it is back in line.
    pub async fn claim(&self, entry: Entry) -> Result<Option<Claimed>, Error> {
        let (slot, claiming) = match self.take_slot(&entry.group) {
            Slot::Unlimited => (None, self.try_claim(&entry, None).await),
            Slot::Taken(slot) => (Some(slot), self.try_claim(&entry, Some(slot)).await),
            // Others have come first since the task was given out.
            Slot::Full => (None, Ok(Claiming::SlotTaken)),
        };
        if let Ok(Claiming::Claimed(task, revision)) = claiming {
            let held = task.claim.as_ref().and_then(|claim| claim.slot);
            if held != slot {
                // That of a claim whose answer was lost.
                if let Some(slot) = slot {
                    self.give_slot_back(&entry.group, slot);
                }
                if let Some(held) = held {
                    self.note_slot(&entry.group, held);
                }
            }
            let mut running = locked(&self.running);
            // Whoever cancels finds this token, also while the claim is being committed.
            let running =
                running.entry(task.id).or_insert_with(|| new_running(&entry, CancellationToken::new()));
            (running.fence, running.revision, running.slot) = (task.fence, revision, held);
            if task.cancel.is_some() {
                running.cancel.cancel();
            }
            return Ok(Some(Claimed { cancel: running.cancel.clone(), task: *task }));
        }
        if let Some(slot) = slot {
            self.give_slot_back(&entry.group, slot);
        }
        {
            let mut running = locked(&self.running);
            // Unless it was revived meanwhile, and another claim of it was quicker.
            if running.get(&entry.id).is_some_and(|running| running.fence == 0) {
                running.remove(&entry.id);
            }
        }
        {
            let mut schedule = locked(&self.schedule);
            schedule.stopped(&entry.group);
            if let Some(lock) = &entry.lock
                && entry.holder == entry.id
            {
                schedule.release(lock, entry.id);
            }
        }
        let (id, group) = (entry.id, entry.group.clone());
        let (back, learnt) = match claiming {
            Ok(Claiming::Claimed(..)) => (None, Ok(())),
            // What others have made of it meanwhile was passed over while it was being claimed here.
            // Its lock was taken here for a holder that may have ended before that, and will not be heard of again.
            Ok(Claiming::Gone) if self.options.is_shared => {
                let learnt = self.learn_again(id).await;
                let lock = match &entry.lock {
                    Some(lock) => self.learn_lock(lock).await,
                    None => Ok(()),
                };
                (None, learnt.and(lock))
            }
            Ok(Claiming::Gone) => (None, Ok(())),
            Ok(Claiming::NotYet(time, revision)) => {
                (Some(Entry { not_before: Some(time), revision, ..entry }), Ok(()))
            }
            Ok(Claiming::Locked(lock)) => (Some(entry), self.learn_lock(&lock).await),
            Ok(Claiming::SlotTaken) => {
                let learnt = match slot {
                    Some(slot) => self.learn_slot(&group, slot).await,
                    None => Ok(()),
                };
                (Some(entry), learnt)
            }
            Err(error) => (Some(entry), Err(error)),
        };
        if let Some(entry) = back {
            locked(&self.schedule).insert(entry);
        }
        // Whoever looks finds room, and what is in line.
        self.wake.notify_one();
        learnt.inspect_err(|_| self.hold_back())?;
        Ok(None)
    }

    /// Claims nothing for a moment: the storage has refused a claim, or there is no room for an attempt.
    pub fn hold_back(&self) {
        *locked(&self.held_back_until) = Some(Instant::now() + HOLD_BACK);
        self.wake.notify_one();
    }

    fn is_held_back(&self) -> bool {
        locked(&self.held_back_until).is_some_and(|until| Instant::now() < until)
    }

    async fn try_claim(&self, entry: &Entry, slot: Option<u32>) -> Result<Claiming, Error> {
        let mut has_lost_a_race = false;
        loop {
            let mut draft = self.draft();
            let Some(task) = draft.get(entry.id).await?.cloned() else { return Ok(Claiming::Gone) };
            // Nothing that runs here is given out: this is a claim of which it was not known whether it was
            // made.
            if task.status == TaskStatus::Running && self.is_own(&task) {
                return Ok(Claiming::Claimed(Box::new(task.clone()), draft.revision(task.id)));
            }
            if task.status != TaskStatus::Pending {
                return Ok(Claiming::Gone);
            }
            // The time of what is in the schedule has come; of what is newer it is not known here yet.
            if draft.revision(task.id) != entry.revision
                && let Some(time) = due_as_learnt(&task).filter(|time| *time > Utc::now())
            {
                return Ok(Claiming::NotYet(time, draft.revision(task.id)));
            }
            if let Some(parent) = task.parent
                && let Some(cancel) = draft.task(parent).await?.cancel.clone()
            {
                let cancel = CancelRequest { caused_by: Some(parent), ..cancel };
                draft.edit(task.id).await?.cancel = Some(cancel);
                draft.transition(task.id, Transition::Cancel).await?;
                if self.commit(draft).await?.is_some() {
                    return Ok(Claiming::Gone);
                }
                continue;
            }
            if let Some(lock) = &entry.lock
                && !draft.take_lock(lock, entry.holder).await?
            {
                return Ok(Claiming::Locked(lock.clone()));
            }
            if let Some(slot) = slot {
                let key = slot_key(&entry.group, slot);
                if has_lost_a_race && self.store.get(&key).await.map_err(records::storage_error)?.is_some() {
                    return Ok(Claiming::SlotTaken);
                }
                let engine = Some(self.options.engine.clone());
                let holder = LockRecord { holder: task.id, engine };
                draft.operation(records::put(key, Fields::default(), &holder, Expect::Absent)?);
            }
            self.begin_attempt(draft.edit(task.id).await?, slot);
            draft.transition(task.id, Transition::Start).await?;
            crate::fault::point("claim.before_commit");
            let revision = draft.revision(task.id) + 1;
            has_lost_a_race = true;
            if let Some(outcome) = self.commit(draft).await? {
                crate::fault::point("claim.after_commit");
                let task = outcome.tasks.into_iter().find(|changed| changed.id == task.id);
                let task = task.ok_or_else(|| Error::internal("a claim without its task"))?;
                return Ok(Claiming::Claimed(Box::new(task), revision));
            }
        }
    }

    fn begin_attempt(&self, task: &mut Task, slot: Option<u32>) {
        task.attempt += 1;
        task.fence += 1;
        task.claim = Some(Claim {
            engine: self.options.engine.clone(),
            boot_id: self.options.boot_id.clone(),
            slot,
            is_leased: self.options.is_shared && task.on_engine_loss == OnEngineLoss::Retry,
        });
        task.attempts.push(Attempt {
            number: task.attempt,
            fence: task.fence,
            started_at: Utc::now(),
            ended_at: None,
            outcome: None,
            exit_code: None,
            signal: None,
            error: None,
        });
    }

    /// Takes the lowest free slot of a group that has a limit.
    fn take_slot(&self, group: &str) -> Slot {
        let Some(limit) = self.options.group_limits.get(group) else { return Slot::Unlimited };
        let mut slots = locked(&self.slots);
        let used = slots.entry(group.to_owned()).or_default();
        match (0..*limit).find(|slot| !used.contains(slot)) {
            Some(free) => {
                used.insert(free);
                Slot::Taken(free)
            }
            None => Slot::Full,
        }
    }

    pub(super) fn note_slot(&self, group: &str, slot: u32) {
        locked(&self.slots).entry(group.to_owned()).or_default().insert(slot);
    }

    pub(super) fn give_slot_back(&self, group: &str, slot: u32) {
        let foreign = locked(&self.foreign_slots);
        if !foreign.contains(&(group.to_owned(), slot))
            && let Some(used) = locked(&self.slots).get_mut(group)
        {
            used.remove(&slot);
        }
    }

    /// Takes in an attempt that runs already, found at start.
    pub(super) fn adopt(&self, task: &Task, revision: Revision) -> CancellationToken {
        let cancel = CancellationToken::new();
        if task.cancel.is_some() {
            cancel.cancel();
        }
        let slot = task.claim.as_ref().and_then(|claim| claim.slot);
        let running = Running {
            fence: task.fence,
            revision,
            group: task.group.clone(),
            slot,
            has_ended: false,
            cancel: cancel.clone(),
            progress: None,
        };
        locked(&self.running).insert(task.id, running);
        locked(&self.schedule).adopt(&task.group);
        if let Some(slot) = slot {
            self.note_slot(&task.group, slot);
        }
        cancel
    }

    /// Fires the token of an attempt that is under way here.
    pub(super) fn signal_cancel(&self, id: TaskId) {
        if let Some(running) = locked(&self.running).get(&id) {
            running.cancel.cancel();
        }
    }
}

/// An attempt that is about to be claimed.
fn new_running(entry: &Entry, cancel: CancellationToken) -> Running {
    Running {
        fence: 0,
        revision: entry.revision,
        group: entry.group.clone(),
        slot: None,
        has_ended: false,
        cancel,
        progress: None,
    }
}
