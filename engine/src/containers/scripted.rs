//! A container engine in memory, for tests of what happens when the real one does not do as it is told.
//!
//! It keeps images, networks, volumes and containers as Docker does, with the same errors, and counts the
//! same calls. What programs in a container do is told by a function of the test. Any call can be made to
//! fail, before it has done anything or after: the second is an answer that was lost.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use orchestrator_protocol::event::OutputStream;
use uuid::Uuid;

use super::calls::{Call, Calls};
use super::{
    Container, ContainerError, ContainerManager, ContainerSpec, ContainerState, Daemon, ExecSpec, Image,
    Labels, Network, NetworkSpec, Output, Progress, Result, Usage, Volume,
};
use crate::container_manager::subnet;

/// What a program in a container prints and ends with.
pub type Outputs = BoxStream<'static, Result<Output>>;

/// When a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strike {
    /// Before the call: nothing is done.
    Before,
    /// After it: it is done, and its answer is lost.
    After,
}

/// A container engine in memory.
pub struct Scripted {
    state: Mutex<State>,
    calls: Calls,
    program: Box<Program>,
}

/// What each program does that is run in a container.
type Program = dyn Fn(&Container, &ExecSpec) -> Outputs + Send + Sync;

#[derive(Debug, Default)]
struct State {
    away: bool,
    faults: Vec<(Call, u64, Strike, ContainerError)>,
    thefts: Vec<(Call, u64)>,
    pullable: BTreeSet<String>,
    images: Vec<Image>,
    networks: Vec<Network>,
    volumes: Vec<Volume>,
    containers: BTreeMap<String, Kept>,
    last_subnet: u8,
}

/// A container, and what only the fake has to know of it.
#[derive(Debug)]
struct Kept {
    container: Container,
    spec: ContainerSpec,
    log: Vec<Output>,
    uploads: Vec<(String, Vec<u8>)>,
}

/// A program that prints this and ends so.
pub fn printed(output: &str, code: i64) -> Outputs {
    let bytes = Output::Bytes(OutputStream::Stdout, output.as_bytes().to_vec());
    stream::iter([Ok(bytes), Ok(Output::Exit(code))]).boxed()
}

impl fmt::Debug for Scripted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scripted")
            .field("state", &self.state)
            .field("calls", &self.calls)
            .finish_non_exhaustive()
    }
}

impl Scripted {
    /// An engine without anything. `program` tells what each program does that is run in a container.
    pub fn new(program: impl Fn(&Container, &ExecSpec) -> Outputs + Send + Sync + 'static) -> Self {
        Self { state: Mutex::default(), calls: Calls::default(), program: Box::new(program) }
    }

    /// The calls so far.
    pub fn calls(&self) -> &Calls {
        &self.calls
    }

    /// Puts an image on the machine.
    pub fn add_image(&self, name: &str) {
        add_image(&mut self.lock(), name, &Labels::new());
    }

    /// Puts an image into the registry.
    pub fn publish(&self, name: &str) {
        self.lock().pullable.insert(name.to_owned());
    }

    /// Lets one call of a kind fail: the next one with 1, the one after it with 2.
    pub fn fail(&self, call: Call, nth: u64, strike: Strike, error: ContainerError) {
        let number = self.calls.of(call) + nth;
        self.lock().faults.push((call, number, strike, error));
    }

    /// Lets somebody else remove all committed images that no container uses, just before a call of a kind: the next
    /// one with 1.
    pub fn take_images(&self, call: Call, nth: u64) {
        let number = self.calls.of(call) + nth;
        self.lock().thefts.push((call, number));
    }

    /// Lets all calls fail as though the daemon were gone, or come back. What there is stays.
    pub fn set_away(&self, away: bool) {
        self.lock().away = away;
    }

    /// Lets a container end by itself.
    pub fn end(&self, id: &str, code: i64, out_of_memory: bool) {
        if let Ok(kept) = find(&mut self.lock(), id) {
            kept.container.state = ContainerState::Exited { code, out_of_memory };
            kept.container.addresses.clear();
        }
    }

