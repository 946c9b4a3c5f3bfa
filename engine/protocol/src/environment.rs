//! Containerised test environments: what is asked for, and what is known of each.
//!
//! An environment is nodes on a network of its own, with taskservs on them. It is created, run and
//! cleaned by actions of the queue; its record says how far it is.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::event::OutputStream;
use crate::task::TaskId;

/// The identifier of an environment: a UUID v7.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EnvironmentId(pub Uuid);

impl EnvironmentId {
    /// A new identifier, greater than all that this process made before.
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }
}

impl fmt::Display for EnvironmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for EnvironmentId {
    type Err = InvalidEnvironmentId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::parse_str(text.trim()).map(Self).map_err(|_| InvalidEnvironmentId { text: text.to_owned() })
    }
}

/// A text that is no environment's identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not an environment id: it should look like 01890a5d-ac96-774b-bcce-b302099a8057")]
pub struct InvalidEnvironmentId {
    /// The text.
    pub text: String,
}

/// How far an environment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EnvironmentStatus {
    /// Its nodes are being made, and the taskservs on them installed and started.
    Creating,
    /// All nodes are up, and nothing has been tested yet.
    Ready,
    /// The tests run.
    RunningTests,
    /// All tests have passed.
    Passed,
    /// A test has failed.
    Failed,
    /// It is being removed.
    Cleaning,
    /// Nothing of it is left.
    Cleaned,
    /// It could not be made, run or removed; `error` says why. What there is of it is still there.
    Error,
}

impl EnvironmentStatus {
    /// The name, as sent, stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Ready => "ready",
            Self::RunningTests => "running_tests",
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Cleaning => "cleaning",
            Self::Cleaned => "cleaned",
            Self::Error => "error",
        }
    }

    /// Every state, in the order of an environment's life.
    pub const ALL: [Self; 8] = [
        Self::Creating,
        Self::Ready,
        Self::RunningTests,
        Self::Passed,
        Self::Failed,
        Self::Cleaning,
        Self::Cleaned,
        Self::Error,
    ];

    /// Whether a task works on an environment in this state, as long as nothing has gone wrong.
    pub fn is_at_work(self) -> bool {
        matches!(self, Self::Creating | Self::RunningTests | Self::Cleaning)
    }

    /// Whether an environment in this state may come into another. To stay is always legal, so that a
    /// step can be repeated.
    pub fn may_become(self, next: Self) -> bool {
        use EnvironmentStatus::{Cleaned, Cleaning, Creating, Error, Failed, Passed, Ready, RunningTests};
        self == next
            || match self {
                Creating => matches!(next, Ready | Cleaning | Error),
                Ready => matches!(next, RunningTests | Cleaning | Error),
                // Called off, it is as it was before.
                RunningTests => matches!(next, Passed | Failed | Ready | Cleaning | Error),
                Passed | Failed => matches!(next, RunningTests | Cleaning | Error),
                Cleaning => matches!(next, Cleaned | Error),
                Cleaned => false,
                Error => matches!(next, Creating | RunningTests | Cleaning),
            }
    }
}

impl fmt::Display for EnvironmentStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for EnvironmentStatus {
    type Err = UnknownEnvironmentStatus;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_meant = |status: &Self| status.as_str().eq_ignore_ascii_case(text);
        Self::ALL.into_iter().find(is_meant).ok_or_else(|| UnknownEnvironmentStatus { text: text.to_owned() })
    }
}

/// A text that names no state of an environment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{text}' is not a state: use creating, ready, running_tests, passed, failed, cleaning, cleaned or error"
)]
pub struct UnknownEnvironmentStatus {
    /// The text.
    pub text: String,
}

