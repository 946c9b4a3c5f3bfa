//! Docker Engine, and what speaks its language, as a [`ContainerManager`].
//!
//! This is the only file that knows the client library. It translates: our words into requests, answers and
//! errors into ours. Its parts without a daemon are beside it: [`address`] reads where the daemon is,
//! [`limits`] knows which limits are kept, [`fault`] what a refusal means, [`subnet`] which ranges overlap.
//!
//! Docker 20.10 (version 1.41 of the interface) is the oldest that is spoken to. A connection is made at the
//! first call and again after one that failed, so a daemon may come later or go for a while.

pub mod address;
pub mod fault;
pub mod limits;
pub mod subnet;

use std::collections::{BTreeMap, HashMap};
use std::error::Error as _;
use std::fs::File;
use std::future::Future;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::exec::{CreateExecOptions, StartExecResults};
use bollard::models::{
    ContainerConfig, ContainerCreateBody, ContainerInspectResponse, ContainerStateStatusEnum,
    ContainerStatsResponse, ContainerSummary, ContainerSummaryStateEnum, EndpointIpamConfig,
    EndpointSettings, HostConfig, HostConfigCgroupnsModeEnum, Ipam, IpamConfig, Mount as DockerMount,
    MountType, MountVolumeOptions, NetworkCreateRequest, NetworkingConfig, SystemInfo, VolumeCreateRequest,
};
use bollard::query_parameters::{
    CommitContainerOptionsBuilder, CreateContainerOptionsBuilder, CreateImageOptionsBuilder,
    InspectContainerOptionsBuilder, InspectNetworkOptions, KillContainerOptionsBuilder,
    ListContainersOptionsBuilder, ListImagesOptionsBuilder, ListNetworksOptionsBuilder,
    ListVolumesOptionsBuilder, LogsOptionsBuilder, RemoveContainerOptionsBuilder, RemoveImageOptions,
    RemoveVolumeOptions, StartContainerOptions, StatsOptionsBuilder, StopContainerOptionsBuilder,
    UploadToContainerOptionsBuilder, WaitContainerOptionsBuilder,
};
use bollard::{API_DEFAULT_VERSION, ClientVersion, Docker};
use futures::future::join_all;
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt};
use orchestrator_protocol::event::OutputStream;
use tokio::sync::OnceCell;
use tokio::time::{sleep, timeout};

use self::address::Address;
use self::fault::{Fault, Subject};
use self::limits::DiskLimits;
use crate::containers::calls::{Call, Calls};
use crate::containers::{
    Container, ContainerError, ContainerManager, ContainerSpec, ContainerState, Daemon, ExecSpec, Image,
    Labels, Network, NetworkSpec, Output, Progress, Result, Usage, Volume,
};

/// How long the daemon may take for what it answers out of its memory.
const ANSWER: Duration = Duration::from_secs(60);

/// How long it may take for what moves data: a commit of a large file system, an upload, a removal.
const WORK: Duration = Duration::from_secs(15 * 60);

/// How long a pull may say nothing.
const PULL_SILENCE: Duration = Duration::from_secs(5 * 60);

/// The oldest version of the interface that has all that is used here: that of Docker 20.10.
const OLDEST: ClientVersion = ClientVersion { major_version: 1, minor_version: 41 };

/// The period over which the kernel shares out processor time, in microseconds: its own default.
const CPU_PERIOD_US: i64 = 100_000;

const MIB: i64 = 1024 * 1024;

/// A Docker daemon.
#[derive(Debug)]
pub struct DockerManager {
    address: Address,
    docker: OnceCell<Docker>,
    disk: OnceCell<DiskLimits>,
    calls: Arc<Calls>,
}

/// A connection, the words for where it goes, and the count of what goes over it. What a stream needs.
#[derive(Clone)]
struct Connection {
    docker: Docker,
    at: Arc<str>,
    calls: Arc<Calls>,
}

impl DockerManager {
    /// The daemon at this address. Nothing is sent before the first call.
    pub fn new(address: Address) -> Self {
        Self { address, docker: OnceCell::new(), disk: OnceCell::new(), calls: Arc::default() }
    }

    /// The daemon that `DOCKER_HOST` and the variables beside it name.
    pub fn from_env() -> Result<Self> {
        Address::from_variables(|name| std::env::var(name).ok()).map(Self::new)
    }

    /// The calls so far.
    pub fn calls(&self) -> &Calls {
        &self.calls
    }

    async fn connection(&self) -> Result<Connection> {
        let at: Arc<str> = self.address.to_string().into();
        let docker = self.docker.get_or_try_init(|| async {
            let docker = connect(&self.address)?;
            let subject = Subject { what: "daemon", name: &at, doing: "to say its version at" };
            self.calls.count(Call::Version);
            // bounded by the client library's own timeout, which `connect` sets to a long one
            let negotiated = timeout(ANSWER, docker.negotiate_version()).await;
            let docker = negotiated.map_err(|_| no_answer(ANSWER)).and_then(|answer| answer.map_err(fault));
            let docker = docker.map_err(|fault| fault.into_error(&at, subject))?;
            let version = docker.client_version();
            if version < OLDEST {
                return Err(ContainerError::Unsupported(format!(
                    "Docker at {at} speaks version {version} of its interface; {OLDEST} is needed (Docker 20.10)"
                )));
            }
            Ok(docker)
        });
        let docker = docker.await?.clone();
        Ok(Connection { docker, at, calls: Arc::clone(&self.calls) })
    }

