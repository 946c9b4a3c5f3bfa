//! What the queue promises, seen from outside: a real engine, real processes.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use orchestrator_protocol::ErrorCode;
use orchestrator_protocol::client::Look;
use orchestrator_protocol::event::Item;
use orchestrator_protocol::request::{
    CancelTask, ExplainTask, GetStatus, ListTasks, PauseQueue, ReasonKind, ResumeQueue, RetryTask,
    StopEngine, StopMode, Subscription,
};
use orchestrator_protocol::submit::{NewTask, SubmitRequest};
use orchestrator_protocol::task::{TaskId, TaskStatus};
use orchestrator_tests::engine::TestEngine;
use orchestrator_tests::gate::{GATED, gated, has_begun, no_retry, open_gate};
use orchestrator_tests::wait;

const ENGINE: &str = env!("CARGO_BIN_EXE_orchestrator-under-test");

fn one_at_a_time() -> TestEngine {
    let mut engine = TestEngine::new(ENGINE).with_arguments(&["--max-parallel", "1"]);
    engine.start();
    engine
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
fn cancelling_a_workflow_cancels_its_tasks() {
    let engine = one_at_a_time();
    let script = engine.script("gated", GATED);
    let tasks = (1..=3).map(|number| gated(&engine, &script, &format!("t{number}"))).collect();
    let (workflow, ids) = submit_all(&engine, tasks, Some("three"));
    wait::until("the first to begin", || has_begun(&engine, "t1").then_some(()));
    engine.ask(CancelTask { force: false, id: workflow.unwrap(), reason: None });
    for id in ids {
        assert_eq!(engine.wait(id).status, TaskStatus::Cancelled);
    }
    assert_eq!(engine.wait(workflow.unwrap()).status, TaskStatus::Cancelled);
    let done = engine.refused(CancelTask {
        id: engine.wait(engine.submit(engine.run(&engine.script("ok", "true")))).id,
        reason: None,
        force: false,
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
fn a_page_of_large_tasks_is_shorter_and_says_where_the_next_one_starts() {
    let engine = TestEngine::started(ENGINE);
    engine.ask(PauseQueue::default());
    let script = engine.script("ok", "true");
    let params = serde_json::Value::from("x".repeat(3 << 20));
    let ids: Vec<TaskId> = (0..8)
        .map(|_| engine.submit(NewTask { params: Some(params.clone()), ..engine.run(&script) }))
        .collect();
    let (mut listed, mut cursor, mut pages) = (Vec::new(), None, 0);
    loop {
        let page = engine.ask(ListTasks { limit: Some(1_000), cursor, ..ListTasks::default() });
        listed.extend(page.tasks.into_iter().map(|task| task.id));
        pages += 1;
        cursor = page.cursor;
        if cursor.is_none() {
            break;
        }
    }
    listed.reverse();
    assert_eq!(listed, ids);
    assert!(pages > 1, "24 MiB are more than an answer holds");
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
