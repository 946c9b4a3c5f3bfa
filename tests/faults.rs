//! The whole engine on a disk that fails, fills up and loses power.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use orchestrator_engine::config::{Arguments, Config};
use orchestrator_engine::engine::{Doors, Ended, Engine, Signals};
use orchestrator_engine::queue::finish::Ending;
use orchestrator_engine::service::EngineService;
use orchestrator_protocol::client::Client;
use orchestrator_protocol::provision::ProvisionRequest;
use orchestrator_protocol::request::{Call, GetTask, StopEngine, StopMode};
use orchestrator_protocol::service::{Caller, Service};
use orchestrator_protocol::submit::{NewTask, SubmitRequest};
use orchestrator_protocol::task::{AttemptOutcome, RetryPolicy, Task, TaskId, TaskStatus, Work};
use orchestrator_protocol::{Error, ErrorCode};
use orchestrator_storage::chaos::{ChaosPlan, ChaosStore};
use orchestrator_storage::filesystem::faulty_disk::{Fault, FaultyDisk};
use orchestrator_storage::filesystem::{FilesystemOptions, FilesystemStore};
use orchestrator_storage::{Store, StoreError};
use orchestrator_tests::engine::TestEngine;
use orchestrator_tests::{store, wait};
use serde_json::json;
use tokio::task::JoinHandle;

const ENGINE: &str = env!("CARGO_BIN_EXE_orchestrator-under-test");
const RUNNER: &str = env!("CARGO_BIN_EXE_orchestrator-under-test-runner");

/// An engine inside this process, on a store of the test's choice.
struct Inside {
    service: Arc<EngineService>,
    running: JoinHandle<anyhow::Result<Ended>>,
}

impl Inside {
    async fn start(directory: &Path, store: Arc<dyn Store>) -> Self {
        let engine = Self::open(directory, store).await;
        Self { service: engine.service(), running: tokio::spawn(engine.run()) }
    }

    async fn open(directory: &Path, store: Arc<dyn Store>) -> Engine {
        let socket = directory.join("engine.sock");
        let arguments = [
            "orchestrator",
            "--no-http",
            "--data-dir",
            directory.to_str().unwrap(),
            "--socket",
            socket.to_str().unwrap(),
        ];
        let mut config = Config::load(Arguments::parse_from(arguments)).unwrap();
        config.runner = RUNNER.into();
        config.runner_args = Vec::new();
        fs::create_dir_all(config.attempts_dir()).unwrap();
        Engine::on_store(config, store).await.unwrap()
    }

    /// One that is opened again behind doors that stay open.
    async fn behind_doors(
        directory: &Path,
        store: Arc<dyn Store>,
    ) -> (Self, JoinHandle<(anyhow::Result<Ended>, Doors, Signals)>) {
        let engine = Self::open(directory, store).await;
        let service = engine.service();
        let running = tokio::spawn(async move {
            let (mut doors, mut signals) = (Doors::default(), Signals::new().unwrap());
            let ended = engine.run_behind(&mut doors, &mut signals).await;
            (ended, doors, signals)
        });
        (Self { service, running: tokio::spawn(async { Ok(Ended::Stopped) }) }, running)
    }

    async fn ask<C: Call>(&self, call: C) -> Result<C::Reply, Error> {
        let response = self.service.call(&Caller::Local { pid: None }, call.into()).await?;
        Ok(C::reply(response).unwrap())
    }

    async fn submit(&self, directory: &Path, script: &Path, name: &str) -> Result<TaskId, Error> {
        let task = NewTask {
            name: Some(name.to_owned()),
            script: script.to_str().unwrap().to_owned(),
            cwd: Some(directory.to_str().unwrap().to_owned()),
            env: BTreeMap::from([("NAME".to_owned(), name.to_owned())]),
            retry: Some(RetryPolicy { max_retries: 0, ..RetryPolicy::default() }),
            ..NewTask::default()
        };
        let request =
            SubmitRequest { tasks: vec![task], workflow: None, idempotency_key: Some(name.to_owned()) };
        Ok(self.ask(request).await?.id.unwrap())
    }

