//! What the `orchestrator` program does: reads its arguments, sets up its log, and runs an engine, or
//! a runner when it is started as one.

use std::io::IsTerminal;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use tracing_subscriber::EnvFilter;

use crate::config::{Arguments, Config, RUNNER_ARGUMENT};
use crate::engine::Engine;

/// The program's entry.
pub fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    if arguments.nth(1).is_some_and(|first| first == RUNNER_ARGUMENT) {
        return orchestrator_runner::main(arguments);
    }
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("orchestrator: {error:#}");
            ExitCode::FAILURE
        }
    }
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
        let engine = Engine::open(config).await?;
        if detached {
            // Nothing of the directory it was started in is held from here on.
            std::env::set_current_dir("/").context("cannot change to the root directory")?;
        }
        engine.run().await
    })
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
