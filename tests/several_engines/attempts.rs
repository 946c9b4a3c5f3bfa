//! Whole engines on one store, with real runners and real scripts.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use futures::StreamExt;
use orchestrator_engine::config::RetentionSettings;
use orchestrator_engine::engine::Ended;
use orchestrator_engine::membership::LeaseTimes;
use orchestrator_protocol::event::{Item, OutputStream};
use orchestrator_protocol::request::{
    CancelTask, EngineMember, ExplainTask, GetStatus, GetTask, LogsRequest, MemberState, Subscription,
};
use orchestrator_protocol::service::{Caller, Service};
use orchestrator_protocol::submit::{NewTask, SubmitRequest};
use orchestrator_protocol::task::{AttemptOutcome, OnEngineLoss, RetryPolicy, Task, TaskId, TaskStatus};
use orchestrator_storage::{Filter, Order, Query, Store, Table};
use orchestrator_tests::history::{self, Event, Expected, Told};
use orchestrator_tests::shared::{Member, Peer, short_times, store, until};
use orchestrator_tests::wait;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

pub const RUNNER: &str = env!("CARGO_BIN_EXE_orchestrator-under-test-runner");

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

/// Like it, and ends by itself.
const SHORT: &str = r#"#!/bin/sh
trap 'rmdir "alive.$NAME"; exit 9' TERM
mkdir "alive.$NAME" 2>/dev/null || echo "overlap $NAME" >> history
echo "start $NAME $ORCHESTRATOR_FENCE $$" >> history
left=60
while [ $left -gt 0 ]; do sleep 0.02; left=$((left - 1)); done
rmdir "alive.$NAME"
echo "end $NAME $ORCHESTRATOR_FENCE $$" >> history
"#;

/// Like it, and may be killed: it looks itself whether the one before is alive.
const DOGGED: &str = r#"#!/bin/sh
[ -e pid ] && kill -0 "$(cat pid)" 2>/dev/null && echo "overlap $NAME" >> history
echo $$ > pid
echo "start $NAME $ORCHESTRATOR_FENCE $$" >> history
while [ ! -e open ]; do sleep 0.01; done
"#;

/// Starts something that leaves its session, and the next time looks whether that is alive.
const LEAVING: &str = r#"#!/bin/sh
if [ "$ORCHESTRATOR_FENCE" != 1 ]; then
    grep -qs '^State:.[^ZX]' "/proc/$(cat left)/status" && : > overlap
    exit 0
fi
setsid sh -c 'echo $$ > left; exec sleep 600' &
echo $$ > script
wait
"#;

/// Prints something at once, and the rest when the gate is open.
const TWO_PARTS: &str = r#"#!/bin/sh
echo one
: > begun
while [ ! -e open ]; do sleep 0.01; done
echo two
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

fn process(pid: u32) -> Pid {
    Pid::from_raw(pid.cast_signed()).unwrap()
}

fn is_alive(pid: u32) -> bool {
    test_kill_process(process(pid)).is_ok()
}

