//! The engine behind the commands: how it is found, started and stopped, and what happens when it goes.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::process::Command;

use orchestrator_protocol::frame::{ClientFrame, Decoder, EngineFrame, encode};
use orchestrator_protocol::hello::Hello;
use orchestrator_tests::{store, wait};
use serde_json::json;

use crate::shell::{Running, Shell, bounded};

#[test]
fn an_engine_is_started_when_a_command_needs_it_and_only_then() {
    let Some(shell) = Shell::new() else { return };
    assert_eq!(shell.value("orchestrator status")["state"], json!("stopped"));
    assert_eq!(shell.value("orchestrator stop"), json!({"was_running": false, "scripts": 0}));
    let checks = shell.value("orchestrator doctor | where check == engine");
    assert_eq!(checks[0]["state"], json!("warning"));
    assert!(shell.client().is_none());
    assert_eq!(shell.value("orchestrator task list"), json!([]));
    let status = shell.value("orchestrator status");
    assert_eq!(
        (&status["running"], &status["state"], &status["http"]),
        (&json!(true), &json!("active"), &json!(null))
    );
}

#[test]
fn an_engine_started_from_a_pipe_does_not_hold_the_pipe_open() {
    let Some(shell) = Shell::new() else { return };
    let nu = shell.command("orchestrator task list | length");
    let mut through_cat = Command::new("sh");
    shell.prepare(&mut through_cat);
    through_cat.args(["-c", "\"$@\" | cat", "sh"]).arg(nu.get_program()).args(nu.get_args());
    let output = bounded(through_cat);
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "0");
    assert!(shell.client().is_some(), "the engine goes on");
}

