//! What can be said about nodes and their network without knowing the taskservs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::path::{Component, Path};

use orchestrator_protocol::environment::{NetworkConfig, NodeConfig, NodeResources, Topology, VolumeConfig};
use orchestrator_protocol::{Error, name};

use super::subnet::Subnet;

/// The most nodes that an environment may have.
const MAX_NODES: usize = 50;

/// The resources of a node, and how much of each it may be given: what the provisioning program takes for
/// a server of Docker.
pub(crate) type Bound = (&'static str, fn(&NodeResources) -> Option<u64>, RangeInclusive<u64>);
pub(crate) const BOUNDS: [Bound; 4] = [
    ("cpu_millicores", |it| it.cpu_millicores, 10..=1_024_000),
    ("memory_mb", |it| it.memory_mb, 6..=16_777_216),
    ("disk_mb", |it| it.disk_mb, 16..=1_073_741_824),
    ("max_processes", |it| it.max_processes, 1..=4_194_304),
];

/// Checks nodes and their network. The `field` of an error is `prefix` and the path from there, such as
/// `config.topology.nodes[1].address` with the prefix `config.topology.`.
pub(crate) fn check(topology: &Topology, prefix: &str) -> Result<(), Error> {
    let nodes = &topology.nodes;
    if nodes.is_empty() {
        return Err(refuse(format!("{prefix}nodes"), "there are no nodes: name at least one"));
    }
    if nodes.len() > MAX_NODES {
        let message = format!("there are {} nodes: an environment has at most {MAX_NODES}", nodes.len());
        return Err(refuse(format!("{prefix}nodes"), message));
    }
    let mut names = BTreeSet::new();
    for (index, node) in nodes.iter().enumerate() {
        let field = format!("{prefix}nodes[{index}]");
        name::dns_label("node name", &node.name)
            .map_err(|invalid| Error::from(invalid).with_field(format!("{field}.name")))?;
        if !names.insert(&node.name) {
            return Err(refuse(format!("{field}.name"), format!("there are two nodes '{}'", node.name)));
        }
        check_node(node, &field)?;
    }
    check_network(&topology.network, nodes, prefix)
}

/// Checks what a node says by itself, but for its name.
pub(crate) fn check_node(node: &NodeConfig, field: &str) -> Result<(), Error> {
    if let Some(image) = &node.base_image
        && !is_image(image)
    {
        return Err(refuse(format!("{field}.base_image"), format!("'{image}' is not the name of an image")));
    }
    for (variable, value) in &node.environment {
        let field = format!("{field}.environment.{variable}");
        name::environment_variable(variable).map_err(|invalid| Error::from(invalid).with_field(&field))?;
        if value.contains('\0') {
            return Err(refuse(field, format!("the value of {variable} holds a NUL")));
        }
    }
    for (what, get, bounds) in &BOUNDS {
        if let Some(value) = get(&node.resources).filter(|value| !bounds.contains(value)) {
            let (min, max) = (bounds.start(), bounds.end());
            let message = format!("{what} must be a whole number from {min} to {max}, not {value}");
            return Err(refuse(format!("{field}.resources.{what}"), message));
        }
    }
    let mut targets = BTreeSet::new();
    for (index, volume) in node.volumes.iter().enumerate() {
        check_volume(volume, &format!("{field}.volumes[{index}]"))?;
        if !targets.insert(volume.path.trim_end_matches('/')) {
            let message = format!("two volumes of node '{}' are mounted at {}", node.name, volume.path);
            return Err(refuse(format!("{field}.volumes[{index}].path"), message));
        }
    }
    Ok(())
}

fn check_volume(volume: &VolumeConfig, field: &str) -> Result<(), Error> {
    name::dns_label("volume name", &volume.name)
        .map_err(|invalid| Error::from(invalid).with_field(format!("{field}.name")))?;
    let path = Path::new(&volume.path);
    let is_plain = path.components().skip(1).all(|part| matches!(part, Component::Normal(_)));
    let is_below_root = volume.path.starts_with('/') && path.components().count() > 1;
    // `Path` forgets `.` between slashes, which Docker does not take.
    let has_dot = volume.path.split('/').any(|part| part == ".");
    if !is_below_root || !is_plain || has_dot || volume.path.contains(char::is_control) {
        let message = format!(
            "'{}' must be an absolute path below /, without '.' and '..', such as /var/lib/data",
            volume.path
        );
        return Err(refuse(format!("{field}.path"), message));
    }
    Ok(())
}

fn check_network(network: &NetworkConfig, nodes: &[NodeConfig], prefix: &str) -> Result<(), Error> {
    let subnet_field = format!("{prefix}network.subnet");
    let subnet = network.subnet.as_deref().map(Subnet::parse).transpose();
    let subnet = subnet.map_err(|problem| refuse(subnet_field.clone(), problem))?;
    if let Some(subnet) = subnet
        && (subnet.room() as usize) < nodes.len()
    {
        let message =
            format!("the network {subnet} has room for {} nodes, not for {}", subnet.room(), nodes.len());
        return Err(refuse(subnet_field, message));
    }
    let mut taken: BTreeMap<Ipv4Addr, &str> = BTreeMap::new();
    for (index, node) in nodes.iter().enumerate() {
        let Some(address) = node.address else { continue };
        let objection = match subnet {
            None => Some(format!("node '{}' has an address, so the network needs a `subnet`", node.name)),
            Some(subnet) => subnet.objection(address),
        };
        let objection = objection.or_else(|| {
            let other = taken.insert(address, &node.name)?;
            Some(format!("the nodes '{other}' and '{}' have the same address {address}", node.name))
        });
        if let Some(objection) = objection {
            return Err(refuse(format!("{prefix}nodes[{index}].address"), objection));
        }
    }
    Ok(())
}

fn is_image(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "._/:@-".contains(c))
}

/// A request that means nothing, and the part of it.
pub(super) fn refuse(field: impl Into<String>, message: impl Into<String>) -> Error {
    Error::invalid(message).with_field(field)
}
