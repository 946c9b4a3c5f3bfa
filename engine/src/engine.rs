//! How the parts are put together, started and stopped.
//!
//! Order of the start: the storage (whose lock says that no other engine is here), the schedule from
//! what is stored, the doors, and only then new attempts. Order of the end: no new attempts, the doors,
//! what runs (finished, cancelled or left to the next engine), the storage.
//!
//! On a storage that several engines share it takes its seat among them first ([`crate::membership`]). When
//! it loses its seat it ends as in a crash, and whoever runs it opens it again.

mod housekeeping;

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use chrono::Utc;
use orchestrator_protocol::client::{Client, ClientError};
use orchestrator_protocol::request::{EngineMode, StopMode};
use orchestrator_protocol::service::Service;
use orchestrator_protocol::task::DEFAULT_GRACE_MS;
use orchestrator_storage::filesystem::{FilesystemOptions, FilesystemStore};
use orchestrator_storage::migration::live::SwitchingStore;
use orchestrator_storage::{Store, StoreError, StoreResult};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tracing::{error, info, warn};
use uuid::Uuid;

use crate::config::{Config, StorageType};
use crate::container_manager::DockerManager;
use crate::containers::ContainerManager;
use crate::environments::TestEnvironments;
use crate::follow::Follower;
use crate::membership::{About, LeaseTimes, Membership};
use crate::queue::{Queue, QueueOptions};
use crate::service::EngineService;
use crate::storage::migrations::Migrations;
use crate::supervisor::Supervisor;
use crate::worker::Programs;
use crate::{dispatch, labels, server, storage};
use housekeeping::{look_around, retain, sweep};

/// How long an engine waits for the one before it, which serves nobody any more, to let go.
const HANDOVER_PATIENCE: Duration = Duration::from_secs(5);
const HANDOVER_INTERVAL: Duration = Duration::from_millis(20);
/// How long Docker may take to say who it is.
const DOCKER_PATIENCE: Duration = Duration::from_secs(5);
/// How long the doors may take to close.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);

/// Opens the storage that the configuration names.
pub async fn open_store(config: &Config) -> anyhow::Result<Arc<dyn Store>> {
    match config.storage_type {
        StorageType::Filesystem => {
            let options = FilesystemOptions::new(&config.storage_dir);
            let socket = config.socket.clone();
            let store = tokio::task::spawn_blocking(move || open_filesystem(&options, &socket)).await??;
            Ok(Arc::new(store))
        }
        StorageType::SurrealdbEmbedded | StorageType::SurrealdbServer => open_surrealdb(config).await,
    }
}

/// Opens one of the backends on SurrealDB.
#[cfg(feature = "surrealdb")]
async fn open_surrealdb(config: &Config) -> anyhow::Result<Arc<dyn Store>> {
    use orchestrator_storage::surrealdb::{Credentials, EmbeddedOptions, ServerOptions, SurrealStore};

    if config.storage_type == StorageType::SurrealdbEmbedded {
        let options = EmbeddedOptions::new(&config.data_dir);
        return Ok(Arc::new(SurrealStore::open_embedded(options).await?));
    }
    let settings = config.surrealdb.clone();
    let Some(url) = settings.url else {
        bail!("--storage-type surrealdb-server needs the server's address: use --surrealdb-url")
    };
    let mut options = ServerOptions::new(url);
    options.namespace = settings.namespace.unwrap_or(options.namespace);
    options.database = settings.database.unwrap_or(options.database);
    options.credentials = match (settings.username, settings.password) {
        (Some(username), Some(password)) => Some(Credentials { username, password }),
        (None, None) => None,
        (Some(_), None) => bail!("the SurrealDB user has no password: use --surrealdb-password-file"),
        (None, Some(_)) => bail!("the SurrealDB password has no user: use --surrealdb-username"),
    };
    Ok(Arc::new(SurrealStore::open_server(options).await?))
}