    /// Lets a container's own process print something.
    pub fn print(&self, id: &str, stream: OutputStream, text: &str) {
        if let Ok(kept) = find(&mut self.lock(), id) {
            kept.log.push(Output::Bytes(stream, text.as_bytes().to_vec()));
        }
    }

    /// What a container was made from.
    pub fn spec(&self, id: &str) -> Option<ContainerSpec> {
        find(&mut self.lock(), id).ok().map(|kept| kept.spec.clone())
    }

    /// The archives that were copied into a container, with the directories that they went to.
    pub fn uploads(&self, id: &str) -> Vec<(String, Vec<u8>)> {
        find(&mut self.lock(), id).map(|kept| kept.uploads.clone()).unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A test that has panicked shows its own message, not that of a lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a call and does it, unless a fault strikes.
    fn call<T>(&self, call: Call, work: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        let number = self.calls.count(call);
        let mut state = self.lock();
        if state.away {
            return Err(ContainerError::Away {
                at: "memory".into(),
                reason: "it was told to be away".into(),
            });
        }
        if state.thefts.contains(&(call, number)) {
            let used: BTreeSet<_> =
                state.containers.values().map(|kept| kept.container.image.clone()).collect();
            state.images.retain(|image| image.labels.is_empty() || used.contains(&image.id));
        }
        let fault = state.faults.iter().position(|(kind, nth, ..)| (*kind, *nth) == (call, number));
        match fault.map(|position| state.faults.remove(position)) {
            Some((_, _, Strike::Before, error)) => Err(error),
            Some((_, _, Strike::After, error)) => work(&mut state).and(Err(error)),
            None => work(&mut state),
        }
    }

    fn change(&self, call: Call, id: &str, work: impl FnOnce(&mut Container) -> Result<()>) -> Result<()> {
        self.call(call, |state| work(&mut find(state, id)?.container))
    }
}

fn find<'a>(state: &'a mut State, id: &str) -> Result<&'a mut Kept> {
    let mut all = state.containers.values_mut();
    all.find(|kept| kept.container.id == id || kept.container.name == id)
        .ok_or_else(|| ContainerError::NotFound { what: "container", name: id.to_owned() })
}

fn refused(doing: &str, name: &str, reason: &str) -> ContainerError {
    ContainerError::Refused { doing: format!("{doing} '{name}'"), reason: reason.to_owned() }
}

fn has(labels: &Labels, wanted: &Labels) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

fn identifier() -> String {
    Uuid::new_v4().simple().to_string()
}

fn add_image(state: &mut State, name: &str, labels: &Labels) -> String {
    for image in &mut state.images {
        image.names.retain(|known| known != name);
    }
    let id = format!("sha256:{}", identifier());
    let (names, labels) = (vec![name.to_owned()], labels.clone());
    state.images.push(Image { id: id.clone(), labels, size_bytes: 1, created_at_sec: 0, names });
    id
}

fn is_image(image: &Image, name: &str) -> bool {
    image.id == name || image.names.iter().any(|known| known == name)
}

/// A free address of a network: its own, or the one that was asked for.
fn address(state: &State, network: &Network, wanted: Option<Ipv4Addr>) -> Result<Ipv4Addr> {
    let taken: BTreeSet<Ipv4Addr> = state
        .containers
        .values()
        .filter_map(|kept| kept.container.addresses.get(&network.name).copied())
        .collect();
    let subnet = network.subnet.as_deref().unwrap_or_default();
    let base = subnet.split('/').next().and_then(|first| first.parse::<Ipv4Addr>().ok());
    let base = base.map_or(0, u32::from);
    let mut free = (base + 2..).map(Ipv4Addr::from);
    let address = wanted.or_else(|| free.find(|address| !taken.contains(address)));
    let address = address.ok_or_else(|| refused("to start on", &network.name, "no address is left"))?;
    if !subnet::overlap(&format!("{address}/32"), subnet) {
        return Err(refused("to start on", &network.name, "the address does not belong to its subnet"));
    }
    if taken.contains(&address) {
        return Err(refused("to start on", &network.name, "Address already in use"));
    }
    Ok(address)
}