/// What to build.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum EnvironmentConfig {
    /// One node with one taskserv, and what that depends on.
    SingleTaskserv {
        /// The taskserv.
        taskserv: String,
        /// The image that the node is made from; the engine's configured one without it.
        #[serde(default)]
        base_image: Option<String>,
        /// Variables of the node's processes.
        #[serde(default)]
        environment: BTreeMap<String, String>,
        /// How much the node may use.
        #[serde(default)]
        resources: NodeResources,
        /// Parameters of taskservs, by taskserv and name.
        #[serde(default)]
        taskserv_options: BTreeMap<String, BTreeMap<String, serde_json::Value>>,
    },
    /// One node that stands for a server.
    ServerSimulation {
        /// Its name.
        server_name: String,
        /// The taskservs on it; what they depend on comes by itself.
        taskservs: Vec<String>,
        /// The image that the node is made from; the engine's configured one without it.
        #[serde(default)]
        base_image: Option<String>,
        /// Variables of the node's processes.
        #[serde(default)]
        environment: BTreeMap<String, String>,
        /// How much the node may use.
        #[serde(default)]
        resources: NodeResources,
        /// Parameters of taskservs, by taskserv and name.
        #[serde(default)]
        taskserv_options: BTreeMap<String, BTreeMap<String, serde_json::Value>>,
    },
    /// Several nodes.
    ClusterTopology {
        /// What kind of cluster it is; for people.
        cluster_type: String,
        /// Its nodes and its network.
        topology: Topology,
    },
}

/// A named list of nodes and their network.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topology {
    /// The nodes.
    pub nodes: Vec<NodeConfig>,
    /// Their network.
    #[serde(default)]
    pub network: NetworkConfig,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeConfig {
    /// Its name: a DNS label, by which the other nodes reach it.
    pub name: String,
    /// Its role, as the taskservs on it understand it.
    #[serde(default)]
    pub role: Option<String>,
    /// The taskservs on it; what they depend on comes by itself.
    #[serde(default)]
    pub taskservs: Vec<String>,
    /// The image that it is made from; the engine's configured one without it.
    #[serde(default)]
    pub base_image: Option<String>,
    /// Variables of its processes.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// How much it may use.
    #[serde(default)]
    pub resources: NodeResources,
    /// Its address, where it must be a certain one. The network needs a subnet then.
    #[serde(default, with = "as_text")]
    pub address: Option<Ipv4Addr>,
    /// What is mounted in it.
    #[serde(default)]
    pub volumes: Vec<VolumeConfig>,
    /// Parameters of taskservs, by taskserv and name.
    #[serde(default)]
    pub taskserv_options: BTreeMap<String, BTreeMap<String, serde_json::Value>>,
}

/// The network of an environment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkConfig {
    /// Its IPv4 addresses, such as `172.30.0.0/16`; a free range without it.
    #[serde(default)]
    pub subnet: Option<String>,
    /// Whether nothing outside can be reached from it.
    #[serde(default)]
    pub internal: bool,
}

/// A volume that lives as long as its environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeConfig {
    /// Its name; nodes of one environment that name the same volume share it.
    pub name: String,
    /// Where it is mounted. Absolute.
    pub path: String,
    /// Whether it cannot be written.
    #[serde(default)]
    pub read_only: bool,
}

/// How much a node may use. Each limit is enforced, or the request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeResources {
    /// Processor time, in thousandths of a processor.
    #[serde(default)]
    pub cpu_millicores: Option<u64>,
    /// Memory in MiB, without swap on top.
    #[serde(default)]
    pub memory_mb: Option<u64>,
    /// The size of its own file system, in MiB.
    #[serde(default)]
    pub disk_mb: Option<u64>,
    /// Processes and threads at once.
    #[serde(default)]
    pub max_processes: Option<u64>,
}

/// What is done about `disk_mb`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskPolicy {
    /// The storage driver enforces it; where it cannot, the request is refused.
    #[default]
    Enforce,
    /// The engine looks at intervals, and stops a node that is over its limit.
    Watch,
}

/// A script of the user's that is part of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TestScript {
    /// What it is called in the report. Default: the file's name.
    #[serde(default)]
    pub name: Option<String>,
    /// The file; it is copied to the node and run there, so it needs a first line that begins with `#!`.
    /// Relative to `cwd`.
    pub script: String,
    /// On which nodes; on all where empty.
    #[serde(default)]
    pub nodes: Vec<String>,
    /// How long it may take on a node, in milliseconds.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
}

