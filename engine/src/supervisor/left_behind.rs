//! What earlier lives of this engine have left of attempts that are not its own any more.
//!
//! While an engine has no seat among those that share a store, others take its tasks over, or call them off. Its scripts have ended before that,
//! unless one was held, or something keeps its runner from ending it. Such a stray is ended when the engine is
//! back, and until it has ended its task is not begun here; other tasks are. Besides, what an attempt had
//! printed may not have been shipped when the engine ended.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::future::join_all;
use orchestrator_protocol::task::TaskId;
use orchestrator_runner::attempt::{Attempt, AttemptState};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, error, info, info_span, warn};

use super::{Supervisor, runners};
use crate::log_segments::{self, Source};
use crate::logs::blocking;
use crate::membership::has_had_seat;
use crate::records::task_key;

/// How long after a vain try to end a stray the next one is made; doubled with each that follows, up to the
/// bound.
const PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// An attempt of an earlier life that nobody attends to, and of which something is still to be done.
#[derive(Debug)]
pub struct LeftBehind {
    source: Source,
    /// Whether something of it may run. Else there is only output to be shipped.
    is_stray: bool,
}

impl Supervisor {
    /// Looks for what earlier lives have left. To be done before anything new is begun: from here on the tasks
    /// of strays are not given out.
    pub async fn look_behind(&self) -> Vec<LeftBehind> {
        if self.membership.is_none() && !has_had_seat(&self.config.data_dir) {
            return Vec::new();
        }
        // Asked first: what has ended since is not taken for a stray.
        let attended = self.queue.running().into_iter();
        let attended: HashSet<Source> =
            attended.map(|(task, running)| Source { task, fence: running.fence }).collect();
        let directory = self.config.attempts_dir();
        let mut left =
            blocking(move || Ok(left_behind(&directory, &attended))).await.unwrap_or_else(|error| {
                error!(%error, "it cannot be told whether old scripts are running");
                Vec::new()
            });
        if self.membership.is_none() {
            let stored = join_all(left.iter().map(|left| self.is_stored(left.source.task))).await;
            let mut stored = stored.into_iter();
            // Scripts of other records, for which this engine was started by mistake, are not its to end.
            left.retain(|left| stored.next().unwrap_or_default() && left.is_stray);
        }
        for Source { task, fence } in left.iter().filter(|left| left.is_stray).map(|left| left.source) {
            warn!(%task, fence, "its script may be running, and the task has gone on without it; ending it");
            self.queue.stray_found(task, fence);
        }
        left
    }

    /// Ends what still runs of what was found, and ships what was printed.
    pub async fn clear_up(&self, left: Vec<LeftBehind>) {
        let (strays, ended): (Vec<_>, Vec<_>) = left.into_iter().partition(|left| left.is_stray);
        let strays = strays.into_iter().map(|LeftBehind { source, .. }| async move {
            let span = info_span!("task", id = %source.task, fence = source.fence);
            self.end_stray(source).instrument(span).await;
        });
        let shipped = async {
            for LeftBehind { source, .. } in ended {
                let span = info_span!("task", id = %source.task, fence = source.fence);
                self.ship_rest(source).instrument(span).await;
            }
        };
        tokio::join!(join_all(strays), shipped);
    }

    /// Whether a task is among the records; a storage that cannot tell counts as one that has it.
    async fn is_stored(&self, task: TaskId) -> bool {
        !matches!(self.queue.store().get(&task_key(task)).await, Ok(None))
    }

    async fn end_stray(&self, source: Source) {
        let directory = self.directory(source.task, source.fence);
        let mut pause = PAUSE;
        loop {
            match make_end(&directory).await {
                Ok(true) => break,
                Ok(false) => {}
                Err(error) => {
                    warn!(%error, "its old script cannot be ended; trying again");
                    sleep(pause).await;
                    pause = (pause * 2).min(MAX_PAUSE);
                }
            }
        }
        info!("its old script has ended");
        self.queue.stray_ended(source.task, source.fence);
        self.ship_rest(source).await;
    }
}

/// Brings a stray nearer to its end. Whether nothing of it runs any more.
async fn make_end(directory: &Path) -> io::Result<bool> {
    let place = directory.to_owned();
    let state = match blocking(move || Attempt::open(&place)?.state()).await {
        // Removed with its task.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        state => state?,
    };
    let place = directory.to_owned();
    match state {
        AttemptState::Running { .. } => {
            let watched = blocking(move || {
                let attempt = Attempt::open(&place)?;
                Ok((attempt.pidfd()?, attempt.grace()?))
            });
            match watched.await {
                Ok((pidfd, grace)) => {
                    let now = CancellationToken::new();
                    now.cancel();
                    runners::gone(pidfd, directory, grace, &now).await?;
                }
                // It has just ended: look again.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    sleep(Duration::from_millis(10)).await
                }
                Err(error) => return Err(error),
            }
            Ok(false)
        }
        AttemptState::Lost { .. } => {
            blocking(move || Attempt::open(&place)?.kill_leftovers()).await.map(|_| true)
        }
        AttemptState::NotStarted | AttemptState::Abandoned | AttemptState::Finished(_) => Ok(true),
    }
}

/// Of the attempts that are kept and that nobody attends to: those of which something is still to be done.
fn left_behind(attempts: &Path, attended: &HashSet<Source>) -> Vec<LeftBehind> {
    let kept = kept(attempts).into_iter().filter(|(source, _)| !attended.contains(source));
    let left = kept.filter_map(|(source, directory)| {
        let is_stray = match Attempt::open(&directory).and_then(|attempt| attempt.state()) {
            Ok(AttemptState::Running { .. }) => true,
            // What it started may live on where its runner did not; once all is shipped that has been seen to.
            Ok(AttemptState::Lost { .. }) => log_segments::is_marked(&directory),
            Ok(_) => false,
            // Its task waits until it can be told.
            Err(error) => {
                warn!(task = %source.task, %error, "it cannot be told whether an old script is running");
                true
            }
        };
        (is_stray || log_segments::is_marked(&directory)).then_some(LeftBehind { source, is_stray })
    });
    left.collect()
}

/// The attempts that are kept, as far as they can be looked at.
fn kept(attempts: &Path) -> Vec<(Source, PathBuf)> {
    let entries = |directory: &Path| std::fs::read_dir(directory).into_iter().flatten().flatten();
    let tasks = entries(attempts).filter_map(|entry| {
        Some((entry.file_name().to_string_lossy().parse::<TaskId>().ok()?, entry.path()))
    });
    let attempts = tasks.flat_map(|(task, directory)| {
        let attempt = move |entry: std::fs::DirEntry| {
            let fence = entry.file_name().to_string_lossy().parse().ok()?;
            Some((Source { task, fence }, entry.path()))
        };
        entries(&directory).filter_map(attempt).collect::<Vec<_>>()
    });
    attempts.collect()
}
