//! What tells an engine, and its program, where the records are: options, and variables of the same names.

use std::ffi::OsString;
use std::path::Path;

use nu_plugin::EngineInterface;
use nu_protocol::{ShellError, Value};
use orchestrator_protocol::client::start::Variables;

use crate::input::absolute;

/// The kinds of storage.
pub const STORAGE_TYPES: &[&str] = &["filesystem", "surrealdb-embedded", "surrealdb-server"];

/// The options. Each is also a variable: `--storage-dir` is `ORCHESTRATOR_STORAGE_DIR`.
const OPTIONS: &[&str] = &[
    "--config",
    "--storage-type",
    "--storage-dir",
    "--surrealdb-url",
    "--surrealdb-namespace",
    "--surrealdb-database",
    "--surrealdb-username",
    "--surrealdb-password",
    "--surrealdb-password-file",
];

/// Those whose values are paths.
const PATHS: &[&str] = &["--config", "--storage-dir", "--surrealdb-password-file"];

/// Whether a word is one of the options.
pub fn is_option(word: &str) -> bool {
    OPTIONS.contains(&word)
}

/// Whether a word is one of those that also say where a server is.
pub fn is_server_option(word: &str) -> bool {
    is_option(word) && !word.starts_with("--storage-")
}

/// The shell's variables for them as they are now: they may have been set after the plugin was started.
pub fn variables(engine: &EngineInterface) -> Result<Variables, ShellError> {
    let cwd = engine.get_current_dir()?;
    let variable = |option: &&str| -> Result<_, ShellError> {
        let name = variable_of(option);
        let value = shell_variable(engine, &name)?.map(|text| match PATHS.contains(option) {
            // The plugin runs in another directory than the shell.
            true if !text.is_empty() => absolute(Path::new(&cwd), &text).into_os_string(),
            _ => text.into(),
        });
        Ok((name, value))
    };
    OPTIONS.iter().map(variable).collect()
}

/// A variable of the shell; one that holds null is not set.
pub fn shell_variable(engine: &EngineInterface, name: &str) -> Result<Option<String>, ShellError> {
    let value = engine.get_env_var(name)?.filter(|value| !value.is_nothing());
    value.map(Value::coerce_into_string).transpose()
}

fn variable_of(option: &str) -> String {
    let words = option.trim_start_matches('-').replace('-', "_");
    format!("ORCHESTRATOR_{}", words.to_ascii_uppercase())
}

/// Takes options out of arguments, each with its value: `--name value` or `--name=value`. Returns them and what
/// is left.
pub fn take_out(args: &[OsString], is_meant: impl Fn(&str) -> bool) -> (Vec<OsString>, Vec<OsString>) {
    let (mut taken, mut left) = (Vec::new(), Vec::new());
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let text = arg.to_string_lossy();
        let name = text.split_once('=').map_or(&*text, |(name, _)| name);
        if !is_meant(name) {
            left.push(arg.clone());
            continue;
        }
        taken.push(arg.clone());
        if name.len() == text.len() {
            taken.extend(args.next().cloned());
        }
    }
    (taken, left)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<OsString> {
        text.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn options_are_known_with_their_values_in_both_forms() {
        let args =
            "--max-parallel 3 --storage-type filesystem --surrealdb-url=ws://h:1/?a=b --log-json --config c";
        let (taken, left) = take_out(&words(args), is_option);
        assert_eq!(taken, words("--storage-type filesystem --surrealdb-url=ws://h:1/?a=b --config c"));
        assert_eq!(left, words("--max-parallel 3 --log-json"));
        let (taken, left) = take_out(&words("--storage-directory x --config"), is_option);
        assert_eq!((taken, left), (words("--config"), words("--storage-directory x")));
    }

    #[test]
    fn a_variable_is_named_after_its_option() {
        assert_eq!(variable_of("--surrealdb-password-file"), "ORCHESTRATOR_SURREALDB_PASSWORD_FILE");
    }
}
