//! Real processes: an engine whose records are moved under it, and the program on a stopped engine.

use std::process::Command;
use std::sync::Arc;

use orchestrator_engine::engine::{Ended, Engine};
use orchestrator_protocol::ErrorCode;
use orchestrator_protocol::request::{GetStatus, StopMode};
use orchestrator_protocol::storage::{
    CancelMigration, Exported, GetMigration, GetStorage, ListMigrations, Migration, MigrationId,
    MigrationStatus, StartMigration, StorageReport, StorageTarget, ValidateMigration, Validation,
};
use orchestrator_protocol::task::TaskStatus;
use orchestrator_tests::engine::TestEngine;
use orchestrator_tests::gate::{GATED, gated, has_begun, open_gate};
use orchestrator_tests::shared::until;
use orchestrator_tests::{store, wait};
use serde::de::DeserializeOwned;

const ENGINE: &str = env!("CARGO_BIN_EXE_orchestrator-under-test");

fn target(engine: &TestEngine, name: &str) -> StorageTarget {
    let dir = engine.directory().join(name).to_str().unwrap().to_owned();
    StorageTarget { storage_type: "filesystem".into(), dir: Some(dir), ..StorageTarget::default() }
}

#[test]
fn an_engine_goes_on_and_the_next_one_follows() {
    let mut engine = TestEngine::started(ENGINE);
    let script = engine.script("script", GATED);
    let running = engine.submit(gated(&engine, &script, "running"));
    wait::until("the script", || has_begun(&engine, "running").then_some(()));
    let to = target(&engine, "elsewhere");
    let there = to.dir.clone().unwrap();
    let validation = engine.ask(ValidateMigration { to: to.clone() });
    assert!(validation.is_possible, "{validation:?}");
    assert!(!engine.directory().join("elsewhere").exists(), "nothing was changed");
    let started = engine.ask(StartMigration { to: to.clone() });
    let ended = wait::until("the migration", || {
        let migration = engine.ask(GetMigration { id: started.id });
        (migration.status != MigrationStatus::Running).then_some(migration)
    });
    assert_eq!(ended.status, MigrationStatus::Completed, "{ended:?}");
    assert!(ended.waited_us.is_some() && ended.checksum.is_some());
    assert_eq!(engine.ask(ListMigrations {}), vec![*ended.clone()]);
    assert_eq!(engine.ask(CancelMigration { id: started.id }).status, MigrationStatus::Completed);
    let report = engine.ask(GetStorage {});
    assert_eq!((report.place.location.as_str(), report.epoch, report.state.as_str()), (&*there, 1, "active"));
    assert!(engine.ask(GetStatus {}).storage.location.starts_with(&there));
    // The script was started before the move, ends after it, and new ones come.
    let later = engine.submit(gated(&engine, &script, "later"));
    open_gate(&engine);
    assert_eq!(engine.wait(running).status, TaskStatus::Completed);
    assert_eq!(engine.wait(later).status, TaskStatus::Completed);
    let refused = engine.refused(StartMigration { to });
    assert_eq!(refused.code, ErrorCode::Conflict, "{refused:?}");
    let refused = engine.refused(GetMigration { id: MigrationId::generate() });
    assert_eq!(refused.code, ErrorCode::NotFound);
    // With its old configuration the next engine follows, and says what to configure.
    engine.terminate();
    engine.start();
    assert_eq!(engine.tasks().len(), 2);
    assert_eq!(engine.task(later).status, TaskStatus::Completed);
    let log = engine.log();
    assert!(
        log.contains(&format!("storage_dir = \\\"{there}\\\""))
            || log.contains(&format!("storage_dir = \"{there}\"")),
        "{log}"
    );
    // And after a kill as well.
    engine.kill();
    engine.start();
    assert_eq!(engine.tasks().len(), 2);
}

/// Wherever the records are: attempts and the socket are in the data directory.
#[test]
fn one_engine_has_a_data_directory_at_a_time_wherever_its_records_are() {
    let engine = TestEngine::started(ENGINE);
    let other = engine.directory().join("other");
    let refused = Command::new(ENGINE)
        .args(["--no-http", "--data-dir"])
        .arg(engine.data_dir())
        .arg("--storage-dir")
        .arg(&other)
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success(), "{words}");
    assert!(words.contains("another engine already uses the data directory"), "{words}");
    assert!(!other.exists());
    assert!(engine.tasks().is_empty(), "the first one goes on");
}

