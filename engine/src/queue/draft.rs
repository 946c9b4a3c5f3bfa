//! The unit of work: read records, change them, commit all or none, then tell.
//!
//! A draft never waits for another: when its commit finds that another came first, whoever made it
//! makes it again. One of the two has gone on, so the queue as a whole always does.

use std::collections::BTreeMap;
use std::collections::HashSet;

use chrono::{DateTime, TimeDelta, Utc};
use orchestrator_protocol::Error;
use orchestrator_protocol::state::{Transition, apply};
use orchestrator_protocol::task::{Task, TaskId, TaskKind, TaskStatus, Work};
use orchestrator_storage::{Expect, Fields, Key, Operation, Revision, StoreError, Table};
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::{Queue, locked, unknown_task};
use crate::schedule::Entry;
use crate::{backoff, labels, records};

/// A lock, as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockRecord {
    /// The task or workflow that holds it.
    pub holder: TaskId,
    /// Of a slot in a store that engines share: the engine that the task runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
}

/// The key of a named lock.
pub fn lock_key(name: &str) -> Key {
    Key::new(Table::Lock, format!("lock/{name}"))
}

/// The key of a slot of a group that has a limit.
pub fn slot_key(group: &str, slot: u32) -> Key {
    Key::new(Table::Lock, format!("slot/{group}/{slot}"))
}

/// The group and the number in the key of a slot.
pub fn parse_slot(key: &Key) -> Option<(&str, u32)> {
    let (group, slot) = key.id.strip_prefix("slot/")?.rsplit_once('/')?;
    Some((group, slot.parse().ok()?))
}

struct Drafted {
    task: Task,
    /// The revision and the state it was read with; `None` for a new task.
    read: Option<(Revision, TaskStatus)>,
    changed: bool,
}

/// Records that were read and are being changed, and what else is to be committed with them.
pub struct Draft<'a> {
    queue: &'a Queue,
    tasks: BTreeMap<TaskId, Drafted>,
    operations: Vec<Operation>,
    released: Vec<(String, TaskId)>,
    freed: Vec<(String, u32)>,
}

/// What a commit changed.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The tasks that were changed, as they are now.
    pub tasks: Vec<Task>,
}

