//! Why a task is where it is, in sentences.

use orchestrator_protocol::Error;
use orchestrator_protocol::request::{EngineMode, Explanation, Reason, ReasonKind};
use orchestrator_protocol::task::{Task, TaskId, TaskKind, TaskStatus, Work};

use super::{Queue, locked};
use crate::labels;
use crate::membership::{self, About, Seat};
use crate::schedule::Obstacle;

impl Queue {
    /// Everything that keeps a task from running, or how it ended.
    pub async fn explain(&self, id: TaskId) -> Result<Explanation, Error> {
        let task = self.task(id).await?;
        let reasons = match task.status {
            TaskStatus::Pending if task.kind() != TaskKind::Workflow => self.why_pending(&task).await?,
            TaskStatus::Running if self.is_held(&task).await? => {
                let engine = task.claim.as_ref().map_or("", |claim| &claim.engine);
                let message = format!(
                    "it is held: its engine {engine} is lost, and nobody takes it over until that is back; \
                     `orchestrator task cancel {id} --force` calls it off"
                );
                vec![reason(ReasonKind::Engine, message)]
            }
            TaskStatus::Pending | TaskStatus::Running => vec![why_running(&task)],
            TaskStatus::Completed | TaskStatus::Failed | TaskStatus::Cancelled => vec![why_ended(&task)],
        };
        Ok(Explanation { id, name: task.name, status: task.status, reasons })
    }

    async fn why_pending(&self, task: &Task) -> Result<Vec<Reason>, Error> {
        let mut reasons = Vec::new();
        let obstacles = locked(&self.schedule).obstacles(task.id).unwrap_or_default();
        for obstacle in obstacles {
            reasons.extend(self.reasons(task, obstacle).await?);
        }
        if *self.mode.borrow() != EngineMode::Active {
            reasons.push(reason(
                ReasonKind::Draining,
                "the engine takes nothing new: it is about to stop".into(),
            ));
        }
        let health = self.store.health().await;
        if !health.writable {
            let why = health.reason.unwrap_or_else(|| "it does not say why".into());
            reasons.push(reason(ReasonKind::Storage, format!("the storage accepts no writes: {why}")));
        }
        let (running, limit) = (self.running_count(), self.options.max_parallel);
        if running >= limit as usize {
            let message = format!("{running} attempts are under way, and {limit} may be at once");
            reasons.push(reason(ReasonKind::Busy, message));
        }
        if reasons.is_empty() {
            reasons.push(reason(ReasonKind::Turn, "it is about to be started".into()));
        }
        Ok(reasons)
    }

    async fn reasons(&self, task: &Task, obstacle: Obstacle) -> Result<Vec<Reason>, Error> {
        Ok(vec![match obstacle {
            Obstacle::Dependencies(ids) => {
                let mut reasons = Vec::new();
                for id in ids {
                    let dependency = self.task(id).await?;
                    let message =
                        format!("it runs after '{}', which is {}", dependency.name, dependency.status);
                    reasons.push(Reason { task: Some(id), ..reason(ReasonKind::Dependency, message) });
                }
                return Ok(reasons);
            }
            Obstacle::Time(until) if task.next_attempt_at.is_some() => {
                let error = task.last_error.as_deref().unwrap_or("no reason was given");
                let message = format!("attempt {} failed ({error}); the next one waits", task.attempt);
                Reason { until: Some(until), ..reason(ReasonKind::Backoff, message) }
            }
            Obstacle::Time(until) => {
                let message = "it was submitted for a later time".to_owned();
                Reason { until: Some(until), ..reason(ReasonKind::NotBefore, message) }
            }
            Obstacle::Engine => reason(ReasonKind::Engine, self.why_not_here(task).await?),
            Obstacle::Stray => {
                let message = "the script of an earlier attempt still runs on this engine's machine, and is \
                               being ended: the next attempt begins here only after it"
                    .to_owned();
                reason(ReasonKind::Engine, message)
            }
            Obstacle::Lock { lock, holder } => {
                let name = self.task(holder).await.map_or_else(|_| holder.to_string(), |task| task.name);
                let message = format!("the lock '{lock}' is held by '{name}'");
                Reason { task: Some(holder), ..reason(ReasonKind::Lock, message) }
            }
            Obstacle::GroupFull { limit } => {
                let message =
                    format!("group '{}' runs {limit} attempts at once, and all are under way", task.group);
                reason(ReasonKind::GroupLimit, message)
            }
            Obstacle::Paused => {
                reason(ReasonKind::Paused, "the queue is paused: `orchestrator task resume` goes on".into())
            }
            Obstacle::GroupPaused => {
                let group = &task.group;
                let message =
                    format!("group '{group}' is paused: `orchestrator task resume --group {group}` goes on");
                reason(ReasonKind::Paused, message)
            }
            Obstacle::Turn { before: 0 } => reason(ReasonKind::Turn, "it is the next of its group".into()),
            Obstacle::Turn { before } => {
                reason(ReasonKind::Turn, format!("{before} tasks of group '{}' come first", task.group))
            }
        }])
    }
}

impl Queue {
    /// Whether a running task is held for an engine that has no seat.
    async fn is_held(&self, task: &Task) -> Result<bool, Error> {
        let Some(claim) = task.claim.as_ref().filter(|_| self.options.is_shared) else { return Ok(false) };
        let is_free = membership::seat(&*self.store, &claim.engine).await? != Seat::Taken;
        Ok(is_free && !claim.is_leased)
    }

    /// Why this engine does not run a task: what it requires, and who has that.
    async fn why_not_here(&self, task: &Task) -> Result<String, Error> {
        let required = labels::in_words(&task.requires);
        if !self.options.is_shared {
            return Ok(format!("it requires an engine with {required}, and this one has other labels"));
        }
        let members = membership::members(&*self.store).await?;
        let has_all =
            |about: &About| task.requires.iter().all(|(label, value)| about.labels.get(label) == Some(value));
        let fitting = members.iter().find(|member| member.is_seated && has_all(&member.about));
        Ok(match fitting {
            Some(member) => {
                format!("it requires {required}: it is for engine {} on {}", member.id, member.about.host)
            }
            None => format!("it requires {required}, and no engine that is alive has that"),
        })
    }
}

fn why_running(task: &Task) -> Reason {
    let message = match (&task.work, &task.cancel) {
        (_, Some(cancel)) => format!("it is being called off: {}", cancel.reason),
        (Work::Workflow(summary), None) => {
            format!("{} of {} tasks have ended", summary.ended(), summary.total)
        }
        (_, None) => format!("attempt {} is under way", task.attempt),
    };
    reason(ReasonKind::Running, message)
}

fn why_ended(task: &Task) -> Reason {
    let message = match (&task.error, task.status) {
        (Some(error), _) => error.clone(),
        (None, TaskStatus::Completed) if task.kind() == TaskKind::Workflow => {
            "all of its tasks completed".into()
        }
        (None, TaskStatus::Completed) => format!("it completed with attempt {}", task.attempt),
        (None, status) => format!("it is {status}"),
    };
    Reason {
        task: task.cancel.as_ref().and_then(|cancel| cancel.caused_by),
        ..reason(ReasonKind::Ended, message)
    }
}

fn reason(kind: ReasonKind, message: String) -> Reason {
    Reason { kind, message, task: None, until: None }
}
