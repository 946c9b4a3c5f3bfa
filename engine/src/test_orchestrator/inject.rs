//! Faults: what is done to nodes on purpose.
//!
//! A partition is made inside the nodes' own networks: each node is told a hardware address for the nodes
//! of the other side that nobody has, so that what it sends them is lost on the way without a word, as on a
//! cut cable. Addresses, names and connections to all others stay, and healing is to forget it. A node that
//! is started again has a new network, so it is cut off again before its taskservs start.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::StreamExt;
use futures::future::join_all;
use orchestrator_protocol::Error;
use orchestrator_protocol::environment::{Environment, EnvironmentId, EnvironmentStatus, Fault};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::services::{Scene, starting};
use super::{Context, Failure, Place, TestOrchestrator, address_by_node, places};
use crate::containers::{ContainerState, ExecSpec, Output};
use crate::test_environment::{Blueprint, check_fault};

/// How long a node has to stop by itself, in seconds.
const STOP_GRACE_SEC: u32 = 10;

/// Sets or removes what a node knows of its neighbours, for a list of addresses. Without iproute2 it is
/// done with the system's own call, from Perl, which every Debian and Ubuntu has: SIOCSARP (0x8955) and
/// SIOCDARP (0x8953) with a `struct arpreq`, see arp(7).
const CUT_SH: &str = r#"
word=$1
shift
for address; do
    if command -v ip >/dev/null; then
        if [ "$word" = cut ]; then
            ip neigh replace "$address" lladdr 02:00:00:00:00:01 nud permanent dev eth0 || exit 1
        else
            ip neigh del "$address" dev eth0 2>/dev/null || true
        fi
    elif command -v perl >/dev/null; then
        perl -e '
            my ($word, $address) = @ARGV;
            socket(my $socket, 2, 2, 0) or die "socket: $!\n";
            my $request = pack("S n C4 x8", 2, 0, split(/\./, $address)) . pack("S C6 x8", 1, 2, 0, 0, 0, 0, 1)
                . pack("i x16 a16", 6, "eth0");
            my $call = $word eq "cut" ? 0x8955 : 0x8953;
            ioctl($socket, $call, $request) or $word ne "cut" or die "SIOCSARP: $!\n";
        ' "$word" "$address" || exit 1
    elif [ "$word" = cut ]; then
        echo "its image has neither ip (of iproute2) nor perl, and a partition needs one of them" >&2
        exit 1
    fi
done
"#;

/// An environment whose nodes something is done to.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    pub environment: &'a Environment,
    pub blueprint: &'a Blueprint,
    pub context: &'a Context,
}

impl TestOrchestrator {
    /// Does something to the nodes of an environment, and returns the environment.
    ///
    /// # Errors
    /// Where it has no nodes at the time, where there is no such node, or where it cannot be done.
    pub async fn inject(&self, id: EnvironmentId, fault: &Fault) -> Result<Environment, Error> {
        let environment = self.environment(id).await?;
        use EnvironmentStatus::{Failed, Passed, Ready, RunningTests};
        if !matches!(environment.status, Ready | RunningTests | Passed | Failed) {
            return Err(Error::conflict(format!(
                "environment '{id}' is '{}': nothing can be done to its nodes",
                environment.status
            )));
        }
        let nodes: Vec<&str> = environment.nodes.iter().map(|node| node.config.name.as_str()).collect();
        check_fault(fault, &nodes, "fault")?;
        let blueprint = self.blueprint(&environment)?;
        let context = Context {
            cancel: CancellationToken::new(),
            progress: Arc::new(|_| {}),
            log: Arc::new(|line| tracing::debug!(line)),
        };
        let target = Target { environment: &environment, blueprint: &blueprint, context: &context };
        self.apply(target, fault).await.map_err(|failure| failure.error)?;
        self.environment(id).await
    }

    /// Does something to nodes.
    pub(super) async fn apply(&self, target: Target<'_>, fault: &Fault) -> Result<(), Failure> {
        // As it is now: a step before this may have changed it.
        let environment = self.environment(target.environment.id).await?;
        let places = places(&environment);
        let place = |node: &String| {
            let message = || format!("node '{node}' has no container");
            places.get(node).ok_or_else(|| Failure::permanent(Error::conflict(message())))
        };
        match fault {
            Fault::Kill { node } => self.kill(place(node)?).await,
            Fault::Stop { node } => Ok(self.docker.stop(&place(node)?.container, STOP_GRACE_SEC).await?),
            Fault::Pause { node } => Ok(self.docker.pause(&place(node)?.container).await?),
            Fault::Unpause { node } => Ok(self.docker.unpause(&place(node)?.container).await?),
            Fault::Restart { node } => self.restart(target, place(node)?).await,
            Fault::Partition { nodes } => self.partition(&environment, nodes).await,
            Fault::Heal {} => {
                self.heal(&environment).await?;
                self.note_partitions(environment.id, Vec::clear).await.map(drop)
            }
        }
    }

    async fn state(&self, place: &Place) -> Result<ContainerState, Failure> {
        let found = self.docker.container(&place.container).await?;
        found.map(|container| container.state).ok_or_else(|| {
            Failure::permanent(Error::not_found(format!("the container of node '{}' is gone", place.node)))
        })
    }

    async fn kill(&self, place: &Place) -> Result<(), Failure> {
        match self.state(place).await? {
            // What is frozen cannot die.
            ContainerState::Paused => self.docker.unpause(&place.container).await?,
            ContainerState::Running => {}
            _ => return Ok(()),
        }
        Ok(self.docker.kill(&place.container).await?)
    }