    /// Which limits of size are kept. A driver that only a trial can tell of is tried, once.
    async fn disk(&self, connection: &Connection, info: &SystemInfo) -> Result<DiskLimits> {
        let driver = info.driver.as_deref().unwrap_or("(unknown)");
        let judged = limits::disk_limits(driver, info.driver_status.as_deref().unwrap_or_default());
        if judged != DiskLimits::Tried {
            return Ok(judged);
        }
        if let Some(known) = self.disk.get() {
            return Ok(known.clone());
        }
        let images = self.images(&Labels::new()).await?;
        let Some(image) = images.first() else {
            return Ok(DiskLimits::Not(
                "whether it is kept is known once there is an image on the machine".into(),
            ));
        };
        let spec = ContainerSpec {
            // One name for all: an engine that dies here leaves at most one, and the next removes it.
            name: "orchestrator-disk-trial".into(),
            image: image.id.clone(),
            command: vec!["true".into()],
            network: "none".into(),
            disk_mb: Some(1024),
            ..ContainerSpec::default()
        };
        let found = match connection.create(&spec).await {
            // One that is there already was made with a limit too.
            Ok(_) | Err(ContainerError::Exists { .. }) => {
                connection.remove(&spec.name).await?;
                DiskLimits::Kept
            }
            Err(ContainerError::Unsupported(reason)) => DiskLimits::Not(reason),
            Err(error) => return Err(error),
        };
        Ok(self.disk.get_or_init(|| async { found }).await.clone())
    }
}

