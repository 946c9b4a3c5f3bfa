//! What the `orchestrator` program does: reads its arguments, sets up its log, and runs an engine, or
//! a runner when it is started as one, or looks at the storage of a stopped engine.

use std::ffi::{OsStr, OsString};
use std::io::IsTerminal;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use tokio::runtime::Runtime;
use tracing::warn;
use tracing_subscriber::EnvFilter;

use crate::config::{Arguments, Config, RUNNER_ARGUMENT};
use crate::engine::{Doors, Ended, Engine, Signals};
use crate::storage::offline::{self, StorageCommand};

/// Between two tries to open an engine again.
const OPEN_AGAIN_INTERVAL: Duration = Duration::from_secs(2);

/// The program's entry.
pub fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    if arguments.nth(1).is_some_and(|first| first == RUNNER_ARGUMENT) {
        return orchestrator_runner::main(arguments);
    }
    hide_password(std::env::args_os().collect());
    let CommandLine { arguments, command } = CommandLine::parse();
    let result = match command {
        Some(Job::Storage { command }) => look_at_storage(command),
        None => run(arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("orchestrator: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The option that everybody on the machine could read, and the variable that only the user can.
const PASSWORD_OPTION: &str = "--surrealdb-password";
const PASSWORD_VARIABLE: &str = "ORCHESTRATOR_SURREALDB_PASSWORD";

/// Begins this program again, as the same process, where there is a password among its arguments: with the
/// password in the environment.
fn hide_password(arguments: Vec<OsString>) {
    let Some((rest, password)) = without_password(&arguments) else { return };
    eprintln!(
        "orchestrator: warning: others on this machine may have read the password on the command line: use \
         --surrealdb-password-file, or {PASSWORD_VARIABLE} in the environment"
    );
    let program = std::env::current_exe().unwrap_or_else(|_| arguments[0].clone().into());
    let error =
        Command::new(program).arg0(&arguments[0]).args(&rest[1..]).env(PASSWORD_VARIABLE, password).exec();
    eprintln!("orchestrator: warning: the password on the command line cannot be hidden: {error}");
}

/// The arguments without the password, and the password; `None` where there is none.
fn without_password(arguments: &[OsString]) -> Option<(Vec<OsString>, OsString)> {
    let (mut rest, mut password) = (Vec::with_capacity(arguments.len()), None);
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let bytes = argument.as_bytes();
        let value = bytes.strip_prefix(PASSWORD_OPTION.as_bytes());
        match value {
            Some([]) => password = Some(arguments.next()?.clone()),
            Some([b'=', value @ ..]) => password = Some(OsStr::from_bytes(value).to_owned()),
            _ => rest.push(argument.clone()),
        }
    }
    password.map(|password| (rest, password))
}

/// The background engine of the provisioning orchestrator: a durable queue that runs provisioning
/// scripts, in parallel and with a memory.
///
/// Every setting can also stand in the configuration file, under the same name with underscores; labels and
/// what only the file has are in its documentation.
#[derive(Debug, clap::Parser)]
#[command(name = "orchestrator", version, max_term_width = 100, args_conflicts_with_subcommands = true)]
struct CommandLine {
    #[command(flatten)]
    arguments: Arguments,
    #[command(subcommand)]
    command: Option<Job>,
}

/// What the program does when it does not run an engine.
#[derive(Debug, clap::Subcommand)]
enum Job {
    /// Look at the storage of a stopped engine, and move its records
    Storage {
        #[command(subcommand)]
        command: StorageCommand,
    },
}

/// Does something with the storage of a stopped engine.
fn look_at_storage(command: StorageCommand) -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(format!("{DATABASE_LOG},warn")))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
    let runtime = runtime()?;
    runtime.block_on(offline::run(command))
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    if arguments.detach {
        // Fails only for the leader of a group, which a process that was spawned plainly is not.
        rustix::process::setsid().context("cannot leave the session of the terminal")?;
    }
    let detached = arguments.detach;
    let config = Config::load(arguments)?;
    log_to_stderr(&config)?;
    let runtime = runtime()?;
    runtime.block_on(async move {
        let mut engine = Engine::open(config).await?;
        let mut signals = Signals::new().context("cannot listen to signals")?;
        if detached {
            // Nothing of the directory it was started in is held from here on.
            std::env::set_current_dir("/").context("cannot change to the root directory")?;
        }
        let mut doors = Doors::default();
        loop {
            let migrations = Arc::clone(&engine.service().migrations);
            match engine.run_behind(&mut doors, &mut signals).await? {
                Ended::Stopped => break,
                Ended::Unseated | Ended::Moved => {}
                // It is no sooner whole than that.
                Ended::Failed => tokio::time::sleep(OPEN_AGAIN_INTERVAL).await,
            }
            // Where the records are now, which may be elsewhere than when this process began.
            let Some(next) = open_again(&migrations.here(), &doors, &mut signals).await else {
                doors.refuse("the engine is stopping").await;
                doors.close().await;
                break;
            };
            engine = next;
        }
        // The socket goes last, so that whoever waits for its end can start the next engine at once.
        Ok(())
    })
}