#[test]
fn users_who_come_at_once_get_one_engine() {
    let Some(shell) = Shell::new() else { return };
    let pids: Vec<String> = std::thread::scope(|scope| {
        let start = || shell.text("orchestrator task list; (orchestrator status).pid");
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(start)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(pids.iter().all(|pid| *pid == shell.engine_pid().to_string()), "{pids:?}");
}

#[test]
fn options_are_for_a_new_engine() {
    let Some(shell) = Shell::new() else { return };
    let first = shell.value("orchestrator start --data-dir mine --storage-type filesystem");
    assert_eq!((&first["started_now"], &first["storage"]["backend"]), (&json!(true), &json!("filesystem")));
    let mine = shell.home().canonicalize().unwrap().join("mine");
    assert_eq!(first["data_dir"], json!(mine));
    let again =
        shell.value("orchestrator start --data-dir mine --storage-type filesystem --storage-dir ./mine");
    assert_eq!(again["started_now"], json!(false));
    for other in [
        "--port 8123",
        "--storage-dir other",
        "--surrealdb-url ws://127.0.0.1:8000",
        "--surrealdb-database mine",
    ] {
        let code = shell.code(&format!("orchestrator start --data-dir mine {other}"));
        assert_eq!(code, "orchestrator::already_running", "{other}");
    }
    assert_eq!(shell.value("orchestrator stop --data-dir mine")["was_running"], json!(true));
    assert_eq!(shell.value("orchestrator status --data-dir mine")["running"], json!(false));
}

#[test]
fn an_engine_gets_the_variables_of_the_shell_as_they_are_when_it_is_started() {
    let Some(shell) = Shell::new() else { return };
    let home = shell.home().canonicalize().unwrap();
    // The plugin runs before they are set, and in a directory of its own.
    let location = shell.value(
        "orchestrator status | ignore
         $env.ORCHESTRATOR_STORAGE_DIR = 'there'
         orchestrator task list | ignore
         orchestrator storage status | get location",
    );
    assert_eq!(location, json!(home.join("there")));
    let location = shell.value(
        "orchestrator status | ignore
         $env.ORCHESTRATOR_STORAGE_DIR = 'elsewhere'
         orchestrator start --data-dir mine | ignore
         orchestrator storage status --data-dir mine | get location",
    );
    assert_eq!(location, json!(home.join("elsewhere")));
    shell.text("orchestrator stop --data-dir mine");
}

#[test]
fn a_stopped_engine_is_asked_for_where_it_is_configured_to_be() {
    let Some(shell) = Shell::new() else { return };
    let there = shell.home().canonicalize().unwrap().join("there");
    let with = |args: &str, line: &str| format!("$env.config.plugins.orchestrator.args = {args}; {line}");
    let args = format!("[--max-parallel 3 --storage-dir={}]", there.display());
    assert_eq!(shell.value(&with(&args, "orchestrator start"))["max_parallel"], json!(3));
    shell.text("orchestrator stop");
    let typed = format!("[--storage-type {} --storage-dir '{}']", store::backend(), there.display());
    let args = [args, typed];
    for args in args {
        let location = shell.value(&with(&args, "orchestrator storage status | get location"));
        assert_eq!(location, json!(there));
    }
    let line = "$env.ORCHESTRATOR_STORAGE_DIR = 'there'; orchestrator storage status | get location";
    assert_eq!(shell.value(line), json!(there));
    // What is typed comes before what is configured.
    let started = shell
        .value(&with("[--max-parallel 3 --storage-dir /nowhere]", "orchestrator start --storage-dir there"));
    assert_eq!((&started["started_now"], &started["max_parallel"]), (&json!(true), &json!(3)));
    assert_eq!(shell.value("orchestrator storage status | get location"), json!(there));
}

#[test]
fn settings_say_where_the_engine_is_and_whether_it_may_be_started() {
    let Some(shell) = Shell::new() else { return };
    let with = |settings: &str, line: &str| format!("$env.config.plugins.orchestrator = {settings}; {line}");
    assert_eq!(
        shell.code(&with("{auto_start: false}", "orchestrator task list")),
        "orchestrator::not_running"
    );
    let code = shell.code(&with("{autostart: false}", "orchestrator task list"));
    assert_eq!(code, "orchestrator::invalid");
    let elsewhere =
        shell.value(&with("{data_dir: elsewhere, args: [--max-parallel 3]}", "orchestrator start"));
    assert_eq!(elsewhere["max_parallel"], json!(3));
    shell.text("orchestrator stop --data-dir elsewhere");
    let named = shell.code("with-env {ORCHESTRATOR_SOCKET: none.sock} { orchestrator task list }");
    assert_eq!(named, "orchestrator::not_running");
    let missing = shell.error("with-env {ORCHESTRATOR_ENGINE: none} { orchestrator task list }");
    assert_eq!(missing["code"], json!("orchestrator::start_failed"), "{missing}");
}

#[test]
fn an_engine_that_does_not_start_says_why() {
    let Some(shell) = Shell::new() else { return };
    fs::write(shell.home().join("settings.toml"), "no_such_key = 1\n").unwrap();
    let error = shell.error("orchestrator start --config settings.toml");
    assert_eq!(error["code"], json!("orchestrator::start_failed"));
    assert!(error["help"].as_str().unwrap().contains("no_such_key"), "{error}");
}

#[test]
fn stopping_lets_scripts_end_and_leaves_or_cancels_them_on_request() {
    let Some(shell) = Shell::new() else { return };
    shell.waiting_script("long.nu");
    let submit = "let task = (orchestrator task submit long.nu)
                  while (orchestrator task get $task.id).status == Pending { sleep 5ms }
                  $task.id";
    // Left running: the next engine finds it.
    let id = shell.text(submit);
    assert_eq!(shell.value("orchestrator stop --now"), json!({"was_running": true, "scripts": 1}));
    assert!(shell.client().is_none());
    shell.text("orchestrator start");
    assert_eq!(shell.value(&format!("(orchestrator task get {id}).status")), json!("Running"));
    // Waited for.
    let mut stopping = Running::start(&shell, "orchestrator stop | to json -r");
    wait::until("the engine to drain", || {
        let mut client = shell.client()?;
        let status = client.call(orchestrator_protocol::request::GetStatus {}).ok()?;
        (status.mode != orchestrator_protocol::request::EngineMode::Active).then_some(())
    });
    assert!(stopping.still_runs(std::time::Duration::from_millis(50)));
    shell.go();
    assert!(stopping.line().contains("\"scripts\":1"));
    let task = shell.value(&format!("orchestrator task get {id}"));
    assert_eq!((&task["status"], &task["attempt"]), (&json!("Completed"), &json!(1)));
    // Cancelled.
    fs::remove_file(shell.home().join("go")).unwrap();
    let id = shell.text(submit);
    shell.text("orchestrator stop --cancel");
    assert_eq!(shell.value(&format!("(orchestrator task get {id}).status")), json!("Cancelled"));
}

/// Submits a script that ends at once and `long.nu`, and waits for both; returns when the first has been
/// reported, so that the wait is known to be under way. Also says the id of the second.
fn wait_for_two(shell: &Shell) -> (Running, String) {
    shell.script("short.nu", "    print short");
    shell.waiting_script("long.nu");
    let ids = shell.value("[(orchestrator task submit short.nu).id (orchestrator task submit long.nu).id]");
    let long = ids[1].as_str().unwrap().to_owned();
    let line = format!(
        "{ids} | orchestrator task wait | each {{|task| print $\"($task.name) ($task.status)\" }} | ignore"
    );
    let waiting = Running::start(shell, &line);
    assert_eq!(waiting.line(), "short Completed");
    (waiting, long)
}

#[test]
fn a_wait_outlives_an_engine_that_is_replaced() {
    let Some(shell) = Shell::new() else { return };
    let (waiting, _) = wait_for_two(&shell);
    shell.kill_engine();
    shell.text("orchestrator start");
    shell.go();
    assert_eq!(waiting.line(), "long Completed");
}

#[test]
fn an_engine_that_goes_for_good_ends_a_wait_with_a_clear_message() {
    let Some(shell) = Shell::new() else { return };
    let (waiting, id) = wait_for_two(&shell);
    let follow = Running::start(&shell, &format!("orchestrator task logs {id} --follow --raw"));
    assert_eq!(follow.line(), "ready");
    shell.kill_engine();
    let complaint = waiting.end();
    assert!(
        complaint.contains("orchestrator::not_running") && complaint.contains("The engine has gone"),
        "{complaint}"
    );
    assert!(complaint.contains("orchestrator start"), "{complaint}");
    let complaint = follow.end();
    assert!(complaint.contains("orchestrator::connection_broken"), "{complaint}");
    // The next command finds another engine, and the script where it was.
    shell.go();
    assert_eq!(shell.value(&format!("(orchestrator task wait {id}).status")), json!("Completed"));
}

/// Plays an engine that answers every hello with `hello`, and then hangs up at the first question.
fn play(shell: &Shell, hello: Hello) {
    let listener = UnixListener::bind(shell.home().join("played.sock")).unwrap();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            let mut decoder = Decoder::default();
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = connection.read(&mut buffer) {
                decoder.push(&buffer[..read]);
                match decoder.next_frame().unwrap() {
                    Some(ClientFrame::Hello(_)) => {
                        connection.write_all(&encode(&EngineFrame::Hello(hello.clone())).unwrap()).unwrap();
                    }
                    Some(_) => break,
                    None => {}
                }
            }
        }
    });
}

#[test]
fn an_engine_of_another_release_is_told_apart() {
    let Some(shell) = Shell::new() else { return };
    play(&shell, Hello { protocol: 0, version: "0.0.1".into(), ..Hello::ours() });
    let error = shell.error("orchestrator status --socket played.sock");
    assert_eq!(error["code"], json!("orchestrator::version_mismatch"));
    let (message, help) = (error["msg"].as_str().unwrap(), error["help"].as_str().unwrap());
    assert!(message.contains("0.0.1") && help.contains("update the engine"), "{error}");
}

#[test]
fn an_engine_that_breaks_off_in_mid_call_is_reported_and_a_submission_not_repeated() {
    let Some(shell) = Shell::new() else { return };
    shell.script("ok.nu", "    print ok");
    play(&shell, Hello::ours());
    let list = shell.error("orchestrator task list --socket played.sock");
    assert_eq!(list["code"], json!("orchestrator::connection_broken"));
    let submit = shell.error("orchestrator task submit ok.nu --socket played.sock");
    assert_eq!(submit["code"], json!("orchestrator::connection_broken"));
    assert!(submit["help"].as_str().unwrap().contains("not known"), "{submit}");
}
