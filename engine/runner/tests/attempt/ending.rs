//! However an attempt ends, nothing of it is left.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::time::Duration;

use orchestrator_runner::output::Stream;
use orchestrator_runner::status::Reason;

use crate::support::{Case, is_alive, until};

#[test]
fn a_timeout_ends_everything() {
    let case = Case::with("sleep 600 & echo $! > child; wait", |spec| spec.timeout_ms = Some(3_000));
    let mut runner = case.spawn();
    let child = case.wait_for_pid("child");
    runner.wait().unwrap();
    assert_eq!(case.status().reason, Reason::TimedOut);
    assert!(!is_alive(child));
}

fn cancelling_ends_even_what_has_detached(cgroup: bool) {
    let script = r#"trap '' TERM
        setsid sh -c 'trap "" TERM; (trap "" TERM; echo $$ > /dev/null; sh -c "echo \$PPID > grandchild; sleep 600") & echo $$ > detached; sleep 600' > /dev/null 2>&1 &
        echo $$ > script; while :; do sleep 600; done"#;
    let case = Case::with(script, |spec| {
        spec.cgroup = cgroup;
        spec.grace_ms = 50;
    });
    let mut runner = case.spawn();
    let pids = ["script", "detached", "grandchild"].map(|name| case.wait_for_pid(name));
    case.attempt.cancel().unwrap();
    runner.wait().unwrap();
    assert_eq!(case.status().reason, Reason::Cancelled);
    assert_eq!(pids.map(is_alive), [false; 3]);
}

#[test]
fn cancelling_ends_even_what_has_detached_by_cgroup() {
    cancelling_ends_even_what_has_detached(true);
}

#[test]
fn cancelling_ends_even_what_has_detached_by_descent() {
    cancelling_ends_even_what_has_detached(false);
}

#[test]
fn grace_lets_a_script_clean_up() {
    let case = Case::new("trap 'echo cleaned; exit 3' TERM; echo $$ > script; while :; do sleep 0.01; done");
    let mut runner = case.spawn();
    case.wait_for_pid("script");
    case.attempt.cancel().unwrap();
    runner.wait().unwrap();
    assert_eq!((case.status().reason, case.status().exit_code), (Reason::Cancelled, Some(3)));
    assert_eq!(case.lines(Stream::Out), ["cleaned"]);
}

#[test]
fn what_a_script_leaves_behind_is_ended_and_its_exit_code_kept() {
    let case = Case::with(
        "setsid sh -c 'echo late; echo $$ > detached; sleep 600' & while [ ! -s detached ]; do sleep 0.01; done; exit 4",
        |spec| {
            spec.grace_ms = 50;
        },
    );
    let status = case.run();
    assert_eq!((status.reason, status.exit_code), (Reason::Exited, Some(4)));
    assert!(status.leftovers > 0);
    assert!(!is_alive(case.wait_for_pid("detached")));
    assert_eq!(case.lines(Stream::Out), ["late"]);
}

#[test]
fn a_second_word_cuts_the_grace_short() {
    let case = Case::with("trap '' TERM; echo $$ > script; while :; do sleep 0.01; done", |spec| {
        spec.grace_ms = 3_600_000;
    });
    let mut runner = case.spawn();
    let script = case.wait_for_pid("script");
    case.attempt.cancel().unwrap();
    case.attempt.cancel().unwrap();
    assert!(is_alive(script));
    case.attempt.kill().unwrap();
    runner.wait().unwrap();
    let status = case.status();
    assert_eq!((status.reason, status.signal), (Reason::Cancelled, Some(9)));
    // It is gone: both are nothing to complain of.
    case.attempt.cancel().unwrap();
    case.attempt.kill().unwrap();
}

#[test]
fn what_ends_by_itself_is_left_to_it() {
    let case = Case::new("trap 'echo told' TERM; (sleep 0.05; echo late) & echo main");
    let status = case.run();
    assert_eq!((status.exit_code, status.leftovers), (Some(0), 0));
    assert_eq!(case.lines(Stream::Out), ["main", "late"]);
}

#[test]
fn a_script_that_has_ended_cannot_be_called_off() {
    let case = Case::with(
        "(trap '' TERM; echo ready > ready; while :; do sleep 0.01; done) & while [ ! -s ready ]; do sleep 0.01; done; echo $$ > script; exit 6",
        |spec| spec.grace_ms = 3_600_000,
    );
    let mut runner = case.spawn();
    let script = case.wait_for_pid("script");
    until("the script to end", || (!is_alive(script)).then_some(()));
    case.attempt.kill().unwrap();
    runner.wait().unwrap();
    let status = case.status();
    assert_eq!((status.reason, status.exit_code), (Reason::Exited, Some(6)));
    assert!(status.leftovers > 0);
}

#[test]
fn a_stopped_script_is_ended_too() {
    let case = Case::new("echo $$ > script; kill -STOP $$");
    let mut runner = case.spawn();
    let script = case.wait_for_pid("script");
    until("the script to stop", || {
        fs::read_to_string(format!("/proc/{script}/stat")).unwrap().contains(") T ").then_some(())
    });
    case.attempt.cancel().unwrap();
    runner.wait().unwrap();
    assert_eq!((case.status().reason, case.status().signal), (Reason::Cancelled, Some(15)));
}

#[test]
fn waiting_costs_no_time() {
    let script = "trap '' TERM; echo $$ > script; while [ ! -e go ]; do sleep 0.01; done
        sleep 0.6; cut -d ' ' -f 14,15 /proc/$PPID/stat";
    let case = Case::with(script, |spec| spec.grace_ms = 30_000);
    let mut runner = case.spawn();
    case.wait_for_pid("script");
    case.attempt.cancel().unwrap();
    fs::write(case.path("go"), "").unwrap();
    runner.wait().unwrap();
    assert_eq!(case.status().reason, Reason::Cancelled);
    let ticks: u64 = case.lines(Stream::Out)[0].split(' ').map(|ticks| ticks.parse::<u64>().unwrap()).sum();
    assert!(ticks <= 10, "the runner used {ticks} hundredths of a second while it waited");
}

#[test]
fn a_cgroup_is_removed_with_what_was_in_it() {
    let case = Case::new("(sleep 600 &) ; cat /proc/self/cgroup");
    let mut runner = case.spawn();
    let script = until("the script", || case.attempt.script().unwrap());
    runner.wait().unwrap();
    // Where this machine has none to give, there is nothing to remove.
    if let Some(cgroup) = script.cgroup {
        assert!(!cgroup.exists(), "{}", cgroup.display());
        let name = cgroup.file_name().unwrap().to_str().unwrap().to_owned();
        assert!(case.lines(Stream::Out).iter().any(|line| line.starts_with("0::") && line.ends_with(&name)));
    }
    assert!(
        Duration::from_millis(case.status().ended_at - case.status().started_at) < Duration::from_secs(5)
    );
}