#[async_trait]
impl ContainerManager for Scripted {
    async fn daemon(&self) -> Result<Daemon> {
        self.call(Call::Version, |_| Ok(()))?;
        self.call(Call::Info, |_| Ok(()))?;
        Ok(Daemon {
            version: "0.0.0".into(),
            api_version: "1.41".into(),
            architecture: "amd64".into(),
            enforces_disk: false,
            disk_reason: Some("there is no disk in memory".into()),
        })
    }

    async fn daemon_id(&self) -> Result<String> {
        self.call(Call::Info, |_| Ok("scripted".into()))
    }

    async fn image(&self, name: &str) -> Result<Option<Image>> {
        self.call(Call::InspectImage, |state| {
            Ok(state.images.iter().find(|image| is_image(image, name)).cloned())
        })
    }

    async fn images(&self, labels: &Labels) -> Result<Vec<Image>> {
        self.call(Call::ListImages, |state| {
            Ok(state.images.iter().filter(|image| has(&image.labels, labels)).cloned().collect())
        })
    }

    async fn pull(&self, name: &str, progress: Progress<'_>) -> Result<()> {
        self.call(Call::PullImage, |state| {
            if !state.pullable.contains(name) {
                return Err(ContainerError::NotFound { what: "image", name: name.to_owned() });
            }
            progress(format!("{name}: fetched"));
            add_image(state, name, &Labels::new());
            Ok(())
        })
    }

    async fn commit(&self, container: &str, name: &str, labels: &Labels) -> Result<String> {
        self.call(Call::InspectContainer, |state| find(state, container).map(|_| ()))?;
        self.call(Call::Commit, |state| {
            // As with Docker, the container's own labels are there, and empty.
            let mut all = find(state, container)?.container.labels.clone();
            all.values_mut().for_each(String::clear);
            all.extend(labels.clone());
            Ok(add_image(state, name, &all))
        })
    }

    async fn remove_image(&self, id: &str) -> Result<()> {
        self.call(Call::RemoveImage, |state| {
            let Some(image) = state.images.iter().find(|image| is_image(image, id)) else { return Ok(()) };
            if state.containers.values().any(|kept| kept.container.image == image.id) {
                return Err(refused("to remove the image", id, "a container uses it"));
            }
            state.images.retain(|image| !is_image(image, id));
            Ok(())
        })
    }

    async fn create_network(&self, spec: &NetworkSpec) -> Result<Network> {
        let network = self.call(Call::CreateNetwork, |state| {
            if state.networks.iter().any(|network| network.name == spec.name) {
                return Err(ContainerError::Exists { what: "network", name: spec.name.clone() });
            }
            let subnet = spec.subnet.clone().unwrap_or_else(|| {
                state.last_subnet += 1;
                format!("10.99.{}.0/24", state.last_subnet)
            });
            let overlaps = |network: &&Network| {
                network.subnet.as_deref().is_some_and(|held| subnet::overlap(held, &subnet))
            };
            if let Some(holder) = state.networks.iter().find(overlaps) {
                let holder = format!("{} ({})", holder.name, holder.subnet.as_deref().unwrap_or_default());
                return Err(ContainerError::SubnetTaken { subnet, holder: Some(holder) });
            }
            let (name, labels) = (spec.name.clone(), spec.labels.clone());
            state.networks.push(Network { id: identifier(), name, subnet: Some(subnet), labels });
            Ok(state.networks.last().cloned())
        })?;
        if spec.subnet.is_none() {
            self.call(Call::InspectNetwork, |_| Ok(()))?;
        }
        network.ok_or_else(|| ContainerError::NotFound { what: "network", name: spec.name.clone() })
    }

