//! What a test environment is to become: the request, checked whole and with everything filled in.
//!
//! A [`Blueprint`] is made twice: when the request comes in, so that what is wrong with it is said at
//! once, and when a step of the environment runs. It is pure but for the taskservs' folders, which it
//! reads. What has been made is in the environment's record, never here.

mod plan;
mod run;
mod subnet;
#[cfg(test)]
mod tests;
pub(crate) mod topology;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use orchestrator_protocol::environment::{NetworkConfig, NodeConfig};
use sha2::{Digest, Sha256};

pub use self::run::{check_fault, check_run, script_path, test_name};
use crate::queue::submit::hex;
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

impl NodePlan {
    /// Whether a taskserv on it needs all rights on the machine's kernel.
    pub fn privileged(&self) -> bool {
        self.taskservs.iter().any(|plan| plan.taskserv.needs.privileged)
    }

    /// The capabilities that taskservs on it need.
    pub fn capabilities(&self) -> BTreeSet<&str> {
        let plans = self.taskservs.iter();
        plans.flat_map(|plan| &plan.taskserv.needs.capabilities).map(String::as_str).collect()
    }

    /// Whether a taskserv on it needs systemd.
    pub fn systemd(&self) -> bool {
        self.taskservs.iter().any(|plan| plan.taskserv.needs.systemd)
    }

    /// What of an image with this node's taskservs installed depends on: the base image's content, the
    /// architecture, the node's variables, and of each taskserv, in their order, its name, its files, its
    /// role and its parameters. It is the same for two nodes that differ in name, address or resources.
    pub fn prepared_digest(&self, base_image_id: &str, architecture: &str) -> String {
        let mut digest = Sha256::new();
        add(&mut digest, [base_image_id, architecture]);
        add_map(&mut digest, &self.config.environment);
        for TaskservPlan { taskserv, choices } in &self.taskservs {
            add(&mut digest, [taskserv.name.as_str(), &taskserv.digest, &choices.role]);
            add_map(&mut digest, &choices.parameters);
        }
        hex(&digest.finalize())
    }
}

/// Adds texts to a digest, each with its length, so that no two lists look the same.
fn add<'a>(digest: &mut Sha256, texts: impl IntoIterator<Item = &'a str>) {
    for text in texts {
        digest.update((text.len() as u64).to_le_bytes());
        digest.update(text);
    }
}

fn add_map(digest: &mut Sha256, map: &BTreeMap<String, String>) {
    digest.update((map.len() as u64).to_le_bytes());
    add(digest, map.iter().flat_map(|(name, value)| [name.as_str(), value]));
}

impl Blueprint {
    /// In which order taskservs are started: each after all that it depends on, on every node. With each
    /// come the nodes that have it, by their indices: those of one group may start at once, and the groups
    /// are in the order of the taskserv's roles, so that a controlplane comes before its workers.
    pub fn start_order(&self) -> Vec<(String, Vec<Vec<usize>>)> {
        // A node has what a taskserv depends on before it, so that this holds for all nodes together too.
        let mut names: Vec<&str> = Vec::new();
        for plan in self.nodes.iter().flat_map(|node| &node.taskservs) {
            if !names.contains(&plan.taskserv.name.as_str()) {
                names.push(&plan.taskserv.name);
            }
        }
        let step = |name: &str| {
            let mut groups: BTreeMap<Option<usize>, Vec<usize>> = BTreeMap::new();
            for (index, node) in self.nodes.iter().enumerate() {
                if let Some(plan) = node.taskservs.iter().find(|plan| plan.taskserv.name == name) {
                    let rank = plan.taskserv.roles.iter().position(|role| *role == plan.choices.role);
                    groups.entry(rank).or_default().push(index);
                }
            }
            (name.to_owned(), groups.into_values().collect())
        };
        names.into_iter().map(step).collect()
    }

    /// The variables of a taskserv's scripts on a node: those of a real server. Peers are the other nodes
    /// that have the taskserv, one a line, as `NAME ADDRESS ROLE`. A node whose address is not known is
    /// reached by its name.
    pub fn variables(
        &self,
        node: &NodePlan,
        plan: &TaskservPlan,
        address_by_node: &BTreeMap<String, Ipv4Addr>,
        with_peers: bool,
    ) -> BTreeMap<String, String> {
        let parameters = plan.choices.parameters.iter();
        let mut variables: BTreeMap<String, String> = parameters
            .map(|(name, value)| (format!("TASKSERV_PARAM_{}", name.to_uppercase()), value.clone()))
            .collect();
        variables.insert("TASKSERV_NAME".into(), plan.taskserv.name.clone());
        variables.insert("TASKSERV_INFRA".into(), self.infra.clone());
        variables.insert("TASKSERV_SERVER".into(), node.config.name.clone());
        let address_of =
            |name: &String| address_by_node.get(name).map_or_else(|| name.clone(), Ipv4Addr::to_string);
        variables.insert("TASKSERV_ADDRESS".into(), address_of(&node.config.name));
        variables.insert("TASKSERV_ROLE".into(), plan.choices.role.clone());
        if with_peers {
            let peer = |other: &NodePlan| {
                let its = other.taskservs.iter().find(|its| its.taskserv.name == plan.taskserv.name)?;
                let name = &other.config.name;
                Some(format!("{name} {} {}", address_of(name), its.choices.role).trim_end().to_owned())
            };
            let others = self.nodes.iter().filter(|other| other.config.name != node.config.name);
            let peers: Vec<String> = others.filter_map(peer).collect();
            variables.insert("TASKSERV_PEERS".into(), peers.join("\n"));
        }
        variables
    }
}
