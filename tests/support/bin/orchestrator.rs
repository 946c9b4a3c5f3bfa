//! The engine, as it is tested.

use std::process::ExitCode;

fn main() -> ExitCode {
    orchestrator_engine::program::main()
}
