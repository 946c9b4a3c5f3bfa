//! Waiting for tasks to end.
//!
//! A [`Watch`] hands out each task when it has ended. It looks for Ctrl-C and for the end of the user's
//! patience between two looks at the engine, draws the progress line, and takes up again with an engine that
//! was restarted meanwhile. It never starts one: somebody may have stopped it on purpose.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use nu_protocol::{Config, LabeledError, Span, Value};
use orchestrator_protocol::client::{ClientError, Items, Look};
use orchestrator_protocol::event::Item;
use orchestrator_protocol::request::{ListTasks, Subscription, UnexpectedResponse};
use orchestrator_protocol::task::{Task, TaskId};

use crate::connection::{LOOK, Session};
use crate::errors::{Failure, error};
use crate::input::NamedTask;
use crate::progress::{Line, describe};

/// How long a vanished engine is waited for: as long as a restart takes.
const RESTART_PATIENCE: Duration = Duration::from_secs(15);

/// How many tasks of a workflow are read at a time.
const PAGE: usize = 1_000;

/// Why waiting came to nothing.
#[derive(Debug)]
pub enum WatchError {
    /// The engine gave no answer.
    Failed(Failure),
    /// The user's patience is over.
    TimedOut {
        /// How long it lasted.
        timeout: Duration,
        /// How many tasks have not ended.
        left: usize,
    },
    /// The user pressed Ctrl-C.
    Interrupted,
}

impl From<Failure> for WatchError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Interrupted => Self::Interrupted,
            other => Self::Failed(other),
        }
    }
}

impl WatchError {
    /// The error, pointing at the task that it is about, else at `span`.
    pub fn at(self, span: Span, tasks: &[NamedTask]) -> LabeledError {
        match self {
            Self::Failed(failure) => {
                let span = match &failure {
                    Failure::Client(ClientError::Refused(refusal)) => tasks
                        .iter()
                        .find(|task| refusal.message.contains(&task.id.to_string()))
                        .map_or(span, |task| task.span),
                    _ => span,
                };
                let is_gone = matches!(
                    &failure,
                    Failure::Client(ClientError::NotRunning { .. } | ClientError::Broken(_))
                );
                let labeled = failure.at(span);
                if is_gone {
                    let advice =
                        format!("start the engine again with `orchestrator start`; {}", goes_on(tasks));
                    return labeled.with_help(advice);
                }
                labeled
            }
            Self::TimedOut { timeout, left } => {
                let message = format!("{} not ended within {}", these_have(left), in_words(timeout));
                error("timed_out", message, "no longer waited for", span).with_help(goes_on(tasks))
            }
            Self::Interrupted => error("interrupted", "Stopped waiting", "interrupted by Ctrl-C", span)
                .with_help(goes_on(tasks)),
        }
    }
}

/// What becomes of tasks that are no longer waited for.
fn goes_on(tasks: &[NamedTask]) -> String {
    match tasks {
        [only] => format!(
            "the task goes on: `orchestrator task wait {}` waits for it again, `orchestrator task cancel` calls it off",
            only.id
        ),
        _ => "the tasks go on: `orchestrator task list` shows them, `orchestrator task wait` waits for them again, \
              `orchestrator task cancel` calls them off"
            .into(),
    }
}

fn these_have(number: usize) -> String {
    if number == 1 { "1 task has".into() } else { format!("{number} tasks have") }
}

/// A length of time as Nushell writes it.
fn in_words(time: Duration) -> String {
    let nanoseconds = i64::try_from(time.as_nanos()).unwrap_or(i64::MAX);
    Value::duration(nanoseconds, Span::unknown()).to_expanded_string("", &Config::default())
}

/// A wait for tasks; an iterator over those that have ended.
#[derive(Debug)]
pub struct Watch {
    session: Session,
    items: Option<Items>,
    ids: Vec<TaskId>,
    open: HashSet<TaskId>,
    latest_by_id: BTreeMap<TaskId, Task>,
    patience: Option<(Instant, Duration)>,
    line: Line,
}

impl Watch {
    /// Begins to wait, for `timeout` at most. The engine refuses ids that it does not know.
    pub fn begin(
        session: &Session,
        ids: Vec<TaskId>,
        timeout: Option<Duration>,
        line: Line,
    ) -> Result<Self, WatchError> {
        let open: HashSet<TaskId> = ids.iter().copied().collect();
        let items = match open.is_empty() {
            true => None,
            false => Some(session.subscribe(Subscription::Watch { ids: ids.clone() })?),
        };
        let patience = timeout.map(|timeout| (Instant::now() + timeout, timeout));
        // From here on the engine is one that has run: it is not for this command to start it again.
        let session = session.clone().without_start();
        Ok(Self { session, items, ids, open, latest_by_id: BTreeMap::new(), patience, line })
    }

    /// All tasks when all have ended, in the order in which they were asked for.
    pub fn finish(mut self) -> Result<Vec<Task>, WatchError> {
        for task in self.by_ref() {
            task?;
        }
        let Self { ids, mut latest_by_id, .. } = self;
        Ok(ids.iter().filter_map(|id| latest_by_id.remove(id)).collect())
    }

