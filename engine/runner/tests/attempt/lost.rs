//! A runner that is gone without a word, and what it leaves.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;

use orchestrator_runner::attempt::{Attempt, AttemptState};
use orchestrator_runner::identity::boot_id;

use crate::support::{Case, is_alive, kill, until};

#[test]
fn a_runner_that_is_killed_takes_its_script_along_and_what_is_left_is_found() {
    let case =
        Case::with("setsid sh -c 'echo $$ > detached; sleep 600' & echo $$ > script; sleep 600", |spec| {
            spec.cgroup = false
        });
    let mut runner = case.spawn();
    let pids = ["script", "detached"].map(|name| case.wait_for_pid(name));
    let identity = case.runner();
    assert_eq!(identity.boot_id, boot_id().unwrap());
    kill(identity.pid);
    runner.wait().unwrap();
    assert_eq!(case.attempt.state().unwrap(), AttemptState::Lost { identity });
    until("the script to die with its runner", || (!is_alive(pids[0])).then_some(()));
    assert!(is_alive(pids[1]));
    assert!(case.attempt.kill_leftovers().unwrap() >= 1);
    assert!(!is_alive(pids[1]));
    assert_eq!(case.attempt.kill_leftovers().unwrap(), 0);
}

#[test]
fn what_has_left_everything_but_the_cgroup_is_found() {
    let case = Case::new(
        "(env -i PATH=$PATH setsid sh -c 'echo $$ > hidden; while :; do sleep 0.01; done' &) ; echo $$ > script; sleep 600",
    );
    let mut runner = case.spawn();
    let hidden = case.wait_for_pid("hidden");
    case.wait_for_pid("script");
    let script = until("the script's file", || case.attempt.script().unwrap());
    kill(case.runner().pid);
    runner.wait().unwrap();
    assert!(case.attempt.kill_leftovers().unwrap() >= usize::from(script.cgroup.is_some()));
    match script.cgroup {
        Some(cgroup) => {
            assert!(!is_alive(hidden));
            assert!(!cgroup.exists());
        }
        // Without one this is what escapes.
        None => kill(hidden),
    }
}

#[test]
fn a_runner_that_died_before_it_noted_the_script_leaves_nothing_either() {
    let case = Case::new("setsid sh -c 'echo $$ > detached; sleep 600' & echo $$ > script; sleep 600");
    let mut runner = case.spawn();
    let detached = case.wait_for_pid("detached");
    case.wait_for_pid("script");
    let script = until("the script's file", || case.attempt.script().unwrap());
    fs::remove_file(case.directory().join("child.json")).unwrap();
    kill(case.runner().pid);
    runner.wait().unwrap();
    case.attempt.kill_leftovers().unwrap();
    assert!(!is_alive(detached));
    assert!(!script.cgroup.is_some_and(|cgroup| cgroup.exists()));
}

#[test]
fn what_runs_is_neither_cleaned_up_nor_removed() {
    let case = Case::new("echo $$ > script; exec sleep 600");
    let mut runner = case.spawn();
    let script = case.wait_for_pid("script");
    let busy = std::io::ErrorKind::ResourceBusy;
    assert_eq!(case.attempt.kill_leftovers().unwrap_err().kind(), busy);
    assert_eq!(Attempt::open(&case.directory()).unwrap().remove().unwrap_err().kind(), busy);
    assert!(is_alive(script));
    case.attempt.kill().unwrap();
    runner.wait().unwrap();
}

#[test]
fn a_mark_of_another_boot_is_a_lost_attempt_whose_numbers_mean_nothing() {
    let case = Case::new("true");
    let own = std::process::id();
    let mark = format!(
        r#"{{"protocol":1,"runner":{{"boot_id":"another","pid_namespace":1,"pid":{own},"start_time":1}}}}"#
    );
    fs::write(case.directory().join("start"), mark).unwrap();
    let AttemptState::Lost { identity } = case.attempt.state().unwrap() else { unreachable!("nothing runs") };
    assert_eq!(identity.boot_id, "another");
    assert_eq!(case.attempt.kill_leftovers().unwrap(), 0);
    case.attempt.kill().unwrap();
}

#[test]
fn the_last_word_counts_whatever_the_lock_says() {
    let case = Case::new("exit 3");
    case.run();
    let AttemptState::Finished(status) = case.attempt.state().unwrap() else { unreachable!("it has ended") };
    assert_eq!(status.exit_code, Some(3));
    fs::remove_file(case.directory().join("status.json")).unwrap();
    assert!(matches!(case.attempt.state().unwrap(), AttemptState::Lost { .. }));
}