impl Draft<'_> {
    /// A task as stored, or as this draft has changed it.
    pub async fn task(&mut self, id: TaskId) -> Result<&Task, Error> {
        self.find(id).await?.map(|drafted| &drafted.task).ok_or_else(|| unknown_task(id))
    }

    /// The same, `None` where there is none.
    pub async fn get(&mut self, id: TaskId) -> Result<Option<&Task>, Error> {
        Ok(self.find(id).await?.map(|drafted| &drafted.task))
    }

    /// A task to be changed; its state is changed by [`Draft::transition`] alone.
    pub async fn edit(&mut self, id: TaskId) -> Result<&mut Task, Error> {
        let drafted = self.find(id).await?.ok_or_else(|| unknown_task(id))?;
        drafted.changed = true;
        Ok(&mut drafted.task)
    }

    async fn find(&mut self, id: TaskId) -> Result<Option<&mut Drafted>, Error> {
        if !self.tasks.contains_key(&id) {
            let record =
                self.queue.store.get(&records::task_key(id)).await.map_err(records::storage_error)?;
            let Some(record) = record else { return Ok(None) };
            let task: Task = records::read(&record)?;
            let read = Some((record.revision, task.status));
            self.tasks.insert(id, Drafted { task, read, changed: false });
        }
        Ok(self.tasks.get_mut(&id))
    }

    /// The revision that a task was read with; 0 for a new one.
    pub(super) fn revision(&self, id: TaskId) -> Revision {
        self.tasks.get(&id).and_then(|drafted| drafted.read).map_or(0, |(revision, _)| revision)
    }

    /// Adds a new task.
    pub fn create(&mut self, mut task: Task) {
        if self.queue.options.is_shared {
            labels::add_implicit(&mut task, &self.queue.options.labels);
        }
        self.tasks.insert(task.id, Drafted { task, read: None, changed: true });
    }

    /// Adds any other operation to the commit.
    pub fn operation(&mut self, operation: Operation) {
        self.operations.push(operation);
    }

    /// Changes the state of a task, and of the workflow it belongs to as far as that follows.
    pub async fn transition(&mut self, id: TaskId, transition: Transition) -> Result<(), Error> {
        let now = Utc::now();
        let task = self.edit(id).await?;
        let from = task.status;
        task.status = apply(from, transition)?;
        let to = task.status;
        match transition {
            Transition::Start => {
                task.started_at.get_or_insert(now);
                task.next_attempt_at = None;
            }
            Transition::HandBack | Transition::RetryLater => task.claim = None,
            Transition::Complete | Transition::Fail | Transition::Cancel => {
                task.completed_at = Some(now);
                task.claim = None;
                task.next_attempt_at = None;
                if transition == Transition::Cancel
                    && let Some(cancel) = &task.cancel
                {
                    task.error = Some(cancel.reason.clone());
                }
            }
            Transition::Revive => {
                task.completed_at = None;
                task.cancel = None;
                task.error = None;
                task.last_error = None;
                task.result = None;
                task.revived_after = task.attempt;
            }
        }
        let parent = task.parent;
        let failure = (transition == Transition::Fail)
            .then(|| format!("'{}': {}", task.name, task.error.as_deref().unwrap_or("it does not say why")));
        if task.kind() == TaskKind::Workflow
            && to.is_final()
            && let Some(lock) = task.lock.clone()
        {
            self.release_lock(&lock, id).await?;
        }
        match parent {
            Some(parent) => self.count_in_parent(parent, from, to, failure).await,
            None => Ok(()),
        }
    }

    async fn count_in_parent(
        &mut self,
        parent: TaskId,
        from: TaskStatus,
        to: TaskStatus,
        failure: Option<String>,
    ) -> Result<(), Error> {
        let workflow = self.task(parent).await?;
        let Work::Workflow(mut summary) = workflow.work else {
            return Err(Error::internal(format!("{parent} has tasks and is no workflow")));
        };
        let mut status = workflow.status;
        let before = summary;
        summary.count(from, to);
        if summary != before {
            let workflow = self.edit(parent).await?;
            workflow.work = Work::Workflow(summary);
            // The first one is told with the workflow.
            workflow.last_error = workflow.last_error.take().or(failure);
        }
        if status == TaskStatus::Pending
            && matches!(summary.outcome(), Some(TaskStatus::Failed | TaskStatus::Completed))
        {
            // Revived, and its tasks have ended again before any of them was started.
            Box::pin(self.transition(parent, Transition::Start)).await?;
            status = TaskStatus::Running;
        }
        let step = match (status, summary.outcome()) {
            (TaskStatus::Pending, None) if to == TaskStatus::Running => Some(Transition::Start),
            (TaskStatus::Failed | TaskStatus::Cancelled, None) => Some(Transition::Revive),
            (TaskStatus::Pending | TaskStatus::Running, Some(TaskStatus::Cancelled)) => {
                Some(Transition::Cancel)
            }
            (TaskStatus::Running, Some(TaskStatus::Completed)) => Some(Transition::Complete),
            (TaskStatus::Running, Some(_)) => Some(Transition::Fail),
            _ => None,
        };
        let Some(step) = step else { return Ok(()) };
        if matches!(step, Transition::Fail | Transition::Cancel) {
            let workflow = self.edit(parent).await?;
            workflow.error = Some(match step {
                Transition::Fail => {
                    let first = workflow.last_error.as_deref().unwrap_or_default();
                    format!("{} of {} tasks failed: {first}", summary.failed, summary.total)
                }
                _ => format!("{} of {} tasks were cancelled", summary.cancelled, summary.total),
            });
        }
        Box::pin(self.transition(parent, step)).await
    }

    /// Takes a lock for a holder, or makes sure that it still has it. `false` when another holds it.
    pub async fn take_lock(&mut self, name: &str, holder: TaskId) -> Result<bool, Error> {
        let key = lock_key(name);
        match self.queue.store.get(&key).await.map_err(records::storage_error)? {
            None => {
                let record = LockRecord { holder, engine: None };
                self.operation(records::put(key, Fields::default(), &record, Expect::Absent)?);
            }
            Some(record) => {
                let held: LockRecord = records::read(&record)?;
                if held.holder != holder {
                    return Ok(false);
                }
                self.operation(records::check(key, record.revision));
            }
        }
        Ok(true)
    }

    /// Gives a lock back, if this holder has it.
    pub async fn release_lock(&mut self, name: &str, holder: TaskId) -> Result<(), Error> {
        let key = lock_key(name);
        if let Some(record) = self.queue.store.get(&key).await.map_err(records::storage_error)?
            && records::read::<LockRecord>(&record)?.holder == holder
        {
            self.operation(records::delete(key, record.revision));
        }
        self.released.push((name.to_owned(), holder));
        Ok(())
    }

    /// A slot that is free once this is committed.
    pub(super) fn free_slot(&mut self, group: &str, slot: u32) {
        self.freed.push((group.to_owned(), slot));
    }

    fn operations(&self) -> Result<Vec<Operation>, Error> {
        let changed = self.tasks.values().filter(|drafted| drafted.changed);
        let puts = changed.map(|drafted| {
            let expect = drafted.read.map_or(Expect::Absent, |(revision, _)| Expect::Revision(revision));
            records::put_task(&drafted.task, expect)
        });
        puts.chain(self.operations.iter().cloned().map(Ok)).collect()
    }
}

