//! The `orchestrator-runner` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    orchestrator_runner::main(std::env::args_os().skip(1))
}
