//! What an engine is told at its start.
//!
//! Each setting comes from the command line, else from the environment, else from the configuration
//! file, else it has the default that is written here. An unknown key in the file is an error.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use orchestrator_protocol::task::RetryPolicy;
use serde::Deserialize;

use crate::reach::Reach;

pub mod database;
pub mod file;

pub use database::{SurrealdbArguments, SurrealdbSettings};
pub use file::{
    EnvironmentSettings, OutputSettings, RetentionSettings, ScriptSettings, TestEnvironmentSettings,
    WorkerSettings,
};
use file::{File, RetrySettings, read_file};

/// Where records live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum StorageType {
    /// A journal and JSON files in the data directory.
    #[default]
    Filesystem,
    /// SurrealDB inside the engine, on RocksDB
    #[cfg_attr(not(feature = "surrealdb"), value(hide = true))]
    SurrealdbEmbedded,
    /// A SurrealDB server
    #[cfg_attr(not(feature = "surrealdb"), value(hide = true))]
    SurrealdbServer,
}

impl StorageType {
    /// Whether several engines may work on one storage.
    pub fn is_shared(self) -> bool {
        match self {
            Self::Filesystem | Self::SurrealdbEmbedded => false,
            Self::SurrealdbServer => true,
        }
    }

    /// The name, as on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Filesystem => "filesystem",
            Self::SurrealdbEmbedded => "surrealdb-embedded",
            Self::SurrealdbServer => "surrealdb-server",
        }
    }
}

/// What the command line and the environment say of the storage.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct StorageArguments {
    /// Where records live [default: filesystem]
    #[arg(long, env = "ORCHESTRATOR_STORAGE_TYPE", value_enum, value_name = "TYPE")]
    pub storage_type: Option<StorageType>,

    /// Directory that holds the storage on disk, where that is not the data directory [default: the data
    /// directory]
    #[arg(long, env = "ORCHESTRATOR_STORAGE_DIR", value_name = "DIR")]
    pub storage_dir: Option<PathBuf>,

    /// The SurrealDB server
    #[command(flatten)]
    pub surrealdb: SurrealdbArguments,
}

/// The background engine of the provisioning orchestrator: a durable queue that runs provisioning
/// scripts, in parallel and with a memory.
///
/// Every setting can also stand in the configuration file, under the same name with underscores; labels and
/// what only the file has are in its documentation.
#[derive(Debug, Clone, Default, clap::Parser)]
#[command(name = "orchestrator", version, max_term_width = 100)]
pub struct Arguments {
    /// Directory that holds the queue, the logs of attempts and, without a terminal, the engine's own log
    /// [default: ./data]
    #[arg(long, env = "ORCHESTRATOR_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// Serve HTTP on this port [default: 8080]
    #[arg(long, env = "ORCHESTRATOR_PORT", value_name = "PORT", conflicts_with = "no_http")]
    pub port: Option<u16>,

    /// Serve HTTP on this loopback address [default: 127.0.0.1]
    #[arg(long, env = "ORCHESTRATOR_BIND", value_name = "ADDRESS", conflicts_with = "no_http")]
    pub bind: Option<IpAddr>,

    /// Do not serve HTTP
    #[arg(long)]
    pub no_http: bool,

    /// The storage
    #[command(flatten)]
    pub storage: StorageArguments,

    /// The Nushell that runs scripts [default: nu, looked for on the PATH]
    #[arg(long, env = "ORCHESTRATOR_NU_PATH", value_name = "FILE")]
    pub nu_path: Option<PathBuf>,

    /// The provisioning program that does the work on servers [default: the one that the engine carries]
    #[arg(long, env = "ORCHESTRATOR_PROVISIONING_PATH", value_name = "FILE")]
    pub provisioning_path: Option<PathBuf>,

    /// How many attempts may run at once [default: twice the number of processors, at least 4]
    #[arg(long, env = "ORCHESTRATOR_MAX_PARALLEL", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub max_parallel: Option<u32>,

    /// The local socket [default: in the user's runtime directory, named after the data directory]
    #[arg(long, env = "ORCHESTRATOR_SOCKET", value_name = "FILE")]
    pub socket: Option<PathBuf>,

    /// A TOML file with settings
    #[arg(long, env = "ORCHESTRATOR_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// How much the engine's log says, such as info or orchestrator_engine=debug [default: info]
    #[arg(long, env = "ORCHESTRATOR_LOG", value_name = "FILTER")]
    pub log: Option<String>,

