//! From nothing to nodes that are ready.
//!
//! Each object is made under a name that follows from the environment, so that an attempt that finds it
//! there takes it over. What is done on a node is in the record, script by script; what a script does when
//! the engine dies goes on without it.

use std::collections::{BTreeMap, BTreeSet};

use chrono::Utc;
use futures::future::{join_all, try_join_all};
use orchestrator_protocol::Error;
use orchestrator_protocol::environment::{
    DiskPolicy, Environment, EnvironmentId, EnvironmentStatus, NetworkInfo, Node,
};
use serde_json::{Value, json};

use super::prepare::Image;
use super::services::{Scene, Script, starting};
use super::watch::Watch;
use super::{
    Context, Count, Failure, Place, TestOrchestrator, address_by_node, addresses, names, places,
    state_in_words,
};
use crate::containers::{ContainerError, ContainerSpec, ContainerState, Labels, Mount, NetworkSpec};
use crate::test_environment::{Blueprint, NodePlan, TaskservPlan};

/// How many free ranges are tried: another program may take one between a look and its use.
const RANGES: usize = 16;

/// How often a prepared image is looked for: other engines on the daemon remove theirs when they like.
const LOOKS: usize = 4;

/// The capability that cutting connections needs. It holds for the node's own network alone.
const NET_ADMIN: &str = "NET_ADMIN";

/// What a container runs that only has to be there. `step.sh` knows it by these words.
pub(super) const IDLE: [&str; 2] = ["sleep", "infinity"];

impl TestOrchestrator {
    /// Makes an environment: its network, its nodes, the taskservs on them. One that is ready stays as it
    /// is; one that could not be made is made on from where it is.
    ///
    /// # Errors
    /// Where it cannot be made. The record is then in `error`, and what there is stays for a look.
    pub async fn create(&self, id: EnvironmentId, context: &Context) -> Result<Value, Failure> {
        let environment = self.environment(id).await?;
        use EnvironmentStatus::{Failed, Passed, Ready, RunningTests};
        if matches!(environment.status, Ready | RunningTests | Passed | Failed) {
            return Ok(report(&environment));
        }
        self.turn(id, EnvironmentStatus::Creating, &|environment| environment.error = None).await?;
        let made = self.make(id, context).await;
        if let Err(failure) = &made {
            self.note_failure(id, failure).await;
        }
        made
    }

    async fn make(&self, id: EnvironmentId, context: &Context) -> Result<Value, Failure> {
        let environment = self.environment(id).await?;
        let blueprint = self.blueprint(&environment)?;
        let count = Count::new(context, total(&blueprint));
        let bases = self.bases(&environment, &blueprint, context).await?;
        context.go_on()?;
        let network = self.network(&environment, &blueprint).await?;
        (context.log)(&format!("network {} ({})", network.name, network.subnet));
        count.done("the network is there");
        let environment = self.nodes(&environment, &blueprint, &network, &bases, context).await?;
        for node in &environment.nodes {
            let address = node.address.map(|address| address.to_string()).unwrap_or_default();
            let image = if node.prepared { "a prepared image" } else { "its base image" };
            (context.log)(&format!("node {} runs at {address}, from {image}", node.config.name));
        }
        count.done("the nodes run");
        let watch = Watch::new(self, &environment);
        watch.over(self.bring_up(&environment, &blueprint, context, &count)).await?;
        let ready = self
            .turn(id, EnvironmentStatus::Ready, &|environment| {
                environment.ready_at.get_or_insert_with(Utc::now);
            })
            .await?;
        Ok(report(&ready))
    }

    /// The identifiers of the images that nodes are made from, by their names.
    async fn bases(
        &self,
        environment: &Environment,
        blueprint: &Blueprint,
        context: &Context,
    ) -> Result<BTreeMap<String, String>, Failure> {
        let names: BTreeSet<&str> = blueprint.nodes.iter().map(|node| self.base_of(node)).collect();
        let mut id_by_name = BTreeMap::new();
        for name in names {
            let mut found = self.docker.image(name).await?;
            if found.is_none() && environment.request.pull {
                (context.log)(&format!("fetching the image '{name}'"));
                let log = context.log.clone();
                let progress = move |line: String| log(&line);
                tokio::select! {
                    pulled = self.docker.pull(name, &progress) => pulled?,
                    () = context.cancel.cancelled() => return Err(Failure::cancelled()),
                }
                found = self.docker.image(name).await?;
            }
            let found = found.ok_or_else(|| {
                let help =
                    format!("`docker pull {name}` fetches it, or ask with `pull` for it to be fetched");
                Failure::permanent(
                    Error::not_found(format!("there is no image '{name}' on this machine: {help}"))
                        .with_help(help),
                )
            })?;
            id_by_name.insert(name.to_owned(), found.id);
        }
        Ok(id_by_name)
    }

