//! What each path answers.

use axum::http::{Method, header};
use orchestrator_protocol::request::{EngineMode, Request, Response, TaskPage};
use orchestrator_protocol::task::{
    Action, CancelRequest, Claim, Program, RetryPolicy, TaskDefaults, TaskStatus, Work, WorkerCall, Workflow,
};
use orchestrator_protocol::{Error, ErrorCode};
use serde_json::json;

use crate::fake::{Fake, at, get, id, request, send, status, task};

#[tokio::test]
async fn health_of_a_well_engine() {
    let service = Fake::healthy();
    insta::assert_snapshot!(get(&service, "/health").await.shown());
    assert!(matches!(service.asked().as_slice(), [Request::Status(_)]));
}

#[tokio::test]
async fn health_says_that_an_engine_takes_nothing_new() {
    for (mode, name) in [(EngineMode::Draining, "draining"), (EngineMode::Stopping, "stopping")] {
        let service = Fake::new(move |_| {
            let mut status = status();
            status.mode = mode;
            Ok(Response::Status(Box::new(status)))
        });
        let health = get(&service, "/health").await;
        assert_eq!(health.status, 200);
        let data = &health.json()["data"];
        assert_eq!((&data["status"], &data["accepts_work"]), (&json!("degraded"), &json!(false)));
        assert_eq!(data["mode"], name);
        assert_eq!(data["reasons"].as_array().unwrap().len(), 1);
    }
}

#[tokio::test]
async fn health_of_an_engine_that_cannot_write() {
    let service = Fake::new(|_| {
        let mut status = status();
        status.storage.writable = false;
        status.storage.reason = Some("no space left on device".into());
        Ok(Response::Status(Box::new(status)))
    });
    insta::assert_snapshot!(get(&service, "/health").await.shown());
}

#[tokio::test]
async fn a_command_that_waits_for_its_next_attempt() {
    let service = Fake::healthy();
    insta::assert_snapshot!(get(&service, &format!("/tasks/{}", id(1))).await.shown());
    let [Request::GetTask(asked)] = service.asked()[..] else { panic!("{:?}", service.asked()) };
    assert_eq!(asked.id, id(1));
}

#[tokio::test]
async fn a_running_call_of_the_worker() {
    let service = Fake::new(|_| {
        let mut task = task();
        let Work::Command(command) = &mut task.work else { panic!("not a command") };
        command.program = Program::Worker(call());
        task.status = TaskStatus::Running;
        task.claim =
            Some(Claim { engine: "engine-1".into(), boot_id: "boot".into(), slot: None, is_leased: false });
        Ok(Response::GetTask(Box::new(task)))
    });
    let data = get(&service, &format!("/tasks/{}", id(1))).await.json()["data"].take();
    assert_eq!(data["command"], "server create");
    let args = ["web-01", "--infra", "production", "--settings", "/srv/settings.yaml", "--check"];
    assert_eq!(data["args"], json!(args));
    assert_eq!(data["settings_digest"], "5e77");
    assert_eq!(data["engine"], "engine-1");
}

fn call() -> WorkerCall {
    WorkerCall {
        operation: vec!["server".into(), "create".into()],
        names: vec!["web-01".into()],
        infra: "production".into(),
        settings: "/srv/settings.yaml".into(),
        settings_digest: "5e77".into(),
        check: true,
    }
}

#[tokio::test]
async fn a_workflow_that_is_being_cancelled() {
    let service = Fake::new(|_| {
        let mut task = task();
        task.work = Work::Workflow(Workflow { total: 4, completed: 1, failed: 0, cancelled: 1 });
        task.progress = None;
        task.attempts.clear();
        task.cancel = Some(CancelRequest { reason: "not today".into(), at: at(9), caused_by: None });
        Ok(Response::GetTask(Box::new(task)))
    });
    insta::assert_snapshot!(get(&service, &format!("/tasks/{}", id(1))).await.shown());
}

#[tokio::test]
async fn every_kind_of_task_has_the_same_keys() {
    let add_tasks = Action::AddTasks {
        plan_from: id(3),
        call: call(),
        defaults: Box::new(TaskDefaults {
            cwd: "/srv".into(),
            env: Default::default(),
            secrets: Default::default(),
            retry: RetryPolicy::default(),
            timeout_ms: None,
        }),
    };
    let tasks = [task().work, Work::Workflow(Workflow::default()), Work::Action(add_tasks)].map(|work| {
        let mut task = task();
        task.work = work;
        task
    });
    let service =
        Fake::new(move |_| Ok(Response::ListTasks(TaskPage { tasks: tasks.to_vec(), cursor: None })));
    let answer = get(&service, "/tasks").await.json();
    let tasks = answer["data"].as_array().unwrap();
    let keys: Vec<Vec<&String>> =
        tasks.iter().map(|task| task.as_object().unwrap().keys().collect()).collect();
    assert_eq!(keys.len(), 3);
    assert!(keys.iter().all(|of_one| *of_one == keys[0]), "{keys:?}");
    for documented in [
        "id",
        "name",
        "kind",
        "command",
        "args",
        "dependencies",
        "status",
        "priority",
        "attempt",
        "created_at",
        "started_at",
        "completed_at",
        "progress",
        "output",
        "result",
        "error",
    ] {
        assert!(keys[0].iter().any(|key| *key == documented), "{documented} is not in {:?}", keys[0]);
    }
}

