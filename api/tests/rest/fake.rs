//! A service that remembers what it was asked, and the means to ask it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, HeaderValue, Method, Request as HttpRequest, Response as HttpResponse, header};
use chrono::{DateTime, Utc};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use orchestrator_api::guard::Peer;
use orchestrator_api::limits::Limits;
use orchestrator_api::{AppState, router};
use orchestrator_protocol::environment::{
    Environment, EnvironmentConfig, EnvironmentId, EnvironmentRequest, EnvironmentStatus, EnvironmentTask,
    Fault, FaultStep, NamedTopology, NetworkConfig, NetworkInfo, Node, NodeConfig, NodeResources, Pruned,
    RunOptions, TestResult, TestScript, Topology, VolumeConfig,
};
use orchestrator_protocol::event::Item;
use orchestrator_protocol::request::{
    Changed, Check, CheckState, Diagnosis, EngineMember, EngineMode, EngineStatus, Explanation, MemberState,
    QueuePauses, Reason, ReasonKind, Request, Response, Stopping, StorageStatus, Subscription, TaskPage,
};
use orchestrator_protocol::service::{Caller, Service};
use orchestrator_protocol::storage::{Migration, MigrationStatus, StoragePlace, StorageReport, Validation};
use orchestrator_protocol::submit::{Submitted, SubmittedTask};
use orchestrator_protocol::task::{
    Attempt, AttemptOutcome, Command, OnEngineLoss, Program, Progress, RetryPolicy, SecretReference, Task,
    TaskId, TaskStatus, Work,
};
use orchestrator_protocol::{Error, Result};
use serde_json::Value;
use tokio::sync::watch;
use tower::ServiceExt;

/// Longer than any machine needs; a test that waits so long has failed.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// The address that requests without a socket are meant for.
const ADDRESS: &str = "127.0.0.1:8080";

type Answer = Box<dyn Fn(&Request) -> Result<Response> + Send + Sync>;
/// A stream of answers, as the service gives it.
pub type Items = BoxStream<'static, Result<Item>>;
type Stream = Box<dyn Fn(&Subscription) -> Result<Items> + Send + Sync>;

/// The service.
pub struct Fake {
    asked: Mutex<Vec<Request>>,
    subscribed: Mutex<Vec<Subscription>>,
    answer: Answer,
    stream: Stream,
    /// How many questions have come.
    pub count: watch::Sender<usize>,
    /// How many questions were answered.
    answered: watch::Sender<usize>,
    /// Whether questions are answered; while it is false they wait.
    pub open: watch::Sender<bool>,
    /// How many streams are being listened to.
    pub listeners: watch::Sender<usize>,
}

impl Fake {
    /// A service that answers as told.
    pub fn new(answer: impl Fn(&Request) -> Result<Response> + Send + Sync + 'static) -> Arc<Self> {
        Self::streaming(answer, |_| Err(Error::internal("no stream was expected")))
    }

    /// A service that answers and streams as told.
    pub fn streaming(
        answer: impl Fn(&Request) -> Result<Response> + Send + Sync + 'static,
        stream: impl Fn(&Subscription) -> Result<Items> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            asked: Mutex::default(),
            subscribed: Mutex::default(),
            answer: Box::new(answer),
            stream: Box::new(stream),
            count: watch::Sender::new(0),
            answered: watch::Sender::new(0),
            open: watch::Sender::new(true),
            listeners: watch::Sender::new(0),
        })
    }

    /// A service in good health with one task.
    pub fn healthy() -> Arc<Self> {
        Self::new(healthy)
    }

    /// A service in good health that streams as told.
    pub fn healthy_streaming(
        stream: impl Fn(&Subscription) -> Result<Items> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Self::streaming(healthy, stream)
    }

    /// What it was asked.
    pub fn asked(&self) -> Vec<Request> {
        self.asked.lock().unwrap().clone()
    }

    /// What was to be streamed.
    pub fn subscribed(&self) -> Vec<Subscription> {
        self.subscribed.lock().unwrap().clone()
    }

    /// Waits until so many questions have come.
    pub async fn has_been_asked(&self, times: usize) {
        let mut count = self.count.subscribe();
        tokio::time::timeout(PATIENCE, count.wait_for(|count| *count >= times)).await.unwrap().unwrap();
    }

    /// Waits until so many questions were answered.
    pub async fn has_answered(&self, times: usize) {
        let mut answered = self.answered.subscribe();
        tokio::time::timeout(PATIENCE, answered.wait_for(|count| *count >= times)).await.unwrap().unwrap();
    }

    /// Waits until so many listen to streams.
    pub async fn has_listeners(&self, many: usize) {
        let mut listeners = self.listeners.subscribe();
        tokio::time::timeout(PATIENCE, listeners.wait_for(|count| *count == many)).await.unwrap().unwrap();
    }
}

