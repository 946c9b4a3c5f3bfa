//! The stream of events: its frames, where it begins, and how it ends.

use axum::http::{HeaderValue, Method, header};
use futures::StreamExt;
use orchestrator_api::limits::Limits;
use orchestrator_protocol::Error;
use orchestrator_protocol::event::{EventCursor, Item, TaskEvent};
use orchestrator_protocol::request::{EventsRequest, Subscription};
use orchestrator_protocol::task::{Progress, TaskStatus};
use tower::ServiceExt;

use crate::fake::{Fake, at, ending, get, id, request, router_within, send, silent_after};

fn cursor(sequence: u64) -> EventCursor {
    EventCursor { epoch: "4k2m9x".into(), sequence }
}

fn event(sequence: u64) -> Item {
    Item::Event(TaskEvent {
        cursor: cursor(sequence),
        time: at(5),
        id: id(1),
        name: "install\nredis".into(),
        group: "production".into(),
        parent: Some(id(2)),
        status: TaskStatus::Running,
        attempt: 1,
        progress: Some(Progress {
            fraction: Some(0.5),
            done: Some(1),
            total: Some(2),
            message: "half".into(),
        }),
        error: None,
    })
}

#[tokio::test]
async fn events_in_their_frames() {
    let items =
        vec![Item::Listening(cursor(16)), event(17), Item::Unknown, Item::Reset(cursor(40)), event(41)];
    let service = Fake::healthy_streaming(move |_| Ok(ending(items.clone())));
    let answer = get(&service, "/events").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers[header::CONTENT_TYPE], "text/event-stream");
    assert_eq!(answer.headers[header::CACHE_CONTROL], "no-store");
    insta::assert_snapshot!(answer.text);
}

/// What the engine is asked for with these.
async fn asked(query: &str, last_event_id: Option<&str>) -> EventsRequest {
    let service = Fake::healthy_streaming(|_| Ok(ending(Vec::new())));
    let mut request = request(Method::GET, &format!("/events{query}"));
    if let Some(id) = last_event_id {
        request.headers_mut().insert("last-event-id", HeaderValue::from_str(id).unwrap());
    }
    let answer = send(&service, request).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    match &service.subscribed()[..] {
        [Subscription::Events(request)] => request.clone(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn filters_and_places_reach_the_engine() {
    let since = |sequence| EventsRequest { since: Some(cursor(sequence)), ..EventsRequest::default() };
    assert_eq!(asked("", None).await, EventsRequest::default());
    let everything =
        format!("?group=pro%20duction&task={}&status=failed,running&status=Pending&since=4k2m9x:7", id(2));
    let expected = EventsRequest {
        group: Some("pro duction".into()),
        task: Some(id(2)),
        statuses: vec![TaskStatus::Failed, TaskStatus::Running, TaskStatus::Pending],
        ..since(7)
    };
    assert_eq!(asked(&everything, None).await, expected);
    assert_eq!(asked("", Some("4k2m9x:9")).await, since(9));
    assert_eq!(asked("?since=4k2m9x:7", Some("4k2m9x:9")).await, since(9), "the newer one wins");
    assert_eq!(asked("?since=4k2m9x:7", Some("")).await, since(7), "an empty one says nothing");
}

#[tokio::test]
async fn places_that_are_none_are_refused() {
    for bad in ["17", "4k2m9x", "4k2m9x:-1", "4k2m9x:", ":1", "4k2m9x:99999999999999999999999", "x y:1"] {
        let service = Fake::healthy();
        let query = format!("/events?since={}", bad.replace(' ', "%20"));
        let answer = get(&service, &query).await;
        assert_eq!(answer.status, 400, "{bad}: {answer:?}");
        assert_eq!(answer.json()["details"]["parameters"][0]["parameter"], "since");
        let mut request = request(Method::GET, "/events");
        request.headers_mut().insert("last-event-id", HeaderValue::from_str(bad).unwrap());
        let answer = send(&service, request).await;
        assert_eq!(answer.status, 400, "{bad}: {answer:?}");
        assert!(answer.json()["error"].as_str().unwrap().starts_with("Last-Event-ID"), "{answer:?}");
        assert_eq!(service.subscribed(), []);
    }
    let mut twice = request(Method::GET, "/events");
    twice.headers_mut().append("last-event-id", HeaderValue::from_static("4k2m9x:7"));
    twice.headers_mut().append("last-event-id", HeaderValue::from_static("4k2m9x:8"));
    assert_eq!(send(&Fake::healthy(), twice).await.status, 400);
    for query in ["status=done", "task=seven", "status=", "kind=command", "since=a:1&since=a:2"] {
        assert_eq!(get(&Fake::healthy(), &format!("/events?{query}")).await.status, 400, "{query}");
    }
}

#[tokio::test]
async fn a_stream_that_breaks_off_says_why() {
    let broken = Err(Error::unavailable("the engine is stopping"));
    let fault = Err(Error::internal("secret path"));
    for (end, code) in [(broken, "unavailable"), (fault, "internal")] {
        let service = Fake::healthy_streaming(move |_| {
            let end = futures::stream::iter([end.clone(), Ok(event(18))]);
            Ok(ending(vec![event(17)]).chain(end).boxed())
        });
        let text = get(&service, "/events").await.text;
        let (before, failure) = text.split_once("event: failure\n").unwrap();
        assert_eq!(before.matches("event: task\n").count(), 1, "{text}");
        assert!(failure.contains(&format!(r#""code":"{code}""#)), "{failure}");
        assert!(!text.contains("secret") && !failure.contains("event:"), "{text}");
    }
}

#[tokio::test]
async fn an_engine_that_refuses_the_stream_is_told_as_usual() {
    let service = Fake::healthy_streaming(|_| Err(Error::invalid("no such group").with_field("group")));
    let answer = get(&service, "/events?group=x").await;
    assert_eq!((answer.status, answer.json()["code"].as_str()), (400, Some("malformed")));
}

#[tokio::test(start_paused = true)]
async fn silence_is_broken_by_a_comment() {
    let service = Fake::healthy_streaming(|_| Ok(silent_after(vec![event(17)])));
    let answer = router_within(&service, Limits::default()).oneshot(request(Method::GET, "/events")).await;
    let mut frames = answer.unwrap().into_body().into_data_stream();
    let first = frames.next().await.unwrap().unwrap();
    assert!(first.starts_with(b"event: task\n"), "{first:?}");
    for _ in 0..3 {
        assert_eq!(frames.next().await.unwrap().unwrap(), ":\n\n");
    }
    drop(frames);
    service.has_listeners(0).await;
    assert_eq!(service.asked(), []);
}
