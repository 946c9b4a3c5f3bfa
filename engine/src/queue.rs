//! The queue: every change of every task, durable and told to whoever listens.
//!
//! A [`Queue`] puts the pure parts together: the stored records are the truth, the
//! [`Schedule`](crate::schedule::Schedule) is the index of what may run, the transitions come from the
//! protocol's state machine. All changes go through one unit of work, the [`draft::Draft`]: it reads
//! records, changes them, and commits all of them with the revisions it read; only after that commit
//! the schedule is brought in line and the events are sent. When another commit came first, the unit
//! of work is done again on what is there now.
//!
//! - [`submit`], [`provision`], [`environments`]: what comes in; [`claim`]: what goes out to run; [`finish`]: how an attempt's end is
//!   judged; [`control`]: cancel, retry, pause; [`explain`]: why a task waits; [`recover`]: what a new
//!   engine finds; [`retention`]: what is removed at last.
//! - Where several engines share the store: [`learn`]: what the others have changed; [`takeover`]: the
//!   attempts of engines that are lost.

pub mod claim;
pub mod control;
pub mod draft;
pub mod environments;
pub mod explain;
pub mod finish;
pub mod learn;
pub mod provision;
pub mod recover;
pub mod retention;
pub mod submit;
pub mod takeover;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::Utc;
use orchestrator_protocol::Error;
use orchestrator_protocol::request::EngineMode;
use orchestrator_protocol::task::{Progress, RetryPolicy, Task, TaskId, Work};
use orchestrator_storage::{Revision, Store};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};
use tokio::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

use crate::events::{EventLog, Listener};
use crate::labels;
use crate::records;
use crate::schedule::Schedule;

/// Defaults for what a submission leaves out, and the engine's name.
#[derive(Debug, Clone)]
pub struct QueueOptions {
    /// This engine: the same over all its lives.
    pub engine: String,
    /// Whether other engines may work on the same store.
    pub is_shared: bool,
    /// What this engine is labelled with: a task may require that.
    pub labels: BTreeMap<String, String>,
    /// The boot of this machine.
    pub boot_id: String,
    /// Retries of tasks that do not say otherwise.
    pub retry: RetryPolicy,
    /// Between SIGTERM and SIGKILL, in milliseconds, for tasks that do not say otherwise.
    pub grace_ms: u64,
    /// How many of a group may run at once.
    pub group_limits: HashMap<String, u32>,
    /// How many attempts may run at once.
    pub max_parallel: u32,
}

/// What is paused, as stored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pauses {
    /// The whole queue.
    pub all: bool,
    /// These groups.
    pub groups: BTreeSet<String>,
}

/// An attempt that is under way in this engine.
#[derive(Debug, Clone)]
pub struct Running {
    /// Its fence; 0 while it is being claimed.
    pub fence: u64,
    /// The revision of the task's record that is known of it.
    pub revision: Revision,
    /// The task's group.
    pub group: String,
    /// The slot of the group, where the group has a limit.
    pub slot: Option<u32>,
    /// Whether nothing of it runs any more: only its end is still to be stored.
    pub has_ended: bool,
    /// Fires when it is to be called off.
    pub cancel: CancellationToken,
    /// How far it is.
    pub progress: Option<Progress>,
}

