//! The engine, as it is tested: on the storage that `TEST_STORAGE` names, unless it is told otherwise.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

const STORAGE_TYPE: &str = "ORCHESTRATOR_STORAGE_TYPE";

fn main() -> ExitCode {
    if let Ok(storage) = std::env::var("TEST_STORAGE")
        && storage == "surrealdb-embedded"
        && std::env::var_os(STORAGE_TYPE).is_none()
        && let Ok(program) = std::env::current_exe()
    {
        let error = Command::new(program).args(std::env::args_os().skip(1)).env(STORAGE_TYPE, storage).exec();
        eprintln!("the engine under test cannot be started on its storage: {error}");
        return ExitCode::FAILURE;
    }
    orchestrator_engine::program::main()
}
