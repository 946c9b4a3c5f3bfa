//! Steps that the engine performs itself.
//!
//! Each is written so that repeating it is harmless: what it changes and its own end are one commit,
//! so that an engine that dies in the middle has done nothing, and the next one begins again.

use std::collections::{BTreeMap, HashSet};

use orchestrator_protocol::task::{Action, AttemptOutcome, Task, TaskDefaults, TaskId, WorkerCall};
use orchestrator_protocol::{Error, name};
use serde::Deserialize;
use tracing::info;

use crate::graph;
use crate::queue::Queue;
use crate::queue::finish::Ending;
use crate::queue::provision::PlannedTask;
use crate::queue::submit::{MAX_TASKS, check_label};

/// Performs the action of a claimed task and commits its end with it. A failure is for the caller to
/// commit.
pub async fn perform(queue: &Queue, task: &Task, action: &Action) -> Result<(), Ending> {
    let done = match action {
        Action::AddTasks { plan_from, call, defaults } => {
            add_tasks(queue, task, *plan_from, call, defaults).await
        }
        Action::CreateEnvironment { .. }
        | Action::RunEnvironment { .. }
        | Action::CleanEnvironment { .. } => Err(Error::internal("environments are another's work")),
    };
    let Err(problem) = done else {
        info!("action performed");
        return Ok(());
    };
    let permanent = problem.code == orchestrator_protocol::ErrorCode::Invalid;
    Err(Ending { permanent, ..Ending::bare(AttemptOutcome::Failed, Some(problem.message)) })
}

/// What the provisioning program reports when it is asked what is to be done.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Plan {
    /// The same operation for each of these servers: the answer of `server names`.
    Servers(Vec<String>),
    /// A graph: the answer of `taskserv plan` and `cluster plan`.
    Tasks(Vec<Planned>),
}

/// One task of a graph.
#[derive(Debug, Deserialize)]
struct Planned {
    name: String,
    /// Such as `taskserv create`.
    operation: String,
    names: Vec<String>,
    #[serde(default)]
    after: Vec<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

/// The report, which may say more than the plan.
#[derive(Debug, Deserialize)]
struct Report {
    #[serde(flatten)]
    plan: Plan,
}

async fn add_tasks(
    queue: &Queue,
    task: &Task,
    plan_from: TaskId,
    call: &WorkerCall,
    defaults: &TaskDefaults,
) -> Result<(), Error> {
    let report = queue.task(plan_from).await?.result;
    let report = report.ok_or_else(|| Error::invalid("the provisioning program reported no plan"))?;
    let Report { plan } = serde_json::from_value(report).map_err(|error| {
        Error::invalid(format!("the plan of the provisioning program cannot be read: {error}"))
    })?;
    let plan = match plan {
        Plan::Servers(servers) => server_plan(&servers, call)?,
        Plan::Tasks(tasks) => graph_plan(tasks)?,
    };
    let ending = Ending::bare(AttemptOutcome::Succeeded, None);
    queue.add_tasks(task, &plan, call, defaults, &ending).await
}

fn server_plan(servers: &[String], call: &WorkerCall) -> Result<Vec<PlannedTask>, Error> {
    if servers.is_empty() {
        return Err(Error::invalid(format!("{} names no server for infra '{}'", call.settings, call.infra)));
    }
    check_length(servers.len())?;
    let mut seen = HashSet::new();
    for server in servers {
        name::dns_label("server name", server)?;
        if !seen.insert(server) {
            return Err(Error::invalid(format!("server '{server}' is named twice")));
        }
    }
    Ok(servers.iter().map(|server| PlannedTask::for_server(&call.operation, server)).collect())
}

/// Checks a plan as a submission is checked: it comes from a program that may be the user's own.
fn graph_plan(tasks: Vec<Planned>) -> Result<Vec<PlannedTask>, Error> {
    check_length(tasks.len())?;
    let after = graph::resolve(tasks.iter().map(|task| (task.name.as_str(), task.after.as_slice())))
        .map_err(|error| Error::invalid(format!("the plan cannot be carried out: {error}")))?;
    let checked = tasks.into_iter().zip(after).map(|(task, after)| {
        let Planned { name, operation, names, after: _, labels } = task;
        name::word("task name", &name)?;
        for part in &names {
            name::dns_label("name in the plan", part)?;
        }
        for (label, value) in &labels {
            check_label(label, value)?;
        }
        let operation: Vec<_> = operation.split(' ').map(String::from).collect();
        let is_planning = matches!(operation.last().map(String::as_str), Some("plan" | "names"));
        if operation.len() != 2 || is_planning {
            return Err(Error::invalid(format!("'{}' cannot be part of a plan", operation.join(" "))));
        }
        Ok(PlannedTask { name, operation, names, after, labels })
    });
    checked.collect()
}

fn check_length(tasks: usize) -> Result<(), Error> {
    if tasks == 0 {
        return Err(Error::invalid("the plan of the provisioning program holds no task"));
    }
    if tasks > MAX_TASKS {
        return Err(Error::invalid(format!("the plan has {tasks} tasks, and {MAX_TASKS} are allowed")));
    }
    Ok(())
}