/// The answers of an engine that is well.
pub fn healthy(request: &Request) -> Result<Response> {
    Ok(match request {
        Request::Status(_) => Response::Status(Box::new(status())),
        Request::Diagnose(_) => Response::Diagnose(Diagnosis {
            checks: vec![Check {
                name: "docker".into(),
                state: CheckState::Warning,
                found: "it does not answer".into(),
                advice: Some("start it".into()),
            }],
        }),
        Request::Submit(_) => Response::Submit(submitted()),
        Request::Provision(_) => Response::Provision(submitted()),
        Request::GetTask(_) => Response::GetTask(Box::new(task())),
        Request::ListTasks(_) => {
            Response::ListTasks(TaskPage { tasks: vec![task()], cursor: Some("after-that".into()) })
        }
        Request::Explain(_) => Response::Explain(Explanation {
            id: id(1),
            name: "install redis".into(),
            status: TaskStatus::Pending,
            reasons: vec![Reason {
                kind: ReasonKind::Backoff,
                message: "its last attempt failed".into(),
                task: None,
                until: Some(at(4)),
            }],
        }),
        Request::Cancel(_) => Response::Cancel(Changed { task: Box::new(task()), others: vec![id(4)] }),
        Request::Retry(_) => Response::Retry(Changed { task: Box::new(task()), others: vec![id(4)] }),
        Request::Pause(_) => Response::Pause(QueuePauses { all: false, groups: vec!["staging".into()] }),
        Request::Resume(_) => Response::Resume(QueuePauses { all: false, groups: Vec::new() }),
        Request::GetStorage(_) => Response::GetStorage(Box::new(storage_report())),
        Request::ValidateMigration(_) => Response::ValidateMigration(Box::new(Validation {
            from: storage_place("one"),
            to: storage_place("two"),
            is_possible: false,
            checks: vec![Check {
                name: "space".into(),
                state: CheckState::Failed,
                found: "5 bytes free".into(),
                advice: Some("free some space".into()),
            }],
        })),
        Request::StartMigration(_) => Response::StartMigration(Box::new(migration())),
        Request::ListMigrations(_) => Response::ListMigrations(vec![migration()]),
        Request::GetMigration(_) => Response::GetMigration(Box::new(migration())),
        Request::CancelMigration(_) => Response::CancelMigration(Box::new(migration())),
        Request::Stop(_) => Response::Stop(Stopping { running: 2 }),
        Request::CreateEnvironment(_) => Response::CreateEnvironment(queued()),
        Request::RunEnvironment(_) => Response::RunEnvironment(queued()),
        Request::CleanEnvironment(_) => Response::CleanEnvironment(queued()),
        Request::InjectFault(_) => Response::InjectFault(Box::new(environment())),
        Request::GetEnvironment(_) => Response::GetEnvironment(Box::new(environment())),
        Request::ListEnvironments(_) => Response::ListEnvironments(vec![environment()]),
        Request::ListTopologies(_) => Response::ListTopologies(vec![named_topology()]),
        Request::PrunePrepared(_) => {
            Response::PrunePrepared(Pruned { images: vec!["sha256:12".into()], bytes: 1 << 20 })
        }
    })
}

/// A place on a disk.
pub fn storage_place(name: &str) -> StoragePlace {
    StoragePlace { backend: "filesystem".into(), location: format!("/var/lib/{name}") }
}

/// A storage that has moved once.
pub fn storage_report() -> StorageReport {
    StorageReport {
        place: storage_place("one"),
        state: "active".into(),
        epoch: 1,
        other: None,
        writable: true,
        reason: None,
        free_bytes: Some(1 << 30),
        tables: [("task".to_owned(), 3)].into(),
    }
}

