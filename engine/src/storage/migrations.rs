//! Moving the records while the engine works.
//!
//! A migration is started, looked at and called off by requests. It runs by itself until it ends: a
//! client that goes away stops nothing. What is known of migrations is a record of its own, which moves
//! along; of one that an engine did not bring to its end, the storages tell what became of it.
//!
//! Who moves the records of a storage that others may use must be alone there. An engine whose records move
//! to such a storage, or away from one, is opened again, because it takes a seat there, or gives it up.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use orchestrator_protocol::storage::{
    Migration, MigrationId, MigrationStatus, StoragePlace, StorageReport, StorageTarget, Validation,
};
use orchestrator_protocol::{Error, Result};
use orchestrator_storage::migration::live::SwitchingStore;
use orchestrator_storage::migration::state::Place;
use orchestrator_storage::migration::{MigrationError, Phase, Plan, Report, Steering, told};
use orchestrator_storage::{Expect, Fields, Filter, Key, Order, Query, Record, Store, Table};
use tokio::sync::watch;
use tracing::{error, info, warn};

use super::open::open_store;
use super::{advised, afterwards, alone, in_one_line, place, shown, targeted, validate};
use crate::config::Config;
use crate::records::{self, storage_error};

/// How many migrations are remembered.
const REMEMBERED: usize = 100;

/// What moves the records.
pub struct Migrations {
    store: Arc<SwitchingStore>,
    config: Arc<Config>,
    /// The name of this engine among those that share a store.
    member: String,
    /// The configuration with the storage where the records are now.
    here: Mutex<Arc<Config>>,
    /// The one that is under way.
    running: Mutex<Option<Arc<Known>>>,
    /// Held by the one migration that is under way.
    only: Arc<tokio::sync::Mutex<()>>,
    /// Whether the engine must be opened again where the records are now.
    moved: watch::Sender<bool>,
}

/// A migration.
struct Known {
    id: MigrationId,
    from: Place,
    to: Place,
    /// What is to be done when the records are there.
    advice: String,
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

/// The key of what is known of a migration.
fn key(id: MigrationId) -> Key {
    Key::new(Table::Control, format!("{PREFIX}{id}"))
}

const PREFIX: &str = "storage/migration/";

impl Migrations {
    /// For an engine that works on `store`, where its configuration says.
    pub fn new(store: Arc<SwitchingStore>, config: Arc<Config>, member: String) -> Arc<Self> {
        let here = Mutex::new(Arc::clone(&config));
        let (running, only, moved) = (Mutex::default(), Arc::default(), watch::Sender::new(false));
        Arc::new(Self { store, config, member, here, running, only, moved })
    }

    /// Tells when the engine must be opened again where the records are now.
    pub fn moved(&self) -> watch::Receiver<bool> {
        self.moved.subscribe()
    }

    /// The configuration with the storage where the records are now.
    pub fn here(&self) -> Arc<Config> {
        Arc::clone(&locked(&self.here))
    }

    fn place(&self) -> Place {
        place(&self.here())
    }

    /// Waits until the storage must be opened again.
    pub async fn storage_failed(&self) {
        self.store.failed().await;
    }

    /// How the storage is.
    pub async fn report(&self) -> Result<StorageReport> {
        let here = self.place();
        super::report(&*self.store, &here).await.map_err(storage_error)
    }

    fn target(&self, to: &StorageTarget) -> Result<Config> {
        let refused = |error: anyhow::Error| Error::invalid(format!("{error:#}")).with_field("storage_type");
        let target = targeted(&self.config, to).map_err(refused)?;
        let here = self.place();
        if place(&target) == here {
            return Err(Error::conflict(format!("the records are there already: {here}"))
                .with_help("name another place with `dir`, `url` or `database`, or another `storage_type`")
                .with_field("dir"));
        }
        Ok(target)
    }

    /// Whether the records could be moved.
    pub async fn validate(&self, to: &StorageTarget) -> Result<Validation> {
        let target = self.target(to)?;
        let here = self.place();
        Ok(validate::validate(&*self.store.current(), &here, &target).await)
    }