/// Says what to do for a storage that is not in this build.
#[cfg(not(feature = "surrealdb"))]
async fn open_surrealdb(config: &Config) -> anyhow::Result<Arc<dyn Store>> {
    bail!("this build has no storage '{}': build with --features surrealdb", config.storage_type.as_str())
}

/// Opens the filesystem backend. While another engine has it that serves nobody any more, because it is
/// about to end, this one waits for it.
fn open_filesystem(options: &FilesystemOptions, socket: &Path) -> StoreResult<FilesystemStore> {
    handed_over(&options.data_dir, socket, || FilesystemStore::open(options.clone()))
}

/// Takes something that one engine of a data directory has at a time.
fn handed_over<T>(
    data_dir: &Path,
    socket: &Path,
    mut take: impl FnMut() -> StoreResult<T>,
) -> StoreResult<T> {
    let deadline = Instant::now() + HANDOVER_PATIENCE;
    loop {
        match take() {
            Err(StoreError::InUse { .. }) => {
                let is_served = !matches!(Client::connect(socket, None), Err(ClientError::NotRunning { .. }));
                if is_served || Instant::now() >= deadline {
                    return Err(StoreError::InUse { path: data_dir.to_owned() });
                }
                std::thread::sleep(HANDOVER_INTERVAL);
            }
            other => return other,
        }
    }
}

/// The lock of a data directory whose records are elsewhere. The system lets go of it when the process ends.
fn lock_data_dir(data_dir: &Path) -> StoreResult<File> {
    let path = data_dir.join("lock");
    let mut options = OpenOptions::new();
    let opened = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = opened.map_err(|source| StoreError::Io { path: path.clone(), source })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse { path: data_dir.to_owned() }),
        Err(TryLockError::Error(source)) => Err(StoreError::Io { path, source }),
    }
}

/// Why an engine has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Somebody has stopped it.
    Stopped,
    /// It has lost its seat among the engines of its store: to be opened again.
    Unseated,
}

/// What an engine has that is not alone on its store.
struct Sharing {
    membership: Arc<Membership>,
    follower: Follower,
    /// Renews the lease.
    keeper: AbortOnDropHandle<()>,
    /// Held as long as this engine is the one of its data directory.
    lock: File,
}

/// An engine that is ready.
pub struct Engine {
    config: Arc<Config>,
    queue: Arc<Queue>,
    supervisor: Arc<Supervisor>,
    service: Arc<EngineService>,
    stop_requests: mpsc::Receiver<StopMode>,
    /// Attempts and claims.
    work: TaskTracker,
    /// Fires when no new attempts are to be begun, and when supervisors are to leave their scripts.
    no_more: CancellationToken,
    leave: CancellationToken,
    sharing: Option<Sharing>,
}

