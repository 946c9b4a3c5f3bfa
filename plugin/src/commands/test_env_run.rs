//! `orchestrator test env run` and `orchestrator test env cleanup`

use std::path::Path;

use nu_plugin::{DynamicCompletionCall, EngineInterface, EvaluatedCall, PluginCommand};
use nu_protocol::engine::ArgType;
use nu_protocol::{DynamicSuggestion, Example, Flag, LabeledError, PipelineData, Signature};
use orchestrator_protocol::environment::{CleanEnvironment, RunEnvironment};

use super::SignatureExt;
use super::test_env_list::one_or_table;
use super::test_flags::{TestSignature, span_in_run};
use crate::completion;
use crate::connection::Session;
use crate::environments::{self, Begun, Report};
use crate::errors::invalid;
use crate::input::environment::run_options;
use crate::input::{Environments, NamedEnvironment};
use crate::plugin::Orchestrator;

/// Runs the tests of environments.
pub struct TestEnvRun;

impl PluginCommand for TestEnvRun {
    type Plugin = Orchestrator;

    fn name(&self) -> &str {
        "orchestrator test env run"
    }

    fn description(&self) -> &str {
        "Run the tests of a test environment."
    }

    fn extra_description(&self) -> &str {
        "Each taskserv is verified on each node; then come the scripts, in their order, and the faults. After a fault, \
all nodes that are up are verified again, unless it says {verify: false}. Returns the environment; with --wait, when the \
tests have run: `passed` says whether all have passed, `results` what each found. A test that fails is no error of the \
command."
    }

    fn search_terms(&self) -> Vec<&str> {
        vec!["verify", "check", "results", "junit", "fault"]
    }

    fn signature(&self) -> Signature {
        Signature::build(self.name()).about_environments().with_run().with_junit().param(
            Flag::new("wait").short('w').desc("Wait until the tests have run, and return what they found"),
        )
    }

    fn examples(&self) -> Vec<Example<'_>> {
        vec![
            Example {
                description: "Run the tests, and see what they found",
                example: "(orchestrator test env run 01890a5d-ac96-774b-bcce-b302099a8057 --wait).results",
                result: None,
            },
            Example {
                description: "Does it survive the loss of a node?",
                example: "orchestrator test env run 01890a5d-ac96-774b-bcce-b302099a8057 --wait \
--fault ['kill etcd-02' 'restart etcd-02']",
                result: None,
            },
            Example {
                description: "A script of your own on one of the nodes",
                example: "orchestrator test env run 01890a5d-ac96-774b-bcce-b302099a8057 --wait \
--script {script: ./check-data.sh, nodes: [db-01], timeout: 1min}",
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
        let cwd = engine.get_current_dir()?;
        let run = run_options(call, Path::new(&cwd))?;
        let (named, alone) = Environments::read(call, input)?.collect()?;
        if named.len() > 1
            && let Some(junit) = call.get_flag_value("junit")
        {
            return Err(invalid("A report is of one environment", "there are several", junit.span()));
        }
        let report = Report::open_if_awaited(call, Path::new(&cwd))?;
        let session = Session::open(plugin, engine, call)?;
        let begin = |named: NamedEnvironment| {
            let question = RunEnvironment { id: named.id, run: run.clone(), cwd: Some(cwd.clone()) };
            let made = session
                .ask(question)
                .map_err(|failure| failure.at_field(named.span, |field| span_in_run(call, field)))?;
            Ok(Begun::new(made, named.span))
        };
        let begun = named.into_iter().map(begin).collect::<Result<Vec<_>, LabeledError>>()?;
        let run = environments::answer(&session, engine, call, &begun, report.as_ref())?;
        Ok(one_or_table(&run, alone, call))
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

/// Removes environments.
pub struct TestEnvCleanup;

impl PluginCommand for TestEnvCleanup {
    type Plugin = Orchestrator;

    fn name(&self) -> &str {
        "orchestrator test env cleanup"
    }

    fn description(&self) -> &str {
        "Remove test environments, with all that belongs to them."
    }

    fn extra_description(&self) -> &str {
        "What is under way in an environment is called off first. Its record stays for a while, with the results of its \
tests. Returns the environment; with --wait, when it has gone."
    }

    fn search_terms(&self) -> Vec<&str> {
        vec!["remove", "delete", "destroy", "clean"]
    }

    fn signature(&self) -> Signature {
        Signature::build(self.name())
            .about_environments()
            .param(Flag::new("wait").short('w').desc("Wait until nothing of it is left"))
    }

    fn examples(&self) -> Vec<Example<'_>> {
        vec![
            Example {
                description: "Remove an environment",
                example: "orchestrator test env cleanup 01890a5d-ac96-774b-bcce-b302099a8057 --wait",
                result: None,
            },
            Example {
                description: "Remove all that there are",
                example: "orchestrator test env list | orchestrator test env cleanup",
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
        let begin = |named: NamedEnvironment| {
            let made = session.ask(CleanEnvironment { id: named.id });
            Ok(Begun::new(made.map_err(|failure| failure.at(named.span))?, named.span))
        };
        let begun = named.into_iter().map(begin).collect::<Result<Vec<_>, LabeledError>>()?;
        let cleaned = environments::answer(&session, engine, call, &begun, None)?;
        Ok(one_or_table(&cleaned, alone, call))
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
