//! Docker Engine, and what speaks its language, as a [`ContainerManager`].
//!
//! Nothing outside knows the client library. This module translates: our words into [`requests`], [`answers`]
//! and errors into ours, over a [`connection`]. [`address`] reads where the daemon is, [`limits`] knows which
//! limits are kept, [`fault`] what a refusal means, [`subnet`] which ranges overlap.
//!
//! Docker 20.10 (version 1.41 of the interface) is the oldest that is spoken to. A connection is made at the
//! first call and again after one that failed, so a daemon may come later or go for a while.

pub mod address;
mod answers;
mod connection;
pub mod fault;
pub mod limits;
mod requests;
pub mod subnet;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bollard::exec::{CreateExecOptions, StartExecResults};
use bollard::models::{ContainerConfig, SystemInfo, VolumeCreateRequest};
use bollard::query_parameters::{
    CommitContainerOptionsBuilder, CreateImageOptionsBuilder, InspectNetworkOptions,
    KillContainerOptionsBuilder, ListContainersOptionsBuilder, ListImagesOptionsBuilder,
    ListVolumesOptionsBuilder, LogsOptionsBuilder, RemoveImageOptions, RemoveVolumeOptions,
    StartContainerOptions, StatsOptionsBuilder, StopContainerOptionsBuilder, UploadToContainerOptionsBuilder,
};
use futures::StreamExt;
use futures::future::join_all;
use futures::stream;
use tokio::sync::OnceCell;
use tokio::time::timeout;

use self::address::Address;
use self::answers::{first_subnet, inspected, listed_container, listed_state, unsigned, usage};
use self::connection::{ANSWER, Connection, Outputs, WORK, checked, fault};
use self::fault::Fault;
use self::limits::DiskLimits;
use self::requests::{filters, network_request, split_reference, variables};
use crate::containers::calls::{Call, Calls};
use crate::containers::{
    Container, ContainerError, ContainerManager, ContainerSpec, Daemon, ExecSpec, Image, Labels, Network,
    NetworkSpec, Progress, Result, Usage, Volume,
};

/// How long a pull may say nothing.
const PULL_SILENCE: Duration = Duration::from_secs(5 * 60);

/// A Docker daemon.
#[derive(Debug)]
pub struct DockerManager {
    address: Address,
    connection: OnceCell<Connection>,
    disk: OnceCell<DiskLimits>,
    calls: Arc<Calls>,
}

impl DockerManager {
    /// The daemon at this address. Nothing is sent before the first call.
    pub fn new(address: Address) -> Self {
        Self { address, connection: OnceCell::new(), disk: OnceCell::new(), calls: Arc::default() }
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
        let open = || Connection::open(&self.address, Arc::clone(&self.calls));
        Ok(self.connection.get_or_try_init(open).await?.clone())
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
