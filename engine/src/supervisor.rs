//! What becomes of a claimed task: an attempt with a runner, or a step of the engine's own.
//!
//! The supervisor prepares the attempt's directory, starts its runner, waits until the runner is gone,
//! reads what it left and tells the queue. The runner works without it: when the engine ends in the
//! middle, the next one takes in what it finds, and asks the same questions in the same order. The
//! truth about an attempt is in its directory, the truth about a task in the storage; the supervisor
//! only carries news from one to the other, and may be interrupted anywhere.
//!
//! - `runners`: waiting for a runner, and making it go. `shipping`: what attempts print, for the other engines
//!   of the store. [`left_behind`]: what attempts of earlier lives have left.

pub mod left_behind;
mod runners;
mod shipping;

use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use orchestrator_protocol::Error;
use orchestrator_protocol::environment::EnvironmentId;
use orchestrator_protocol::task::{Action, AttemptOutcome, OnEngineLoss, Progress, Task, TaskId, Work};
use orchestrator_runner::attempt::{Attempt, AttemptState};
use orchestrator_runner::spec::Spec;
use orchestrator_runner::status::{Reason, Status};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, debug, error, info, info_span, warn};

use crate::action_log::ActionLog;
use crate::config::Config;
use crate::environments::{TestEnvironments, environment_of};
use crate::log_segments::Source;
use crate::logs::blocking;
use crate::membership::Membership;
use crate::queue::Queue;
use crate::queue::claim::Claimed;
use crate::queue::finish::Ending;
use crate::queue::recover::Found;
use crate::test_orchestrator::Context;
use crate::worker::Programs;
use crate::{actions, logs};

/// Between two looks at how far a script is.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);
/// Between two tries to commit the end of an attempt while the storage refuses writes.
const COMMIT_PAUSE: Duration = Duration::from_secs(1);
/// What is told between them.
const NOT_STORED: &str = "the end of the attempt cannot be stored yet";

/// Where an attempt whose end is looked for comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// This engine has started its runner, and the runner is gone.
    Spawned,
    /// An engine before this one has claimed it.
    Found,
}

/// Supervises the attempts of one engine.
pub struct Supervisor {
    queue: Arc<Queue>,
    config: Arc<Config>,
    programs: Programs,
    environments: Arc<TestEnvironments>,
    tracker: TaskTracker,
    /// Fires when the engine ends and leaves scripts running.
    leave: CancellationToken,
    /// Where several engines share the store: this one's place among them.
    membership: Option<Arc<Membership>>,
}

impl Supervisor {
    /// A supervisor. Its work goes on in `tracker`, until it is done or `leave` fires.
    pub fn new(
        queue: Arc<Queue>,
        config: Arc<Config>,
        programs: Programs,
        environments: Arc<TestEnvironments>,
        tracker: TaskTracker,
        leave: CancellationToken,
        membership: Option<Arc<Membership>>,
    ) -> Self {
        Self { queue, config, programs, environments, tracker, leave, membership }
    }

    /// Waits until others may soon begin anew what this engine does itself.
    async fn overdue(&self) {
        match &self.membership {
            Some(membership) => membership.overdue().await,
            None => std::future::pending().await,
        }
    }

    /// Waits until the engine's lease is good for a task that is to begin, or the task is called off. Where that
    /// takes too long the task goes back: another engine may have better luck.
    async fn leased(&self, task: &Task, cancel: &CancellationToken) -> ControlFlow<()> {
        let Some(membership) = &self.membership else { return ControlFlow::Continue(()) };
        tokio::select! {
            () = self.leave.cancelled() => return ControlFlow::Break(()),
            () = cancel.cancelled() => return ControlFlow::Continue(()),
            () = membership.renewed() => return ControlFlow::Continue(()),
            () = sleep(membership.times().scripts) => {}
        }
        warn!("the engine's lease is not renewed; nothing is begun meanwhile");
        self.hand_back(task).await;
        // Others come first.
        self.queue.hold_back();
        ControlFlow::Break(())
    }

    /// Where the attempt of a task with a fence is kept.
    fn directory(&self, task: TaskId, fence: u64) -> PathBuf {
        attempt_dir(&self.config, task, fence)
    }

