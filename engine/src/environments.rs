//! Test environments between the queue and Docker: what comes in is checked and queued, what the queue
//! gives out is done, and what nobody looks after any more is removed.
//!
//! The records and the tasks are the queue's ([`crate::queue::environments`]); how nodes are made and
//! tested is the orchestrator's ([`crate::test_orchestrator`]). This puts the two together.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use chrono::Utc;
use futures::stream::BoxStream;
use orchestrator_protocol::environment::{
    CleanEnvironment, Environment, EnvironmentId, EnvironmentLogs, EnvironmentRequest, EnvironmentStatus,
    EnvironmentTask, InjectFault, ListTopologies, NamedTopology, Pruned, RunEnvironment,
};
use orchestrator_protocol::event::Item;
use orchestrator_protocol::task::{Action, AttemptOutcome, Task, TaskStatus};
use orchestrator_protocol::{Error, Result};
use tracing::{info, warn};

use crate::config::Config;
use crate::containers::ContainerManager;
use crate::events::{Listener, NoEvent};
use crate::queue::Queue;
use crate::queue::finish::Ending;
use crate::taskservs::Library;
use crate::test_environment::{Blueprint, Defaults, check_run};
use crate::test_orchestrator::{Change, Context, Environments, Failure, Options, TestOrchestrator};
use crate::topologies;

/// Between two looks for what nobody looks after.
const RECONCILE_INTERVAL: Duration = Duration::from_secs(60);
/// Between two looks for creations that were called off before they began.
const CANCELLATION_INTERVAL: Duration = Duration::from_secs(1);

/// The environments of one engine.
pub struct TestEnvironments {
    queue: Arc<Queue>,
    orchestrator: TestOrchestrator,
    own_taskservs: PathBuf,
    owner: String,
    defaults: Defaults,
}

/// The queue's records, as the orchestrator wants them.
struct Records(Weak<Queue>);

impl Records {
    fn queue(&self) -> Result<Arc<Queue>> {
        self.0.upgrade().ok_or_else(|| Error::unavailable("the engine is stopping"))
    }
}

#[async_trait]
impl Environments for Records {
    async fn get(&self, id: EnvironmentId) -> Result<Option<Environment>> {
        self.queue()?.find_environment(id).await
    }

    async fn update(&self, id: EnvironmentId, change: Change<'_>) -> Result<Environment> {
        self.queue()?.update_environment(id, change).await
    }

    async fn all(&self) -> Result<Vec<Environment>> {
        self.queue()?.all_environments().await
    }
}

impl TestEnvironments {
    /// The environments that a queue remembers, made by a container engine. `own_taskservs` is the folder
    /// with the project's own; `owner` stays the same over the lives of an engine.
    pub fn new(
        queue: Arc<Queue>,
        docker: Arc<dyn ContainerManager>,
        config: &Config,
        own_taskservs: PathBuf,
        owner: String,
    ) -> Self {
        let options = Options {
            engine: queue.options().engine.clone(),
            owner: owner.clone(),
            places: vec![own_taskservs.clone()],
            base_image: config.environments.base_image.clone(),
            logs_dir: config.data_dir.join("environments"),
            prepared_max_bytes: config.environments.prepared_max_bytes,
        };
        let defaults = Defaults { base_image: config.environments.base_image.clone() };
        let records = Arc::new(Records(Arc::downgrade(&queue)));
        let orchestrator = TestOrchestrator::new(docker, records, options);
        Self { queue, orchestrator, own_taskservs, owner, defaults }
    }

    fn library(&self, cwd: Option<&str>) -> Library {
        let users = cwd.map(|cwd| Path::new(cwd).join("taskservs"));
        Library { places: users.into_iter().chain([self.own_taskservs.clone()]).collect() }
    }

    /// Checks a request and queues the creation.
    pub async fn create(&self, principal: &str, request: &EnvironmentRequest) -> Result<EnvironmentTask> {
        let blueprint = Blueprint::plan(request, &self.library(request.cwd.as_deref()), &self.defaults)?;
        self.queue.create_environment(principal, request, &blueprint.name, &self.owner).await
    }