    pub(super) fn base_of<'a>(&'a self, node: &'a NodePlan) -> &'a str {
        node.config.base_image.as_deref().unwrap_or(&self.options.base_image)
    }

    async fn network(
        &self,
        environment: &Environment,
        blueprint: &Blueprint,
    ) -> Result<NetworkInfo, Failure> {
        let labels = names::labels(&self.options, environment, names::KIND_NETWORK);
        if environment.network.is_some() {
            let there = self.docker.networks(&names::lasting(&labels)).await?;
            if let Some(info) = there.into_iter().find_map(info) {
                return Ok(info);
            }
        }
        let info = match &blueprint.network.subnet {
            Some(subnet) => self.make_network(environment, blueprint, subnet).await?,
            None => self.make_network_anywhere(environment, blueprint).await?,
        };
        let made = info.clone();
        self.record(environment.id, EnvironmentStatus::Creating, &move |environment| {
            environment.network = Some(made.clone());
        })
        .await?;
        Ok(info)
    }

    async fn make_network_anywhere(
        &self,
        environment: &Environment,
        blueprint: &Blueprint,
    ) -> Result<NetworkInfo, Failure> {
        let others = self.docker.networks(&Labels::new()).await?;
        let mut taken: Vec<_> =
            others.iter().filter_map(|network| addresses::range(network.subnet.as_deref()?)).collect();
        taken.extend(addresses::routes(&std::fs::read_to_string("/proc/net/route").unwrap_or_default()));
        let mut last = Failure::passing("all ranges of addresses for test environments are taken");
        for subnet in addresses::free_ranges(environment.id.0, &taken).take(RANGES) {
            match self.make_network(environment, blueprint, &subnet).await {
                Err(failure) if failure.error.code == orchestrator_protocol::ErrorCode::Conflict => {
                    last = Failure { permanent: false, ..failure };
                }
                other => return other,
            }
        }
        Err(last)
    }

    async fn make_network(
        &self,
        environment: &Environment,
        blueprint: &Blueprint,
        subnet: &str,
    ) -> Result<NetworkInfo, Failure> {
        let labels = names::labels(&self.options, environment, names::KIND_NETWORK);
        let spec = NetworkSpec {
            name: names::network(environment.id),
            subnet: Some(subnet.to_owned()),
            internal: blueprint.network.internal,
            labels: labels.clone(),
        };
        let network = match self.docker.create_network(&spec).await {
            Ok(network) => network,
            Err(exists @ ContainerError::Exists { .. }) => {
                // An attempt before this has made it, unless the name is somebody else's.
                let there = self.docker.networks(&names::lasting(&labels)).await?;
                there.into_iter().find(|network| network.name == spec.name).ok_or(exists)?
            }
            Err(problem) => return Err(problem.into()),
        };
        let name = network.name.clone();
        info(network).ok_or_else(|| {
            Failure::permanent(Error::internal(format!("the network '{name}' has no IPv4 addresses")))
        })
    }

    /// Makes the nodes from their images. An image that is taken away between the look and its use is
    /// looked for, or made, once more.
    async fn nodes(
        &self,
        environment: &Environment,
        blueprint: &Blueprint,
        network: &NetworkInfo,
        bases: &BTreeMap<String, String>,
        context: &Context,
    ) -> Result<Environment, Failure> {
        for _ in 1..LOOKS {
            let (images, _pins) = self.images(environment, blueprint, bases, context).await?;
            context.go_on()?;
            match self.nodes_from(environment, blueprint, network, &images).await {
                Err(failure) if !failure.permanent && self.lacks_one_of(&images).await? => {
                    (context.log)("a prepared image was removed by somebody else: looking for it again");
                }
                made => return made,
            }
        }
        let (images, _pins) = self.images(environment, blueprint, bases, context).await?;
        self.nodes_from(environment, blueprint, network, &images).await
    }

