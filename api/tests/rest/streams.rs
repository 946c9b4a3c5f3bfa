//! Real connections that stay: streams and waits, clients that go away, read slowly or send without end,
//! and a stop in the middle of all that.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream as BlockingStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use orchestrator_api::limits::Limits;
use orchestrator_protocol::environment::NodeLine;
use orchestrator_protocol::event::{EventCursor, Item, LogLine, OutputStream};
use orchestrator_protocol::request::{Request, Subscription};
use orchestrator_protocol::task::{Task, TaskStatus};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::connections::{Served, to_end};
use crate::fake::{Fake, PATIENCE, at, environment_id, id, silent_after, task};

/// A service on whose streams nothing happens after the first item.
fn quiet() -> Arc<Fake> {
    Fake::healthy_streaming(|subscription| {
        Ok(silent_after(vec![match subscription {
            Subscription::Watch { .. } => {
                Item::Task(Box::new(Task { status: TaskStatus::Running, ..task() }))
            }
            Subscription::Logs(_) => line(),
            Subscription::Events(_) => Item::Listening(EventCursor { epoch: "4k2m9x".into(), sequence: 7 }),
            Subscription::EnvironmentLogs(_) => Item::Node(NodeLine {
                node: "etcd-01".into(),
                step: "start etcd".into(),
                time: at(5),
                stream: OutputStream::Stdout,
                line: "up".into(),
            }),
        }]))
    })
}

fn line() -> Item {
    let (stream, line) = (OutputStream::Stdout, "x".repeat(64 * 1024));
    Item::Line(LogLine { task: id(1), attempt: 1, time: at(5), stream, line })
}

fn wait() -> String {
    format!("/tasks/{}?wait=true", id(1))
}

fn follow() -> String {
    format!("/tasks/{}/logs?follow=true", id(1))
}

/// Limits under which nothing but what a test does ends a connection.
fn patient() -> Limits {
    Limits { farewell: PATIENCE, head: 2 * PATIENCE, ..Limits::default() }
}

async fn asking(served: &Served, request: &str) -> TcpStream {
    let mut stream = served.connect().await;
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// Reads until the answer holds `end`.
async fn until(stream: &mut TcpStream, end: &str) -> String {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes);
        if text.contains(end) {
            return text.into_owned();
        }
        let read = tokio::time::timeout(PATIENCE, stream.read_buf(&mut bytes)).await.unwrap().unwrap();
        assert!(read > 0, "closed after {}", String::from_utf8_lossy(&bytes));
    }
}

