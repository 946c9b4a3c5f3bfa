//! The engine's process is killed at a random moment of a live migration, again and again, while tasks are
//! submitted and run: each time one side is the truth and says so, and nothing is lost or doubled. The first
//! time it is killed as soon as its target is marked, so that a migration is cut off in any case.
//!
//! `ORCHESTRATOR_MIGRATION_KILLS` sets how often, `ORCHESTRATOR_MIGRATION_TASKS` how many tasks wait from the
//! start, `ORCHESTRATOR_KILL_SEED` the seed.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use chrono::Utc;
use orchestrator_protocol::ErrorCode;
use orchestrator_protocol::client::{Client, ClientError};
use orchestrator_protocol::storage::{
    GetMigration, GetStorage, Migration, MigrationStatus, StartMigration, StoragePlace, StorageReport,
    StorageTarget,
};
use orchestrator_protocol::submit::{NewTask, SubmitRequest};
use orchestrator_protocol::task::{TaskId, TaskStatus};
use orchestrator_storage::migration::Phase;
use orchestrator_tests::engine::TestEngine;
use orchestrator_tests::wait;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const ENGINE: &str = env!("CARGO_BIN_EXE_orchestrator-under-test");

/// The number that somebody asked for.
fn asked<T: FromStr>(variable: &str) -> Option<T> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable}={value} is not a number")))
}

/// Somebody who submits one task after the other, whether or not an engine is there. What was not
/// acknowledged is sent again, with the same key.
struct Submitter {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<TaskId>>,
}

impl Submitter {
    fn at(socket: PathBuf, new: NewTask) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut ids = Vec::new();
            while !is_over.load(Ordering::Relaxed) {
                let idempotency_key = Some(format!("submit {}", ids.len()));
                let request = SubmitRequest { tasks: vec![new.clone()], workflow: None, idempotency_key };
                let client = Client::connect(&socket, Some(wait::PATIENCE));
                match client.and_then(|mut client| client.call(request)) {
                    Ok(submitted) => ids.push(submitted.id.unwrap()),
                    Err(ClientError::Refused(error)) if error.code != ErrorCode::Unavailable => {
                        panic!("a submit was refused: {error:?}")
                    }
                    // The engine was killed, or is not there yet.
                    Err(_) => {}
                }
                // A pace that an unoptimised database keeps.
                thread::sleep(Duration::from_millis(50));
            }
            ids
        });
        Self { stop, thread }
    }

    fn end(self) -> Vec<TaskId> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// What the program says of a storage while no engine runs; `None` where there is none.