/// Opens an engine again that has lost its seat or whose records have moved, as long as it takes: the storage
/// may be out of reach. `None` when somebody stops it meanwhile.
async fn open_again(config: &Config, doors: &Doors, signals: &mut Signals) -> Option<Engine> {
    let open = async {
        loop {
            match Engine::open_again(config.clone()).await {
                Ok(engine) => return engine,
                Err(error) => {
                    let reason = format!("{error:#}");
                    doors.refuse(&format!("the engine cannot be opened again: {reason}")).await;
                    warn!(error = reason, "the engine cannot be opened again; trying on");
                    tokio::time::sleep(OPEN_AGAIN_INTERVAL).await;
                }
            }
        }
    };
    tokio::select! {
        engine = open => Some(engine),
        () = signals.stop() => None,
        () = doors.stop_now() => None,
    }
}

/// The database says much of itself, and tells its errors to whoever asks it.
const DATABASE_LOG: &str = "surrealdb=off";

/// How large the stack of a thread is, in bytes: what the database inside this process asks for. What is not
/// used takes no memory.
const STACK_BYTES: usize = match (cfg!(feature = "surrealdb"), cfg!(debug_assertions)) {
    (false, _) => 2 * 1024 * 1024,
    (true, false) => 10 * 1024 * 1024,
    (true, true) => 24 * 1024 * 1024,
};

fn runtime() -> anyhow::Result<Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.enable_all().thread_stack_size(STACK_BYTES).build().context("cannot start threads")
}

fn log_to_stderr(config: &Config) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(format!("{DATABASE_LOG},{}", config.log))
        .with_context(|| format!("'{}' is not a filter for the log: try info or debug", config.log))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if config.log_json {
        builder.json().init();
    } else {
        builder.with_ansi(std::io::stderr().is_terminal()).with_target(false).init();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn without(arguments: &[&str]) -> Option<(Vec<String>, String)> {
        let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        let text = |text: OsString| text.to_string_lossy().into_owned();
        let (rest, password) = without_password(&arguments)?;
        Some((rest.into_iter().map(text).collect(), text(password)))
    }

    #[test]
    fn a_password_is_taken_out_of_the_arguments() {
        let rest = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
        let split = without(&["o", "--surrealdb-password", "a b", "--no-http"]);
        assert_eq!(split, Some((rest(&["o", "--no-http"]), "a b".into())));
        let split = without(&["o", "storage", "status", "--surrealdb-password=x=y"]);
        assert_eq!(split, Some((rest(&["o", "storage", "status"]), "x=y".into())));
        assert_eq!(without(&["o", "--surrealdb-password-file", "f"]), None);
        assert_eq!(without(&["o", "--surrealdb-password"]), None, "clap says what is missing");
    }
}
