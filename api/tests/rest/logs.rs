//! What a task printed: as a list, as a stream, and as bare lines.

use axum::body::to_bytes;
use axum::http::{HeaderValue, Method, header};
use futures::StreamExt;
use orchestrator_api::limits::Limits;
use orchestrator_protocol::Error;
use orchestrator_protocol::event::{Item, LogLine, OutputStream};
use orchestrator_protocol::request::{GetTask, LogsRequest, Request, Subscription};
use serde_json::json;
use tower::ServiceExt;

use crate::fake::{Fake, Seen, at, ending, get, id, request, router_within, seen, send};

fn line(text: &str) -> Item {
    let stream = OutputStream::Stdout;
    Item::Line(LogLine { task: id(1), attempt: 2, time: at(5), stream, line: text.into() })
}

fn dropped() -> Item {
    Item::Dropped { task: id(1), lines: 12, bytes: 345 }
}

fn target(query: &str) -> String {
    format!("/tasks/{}/logs{query}", id(1))
}

async fn plainly(service: &std::sync::Arc<Fake>, query: &str, accept: &'static str) -> Seen {
    let mut request = request(Method::GET, &target(query));
    request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static(accept));
    send(service, request).await
}

fn printing() -> std::sync::Arc<Fake> {
    Fake::healthy_streaming(|_| Ok(ending(vec![line("one"), dropped(), Item::Unknown, line("t\u{e9}n\r")])))
}

#[tokio::test]
async fn a_list_of_lines() {
    insta::assert_snapshot!(get(&printing(), &target("")).await.shown());
}

#[tokio::test]
async fn a_stream_of_lines() {
    let service = printing();
    let answer = get(&service, &target("?follow=true")).await;
    assert_eq!(answer.headers[header::CONTENT_TYPE], "text/event-stream");
    insta::assert_snapshot!(answer.text);
    assert_eq!(service.asked(), [Request::from(GetTask { id: id(1) })], "how it ended");
}

#[tokio::test]
async fn bare_lines() {
    for query in ["", "?follow=true"] {
        for accept in ["text/plain", "TEXT/PLAIN; q=0.5", "text/html, text/plain;charset=utf-8"] {
            let answer = plainly(&printing(), query, accept).await;
            assert_eq!(answer.status, 200);
            assert_eq!(answer.headers[header::CONTENT_TYPE], "text/plain; charset=utf-8");
            assert_eq!(answer.text, "one\n[12 lines (345 bytes) are missing here]\nt\u{e9}n\r\n");
        }
        let answer = plainly(&printing(), query, "*/*").await;
        assert_ne!(answer.headers[header::CONTENT_TYPE], "text/plain; charset=utf-8");
    }
}

async fn asked(query: &str) -> LogsRequest {
    let service = printing();
    let answer = get(&service, &target(query)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    match &service.subscribed()[..] {
        [Subscription::Logs(request)] => request.clone(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_is_asked_for_reaches_the_engine() {
    let all = LogsRequest { id: id(1), attempt: None, tail: None, follow: true, stream: None };
    assert_eq!(asked("").await, LogsRequest { tail: Some(1000), follow: false, ..all.clone() });
    assert_eq!(
        asked("?follow=false&tail=10000").await,
        LogsRequest { tail: Some(10_000), follow: false, ..all.clone() }
    );
    assert_eq!(asked("?follow=true").await, all);
    let narrow =
        LogsRequest { attempt: Some(2), tail: Some(20_000), stream: Some(OutputStream::Stderr), ..all };
    assert_eq!(asked("?follow=true&tail=20000&attempt=2&stream=stderr").await, narrow);
}

#[tokio::test]
async fn what_cannot_be_asked_for_is_refused() {
    for query in [
        "tail=0",
        "tail=10001",
        "tail=-1",
        "tail=all",
        "attempt=0",
        "attempt=4294967296",
        "stream=both",
        "follow=1",
        "tail=1&tail=2",
        "lines=1",
    ] {
        let service = printing();
        let answer = get(&service, &target(&format!("?{query}"))).await;
        assert_eq!(answer.status, 400, "{query}: {answer:?}");
        assert_eq!(service.subscribed(), [], "{query}");
    }
    let service = Fake::healthy_streaming(|_| Err(Error::not_found("no attempt 7").with_field("attempt")));
    for query in ["?attempt=7", "?attempt=7&follow=true"] {
        assert_eq!(get(&service, &target(query)).await.status, 404);
        assert_eq!(plainly(&service, query, "text/plain").await.json()["code"], "not_found");
    }
}

#[tokio::test]
async fn a_list_is_bounded_and_says_what_it_left_out() {
    let lines: Vec<Item> =
        std::iter::once(dropped()).chain((0..100).map(|number| line(&format!("{number:0100}")))).collect();
    let service = Fake::healthy_streaming(move |_| Ok(ending(lines.clone())));
    let limits = Limits { output_bytes: 2_600, ..Limits::default() };
    let answer = router_within(&service, limits).oneshot(request(Method::GET, &target(""))).await.unwrap();
    let data = seen(answer).await.json()["data"].take();
    let entries = data.as_array().unwrap();
    let kept: Vec<_> = entries[1..].iter().map(|entry| entry["line"].as_str().unwrap()).collect();
    let newest: Vec<_> = (90..100).map(|number| format!("{number:0100}")).collect();
    assert_eq!(kept, newest);
    let missing = json!({ "lines": 90 + 12, "bytes": 90 * 101 + 345 });
    assert_eq!(entries[0], json!({ "task": id(1), "dropped": missing }));
}

#[tokio::test]
async fn a_stream_that_is_not_told_to_its_end_is_not_taken_for_all() {
    let broken = || {
        Fake::healthy_streaming(|_| {
            let end = futures::stream::iter([Err(Error::unavailable("the engine is stopping"))]);
            Ok(ending(vec![line("one")]).chain(end).boxed())
        })
    };
    let text = get(&broken(), &target("?follow=true")).await.text;
    assert!(text.contains("event: failure\n") && !text.contains("event: end\n"), "{text}");
    assert_eq!(get(&broken(), &target("")).await.status, 503);
    assert_eq!(plainly(&broken(), "", "text/plain").await.status, 503);
    let mut request = request(Method::GET, &target("?follow=true"));
    request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static("text/plain"));
    let answer = router_within(&broken(), Limits::default()).oneshot(request).await.unwrap();
    assert!(to_bytes(answer.into_body(), usize::MAX).await.is_err(), "the answer breaks off");
}

#[tokio::test]
async fn bare_lines_only_for_whoever_prefers_them() {
    for accept in [
        "application/json, text/plain, */*",
        "text/plain;q=0, */*",
        "text/plain;q=0.5, application/json",
        "*/*",
    ] {
        let answer = plainly(&printing(), "", accept).await;
        assert_eq!(answer.headers[header::CONTENT_TYPE], "application/json", "{accept}");
    }
    let answer = plainly(&printing(), "?follow=true", "text/event-stream, text/plain").await;
    assert_eq!(answer.headers[header::CONTENT_TYPE], "text/event-stream");
    for accept in ["text/plain, application/json", "application/json;q=0.5, text/plain", "text/plain, */*"] {
        let answer = plainly(&printing(), "", accept).await;
        assert_eq!(answer.headers[header::CONTENT_TYPE], "text/plain; charset=utf-8", "{accept}");
    }
}
