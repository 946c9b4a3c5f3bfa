//! What an engine does at intervals, beside its work: what could not be done after a commit, what has had its
//! time, and, where it is not alone, who of the others is still there.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use orchestrator_protocol::Error;
use orchestrator_protocol::task::TaskId;
use orchestrator_runner::attempt::{Attempt, AttemptState};
use tracing::{info, warn};

use crate::config::Config;
use crate::membership::Membership;
use crate::queue::Queue;
use crate::records::task_key;

/// Between two looks for what has had its time.
const RETENTION_INTERVAL: Duration = Duration::from_secs(600);
/// Between two looks for what could not be done after a commit.
const SWEEP_INTERVAL: Duration = Duration::from_secs(2);

/// Looks at intervals who of the other engines is still there, and ends the attempts of those who are not.
pub(super) async fn look_around(queue: Arc<Queue>, membership: Arc<Membership>) {
    let mut interval = tokio::time::interval(membership.times().look());
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut is_failing, mut are_told) = (false, true);
    loop {
        interval.tick().await;
        let looked = async {
            if !membership.observe().await?.is_empty() {
                are_told = false;
            }
            queue.take_over().await?;
            // One of them may have died while it told the tasks of a workflow that they are called off.
            if !are_told {
                queue.continue_cancellations().await?;
                are_told = true;
            }
            Ok::<(), Error>(())
        };
        match (looked.await, is_failing) {
            (Err(error), false) => {
                is_failing = true;
                warn!(%error, "the other engines, and the attempts of those that are lost, cannot be looked at; trying on");
            }
            (Ok(_), true) => {
                is_failing = false;
                info!("the other engines can be looked at again");
            }
            _ => {}
        }
    }
}

/// Makes good, at intervals, what could not be done after a commit.
pub(super) async fn sweep(queue: Arc<Queue>) {
    let mut interval = tokio::time::interval(SWEEP_INTERVAL);
    loop {
        interval.tick().await;
        queue.sweep().await;
    }
}

/// Removes what has had its time, at intervals. First what an engine that died in the middle of that
/// has left.
pub(super) async fn retain(queue: Arc<Queue>, config: Arc<Config>) {
    match orphans(&queue, &config).await {
        Ok(orphans) => remove_attempts(&config, &orphans),
        Err(error) => warn!(%error, "logs that belong to no task cannot be looked for"),
    }
    let mut interval = tokio::time::interval(RETENTION_INTERVAL);
    loop {
        interval.tick().await;
        match queue.retain(&config.retention, Utc::now()).await {
            Ok(removed) if removed.is_empty() => {}
            Ok(removed) => {
                remove_attempts(&config, &removed);
                info!(tasks = removed.len(), "removed what has had its time");
            }
            Err(error) => warn!(%error, "what has had its time cannot be removed now"),
        }
    }
}

/// Tasks whose attempts are kept and that are stored no more.
async fn orphans(queue: &Queue, config: &Config) -> anyhow::Result<Vec<TaskId>> {
    let mut orphans = Vec::new();
    for entry in std::fs::read_dir(config.attempts_dir())? {
        let entry = entry?;
        let Ok(id) = entry.file_name().to_string_lossy().parse::<TaskId>() else { continue };
        if queue.store().get(&task_key(id)).await?.is_some() {
            continue;
        }
        if has_running_attempt(&entry.path())? {
            warn!(task = %id, "a script of a task that is not stored is running; it is left alone");
        } else {
            orphans.push(id);
        }
    }
    Ok(orphans)
}

fn has_running_attempt(task: &Path) -> std::io::Result<bool> {
    for attempt in std::fs::read_dir(task)? {
        if matches!(Attempt::open(&attempt?.path())?.state()?, AttemptState::Running { .. }) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn remove_attempts(config: &Config, tasks: &[TaskId]) {
    for id in tasks {
        let directory = config.attempts_dir().join(id.to_string());
        if let Err(error) = std::fs::remove_dir_all(directory)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            warn!(task = %id, %error, "the logs of a removed task cannot be removed");
        }
    }
}