impl Queue {
    /// An empty unit of work.
    pub fn draft(&self) -> Draft<'_> {
        Draft {
            queue: self,
            tasks: BTreeMap::new(),
            operations: Vec::new(),
            released: Vec::new(),
            freed: Vec::new(),
        }
    }

    /// Commits a unit of work: `None` when another commit came first, and it must be done again on what
    /// is there now.
    pub async fn commit(&self, draft: Draft<'_>) -> Result<Option<Outcome>, Error> {
        let Some((outcome, due)) = self.commit_only(draft).await? else { return Ok(None) };
        self.tell(due).await;
        Ok(Some(outcome))
    }

    /// The same, without telling those who depend on what has changed: whom to ask about.
    pub(super) async fn commit_only(
        &self,
        draft: Draft<'_>,
    ) -> Result<Option<(Outcome, Vec<TaskId>)>, Error> {
        let operations = draft.operations()?;
        if operations.is_empty() {
            return Ok(Some((Outcome::default(), Vec::new())));
        }
        match self.store.commit(operations).await {
            Ok(commit) => Ok(Some(self.settle(draft, &commit.revisions))),
            Err(StoreError::Conflict { .. }) => {
                tokio::task::yield_now().await;
                Ok(None)
            }
            Err(error) => Err(records::storage_error(error)),
        }
    }

    /// Brings the schedule in line with a commit, sends its events, and cancels what depended on tasks
    /// that ended badly.
    ///
    /// The commit is durable whatever happens here: what fails is done again by [`Queue::sweep`].
    fn settle(&self, draft: Draft<'_>, revisions: &[Revision]) -> (Outcome, Vec<TaskId>) {
        let Draft { tasks, released, freed, .. } = draft;
        let changed: Vec<Drafted> = tasks.into_values().filter(|drafted| drafted.changed).collect();
        let mut unsure = HashSet::new();
        let mut ended_badly = Vec::new();
        for drafted in changed.iter().filter(|drafted| stopped(drafted)) {
            self.leave(drafted.task.id, drafted.task.fence);
        }
        for (group, slot) in &freed {
            self.foreign_slot_freed(group, *slot);
        }
        {
            let in_commit: HashSet<TaskId> = changed.iter().map(|drafted| drafted.task.id).collect();
            let mut schedule = locked(&self.schedule);
            for (drafted, revision) in changed.iter().zip(revisions) {
                let task = &drafted.task;
                if task.kind() == TaskKind::Workflow {
                    if task.status == TaskStatus::Completed {
                        schedule.completed(task.id);
                    }
                    continue;
                }
                match task.status {
                    TaskStatus::Pending => {
                        let entry = entry(task, *revision, self.fits(task), due(task));
                        unsure.extend(entry.waits_for.difference(&in_commit).copied());
                        schedule.insert(entry);
                    }
                    // Nothing that was read before the claim is of use any more.
                    TaskStatus::Running => schedule.remove_until(task.id, *revision),
                    TaskStatus::Completed => schedule.completed(task.id),
                    TaskStatus::Failed | TaskStatus::Cancelled => schedule.remove_until(task.id, *revision),
                }
            }
            for (lock, holder) in &released {
                schedule.release(lock, *holder);
            }
        }
        for drafted in &changed {
            let before = drafted.read.map(|(_, status)| status);
            if matches!(drafted.task.status, TaskStatus::Failed | TaskStatus::Cancelled)
                && before != Some(drafted.task.status)
            {
                ended_badly.push(drafted.task.id);
            }
        }
        self.events.changed(changed.iter().map(|drafted| &drafted.task).zip(revisions.iter().copied()));
        self.wake.notify_one();
        ended_badly.extend(unsure);
        (Outcome { tasks: changed.into_iter().map(|drafted| drafted.task).collect() }, ended_badly)
    }

    /// Tells those who depend on tasks, and those who depend on them: a chain may be long.
    pub(super) async fn tell(&self, mut due: Vec<TaskId>) {
        while let Some(dependency) = due.pop() {
            match self.check_dependency(dependency).await {
                Ok(more) => due.extend(more),
                Err(error) => {
                    warn!(task = %dependency, %error, "what depends on it cannot be told yet");
                    locked(&self.unsettled).insert(dependency);
                }
            }
        }
    }

    /// Tells again those who depend on tasks, and looks again at tasks, where it has failed before.
    pub async fn sweep(&self) {
        let unlearnt = std::mem::take(&mut *locked(&self.unlearnt));
        for id in unlearnt {
            if let Err(error) = self.learn_again(id).await {
                warn!(task = %id, %error, "it cannot be looked at yet");
            }
        }
        let unsettled = std::mem::take(&mut *locked(&self.unsettled));
        self.tell(unsettled.into_iter().collect()).await;
    }

    /// A task that pending ones wait for may have ended before they were in the schedule.
    async fn check_dependency(&self, dependency: TaskId) -> Result<Vec<TaskId>, Error> {
        let record = self.store.get(&records::task_key(dependency)).await.map_err(records::storage_error)?;
        let status = match record {
            Some(record) => records::read::<Task>(&record)?.status,
            // Only what has ended is ever removed, and not while something that it let down still waits.
            None => TaskStatus::Completed,
        };
        match status {
            TaskStatus::Completed => {
                locked(&self.schedule).completed(dependency);
                self.wake.notify_one();
            }
            TaskStatus::Failed | TaskStatus::Cancelled => return self.cancel_dependents(dependency).await,
            TaskStatus::Pending | TaskStatus::Running => {}
        }
        Ok(Vec::new())
    }
}

