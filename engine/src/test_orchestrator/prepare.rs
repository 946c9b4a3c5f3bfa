//! Images with taskservs installed, kept by what they were made of.
//!
//! Made in a container of its own, once in this process when several environments want the same. An image
//! that is in use is never removed; what is kept beyond the bound goes, oldest first. Other engines on the
//! daemon use them too, but each removes its own, so that an image can be gone when it is to be used.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use chrono::Utc;
use futures::StreamExt;
use futures::future::try_join_all;
use orchestrator_protocol::Error;
use orchestrator_protocol::environment::{Environment, Pruned};
use sha2::{Digest, Sha256};

use super::create::IDLE;
use super::services::{Scene, Script};
use super::step::{BASE, STEP_SH};
use super::{Context, Failure, Place, TestOrchestrator, names};
use crate::containers::{self, ContainerError, ContainerSpec, ExecSpec, Labels, NetworkSpec, Output};
use crate::queue::submit::hex;
use crate::test_environment::{Blueprint, NodePlan};

/// Another engine's images are removed when they are older, in seconds, and only on request: by then it has
/// most likely gone.
const ABANDONED_SEC: i64 = 7 * 24 * 60 * 60;

/// The image that a node is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Image {
    pub id: String,
    pub prepared: bool,
    pub digest: String,
}

/// What is known in this process of images that are made or about to be used.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    making: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    /// The digests of images that a creation has chosen and no container uses yet.
    pinned: Mutex<Vec<String>>,
}

/// Keeps the images of one creation from being removed until its containers use them.
pub(super) struct Pins<'a> {
    prepared: &'a Prepared,
    digests: Vec<String>,
}

impl Drop for Pins<'_> {
    fn drop(&mut self) {
        let mut pinned = self.prepared.pinned.lock().unwrap_or_else(PoisonError::into_inner);
        for digest in &self.digests {
            if let Some(at) = pinned.iter().position(|pinned| pinned == digest) {
                pinned.swap_remove(at);
            }
        }
    }
}

impl Prepared {
    fn pin(&self, digests: Vec<String>) -> Pins<'_> {
        self.pinned.lock().unwrap_or_else(PoisonError::into_inner).extend(digests.iter().cloned());
        Pins { prepared: self, digests }
    }

    fn is_pinned(&self, labels: &Labels) -> bool {
        let pinned = self.pinned.lock().unwrap_or_else(PoisonError::into_inner);
        labels.get(names::DIGEST).is_some_and(|digest| pinned.contains(digest))
    }

    fn turn(&self, digest: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that nobody waits for are forgotten.
        making.retain(|_, lock| Arc::strong_count(lock) > 1);
        making.entry(digest.to_owned()).or_default().clone()
    }

    /// Whether a container that becomes the image of this digest is being worked on.
    pub(super) fn is_made(&self, digest: &str) -> bool {
        let making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        making.get(digest).is_some_and(|lock| Arc::strong_count(lock) > 1)
    }
}

