//! The asynchronous client against a real engine: many questions in flight over one connection.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

use std::sync::Arc;
use std::time::Duration;

use orchestrator_protocol::ErrorCode;
use orchestrator_protocol::client::ClientError;
use orchestrator_protocol::client::asynchronous::AsyncClient;
use orchestrator_protocol::client::start::{StartError, StartOptions};
use orchestrator_protocol::event::Item;
use orchestrator_protocol::request::{EventsRequest, GetStatus, GetTask, StopEngine, StopMode, Subscription};
use orchestrator_protocol::submit::SubmitRequest;
use orchestrator_protocol::task::{TaskId, TaskStatus};
use orchestrator_tests::engine::TestEngine;

const ENGINE: &str = env!("CARGO_BIN_EXE_orchestrator-under-test");

#[tokio::test(flavor = "multi_thread")]
async fn many_questions_and_streams_share_a_connection() {
    let mut engine = TestEngine::started(ENGINE);
    let client = Arc::new(AsyncClient::connect(&engine.socket()).await.unwrap());
    let script = engine.script("ok", "true");
    let asked: Vec<_> = (0..50)
        .map(|_| {
            let (client, task) = (Arc::clone(&client), engine.run(&script));
            tokio::spawn(async move {
                let request = SubmitRequest { tasks: vec![task], ..SubmitRequest::default() };
                let id = client.call(request).await.unwrap().id.unwrap();
                let mut items = client.subscribe(Subscription::Watch { ids: vec![id] }).await.unwrap();
                let mut last = None;
                while let Some(item) = items.recv().await {
                    let Item::Task(task) = item.unwrap() else { panic!("not a task") };
                    last = Some(*task);
                }
                let last = last.unwrap();
                assert_eq!((last.id, last.status), (id, TaskStatus::Completed));
                id
            })
        })
        .collect();
    let mut ids = Vec::new();
    for asked in asked {
        ids.push(asked.await.unwrap());
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 50);
    let unknown = client.call(GetTask { id: TaskId::generate() }).await;
    assert!(matches!(unknown, Err(ClientError::Refused(error)) if error.code == ErrorCode::NotFound));
    // Whoever waits for an engine that dies is told.
    let mut events = client.subscribe(Subscription::Events(EventsRequest::default())).await.unwrap();
    assert!(matches!(events.recv().await.unwrap(), Ok(Item::Listening(_))));
    engine.kill();
    assert!(events.recv().await.unwrap().is_err());
    assert!(matches!(client.call(GetStatus {}).await, Err(ClientError::Broken(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_is_started_once_for_all_who_want_one() {
    let engine = TestEngine::new(ENGINE);
    let options = StartOptions {
        program: ENGINE.into(),
        data_dir: engine.data_dir(),
        args: Vec::new(),
        variables: Vec::new(),
        patience: Duration::from_secs(30),
    };
    let connected: Vec<_> = (0..4)
        .map(|_| {
            let (socket, options) = (engine.socket(), options.clone());
            tokio::spawn(async move { AsyncClient::connect_or_start(&socket, options).await.unwrap() })
        })
        .collect();
    let (mut engines, mut starts, mut clients) = (Vec::new(), 0, Vec::new());
    for connected in connected {
        let (client, started) = connected.await.unwrap();
        starts += usize::from(started);
        engines.push(client.call(GetStatus {}).await.unwrap().engine);
        clients.push(client);
    }
    engines.dedup();
    assert_eq!((engines.len(), starts), (1, 1));
    clients[0].call(StopEngine { mode: StopMode::Now }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn why_an_engine_does_not_start_is_told() {
    let engine = TestEngine::new(ENGINE);
    let options = StartOptions {
        program: ENGINE.into(),
        data_dir: engine.data_dir(),
        args: vec!["--max-parallel".into(), "none".into()],
        variables: Vec::new(),
        patience: Duration::from_secs(30),
    };
    let refused = AsyncClient::connect_or_start(&engine.socket(), options).await.err().unwrap();
    assert!(
        matches!(&refused, StartError::Exited { log, .. } if log.contains("invalid value 'none'")),
        "{refused}"
    );
}
