//! What an environment looks like over REST, and what else is answered about environments.
//!
//! As with tasks every key is always there, null where there is nothing to say.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use chrono::{DateTime, Utc};
use orchestrator_protocol::environment as protocol;
use orchestrator_protocol::environment::{DiskPolicy, EnvironmentId, EnvironmentStatus};
use orchestrator_protocol::task::TaskId;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::config::Config;
use super::run::RunOptions;
use super::same::Same;
use super::topology::{NodeResources, Topology, VolumeConfig};
use crate::words;

/// What a request about an environment made.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EnvironmentTask)]
pub struct QueuedView {
    #[schema(value_type = words::EnvironmentId)]
    pub(super) environment: EnvironmentId,
    /// The workflow, or the task, that does it.
    #[schema(value_type = words::TaskId)]
    pub(super) task: TaskId,
}

/// An environment.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Environment)]
pub struct EnvironmentView {
    #[schema(value_type = words::EnvironmentId)]
    id: EnvironmentId,
    /// What people call it: the taskserv, the server, the cluster.
    name: String,
    #[schema(value_type = words::EnvironmentStatus)]
    status: EnvironmentStatus,
    /// Why it is in error, or what its run failed on.
    error: Option<String>,
    /// The task that works on it now, or did last.
    #[schema(value_type = Option<words::TaskId>)]
    task: Option<TaskId>,
    network: Option<NetworkView>,
    nodes: Vec<NodeView>,
    /// What the newest run found.
    results: Vec<ResultView>,
    created_at: DateTime<Utc>,
    /// When all nodes were up.
    ready_at: Option<DateTime<Utc>>,
    /// When nothing of it was left.
    cleaned_at: Option<DateTime<Utc>>,
    /// When it is removed at the latest.
    expires_at: DateTime<Utc>,
    /// The engine that made it.
    engine: String,
    /// What was asked for.
    request: RequestView,
}

/// The network of an environment in Docker.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EnvironmentNetwork)]
pub struct NetworkView {
    id: String,
    name: String,
    /// Its addresses.
    subnet: String,
}

/// A node as it is.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Node)]
pub struct NodeView {
    /// Its name, by which the other nodes reach it.
    name: String,
    /// Its role, as the taskservs on it understand it.
    role: Option<String>,
    /// The taskservs on it, each after what it depends on.
    taskservs: Vec<String>,
    /// Its address, once it has one.
    #[schema(value_type = Option<String>)]
    address: Option<Ipv4Addr>,
    /// Its container's identifier, once it has one.
    container: Option<String>,
    /// The image that its container was made from.
    image: Option<String>,
    /// Whether that was a prepared image.
    prepared: bool,
    /// The steps that are done on it, such as `start postgres`.
    done: Vec<String>,
    /// Variables of its processes.
    environment: BTreeMap<String, String>,
    /// How much it may use.
    resources: NodeResources,
    /// What is mounted in it.
    volumes: Vec<VolumeConfig>,
    /// Parameters of taskservs, by taskserv and name.
    taskserv_options: BTreeMap<String, BTreeMap<String, Value>>,
}

/// What one test on one node found.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TestResult)]
pub struct ResultView {
    node: String,
    /// The test, such as `verify postgres`.
    name: String,
    passed: bool,
    /// The exit status of its script; null where it did not come to one.
    exit_code: Option<i32>,
    duration_ms: u64,
    /// The end of its output.
    output: String,
    /// Why it failed.
    error: Option<String>,
    /// What its script reported.
    result: Option<Value>,
}

/// What was asked for.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AskedEnvironment)]
pub struct RequestView {
    config: Config,
    infra: Option<String>,
    auto_start: bool,
    auto_cleanup: bool,
    keep_on_failure: bool,
    run: RunOptions,
    #[schema(value_type = words::DiskPolicy)]
    disk_policy: DiskPolicy,
    use_prepared: bool,
    pull: bool,
    expires_after_ms: Option<u64>,
    /// Where relative paths of its scripts start, where that is known.
    cwd: Option<String>,
    priority: i32,
    idempotency_key: Option<String>,
}

impl From<protocol::Environment> for EnvironmentView {
    fn from(environment: protocol::Environment) -> Self {
        let protocol::Environment {
            id,
            name,
            status,
            request,
            engine,
            // Whose its things in Docker are; not shown here.
            owner: _,
            network,
            nodes,
            // How the engine goes on where it was; not shown here.
            docker: _,
            partitions: _,
            runs: _,
            run_task: _,
            results,
            task,
            error,
            created_at,
            ready_at,
            cleaned_at,
            expires_at,
        } = environment;
        let network =
            network.map(|protocol::NetworkInfo { id, name, subnet }| NetworkView { id, name, subnet });
        Self {
            id,
            name,
            status,
            error,
            task,
            network,
            nodes: nodes.into_iter().map(NodeView::from).collect(),
            results: results.into_iter().map(ResultView::from).collect(),
            created_at,
            ready_at,
            cleaned_at,
            expires_at,
            engine,
            request: request.into(),
        }
    }
}

impl From<protocol::Node> for NodeView {
    fn from(node: protocol::Node) -> Self {
        let protocol::Node { config, container, address, image, prepared, done } = node;
        Self {
            name: config.name,
            role: config.role,
            taskservs: config.taskservs,
            address,
            container,
            image,
            prepared,
            done,
            environment: config.environment,
            resources: config.resources.same(),
            volumes: config.volumes.same(),
            taskserv_options: config.taskserv_options,
        }
    }
}

impl From<protocol::TestResult> for ResultView {
    fn from(found: protocol::TestResult) -> Self {
        let protocol::TestResult { node, name, passed, exit_code, duration_ms, output, error, result } =
            found;
        Self { node, name, passed, exit_code, duration_ms, output, error, result }
    }
}

impl From<protocol::EnvironmentRequest> for RequestView {
    fn from(request: protocol::EnvironmentRequest) -> Self {
        let protocol::EnvironmentRequest {
            config,
            infra,
            auto_start,
            auto_cleanup,
            keep_on_failure,
            run,
            disk_policy,
            use_prepared,
            pull,
            expires_after_ms,
            cwd,
            priority,
            idempotency_key,
        } = request;
        Self {
            config: config.into(),
            infra,
            auto_start,
            auto_cleanup,
            keep_on_failure,
            run: run.same(),
            disk_policy,
            use_prepared,
            pull,
            expires_after_ms,
            cwd,
            priority,
            idempotency_key,
        }
    }
}

/// A topology by its name.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = NamedTopology)]
pub struct TopologyView {
    name: String,
    /// What it is for.
    description: String,
    /// What kind of cluster it is.
    cluster_type: String,
    /// The file that it is from; null for the engine's own.
    file: Option<String>,
    /// Its nodes and its network, as they are sent.
    topology: Topology,
}

impl From<protocol::NamedTopology> for TopologyView {
    fn from(named: protocol::NamedTopology) -> Self {
        let protocol::NamedTopology { name, description, cluster_type, file, topology } = named;
        Self { name, description, cluster_type, file, topology: topology.same() }
    }
}

/// What was removed.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Pruned)]
pub struct PrunedView {
    images: Vec<String>,
    /// How much they took, in bytes.
    bytes: u64,
}

impl From<protocol::Pruned> for PrunedView {
    fn from(protocol::Pruned { images, bytes }: protocol::Pruned) -> Self {
        Self { images, bytes }
    }
}