    /// Makes the nodes that are not there, starts those that do not run, and writes down what there is.
    async fn nodes_from(
        &self,
        environment: &Environment,
        blueprint: &Blueprint,
        network: &NetworkInfo,
        images: &[Image],
    ) -> Result<Environment, Failure> {
        let id = environment.id;
        let volumes: BTreeSet<&str> = blueprint
            .nodes
            .iter()
            .flat_map(|node| &node.config.volumes)
            .map(|volume| volume.name.as_str())
            .collect();
        for volume in volumes {
            let labels = names::labels(&self.options, environment, names::KIND_VOLUME);
            self.docker.create_volume(&names::volume(id, volume), &labels).await?;
        }
        let configs: Vec<_> = blueprint.nodes.iter().map(|node| &node.config).collect();
        let addresses = addresses::assign(&network.subnet, &configs).ok_or_else(|| {
            let message = format!("{} has too few addresses for {} nodes", network.subnet, configs.len());
            Failure::permanent(Error::invalid(message).with_field("config.topology.network.subnet"))
        })?;
        let made = blueprint.nodes.iter().zip(images).map(|(node, image)| {
            let before = environment.nodes.iter().find(|before| before.config.name == node.config.name);
            let spec = self.container_spec(
                environment,
                blueprint,
                node,
                image,
                network,
                addresses[&node.config.name],
            );
            self.node(node, image, spec, before)
        });
        // All of them, so that no call that makes something is left unanswered.
        let made: Vec<Node> = join_all(made).await.into_iter().collect::<Result<_, _>>()?;
        self.record(id, EnvironmentStatus::Creating, &move |environment| environment.nodes = made.clone())
            .await
    }

    fn container_spec(
        &self,
        environment: &Environment,
        blueprint: &Blueprint,
        node: &NodePlan,
        image: &Image,
        network: &NetworkInfo,
        address: std::net::Ipv4Addr,
    ) -> ContainerSpec {
        let id = environment.id;
        let config = &node.config;
        let is_watched = environment.request.disk_policy == DiskPolicy::Watch;
        let mount = |volume: &orchestrator_protocol::environment::VolumeConfig| Mount {
            volume: names::volume(id, &volume.name),
            path: volume.path.clone(),
            read_only: volume.read_only,
        };
        ContainerSpec {
            name: names::container(id, &config.name),
            image: image.id.clone(),
            hostname: config.name.clone(),
            command: command(node),
            env: config.environment.clone(),
            labels: names::node_labels(&self.options, environment, &config.name),
            network: network.name.clone(),
            aliases: vec![config.name.clone()],
            address: Some(address),
            hosts: BTreeMap::new(),
            mounts: config.volumes.iter().map(mount).collect(),
            cpu_millicores: config.resources.cpu_millicores,
            memory_mb: config.resources.memory_mb,
            disk_mb: config.resources.disk_mb.filter(|_| !is_watched),
            max_processes: config.resources.max_processes,
            privileged: node.privileged(),
            systemd: node.systemd(),
            capabilities: {
                let mut capabilities = node.capabilities();
                // Alone, a node has nobody to be cut off from.
                if blueprint.nodes.len() > 1 {
                    capabilities.insert(NET_ADMIN);
                }
                capabilities.into_iter().map(String::from).collect()
            },
        }
    }

    async fn node(
        &self,
        node: &NodePlan,
        image: &Image,
        spec: ContainerSpec,
        before: Option<&Node>,
    ) -> Result<Node, Failure> {
        let mut done: Vec<String> = Vec::new();
        let container = match self.docker.create_container(&spec).await {
            Ok(container) => container,
            Err(exists @ ContainerError::Exists { .. }) => {
                let there = self.docker.containers(&names::lasting(&spec.labels)).await?;
                let container = there.into_iter().find(|there| there.name == spec.name).ok_or(exists)?;
                let is_same = |before: &&Node| before.container.as_ref() == Some(&container.id);
                done.extend(before.filter(is_same).into_iter().flat_map(|before| before.done.clone()));
                if container.state != ContainerState::Running {
                    // What is installed stays; what ran does not.
                    done.retain(|label| {
                        node.taskservs.iter().any(|plan| *label == Script::Install.label(&plan.taskserv.name))
                    });
                }
                container.id
            }
            Err(problem) => return Err(problem.into()),
        };
        crate::fault::point("environment-container");
        self.docker.start(&container).await?;
        if image.prepared {
            let installs = node.taskservs.iter().map(|plan| Script::Install.label(&plan.taskserv.name));
            done.extend(installs.filter(|label| !done.contains(label)).collect::<Vec<_>>());
        } else if !node.taskservs.is_empty() && done.is_empty() {
            self.equip(&container, node).await?;
        }
        Ok(Node {
            config: node.config.clone(),
            container: Some(container),
            address: spec.address,
            image: Some(if image.prepared {
                names::prepared_image(&image.digest)
            } else {
                self.base_of(node).to_owned()
            }),
            prepared: image.prepared,
            done,
        })
    }

