//! `orchestrator doctor`

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use nu_plugin::{EngineInterface, EvaluatedCall, PluginCommand};
use nu_protocol::{Example, LabeledError, PipelineData, Signature, Type, Value};
use orchestrator_protocol::client::start::find_program;
use orchestrator_protocol::request::{Check, CheckState, Diagnose, GetStatus};
use orchestrator_protocol::socket::user_id;

use super::SignatureExt;
use crate::connection::Session;
use crate::connection::target::Target;
use crate::plugin::Orchestrator;
use crate::values;

/// Checks the set-up.
pub struct Doctor;

/// The Nushell that this plugin is made for.
const NUSHELL: &str = "0.115";

impl PluginCommand for Doctor {
    type Plugin = Orchestrator;

    fn name(&self) -> &str {
        "orchestrator doctor"
    }

    fn description(&self) -> &str {
        "Check the whole set-up, and say what to do about what is wrong."
    }

    fn extra_description(&self) -> &str {
        "Looks at Nushell, the plugin, the engine's program and its socket; when an engine runs, also at all that the \
engine depends on. Never starts one. `state` is ok, warning or failed."
    }

    fn search_terms(&self) -> Vec<&str> {
        vec!["diagnose", "check", "health", "troubleshoot", "verify"]
    }

    fn signature(&self) -> Signature {
        Signature::build(self.name()).for_engine().input_output_type(Type::Nothing, Type::table())
    }

    fn examples(&self) -> Vec<Example<'_>> {
        vec![
            Example { description: "Check the set-up", example: "orchestrator doctor", result: None },
            Example {
                description: "Show only what is wrong",
                example: "orchestrator doctor | where state != ok",
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
        let session = Session::open(plugin, engine, call)?.without_start();
        let nushell = engine.get_env_var("NU_VERSION")?.map(Value::coerce_into_string).transpose()?;
        let mut checks = vec![
            shell(nushell.as_deref()),
            this_plugin(),
            program(session.target()),
            socket(&session.target().socket),
        ];
        checks.extend(running(&session));
        let rows = checks.iter().map(|check| values::engine::check(check, call.head)).collect();
        Ok(PipelineData::value(Value::list(rows, call.head), None))
    }
}

fn ok(name: &str, found: String) -> Check {
    Check { name: name.into(), state: CheckState::Ok, found, advice: None }
}

fn wrong(name: &str, state: CheckState, found: String, advice: &str) -> Check {
    Check { name: name.into(), state, found, advice: Some(advice.into()) }
}

fn shell(version: Option<&str>) -> Check {
    const NAME: &str = "this shell";
    match version {
        Some(version) if version.starts_with(NUSHELL) => ok(NAME, version.to_owned()),
        Some(version) => {
            let advice =
                format!("this plugin is made for Nushell {NUSHELL}: install the release that fits the other");
            wrong(NAME, CheckState::Warning, version.to_owned(), &advice)
        }
        None => wrong(
            NAME,
            CheckState::Warning,
            "NU_VERSION is not set".into(),
            "do not remove NU_VERSION from the environment: what depends on the version cannot be checked",
        ),
    }
}

fn this_plugin() -> Check {
    let path =
        std::env::current_exe().map_or_else(|error| error.to_string(), |path| path.display().to_string());
    ok("plugin", format!("{}, {path}", env!("CARGO_PKG_VERSION")))
}

fn program(target: &Target) -> Check {
    const NAME: &str = "engine program";
    let Some(path) = target.engine.clone().or_else(find_program) else {
        let found = "none beside the plugin or on the PATH".into();
        return wrong(
            NAME,
            CheckState::Failed,
            found,
            "install it there, or set $env.ORCHESTRATOR_ENGINE to its path",
        );
    };
    let found = path.display().to_string();
    match fs::metadata(&path) {
        Ok(file) if file.is_file() && file.permissions().mode() & 0o111 != 0 => ok(NAME, found),
        Ok(_) => wrong(NAME, CheckState::Failed, found, "make it executable, or name the right file"),
        Err(error) => wrong(
            NAME,
            CheckState::Failed,
            format!("{found}: {error}"),
            "name the file that you have installed",
        ),
    }
}

/// The socket's directory must be private: whoever can write there can put a socket of their own in place.
fn socket(path: &Path) -> Check {
    const NAME: &str = "socket";
    let found = path.display().to_string();
    let Some(directory) = path.parent() else { return ok(NAME, found) };
    match fs::metadata(directory) {
        Ok(metadata) if metadata.permissions().mode() & 0o022 != 0 => wrong(
            NAME,
            CheckState::Failed,
            format!("others can write to {}", directory.display()),
            "make the directory yours alone: chmod 700",
        ),
        Ok(metadata) if metadata.uid() != user_id() && metadata.uid() != 0 => wrong(
            NAME,
            CheckState::Warning,
            format!("{} belongs to user {}", directory.display(), metadata.uid()),
            "an engine accepts only connections of its own user",
        ),
        Ok(_) => ok(NAME, found),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            ok(NAME, format!("{found} (not made yet)"))
        }
        Err(error) => {
            wrong(NAME, CheckState::Failed, format!("{}: {error}", directory.display()), "make it readable")
        }
    }
}

/// Whether the engine runs, and what it finds itself.
fn running(session: &Session) -> Vec<Check> {
    const NAME: &str = "engine";
    let status = match session.ask(GetStatus {}) {
        Ok(status) => status,
        Err(failure) if failure.is_not_running() => {
            let found = "not running".into();
            return vec![wrong(
                NAME,
                CheckState::Warning,
                found,
                "start it with `orchestrator start`, and look again",
            )];
        }
        Err(failure) => return vec![unanswered(NAME, failure)],
    };
    let mut checks = vec![ok(NAME, format!("{}, process {}", status.version, status.pid))];
    match session.ask(Diagnose {}) {
        Ok(diagnosis) => checks.extend(diagnosis.checks),
        Err(failure) => checks.push(unanswered("engine's own checks", failure)),
    }
    checks
}

fn unanswered(name: &str, failure: crate::errors::Failure) -> Check {
    let error = failure.at(nu_protocol::Span::unknown());
    let label = error.labels.first().map(|label| format!(" ({})", label.text)).unwrap_or_default();
    Check { name: name.into(), state: CheckState::Failed, found: error.msg + &label, advice: error.help }
}
