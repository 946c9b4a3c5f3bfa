//! A script runs as long as its engine's lease is renewed.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::Path;

use orchestrator_runner::identity::boot_id;
use orchestrator_runner::lease::{self, Lease};
use orchestrator_runner::status::Reason;

use crate::support::{Case, is_alive, until};

/// How long a lease is good: enough for a script to begin, on a machine that has much to do.
const LEASE_MS: u64 = 5_000;

fn renew(file: &Path, for_ms: u64) {
    let lease = Lease { boot_id: boot_id().unwrap(), deadline_ms: lease::boot_time_ms() + for_ms };
    lease::write(file, &lease).unwrap();
}

/// A script whose lease is good for so long, and that asks for more grace than any test waits.
fn leased(script: &str, for_ms: u64) -> (tempfile::TempDir, Case) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("lease.json");
    renew(&file, for_ms);
    let case = Case::with(script, |spec| {
        spec.lease_file = Some(file.to_str().unwrap().into());
        spec.grace_ms = 3_600_000;
    });
    (directory, case)
}

/// Ignores SIGTERM, and has detached something that does so too.
const STUBBORN: &str = r#"trap '' TERM
    setsid sh -c 'trap "" TERM; echo $$ > detached; while :; do sleep 600; done' > /dev/null 2>&1 &
    echo $$ > script; while :; do sleep 600; done"#;

#[test]
fn a_script_whose_engine_does_not_renew_its_lease_is_ended_in_time() {
    let (directory, case) = leased(STUBBORN, LEASE_MS);
    let deadline_ms = lease::deadline_ms(&directory.path().join("lease.json"));
    let mut runner = case.spawn();
    let pids = ["script", "detached"].map(|name| case.wait_for_pid(name));
    // It is given what is left, and not the grace that it asked for.
    runner.wait().unwrap();
    let now_ms = lease::boot_time_ms();
    assert!(now_ms >= deadline_ms, "not before the deadline");
    assert!(now_ms < deadline_ms + 30_000, "{now_ms} for {deadline_ms}");
    assert_eq!(case.status().reason, Reason::LeaseLost);
    assert_eq!(pids.map(is_alive), [false; 2]);
}

#[test]
fn a_lease_that_is_renewed_keeps_a_script_going() {
    let (directory, case) = leased("echo $$ > script; while [ ! -e open ]; do sleep 0.01; done", LEASE_MS);
    let file = directory.path().join("lease.json");
    let first_ms = lease::deadline_ms(&file);
    let mut runner = case.spawn();
    until("the first lease to be over", || {
        renew(&file, LEASE_MS);
        (lease::boot_time_ms() > first_ms).then_some(())
    });
    case.wait_for_pid("script");
    renew(&file, 60_000);
    fs::write(case.path("open"), "").unwrap();
    runner.wait().unwrap();
    assert_eq!((case.status().reason, case.status().exit_code), (Reason::Exited, Some(0)));
}

#[test]
fn a_lease_that_cannot_be_read_is_not_renewed() {
    let (directory, case) = leased("echo $$ > script; exec sleep 600", LEASE_MS);
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
