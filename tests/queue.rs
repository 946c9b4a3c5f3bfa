//! What the queue promises, seen from outside: a real engine, real processes.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use orchestrator_protocol::ErrorCode;
use orchestrator_protocol::client::Look;
use orchestrator_protocol::event::{Item, OutputStream};
use orchestrator_protocol::request::{
    CancelTask, ExplainTask, GetStatus, ListTasks, LogsRequest, PauseQueue, ReasonKind, ResumeQueue,
    RetryTask, StopEngine, StopMode, Subscription,
};
use orchestrator_protocol::submit::{NewTask, SubmitRequest};
use orchestrator_protocol::task::{AttemptOutcome, RetryPolicy, TaskId, TaskStatus};
use orchestrator_tests::engine::TestEngine;
use orchestrator_tests::wait;
use serde_json::json;

const ENGINE: &str = env!("CARGO_BIN_EXE_orchestrator-under-test");

fn one_at_a_time() -> TestEngine {
    let mut engine = TestEngine::new(ENGINE).with_arguments(&["--max-parallel", "1"]);
    engine.start();
    engine
}

fn no_retry() -> Option<RetryPolicy> {
    Some(RetryPolicy { max_retries: 0, ..RetryPolicy::default() })
}

/// A script that goes on until the test makes a file, and tells that it has begun.
const GATED: &str = r#": > "$1begun.$NAME"; while [ ! -e open ]; do sleep 0.01; done"#;

fn gated(engine: &TestEngine, script: &str, name: &str) -> NewTask {
    let env = BTreeMap::from([("NAME".to_owned(), name.to_owned())]);
    NewTask { name: Some(name.into()), env, ..engine.run(script) }
}

fn open_gate(engine: &TestEngine) {
    fs::write(engine.directory().join("open"), "").unwrap();
}

fn has_begun(engine: &TestEngine, name: &str) -> bool {
    engine.directory().join(format!("begun.{name}")).exists()
}

fn submit_all(
    engine: &TestEngine,
    tasks: Vec<NewTask>,
    workflow: Option<&str>,
) -> (Option<TaskId>, Vec<TaskId>) {
    let request = SubmitRequest { tasks, workflow: workflow.map(String::from), idempotency_key: None };
    let submitted = engine.ask(request);
    (submitted.id, submitted.tasks.iter().map(|task| task.id).collect())
}

