//! How the end of an attempt is judged, and what follows from it.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use orchestrator_protocol::Error;
use orchestrator_protocol::state::Transition;
use orchestrator_protocol::task::{AttemptOutcome, CancelRequest, Task, TaskId, TaskStatus};
use serde_json::Value;

use super::Queue;
use super::draft::{Draft, holder, slot_key};
use crate::{backoff, records};

/// What is known of an attempt that has ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Ending {
    /// How it ended.
    pub outcome: AttemptOutcome,
    /// When the program started, where it did.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub ended_at: DateTime<Utc>,
    /// The program's exit code.
    pub exit_code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Why it failed.
    pub error: Option<String>,
    /// Whether it is of no use to try again.
    pub permanent: bool,
    /// What it reported.
    pub result: Option<Value>,
    /// The last lines of its output.
    pub output: Option<String>,
}

impl Ending {
    /// An attempt that ended so, and of which nothing else is known.
    pub fn bare(outcome: AttemptOutcome, error: Option<String>) -> Self {
        Self {
            outcome,
            started_at: None,
            ended_at: Utc::now(),
            exit_code: None,
            signal: None,
            error,
            permanent: false,
            result: None,
            output: None,
        }
    }
}

/// What becomes of a task whose attempt has ended so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Done.
    Complete,
    /// Failed for good.
    Fail,
    /// Called off.
    Cancel,
    /// Another attempt, after this wait.
    Retry(Duration),
}

/// Judges. `chance`, from 0 to 1, is the jitter of the wait.
pub fn judge(task: &Task, ending: &Ending, chance: f64) -> Verdict {
    let attempts = task.attempt.saturating_sub(task.revived_after);
    match ending.outcome {
        // The work is done, whatever was asked meanwhile.
        AttemptOutcome::Succeeded => Verdict::Complete,
        _ if task.cancel.is_some() => Verdict::Cancel,
        _ if ending.permanent || attempts > task.retry.max_retries => Verdict::Fail,
        _ => Verdict::Retry(backoff::delay(&task.retry, attempts, chance)),
    }
}

impl Queue {
    /// Commits the end of an attempt. Does nothing when the task has gone on since: its fence differs.
    pub async fn finish(&self, id: TaskId, fence: u64, ending: &Ending) -> Result<(), Error> {
        loop {
            let mut draft = self.draft();
            if !self.draft_ending(&mut draft, id, fence, ending).await? {
                self.leave(id, fence);
                return Ok(());
            }
            crate::fault::point("finish.before_commit");
            if self.commit(draft).await?.is_some() {
                crate::fault::point("finish.after_commit");
                return Ok(());
            }
        }
    }

    /// Puts the end of an attempt into a draft, with what it held. `false` when the fence is not the
    /// task's any more.
    pub(super) async fn draft_ending(
        &self,
        draft: &mut Draft<'_>,
        id: TaskId,
        fence: u64,
        ending: &Ending,
    ) -> Result<bool, Error> {
        let Some(task) = draft.get(id).await?.cloned() else { return Ok(false) };
        if task.fence != fence || task.status != TaskStatus::Running {
            return Ok(false);
        }
        let verdict = judge(&task, ending, rand::random());
        let edited = draft.edit(id).await?;
        note_attempt(edited, ending);
        edited.progress = None;
        edited.output = ending.output.clone();
        let transition = match verdict {
            Verdict::Complete => {
                edited.result = ending.result.clone();
                edited.last_error = None;
                Transition::Complete
            }
            Verdict::Fail => {
                edited.result = ending.result.clone();
                edited.last_error = ending.error.clone();
                edited.error = ending.error.clone();
                Transition::Fail
            }
            Verdict::Cancel => Transition::Cancel,
            Verdict::Retry(wait) => {
                edited.last_error = ending.error.clone();
                let at = TimeDelta::from_std(wait).ok().and_then(|wait| Utc::now().checked_add_signed(wait));
                edited.next_attempt_at = Some(at.unwrap_or(DateTime::<Utc>::MAX_UTC));
                Transition::RetryLater
            }
        };
        self.draft_release(draft, &task).await?;
        draft.transition(id, transition).await?;
        Ok(true)
    }