/// A migration that has ended.
pub fn migration() -> Migration {
    Migration {
        id: "01890a5d-ac96-774b-bcce-b302099a80dd".parse().unwrap(),
        status: MigrationStatus::Completed,
        phase: "done".into(),
        from: storage_place("one"),
        to: storage_place("two"),
        records_done: 3,
        records_total: 3,
        started_at: at(1),
        ended_at: Some(at(2)),
        checksum: Some("5e77".into()),
        waited_us: Some(1_500),
        error: None,
        advice: Some("set storage_dir".into()),
    }
}

/// A workflow that was submitted, with one task.
pub fn submitted() -> Submitted {
    Submitted {
        id: Some(id(2)),
        name: Some("install".into()),
        tasks: vec![SubmittedTask { id: id(1), name: "install redis".into() }],
        existed: false,
    }
}

/// What a request about the environment has made.
pub fn queued() -> EnvironmentTask {
    EnvironmentTask { environment: environment_id(), task: id(2), existed: false }
}

/// Whoever listens to a stream; counted until it is dropped.
struct Listener(watch::Sender<usize>);

impl Drop for Listener {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

#[async_trait]
impl Service for Fake {
    async fn call(&self, caller: &Caller, request: Request) -> Result<Response> {
        assert_eq!(*caller, Caller::LoopbackOwner);
        let answer = (self.answer)(&request);
        self.asked.lock().unwrap().push(request);
        self.count.send_modify(|count| *count += 1);
        self.open.subscribe().wait_for(|open| *open).await.unwrap();
        self.answered.send_modify(|count| *count += 1);
        answer
    }

    async fn subscribe(&self, caller: &Caller, subscription: Subscription) -> Result<Items> {
        assert_eq!(*caller, Caller::LoopbackOwner);
        let items = (self.stream)(&subscription);
        self.subscribed.lock().unwrap().push(subscription);
        let items = items?;
        self.listeners.send_modify(|count| *count += 1);
        let listener = Listener(self.listeners.clone());
        Ok(stream::unfold((items, listener), |(mut items, listener)| async move {
            let item = items.next().await?;
            Some((item, (items, listener)))
        })
        .boxed())
    }
}

/// A stream of these items, which then ends.
pub fn ending(items: Vec<Item>) -> Items {
    stream::iter(items.into_iter().map(Ok)).boxed()
}

/// A stream of these items, after which nothing comes.
pub fn silent_after(items: Vec<Item>) -> Items {
    stream::iter(items.into_iter().map(Ok)).chain(stream::pending()).boxed()
}

/// The router over a service, within limits.
pub fn router_within(service: &Arc<Fake>, limits: Limits) -> Router {
    let address: SocketAddr = ADDRESS.parse().unwrap();
    router(AppState::new(Arc::clone(service) as Arc<dyn Service>, address, limits))
}

/// A request of an owner.
pub fn request(method: Method, target: &str) -> HttpRequest<Body> {
    HttpRequest::builder()
        .method(method)
        .uri(target)
        .header(header::HOST, "localhost:8080")
        .extension(Peer::Owner)
        .body(Body::empty())
        .unwrap()
}

/// Sends a request to a router over `service`, and reads the answer.
pub async fn send(service: &Arc<Fake>, request: HttpRequest<Body>) -> Seen {
    seen(router_within(service, Limits::default()).oneshot(request).await.unwrap()).await
}

/// Gets a path.
pub async fn get(service: &Arc<Fake>, target: &str) -> Seen {
    send(service, request(Method::GET, target)).await
}

/// Posts JSON to a path.
pub async fn post(service: &Arc<Fake>, target: &str, json: &str) -> Seen {
    send(service, posting(target, json)).await
}

/// A request that posts JSON.
pub fn posting(target: &str, json: &str) -> HttpRequest<Body> {
    let mut request = request(Method::POST, target);
    request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    *request.body_mut() = Body::from(json.to_owned());
    request
}

/// An answer, read.
#[derive(Debug)]
pub struct Seen {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
}

impl Seen {
    /// The body, which must be JSON.
    pub fn json(&self) -> Value {
        assert_eq!(self.headers[header::CONTENT_TYPE], "application/json");
        serde_json::from_str(&self.text).unwrap()
    }

