//! From a request to a blueprint: every check, each with the part of the request that it is about.

use std::collections::BTreeMap;
use std::path::Path;

use orchestrator_protocol::environment::{
    EnvironmentConfig, EnvironmentRequest, NetworkConfig, NodeConfig, NodeResources,
};
use orchestrator_protocol::{Error, name};
use serde_json::Value;

use super::run::check_run;
use super::topology::{self, refuse};
use super::{Blueprint, Defaults, NodePlan, TaskservPlan};
use crate::taskservs::{Library, Shelf, Taskserv, listed};

/// The infra of requests that name none.
const DEFAULT_INFRA: &str = "test";

/// The longest that an environment may live, in milliseconds: a year.
const MAX_EXPIRY_MS: u64 = 365 * 24 * 60 * 60 * 1000;

impl Blueprint {
    /// What a request asks for, with everything filled in.
    ///
    /// # Errors
    /// Something in it means nothing; the error's `field` says what.
    pub fn plan(request: &EnvironmentRequest, library: &Library, defaults: &Defaults) -> Result<Self, Error> {
        let infra = request.infra.clone().unwrap_or_else(|| DEFAULT_INFRA.to_owned());
        name::dns_label("infra", &infra).map_err(|invalid| Error::from(invalid).with_field("infra"))?;
        if let Some(cwd) = request.cwd.as_deref().filter(|cwd| !Path::new(cwd).is_absolute()) {
            return Err(refuse("cwd", format!("'{cwd}' must be an absolute path")));
        }
        if let Some(expiry) = request.expires_after_ms.filter(|expiry| !(1..=MAX_EXPIRY_MS).contains(expiry))
        {
            let message =
                format!("expires_after_ms must be a whole number from 1 to {MAX_EXPIRY_MS}, not {expiry}");
            return Err(refuse("expires_after_ms", message));
        }
        let (name, network, asked) = asked_for(&request.config)?;
        let mut shelf = Shelf::new(library);
        let nodes = asked
            .into_iter()
            .map(|asked| plan_node(asked, &mut shelf, defaults))
            .collect::<Result<Vec<_>, _>>()?;
        let names: Vec<&str> = nodes.iter().map(|node| node.config.name.as_str()).collect();
        check_run(&request.run, &names, request.cwd.as_deref(), "run.")?;
        Ok(Self { name, infra, network, nodes })
    }
}

/// A node as it was asked for.
struct Asked {
    config: NodeConfig,
    /// Where in the request it is.
    field: String,
    /// Where in the request its taskservs are: each at an index, or the one taskserv there is.
    taskservs: Taskservs,
}

enum Taskservs {
    One,
    Many,
}

impl Asked {
    fn taskserv_field(&self, index: usize) -> String {
        match self.taskservs {
            Taskservs::One => format!("{}.taskserv", self.field),
            Taskservs::Many => format!("{}.taskservs[{index}]", self.field),
        }
    }
}

/// The name, the network and the nodes of a request, as far as they can be checked without the taskservs.
fn asked_for(config: &EnvironmentConfig) -> Result<(String, NetworkConfig, Vec<Asked>), Error> {
    match config {
        EnvironmentConfig::SingleTaskserv {
            taskserv,
            base_image,
            environment,
            resources,
            taskserv_options,
        } => {
            name::dns_label("taskserv", taskserv)
                .map_err(|invalid| Error::from(invalid).with_field("config.taskserv"))?;
            let node = node(taskserv, base_image, environment, *resources, taskserv_options);
            let node = NodeConfig { taskservs: vec![taskserv.clone()], ..node };
            alone(node, Taskservs::One)
        }
        EnvironmentConfig::ServerSimulation {
            server_name,
            taskservs,
            base_image,
            environment,
            resources,
            taskserv_options,
        } => {
            name::dns_label("server name", server_name)
                .map_err(|invalid| Error::from(invalid).with_field("config.server_name"))?;
            let node = node(server_name, base_image, environment, *resources, taskserv_options);
            let node = NodeConfig { taskservs: taskservs.clone(), ..node };
            alone(node, Taskservs::Many)
        }
        EnvironmentConfig::ClusterTopology { cluster_type, topology } => {
            name::word("cluster type", cluster_type)
                .map_err(|invalid| Error::from(invalid).with_field("config.cluster_type"))?;
            topology::check(topology, "config.topology.")?;
            let asked = topology.nodes.iter().enumerate().map(|(index, config)| Asked {
                config: config.clone(),
                field: format!("config.topology.nodes[{index}]"),
                taskservs: Taskservs::Many,
            });
            Ok((cluster_type.clone(), topology.network.clone(), asked.collect()))
        }
    }
}

