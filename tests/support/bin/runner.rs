//! The runner, as it is tested.

use std::process::ExitCode;

fn main() -> ExitCode {
    orchestrator_runner::main(std::env::args_os().skip(1))
}
