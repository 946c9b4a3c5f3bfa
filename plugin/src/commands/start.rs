//! `orchestrator start`

use std::ffi::OsString;
use std::path::Path;

use chrono::Utc;
use nu_plugin::{EngineInterface, EvaluatedCall, PluginCommand};
use nu_protocol::{
    Completion, Example, Flag, LabeledError, PipelineData, Signature, SyntaxShape, Type, Value,
};
use orchestrator_protocol::request::{EngineStatus, GetStatus};
use orchestrator_protocol::storage::{GetStorage, StoragePlace};

use super::SignatureExt;
use crate::connection::Session;
use crate::connection::storage_options::STORAGE_TYPES;
use crate::errors::error;
use crate::input::{absolute, number};
use crate::plugin::Orchestrator;
use crate::values;

/// Starts the engine.
pub struct Start;

/// The flags; the engine has options of the same names.
const FLAGS: &[(&str, Option<char>, SyntaxShape, &str)] = &[
    ("port", Some('p'), SyntaxShape::Int, "Serve HTTP on this port, for this machine only"),
    ("storage-type", Some('s'), SyntaxShape::String, "Where records live (default: filesystem)"),
    (
        "storage-dir",
        None,
        SyntaxShape::Directory,
        "The directory of a storage on disk (default: the data directory)",
    ),
    ("surrealdb-url", None, SyntaxShape::String, "The SurrealDB server, such as ws://127.0.0.1:8000"),
    ("surrealdb-namespace", None, SyntaxShape::String, "The namespace there (default: orchestrator)"),
    ("surrealdb-database", None, SyntaxShape::String, "The database in it (default: tasks)"),
    ("surrealdb-username", None, SyntaxShape::String, "The user there (default: none)"),
    ("surrealdb-password-file", None, SyntaxShape::Filepath, "The file with the user's password"),
    ("nu-path", Some('n'), SyntaxShape::Filepath, "The Nushell that runs scripts (default: this shell)"),
    (
        "provisioning-path",
        Some('P'),
        SyntaxShape::Filepath,
        "The provisioning program (default: the engine's own)",
    ),
    ("config", Some('c'), SyntaxShape::Filepath, "A TOML file with settings of the engine"),
];

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
want to know. An option that is left out comes from args in $env.config.plugins.orchestrator, else from the shell's \
variables, ORCHESTRATOR_STORAGE_TYPE and so on, else from the file that --config names. It serves HTTP only with \
--port. It returns when the engine is ready, with its status and whether it was started now."
    }

    fn search_terms(&self) -> Vec<&str> {
        vec!["launch", "daemon", "server", "up"]
    }

    fn signature(&self) -> Signature {
        let mut signature = Signature::build(self.name()).for_engine();
        for (name, short, shape, meaning) in FLAGS {
            let mut flag = Flag::new(*name).arg(shape.clone()).desc(*meaning);
            if let Some(short) = short {
                flag = flag.short(*short);
            }
            if *name == "storage-type" {
                flag = flag.completion(Completion::new_list(STORAGE_TYPES));
            }
            signature = signature.param(flag);
        }
        signature.input_output_type(Type::Nothing, Type::record())
    }

    fn examples(&self) -> Vec<Example<'_>> {
        vec![
            Example { description: "Start the engine", example: "orchestrator start", result: None },
            Example {
                description: "Start one with a data directory of its own, and serve HTTP",
                example: "orchestrator start --data-dir ./data --port 8080",
                result: None,
            },
            Example {
                description: "Start one whose records are on a SurrealDB server",
                example: "orchestrator start --storage-type surrealdb-server --surrealdb-url ws://127.0.0.1:8000 --surrealdb-username orchestrator --surrealdb-password-file ./engine.password",
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
        if !started && !options.0.is_empty() {
            let storage = session.ask(GetStorage {}).map_err(|failure| failure.at(place))?;
            options.check(&status, &storage.place)?;
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
        for &(flag, _, ref shape, _) in FLAGS {
            let Some(value) = call.get_flag_value(flag) else { continue };
            let text = match shape {
                SyntaxShape::Int => number::<u16>(&value)?.to_string().into(),
                SyntaxShape::String => value.as_str()?.into(),
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
    fn check(&self, status: &EngineStatus, storage: &StoragePlace) -> Result<(), LabeledError> {
        let database = database(storage);
        for option in &self.0 {
            let fits = match (option.flag, option.text.to_str()) {
                ("port", Some(port)) => {
                    status.http.as_deref().and_then(|http| http.trim_end_matches('/').rsplit(':').next())
                        == Some(port)
                }
                ("storage-type", Some(backend)) => storage.backend == backend,
                ("storage-dir", Some(dir)) => Path::new(&storage.location) == Path::new(dir),
                ("surrealdb-url", Some(own)) => {
                    database.is_some_and(|(url, ..)| url == own.trim_end_matches('/'))
                }
                ("surrealdb-namespace", Some(own)) => {
                    database.is_some_and(|(_, namespace, _)| namespace == own)
                }
                ("surrealdb-database", Some(own)) => database.is_some_and(|(.., database)| database == own),
                // As whom it has signed in is not told.
                ("surrealdb-username" | "surrealdb-password-file", _) => database.is_some(),
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

/// The server, the namespace and the database of a place that has them: `ws://127.0.0.1:8000/orchestrator/tasks`.
fn database(place: &StoragePlace) -> Option<(&str, &str, &str)> {
    if place.backend != "surrealdb-server" {
        return None;
    }
    let (rest, database) = place.location.rsplit_once('/')?;
    let (url, namespace) = rest.rsplit_once('/')?;
    Some((url, namespace, database))
}