    async fn wait(&self, id: TaskId) -> Task {
        let deadline = tokio::time::Instant::now() + wait::PATIENCE;
        let mut last = None;
        while tokio::time::Instant::now() < deadline {
            match self.ask(GetTask { id }).await {
                Ok(task) if task.status.is_final() => return *task,
                other => last = Some(other),
            }
            tokio::task::yield_now().await;
            tokio::task::spawn_blocking(|| std::thread::park_timeout(Duration::from_millis(5)))
                .await
                .unwrap();
        }
        panic!("the task does not end: {last:?}");
    }

    /// Stops it as a crash would not: but what it cannot write any more is not waited for.
    async fn stop(self) {
        let _ = self.service.stop.send(StopMode::Now).await;
        // A store that has failed cannot be closed in peace.
        let _ = self.running.await.unwrap();
    }
}

/// Asks at the door for the end; how many attempts are under way.
async fn stop(directory: &Path, mode: StopMode) -> u64 {
    let socket = directory.join("engine.sock");
    let asked = tokio::task::spawn_blocking(move || {
        let mut client = Client::connect(&socket, Some(wait::PATIENCE)).unwrap();
        client.call(StopEngine { mode }).unwrap().running
    });
    asked.await.unwrap()
}

fn script(directory: &Path, body: &str) -> std::path::PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let path = directory.join("script");
    fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// Opens the store, as an engine does: a runner that was started in the last moment of the one before holds
/// its lock until the system has closed, in the middle of its `exec`, what it is not to inherit.
fn open(directory: &Path, disk: &FaultyDisk) -> Arc<FilesystemStore> {
    let options = FilesystemOptions { min_free_bytes: 0, ..FilesystemOptions::new(directory) };
    let store = wait::until("the lock of the store", || {
        match FilesystemStore::open_on(options.clone(), Arc::new(disk.clone())) {
            Err(StoreError::InUse { .. }) => None,
            other => Some(other.unwrap()),
        }
    });
    Arc::new(store)
}

