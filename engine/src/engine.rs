//! How the parts are put together, started and stopped.
//!
//! Order of the start: the storage (whose lock says that no other engine is here), the schedule from
//! what is stored, the doors, and only then new attempts. Order of the end: no new attempts, the doors,
//! what runs (finished, cancelled or left to the next engine), the storage.
//!
//! On a storage that several engines share it takes its seat among them first ([`crate::membership`]). When
//! it loses its seat it ends as in a crash, and whoever runs it opens it again.

mod doors;
mod housekeeping;
mod relay;

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context;
use chrono::Utc;
use orchestrator_protocol::request::{EngineMode, StopMode};
use orchestrator_protocol::task::DEFAULT_GRACE_MS;
use orchestrator_storage::migration::live::SwitchingStore;
use orchestrator_storage::migration::state::renew_state;
use orchestrator_storage::{Store, Table};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tracing::{error, info, warn};
use uuid::Uuid;

use crate::config::Config;
use crate::container_manager::DockerManager;
use crate::containers::ContainerManager;
use crate::environments::TestEnvironments;
use crate::follow::Follower;
use crate::membership::{About, LeaseTimes, Membership, release_scripts};
use crate::queue::takeover::end_leases;
use crate::queue::{Queue, QueueOptions};
use crate::service::EngineService;
use crate::storage::migrations::Migrations;
use crate::storage::open::lock_data_dir;
use crate::supervisor::Supervisor;
use crate::worker::Programs;
use crate::{dispatch, labels, storage};
pub use doors::Doors;
use housekeeping::{look_around, retain, sweep};

/// How long Docker may take to say who it is.
const DOCKER_PATIENCE: Duration = Duration::from_secs(5);

/// Between two attempts to call off what runs.
const CALL_OFF_INTERVAL: Duration = Duration::from_secs(1);

/// Why an engine has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// Somebody has stopped it.
    Stopped,
    /// It has lost its seat among the engines of its store: to be opened again.
    Unseated,
    /// Its storage failed, and must be opened again.
    Failed,
    /// Its records have moved to a storage that others may use too, or away from one: to be opened again there.
    Moved,
}

