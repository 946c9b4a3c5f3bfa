//! What the storage commands do when no engine runs: they let the engine's program do it, which opens
//! the storage itself.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use nu_plugin::EngineInterface;
use nu_protocol::{LabeledError, Span, Value};
use orchestrator_protocol::client::start::find_program;
use serde::de::DeserializeOwned;

use crate::connection::Session;
use crate::errors::error;

/// What of the plugin's arguments for an engine also says where its storage is.
const OPTIONS: &[&str] = &["--config"];

/// What of the shell's environment says how to get into a database: it may have been set after the plugin
/// was started.
const VARIABLES: &[&str] = &[
    "ORCHESTRATOR_SURREALDB_URL",
    "ORCHESTRATOR_SURREALDB_NAMESPACE",
    "ORCHESTRATOR_SURREALDB_DATABASE",
    "ORCHESTRATOR_SURREALDB_USERNAME",
    "ORCHESTRATOR_SURREALDB_PASSWORD",
    "ORCHESTRATOR_SURREALDB_PASSWORD_FILE",
    "ORCHESTRATOR_STORAGE_TYPE",
    "ORCHESTRATOR_STORAGE_DIR",
    "SURREAL_USER",
    "SURREAL_PASS",
];

/// Runs `orchestrator storage WORDS --json` on the data directory of a session, and reads its answer.
pub fn run<T: DeserializeOwned>(
    session: &Session,
    engine: &EngineInterface,
    words: impl IntoIterator<Item = OsString>,
    span: Span,
) -> Result<T, LabeledError> {
    let failed = |label: String| error("storage_failed", "The storage could not be used", label, span);
    let target = session.target();
    let program: PathBuf = target.engine.clone().or_else(find_program).ok_or_else(|| {
        failed("the engine's program is neither beside the plugin nor on the PATH".into())
            .with_help("install it there, or set $env.ORCHESTRATOR_ENGINE to its path")
    })?;
    let data_dir = target.data_dir_to_start().ok_or_else(|| {
        failed("where the engine keeps its data cannot be told".into()).with_help("name it with --data-dir")
    })?;
    let words: Vec<OsString> = words.into_iter().collect();
    let mut command = Command::new(&program);
    command.arg("storage").args(&words).arg("--json");
    if words.first().is_none_or(|command| command != "init") {
        command.arg("--data-dir").arg(data_dir);
    }
    for name in VARIABLES {
        match engine.get_env_var(*name)?.map(Value::coerce_into_string).transpose()? {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let given = target.engine_args(Vec::new());
    for pair in given.windows(2).filter(|pair| OPTIONS.iter().any(|option| pair[0] == *option)) {
        command.args(pair);
    }
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|cause| failed(format!("{} cannot be run: {cause}", program.display())))?;
    // What was found to be impossible is an answer as well.
    serde_json::from_slice(&output.stdout).map_err(|_| {
        let words = String::from_utf8_lossy(&output.stderr);
        let words = words.trim();
        failed(words.strip_prefix("orchestrator: ").unwrap_or(words).to_owned())
    })
}
