//! Test environments as they are made, run, broken on purpose and removed.
//!
//! A [`TestOrchestrator`] works on a container engine ([`crate::containers`]) and on the environments'
//! records, and keeps nothing else: each step can be repeated, and finds what an attempt before it has
//! made by names that follow from the environment and the node, and by labels. So an engine that dies
//! anywhere goes on, or removes what there is.
//!
//! - `names`: labels and names. `addresses`: which addresses an environment has.
//! - `create`: from nothing to nodes that are ready; `prepare`: images with taskservs installed.
//! - `step`: scripts on nodes; `services`: the steps of taskservs; `watch`: disks.
//! - `run`: tests; `inject`: faults. `clean`: removal, and what is found when an engine starts.
//! - `logs`: what nodes have printed.

mod addresses;
mod clean;
mod create;
mod inject;
mod logs;
mod names;
mod prepare;
mod run;
mod services;
mod step;
mod watch;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use orchestrator_protocol::environment::{Environment, EnvironmentId, EnvironmentStatus};
use orchestrator_protocol::task::Progress;
use orchestrator_protocol::{Error, ErrorCode};
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

pub use self::clean::Reconciled;
use self::logs::Logs;
use self::prepare::Prepared;
use crate::containers::{ContainerError, ContainerManager, ContainerState};
use crate::taskservs::Library;
use crate::test_environment::{Blueprint, Defaults};

/// What an action of the queue has at hand while it works on an environment.
#[derive(Clone)]
pub struct Context {
    /// Calls the work off.
    pub cancel: CancellationToken,
    /// Is told how far it is.
    pub progress: Arc<dyn Fn(Progress) + Send + Sync>,
    /// Is told what happens, line by line.
    pub log: Arc<dyn Fn(&str) + Send + Sync>,
}

/// A change of a record. It may be made several times, each time on the record as it is then.
pub type Change<'a> = &'a (dyn Fn(&mut Environment) + Send + Sync);

/// Where environments are stored.
#[async_trait]
pub trait Environments: Send + Sync {
    /// One of them; `None` where there is none.
    async fn get(&self, id: EnvironmentId) -> Result<Option<Environment>, Error>;
    /// Changes one by compare-and-set, and returns it as it is then.
    async fn update(&self, id: EnvironmentId, change: Change<'_>) -> Result<Environment, Error>;
    /// All of them.
    async fn all(&self) -> Result<Vec<Environment>, Error>;
}

/// What an orchestrator is told.
#[derive(Debug, Clone)]
pub struct Options {
    /// The engine's name; for people.
    pub engine: String,
    /// What stays the same over the lives of an engine and differs from all others: its data.
    pub owner: String,
    /// The project's own taskservs.
    pub places: Vec<PathBuf>,
    /// The image of nodes that name none.
    pub base_image: String,
    /// Where the output of nodes is kept, a directory for each environment.
    pub logs_dir: PathBuf,
    /// How much prepared images may take together, in bytes.
    pub prepared_max_bytes: u64,
}

/// Why an action did not succeed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{error}")]
pub struct Failure {
    /// In a sentence.
    pub error: Error,
    /// Whether it is of no use to try again.
    pub permanent: bool,
}

impl Failure {
    /// Trying again would not help.
    fn permanent(error: Error) -> Self {
        Self { error, permanent: true }
    }

    /// Trying again may help.
    fn passing(message: impl Into<String>) -> Self {
        Self { error: Error::unavailable(message), permanent: false }
    }

    /// It was called off.
    fn cancelled() -> Self {
        Self::permanent(Error::conflict("it was called off"))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let permanent = matches!(error.code, ErrorCode::Invalid | ErrorCode::NotFound | ErrorCode::Conflict);
        Self { error, permanent }
    }
}

impl From<ContainerError> for Failure {
    fn from(problem: ContainerError) -> Self {
        let message = problem.to_string();
        match problem {
            ContainerError::Away { .. } => Self::passing(message),
            ContainerError::NotFound { .. } => Self { error: Error::not_found(message), permanent: false },
            ContainerError::Exists { .. } | ContainerError::SubnetTaken { .. } => {
                Self::permanent(Error::conflict(message))
            }
            ContainerError::Unsupported(_) => Self::permanent(Error::invalid(message)),
            ContainerError::Refused { .. } => Self { error: Error::internal(message), permanent: false },
        }
    }
}

/// Makes, runs, breaks and removes test environments.
pub struct TestOrchestrator {
    docker: Arc<dyn ContainerManager>,
    environments: Arc<dyn Environments>,
    options: Options,
    logs: Arc<Logs>,
    prepared: Prepared,
    architecture: OnceCell<String>,
}

/// A node that has a container.
#[derive(Debug, Clone)]
struct Place {
    environment: EnvironmentId,
    /// The node's name.
    node: String,
    container: String,
    memory_mb: Option<u64>,
}

impl TestOrchestrator {
    /// An orchestrator on this container engine and these records.
    pub fn new(
        docker: Arc<dyn ContainerManager>,
        environments: Arc<dyn Environments>,
        options: Options,
    ) -> Self {
        let logs = Arc::new(Logs::new(options.logs_dir.clone()));
        Self {
            docker,
            environments,
            options,
            logs,
            prepared: Prepared::default(),
            architecture: OnceCell::new(),
        }
    }