    /// Begins to move the records.
    pub async fn start(self: &Arc<Self>, to: &StorageTarget) -> Result<Migration> {
        let busy =
            || Error::conflict("another migration is under way").with_help("wait for it, or cancel it");
        let only = Arc::clone(&self.only).try_lock_owned().map_err(|_| busy())?;
        if *self.moved.borrow() {
            return Err(busy());
        }
        let target = self.target(to)?;
        let validation = self.validate(to).await?;
        if let Some(check) = validation.checks.iter().find(|check| check.advice.is_some()) {
            let error = Error::conflict(format!("the {} cannot be used: {}", check.name, check.found));
            return Err(error.with_help(check.advice.clone().unwrap_or_default()));
        }
        self.alone(&target).await?;
        let store = open_store(&target)
            .await
            .map_err(|error| Error::conflict(format!("the target cannot be opened: {error:#}")))?;
        let known = Arc::new(Known {
            id: MigrationId::generate(),
            from: self.place(),
            to: place(&target),
            advice: afterwards(&self.config, &target),
            started_at: Utc::now(),
            steering: Arc::default(),
            end: Mutex::default(),
        });
        self.note(&known.shown()).await?;
        *locked(&self.running) = Some(Arc::clone(&known));
        info!(migration = %known.id, from = %known.from, to = %known.to, "the records are being moved");
        let (this, running) = (Arc::clone(self), Arc::clone(&known));
        tokio::spawn(async move {
            let end = this.run(&running, store, target).await;
            // From the moment at which its end is told the next one can begin.
            drop(only);
            *locked(&running.end) = end;
        });
        Ok(known.shown())
    }

    /// Whether others may use the storage where the records are.
    fn is_shared(&self) -> bool {
        self.config.storage_type.is_shared()
    }

    /// Fails while others work on these records.
    async fn alone(&self, target: &Config) -> Result<()> {
        if !self.is_shared() {
            return Ok(());
        }
        alone::no_other_seats(&*self.store, &self.member).await?;
        match target.storage_type.is_shared() {
            true => Ok(()),
            false => alone::no_attempts_of_others(&*self.store, &self.member).await,
        }
    }

    /// Returns its end; `None` where that is told by the engine that is opened again.
    async fn run(self: &Arc<Self>, known: &Known, target: Arc<dyn Store>, config: Config) -> Option<End> {
        let plan = Plan { migration: known.id.to_string(), from: known.from.clone(), to: known.to.clone() };
        let (this, target_config) = (Arc::clone(self), config.clone());
        let alone = async move {
            let alone = this.alone(&target_config).await;
            alone.map_err(|error| MigrationError::NotAlone(in_one_line(&error)))
        };
        let steering = Arc::clone(&known.steering);
        let result = self.store.migrate_when(Arc::clone(&target), plan, steering, alone).await;
        match &result {
            Ok(report) => {
                *locked(&self.here) = Arc::new(config.clone());
                let advice = &known.advice;
                info!(migration = %known.id, records = report.records, waited = ?report.waited, "the records have moved; {advice}");
            }
            Err(MigrationError::Unknown(_)) => {
                error!(migration = %known.id, "it is not known whether the records have moved: the engine is opened again, and finds out");
            }
            Err(error) => {
                warn!(migration = %known.id, error = told(error), "the records stay where they are");
                if let Err(error) = target.close().await {
                    warn!(error = told(&error), "the target cannot be closed");
                }
            }
        }
        let has_moved = result.is_ok();
        let end = End { at: Utc::now(), result };
        if let Err(error) = self.note(&known.shown_with(Some(&end))).await {
            warn!(migration = %known.id, %error, "the end of the migration cannot be noted down");
        }
        if has_moved && (self.is_shared() || config.storage_type.is_shared()) {
            self.moved.send_replace(true);
            return None;
        }
        Some(end)
    }

