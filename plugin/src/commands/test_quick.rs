//! `orchestrator test quick`

use std::path::Path;
use std::time::Duration;

use nu_plugin::{EngineInterface, EvaluatedCall, PluginCommand};
use nu_protocol::{Example, Flag, LabeledError, PipelineData, Signature, SyntaxShape, Type, Value};
use orchestrator_protocol::environment::{
    CleanEnvironment, Environment, EnvironmentConfig, EnvironmentRequest,
};
use orchestrator_protocol::request::CancelTask;
use orchestrator_protocol::task::Task;

use super::SignatureExt;
use super::test_flags::{NodeFlags, TestSignature, request, span_of};
use crate::connection::Session;
use crate::environments::{self, Begun, Report};
use crate::errors::invalid;
use crate::input::environment::options;
use crate::input::milliseconds;
use crate::plugin::Orchestrator;
use crate::values::environment::whole;
use crate::watch::WatchError;

/// Tests a taskserv from nothing to nothing.
pub struct TestQuick;

impl PluginCommand for TestQuick {
    type Plugin = Orchestrator;

    fn name(&self) -> &str {
        "orchestrator test quick"
    }

    fn description(&self) -> &str {
        "Test a taskserv in a container: create, install, verify, remove."
    }

    fn extra_description(&self) -> &str {
        "What it depends on is installed too. Returns the environment when all is done: `passed` says whether the tests \
have passed, `results` what each found. A test that fails is no error of the command.

An environment whose tests have failed is kept for a look, and `help` says how to go on; with --no-keep it is removed \
too, with --keep it stays in any case. With --timeout the test is called off when its time is over, and counts as \
failed."
    }

    fn search_terms(&self) -> Vec<&str> {
        vec!["verify", "docker", "container", "ci", "taskserv"]
    }

    fn signature(&self) -> Signature {
        Signature::build(self.name())
            .for_engine()
            .required("taskserv", SyntaxShape::String, "The taskserv to test")
            .param(Flag::new("keep").short('k').desc("Keep the environment, whatever comes of it"))
            .with_nodes()
            .with_options("{NAME: value}, or {TASKSERV: {NAME: value}}")
            .with_run()
            .param(
                Flag::new("timeout")
                    .short('t')
                    .arg(SyntaxShape::Duration)
                    .desc("Call it off after so long (default: no limit)"),
            )
            .with_junit()
            .input_output_type(Type::Nothing, Type::record())
    }

    fn examples(&self) -> Vec<Example<'_>> {
        vec![
            Example {
                description: "Does redis install and work?",
                example: "(orchestrator test quick redis).passed",
                result: Some(Value::test_bool(true)),
            },
            Example {
                description: "What each test found, with a script of your own",
                example: "(orchestrator test quick postgres --script ./check-schema.sh).results",
                result: None,
            },
            Example {
                description: "Another image, less memory, and a report for CI",
                example: "orchestrator test quick redis --base-image debian:12 --memory 512MiB --junit redis.xml",
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
        let request = quick(call, Path::new(&cwd))?;
        let keeps_failed = request.keep_on_failure;
        let timeout = call.get_flag_value("timeout").map(|value| milliseconds(&value)).transpose()?;
        let report = Report::open(call, Path::new(&cwd))?;
        let session = Session::open(plugin, engine, call)?;
        let repeatable = request.idempotency_key.is_some();
        let made = session.ask_repeatable(request, repeatable).map_err(|failure| {
            failure.at_field(session.place(call.head), |field| span_of(call, None, field))
        })?;
        let begun = Begun::new(made, call.head);
        let test = Test { session: &session, engine, begun };
        let environment = test.finish(timeout.map(Duration::from_millis), keeps_failed)?;
        if let Some(report) = report {
            report.write(&environment)?;
        }
        Ok(PipelineData::value(whole(&environment, call.head), None))
    }
}

fn quick(call: &EvaluatedCall, cwd: &Path) -> Result<EnvironmentRequest, LabeledError> {
    let keep = call.has_flag("keep")?;
    if keep && call.has_flag("no-keep")? {
        return Err(invalid("Keep it or not?", "--keep and --no-keep exclude each other", call.head));
    }
    let taskserv: String = call.req(0)?;
    let NodeFlags { base_image, environment, resources } = NodeFlags::read(call)?;
    let chosen = call.get_flag_value("option").map(|value| options(&value, Some(&taskserv))).transpose()?;
    let config = EnvironmentConfig::SingleTaskserv {
        taskserv,
        base_image,
        environment,
        resources,
        taskserv_options: chosen.unwrap_or_default(),
    };
    Ok(EnvironmentRequest { auto_start: true, auto_cleanup: !keep, ..request(call, cwd, config)? })
}

/// A test that goes on.
struct Test<'a> {
    session: &'a Session,
    engine: &'a EngineInterface,
    begun: Begun,
}

impl Test<'_> {
    /// The environment when all is done, or when the time was over and it was called off.
    fn finish(&self, timeout: Option<Duration>, keeps_failed: bool) -> Result<Environment, LabeledError> {
        match environments::wait(self.session, self.engine, &[self.begun], timeout) {
            Err(WatchError::TimedOut { .. }) => self.call_off(keeps_failed),
            Err(error) => Err(error.at(self.begun.task.span, &[self.begun.task])),
            Ok(tasks) => self.after(&tasks),
        }
    }

    fn call_off(&self, keeps_failed: bool) -> Result<Environment, LabeledError> {
        let reason = Some("its time was over".to_owned());
        // What has ended at this very moment cannot be called off, and is waited for all the same.
        let _ = self.session.ask(CancelTask { force: false, id: self.begun.task.id, reason });
        let tasks = self.wait(self.begun)?;
        if !keeps_failed {
            let cleaning = self.session.ask(CleanEnvironment { id: self.begun.environment.id });
            let span = self.begun.task.span;
            self.wait(Begun::new(cleaning.map_err(|failure| failure.at(span))?, span))?;
        }
        self.after(&tasks)
    }

    fn after(&self, tasks: &[Task]) -> Result<Environment, LabeledError> {
        Ok(environments::after(environments::get(self.session, self.begun.environment)?, tasks))
    }

    fn wait(&self, begun: Begun) -> Result<Vec<Task>, LabeledError> {
        environments::wait(self.session, self.engine, &[begun], None)
            .map_err(|error| error.at(begun.task.span, &[begun.task]))
    }
}
