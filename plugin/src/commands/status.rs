//! `orchestrator status`

use chrono::Utc;
use nu_plugin::{EngineInterface, EvaluatedCall, PluginCommand};
use nu_protocol::{Example, LabeledError, PipelineData, Signature, Type, Value};
use orchestrator_protocol::request::GetStatus;

use super::SignatureExt;
use crate::connection::Session;
use crate::plugin::Orchestrator;
use crate::values;

/// Shows what the engine is doing.
pub struct Status;

impl PluginCommand for Status {
    type Plugin = Orchestrator;

    fn name(&self) -> &str {
        "orchestrator status"
    }

    fn description(&self) -> &str {
        "Show whether the engine runs and what it is doing."
    }

    fn extra_description(&self) -> &str {
        "Never starts an engine. When none runs, `running` is false and `state` is stopped; otherwise `state` is \
active, draining or stopping."
    }

    fn search_terms(&self) -> Vec<&str> {
        vec!["health", "info", "running", "queue"]
    }

    fn signature(&self) -> Signature {
        Signature::build(self.name()).for_engine().input_output_type(Type::Nothing, Type::record())
    }

    fn examples(&self) -> Vec<Example<'_>> {
        vec![
            Example { description: "Show the engine's status", example: "orchestrator status", result: None },
            Example {
                description: "Count the tasks that have failed",
                example: "(orchestrator status).tasks.failed",
                result: Some(Value::test_int(1)),
            },
        ]
    }

    fn run(
        &self,
        plugin: &Orchestrator,
        engine: &EngineInterface,
        call: &EvaluatedCall,
        _: PipelineData,
    ) -> Result<PipelineData, LabeledError> {
        let session = Session::open(plugin, engine, call)?.without_start();
        let record = match session.ask(GetStatus {}) {
            Ok(status) => values::engine::status(&status, Utc::now(), call.head),
            Err(failure) if failure.is_not_running() => values::engine::stopped(session.target(), call.head),
            Err(failure) => return Err(failure.at(session.place(call.head))),
        };
        Ok(PipelineData::value(Value::record(record, call.head), None))
    }
}