    /// Queues a run of the tests.
    pub async fn run(&self, request: &RunEnvironment) -> Result<EnvironmentTask> {
        let environment = self.queue.environment(request.id).await?;
        let nodes: Vec<&str> = environment.nodes.iter().map(|node| node.config.name.as_str()).collect();
        // One that is still being made has no nodes yet: its run finds out.
        if !nodes.is_empty() {
            check_run(&request.run, &nodes, request.cwd.as_deref(), "run.")?;
        }
        self.queue.run_environment(request).await
    }

    /// Queues the removal.
    pub async fn clean(&self, request: &CleanEnvironment) -> Result<EnvironmentTask> {
        self.queue.clean_environment(request.id, "the environment is being removed").await
    }

    /// Does something to the nodes, now.
    pub async fn inject(&self, request: &InjectFault) -> Result<Environment> {
        self.orchestrator.inject(request.id, &request.fault).await
    }

    /// The output of nodes.
    pub async fn logs(&self, request: &EnvironmentLogs) -> Result<BoxStream<'static, Result<Item>>> {
        self.orchestrator.logs(request).await
    }

    /// The topologies that there are.
    pub fn topologies(&self, request: &ListTopologies) -> Result<Vec<NamedTopology>> {
        topologies::list(request.cwd.as_deref().map(Path::new))
    }

    /// Removes prepared images that nothing uses.
    pub async fn prune(&self) -> Result<Pruned> {
        self.orchestrator.prune(true).await
    }

    /// Performs the action of a claimed task, and commits its end with what follows from it.
    pub async fn perform(&self, task: &Task, action: &Action, context: Context) -> Result<Ending> {
        let done = match action {
            Action::CreateEnvironment { environment } => {
                self.orchestrator.create(*environment, &context).await
            }
            Action::RunEnvironment { environment, run, cwd } => {
                let cwd = cwd.as_deref().map(Path::new);
                self.orchestrator.run(*environment, task.id, run, cwd, &context).await
            }
            Action::CleanEnvironment { environment } => self.orchestrator.clean(*environment, &context).await,
            Action::AddTasks { .. } => {
                return Err(Error::internal(format!("task {} is not about an environment", task.id)));
            }
        };
        Ok(match done {
            Ok(result) => Ending { result: Some(result), ..Ending::bare(AttemptOutcome::Succeeded, None) },
            Err(Failure { .. }) if context.cancel.is_cancelled() => {
                Ending::bare(AttemptOutcome::Cancelled, Some("it was called off".into()))
            }
            Err(Failure { error, permanent }) => {
                Ending { permanent, ..Ending::bare(AttemptOutcome::Failed, Some(error.message)) }
            }
        })
    }

    /// Commits the end of an action, and queues the removal where that is to follow.
    pub async fn finish(&self, task: &Task, id: EnvironmentId, ending: &Ending) -> Result<()> {
        let Some(environment) = self.queue.find_environment(id).await? else {
            return self.queue.finish(task.id, task.fence, ending).await;
        };
        let and_clean = follows_removal(task, &environment.request, ending.outcome);
        self.queue.finish_environment_task(task, ending, &environment, and_clean).await
    }

    /// Looks at intervals for what nobody looks after: environments whose time is over, and things in
    /// Docker without a record.
    pub async fn look_after(&self) {
        let mut interval = tokio::time::interval(RECONCILE_INTERVAL);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut events = self.queue.listen();
        loop {
            let is_full = tokio::select! {
                _ = interval.tick() => true,
                () = cancellation(&mut events) => false,
            };
            if let Err(error) = self.look_at_records().await {
                warn!(%error, "environments cannot be looked at now");
            }
            if !is_full {
                // Many may be called off at once: they are looked at together.
                tokio::time::sleep(CANCELLATION_INTERVAL).await;
                continue;
            }
            match self.orchestrator.reconcile().await {
                Ok(reconciled) if reconciled.removed.is_empty() => {}
                Ok(reconciled) => {
                    info!(removed = ?reconciled.removed, "removed what belonged to no environment")
                }
                // Without Docker there is nothing of ours to look after.
                Err(error) => tracing::debug!(%error, "what is in Docker cannot be looked at now"),
            }
        }
    }

    /// Environments whose time is over are removed, and so are those whose creation was called off while it
    /// waited. Others that nothing works on any more although they are not at rest say so.
    async fn look_at_records(&self) -> Result<()> {
        let now = Utc::now();
        for environment in self.queue.all_environments().await? {
            if environment.expires_at <= now && !is_gone(environment.status) {
                info!(environment = %environment.id, name = environment.name, "its time is over");
                // One that cannot be removed now keeps nobody from the others.
                if let Err(error) = self.queue.clean_environment(environment.id, "its time is over").await {
                    warn!(environment = %environment.id, %error, "it cannot be removed now");
                }
            } else if (environment.status.is_at_work() || was_never_made(&environment))
                && let Err(error) = self.look_at_work(&environment).await
            {
                warn!(environment = %environment.id, %error, "what became of its task cannot be found out now");
            }
        }
        Ok(())
    }

    async fn look_at_work(&self, environment: &Environment) -> Result<()> {
        let creation = match environment.task {
            Some(task) if was_never_made(environment) => self.queue.task(task).await.ok(),
            _ => None,
        };
        if creation.is_some_and(|task| task.status == TaskStatus::Cancelled) {
            // One that was called off while it ran is removed by its end; this one waited for its turn, or for
            // its next attempt.
            self.queue.clean_environment(environment.id, "its creation was called off").await?;
        } else {
            self.queue.abandon_environment(environment.id).await?;
        }
        Ok(())
    }
}