/// Whether a commit has ended an attempt of the task.
fn stopped(drafted: &Drafted) -> bool {
    let was_running = drafted.read.is_some_and(|(_, status)| status == TaskStatus::Running);
    was_running && drafted.task.status != TaskStatus::Running
}

/// When a pending task may run, by the clock of the engine that said so.
pub(super) fn due(task: &Task) -> Option<DateTime<Utc>> {
    task.next_attempt_at.or(task.not_before)
}

/// When a task may run of which one has learnt just now what another engine said, whose clock may be minutes
/// off: it waits for its next attempt as long as its policy says, from now on.
pub(super) fn due_as_learnt(task: &Task) -> Option<DateTime<Utc>> {
    if task.next_attempt_at.is_none() {
        return task.not_before;
    }
    let failed = task.attempt.saturating_sub(task.revived_after);
    let wait = TimeDelta::from_std(backoff::delay(&task.retry, failed, 0.0)).ok();
    Some(wait.and_then(|wait| Utc::now().checked_add_signed(wait)).unwrap_or(DateTime::<Utc>::MAX_UTC))
}

/// What the schedule must know of a pending task, as if none of its dependencies had completed.
pub(super) fn entry(task: &Task, revision: Revision, fits: bool, due: Option<DateTime<Utc>>) -> Entry {
    let has_run = task.attempt > task.revived_after;
    Entry {
        id: task.id,
        revision,
        group: task.group.clone(),
        priority: task.priority,
        not_before: due.filter(|time| *time > Utc::now()),
        lock: task.lock.clone(),
        holder: holder(task),
        // What has run once has had its dependencies completed.
        waits_for: if has_run { HashSet::new() } else { task.depends_on.iter().copied().collect() },
        fits,
    }
}

/// Who holds the lock of a task: its workflow when the lock is named after it, else the task.
pub(super) fn holder(task: &Task) -> TaskId {
    match task.parent {
        Some(parent) if task.shares_workflow_lock => parent,
        _ => task.id,
    }
}
