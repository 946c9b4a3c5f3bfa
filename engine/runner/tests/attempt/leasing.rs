//! A script runs as long as its engine's lease is renewed.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use orchestrator_runner::identity::boot_id;
use orchestrator_runner::lease::{self, Lease};
use orchestrator_runner::status::Reason;

use crate::support::{Case, is_alive, until};

fn renew(file: &Path, for_ms: u64) {
    let lease = Lease { boot_id: boot_id().unwrap(), deadline_ms: lease::boot_time_ms() + for_ms };
    lease::write(file, &lease).unwrap();
}

fn leased(script: &str, for_ms: u64) -> (tempfile::TempDir, Case) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("lease.json");
    renew(&file, for_ms);
    let case = Case::with(script, |spec| spec.lease_file = Some(file.to_str().unwrap().into()));
    (directory, case)
}

/// Ignores SIGTERM, and has detached something that does so too.
const STUBBORN: &str = r#"trap '' TERM
    setsid sh -c 'trap "" TERM; echo $$ > detached; while :; do sleep 600; done' > /dev/null 2>&1 &
    echo $$ > script; while :; do sleep 600; done"#;

#[test]
fn a_script_whose_engine_does_not_renew_its_lease_is_ended_in_time() {
    let (_directory, case) = leased(STUBBORN, 1_500);
    let begun = Instant::now();
    let mut runner = case.spawn();
    let pids = ["script", "detached"].map(|name| case.wait_for_pid(name));
    runner.wait().unwrap();
    let status = case.status();
    assert_eq!(status.reason, Reason::LeaseLost);
    assert_eq!(pids.map(is_alive), [false; 2]);
    assert!(begun.elapsed() >= Duration::from_millis(1_400), "not before the deadline");
    // The grace that it asked for is 5 s: it gets what is left.
    assert!(status.ended_at - status.started_at < 4_500, "{status:?}");
}

#[test]
fn a_lease_that_is_renewed_keeps_a_script_going() {
    let (directory, case) = leased("echo $$ > script; while [ ! -e open ]; do sleep 0.01; done", 600);
    let file = directory.path().join("lease.json");
    let mut runner = case.spawn();
    case.wait_for_pid("script");
    let begun = Instant::now();
    until("three leases to be over", || {
        renew(&file, 600);
        (begun.elapsed() > Duration::from_millis(1_800)).then_some(())
    });
    renew(&file, 60_000);
    fs::write(case.path("open"), "").unwrap();
    runner.wait().unwrap();
    assert_eq!((case.status().reason, case.status().exit_code), (Reason::Exited, Some(0)));
}

#[test]
fn a_lease_that_cannot_be_read_is_not_renewed() {
    let (directory, case) = leased("echo $$ > script; exec sleep 600", 1_500);
    let mut runner = case.spawn();
    case.wait_for_pid("script");
    fs::write(directory.path().join("lease.json"), "{").unwrap();
    runner.wait().unwrap();
    assert_eq!(case.status().reason, Reason::LeaseLost);
}

#[test]
fn nothing_is_started_when_the_lease_is_over() {
    let (directory, case) = leased(": > begun", 0);
    case.spawn().wait().unwrap();
    assert_eq!((case.status().reason, case.path("begun").exists()), (Reason::LeaseLost, false));
    let other_boot = Lease { boot_id: "another".into(), deadline_ms: u64::MAX };
    lease::write(&directory.path().join("lease.json"), &other_boot).unwrap();
    let file = directory.path().join("lease.json").to_str().unwrap().to_owned();
    let case = Case::with(": > begun", |spec| spec.lease_file = Some(file));
    case.spawn().wait().unwrap();
    assert_eq!((case.status().reason, case.path("begun").exists()), (Reason::LeaseLost, false));
}
