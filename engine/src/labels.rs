//! What an engine is labelled with, so that a task can require it.
//!
//! Users give labels of their own, in the configuration. Some follow from what an engine is: with which
//! provisioning program it works, and with which Docker daemon. Tasks get these by themselves, so that a
//! plan is carried out by the program that made it, and what was begun in one Docker is gone on with
//! there.

use std::collections::BTreeMap;

use orchestrator_protocol::task::{Action, Program, Task, Work};
use orchestrator_protocol::{Error, name};

/// How labels begin that users cannot give.
const IMPLICIT: &str = "orchestrator.";
/// The digest of the provisioning program.
pub const WORKER: &str = "orchestrator.worker";
/// The Docker daemon, by its own identifier.
pub const DOCKER: &str = "orchestrator.docker";

/// Whether a label follows from what an engine is.
pub fn is_implicit(label: &str) -> bool {
    label.starts_with(IMPLICIT)
}

/// Refuses labels of an engine that a user cannot give or ask for.
pub fn check(labels: &BTreeMap<String, String>) -> Result<(), Error> {
    for (label, value) in labels {
        name::word("label", label)?;
        if is_implicit(label) {
            return Err(Error::invalid(format!(
                "the label '{label}' is an engine's own: names that begin with '{IMPLICIT}' cannot be chosen"
            )));
        }
        if value.is_empty() || value.len() > 200 || value.chars().any(char::is_control) {
            return Err(Error::invalid(format!(
                "the value of label '{label}' is empty, longer than 200 bytes or not text"
            )));
        }
    }
    Ok(())
}

/// Adds what a new task requires by itself: a call of the provisioning program the same program as here, and so
/// does what adds the calls that a plan of it asks for.
pub fn add_implicit(task: &mut Task, own: &BTreeMap<String, String>) {
    let is_of_worker = match &task.work {
        Work::Command(command) => matches!(command.program, Program::Worker(_)),
        Work::Action(action) => matches!(action, Action::AddTasks { .. }),
        Work::Workflow(_) => false,
    };
    if is_of_worker && let Some(digest) = own.get(WORKER) {
        task.requires.insert(WORKER.to_owned(), digest.clone());
    }
}

/// What is required, in words: `zone=a and gpu=yes`.
pub fn in_words(labels: &BTreeMap<String, String>) -> String {
    let pairs = labels.iter().map(|(label, value)| format!("{label}={value}"));
    pairs.collect::<Vec<_>>().join(" and ")
}
