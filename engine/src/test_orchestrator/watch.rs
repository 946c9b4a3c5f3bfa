//! Disks that Docker does not limit: looked at while something is done on their nodes.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use orchestrator_protocol::Error;
use orchestrator_protocol::environment::{DiskPolicy, Environment};

use super::{Failure, Place, TestOrchestrator, places};

/// How often the disks are looked at. To count what a container has written takes Docker a while.
const LOOK_EVERY: Duration = Duration::from_secs(2);
const MIB: u64 = 1024 * 1024;

/// Looks at the nodes of an environment whose request says `disk_policy: watch`.
pub(super) struct Watch<'a> {
    orchestrator: &'a TestOrchestrator,
    /// Each node with its limit in MiB.
    watched: Vec<(Place, u64)>,
    /// Why a node was stopped, by its name.
    stopped: Mutex<BTreeMap<String, String>>,
}

impl<'a> Watch<'a> {
    pub fn new(orchestrator: &'a TestOrchestrator, environment: &Environment) -> Self {
        let mut places = places(environment);
        let is_watched = environment.request.disk_policy == DiskPolicy::Watch;
        let nodes = environment.nodes.iter().filter(|_| is_watched);
        let watched = nodes.filter_map(|node| {
            let limit = node.config.resources.disk_mb?;
            Some((places.remove(&node.config.name)?, limit))
        });
        Self { orchestrator, watched: watched.collect(), stopped: Mutex::default() }
    }

    /// Watches over work. Work that goes wrong after a node was stopped has failed because of that.
    pub async fn over<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let done = tokio::select! {
            done = work => done,
            failure = self.look() => return Err(failure),
        };
        match (done, self.reasons()) {
            (done, None) => done,
            (_, Some(reasons)) => Err(Failure::permanent(Error::conflict(reasons))),
        }
    }

    /// Why this node was stopped, if it was.
    pub fn why(&self, node: &str) -> Option<String> {
        self.stopped.lock().unwrap_or_else(PoisonError::into_inner).get(node).cloned()
    }

    /// Whether any node was stopped.
    pub fn stopped_any(&self) -> bool {
        self.reasons().is_some()
    }

    fn reasons(&self) -> Option<String> {
        let stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        let reasons: Vec<String> = stopped.values().cloned().collect();
        (!reasons.is_empty()).then(|| reasons.join("; "))
    }

    /// Looks again and again, and ends only where that cannot be done.
    async fn look(&self) -> Failure {
        if self.watched.is_empty() {
            return std::future::pending().await;
        }
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        loop {
            ticks.tick().await;
            for (place, limit_mb) in self.watched.iter().filter(|(place, _)| self.why(&place.node).is_none())
            {
                // A node that has died is noticed by whoever works on it.
                let Ok(usage) = self.orchestrator.docker.usage(&place.container).await else { continue };
                let Some(bytes) = usage.disk_bytes else {
                    let message = format!("Docker does not tell how much node '{}' has written", place.node);
                    return Failure::permanent(Error::invalid(message).with_field("disk_policy"));
                };
                if bytes > limit_mb * MIB {
                    let why = format!(
                        "node '{}' was stopped: it has written {} MiB, and its disk_mb is {limit_mb}",
                        place.node,
                        bytes / MIB
                    );
                    self.stopped
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .insert(place.node.clone(), why);
                    if let Err(problem) = self.orchestrator.docker.kill(&place.container).await {
                        tracing::warn!(node = place.node, %problem, "a node over its disk limit is not stopped");
                    }
                }
            }
        }
    }
}
