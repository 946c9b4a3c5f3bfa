//! What Tab offers: ids of tasks and environments, names of groups, nodes and topologies, as the engine
//! knows them now.
//!
//! The user waits at the prompt, so an engine that does not answer at once is left alone, and none is
//! ever started: without an answer there is just nothing to offer.

use std::path::PathBuf;
use std::time::Duration;

use nu_plugin::{DynamicCompletionCall, EngineInterface};
use nu_protocol::engine::ArgType;
use nu_protocol::{DynamicSuggestion, SuggestionKind, Type};
use orchestrator_protocol::client::Client;
use orchestrator_protocol::environment::{
    Environment, GetEnvironment, ListEnvironments, ListTopologies, Node,
};
use orchestrator_protocol::request::{Call, GetStatus, ListTasks};
use orchestrator_protocol::socket::socket_path;
use orchestrator_protocol::task::{Task, TaskKind, TaskStatus};

use crate::connection::target::Target;
use crate::input::absolute;

/// How long the user may be kept waiting at the prompt, for each step.
const PATIENCE: Duration = Duration::from_millis(200);

/// How many ids are offered: more nobody reads.
const MAX_OFFERED: usize = 100;

/// Tasks that may still end by themselves or be called off.
pub const UNFINISHED: &[TaskStatus] = &[TaskStatus::Pending, TaskStatus::Running];
/// Tasks that can be tried again.
pub const RETRIABLE: &[TaskStatus] = &[TaskStatus::Failed, TaskStatus::Cancelled];

/// For an argument that names a task: the newest in one of `statuses`, all where that is empty.
pub fn ids(
    engine: &EngineInterface,
    call: &DynamicCompletionCall,
    arg_type: &ArgType,
    statuses: &[TaskStatus],
) -> Option<Vec<DynamicSuggestion>> {
    match arg_type {
        ArgType::Positional(_) => {
            tasks(engine, call, ListTasks { statuses: statuses.to_vec(), ..ListTasks::default() })
        }
        ArgType::Flag(_) => None,
    }
}

/// The newest workflows.
pub fn workflows(engine: &EngineInterface, call: &DynamicCompletionCall) -> Option<Vec<DynamicSuggestion>> {
    tasks(engine, call, ListTasks { kind: Some(TaskKind::Workflow), ..ListTasks::default() })
}

/// For an argument that names an environment: those that there are.
pub fn environments(
    engine: &EngineInterface,
    call: &DynamicCompletionCall,
    arg_type: &ArgType,
) -> Option<Vec<DynamicSuggestion>> {
    let ArgType::Positional(_) = arg_type else { return None };
    let found = ask(engine, call, ListEnvironments::default())?;
    let offer = |environment: &Environment| {
        let summary = format!("{}, {}", environment.name, environment.status);
        suggestion(environment.id.to_string(), Some(summary))
    };
    Some(found.iter().take(MAX_OFFERED).map(offer).collect())
}

/// The nodes of the environment that the unfinished command line names.
pub fn nodes(engine: &EngineInterface, call: &DynamicCompletionCall) -> Option<Vec<DynamicSuggestion>> {
    let id = call.call.positional_iter().next()?.as_string()?.parse().ok()?;
    let environment = ask(engine, call, GetEnvironment { id })?;
    let offer = |node: &Node| suggestion(node.config.name.clone(), node.config.role.clone());
    Some(environment.nodes.iter().map(offer).collect())
}

/// The topologies that there are.
pub fn topologies(engine: &EngineInterface, call: &DynamicCompletionCall) -> Option<Vec<DynamicSuggestion>> {
    let found = ask(engine, call, ListTopologies { cwd: engine.get_current_dir().ok() })?;
    Some(found.into_iter().map(|topology| suggestion(topology.name, Some(topology.description))).collect())
}

/// Words that are always the same.
pub fn words(words: &[&str]) -> Vec<DynamicSuggestion> {
    words.iter().map(|word| suggestion((*word).to_owned(), None)).collect()
}

/// The groups that have tasks.
pub fn groups(engine: &EngineInterface, call: &DynamicCompletionCall) -> Option<Vec<DynamicSuggestion>> {
    let status = ask(engine, call, GetStatus {})?;
    Some(status.groups.into_keys().map(|group| suggestion(group, None)).collect())
}

fn tasks(
    engine: &EngineInterface,
    call: &DynamicCompletionCall,
    filter: ListTasks,
) -> Option<Vec<DynamicSuggestion>> {
    let page = ask(engine, call, ListTasks { limit: Some(MAX_OFFERED), ..filter })?;
    Some(page.tasks.iter().map(|task| suggestion(task.id.to_string(), Some(summary(task)))).collect())
}

fn summary(task: &Task) -> String {
    format!("{}, {}", task.name, task.status.as_str().to_lowercase())
}

fn suggestion(value: String, description: Option<String>) -> DynamicSuggestion {
    DynamicSuggestion {
        value,
        description,
        kind: Some(SuggestionKind::Value(Type::String)),
        ..DynamicSuggestion::default()
    }
}

fn ask<C: Call>(engine: &EngineInterface, call: &DynamicCompletionCall, question: C) -> Option<C::Reply> {
    let socket = socket_of(engine, call)?;
    Client::connect(&socket, Some(PATIENCE)).ok()?.call(question).ok()
}

/// The socket that the unfinished command line names, else that of the environment.
fn socket_of(engine: &EngineInterface, call: &DynamicCompletionCall) -> Option<PathBuf> {
    let cwd = PathBuf::from(engine.get_current_dir().ok()?);
    let flag = |name| Some(absolute(&cwd, &call.call.get_flag_expr(name)?.as_string()?));
    match (flag("socket"), flag("data-dir")) {
        (Some(socket), _) => Some(socket),
        (None, Some(data_dir)) => socket_path(&data_dir).ok(),
        (None, None) => Some(Target::of_environment(engine, call.call.head).ok()?.socket),
    }
}