/// The queue of one engine.
///
/// Its locks are held for moments, never over an `await`. Of two at once `running`, `pauses` or
/// `foreign_slots` comes before `schedule` or `slots`, and nothing after those.
pub struct Queue {
    store: Arc<dyn Store>,
    options: QueueOptions,
    schedule: Mutex<Schedule>,
    running: Mutex<HashMap<TaskId, Running>>,
    /// The slots that are taken, of each group with a limit.
    slots: Mutex<HashMap<String, BTreeSet<u32>>>,
    /// Those of them that other engines hold.
    foreign_slots: Mutex<BTreeSet<(String, u32)>>,
    /// Held while what others have changed of locks and slots is read and put into force.
    learning: tokio::sync::Mutex<()>,
    pauses: Mutex<Pauses>,
    /// Held while a change of the pauses is stored and put into force.
    pausing: tokio::sync::Mutex<()>,
    held_back_until: Mutex<Option<Instant>>,
    /// Tasks whose end could not be told to those who depend on them.
    unsettled: Mutex<BTreeSet<TaskId>>,
    /// Tasks that were passed over while they were in hand here, and could not be looked at since.
    unlearnt: Mutex<BTreeSet<TaskId>>,
    mode: watch::Sender<EngineMode>,
    events: EventLog,
    /// Something may have become ready to run, or room to run it.
    wake: Notify,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What a panicking holder leaves behind is an index and not the truth.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Queue {
    /// The queue that a store holds, still without its index: [`Queue::recover`] comes first.
    pub fn new(store: Arc<dyn Store>, options: QueueOptions) -> Self {
        Self {
            store,
            schedule: Mutex::new(Schedule::new(options.group_limits.clone())),
            running: Mutex::default(),
            slots: Mutex::default(),
            foreign_slots: Mutex::default(),
            learning: tokio::sync::Mutex::default(),
            pauses: Mutex::default(),
            pausing: tokio::sync::Mutex::default(),
            held_back_until: Mutex::default(),
            unsettled: Mutex::default(),
            unlearnt: Mutex::default(),
            mode: watch::Sender::new(EngineMode::Active),
            events: EventLog::default(),
            wake: Notify::new(),
            options,
        }
    }

    /// The store behind it.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// What it was told at its start.
    pub fn options(&self) -> &QueueOptions {
        &self.options
    }

    /// What has happened.
    pub fn events(&self) -> &EventLog {
        &self.events
    }

    /// Every change from now on.
    pub fn listen(&self) -> Listener {
        self.events.listen()
    }

    /// Whether it takes new work, and every change of that.
    pub fn mode(&self) -> watch::Receiver<EngineMode> {
        self.mode.subscribe()
    }

    /// Takes new work, or no more. An engine that is about to stop never takes a step back.
    pub fn set_mode(&self, mode: EngineMode) {
        self.mode.send_if_modified(|now| {
            let is_forward = mode as u8 > *now as u8;
            if is_forward {
                *now = mode;
            }
            is_forward
        });
        self.wake.notify_one();
    }

    /// What is paused.
    pub fn pauses(&self) -> Pauses {
        locked(&self.pauses).clone()
    }

    /// The attempts that are under way here.
    pub fn running(&self) -> Vec<(TaskId, Running)> {
        locked(&self.running).iter().map(|(id, running)| (*id, running.clone())).collect()
    }

    /// How many attempts are under way here.
    pub fn running_count(&self) -> usize {
        locked(&self.running).len()
    }

    /// Nothing of an attempt runs any more: there is room for another, while its end is being stored.
    pub fn ended(&self, id: TaskId, fence: u64) {
        if let Some(running) = locked(&self.running).get_mut(&id)
            && running.fence == fence
        {
            running.has_ended = true;
        }
        self.wake.notify_one();
    }

    /// The script of an attempt runs on this machine although its task has gone on without it: this engine does
    /// not claim the task until that has ended.
    pub fn stray_found(&self, id: TaskId, fence: u64) {
        locked(&self.schedule).stray_found(id, fence);
    }

    /// That script has ended.
    pub fn stray_ended(&self, id: TaskId, fence: u64) {
        locked(&self.schedule).stray_ended(id, fence);
        self.wake.notify_one();
    }

    /// Whether this engine is one that a task may run on. An engine that is alone on its store runs all that
    /// ask for no label of the user's own, whatever the engine was that they were submitted to.
    pub fn fits(&self, task: &Task) -> bool {
        let is_alone = !self.options.is_shared;
        task.requires.iter().all(|(label, value)| {
            (is_alone && labels::is_implicit(label)) || self.options.labels.get(label) == Some(value)
        })
    }

    /// An attempt is under way here no more: what it took of its group is free. `false` when it was not.
    pub(super) fn leave(&self, id: TaskId, fence: u64) -> bool {
        let left = {
            let mut running = locked(&self.running);
            let is_it = running.get(&id).is_some_and(|running| running.fence == fence);
            if is_it { running.remove(&id) } else { None }
        };
        let Some(left) = left else { return false };
        if let Some(slot) = left.slot {
            self.give_slot_back(&left.group, slot);
        }
        locked(&self.schedule).stopped(&left.group);
        self.wake.notify_one();
        true
    }

    /// One task as it is now, with the progress of what is under way.
    pub async fn task(&self, id: TaskId) -> Result<Task, Error> {
        let record = self.store.get(&records::task_key(id)).await.map_err(records::storage_error)?;
        let record = record.ok_or_else(|| unknown_task(id))?;
        let mut task = records::read(&record)?;
        self.add_progress(&mut task);
        Ok(task)
    }

    /// Adds what is not stored: how far a running task or a workflow is.
    pub fn add_progress(&self, task: &mut Task) {
        if let Work::Workflow(summary) = &task.work {
            task.progress = Some(Progress {
                fraction: Some(summary.ended() as f64 / summary.total.max(1) as f64),
                done: Some(summary.ended()),
                total: Some(summary.total),
                message: String::new(),
            });
        }
        if let Some(running) = locked(&self.running).get(&task.id)
            && running.fence == task.fence
        {
            task.progress = running.progress.clone();
        }
    }

    /// Takes note of how far an attempt is, and tells whoever listens.
    pub fn progressed(&self, task: &Task, progress: Progress) {
        {
            let mut running = locked(&self.running);
            let Some(running) = running.get_mut(&task.id) else { return };
            running.progress = Some(progress.clone());
        }
        self.events.progressed(task, progress);
    }

    /// Waits until something may be ready to run.
    pub async fn woken(&self) {
        let next_time = locked(&self.schedule).next_time();
        // A wall clock that is set forward must not leave a task asleep for hours.
        let at_most = Duration::from_secs(30);
        let timed =
            next_time.map_or(at_most, |time| (time - Utc::now()).to_std().unwrap_or_default().min(at_most));
        let held_back = locked(&self.held_back_until).filter(|until| *until > Instant::now());
        match held_back {
            Some(until) => tokio::time::sleep_until(until).await,
            None => {
                tokio::select! {
                    () = self.wake.notified() => {}
                    () = tokio::time::sleep(timed) => {}
                }
            }
        }
    }
}

/// There is no such task.
pub fn unknown_task(id: TaskId) -> Error {
    Error::not_found(format!("there is no task {id}"))
        .with_help("`orchestrator task list` shows the tasks; finished ones are removed after a while")
}
