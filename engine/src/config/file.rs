//! The configuration file and its sections.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use orchestrator_protocol::task::RetryPolicy;
use serde::Deserialize;

use super::{ConfigError, StorageType};

/// The configuration file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct File {
    pub(super) data_dir: Option<PathBuf>,
    pub(super) port: Option<u16>,
    pub(super) bind: Option<IpAddr>,
    pub(super) no_http: bool,
    pub(super) storage_type: Option<StorageType>,
    pub(super) surrealdb_url: Option<String>,
    pub(super) surrealdb_namespace: Option<String>,
    pub(super) surrealdb_database: Option<String>,
    pub(super) surrealdb_username: Option<String>,
    pub(super) surrealdb_password_file: Option<PathBuf>,
    pub(super) storage_dir: Option<PathBuf>,
    pub(super) nu_path: Option<PathBuf>,
    pub(super) provisioning_path: Option<PathBuf>,
    pub(super) max_parallel: Option<u32>,
    pub(super) socket: Option<PathBuf>,
    pub(super) log: Option<String>,
    pub(super) log_json: bool,
    pub(super) engine: EngineSettings,
    pub(super) groups: BTreeMap<String, GroupSettings>,
    pub(super) retry: RetrySettings,
    pub(super) http: HttpSettings,
    pub(super) environments: TestEnvironmentSettings,
    pub(super) environment: EnvironmentSettings,
    pub(super) scripts: ScriptSettings,
    pub(super) worker: WorkerSettings,
    pub(super) output: OutputSettings,
    pub(super) retention: RetentionSettings,
}

/// What requests over HTTP have to do with.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct HttpSettings {
    /// Where their relative paths begin; the directory in which the engine was started without it.
    pub(super) working_dir: Option<PathBuf>,
    /// The scripts and settings files that they name lie under one of these; under `working_dir` without
    /// it.
    pub(super) script_roots: Option<Vec<PathBuf>>,
}

/// How test environments are made.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TestEnvironmentSettings {
    /// The image of nodes that name none.
    pub base_image: String,
    /// How much images with taskservs installed may take together, in bytes.
    pub prepared_max_bytes: u64,
}

impl Default for TestEnvironmentSettings {
    fn default() -> Self {
        Self { base_image: "orchestrator-base:bookworm".into(), prepared_max_bytes: 10 << 30 }
    }
}

/// Settings of a fairness group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupSettings {
    /// How many of its attempts may run at once.
    pub max_parallel: Option<u32>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RetrySettings {
    pub(super) max_retries: u32,
    pub(super) base_ms: u64,
    pub(super) cap_ms: u64,
}

impl Default for RetrySettings {
    fn default() -> Self {
        let RetryPolicy { max_retries, base_ms, cap_ms } = RetryPolicy::default();
        Self { max_retries, base_ms, cap_ms }
    }
}

/// What of the engine's environment scripts see, beside what the submitter chose.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EnvironmentSettings {
    /// Variables that are passed on where the engine has them.
    pub pass: Vec<String>,
    /// Variables that are set.
    pub set: BTreeMap<String, String>,
}

impl Default for EnvironmentSettings {
    fn default() -> Self {
        let names = [
            "PATH",
            "HOME",
            "USER",
            "LOGNAME",
            "SHELL",
            "LANG",
            "LC_ALL",
            "TZ",
            "TMPDIR",
            "XDG_RUNTIME_DIR",
            "XDG_CONFIG_HOME",
            "XDG_DATA_HOME",
            "XDG_CACHE_HOME",
            "SSH_AUTH_SOCK",
            "DOCKER_HOST",
            "DOCKER_CONFIG",
            "DOCKER_CONTEXT",
            "DOCKER_TLS_VERIFY",
            "DOCKER_CERT_PATH",
            "HTTP_PROXY",
            "HTTPS_PROXY",
            "NO_PROXY",
            "http_proxy",
            "https_proxy",
            "no_proxy",
        ];
        Self { pass: names.map(String::from).to_vec(), set: BTreeMap::new() }
    }
}

/// What tells this engine from others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EngineSettings {
    /// Its labels; tasks can require them.
    pub labels: BTreeMap<String, String>,
}

/// How a user's `.nu` scripts are run.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScriptSettings {
    /// The interpreter's options before the script. `--stdin` is added for a task with parameters.
    pub interpreter_args: Vec<String>,
}

impl Default for ScriptSettings {
    fn default() -> Self {
        Self { interpreter_args: vec!["-n".into()] }
    }
}

/// How the provisioning program is called.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WorkerSettings {
    /// The interpreter's options before the program.
    pub interpreter_args: Vec<String>,
    /// The words after the program, by operation. `{names}` becomes one word for each name,
    /// `{infra}` and `{settings}` one word each, `{check?WORD}` becomes `WORD` in check mode and
    /// nothing otherwise.
    pub words: BTreeMap<String, Vec<String>>,
}

impl Default for WorkerSettings {
    fn default() -> Self {
        let words = |operation: &&str| -> (String, Vec<String>) {
            let only = if *operation == "taskserv create" { ["--only"].as_slice() } else { &[] };
            let tail = ["--infra", "{infra}", "--settings", "{settings}", "{check?--check}"];
            let words = operation.split(' ').chain(["{names}"]).chain(only.iter().copied()).chain(tail);
            ((*operation).to_owned(), words.map(String::from).collect())
        };
        Self {
            interpreter_args: vec!["-n".into(), "--no-std-lib".into()],
            words: OPERATIONS.iter().map(words).collect(),
        }
    }
}

/// Everything that the provisioning program is asked to do.
const OPERATIONS: &[&str] = &[
    "server create",
    "server delete",
    "server names",
    "taskserv create",
    "taskserv verify",
    "taskserv plan",
    "cluster plan",
];

/// Bounds of what is kept of a script's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OutputSettings {
    /// Bytes kept for each attempt; of more, the middle is dropped.
    pub max_bytes: u64,
}

impl Default for OutputSettings {
    fn default() -> Self {
        Self { max_bytes: 64 * 1024 * 1024 }
    }
}

/// When finished tasks are removed, with their logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetentionSettings {
    /// Days after their end.
    pub max_age_days: u32,
    /// How many are kept at most; the oldest go first.
    pub max_finished: u64,
}

impl Default for RetentionSettings {
    fn default() -> Self {
        Self { max_age_days: 30, max_finished: 100_000 }
    }
}

/// Reads a configuration file.
pub(super) fn read_file(path: &Path) -> Result<File, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
    toml::from_str(&text)
        .map_err(|source| ConfigError::Wrong { path: path.to_owned(), source: Box::new(source) })
}
