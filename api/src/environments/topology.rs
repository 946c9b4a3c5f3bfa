//! Nodes and their network, as they are sent, and answered in the same form, so that what was answered can
//! be sent again.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use orchestrator_protocol::environment as protocol;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::same::{Same, same_fields};

same_fields! {
    /// A named list of nodes and their network.
    Topology as TopologyRequest of protocol::Topology {
        /// The nodes.
        nodes: Vec<NodeConfig>,
        /// Their network.
        #[serde(default)]
        network: NetworkConfig,
    }
}

same_fields! {
    /// One node.
    NodeConfig as NodeRequest of protocol::NodeConfig {
        /// Its name: a DNS label, by which the other nodes reach it.
        name: String,
        /// Its role, as the taskservs on it understand it.
        #[serde(default)]
        role: Option<String>,
        /// The taskservs on it; what they depend on comes by itself.
        #[serde(default)]
        taskservs: Vec<String>,
        /// The image that it is made from; the engine's configured one without it.
        #[serde(default)]
        base_image: Option<String>,
        /// Variables of its processes.
        #[serde(default)]
        environment: BTreeMap<String, String>,
        /// How much it may use.
        #[serde(default)]
        resources: NodeResources,
        /// Its IPv4 address, where it must be a certain one. The network needs a subnet then.
        #[serde(default)]
        #[schema(value_type = Option<String>)]
        address: Option<Ipv4Addr>,
        /// What is mounted in it.
        #[serde(default)]
        volumes: Vec<VolumeConfig>,
        /// Parameters of taskservs, by taskserv and name.
        #[serde(default)]
        taskserv_options: BTreeMap<String, BTreeMap<String, Value>>,
    }
}

same_fields! {
    /// The network of an environment.
    NetworkConfig as NetworkRequest of protocol::NetworkConfig {
        /// Its IPv4 addresses, such as `172.30.0.0/16`; a free range without it.
        #[serde(default)]
        subnet: Option<String>,
        /// Whether nothing outside can be reached from it.
        #[serde(default)]
        internal: bool,
    }
}

impl Default for NetworkConfig {
    fn default() -> Self {
        protocol::NetworkConfig::default().same()
    }
}

same_fields! {
    /// A volume that lives as long as its environment.
    VolumeConfig as VolumeRequest of protocol::VolumeConfig {
        /// Its name; nodes of one environment that name the same volume share it.
        name: String,
        /// Where it is mounted. Absolute.
        path: String,
        /// Whether it cannot be written.
        #[serde(default)]
        read_only: bool,
    }
}

same_fields! {
    /// How much a node may use. Each limit is enforced, or the request is refused.
    NodeResources as ResourcesRequest of protocol::NodeResources {
        /// Processor time, in thousandths of a processor.
        #[serde(default)]
        cpu_millicores: Option<u64>,
        /// Memory in MiB, without swap on top.
        #[serde(default)]
        memory_mb: Option<u64>,
        /// The size of its own file system, in MiB.
        #[serde(default)]
        disk_mb: Option<u64>,
        /// Processes and threads at once.
        #[serde(default)]
        max_processes: Option<u64>,
    }
}

impl Default for NodeResources {
    fn default() -> Self {
        protocol::NodeResources::default().same()
    }
}
