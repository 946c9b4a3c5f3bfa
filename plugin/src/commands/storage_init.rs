//! `orchestrator storage init`

use std::ffi::OsString;
use std::path::Path;

use nu_plugin::{EngineInterface, EvaluatedCall, PluginCommand};
use nu_protocol::{Example, Flag, LabeledError, PipelineData, Signature, SyntaxShape, Type};
use orchestrator_protocol::storage::Initialised;

use super::{SignatureExt, storage_offline};
use crate::connection::Session;
use crate::input::absolute;
use crate::plugin::Orchestrator;
use crate::values::storage;

/// The flags, and the options of the engine's program that they are.
const FLAGS: &[(&str, SyntaxShape, &str, &str)] = &[
    ("url", SyntaxShape::String, "The server, such as ws://127.0.0.1:8000", "--surrealdb-url"),
    ("namespace", SyntaxShape::String, "The namespace (default: orchestrator)", "--surrealdb-namespace"),
    ("database", SyntaxShape::String, "The database in it (default: tasks)", "--surrealdb-database"),
    ("username", SyntaxShape::String, "The engine's user (default: orchestrator)", "--surrealdb-username"),
    (
        "password-file",
        SyntaxShape::Filepath,
        "The file with the user's password; one that is missing is made, with a new password",
        "--surrealdb-password-file",
    ),
    ("root-username", SyntaxShape::String, "The server's administrator (default: root)", "--root-username"),
    (
        "root-password-file",
        SyntaxShape::Filepath,
        "The file with the administrator's password (default: $env.SURREAL_PASS)",
        "--root-password-file",
    ),
];

/// Prepares a server.
pub struct StorageInit;

impl PluginCommand for StorageInit {
    type Plugin = Orchestrator;

    fn name(&self) -> &str {
        "orchestrator storage init"
    }

    fn description(&self) -> &str {
        "Prepare a SurrealDB server for engines."
    }

    fn extra_description(&self) -> &str {
        "Makes the namespace, the database, its tables, and the user as whom engines sign in. It needs the \
administrator's password once; engines never do. Done again it changes only the user's password."
    }

    fn search_terms(&self) -> Vec<&str> {
        vec!["database", "setup", "user", "schema", "surrealdb"]
    }

    fn signature(&self) -> Signature {
        let mut signature = Signature::build(self.name()).for_engine();
        for (name, shape, meaning, _) in FLAGS {
            signature = signature.param(Flag::new(*name).arg(shape.clone()).desc(*meaning));
        }
        signature.input_output_type(Type::Nothing, Type::record())
    }

    fn examples(&self) -> Vec<Example<'_>> {
        vec![Example {
            description: "Prepare a server, and keep the new user's password in a file",
            example: "with-env {SURREAL_PASS: (input --suppress-output 'root password: ')} { orchestrator storage init --url ws://127.0.0.1:8000 --password-file ./engine.password }",
            result: None,
        }]
    }

    fn run(
        &self,
        plugin: &Orchestrator,
        engine: &EngineInterface,
        call: &EvaluatedCall,
        _: PipelineData,
    ) -> Result<PipelineData, LabeledError> {
        let session = Session::open(plugin, engine, call)?.without_start();
        let cwd = engine.get_current_dir()?;
        let mut words: Vec<OsString> = vec!["init".into()];
        for (name, shape, _, option) in FLAGS {
            let Some(text) = call.get_flag::<String>(name)? else { continue };
            let value = match shape {
                SyntaxShape::Filepath => absolute(Path::new(&cwd), &text).into_os_string(),
                _ => text.into(),
            };
            words.extend([OsString::from(option), value]);
        }
        let made: Initialised = storage_offline::run(&session, engine, words, session.place(call.head))?;
        Ok(PipelineData::value(storage::initialised(&made, call.head), None))
    }
}