/// What a run does.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunOptions {
    /// Scripts that run after the verify steps, in this order.
    #[serde(default)]
    pub tests: Vec<TestScript>,
    /// Install everything again first, and fail where that changes something.
    #[serde(default)]
    pub idempotence_check: bool,
    /// Faults and the steps between them, after the verify steps and the scripts.
    #[serde(default)]
    pub faults: Vec<FaultStep>,
}

/// One step of a run with faults: a fault, then a check that everything still works, or works again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultStep {
    /// What is done.
    pub fault: Fault,
    /// Whether the verify steps of all nodes that are up must pass after it. Default: yes.
    #[serde(default = "yes")]
    pub verify: bool,
}

fn yes() -> bool {
    true
}

/// An address as a text in every format: a binary one would write four numbers, and could not read them
/// again inside [`EnvironmentConfig`], whose `type` may come after them.
mod as_text {
    use std::net::Ipv4Addr;

    use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

    pub(super) fn serialize<S: Serializer>(
        address: &Option<Ipv4Addr>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        address.map(|address| address.to_string()).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Ipv4Addr>, D::Error> {
        let text: Option<String> = Option::deserialize(deserializer)?;
        text.map(|text| text.parse().map_err(de::Error::custom)).transpose()
    }
}

/// What can be done to the nodes of an environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// SIGKILL to everything on a node.
    Kill {
        /// The node.
        node: String,
    },
    /// Stops a node as an operator would.
    Stop {
        /// The node.
        node: String,
    },
    /// Freezes a node.
    Pause {
        /// The node.
        node: String,
    },
    /// Lets a frozen node go on.
    Unpause {
        /// The node.
        node: String,
    },
    /// Starts a node that is down, or starts it anew, with its taskservs.
    Restart {
        /// The node.
        node: String,
    },
    /// Cuts the connections between two sides.
    Partition {
        /// The nodes of one side; the others are the other.
        nodes: Vec<String>,
    },
    /// Undoes all partitions.
    Heal {},
}

/// Asks for an environment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnvironmentRequest {
    /// What to build.
    pub config: EnvironmentConfig,
    /// For which infra; also the fairness group. Default `test`.
    #[serde(default)]
    pub infra: Option<String>,
    /// Run the tests as soon as it is ready.
    #[serde(default)]
    pub auto_start: bool,
    /// Remove it when the tests have passed.
    #[serde(default)]
    pub auto_cleanup: bool,
    /// With `auto_cleanup`: keep what has failed, for a look. Default: yes.
    #[serde(default = "yes")]
    pub keep_on_failure: bool,
    /// What the run does, with `auto_start`.
    #[serde(default)]
    pub run: RunOptions,
    /// What is done about `disk_mb`.
    #[serde(default)]
    pub disk_policy: DiskPolicy,
    /// Whether images with the taskservs installed are used and kept. Default: yes.
    #[serde(default = "yes")]
    pub use_prepared: bool,
    /// Fetch images that the machine does not have.
    #[serde(default)]
    pub pull: bool,
    /// It is removed so long after it was made, in milliseconds. Default: a day.
    #[serde(default)]
    pub expires_after_ms: Option<u64>,
    /// Where the user's taskservs (`taskservs/NAME`) and scripts are: absolute.
    #[serde(default)]
    pub cwd: Option<String>,
    /// Higher comes first. Default 0.
    #[serde(default)]
    pub priority: i32,
    /// The same key and the same request again return what the first one made.
    #[serde(default)]
    pub idempotency_key: Option<String>,
}

/// What a request about an environment made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvironmentTask {
    /// The environment.
    pub environment: EnvironmentId,
    /// The workflow or the task that does it.
    pub task: TaskId,
    /// Whether an earlier request with the same key had made it already.
    #[serde(default)]
    pub existed: bool,
}

/// Asks for one environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetEnvironment {
    /// Which.
    pub id: EnvironmentId,
}

