//! Every question can be asked through every door, and asks the same.
//!
//! A service that takes notes stands behind the local socket and behind REST. Each row of the table says
//! how a question is typed in Nushell and how it is sent over REST; both must arrive as the same question.
//! The table must cover every question that there is, so a new one cannot be forgotten in a door.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use axum::body::Body;
use axum::http::{Request as HttpRequest, header};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use orchestrator_api::guard::Peer;
use orchestrator_api::limits::Limits;
use orchestrator_api::{AppState, router};
use orchestrator_engine::reach::Reach;
use orchestrator_engine::server;
use orchestrator_protocol::environment::Environment;
use orchestrator_protocol::event::{EventCursor, Item};
use orchestrator_protocol::request::{
    EngineMode, EngineStatus, Request, Response, StorageStatus, Subscription,
};
use orchestrator_protocol::service::{Caller, Service};
use orchestrator_protocol::task::{Task, TaskId, TaskStatus, Work, Workflow};
use orchestrator_protocol::{Error, Result};
use serde_json::json;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::shell::{Shell, bounded};

const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

/// One question, as it is asked through each door.
struct Row {
    /// Its name in the protocol.
    name: &'static str,
    nushell: &'static str,
    /// Method, path and body.
    rest: (&'static str, &'static str, &'static str),
}

const fn row(
    name: &'static str,
    nushell: &'static str,
    rest: (&'static str, &'static str, &'static str),
) -> Row {
    Row { name, nushell, rest }
}

/// `ID` stands for the id of a task or an environment.
const TABLE: &[Row] = &[
    row("Status", "orchestrator status", ("GET", "/status", "")),
    row("Diagnose", "orchestrator doctor", ("GET", "/doctor", "")),
    row(
        "Submit",
        "orchestrator task submit work.nu --name work --params {n: 1} --env {A: b} --secret {s: 'env:S'} \
         --depends-on [ID] --group g --label {a: b} --lock l --priority 3 --retries 1 --retry-base 2sec \
         --retry-cap 3sec --timeout 4sec --grace 5sec --not-before 2030-01-02T03:04:05Z --idempotency-key k",
        (
            "POST",
            "/workflows",
            r#"{"tasks": [{"name": "work", "script": "work.nu", "params": {"n": 1}, "env": {"A": "b"},
                "secrets": {"s": "env:S"}, "depends_on": ["ID"], "group": "g", "labels": {"a": "b"}, "lock": "l",
                "priority": 3, "retry": {"max_retries": 1, "base_ms": 2000, "cap_ms": 3000}, "timeout_ms": 4000,
                "grace_ms": 5000, "not_before": "2030-01-02T03:04:05Z"}], "idempotency_key": "k"}"#,
        ),
    ),
    row(
        "Submit",
        "[[name script after]; [a work.nu []] [b work.nu [a]]] | orchestrator workflow submit site",
        (
            "POST",
            "/workflows",
            r#"{"workflow": "site", "tasks": [{"name": "a", "script": "work.nu"},
                {"name": "b", "script": "work.nu", "after": ["a"]}]}"#,
        ),
    ),
    row(
        "Provision",
        "orchestrator workflow server create web-01 --infra i --settings settings.yaml --check --env {A: b} \
         --secret {s: 'env:S'} --priority 3 --allow-concurrent --timeout 4sec --idempotency-key k",
        (
            "POST",
            "/workflows/servers/create",
            r#"{"infra": "i", "settings": "settings.yaml", "servers": ["web-01"], "check_mode": true,
                "env": {"A": "b"}, "secrets": {"s": "env:S"}, "priority": 3, "allow_concurrent": true,
                "timeout_ms": 4000, "idempotency_key": "k"}"#,
        ),
    ),
    row(
        "Provision",
        "orchestrator workflow server delete web-01 web-02 --infra i --settings settings.yaml",
        (
            "POST",
            "/workflows/servers/delete",
            r#"{"infra": "i", "settings": "settings.yaml", "servers": ["web-01", "web-02"]}"#,
        ),
    ),
    row(
        "Provision",
        "orchestrator workflow taskserv create redis web-01 --infra i --settings settings.yaml",
        (
            "POST",
            "/workflows/taskserv/create",
            r#"{"infra": "i", "settings": "settings.yaml", "taskserv": "redis", "servers": ["web-01"],
                "operation": "create", "check_mode": false}"#,
        ),
    ),
    row(
        "Provision",
        "orchestrator workflow taskserv verify redis --infra i --settings settings.yaml",
        (
            "POST",
            "/workflows/taskserv/create",
            r#"{"infra": "i", "settings": "settings.yaml", "taskserv": "redis", "operation": "verify"}"#,
        ),
    ),
    row(
        "Provision",
        "orchestrator workflow cluster create web --infra i --settings settings.yaml --check",
        (
            "POST",
            "/workflows/cluster/create",
            r#"{"infra": "i", "settings": "settings.yaml", "cluster_type": "web", "check_mode": true}"#,
        ),
    ),
    row(
        "Provision",
        "orchestrator workflow cluster verify web --infra i --settings settings.yaml",
        (
            "POST",
            "/workflows/cluster/create",
            r#"{"infra": "i", "settings": "settings.yaml", "cluster_type": "web", "operation": "verify"}"#,
        ),
    ),
    row(
        "Provision",
        "orchestrator workflow cluster delete web --infra i --settings settings.yaml",
        (
            "POST",
            "/workflows/cluster/create",
            r#"{"infra": "i", "settings": "settings.yaml", "cluster_type": "web", "operation": "delete"}"#,
        ),
    ),
    row(
        "CreateEnvironment",
        "orchestrator test env single redis --infra i --base-image debian:12 --env {A: b} --cpu 500 \
         --memory 256MiB --disk 1GiB --disk-policy watch --max-processes 50 --option {port: 7000} --auto-start \
         --auto-cleanup --no-keep --no-prepared --pull --expires-after 1hr --priority 3 --idempotency-key k \
         --script [{script: work.nu, name: n, nodes: [redis], timeout: 5sec}] --idempotence-check \
         --fault {kind: kill, node: redis}",
        (
            "POST",
            "/test/environments/create",
            r#"{"config": {"type": "single_taskserv", "taskserv": "redis", "base_image": "debian:12",
                "environment": {"A": "b"}, "resources": {"cpu_millicores": 500, "memory_mb": 256, "disk_mb": 1024,
                "max_processes": 50}, "taskserv_options": {"redis": {"port": 7000}}}, "infra": "i",
                "auto_start": true, "auto_cleanup": true, "keep_on_failure": false, "disk_policy": "watch",
                "use_prepared": false, "pull": true, "expires_after_ms": 3600000, "priority": 3,
                "idempotency_key": "k", "run": {"tests": [{"name": "n", "script": "work.nu", "nodes": ["redis"],
                "timeout_ms": 5000}], "idempotence_check": true,
                "faults": [{"fault": {"kind": "kill", "node": "redis"}}]}}"#,
        ),
    ),
    row(
        "CreateEnvironment",
        "orchestrator test quick redis",
        (
            "POST",
            "/test/environments/create",
            r#"{"config": {"type": "single_taskserv", "taskserv": "redis"}, "auto_start": true,
                "auto_cleanup": true}"#,
        ),
    ),
    row(
        "CreateEnvironment",
        "orchestrator test env server web-01 [redis postgres] --auto-start",
        (
            "POST",
            "/test/environments/create",
            r#"{"config": {"type": "server_simulation", "server_name": "web-01",
                "taskservs": ["redis", "postgres"]}, "auto_start": true}"#,
        ),
    ),
    row(
        "CreateEnvironment",
        "{nodes: [{name: a, role: member, taskservs: [etcd], address: 172.30.0.2, \
         volumes: [{name: v, path: /v}]}], network: {subnet: 172.30.0.0/16, internal: true}} \
         | orchestrator test env cluster etcd",
        (
            "POST",
            "/test/environments/create",
            r#"{"config": {"type": "cluster_topology", "cluster_type": "etcd", "topology": {"nodes": [{"name": "a",
                "role": "member", "taskservs": ["etcd"], "address": "172.30.0.2",
                "volumes": [{"name": "v", "path": "/v"}]}],
                "network": {"subnet": "172.30.0.0/16", "internal": true}}}}"#,
        ),
    ),
    row(
        "RunEnvironment",
        "orchestrator test env run ID --script work.nu --idempotence-check --fault {kind: heal}",
        (
            "POST",
            "/test/environments/ID/run",
            r#"{"tests": [{"script": "work.nu"}], "idempotence_check": true, "faults": [{"fault": {"kind": "heal"}}]}"#,
        ),
    ),
    row("CleanEnvironment", "orchestrator test env cleanup ID", ("DELETE", "/test/environments/ID", "")),
    row(
        "InjectFault",
        "orchestrator test env fault ID partition a b",
        ("POST", "/test/environments/ID/faults", r#"{"fault": {"kind": "partition", "nodes": ["a", "b"]}}"#),
    ),
    row("GetEnvironment", "orchestrator test env status ID", ("GET", "/test/environments/ID", "")),
    row(
        "ListEnvironments",
        "orchestrator test env list --status [failed error] --infra i",
        ("GET", "/test/environments?status=failed,error&infra=i", ""),
    ),
    row("ListTopologies", "orchestrator test topology list", ("GET", "/test/topologies", "")),
    row("PrunePrepared", "orchestrator test image prune", ("POST", "/test/images/prune", "")),
    row(
        "EnvironmentLogs",
        "orchestrator test env logs ID --node a --tail 5 --follow",
        ("GET", "/test/environments/ID/logs?node=a&tail=5&follow=true", ""),
    ),
    row("GetTask", "orchestrator task get ID", ("GET", "/tasks/ID", "")),
    row(
        "ListTasks",
        "orchestrator task list --status [failed running] --group g --kind command --workflow ID --label {a: b} \
         --since 2024-01-02T03:04:05Z --until 2025-01-02T03:04:05Z --text t --limit 5",
        (
            "GET",
            "/tasks?status=failed,running&group=g&kind=command&parent=ID&label=a%3Db\
             &since=2024-01-02T03:04:05Z&until=2025-01-02T03:04:05Z&text=t&limit=5",
            "",
        ),
    ),
    row("Explain", "orchestrator task explain ID", ("GET", "/tasks/ID/explain", "")),
    row(
        "Cancel",
        "orchestrator task cancel ID --reason why",
        ("POST", "/tasks/ID/cancel", r#"{"reason": "why"}"#),
    ),
    row("Retry", "orchestrator task retry ID", ("POST", "/tasks/ID/retry", "")),
    row("Pause", "orchestrator task pause --group g", ("POST", "/queue/pause", r#"{"group": "g"}"#)),
    row("Resume", "orchestrator task resume", ("POST", "/queue/resume", "")),
    row("GetStorage", "orchestrator storage status", ("GET", "/storage", "")),
    row(
        "ValidateMigration",
        "orchestrator storage validate --target-dir new",
        ("POST", "/storage/migrations/validate", r#"{"storage_type": "filesystem", "dir": "new"}"#),
    ),
    row(
        "StartMigration",
        "orchestrator storage migrate --to filesystem --target-dir new",
        ("POST", "/storage/migrations", r#"{"storage_type": "filesystem", "dir": "new"}"#),
    ),
    row("ListMigrations", "orchestrator storage migrations", ("GET", "/storage/migrations", "")),
    row("GetMigration", "orchestrator storage migrations ID", ("GET", "/storage/migrations/ID", "")),
    row(
        "CancelMigration",
        "orchestrator storage migrations ID --cancel",
        ("POST", "/storage/migrations/ID/cancel", ""),
    ),
    row("Stop", "orchestrator stop --cancel", ("POST", "/engine/stop", r#"{"mode": "cancel"}"#)),
    row("Watch", "orchestrator task wait ID", ("GET", "/tasks/ID?wait=true", "")),
    row(
        "Logs",
        "orchestrator task logs ID --follow --tail 5 --attempt 1 --stream err",
        ("GET", "/tasks/ID/logs?follow=true&tail=5&attempt=1&stream=stderr", ""),
    ),
    row(
        "Events",
        "orchestrator events --group g --task ID --status failed --since e:1",
        ("GET", "/events?group=g&task=ID&status=failed&since=e:1", ""),
    ),
];

/// What a door asked.
#[derive(Debug, Clone, PartialEq)]
enum Asked {
    Call(Box<Request>),
    Stream(Subscription),
}

impl Asked {
    fn name(&self) -> &'static str {
        match self {
            Self::Call(request) => request.name(),
            Self::Stream(subscription) => subscription.name(),
        }
    }
}

/// Takes notes, and answers no more than a door needs to go on to its question.
#[derive(Default)]
struct Notes(Mutex<Vec<Asked>>);

impl Notes {
    fn take(&self) -> Vec<Asked> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

fn id() -> TaskId {
    ID.parse().unwrap()
}

fn ended() -> Task {
    let work = Work::Workflow(Workflow::default());
    Task { id: id(), status: TaskStatus::Completed, attempts: Vec::new(), ..Task::new("work", work, "g") }
}

fn environment() -> Environment {
    let request = json!({"config": {"type": "single_taskserv", "taskserv": "redis"}});
    let environment = json!({"id": ID, "name": "redis", "status": "passed", "request": request, "engine": "one",
        "created_at": "2026-01-31T12:00:00Z", "expires_at": "2026-02-01T12:00:00Z"});
    serde_json::from_value(environment).unwrap()
}

fn status() -> EngineStatus {
    EngineStatus {
        engine: "one".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        pid: std::process::id(),
        started_at: chrono::Utc::now(),
        data_dir: "/data".into(),
        socket: "/socket".into(),
        http: None,
        storage: StorageStatus {
            backend: "filesystem".into(),
            location: "/data".into(),
            writable: true,
            reason: None,
            free_bytes: None,
        },
        mode: EngineMode::Active,
        paused: false,
        paused_groups: Vec::new(),
        max_parallel: 4,
        tasks: Default::default(),
        groups: Default::default(),
        engines: Vec::new(),
    }
}

#[async_trait]
impl Service for Notes {
    async fn call(&self, _: &Caller, request: Request) -> Result<Response> {
        let answer = match &request {
            Request::Status(_) => Ok(Response::Status(Box::new(status()))),
            Request::GetTask(_) => Ok(Response::GetTask(Box::new(ended()))),
            Request::GetEnvironment(_) => Ok(Response::GetEnvironment(Box::new(environment()))),
            _ => Err(Error::invalid("noted")),
        };
        self.0.lock().unwrap().push(Asked::Call(Box::new(request)));
        answer
    }

    async fn subscribe(
        &self,
        _: &Caller,
        subscription: Subscription,
    ) -> Result<BoxStream<'static, Result<Item>>> {
        let first = match &subscription {
            Subscription::Watch { .. } => Some(Item::Task(Box::new(ended()))),
            Subscription::Logs(_) | Subscription::EnvironmentLogs(_) => None,
            Subscription::Events(_) => Some(Item::Listening(EventCursor { epoch: "e".into(), sequence: 1 })),
        };
        self.0.lock().unwrap().push(Asked::Stream(subscription));
        Ok(stream::iter(first.map(Ok)).boxed())
    }
}

/// The question of this name among what was asked, its paths made absolute as the engine does it for REST.
fn question(asked: Vec<Asked>, name: &str, home: &Path) -> Asked {
    let of_name: Vec<Asked> = asked.iter().filter(|asked| asked.name() == name).cloned().collect();
    let [question] = &of_name[..] else { panic!("{name} was not asked once: {asked:?}") };
    match question.clone() {
        Asked::Call(mut request) => {
            let reach = Reach { working_dir: home.to_owned(), script_roots: vec![home.to_owned()] };
            reach.confine(&mut request).unwrap();
            Asked::Call(request)
        }
        stream => stream,
    }
}

async fn over_rest(notes: &Arc<Notes>, (method, path, body): (&str, &str, &str)) {
    let address: SocketAddr = "127.0.0.1:8080".parse().unwrap();
    let router = router(AppState::new(Arc::clone(notes) as Arc<dyn Service>, address, Limits::default()));
    let request = HttpRequest::builder()
        .method(method)
        .uri(path.replace("ID", ID))
        .header(header::HOST, "localhost:8080")
        .header(header::CONTENT_TYPE, "application/json")
        .extension(Peer::Owner)
        .body(Body::from(body.replace("ID", ID)))
        .unwrap();
    let answer = router.oneshot(request).await.unwrap();
    // A stream is read to its end.
    axum::body::to_bytes(answer.into_body(), usize::MAX).await.unwrap();
}

#[test]
fn every_door_asks_every_question_and_asks_the_same() {
    let covered: BTreeSet<&str> = TABLE.iter().map(|row| row.name).collect();
    let all: BTreeSet<&str> = Request::NAMES.iter().chain(Subscription::NAMES).copied().collect();
    assert_eq!(covered, all, "each question needs a row that says how every door asks it");

    let Some(shell) = Shell::new() else { return };
    let home = shell.home().canonicalize().unwrap();
    for file in ["work.nu", "settings.yaml"] {
        std::fs::write(home.join(file), "").unwrap();
    }
    let runtime = Runtime::new().unwrap();
    let notes = Arc::new(Notes::default());
    let socket = home.join("notes.sock");
    let _entered = runtime.enter();
    let listener = server::listen(&socket).unwrap();
    let stop = CancellationToken::new();
    runtime.spawn(server::serve(listener, Arc::clone(&notes) as Arc<dyn Service>, stop.clone()));

    for Row { name, nushell, rest } in TABLE {
        let mut command = shell.command(&nushell.replace("ID", ID));
        command.env("ORCHESTRATOR_SOCKET", &socket);
        // What is noted counts; the answer is mostly a refusal.
        let output = bounded(command);
        let typed = notes.take();
        assert!(!typed.is_empty(), "{nushell}\n{}", String::from_utf8_lossy(&output.stderr));
        runtime.block_on(over_rest(&notes, *rest));
        let sent = notes.take();
        assert!(!sent.is_empty(), "{rest:?} asked nothing");
        assert_eq!(question(typed, name, &home), question(sent, name, &home), "{nushell} and {rest:?}");
    }
    stop.cancel();
}
