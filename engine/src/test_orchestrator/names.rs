//! Labels and names of what is made: the same for each attempt, and for each engine of the same data.

use orchestrator_protocol::environment::{Environment, EnvironmentId};

use super::Options;
use crate::containers::Labels;

/// The engine's name; for people.
pub(super) const ENGINE: &str = "orchestrator.engine";
/// Whose it is: the data that knows its environment.
pub(super) const OWNER: &str = "orchestrator.data";
/// The environment.
pub(super) const ENVIRONMENT: &str = "orchestrator.environment";
/// The node's name.
pub(super) const NODE: &str = "orchestrator.node";
/// What it is: one of the kinds below.
pub(super) const KIND: &str = "orchestrator.kind";
/// What a prepared image was made of.
pub(super) const DIGEST: &str = "orchestrator.digest";

/// A node's container.
pub(super) const KIND_NODE: &str = "node";
/// A network.
pub(super) const KIND_NETWORK: &str = "network";
/// A volume.
pub(super) const KIND_VOLUME: &str = "volume";
/// A container that becomes a prepared image.
pub(super) const KIND_SCRATCH: &str = "scratch";
/// An image with taskservs installed.
pub(super) const KIND_PREPARED: &str = "prepared";

/// By which all things of this engine's data are found.
pub(super) fn owned(options: &Options) -> Labels {
    Labels::from([(OWNER.into(), options.owner.clone())])
}

/// By which all things of an environment are found. Its record says whose they are, so that each engine that
/// knows the record finds them; before records did, they were this engine's.
pub(super) fn of_environment(options: &Options, environment: &Environment) -> Labels {
    let owner = environment.owner.as_ref().unwrap_or(&options.owner);
    Labels::from([(OWNER.into(), owner.clone()), (ENVIRONMENT.into(), environment.id.to_string())])
}

/// By which a thing that carries such labels is found again: an engine has another name in each of its lives.
pub(super) fn lasting(labels: &Labels) -> Labels {
    labels
        .iter()
        .filter(|(name, _)| *name != ENGINE)
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// What a thing of an environment carries.
pub(super) fn labels(options: &Options, environment: &Environment, kind: &str) -> Labels {
    let mut labels = of_environment(options, environment);
    labels.insert(ENGINE.into(), options.engine.clone());
    labels.insert(KIND.into(), kind.into());
    labels
}

/// What a node's container carries.
pub(super) fn node_labels(options: &Options, environment: &Environment, node: &str) -> Labels {
    let mut labels = labels(options, environment, KIND_NODE);
    labels.insert(NODE.into(), node.into());
    labels
}

/// What a prepared image carries, and with another kind the container that becomes one.
pub(super) fn prepared_labels(options: &Options, digest: &str, kind: &str) -> Labels {
    let mut labels = owned(options);
    labels.insert(ENGINE.into(), options.engine.clone());
    labels.insert(KIND.into(), kind.into());
    labels.insert(DIGEST.into(), digest.into());
    labels
}

/// Whether a container is one that an engine has made: its name is the one that its labels lead to. Whoever
/// starts a container from an image of ours gets the image's labels, but not that name.
pub(super) fn is_ours(name: &str, labels: &Labels) -> bool {
    let label = |key: &str| labels.get(key).map(String::as_str).unwrap_or_default();
    match label(KIND) {
        KIND_NODE => name == format!("orchestrator-{}-{}", label(ENVIRONMENT), label(NODE)),
        KIND_SCRATCH => name == format!("orchestrator-scratch-{}-{}", label(OWNER), label(DIGEST)),
        _ => false,
    }
}

/// Whether this name of an image is the one that its labels lead to. Podman puts a registry before it.
pub(super) fn is_prepared(name: &str, labels: &Labels) -> bool {
    let prepared = labels.get(DIGEST).map(|digest| prepared_image(digest));
    prepared.as_deref() == name.rsplit('/').next()
}

/// The name of an environment's network.
pub(super) fn network(id: EnvironmentId) -> String {
    format!("orchestrator-{id}")
}

/// The name of a node's container.
pub(super) fn container(id: EnvironmentId, node: &str) -> String {
    format!("orchestrator-{id}-{node}")
}

/// The name of a volume.
pub(super) fn volume(id: EnvironmentId, volume: &str) -> String {
    format!("orchestrator-{id}-{volume}")
}

/// The name of a prepared image: the same for all engines on a daemon, so that one uses what another has
/// made.
pub(super) fn prepared_image(digest: &str) -> String {
    format!("orchestrator-prepared:{digest}")
}

/// The name of the container that becomes a prepared image. Each engine makes its own.
pub(super) fn scratch(options: &Options, digest: &str) -> String {
    format!("orchestrator-scratch-{}-{digest}", options.owner)
}
