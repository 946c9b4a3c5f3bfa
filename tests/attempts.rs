//! What becomes of attempts, seen from outside: a real engine, real runners, real scripts.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::fs;

use orchestrator_protocol::ErrorCode;
use orchestrator_protocol::client::Look;
use orchestrator_protocol::event::{Item, OutputStream};
use orchestrator_protocol::request::{CancelTask, LogsRequest, RetryTask, Subscription};
use orchestrator_protocol::submit::NewTask;
use orchestrator_protocol::task::{AttemptOutcome, RetryPolicy, TaskId, TaskStatus};
use orchestrator_tests::engine::TestEngine;
use orchestrator_tests::gate::{GATED, gated, has_begun, no_retry, open_gate};
use orchestrator_tests::wait;
use serde_json::json;

const ENGINE: &str = env!("CARGO_BIN_EXE_orchestrator-under-test");

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
    let cancelled = engine.ask(CancelTask { id, reason: Some("enough".into()), force: false });
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
    engine.ask(CancelTask { id, reason: None, force: false });
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