    async fn networks(&self, labels: &Labels) -> Result<Vec<Network>> {
        self.call(Call::ListNetworks, |state| {
            Ok(state.networks.iter().filter(|network| has(&network.labels, labels)).cloned().collect())
        })
    }

    async fn remove_network(&self, id: &str) -> Result<()> {
        self.call(Call::RemoveNetwork, |state| {
            let Some(network) = state.networks.iter().find(|network| network.id == id || network.name == id)
            else {
                return Ok(());
            };
            let name = network.name.clone();
            if state.containers.values().any(|kept| kept.container.addresses.contains_key(&name)) {
                return Err(refused("to remove the network", id, "it has active endpoints"));
            }
            state.networks.retain(|network| network.name != name);
            Ok(())
        })
    }

    async fn create_volume(&self, name: &str, labels: &Labels) -> Result<()> {
        self.call(Call::CreateVolume, |state| {
            match state.volumes.iter().find(|volume| volume.name == name) {
                Some(volume) if has(&volume.labels, labels) => {}
                Some(_) => return Err(ContainerError::Exists { what: "volume", name: name.to_owned() }),
                None => state.volumes.push(Volume { name: name.to_owned(), labels: labels.clone() }),
            }
            Ok(())
        })
    }

    async fn volumes(&self, labels: &Labels) -> Result<Vec<Volume>> {
        self.call(Call::ListVolumes, |state| {
            Ok(state.volumes.iter().filter(|volume| has(&volume.labels, labels)).cloned().collect())
        })
    }

    async fn remove_volume(&self, name: &str) -> Result<()> {
        self.call(Call::RemoveVolume, |state| {
            let mut mounts = state.containers.values().flat_map(|kept| &kept.spec.mounts);
            if mounts.any(|mount| mount.volume == name) {
                return Err(refused("to remove the volume", name, "volume is in use"));
            }
            state.volumes.retain(|volume| volume.name != name);
            Ok(())
        })
    }

    async fn create_container(&self, spec: &ContainerSpec) -> Result<String> {
        if spec.systemd && !spec.privileged {
            return Err(ContainerError::Unsupported(format!(
                "'{}' has systemd and is not privileged",
                spec.name
            )));
        }
        if spec.disk_mb.is_some() {
            self.call(Call::Info, |_| Ok(()))?;
            return Err(ContainerError::Unsupported("disk_mb cannot be enforced on this machine".into()));
        }
        self.call(Call::CreateContainer, |state| {
            let image = state.images.iter().find(|image| is_image(image, &spec.image)).cloned();
            let image =
                image.ok_or_else(|| ContainerError::NotFound { what: "image", name: spec.image.clone() })?;
            if state.containers.contains_key(&spec.name) {
                return Err(ContainerError::Exists { what: "container", name: spec.name.clone() });
            }
            for mount in &spec.mounts {
                if !state.volumes.iter().any(|volume| volume.name == mount.volume) {
                    state.volumes.push(Volume { name: mount.volume.clone(), labels: spec.labels.clone() });
                }
            }
            // A container has the labels of its image too.
            let mut labels = image.labels.clone();
            labels.extend(spec.labels.clone());
            let container = Container {
                id: identifier(),
                name: spec.name.clone(),
                image: image.id,
                state: ContainerState::Created,
                addresses: BTreeMap::new(),
                labels,
            };
            let id = container.id.clone();
            let kept = Kept { container, spec: spec.clone(), log: Vec::new(), uploads: Vec::new() };
            state.containers.insert(spec.name.clone(), kept);
            Ok(id)
        })
    }

    async fn start(&self, id: &str) -> Result<()> {
        self.call(Call::Start, |state| {
            let kept = find(state, id)?;
            if matches!(kept.container.state, ContainerState::Running) {
                return Ok(());
            }
            let spec = kept.spec.clone();
            let networks = &state.networks;
            let network =
                networks.iter().find(|network| [&network.id, &network.name].contains(&&spec.network));
            let network =
                network.ok_or_else(|| refused("to start the container", id, "network not found"))?.clone();
            let address = address(state, &network, spec.address)?;
            let container = &mut find(state, id)?.container;
            container.state = ContainerState::Running;
            container.addresses.insert(network.name, address);
            Ok(())
        })
    }

