//! `orchestrator test image prune`

use nu_plugin::{EngineInterface, EvaluatedCall, PluginCommand};
use nu_protocol::{Example, LabeledError, PipelineData, Signature, Type, Value};
use orchestrator_protocol::environment::PrunePrepared;

use super::SignatureExt;
use crate::connection::Session;
use crate::plugin::Orchestrator;
use crate::values::environment::pruned;

/// Removes prepared images.
pub struct TestImagePrune;

impl PluginCommand for TestImagePrune {
    type Plugin = Orchestrator;

    fn name(&self) -> &str {
        "orchestrator test image prune"
    }

    fn description(&self) -> &str {
        "Remove the prepared images that no test environment uses."
    }

    fn extra_description(&self) -> &str {
        "The next environment with the same taskservs installs them again. Base images are not touched."
    }

    fn search_terms(&self) -> Vec<&str> {
        vec!["docker", "cache", "clean", "disk", "space"]
    }

    fn signature(&self) -> Signature {
        Signature::build(self.name()).for_engine().input_output_type(Type::Nothing, Type::record())
    }

    fn examples(&self) -> Vec<Example<'_>> {
        vec![Example {
            description: "How much space that gives back",
            example: "(orchestrator test image prune).size",
            result: Some(Value::test_filesize(1_048_576)),
        }]
    }

    fn run(
        &self,
        plugin: &Orchestrator,
        engine: &EngineInterface,
        call: &EvaluatedCall,
        _: PipelineData,
    ) -> Result<PipelineData, LabeledError> {
        let session = Session::open(plugin, engine, call)?;
        let removed =
            session.ask(PrunePrepared {}).map_err(|failure| failure.at(session.place(call.head)))?;
        Ok(PipelineData::value(pruned(&removed, call.head), None))
    }
}