    fn look(&mut self) -> Result<Option<Task>, WatchError> {
        let left = self.patience.map(|(end, _)| end.saturating_duration_since(Instant::now()));
        let patience = left.map_or(LOOK, |left| left.min(LOOK)).max(Duration::from_millis(1));
        let Some(items) = &mut self.items else { return Ok(None) };
        match items.next(patience) {
            Ok(Look::Item(item)) => match *item {
                Item::Task(task) => return Ok(self.take_note(*task)),
                // Changes were missed; a new stream begins with the tasks as they are now.
                Item::Reset(_) => self.renew()?,
                Item::Event(_)
                | Item::Listening(_)
                | Item::Line(_)
                | Item::Dropped { .. }
                | Item::Node(_)
                | Item::Unknown => {}
            },
            Ok(Look::Nothing) => self.draw(),
            Ok(Look::End) => return Err(Failure::from(ClientError::from(UnexpectedResponse)).into()),
            Err(broken) if broken.is_broken() => self.renew()?,
            Err(other) => return Err(Failure::from(other).into()),
        }
        if self.session.interrupted() {
            return Err(WatchError::Interrupted);
        }
        match self.patience {
            Some((end, timeout)) if Instant::now() >= end => {
                Err(WatchError::TimedOut { timeout, left: self.open.len() })
            }
            _ => Ok(None),
        }
    }

    fn take_note(&mut self, task: Task) -> Option<Task> {
        let ended = task.status.is_final() && self.open.remove(&task.id);
        let out = ended.then(|| task.clone());
        self.latest_by_id.insert(task.id, task);
        self.draw();
        out
    }

    fn draw(&mut self) {
        let Self { line, latest_by_id, ids, .. } = self;
        line.draw(|elapsed| describe(latest_by_id.values(), ids.len(), elapsed));
    }

    /// Goes on with the engine that listens now, or will in a moment.
    fn renew(&mut self) -> Result<(), WatchError> {
        self.items = None;
        let end = Instant::now() + RESTART_PATIENCE;
        loop {
            let ids = self.ids.iter().filter(|id| self.open.contains(id)).copied().collect();
            match self.session.subscribe(Subscription::Watch { ids }) {
                Ok(items) => {
                    self.items = Some(items);
                    return Ok(());
                }
                Err(failure) if failure.is_not_running() || failure.is_broken() => {
                    if Instant::now() >= end {
                        let socket = self.session.target().socket.clone();
                        return Err(Failure::from(ClientError::NotRunning { socket }).into());
                    }
                }
                Err(other) => return Err(other.into()),
            }
            if self.session.interrupted() {
                return Err(WatchError::Interrupted);
            }
            std::thread::sleep(LOOK);
        }
    }
}

impl Iterator for Watch {
    type Item = Result<Task, WatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.open.is_empty() {
            match self.look() {
                Ok(Some(task)) => {
                    // Whoever asked may print it now.
                    self.line.wipe();
                    return Some(Ok(task));
                }
                Ok(None) => {}
                Err(error) => {
                    self.open.clear();
                    self.line.wipe();
                    return Some(Err(error));
                }
            }
        }
        self.line.wipe();
        None
    }
}

/// All tasks of a workflow, oldest first.
pub fn tasks_of(session: &Session, workflow: TaskId) -> Result<Vec<Task>, Failure> {
    let mut tasks = Vec::new();
    let mut cursor = None;
    loop {
        let page = session.ask(ListTasks {
            parent: Some(workflow),
            limit: Some(PAGE),
            cursor,
            ..ListTasks::default()
        })?;
        tasks.extend(page.tasks);
        cursor = page.cursor;
        if cursor.is_none() {
            tasks.reverse();
            return Ok(tasks);
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn who_stops_waiting_is_told_how_to_go_on() {
        let task = NamedTask { id: TaskId::generate(), span: Span::new(3, 5) };
        let timed_out = WatchError::TimedOut { timeout: Duration::from_secs(90), left: 1 };
        for error in [WatchError::Interrupted, timed_out] {
            let one = error.at(Span::new(0, 2), &[task]);
            assert!(one.help.unwrap().contains(&format!("orchestrator task wait {}", task.id)));
        }
        let several = WatchError::TimedOut { timeout: Duration::from_secs(90), left: 2 }
            .at(Span::new(0, 2), &[task; 2]);
        assert_eq!(several.msg, "2 tasks have not ended within 1min 30sec");
        assert!(several.help.unwrap().contains("orchestrator task list"));
    }

    #[test]
    fn an_unknown_task_is_pointed_at_among_several() {
        let tasks =
            [3, 6, 9].map(|start| NamedTask { id: TaskId::generate(), span: Span::new(start, start + 2) });
        let refusal = orchestrator_protocol::Error::not_found(format!("there is no task {}", tasks[1].id));
        let error = WatchError::Failed(ClientError::Refused(refusal).into()).at(Span::new(0, 2), &tasks);
        assert_eq!(error.labels[0].span, tasks[1].span);
    }
}