    async fn restart(&self, target: Target<'_>, place: &Place) -> Result<(), Failure> {
        let state = self.state(place).await?;
        if state == ContainerState::Paused {
            self.docker.unpause(&place.container).await?;
        }
        if matches!(state, ContainerState::Paused | ContainerState::Running) {
            self.docker.stop(&place.container, STOP_GRACE_SEC).await?;
        }
        self.docker.start(&place.container).await?;
        let environment = self.environment(target.environment.id).await?;
        let cut = cuts(&environment).remove(&place.node).unwrap_or_default();
        self.tell(place, "cut", &cut).await?;
        let Some(node) = target.blueprint.nodes.iter().find(|node| node.config.name == place.node) else {
            return Ok(());
        };
        let addresses = address_by_node(&environment);
        let scene = Scene { blueprint: target.blueprint, address_by_node: &addresses };
        // No start is like another.
        let about = format!("{}-", Uuid::new_v4().simple());
        for plan in &node.taskservs {
            for script in starting(plan) {
                self.serve(place, &scene.order(node, plan, script, &about), target.context).await?;
            }
        }
        Ok(())
    }

    /// Cuts nodes off. It is noted before it is done, so that an engine that dies in between can heal it, and
    /// undone where a node refuses it.
    async fn partition(&self, before: &Environment, nodes: &[String]) -> Result<(), Failure> {
        let side: BTreeSet<&String> = nodes.iter().collect();
        let side: Vec<String> = side.into_iter().cloned().collect();
        let note = |all: &mut Vec<Vec<String>>| {
            if !all.contains(&side) {
                all.push(side.clone());
            }
        };
        let environment = self.note_partitions(before.id, note).await?;
        let Err(refused) = self.neighbours(&environment, &cuts(&environment), "cut").await else {
            return Ok(());
        };
        if before.partitions.contains(&side) {
            return Err(refused);
        }
        let rest = |all: &mut Vec<Vec<String>>| all.retain(|known| *known != side);
        let environment = self.note_partitions(before.id, rest).await?;
        let mut undone = cuts(&Environment { partitions: vec![side.clone()], ..environment.clone() });
        let kept = cuts(&environment);
        for (node, addresses) in &mut undone {
            addresses.retain(|address| kept.get(node).is_none_or(|kept| !kept.contains(address)));
        }
        if let Err(problem) = self.neighbours(&environment, &undone, "heal").await {
            tracing::warn!(environment = %environment.id, %problem, "a partition that was refused cannot be undone");
        }
        Err(refused)
    }

    /// Connects all nodes that run, whatever is noted: a partition that was refused may not have been undone
    /// everywhere. One that is paused, and noted, cannot be.
    async fn heal(&self, environment: &Environment) -> Result<(), Failure> {
        let mut told = cuts(environment);
        let addresses = address_by_node(environment);
        for place in places(environment).values() {
            let is_up = matches!(self.state(place).await, Ok(ContainerState::Running));
            if is_up || told.contains_key(&place.node) {
                let others = addresses.iter().filter(|(node, _)| **node != place.node);
                told.insert(place.node.clone(), others.map(|(_, address)| address.to_string()).collect());
            }
        }
        self.neighbours(environment, &told, "heal").await
    }

    async fn note_partitions(
        &self,
        id: EnvironmentId,
        change: impl Fn(&mut Vec<Vec<String>>) + Send + Sync,
    ) -> Result<Environment, Failure> {
        Ok(self.environments.update(id, &|environment| change(&mut environment.partitions)).await?)
    }

    /// Cuts, or heals, connections, by the addresses for each node. All nodes are tried. One that is down is
    /// told when it is started.
    async fn neighbours(
        &self,
        environment: &Environment,
        cuts: &BTreeMap<String, Vec<String>>,
        word: &str,
    ) -> Result<(), Failure> {
        let places = places(environment);
        let told = cuts.iter().filter_map(|(node, cut)| Some((places.get(node)?, cut)));
        let done = join_all(told.map(|(place, cut)| async move {
            match self.state(place).await? {
                ContainerState::Running => self.tell(place, word, cut).await,
                ContainerState::Paused => {
                    let message = format!("node '{}' is paused: it cannot be cut off or healed", place.node);
                    Err(Failure::permanent(Error::conflict(message)))
                }
                _ => Ok(()),
            }
        }));
        done.await.into_iter().collect()
    }

    async fn tell(&self, place: &Place, word: &str, addresses: &[String]) -> Result<(), Failure> {
        if addresses.is_empty() {
            return Ok(());
        }
        let mut command = ["sh", "-c", CUT_SH, "sh", word].map(String::from).to_vec();
        command.extend(addresses.iter().cloned());
        let spec = ExecSpec { command, user: Some("0".into()), ..ExecSpec::default() };
        let mut output = self.docker.exec(&place.container, &spec).await?;
        let mut printed = Vec::new();
        while let Some(item) = output.next().await {
            match item? {
                Output::Bytes(_, bytes) => printed.extend(bytes),
                Output::Exit(0) => return Ok(()),
                Output::Exit(_) => break,
            }
        }
        let printed = String::from_utf8_lossy(&printed).trim().to_owned();
        let message = format!("node '{}' could not be cut off or healed: {printed}", place.node);
        Err(Failure::permanent(Error::conflict(message)))
    }
}

/// The addresses that each node is cut off from.
fn cuts(environment: &Environment) -> BTreeMap<String, Vec<String>> {
    let addresses = address_by_node(environment);
    let mut cut: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for side in &environment.partitions {
        for (one, address) in &addresses {
            for (other, other_address) in &addresses {
                if side.contains(one) && !side.contains(other) {
                    cut.entry(one.clone()).or_default().insert(other_address.to_string());
                    cut.entry(other.clone()).or_default().insert(address.to_string());
                }
            }
        }
    }
    cut.into_iter().map(|(node, addresses)| (node, addresses.into_iter().collect())).collect()
}
