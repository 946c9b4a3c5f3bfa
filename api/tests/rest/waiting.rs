//! Waiting for the end of a task: what is answered, and whose place it takes.

use std::sync::Arc;

use axum::http::{Method, header};
use futures::StreamExt;
use orchestrator_api::limits::Limits;
use orchestrator_protocol::Error;
use orchestrator_protocol::event::Item;
use orchestrator_protocol::request::{GetTask, Request, Response, Subscription};
use orchestrator_protocol::task::{Task, TaskStatus};
use serde_json::json;
use tokio::sync::watch;
use tower::ServiceExt;

use crate::fake::{Fake, ending, get, healthy, id, post, request, router_within, seen, silent_after, task};

fn state(status: TaskStatus) -> Item {
    Item::Task(Box::new(Task { status, ..task() }))
}

fn target() -> String {
    format!("/tasks/{}?wait=true", id(1))
}

/// A service whose task runs until told.
fn running() -> (Arc<Fake>, watch::Sender<bool>) {
    let end = watch::Sender::new(false);
    let told = end.clone();
    let service = Fake::healthy_streaming(move |_| {
        let mut told = told.subscribe();
        let ended = futures::stream::once(async move {
            told.wait_for(|ended| *ended).await.unwrap();
            Ok(state(TaskStatus::Completed))
        });
        Ok(futures::stream::iter([Ok(state(TaskStatus::Running))]).chain(ended).boxed())
    });
    (service, end)
}

#[tokio::test]
async fn the_answer_comes_when_the_task_has_ended() {
    for status in [TaskStatus::Completed, TaskStatus::Failed, TaskStatus::Cancelled] {
        let states = [TaskStatus::Pending, TaskStatus::Running, TaskStatus::Pending, status];
        let service = Fake::healthy_streaming(move |_| Ok(ending(states.map(state).to_vec())));
        let answer = get(&service, &target()).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.json()["data"]["status"], status.as_str());
        assert_eq!(service.subscribed(), [Subscription::Watch { ids: vec![id(1)] }]);
        assert_eq!(service.asked(), []);
    }
}

#[tokio::test]
async fn whether_to_wait_is_true_or_false() {
    let service = Fake::healthy();
    assert_eq!(get(&service, &target().replace("true", "false")).await.status, 200);
    assert_eq!(service.asked().len(), 1);
    for bad in ["yes", "1", "True", ""] {
        assert_eq!(get(&service, &target().replace("true", bad)).await.status, 400, "{bad}");
    }
}

#[tokio::test]
async fn a_task_that_is_not_there_is_not_waited_for() {
    let service = Fake::healthy_streaming(|_| Err(Error::not_found("there is no such task")));
    assert_eq!(get(&service, &target()).await.status, 404);
}

#[tokio::test]
async fn an_engine_that_stops_first_says_of_which_task_it_was() {
    let broken = |rest: Vec<Result<Item, Error>>| {
        let items = [Ok(state(TaskStatus::Running))].into_iter().chain(rest).collect::<Vec<_>>();
        Fake::healthy_streaming(move |_| Ok(futures::stream::iter(items.clone()).boxed()))
    };
    for rest in [vec![], vec![Err(Error::unavailable("the engine is stopping"))]] {
        let answer = get(&broken(rest.clone()), &target()).await;
        assert_eq!(answer.status, 503, "{rest:?}");
        assert_eq!(answer.headers[header::RETRY_AFTER], "1");
        assert_eq!(answer.json()["details"]["task"], json!(id(1)));
        let body = r#"{"tasks":[{"script":"a.nu"}],"wait":true}"#;
        let answer = post(&broken(rest), "/workflows", body).await;
        assert_eq!((answer.status, &answer.json()["details"]["task"]), (503, &json!(id(2))));
        assert!(
            !answer.headers.contains_key(header::RETRY_AFTER),
            "it was submitted: asked again, it runs twice"
        );
    }
}

#[tokio::test]
async fn a_task_that_ended_while_the_engine_stopped_is_answered() {
    let answer = |request: &Request| match request {
        Request::GetTask(GetTask { id }) => {
            let ended = Task { id: *id, status: TaskStatus::Completed, ..task() };
            Ok(Response::GetTask(Box::new(ended)))
        }
        other => healthy(other),
    };
    let service = Fake::streaming(answer, |_| {
        let items = [Ok(state(TaskStatus::Running)), Err(Error::unavailable("the engine is stopping"))];
        Ok(futures::stream::iter(items).boxed())
    });
    assert_eq!(get(&service, &target()).await.json()["data"]["status"], "Completed");
    let body = r#"{"tasks":[{"script":"a.nu"}],"wait":true}"#;
    assert_eq!(post(&service, "/workflows", body).await.json()["data"]["id"], json!(id(2)));
}

#[tokio::test]
async fn whoever_waits_takes_no_place_of_those_who_do_not() {
    let (service, end) = running();
    let limits = Limits { requests: 1, waits: 2, ..Limits::default() };
    let router = router_within(&service, limits);
    let ask = |target: &str| router.clone().oneshot(request(Method::GET, target));
    let first = tokio::spawn(ask(&target()));
    service.has_listeners(1).await;
    let second = tokio::spawn(ask(&format!("/tasks/{}/logs?follow=true", id(1))));
    service.has_listeners(2).await;
    assert_eq!(ask("/health").await.unwrap().status(), 200, "short questions have places of their own");
    for target in [target(), "/events".to_owned()] {
        let third = seen(ask(&target).await.unwrap()).await;
        assert_eq!((third.status, &third.json()["code"]), (429, &json!("too_many")), "{target}");
        assert_eq!(third.headers[header::RETRY_AFTER], "1");
    }
    let body = r#"{"tasks":[{"script":"a.nu"}],"wait":true}"#;
    let third = router.clone().oneshot(crate::fake::posting("/workflows", body)).await.unwrap();
    assert_eq!(third.status(), 429);
    assert_eq!(service.asked().len(), 1, "what cannot be waited for is not submitted: {:?}", service.asked());
    end.send_replace(true);
    assert_eq!(first.await.unwrap().unwrap().status(), 200);
    drop(second.await.unwrap().unwrap());
    service.has_listeners(0).await;
    assert_eq!(ask(&target()).await.unwrap().status(), 200, "their places are free again");
}

#[tokio::test(start_paused = true)]
async fn there_is_no_bound_on_waiting() {
    let (service, end) = running();
    let waits =
        tokio::spawn(router_within(&service, Limits::default()).oneshot(request(Method::GET, &target())));
    service.has_listeners(1).await;
    tokio::time::advance(std::time::Duration::from_secs(30 * 24 * 3600)).await;
    assert!(!waits.is_finished());
    end.send_replace(true);
    assert_eq!(waits.await.unwrap().unwrap().status(), 200);
}

#[tokio::test]
async fn a_client_that_goes_away_while_it_waits_cancels_nothing() {
    let service = Fake::healthy_streaming(|_| Ok(silent_after(vec![state(TaskStatus::Running)])));
    let gone =
        tokio::spawn(router_within(&service, Limits::default()).oneshot(request(Method::GET, &target())));
    service.has_listeners(1).await;
    gone.abort();
    service.has_listeners(0).await;
    assert_eq!(service.asked(), []);
}