/// The runner of a script.
fn runner_of(script: u32) -> u32 {
    let stat = fs::read_to_string(format!("/proc/{script}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    fields.split(' ').nth(1).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_scripts_of_a_stalled_engine_end_before_another_begins_them_and_it_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let store = store(directory).await;
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
async fn whichever_engines_stall_every_task_completes_and_no_two_attempts_of_one_overlap() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let store = store(directory).await;
    let mut members = Vec::new();
    for name in ["a", "b", "c"] {
        members.push(Member::start(&store, directory, name, RUNNER, short_times()).await);
    }
    let names: Vec<String> = (0..24).map(|number| format!("task-{number}")).collect();
    let mut submitted = Vec::new();
    for ((stalled, name), names) in [(0, "a"), (1, "b")].into_iter().zip(names.chunks(12)) {
        let before = starts(directory).len();
        let tasks = names.iter().map(|name| NewTask {
            retry: Some(RetryPolicy { max_retries: 20, base_ms: 1, cap_ms: 1 }),
            ..new_task(directory, SHORT, name)
        });
        let request = SubmitRequest { tasks: tasks.collect(), ..SubmitRequest::default() };
        submitted.extend(members[0].ask(request).await.unwrap().tasks);
        started(directory, before + 1).await;
        let member = members.remove(stalled);
        let id = member.name();
        member.store.stall(true);
        until("the engine to be lost", async || {
            let engines = members[0].ask(GetStatus {}).await.unwrap().engines;
            engines.iter().any(|engine| engine.id == id && engine.state == MemberState::Lost).then_some(())
        })
        .await;
        member.store.stall(false);
        assert_eq!(member.ended().await, Ended::Unseated);
        members.insert(stalled, Member::start(&store, directory, name, RUNNER, short_times()).await);
    }
    let mut told = Vec::new();
    for submitted in &submitted {
        let task = ended(&members[0], submitted.id).await;
        told.push(Told {
            task: task.name.clone(),
            completed: task.status == TaskStatus::Completed,
            exit_code: task.attempts.last().and_then(|attempt| attempt.exit_code),
            fences: task.attempts.iter().map(|attempt| attempt.fence).collect(),
            lines: Vec::new(),
        });
    }
    let acknowledged = names.into_iter().map(|name| (name, Vec::new())).collect();
    let expected = Expected { acknowledged, attempts_may_be_lost: true };
    assert_eq!(history::check(&events(directory), &told, &expected), Vec::<String>::new());
    for member in members {
        member.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_back_within_its_lease_goes_on_with_its_scripts() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let store = store(directory).await;
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

/// An engine whose lease is overdue, and a task that it has claimed nevertheless.
async fn claimed_without_a_lease(store: &Arc<dyn Store>, directory: &Path) -> (Member, TaskId) {
    let member = Member::start(store, directory, "a", RUNNER, short_times()).await;
    member.store.refuse_renewals(true);
    member.service.membership.as_ref().unwrap().overdue().await;
    let waits = submit(&member, new_task(directory, SCRIPT, "waits")).await;
    let is_claimed = async || (task(&member, waits).await.status == TaskStatus::Running).then_some(());
    until("the task to be claimed", is_claimed).await;
    (member, waits)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_claimed_after_an_outage_begins_when_the_lease_is_renewed() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let store = store(directory).await;
    let (a, waits) = claimed_without_a_lease(&store, directory).await;
    // What goes on through an outage begins in one, too.
    let held = NewTask { on_engine_loss: Some(OnEngineLoss::Hold), ..new_task(directory, SCRIPT, "held") };
    let held = submit(&a, held).await;
    started(directory, 1).await;
    a.store.refuse_renewals(false);
    started(directory, 2).await;
    fs::write(directory.join("open"), "").unwrap();
    for id in [held, waits] {
        let task = ended(&a, id).await;
        assert_eq!((task.status, task.attempt), (TaskStatus::Completed, 1), "{task:?}");
    }
    let first = &events(directory)[0];
    assert!(matches!(first, Event::Start { task, .. } if task == "held"), "{first:?}");
    a.stop().await;
}

/// An engine whose lease cannot be renewed keeps nothing for itself.
#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_lease_can_be_called_off_and_goes_back_in_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let store = store(directory).await;
    let (a, waits) = claimed_without_a_lease(&store, directory).await;
    a.ask(CancelTask { id: waits, reason: None, force: false }).await.unwrap();
    assert_eq!(ended(&a, waits).await.status, TaskStatus::Cancelled);
    assert_eq!(starts(directory), []);
    let stays = submit(&a, new_task(directory, SCRIPT, "stays")).await;
    let handed_back = async || {
        let task = task(&a, stays).await;
        (task.fence > 0 && task.status == TaskStatus::Pending).then_some(task.attempt)
    };
    assert_eq!(until("the task to go back", handed_back).await, 0, "nothing was used up");
    a.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_task_waits_for_its_engine_and_its_script_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let store = store(directory).await;
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
async fn the_script_of_a_task_that_was_called_off_by_force_ends_when_its_engine_is_back() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let store = store(directory).await;
    let a = Member::start(&store, directory, "a", RUNNER, short_times()).await;
    let held = NewTask { on_engine_loss: Some(OnEngineLoss::Hold), ..new_task(directory, POLITE, "held") };
    let id = submit(&a, held).await;
    started(directory, 1).await;
    let [(1, script)] = starts(directory)[..] else { panic!("{:?}", events(directory)) };
    let b = Member::start(&store, directory, "b", RUNNER, short_times()).await;
    a.crash().await;
    until("the engine to be lost", async || {
        let engines = b.ask(GetStatus {}).await.unwrap().engines;
        engines.iter().any(|engine| engine.state == MemberState::Lost).then_some(())
    })
    .await;
    until("the task to end", async || {
        b.ask(CancelTask { id, reason: None, force: true }).await.unwrap();
        (task(&b, id).await.status == TaskStatus::Cancelled).then_some(())
    })
    .await;
    assert!(is_alive(script));
    let a = Member::start(&store, directory, "a", RUNNER, short_times()).await;
    until("the script to end", async || (!is_alive(script)).then_some(())).await;
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancellation_goes_on_where_the_engine_that_was_asked_has_died() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let store = store(directory).await;
    let b = Member::start(&store, directory, "b", RUNNER, short_times()).await;
    let request = SubmitRequest {
        tasks: vec![new_task(directory, POLITE, "one")],
        workflow: Some("long".into()),
        ..SubmitRequest::default()
    };
    let submitted = b.ask(request).await.unwrap();
    let (workflow, child) = (submitted.id.unwrap(), submitted.tasks[0].id);
    started(directory, 1).await;
    let a = Peer::join_with(&store, directory, "a", short_times(), |_| {}).await;
    // It tells the workflow, and comes no further.
    a.store.stall_at(child.to_string().leak());
    let queue = Arc::clone(&a.queue);
    let asked = tokio::spawn(async move { queue.cancel(workflow, "it is not needed").await });
    a.store.stalled().await;
    asked.abort();
    let called_off = task(&b, workflow).await;
    assert!(called_off.cancel.is_some() && !called_off.status.is_final(), "{called_off:?}");
    assert!(task(&b, child).await.cancel.is_none());
    assert_eq!(ended(&b, child).await.status, TaskStatus::Cancelled);
    b.stop().await;
}

/// Its runner was stopped, so that nothing could end it, and the task has gone on without it.
#[tokio::test(flavor = "multi_thread")]
async fn a_script_that_does_not_end_keeps_its_own_task_waiting_and_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let store = store(directory).await;
    let a = Member::start(&store, directory, "a", RUNNER, short_times()).await;
    let stuck = NewTask { grace_ms: Some(50), ..new_task(directory, DOGGED, "stuck") };
    let stuck = submit(&a, stuck).await;
    started(directory, 1).await;
    let [(1, script)] = starts(directory)[..] else { panic!("{:?}", events(directory)) };
    kill_process(process(runner_of(script)), Signal::STOP).unwrap();
    // Somebody takes the task over, and nobody else is there to begin it anew.
    let peer = Peer::join_with(&store, directory, "b", short_times(), |_| {}).await;
    a.store.stall(true);
    until("the task to be taken over", async || {
        peer.membership.observe().await.unwrap();
        peer.queue.take_over().await.unwrap().contains(&stuck).then_some(())
    })
    .await;
    a.store.stall(false);
    assert_eq!(a.ended().await, Ended::Unseated);
    let a = Member::start(&store, directory, "a", RUNNER, short_times()).await;
    let other = submit(&a, new_task(directory, SHORT, "other")).await;
    assert_eq!(ended(&a, other).await.status, TaskStatus::Completed);
    assert!(is_alive(script));
    assert_eq!(task(&a, stuck).await.status, TaskStatus::Pending);
    let why = a.ask(ExplainTask { id: stuck }).await.unwrap().reasons;
    assert!(why.iter().any(|why| why.message.contains("earlier attempt still runs")), "{why:?}");
    // Nobody wakes the runner but the engine, when its patience has ended.
    started(directory, 3).await;
    assert!(!is_alive(script));
    fs::write(directory.join("open"), "").unwrap();
    let stuck = ended(&a, stuck).await;
    assert_eq!((stuck.status, stuck.fence), (TaskStatus::Completed, 2));
    no_overlap(directory);
    a.stop().await;
}

/// Its runner has died while its engine was away, so that nobody has ended what the script had started when
/// its time was over.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_runner_has_left_ends_before_its_engine_begins_the_task_anew() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let store = store(directory).await;
    let a = Member::start(&store, directory, "a", RUNNER, LeaseTimes::default()).await;
    let id = submit(&a, new_task(directory, LEAVING, "leaving")).await;
    let written = async |name: &str| {
        let read = || fs::read_to_string(directory.join(name)).ok()?.trim().parse::<u32>().ok();
        until("the script to begin", async || read()).await
    };
    let (script, left) = (written("script").await, written("left").await);
    let runner = runner_of(script);
    a.stop().await;
    kill_process(process(runner), Signal::KILL).unwrap();
    let peer = Peer::join_with(&store, directory, "b", short_times(), |_| {}).await;
    until("the task to be taken over", async || {
        peer.membership.observe().await.unwrap();
        peer.queue.take_over().await.unwrap().contains(&id).then_some(())
    })
    .await;
    assert!(is_alive(left));
    let a = Member::start(&store, directory, "a", RUNNER, LeaseTimes::default()).await;
    let ended = ended(&a, id).await;
    assert_eq!((ended.status, ended.fence), (TaskStatus::Completed, 2));
    assert!(!directory.join("overlap").exists());
    a.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_was_left_by_its_engine_is_no_zombie_afterwards() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let store = store(directory).await;
    let a = Member::start(&store, directory, "a", RUNNER, LeaseTimes::default()).await;
    submit(&a, new_task(directory, SCRIPT, "one")).await;
    started(directory, 1).await;
    let runner = runner_of(starts(directory)[0].1);
    a.stop().await;
    fs::write(directory.join("open"), "").unwrap();
    let entry = format!("/proc/{runner}");
    until("the runner to be gone", async || (!Path::new(&entry).exists()).then_some(())).await;
}

async fn lines(member: &Member, request: LogsRequest) -> Vec<String> {
    let caller = Caller::Local { pid: None };
    let items = member.service.subscribe(&caller, Subscription::Logs(request)).await.unwrap();
    let items = tokio::time::timeout(wait::PATIENCE, items.collect::<Vec<_>>()).await.unwrap();
    let line = |item: Item| match item {
        Item::Line(line) => line.line,
        other => panic!("not a line: {other:?}"),
    };
    items.into_iter().map(|item| line(item.unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_printed_on_one_engine_is_read_and_followed_on_another() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let store = store(directory).await;
    let a = Member::start(&store, directory, "a", RUNNER, LeaseTimes::default()).await;
    let body = "#!/bin/sh\nseq 1 5000; echo oops >&2; : > begun\nwhile [ ! -e open ]; do sleep 0.01; done\nseq 5001 9000\n";
    let id = submit(&a, new_task(directory, body, "loud")).await;
    until("the script to begin", async || directory.join("begun").exists().then_some(())).await;
    let b = Member::start(&store, directory, "b", RUNNER, LeaseTimes::default()).await;
    let all = LogsRequest { id, attempt: None, tail: None, follow: true, stream: Some(OutputStream::Stdout) };
    let following = {
        let (service, all) = (Arc::clone(&b.service), all.clone());
        let caller = Caller::Local { pid: None };
        let mut items = service.subscribe(&caller, Subscription::Logs(all)).await.unwrap();
        // Something comes while it runs.
        let first = tokio::time::timeout(wait::PATIENCE, items.next()).await.unwrap().unwrap().unwrap();
        assert!(matches!(&first, Item::Line(line) if line.line == "1"), "{first:?}");
        tokio::spawn(items.count())
    };
    fs::write(directory.join("open"), "").unwrap();
    assert_eq!(tokio::time::timeout(wait::PATIENCE, following).await.unwrap().unwrap(), 8_999);
    let expected: Vec<String> = (1..=9_000).map(|number| number.to_string()).collect();
    assert_eq!(lines(&b, all.clone()).await, expected);
    let tail = LogsRequest { tail: Some(3), follow: false, ..all.clone() };
    assert_eq!(lines(&b, tail).await, ["8998", "8999", "9000"]);
    let errors =
        LogsRequest { stream: Some(OutputStream::Stderr), tail: Some(3), follow: false, ..all.clone() };
    assert_eq!(lines(&b, errors).await, ["oops"]);
    assert_eq!(lines(&a, LogsRequest { follow: false, ..all }).await, expected);
    // They go with the task.
    let settings = RetentionSettings { max_finished: 0, ..RetentionSettings::default() };
    assert_eq!(b.service.queue.retain(&settings, chrono::Utc::now()).await.unwrap(), [id]);
    let segments = Query {
        table: Table::LogSegment,
        filter: Filter::default(),
        order: Order::OldestFirst,
        after: None,
        limit: 10,
    };
    assert_eq!(store_of(&b).list(&segments).await.unwrap().records.len(), 0);
    a.stop().await;
    b.stop().await;
}

fn all_lines(id: TaskId) -> LogsRequest {
    LogsRequest { id, attempt: None, tail: None, follow: false, stream: None }
}

/// Two engines, and a task of the first one that has ended while the storage took nothing that was printed.
async fn ended_in_silence(store: &Arc<dyn Store>, directory: &Path) -> (Member, Member, TaskId) {
    let a = Member::start(store, directory, "a", RUNNER, LeaseTimes::default()).await;
    let id = submit(&a, new_task(directory, TWO_PARTS, "loud")).await;
    until("the script to begin", async || directory.join("begun").exists().then_some(())).await;
    let b = Member::start(store, directory, "b", RUNNER, LeaseTimes::default()).await;
    a.store.refuse_output(true);
    fs::write(directory.join("open"), "").unwrap();
    assert_eq!(ended(&b, id).await.status, TaskStatus::Completed);
    // What is refused from here on is the rest.
    let before = a.store.refusals();
    until("the rest to be refused", async || (a.store.refusals() > before).then_some(())).await;
    assert!(!lines(&b, all_lines(id)).await.contains(&"two".to_owned()));
    (a, b, id)
}

async fn all_is_printed(member: &Member, id: TaskId) {
    until("all that was printed", async || {
        (lines(member, all_lines(id)).await == ["one", "two"]).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_printed_last_reaches_the_others_when_the_storage_takes_it_again() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let store = store(directory).await;
    let (a, b, id) = ended_in_silence(&store, directory).await;
    a.store.refuse_output(false);
    all_is_printed(&b, id).await;
    let mark = a.data_dir.join(format!("attempts/{id}/1/unshipped"));
    until("nothing to be left to ship", async || (!mark.exists()).then_some(())).await;
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_printed_last_reaches_the_others_when_its_engine_is_back() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let store = store(directory).await;
    let (a, b, id) = ended_in_silence(&store, directory).await;
    a.stop().await;
    let a = Member::start(&store, directory, "a", RUNNER, LeaseTimes::default()).await;
    all_is_printed(&b, id).await;
    a.stop().await;
    b.stop().await;
}

fn store_of(member: &Member) -> Arc<dyn Store> {
    Arc::clone(member.service.queue.store())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_lists_the_engines_and_how_they_are() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let store = store(directory).await;
    let mut members = Vec::new();
    for name in ["one", "two", "three"] {
        members.push(Member::start(&store, directory, name, RUNNER, short_times()).await);
    }
    let id = submit(&members[0], new_task(directory, SCRIPT, "one")).await;
    started(directory, 1).await;
    // Any of them may run it.
    let claim = task(&members[0], id).await.claim.unwrap();
    let a = members.remove(members.iter().position(|member| member.name() == claim.engine).unwrap());
    let [b, c] = <[Member; 2]>::try_from(members).ok().unwrap();
    let names = [a.name(), b.name(), c.name()];
    c.stop().await;
    let engines = b.ask(GetStatus {}).await.unwrap().engines;
    let state = |engines: &[EngineMember], id: &str| {
        engines.iter().find(|engine| engine.id == id).map(|engine| engine.state).unwrap()
    };
    let states = names.each_ref().map(|name| state(&engines, name));
    assert_eq!(states, [MemberState::Alive, MemberState::Alive, MemberState::Left]);
    assert_eq!(engines.iter().map(|engine| engine.running).sum::<u64>(), 1);
    assert_eq!(
        engines.iter().filter(|engine| engine.is_this).map(|engine| &engine.id).collect::<Vec<_>>(),
        [&names[1]]
    );
    assert!(engines.iter().all(|engine| engine.pid == std::process::id() && !engine.host.is_empty()));
    fs::write(directory.join("open"), "").unwrap();
    a.crash().await;
    until("it to be lost", async || {
        let engines = b.ask(GetStatus {}).await.unwrap().engines;
        (state(&engines, &names[0]) == MemberState::Lost).then_some(())
    })
    .await;
    b.stop().await;
}
