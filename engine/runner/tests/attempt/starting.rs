//! Of an attempt there is one start, whatever happens.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::process::Command;

use orchestrator_runner::attempt::{Attempt, AttemptState, Runner};
use orchestrator_runner::spec::Spec;
use orchestrator_runner::status::Reason;

use crate::support::Case;

#[test]
fn of_many_runners_one_starts_the_script() {
    let case = Case::new("echo started >> starts; read line < gate");
    Command::new("mkfifo").arg(case.path("gate")).status().unwrap();
    let mut runners: Vec<Runner> = (0..8).map(|_| case.spawn()).collect();
    case.wait_for_file("starts");
    fs::write(case.path("gate"), "go\n").unwrap();
    for runner in &mut runners {
        runner.wait().unwrap();
    }
    assert_eq!(case.status().exit_code, Some(0));
    assert_eq!(fs::read_to_string(case.path("starts")).unwrap(), "started\n");
}

#[test]
fn an_abandoned_attempt_is_never_started() {
    let case = Case::new("echo started > started");
    assert_eq!(case.attempt.state().unwrap(), AttemptState::NotStarted);
    assert!(case.attempt.abandon().unwrap());
    assert!(case.attempt.abandon().unwrap());
    case.spawn().wait().unwrap();
    assert_eq!(case.attempt.state().unwrap(), AttemptState::Abandoned);
    assert!(!case.path("started").exists());
}

#[test]
fn a_started_attempt_cannot_be_abandoned() {
    let case = Case::new("echo $$ > script; exec sleep 600");
    let mut runner = case.spawn();
    case.wait_for_pid("script");
    assert!(!case.attempt.abandon().unwrap());
    case.attempt.kill().unwrap();
    runner.wait().unwrap();
    assert_eq!(case.status().reason, Reason::Cancelled);
}

#[test]
fn whoever_is_first_abandons_or_starts() {
    for _ in 0..20 {
        let case = Case::new("echo started > started");
        let mut runner = case.spawn();
        let abandoned = case.attempt.abandon().unwrap();
        runner.wait().unwrap();
        assert_eq!(abandoned, !case.path("started").exists());
        let is_finished = matches!(case.attempt.state().unwrap(), AttemptState::Finished(_));
        assert_eq!(abandoned, !is_finished);
    }
}

#[test]
fn a_directory_is_made_once_and_must_be_there() {
    let case = Case::new("true");
    let again = Attempt::create(&case.directory(), &Spec::default()).unwrap_err();
    assert_eq!(again.kind(), std::io::ErrorKind::AlreadyExists);
    let missing = Attempt::open(&case.path("missing")).unwrap_err();
    assert_eq!(missing.kind(), std::io::ErrorKind::NotFound);
    case.run();
    Attempt::open(&case.directory()).unwrap().remove().unwrap();
    assert!(!case.directory().exists());
}
