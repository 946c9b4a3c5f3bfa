//! What the nodes of an environment printed: as a list, as a stream, and as bare lines.

use axum::body::to_bytes;
use axum::http::{HeaderValue, Method, header};
use futures::StreamExt;
use orchestrator_api::limits::Limits;
use orchestrator_protocol::Error;
use orchestrator_protocol::environment::{EnvironmentLogs, GetEnvironment, NodeLine};
use orchestrator_protocol::event::{Item, OutputStream};
use orchestrator_protocol::request::{Request, Subscription};
use serde_json::json;
use tower::ServiceExt;

use crate::fake::{Fake, Seen, at, ending, environment_id, get, id, request, router_within, seen, send};

fn line(node: &str, text: &str) -> Item {
    Item::Node(NodeLine {
        node: node.into(),
        step: "start etcd".into(),
        time: at(5),
        stream: OutputStream::Stderr,
        line: text.into(),
    })
}

fn target(query: &str) -> String {
    format!("/test/environments/{}/logs{query}", environment_id())
}

async fn plainly(service: &std::sync::Arc<Fake>, query: &str) -> Seen {
    let mut request = request(Method::GET, &target(query));
    request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static("text/plain"));
    send(service, request).await
}

fn printing() -> std::sync::Arc<Fake> {
    Fake::healthy_streaming(|_| {
        let dropped = Item::Dropped { task: id(2), lines: 12, bytes: 345 };
        Ok(ending(vec![line("etcd-01", "one"), dropped, Item::Unknown, line("etcd-02", "t\u{e9}n")]))
    })
}

#[tokio::test]
async fn a_list_of_lines_of_nodes() {
    insta::assert_snapshot!(get(&printing(), &target("")).await.shown());
}

#[tokio::test]
async fn a_stream_of_lines_of_nodes() {
    let service = printing();
    let answer = get(&service, &target("?follow=true")).await;
    assert_eq!(answer.headers[header::CONTENT_TYPE], "text/event-stream");
    insta::assert_snapshot!(answer.text);
    assert_eq!(service.asked(), [Request::from(GetEnvironment { id: environment_id() })], "how it ended");
}

#[tokio::test]
async fn bare_lines_name_their_node_unless_only_one_is_asked_for() {
    for query in ["?", "?follow=true&"] {
        let all = plainly(&printing(), query.trim_end_matches(['&', '?'])).await;
        assert_eq!(all.headers[header::CONTENT_TYPE], "text/plain; charset=utf-8");
        let missing = "[12 lines (345 bytes) are missing here]";
        assert_eq!(all.text, format!("etcd-01: one\n{missing}\netcd-02: t\u{e9}n\n"));
        let one = plainly(&printing(), &format!("{query}node=etcd-01")).await;
        assert_eq!(one.text, format!("one\n{missing}\nt\u{e9}n\n"));
    }
}

async fn asked(query: &str) -> EnvironmentLogs {
    let service = printing();
    let answer = get(&service, &target(query)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    match &service.subscribed()[..] {
        [Subscription::EnvironmentLogs(request)] => request.clone(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_is_asked_for_of_nodes_reaches_the_engine() {
    let all = EnvironmentLogs { id: environment_id(), node: None, tail: Some(1000), follow: false };
    assert_eq!(asked("").await, all);
    let followed = EnvironmentLogs { tail: None, follow: true, ..all.clone() };
    assert_eq!(asked("?follow=true").await, followed);
    let one = EnvironmentLogs { node: Some("etcd-01".into()), tail: Some(20_000), ..followed };
    assert_eq!(asked("?node=etcd-01&tail=20000&follow=true").await, one);
    let few = EnvironmentLogs { tail: Some(5), ..all };
    assert_eq!(asked("?follow=false&tail=5").await, few);
}

#[tokio::test]
async fn what_cannot_be_asked_for_of_nodes_is_refused() {
    for query in ["tail=0", "tail=10001", "node=", "node=a&node=b", "follow=1", "attempt=1", "stream=stdout"]
    {
        let service = printing();
        let answer = get(&service, &target(&format!("?{query}"))).await;
        assert_eq!(answer.status, 400, "{query}: {answer:?}");
        assert_eq!(service.subscribed(), [], "{query}");
    }
    let service =
        Fake::healthy_streaming(|_| Err(Error::not_found("there is no node 'a'").with_field("node")));
    for query in ["?node=a", "?node=a&follow=true"] {
        assert_eq!(get(&service, &target(query)).await.status, 404);
        assert_eq!(plainly(&service, query).await.json()["code"], "not_found");
    }
}

#[tokio::test]
async fn a_list_of_lines_of_nodes_is_bounded_and_says_what_it_left_out() {
    let lines: Vec<Item> = (0..100).map(|number| line("etcd-01", &format!("{number:0100}"))).collect();
    let service = Fake::healthy_streaming(move |_| Ok(ending(lines.clone())));
    let limits = Limits { output_bytes: 2_600, ..Limits::default() };
    let answer = router_within(&service, limits).oneshot(request(Method::GET, &target(""))).await.unwrap();
    let data = seen(answer).await.json()["data"].take();
    let entries = data.as_array().unwrap();
    assert_eq!(entries.len(), 11);
    assert_eq!(entries[0], json!({ "dropped": { "lines": 90, "bytes": 90 * 101 } }));
    assert_eq!(entries[10]["line"], format!("{:0100}", 99));
}

#[tokio::test]
async fn a_stream_of_nodes_that_is_not_told_to_its_end_is_not_taken_for_all() {
    let broken = || {
        Fake::healthy_streaming(|_| {
            let end = futures::stream::iter([Err(Error::unavailable("the engine is stopping"))]);
            Ok(ending(vec![line("etcd-01", "one")]).chain(end).boxed())
        })
    };
    let text = get(&broken(), &target("?follow=true")).await.text;
    assert!(text.contains("event: failure\n") && !text.contains("event: end\n"), "{text}");
    assert_eq!(get(&broken(), &target("")).await.status, 503);
    let mut request = request(Method::GET, &target("?follow=true"));
    request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static("text/plain"));
    let answer = router_within(&broken(), Limits::default()).oneshot(request).await.unwrap();
    assert!(to_bytes(answer.into_body(), usize::MAX).await.is_err(), "the answer breaks off");
}
