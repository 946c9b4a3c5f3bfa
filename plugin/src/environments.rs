//! Work that was begun in test environments: waiting for it, and how an environment is after it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nu_plugin::{EngineInterface, EvaluatedCall};
use nu_protocol::{LabeledError, Span};
use orchestrator_protocol::environment::{Environment, EnvironmentTask, GetEnvironment};
use orchestrator_protocol::junit::junit;
use orchestrator_protocol::task::{Task, TaskStatus};

use crate::connection::Session;
use crate::errors::{error, invalid};
use crate::input::{NamedEnvironment, NamedTask, absolute};
use crate::progress::Line;
use crate::watch::{Watch, WatchError};

/// Work in an environment.
#[derive(Debug, Clone, Copy)]
pub struct Begun {
    /// The environment.
    pub environment: NamedEnvironment,
    /// The workflow or the task that does it.
    pub task: NamedTask,
}

impl Begun {
    /// What the engine has made of something that was typed at `span`.
    pub fn new(made: EnvironmentTask, span: Span) -> Self {
        Self {
            environment: NamedEnvironment { id: made.environment, span },
            task: NamedTask { id: made.task, span },
        }
    }
}

/// An environment as it is now.
pub fn get(session: &Session, environment: NamedEnvironment) -> Result<Environment, LabeledError> {
    let found = session.ask(GetEnvironment { id: environment.id });
    found.map(|found| *found).map_err(|failure| failure.at(environment.span))
}

/// Waits until all work has ended; the tasks in the same order.
pub fn wait(
    session: &Session,
    engine: &EngineInterface,
    begun: &[Begun],
    timeout: Option<Duration>,
) -> Result<Vec<Task>, WatchError> {
    let ids = begun.iter().map(|begun| begun.task.id).collect();
    Watch::begin(session, ids, timeout, Line::for_command(engine)).and_then(Watch::finish)
}

/// The environments as they are now, or, with `--wait`, after their work has ended, with a report of it.
pub fn answer(
    session: &Session,
    engine: &EngineInterface,
    call: &EvaluatedCall,
    begun: &[Begun],
    report: Option<&Report>,
) -> Result<Vec<Environment>, LabeledError> {
    if !call.has_flag("wait")? {
        return begun.iter().map(|begun| get(session, begun.environment)).collect();
    }
    let tasks: Vec<NamedTask> = begun.iter().map(|begun| begun.task).collect();
    let place = tasks.first().filter(|_| tasks.len() == 1).map_or(call.head, |task| task.span);
    let ended = wait(session, engine, begun, None).map_err(|error| error.at(place, &tasks))?;
    let after = |begun: &Begun| {
        let own = ended.iter().filter(|task| task.id == begun.task.id);
        let environment = after(get(session, begun.environment)?, own);
        if let Some(report) = report {
            report.write(&environment)?;
        }
        Ok(environment)
    };
    begun.iter().map(after).collect()
}

/// An environment after tasks of its own have ended. What was called off leaves no trace in the
/// environment's record, and must not be taken for a pass.
pub fn after<'a>(mut environment: Environment, tasks: impl IntoIterator<Item = &'a Task>) -> Environment {
    let broken = tasks.into_iter().find(|task| task.status != TaskStatus::Completed);
    if let Some(task) = broken.filter(|_| environment.error.is_none()) {
        let called_off = task.cancel.as_ref().map(|cancel| format!("called off: {}", cancel.reason));
        let ended = || format!("its task has ended as {}", task.status.as_str());
        environment.error = Some(called_off.or(task.error.clone()).unwrap_or_else(ended));
    }
    environment
}

/// A file for results as JUnit XML.
pub struct Report {
    path: PathBuf,
    span: Span,
}

impl Report {
    /// The file that `--junit` names. It is emptied now: what cannot be written is said before the work
    /// begins, and a report of an earlier run is never taken for one of this.
    pub fn open(call: &EvaluatedCall, cwd: &Path) -> Result<Option<Self>, LabeledError> {
        let Some(value) = call.get_flag_value("junit") else { return Ok(None) };
        let report = Self { path: absolute(cwd, value.as_str()?), span: value.span() };
        report.save("")?;
        Ok(Some(report))
    }

    /// The same, for a command that waits only with `--wait`.
    pub fn open_if_awaited(call: &EvaluatedCall, cwd: &Path) -> Result<Option<Self>, LabeledError> {
        match call.get_flag_value("junit") {
            Some(value) if !call.has_flag("wait")? => {
                Err(invalid("There is nothing to report yet", "needs --wait", value.span()))
            }
            _ => Self::open(call, cwd),
        }
    }

    /// Writes the results of an environment.
    pub fn write(&self, environment: &Environment) -> Result<(), LabeledError> {
        self.save(&junit(environment))
    }

    fn save(&self, xml: &str) -> Result<(), LabeledError> {
        fs::write(&self.path, xml).map_err(|cause| {
            let message = format!("{} cannot be written", self.path.display());
            error("junit", message, cause.to_string(), self.span)
        })
    }
}
