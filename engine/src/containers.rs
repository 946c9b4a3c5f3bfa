//! What the engine needs of a container engine, in words of its own.
//!
//! Everything that is made carries [`Labels`], from the call that makes it on, so that it is found again
//! whoever dies in between. Names are given by the caller and unique on a daemon: making what exists
//! already is [`ContainerError::Exists`], which a caller that repeats a step takes for done after a look
//! at the labels. Removing what is not there is no error.

pub mod calls;
pub mod scripted;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use async_trait::async_trait;
use futures::stream::BoxStream;
use orchestrator_protocol::event::OutputStream;

/// Labels of a container, a network, a volume or an image.
pub type Labels = BTreeMap<String, String>;

/// Why a container engine did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    /// It does not answer: it may later.
    #[error("Docker cannot be reached at {at}: {reason}")]
    Away {
        /// Where it was looked for.
        at: String,
        /// The system's words.
        reason: String,
    },
    /// There is no such thing.
    #[error("there is no {what} '{name}'")]
    NotFound {
        /// `container`, `network`, `volume` or `image`.
        what: &'static str,
        /// Which.
        name: String,
    },
    /// There is one of that name already.
    #[error("there is a {what} '{name}' already")]
    Exists {
        /// `container`, `network` or `volume`.
        what: &'static str,
        /// Which.
        name: String,
    },
    /// The addresses that a network was to have are taken.
    #[error("the subnet {subnet} overlaps the network {}", holder.as_deref().unwrap_or("of something else on the host"))]
    SubnetTaken {
        /// What was asked for.
        subnet: String,
        /// The network that holds it, with its subnet.
        holder: Option<String>,
    },
    /// It cannot do what was asked, now or later: a limit that it does not enforce, an option that it
    /// does not know.
    #[error("{0}")]
    Unsupported(String),
    /// It refused, with its own words.
    #[error("Docker refused {doing}: {reason}")]
    Refused {
        /// What it was to do.
        doing: String,
        /// Its words.
        reason: String,
    },
}

/// The result of a call.
pub type Result<T, E = ContainerError> = std::result::Result<T, E>;

/// What is known of a daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Daemon {
    /// Its release, such as `20.10.24`.
    pub version: String,
    /// The version of its interface that is spoken.
    pub api_version: String,
    /// `amd64`, `arm64`.
    pub architecture: String,
    /// Whether the size of a container's own file system can be limited, and enforced.
    pub enforces_disk: bool,
    /// Why not.
    pub disk_reason: Option<String>,
}

/// An image on the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its identifier: the digest of its content.
    pub id: String,
    /// Its labels.
    pub labels: Labels,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// When it was made, in seconds since 1970.
    pub created_at_sec: i64,
    /// Its names.
    pub names: Vec<String>,
}

/// A network to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkSpec {
    /// Its name.
    pub name: String,
    /// Its addresses; a free range without it.
    pub subnet: Option<String>,
    /// Whether nothing outside can be reached from it.
    pub internal: bool,
    /// Its labels.
    pub labels: Labels,
}

/// A network that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// Its identifier.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its first IPv4 subnet.
    pub subnet: Option<String>,
    /// Its labels.
    pub labels: Labels,
}

/// A volume that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: Labels,
}

/// Something that is mounted in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The volume's name.
    pub volume: String,
    /// Where. Absolute.
    pub path: String,
    /// Whether it cannot be written.
    pub read_only: bool,
}

/// A container to make.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ContainerSpec {
    /// Its name.
    pub name: String,
    /// The image, by name or identifier.
    pub image: String,
    /// Its host name.
    pub hostname: String,
    /// What it runs.
    pub command: Vec<String>,
    /// Variables of what it runs.
    pub env: BTreeMap<String, String>,
    /// Its labels.
    pub labels: Labels,
    /// The network that it is on, by name or identifier.
    pub network: String,
    /// The names by which others on the network reach it.
    pub aliases: Vec<String>,
    /// Its address, where it must be a certain one.
    pub address: Option<Ipv4Addr>,
    /// Names that are resolved inside without DNS, with their addresses.
    pub hosts: BTreeMap<String, Ipv4Addr>,
    /// What is mounted.
    pub mounts: Vec<Mount>,
    /// Processor time, in thousandths of a processor.
    pub cpu_millicores: Option<u64>,
    /// Memory in MiB, without swap on top.
    pub memory_mb: Option<u64>,
    /// The size of its own file system, in MiB.
    pub disk_mb: Option<u64>,
    /// Processes and threads at once.
    pub max_processes: Option<u64>,
    /// Whether it may do what only the host's root may.
    pub privileged: bool,
    /// Whether systemd is its first process: no init of ours then, and a cgroup of its own.
    pub systemd: bool,
    /// What it may do besides, as capabilities of Linux such as `NET_ADMIN`.
    pub capabilities: Vec<String>,
}

