//! How the parts are put together, started and stopped.
//!
//! Order of the start: the storage (whose lock says that no other engine is here), the schedule from
//! what is stored, the doors, and only then new attempts. Order of the end: no new attempts, the doors,
//! what runs (finished, cancelled or left to the next engine), the storage.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use chrono::Utc;
use orchestrator_protocol::client::{Client, ClientError};
use orchestrator_protocol::request::{EngineMode, StopMode};
use orchestrator_protocol::service::Service;
use orchestrator_protocol::task::{DEFAULT_GRACE_MS, TaskId};
use orchestrator_runner::attempt::{Attempt, AttemptState};
use orchestrator_storage::filesystem::{FilesystemOptions, FilesystemStore};
use orchestrator_storage::{Store, StoreError, StoreResult};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};
use uuid::Uuid;

use crate::config::{Config, StorageType};
use crate::container_manager::DockerManager;
use crate::environments::TestEnvironments;
use crate::queue::{Queue, QueueOptions};
use crate::records::task_key;
use crate::service::EngineService;
use crate::storage::migrations::Migrations;
use crate::supervisor::Supervisor;
use crate::worker::Programs;
use crate::{dispatch, server, storage};

/// Between two looks for what has had its time.
const RETENTION_INTERVAL: Duration = Duration::from_secs(600);
/// How long an engine waits for the one before it, which serves nobody any more, to let go.
const HANDOVER_PATIENCE: Duration = Duration::from_secs(5);
const HANDOVER_INTERVAL: Duration = Duration::from_millis(20);
/// Between two looks for what could not be done after a commit.
const SWEEP_INTERVAL: Duration = Duration::from_secs(2);
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
        other @ (StorageType::SurrealdbEmbedded | StorageType::SurrealdbServer) => {
            bail!("this build has no storage '{}': use --storage-type filesystem", other.as_str())
        }
    }
}

