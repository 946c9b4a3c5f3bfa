//! Finding an engine, or starting one.
//!
//! Several clients may want to start the same engine at the same moment: a lock beside the socket lets
//! one of them do it while the others wait. The engine is a process of its own from its first moment;
//! it writes to a log file in its data directory, and when it does not come up, the end of that log
//! is what the user is shown.

use std::ffi::OsString;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use super::{Client, ClientError};
use crate::socket;

/// The file in the data directory to which an engine without a terminal writes its log.
pub const LOG_FILE: &str = "engine.log";

/// The name of the engine's program.
pub const ENGINE_PROGRAM: &str = "orchestrator";

/// Between two looks whether an engine that was started is ready.
const POLL: Duration = Duration::from_millis(5);

/// Variables that a process is to have otherwise than this one has them; `None` for one that it is not to have.
pub type Variables = Vec<(String, Option<OsString>)>;

/// How to start an engine.
#[derive(Clone)]
pub struct StartOptions {
    /// The engine's program.
    pub program: PathBuf,
    /// Its data directory; made where it does not exist.
    pub data_dir: PathBuf,
    /// More arguments for it.
    pub args: Vec<OsString>,
    /// What of its environment is not as that of this process. There may be a password among it.
    pub variables: Variables,
    /// How long it may take until it is ready.
    pub patience: Duration,
}

/// Why there is no engine to talk to.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Talking to it failed.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The program cannot be run.
    #[error("the engine {} cannot be started", program.display())]
    Spawn {
        /// The program.
        program: PathBuf,
        /// The system's words.
        #[source]
        source: io::Error,
    },
    /// It ended before it was ready.
    #[error("the engine did not start ({status}): {}", log.trim())]
    Exited {
        /// How it ended.
        status: std::process::ExitStatus,
        /// The end of its log.
        log: String,
    },
    /// It was not ready in time.
    #[error("the engine was started but is not ready after {} s; its log is {}", waited.as_secs(), log.display())]
    NotReady {
        /// How long it was waited for.
        waited: Duration,
        /// Its log file.
        log: PathBuf,
    },
    /// The directories it needs cannot be made.
    #[error("{} cannot be prepared", path.display())]
    Prepare {
        /// Which.
        path: PathBuf,
        /// The system's words.
        #[source]
        source: io::Error,
    },
}

/// Looks for the engine's program: beside this program, then on the `PATH`.
pub fn find_program() -> Option<PathBuf> {
    let beside = std::env::current_exe().ok().and_then(|path| Some(path.parent()?.join(ENGINE_PROGRAM)));
    let on_path = std::env::var_os("PATH")
        .map(|path| std::env::split_paths(&path).map(|entry| entry.join(ENGINE_PROGRAM)).collect::<Vec<_>>())
        .unwrap_or_default();
    beside.into_iter().chain(on_path).find(|path| path.is_file())
}

/// Gives a process that is about to be started its variables.
pub fn set_variables(command: &mut Command, variables: &[(String, Option<OsString>)]) {
    for (name, value) in variables {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
}

/// Connects to the engine behind `socket`, and starts one first if there is none. Also says whether
/// this call has started it.
pub fn connect_or_start(
    socket: &Path,
    timeout: Option<Duration>,
    options: &StartOptions,
) -> Result<(Client, bool), StartError> {
    match Client::connect(socket, timeout) {
        Err(ClientError::NotRunning { .. }) => {}
        other => return Ok((other?, false)),
    }
    let prepare = |path: &Path, result: io::Result<()>| {
        result.map_err(|source| StartError::Prepare { path: path.to_owned(), source })
    };
    prepare(socket, socket::prepare_directory(socket))?;
    let private = DirBuilder::new().recursive(true).mode(0o700).create(&options.data_dir);
    prepare(&options.data_dir, private)?;
    let _lock = lock(&socket.with_extension("start"))
        .map_err(|source| StartError::Prepare { path: socket.with_extension("start"), source })?;
    // Somebody else may have started it while this process waited for the lock.
    match Client::connect(socket, timeout) {
        Err(ClientError::NotRunning { .. }) => {}
        other => return Ok((other?, false)),
    }
    Ok((spawn(socket, timeout, options)?, true))
}

fn lock(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
    flock(&file, FlockOperation::LockExclusive)?;
    Ok(file)
}

fn spawn(socket: &Path, timeout: Option<Duration>, options: &StartOptions) -> Result<Client, StartError> {
    let log_path = options.data_dir.join(LOG_FILE);
    let open_log = || OpenOptions::new().create(true).append(true).mode(0o600).open(&log_path);
    let log = open_log().map_err(|source| StartError::Prepare { path: log_path.clone(), source })?;
    let log_start = log.metadata().map_or(0, |metadata| metadata.len());
    let mut command = Command::new(&options.program);
    set_variables(&mut command, &options.variables);
    let mut engine = command
        .arg("--data-dir")
        .arg(&options.data_dir)
        .arg("--socket")
        .arg(socket)
        .arg("--detach")
        .args(&options.args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .map_err(|source| StartError::Spawn { program: options.program.clone(), source })?;
    let deadline = Instant::now() + options.patience;
    loop {
        match Client::connect(socket, timeout) {
            Err(ClientError::NotRunning { .. }) => {}
            other => return Ok(other?),
        }
        if let Ok(Some(status)) = engine.try_wait() {
            // Another engine may have won the race for the data directory.
            return Client::connect(socket, timeout)
                .map_err(|_| StartError::Exited { status, log: read_from(&log_path, log_start) });
        }
        if Instant::now() >= deadline {
            return Err(StartError::NotReady { waited: options.patience, log: log_path });
        }
        std::thread::sleep(POLL);
    }
}

/// What was written to the log since, at most 4 KiB of it.
fn read_from(path: &Path, start: u64) -> String {
    let read = || -> io::Result<String> {
        let mut file = File::open(path)?;
        let end = file.metadata()?.len();
        file.seek(SeekFrom::Start(start.max(end.saturating_sub(4096))))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    read().unwrap_or_else(|error| format!("its log {} cannot be read: {error}", path.display()))
}
