//! What a test environment is to become: the request, checked whole and with everything filled in.
//!
//! A [`Blueprint`] is made twice: when the request comes in, so that what is wrong with it is said at
//! once, and when a step of the environment runs. It is pure but for the taskservs' folders, which it
//! reads. What has been made is in the environment's record, never here.

use std::sync::Arc;

use orchestrator_protocol::environment::{NetworkConfig, NodeConfig};

use crate::taskservs::{Choices, Taskserv};

/// What an environment is to become.
#[derive(Debug, Clone, PartialEq)]
pub struct Blueprint {
    /// What people call it: the taskserv, the server, the cluster.
    pub name: String,
    /// The infra; also the group of its tasks.
    pub infra: String,
    /// Its network.
    pub network: NetworkConfig,
    /// Its nodes, in the order of the request.
    pub nodes: Vec<NodePlan>,
}

/// What a node is to become.
#[derive(Debug, Clone, PartialEq)]
pub struct NodePlan {
    /// What was asked for, with the image filled in and `taskservs` as they are brought to it.
    pub config: NodeConfig,
    /// The taskservs, each after what it depends on.
    pub taskservs: Vec<TaskservPlan>,
}

/// A taskserv on a node.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskservPlan {
    /// Which.
    pub taskserv: Arc<Taskserv>,
    /// What was chosen of it.
    pub choices: Choices,
}

/// What a request leaves out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Defaults {
    /// The image of nodes that name none.
    pub base_image: String,
}