impl Connection {
    /// Makes one call and counts it.
    async fn call<T>(
        &self,
        call: Call,
        limit: Duration,
        request: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Fault> {
        self.calls.count(call);
        timeout(limit, request).await.map_err(|_| no_answer(limit))?.map_err(fault)
    }

    fn error(&self, fault: Fault, what: &'static str, name: &str, doing: &'static str) -> ContainerError {
        fault.into_error(&self.at, Subject { what, name, doing })
    }

    /// The client for a stream: its answer must begin in time, and may then last.
    fn streaming(&self) -> Docker {
        self.docker.clone().with_timeout(ANSWER)
    }

    async fn info(&self) -> Result<SystemInfo> {
        let info = self.call(Call::Info, ANSWER, self.docker.info()).await;
        info.map_err(|fault| self.error(fault, "daemon", &self.at, "to describe itself at"))
    }

    async fn inspect(&self, id: &str, size: bool) -> Result<Option<ContainerInspectResponse>> {
        checked("container", id)?;
        let options = InspectContainerOptionsBuilder::default().size(size).build();
        let answer = self.docker.inspect_container(id, Some(options));
        match self.call(Call::InspectContainer, ANSWER, answer).await {
            Ok(found) => Ok(Some(found)),
            Err(fault) if fault.is_not_found() => Ok(None),
            Err(fault) => Err(self.error(fault, "container", id, "to look at the container")),
        }
    }

    async fn create(&self, spec: &ContainerSpec) -> Result<String> {
        checked("container", &spec.name)?;
        let options = CreateContainerOptionsBuilder::default().name(&spec.name).build();
        let answer = self.docker.create_container(Some(options), container_body(spec));
        let created = self.call(Call::CreateContainer, WORK, answer).await.map_err(|fault| {
            if fault.says("no such image") {
                return self.error(fault, "image", &spec.image, "to use the image");
            }
            self.error(fault, "container", &spec.name, "to make the container")
        })?;
        match limits::dropped(spec, &created.warnings) {
            None => Ok(created.id),
            Some(words) => {
                self.remove(&created.id).await?;
                Err(ContainerError::Unsupported(words))
            }
        }
    }

    async fn remove(&self, id: &str) -> Result<()> {
        checked("container", id)?;
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        match self.call(Call::RemoveContainer, WORK, self.docker.remove_container(id, Some(options))).await {
            Ok(()) => Ok(()),
            Err(fault) if fault.is_not_found() => Ok(()),
            // Somebody else removes it: it is gone when they are done, and not before.
            Err(fault) if fault.says("already in progress") => self.wait_removed(id).await,
            Err(fault) => Err(self.error(fault, "container", id, "to remove the container")),
        }
    }

    async fn wait_removed(&self, id: &str) -> Result<()> {
        let options = WaitContainerOptionsBuilder::default().condition("removed").build();
        let mut gone = Box::pin(self.docker.wait_container(id, Some(options)));
        let answer = async { gone.next().await.unwrap_or_else(|| Ok(Default::default())) };
        match self.call(Call::WaitRemoved, WORK, answer).await {
            Ok(_) => Ok(()),
            // The exit status of its process, which is of no interest any more.
            Err(Fault::Other(_)) => Ok(()),
            Err(fault) if fault.is_not_found() => Ok(()),
            Err(fault) => Err(self.error(fault, "container", id, "to remove the container")),
        }
    }

    /// A call that changes the state of a container. An answer that says one of `done` is a success: it is
    /// in that state already.
    async fn change(
        &self,
        call: Call,
        limit: Duration,
        (id, doing): (&str, &'static str),
        done: &[&str],
        request: impl Future<Output = Result<(), Error>>,
    ) -> Result<()> {
        checked("container", id)?;
        match self.call(call, limit, request).await {
            Err(fault) if !fault.is_not_found() && done.iter().any(|words| fault.says(words)) => Ok(()),
            other => other.map_err(|fault| self.error(fault, "container", id, doing)),
        }
    }

    /// The networks of the daemon.
    async fn networks(&self, labels: &Labels) -> Result<Vec<Network>> {
        let options = ListNetworksOptionsBuilder::default().filters(&filters(labels)).build();
        let listed = self.call(Call::ListNetworks, ANSWER, self.docker.list_networks(Some(options))).await;
        let listed = listed.map_err(|fault| self.error(fault, "network", "*", "to list networks"))?;
        let networks = listed.into_iter().map(|network| Network {
            id: network.id.unwrap_or_default(),
            name: network.name.unwrap_or_default(),
            subnet: first_subnet(network.ipam),
            labels: network.labels.into_iter().flatten().collect(),
        });
        Ok(networks.collect())
    }

    /// Who holds addresses of `subnet`, with what it holds.
    async fn holder(&self, subnet: &str) -> Result<Option<String>> {
        let networks = self.networks(&Labels::new()).await?;
        let held = networks.into_iter().filter_map(|network| Some((network.name, network.subnet?)));
        let mut holders = held.filter(|(_, held)| subnet::overlap(subnet, held));
        Ok(holders.next().map(|(name, held)| format!("{name} ({held})")))
    }

    /// The exit status of a program whose output has ended.
    async fn exit_status(&self, exec: &str) -> Result<Output> {
        let mut wait = Duration::from_millis(5);
        loop {
            let answer = self.call(Call::InspectExec, ANSWER, self.docker.inspect_exec(exec)).await;
            let state =
                answer.map_err(|fault| self.error(fault, "container", exec, "to tell the exit status of"))?;
            if let (Some(false), Some(code)) = (state.running, state.exit_code) {
                return Ok(Output::Exit(code));
            }
            // The interface has no call that waits for it. A program may also go on after it has closed its
            // output.
            sleep(wait).await;
            wait = (wait * 2).min(Duration::from_secs(1));
        }
    }

    fn output(
        self,
        id: String,
        source: impl Stream<Item = Result<LogOutput, Error>> + Send + 'static,
    ) -> Outputs {
        let translated = source.map(move |item| match item {
            Ok(LogOutput::StdErr { message }) => Ok(Output::Bytes(OutputStream::Stderr, message.to_vec())),
            Ok(other) => Ok(Output::Bytes(OutputStream::Stdout, other.into_bytes().to_vec())),
            Err(error) => {
                Err(self.error(fault(error), "container", &id, "to give the output of the container"))
            }
        });
        translated.boxed()
    }
}

type Outputs = BoxStream<'static, Result<Output>>;

#[async_trait]
impl ContainerManager for DockerManager {
    async fn daemon(&self) -> Result<Daemon> {
        let connection = self.connection().await?;
        let version = connection.call(Call::Version, ANSWER, connection.docker.version()).await;
        let version = version
            .map_err(|fault| connection.error(fault, "daemon", &connection.at, "to say its version at"))?;
        let info = connection.info().await?;
        let disk_reason = match self.disk(&connection, &info).await? {
            DiskLimits::Kept | DiskLimits::Tried => None,
            DiskLimits::Not(reason) => Some(reason),
        };
        Ok(Daemon {
            version: version.version.unwrap_or_default(),
            api_version: version.api_version.unwrap_or_default(),
            architecture: version.arch.unwrap_or_default(),
            enforces_disk: disk_reason.is_none(),
            disk_reason,
        })
    }

    async fn daemon_id(&self) -> Result<String> {
        Ok(self.connection().await?.info().await?.id.unwrap_or_default())
    }

    async fn image(&self, name: &str) -> Result<Option<Image>> {
        checked("image", name)?;
        let connection = self.connection().await?;
        let found = connection.call(Call::InspectImage, ANSWER, connection.docker.inspect_image(name)).await;
        let image = match found {
            Ok(image) => image,
            Err(fault) if fault.is_not_found() => return Ok(None),
            Err(fault) => return Err(connection.error(fault, "image", name, "to look at the image")),
        };
        let created =
            image.created.as_deref().and_then(|time| chrono::DateTime::parse_from_rfc3339(time).ok());
        Ok(Some(Image {
            id: image.id.unwrap_or_default(),
            labels: image.config.and_then(|config| config.labels).into_iter().flatten().collect(),
            size_bytes: unsigned(image.size),
            created_at_sec: created.map(|time| time.timestamp()).unwrap_or_default(),
            names: image.repo_tags.unwrap_or_default(),
        }))
    }

    async fn images(&self, labels: &Labels) -> Result<Vec<Image>> {
        let connection = self.connection().await?;
        let options = ListImagesOptionsBuilder::default().filters(&filters(labels)).build();
        let listed =
            connection.call(Call::ListImages, ANSWER, connection.docker.list_images(Some(options))).await;
        let listed = listed.map_err(|fault| connection.error(fault, "image", "*", "to list images"))?;
        let images = listed.into_iter().map(|image| Image {
            id: image.id,
            labels: image.labels.into_iter().collect(),
            size_bytes: unsigned(Some(image.size)),
            created_at_sec: image.created,
            // What an image without a name is listed under before version 1.43 of the interface.
            names: image.repo_tags.into_iter().filter(|name| name != "<none>:<none>").collect(),
        });
        Ok(images.collect())
    }

    async fn pull(&self, name: &str, progress: Progress<'_>) -> Result<()> {
        checked("image", name)?;
        let connection = self.connection().await?;
        let (repository, tag) = split_reference(name);
        let options = CreateImageOptionsBuilder::default().from_image(repository).tag(tag).build();
        connection.calls.count(Call::PullImage);
        let docker = connection.streaming();
        let mut steps = Box::pin(docker.create_image(Some(options), None, None));
        let failed = loop {
            match timeout(PULL_SILENCE, steps.next()).await {
                Ok(Some(Ok(step))) => {
                    let words = [step.id, step.status].into_iter().flatten();
                    progress(words.collect::<Vec<_>>().join(": "));
                }
                Ok(Some(Err(error))) => break fault(error),
                Ok(None) => return Ok(()),
                Err(_) => break Fault::Other(format!("it said nothing for {} s", PULL_SILENCE.as_secs())),
            }
        };
        // The stream can break after the image has come.
        match self.image(name).await {
            Ok(Some(_)) => Ok(()),
            Ok(None) | Err(_) => Err(connection.error(failed, "image", name, "to fetch the image")),
        }
    }

    async fn commit(&self, container: &str, name: &str, labels: &Labels) -> Result<String> {
        checked("image", name)?;
        let connection = self.connection().await?;
        let found = connection.inspect(container, false).await?;
        let found = found
            .ok_or_else(|| ContainerError::NotFound { what: "container", name: container.to_owned() })?;
        // An image inherits the labels of its container, and they cannot be taken off it, only emptied: it
        // would be taken for a thing of the environment that it was made in.
        let inherited = found.config.and_then(|config| config.labels).unwrap_or_default();
        let mut all: HashMap<_, _> = inherited.into_keys().map(|key| (key, String::new())).collect();
        all.extend(labels.clone());
        let (repository, tag) = split_reference(name);
        let options = CommitContainerOptionsBuilder::default()
            .container(container)
            .repo(repository)
            .tag(tag)
            .pause(true)
            .build();
        let config = ContainerConfig { labels: Some(all), ..ContainerConfig::default() };
        let answer = connection.docker.commit_container(options, config);
        let made = connection.call(Call::Commit, WORK, answer).await;
        made.map(|made| made.id)
            .map_err(|fault| connection.error(fault, "container", container, "to make an image of"))
    }

    async fn remove_image(&self, id: &str) -> Result<()> {
        checked("image", id)?;
        let connection = self.connection().await?;
        let answer = connection.docker.remove_image(id, None::<RemoveImageOptions>, None);
        match connection.call(Call::RemoveImage, WORK, answer).await {
            Ok(_) => Ok(()),
            Err(fault) if fault.is_not_found() => Ok(()),
            Err(fault) => Err(connection.error(fault, "image", id, "to remove the image")),
        }
    }

    async fn create_network(&self, spec: &NetworkSpec) -> Result<Network> {
        checked("network", &spec.name)?;
        let connection = self.connection().await?;
        let refused = |fault| connection.error(fault, "network", &spec.name, "to make the network");
        let request = network_request(spec);
        // Daemons below version 1.44 of the interface make a second network of one name unless they are told
        // to look. The client library has no field for it any more.
        let mut body =
            serde_json::to_value(&request).map_err(|error| refused(Fault::Other(error.to_string())))?;
        if let Some(fields) = body.as_object_mut() {
            fields.insert("CheckDuplicate".into(), true.into());
        }
        let body = body.to_string();
        let docker = connection.docker.clone().with_request_modifier(move |mut request| {
            *request.body_mut() = bollard::body_full(body.clone().into());
            request
        });
        let made = connection.call(Call::CreateNetwork, ANSWER, docker.create_network(request)).await;
        let id = match (made, &spec.subnet) {
            (Ok(made), _) => made.id,
            (Err(fault), Some(subnet)) if fault.says("overlap") => {
                let holder = connection.holder(subnet).await?;
                return Err(ContainerError::SubnetTaken { subnet: subnet.clone(), holder });
            }
            (Err(fault), _) => return Err(refused(fault)),
        };
        let subnet = match &spec.subnet {
            Some(subnet) => Some(subnet.clone()),
            None => {
                let answer = connection.docker.inspect_network(&id, None::<InspectNetworkOptions>);
                let found = connection.call(Call::InspectNetwork, ANSWER, answer).await.map_err(refused)?;
                first_subnet(found.ipam)
            }
        };
        Ok(Network { id, name: spec.name.clone(), subnet, labels: spec.labels.clone() })
    }

    async fn networks(&self, labels: &Labels) -> Result<Vec<Network>> {
        self.connection().await?.networks(labels).await
    }

    async fn remove_network(&self, id: &str) -> Result<()> {
        checked("network", id)?;
        let connection = self.connection().await?;
        match connection.call(Call::RemoveNetwork, ANSWER, connection.docker.remove_network(id)).await {
            Err(fault) if fault.is_not_found() => Ok(()),
            other => other.map_err(|fault| connection.error(fault, "network", id, "to remove the network")),
        }
    }

    async fn create_volume(&self, name: &str, labels: &Labels) -> Result<()> {
        checked("volume", name)?;
        let connection = self.connection().await?;
        let request = VolumeCreateRequest {
            name: Some(name.to_owned()),
            labels: Some(labels.clone().into_iter().collect()),
            ..VolumeCreateRequest::default()
        };
        let made =
            connection.call(Call::CreateVolume, ANSWER, connection.docker.create_volume(request)).await;
        let made = made.map_err(|fault| connection.error(fault, "volume", name, "to make the volume"))?;
        // The daemon answers with the one that is there, whatever its labels are.
        if labels.iter().all(|(key, value)| made.labels.get(key) == Some(value)) {
            return Ok(());
        }
        Err(ContainerError::Exists { what: "volume", name: name.to_owned() })
    }

    async fn volumes(&self, labels: &Labels) -> Result<Vec<Volume>> {
        let connection = self.connection().await?;
        let options = ListVolumesOptionsBuilder::default().filters(&filters(labels)).build();
        let listed =
            connection.call(Call::ListVolumes, ANSWER, connection.docker.list_volumes(Some(options))).await;
        let listed = listed.map_err(|fault| connection.error(fault, "volume", "*", "to list volumes"))?;
        let volumes = listed.volumes.into_iter().flatten();
        Ok(volumes
            .map(|volume| Volume { name: volume.name, labels: volume.labels.into_iter().collect() })
            .collect())
    }

    async fn remove_volume(&self, name: &str) -> Result<()> {
        checked("volume", name)?;
        let connection = self.connection().await?;
        let answer = connection.docker.remove_volume(name, None::<RemoveVolumeOptions>);
        match connection.call(Call::RemoveVolume, WORK, answer).await {
            Err(fault) if fault.is_not_found() => Ok(()),
            other => other.map_err(|fault| connection.error(fault, "volume", name, "to remove the volume")),
        }
    }

    async fn create_container(&self, spec: &ContainerSpec) -> Result<String> {
        let connection = self.connection().await?;
        if spec.systemd && !spec.privileged {
            return Err(ContainerError::Unsupported(format!(
                "'{}' has systemd as its first process and is not privileged: Docker gives only privileged \
                 containers a control group that systemd can write",
                spec.name
            )));
        }
        if spec.disk_mb.is_some() {
            let info = connection.info().await?;
            if let DiskLimits::Not(reason) = self.disk(&connection, &info).await? {
                return Err(ContainerError::Unsupported(format!(
                    "disk_mb cannot be enforced on this machine: {reason}"
                )));
            }
        }
        connection.create(spec).await
    }

    async fn start(&self, id: &str) -> Result<()> {
        let connection = self.connection().await?;
        let request = connection.docker.start_container(id, None::<StartContainerOptions>);
        connection.change(Call::Start, WORK, (id, "to start the container"), &[], request).await
    }

    async fn stop(&self, id: &str, grace_sec: u32) -> Result<()> {
        let connection = self.connection().await?;
        let grace = i32::try_from(grace_sec).unwrap_or(i32::MAX);
        let request = connection
            .docker
            .stop_container(id, Some(StopContainerOptionsBuilder::default().t(grace).build()));
        let limit = Duration::from_secs(grace_sec.into()) + ANSWER;
        connection.change(Call::Stop, limit, (id, "to stop the container"), &[], request).await
    }

    async fn kill(&self, id: &str) -> Result<()> {
        let connection = self.connection().await?;
        let options = KillContainerOptionsBuilder::default().signal("SIGKILL").build();
        let request = connection.docker.kill_container(id, Some(options));
        let done = &["is not running"];
        connection.change(Call::Kill, ANSWER, (id, "to kill the container"), done, request).await
    }

    async fn pause(&self, id: &str) -> Result<()> {
        let connection = self.connection().await?;
        let request = connection.docker.pause_container(id);
        let done = &["already paused"];
        connection.change(Call::Pause, ANSWER, (id, "to pause the container"), done, request).await
    }

    async fn unpause(&self, id: &str) -> Result<()> {
        let connection = self.connection().await?;
        let request = connection.docker.unpause_container(id);
        let done = &["is not paused"];
        connection.change(Call::Unpause, ANSWER, (id, "to unpause the container"), done, request).await
    }

    async fn container(&self, id: &str) -> Result<Option<Container>> {
        let connection = self.connection().await?;
        Ok(connection.inspect(id, false).await?.map(inspected))
    }

    async fn containers(&self, labels: &Labels) -> Result<Vec<Container>> {
        let connection = self.connection().await?;
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters(labels)).build();
        let listed = connection
            .call(Call::ListContainers, ANSWER, connection.docker.list_containers(Some(options)))
            .await;
        let listed =
            listed.map_err(|fault| connection.error(fault, "container", "*", "to list containers"))?;
        // A list does not say what a container has ended with: only those that have are asked for it.
        let found = join_all(listed.into_iter().map(|summary| {
            let connection = &connection;
            async move {
                match listed_state(&summary) {
                    Some(state) => Ok(Some(listed_container(summary, state))),
                    None => {
                        let id = summary.id.unwrap_or_default();
                        Ok(connection.inspect(&id, false).await?.map(inspected))
                    }
                }
            }
        }));
        found.await.into_iter().filter_map(Result::transpose).collect()
    }

    async fn remove_container(&self, id: &str) -> Result<()> {
        self.connection().await?.remove(id).await
    }

    async fn exec(&self, id: &str, spec: &ExecSpec) -> Result<Outputs> {
        checked("container", id)?;
        let connection = self.connection().await?;
        let refused = |fault| connection.error(fault, "container", id, "to run a program in the container");
        let options = CreateExecOptions {
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            env: Some(variables(&spec.env)),
            cmd: Some(spec.command.clone()),
            user: spec.user.clone(),
            ..CreateExecOptions::default()
        };
        let made =
            connection.call(Call::CreateExec, ANSWER, connection.docker.create_exec(id, options)).await;
        let exec = made.map_err(refused)?.id;
        let docker = connection.streaming();
        let started = connection.call(Call::StartExec, ANSWER, docker.start_exec(&exec, None)).await;
        let StartExecResults::Attached { output, .. } = started.map_err(refused)? else {
            return Err(refused(Fault::Other("the daemon gave no output".into())));
        };
        let output = connection.clone().output(id.to_owned(), output);
        // The exit status comes after the output, and not at all where the output was cut.
        let rest = stream::unfold(Some((output, connection, exec)), |state| async move {
            let (mut output, connection, exec) = state?;
            match output.next().await {
                Some(Ok(bytes)) => Some((Ok(bytes), Some((output, connection, exec)))),
                Some(Err(error)) => Some((Err(error), None)),
                None => Some((connection.exit_status(&exec).await, None)),
            }
        });
        Ok(rest.boxed())
    }

    async fn logs(&self, id: &str, tail: Option<u64>, follow: bool) -> Result<Outputs> {
        checked("container", id)?;
        let connection = self.connection().await?;
        let tail = tail.map_or_else(|| "all".to_owned(), |lines| lines.to_string());
        let options =
            LogsOptionsBuilder::default().stdout(true).stderr(true).follow(follow).tail(&tail).build();
        connection.calls.count(Call::Logs);
        let lines = connection.streaming().logs(id, Some(options));
        Ok(connection.output(id.to_owned(), lines))
    }

    async fn copy_in(&self, id: &str, directory: &str, archive: Vec<u8>) -> Result<()> {
        let connection = self.connection().await?;
        let options = UploadToContainerOptionsBuilder::default().path(directory).build();
        let request =
            connection.docker.upload_to_container(id, Some(options), bollard::body_full(archive.into()));
        connection.change(Call::Upload, WORK, (id, "to copy files into the container"), &[], request).await
    }

    async fn usage(&self, id: &str) -> Result<Usage> {
        checked("container", id)?;
        let connection = self.connection().await?;
        let absent = || ContainerError::NotFound { what: "container", name: id.to_owned() };
        let options = StatsOptionsBuilder::default().stream(false).one_shot(true).build();
        let mut stats = Box::pin(connection.docker.stats(id, Some(options)));
        let first = async { stats.next().await.unwrap_or_else(|| Ok(Default::default())) };
        let (stats, size) =
            futures::join!(connection.call(Call::Stats, ANSWER, first), connection.inspect(id, true));
        let stats =
            stats.map_err(|fault| connection.error(fault, "container", id, "to tell what is used by"))?;
        let container = size?.ok_or_else(absent)?;
        Ok(usage(stats, &container))
    }
}

/// Makes a client. Only TLS reads anything; only a socket that is not there fails at once.
fn connect(address: &Address) -> Result<Docker> {
    // Every call has its own limit here, and some of them are longer than any default.
    let limit = 24 * 60 * 60;
    let made = match address {
        Address::Unix(path) => Docker::connect_with_unix(&path.to_string_lossy(), limit, API_DEFAULT_VERSION),
        Address::Plain(authority) => {
            Docker::connect_with_http(&format!("tcp://{authority}"), limit, API_DEFAULT_VERSION)
        }
        Address::Ssh(destination) => {
            Docker::connect_with_ssh(&format!("ssh://{destination}"), limit, API_DEFAULT_VERSION, None)
        }
        Address::Tls { authority, certificates } => {
            let [ca, cert, key] = ["ca.pem", "cert.pem", "key.pem"].map(|name| certificates.join(name));
            // The library takes a certificate that cannot be read for none, and the daemon's refusal would
            // not say why.
            for file in [&ca, &cert, &key] {
                File::open(file).map_err(|error| {
                    ContainerError::Unsupported(format!("TLS to Docker needs {}: {error}", file.display()))
                })?;
            }
            // The library asks for the process's default, and there is none where more than one is linked. One that
            // is there already stays.
            let _ = rustls::crypto::ring::default_provider().install_default();
            Docker::connect_with_ssl(authority, &key, &cert, &ca, limit, API_DEFAULT_VERSION)
        }
    };
    made.map_err(|error| match fault(error) {
        Fault::Away(reason) => ContainerError::Away { at: address.to_string(), reason },
        Fault::Answer(_, reason) | Fault::Other(reason) => {
            ContainerError::Unsupported(format!("Docker cannot be used at {address}: {reason}"))
        }
    })
}

/// What an error of the client library is.
fn fault(error: Error) -> Fault {
    match error {
        Error::DockerResponseServerError { status_code, message } => Fault::Answer(status_code, message),
        Error::DockerStreamError { error } => Fault::Other(error),
        Error::RequestTimeoutError => Fault::Away("it did not answer in time".into()),
        Error::SocketNotFoundError(path) => Fault::Away(format!("there is no socket {path}")),
        Error::HyperLegacyError { .. } | Error::HyperResponseError { .. } | Error::IOError { .. } => {
            Fault::Away(with_causes(&error))
        }
        other => Fault::Other(with_causes(&other)),
    }
}

/// An error and what is behind it: the first only says that there was no connection.
fn with_causes(error: &Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !words.contains(&next) {
            words = format!("{words}: {next}");
        }
        cause = error.source();
    }
    words
}

