//! What the storage commands do when no engine runs: they let the engine's program do it, which opens
//! the storage itself.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use nu_plugin::EngineInterface;
use nu_protocol::{LabeledError, ShellError, Span};
use orchestrator_protocol::client::start::{Variables, find_program, set_variables};
use serde::de::DeserializeOwned;

use crate::connection::Session;
use crate::connection::storage_options::{is_option, is_server_option, shell_variable, variables};
use crate::errors::error;

/// The variables that name a server's administrator, who prepares it.
const ADMINISTRATOR: &[&str] = &["SURREAL_USER", "SURREAL_PASS"];

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
    let is_init = words.first().is_some_and(|command| command == "init");
    let is_understood: fn(&str) -> bool = if is_init { is_server_option } else { is_option };
    command.arg("storage").args(&words).args(target.args_that(is_understood, &words)).arg("--json");
    set_variables(&mut command, &variables(engine)?);
    if is_init {
        set_variables(&mut command, &administrator(engine)?);
    } else {
        command.arg("--data-dir").arg(data_dir);
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

fn administrator(engine: &EngineInterface) -> Result<Variables, ShellError> {
    let variable = |name: &&str| -> Result<_, ShellError> {
        Ok(((*name).to_owned(), shell_variable(engine, name)?.map(OsString::from)))
    };
    ADMINISTRATOR.iter().map(variable).collect()
}