    /// Begins the work of a task that was just claimed; returns at once when the storage and the
    /// processes have been told.
    pub async fn begin(self: &Arc<Self>, claimed: Claimed) {
        let Claimed { task, cancel } = claimed;
        let span = info_span!("task", id = %task.id, name = task.name, attempt = task.attempt);
        let this = Arc::clone(self);
        match &task.work {
            Work::Command(_) => {
                self.tracker.spawn(async move { this.command(task, cancel).await }.instrument(span));
            }
            Work::Action(action) => {
                let action = action.clone();
                self.tracker.spawn(async move { this.action(&task, &action, cancel).await }.instrument(span));
            }
            Work::Workflow(_) => error!(task = %task.id, "a workflow was claimed: it has no work of its own"),
        }
    }

    /// Takes in a task that was running when the engine before this one ended.
    pub fn take_in(self: &Arc<Self>, found: Found) {
        let Found { task, cancel } = found;
        let span = info_span!("task", id = %task.id, name = task.name, attempt = task.attempt);
        let this = Arc::clone(self);
        self.tracker.spawn(
            async move {
                match &task.work {
                    Work::Command(_) => this.find_out(&task, &cancel, Origin::Found).await,
                    // Its steps can be repeated: it is done again, as an attempt of its own.
                    Work::Action(_) => this.hand_back(&task).await,
                    Work::Workflow(_) => {}
                }
            }
            .instrument(span),
        );
    }

    /// Performs a step of the engine's own; its end is committed as long as it takes.
    async fn action(&self, task: &Task, action: &Action, cancel: CancellationToken) {
        if let Some(id) = environment_of(action) {
            return self.environment_action(task, id, action, cancel).await;
        }
        if let Err(ending) = actions::perform(&self.queue, task, action).await {
            self.finish(task, ending).await;
        }
    }

    async fn environment_action(
        &self,
        task: &Task,
        id: EnvironmentId,
        action: &Action,
        cancel: CancellationToken,
    ) {
        if self.leased(task, &cancel).await.is_break() {
            return;
        }
        let (directory, limit) = (self.directory(task.id, task.fence), self.config.output.max_bytes);
        let log = match blocking(move || ActionLog::create(&directory, limit)).await {
            Ok(log) => log,
            Err(error) => return self.not_started(task, &error).await,
        };
        let (queue, about) = (Arc::clone(&self.queue), task.clone());
        let context = Context {
            cancel,
            progress: Arc::new(move |progress| queue.progressed(&about, progress)),
            log: Arc::new(move |line| log.line(line)),
        };
        let shipping = self.shipping(Source::of(task));
        let performed = tokio::select! {
            performed = self.environments.perform(task, action, context) => performed,
            // The next engine does it again, and finds what there is.
            () = self.leave.cancelled() => return,
            () = self.overdue() => {
                warn!("the engine's lease was not renewed in time; its step is broken off, to be done again");
                return self.hand_back(task).await;
            }
        };
        let ending = match performed {
            Ok(ending) => ending,
            Err(error) => Ending::bare(AttemptOutcome::Failed, Some(error.message)),
        };
        let directory = self.directory(task.id, task.fence);
        let output = blocking(move || logs::last_lines(&directory)).await.ok().flatten();
        let ending = Ending { output, ..ending };
        while let Err(error) = self.environments.finish(task, id, &ending).await {
            if self.pause_after(&error, NOT_STORED).await.is_break() {
                return;
            }
        }
        info!(outcome = ?ending.outcome, error = ending.error, "action ended");
        drop(shipping);
        self.ship_rest(Source::of(task)).await;
    }

    /// The file with the deadline of the task's script, where it has one.
    fn lease_file(&self, task: &Task) -> Option<String> {
        let membership = self.membership.as_ref().filter(|_| task.on_engine_loss == OnEngineLoss::Retry)?;
        Some(membership.lease_file().to_string_lossy().into_owned())
    }