fn no_answer(limit: Duration) -> Fault {
    Fault::Away(format!("it did not answer within {} s", limit.as_secs()))
}

/// A name becomes part of a path: one with other characters would name another thing, or another call.
fn checked(what: &'static str, name: &str) -> Result<()> {
    let is_plain = |character: char| character.is_ascii_alphanumeric() || "_.:/@-".contains(character);
    let steps_up = name.split('/').any(|part| matches!(part, "" | "." | ".."));
    if steps_up || !name.chars().all(is_plain) || (what != "image" && name.contains('/')) {
        return Err(ContainerError::Unsupported(format!("'{name}' cannot be the name of a {what}")));
    }
    Ok(())
}

/// A repository and a tag. Without a tag a daemon would fetch all of them.
fn split_reference(name: &str) -> (&str, &str) {
    if name.contains('@') {
        return (name, "");
    }
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, tag),
        _ => (name, "latest"),
    }
}

fn filters(labels: &Labels) -> HashMap<String, Vec<String>> {
    let pairs: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    if pairs.is_empty() { HashMap::new() } else { HashMap::from([("label".to_owned(), pairs)]) }
}

fn variables(env: &BTreeMap<String, String>) -> Vec<String> {
    env.iter().map(|(name, value)| format!("{name}={value}")).collect()
}