impl Engine {
    /// Opens the storage, rebuilds the schedule and takes in what an engine before has left. Nothing new
    /// is started yet.
    pub async fn open(config: Config) -> anyhow::Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(config.attempts_dir())
            .with_context(|| format!("cannot create the data directory {}", config.data_dir.display()))?;
        let (config, store) = storage::open_truth(config).await?;
        if config.storage_type.is_shared() {
            return Self::on_shared_store(config, store, LeaseTimes::default()).await;
        }
        Self::on_store(config, store).await
    }

    /// The same, on a storage that is open already and that no other engine uses.
    pub async fn on_store(config: Config, store: Arc<dyn Store>) -> anyhow::Result<Self> {
        let member = owner(&config).context("cannot name the data directory")?;
        let switching = Arc::new(SwitchingStore::new(store));
        let store = Arc::clone(&switching) as Arc<dyn Store>;
        let programs = Programs::prepare(&config).context("cannot unpack the provisioning program")?;
        let docker = DockerManager::from_env().context("Docker's address cannot be read")?;
        let about = about(&config, config.labels.clone())?;
        Self::build(config, switching, store, (programs, Arc::new(docker)), member, about, None).await
    }

    /// The same, on a storage that is open already and that other engines may use. All of them must have
    /// the same `times`.
    pub async fn on_shared_store(
        config: Config,
        store: Arc<dyn Store>,
        times: LeaseTimes,
    ) -> anyhow::Result<Self> {
        let (data_dir, socket) = (config.data_dir.clone(), config.socket.clone());
        let lock =
            tokio::task::spawn_blocking(move || handed_over(&data_dir, &socket, || lock_data_dir(&data_dir)))
                .await??;
        let member = owner(&config).context("cannot name the data directory")?;
        let life = Uuid::new_v4().to_string();
        let switching = Arc::new(SwitchingStore::guarded(store).await.context("cannot read the storage")?);
        let store = Arc::clone(&switching) as Arc<dyn Store>;
        let programs = Programs::prepare(&config).context("cannot unpack the provisioning program")?;
        let docker = DockerManager::from_env().context("Docker's address cannot be read")?;
        let mut labels = config.labels.clone();
        labels.insert(labels::WORKER.to_owned(), programs.digest().to_owned());
        if let Ok(Ok(id)) = tokio::time::timeout(DOCKER_PATIENCE, docker.daemon_id()).await
            && !id.is_empty()
        {
            labels.insert(labels::DOCKER.to_owned(), id);
        }
        let about = about(&config, labels)?;
        let membership =
            Membership::join(store, member.clone(), life, about.clone(), times, &config.data_dir)
                .await
                .context("cannot take a seat among the engines of the storage")?;
        // From here on it may take long to read what is stored.
        let keeper = {
            let membership = Arc::clone(&membership);
            AbortOnDropHandle::new(tokio::spawn(async move { membership.keep().await }))
        };
        let seated = Arc::clone(membership.store());
        // Asked before anything is read, so that nothing comes in between.
        let after = seated.sequence().await.context("cannot read the storage")?;
        let attempts_dir = config.attempts_dir();
        let store = Arc::clone(&seated) as Arc<dyn Store>;
        let programs = (programs, Arc::new(docker));
        let mut engine =
            Self::build(config, switching, store, programs, member, about, Some(&membership)).await?;
        let follower = Follower::new(Arc::clone(&engine.queue), seated, attempts_dir, after);
        engine.sharing = Some(Sharing { membership, follower, keeper, lock });
        Ok(engine)
    }

    /// `store` is what the engine works on: `switching`, or what stands before it.
    async fn build(
        config: Config,
        switching: Arc<SwitchingStore>,
        store: Arc<dyn Store>,
        (programs, docker): (Programs, Arc<DockerManager>),
        member: String,
        about: About,
        membership: Option<&Arc<Membership>>,
    ) -> anyhow::Result<Self> {
        let config = Arc::new(config);
        let options = QueueOptions {
            engine: member.clone(),
            is_shared: membership.is_some(),
            labels: about.labels.clone(),
            boot_id: orchestrator_runner::identity::boot_id().context("cannot read the machine's boot id")?,
            retry: config.retry,
            grace_ms: DEFAULT_GRACE_MS,
            group_limits: config.group_limits.clone(),
            max_parallel: config.max_parallel,
        };
        let queue = Arc::new(Queue::new(store, options));
        let environments = Arc::new(TestEnvironments::new(
            Arc::clone(&queue),
            docker,
            &config,
            programs.taskservs(),
            member,
        ));
        let (work, no_more, leave) = (TaskTracker::new(), CancellationToken::new(), CancellationToken::new());
        let supervisor = Arc::new(Supervisor::new(
            Arc::clone(&queue),
            Arc::clone(&config),
            programs.clone(),
            Arc::clone(&environments),
            work.clone(),
            leave.clone(),
            membership.cloned(),
        ));
        let found = queue.recover().await.context("cannot read the queue")?;
        info!(running = found.len(), "queue read");
        for found in found {
            supervisor.take_in(found);
        }
        let (stop, stop_requests) = mpsc::channel(4);
        let service = Arc::new(EngineService {
            queue: Arc::clone(&queue),
            environments,
            migrations: Migrations::new(switching, Arc::clone(&config)),
            config: Arc::clone(&config),
            programs,
            started_at: about.started_at,
            about,
            membership: membership.cloned(),
            stop,
        });
        let sharing = None;
        Ok(Self { config, queue, supervisor, service, stop_requests, work, no_more, leave, sharing })
    }

    /// What answers for this engine.
    pub fn service(&self) -> Arc<EngineService> {
        Arc::clone(&self.service)
    }

    /// Serves and works until somebody stops it: by a request, or by SIGINT or SIGTERM, which leave
    /// scripts to the next engine; or until it has lost its seat.
    pub async fn run(mut self) -> anyhow::Result<Ended> {
        let close = CancellationToken::new();
        let doors = TaskTracker::new();
        let listener = server::listen(&self.config.socket)
            .with_context(|| format!("cannot listen on {}", self.config.socket.display()))?;
        self.open_http(&doors, &close).await?;
        doors.spawn(server::serve(listener, Arc::clone(&self.service) as Arc<dyn Service>, close.clone()));
        let dispatcher = tokio::spawn(dispatch::run(
            Arc::clone(&self.queue),
            Arc::clone(&self.supervisor),
            self.work.clone(),
            self.no_more.clone(),
        ));
        let retention = tokio::spawn(retain(Arc::clone(&self.queue), Arc::clone(&self.config)));
        let sweeper = tokio::spawn(sweep(Arc::clone(&self.queue)));
        let environments = Arc::clone(&self.service.environments);
        let looking_after = tokio::spawn(async move { environments.look_after().await });
        let mut housekeeping = vec![retention, sweeper, looking_after];
        let mut membership = None;
        if let Some(Sharing { membership: own, follower, keeper, lock }) = self.sharing.take() {
            housekeeping.push(tokio::spawn(follower.run()));
            housekeeping.push(tokio::spawn(look_around(Arc::clone(&self.queue), Arc::clone(&own))));
            membership = Some((own, keeper, lock));
        }
        info!(
            data_dir = %self.config.data_dir.display(),
            socket = %self.config.socket.display(),
            http = self.config.http.map(|address| address.to_string()),
            "ready"
        );
        let lost = membership.as_ref().map(|(membership, ..)| membership.store().lost().clone());
        let ended = self.wait_for_stop(lost.unwrap_or_default()).await?;
        self.queue.set_mode(EngineMode::Stopping);
        self.no_more.cancel();
        for housekeeping in housekeeping {
            housekeeping.abort();
            // Its end is a cancellation. Until then it holds the storage.
            let _ = housekeeping.await;
        }
        close.cancel();
        doors.close();
        if tokio::time::timeout(CLOSE_PATIENCE, doors.wait()).await.is_err() {
            warn!("a client does not let go of its connection");
        }
        if let Err(error) = dispatcher.await {
            error!(%error, "the dispatcher has failed");
        }
        self.work.close();
        self.work.wait().await;
        if let Some((membership, keeper, _lock)) = &membership {
            keeper.abort();
            if ended == Ended::Stopped
                && self.queue.running_count() == 0
                && let Err(error) = membership.leave().await
            {
                warn!(%error, "the others cannot be told that this engine has left");
            }
        }
        // The socket goes last, so that whoever waits for its end can start the next engine at once.
        match (self.queue.store().close().await, ended) {
            (Err(error), Ended::Unseated) => warn!(%error, "the storage cannot be closed"),
            (closed, _) => closed.context("cannot close the storage")?,
        }
        if let Err(error) = std::fs::remove_file(&self.config.socket) {
            warn!(%error, "the socket cannot be removed");
        }
        info!(left_running = self.queue.running_count(), ?ended, "stopped");
        Ok(ended)
    }

    #[cfg(feature = "http")]
    async fn open_http(&self, doors: &TaskTracker, close: &CancellationToken) -> anyhow::Result<()> {
        let Some(address) = self.config.http else { return Ok(()) };
        orchestrator_api::check_address(address)?;
        let listener = tokio::net::TcpListener::bind(address).await.with_context(|| {
            format!("cannot listen on {address}: choose another port with --port, or use --no-http")
        })?;
        let (service, close) = (Arc::clone(&self.service) as Arc<dyn Service>, close.clone());
        doors.spawn(async move {
            let closed = async move { close.cancelled().await };
            if let Err(error) = orchestrator_api::serve(listener, service, closed).await {
                error!(%error, "HTTP is served no more");
            }
        });
        Ok(())
    }

    #[cfg(not(feature = "http"))]
    async fn open_http(&self, _doors: &TaskTracker, _close: &CancellationToken) -> anyhow::Result<()> {
        match self.config.http {
            Some(_) => bail!("this build has no HTTP: use --no-http"),
            None => Ok(()),
        }
    }

    /// Waits for a word, and for what that word says must have happened before the end; or for the loss of
    /// its seat.
    async fn wait_for_stop(&mut self, lost: CancellationToken) -> anyhow::Result<Ended> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut draining = false;
        loop {
            let queue = Arc::clone(&self.queue);
            let idle =
                async move { if draining { work_done(&queue).await } else { std::future::pending().await } };
            let mode = tokio::select! {
                _ = interrupt.recv() => StopMode::Now,
                _ = terminate.recv() => StopMode::Now,
                () = idle => return Ok(Ended::Stopped),
                () = lost.cancelled() => {
                    warn!("this engine has lost its seat: others take over its work; taking a new one");
                    self.leave.cancel();
                    return Ok(Ended::Unseated);
                }
                mode = self.stop_requests.recv() => mode.unwrap_or(StopMode::Now),
            };
            match mode {
                StopMode::Now => {
                    self.leave.cancel();
                    return Ok(Ended::Stopped);
                }
                StopMode::Drain => {
                    info!(running = self.queue.running_count(), "taking nothing new, finishing what runs");
                    self.queue.set_mode(EngineMode::Draining);
                    draining = true;
                }
                StopMode::Cancel => {
                    self.queue.set_mode(EngineMode::Draining);
                    for (id, _) in self.queue.running() {
                        if let Err(error) = self.queue.cancel(id, "the engine was stopped").await {
                            warn!(task = %id, %error, "cannot be cancelled");
                        }
                    }
                    draining = true;
                }
            }
        }
    }
}