    async fn command(&self, task: Task, cancel: CancellationToken) {
        let lease_file = self.lease_file(&task);
        if lease_file.is_some() && self.leased(&task, &cancel).await.is_break() {
            return;
        }
        if cancel.is_cancelled() {
            self.finish(&task, Ending::bare(AttemptOutcome::Cancelled, None)).await;
            return;
        }
        let spec = match self.programs.spec(&task, &self.config) {
            Ok(spec) => Spec { lease_file, ..spec },
            Err(problem) => {
                self.finish(&task, Ending::bare(AttemptOutcome::NotStarted, Some(problem.message))).await;
                return;
            }
        };
        crate::fault::point("spawn.before");
        let directory = self.directory(task.id, task.fence);
        let (runner, arguments) = (self.config.runner.clone(), self.config.runner_args.clone());
        let started = blocking(move || {
            let attempt = Attempt::create(&directory, &spec)?;
            crate::fault::point("spawn.prepared");
            attempt.spawn(&runner, &arguments)
        })
        .await;
        crate::fault::point("spawn.after");
        match started {
            Ok(runner) => {
                match runner.pidfd() {
                    Ok(pidfd) => self.attend(&task, pidfd, &cancel).await,
                    Err(error) => warn!(%error, "the runner can only be waited for"),
                }
                runners::reap(runner);
                self.find_out(&task, &cancel, Origin::Spawned).await;
            }
            Err(error) => {
                let message = format!("the attempt cannot be started: {error}");
                // A runner that came up nevertheless must not start anything.
                let directory = self.directory(task.id, task.fence);
                let abandoned = blocking(move || Attempt::open(&directory)?.abandon()).await;
                match abandoned {
                    Ok(false) => self.find_out(&task, &cancel, Origin::Spawned).await,
                    // The next one would fare no better here, and no task is to blame.
                    Ok(true) | Err(_) if is_no_room(&error) => {
                        warn!(task = %task.id, %error, "there is no room for an attempt; trying again later");
                        self.queue.hold_back();
                        self.hand_back(&task).await;
                    }
                    Ok(true) | Err(_) => {
                        self.finish(&task, Ending::bare(AttemptOutcome::NotStarted, Some(message))).await;
                    }
                }
            }
        }
    }