impl TestOrchestrator {
    /// The image of each node, in their order, and what keeps them there until they are used.
    pub(super) async fn images(
        &self,
        environment: &Environment,
        blueprint: &Blueprint,
        bases: &BTreeMap<String, String>,
        context: &Context,
    ) -> Result<(Vec<Image>, Pins<'_>), Failure> {
        let is_wanted = |node: &NodePlan| environment.request.use_prepared && !node.taskservs.is_empty();
        let architecture =
            if blueprint.nodes.iter().any(is_wanted) { self.architecture().await? } else { "" };
        let images = blueprint.nodes.iter().map(|node| {
            let base = &bases[self.base_of(node)];
            let image = Image { id: base.clone(), prepared: false, digest: String::new() };
            if !is_wanted(node) {
                return image;
            }
            let mut digest = Sha256::new();
            digest.update(node.prepared_digest(base, architecture));
            // It is in the image, and an image must not hold another one than the engine.
            digest.update(STEP_SH);
            Image { digest: hex(&digest.finalize()), ..image }
        });
        let images: Vec<Image> = images.collect();
        let mut node_by_digest = BTreeMap::new();
        for (image, node) in images.iter().zip(&blueprint.nodes).filter(|(image, _)| !image.digest.is_empty())
        {
            node_by_digest.entry(image.digest.clone()).or_insert((node, image.id.clone()));
        }
        let pins = self.prepared.pin(node_by_digest.keys().cloned().collect());
        let prepared = try_join_all(node_by_digest.into_iter().map(|(digest, (node, base))| async move {
            let id = self.prepared(environment, blueprint, node, &base, &digest, context).await?;
            Ok::<_, Failure>((digest, id))
        }));
        let id_by_digest: BTreeMap<String, String> = prepared.await?.into_iter().collect();
        let filled = images.into_iter().map(|image| match id_by_digest.get(&image.digest) {
            Some(id) => Image { id: id.clone(), prepared: true, ..image },
            None => image,
        });
        Ok((filled.collect(), pins))
    }