fn report(engine: &TestEngine, storage: &StorageTarget) -> Option<StorageReport> {
    let flags = [
        ("--source-dir", &storage.dir),
        ("--source-url", &storage.url),
        ("--source-namespace", &storage.namespace),
    ];
    let flags = flags.iter().filter_map(|(flag, value)| Some([*flag, value.as_deref()?])).flatten();
    let output = Command::new(ENGINE)
        .args(["storage", "status", "--json", "--data-dir"])
        .arg(engine.data_dir())
        .args(["--from", &storage.storage_type])
        .args(flags)
        .output()
        .unwrap();
    if output.status.success() {
        return Some(serde_json::from_slice(&output.stdout).unwrap());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(words.contains("there is no storage"), "{words}");
    None
}

/// Moves the records until that is enough, or to the end. How far the migration was then, and after which
/// time.
fn move_until(
    engine: &TestEngine,
    to: &StorageTarget,
    is_enough: impl Fn(&Migration, Duration) -> bool,
) -> (Migration, Duration) {
    let start = Instant::now();
    let id = engine.ask(StartMigration { to: to.clone() }).id;
    loop {
        let migration = *engine.ask(GetMigration { id });
        let after = start.elapsed();
        match migration.status {
            MigrationStatus::Completed => return (migration, after),
            MigrationStatus::Running if is_enough(&migration, after) => return (migration, after),
            MigrationStatus::Running => thread::sleep(Duration::from_millis(1)),
            _ => panic!("{migration:?}"),
        }
    }
}

/// Whether a migration has told that it copies, or what comes after that. Then its target is marked.
fn has_begun(migration: &Migration) -> bool {
    migration.phase != Phase::Checking.as_str()
}

/// What both sides of a migration say whose engine was killed.
struct Found {
    /// Whether the target is the truth.
    has_moved: bool,
    /// Where the truth is.
    place: StoragePlace,
    /// Whether the target has the mark of a migration that has not come to its end.
    is_cut_off: bool,
}

/// Looks at both sides of a migration while no engine runs: exactly one is the truth.
fn look(engine: &TestEngine, from: &StorageTarget, to: &StorageTarget) -> Found {
    let source = report(engine, from).unwrap();
    let target = report(engine, to);
    let is =
        |states: [&str; 2]| target.as_ref().is_some_and(|target| states.contains(&target.state.as_str()));
    match source.state.as_str() {
        "active" => {
            let is_cut_off = is(["migrating", "ready"]);
            let is_empty = target.as_ref().is_none_or(|target| {
                target.epoch == 0 && target.tables.values().all(|records| *records == 0)
            });
            assert!(is_cut_off || is_empty, "{source:?} {target:?}");
            Found { has_moved: false, place: source.place, is_cut_off }
        }
        "sealed" => {
            assert!(is(["ready", "active"]), "{source:?} {target:?}");
            let target = target.unwrap();
            assert_eq!(source.other.as_ref(), Some(&target.place));
            Found { has_moved: true, is_cut_off: target.state == "ready", place: target.place }
        }
        _ => panic!("{source:?} {target:?}"),
    }
}

/// Kills an engine in the middle of moving its records to one storage after the other. `make` says where they
/// go in each round.
pub fn killed_again_and_again(waiting: usize, make: impl Fn(&TestEngine, usize) -> StorageTarget) {
    let seed = asked("ORCHESTRATOR_KILL_SEED").unwrap_or_else(rand::random);
    eprintln!("ORCHESTRATOR_KILL_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let waiting = asked("ORCHESTRATOR_MIGRATION_TASKS").unwrap_or(waiting);
    let kills = asked("ORCHESTRATOR_MIGRATION_KILLS").unwrap_or(10);
    let mut engine = TestEngine::started(ENGINE);
    // Each run of a task leaves a file that no other run may leave.
    let script = engine.script("script", "set -C; : > \"ran.$ORCHESTRATOR_TASK_ID.$ORCHESTRATOR_ATTEMPT\"");
    let tomorrow = Utc::now() + Duration::from_secs(86_400);
    let patient = NewTask { not_before: Some(tomorrow), ..engine.run(&script) };
    let mut known: HashSet<TaskId> = HashSet::new();
    while known.len() < waiting {
        let tasks = vec![patient.clone(); 500.min(waiting - known.len())];
        let submitted = engine.ask(SubmitRequest { tasks, ..SubmitRequest::default() });
        known.extend(submitted.tasks.iter().map(|task| task.id));
    }
    let submitter = Submitter::at(engine.socket(), engine.run(&script));
    let mut from =
        StorageTarget { storage_type: engine.ask(GetStorage {}).place.backend, ..StorageTarget::default() };
    let mut lasts = Duration::from_millis(250);
    let (mut stayed, mut moved, mut cut_off) = (0, 0, 0);
    for round in 0..kills {
        let to = make(&engine, round);
        let moment = lasts.mul_f64(random.random_range(0.0..1.2));
        // The first one as soon as it has begun, whatever the machine does: its end is far away then.
        let is_enough = |migration: &Migration, after: Duration| match round {
            0 => has_begun(migration),
            _ => after >= moment,
        };
        let (migration, after) = move_until(&engine, &to, is_enough);
        engine.kill();
        let Found { has_moved, place, is_cut_off } = look(&engine, &from, &to);
        // Nothing is taken back of what the engine has told.
        assert!(is_cut_off || has_moved || !has_begun(&migration), "the mark is gone: {migration:?}");
        if migration.status == MigrationStatus::Completed {
            assert!(has_moved, "{migration:?}");
            lasts = after;
        }
        cut_off += usize::from(is_cut_off);
        engine.start();
        let now = engine.ask(GetStorage {});
        assert_eq!((&now.place, now.state.as_str()), (&place, "active"));
        let found: HashSet<TaskId> = engine.tasks().into_iter().map(|task| task.id).collect();
        assert!(found.is_superset(&known), "{} tasks are lost", known.difference(&found).count());
        known = found;
        println!(
            "{} after {after:.0?}, {}: {} to {}",
            if has_moved { "moved" } else { "stayed" },
            if is_cut_off { "cut off" } else { "not cut off" },
            from.storage_type,
            to.storage_type
        );
        if has_moved {
            moved += 1;
        } else {
            stayed += 1;
            // The next one finishes what was left there.
            let (migration, after) = move_until(&engine, &to, |_, after| after >= wait::PATIENCE * 10);
            assert_eq!(migration.status, MigrationStatus::Completed, "{migration:?}");
            lasts = after;
        }
        from = to;
    }
    println!("{stayed} stayed, {moved} moved, {cut_off} cut off; a migration took {lasts:.1?} at last");
    assert!(cut_off > 0, "no engine was killed between the mark and the end of its migration");
    let acknowledged = submitter.end();
    for id in &acknowledged {
        assert_eq!(engine.wait(*id).status, TaskStatus::Completed);
    }
    let tasks = engine.tasks();
    assert_eq!(tasks.len(), waiting + acknowledged.len(), "nothing is lost and nothing doubled");
    let mut runs: BTreeMap<String, usize> = BTreeMap::new();
    for file in fs::read_dir(engine.directory()).unwrap().flatten() {
        if let Some(run) = file.file_name().to_str().and_then(|name| name.strip_prefix("ran.")) {
            *runs.entry(run.split('.').next().unwrap().to_owned()).or_default() += 1;
        }
    }
    assert!(runs.values().all(|times| *times == 1), "{runs:?}");
    assert_eq!(runs.len(), acknowledged.len());
}

#[test]
fn a_killed_engine_leaves_one_truth_and_loses_nothing() {
    killed_again_and_again(2_000, |engine, round| StorageTarget {
        storage_type: "filesystem".into(),
        dir: Some(engine.directory().join(format!("to-{round}")).to_str().unwrap().to_owned()),
        ..StorageTarget::default()
    });
}