#[tokio::test]
async fn a_stop_ends_streams_and_waits_at_once_and_says_why() {
    let service = quiet();
    let served = Served::start(&service, patient()).await;
    let body = r#"{"tasks":[{"script":"a.nu"}],"wait":true}"#;
    let mut events = asking(&served, &served.get("/events")).await;
    let mut logs = asking(&served, &served.get(&follow())).await;
    let bare = served.get(&follow()).replace("\r\n\r\n", "\r\nAccept: text/plain\r\n\r\n");
    let mut bare = asking(&served, &bare).await;
    let nodes = served.get(&format!("/test/environments/{}/logs?follow=true", environment_id()));
    let mut nodes = asking(&served, &nodes).await;
    let mut waits = asking(&served, &served.get(&wait())).await;
    let mut submits = asking(&served, &served.post("/workflows", body)).await;
    until(&mut events, "event: listening\n").await;
    service.has_listeners(6).await;
    let started = Instant::now();
    served.end().await;
    assert!(started.elapsed() < PATIENCE, "nothing was waited for until it was cut off");
    for stream in [&mut events, &mut logs, &mut nodes] {
        let text = to_end(stream).await;
        assert!(text.contains("event: failure\n") && text.contains(r#""code":"unavailable""#), "{text}");
        assert!(text.ends_with("0\r\n\r\n"), "the answer is complete: {text}");
    }
    let text = to_end(&mut bare).await;
    assert!(text.starts_with("HTTP/1.1 200 ") && !text.ends_with("0\r\n\r\n"), "it breaks off");
    for (stream, task) in [(&mut waits, id(1)), (&mut submits, id(2))] {
        let text = to_end(stream).await;
        assert!(text.starts_with("HTTP/1.1 503 "), "{text}");
        assert!(text.contains(&format!(r#""task":"{task}""#)), "{text}");
    }
    service.has_listeners(0).await;
    let changes: Vec<_> =
        service.asked().into_iter().filter(|asked| !matches!(asked, Request::GetTask(_))).collect();
    assert!(matches!(changes[..], [Request::Submit(_)]), "nothing is cancelled: {changes:?}");
    assert_eq!(Arc::strong_count(&service), 1, "nothing holds the service any more");
}

#[tokio::test]
async fn clients_that_go_away_leave_nothing_behind() {
    let service = quiet();
    let served = Served::start(&service, patient()).await;
    let body = r#"{"tasks":[{"script":"a.nu"}],"wait":true}"#;
    let requests =
        [served.get("/events"), served.get(&follow()), served.get(&wait()), served.post("/workflows", body)];
    for request in requests {
        let stream = asking(&served, &request).await;
        service.has_listeners(1).await;
        drop(stream);
        service.has_listeners(0).await;
    }
    assert!(
        matches!(service.asked()[..], [Request::Submit(_)]),
        "nothing is cancelled: {:?}",
        service.asked()
    );
    served.end().await;
}

#[tokio::test]
async fn a_client_that_goes_away_while_it_submits_has_submitted() {
    let service = Fake::healthy();
    service.open.send_replace(false);
    let served = Served::start(&service, patient()).await;
    let stream = asking(&served, &served.post("/workflows", r#"{"tasks":[{"script":"a.nu"}]}"#)).await;
    service.has_been_asked(1).await;
    drop(stream);
    // A stop waits for what is being submitted, also when nobody waits for it any more.
    served.stop.cancel();
    service.open.send_replace(true);
    served.end().await;
    service.has_answered(1).await;
}

#[tokio::test]
async fn a_stop_does_not_wait_for_ever_for_a_submission() {
    for goes_away in [false, true] {
        let service = Fake::healthy();
        service.open.send_replace(false);
        let limits = Limits { farewell: Duration::from_millis(100), ..Limits::default() };
        let served = Served::start(&service, limits).await;
        let stream = asking(&served, &served.post("/workflows", r#"{"tasks":[{"script":"a.nu"}]}"#)).await;
        service.has_been_asked(1).await;
        let _kept = (!goes_away).then_some(stream);
        served.end().await;
        assert_eq!(Arc::strong_count(&service), 1, "nothing holds the service any more");
    }
}

#[tokio::test]
async fn a_slow_reader_holds_up_nobody() {
    let endless =
        |_: &Subscription| Ok(futures::stream::unfold((), |()| async { Some((Ok(line()), ())) }).boxed());
    let service = Fake::healthy_streaming(endless);
    let limits = Limits { requests: 1, waits: 8, farewell: Duration::from_millis(100), ..Limits::default() };
    let served = Served::start(&service, limits).await;
    // None of them reads a byte, so that their answers fill what the kernel keeps for them.
    let mut slow = Vec::new();
    for _ in 0..8 {
        slow.push(asking(&served, &served.get(&follow())).await);
    }
    service.has_listeners(8).await;
    for _ in 0..20 {
        let answer = served.talk(&served.get_last("/health")).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    let answer = served.talk(&served.get_last(&follow())).await;
    assert!(answer.starts_with("HTTP/1.1 429 "), "{answer}");
    served.end().await;
    service.has_listeners(0).await;
}

/// Sends as much of a body as the engine takes, and returns the answer and how much that was.
fn send_without_end(mut stream: BlockingStream, head: &str, chunk: &[u8], most: usize) -> (String, usize) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(head.as_bytes()).unwrap();
    let mut sent = 0;
    while sent < most {
        match stream.write(chunk) {
            Ok(written) => sent += written,
            Err(error) => {
                let is_closed = matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset);
                assert!(is_closed, "{error}");
                break;
            }
        }
    }
    let mut answer = Vec::new();
    let mut bytes = [0; 4096];
    // What was answered can be read, also when the engine has closed already.
    while let Ok(read @ 1..) = stream.read(&mut bytes) {
        answer.extend_from_slice(&bytes[..read]);
    }
    (String::from_utf8_lossy(&answer).into_owned(), sent)
}

#[tokio::test]
async fn a_body_of_a_gibibyte_is_not_read() {
    const GIBIBYTE: usize = 1 << 30;
    let service = Fake::healthy();
    let served = Served::start(&service, Limits::default()).await;
    let start = served.post("/workflows", "");
    let announced = start.replace("Content-Length: 0", &format!("Content-Length: {GIBIBYTE}"));
    let chunked = start.replace("Content-Length: 0", "Transfer-Encoding: chunked");
    let text = "x".repeat(64 * 1024);
    let chunk = format!("{:x}\r\n{text}\r\n", text.len());
    for (head, piece) in [(announced, text), (chunked, chunk)] {
        let address = served.address;
        let talk = tokio::task::spawn_blocking(move || {
            let stream = BlockingStream::connect(address).unwrap();
            send_without_end(stream, &head, piece.as_bytes(), GIBIBYTE)
        });
        let (answer, sent) = talk.await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
        assert!(answer.contains(r#""code":"too_large""#) && answer.contains("connection: close"), "{answer}");
        assert!(sent < GIBIBYTE / 4, "{sent} bytes were taken");
    }
    assert_eq!(service.asked(), []);
    served.end().await;
}

#[tokio::test]
async fn many_events_come_in_their_order() {
    let service = Fake::healthy_streaming(|_| {
        let cursor = |sequence| EventCursor { epoch: "4k2m9x".into(), sequence };
        Ok(silent_after((0..5_000).map(|sequence| Item::Reset(cursor(sequence))).collect()))
    });
    let served = Served::start(&service, patient()).await;
    let mut stream = asking(&served, &served.get("/events")).await;
    let text = until(&mut stream, "id: 4k2m9x:4999\n").await;
    let ids: Vec<u64> = text
        .lines()
        .filter_map(|line| line.strip_prefix("id: 4k2m9x:"))
        .map(|sequence| sequence.parse().unwrap())
        .collect();
    assert_eq!(ids, (0..5_000).collect::<Vec<_>>());
    served.end().await;
}
