//! What people ask of tasks that are there: cancel, retry, pause and resume.

use std::collections::BTreeSet;
use std::sync::Arc;

use chrono::Utc;
use orchestrator_protocol::state::Transition;
use orchestrator_protocol::task::{CancelRequest, Task, TaskId, TaskKind, TaskStatus};
use orchestrator_protocol::{Error, name};
use orchestrator_storage::{Expect, Fields, Filter, Key, Order, Query, Table};

use super::draft::Draft;
use super::{Pauses, Queue, locked};
use crate::records;

/// How many records one look into the store returns here.
const PAGE: usize = 1_000;
/// How long the reason of a cancellation may be, in bytes: it is kept with every task of a workflow, and
/// with every event of those.
const MAX_REASON_BYTES: usize = 1_000;

pub(super) fn pauses_key() -> Key {
    Key::new(Table::Control, "pauses")
}

impl Queue {
    /// Calls a task off: at once when it is pending, as soon as what it started is gone when it runs. Of
    /// a workflow all tasks go. A task that is cancelled already stays so.
    ///
    /// Returns the tasks that this has changed, besides the task itself.
    pub async fn cancel(&self, id: TaskId, reason: &str) -> Result<Vec<TaskId>, Error> {
        let is_text = reason.chars().all(|c| !c.is_control() || matches!(c, '\n' | '\t'));
        if reason.len() > MAX_REASON_BYTES || !is_text {
            return Err(Error::invalid(format!(
                "the reason is longer than {MAX_REASON_BYTES} bytes or not text"
            ))
            .with_help("nothing was cancelled")
            .with_field("reason"));
        }
        let is_workflow = self.request_cancel(id, reason, None).await?;
        let mut others = Vec::new();
        if is_workflow {
            for child in self.children(id, &[TaskStatus::Pending, TaskStatus::Running]).await? {
                match self.request_cancel(child, reason, Some(id)).await {
                    Ok(_) => others.push(child),
                    // It has ended in the meantime.
                    Err(error) if error.code == orchestrator_protocol::ErrorCode::Conflict => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(others)
    }

    async fn request_cancel(
        &self,
        id: TaskId,
        reason: &str,
        caused_by: Option<TaskId>,
    ) -> Result<bool, Error> {
        loop {
            let mut draft = self.draft();
            let task = draft.task(id).await?;
            let (status, is_workflow) = (task.status, task.kind() == TaskKind::Workflow);
            if status == TaskStatus::Cancelled {
                return Ok(false);
            }
            let request = CancelRequest { reason: reason.to_owned(), at: Utc::now(), caused_by };
            if task.cancel.is_none() {
                let task = draft.edit(id).await?;
                task.cancel = Some(request);
            }
            if status.is_final() {
                orchestrator_protocol::state::apply(status, Transition::Cancel)?;
            } else if status == TaskStatus::Pending && !is_workflow {
                draft.transition(id, Transition::Cancel).await?;
            }
            crate::fault::point("cancel.before_commit");
            if self.commit(draft).await?.is_some() {
                if status == TaskStatus::Running {
                    self.signal_cancel(id);
                }
                return Ok(is_workflow);
            }
        }
    }

    /// Tries a failed or cancelled task again, with what its end had cancelled. Of a workflow: its failed
    /// and cancelled tasks. One commit.
    ///
    /// Returns the tasks that this has revived, besides the task itself.
    pub async fn retry(&self, id: TaskId) -> Result<Vec<TaskId>, Error> {
        loop {
            let mut draft = self.draft();
            let task = draft.task(id).await?;
            let mut revive = if task.kind() == TaskKind::Workflow {
                let (status, is_cancelled) = (task.status, task.cancel.is_some());
                let ended_badly = self.children(id, &[TaskStatus::Failed, TaskStatus::Cancelled]).await?;
                // What has failed of a workflow that goes on need not wait for the rest.
                if status.is_final() || is_cancelled || ended_badly.is_empty() {
                    orchestrator_protocol::state::apply(status, Transition::Revive)?;
                }
                ended_badly
            } else {
                vec![id]
            };
            let mut revived = BTreeSet::new();
            while let Some(next) = revive.pop() {
                if next != id && draft.get(next).await?.is_none_or(|task| !ended_badly(task)) {
                    continue;
                }
                if !revived.insert(next) {
                    continue;
                }
                self.draft_revival(&mut draft, next).await?;
                let parent = draft.task(next).await?.parent;
                for cause in [Some(next), parent].into_iter().flatten() {
                    for dependent in std::mem::take(&mut draft.edit(cause).await?.dependents_cancelled) {
                        let caused =
                            draft.get(dependent).await?.and_then(|task| task.cancel.as_ref()?.caused_by);
                        if caused == Some(cause) {
                            revive.push(dependent);
                        }
                    }
                }
            }
            if self.commit(draft).await?.is_some() {
                revived.remove(&id);
                return Ok(revived.into_iter().collect());
            }
        }
    }

    async fn draft_revival(&self, draft: &mut Draft<'_>, id: TaskId) -> Result<(), Error> {
        draft.transition(id, Transition::Revive).await?;
        if let Some(parent) = draft.task(id).await?.parent
            && draft.task(parent).await?.cancel.is_some()
        {
            draft.edit(parent).await?.cancel = None;
        }
        Ok(())
    }

    /// The tasks of a workflow that are in one of these states, oldest first.
    pub async fn children(&self, workflow: TaskId, statuses: &[TaskStatus]) -> Result<Vec<TaskId>, Error> {
        let mut query = Query {
            table: Table::Task,
            filter: Filter {
                parent: Some(Arc::from(workflow.to_string())),
                statuses: statuses.iter().map(|status| records::status_field(*status)).collect(),
                ..Filter::default()
            },
            order: Order::OldestFirst,
            after: None,
            limit: PAGE,
        };
        let mut children = Vec::new();
        loop {
            let page = self.store.list(&query).await.map_err(records::storage_error)?;
            for record in &page.records {
                let id =
                    record.key.id.parse::<TaskId>().map_err(|error| Error::internal(error.to_string()))?;
                children.push(id);
            }
            match page.next {
                Some(next) => query.after = Some(next),
                None => return Ok(children),
            }
        }
    }

    /// Starts nothing more, in the whole queue or in a group, or goes on. It is stored, and holds for the
    /// next engine too.
    pub async fn pause(&self, group: Option<&str>, paused: bool) -> Result<Pauses, Error> {
        if let Some(group) = group {
            name::word("group", group).map_err(|error| Error::from(error).with_field("group"))?;
        }
        // One after the other, so that what is in force is what is stored.
        let _pausing = self.pausing.lock().await;
        loop {
            let record = self.store.get(&pauses_key()).await.map_err(records::storage_error)?;
            let (mut pauses, expect) = match &record {
                Some(record) => (records::read::<Pauses>(record)?, Expect::Revision(record.revision)),
                None => (Pauses::default(), Expect::Absent),
            };
            match (group, paused) {
                (None, _) => pauses.all = paused,
                (Some(group), true) => {
                    pauses.groups.insert(group.to_owned());
                }
                (Some(group), false) => {
                    pauses.groups.remove(group);
                }
            }
            let mut draft = self.draft();
            draft.operation(records::put(pauses_key(), Fields::default(), &pauses, expect)?);
            if self.commit(draft).await?.is_some() {
                self.apply_pauses(pauses.clone());
                return Ok(pauses);
            }
        }
    }

    pub(super) fn apply_pauses(&self, pauses: Pauses) {
        let mut current = locked(&self.pauses);
        let mut schedule = locked(&self.schedule);
        schedule.pause_all(pauses.all);
        for group in current.groups.difference(&pauses.groups) {
            schedule.pause_group(group, false);
        }
        for group in &pauses.groups {
            schedule.pause_group(group, true);
        }
        *current = pauses;
        self.wake.notify_one();
    }
}

fn ended_badly(task: &Task) -> bool {
    matches!(task.status, TaskStatus::Failed | TaskStatus::Cancelled)
}