    /// Writes down what is known of a migration, and forgets the oldest ones.
    async fn note(&self, migration: &Migration) -> Result<()> {
        let key = key(migration.id);
        let held = self.store.get(&key).await.map_err(storage_error)?;
        let expect = held.map_or(Expect::Absent, |record| Expect::Revision(record.revision));
        let mut operations = vec![records::put(key, Fields::default(), migration, expect)?];
        let old = self.records().await?.into_iter().skip(REMEMBERED);
        operations.extend(old.map(|record| records::delete(record.key, record.revision)));
        self.store.commit(operations).await.map_err(storage_error)?;
        Ok(())
    }

    /// The records of migrations, newest first.
    async fn records(&self) -> Result<Vec<Record>> {
        let mut query = Query {
            table: Table::Control,
            filter: Filter::default(),
            order: Order::NewestFirst,
            after: None,
            limit: 10 * REMEMBERED,
        };
        let mut found = Vec::new();
        loop {
            let page = self.store.list(&query).await.map_err(storage_error)?;
            found.extend(page.records.into_iter().filter(|record| record.key.id.starts_with(PREFIX)));
            match page.next {
                Some(next) => query.after = Some(next),
                None => return Ok(found),
            }
        }
    }

    /// What a record says, as far as it is still true.
    fn as_it_is(&self, migration: Migration) -> Migration {
        if let Some(running) = locked(&self.running).as_ref().filter(|running| running.id == migration.id) {
            return running.shown();
        }
        match migration.status {
            MigrationStatus::Running => broken_off(migration, &shown(&self.place())),
            _ => migration,
        }
    }

    /// The newest migrations, newest first.
    pub async fn list(&self) -> Result<Vec<Migration>> {
        let records = self.records().await?;
        records.iter().map(|record| Ok(self.as_it_is(records::read(record)?))).collect()
    }

    /// One migration.
    pub async fn get(&self, id: MigrationId) -> Result<Migration> {
        let record = self.store.get(&key(id)).await.map_err(storage_error)?;
        let record = record.ok_or_else(|| {
            Error::not_found(format!("there is no migration {id}"))
                .with_help("`orchestrator storage migrations` lists the newest ones")
        })?;
        Ok(self.as_it_is(records::read(&record)?))
    }

    /// Calls a migration off.
    pub async fn cancel(&self, id: MigrationId) -> Result<Migration> {
        if let Some(running) = locked(&self.running).as_ref().filter(|running| running.id == id) {
            running.steering.cancel();
            return Ok(running.shown());
        }
        self.get(id).await
    }
}

/// A migration that its engine did not see the end of, as the place of the records tells.
fn broken_off(migration: Migration, here: &StoragePlace) -> Migration {
    if *here == migration.to {
        return Migration {
            status: MigrationStatus::Completed,
            phase: Phase::Done.as_str().into(),
            ..migration
        };
    }
    let error = Some("its engine ended first; the records are where they were".into());
    Migration { status: MigrationStatus::Failed, error, ..migration }
}

impl Known {
    fn shown(&self) -> Migration {
        self.shown_with(locked(&self.end).as_ref())
    }

    fn shown_with(&self, end: Option<&End>) -> Migration {
        let progress = *self.steering.progress().borrow();
        let mut migration = Migration {
            id: self.id,
            status: MigrationStatus::Running,
            phase: progress.phase.as_str().into(),
            from: shown(&self.from),
            to: shown(&self.to),
            records_done: progress.done,
            records_total: progress.total,
            started_at: self.started_at,
            ended_at: end.map(|end| end.at),
            checksum: None,
            waited_us: None,
            error: None,
            advice: None,
        };
        match end.map(|end| &end.result) {
            None => {}
            Some(Ok(report)) => {
                migration.status = MigrationStatus::Completed;
                migration.checksum = Some(report.checksum.clone());
                migration.waited_us = u64::try_from(report.waited.as_micros()).ok();
                migration.advice = Some(advised(report, &self.advice));
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
