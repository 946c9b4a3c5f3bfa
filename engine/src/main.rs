//! The `orchestrator` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    orchestrator_engine::program::main()
}
