//! What the engine tells a runner before it starts it.

use std::env::VarError;
use std::fs::File;
use std::io::Read;

use serde::{Deserialize, Serialize};

use crate::mask;

/// The file in the attempt's directory.
pub const FILE: &str = "spec.json";

/// Everything that a runner must know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Spec {
    /// The program's path, or a name that is looked for in the `PATH` of `env`.
    pub program: String,
    /// Its arguments, without its name.
    pub args: Vec<String>,
    /// Its whole environment: nothing is inherited.
    pub env: Vec<(String, String)>,
    /// Its working directory.
    pub cwd: String,
    /// What it reads on standard input; nothing without it.
    pub stdin: Option<String>,
    /// Secrets, resolved when the attempt starts.
    pub secrets: Vec<Secret>,
    /// From start to end, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// From SIGTERM to SIGKILL, in milliseconds.
    pub grace_ms: u64,
    /// Bytes of output that are kept.
    pub output_limit_bytes: u64,
    /// The file with the deadline by which its engine must have renewed its lease, or the script is ended;
    /// without one it goes on whatever becomes of the engine. See [`crate::lease`].
    pub lease_file: Option<String>,
    /// Whether to use a cgroup where one can be had.
    pub cgroup: bool,
    /// The task.
    pub task_id: String,
    /// The attempt's number.
    pub attempt: u32,
    /// The attempt's fence.
    pub fence: u64,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            program: String::new(),
            args: Vec::new(),
            env: Vec::new(),
            cwd: "/".into(),
            stdin: None,
            secrets: Vec::new(),
            timeout_ms: None,
            grace_ms: 10_000,
            output_limit_bytes: 64 * 1024 * 1024,
            lease_file: None,
            cgroup: true,
            task_id: String::new(),
            attempt: 1,
            fence: 1,
        }
    }
}

/// A secret by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret {
    /// The key under which the script finds it.
    pub name: String,
    /// `env:NAME`, a variable of the engine's environment, or `file:PATH`.
    pub reference: String,
}

impl Secret {
    /// The value, or a sentence that names what is missing.
    pub fn resolve(&self) -> Result<String, String> {
        let problem = |what: String| format!("the secret '{}' ({}) {what}", self.name, self.reference);
        match self.reference.split_once(':') {
            Some(("env", variable)) => std::env::var(variable).map_err(|error| match error {
                VarError::NotPresent => problem("is not in the engine's environment".into()),
                VarError::NotUnicode(_) => problem("is not text in UTF-8".into()),
            }),
            Some(("file", path)) => {
                let mut text = String::new();
                // One byte more than is accepted, and the line end.
                let bound = mask::MAX_BYTES as u64 + 3;
                File::open(path)
                    .and_then(|file| file.take(bound).read_to_string(&mut text))
                    .map_err(|error| problem(format!("cannot be read: {error}")))?;
                let text = text
                    .strip_suffix('\n')
                    .map(|text| text.strip_suffix('\r').unwrap_or(text))
                    .unwrap_or(&text);
                Ok(text.to_owned())
            }
            _ => Err(problem("is neither env:NAME nor file:PATH".into())),
        }
    }
}
