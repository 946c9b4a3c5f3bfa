//! What test environments cost: beside bare calls of Docker's API that do the same work.
//!
//! The engine is a process of its own, in a release build, and is asked through its socket, so that its
//! queue and its storage are in the times. The bare side speaks to Docker's socket itself: a network, nodes
//! at the same time, and their removal. It needs Docker, the image of the tests, and the engine in a release
//! build (`cargo build --release -p orchestrator-engine -p orchestrator-runner`).
#![expect(clippy::unwrap_used, clippy::panic, reason = "a benchmark may panic")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use futures::future::join_all;
use orchestrator_benches::{Spread, ratios};
use orchestrator_protocol::client::{Client, Look};
use orchestrator_protocol::environment::{
    CleanEnvironment, EnvironmentRequest, EnvironmentTask, GetEnvironment,
};
use orchestrator_protocol::request::{GetTask, StopEngine, StopMode, Subscription};
use orchestrator_protocol::task::{TaskId, TaskStatus};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// Where Docker listens.
const SOCKET: &str = "/var/run/docker.sock";
const PAIRS: usize = 15;
const NODES: [usize; 3] = [1, 3, 6];

fn image() -> String {
    std::env::var("ORCHESTRATOR_TEST_IMAGE").unwrap_or_else(|_| "orchestrator-base:bookworm".into())
}

/// An engine that has been started, and is ended with this.
struct Engine {
    child: Child,
    client: Client,
    socket: PathBuf,
}

impl Drop for Engine {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Engine {
    fn start(directory: &Path) -> Self {
        // target/release/deps/environments-HASH
        let target = std::env::current_exe().unwrap();
        let program = target.parent().unwrap().parent().unwrap().join("orchestrator");
        assert!(program.is_file(), "{} is missing: build it in release mode", program.display());
        let socket = directory.join("engine.sock");
        let child = Command::new(program)
            .arg("--data-dir")
            .arg(directory.join("data"))
            .arg("--socket")
            .arg(&socket)
            .arg("--no-http")
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let client = loop {
            match Client::connect(&socket, None) {
                Ok(client) => break client,
                Err(_) => std::thread::park_timeout(Duration::from_millis(1)),
            }
        };
        Self { child, client, socket }
    }

    /// Asks for an environment, and waits until all that was asked for is done.
    fn make(&mut self, request: Value) -> EnvironmentTask {
        let request: EnvironmentRequest = serde_json::from_value(request).unwrap();
        let made = self.client.call(request).unwrap();
        self.wait(made.task);
        made
    }

    fn clean(&mut self, made: EnvironmentTask) {
        let task = self.client.call(CleanEnvironment { id: made.environment }).unwrap().task;
        self.wait(task);
    }

    fn wait(&mut self, id: TaskId) {
        let watch = Subscription::Watch { ids: vec![id] };
        let mut items = Client::connect(&self.socket, None).unwrap().subscribe(watch).unwrap();
        while items.next(Duration::from_secs(600)).unwrap() != Look::End {}
        let task = self.client.call(GetTask { id }).unwrap();
        assert_eq!(task.status, TaskStatus::Completed, "{task:#?}");
    }
}

/// One call of Docker's API, on a connection of its own; it must succeed.
async fn call(method: &str, path: &str, body: Value) -> Value {
    let mut stream = UnixStream::connect(SOCKET).await.unwrap();
    let body = body.to_string();
    // An answer of this old version of HTTP ends with its connection.
    let head = format!("{method} {path} HTTP/1.0\r\nContent-Type: application/json\r\n");
    let request = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap();
    assert!(status.starts_with('2'), "{method} {path}: {answer}");
    serde_json::from_str(body).unwrap_or_default()
}

/// The same by hand.
struct Bare {
    network: String,
    nodes: Vec<String>,
}

impl Bare {
    async fn make(image: &str, nodes: usize) -> Self {
        let network = format!("orchestrator-bench-{}", std::process::id());
        call("POST", "/networks/create", json!({"Name": network})).await;
        let node = async |number: usize| {
            let name = format!("{network}-{number}");
            let body = json!({
                "Hostname": format!("node-{number}"),
                "Entrypoint": ["sleep", "infinity"],
                "Image": image,
                "HostConfig": {"NetworkMode": network, "Init": true},
            });
            call("POST", &format!("/containers/create?name={name}"), body).await;
            call("POST", &format!("/containers/{name}/start"), Value::Null).await;
            name
        };
        let nodes = join_all((0..nodes).map(node)).await;
        Self { network, nodes }
    }

