//! Removal of environments, and of what was left behind.
//!
//! What is removed is found by its labels, and never by reading the request again: files may have changed
//! since. Things of another owner are not even listed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::Utc;
use futures::future::join_all;
use orchestrator_protocol::environment::{EnvironmentId, EnvironmentStatus};
use orchestrator_protocol::{Error, ErrorCode};
use serde_json::{Value, json};

use super::{Context, Failure, TestOrchestrator, names};
use crate::containers::{self, Labels};

/// How often it is tried until nothing is left.
const ROUNDS: usize = 10;
/// How long to wait before the next round: Docker may still be working on what was asked before.
const BETWEEN_ROUNDS: Duration = Duration::from_millis(300);

/// What was found when the records were compared with what there is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reconciled {
    /// The names of things that were removed because no environment needs them.
    pub removed: Vec<String>,
    /// Environments whose time is over, and that are to be removed.
    pub expired: Vec<EnvironmentId>,
}

/// Things that carry certain labels.
#[derive(Debug, Default)]
struct Things {
    /// Identifier and name.
    containers: Vec<(String, String, Labels)>,
    networks: Vec<(String, String, Labels)>,
    volumes: Vec<(String, String, Labels)>,
}

impl Things {
    fn is_empty(&self) -> bool {
        self.containers.is_empty() && self.networks.is_empty() && self.volumes.is_empty()
    }

    fn retain(&mut self, is_left_behind: &dyn Fn(&Labels) -> bool) {
        for kind in [&mut self.containers, &mut self.networks, &mut self.volumes] {
            kind.retain(|(_, _, labels)| is_left_behind(labels));
        }
    }

    fn names(&self) -> Vec<String> {
        let all = self.containers.iter().chain(&self.networks).chain(&self.volumes);
        all.map(|(_, name, _)| name.clone()).collect()
    }
}

impl TestOrchestrator {
    /// Removes all of an environment. One that is removed already stays so.
    ///
    /// # Errors
    /// Where something of it could not be removed. The record is then in `error`.
    pub async fn clean(&self, id: EnvironmentId, context: &Context) -> Result<Value, Failure> {
        let before = self.environment(id).await?;
        if before.status == EnvironmentStatus::Cleaned {
            return Ok(json!({"environment": id, "removed": []}));
        }
        self.turn(id, EnvironmentStatus::Cleaning, &|_| {}).await?;
        // What a creation that broke off has asked for may appear yet.
        let is_certain = before.ready_at.is_some();
        let labels = names::of_environment(&self.options, &before);
        match self.remove_all(&labels, is_certain).await {
            Ok(removed) => {
                for name in &removed {
                    (context.log)(&format!("removed {name}"));
                }
                self.turn(id, EnvironmentStatus::Cleaned, &|environment| {
                    environment.cleaned_at = Some(Utc::now());
                    environment.network = None;
                    environment.partitions.clear();
                    for node in &mut environment.nodes {
                        (node.container, node.address) = (None, None);
                    }
                })
                .await?;
                Ok(json!({"environment": id, "removed": removed}))
            }
            Err(failure) => {
                self.note_failure(id, &failure).await;
                Err(failure)
            }
        }
    }

    /// Compares the records with what there is. Things of this engine's data that belong to no environment,
    /// or to one that is cleaned, are removed.
    pub async fn reconcile(&self) -> Result<Reconciled, Error> {
        let reconciled = self.compare().await.map_err(|failure| failure.error);
        // What cannot be removed keeps no image; where nobody answers, there is nothing to ask.
        let is_away = reconciled.as_ref().is_err_and(|error| error.code == ErrorCode::Unavailable);
        if !is_away && let Err(problem) = self.prune(false).await {
            tracing::warn!(%problem, "prepared images could not be pruned");
        }
        reconciled
    }