    /// An attempt that never started anything: the task is pending as if it had not been claimed.
    pub async fn hand_back(&self, id: TaskId, fence: u64) -> Result<(), Error> {
        loop {
            let mut draft = self.draft();
            let task = draft.get(id).await?.cloned();
            let Some(task) = task.filter(|task| task.fence == fence && task.status == TaskStatus::Running)
            else {
                self.leave(id, fence);
                return Ok(());
            };
            self.draft_release(&mut draft, &task).await?;
            let edited = draft.edit(id).await?;
            edited.attempts.pop();
            edited.attempt -= 1;
            if edited.attempts.is_empty() {
                edited.started_at = None;
            }
            let transition = if edited.cancel.is_some() { Transition::Cancel } else { Transition::HandBack };
            draft.transition(id, transition).await?;
            if self.commit(draft).await?.is_some() {
                return Ok(());
            }
        }
    }

    /// Gives back what an attempt holds by itself: its slot, and its own lock.
    async fn draft_release(&self, draft: &mut Draft<'_>, task: &Task) -> Result<(), Error> {
        if let Some(lock) = &task.lock
            && holder(task) == task.id
        {
            draft.release_lock(lock, task.id).await?;
        }
        let Some(slot) = task.claim.as_ref().and_then(|claim| claim.slot) else { return Ok(()) };
        let key = slot_key(&task.group, slot);
        if let Some(record) = self.store.get(&key).await.map_err(records::storage_error)? {
            draft.operation(records::delete(key, record.revision));
        }
        draft.free_slot(&task.group, slot);
        Ok(())
    }

    /// Cancels the pending tasks that depend on one that has failed or was cancelled, in one commit
    /// with the note of whom it took along.
    pub(super) async fn cancel_dependents(&self, dependency: TaskId) -> Result<Vec<TaskId>, Error> {
        loop {
            let dependents = super::locked(&self.schedule).dependents(dependency);
            if dependents.is_empty() {
                return Ok(Vec::new());
            }
            let mut draft = self.draft();
            let Some(cause) = draft.get(dependency).await?.cloned() else { return Ok(Vec::new()) };
            let word = match cause.status {
                TaskStatus::Failed => "failed",
                TaskStatus::Cancelled => "was cancelled",
                TaskStatus::Pending | TaskStatus::Running | TaskStatus::Completed => return Ok(Vec::new()),
            };
            let mut stale = Vec::new();
            for id in dependents {
                let status = draft.get(id).await?.map(|task| task.status);
                if status != Some(TaskStatus::Pending) {
                    stale.push((id, draft.revision(id)));
                    continue;
                }
                let reason = format!("it depends on '{}', which {word}", cause.name);
                let task = draft.edit(id).await?;
                task.cancel = Some(CancelRequest { reason, at: Utc::now(), caused_by: Some(dependency) });
                draft.transition(id, Transition::Cancel).await?;
                draft.edit(dependency).await?.dependents_cancelled.push(id);
            }
            if let Some((_, due)) = self.commit_only(draft).await? {
                let mut schedule = super::locked(&self.schedule);
                for (id, revision) in stale {
                    schedule.remove_until(id, revision);
                }
                return Ok(due);
            }
        }
    }
}

fn note_attempt(task: &mut Task, ending: &Ending) {
    let fence = task.fence;
    let Some(attempt) = task.attempts.iter_mut().rev().find(|attempt| attempt.fence == fence) else { return };
    attempt.started_at = ending.started_at.unwrap_or(attempt.started_at);
    attempt.ended_at = Some(ending.ended_at);
    attempt.outcome = Some(ending.outcome);
    attempt.exit_code = ending.exit_code;
    attempt.signal = ending.signal;
    attempt.error = ending.error.clone();
}