/// What names this data directory, in Docker, over the lives of its engines: made once.
fn owner(config: &Config) -> std::io::Result<String> {
    let path = config.data_dir.join("owner");
    match std::fs::read_to_string(&path) {
        Ok(owner) if !owner.trim().is_empty() => Ok(owner.trim().to_owned()),
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => {
            let owner = Uuid::new_v4().to_string();
            let scratch = config.data_dir.join(".owner");
            std::fs::write(&scratch, &owner)?;
            std::fs::rename(&scratch, &path)?;
            Ok(owner)
        }
    }
}

/// What an engine says of itself to the others.
fn about(config: &Config, labels: BTreeMap<String, String>) -> anyhow::Result<About> {
    Ok(About {
        host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        pid: std::process::id(),
        boot_id: orchestrator_runner::identity::boot_id().context("cannot read the machine's boot id")?,
        started_at: Utc::now(),
        data_dir: config.data_dir.to_string_lossy().into_owned(),
        socket: config.socket.to_string_lossy().into_owned(),
        release: env!("CARGO_PKG_VERSION").into(),
        labels,
    })
}

/// Waits until no attempt is under way.
async fn work_done(queue: &Queue) {
    let mut events = queue.listen();
    while queue.running_count() > 0 {
        // Lagging does no harm: only the count matters. The bound covers an event between the two looks.
        let _ = tokio::time::timeout(Duration::from_secs(1), events.next()).await;
    }
}