/// Opens the filesystem backend. While another engine has it that serves nobody any more, because it is
/// about to end, this one waits for it.
fn open_filesystem(options: &FilesystemOptions, socket: &Path) -> StoreResult<FilesystemStore> {
    let deadline = Instant::now() + HANDOVER_PATIENCE;
    loop {
        match FilesystemStore::open(options.clone()) {
            Err(StoreError::InUse { .. }) => {
                let is_served = !matches!(Client::connect(socket, None), Err(ClientError::NotRunning { .. }));
                if is_served || Instant::now() >= deadline {
                    return Err(StoreError::InUse { path: options.data_dir.clone() });
                }
                std::thread::sleep(HANDOVER_INTERVAL);
            }
            other => return other,
        }
    }
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
        Self::on_store(config, store).await
    }

    /// The same, on a storage that is open already.
    pub async fn on_store(config: Config, store: Arc<dyn Store>) -> anyhow::Result<Self> {
        let config = Arc::new(config);
        let store = Arc::new(storage::switching(&config, store).await?);
        let programs = Programs::prepare(&config).context("cannot unpack the provisioning program")?;
        let options = QueueOptions {
            engine: Uuid::now_v7().to_string(),
            boot_id: orchestrator_runner::identity::boot_id().context("cannot read the machine's boot id")?,
            retry: config.retry,
            grace_ms: DEFAULT_GRACE_MS,
            group_limits: config.group_limits.clone(),
            max_parallel: config.max_parallel,
        };
        let queue = Arc::new(Queue::new(Arc::clone(&store) as Arc<dyn Store>, options));
        let docker = DockerManager::from_env().context("Docker's address cannot be read")?;
        let environments = Arc::new(TestEnvironments::new(
            Arc::clone(&queue),
            Arc::new(docker),
            &config,
            programs.taskservs(),
            owner(&config).context("cannot name the data directory")?,
        ));
        let (work, no_more, leave) = (TaskTracker::new(), CancellationToken::new(), CancellationToken::new());
        let supervisor = Arc::new(Supervisor::new(
            Arc::clone(&queue),
            Arc::clone(&config),
            programs.clone(),
            Arc::clone(&environments),
            work.clone(),
            leave.clone(),
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
            migrations: Migrations::new(store, Arc::clone(&config)),
            config: Arc::clone(&config),
            programs,
            started_at: Utc::now(),
            stop,
        });
        Ok(Self { config, queue, supervisor, service, stop_requests, work, no_more, leave })
    }

    /// What answers for this engine.
    pub fn service(&self) -> Arc<EngineService> {
        Arc::clone(&self.service)
    }

    /// Serves and works until somebody stops it: by a request, or by SIGINT or SIGTERM, which leave
    /// scripts to the next engine.
    pub async fn run(mut self) -> anyhow::Result<()> {
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
        info!(
            data_dir = %self.config.data_dir.display(),
            socket = %self.config.socket.display(),
            http = self.config.http.map(|address| address.to_string()),
            "ready"
        );
        self.wait_for_stop().await?;
        self.queue.set_mode(EngineMode::Stopping);
        self.no_more.cancel();
        for housekeeping in [retention, sweeper, looking_after] {
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
        // The socket goes last, so that whoever waits for its end can start the next engine at once.
        self.queue.store().close().await.context("cannot close the storage")?;
        if let Err(error) = std::fs::remove_file(&self.config.socket) {
            warn!(%error, "the socket cannot be removed");
        }
        info!(left_running = self.queue.running_count(), "stopped");
        Ok(())
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

    /// Waits for a word, and for what that word says must have happened before the end.
    async fn wait_for_stop(&mut self) -> anyhow::Result<()> {
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
                () = idle => return Ok(()),
                mode = self.stop_requests.recv() => mode.unwrap_or(StopMode::Now),
            };
            match mode {
                StopMode::Now => {
                    self.leave.cancel();
                    return Ok(());
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

/// Waits until no attempt is under way.
async fn work_done(queue: &Queue) {
    let mut events = queue.listen();
    while queue.running_count() > 0 {
        // Lagging does no harm: only the count matters. The bound covers an event between the two looks.
        let _ = tokio::time::timeout(Duration::from_secs(1), events.next()).await;
    }
}

/// Makes good, at intervals, what could not be done after a commit.
async fn sweep(queue: Arc<Queue>) {
    let mut interval = tokio::time::interval(SWEEP_INTERVAL);
    loop {
        interval.tick().await;
        queue.sweep().await;
    }
}

/// Removes what has had its time, at intervals. First what an engine that died in the middle of that
/// has left.
async fn retain(queue: Arc<Queue>, config: Arc<Config>) {
    match orphans(&queue, &config).await {
        Ok(orphans) => remove_attempts(&config, &orphans),
        Err(error) => warn!(%error, "logs that belong to no task cannot be looked for"),
    }
    let mut interval = tokio::time::interval(RETENTION_INTERVAL);
    loop {
        interval.tick().await;
        match queue.retain(&config.retention, Utc::now()).await {
            Ok(removed) if removed.is_empty() => {}
            Ok(removed) => {
                remove_attempts(&config, &removed);
                info!(tasks = removed.len(), "removed what has had its time");
            }
            Err(error) => warn!(%error, "what has had its time cannot be removed now"),
        }
    }
}

/// Tasks whose attempts are kept and that are stored no more.
async fn orphans(queue: &Queue, config: &Config) -> anyhow::Result<Vec<TaskId>> {
    let mut orphans = Vec::new();
    for entry in std::fs::read_dir(config.attempts_dir())? {
        let entry = entry?;
        let Ok(id) = entry.file_name().to_string_lossy().parse::<TaskId>() else { continue };
        if queue.store().get(&task_key(id)).await?.is_some() {
            continue;
        }
        if has_running_attempt(&entry.path())? {
            warn!(task = %id, "a script of a task that is not stored is running; it is left alone");
        } else {
            orphans.push(id);
        }
    }
    Ok(orphans)
}

fn has_running_attempt(task: &Path) -> std::io::Result<bool> {
    for attempt in std::fs::read_dir(task)? {
        if matches!(Attempt::open(&attempt?.path())?.state()?, AttemptState::Running { .. }) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn remove_attempts(config: &Config, tasks: &[TaskId]) {
    for id in tasks {
        let directory = config.attempts_dir().join(id.to_string());
        if let Err(error) = std::fs::remove_dir_all(directory)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            warn!(task = %id, %error, "the logs of a removed task cannot be removed");
        }
    }
}