/// What a container does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContainerState {
    /// It was made and never started.
    Created,
    /// It runs.
    Running,
    /// It is frozen.
    Paused,
    /// It has ended.
    Exited {
        /// Its exit status.
        code: i64,
        /// Whether the kernel ended it because of its memory limit. `true` is certain; a daemon that did
        /// not notice says `false`.
        out_of_memory: bool,
    },
    /// It is being removed.
    Removing,
}

/// A container that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Its identifier.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its image's identifier.
    pub image: String,
    /// What it does.
    pub state: ContainerState,
    /// Its address on each network, by the network's name.
    pub addresses: BTreeMap<String, Ipv4Addr>,
    /// Its labels.
    pub labels: Labels,
}

/// A program to run in a container.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExecSpec {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Variables to add.
    pub env: BTreeMap<String, String>,
    /// As whom; as the container's user without it.
    pub user: Option<String>,
}

/// What comes from a program in a container, or from a container's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Bytes that were written, not split into lines.
    Bytes(OutputStream, Vec<u8>),
    /// It has ended, with this exit status. The last item of a program's output; a log has none.
    Exit(i64),
}

/// How much a container uses at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Processor time since its start, in nanoseconds. `None`, here and below, where the daemon does not
    /// measure it.
    pub cpu_ns: Option<u64>,
    /// Memory in bytes, without what the kernel only caches.
    pub memory_bytes: Option<u64>,
    /// Processes and threads.
    pub processes: Option<u64>,
    /// What it has written to its own file system, in bytes.
    pub disk_bytes: Option<u64>,
}

/// How far the fetching of an image is: what the daemon says, in a line.
pub type Progress<'a> = &'a (dyn Fn(String) + Send + Sync);

/// A container engine.
#[async_trait]
pub trait ContainerManager: Send + Sync + 'static {
    /// What is known of the daemon. Also says whether it answers.
    async fn daemon(&self) -> Result<Daemon>;
    /// The daemon's own identifier, which no other has.
    async fn daemon_id(&self) -> Result<String>;

    /// An image on the machine, by name or identifier; `None` where there is none.
    async fn image(&self, name: &str) -> Result<Option<Image>>;
    /// The images with all these labels.
    async fn images(&self, labels: &Labels) -> Result<Vec<Image>>;
    /// Fetches an image from its registry.
    async fn pull(&self, name: &str, progress: Progress<'_>) -> Result<()>;
    /// Makes an image out of a container's file system, and returns its identifier.
    async fn commit(&self, container: &str, name: &str, labels: &Labels) -> Result<String>;
    /// Removes an image.
    async fn remove_image(&self, id: &str) -> Result<()>;

    /// Makes a network.
    async fn create_network(&self, spec: &NetworkSpec) -> Result<Network>;
    /// The networks with all these labels; all of the daemon's with none.
    async fn networks(&self, labels: &Labels) -> Result<Vec<Network>>;
    /// Removes a network.
    async fn remove_network(&self, id: &str) -> Result<()>;

    /// Makes a volume, or takes the one that has this name and these labels.
    async fn create_volume(&self, name: &str, labels: &Labels) -> Result<()>;
    /// The volumes with all these labels.
    async fn volumes(&self, labels: &Labels) -> Result<Vec<Volume>>;
    /// Removes a volume.
    async fn remove_volume(&self, name: &str) -> Result<()>;

    /// Makes a container, and returns its identifier.
    async fn create_container(&self, spec: &ContainerSpec) -> Result<String>;
    /// Starts one; what runs already stays as it is.
    async fn start(&self, id: &str) -> Result<()>;
    /// Stops one as an operator would: SIGTERM, then SIGKILL after so many seconds.
    async fn stop(&self, id: &str, grace_sec: u32) -> Result<()>;
    /// Ends everything in it at once.
    async fn kill(&self, id: &str) -> Result<()>;
    /// Freezes it.
    async fn pause(&self, id: &str) -> Result<()>;
    /// Lets it go on.
    async fn unpause(&self, id: &str) -> Result<()>;
    /// One container; `None` where there is none.
    async fn container(&self, id: &str) -> Result<Option<Container>>;
    /// The containers with all these labels, also those that do not run.
    async fn containers(&self, labels: &Labels) -> Result<Vec<Container>>;
    /// Ends and removes a container, with its anonymous volumes.
    async fn remove_container(&self, id: &str) -> Result<()>;

    /// Runs a program, and streams what it prints until its exit status. Dropping the stream does not end
    /// the program.
    async fn exec(&self, id: &str, spec: &ExecSpec) -> Result<BoxStream<'static, Result<Output>>>;
    /// What the container's own process has printed.
    async fn logs(
        &self,
        id: &str,
        tail: Option<u64>,
        follow: bool,
    ) -> Result<BoxStream<'static, Result<Output>>>;
    /// Unpacks a tar archive into a directory that is there.
    async fn copy_in(&self, id: &str, directory: &str, archive: Vec<u8>) -> Result<()>;
    /// How much it uses.
    async fn usage(&self, id: &str) -> Result<Usage>;
}
