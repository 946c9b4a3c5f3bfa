//! Flags that hold nothing count as left out.
//!
//! A script that passes its own optional flags on writes `--timeout $timeout`. Nushell has no way to leave a
//! flag out where the variable is null, so null arrives here.

use nu_plugin::{DynamicCompletionCall, EngineInterface, EvaluatedCall, PluginCommand};
use nu_protocol::engine::ArgType;
use nu_protocol::{DynamicSuggestion, Example, LabeledError, PipelineData, Signature};

use crate::plugin::Orchestrator;

/// A command that never sees a flag without a value of its own.
pub struct Given(pub Box<dyn PluginCommand<Plugin = Orchestrator>>);

impl PluginCommand for Given {
    type Plugin = Orchestrator;

    fn name(&self) -> &str {
        self.0.name()
    }

    fn signature(&self) -> Signature {
        self.0.signature()
    }

    fn description(&self) -> &str {
        self.0.description()
    }

    fn extra_description(&self) -> &str {
        self.0.extra_description()
    }

    fn search_terms(&self) -> Vec<&str> {
        self.0.search_terms()
    }

    fn examples(&self) -> Vec<Example<'_>> {
        self.0.examples()
    }

    fn run(
        &self,
        plugin: &Orchestrator,
        engine: &EngineInterface,
        call: &EvaluatedCall,
        input: PipelineData,
    ) -> Result<PipelineData, LabeledError> {
        self.0.run(plugin, engine, &given(call), input)
    }

    #[expect(deprecated, reason = "the marker of an experimental method")]
    fn get_dynamic_completion(
        &self,
        plugin: &Orchestrator,
        engine: &EngineInterface,
        call: DynamicCompletionCall,
        arg_type: ArgType,
        experimental: nu_protocol::engine::ExperimentalMarker,
    ) -> Option<Vec<DynamicSuggestion>> {
        self.0.get_dynamic_completion(plugin, engine, call, arg_type, experimental)
    }
}

/// The call with only those flags that hold something. A switch has no value, and stays.
fn given(call: &EvaluatedCall) -> EvaluatedCall {
    let mut call = call.clone();
    call.named.retain(|(_, value)| !value.as_ref().is_some_and(|value| value.is_nothing()));
    call
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use nu_protocol::{IntoSpanned, Span, Value};

    use super::*;

    #[test]
    fn null_is_left_out_and_switches_and_values_stay() {
        let span = Span::test_data();
        let mut call = EvaluatedCall::new(span);
        let flags = [
            ("timeout", Some(Value::test_nothing())),
            ("retries", Some(Value::test_int(0))),
            ("wait", None),
            ("check", Some(Value::test_bool(false))),
        ];
        call.named.extend(flags.map(|(name, value)| (name.to_owned().into_spanned(span), value)));
        let call = given(&call);
        assert_eq!(call.get_flag_value("timeout"), None);
        assert_eq!(call.get_flag_value("retries"), Some(Value::test_int(0)));
        assert!(call.has_flag("wait").unwrap());
        assert!(!call.has_flag("check").unwrap());
    }
}
