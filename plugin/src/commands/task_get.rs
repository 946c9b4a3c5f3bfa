//! `orchestrator task get` and `orchestrator task explain`

use chrono::Utc;
use nu_plugin::{DynamicCompletionCall, EngineInterface, EvaluatedCall, PluginCommand};
use nu_protocol::engine::ArgType;
use nu_protocol::{DynamicSuggestion, Example, LabeledError, PipelineData, Signature, Span, Value};
use orchestrator_protocol::request::{ExplainTask, GetTask};
use orchestrator_protocol::task::{Task, TaskKind};

use super::{SignatureExt, for_each_task};
use crate::completion;
use crate::connection::Session;
use crate::errors::Failure;
use crate::plugin::Orchestrator;
use crate::{values, watch};

/// Shows all that is known of tasks.
pub struct TaskGet;

/// A task with all that is known of it; a workflow with its tasks as a table inside.
pub fn record(session: &Session, task: &Task, span: Span) -> Result<Value, Failure> {
    if task.kind() == TaskKind::Workflow {
        let tasks = watch::tasks_of(session, task.id)?;
        return Ok(values::task::with_tasks(task, &tasks, Utc::now(), span));
    }
    Ok(values::task::whole(task, Utc::now(), span))
}

impl PluginCommand for TaskGet {
    type Plugin = Orchestrator;

    fn name(&self) -> &str {
        "orchestrator task get"
    }

    fn description(&self) -> &str {
        "Show all that is known of a task."
    }

    fn extra_description(&self) -> &str {
        "`result` is what the script reported with `::result`, `output` the end of what it printed, `attempts` how \
each attempt went. A workflow has its tasks in `tasks`."
    }

    fn search_terms(&self) -> Vec<&str> {
        vec!["show", "inspect", "describe", "result", "output"]
    }

    fn signature(&self) -> Signature {
        Signature::build(self.name()).about_tasks()
    }

    fn examples(&self) -> Vec<Example<'_>> {
        vec![
            Example {
                description: "Show a task",
                example: "orchestrator task get 01890a5d-ac96-774b-bcce-b302099a8057",
                result: None,
            },
            Example {
                description: "The address that a script has reported",
                example: "(orchestrator task get 01890a5d-ac96-774b-bcce-b302099a8057).result.address",
                result: Some(Value::test_string("10.0.0.4")),
            },
            Example {
                description: "The attempts of each task that has failed",
                example: "orchestrator task list --status failed | orchestrator task get | get attempts | flatten",
                result: None,
            },
        ]
    }

    fn run(
        &self,
        plugin: &Orchestrator,
        engine: &EngineInterface,
        call: &EvaluatedCall,
        input: PipelineData,
    ) -> Result<PipelineData, LabeledError> {
        let session = Session::open(plugin, engine, call)?;
        let head = call.head;
        for_each_task(&session, call, input, move |session, named| {
            session
                .ask(GetTask { id: named.id })
                .and_then(|task| record(session, &task, head))
                .map_err(|failure| failure.at(named.span))
        })
    }

    #[expect(deprecated, reason = "the marker of an experimental interface")]
    fn get_dynamic_completion(
        &self,
        _: &Orchestrator,
        engine: &EngineInterface,
        call: DynamicCompletionCall,
        arg_type: ArgType,
        _: nu_protocol::engine::ExperimentalMarker,
    ) -> Option<Vec<DynamicSuggestion>> {
        completion::ids(engine, &call, &arg_type, &[])
    }
}

/// Says why tasks are where they are.
pub struct TaskExplain;

impl PluginCommand for TaskExplain {
    type Plugin = Orchestrator;

    fn name(&self) -> &str {
        "orchestrator task explain"
    }

    fn description(&self) -> &str {
        "Say why a task is not running, or how it ended."
    }

    fn extra_description(&self) -> &str {
        "`reasons` has everything that keeps it from running: a dependency, a lock and who holds it, the limit of its \
group, a time, a pause, or other tasks that come first."
    }

    fn search_terms(&self) -> Vec<&str> {
        vec!["why", "stuck", "blocked", "pending", "reason"]
    }

    fn signature(&self) -> Signature {
        Signature::build(self.name()).about_tasks()
    }

    fn examples(&self) -> Vec<Example<'_>> {
        vec![
            Example {
                description: "Why does this task not run?",
                example: "(orchestrator task explain 01890a5d-ac96-774b-bcce-b302099a8057).reasons",
                result: None,
            },
            Example {
                description: "Why does nothing run?",
                example: "orchestrator task list --status pending | orchestrator task explain | get reasons | flatten",
                result: None,
            },
        ]
    }

    fn run(
        &self,
        plugin: &Orchestrator,
        engine: &EngineInterface,
        call: &EvaluatedCall,
        input: PipelineData,
    ) -> Result<PipelineData, LabeledError> {
        let session = Session::open(plugin, engine, call)?;
        let head = call.head;
        for_each_task(&session, call, input, move |session, named| {
            let explanation =
                session.ask(ExplainTask { id: named.id }).map_err(|failure| failure.at(named.span))?;
            Ok(values::engine::explanation(&explanation, head))
        })
    }

    #[expect(deprecated, reason = "the marker of an experimental interface")]
    fn get_dynamic_completion(
        &self,
        _: &Orchestrator,
        engine: &EngineInterface,
        call: DynamicCompletionCall,
        arg_type: ArgType,
        _: nu_protocol::engine::ExperimentalMarker,
    ) -> Option<Vec<DynamicSuggestion>> {
        completion::ids(engine, &call, &arg_type, completion::UNFINISHED)
    }
}
