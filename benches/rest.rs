//! What REST costs: `GET /tasks/{id}` beside a bare axum handler that answers a constant of the same size.
//!
//! Both servers are processes of their own, in release builds, and are asked by the same client over as
//! many connections that are kept open. It needs the engine in a release build
//! (`cargo build --release -p orchestrator-engine -p orchestrator-runner`).
#![expect(clippy::unwrap_used, clippy::panic, reason = "a benchmark may panic")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::header;
use axum::routing::get;
use orchestrator_benches::{Spread, ratios};
use orchestrator_protocol::client::{Client, Look};
use orchestrator_protocol::request::{StopEngine, StopMode, Subscription};
use orchestrator_protocol::submit::{NewTask, SubmitRequest};
use orchestrator_protocol::task::TaskId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const PAIRS: usize = 30;
/// Fewer than the engine answers at once.
const CONNECTIONS: usize = 50;
/// Requests on each connection, in each half of a pair.
const REQUESTS: usize = 400;

/// The word that makes this program the bare server.
const BARE: &str = "bare";

/// A server that has been started, and is ended with this.
struct Served {
    child: Child,
    address: SocketAddr,
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn engine(directory: &Path) -> Served {
    // target/release/deps/rest-HASH
    let program = std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().join("orchestrator");
    assert!(program.is_file(), "{} is missing: build it in release mode", program.display());
    // The port is free again before the engine takes it.
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let child = Command::new(program)
        .args(["--port", &address.port().to_string(), "--data-dir"])
        .arg(directory.join("data"))
        .arg("--socket")
        .arg(directory.join("engine.sock"))
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while Client::connect(&directory.join("engine.sock"), None).is_err() {
        std::thread::park_timeout(Duration::from_millis(1));
    }
    Served { child, address }
}

/// A task that has completed.
fn completed_task(directory: &Path) -> TaskId {
    let script = directory.join("hello");
    fs::write(&script, "#!/bin/sh\necho hello\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let task = NewTask {
        script: script.to_str().unwrap().to_owned(),
        cwd: Some(directory.to_str().unwrap().to_owned()),
        ..NewTask::default()
    };
    let mut client = Client::connect(&directory.join("engine.sock"), None).unwrap();
    let request = SubmitRequest { tasks: vec![task], ..SubmitRequest::default() };
    let id = client.call(request).unwrap().id.unwrap();
    let mut items = client.subscribe(Subscription::Watch { ids: vec![id] }).unwrap();
    while items.next(Duration::from_secs(60)).unwrap() != Look::End {}
    id
}

/// Starts this program again as the bare server.
fn bare(body: &Path) -> Served {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .arg(BARE)
        .arg(body)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut address = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut address).unwrap();
    Served { child, address: address.trim().parse().unwrap() }
}

/// The bare server.
async fn serve(body: PathBuf) {
    let body: &'static str = fs::read_to_string(body).unwrap().leak();
    let answer = async move || ([(header::CONTENT_TYPE, "application/json")], body);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("{}", listener.local_addr().unwrap());
    axum::serve(listener, Router::new().route("/tasks/{id}", get(answer))).await.unwrap();
}

/// Connections that are kept open, and what is asked on each of them again and again.
struct Clients {
    request: Vec<u8>,
    /// The size of an answer, with its head.
    answer: usize,
    streams: Vec<TcpStream>,
}

impl Clients {
    /// Connects, and asks once. Also the body that came.
    async fn connect(address: SocketAddr, id: TaskId) -> (Self, String) {
        let request = format!("GET /tasks/{id} HTTP/1.1\r\nHost: {address}\r\n\r\n").into_bytes();
        let mut streams = Vec::new();
        for _ in 0..CONNECTIONS {
            let stream = TcpStream::connect(address).await.unwrap();
            stream.set_nodelay(true).unwrap();
            streams.push(stream);
        }
        let (mut answer, mut size) = (Vec::new(), usize::MAX);
        streams[0].write_all(&request).await.unwrap();
        while answer.len() < size {
            assert_ne!(streams[0].read_buf(&mut answer).await.unwrap(), 0, "the connection was closed");
            let text = String::from_utf8_lossy(&answer);
            let Some((head, _)) = text.split_once("\r\n\r\n") else { continue };
            assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
            let length = head.to_ascii_lowercase();
            let length = length.split_once("content-length: ").unwrap().1.lines().next().unwrap().to_owned();
            size = head.len() + 4 + length.parse::<usize>().unwrap();
        }
        let body = String::from_utf8(answer).unwrap().split_once("\r\n\r\n").unwrap().1.to_owned();
        (Self { request, answer: size, streams }, body)
    }

    /// How long it takes until every connection has asked all its requests, one after the other.
    async fn run(&mut self) -> Duration {
        let start = Instant::now();
        let mut running = Vec::new();
        for mut stream in std::mem::take(&mut self.streams) {
            let (request, size) = (self.request.clone(), self.answer);
            running.push(tokio::spawn(async move {
                let mut answer = vec![0; size];
                for _ in 0..REQUESTS {
                    stream.write_all(&request).await.unwrap();
                    stream.read_exact(&mut answer).await.unwrap();
                    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
                }
                stream
            }));
        }
        for connection in running {
            self.streams.push(connection.await.unwrap());
        }
        start.elapsed()
    }
}

async fn measure() {
    let directory = tempfile::tempdir().unwrap();
    let engine = engine(directory.path());
    let id = completed_task(directory.path());
    let (mut of_engine, body) = Clients::connect(engine.address, id).await;
    let file = directory.path().join("body");
    fs::write(&file, &body).unwrap();
    let bare = bare(&file);
    let (mut of_bare, same) = Clients::connect(bare.address, id).await;
    assert_eq!(body, same);
    // The first round of each is not counted.
    of_bare.run().await;
    of_engine.run().await;
    let mut pairs = Vec::new();
    for _ in 0..PAIRS {
        let beside = of_bare.run().await;
        pairs.push((of_engine.run().await, beside));
    }
    let rate = |pick: fn(&(Duration, Duration)) -> Duration| {
        let each = |pair| (CONNECTIONS * REQUESTS) as f64 / pick(pair).as_secs_f64();
        Spread::of(pairs.iter().map(each).collect())
    };
    println!("GET /tasks/{{id}}, {} bytes, {CONNECTIONS} connections, {PAIRS} pairs", body.len());
    println!("requests a second: {:.0}", rate(|pair| pair.0));
    println!("bare handler:      {:.0}", rate(|pair| pair.1));
    println!("of the bare one:   {:.2}", ratios(&pairs));
    let mut client = Client::connect(&directory.path().join("engine.sock"), None).unwrap();
    client.call(StopEngine { mode: StopMode::Now }).unwrap();
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let mut arguments = std::env::args_os().skip(1).skip_while(|argument| argument == "--bench");
    match arguments.next() {
        Some(word) if word == BARE => runtime.block_on(serve(arguments.next().unwrap().into())),
        Some(other) => panic!("there is no part {}", other.display()),
        None => runtime.block_on(measure()),
    }
}