fn is_gone(status: EnvironmentStatus) -> bool {
    matches!(status, EnvironmentStatus::Cleaned | EnvironmentStatus::Cleaning)
}

/// Whether its creation has not come to its end, as far as the record says.
fn was_never_made(environment: &Environment) -> bool {
    environment.ready_at.is_none()
        && matches!(environment.status, EnvironmentStatus::Creating | EnvironmentStatus::Error)
}

/// Waits until a task is called off, or until that may have been missed.
async fn cancellation(events: &mut Listener) {
    loop {
        match events.next().await {
            Ok(event) if event.status != TaskStatus::Cancelled => {}
            Ok(_) | Err(NoEvent::Missed) => return,
            // The engine ends.
            Err(NoEvent::Closed) => std::future::pending().await,
        }
    }
}

/// Whether an environment is to be removed after an action has ended so.
fn follows_removal(task: &Task, request: &EnvironmentRequest, outcome: AttemptOutcome) -> bool {
    let orchestrator_protocol::task::Work::Action(action) = &task.work else { return false };
    match (action, outcome) {
        (Action::RunEnvironment { .. }, AttemptOutcome::Succeeded) => request.auto_cleanup,
        // What was called off before it was made is of no use to anybody.
        (Action::CreateEnvironment { .. }, AttemptOutcome::Cancelled) => true,
        (Action::CreateEnvironment { .. }, AttemptOutcome::Succeeded) => false,
        (Action::CreateEnvironment { .. } | Action::RunEnvironment { .. }, _) => {
            request.auto_cleanup && !request.keep_on_failure
        }
        (Action::CleanEnvironment { .. } | Action::AddTasks { .. }, _) => false,
    }
}

/// The environment that an action is about.
pub fn environment_of(action: &Action) -> Option<EnvironmentId> {
    match action {
        Action::CreateEnvironment { environment }
        | Action::RunEnvironment { environment, .. }
        | Action::CleanEnvironment { environment } => Some(*environment),
        Action::AddTasks { .. } => None,
    }
}