/// Asks for environments, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ListEnvironments {
    /// Only in these states; all but `cleaned` where empty.
    #[serde(default)]
    pub statuses: Vec<EnvironmentStatus>,
    /// Only of this infra.
    #[serde(default)]
    pub infra: Option<String>,
}

/// Asks to run the tests of an environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunEnvironment {
    /// Which.
    pub id: EnvironmentId,
    /// What the run does.
    #[serde(default)]
    pub run: RunOptions,
    /// Where the user's scripts are: absolute.
    #[serde(default)]
    pub cwd: Option<String>,
}

/// Asks to remove an environment. What is under way in it is called off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CleanEnvironment {
    /// Which.
    pub id: EnvironmentId,
}

/// Asks to do something to the nodes of an environment, now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InjectFault {
    /// The environment.
    pub id: EnvironmentId,
    /// What.
    pub fault: Fault,
}

/// Asks which topologies there are: the project's own and those in `topologies/*.toml` under `cwd`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ListTopologies {
    /// The user's directory: absolute.
    #[serde(default)]
    pub cwd: Option<String>,
}

/// A topology by its name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NamedTopology {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// What kind of cluster it is.
    pub cluster_type: String,
    /// The file that it is from; `None` for the project's own.
    pub file: Option<String>,
    /// Its nodes and its network.
    pub topology: Topology,
}

/// Asks for the output of nodes: of install, start, verify and test scripts, and of the container itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvironmentLogs {
    /// The environment.
    pub id: EnvironmentId,
    /// Only this node.
    #[serde(default)]
    pub node: Option<String>,
    /// Only the last so many lines of each node.
    #[serde(default)]
    pub tail: Option<u64>,
    /// Go on while something runs in the environment.
    #[serde(default)]
    pub follow: bool,
}

/// Asks to remove the prepared images that nothing uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PrunePrepared {}

/// What was removed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Pruned {
    /// The images.
    pub images: Vec<String>,
    /// How much they took, in bytes.
    pub bytes: u64,
}

/// A line that a script on a node, or the node itself, has printed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeLine {
    /// The node.
    pub node: String,
    /// What printed it, such as `start postgres`; `container` is the node itself.
    pub step: String,
    /// When it was read.
    pub time: DateTime<Utc>,
    /// Where it was written.
    pub stream: OutputStream,
    /// The line, without its end.
    pub line: String,
}

/// An environment as it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Environment {
    /// Its identifier.
    pub id: EnvironmentId,
    /// What people call it: the taskserv, the server, the cluster.
    pub name: String,
    /// Its state.
    pub status: EnvironmentStatus,
    /// What was asked for.
    pub request: EnvironmentRequest,
    /// The engine that made it.
    pub engine: String,
    /// The Docker daemon in which it is, by that one's own identifier, where several engines share the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub docker: Option<String>,
    /// Whose its things in Docker are: the data of that engine, which they carry as a label. Records that
    /// are older do not have it.
    #[serde(default)]
    pub owner: Option<String>,
    /// Its network in Docker.
    #[serde(default)]
    pub network: Option<NetworkInfo>,
    /// Its nodes.
    #[serde(default)]
    pub nodes: Vec<Node>,
    /// The partitions that are in force: the nodes of one side of each.
    #[serde(default)]
    pub partitions: Vec<Vec<String>>,
    /// How many runs were begun.
    #[serde(default)]
    pub runs: u64,
    /// The task of the newest run: another attempt of it goes on with its results, another task does not.
    #[serde(default)]
    pub run_task: Option<TaskId>,
    /// What the newest run found.
    #[serde(default)]
    pub results: Vec<TestResult>,
    /// The task that works on it now, or did last.
    #[serde(default)]
    pub task: Option<TaskId>,
    /// Why it is in `error`, or what its run failed on.
    #[serde(default)]
    pub error: Option<String>,
    /// When it was asked for.
    pub created_at: DateTime<Utc>,
    /// When all nodes were up.
    #[serde(default)]
    pub ready_at: Option<DateTime<Utc>>,
    /// When it was gone.
    #[serde(default)]
    pub cleaned_at: Option<DateTime<Utc>>,
    /// When it is removed at the latest.
    pub expires_at: DateTime<Utc>,
}