    async fn compare(&self) -> Result<Reconciled, Failure> {
        let owned = names::owned(&self.options);
        let found = self.things(&owned).await?;
        // Looked at after the things: a record is there before anything that belongs to it.
        let environments = self.environments.all().await?;
        let status_by_id: BTreeMap<String, EnvironmentStatus> =
            environments.iter().map(|environment| (environment.id.to_string(), environment.status)).collect();
        let is_left_behind = |labels: &Labels| match labels.get(names::ENVIRONMENT) {
            Some(id) => status_by_id.get(id).is_none_or(|status| *status == EnvironmentStatus::Cleaned),
            None => labels.get(names::DIGEST).is_none_or(|digest| !self.prepared.is_made(digest)),
        };
        let mut left = found;
        left.retain(&is_left_behind);
        // These and no others: what appears from now on may belong to a record that was not read.
        let removed = left.names();
        let is_removed = self.remove_until_gone(&left).await;
        let ids: BTreeSet<EnvironmentId> = environments.iter().map(|environment| environment.id).collect();
        if let Err(problem) = self.logs.keep_only(&|id| ids.contains(&id)) {
            tracing::warn!(%problem, "old logs of nodes could not be removed");
        }
        is_removed?;
        let now = Utc::now();
        let is_over = |status| matches!(status, EnvironmentStatus::Cleaned | EnvironmentStatus::Cleaning);
        let expired = environments.iter().filter(|it| it.expires_at <= now && !is_over(it.status));
        Ok(Reconciled { removed, expired: expired.map(|environment| environment.id).collect() })
    }

    async fn things(&self, labels: &Labels) -> containers::Result<Things> {
        let (containers, networks, volumes) = futures::try_join!(
            self.docker.containers(labels),
            self.docker.networks(labels),
            self.docker.volumes(labels)
        )?;
        let is_ours = |it: &containers::Container| names::is_ours(&it.name, &it.labels);
        Ok(Things {
            containers: containers
                .into_iter()
                .filter(is_ours)
                .map(|it| (it.id, it.name, it.labels))
                .collect(),
            networks: networks.into_iter().map(|it| (it.id, it.name, it.labels)).collect(),
            volumes: volumes.into_iter().map(|it| (it.name.clone(), it.name, it.labels)).collect(),
        })
    }

    /// Removes what carries these labels until nothing of it is left. Returns the names. Where it
    /// `is_certain` that nothing more appears, what was removed is not looked for again.
    async fn remove_all(&self, labels: &Labels, is_certain: bool) -> Result<Vec<String>, Failure> {
        let mut removed = Vec::new();
        for round in 0..ROUNDS {
            let things = self.things(labels).await?;
            if things.is_empty() && (round > 0 || is_certain) {
                return Ok(removed);
            }
            self.remove_until_gone(&things).await?;
            removed.extend(things.names());
            if is_certain {
                return Ok(removed);
            }
            tokio::time::sleep(BETWEEN_ROUNDS).await;
        }
        Err(Failure::passing("things appear as fast as they are removed"))
    }

    /// Removes these things. A network may still be held by a container that is on its way out, so what
    /// cannot be removed is tried again.
    async fn remove_until_gone(&self, things: &Things) -> containers::Result<()> {
        let mut round = 0;
        loop {
            match self.remove(things).await {
                Ok(()) => return Ok(()),
                Err(problem @ containers::ContainerError::Away { .. }) => return Err(problem),
                Err(problem) if round == ROUNDS => return Err(problem),
                Err(_) => tokio::time::sleep(BETWEEN_ROUNDS).await,
            }
            round += 1;
        }
    }

    async fn remove(&self, things: &Things) -> containers::Result<()> {
        let containers = things.containers.iter().map(|(id, _, _)| self.docker.remove_container(id));
        let containers = join_all(containers).await;
        // They can go when no container uses them any more. One that cannot be removed keeps its own only.
        let networks = things.networks.iter().map(|(id, _, _)| self.docker.remove_network(id));
        let volumes = things.volumes.iter().map(|(name, _, _)| self.docker.remove_volume(name));
        let (networks, volumes) = futures::join!(join_all(networks), join_all(volumes));
        containers.into_iter().chain(networks).chain(volumes).collect()
    }
}