#[tokio::test]
async fn a_list_has_its_cursor_beside_it() {
    let page = get(&Fake::healthy(), "/tasks").await.json();
    assert_eq!(page["success"], true);
    assert_eq!(page["data"][0]["id"], id(1).to_string());
    assert_eq!(page["cursor"], "after-that");
    let last = Fake::new(|_| Ok(Response::ListTasks(TaskPage { tasks: Vec::new(), cursor: None })));
    let last = get(&last, "/tasks").await;
    assert_eq!(last.text, r#"{"success":true,"data":[],"error":null,"cursor":null}"#);
}

#[tokio::test]
async fn a_task_that_is_not_there() {
    let service = Fake::new(|_| Err(Error::not_found("there is no task 7").with_help("list them")));
    insta::assert_snapshot!(get(&service, &format!("/tasks/{}", id(7))).await.shown());
}

#[tokio::test]
async fn a_task_id_that_is_none() {
    let service = Fake::healthy();
    for path in ["/tasks/seven", "/tasks/%FF", "/tasks/01890a5d", "/tasks/..%2Fhealth"] {
        let answer = get(&service, path).await;
        assert_eq!(answer.status, 400, "{path}: {answer:?}");
        assert_eq!(answer.json()["code"], "malformed");
    }
    assert_eq!(service.asked(), []);
}

#[tokio::test]
async fn each_no_of_the_engine_has_its_status() {
    let table = [
        (ErrorCode::Malformed, 400, "malformed"),
        (ErrorCode::Invalid, 422, "invalid"),
        (ErrorCode::NotFound, 404, "not_found"),
        (ErrorCode::Conflict, 409, "conflict"),
        (ErrorCode::Unauthenticated, 401, "unauthenticated"),
        (ErrorCode::Forbidden, 403, "forbidden"),
        (ErrorCode::TooLarge, 413, "too_large"),
        (ErrorCode::TooMany, 429, "too_many"),
        (ErrorCode::Unavailable, 503, "unavailable"),
    ];
    for (code, status, name) in table {
        let service =
            Fake::new(move |_| Err(Error::new(code, "because").with_field("id").with_help("do this")));
        let answer = get(&service, &format!("/tasks/{}", id(1))).await;
        assert_eq!(answer.status, status, "{code:?}");
        assert_eq!(answer.headers.contains_key(header::RETRY_AFTER), matches!(status, 429 | 503), "{code:?}");
        let details = json!({ "field": "id", "help": "do this" });
        let expected = json!({
            "success": false, "data": null, "error": "because", "code": name, "details": details,
        });
        assert_eq!(answer.json(), expected);
    }
}

#[tokio::test]
async fn faults_of_the_engine_are_not_told_to_clients() {
    let told = r#"{"success":false,"data":null,"error":"the engine failed; its log says more","code":"internal","details":null}"#;
    for code in [ErrorCode::Internal, ErrorCode::VersionMismatch, ErrorCode::Unknown] {
        let service = Fake::new(move |_| Err(Error::new(code, "secret path").with_help("secret help")));
        let answer = get(&service, "/health").await;
        assert_eq!((answer.status, answer.text.as_str()), (500, told));
    }
    let confused = Fake::new(|_| Ok(Response::ListTasks(TaskPage { tasks: Vec::new(), cursor: None })));
    let answer = get(&confused, "/health").await;
    assert_eq!((answer.status, answer.text.as_str()), (500, told));
}

#[tokio::test]
async fn a_head_has_no_body() {
    let answer = send(&Fake::healthy(), request(Method::HEAD, "/health")).await;
    assert_eq!((answer.status, answer.text.as_str()), (200, ""));
}

#[tokio::test]
async fn unknown_paths_are_answered_in_the_same_shape() {
    let service = Fake::healthy();
    insta::assert_snapshot!(get(&service, "/nowhere").await.shown());
    for path in ["/", "/tasks/", "/tasks//nothing", "/HEALTH", "//health"] {
        let answer = get(&service, path).await;
        assert_eq!(answer.status, 404, "{path}");
        assert_eq!(answer.json()["code"], "not_found");
    }
    assert_eq!(service.asked(), []);
}

#[tokio::test]
async fn other_methods_are_answered_in_the_same_shape() {
    let service = Fake::healthy();
    insta::assert_snapshot!(send(&service, request(Method::DELETE, "/tasks")).await.shown());
    let odd = Method::from_bytes(b"BREW").unwrap();
    for (method, path) in [(Method::POST, "/health"), (Method::OPTIONS, "/tasks/7"), (odd, "/tasks")] {
        let answer = send(&service, request(method, path)).await;
        assert_eq!(answer.status, 405, "{path}");
        assert!(answer.headers.contains_key(header::ALLOW), "{path}");
        assert_eq!(answer.json()["code"], "method_not_allowed");
    }
    assert_eq!(service.asked(), []);
}