    /// Installs what is not installed, on all nodes at once, and then starts the taskservs in their order.
    async fn bring_up(
        &self,
        environment: &Environment,
        blueprint: &Blueprint,
        context: &Context,
        count: &Count<'_>,
    ) -> Result<(), Failure> {
        let addresses = address_by_node(environment);
        let scene = Scene { blueprint, address_by_node: &addresses };
        let places = places(environment);
        let work = Work { environment, context, count, scene };
        try_join_all(blueprint.nodes.iter().map(|node| async {
            let place = &places[&node.config.name];
            for plan in &node.taskservs {
                self.step_once(&work, place, node, plan, Script::Install).await?;
            }
            Ok::<_, Failure>(())
        }))
        .await?;
        self.are_up(environment, blueprint).await?;
        for (taskserv, groups) in blueprint.start_order() {
            for group in groups {
                try_join_all(group.into_iter().map(|index| {
                    let node = &blueprint.nodes[index];
                    let plan = node.taskservs.iter().find(|plan| plan.taskserv.name == taskserv);
                    self.start_on(&work, &places[&node.config.name], node, plan)
                }))
                .await?;
            }
        }
        Ok(())
    }

    /// Sees to it that nodes without taskservs stay up: no script that runs on them would notice.
    async fn are_up(&self, environment: &Environment, blueprint: &Blueprint) -> Result<(), Failure> {
        let silent: Vec<&str> = blueprint
            .nodes
            .iter()
            .filter(|node| node.taskservs.is_empty())
            .map(|node| node.config.name.as_str())
            .collect();
        if silent.is_empty() {
            return Ok(());
        }
        let found = self.docker.containers(&names::of_environment(&self.options, environment)).await?;
        for node in silent {
            let name = names::container(environment.id, node);
            let container = found.iter().find(|container| container.name == name);
            let state = container.map(|container| container.state);
            if state != Some(ContainerState::Running) {
                let state = state.map_or_else(|| "is gone".into(), state_in_words);
                return Err(Failure::passing(format!("the container of node '{node}' {state}")));
            }
        }
        Ok(())
    }

    async fn start_on(
        &self,
        work: &Work<'_>,
        place: &Place,
        node: &NodePlan,
        plan: Option<&TaskservPlan>,
    ) -> Result<(), Failure> {
        let Some(plan) = plan else { return Ok(()) };
        for script in starting(plan) {
            self.step_once(work, place, node, plan, script).await?;
        }
        Ok(())
    }

    /// Runs a script, unless the record says that it is done, and writes it down.
    async fn step_once(
        &self,
        work: &Work<'_>,
        place: &Place,
        node: &NodePlan,
        plan: &TaskservPlan,
        script: Script,
    ) -> Result<(), Failure> {
        let label = script.label(&plan.taskserv.name);
        let message = format!("{}: {label}", place.node);
        let before = work.environment.nodes.iter().find(|before| before.config.name == place.node);
        if !before.is_some_and(|before| before.done.contains(&label)) {
            let order = work.scene.order(node, plan, script, "");
            self.serve(place, &order, work.context).await?;
            self.record(work.environment.id, EnvironmentStatus::Creating, &|environment| {
                let node = environment.nodes.iter_mut().find(|node| node.config.name == place.node);
                if let Some(node) = node.filter(|node| !node.done.contains(&label)) {
                    node.done.push(label.clone());
                }
            })
            .await?;
        }
        work.count.done(&message);
        Ok(())
    }
}

/// What bringing up needs to know.
#[derive(Clone, Copy)]
struct Work<'a> {
    environment: &'a Environment,
    context: &'a Context,
    count: &'a Count<'a>,
    scene: Scene<'a>,
}

/// What a node's container runs.
fn command(node: &NodePlan) -> Vec<String> {
    if node.systemd() { vec!["/sbin/init".into()] } else { IDLE.map(String::from).to_vec() }
}

fn info(network: crate::containers::Network) -> Option<NetworkInfo> {
    Some(NetworkInfo { id: network.id, name: network.name, subnet: network.subnet? })
}

fn total(blueprint: &Blueprint) -> usize {
    let plans = blueprint.nodes.iter().flat_map(|node| &node.taskservs);
    2 + plans.map(|plan| 1 + starting(plan).len()).sum::<usize>()
}

fn report(environment: &Environment) -> Value {
    let nodes = environment.nodes.iter().map(|node| {
        json!({"name": node.config.name, "address": node.address, "image": node.image, "prepared": node.prepared})
    });
    json!({
        "environment": environment.id,
        "name": environment.name,
        "subnet": environment.network.as_ref().map(|network| &network.subnet),
        "nodes": nodes.collect::<Vec<_>>(),
    })
}
