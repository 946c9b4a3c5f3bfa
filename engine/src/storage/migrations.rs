//! Moving the records while the engine works.
//!
//! A migration is started, looked at and called off by requests. It runs by itself until it ends: a
//! client that goes away stops nothing. What is known of migrations is kept until the engine ends; what
//! became of the records is in the storages themselves.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use orchestrator_protocol::storage::{
    Migration, MigrationId, MigrationStatus, StorageReport, StorageTarget, Validation,
};
use orchestrator_protocol::{Error, Result};
use orchestrator_storage::Store;
use orchestrator_storage::migration::live::SwitchingStore;
use orchestrator_storage::migration::state::Place;
use orchestrator_storage::migration::{MigrationError, Plan, Report, Steering, told};
use tracing::{error, info, warn};

use super::{advice, place, shown, targeted, validate};
use crate::config::Config;
use crate::engine::open_store;
use crate::records::storage_error;

/// How many migrations are remembered.
const REMEMBERED: usize = 100;

/// What moves the records.
pub struct Migrations {
    store: Arc<SwitchingStore>,
    config: Arc<Config>,
    /// Where the records are now.
    place: Mutex<Place>,
    /// Newest first.
    known: Mutex<VecDeque<Arc<Known>>>,
    /// Held by the one migration that is under way.
    only: Arc<tokio::sync::Mutex<()>>,
}

/// A migration.
struct Known {
    id: MigrationId,
    from: Place,
    to: Place,
    started_at: DateTime<Utc>,
    steering: Arc<Steering>,
    end: Mutex<Option<End>>,
}

/// How a migration has ended.
struct End {
    at: DateTime<Utc>,
    result: std::result::Result<Report, MigrationError>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Migrations {
    /// For an engine that works on `store`, where its configuration says.
    pub fn new(store: Arc<SwitchingStore>, config: Arc<Config>) -> Arc<Self> {
        let place = Mutex::new(place(&config));
        Arc::new(Self { store, config, place, known: Mutex::default(), only: Arc::default() })
    }

    /// How the storage is.
    pub async fn report(&self) -> Result<StorageReport> {
        let here = locked(&self.place).clone();
        super::report(&*self.store, &here).await.map_err(storage_error)
    }

    fn target(&self, to: &StorageTarget) -> Result<Config> {
        let refused = |error: anyhow::Error| Error::invalid(format!("{error:#}")).with_field("storage_type");
        let target = targeted(&self.config, to).map_err(refused)?;
        let here = locked(&self.place).clone();
        if place(&target) == here {
            return Err(Error::conflict(format!("the records are there already: {here}"))
                .with_help("name another directory with `dir`, or another `storage_type`")
                .with_field("dir"));
        }
        Ok(target)
    }

    /// Whether the records could be moved.
    pub async fn validate(&self, to: &StorageTarget) -> Result<Validation> {
        let target = self.target(to)?;
        let here = locked(&self.place).clone();
        Ok(validate::validate(&*self.store.current(), &here, &target).await)
    }

    /// Begins to move the records.
    pub async fn start(self: &Arc<Self>, to: &StorageTarget) -> Result<Migration> {
        let busy =
            || Error::conflict("another migration is under way").with_help("wait for it, or cancel it");
        let only = Arc::clone(&self.only).try_lock_owned().map_err(|_| busy())?;
        let target = self.target(to)?;
        let validation = self.validate(to).await?;
        if let Some(check) = validation.checks.iter().find(|check| check.advice.is_some()) {
            let error = Error::conflict(format!("the {} cannot be used: {}", check.name, check.found));
            return Err(error.with_help(check.advice.clone().unwrap_or_default()));
        }
        let store = open_store(&target)
            .await
            .map_err(|error| Error::conflict(format!("the target cannot be opened: {error:#}")))?;
        let known = Arc::new(Known {
            id: MigrationId::generate(),
            from: locked(&self.place).clone(),
            to: place(&target),
            started_at: Utc::now(),
            steering: Arc::default(),
            end: Mutex::default(),
        });
        {
            let mut all = locked(&self.known);
            all.push_front(Arc::clone(&known));
            all.truncate(REMEMBERED);
        }
        info!(migration = %known.id, from = %known.from, to = %known.to, "the records are being moved");
        let (this, running) = (Arc::clone(self), Arc::clone(&known));
        tokio::spawn(async move {
            this.run(&running, store).await;
            drop(only);
        });
        Ok(known.shown())
    }

    async fn run(&self, known: &Known, target: Arc<dyn Store>) {
        let plan = Plan { migration: known.id.to_string(), from: known.from.clone(), to: known.to.clone() };
        let result = self.store.migrate(Arc::clone(&target), plan, Arc::clone(&known.steering)).await;
        match &result {
            Ok(report) => {
                *locked(&self.place) = known.to.clone();
                let advice = advice(&known.to);
                info!(migration = %known.id, records = report.records, waited = ?report.waited, "the records have moved; {advice}");
            }
            Err(MigrationError::Unknown(_)) => {
                error!(migration = %known.id, "it is not known whether the records have moved; start the engine anew");
            }
            Err(error) => {
                warn!(migration = %known.id, error = told(error), "the records stay where they are");
                if let Err(error) = target.close().await {
                    warn!(error = told(&error), "the target cannot be closed");
                }
            }
        }
        *locked(&known.end) = Some(End { at: Utc::now(), result });
    }

    /// Migrations since the engine was started, newest first.
    pub fn list(&self) -> Vec<Migration> {
        locked(&self.known).iter().map(|known| known.shown()).collect()
    }

    fn find(&self, id: MigrationId) -> Result<Arc<Known>> {
        let known = locked(&self.known).iter().find(|known| known.id == id).cloned();
        known.ok_or_else(|| {
            Error::not_found(format!("there is no migration {id}"))
                .with_help("they are remembered until the engine ends; `orchestrator storage status` says where the records are")
        })
    }

    /// One migration.
    pub fn get(&self, id: MigrationId) -> Result<Migration> {
        self.find(id).map(|known| known.shown())
    }

    /// Calls a migration off.
    pub fn cancel(&self, id: MigrationId) -> Result<Migration> {
        let known = self.find(id)?;
        known.steering.cancel();
        Ok(known.shown())
    }
}

impl Known {
    fn shown(&self) -> Migration {
        let progress = *self.steering.progress().borrow();
        let end = locked(&self.end);
        let mut migration = Migration {
            id: self.id,
            status: MigrationStatus::Running,
            phase: progress.phase.as_str().into(),
            from: shown(&self.from),
            to: shown(&self.to),
            records_done: progress.done,
            records_total: progress.total,
            started_at: self.started_at,
            ended_at: end.as_ref().map(|end| end.at),
            checksum: None,
            waited_us: None,
            error: None,
            advice: None,
        };
        match end.as_ref().map(|end| &end.result) {
            None => {}
            Some(Ok(report)) => {
                migration.status = MigrationStatus::Completed;
                migration.checksum = Some(report.checksum.clone());
                migration.waited_us = u64::try_from(report.waited.as_micros()).ok();
                migration.advice = Some(format!(
                    "{}: until then an engine that is started follows by itself",
                    advice(&self.to)
                ));
            }
            Some(Err(MigrationError::Cancelled)) => {
                migration.status = MigrationStatus::Cancelled;
            }
            Some(Err(error)) => {
                migration.status = MigrationStatus::Failed;
                migration.error = Some(told(error));
            }
        }
        migration
    }
}
