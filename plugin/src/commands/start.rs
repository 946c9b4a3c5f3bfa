//! `orchestrator start`

use std::ffi::OsString;
use std::path::Path;

use chrono::Utc;
use nu_plugin::{EngineInterface, EvaluatedCall, PluginCommand};
use nu_protocol::{
    Completion, Example, Flag, LabeledError, PipelineData, Signature, SyntaxShape, Type, Value,
};
use orchestrator_protocol::request::{EngineStatus, GetStatus};

use super::SignatureExt;
use crate::connection::Session;
use crate::errors::error;
use crate::input::{absolute, number};
use crate::plugin::Orchestrator;
use crate::values;

/// Starts the engine.
pub struct Start;

/// The names of the storage backends.
const STORAGE_TYPES: &[&str] = &["filesystem", "surrealdb-embedded", "surrealdb-server"];

impl PluginCommand for Start {
    type Plugin = Orchestrator;

    fn name(&self) -> &str {
        "orchestrator start"
    }

    fn description(&self) -> &str {
        "Start the engine in the background, unless it runs already."
    }

    fn extra_description(&self) -> &str {
        "Other commands start it too when they need it; this one is for choosing its options, and for scripts that \
want to know. It serves HTTP only with --port. It returns when the engine is ready, with its status and whether it \
was started now."
    }

    fn search_terms(&self) -> Vec<&str> {
        vec!["launch", "daemon", "server", "up"]
    }

    fn signature(&self) -> Signature {
        let path = |name: &str, short, desc: &str| {
            Flag::new(name).short(short).arg(SyntaxShape::Filepath).desc(desc)
        };
        Signature::build(self.name())
            .for_engine()
            .param(
                Flag::new("port")
                    .short('p')
                    .arg(SyntaxShape::Int)
                    .desc("Serve HTTP on this port, for this machine only"),
            )
            .param(
                Flag::new("storage-type")
                    .short('s')
                    .arg(SyntaxShape::String)
                    .desc("Where records live (default: filesystem)")
                    .completion(Completion::new_list(STORAGE_TYPES)),
            )
            .param(path("nu-path", 'n', "The Nushell that runs scripts (default: this shell)"))
            .param(path("provisioning-path", 'P', "The provisioning program (default: the engine's own)"))
            .param(path("config", 'c', "A TOML file with settings of the engine"))
            .input_output_type(Type::Nothing, Type::record())
    }

    fn examples(&self) -> Vec<Example<'_>> {
        vec![
            Example { description: "Start the engine", example: "orchestrator start", result: None },
            Example {
                description: "Start one with a data directory of its own, and serve HTTP",
                example: "orchestrator start --data-dir ./data --port 8080",
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
        let options = Options::read(call, Path::new(&engine.get_current_dir()?))?;
        let session = Session::open(plugin, engine, call)?;
        let place = session.place(call.head);
        let started = session.start(options.args()).map_err(|failure| failure.at(place))?;
        let status = session.ask(GetStatus {}).map_err(|failure| failure.at(place))?;
        if !started {
            options.check(&status)?;
        }
        let mut record = values::engine::status(&status, Utc::now(), call.head);
        record.insert("started_now", Value::bool(started, call.head));
        Ok(PipelineData::value(Value::record(record, call.head), None))
    }
}

/// An option of the engine, as it was typed.
struct EngineOption {
    flag: &'static str,
    text: OsString,
    value: Value,
}

/// The options for the engine that the call gives.
struct Options(Vec<EngineOption>);

impl Options {
    fn read(call: &EvaluatedCall, cwd: &Path) -> Result<Self, LabeledError> {
        let mut options = Vec::new();
        for flag in ["port", "storage-type", "nu-path", "provisioning-path", "config"] {
            let Some(value) = call.get_flag_value(flag) else { continue };
            let text = match flag {
                "port" => number::<u16>(&value)?.to_string().into(),
                "storage-type" => value.as_str()?.into(),
                _ => absolute(cwd, value.as_str()?).into_os_string(),
            };
            options.push(EngineOption { flag, text, value });
        }
        Ok(Self(options))
    }

    fn args(&self) -> Vec<OsString> {
        self.0.iter().flat_map(|option| [format!("--{}", option.flag).into(), option.text.clone()]).collect()
    }

    /// Whether an engine that runs already is what the user asks for.
    fn check(&self, status: &EngineStatus) -> Result<(), LabeledError> {
        for option in &self.0 {
            let fits = match (option.flag, option.text.to_str()) {
                ("port", Some(port)) => {
                    status.http.as_deref().and_then(|http| http.trim_end_matches('/').rsplit(':').next())
                        == Some(port)
                }
                ("storage-type", Some(backend)) => status.storage.backend == backend,
                _ => false,
            };
            if !fits {
                return Err(error(
                    "already_running",
                    "The engine runs already, and this option needs a new start",
                    format!("--{} has no effect on an engine that runs", option.flag),
                    option.value.span(),
                )
                .with_help("`orchestrator stop`, then start it again; scripts that run are not lost with `stop --now`"));
            }
        }
        Ok(())
    }
}
