//! Steps that the engine performs itself.
//!
//! Each is written so that repeating it is harmless: what it changes and its own end are one commit,
//! so that an engine that dies in the middle has done nothing, and the next one begins again.

use std::collections::HashSet;

use orchestrator_protocol::task::{Action, AttemptOutcome, Task, TaskDefaults, TaskId, WorkerCall};
use orchestrator_protocol::{Error, name};
use serde::Deserialize;
use tracing::info;

use crate::queue::Queue;
use crate::queue::finish::Ending;
use crate::queue::submit::MAX_TASKS;

/// Performs the action of a claimed task and commits its end with it. A failure is for the caller to
/// commit.
pub async fn perform(queue: &Queue, task: &Task, action: &Action) -> Result<(), Ending> {
    let done = match action {
        Action::AddServers { names_from, call, defaults } => {
            add_servers(queue, task, *names_from, call, defaults).await
        }
    };
    let Err(problem) = done else {
        info!("action performed");
        return Ok(());
    };
    let permanent = problem.code == orchestrator_protocol::ErrorCode::Invalid;
    Err(Ending { permanent, ..Ending::bare(AttemptOutcome::Failed, Some(problem.message)) })
}

/// What `server names` reports.
#[derive(Debug, Deserialize)]
struct ServerNames {
    servers: Vec<String>,
}

async fn add_servers(
    queue: &Queue,
    task: &Task,
    names_from: TaskId,
    call: &WorkerCall,
    defaults: &TaskDefaults,
) -> Result<(), Error> {
    let result = queue.task(names_from).await?.result;
    let names: ServerNames = result
        .ok_or_else(|| Error::invalid("the provisioning program reported no server names"))
        .and_then(|value| {
            serde_json::from_value(value).map_err(|error| {
                Error::invalid(format!("the provisioning program's server names cannot be read: {error}"))
            })
        })?;
    let mut seen = HashSet::new();
    for server in &names.servers {
        name::dns_label("server name", server)?;
        if !seen.insert(server) {
            return Err(Error::invalid(format!("server '{server}' is named twice")));
        }
    }
    if names.servers.len() > MAX_TASKS {
        return Err(Error::invalid(format!("the settings file names more than {MAX_TASKS} servers")));
    }
    if names.servers.is_empty() {
        return Err(Error::invalid(format!("{} names no server for infra '{}'", call.settings, call.infra)));
    }
    let ending = Ending::bare(AttemptOutcome::Succeeded, None);
    queue.add_servers(task, &names.servers, call, defaults, &ending).await
}