    /// The status, the headers that matter and the body, for a snapshot.
    pub fn shown(&self) -> String {
        let mut shown = format!("{}\n", self.status);
        for name in [header::ALLOW, header::CONNECTION, header::LOCATION, header::RETRY_AFTER] {
            if let Some(value) = self.headers.get(&name) {
                shown += &format!("{name}: {}\n", value.to_str().unwrap());
            }
        }
        shown + &serde_json::to_string_pretty(&self.json()).unwrap()
    }
}

/// Reads an answer.
pub async fn seen(response: HttpResponse<Body>) -> Seen {
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    Seen {
        status: parts.status.as_u16(),
        headers: parts.headers,
        text: String::from_utf8(body.to_vec()).unwrap(),
    }
}

/// A time.
pub fn at(second: u32) -> DateTime<Utc> {
    format!("2026-01-31T12:00:{second:02}.500Z").parse().unwrap()
}

/// An identifier.
pub fn id(last: u8) -> TaskId {
    format!("01890a5d-ac96-774b-bcce-b302099a80{last:02x}").parse().unwrap()
}

/// An engine in good health.
pub fn status() -> EngineStatus {
    EngineStatus {
        engine: "engine-1".into(),
        version: "0.1.0 (abc)".into(),
        pid: 42,
        started_at: at(0),
        data_dir: "/var/lib/orchestrator".into(),
        socket: "/run/orchestrator.sock".into(),
        http: Some(ADDRESS.into()),
        storage: StorageStatus {
            backend: "filesystem".into(),
            location: "/var/lib/orchestrator/queue.rkvs".into(),
            writable: true,
            reason: None,
            free_bytes: Some(1 << 30),
        },
        mode: EngineMode::Active,
        paused: false,
        paused_groups: vec!["staging".into()],
        max_parallel: 4,
        tasks: [(TaskStatus::Pending, 3), (TaskStatus::Failed, 1)].into(),
        groups: [("production".to_owned(), [(TaskStatus::Pending, 3)].into())].into(),
        engines: vec![EngineMember {
            id: "engine-1".into(),
            host: "build-01".into(),
            pid: 42,
            since: at(0),
            state: MemberState::Alive,
            running: 2,
            labels: [("zone".to_owned(), "a".to_owned())].into(),
            version: "0.1.0".into(),
            data_dir: "/var/lib/orchestrator".into(),
            is_this: true,
        }],
    }
}

/// A command that waits for its second attempt.
pub fn task() -> Task {
    Task {
        id: id(1),
        name: "install redis".into(),
        work: Work::Command(Command {
            program: Program::Script { path: "/srv/scripts/redis.nu".into() },
            cwd: "/srv".into(),
            env: [("REGION".into(), "fra".into())].into(),
            secrets: [("PASSWORD".into(), SecretReference::File("/etc/redis.key".into()))].into(),
            params: Some(serde_json::json!({ "port": 6379 })),
        }),
        status: TaskStatus::Pending,
        priority: 5,
        group: "production".into(),
        parent: Some(id(2)),
        depends_on: vec![id(3)],
        labels: [("team".into(), "data".into())].into(),
        lock: Some("web-01".into()),
        shares_workflow_lock: false,
        retry: RetryPolicy::default(),
        timeout_ms: Some(60_000),
        grace_ms: 10_000,
        requires: BTreeMap::new(),
        on_engine_loss: OnEngineLoss::default(),
        not_before: None,
        idempotency_key: None,
        created_at: at(1),
        started_at: Some(at(2)),
        completed_at: None,
        attempt: 1,
        revived_after: 0,
        fence: 1,
        attempts: vec![Attempt {
            number: 1,
            fence: 1,
            started_at: at(2),
            ended_at: Some(at(3)),
            outcome: Some(AttemptOutcome::Failed),
            exit_code: Some(2),
            signal: None,
            error: Some("exit status 2".into()),
        }],
        next_attempt_at: Some(at(4)),
        last_error: Some("exit status 2".into()),
        claim: None,
        cancel: None,
        dependents_cancelled: Vec::new(),
        progress: Some(Progress {
            fraction: Some(0.3),
            done: Some(3),
            total: Some(10),
            message: "unpacking".into(),
        }),
        result: None,
        output: Some("no space left\n".into()),
        error: None,
    }
}

/// The identifier of the environment.
pub fn environment_id() -> EnvironmentId {
    "01890a5d-ac96-774b-bcce-b302099a80ee".parse().unwrap()
}

/// A request with everything in it that can be said.
pub fn environment_request() -> EnvironmentRequest {
    EnvironmentRequest {
        config: EnvironmentConfig::ClusterTopology { cluster_type: "etcd".into(), topology: topology() },
        infra: Some("staging".into()),
        auto_start: true,
        auto_cleanup: true,
        keep_on_failure: false,
        run: RunOptions {
            tests: vec![TestScript {
                name: Some("writes".into()),
                script: "writes.sh".into(),
                nodes: vec!["etcd-01".into()],
                timeout_ms: Some(5_000),
            }],
            idempotence_check: true,
            faults: vec![FaultStep { fault: Fault::Kill { node: "etcd-01".into() }, verify: false }],
        },
        disk_policy: orchestrator_protocol::environment::DiskPolicy::Watch,
        use_prepared: false,
        pull: true,
        expires_after_ms: Some(60_000),
        cwd: None,
        priority: -3,
        idempotency_key: Some("once".into()),
    }
}

/// A topology of one node.
pub fn topology() -> Topology {
    let options = [("port".to_owned(), serde_json::json!(2379))].into();
    Topology {
        nodes: vec![NodeConfig {
            name: "etcd-01".into(),
            role: Some("member".into()),
            taskservs: vec!["etcd".into()],
            base_image: Some("debian:12".into()),
            environment: [("REGION".into(), "fra".into())].into(),
            resources: NodeResources {
                cpu_millicores: Some(500),
                memory_mb: Some(256),
                disk_mb: Some(1024),
                max_processes: Some(100),
            },
            address: Some([172, 30, 0, 10].into()),
            volumes: vec![VolumeConfig { name: "data".into(), path: "/data".into(), read_only: true }],
            taskserv_options: [("etcd".to_owned(), options)].into(),
        }],
        network: NetworkConfig { subnet: Some("172.30.0.0/16".into()), internal: true },
    }
}

/// A topology with a name.
pub fn named_topology() -> NamedTopology {
    NamedTopology {
        name: "etcd_cluster".into(),
        description: "a quorum".into(),
        cluster_type: "etcd".into(),
        file: Some("/srv/topologies/own.toml".into()),
        topology: topology(),
    }
}

/// An environment of one node, one of whose tests has failed.
pub fn environment() -> Environment {
    Environment {
        id: environment_id(),
        name: "etcd".into(),
        status: EnvironmentStatus::Failed,
        request: environment_request(),
        engine: "engine-1".into(),
        owner: None,
        network: Some(NetworkInfo {
            id: "f00".into(),
            name: "orchestrator-1".into(),
            subnet: "172.30.0.0/16".into(),
        }),
        nodes: topology()
            .nodes
            .into_iter()
            .map(|config| Node {
                config,
                container: Some("c0ffee".into()),
                address: Some([172, 30, 0, 10].into()),
                image: Some("sha256:12".into()),
                prepared: true,
                done: vec!["install etcd".into(), "start etcd".into()],
            })
            .collect(),
        docker: None,
        partitions: Vec::new(),
        runs: 1,
        run_task: None,
        results: vec![
            TestResult {
                node: "etcd-01".into(),
                name: "verify etcd".into(),
                passed: true,
                exit_code: Some(0),
                duration_ms: 125,
                output: "healthy\n".into(),
                error: None,
                result: Some(serde_json::json!({ "members": 1 })),
            },
            TestResult {
                node: "etcd-01".into(),
                name: "writes".into(),
                passed: false,
                exit_code: Some(1),
                duration_ms: 1_000,
                output: "refused <here>\n".into(),
                error: Some("exit status 1".into()),
                result: None,
            },
        ],
        task: Some(id(2)),
        error: Some("1 of 2 tests failed".into()),
        created_at: at(1),
        ready_at: Some(at(2)),
        cleaned_at: None,
        expires_at: at(59),
    }
}