    /// Whether one of these prepared images is no longer there.
    pub(super) async fn lacks_one_of(&self, images: &[Image]) -> Result<bool, Failure> {
        for image in images.iter().filter(|image| image.prepared) {
            if self.docker.image(&image.id).await?.is_none() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn architecture(&self) -> Result<&str, Failure> {
        let ask = || async { Ok::<_, ContainerError>(self.docker.daemon().await?.architecture) };
        Ok(self.architecture.get_or_try_init(ask).await?)
    }

    /// The image with a node's taskservs: the one that there is, or a new one.
    async fn prepared(
        &self,
        environment: &Environment,
        blueprint: &Blueprint,
        node: &NodePlan,
        base: &str,
        digest: &str,
        context: &Context,
    ) -> Result<String, Failure> {
        let name = names::prepared_image(digest);
        let turn = self.prepared.turn(digest);
        let _turn = tokio::select! {
            turn = turn.lock() => turn,
            () = context.cancel.cancelled() => return Err(Failure::cancelled()),
        };
        if let Some(image) = self.docker.image(&name).await? {
            return Ok(image.id);
        }
        (context.log)(&format!("preparing an image with {}", node.config.taskservs.join(", ")));
        let container = self.scratch(node, base, digest).await?;
        let place = Place {
            environment: environment.id,
            node: node.config.name.clone(),
            container: container.clone(),
            memory_mb: None,
        };
        let scene = Scene { blueprint, address_by_node: &BTreeMap::new() };
        for plan in &node.taskservs {
            let order = scene.order(node, plan, Script::Install, "");
            self.serve(&place, &order, context).await?;
        }
        // Another engine may have been quicker. Its image keeps the name then, and this one is not needed.
        let id = match self.docker.image(&name).await? {
            Some(image) => image.id,
            None => {
                self.settle(&container).await?;
                let labels = names::prepared_labels(&self.options, digest, names::KIND_PREPARED);
                self.docker.commit(&container, &name, &labels).await?
            }
        };
        crate::fault::point("environment-prepared");
        self.docker.remove_container(&container).await?;
        self.docker.remove_network(&names::scratch(&self.options, digest)).await?;
        Ok(id)
    }

    /// A container that becomes an image: a new one, or what an attempt before this has left. It has a
    /// network of its own, which leads outside, whether the environment's does or not.
    async fn scratch(&self, node: &NodePlan, base: &str, digest: &str) -> Result<String, Failure> {
        let network = NetworkSpec {
            name: names::scratch(&self.options, digest),
            subnet: None,
            internal: false,
            labels: names::prepared_labels(&self.options, digest, names::KIND_SCRATCH),
        };
        match self.docker.create_network(&network).await {
            // Nobody else has this owner in a name.
            Ok(_) | Err(ContainerError::Exists { .. }) => {}
            Err(problem) => return Err(problem.into()),
        }
        let spec = ContainerSpec {
            name: network.name.clone(),
            image: base.to_owned(),
            hostname: node.config.name.clone(),
            // Installing starts nothing, and the base image need not have systemd yet.
            command: IDLE.map(String::from).to_vec(),
            env: node.config.environment.clone(),
            labels: network.labels,
            network: network.name,
            privileged: node.privileged(),
            capabilities: node.capabilities().into_iter().map(String::from).collect(),
            ..ContainerSpec::default()
        };
        let container = match self.docker.create_container(&spec).await {
            Ok(container) => container,
            Err(exists @ ContainerError::Exists { .. }) => {
                let there = self.docker.containers(&names::lasting(&spec.labels)).await?;
                there.into_iter().find(|there| there.name == spec.name).ok_or(exists)?.id
            }
            Err(problem) => return Err(problem.into()),
        };
        self.docker.start(&container).await?;
        self.equip(&container, node).await?;
        Ok(container)
    }

    async fn settle(&self, container: &str) -> Result<(), Failure> {
        let command = ["sh", &format!("{BASE}/step.sh"), "settle"].map(String::from).to_vec();
        let spec = ExecSpec { command, user: Some("0".into()), ..ExecSpec::default() };
        let mut output = self.docker.exec(container, &spec).await?;
        let mut printed = Vec::new();
        while let Some(item) = output.next().await {
            match item? {
                Output::Bytes(_, bytes) => printed.extend(bytes),
                Output::Exit(0) => return Ok(()),
                Output::Exit(code) => {
                    let printed = String::from_utf8_lossy(&printed).trim().to_owned();
                    let message = format!("the image could not be cleaned (exit status {code}): {printed}");
                    return Err(Failure::passing(message));
                }
            }
        }
        Err(Failure::passing("the image could not be cleaned: its container has ended"))
    }

    /// Removes prepared images that nothing uses: all of them on request, and otherwise what is beyond the
    /// bound, oldest first.
    pub async fn prune(&self, all: bool) -> Result<Pruned, Error> {
        self.prune_images(all).await.map_err(|problem| Failure::from(problem).error)
    }

    async fn prune_images(&self, all: bool) -> containers::Result<Pruned> {
        let kind = Labels::from([(names::KIND.into(), names::KIND_PREPARED.into())]);
        let mut images = self.docker.images(&kind).await?;
        images.sort_by_key(|image| image.created_at_sec);
        let now = Utc::now().timestamp();
        // Whoever makes an image from one of ours gets its labels too. One that has lost its name to another of
        // the same digest has none.
        images.retain(|image| {
            image.names.is_empty() || image.names.iter().any(|name| names::is_prepared(name, &image.labels))
        });
        let is_own = |labels: &Labels| labels.get(names::OWNER) == Some(&self.options.owner);
        images.retain(|image| is_own(&image.labels) || (all && image.created_at_sec < now - ABANDONED_SEC));
        let mut total: u64 = images.iter().map(|image| image.size_bytes).sum();
        let mut pruned = Pruned::default();
        if images.is_empty() || !all && total <= self.options.prepared_max_bytes {
            return Ok(pruned);
        }
        let used: BTreeSet<String> = self
            .docker
            .containers(&Labels::new())
            .await?
            .into_iter()
            .map(|container| container.image)
            .collect();
        for image in images {
            if !all && total <= self.options.prepared_max_bytes {
                break;
            }
            if used.contains(&image.id) || self.prepared.is_pinned(&image.labels) {
                continue;
            }
            match self.docker.remove_image(&image.id).await {
                Ok(()) => {}
                // A container may have come into being in between.
                Err(ContainerError::Refused { .. }) => continue,
                Err(problem) => return Err(problem),
            }
            total = total.saturating_sub(image.size_bytes);
            pruned.bytes += image.size_bytes;
            pruned.images.push(image.names.first().cloned().unwrap_or(image.id));
        }
        Ok(pruned)
    }
}