    /// Finds out what became of an attempt and tells the queue; attends to one that is under way.
    async fn find_out(&self, task: &Task, cancel: &CancellationToken, origin: Origin) {
        loop {
            if self.leave.is_cancelled() {
                return;
            }
            let directory = self.directory(task.id, task.fence);
            let state = blocking(move || Attempt::open(&directory)?.state()).await;
            match state {
                Ok(AttemptState::Finished(status)) => {
                    self.queue.ended(task.id, task.fence);
                    let directory = self.directory(task.id, task.fence);
                    let output = blocking(move || logs::last_lines(&directory)).await.ok().flatten();
                    return self.finish(task, ending(*status, output)).await;
                }
                Ok(AttemptState::Running { .. }) => {
                    let directory = self.directory(task.id, task.fence);
                    match blocking(move || Attempt::open(&directory)?.pidfd()).await {
                        Ok(pidfd) => {
                            info!("the script is running; going on with it");
                            self.attend(task, pidfd, cancel).await;
                        }
                        // It has just ended: look again.
                        Err(error) => {
                            debug!(%error, "the runner has no process any more");
                            sleep(Duration::from_millis(10)).await;
                        }
                    }
                }
                Ok(AttemptState::NotStarted) if self.is_of_this_boot(task) => {
                    let directory = self.directory(task.id, task.fence);
                    match blocking(move || Attempt::open(&directory)?.abandon()).await {
                        Ok(true) if origin == Origin::Found => return self.hand_back(task).await,
                        Ok(true) => {
                            let message = "its runner ended before it had started anything".to_owned();
                            return self
                                .finish(task, Ending::bare(AttemptOutcome::NotStarted, Some(message)))
                                .await;
                        }
                        // Its runner was quicker.
                        Ok(false) => {}
                        Err(error) => return self.not_started(task, &error).await,
                    }
                }
                Ok(AttemptState::Abandoned) => return self.hand_back(task).await,
                Ok(AttemptState::Lost { .. } | AttemptState::NotStarted) => {
                    let directory = self.directory(task.id, task.fence);
                    let killed = blocking(move || Attempt::open(&directory)?.kill_leftovers()).await;
                    let message = match killed {
                        Ok(0) => "the process that supervised it is gone without a word".to_owned(),
                        Ok(count) => format!(
                            "the process that supervised it is gone without a word; {count} processes that it left were killed"
                        ),
                        Err(error) => {
                            error!(%error, "what the attempt left cannot be ended; trying again");
                            sleep(COMMIT_PAUSE).await;
                            continue;
                        }
                    };
                    return self.finish(task, Ending::bare(AttemptOutcome::Lost, Some(message))).await;
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound && self.is_of_this_boot(task) => {
                    // Claimed, and not even a directory: nothing can have been started from it.
                    return self.hand_back(task).await;
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    let message = "nothing is left of it after a restart of the machine".to_owned();
                    return self.finish(task, Ending::bare(AttemptOutcome::Lost, Some(message))).await;
                }
                Err(error) => {
                    error!(%error, "the attempt's directory cannot be read; trying again");
                    sleep(COMMIT_PAUSE).await;
                }
            }
        }
    }

    async fn not_started(&self, task: &Task, error: &std::io::Error) {
        let message = format!("the attempt cannot be started: {error}");
        self.finish(task, Ending::bare(AttemptOutcome::NotStarted, Some(message))).await;
    }

    fn is_of_this_boot(&self, task: &Task) -> bool {
        task.claim.as_ref().is_some_and(|claim| claim.boot_id == self.queue.options().boot_id)
    }

    /// Stays with a runner until it is gone: passes on how far it is, and that it is to stop.
    async fn attend(&self, task: &Task, pidfd: OwnedFd, cancel: &CancellationToken) {
        let (directory, grace) = (self.directory(task.id, task.fence), Duration::from_millis(task.grace_ms));
        let _shipping = self.shipping(Source::of(task));
        tokio::select! {
            gone = runners::gone(pidfd, &directory, grace, cancel) => {
                if let Err(error) = gone {
                    error!(%error, "the runner cannot be watched; trying again");
                    sleep(COMMIT_PAUSE).await;
                }
            }
            () = self.leave.cancelled() => {}
            () = self.tell_progress(task) => {}
        }
    }

    /// Tells the queue how far a script is; never ends by itself.
    async fn tell_progress(&self, task: &Task) {
        let mut last: Option<Progress> = None;
        loop {
            sleep(PROGRESS_INTERVAL).await;
            let directory = self.directory(task.id, task.fence);
            if let Ok(Some(progress)) = blocking(move || Attempt::open(&directory)?.progress()).await {
                let progress = Progress {
                    fraction: progress.fraction,
                    done: progress.done,
                    total: progress.total,
                    message: progress.message,
                };
                if last.as_ref() != Some(&progress) {
                    self.queue.progressed(task, progress.clone());
                    last = Some(progress);
                }
            }
        }
    }

    /// Commits the end of an attempt, as long as it takes: it is safe in the attempt's directory.
    async fn finish(&self, task: &Task, ending: Ending) {
        while let Err(error) = self.queue.finish(task.id, task.fence, &ending).await {
            if self.pause_after(&error, NOT_STORED).await.is_break() {
                return;
            }
        }
        info!(outcome = ?ending.outcome, exit_code = ending.exit_code, error = ending.error, "attempt ended");
        self.ship_rest(Source::of(task)).await;
    }

    async fn hand_back(&self, task: &Task) {
        while let Err(error) = self.queue.hand_back(task.id, task.fence).await {
            if self.pause_after(&error, NOT_STORED).await.is_break() {
                return;
            }
        }
    }

    /// Waits a moment before the next try to store something; breaks off when the engine ends.
    async fn pause_after(&self, error: &Error, what: &str) -> ControlFlow<()> {
        warn!(%error, "{what}; trying again");
        tokio::select! {
            () = self.leave.cancelled() => ControlFlow::Break(()),
            () = sleep(COMMIT_PAUSE) => ControlFlow::Continue(()),
        }
    }
}

/// Whether something could not be made because the disk is full, or too much is open.
fn is_no_room(error: &std::io::Error) -> bool {
    use rustix::io::Errno;

    let full = [Errno::NOSPC, Errno::DQUOT, Errno::MFILE, Errno::NFILE];
    error.raw_os_error().is_some_and(|code| full.iter().any(|errno| errno.raw_os_error() == code))
}

/// Where the attempt of a task with a fence is kept.
pub fn attempt_dir(config: &Config, task: TaskId, fence: u64) -> PathBuf {
    config.attempts_dir().join(task.to_string()).join(fence.to_string())
}

fn time(ms: u64) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_millis(i64::try_from(ms).ok()?)
}

