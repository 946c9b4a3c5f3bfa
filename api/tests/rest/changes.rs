//! Endpoints about the engine and the queue, and those that change a task.

use axum::http::{Method, header};
use orchestrator_protocol::Error;
use orchestrator_protocol::request::{
    CancelTask, EngineMode, PauseQueue, Request, Response, ResumeQueue, RetryTask, StopEngine, StopMode,
};
use serde_json::json;

use crate::fake::{Fake, get, id, post, request, send, status};

#[tokio::test]
async fn an_engine_that_is_ready() {
    insta::assert_snapshot!(get(&Fake::healthy(), "/ready").await.shown());
    let paused = Fake::new(|_| {
        let mut status = status();
        status.paused = true;
        Ok(Response::Status(Box::new(status)))
    });
    assert_eq!(get(&paused, "/ready").await.status, 200, "a paused queue takes work");
}

#[tokio::test]
async fn an_engine_that_is_not_ready() {
    let service = Fake::new(|_| {
        let mut status = status();
        status.mode = EngineMode::Draining;
        status.storage.writable = false;
        status.storage.reason = Some("no space left on device".into());
        Ok(Response::Status(Box::new(status)))
    });
    insta::assert_snapshot!(get(&service, "/ready").await.shown());
    for mode in [EngineMode::Draining, EngineMode::Stopping] {
        let service = Fake::new(move |_| {
            let mut status = status();
            status.mode = mode;
            Ok(Response::Status(Box::new(status)))
        });
        let answer = get(&service, "/ready").await;
        assert_eq!(answer.status, 503);
        assert_eq!(answer.headers[header::RETRY_AFTER], "1");
        assert_eq!(answer.json()["data"]["ready"], false);
    }
}

#[tokio::test]
async fn what_the_engine_is_doing() {
    insta::assert_snapshot!(get(&Fake::healthy(), "/status").await.shown());
}

#[tokio::test]
async fn a_check_of_the_set_up() {
    insta::assert_snapshot!(get(&Fake::healthy(), "/doctor").await.shown());
}

#[tokio::test]
async fn why_a_task_does_not_run() {
    insta::assert_snapshot!(get(&Fake::healthy(), &format!("/tasks/{}/explain", id(1))).await.shown());
}

#[tokio::test]
async fn changes_reach_the_engine() {
    let path = |end: &str| format!("/tasks/{}/{end}", id(1));
    let cancel = |reason: Option<&str>, force| {
        Request::from(CancelTask { id: id(1), reason: reason.map(str::to_owned), force })
    };
    let group = Some("staging".to_owned());
    let table = [
        (path("cancel"), None, 200, cancel(None, false)),
        (path("cancel"), Some("{}"), 200, cancel(None, false)),
        (path("cancel"), Some(r#"{"reason":"not today"}"#), 200, cancel(Some("not today"), false)),
        (path("cancel"), Some(r#"{"force":true}"#), 200, cancel(None, true)),
        (path("retry"), None, 200, RetryTask { id: id(1) }.into()),
        (path("retry"), Some("{}"), 200, RetryTask { id: id(1) }.into()),
        ("/queue/pause".into(), None, 200, PauseQueue { group: None }.into()),
        (
            "/queue/pause".into(),
            Some(r#"{"group":"staging"}"#),
            200,
            PauseQueue { group: group.clone() }.into(),
        ),
        ("/queue/resume".into(), Some(r#"{"group":null}"#), 200, ResumeQueue { group: None }.into()),
        ("/queue/resume".into(), Some(r#"{"group":"staging"}"#), 200, ResumeQueue { group }.into()),
        ("/engine/stop".into(), None, 202, StopEngine { mode: StopMode::Drain }.into()),
        ("/engine/stop".into(), Some(r#"{"mode":"now"}"#), 202, StopEngine { mode: StopMode::Now }.into()),
        (
            "/engine/stop".into(),
            Some(r#"{"mode":"cancel"}"#),
            202,
            StopEngine { mode: StopMode::Cancel }.into(),
        ),
    ];
    for (path, body, status, asked) in table {
        let service = Fake::healthy();
        let answer = match body {
            Some(body) => post(&service, &path, body).await,
            None => send(&service, request(Method::POST, &path)).await,
        };
        assert_eq!(answer.status, status, "{path} {body:?}: {answer:?}");
        assert_eq!(service.asked(), [asked], "{path} {body:?}");
    }
}

#[tokio::test]
async fn what_a_change_changed() {
    let answer = send(&Fake::healthy(), request(Method::POST, &format!("/tasks/{}/retry", id(1)))).await;
    let data = &answer.json()["data"];
    assert_eq!((&data["task"]["id"], &data["others"]), (&json!(id(1)), &json!([id(4)])));
    let answer = post(&Fake::healthy(), "/queue/pause", "{}").await;
    assert_eq!(answer.json()["data"], json!({ "all": false, "groups": ["staging"] }));
    let answer = post(&Fake::healthy(), "/engine/stop", "{}").await;
    assert_eq!(answer.json()["data"], json!({ "running": 2 }));
}

#[tokio::test]
async fn a_change_that_is_against_what_is_there() {
    let service = Fake::new(|_| Err(Error::conflict("a completed task cannot be retried")));
    let answer = send(&service, request(Method::POST, &format!("/tasks/{}/retry", id(1)))).await;
    assert_eq!((answer.status, &answer.json()["code"]), (409, &json!("conflict")));
}

#[tokio::test]
async fn bodies_that_mean_nothing_change_nothing() {
    let table = [
        ("cancel", r#"{"reason":7}"#, "reason"),
        ("cancel", r#"{"why":"x"}"#, "why"),
        ("retry", r#"{"reason":"x"}"#, "reason"),
    ];
    for (end, body, field) in table {
        let service = Fake::healthy();
        let answer = post(&service, &format!("/tasks/{}/{end}", id(1)), body).await;
        assert_eq!(answer.status, 422, "{body}: {answer:?}");
        assert_eq!(answer.json()["details"]["field"], field, "{body}");
        assert_eq!(service.asked(), []);
    }
    let answer = post(&Fake::healthy(), "/engine/stop", r#"{"mode":"quickly"}"#).await;
    assert_eq!((answer.status, &answer.json()["details"]["field"]), (422, &json!("mode")));
    assert!(answer.json()["error"].as_str().unwrap().contains("`now`"), "{answer:?}");
}