fn starts(directory: &Path) -> Vec<String> {
    let text = fs::read_to_string(directory.join("starts")).unwrap_or_default();
    let mut starts: Vec<String> = text.lines().map(String::from).collect();
    starts.sort();
    starts
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_failed_sync_nothing_is_acknowledged_until_the_store_was_opened_again() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let script = script(directory, r#"echo "$NAME" >> starts; while [ ! -e open ]; do sleep 0.01; done"#);
    let disk = FaultyDisk::new(7);
    let engine = Inside::start(directory, open(directory, &disk)).await;
    let first = engine.submit(directory, &script, "first").await.unwrap();
    tokio::task::spawn_blocking({
        let directory = directory.to_owned();
        move || wait::until("the script", || (!starts(&directory).is_empty()).then_some(()))
    })
    .await
    .unwrap();
    disk.inject(Fault::Sync);
    for name in ["second", "third"] {
        let refused = engine.submit(directory, &script, name).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::Unavailable, "{refused:?}");
    }
    // It ends by itself, to be opened again, and leaves its script running.
    assert_eq!(engine.running.await.unwrap().unwrap(), Ended::Failed);
    disk.lose_power().unwrap();
    fs::write(directory.join("open"), "").unwrap();
    let engine = Inside::start(directory, open(directory, &disk)).await;
    // The script was running all the time, and is not started again.
    assert_eq!(engine.wait(first).await.status, TaskStatus::Completed);
    let second = engine.submit(directory, &script, "second").await.unwrap();
    assert_eq!(engine.wait(second).await.status, TaskStatus::Completed);
    assert_eq!(starts(directory), ["first", "second"]);
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_word_to_stop_that_comes_while_no_engine_answers_is_kept_for_the_next_one() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let script = script(directory, r#"echo "$NAME" >> starts; while [ ! -e open ]; do sleep 0.01; done"#);
    let disk = FaultyDisk::new(7);
    let (inside, running) = Inside::behind_doors(directory, open(directory, &disk)).await;
    let id = inside.submit(directory, &script, "first").await.unwrap();
    tokio::task::spawn_blocking({
        let directory = directory.to_owned();
        move || wait::until("the script", || (!starts(&directory).is_empty()).then_some(()))
    })
    .await
    .unwrap();
    disk.inject(Fault::Sync);
    inside.submit(directory, &script, "second").await.unwrap_err();
    let (ended, mut doors, mut signals) = running.await.unwrap();
    assert_eq!(ended.unwrap(), Ended::Failed);
    doors.refuse("its storage is away").await;
    assert_eq!(stop(directory, StopMode::Cancel).await, 1, "its script goes on");
    disk.lose_power().unwrap();
    let engine = Inside::open(directory, open(directory, &disk)).await;
    assert_eq!(engine.run_behind(&mut doors, &mut signals).await.unwrap(), Ended::Stopped);
    let engine = Inside::start(directory, open(directory, &disk)).await;
    assert_eq!(engine.wait(id).await.status, TaskStatus::Cancelled);
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_runs_nothing_stops_at_once_while_its_storage_is_away() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let script = script(directory, "true");
    let disk = FaultyDisk::new(7);
    let (inside, running) = Inside::behind_doors(directory, open(directory, &disk)).await;
    disk.inject(Fault::Sync);
    inside.submit(directory, &script, "first").await.unwrap_err();
    let (ended, doors, _signals) = running.await.unwrap();
    assert_eq!(ended.unwrap(), Ended::Failed);
    doors.refuse("its storage is away").await;
    let (running, ()) = tokio::join!(stop(directory, StopMode::Drain), doors.stop_now());
    assert_eq!(running, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_new_work_and_what_runs_is_finished_when_there_is_space() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let script = script(directory, r#"echo "$NAME" >> starts; while [ ! -e open ]; do sleep 0.01; done"#);
    let disk = FaultyDisk::new(11);
    let engine = Inside::start(directory, open(directory, &disk)).await;
    let running = engine.submit(directory, &script, "running").await.unwrap();
    tokio::task::spawn_blocking({
        let directory = directory.to_owned();
        move || wait::until("the script", || (!starts(&directory).is_empty()).then_some(()))
    })
    .await
    .unwrap();
    disk.limit_free_bytes(Some(100));
    let refused = engine.submit(directory, &script, "refused").await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Unavailable);
    assert!(refused.message.starts_with("no space left for the store in"), "{refused:?}");
    // It ends while its end cannot be stored.
    fs::write(directory.join("open"), "").unwrap();
    disk.limit_free_bytes(None);
    assert_eq!(engine.wait(running).await.status, TaskStatus::Completed);
    let accepted = engine.submit(directory, &script, "refused").await.unwrap();
    assert_eq!(engine.wait(accepted).await.status, TaskStatus::Completed);
    assert_eq!(starts(directory), ["refused", "running"]);
    engine.stop().await;
}

/// The power of the disk fails in the middle of a write or a sync, at ten different changes.
#[tokio::test(flavor = "multi_thread")]
async fn a_loss_of_power_loses_nothing_that_was_acknowledged() {
    for after in 1..=10 {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        let script = script(directory, r#"echo "$NAME" >> starts"#);
        let disk = FaultyDisk::new(after);
        let engine = Inside::start(directory, open(directory, &disk)).await;
        disk.cut_power_after(disk.changes() + 3 * after);
        let mut acknowledged = Vec::new();
        for number in 0.. {
            let name = format!("t{number:02}");
            match engine.submit(directory, &script, &name).await {
                Ok(id) => acknowledged.push((name, id)),
                Err(error) => {
                    assert_eq!(error.code, ErrorCode::Unavailable, "{error:?}");
                    break;
                }
            }
        }
        engine.stop().await;
        disk.lose_power().unwrap();
        let engine = Inside::start(directory, open(directory, &disk)).await;
        for (name, id) in &acknowledged {
            assert_eq!(
                engine.wait(*id).await.status,
                TaskStatus::Completed,
                "{name}, power lost after {after}"
            );
        }
        engine.stop().await;
        let started = starts(directory);
        let twice = started.windows(2).find(|pair| pair[0] == pair[1]);
        assert_eq!(twice, None, "started twice, power lost after {after}");
        assert!(acknowledged.iter().all(|(name, _)| started.contains(name)), "{acknowledged:?} {started:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_fails_half_way_is_refused_and_the_next_one_succeeds() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let script = script(directory, r#"echo "$NAME" >> starts"#);
    let disk = FaultyDisk::new(5);
    let engine = Inside::start(directory, open(directory, &disk)).await;
    disk.inject(Fault::Write);
    let refused = engine.submit(directory, &script, "first").await.unwrap_err();
    assert!(matches!(refused.code, ErrorCode::Internal | ErrorCode::Unavailable), "{refused:?}");
    let id = engine.submit(directory, &script, "first").await.unwrap();
    assert_eq!(engine.wait(id).await.status, TaskStatus::Completed);
    engine.stop().await;
    let engine = Inside::start(directory, open(directory, &disk)).await;
    assert_eq!(engine.wait(id).await.status, TaskStatus::Completed);
    assert_eq!(starts(directory), ["first"]);
    engine.stop().await;
}

/// The engine's own step meets a full disk: its failure is handed on, and stored once there is space.
#[tokio::test]
async fn a_step_of_the_engine_that_meets_a_full_disk_is_not_forgotten() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let disk = FaultyDisk::new(13);
    let queue = orchestrator_tests::queue::queue_on(open(directory, &disk), 4);
    fs::write(directory.join("settings.yaml"), "").unwrap();
    let request = ProvisionRequest {
        infra: "production".into(),
        settings: "settings.yaml".into(),
        cwd: Some(directory.to_str().unwrap().into()),
        ..ProvisionRequest::default()
    };
    queue.provision("test", &request).await.unwrap();
    let names = queue.claim(queue.next().unwrap()).await.unwrap().unwrap().task;
    let result = Some(serde_json::json!({"servers": ["web-01"]}));
    let reported = Ending { result, ..Ending::bare(AttemptOutcome::Succeeded, None) };
    queue.finish(names.id, names.fence, &reported).await.unwrap();
    let step = queue.claim(queue.next().unwrap()).await.unwrap().unwrap().task;
    let Work::Action(action) = &step.work else { panic!("not a step of the engine: {step:?}") };
    disk.limit_free_bytes(Some(100));
    let failed = orchestrator_engine::actions::perform(&queue, &step, action).await.unwrap_err();
    assert!(queue.finish(step.id, step.fence, &failed).await.is_err(), "the disk is full");
    assert_eq!(queue.task(step.id).await.unwrap().status, TaskStatus::Running);
    disk.limit_free_bytes(None);
    queue.finish(step.id, step.fence, &failed).await.unwrap();
    assert!(queue.task(step.id).await.unwrap().status.is_final());
    assert_eq!(queue.running_count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_errs_now_and_then_costs_patience_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let script = script(directory, r#"echo "$NAME" >> starts"#);
    let inner = Arc::new(FilesystemStore::open(FilesystemOptions::new(directory)).unwrap());
    let plan = ChaosPlan {
        commit_error: 0.1,
        full: 0.1,
        read_error: 0.02,
        delay: 0.2,
        max_delay: Duration::from_millis(5),
        ..ChaosPlan::calm(3)
    };
    // The first reads are those of the start.
    let store = loop {
        let store = Arc::new(ChaosStore::new(Arc::clone(&inner), plan));
        if store.list(&all_tasks()).await.is_ok() {
            break store;
        }
    };
    let engine = Inside::start(directory, store).await;
    let mut expected = Vec::new();
    for number in 0..25 {
        let name = format!("t{number:02}");
        let id = loop {
            match engine.submit(directory, &script, &name).await {
                Ok(id) => break id,
                Err(error) => assert_ne!(error.code, ErrorCode::Conflict, "{error:?}"),
            }
        };
        expected.push((name, id));
    }
    for (name, id) in &expected {
        assert_eq!(engine.wait(*id).await.status, TaskStatus::Completed, "{name}");
    }
    let names: Vec<String> = expected.into_iter().map(|(name, _)| name).collect();
    assert_eq!(starts(directory), names);
    engine.stop().await;
}

fn all_tasks() -> orchestrator_storage::Query {
    orchestrator_storage::Query {
        table: orchestrator_storage::Table::Task,
        filter: orchestrator_storage::Filter::default(),
        order: orchestrator_storage::Order::OldestFirst,
        after: None,
        limit: 1,
    }
}

/// A small filesystem in memory. It needs root: without, the test says so, and fails where CI promised.
struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    fn mount(at: &'a Path) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        // A database makes files of tens of megabytes before it writes to them.
        let size = if store::is_on_files() { "size=2m" } else { "size=64m" };
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", size, "tmpfs"]).arg(at).status().unwrap();
        if mounted.success() {
            return Some(Self(at));
        }
        assert!(std::env::var_os("ORCHESTRATOR_CI").is_none(), "a tmpfs cannot be mounted");
        eprintln!("not tested: a tmpfs can be mounted by root only");
        None
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

#[test]
fn a_really_full_disk_corrupts_nothing() {
    let mut engine = TestEngine::new(ENGINE);
    let data = engine.data_dir();
    let Some(_disk) = SmallDisk::mount(&data) else { return };
    engine.start();
    let script = engine.script("chatty", r#"echo "$NAME" >> starts; i=0; while [ $i -lt 200 ]; do echo "a line of output number $i"; i=$((i+1)); done"#);
    let task = |name: &str| NewTask {
        name: Some(name.into()),
        env: BTreeMap::from([("NAME".to_owned(), name.to_owned())]),
        ..engine.run(&script)
    };
    let first = engine.submit(task("first"));
    assert_eq!(engine.wait(first).status, TaskStatus::Completed);
    let filler = data.join("filler");
    let mut file = fs::File::create(&filler).unwrap();
    while std::io::Write::write_all(&mut file, &[0; 4096]).is_ok() {}
    // What still fits into the last page of a file is accepted, and must be kept.
    let mut accepted = Vec::new();
    let refused = loop {
        assert!(accepted.len() < 100, "a full disk refuses nothing");
        let padding = (!store::is_on_files()).then(|| json!({ "padding": "x".repeat(300_000) }));
        let task = NewTask { params: padding, ..task("squeezed in") };
        let request = SubmitRequest { tasks: vec![task], ..SubmitRequest::default() };
        match engine.client().call(request) {
            Ok(submitted) => accepted.push(submitted.id.unwrap()),
            Err(orchestrator_protocol::client::ClientError::Refused(refused)) => break refused,
            Err(other) => panic!("{other:?}"),
        }
    };
    assert_eq!(refused.code, ErrorCode::Unavailable);
    assert!(refused.message.to_lowercase().contains("no space left"), "{refused:?}");
    if store::is_on_files() {
        // A database has to be opened again first.
        assert_eq!(engine.task(first).status, TaskStatus::Completed);
    }
    drop(file);
    fs::remove_file(&filler).unwrap();
    let second = wait::until("the engine to go on", || {
        let request = SubmitRequest {
            tasks: vec![task("second")],
            workflow: None,
            idempotency_key: Some("second".into()),
        };
        engine.client().call(request).ok()?.id
    });
    assert_eq!(engine.wait(second).status, TaskStatus::Completed);
    for id in &accepted {
        assert!(engine.wait(*id).status.is_final());
    }
    engine.kill();
    engine.start();
    assert_eq!(engine.tasks().len(), 2 + accepted.len());
    engine.kill();
}
