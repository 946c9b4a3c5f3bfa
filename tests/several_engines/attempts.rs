//! Whole engines on one store, with real runners and real scripts.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use orchestrator_engine::engine::Ended;
use orchestrator_engine::membership::LeaseTimes;
use orchestrator_protocol::request::GetTask;
use orchestrator_protocol::submit::{NewTask, SubmitRequest};
use orchestrator_protocol::task::{AttemptOutcome, OnEngineLoss, RetryPolicy, Task, TaskId, TaskStatus};
use orchestrator_tests::history::{self, Event};
use orchestrator_tests::shared::{Member, short_times, store, until};

const RUNNER: &str = env!("CARGO_BIN_EXE_orchestrator-under-test-runner");

/// Notes when it begins and ends and whether another attempt of its task is alive, and goes on until the
/// gate is open.
const SCRIPT: &str = r#"#!/bin/sh
mkdir "alive.$NAME" 2>/dev/null || echo "overlap $NAME" >> history
echo "start $NAME $ORCHESTRATOR_FENCE $$" >> history
while [ ! -e open ]; do sleep 0.01; done
rmdir "alive.$NAME"
echo "end $NAME $ORCHESTRATOR_FENCE $$" >> history
echo "done $NAME"
"#;

/// Like it, and cleans up when it is told to end.
const POLITE: &str = r#"#!/bin/sh
trap 'rmdir "alive.$NAME"; exit 9' TERM
mkdir "alive.$NAME" 2>/dev/null || echo "overlap $NAME" >> history
echo "start $NAME $ORCHESTRATOR_FENCE $$" >> history
while [ ! -e open ]; do sleep 0.01; done
rmdir "alive.$NAME"
echo "end $NAME $ORCHESTRATOR_FENCE $$" >> history
"#;

fn new_task(directory: &Path, body: &str, name: &str) -> NewTask {
    let script = directory.join(format!("script-{name}"));
    fs::write(&script, body).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    NewTask {
        name: Some(name.into()),
        script: script.to_str().unwrap().into(),
        cwd: Some(directory.to_str().unwrap().into()),
        env: BTreeMap::from([("NAME".to_owned(), name.to_owned())]),
        retry: Some(RetryPolicy { max_retries: 3, base_ms: 1, cap_ms: 1 }),
        ..NewTask::default()
    }
}

async fn submit(member: &Member, task: NewTask) -> TaskId {
    member.ask(SubmitRequest { tasks: vec![task], ..SubmitRequest::default() }).await.unwrap().id.unwrap()
}

async fn task(member: &Member, id: TaskId) -> Task {
    *member.ask(GetTask { id }).await.unwrap()
}

async fn ended(member: &Member, id: TaskId) -> Task {
    until("the task to end", async || Some(task(member, id).await).filter(|task| task.status.is_final()))
        .await
}

fn events(directory: &Path) -> Vec<Event> {
    history::read(&fs::read_to_string(directory.join("history")).unwrap_or_default())
}

fn starts(directory: &Path) -> Vec<(u64, u32)> {
    let starts = events(directory).into_iter().filter_map(|event| match event {
        Event::Start { fence, pid, .. } => Some((fence, pid)),
        _ => None,
    });
    starts.collect()
}

async fn started(directory: &Path, count: usize) {
    until("the script to begin", async || (starts(directory).len() >= count).then_some(())).await;
}

fn no_overlap(directory: &Path) {
    let overlaps = events(directory).into_iter().filter(|event| matches!(event, Event::Overlap { .. }));
    assert_eq!(overlaps.count(), 0, "{:?}", events(directory));
}

fn is_alive(pid: u32) -> bool {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
    rustix::process::test_kill_process(pid).is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_scripts_of_a_stalled_engine_end_before_another_begins_them_and_it_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let store = store(directory);
    let a = Member::start(&store, directory, "a", RUNNER, short_times()).await;
    let id = submit(&a, new_task(directory, POLITE, "one")).await;
    started(directory, 1).await;
    let b = Member::start(&store, directory, "b", RUNNER, short_times()).await;
    a.store.stall(true);
    started(directory, 2).await;
    let [(1, first), (2, _)] = starts(directory)[..] else { panic!("{:?}", events(directory)) };
    assert!(!is_alive(first));
    // It wakes, finds that it has lost its seat, and ends without having written anything.
    a.store.stall(false);
    assert_eq!(a.ended().await, Ended::Unseated);
    let running = task(&b, id).await;
    assert_eq!((running.status, running.fence), (TaskStatus::Running, 2));
    assert_eq!(running.attempts[0].outcome, Some(AttemptOutcome::Lost));
    assert_eq!(running.claim.unwrap().engine, b.name());
    // Opened again it works on.
    let a = Member::start(&store, directory, "a", RUNNER, short_times()).await;
    fs::write(directory.join("open"), "").unwrap();
    assert_eq!(ended(&a, id).await.status, TaskStatus::Completed);
    no_overlap(directory);
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_back_within_its_lease_goes_on_with_its_scripts() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let store = store(directory);
    let a = Member::start(&store, directory, "a", RUNNER, LeaseTimes::default()).await;
    let id = submit(&a, new_task(directory, SCRIPT, "one")).await;
    started(directory, 1).await;
    let b = Member::start(&store, directory, "b", RUNNER, LeaseTimes::default()).await;
    a.crash().await;
    let a = Member::start(&store, directory, "a", RUNNER, LeaseTimes::default()).await;
    assert_eq!(task(&b, id).await.fence, 1);
    fs::write(directory.join("open"), "").unwrap();
    let task = ended(&b, id).await;
    assert_eq!((task.status, task.fence, task.attempts.len()), (TaskStatus::Completed, 1, 1));
    assert_eq!(starts(directory).len(), 1);
    assert_eq!(task.output.as_deref(), Some("done one"));
    no_overlap(directory);
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_task_waits_for_its_engine_and_its_script_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let store = store(directory);
    let a = Member::start(&store, directory, "a", RUNNER, short_times()).await;
    let held = NewTask { on_engine_loss: Some(OnEngineLoss::Hold), ..new_task(directory, SCRIPT, "held") };
    let id = submit(&a, held).await;
    let other = submit(&a, new_task(directory, POLITE, "other")).await;
    started(directory, 2).await;
    let b = Member::start(&store, directory, "b", RUNNER, short_times()).await;
    a.crash().await;
    // The other one is taken over, so this one was looked at too.
    until("the other task", async || (task(&b, other).await.fence == 2).then_some(())).await;
    started(directory, 3).await;
    let at_last = task(&b, id).await;
    assert_eq!((at_last.status, at_last.fence), (TaskStatus::Running, 1));
    let a = Member::start(&store, directory, "a", RUNNER, short_times()).await;
    fs::write(directory.join("open"), "").unwrap();
    let task = ended(&a, id).await;
    assert_eq!(
        (task.status, task.fence, task.output.as_deref()),
        (TaskStatus::Completed, 1, Some("done held"))
    );
    assert_eq!(ended(&b, other).await.status, TaskStatus::Completed);
    no_overlap(directory);
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_engine_at_a_time_has_a_data_directory() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let store = store(directory);
    let a = Member::start(&store, directory, "a", RUNNER, LeaseTimes::default()).await;
    until("the socket", async || a.data_dir.join("engine.sock").exists().then_some(())).await;
    let opened = Member::open(&store, directory, "a", RUNNER, LeaseTimes::default()).await;
    let refused = opened.err().unwrap();
    assert!(format!("{refused:#}").contains("another engine already uses the data directory"), "{refused:#}");
    a.stop().await;
}