/// The signals that stop an engine. Held over all lives of a process: one that comes while nobody listens is
/// lost.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Listens to them from here on, for the rest of the process.
    ///
    /// # Errors
    /// Those of the system.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for SIGINT or SIGTERM.
    pub async fn stop(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// What an engine has that is not alone on its store.
struct Sharing {
    membership: Arc<Membership>,
    follower: Follower,
    /// Renews the lease.
    keeper: AbortOnDropHandle<()>,
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
    /// Held as long as this engine is the one of its data directory.
    _lock: Option<File>,
}

impl Engine {
    /// Opens the storage, rebuilds the schedule and takes in what an engine before has left. Nothing new
    /// is started yet.
    ///
    /// # Errors
    /// When the storage or what else it needs cannot be opened.
    pub async fn open(config: Config) -> anyhow::Result<Self> {
        Self::open_with(config, storage::open_truth).await
    }

    /// The same for an engine that was open before: an empty storage is not made in the place of its own.
    ///
    /// # Errors
    /// As there, and when there is no storage.
    pub async fn open_again(config: Config) -> anyhow::Result<Self> {
        Self::open_with(config, storage::reopen_truth).await
    }

    async fn open_with<F>(config: Config, open: impl FnOnce(Config) -> F) -> anyhow::Result<Self>
    where
        F: Future<Output = anyhow::Result<(Config, Arc<dyn Store>)>>,
    {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(config.attempts_dir())
            .with_context(|| format!("cannot create the data directory {}", config.data_dir.display()))?;
        let lock = lock_data_dir(&config).await?;
        let (config, store) = open(config).await?;
        if !config.storage_type.is_shared() {
            // Where the records have come from a server, the one before may have ended before it could do this.
            let_scripts_go_on(&*store, &config).await;
        }
        let engine = if config.storage_type.is_shared() {
            Self::on_shared_store(config, store, LeaseTimes::default()).await?
        } else {
            Self::on_store(config, store).await?
        };
        Ok(Self { _lock: Some(lock), ..engine })
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
        let member = owner(&config).context("cannot name the data directory")?;
        let life = Uuid::new_v4().to_string();
        let switching =
            SwitchingStore::guarded(Arc::clone(&store)).await.context("cannot read the storage")?;
        let (switching, raw) = (Arc::new(switching), store);
        let store = Arc::clone(&switching) as Arc<dyn Store>;
        let programs = Programs::prepare(&config).context("cannot unpack the provisioning program")?;
        let docker = DockerManager::from_env().context("Docker's address cannot be read")?;
        let mut labels = config.labels.clone();
        labels.insert(labels::WORKER.to_owned(), programs.digest().to_owned());
        let mut about = about(&config, labels)?;
        let membership =
            Membership::join(store, member.clone(), life, about.clone(), times, &config.data_dir)
                .await
                .context("cannot take a seat among the engines of the storage")?;
        // From here on nobody moves the records without this engine's knowledge.
        renew_state(&*raw).await.context("cannot join the engines of the storage")?;
        // From here on it may take long to read what is stored.
        let keeper = {
            let membership = Arc::clone(&membership);
            AbortOnDropHandle::new(tokio::spawn(async move { membership.keep().await }))
        };
        // Not before it has its seat: its last lease may be running out.
        if let Ok(Ok(id)) = tokio::time::timeout(DOCKER_PATIENCE, docker.daemon_id()).await
            && !id.is_empty()
        {
            about.labels.insert(labels::DOCKER.to_owned(), id);
            membership.describe(about.clone());
        }
        let seated = Arc::clone(membership.store());
        // Asked before anything is read, so that nothing comes in between.
        let after = seated.sequence().await.context("cannot read the storage")?;
        let attempts_dir = config.attempts_dir();
        let store = Arc::clone(&seated) as Arc<dyn Store>;
        let programs = (programs, Arc::new(docker));
        let mut engine =
            Self::build(config, switching, store, programs, member, about, Some(&membership)).await?;
        let follower = Follower::new(Arc::clone(&engine.queue), seated, attempts_dir, after);
        engine.sharing = Some(Sharing { membership, follower, keeper });
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
        let member_name = member.clone();
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
        let counts = queue.store().counts(Table::Task).await.context("cannot read the queue")?;
        info!(running = found.len(), "queue read");
        for found in found {
            supervisor.take_in(found);
        }
        let (stop, stop_requests) = mpsc::channel(4);
        let service = Arc::new(EngineService {
            queue: Arc::clone(&queue),
            environments,
            migrations: Migrations::new(switching, Arc::clone(&config), member_name),
            config: Arc::clone(&config),
            programs,
            started_at: about.started_at,
            about,
            membership: membership.cloned(),
            stop,
            known_counts: Mutex::new(counts),
        });
        let (sharing, _lock) = (None, None);
        Ok(Self { config, queue, supervisor, service, stop_requests, work, no_more, leave, sharing, _lock })
    }

    /// What answers for this engine.
    pub fn service(&self) -> Arc<EngineService> {
        Arc::clone(&self.service)
    }

    /// [`Engine::run_behind`] doors of its own.
    ///
    /// # Errors
    /// As there.
    pub async fn run(self) -> anyhow::Result<Ended> {
        self.run_behind(&mut Doors::default(), &mut Signals::new()?).await
    }

    /// Serves and works until somebody stops it: by a request, or by SIGINT or SIGTERM, which leave
    /// scripts to the next engine; or until it has lost its seat, or its records have moved. Then whoever
    /// comes waits at the doors for the engine that is opened again.
    ///
    /// # Errors
    /// When a door cannot be opened, or the storage cannot be closed.
    pub async fn run_behind(mut self, doors: &mut Doors, signals: &mut Signals) -> anyhow::Result<Ended> {
        doors.open(&self.config, &self.service).await?;
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
        if let Some(Sharing { membership: own, follower, keeper }) = self.sharing.take() {
            housekeeping.push(tokio::spawn(follower.run()));
            housekeeping.push(tokio::spawn(look_around(Arc::clone(&self.queue), Arc::clone(&own))));
            membership = Some((own, keeper));
        }
        info!(
            data_dir = %self.config.data_dir.display(),
            socket = %self.config.socket.display(),
            http = self.config.http.map(|address| address.to_string()),
            "ready"
        );
        let lost = membership.as_ref().map(|(membership, ..)| membership.store().lost().clone());
        let (ended, stop) = self.wait_for_stop(lost.unwrap_or_default(), signals).await;
        match &ended {
            Ended::Moved => doors.pause().await,
            Ended::Unseated => doors.refuse("the engine takes a new seat among the others").await,
            Ended::Failed => doors.refuse("the storage failed and is opened again").await,
            Ended::Stopped => {}
        }
        self.queue.set_mode(EngineMode::Stopping);
        self.no_more.cancel();
        for housekeeping in housekeeping {
            housekeeping.abort();
            // Its end is a cancellation. Until then it holds the storage.
            let _ = housekeeping.await;
        }
        if ended == Ended::Stopped {
            doors.close().await;
        }
        if let Err(error) = dispatcher.await {
            error!(%error, "the dispatcher has failed");
        }
        // What runs was finished or is left by now. What has only to be shipped may be tried once more.
        self.leave.cancel();
        self.work.close();
        self.work.wait().await;
        if let Some((membership, keeper)) = membership {
            keeper.abort();
            // Its end is a cancellation. Until then it may write a deadline.
            let _ = keeper.await;
            // Done now, because opening the engine again may take longer than a deadline.
            if ended == Ended::Moved && !self.service.migrations.here().storage_type.is_shared() {
                let_scripts_go_on(&**self.queue.store(), &self.config).await;
            }
            if ended == Ended::Stopped
                && self.queue.running_count() == 0
                && let Err(error) = membership.leave().await
            {
                warn!(%error, "the others cannot be told that this engine has left");
            }
        }
        match (self.queue.store().close().await, &ended) {
            (closed, Ended::Stopped) => closed.context("cannot close the storage")?,
            (Err(error), _) => warn!(%error, "the storage cannot be closed"),
            (Ok(()), _) => {}
        }
        // What was asked while this engine was leaving is for the next one, the last word first.
        let later = std::iter::from_fn(|| self.stop_requests.try_recv().ok()).last();
        if let Some(mode) = later.or(stop) {
            doors.keep(mode);
        }
        info!(left_running = self.queue.running_count(), "stopped");
        Ok(ended)
    }

    /// Waits for a word, and for what that word says must have happened before the end; or for the loss of
    /// its seat, for records that have moved, or for a storage that fails. A word that has not been carried out
    /// by then is returned, to be given to the next one.
    async fn wait_for_stop(
        &mut self,
        lost: CancellationToken,
        signals: &mut Signals,
    ) -> (Ended, Option<StopMode>) {
        let migrations = Arc::clone(&self.service.migrations);
        let mut moved = migrations.moved();
        let mut stopping = None;
        loop {
            let queue = Arc::clone(&self.queue);
            let draining = stopping.is_some();
            let idle = async move {
                match stopping {
                    None => std::future::pending().await,
                    Some(StopMode::Cancel) => call_off(&queue).await,
                    Some(_) => {}
                }
                work_done(&queue).await;
            };
            let mode = tokio::select! {
                () = signals.stop() => StopMode::Now,
                () = idle => return (Ended::Stopped, None),
                () = migrations.storage_failed() => {
                    warn!("the storage failed; opening it again");
                    self.leave.cancel();
                    return (Ended::Failed, stopping);
                }
                () = lost.cancelled() => {
                    self.leave.cancel();
                    if draining {
                        warn!("this engine has lost its seat: others take over its work, also what was to be called off");
                        return (Ended::Stopped, None);
                    }
                    warn!("this engine has lost its seat: others take over its work; taking a new one");
                    return (Ended::Unseated, None);
                }
                Ok(_) = moved.wait_for(|moved| *moved) => {
                    info!("the engine is opened again where its records are now");
                    self.leave.cancel();
                    return (Ended::Moved, stopping);
                }
                mode = self.stop_requests.recv() => mode.unwrap_or(StopMode::Now),
            };
            match mode {
                StopMode::Now => {
                    self.leave.cancel();
                    return (Ended::Stopped, None);
                }
                StopMode::Drain => {
                    info!(running = self.queue.running_count(), "taking nothing new, finishing what runs");
                    self.queue.set_mode(EngineMode::Draining);
                    stopping = Some(mode);
                }
                StopMode::Cancel => {
                    self.queue.set_mode(EngineMode::Draining);
                    stopping = Some(mode);
                }
            }
        }
    }
}

/// Lets what runs go on whatever becomes of a lease: this engine has the store for itself from here on.
async fn let_scripts_go_on(store: &dyn Store, config: &Config) {
    let released = async {
        let Some(member) = owner_of(&config.data_dir)? else { return Ok(()) };
        // In this order: nobody takes over what may go on.
        end_leases(store).await?;
        release_scripts(store, &member, &config.data_dir).await
    };
    if let Err(error) = released.await {
        warn!(error = format!("{error:#}"), "scripts that have a deadline keep it");
    }
}

/// What names a data directory, in Docker and among other engines, over the lives of its engines; `None` before
/// the first.
pub(crate) fn owner_of(data_dir: &Path) -> std::io::Result<Option<String>> {
    match std::fs::read_to_string(data_dir.join("owner")) {
        Ok(owner) => Ok(Some(owner.trim().to_owned()).filter(|owner| !owner.is_empty())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The same, made where there is none.
fn owner(config: &Config) -> std::io::Result<String> {
    if let Some(owner) = owner_of(&config.data_dir)? {
        return Ok(owner);
    }
    let owner = Uuid::new_v4().to_string();
    let scratch = config.data_dir.join(".owner");
    std::fs::write(&scratch, &owner)?;
    std::fs::rename(&scratch, config.data_dir.join("owner"))?;
    Ok(owner)
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

/// Calls off what runs, as long as it takes: the storage may be away or full.
async fn call_off(queue: &Queue) {
    loop {
        let mut is_done = true;
        for (id, _) in queue.running() {
            if let Err(error) = queue.cancel(id, "the engine was stopped").await {
                warn!(task = %id, %error, "cannot be cancelled; trying again");
                is_done = false;
            }
        }
        if is_done {
            return;
        }
        tokio::time::sleep(CALL_OFF_INTERVAL).await;
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
