//! What is removed at last: finished tasks by age and number, and keys whose time is over.

use chrono::{DateTime, TimeDelta, Utc};
use orchestrator_protocol::Error;
use orchestrator_protocol::task::{Task, TaskId, TaskStatus};
use orchestrator_storage::{Filter, Order, Query, Record, Table};

use super::Queue;
use super::submit::{KEY_LIFETIME, KeyRecord};
use crate::config::RetentionSettings;
use crate::{log_segments, records};

/// How many records one look into the store returns here, and one commit removes at most.
const PAGE: usize = 500;

const ENDED: [TaskStatus; 3] = [TaskStatus::Completed, TaskStatus::Failed, TaskStatus::Cancelled];

impl Queue {
    /// Removes what has had its time, and returns the tasks that are gone, so that their logs can go too.
    pub async fn retain(
        &self,
        settings: &RetentionSettings,
        now: DateTime<Utc>,
    ) -> Result<Vec<TaskId>, Error> {
        let mut removed = Vec::new();
        self.remove_keys(now).await?;
        let cutoff = now - TimeDelta::days(i64::from(settings.max_age_days));
        let old = Filter { ended_before_ms: Some(cutoff.timestamp_millis()), ..ended() };
        self.remove_tasks(old, u64::MAX, &mut removed).await?;
        let counts = self.store.counts(Table::Task).await.map_err(records::storage_error)?;
        let is_ended = |status: &str| ENDED.iter().any(|ended| ended.as_str() == status);
        let finished: u64 = counts
            .iter()
            .filter(|count| count.status.as_deref().is_some_and(is_ended))
            .map(|count| count.records)
            .sum();
        let excess = finished.saturating_sub(settings.max_finished);
        if excess > 0 {
            self.remove_tasks(ended(), excess, &mut removed).await?;
        }
        Ok(removed)
    }

    async fn remove_tasks(&self, filter: Filter, most: u64, removed: &mut Vec<TaskId>) -> Result<(), Error> {
        let mut query =
            Query { table: Table::Task, filter, order: Order::OldestFirst, after: None, limit: PAGE };
        let mut left = most;
        while left > 0 {
            let page = self.store.list(&query).await.map_err(records::storage_error)?;
            for record in &page.records {
                if left == 0 {
                    break;
                }
                let task: Task = records::read(record)?;
                if self.is_needed(&task).await? {
                    continue;
                }
                // Before the task: whoever dies in between leaves a task without logs, not logs for ever. There
                // may be some of a time when several engines shared the records.
                log_segments::remove(&*self.store, task.id).await?;
                if self.remove(record).await? {
                    removed.push(task.id);
                    left -= 1;
                }
            }
            match page.next {
                Some(next) => query.after = Some(next),
                None => break,
            }
        }
        Ok(())
    }

    /// Whether something that has not ended still refers to a task, or a key does.
    async fn is_needed(&self, task: &Task) -> Result<bool, Error> {
        if !super::locked(&self.schedule).dependents(task.id).is_empty() {
            return Ok(true);
        }
        // Retried, they would take it for completed.
        for dependent in &task.dependents_cancelled {
            if self.store.get(&records::task_key(*dependent)).await.map_err(records::storage_error)?.is_some()
            {
                return Ok(true);
            }
        }
        if let Some(parent) = task.parent
            && let Some(record) =
                self.store.get(&records::task_key(parent)).await.map_err(records::storage_error)?
            && !records::read::<Task>(&record)?.status.is_final()
        {
            return Ok(true);
        }
        let is_used = Query {
            table: Table::IdempotencyKey,
            filter: Filter { parent: Some(task.id.to_string().into()), ..Filter::default() },
            order: Order::OldestFirst,
            after: None,
            limit: 1,
        };
        Ok(!self.store.list(&is_used).await.map_err(records::storage_error)?.records.is_empty())
    }

    async fn remove(&self, record: &Record) -> Result<bool, Error> {
        let mut draft = self.draft();
        draft.operation(records::delete(record.key.clone(), record.revision));
        Ok(self.commit(draft).await?.is_some())
    }

    /// A key lives until a day after the end of what it was used for.
    async fn remove_keys(&self, now: DateTime<Utc>) -> Result<(), Error> {
        let before = Some((now - KEY_LIFETIME).timestamp_millis());
        let filter = Filter { created_before_ms: before, ..Filter::default() };
        let mut query = Query {
            table: Table::IdempotencyKey,
            filter,
            order: Order::OldestFirst,
            after: None,
            limit: PAGE,
        };
        loop {
            let page = self.store.list(&query).await.map_err(records::storage_error)?;
            for record in &page.records {
                let key: KeyRecord = records::read(record)?;
                if self.is_over(&key, now - KEY_LIFETIME).await? {
                    self.remove(record).await?;
                }
            }
            match page.next {
                Some(next) => query.after = Some(next),
                None => return Ok(()),
            }
        }
    }

    /// Whether everything that a key was used for had ended at a time.
    async fn is_over(&self, key: &KeyRecord, at: DateTime<Utc>) -> Result<bool, Error> {
        for id in key.submitted.tasks.iter().map(|task| task.id).chain(key.submitted.id) {
            let record = self.store.get(&records::task_key(id)).await.map_err(records::storage_error)?;
            let Some(record) = record else { continue };
            if records::read::<Task>(&record)?.completed_at.is_none_or(|ended| ended > at) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn ended() -> Filter {
    Filter { statuses: ENDED.map(records::status_field).to_vec(), ..Filter::default() }
}
