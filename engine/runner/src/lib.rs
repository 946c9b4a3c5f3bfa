//! The small process that supervises one attempt of a command and outlives the engine.
//!
//! A new engine cannot wait for a process that is not its child, so each attempt has a *runner*: it
//! is parent and subreaper of the script, reads its pipes, stamps, masks and spools its output,
//! enforces timeout and cancellation, and writes the exit status durably. Engine and runner speak to
//! each other through files in the attempt's directory and through signals, and in no other way; so
//! it does not matter which engine it is, or whether there is one.
//!
//! - [`attempt`]: the directory, from the engine's side: create, spawn, what became of it, cancel.
//! - [`spec`] and [`status`]: what the engine says first and what the runner says last.
//! - [`identity`]: how a process is known. [`lease`]: until when scripts may run. [`output`]: the spool,
//!   its writer and its reader.
//! - [`lines`]: from bytes to lines. [`words`]: what a script can say to the engine. [`mask`]: what must
//!   not be seen.
//! - [`supervise`]: the runner itself. [`process`]: everything particular to Linux.

pub mod attempt;
pub mod files;
pub mod identity;
pub mod lease;
pub mod lines;
pub mod mask;
pub mod output;
pub mod process;
pub mod spec;
pub mod status;
pub mod supervise;
pub mod words;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

/// The version of the files in an attempt's directory. A reader refuses a newer one.
pub const PROTOCOL: u32 = 1;

/// Exit code of a runner that found the attempt started, or abandoned, already.
pub const EXIT_ALREADY_STARTED: u8 = 3;

/// The runner's entry: the only argument is the attempt's directory. To be called first in a program,
/// before it has threads or open files.
pub fn main(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let Some(directory) = arguments.next().map(PathBuf::from) else {
        eprintln!("orchestrator-runner: the directory of an attempt is missing; the engine gives it");
        return ExitCode::from(2);
    };
    // SAFETY: this is the start of a program; nothing was opened yet but the standard three.
    unsafe { process::close_inherited() };
    match supervise::run(&directory) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("orchestrator-runner: {}: {error}", directory.display());
            ExitCode::FAILURE
        }
    }
}
