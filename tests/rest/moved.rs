//! An engine whose records move through all storages while it is asked for work, over the socket and over
//! HTTP: nobody is refused, nothing is lost or run twice, and a script that was begun at the start ends at
//! the end.

use std::collections::HashSet;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use orchestrator_protocol::request::GetStatus;
use orchestrator_protocol::storage::{
    GetMigration, GetStorage, ListMigrations, MigrationStatus, StartMigration, StorageTarget,
};
use orchestrator_protocol::task::{TaskId, TaskStatus};
use orchestrator_tests::engine::TestEngine;
use orchestrator_tests::gate::{GATED, gated, has_begun, open_gate};
use orchestrator_tests::surrealdb::SurrealServer;
use orchestrator_tests::wait;

use crate::door::Door;

/// Where the records go, one after the other.
fn ways(engine: &TestEngine, server: &SurrealServer) -> Vec<StorageTarget> {
    let there =
        |storage_type: &str| StorageTarget { storage_type: storage_type.into(), ..Default::default() };
    let dir = |name: &str| Some(engine.directory().join(name).to_str().unwrap().to_owned());
    let database = |scheme: &str| {
        let options = server.database(scheme);
        StorageTarget {
            url: Some(options.url),
            namespace: Some(options.namespace),
            ..there("surrealdb-server")
        }
    };
    // Each way between two kinds once.
    vec![
        database("ws"),
        StorageTarget { dir: dir("embedded"), ..there("surrealdb-embedded") },
        database("http"),
        StorageTarget { dir: dir("files"), ..there("filesystem") },
        StorageTarget { dir: dir("embedded-again"), ..there("surrealdb-embedded") },
        StorageTarget { dir: dir("back"), ..there("filesystem") },
    ]
}

#[test]
fn records_move_through_all_storages_and_nobody_is_refused() {
    let server = SurrealServer::start(env!("CARGO_BIN_EXE_surrealdb-server-for-tests"), true);
    let door = Arc::new(Door::open(&[]));
    let engine = &door.engine;
    let long = engine.script("long", GATED);
    let held = engine.submit(gated(engine, &long, "held"));
    wait::until("the long script", || has_begun(engine, "held").then_some(()));
    // Each run of a task leaves a file that no other run may leave.
    let short = engine.script("short", "set -C; : > \"ran.$ORCHESTRATOR_TASK_ID.$ORCHESTRATOR_ATTEMPT\"");
    let stop = Arc::new(AtomicBool::new(false));
    let submitted = Arc::new(AtomicUsize::new(0));
    let submitters: Vec<_> = ["socket", "http"]
        .into_iter()
        .map(|way| {
            let (door, stop, submitted) = (Arc::clone(&door), Arc::clone(&stop), Arc::clone(&submitted));
            let short = short.clone();
            thread::spawn(move || {
                let mut ids: Vec<TaskId> = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    ids.push(match way {
                        "socket" => door.engine.submit(door.engine.run(&short)),
                        _ => by_http(&door, &short),
                    });
                    submitted.fetch_add(1, Ordering::Relaxed);
                    // A pace that an unoptimised database keeps.
                    thread::sleep(Duration::from_millis(100));
                }
                ids
            })
        })
        .collect();
    let goes_on = || {
        let before = submitted.load(Ordering::Relaxed);
        wait::until("submits to go on", || (submitted.load(Ordering::Relaxed) > before + 4).then_some(()));
    };
    let ways = ways(engine, &server);
    let mut here = "filesystem";
    for (moves, to) in ways.iter().enumerate() {
        goes_on();
        let life = engine.ask(GetStatus {}).started_at;
        let started = engine.ask(StartMigration { to: to.clone() });
        let ended = wait::until("the migration", || {
            let migration = engine.ask(GetMigration { id: started.id });
            (migration.status != MigrationStatus::Running).then_some(migration)
        });
        assert_eq!(ended.status, MigrationStatus::Completed, "{ended:?}");
        let is_opened_again = [here, to.storage_type.as_str()].contains(&"surrealdb-server");
        here = &to.storage_type;
        let status = wait::until("the engine where its records are", || {
            let status = engine.ask(GetStatus {});
            (is_opened_again == (status.started_at != life)).then_some(status)
        });
        assert_eq!(status.storage.backend, to.storage_type);
        let report = engine.ask(GetStorage {});
        assert_eq!((report.place, report.epoch), (ended.to.clone(), moves as u64 + 1));
        println!("{}: {} records, waited {:?} us", to.storage_type, ended.records_total, ended.waited_us);
        goes_on();
    }
    assert_eq!(engine.ask(ListMigrations {}).len(), ways.len(), "what is known of them moves along");
    stop.store(true, Ordering::Relaxed);
    let mut ids = Vec::new();
    for submitter in submitters {
        ids.extend(submitter.join().unwrap());
    }
    open_gate(engine);
    let held = engine.wait(held);
    assert_eq!((held.status, held.attempt), (TaskStatus::Completed, 1), "{held:?}");
    for id in &ids {
        let task = engine.wait(*id);
        assert_eq!(task.status, TaskStatus::Completed, "{task:?}");
    }
    let of_submits: HashSet<TaskId> = engine.tasks().iter().map(|task| task.id).collect();
    assert_eq!(of_submits.len(), ids.len() + 1, "nothing is lost and nothing doubled");
    let ran = fs::read_dir(engine.directory()).unwrap().flatten();
    let ran = ran.filter(|file| file.file_name().to_string_lossy().starts_with("ran.")).count();
    assert_eq!(ran, ids.len(), "each task has run once");
}

fn by_http(door: &Door, script: &str) -> TaskId {
    door.queue("/workflows", &serde_json::json!({ "tasks": [{ "script": script }] })).parse().unwrap()
}
