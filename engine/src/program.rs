//! What the `orchestrator` program does: reads its arguments, sets up its log, and runs an engine, or
//! a runner when it is started as one, or looks at the storage of a stopped engine.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tracing::warn;
use tracing_subscriber::EnvFilter;

use crate::config::{Arguments, Config, RUNNER_ARGUMENT};
use crate::engine::{Ended, Engine};

use crate::storage::offline::{self, StorageCommand};

/// Between two tries to take a new seat.
const OPEN_AGAIN_INTERVAL: Duration = Duration::from_secs(2);

/// The program's entry.
pub fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    if arguments.nth(1).is_some_and(|first| first == RUNNER_ARGUMENT) {
        return orchestrator_runner::main(arguments);
    }
    let CommandLine { arguments, command } = CommandLine::parse();
    let result = match command {
        Some(Command::Storage { command }) => look_at_storage(command),
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

/// The background engine of the provisioning orchestrator: a durable queue that runs provisioning
/// scripts, in parallel and with a memory.
///
/// Every option can also be set in the configuration file, under the same name with underscores.
#[derive(Debug, clap::Parser)]
#[command(name = "orchestrator", version, max_term_width = 100, args_conflicts_with_subcommands = true)]
struct CommandLine {
    #[command(flatten)]
    arguments: Arguments,
    #[command(subcommand)]
    command: Option<Command>,
}

/// What the program does when it does not run an engine.
#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Look at the storage of a stopped engine, and move its records
    Storage {
        #[command(subcommand)]
        command: StorageCommand,
    },
}

/// Does something with the storage of a stopped engine.
fn look_at_storage(command: StorageCommand) -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new("warn"))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start threads")?;
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
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start threads")?;
    runtime.block_on(async move {
        let mut engine = Engine::open(config.clone()).await?;
        if detached {
            // Nothing of the directory it was started in is held from here on.
            std::env::set_current_dir("/").context("cannot change to the root directory")?;
        }
        while engine.run().await? == Ended::Unseated {
            let Some(next) = open_again(&config).await? else { return Ok(()) };
            engine = next;
        }
        Ok(())
    })
}

/// Opens an engine that has lost its seat again, as long as it takes: the storage may be out of reach, which
/// is why it lost its seat. `None` when somebody stops it meanwhile.
async fn open_again(config: &Config) -> anyhow::Result<Option<Engine>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    loop {
        let wait = tokio::select! {
            opened = Engine::open(config.clone()) => match opened {
                Ok(engine) => return Ok(Some(engine)),
                Err(error) => {
                    warn!(error = format!("{error:#}"), "the engine cannot take a new seat; trying again");
                    tokio::time::sleep(OPEN_AGAIN_INTERVAL)
                }
            },
            _ = interrupt.recv() => return Ok(None),
            _ = terminate.recv() => return Ok(None),
        };
        tokio::select! {
            () = wait => {}
            _ = interrupt.recv() => return Ok(None),
            _ = terminate.recv() => return Ok(None),
        }
    }
}

fn log_to_stderr(config: &Config) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&config.log)
        .with_context(|| format!("'{}' is not a filter for the log: try info or debug", config.log))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if config.log_json {
        builder.json().init();
    } else {
        builder.with_ansi(std::io::stderr().is_terminal()).with_target(false).init();
    }
    Ok(())
}