fn node(
    name: &str,
    base_image: &Option<String>,
    environment: &BTreeMap<String, String>,
    resources: NodeResources,
    taskserv_options: &BTreeMap<String, BTreeMap<String, Value>>,
) -> NodeConfig {
    NodeConfig {
        name: name.to_owned(),
        base_image: base_image.clone(),
        environment: environment.clone(),
        resources,
        taskserv_options: taskserv_options.clone(),
        ..NodeConfig::default()
    }
}

fn alone(config: NodeConfig, taskservs: Taskservs) -> Result<(String, NetworkConfig, Vec<Asked>), Error> {
    let field = "config".to_owned();
    topology::check_node(&config, &field)?;
    Ok((config.name.clone(), NetworkConfig::default(), vec![Asked { config, field, taskservs }]))
}

fn plan_node(asked: Asked, shelf: &mut Shelf<'_>, defaults: &Defaults) -> Result<NodePlan, Error> {
    let mut brought = Vec::new();
    for (index, name) in asked.config.taskservs.iter().enumerate() {
        shelf.add(name, &mut brought).map_err(|error| error.with_field(asked.taskserv_field(index)))?;
    }
    let Asked { mut config, field, .. } = asked;
    if let Some(stray) =
        config.taskserv_options.keys().find(|name| !brought.iter().any(|it| it.name == **name))
    {
        let known = listed(brought.iter().map(|taskserv| &taskserv.name));
        let message = format!("taskserv '{stray}' is not on node '{}': it has {known}", config.name);
        return Err(refuse(format!("{field}.taskserv_options.{stray}"), message));
    }
    let taskservs = brought
        .into_iter()
        .map(|taskserv| {
            check_memory(&config, &taskserv, &field)?;
            let options = config.taskserv_options.get(&taskserv.name).cloned().unwrap_or_default();
            let choices =
                taskserv.choose(&config.name, &options, config.role.as_deref()).map_err(|error| {
                    let parameter = error.field.clone().unwrap_or_default();
                    error.with_field(format!("{field}.taskserv_options.{}.{parameter}", taskserv.name))
                })?;
            Ok(TaskservPlan { taskserv, choices })
        })
        .collect::<Result<Vec<_>, Error>>()?;
    check_role(&config, &taskservs, &field)?;
    config.base_image.get_or_insert_with(|| defaults.base_image.clone());
    config.taskservs = taskservs.iter().map(|plan| plan.taskserv.name.clone()).collect();
    Ok(NodePlan { config, taskservs })
}

fn check_memory(config: &NodeConfig, taskserv: &Taskserv, field: &str) -> Result<(), Error> {
    match (config.resources.memory_mb, taskserv.needs.memory_mb) {
        (Some(given), Some(needed)) if given < needed => {
            let (name, node) = (&taskserv.name, &config.name);
            let message = format!(
                "taskserv '{name}' needs {needed} MiB of memory, and node '{node}' is limited to {given}"
            );
            Err(refuse(format!("{field}.resources.memory_mb"), message))
        }
        _ => Ok(()),
    }
}

/// A role must mean something to one of the node's taskservs.
fn check_role(config: &NodeConfig, taskservs: &[TaskservPlan], field: &str) -> Result<(), Error> {
    let Some(role) = &config.role else { return Ok(()) };
    let with_roles =
        || taskservs.iter().map(|plan| &plan.taskserv).filter(|taskserv| !taskserv.roles.is_empty());
    if with_roles().any(|taskserv| taskserv.roles.contains(role)) {
        return Ok(());
    }
    let known = with_roles().map(|taskserv| format!("'{}' knows {}", taskserv.name, listed(&taskserv.roles)));
    let known = known.collect::<Vec<_>>().join(", ");
    let reason = if known.is_empty() { "none of them has roles".to_owned() } else { known };
    let message = format!("no taskserv on node '{}' knows the role '{role}': {reason}", config.name);
    Err(refuse(format!("{field}.role"), message))
}