fn unsigned(number: Option<i64>) -> u64 {
    number.and_then(|number| u64::try_from(number).ok()).unwrap_or_default()
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn first_subnet(ipam: Option<Ipam>) -> Option<String> {
    let subnets = ipam?.config?.into_iter().filter_map(|config| config.subnet);
    subnets.into_iter().find(|subnet| !subnet.contains(':'))
}

fn network_request(spec: &NetworkSpec) -> NetworkCreateRequest {
    let ipam = spec.subnet.as_ref().map(|subnet| Ipam {
        config: Some(vec![IpamConfig { subnet: Some(subnet.clone()), ..IpamConfig::default() }]),
        ..Ipam::default()
    });
    NetworkCreateRequest {
        name: spec.name.clone(),
        driver: Some("bridge".into()),
        internal: Some(spec.internal),
        ipam,
        labels: Some(spec.labels.clone().into_iter().collect()),
        ..NetworkCreateRequest::default()
    }
}

/// The request that makes a container.
fn container_body(spec: &ContainerSpec) -> ContainerCreateBody {
    let endpoint = EndpointSettings {
        aliases: Some(spec.aliases.clone()),
        ipam_config: spec.address.map(|address| EndpointIpamConfig {
            ipv4_address: Some(address.to_string()),
            ..EndpointIpamConfig::default()
        }),
        ..EndpointSettings::default()
    };
    let mut env = spec.env.clone();
    if spec.systemd {
        // How systemd knows that it is in a container (<https://systemd.io/CONTAINER_INTERFACE>).
        env.entry("container".into()).or_insert_with(|| "docker".into());
    }
    ContainerCreateBody {
        hostname: Some(spec.hostname.clone()),
        env: Some(variables(&env)),
        // As the entry point it is all that runs: an image's own entry point would come before a command.
        entrypoint: (!spec.command.is_empty()).then(|| spec.command.clone()),
        image: Some(spec.image.clone()),
        labels: Some(spec.labels.clone().into_iter().collect()),
        // SIGTERM means something else to systemd.
        stop_signal: spec.systemd.then(|| "SIGRTMIN+3".to_owned()),
        host_config: Some(host_config(spec)),
        networking_config: Some(NetworkingConfig {
            endpoints_config: Some(HashMap::from([(spec.network.clone(), endpoint)])),
        }),
        ..ContainerCreateBody::default()
    }
}

fn host_config(spec: &ContainerSpec) -> HostConfig {
    let memory = spec.memory_mb.map(|size| signed(size).saturating_mul(MIB));
    let mounts = spec.mounts.iter().map(|mount| DockerMount {
        target: Some(mount.path.clone()),
        source: Some(mount.volume.clone()),
        typ: Some(MountType::VOLUME),
        read_only: Some(mount.read_only),
        // A volume that is not there is made on the way, and must be found again like all else.
        volume_options: Some(MountVolumeOptions {
            labels: Some(spec.labels.clone().into_iter().collect()),
            ..MountVolumeOptions::default()
        }),
        ..DockerMount::default()
    });
    let mut config = HostConfig {
        network_mode: Some(spec.network.clone()),
        extra_hosts: Some(spec.hosts.iter().map(|(name, address)| format!("{name}:{address}")).collect()),
        mounts: Some(mounts.collect()),
        // A quota and not a number of processors: the daemon refuses more of those than the machine has,
        // while a limit above that is kept by itself.
        cpu_period: spec.cpu_millicores.map(|_| CPU_PERIOD_US),
        cpu_quota: spec.cpu_millicores.map(|share| signed(share).saturating_mul(CPU_PERIOD_US / 1000)),
        memory,
        // Memory and swap together.
        memory_swap: memory,
        pids_limit: spec.max_processes.map(signed),
        storage_opt: spec.disk_mb.map(|size| HashMap::from([("size".to_owned(), format!("{size}M"))])),
        privileged: Some(spec.privileged),
        cap_add: Some(spec.capabilities.clone()),
        security_opt: Some(security(spec)),
        init: Some(!spec.systemd),
        ..HostConfig::default()
    };
    if spec.systemd {
        // systemd makes control groups below the one that it finds, so it must see its own as the root.
        config.cgroupns_mode = Some(HostConfigCgroupnsModeEnum::PRIVATE);
        // It wants both to be empty at its start (<https://systemd.io/CONTAINER_INTERFACE>). Scripts are run
        // from there too, which the default options of such a mount forbid.
        let options = |mode: &str| format!("rw,nosuid,nodev,exec,mode={mode}");
        config.tmpfs = Some(HashMap::from([
            ("/run".to_owned(), options("755")),
            ("/run/lock".to_owned(), options("1777")),
        ]));
    }
    config
}

/// The profiles that Docker puts containers under forbid what `SYS_ADMIN` is for: mounts the one of
/// AppArmor, keys of the kernel, which a container inside is given, the one of seccomp.
fn security(spec: &ContainerSpec) -> Vec<String> {
    let is_free = spec.capabilities.iter().any(|capability| capability == "SYS_ADMIN");
    let profiles = ["apparmor=unconfined", "seccomp=unconfined"];
    if is_free { profiles.map(String::from).to_vec() } else { Vec::new() }
}

fn addresses(networks: Option<HashMap<String, EndpointSettings>>) -> BTreeMap<String, Ipv4Addr> {
    let networks = networks.into_iter().flatten();
    // A container that does not run has an empty address.
    networks.filter_map(|(name, endpoint)| Some((name, endpoint.ip_address?.parse().ok()?))).collect()
}

/// The state of a container of a list; `None` where the list does not tell enough.
fn listed_state(summary: &ContainerSummary) -> Option<ContainerState> {
    match summary.state? {
        ContainerSummaryStateEnum::CREATED => Some(ContainerState::Created),
        ContainerSummaryStateEnum::RUNNING | ContainerSummaryStateEnum::RESTARTING => {
            Some(ContainerState::Running)
        }
        ContainerSummaryStateEnum::PAUSED => Some(ContainerState::Paused),
        ContainerSummaryStateEnum::REMOVING => Some(ContainerState::Removing),
        _ => None,
    }
}

fn listed_container(summary: ContainerSummary, state: ContainerState) -> Container {
    let names = summary.names.into_iter().flatten();
    Container {
        id: summary.id.unwrap_or_default(),
        // A legacy link would be a name with two slashes.
        name: names.map(|name| own_name(&name)).find(|name| !name.contains('/')).unwrap_or_default(),
        image: summary.image_id.unwrap_or_default(),
        state,
        addresses: addresses(summary.network_settings.and_then(|settings| settings.networks)),
        labels: summary.labels.into_iter().flatten().collect(),
    }
}

/// What a container uses, out of what was measured and of the container as it is.
fn usage(stats: ContainerStatsResponse, container: &ContainerInspectResponse) -> Usage {
    let is_running = container.state.as_ref().is_some_and(|state| state.running == Some(true));
    let memory = stats.memory_stats.unwrap_or_default();
    // What can be given up at once is no use of the container's, as `docker stats` has it. Both versions of
    // control groups have a word for it.
    let kept = memory.stats.unwrap_or_default();
    let cached = kept.get("total_inactive_file").or_else(|| kept.get("inactive_file")).copied().unwrap_or(0);
    // A daemon that fails to measure a container answers as it does for one that does not run: with nothing.
    let known = |number: Option<u64>| number.or((!is_running).then_some(0));
    let is_measured = memory.usage.is_some();
    let cpu = stats.cpu_stats.and_then(|cpu| cpu.cpu_usage?.total_usage);
    Usage {
        cpu_ns: known(cpu.filter(|_| is_measured)),
        memory_bytes: known(memory.usage.map(|bytes| bytes.saturating_sub(cached))),
        processes: known(stats.pids_stats.and_then(|pids| pids.current)),
        disk_bytes: container.size_rw.and_then(|bytes| u64::try_from(bytes).ok()),
    }
}

fn own_name(name: &str) -> String {
    name.strip_prefix('/').unwrap_or(name).to_owned()
}

fn inspected(found: ContainerInspectResponse) -> Container {
    let state = found.state.unwrap_or_default();
    Container {
        id: found.id.unwrap_or_default(),
        name: own_name(&found.name.unwrap_or_default()),
        image: found.image.unwrap_or_default(),
        state: match state.status {
            Some(ContainerStateStatusEnum::CREATED) => ContainerState::Created,
            Some(ContainerStateStatusEnum::RUNNING | ContainerStateStatusEnum::RESTARTING) => {
                ContainerState::Running
            }
            Some(ContainerStateStatusEnum::PAUSED) => ContainerState::Paused,
            Some(ContainerStateStatusEnum::REMOVING) => ContainerState::Removing,
            // One that is `dead` has ended too: its removal did not succeed, and can be asked for again.
            _ => ContainerState::Exited {
                code: state.exit_code.unwrap_or_default(),
                out_of_memory: state.oom_killed.unwrap_or_default(),
            },
        },
        addresses: addresses(found.network_settings.and_then(|settings| settings.networks)),
        labels: found.config.and_then(|config| config.labels).into_iter().flatten().collect(),
    }
}
