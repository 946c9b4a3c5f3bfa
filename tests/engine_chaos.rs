//! Three engines on one SurrealDB server under load, of which one at random is killed, stopped for longer
//! than its lease, or cut off from the database: every task ends as a single engine would have ended it, no
//! two attempts of a task overlap, and nothing that was sent too late is written.
//!
//! `ORCHESTRATOR_CHAOS_ROUNDS` sets the number of rounds, `ORCHESTRATOR_CHAOS_SEED` the seed.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

#[path = "engine_chaos/cluster.rs"]
mod cluster;
#[path = "engine_chaos/load.rs"]
mod load;
#[path = "engine_chaos/observer.rs"]
mod observer;
#[path = "engine_chaos/rounds.rs"]
mod rounds;

use std::fs;
use std::process::{Child, Command};

use orchestrator_tests::history::several::{self, History, What};
use orchestrator_tests::wait;
use rand::SeedableRng;
use rand::rngs::StdRng;

use load::{Load, Submission};
use rounds::Chaos;

fn variable<T: std::str::FromStr<Err: std::fmt::Debug>>(name: &str) -> Option<T> {
    std::env::var(name).ok().map(|value| value.parse().unwrap())
}

#[test]
fn whatever_becomes_of_one_engine_the_others_see_to_it_that_every_task_ends_as_it_should() {
    let seed = variable("ORCHESTRATOR_CHAOS_SEED").unwrap_or_else(rand::random);
    eprintln!("ORCHESTRATOR_CHAOS_SEED={seed}");
    let mut chaos = Chaos::start(seed);
    for number in 0..variable("ORCHESTRATOR_CHAOS_ROUNDS").unwrap_or(3) {
        chaos.round(number);
    }
    chaos.finish();
}

/// Starts the script of a submission as an engine would, as this attempt.
fn begin(load: &Load, submission: &Submission, attempt: u32, pause: &str) -> Child {
    Command::new(load.script())
        .envs(load::environment(submission))
        .env("PAUSE", pause)
        .env("ORCHESTRATOR_ATTEMPT", attempt.to_string())
        .env("ORCHESTRATOR_FENCE", attempt.to_string())
        .spawn()
        .unwrap()
}

/// Waits until a script has left a mark of some kind.
fn until_marked(load: &Load, fence: u64, what: impl Fn(&What) -> bool) {
    wait::until("a mark", || {
        load.marks().iter().any(|mark| mark.fence == fence && what(&mark.what)).then_some(())
    });
}

/// What is wrong with the marks.
fn wrong(load: &Load) -> String {
    several::check(&History { marks: load.marks(), ..History::default() }).join("\n")
}

#[test]
fn scripts_that_run_at_once_mark_it() {
    let mut load = Load::new();
    let gate = load.gate();
    let submission = load.gated(&gate, false, &mut StdRng::seed_from_u64(1));
    let mut first = begin(&load, &submission, 1, "0");
    until_marked(&load, 1, |what| matches!(what, What::Start { .. }));
    assert_eq!(wrong(&load), "");
    let mut second = begin(&load, &submission, 2, "0");
    // Whichever comes second; it has begun by then.
    wait::until("a mark", || {
        let is_overlap = |what: &What| matches!(what, What::Overlap { .. });
        load.marks().iter().any(|mark| is_overlap(&mark.what)).then_some(())
    });
    gate.open();
    for child in [&mut first, &mut second] {
        assert!(child.wait().unwrap().success());
    }
    let wrong = wrong(&load);
    assert!(wrong.contains("was at work after that with fence"), "{wrong}");
    assert!(wrong.contains("was alive when that with fence"), "{wrong}");
}

#[test]
fn what_a_killed_script_has_left_running_is_marked() {
    let mut load = Load::new();
    let gate = load.gate();
    gate.open();
    let submission = load.gated(&gate, false, &mut StdRng::seed_from_u64(1));
    let mut first = begin(&load, &submission, 1, "600");
    let id = first.id();
    let sleeping = wait::until("what the script starts", || {
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).ok()?;
        let child: i32 = children.split_whitespace().next()?.parse().ok()?;
        let name = fs::read_to_string(format!("/proc/{child}/comm")).ok()?;
        (name.trim() == "sleep").then_some(child)
    });
    first.kill().unwrap();
    first.wait().unwrap();
    assert!(begin(&load, &submission, 2, "0").wait().unwrap().success());
    let wrong = wrong(&load);
    assert!(wrong.contains("was alive when that with fence 2 began"), "{wrong}");
    let sleeping = rustix::process::Pid::from_raw(sleeping).unwrap();
    rustix::process::kill_process(sleeping, rustix::process::Signal::KILL).unwrap();
}
