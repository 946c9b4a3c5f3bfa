//! `orchestrator events`

use nu_plugin::{DynamicCompletionCall, EngineInterface, EvaluatedCall, PluginCommand};
use nu_protocol::engine::ArgType;
use nu_protocol::{
    Completion, DynamicSuggestion, Example, Flag, LabeledError, ListStream, PipelineData, Signature,
    SyntaxShape, Type,
};
use orchestrator_protocol::client::{Items, Look};
use orchestrator_protocol::event::{EventCursor, Item};
use orchestrator_protocol::request::{EventsRequest, Subscription};

use super::{STATUSES, SignatureExt, one_or_more, statuses, until_error};
use crate::completion;
use crate::connection::{LOOK, Session};
use crate::errors::{Failure, invalid};
use crate::input::named_task;
use crate::plugin::Orchestrator;
use crate::values::event;

/// Shows changes of tasks as they happen.
pub struct Events;

impl PluginCommand for Events {
    type Plugin = Orchestrator;

    fn name(&self) -> &str {
        "orchestrator events"
    }

    fn description(&self) -> &str {
        "Show every change of tasks as it happens, until Ctrl-C."
    }

    fn extra_description(&self) -> &str {
        "Each event is a record: when it happened, which task is in which state now, how far it is, and why it failed. \
The stream does not end by itself: `first`, `take until` and the like end it, and so does Ctrl-C.

`cursor` is the event's place among all. With --since the stream goes on after it, so that a script that was cut off \
misses nothing. Where that cannot be had, because it was too long ago or the engine was started anew, the first row \
has the kind `reset`: list the tasks again, and go on from there."
    }

    fn search_terms(&self) -> Vec<&str> {
        vec!["watch", "follow", "stream", "monitor", "changes"]
    }

    fn signature(&self) -> Signature {
        Signature::build(self.name())
            .for_engine()
            .param(Flag::new("group").short('g').arg(SyntaxShape::String).desc("Only tasks of this group"))
            .param(
                Flag::new("task")
                    .short('t')
                    .arg(SyntaxShape::String)
                    .desc("Only this task, or this workflow and its tasks"),
            )
            .param(
                Flag::new("status")
                    .short('s')
                    .arg(one_or_more(SyntaxShape::String))
                    .desc("Only changes into this state, or into one of these")
                    .completion(Completion::new_list(STATUSES)),
            )
            .param(
                Flag::new("since")
                    .short('a')
                    .arg(SyntaxShape::String)
                    .desc("Only what came after the event with this cursor (default: from now on)"),
            )
            .input_output_type(Type::Nothing, Type::table())
    }

    fn examples(&self) -> Vec<Example<'_>> {
        vec![
            Example { description: "Watch everything", example: "orchestrator events", result: None },
            Example {
                description: "The next task that fails",
                example: "orchestrator events --status failed | first",
                result: None,
            },
            Example {
                description: "What happens in one infra, as lines",
                example: "orchestrator events --group production | each {|event| print $'($event.name): ($event.status)' }",
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
        let request = request(call)?;
        let session = Session::open(plugin, engine, call)?;
        let head = call.head;
        let items = session
            .subscribe(Subscription::Events(request))
            .map_err(|failure| failure.at(session.place(head)))?;
        let signals = engine.signals().clone();
        let rows = Changes { session, items }.filter_map(move |item| match item {
            Ok(item) => event::row(&item, head).map(Ok),
            Err(failure) => Some(Err(failure.at(head))),
        });
        Ok(PipelineData::list_stream(ListStream::new(until_error(rows, head), head, signals), None))
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
            ArgType::Flag(flag) if flag == "group" => completion::groups(engine, &call),
            ArgType::Flag(flag) if flag == "task" => completion::workflows(engine, &call),
            _ => None,
        }
    }
}

fn request(call: &EvaluatedCall) -> Result<EventsRequest, LabeledError> {
    let flag = |name| call.get_flag_value(name);
    let since = match flag("since") {
        Some(value) => Some(value.as_str()?.parse::<EventCursor>().map_err(|error| {
            invalid("This is not the cursor of an event", error.to_string(), value.span())
        })?),
        None => None,
    };
    Ok(EventsRequest {
        group: call.get_flag("group")?,
        task: flag("task").map(|value| named_task(&value)).transpose()?.map(|named| named.id),
        statuses: flag("status").map(|value| statuses(&value)).transpose()?.unwrap_or_default(),
        since,
    })
}

/// The items of the stream, with a look for Ctrl-C in between.
struct Changes {
    session: Session,
    items: Items,
}

impl Iterator for Changes {
    type Item = Result<Item, Failure>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.session.interrupted() {
            match self.items.next(LOOK) {
                Ok(Look::Item(item)) => return Some(Ok(*item)),
                Ok(Look::Nothing) => {}
                Ok(Look::End) => return None,
                Err(error) => return Some(Err(error.into())),
            }
        }
        None
    }
}
