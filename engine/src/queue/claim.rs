//! What goes out to run: the next task, claimed in one commit with its lock and its slot.

use chrono::{DateTime, Utc};
use orchestrator_protocol::Error;
use orchestrator_protocol::request::EngineMode;
use orchestrator_protocol::state::Transition;
use orchestrator_protocol::task::{Attempt, CancelRequest, Claim, Task, TaskId, TaskStatus};
use orchestrator_storage::{Expect, Fields};
use tokio::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

use super::draft::{LockRecord, slot_key};
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
    Claimed(Box<Task>),
    /// The stored task is not to be run after all.
    Gone,
    /// Its time has not come: back in line until then.
    NotYet(DateTime<Utc>),
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
        let entry = schedule.next(Utc::now())?;
        if running.contains_key(&entry.id) {
            // Cancelled and revived while it was being claimed: that claim makes way first.
            schedule.stopped(&entry.group);
            schedule.insert(entry);
            return None;
        }
        let token = CancellationToken::new();
        running.insert(entry.id, Running { fence: 0, has_ended: false, cancel: token, progress: None });
        Some(entry)
    }

    /// Claims a task that [`Queue::next`] gave out: `None` when the stored task is not to be run after
    /// all. On an error it is back in line.
    pub async fn claim(&self, entry: Entry) -> Result<Option<Claimed>, Error> {
        let slot = self.take_slot(&entry.group);
        let claiming = self.try_claim(&entry, slot).await;
        if let Ok(Claiming::Claimed(task)) = claiming {
            let mut running = locked(&self.running);
            // Whoever cancels finds this token, also while the claim is being committed.
            let running = running.entry(task.id).or_insert_with(|| Running {
                fence: 0,
                has_ended: false,
                cancel: CancellationToken::new(),
                progress: None,
            });
            running.fence = task.fence;
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
        let mut schedule = locked(&self.schedule);
        // Whoever looks waits for the schedule, and then finds room.
        self.wake.notify_one();
        schedule.stopped(&entry.group);
        if let Some(lock) = &entry.lock
            && entry.holder == entry.id
        {
            schedule.release(lock, entry.id);
        }
        match claiming {
            Ok(Claiming::Claimed(_) | Claiming::Gone) => Ok(None),
            Ok(Claiming::NotYet(time)) => {
                schedule.insert(Entry { not_before: Some(time), ..entry });
                Ok(None)
            }
            Err(error) => {
                schedule.insert(entry);
                drop(schedule);
                self.hold_back();
                Err(error)
            }
        }
    }

    /// Claims nothing for a moment: the storage has refused a claim.
    fn hold_back(&self) {
        *locked(&self.held_back_until) = Some(Instant::now() + HOLD_BACK);
        self.wake.notify_one();
    }

    fn is_held_back(&self) -> bool {
        locked(&self.held_back_until).is_some_and(|until| Instant::now() < until)
    }

    async fn try_claim(&self, entry: &Entry, slot: Option<u32>) -> Result<Claiming, Error> {
        loop {
            let mut draft = self.draft();
            let Some(task) = draft.get(entry.id).await?.cloned() else { return Ok(Claiming::Gone) };
            if task.status != TaskStatus::Pending {
                return Ok(Claiming::Gone);
            }
            if let Some(time) = task.next_attempt_at.or(task.not_before).filter(|time| *time > Utc::now()) {
                return Ok(Claiming::NotYet(time));
            }
            if let Some(parent) = task.parent
                && let Some(cancel) = draft.task(parent).await?.cancel.clone()
            {
                let cancel = CancelRequest { caused_by: Some(parent), ..cancel };
                let edited = draft.edit(task.id).await?;
                edited.error = Some(cancel.reason.clone());
                edited.cancel = Some(cancel);
                draft.transition(task.id, Transition::Cancel).await?;
                if self.commit(draft).await?.is_some() {
                    return Ok(Claiming::Gone);
                }
                continue;
            }
            if let Some(lock) = &entry.lock {
                draft.take_lock(lock, entry.holder).await?;
            }
            if let Some(slot) = slot {
                let key = slot_key(&entry.group, slot);
                let holder = LockRecord { holder: task.id };
                draft.operation(records::put(key, Fields::default(), &holder, Expect::Absent)?);
            }
            self.begin_attempt(draft.edit(task.id).await?, slot);
            draft.transition(task.id, Transition::Start).await?;
            crate::fault::point("claim.before_commit");
            if let Some(outcome) = self.commit(draft).await? {
                crate::fault::point("claim.after_commit");
                let task = outcome.tasks.into_iter().find(|changed| changed.id == task.id);
                let task = task.ok_or_else(|| Error::internal("a claim without its task"))?;
                return Ok(Claiming::Claimed(Box::new(task)));
            }
        }
    }

    fn begin_attempt(&self, task: &mut Task, slot: Option<u32>) {
        task.attempt += 1;
        task.fence += 1;
        task.claim =
            Some(Claim { engine: self.options.engine.clone(), boot_id: self.options.boot_id.clone(), slot });
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

    /// The lowest free slot of a group that has a limit.
    fn take_slot(&self, group: &str) -> Option<u32> {
        let limit = *self.options.group_limits.get(group)?;
        let mut slots = locked(&self.slots);
        let used = slots.entry(group.to_owned()).or_default();
        let free = (0..limit).find(|slot| !used.contains(slot)).unwrap_or(limit);
        used.insert(free);
        Some(free)
    }

    pub(super) fn note_slot(&self, group: &str, slot: u32) {
        locked(&self.slots).entry(group.to_owned()).or_default().insert(slot);
    }

    pub(super) fn give_slot_back(&self, group: &str, slot: u32) {
        if let Some(used) = locked(&self.slots).get_mut(group) {
            used.remove(&slot);
        }
    }

    /// Takes in an attempt that runs already, found at start.
    pub(super) fn adopt(&self, task: &Task) -> CancellationToken {
        let cancel = CancellationToken::new();
        if task.cancel.is_some() {
            cancel.cancel();
        }
        let running = Running { fence: task.fence, has_ended: false, cancel: cancel.clone(), progress: None };
        locked(&self.running).insert(task.id, running);
        locked(&self.schedule).adopt(&task.group);
        if let Some(slot) = task.claim.as_ref().and_then(|claim| claim.slot) {
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