fn storage(engine: &TestEngine, words: &[&str]) -> Command {
    let mut command = Command::new(ENGINE);
    command.arg("storage").args(words).arg("--data-dir").arg(engine.data_dir());
    command.current_dir(engine.directory());
    command
}

fn json<T: DeserializeOwned>(engine: &TestEngine, words: &[&str]) -> T {
    answered(storage(engine, words).arg("--json"))
}

fn answered<T: DeserializeOwned>(command: &mut Command) -> T {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn refusal(engine: &TestEngine, words: &[&str]) -> String {
    let output = storage(engine, words).output().unwrap();
    assert!(!output.status.success(), "{words:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn the_program_moves_the_records_of_a_stopped_engine() {
    let mut engine = TestEngine::started(ENGINE);
    let script = engine.script("script", "echo done");
    let id = engine.submit(engine.run(&script));
    engine.wait(id);
    let in_use = refusal(&engine, &["migrate", "--target-dir", "new"]);
    assert!(in_use.contains("orchestrator stop"), "{in_use}");
    engine.terminate();
    let report: StorageReport = json(&engine, &["status"]);
    assert_eq!((report.state.as_str(), report.tables["task"]), ("active", 1));
    for words in [&["validate", "--target-dir", "new"][..], &["migrate", "--dry-run", "--target-dir", "new"]]
    {
        let validation: Validation = json(&engine, words);
        assert!(validation.is_possible, "{validation:?}");
        assert!(!engine.directory().join("new").exists());
    }
    let own = store::backend();
    let same = refusal(&engine, &["migrate", "--to", own]);
    assert!(same.contains("already"), "{same}");
    let exported: Exported = json(&engine, &["export", "records.jsonl"]);
    let migration: Migration =
        json(&engine, &["migrate", "--from", own, "--to", "filesystem", "--target-dir", "new"]);
    assert_eq!(migration.status, MigrationStatus::Completed);
    assert_eq!(migration.checksum.as_ref(), Some(&exported.checksum));
    let report: StorageReport = json(&engine, &["status"]);
    assert_eq!((report.state.as_str(), report.other.unwrap().location), ("sealed", migration.to.location));
    let sealed = refusal(&engine, &["export", "more.jsonl"]);
    assert!(sealed.contains("have moved already"), "{sealed}");
    // Once more does no harm.
    let again: Migration = json(&engine, &["migrate", "--target-dir", "new"]);
    assert_eq!(again.status, MigrationStatus::Completed);
    engine.start();
    assert_eq!(engine.task(id).status, TaskStatus::Completed);
    engine.terminate();
    // Once they have moved on, it says where to.
    let onward = ["migrate", "--from", "filesystem", "--source-dir", "new", "--target-dir", "onward"];
    let onward: Migration = json(&engine, &onward);
    let moved_on = refusal(&engine, &["migrate", "--target-dir", "new"]);
    assert!(
        moved_on.contains(&format!("and from there to the filesystem in {}", onward.to.location)),
        "{moved_on}"
    );
    // From the file the same tasks come to a third place.
    let imported: Exported = json(&engine, &["import", "records.jsonl", "--target-dir", "third"]);
    assert_eq!((imported.records, imported.checksum), (exported.records, exported.checksum));
    let report: StorageReport = json(&engine, &["status", "--source-dir", "third"]);
    assert_eq!(report.tables["task"], 1);
    let missing = refusal(&engine, &["status", "--source-dir", "nowhere"]);
    assert!(missing.contains("there is no storage"), "{missing}");
    assert!(!engine.directory().join("nowhere").exists());
}

#[test]
fn the_program_looks_where_an_engine_was_told_to_keep_its_records() {
    const TYPE: [&str; 2] = ["--storage-type", "filesystem"];
    let engine = TestEngine::new(ENGINE);
    let elsewhere = engine.directory().join("elsewhere");
    let dir = elsewhere.to_str().unwrap();
    let mut engine = engine.with_arguments(&[&TYPE[..], &["--storage-dir", dir]].concat());
    engine.start();
    let script = engine.script("script", "echo done");
    let id = engine.submit(engine.run(&script));
    engine.wait(id);
    engine.terminate();
    // The data directory holds no records.
    let missing = refusal(&engine, &[&["status"][..], &TYPE].concat());
    assert!(missing.contains("there is no storage"), "{missing}");
    let told = [&["status"][..], &TYPE, &["--storage-dir", dir]].concat();
    let report: StorageReport = json(&engine, &told);
    assert_eq!((report.place.location.as_str(), report.tables["task"]), (dir, 1));
    // The same in the environment, where the engine finds it too.
    let environment = [("ORCHESTRATOR_STORAGE_TYPE", "filesystem"), ("ORCHESTRATOR_STORAGE_DIR", dir)];
    let same: StorageReport = answered(storage(&engine, &["status", "--json"]).envs(environment));
    assert_eq!((&same.place, &same.tables), (&report.place, &report.tables));
    let words = ["migrate", "--target-dir", "new", "--json"];
    let moved: Migration = answered(storage(&engine, &words).envs(environment));
    assert_eq!((moved.status, &moved.from), (MigrationStatus::Completed, &report.place));
    // What is said of the source comes before what is configured.
    let words = ["status", "--json", "--source-dir", "new"];
    let there: StorageReport = answered(storage(&engine, &words).envs(environment));
    assert_eq!((&there.place, there.tables["task"]), (&moved.to, 1));
    engine.start();
    assert_eq!(engine.task(id).status, TaskStatus::Completed, "it follows");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_is_opened_again_where_its_records_are_now_and_makes_no_empty_storage() {
    let directory = tempfile::tempdir().unwrap();
    let (config, new) = (crate::crashes::config(directory.path()), directory.path().join("new"));
    let engine = Engine::open(config.clone()).await.unwrap();
    let migrations = Arc::clone(&engine.service().migrations);
    let to = StorageTarget {
        storage_type: "filesystem".into(),
        dir: Some(new.to_str().unwrap().into()),
        ..StorageTarget::default()
    };
    let id = migrations.start(&to).await.unwrap().id;
    until("the migration", async || {
        let migration = migrations.get(id).await.unwrap();
        (migration.status == MigrationStatus::Completed).then_some(())
    })
    .await;
    let stop = engine.service().stop.clone();
    stop.send(StopMode::Now).await.unwrap();
    assert_eq!(engine.run().await.unwrap(), Ended::Stopped);
    let old = directory.path().join("queue.rkvs");
    std::fs::remove_dir_all(&old).unwrap();
    let here = Arc::unwrap_or_clone(migrations.here());
    assert_eq!(here.storage_dir, new);
    drop(Engine::open_again(here).await.unwrap());
    let refused = Engine::open_again(config).await.err().unwrap();
    assert!(format!("{refused:#}").contains("there is no storage"), "{refused:#}");
    assert!(!old.exists());
}

#[test]
fn what_does_not_fit_the_kind_of_storage_is_refused() {
    let mut engine = TestEngine::started(ENGINE);
    let to = |change: fn(&mut StorageTarget)| {
        let mut to = StorageTarget { storage_type: "filesystem".into(), ..StorageTarget::default() };
        change(&mut to);
        to
    };
    let refused = engine.refused(ValidateMigration { to: to(|to| to.database = Some("new".into())) });
    assert_eq!(refused.code, ErrorCode::Invalid, "{refused:?}");
    assert!(refused.message.contains("surrealdb-server"), "{refused:?}");
    engine.terminate();
    for words in [
        &["validate", "--to", "filesystem", "--target-database", "new"][..],
        &["migrate", "--to", "surrealdb-server", "--target-dir", "new"],
        &["status", "--from", "filesystem", "--source-namespace", "other"],
    ] {
        let refused = refusal(&engine, words);
        assert!(refused.contains("surrealdb-server"), "{words:?}: {refused}");
    }
    // What is said of a server makes it one, in a build that knows it.
    let refused = refusal(&engine, &["validate", "--target-url", "ws://127.0.0.1:9"]);
    let expected =
        if cfg!(feature = "surrealdb") { "cannot be moved" } else { "no storage 'surrealdb-server'" };
    assert!(refused.contains(expected) || refused.contains("cannot be moved"), "{refused}");
}
