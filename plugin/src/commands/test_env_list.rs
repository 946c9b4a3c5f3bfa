//! `orchestrator test env list` and `orchestrator test env status`

use nu_plugin::{DynamicCompletionCall, EngineInterface, EvaluatedCall, PluginCommand};
use nu_protocol::engine::ArgType;
use nu_protocol::{
    Completion, DynamicSuggestion, Example, Flag, LabeledError, PipelineData, Signature, SyntaxShape, Type,
    Value,
};
use orchestrator_protocol::environment::{Environment, ListEnvironments};

use super::{SignatureExt, one_or_more};
use crate::completion;
use crate::connection::Session;
use crate::environments;
use crate::input::Environments;
use crate::input::environment::{STATUSES, statuses};
use crate::plugin::Orchestrator;
use crate::values::environment::{row, table, whole};

/// Lists environments.
pub struct TestEnvList;

impl PluginCommand for TestEnvList {
    type Plugin = Orchestrator;

    fn name(&self) -> &str {
        "orchestrator test env list"
    }

    fn description(&self) -> &str {
        "List test environments, newest first."
    }

    fn extra_description(&self) -> &str {
        "Those that have been cleaned are left out, unless --status names that state."
    }

    fn search_terms(&self) -> Vec<&str> {
        vec!["environments", "show", "docker", "containers"]
    }

    fn signature(&self) -> Signature {
        Signature::build(self.name())
            .for_engine()
            .param(
                Flag::new("status")
                    .short('s')
                    .arg(one_or_more(SyntaxShape::String))
                    .desc("Only environments in this state, or in one of these")
                    .completion(Completion::new_list(STATUSES)),
            )
            .param(Flag::new("infra").short('I').arg(SyntaxShape::String).desc("Only those of this infra"))
            .input_output_type(Type::Nothing, Type::table())
    }

    fn examples(&self) -> Vec<Example<'_>> {
        vec![
            Example {
                description: "What is there now",
                example: "(orchestrator test env list).name",
                result: Some(Value::test_list(vec![Value::test_string("redis")])),
            },
            Example {
                description: "Remove what was kept because its tests have failed",
                example: "orchestrator test env list --status failed | orchestrator test env cleanup",
                result: None,
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
        let wanted = call.get_flag_value("status").map(|value| statuses(&value)).transpose()?;
        let question =
            ListEnvironments { statuses: wanted.unwrap_or_default(), infra: call.get_flag("infra")? };
        let session = Session::open(plugin, engine, call)?;
        let found = session.ask(question).map_err(|failure| failure.at(session.place(call.head)))?;
        Ok(table(found.iter().map(|environment| row(environment, call.head)).collect(), call.head))
    }
}

/// Shows all that is known of environments.
pub struct TestEnvStatus;

impl PluginCommand for TestEnvStatus {
    type Plugin = Orchestrator;

    fn name(&self) -> &str {
        "orchestrator test env status"
    }

    fn description(&self) -> &str {
        "Show all that is known of a test environment."
    }

    fn extra_description(&self) -> &str {
        "`nodes` has the nodes with their addresses and what has been done on each, `results` what the newest run has \
found, `request` what was asked for."
    }

    fn search_terms(&self) -> Vec<&str> {
        vec!["show", "inspect", "describe", "results", "nodes"]
    }

    fn signature(&self) -> Signature {
        Signature::build(self.name()).about_environments()
    }

    fn examples(&self) -> Vec<Example<'_>> {
        vec![
            Example {
                description: "How is it?",
                example: "(orchestrator test env status 01890a5d-ac96-774b-bcce-b302099a8057).status",
                result: Some(Value::test_string("passed")),
            },
            Example {
                description: "The tests that have failed, wherever that was",
                example: "orchestrator test env list | orchestrator test env status | get results | flatten \
| where not passed",
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
        let (named, alone) = Environments::read(call, input)?.collect()?;
        let session = Session::open(plugin, engine, call)?;
        let found = named.into_iter().map(|named| environments::get(&session, named));
        Ok(one_or_table(&found.collect::<Result<Vec<_>, _>>()?, alone, call))
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
        completion::environments(engine, &call, &arg_type)
    }
}

/// All that is known of environments: one record where one was named, else a table.
pub fn one_or_table(environments: &[Environment], alone: bool, call: &EvaluatedCall) -> PipelineData {
    match environments {
        [only] if alone => PipelineData::value(whole(only, call.head), None),
        several => table(several.iter().map(|one| whole(one, call.head)).collect(), call.head),
    }
}
