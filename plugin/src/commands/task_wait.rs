//! `orchestrator task wait`

use std::time::Duration;

use nu_plugin::{DynamicCompletionCall, EngineInterface, EvaluatedCall, PluginCommand};
use nu_protocol::engine::ArgType;
use nu_protocol::{
    DynamicSuggestion, Example, Flag, LabeledError, ListStream, PipelineData, Signature, SyntaxShape,
};

use super::{SignatureExt, task_get, until_error};
use crate::completion;
use crate::connection::Session;
use crate::input::{Tasks, milliseconds};
use crate::plugin::Orchestrator;
use crate::progress::Line;
use crate::values;
use crate::watch::Watch;

/// Waits for tasks to end.
pub struct TaskWait;

impl PluginCommand for TaskWait {
    type Plugin = Orchestrator;

    fn name(&self) -> &str {
        "orchestrator task wait"
    }

    fn description(&self) -> &str {
        "Wait until tasks have ended, and return them."
    }

    fn extra_description(&self) -> &str {
        "Several tasks are returned as they end, the first to end first. How a task ended is in its `status`: one that \
failed is no error of this command. On a terminal a line shows how far they are. Ctrl-C stops waiting, never the \
tasks."
    }

    fn search_terms(&self) -> Vec<&str> {
        vec!["await", "join", "block", "finish"]
    }

    fn signature(&self) -> Signature {
        Signature::build(self.name()).about_tasks().param(
            Flag::new("timeout")
                .short('t')
                .arg(SyntaxShape::Duration)
                .desc("Give up after this time; the tasks go on (default: wait as long as it takes)"),
        )
    }

    fn examples(&self) -> Vec<Example<'_>> {
        vec![
            Example {
                description: "Wait for a task, ten minutes at most",
                example: "orchestrator task wait 01890a5d-ac96-774b-bcce-b302099a8057 --timeout 10min",
                result: None,
            },
            Example {
                description: "How did a task end?",
                example: "(orchestrator task wait 01890a5d-ac96-774b-bcce-b302099a8057).status",
                result: Some(nu_protocol::Value::test_string("Completed")),
            },
            Example {
                description: "Wait for everything that runs",
                example: "orchestrator task list --status running | orchestrator task wait",
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
        let timeout = call.get_flag_value("timeout").map(|value| milliseconds(&value)).transpose()?;
        let (tasks, alone) = Tasks::read(call, input)?.collect()?;
        let session = Session::open(plugin, engine, call)?;
        let ids = tasks.iter().map(|task| task.id).collect();
        let place = match tasks.as_slice() {
            [only] => only.span,
            _ => session.place(call.head),
        };
        let line = Line::for_command(engine);
        let mut watch = Watch::begin(&session, ids, timeout.map(Duration::from_millis), line)
            .map_err(|error| error.at(place, &tasks))?;
        let head = call.head;
        let mut ended = move || {
            let task = watch.next()?.map_err(|error| error.at(place, &tasks));
            Some(task.and_then(|task| {
                task_get::record(&session, &task, head).map_err(|failure| failure.at(place))
            }))
        };
        if alone && let Some(task) = ended() {
            return Ok(PipelineData::value(task?, None));
        }
        let stream = until_error(std::iter::from_fn(ended), head);
        Ok(values::task::table(ListStream::new(stream, head, engine.signals().clone()), head))
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