/// What a runner's last word means for the task.
fn ending(status: Status, output: Option<String>) -> Ending {
    let failure = status.failure.as_ref();
    let succeeded = status.exit_code == Some(0) && failure.is_none();
    let outcome = match &status.reason {
        Reason::Exited if succeeded => AttemptOutcome::Succeeded,
        Reason::Exited => AttemptOutcome::Failed,
        Reason::TimedOut => AttemptOutcome::TimedOut,
        Reason::Cancelled => AttemptOutcome::Cancelled,
        Reason::LeaseLost => AttemptOutcome::Lost,
        Reason::StartFailed { .. } => AttemptOutcome::NotStarted,
    };
    let error = (outcome != AttemptOutcome::Succeeded).then(|| describe(&status));
    Ending {
        outcome,
        started_at: time(status.started_at),
        ended_at: time(status.ended_at).unwrap_or_else(Utc::now),
        exit_code: status.exit_code,
        signal: status.signal,
        error,
        permanent: failure.is_some_and(|failure| failure.permanent),
        result: status.result,
        output,
    }
}

/// Why an attempt failed, in a sentence: the script's own words before its exit status.
fn describe(status: &Status) -> String {
    match (&status.reason, &status.failure) {
        (Reason::StartFailed { error }, _) => error.clone(),
        (Reason::TimedOut, _) => "it took longer than it may".into(),
        (Reason::Cancelled, _) => "it was cancelled".into(),
        (Reason::LeaseLost, _) => {
            "its engine could not renew its lease in time, so the script was ended before another engine may start it again".into()
        }
        (Reason::Exited, Some(failure)) if !failure.message.is_empty() => failure.message.clone(),
        (Reason::Exited, _) => {
            let how = match (status.exit_code, status.signal) {
                (Some(code), _) => format!("exit status {code}"),
                (None, Some(signal)) => format!("killed by signal {signal}"),
                (None, None) => "no exit status".into(),
            };
            headline(&status.stderr_tail).map_or(how.clone(), |line| format!("{how}: {line}"))
        }
    }
}

/// The line of what a program wrote to standard error that says most: what Nushell reports as an error,
/// which it draws over several lines, or else the last line.
fn headline(lines: &[String]) -> Option<&str> {
    let lines: Vec<&str> = lines.iter().map(|line| line.trim()).filter(|line| !line.is_empty()).collect();
    // "Error: nu::shell::error", then "x what is wrong" or "× what is wrong"; or all in one line.
    let drawn = lines.iter().enumerate().rev().find_map(|(index, line)| {
        let rest = line.strip_prefix("Error:")?;
        let next = lines.get(index + 1).copied().unwrap_or_default();
        next.strip_prefix("x ").or_else(|| next.strip_prefix("× ")).or(Some(rest))
    });
    drawn.or(lines.last().copied()).map(str::trim).filter(|line| !line.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_headline_of_a_drawn_error_is_what_it_says() {
        let lines = |text: &str| text.lines().map(String::from).collect::<Vec<_>>();
        let drawn = lines(
            "warming up\nError: nu::shell::error\n\n  x cannot reach héllo\n   ,-[fail.nu:1:42]\n 1 | def main\n   `----",
        );
        assert_eq!(headline(&drawn), Some("cannot reach héllo"));
        assert_eq!(headline(&lines("Error: no such disk\n")), Some("no such disk"));
        assert_eq!(headline(&lines("one\ntwo\n\n")), Some("two"));
        assert_eq!(headline(&[]), None);
    }
}