    async fn remove(self) {
        join_all(self.nodes.iter().map(async |name| {
            call("DELETE", &format!("/containers/{name}?force=true&v=true"), Value::Null).await;
        }))
        .await;
        call("DELETE", &format!("/networks/{}", self.network), Value::Null).await;
    }

    /// Runs a program on the first node to its end.
    async fn run(&self, command: &[&str]) {
        let path = format!("/containers/{}/exec", self.nodes[0]);
        let exec = call("POST", &path, json!({"Cmd": command})).await;
        let exec = exec["Id"].as_str().unwrap();
        call("POST", &format!("/exec/{exec}/start"), json!({"Detach": true})).await;
        loop {
            let state = call("GET", &format!("/exec/{exec}/json"), Value::Null).await;
            if state["Running"] == false {
                assert_eq!(state["ExitCode"], 0, "{command:?}");
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let done = work();
    (done, start.elapsed())
}

/// Pairs of the engine's time and the bare one, in words.
fn report(what: &str, pairs: &[(Duration, Duration)]) {
    let seconds = |pick: fn(&(Duration, Duration)) -> Duration| {
        Spread::of(pairs.iter().map(|pair| pick(pair).as_secs_f64()).collect())
    };
    let swapped: Vec<_> = pairs.iter().map(|(ours, bare)| (*bare, *ours)).collect();
    let (ours, bare) = (seconds(|pair| pair.0), seconds(|pair| pair.1));
    println!("{what}: {ours} s, bare {bare} s, ratio {}", ratios(&swapped));
}

fn topology(nodes: usize) -> Value {
    let nodes: Vec<_> = (0..nodes).map(|number| json!({"name": format!("node-{number}")})).collect();
    json!({"config": {"type": "cluster_topology", "cluster_type": "bench", "topology": {"nodes": nodes}}})
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let mut engine = Engine::start(directory.path());
    let image = image();
    for nodes in NODES {
        let (mut creations, mut removals) = (Vec::new(), Vec::new());
        // The first pair is not counted.
        for pair in 0..=PAIRS {
            let (bare, made_bare) = timed(|| runtime.block_on(Bare::make(&image, nodes)));
            let ((), removed_bare) = timed(|| runtime.block_on(bare.remove()));
            let (ours, made) = timed(|| engine.make(topology(nodes)));
            let ((), removed) = timed(|| engine.clean(ours));
            if pair > 0 {
                creations.push((made, made_bare));
                removals.push((removed, removed_bare));
            }
        }
        report(&format!("create {nodes}"), &creations);
        report(&format!("remove {nodes}"), &removals);
    }

    let config = json!({"type": "single_taskserv", "taskserv": "redis"});
    let quick = json!({"config": config, "auto_start": true, "auto_cleanup": true});
    let first = engine.make(quick.clone());
    let prepared = engine.client.call(GetEnvironment { id: first.environment }).unwrap();
    let Some(prepared) = prepared.nodes[0].image.clone() else { panic!("no image: {prepared:#?}") };
    let mut pairs = Vec::new();
    for pair in 0..=PAIRS {
        let ((), bare) = timed(|| {
            runtime.block_on(async {
                let bare = Bare::make(&prepared, 1).await;
                bare.run(&["redis-server", "--daemonize", "yes"]).await;
                bare.run(&["sh", "-c", "until [ \"$(redis-cli ping)\" = PONG ]; do sleep 0.01; done"]).await;
                bare.remove().await;
            });
        });
        let (_, ours) = timed(|| engine.make(quick.clone()));
        if pair > 0 {
            pairs.push((ours, bare));
        }
    }
    report("quick redis", &pairs);
    engine.client.call(StopEngine { mode: StopMode::Now }).unwrap();
}
