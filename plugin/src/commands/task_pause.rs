//! `orchestrator task pause` and `orchestrator task resume`

use nu_plugin::{DynamicCompletionCall, EngineInterface, EvaluatedCall, PluginCommand};
use nu_protocol::engine::ArgType;
use nu_protocol::{
    DynamicSuggestion, Example, Flag, LabeledError, PipelineData, Signature, SyntaxShape, Type,
};
use orchestrator_protocol::request::{Call, PauseQueue, QueuePauses, ResumeQueue};

use super::SignatureExt;
use crate::completion;
use crate::connection::Session;
use crate::plugin::Orchestrator;
use crate::values;

fn signature(name: &str, group: &str) -> Signature {
    Signature::build(name)
        .for_engine()
        .param(Flag::new("group").short('g').arg(SyntaxShape::String).desc(group))
        .input_output_type(Type::Nothing, Type::record())
}

fn ask<C>(
    plugin: &Orchestrator,
    engine: &EngineInterface,
    call: &EvaluatedCall,
    question: C,
) -> Result<PipelineData, LabeledError>
where
    C: Call<Reply = QueuePauses> + Clone + 'static,
{
    let session = Session::open(plugin, engine, call)?;
    let pauses = session.ask(question).map_err(|failure| {
        let find = |field: &str| call.get_flag_value(field).map(|value| value.span());
        failure.at_field(session.place(call.head), find)
    })?;
    Ok(PipelineData::value(values::engine::pauses(&pauses, call.head), None))
}

fn complete(
    engine: &EngineInterface,
    call: &DynamicCompletionCall,
    arg_type: &ArgType,
) -> Option<Vec<DynamicSuggestion>> {
    match arg_type {
        ArgType::Flag(flag) if flag == "group" => completion::groups(engine, call),
        _ => None,
    }
}

/// Starts nothing more.
pub struct TaskPause;

impl PluginCommand for TaskPause {
    type Plugin = Orchestrator;

    fn name(&self) -> &str {
        "orchestrator task pause"
    }

    fn description(&self) -> &str {
        "Start nothing more, in the whole queue or in a group."
    }

    fn extra_description(&self) -> &str {
        "What runs goes on, and new tasks are still accepted. Returns what is paused now; a pause outlives the engine."
    }

    fn search_terms(&self) -> Vec<&str> {
        vec!["hold", "halt", "suspend", "freeze"]
    }

    fn signature(&self) -> Signature {
        signature(self.name(), "Only this group")
    }

    fn examples(&self) -> Vec<Example<'_>> {
        vec![
            Example { description: "Start nothing more", example: "orchestrator task pause", result: None },
            Example {
                description: "Start nothing more in one group",
                example: "orchestrator task pause --group staging",
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
        ask(plugin, engine, call, PauseQueue { group: call.get_flag("group")? })
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
        complete(engine, &call, &arg_type)
    }
}

/// Goes on.
pub struct TaskResume;

impl PluginCommand for TaskResume {
    type Plugin = Orchestrator;

    fn name(&self) -> &str {
        "orchestrator task resume"
    }

    fn description(&self) -> &str {
        "Go on after a pause."
    }

    fn extra_description(&self) -> &str {
        "Without a group, the pause of the whole queue ends; groups that were paused by name stay so. Returns what is \
still paused."
    }

    fn search_terms(&self) -> Vec<&str> {
        vec!["continue", "unpause", "unfreeze"]
    }

    fn signature(&self) -> Signature {
        signature(self.name(), "Only this group")
    }

    fn examples(&self) -> Vec<Example<'_>> {
        vec![Example { description: "Go on", example: "orchestrator task resume", result: None }]
    }

    fn run(
        &self,
        plugin: &Orchestrator,
        engine: &EngineInterface,
        call: &EvaluatedCall,
        _: PipelineData,
    ) -> Result<PipelineData, LabeledError> {
        ask(plugin, engine, call, ResumeQueue { group: call.get_flag("group")? })
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
        complete(engine, &call, &arg_type)
    }
}
