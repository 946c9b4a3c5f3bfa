//! `orchestrator task cancel` and `orchestrator task retry`

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use chrono::Utc;
use nu_plugin::{DynamicCompletionCall, EngineInterface, EvaluatedCall, PluginCommand};
use nu_protocol::engine::ArgType;
use nu_protocol::{
    DynamicSuggestion, Example, Flag, LabeledError, PipelineData, Signature, Span, SyntaxShape, Value,
};
use orchestrator_protocol::request::{CancelTask, Changed, GetTask, RetryTask};

use super::{SignatureExt, for_each_task};
use crate::completion;
use crate::connection::Session;
use crate::plugin::Orchestrator;
use crate::values;

/// Calls tasks off.
pub struct TaskCancel;

/// The task after a change, and the tasks that were changed with it.
fn changed(changed: &Changed, span: Span) -> Value {
    let row = values::task::row(&changed.task, Utc::now(), span);
    match row {
        Value::Record { val, .. } => {
            let mut record = val.into_owned();
            record.push("others", values::texts(&changed.others, span));
            Value::record(record, span)
        }
        other => other,
    }
}

impl PluginCommand for TaskCancel {
    type Plugin = Orchestrator;

    fn name(&self) -> &str {
        "orchestrator task cancel"
    }

    fn description(&self) -> &str {
        "Call tasks off."
    }

    fn extra_description(&self) -> &str {
        "A script that runs gets SIGTERM, and SIGKILL when its grace is over, with all that it has started. A workflow \
goes with its tasks, and what depends on a cancelled task is cancelled too: `others` names them. What a script has \
begun on other machines is its own affair."
    }

    fn search_terms(&self) -> Vec<&str> {
        vec!["abort", "kill", "stop", "terminate"]
    }

    fn signature(&self) -> Signature {
        Signature::build(self.name())
            .about_tasks()
            .param(
                Flag::new("reason").short('r').arg(SyntaxShape::String).desc("Why, for whoever looks later"),
            )
            .param(Flag::new("force").short('f').desc(
                "End it also when it is held for an engine that is lost; its script may still run there",
            ))
    }

    fn examples(&self) -> Vec<Example<'_>> {
        vec![
            Example {
                description: "Call a task off",
                example: "orchestrator task cancel 01890a5d-ac96-774b-bcce-b302099a8057 --reason 'wrong settings'",
                result: None,
            },
            Example {
                description: "Call off all that waits in a group",
                example: "orchestrator task list --status pending --group staging | orchestrator task cancel",
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
        let reason: Option<String> = call.get_flag("reason")?;
        let force = call.has_flag("force")?;
        let head = call.head;
        for_each_task(&session, call, input, move |session, named| {
            let question = CancelTask { id: named.id, reason: reason.clone(), force };
            Ok(changed(&session.ask(question).map_err(|failure| failure.at(named.span))?, head))
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

/// Tries tasks again.
pub struct TaskRetry;

impl PluginCommand for TaskRetry {
    type Plugin = Orchestrator;

    fn name(&self) -> &str {
        "orchestrator task retry"
    }

    fn description(&self) -> &str {
        "Try failed or cancelled tasks again."
    }

    fn extra_description(&self) -> &str {
        "The task starts over with all its retries, and what its end had cancelled is revived with it: `others` names \
them. Of a workflow, the failed and cancelled tasks are tried again, also while the rest of it goes on."
    }

    fn search_terms(&self) -> Vec<&str> {
        vec!["rerun", "restart", "again", "revive"]
    }

    fn signature(&self) -> Signature {
        Signature::build(self.name()).about_tasks()
    }

    fn examples(&self) -> Vec<Example<'_>> {
        vec![
            Example {
                description: "Try a task again",
                example: "orchestrator task retry 01890a5d-ac96-774b-bcce-b302099a8057",
                result: None,
            },
            Example {
                description: "Try everything again that has failed, and wait for it",
                example: "orchestrator task list --status failed | orchestrator task retry | orchestrator task wait",
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
        let revived = Mutex::new(HashSet::new());
        for_each_task(&session, call, input, move |session, named| {
            let mut revived = revived.lock().unwrap_or_else(PoisonError::into_inner);
            let answer = match session.ask(RetryTask { id: named.id }) {
                // A task before it in the list has brought it along.
                Err(failure) if revived.contains(&named.id) && failure.is_conflict() => {
                    let task = session.ask(GetTask { id: named.id });
                    task.map(|task| Changed { task, others: Vec::new() })
                }
                answer => answer,
            };
            let answer = answer.map_err(|failure| failure.at(named.span))?;
            revived.extend(answer.others.iter().chain(&answer.task.parent).copied());
            Ok(changed(&answer, head))
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
        completion::ids(engine, &call, &arg_type, completion::RETRIABLE)
    }
}