#[test]
fn a_script_runs_and_its_output_result_and_status_are_kept() {
    let engine = TestEngine::started(ENGINE);
    let script = engine.script(
        "hello",
        r#"echo "hello $(cat)"; echo "oops" >&2; echo '::progress 1/2 half'; echo '::result {"answer": 42}'"#,
    );
    let id = engine.submit(NewTask { params: Some(json!({"who": "world"})), ..engine.run(&script) });
    let task = engine.wait(id);
    assert_eq!(task.status, TaskStatus::Completed, "{task:#?}");
    assert_eq!(task.result, Some(json!({"answer": 42})));
    assert_eq!(task.attempts.len(), 1);
    assert_eq!(task.attempts[0].exit_code, Some(0));
    assert_eq!(task.attempts[0].outcome, Some(AttemptOutcome::Succeeded));
    assert!(engine.lines(id, OutputStream::Stdout).contains(&r#"hello {"who":"world"}"#.to_owned()));
    assert_eq!(engine.lines(id, OutputStream::Stderr), ["oops"]);
}

#[test]
fn priority_comes_first_and_groups_take_turns() {
    let engine = one_at_a_time();
    let script = engine.script("note", r#"echo "$NAME" >> order"#);
    engine.ask(PauseQueue::default());
    let note = |name: &str, group: &str, priority| NewTask {
        group: Some(group.into()),
        priority,
        ..gated(&engine, &script, name)
    };
    let mut tasks: Vec<NewTask> = (1..=4).map(|number| note(&format!("many-{number}"), "many", 0)).collect();
    tasks.push(note("few", "few", 0));
    tasks.push(note("urgent", "many", 5));
    let (_, ids) = submit_all(&engine, tasks, None);
    engine.ask(ResumeQueue::default());
    for id in ids {
        engine.wait(id);
    }
    let order = fs::read_to_string(engine.directory().join("order")).unwrap();
    assert_eq!(order.lines().collect::<Vec<_>>(), ["urgent", "few", "many-1", "many-2", "many-3", "many-4"]);
}

#[test]
fn a_graph_runs_in_order_and_what_depends_on_a_failure_is_cancelled_until_it_is_retried() {
    let engine = TestEngine::started(ENGINE);
    let script = engine.script("step", r#"echo "$NAME" >> order; [ "$NAME" != middle ] || [ -e repaired ]"#);
    let step = |name: &str, after: &[&str]| NewTask {
        after: after.iter().map(|name| (*name).to_owned()).collect(),
        retry: no_retry(),
        ..gated(&engine, &script, name)
    };
    let tasks = vec![step("last", &["middle"]), step("middle", &["first"]), step("first", &[])];
    let (workflow, ids) = submit_all(&engine, tasks, Some("three steps"));
    let workflow = engine.wait(workflow.unwrap());
    assert_eq!(workflow.status, TaskStatus::Failed);
    assert_eq!(workflow.error.as_deref(), Some("1 of 3 tasks failed: 'middle': exit status 1"));
    let last = engine.task(ids[0]);
    assert_eq!(last.status, TaskStatus::Cancelled);
    assert_eq!(last.error.as_deref(), Some("it depends on 'middle', which failed"));
    fs::write(engine.directory().join("repaired"), "").unwrap();
    let revived = engine.ask(RetryTask { id: ids[1] });
    assert_eq!(revived.others, [ids[0]]);
    assert_eq!(engine.wait(ids[0]).status, TaskStatus::Completed);
    assert_eq!(engine.wait(workflow.id).status, TaskStatus::Completed);
    let order = fs::read_to_string(engine.directory().join("order")).unwrap();
    assert_eq!(order.lines().collect::<Vec<_>>(), ["first", "middle", "middle", "last"]);
}

#[test]
fn a_failing_script_is_tried_again_and_every_reason_is_kept() {
    let engine = TestEngine::started(ENGINE);
    let script = engine.script("fail", r#"echo "attempt $ORCHESTRATOR_ATTEMPT is no good" >&2; exit 7"#);
    let retry = Some(RetryPolicy { max_retries: 2, base_ms: 1, cap_ms: 5 });
    let task = engine.wait(engine.submit(NewTask { retry, ..engine.run(&script) }));
    assert_eq!(task.status, TaskStatus::Failed);
    let reasons: Vec<_> = task.attempts.iter().map(|attempt| attempt.error.clone().unwrap()).collect();
    let expected: Vec<_> = (1..=3).map(|n| format!("exit status 7: attempt {n} is no good")).collect();
    assert_eq!(reasons, expected);
    let again = engine.ask(RetryTask { id: task.id });
    assert_eq!(again.task.status, TaskStatus::Pending);
    let task = engine.wait(task.id);
    assert_eq!((task.status, task.attempts.len()), (TaskStatus::Failed, 6));
}

#[test]
fn a_permanent_failure_is_not_tried_again() {
    let engine = TestEngine::started(ENGINE);
    let script = engine.script("fail", "echo '::fail permanent the licence has expired'; exit 1");
    let task = engine.wait(engine.submit(engine.run(&script)));
    assert_eq!((task.status, task.attempts.len()), (TaskStatus::Failed, 1));
    assert_eq!(task.error.as_deref(), Some("the licence has expired"));
}

#[test]
fn an_attempt_that_takes_too_long_is_ended() {
    let engine = TestEngine::started(ENGINE);
    let script = engine.script("slow", "exec sleep 600");
    let task = NewTask { timeout_ms: Some(100), retry: no_retry(), ..engine.run(&script) };
    let task = engine.wait(engine.submit(task));
    assert_eq!(task.status, TaskStatus::Failed);
    assert_eq!(task.attempts[0].outcome, Some(AttemptOutcome::TimedOut));
}

#[test]
fn a_cancelled_task_leaves_nothing_behind() {
    let engine = TestEngine::started(ENGINE);
    let script = engine.script(
        "stubborn",
        r#"trap '' TERM; setsid sh -c 'trap "" TERM; echo $$ > detached; while :; do sleep 1; done' & echo $$ > main; while :; do sleep 1; done"#,
    );
    let id = engine.submit(NewTask { grace_ms: Some(50), ..engine.run(&script) });
    let read = |name: &str| -> Option<i32> {
        fs::read_to_string(engine.directory().join(name)).ok()?.trim().parse().ok()
    };
    let pids = wait::until("both processes", || Some([read("main")?, read("detached")?]));
    let cancelled = engine.ask(CancelTask { id, reason: Some("enough".into()) });
    assert_eq!(cancelled.task.cancel.unwrap().reason, "enough");
    let task = engine.wait(id);
    assert_eq!((task.status, task.error.as_deref()), (TaskStatus::Cancelled, Some("enough")));
    for pid in pids {
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        assert!(rustix::process::test_kill_process(pid).is_err(), "{pid:?} is still there");
    }
    let refused = engine.refused(RetryTask { id: TaskId::generate() });
    assert_eq!(refused.code, ErrorCode::NotFound);
}

#[test]
fn cancelling_a_workflow_cancels_its_tasks() {
    let engine = one_at_a_time();
    let script = engine.script("gated", GATED);
    let tasks = (1..=3).map(|number| gated(&engine, &script, &format!("t{number}"))).collect();
    let (workflow, ids) = submit_all(&engine, tasks, Some("three"));
    wait::until("the first to begin", || has_begun(&engine, "t1").then_some(()));
    engine.ask(CancelTask { id: workflow.unwrap(), reason: None });
    for id in ids {
        assert_eq!(engine.wait(id).status, TaskStatus::Cancelled);
    }
    assert_eq!(engine.wait(workflow.unwrap()).status, TaskStatus::Cancelled);
    let done = engine.refused(CancelTask {
        id: engine.wait(engine.submit(engine.run(&engine.script("ok", "true")))).id,
        reason: None,
    });
    assert_eq!(done.message, "a task that is Completed cannot be cancelled");
}

#[test]
fn a_lock_is_held_by_one_and_a_limit_by_so_many() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("orchestrator.toml");
    fs::write(&config, "[groups.narrow]\nmax_parallel = 2\n").unwrap();
    let mut engine = TestEngine::new(ENGINE).with_arguments(&[
        "--max-parallel",
        "8",
        "--config",
        config.to_str().unwrap(),
    ]);
    engine.start();
    let script = engine.script("gated", GATED);
    let locked = |name: &str| NewTask { lock: Some("site".into()), ..gated(&engine, &script, name) };
    let narrow = |name: &str| NewTask { group: Some("narrow".into()), ..gated(&engine, &script, name) };
    let tasks = vec![
        locked("l1"),
        locked("l2"),
        narrow("n1"),
        narrow("n2"),
        narrow("n3"),
        gated(&engine, &script, "free"),
    ];
    let (_, ids) = submit_all(&engine, tasks, None);
    wait::until("all that may run", || {
        ["l1", "n1", "n2", "free"].iter().all(|name| has_begun(&engine, name)).then_some(())
    });
    assert!(!has_begun(&engine, "l2") && !has_begun(&engine, "n3"));
    let why = |id| engine.ask(ExplainTask { id }).reasons;
    assert_eq!(why(ids[1])[0].kind, ReasonKind::Lock);
    assert_eq!(why(ids[1])[0].message, "the lock 'site' is held by 'l1'");
    assert_eq!(why(ids[1])[0].task, Some(ids[0]));
    assert_eq!(why(ids[4])[0].message, "group 'narrow' runs 2 attempts at once, and all are under way");
    // Both survive the engine: the next one finds them held.
    engine.kill();
    engine.start();
    assert_eq!(engine.ask(ExplainTask { id: ids[1] }).reasons[0].kind, ReasonKind::Lock);
    assert_eq!(engine.ask(ExplainTask { id: ids[4] }).reasons[0].kind, ReasonKind::GroupLimit);
    open_gate(&engine);
    for id in ids {
        assert_eq!(engine.wait(id).status, TaskStatus::Completed);
    }
}

#[test]
fn every_pending_task_says_why_it_waits() {
    let engine = one_at_a_time();
    let script = engine.script("gated", GATED);
    let running = engine.submit(gated(&engine, &script, "running"));
    wait::until("it to begin", || has_begun(&engine, "running").then_some(()));
    let later = Utc::now() + TimeDelta::hours(1);
    let timed = engine.submit(NewTask { not_before: Some(later), ..gated(&engine, &script, "timed") });
    let dependent =
        engine.submit(NewTask { depends_on: vec![running], ..gated(&engine, &script, "dependent") });
    let next = engine.submit(gated(&engine, &script, "next"));
    let second = engine.submit(gated(&engine, &script, "second"));
    let kinds =
        |id| engine.ask(ExplainTask { id }).reasons.iter().map(|reason| reason.kind).collect::<Vec<_>>();
    assert_eq!(kinds(running), [ReasonKind::Running]);
    assert_eq!(kinds(timed)[0], ReasonKind::NotBefore);
    assert_eq!(kinds(dependent)[0], ReasonKind::Dependency);
    assert_eq!(kinds(next), [ReasonKind::Turn, ReasonKind::Busy]);
    let reasons = engine.ask(ExplainTask { id: second }).reasons;
    assert_eq!(reasons[0].message, "1 tasks of group 'default' come first");
    let pauses = engine.ask(PauseQueue { group: Some("default".into()) });
    assert_eq!(pauses.groups, ["default"]);
    assert_eq!(kinds(next)[0], ReasonKind::Paused);
    engine.ask(ResumeQueue { group: Some("default".into()) });
    open_gate(&engine);
    for id in [running, dependent, next, second] {
        assert_eq!(engine.wait(id).status, TaskStatus::Completed);
    }
    assert_eq!(kinds(running), [ReasonKind::Ended]);
}

#[test]
fn a_task_for_a_later_time_runs_when_its_time_has_come() {
    let engine = TestEngine::started(ENGINE);
    let at = Utc::now() + TimeDelta::milliseconds(300);
    let script = engine.script("ok", "true");
    let task = engine.wait(engine.submit(NewTask { not_before: Some(at), ..engine.run(&script) }));
    assert_eq!(task.status, TaskStatus::Completed);
    assert!(task.started_at.unwrap() >= at, "{task:#?}");
}

#[test]
fn a_runner_that_somebody_else_ends_costs_an_attempt_and_not_the_task() {
    let engine = TestEngine::started(ENGINE);
    let script = engine
        .script("slow", r#"[ "$ORCHESTRATOR_ATTEMPT" = 2 ] && exit; echo $PPID > runner; exec sleep 600"#);
    let retry = Some(RetryPolicy { max_retries: 1, base_ms: 1, cap_ms: 1 });
    let id = engine.submit(NewTask { retry, ..engine.run(&script) });
    let runner = wait::until("the script", || {
        fs::read_to_string(engine.directory().join("runner")).ok()?.trim().parse::<i32>().ok()
    });
    let runner = rustix::process::Pid::from_raw(runner).unwrap();
    rustix::process::kill_process(runner, rustix::process::Signal::TERM).unwrap();
    let task = engine.wait(id);
    assert_eq!((task.status, task.attempts.len()), (TaskStatus::Completed, 2));
}

/// An engine whose runner is a shell script of the test's.
fn engine_with_runner(body: &str) -> (tempfile::TempDir, TestEngine) {
    use std::os::unix::fs::PermissionsExt;
    let programs = tempfile::tempdir().unwrap();
    let (program, runner) = (programs.path().join("engine"), programs.path().join("engine-runner"));
    fs::copy(ENGINE, &program).unwrap();
    fs::write(&runner, format!("#!/bin/sh\n{body}\n")).unwrap();
    fs::set_permissions(&runner, fs::Permissions::from_mode(0o755)).unwrap();
    let engine = TestEngine::started(program.to_str().unwrap());
    (programs, engine)
}

#[test]
fn a_runner_that_cannot_run_is_a_failed_attempt() {
    let (_programs, engine) = engine_with_runner("exit 1");
    let task = NewTask { retry: no_retry(), ..engine.run(&engine.script("ok", "true")) };
    let task = engine.wait(engine.submit(task));
    assert_eq!((task.status, task.fence), (TaskStatus::Failed, 1));
    assert_eq!(task.error.as_deref(), Some("its runner ended before it had started anything"));
}

#[test]
fn a_cancel_before_the_runner_has_begun_is_not_lost() {
    let gate = tempfile::tempdir().unwrap();
    let body = format!(
        "cd '{}'; : > waiting; while [ ! -e open ]; do sleep 0.01; done; exec '{ENGINE}-runner' \"$@\"",
        gate.path().display()
    );
    let (_programs, engine) = engine_with_runner(&body);
    let script = engine.script("slow", ": > begun; exec sleep 600");
    let id = engine.submit(engine.run(&script));
    wait::until("the runner", || gate.path().join("waiting").exists().then_some(()));
    engine.ask(CancelTask { id, reason: None });
    // The mark that keeps the runner from starting anything.
    let mark = engine.data_dir().join(format!("attempts/{id}/1/start"));
    wait::until("the engine to tell", || mark.exists().then_some(()));
    fs::write(gate.path().join("open"), "").unwrap();
    assert_eq!(engine.wait(id).status, TaskStatus::Cancelled);
    assert!(!engine.directory().join("begun").exists());
}

#[test]
fn logs_that_belong_to_no_task_are_removed_at_the_next_start() {
    let mut engine = TestEngine::started(ENGINE);
    let kept = engine.wait(engine.submit(engine.run(&engine.script("ok", "echo kept")))).id;
    engine.kill();
    let orphan = engine.data_dir().join("attempts").join(TaskId::generate().to_string());
    fs::create_dir_all(orphan.join("1/output")).unwrap();
    engine.start();
    wait::until("the orphan to go", || (!orphan.exists()).then_some(()));
    assert_eq!(engine.lines(kept, OutputStream::Stdout), ["kept"]);
}

#[test]
fn a_pause_survives_the_engine() {
    let mut engine = TestEngine::started(ENGINE);
    engine.ask(PauseQueue::default());
    let id = engine.submit(engine.run(&engine.script("ok", "true")));
    engine.kill();
    engine.start();
    assert!(engine.ask(GetStatus {}).paused);
    assert_eq!(engine.task(id).status, TaskStatus::Pending);
    engine.ask(ResumeQueue::default());
    assert_eq!(engine.wait(id).status, TaskStatus::Completed);
}

#[test]
fn the_same_key_and_request_make_one_task_and_another_request_is_a_conflict() {
    let mut engine = TestEngine::started(ENGINE);
    let script = engine.script("ok", "true");
    let request = |name: &str| SubmitRequest {
        tasks: vec![NewTask { name: Some(name.into()), ..engine.run(&script) }],
        workflow: None,
        idempotency_key: Some("release-7".into()),
    };
    let (first, other) = (request("one"), request("two"));
    let id = engine.ask(first.clone()).id;
    engine.kill();
    engine.start();
    let again = engine.ask(first);
    assert_eq!((again.id, again.existed), (id, true));
    let conflict = engine.refused(other);
    assert_eq!(conflict.code, ErrorCode::Conflict);
    assert_eq!(engine.tasks().len(), 1);
}

#[test]
fn a_script_outlives_a_killed_engine_and_is_found_again() {
    let mut engine = TestEngine::started(ENGINE);
    let script = engine.script("gated", &format!("echo before; {GATED}; echo after; exit 3"));
    let id = engine.submit(NewTask { retry: no_retry(), ..gated(&engine, &script, "it") });
    wait::until("it to begin", || has_begun(&engine, "it").then_some(()));
    engine.kill();
    // It ends while no engine is there.
    open_gate(&engine);
    engine.start();
    let task = engine.wait(id);
    assert_eq!((task.status, task.attempts.len()), (TaskStatus::Failed, 1));
    assert_eq!(task.attempts[0].exit_code, Some(3));
    assert_eq!(engine.lines(id, OutputStream::Stdout), ["before", "after"]);
}

#[test]
fn following_goes_on_over_attempts_until_the_end() {
    let engine = TestEngine::started(ENGINE);
    let script = engine.script(
        "twice",
        &format!(r#"echo "attempt $ORCHESTRATOR_ATTEMPT"; {GATED}; [ "$ORCHESTRATOR_ATTEMPT" = 2 ]"#),
    );
    let retry = Some(RetryPolicy { max_retries: 1, base_ms: 1, cap_ms: 1 });
    let id = engine.submit(NewTask { retry, ..gated(&engine, &script, "it") });
    let request = LogsRequest { id, attempt: None, tail: None, follow: true, stream: None };
    let mut items = engine.client().subscribe(Subscription::Logs(request)).unwrap();
    let mut lines = Vec::new();
    loop {
        match items.next(wait::PATIENCE).unwrap() {
            Look::Item(item) => {
                let Item::Line(line) = *item else { panic!("not a line: {item:?}") };
                lines.push((line.attempt, line.line));
                open_gate(&engine);
            }
            Look::Nothing => panic!("nothing to follow after {lines:?}"),
            Look::End => break,
        }
    }
    assert_eq!(lines, [(1, "attempt 1".to_owned()), (2, "attempt 2".to_owned())]);
    assert_eq!(engine.task(id).status, TaskStatus::Completed);
}

#[test]
fn watching_ends_with_the_last_task() {
    let engine = TestEngine::started(ENGINE);
    let script = engine.script("gated", GATED);
    let ids = ["a", "b"].map(|name| engine.submit(gated(&engine, &script, name)));
    let mut items = engine.client().subscribe(Subscription::Watch { ids: ids.to_vec() }).unwrap();
    let mut ended = Vec::new();
    loop {
        match items.next(wait::PATIENCE).unwrap() {
            Look::Item(item) => {
                let Item::Task(task) = *item else { panic!("not a task: {item:?}") };
                if task.status == TaskStatus::Running {
                    open_gate(&engine);
                }
                ended.extend(task.status.is_final().then_some(task.id));
            }
            Look::Nothing => panic!("the watch does not end"),
            Look::End => break,
        }
    }
    ended.sort();
    assert_eq!(ended, ids);
}

#[test]
fn stopping_drains_leaves_or_cancels() {
    for mode in [StopMode::Drain, StopMode::Now, StopMode::Cancel] {
        let mut engine = TestEngine::started(ENGINE);
        let script = engine.script("gated", GATED);
        let running = engine.submit(gated(&engine, &script, "running"));
        wait::until("it to begin", || has_begun(&engine, "running").then_some(()));
        assert_eq!(engine.ask(StopEngine { mode }).running, 1);
        let expected = match mode {
            StopMode::Drain => {
                let tasks = vec![gated(&engine, &script, "waiting")];
                let refused = engine.refused(SubmitRequest { tasks, ..SubmitRequest::default() });
                assert_eq!(refused.code, ErrorCode::Unavailable);
                open_gate(&engine);
                assert!(engine.wait_ended().success());
                TaskStatus::Completed
            }
            StopMode::Now => {
                assert!(engine.wait_ended().success());
                open_gate(&engine);
                TaskStatus::Completed
            }
            StopMode::Cancel => {
                assert!(engine.wait_ended().success());
                TaskStatus::Cancelled
            }
        };
        engine.start();
        assert_eq!(engine.wait(running).status, expected, "{mode:?}");
    }
}

#[test]
fn lists_are_paged_filtered_and_searched() {
    let engine = TestEngine::started(ENGINE);
    engine.ask(PauseQueue::default());
    let script = engine.script("ok", "true");
    let task = |number: u32| NewTask {
        name: Some(format!("task {number}")),
        group: Some(format!("g{}", number % 2)),
        labels: BTreeMap::from([("parity".to_owned(), (number % 2).to_string())]),
        ..engine.run(&script)
    };
    let (_, ids) = submit_all(&engine, (0..25).map(task).collect(), None);
    let names =
        |request: ListTasks| engine.ask(request).tasks.into_iter().map(|task| task.name).collect::<Vec<_>>();
    let first = engine.ask(ListTasks { limit: Some(10), ..ListTasks::default() });
    assert_eq!(
        first.tasks.iter().map(|task| task.id).collect::<Vec<_>>(),
        ids[15..].iter().rev().copied().collect::<Vec<_>>()
    );
    let second = engine.ask(ListTasks { limit: Some(10), cursor: first.cursor, ..ListTasks::default() });
    assert_eq!(second.tasks[0].id, ids[14]);
    let offset = engine.ask(ListTasks { limit: Some(10), offset: 20, ..ListTasks::default() });
    assert_eq!((offset.tasks.len(), offset.cursor), (5, None));
    let labels = BTreeMap::from([("parity".to_owned(), "1".to_owned())]);
    assert_eq!(names(ListTasks { labels, ..ListTasks::default() }).len(), 12);
    assert_eq!(names(ListTasks { group: Some("g0".into()), ..ListTasks::default() }).len(), 13);
    assert_eq!(names(ListTasks { statuses: vec![TaskStatus::Running], ..ListTasks::default() }).len(), 0);
    assert_eq!(names(ListTasks { text: Some("TASK 24".into()), ..ListTasks::default() }), ["task 24"]);
    let refused = engine.refused(ListTasks { limit: Some(5_000), ..ListTasks::default() });
    assert_eq!(refused.message, "the limit is 5000: use 1 to 1000");
}

#[test]
fn secrets_and_masked_values_reach_no_log() {
    let engine = TestEngine::started(ENGINE);
    let secret = engine.directory().join("secret");
    fs::write(&secret, "hunter2-hunter2\n").unwrap();
    let script = engine.script(
        "leak",
        r#"cat "$ORCHESTRATOR_SECRETS"; echo; echo '::mask swordfish'; echo "it is swordfish"; env | grep hunter; echo end"#,
    );
    let secrets =
        BTreeMap::from([("password".to_owned(), format!("file:{}", secret.display()).try_into().unwrap())]);
    let id = engine.submit(NewTask { secrets, ..engine.run(&script) });
    let task = engine.wait(id);
    let lines = engine.lines(id, OutputStream::Stdout);
    assert_eq!(lines, [r#"{"password":"***"}"#, "it is ***", "end"], "{task:#?}");
    let mut stored = Vec::new();
    for entry in walk(&engine.data_dir()) {
        stored.extend(fs::read(entry).unwrap());
    }
    assert!(!String::from_utf8_lossy(&stored).contains("hunter2"));
}

fn walk(directory: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[test]
fn bad_input_is_refused_whole_with_the_reason() {
    let engine = TestEngine::started(ENGINE);
    let script = engine.script("ok", "true");
    let task = |name: &str, after: &[&str]| NewTask {
        name: Some(name.into()),
        after: after.iter().map(|name| (*name).to_owned()).collect(),
        ..engine.run(&script)
    };
    let refused = |tasks: Vec<NewTask>| engine.refused(SubmitRequest { tasks, ..SubmitRequest::default() });
    let cases = [
        (vec![task("a", &["b"]), task("b", &["a"])], "the tasks wait for each other: a -> b -> a", "tasks"),
        (
            vec![task("a", &["ghost"])],
            "task 'a' comes after 'ghost', which is not a task of this submission",
            "tasks[0].after[0]",
        ),
        (vec![], "the submission holds no task", "tasks"),
        (vec![task("a", &[]), task("a", &[])], "two tasks are named 'a'", "tasks[1].name"),
    ];
    for (tasks, message, field) in cases {
        let error = refused(tasks);
        assert_eq!((error.message.as_str(), error.field.as_deref()), (message, Some(field)));
    }
    let missing =
        refused(vec![task("a", &[]), NewTask { script: "no-such-script".into(), ..task("b", &[]) }]);
    assert!(missing.message.ends_with("no-such-script does not exist"), "{missing:?}");
    assert_eq!(missing.field.as_deref(), Some("tasks[1].script"));
    let hostile = refused(vec![task("--x;^rm", &[])]);
    assert!(hostile.message.starts_with("'--x;^rm' is not a valid task name"), "{hostile:?}");
    let reserved = BTreeMap::from([("ORCHESTRATOR_TASK_ID".to_owned(), "x".to_owned())]);
    assert!(
        refused(vec![NewTask { env: reserved, ..task("a", &[]) }]).message.contains("are set by the engine")
    );
    assert_eq!(engine.tasks(), [], "something was queued");
}

#[test]
fn a_second_engine_on_the_directory_says_so() {
    let engine = TestEngine::started(ENGINE);
    let output = engine.command().arg("--socket").arg(engine.directory().join("other.sock")).output();
    // The socket is given twice: clap refuses that first.
    assert!(!output.unwrap().status.success());
    let mut second = std::process::Command::new(ENGINE);
    second
        .arg("--data-dir")
        .arg(engine.data_dir())
        .arg("--socket")
        .arg(engine.directory().join("other.sock"))
        .arg("--no-http");
    let output = second.output().unwrap();
    assert!(!output.status.success());
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(message.contains("another engine already uses the data directory"), "{message}");
    assert_eq!(engine.ask(GetStatus {}).pid, engine.pid());
}

#[test]
fn a_huge_frame_is_refused_and_others_are_served_on() {
    use std::io::{Read, Write};
    let engine = TestEngine::started(ENGINE);
    let mut stream = std::os::unix::net::UnixStream::connect(engine.socket()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.write_all(&(1_u32 << 30).to_be_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.contains("is larger than the 16777216 bytes that are allowed"), "{answer}");
    assert_eq!(engine.ask(GetStatus {}).pid, engine.pid());
}
