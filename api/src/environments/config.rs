//! What to build: the three kinds of environments, which `type` chooses from.

use std::collections::BTreeMap;

use orchestrator_protocol::environment as protocol;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::same::Same;
use super::topology::{NodeResources, Topology};
use crate::body;
use crate::envelope::ApiError;

/// What to build, by its `type`.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = ConfigRequest)]
pub enum Config {
    /// One node with one taskserv, and what that depends on.
    SingleTaskserv(SingleTaskserv),
    /// One node that stands for a server.
    ServerSimulation(ServerSimulation),
    /// Several nodes.
    ClusterTopology(ClusterTopology),
}

/// A kind of environment: its word, and its fields.
macro_rules! kind {
    ($(#[doc = $doc:literal])* $name:ident as $schema:ident, $word:ident as $word_schema:ident {
        $($(#[$attribute:meta])* $field:ident: $type:ty,)*
    }) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
        #[serde(deny_unknown_fields)]
        #[schema(as = $schema)]
        pub struct $name {
            #[serde(rename = "type")]
            word: $word,
            $($(#[$attribute])* $field: $type,)*
        }

        #[doc = "The word for this kind of environment."]
        #[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
        #[serde(rename_all = "snake_case")]
        #[schema(as = $word_schema)]
        pub enum $word {
            #[doc = "The only one."]
            $name,
        }

        impl From<$name> for protocol::EnvironmentConfig {
            fn from($name { word: $word::$name, $($field),* }: $name) -> Self {
                Self::$name { $($field: $field.same()),* }
            }
        }
    };
}

kind! {
    /// One node with one taskserv, and what that depends on.
    SingleTaskserv as SingleTaskservRequest, SingleTaskservWord as SingleTaskservType {
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
        taskserv_options: BTreeMap<String, BTreeMap<String, Value>>,
    }
}

kind! {
    /// One node that stands for a server.
    ServerSimulation as ServerSimulationRequest, ServerSimulationWord as ServerSimulationType {
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
        taskserv_options: BTreeMap<String, BTreeMap<String, Value>>,
    }
}

kind! {
    /// Several nodes.
    ClusterTopology as ClusterTopologyRequest, ClusterTopologyWord as ClusterTopologyType {
        /// What kind of cluster it is; for people.
        cluster_type: String,
        /// Its nodes and its network.
        topology: Topology,
    }
}

impl From<protocol::EnvironmentConfig> for Config {
    fn from(config: protocol::EnvironmentConfig) -> Self {
        use protocol::EnvironmentConfig as Asked;
        match config {
            Asked::SingleTaskserv { taskserv, base_image, environment, resources, taskserv_options } => {
                Self::SingleTaskserv(SingleTaskserv {
                    word: SingleTaskservWord::SingleTaskserv,
                    taskserv,
                    base_image,
                    environment,
                    resources: resources.same(),
                    taskserv_options,
                })
            }
            Asked::ServerSimulation {
                server_name,
                taskservs,
                base_image,
                environment,
                resources,
                taskserv_options,
            } => Self::ServerSimulation(ServerSimulation {
                word: ServerSimulationWord::ServerSimulation,
                server_name,
                taskservs,
                base_image,
                environment,
                resources: resources.same(),
                taskserv_options,
            }),
            Asked::ClusterTopology { cluster_type, topology } => Self::ClusterTopology(ClusterTopology {
                word: ClusterTopologyWord::ClusterTopology,
                cluster_type,
                topology: topology.same(),
            }),
        }
    }
}

/// The word in `type`, before anything else of a config is read.
#[derive(Deserialize)]
struct Kind {
    #[serde(rename = "type")]
    word: KindWord,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum KindWord {
    SingleTaskserv,
    ServerSimulation,
    ClusterTopology,
}

/// Reads what to build. Its word chooses what it is read as, so that a problem is told by the field that
/// it is in, however deep that lies.
pub(super) fn read(config: Map<String, Value>) -> Result<protocol::EnvironmentConfig, ApiError> {
    let place = "config";
    let value = Value::Object(config);
    let Kind { word } = body::part(value.clone(), place)?;
    Ok(match word {
        KindWord::SingleTaskserv => body::part::<SingleTaskserv>(value, place)?.into(),
        KindWord::ServerSimulation => body::part::<ServerSimulation>(value, place)?.into(),
        KindWord::ClusterTopology => body::part::<ClusterTopology>(value, place)?.into(),
    })
}