/// The network of an environment in Docker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkInfo {
    /// Its identifier.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub subnet: String,
}

/// A node as it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// What was asked for, with the taskservs in the order in which they were brought to it, and those
    /// among them that others depend on.
    pub config: NodeConfig,
    /// Its container.
    #[serde(default)]
    pub container: Option<String>,
    /// Its address.
    #[serde(default)]
    pub address: Option<Ipv4Addr>,
    /// The image that it was made from.
    #[serde(default)]
    pub image: Option<String>,
    /// Whether that was a prepared image.
    #[serde(default)]
    pub prepared: bool,
    /// The steps that are done on it, such as `start postgres`.
    #[serde(default)]
    pub done: Vec<String>,
}

/// What one test on one node found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TestResult {
    /// The node.
    pub node: String,
    /// The test, such as `verify postgres`.
    pub name: String,
    /// Whether it has passed.
    pub passed: bool,
    /// The exit status of its script; `None` where it did not come to one.
    pub exit_code: Option<i32>,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// The end of its output.
    pub output: String,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What its script reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<serde_json::Value>,
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn nothing_follows_the_end_and_everything_can_be_cleaned() {
        for status in EnvironmentStatus::ALL {
            assert!(status.may_become(status));
            assert_eq!(status.as_str().parse(), Ok(status));
            let is_over = status == EnvironmentStatus::Cleaned;
            assert_eq!(status.may_become(EnvironmentStatus::Cleaning), !is_over, "{status}");
            assert!(status == EnvironmentStatus::Cleaned || !EnvironmentStatus::Cleaned.may_become(status));
        }
        assert!(!EnvironmentStatus::Creating.may_become(EnvironmentStatus::Passed));
        assert!("broken".parse::<EnvironmentStatus>().is_err());
    }

    #[test]
    fn a_fixed_address_survives_both_formats() {
        let node = NodeConfig { address: Some([172, 30, 0, 10].into()), ..NodeConfig::default() };
        let topology = Topology { nodes: vec![node, NodeConfig::default()], ..Topology::default() };
        let config = EnvironmentConfig::ClusterTopology { cluster_type: "etcd".into(), topology };
        let text = serde_json::to_string(&config).unwrap();
        assert!(text.contains(r#""address":"172.30.0.10""#), "{text}");
        assert_eq!(serde_json::from_str::<EnvironmentConfig>(&text).unwrap(), config);
        let bytes = rmp_serde::to_vec_named(&config).unwrap();
        assert_eq!(rmp_serde::from_slice::<EnvironmentConfig>(&bytes).unwrap(), config);
        assert!(serde_json::from_str::<NodeConfig>(r#"{"name": "a", "address": "172.30.0.256"}"#).is_err());
    }

    #[test]
    fn the_documented_bodies_can_be_read() {
        for body in [
            r#"{"config": {"type": "single_taskserv", "taskserv": "redis", "base_image": "debian:12",
                "environment": {}, "resources": {"cpu_millicores": 2000, "memory_mb": 4096}},
                "infra": "my-project", "auto_start": true, "auto_cleanup": false}"#,
            r#"{"config": {"type": "server_simulation", "server_name": "web-01", "taskservs": ["redis"]}}"#,
            r#"{"config": {"type": "cluster_topology", "cluster_type": "etcd", "topology": {"nodes":
                [{"name": "etcd-01", "role": "member", "taskservs": ["etcd"]}],
                "network": {"subnet": "172.30.0.0/16"}}}}"#,
        ] {
            let request: EnvironmentRequest = serde_json::from_str(body).unwrap();
            assert!(request.keep_on_failure && request.use_prepared);
        }
        assert!(serde_json::from_str::<EnvironmentRequest>(r#"{"config": {"type": "vm"}}"#).is_err());
    }
}
