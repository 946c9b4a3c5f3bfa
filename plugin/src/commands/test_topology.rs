//! `orchestrator test topology list` and `orchestrator test topology load`

use std::path::Path;

use nu_plugin::{DynamicCompletionCall, EngineInterface, EvaluatedCall, PluginCommand};
use nu_protocol::engine::ArgType;
use nu_protocol::{
    DynamicSuggestion, Example, LabeledError, PipelineData, Signature, SyntaxShape, Type, Value,
};
use orchestrator_protocol::environment::{ListTopologies, NamedTopology};

use super::SignatureExt;
use crate::completion;
use crate::connection::Session;
use crate::errors::error;
use crate::plugin::Orchestrator;
use crate::values::environment::{topology, topology_row};

/// Lists topologies.
pub struct TestTopologyList;

impl PluginCommand for TestTopologyList {
    type Plugin = Orchestrator;

    fn name(&self) -> &str {
        "orchestrator test topology list"
    }

    fn description(&self) -> &str {
        "List topologies: the project's own and those in topologies/*.toml."
    }

    fn extra_description(&self) -> &str {
        "The files are looked for under the current directory. A topology of yours takes the place of the project's \
with the same name."
    }

    fn search_terms(&self) -> Vec<&str> {
        vec!["cluster", "nodes", "template"]
    }

    fn signature(&self) -> Signature {
        Signature::build(self.name()).for_engine().input_output_type(Type::Nothing, Type::table())
    }

    fn examples(&self) -> Vec<Example<'_>> {
        vec![
            Example {
                description: "Their names",
                example: "(orchestrator test topology list).name",
                result: Some(Value::test_list(vec![Value::test_string("etcd_cluster")])),
            },
            Example {
                description: "Those with etcd",
                example: "orchestrator test topology list | where 'etcd' in $it.taskservs",
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
        let cwd = engine.get_current_dir()?;
        let session = Session::open(plugin, engine, call)?;
        let found = all(&session, call, Path::new(&cwd))?;
        let rows = found.iter().map(|found| topology_row(found, call.head)).collect();
        Ok(PipelineData::value(Value::list(rows, call.head), None))
    }
}

/// Loads a topology.
pub struct TestTopologyLoad;

impl PluginCommand for TestTopologyLoad {
    type Plugin = Orchestrator;

    fn name(&self) -> &str {
        "orchestrator test topology load"
    }

    fn description(&self) -> &str {
        "Load a topology by its name, as a record to change and pipe on."
    }

    fn extra_description(&self) -> &str {
        "`nodes` and `network` are as a file of topologies has them."
    }

    fn search_terms(&self) -> Vec<&str> {
        vec!["cluster", "nodes", "template", "open"]
    }

    fn signature(&self) -> Signature {
        Signature::build(self.name())
            .for_engine()
            .required("name", SyntaxShape::String, "The name of the topology")
            .input_output_type(Type::Nothing, Type::record())
    }

    fn examples(&self) -> Vec<Example<'_>> {
        vec![
            Example {
                description: "Its nodes",
                example: "(orchestrator test topology load etcd_cluster).nodes.name",
                result: Some(Value::test_list(vec![Value::test_string("etcd-01")])),
            },
            Example {
                description: "A cluster with more memory on its first node",
                example: "orchestrator test topology load etcd_cluster | upsert nodes.0.resources.memory_mb 1024 \
| orchestrator test env cluster etcd",
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
        let cwd = engine.get_current_dir()?;
        let session = Session::open(plugin, engine, call)?;
        let found = find(&session, call, Path::new(&cwd), call.nth(0))?;
        Ok(PipelineData::value(topology(&found, call.head), None))
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
        match arg_type {
            ArgType::Positional(0) => completion::topologies(engine, &call),
            _ => None,
        }
    }
}

fn all(session: &Session, call: &EvaluatedCall, cwd: &Path) -> Result<Vec<NamedTopology>, LabeledError> {
    let question = ListTopologies { cwd: Some(cwd.to_string_lossy().into_owned()) };
    session.ask(question).map_err(|failure| failure.at(session.place(call.head)))
}

/// The topology that was named.
pub fn find(
    session: &Session,
    call: &EvaluatedCall,
    cwd: &Path,
    name: Option<Value>,
) -> Result<NamedTopology, LabeledError> {
    let wanted = name.unwrap_or_default();
    let text = wanted.as_str()?;
    let known = all(session, call, cwd)?;
    let names: Vec<&str> = known.iter().map(|topology| topology.name.as_str()).collect();
    let help = format!("there are {}", names.join(", "));
    known.iter().find(|topology| topology.name == text).cloned().ok_or_else(|| {
        error("not_found", format!("There is no topology '{text}'"), "not known", wanted.span())
            .with_help(help)
    })
}
