//! `orchestrator test env fault`

use nu_plugin::{DynamicCompletionCall, EngineInterface, EvaluatedCall, PluginCommand};
use nu_protocol::engine::ArgType;
use nu_protocol::{
    DynamicSuggestion, Example, LabeledError, PipelineData, Signature, Span, SyntaxShape, Type, Value,
};
use orchestrator_protocol::environment::InjectFault;

use super::SignatureExt;
use crate::completion;
use crate::connection::Session;
use crate::errors::invalid;
use crate::input::environment::{FAULTS, fault};
use crate::input::{NamedEnvironment, named};
use crate::plugin::Orchestrator;
use crate::values::environment::whole;

/// Does something to the nodes of an environment.
pub struct TestEnvFault;

impl PluginCommand for TestEnvFault {
    type Plugin = Orchestrator;

    fn name(&self) -> &str {
        "orchestrator test env fault"
    }

    fn description(&self) -> &str {
        "Kill, stop, pause, restart or cut off nodes of a test environment."
    }

    fn extra_description(&self) -> &str {
        "kill NODE: SIGKILL to everything on it; stop NODE: as an operator would; pause NODE and unpause NODE: freezes \
it, lets it go on; restart NODE: starts it, or starts it anew, with its taskservs; partition NODE …: cuts these nodes off \
from the others; heal: undoes all partitions. Returns the environment after it. `orchestrator test env run --fault` makes \
faults a part of a test."
    }

    fn search_terms(&self) -> Vec<&str> {
        vec!["chaos", "kill", "pause", "partition", "restart", "heal"]
    }

    fn signature(&self) -> Signature {
        Signature::build(self.name())
            .for_engine()
            .rest(
                "words",
                SyntaxShape::String,
                "The environment's id, unless it is piped in; what to do; the nodes",
            )
            .input_output_types(vec![
                (Type::Nothing, Type::record()),
                (Type::String, Type::record()),
                (Type::record(), Type::record()),
                (Type::Any, Type::record()),
            ])
    }

    fn examples(&self) -> Vec<Example<'_>> {
        vec![
            Example {
                description: "Kill a node",
                example: "orchestrator test env fault 01890a5d-ac96-774b-bcce-b302099a8057 kill etcd-02",
                result: None,
            },
            Example {
                description: "Cut one node off from the others, and let them meet again",
                example: "orchestrator test env fault 01890a5d-ac96-774b-bcce-b302099a8057 partition etcd-01 \
| orchestrator test env fault heal",
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
        let (environment, words) = environment(call, input)?;
        let Some((kind, nodes)) = words.split_first() else {
            return Err(invalid("Which fault?", "says nothing of what to do", call.head)
                .with_help(format!("use {}", FAULTS.join(", "))));
        };
        let fault = fault(kind, nodes)?;
        let session = Session::open(plugin, engine, call)?;
        let place = |field: &str| place(field, kind, nodes);
        let question = InjectFault { id: environment.id, fault };
        let after = session.ask(question).map_err(|failure| failure.at_field(environment.span, place))?;
        Ok(PipelineData::value(whole(&after, call.head), None))
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
            ArgType::Positional(0) => completion::environments(engine, &call, &arg_type),
            ArgType::Positional(1) => Some(completion::words(FAULTS)),
            ArgType::Positional(_) => completion::nodes(engine, &call),
            ArgType::Flag(_) => None,
        }
    }
}

/// The environment, and the words that say what is done: an environment that is piped in is not among them.
fn environment(
    call: &EvaluatedCall,
    input: PipelineData,
) -> Result<(NamedEnvironment, Vec<Value>), LabeledError> {
    let mut words = call.positional.clone();
    let begins_with_a_fault =
        words.first().is_none_or(|word| word.as_str().is_ok_and(|word| FAULTS.contains(&word)));
    if !begins_with_a_fault {
        return Ok((named(&words.remove(0))?, words));
    }
    match input.into_value(call.head)? {
        Value::Nothing { .. } => Err(invalid(
            "Which environment?",
            "needs an id, as the first argument or from the pipeline",
            call.head,
        )
        .with_help("`orchestrator test env list` shows the ids")),
        piped => Ok((named(&piped)?, words)),
    }
}

/// Where the user typed what the engine complains about.
fn place(field: &str, kind: &Value, nodes: &[Value]) -> Option<Span> {
    let field = field.strip_prefix("fault.")?;
    let index = field.strip_prefix("nodes[").and_then(|rest| rest.strip_suffix(']'));
    let node = nodes.get(index.map_or(Some(0), |index| index.parse().ok())?);
    Some(node.unwrap_or(kind).span())
}
