//! `orchestrator test env logs`

use nu_plugin::{DynamicCompletionCall, EngineInterface, EvaluatedCall, PluginCommand};
use nu_protocol::engine::ArgType;
use nu_protocol::{
    ByteStream, ByteStreamType, DynamicSuggestion, Example, Flag, LabeledError, ListStream, PipelineData,
    Signature, Span, SyntaxShape, Type, Value,
};
use orchestrator_protocol::client::{Items, Look};
use orchestrator_protocol::environment::{EnvironmentLogs, NodeLine};
use orchestrator_protocol::event::Item;
use orchestrator_protocol::request::Subscription;

use super::{SignatureExt, until_error};
use crate::completion;
use crate::connection::{LOOK, Session};
use crate::environments;
use crate::errors::{Failure, invalid};
use crate::input::{Environments, NamedEnvironment, number};
use crate::plugin::Orchestrator;
use crate::values::environment::line;

/// Shows the output of the nodes of an environment.
pub struct TestEnvLogs;

impl PluginCommand for TestEnvLogs {
    type Plugin = Orchestrator;

    fn name(&self) -> &str {
        "orchestrator test env logs"
    }

    fn description(&self) -> &str {
        "Show what the nodes of a test environment have printed."
    }

    fn extra_description(&self) -> &str {
        "Each line is a record with its node, step, time and stream (out or err). `step` says what has printed it, such \
as `start postgres`; `container` is the node itself. With --follow, lines come as long as something runs in the \
environment. Ctrl-C stops following, and nothing else."
    }

    fn search_terms(&self) -> Vec<&str> {
        vec!["output", "stdout", "stderr", "tail", "follow", "nodes"]
    }

    fn signature(&self) -> Signature {
        let lines = || Type::one_of([Type::table(), Type::String]);
        Signature::build(self.name())
            .about("Id of the environment; without one it comes from the pipeline")
            .param(Flag::new("node").short('N').arg(SyntaxShape::String).desc("Only this node"))
            .param(Flag::new("follow").short('f').desc("Go on while something runs in the environment"))
            .param(
                Flag::new("tail")
                    .short('n')
                    .arg(SyntaxShape::Int)
                    .desc("Only the last so many lines of each node"),
            )
            .param(Flag::new("raw").short('r').desc("The text alone"))
            .input_output_types(vec![
                (Type::Nothing, lines()),
                (Type::String, lines()),
                (Type::record(), lines()),
                (Type::Any, lines()),
            ])
    }

    fn examples(&self) -> Vec<Example<'_>> {
        vec![
            Example {
                description: "Follow what happens in it",
                example: "orchestrator test env logs 01890a5d-ac96-774b-bcce-b302099a8057 --follow",
                result: None,
            },
            Example {
                description: "The end of what one node has printed, as text",
                example: "orchestrator test env logs 01890a5d-ac96-774b-bcce-b302099a8057 --node redis --tail 1 --raw",
                result: Some(Value::test_string("PONG\n")),
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
        let (named, _) = Environments::read(call, input)?.collect()?;
        let [named] = named[..] else {
            return Err(invalid("Of which environment?", "one at a time", call.head));
        };
        let session = Session::open(plugin, engine, call)?;
        let lines = Lines::open(session, call, named)?;
        let head = call.head;
        let signals = engine.signals().clone();
        if call.has_flag("raw")? {
            let text = lines.map(|line| line.map(|line| line.line + "\n").map_err(Into::into));
            let stream = ByteStream::from_result_iter(text, head, signals, ByteStreamType::String);
            return Ok(PipelineData::byte_stream(stream, None));
        }
        let records = lines.map(move |found| Ok(line(&found?, head)));
        Ok(PipelineData::list_stream(ListStream::new(until_error(records, head), head, signals), None))
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
            ArgType::Flag(flag) if flag == "node" => completion::nodes(engine, &call),
            other => completion::environments(engine, &call, &other),
        }
    }
}

/// The lines of an environment.
struct Lines {
    session: Session,
    items: Items,
    /// Where the environment was named, and the node.
    span: Span,
    node_span: Option<Span>,
}

impl Lines {
    fn open(session: Session, call: &EvaluatedCall, named: NamedEnvironment) -> Result<Self, LabeledError> {
        let wanted = EnvironmentLogs {
            id: named.id,
            node: call.get_flag("node")?,
            tail: call.get_flag_value("tail").map(|value| number(&value)).transpose()?,
            follow: call.has_flag("follow")?,
        };
        // Asked for now, so that an unknown id is the command's own error and not one in its lines.
        environments::get(&session, named)?;
        let items = session
            .subscribe(Subscription::EnvironmentLogs(wanted))
            .map_err(|failure| failure.at(named.span))?;
        let node_span = call.get_flag_value("node").map(|node| node.span());
        Ok(Self { session, items, span: named.span, node_span })
    }
}

impl Iterator for Lines {
    type Item = Result<NodeLine, LabeledError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.session.interrupted() {
                return None;
            }
            match self.items.next(LOOK) {
                Ok(Look::Item(item)) => {
                    if let Item::Node(line) = *item {
                        return Some(Ok(line));
                    }
                }
                Ok(Look::Nothing) => {}
                Ok(Look::End) => return None,
                Err(error) => {
                    let place = |field: &str| self.node_span.filter(|_| field == "node");
                    return Some(Err(Failure::from(error).at_field(self.span, place)));
                }
            }
        }
    }
}