    async fn stop(&self, id: &str, _grace_sec: u32) -> Result<()> {
        self.change(Call::Stop, id, |container| {
            end_process(container, 143);
            Ok(())
        })
    }

    async fn kill(&self, id: &str) -> Result<()> {
        self.change(Call::Kill, id, |container| {
            end_process(container, 137);
            Ok(())
        })
    }

    async fn pause(&self, id: &str) -> Result<()> {
        self.change(Call::Pause, id, |container| match container.state {
            ContainerState::Running | ContainerState::Paused => {
                container.state = ContainerState::Paused;
                Ok(())
            }
            _ => Err(refused("to pause the container", id, "it is not running")),
        })
    }

    async fn unpause(&self, id: &str) -> Result<()> {
        self.change(Call::Unpause, id, |container| match container.state {
            ContainerState::Running | ContainerState::Paused => {
                container.state = ContainerState::Running;
                Ok(())
            }
            _ => Err(refused("to unpause the container", id, "it is not running")),
        })
    }

    async fn container(&self, id: &str) -> Result<Option<Container>> {
        self.call(Call::InspectContainer, |state| Ok(find(state, id).ok().map(|kept| kept.container.clone())))
    }

    async fn containers(&self, labels: &Labels) -> Result<Vec<Container>> {
        self.call(Call::ListContainers, |state| {
            let all = state.containers.values().map(|kept| &kept.container);
            Ok(all.filter(|container| has(&container.labels, labels)).cloned().collect())
        })
    }

    async fn remove_container(&self, id: &str) -> Result<()> {
        self.call(Call::RemoveContainer, |state| {
            state.containers.retain(|_, kept| kept.container.id != id && kept.container.name != id);
            Ok(())
        })
    }

    async fn exec(&self, id: &str, spec: &ExecSpec) -> Result<Outputs> {
        let container = self.call(Call::CreateExec, |state| {
            let container = find(state, id)?.container.clone();
            match container.state {
                ContainerState::Running => Ok(container),
                _ => Err(refused("to run a program in the container", id, "it is not running")),
            }
        })?;
        self.call(Call::StartExec, |_| Ok(()))?;
        let output = (self.program)(&container, spec);
        self.call(Call::InspectExec, |_| Ok(()))?;
        Ok(output)
    }

    async fn logs(&self, id: &str, tail: Option<u64>, _follow: bool) -> Result<Outputs> {
        let log = self.call(Call::Logs, |state| find(state, id).map(|kept| kept.log.clone()));
        let log = match log {
            // Docker's answer is the stream itself: so its refusal comes as an item of it.
            Err(error @ ContainerError::NotFound { .. }) => return Ok(stream::iter([Err(error)]).boxed()),
            other => other?,
        };
        let tail = tail.and_then(|lines| usize::try_from(lines).ok()).unwrap_or(usize::MAX);
        let skipped = log.len().saturating_sub(tail);
        Ok(stream::iter(log.into_iter().skip(skipped).map(Ok)).boxed())
    }

    async fn copy_in(&self, id: &str, directory: &str, archive: Vec<u8>) -> Result<()> {
        self.call(Call::Upload, |state| {
            find(state, id)?.uploads.push((directory.to_owned(), archive));
            Ok(())
        })
    }

    async fn usage(&self, id: &str) -> Result<Usage> {
        self.call(Call::Stats, |state| find(state, id).map(|_| ()))?;
        self.call(Call::InspectContainer, |state| find(state, id).map(|_| Usage::default()))
    }
}

/// Ends a container's process. One that has none keeps the state that it is in.
fn end_process(container: &mut Container, code: i64) {
    if matches!(container.state, ContainerState::Running | ContainerState::Paused) {
        container.state = ContainerState::Exited { code, out_of_memory: false };
        container.addresses.clear();
    }
}