    /// A label of this engine, such as zone=a; tasks can require it. Can be given several times
    #[arg(long, value_name = "LABEL=VALUE", value_parser = label)]
    pub label: Vec<(String, String)>,

    /// Write the engine's log as JSON
    #[arg(long)]
    pub log_json: bool,

    /// Leave the session of the terminal, and serve HTTP only where a port or an address is given; used
    /// by whoever starts the engine in the background
    #[arg(long, hide = true)]
    pub detach: bool,

    /// The Nushell in which somebody made the plugin start the engine: runs scripts unless told otherwise
    #[arg(long, hide = true, value_name = "FILE")]
    pub started_by: Option<PathBuf>,
}

/// Everything an engine is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Its data directory, absolute.
    pub data_dir: PathBuf,
    /// Where it serves HTTP; `None` for nowhere.
    pub http: Option<SocketAddr>,
    /// How far requests over HTTP reach into the file system.
    pub reach: Reach,
    /// Where records live.
    pub storage_type: StorageType,
    /// The SurrealDB server.
    pub surrealdb: SurrealdbSettings,
    /// The directory that holds the storage on disk, absolute.
    pub storage_dir: PathBuf,
    /// The Nushell.
    pub nu_path: PathBuf,
    /// The provisioning program; `None` for the engine's own.
    pub provisioning_path: Option<PathBuf>,
    /// How many attempts may run at once.
    pub max_parallel: u32,
    /// The local socket.
    pub socket: PathBuf,
    /// The filter of its log.
    pub log: String,
    /// Whether its log is JSON.
    pub log_json: bool,
    /// The labels that the user gives this engine.
    pub labels: BTreeMap<String, String>,
    /// Limits of groups.
    pub group_limits: HashMap<String, u32>,
    /// Retries of tasks that do not say otherwise.
    pub retry: RetryPolicy,
    /// How test environments are made.
    pub environments: TestEnvironmentSettings,
    /// Scripts' environment.
    pub environment: EnvironmentSettings,
    /// Scripts' interpreter.
    pub scripts: ScriptSettings,
    /// The provisioning program's words.
    pub worker: WorkerSettings,
    /// Bounds of output.
    pub output: OutputSettings,
    /// When finished tasks go.
    pub retention: RetentionSettings,
    /// The program that supervises attempts.
    pub runner: PathBuf,
    /// Arguments that make `runner` one; empty for the runner's own program.
    pub runner_args: Vec<String>,
}

/// A configuration that means nothing.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("the file {} cannot be read", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// The system's words.
        #[source]
        source: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("the configuration file {} is wrong", path.display())]
    Wrong {
        /// Which.
        path: PathBuf,
        /// Where and how.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A path cannot be resolved.
    #[error("the path {} cannot be resolved", path.display())]
    Path {
        /// Which.
        path: PathBuf,
        /// The system's words.
        #[source]
        source: std::io::Error,
    },
    /// A setting means nothing.
    #[error("{0}")]
    Invalid(String),
}