    async fn environment(&self, id: EnvironmentId) -> Result<Environment, Error> {
        let found = self.environments.get(id).await?;
        found.ok_or_else(|| Error::not_found(format!("there is no test environment '{id}'")))
    }

    /// What an environment is to become, by its request.
    fn blueprint(&self, environment: &Environment) -> Result<Blueprint, Error> {
        let own = environment.request.cwd.as_deref().map(|cwd| Path::new(cwd).join("taskservs"));
        let library =
            Library { places: own.into_iter().chain(self.options.places.iter().cloned()).collect() };
        let defaults = Defaults { base_image: self.options.base_image.clone() };
        Blueprint::plan(&environment.request, &library, &defaults)
    }

    /// Changes a record that is in one state, and stays in it. Fails where it is in another by now: then
    /// somebody else works on it.
    async fn record(
        &self,
        id: EnvironmentId,
        expected: EnvironmentStatus,
        change: Change<'_>,
    ) -> Result<Environment, Failure> {
        crate::fault::point("environment-made");
        let changed = self
            .environments
            .update(id, &|environment| {
                if environment.status == expected {
                    change(environment);
                }
            })
            .await?;
        crate::fault::point("environment-recorded");
        if changed.status == expected {
            return Ok(changed);
        }
        Err(Failure::permanent(Error::conflict(format!("environment '{id}' is '{}' by now", changed.status))))
    }

    /// Brings a record into another state, where that is legal, with what goes with it.
    async fn turn(
        &self,
        id: EnvironmentId,
        next: EnvironmentStatus,
        change: Change<'_>,
    ) -> Result<Environment, Failure> {
        let refused = Mutex::new(None);
        let changed = self
            .environments
            .update(id, &|environment| {
                let legal = environment.status.may_become(next);
                *refused.lock().unwrap_or_else(std::sync::PoisonError::into_inner) =
                    (!legal).then_some(environment.status);
                if legal {
                    environment.status = next;
                    change(environment);
                }
            })
            .await?;
        match refused.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
            None => Ok(changed),
            Some(status) => Err(Failure::permanent(Error::conflict(format!(
                "environment '{id}' is '{status}', and cannot become '{next}'"
            )))),
        }
    }

    /// Writes down why work on an environment did not succeed. Where even that fails, the task says it.
    async fn note_failure(&self, id: EnvironmentId, failure: &Failure) {
        let message = failure.error.message.clone();
        let noted = self
            .turn(id, EnvironmentStatus::Error, &|environment| environment.error = Some(message.clone()))
            .await;
        if let Err(problem) = noted {
            tracing::warn!(environment = %id, %problem, "a failure could not be written down");
        }
    }
}

/// The containers of a record, by their nodes' names.
fn places(environment: &Environment) -> BTreeMap<String, Place> {
    let place = |node: &orchestrator_protocol::environment::Node| {
        let place = Place {
            environment: environment.id,
            node: node.config.name.clone(),
            container: node.container.clone()?,
            memory_mb: node.config.resources.memory_mb,
        };
        Some((place.node.clone(), place))
    };
    environment.nodes.iter().filter_map(place).collect()
}

/// The addresses of a record, by their nodes' names.
fn address_by_node(environment: &Environment) -> BTreeMap<String, Ipv4Addr> {
    let nodes = environment.nodes.iter();
    nodes.filter_map(|node| Some((node.config.name.clone(), node.address?))).collect()
}

/// How a container is, in words.
fn state_in_words(state: ContainerState) -> String {
    match state {
        ContainerState::Created => "was never started".into(),
        ContainerState::Running => "runs".into(),
        ContainerState::Paused => "is paused".into(),
        ContainerState::Exited { code, out_of_memory: true } => {
            format!("has ended with exit status {code}, because it needed more memory than it may use")
        }
        ContainerState::Exited { code, .. } => format!("has ended with exit status {code}"),
        ContainerState::Removing => "is being removed".into(),
    }
}

/// How far work is that consists of so many steps.
struct Count<'a> {
    context: &'a Context,
    done: std::sync::atomic::AtomicU64,
    total: u64,
}

impl<'a> Count<'a> {
    fn new(context: &'a Context, total: usize) -> Self {
        Self { context, done: std::sync::atomic::AtomicU64::new(0), total: total as u64 }
    }

    /// Another step is done; `message` says which.
    fn done(&self, message: &str) {
        let done = self.done.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
        let total = self.total.max(done);
        (self.context.progress)(Progress {
            fraction: Some(done as f64 / total as f64),
            done: Some(done),
            total: Some(total),
            message: message.to_owned(),
        });
    }
}

impl Context {
    /// Fails where the work was called off.
    fn go_on(&self) -> Result<(), Failure> {
        if self.cancel.is_cancelled() { Err(Failure::cancelled()) } else { Ok(()) }
    }
}