impl Config {
    /// Puts together what the command line, the environment and the file say.
    pub fn load(arguments: Arguments) -> Result<Self, ConfigError> {
        let file = match &arguments.config {
            Some(path) => read_file(path)?,
            None => File::default(),
        };
        let data_dir = arguments.data_dir.or(file.data_dir).unwrap_or_else(|| "data".into());
        let data_dir = absolute(&data_dir)?;
        let socket = match arguments.socket.or(file.socket) {
            Some(path) => absolute(&path)?,
            None => orchestrator_protocol::socket::socket_path(&data_dir)
                .map_err(|source| ConfigError::Path { path: data_dir.clone(), source })?,
        };
        let (address, port) = (arguments.bind.or(file.bind), arguments.port.or(file.port));
        let is_unasked = arguments.detach && address.is_none() && port.is_none();
        let http = if arguments.no_http || (file.no_http && arguments.port.is_none()) || is_unasked {
            None
        } else {
            Some(SocketAddr::new(address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)), port.unwrap_or(8080)))
        };
        let working_dir = absolute(file.http.working_dir.as_deref().unwrap_or(Path::new(".")))?;
        let script_roots = match file.http.script_roots {
            Some(roots) => roots.iter().map(|root| absolute(root)).collect::<Result<_, _>>()?,
            None => vec![working_dir.clone()],
        };
        if let Some(limit) = file.groups.iter().find(|(_, group)| group.max_parallel == Some(0)) {
            return Err(ConfigError::Invalid(format!(
                "groups.{}.max_parallel is 0, which would run nothing: use `orchestrator task pause --group {}`",
                limit.0, limit.0
            )));
        }
        let processors = std::thread::available_parallelism().map_or(2, |count| count.get() as u32);
        let max_parallel = arguments.max_parallel.or(file.max_parallel).unwrap_or((2 * processors).max(4));
        if max_parallel == 0 {
            return Err(ConfigError::Invalid(
                "max_parallel is 0, which would run nothing: use 1 or more".into(),
            ));
        }
        let storage_dir = match arguments.storage.storage_dir.or(file.storage_dir) {
            Some(path) => absolute(&path)?,
            None => data_dir.clone(),
        };
        let mut labels = file.engine.labels;
        labels.extend(arguments.label);
        crate::labels::check(&labels).map_err(|error| ConfigError::Invalid(error.message))?;
        let RetrySettings { max_retries, base_ms, cap_ms } = file.retry;
        let (runner, runner_args) = runner_program()?;
        let surrealdb = arguments.storage.surrealdb.or(SurrealdbArguments {
            surrealdb_url: file.surrealdb_url,
            surrealdb_namespace: file.surrealdb_namespace,
            surrealdb_database: file.surrealdb_database,
            surrealdb_username: file.surrealdb_username,
            surrealdb_password: None,
            surrealdb_password_file: file.surrealdb_password_file,
        });
        let surrealdb = surrealdb.settings()?;
        Ok(Self {
            data_dir,
            http,
            reach: Reach { working_dir, script_roots },
            storage_type: arguments.storage.storage_type.or(file.storage_type).unwrap_or_default(),
            surrealdb,
            storage_dir,
            nu_path: match arguments.nu_path.or(file.nu_path).or(arguments.started_by) {
                // A name alone is looked for along PATH.
                Some(path) if path.components().count() > 1 => absolute(&path)?,
                path => path.unwrap_or_else(|| "nu".into()),
            },
            provisioning_path: arguments
                .provisioning_path
                .or(file.provisioning_path)
                .map(|path| absolute(&path))
                .transpose()?,
            max_parallel,
            socket,
            log: arguments.log.or(file.log).unwrap_or_else(|| "info".into()),
            log_json: arguments.log_json || file.log_json,
            labels,
            group_limits: file
                .groups
                .into_iter()
                .filter_map(|(name, group)| Some((name, group.max_parallel?)))
                .collect(),
            retry: RetryPolicy { max_retries, base_ms, cap_ms },
            environments: file.environments,
            environment: file.environment,
            scripts: file.scripts,
            worker: file.worker,
            output: file.output,
            retention: file.retention,
            runner,
            runner_args,
        })
    }

    /// Where the attempts of tasks are kept.
    pub fn attempts_dir(&self) -> PathBuf {
        self.data_dir.join("attempts")
    }
}

/// The runner's own program beside this one (`orchestrator-runner` beside `orchestrator`), else this
/// one under another name.
fn runner_program() -> Result<(PathBuf, Vec<String>), ConfigError> {
    let this = std::env::current_exe()
        .map_err(|source| ConfigError::Path { path: "/proc/self/exe".into(), source })?;
    let mut name = this.file_name().unwrap_or_default().to_owned();
    name.push("-runner");
    let beside = this.with_file_name(name);
    if beside.is_file() {
        return Ok((beside, Vec::new()));
    }
    Ok((this, vec![RUNNER_ARGUMENT.to_owned()]))
}

/// The first argument that makes the engine's program a runner.
pub const RUNNER_ARGUMENT: &str = "__runner";

/// A label on the command line.
fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((label, value)) => Ok((label.to_owned(), value.to_owned())),
        None => Err("write LABEL=VALUE".to_owned()),
    }
}

fn absolute(path: &Path) -> Result<PathBuf, ConfigError> {
    std::path::absolute(path).map_err(|source| ConfigError::Path { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use clap::Parser;

    use super::*;

    fn load(file: &str, arguments: &[&str]) -> Result<Config, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("orchestrator.toml");
        std::fs::write(&path, file).unwrap();
        let fixed = ["orchestrator", "--config", path.to_str().unwrap()];
        let arguments = fixed.iter().chain(arguments);
        Config::load(Arguments::try_parse_from(arguments).map_err(|error| error.to_string())?).map_err(
            |error| {
                format!(
                    "{error}: {}",
                    std::error::Error::source(&error).map_or(String::new(), ToString::to_string)
                )
            },
        )
    }

    #[test]
    fn the_command_line_comes_before_the_file_and_the_file_before_the_defaults() {
        let file = "port = 9000\nmax_parallel = 7\n[groups.production]\nmax_parallel = 2\n[retry]\nmax_retries = 1\n";
        let config = load(file, &["--port", "9001"]).unwrap();
        assert_eq!(config.http.unwrap().to_string(), "127.0.0.1:9001");
        assert_eq!(config.max_parallel, 7);
        assert_eq!(config.group_limits, HashMap::from([("production".to_owned(), 2)]));
        assert_eq!(config.retry, RetryPolicy { max_retries: 1, ..RetryPolicy::default() });
        assert_eq!(load("", &[]).unwrap().http.unwrap().port(), 8080);
        assert_eq!(load("no_http = true", &[]).unwrap().http, None);
        assert_eq!(load("", &["--detach"]).unwrap().http, None);
        assert_eq!(load("port = 9000", &["--detach"]).unwrap().http.unwrap().port(), 9000);
        let nu = |file: &str| load(file, &["--started-by", "/opt/nu"]).unwrap().nu_path;
        assert_eq!((nu(""), nu("nu_path = \"/usr/bin/nu\"")), ("/opt/nu".into(), "/usr/bin/nu".into()));
    }

    #[test]
    fn labels_come_from_the_file_and_the_command_line() {
        let file = "[engine.labels]\nzone = \"a\"\ngpu = \"yes\"";
        let labels = load(file, &["--label", "zone=b", "--label", "disk=fast"]).unwrap().labels;
        let expected = [("disk", "fast"), ("gpu", "yes"), ("zone", "b")];
        assert_eq!(labels, expected.map(|(label, value)| (label.to_owned(), value.to_owned())).into());
        assert!(load("", &["--label", "zone"]).unwrap_err().contains("LABEL=VALUE"));
        assert!(load("[engine.labels]\n\"orchestrator.docker\" = \"x\"", &[]).is_err());
    }

    #[test]
    fn mistakes_are_named() {
        assert!(load("prot = 1", &[]).unwrap_err().contains("unknown field `prot`"));
        assert!(load("[groups.a]\nmax_parallel = 0", &[]).unwrap_err().contains("task pause --group a"));
        assert!(load("", &["--prot", "1"]).unwrap_err().contains("unexpected argument '--prot'"));
        assert!(load("", &["--port", "99999"]).unwrap_err().contains("99999 is not in 0..=65535"));
        assert!(load("", &["--max-parallel", "0"]).unwrap_err().contains("0 is not in 1..=10000"));
        assert!(
            load("", &["--storage-type", "floppy"]).unwrap_err().contains("[possible values: filesystem")
        );
    }

    #[test]
    fn a_password_comes_from_a_file_and_is_not_shown() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("password");
        std::fs::write(&path, "hush\n").unwrap();
        let path = path.to_str().unwrap();
        let config = load(&format!("surrealdb_password_file = {path:?}"), &[]).unwrap();
        assert_eq!(config.surrealdb.password.as_deref(), Some("hush"));
        assert!(!format!("{config:?}").contains("hush"));
        let both = load("", &["--surrealdb-password", "a", "--surrealdb-password-file", path]);
        assert!(both.unwrap_err().contains("cannot be used with"));
        let missing = format!("{path}-not-there");
        assert!(load("", &["--surrealdb-password-file", &missing]).unwrap_err().contains(&missing));
    }

    /// The blocks of the page about the configuration.
    fn documented() -> Vec<&'static str> {
        let page = include_str!("../../docs/user/configuration.md");
        page.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
    }

    #[test]
    fn the_documented_file_says_what_holds_without_it() {
        let blocks = documented();
        assert_eq!(blocks.len(), 2);
        let (whole, own) = (blocks[0], blocks[1]);
        let (said, unsaid) = (load(whole, &[]).unwrap(), load("", &[]).unwrap());
        assert_eq!(format!("{said:#?}"), format!("{unsaid:#?}"));
        let own = load(own, &[]).unwrap();
        assert_eq!(own.worker.words["server create"][0], "servers");
        assert_eq!(own.provisioning_path, Some("/opt/provisioning/main.nu".into()));
    }
}
