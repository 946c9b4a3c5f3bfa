//! Which storage is the truth, and moving the records to another one.
//!
//! The data directory stays where it is for ever: the directories of attempts with their logs, `owner`,
//! and the socket belong to it, so whatever runs stays within reach. What moves are the records, that is
//! the storage: `queue.rkvs` or `orchestrator.db` in `storage_dir`, which is the data directory unless
//! something else is said, or a database on a server.
//!
//! An engine that finds its storage sealed follows the seal to where the records are now, and says what
//! to configure; it refuses where it cannot follow. On the unfinished target of a migration it refuses,
//! unless the source turns out to be sealed by that very migration: then the target is the truth.
//! The order of writes that makes this safe is in [`orchestrator_storage::migration`].
//!
//! - [`open`]: opening what the configuration names; [`init`]: preparing a server for engines.
//! - [`migrations`]: moving the records of a running engine; [`offline`]: of a stopped one, and
//!   `orchestrator storage …`; [`validate`]: what is looked at before; [`alone`]: that nobody else works on them.

pub mod alone;
pub mod init;
pub mod migrations;
pub mod offline;
pub mod open;
pub mod validate;

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::ValueEnum;
use orchestrator_protocol::storage::{StoragePlace, StorageReport, StorageTarget};
use orchestrator_storage::migration::state::{Place, StorageState, read_state};
use orchestrator_storage::migration::{Report, portable, settle_target};
use orchestrator_storage::{Store, StoreResult, Table};
use tracing::{info, warn};

use crate::config::database::read_password;
use crate::config::{Config, StorageType, SurrealdbSettings};
use open::open_store;

/// Where the storage of a configuration is.
pub fn place(config: &Config) -> Place {
    let location = match config.storage_type {
        StorageType::Filesystem | StorageType::SurrealdbEmbedded => config.storage_dir.display().to_string(),
        StorageType::SurrealdbServer => config.surrealdb.location(),
    };
    Place { backend: config.storage_type.as_str().into(), location }
}

/// The same configuration with its storage at a place that a record names; on a server as the configured
/// user.
///
/// # Errors
/// A backend that this release does not know, or a place that cannot be one.
pub fn at(config: &Config, place: &Place) -> anyhow::Result<Config> {
    let storage_type = StorageType::from_str(&place.backend, false)
        .map_err(|_| anyhow::anyhow!("this release knows no storage '{}'", place.backend))?;
    let mut there = Config { storage_type, ..config.clone() };
    match storage_type {
        StorageType::Filesystem | StorageType::SurrealdbEmbedded => {
            there.storage_dir = place.location.clone().into();
        }
        StorageType::SurrealdbServer => {
            let settings = config.surrealdb.at(&place.location);
            there.surrealdb = settings.with_context(|| format!("'{}' names no database", place.location))?;
        }
    }
    Ok(there)
}

/// The kind of storage that somebody means: the named one, else that of what is said of it, else this one.
///
/// # Errors
/// When something is said of it that it does not have.
fn kind(
    named: Option<StorageType>,
    default: StorageType,
    has_dir: bool,
    has_server: bool,
) -> anyhow::Result<StorageType> {
    let kind = match named {
        None if has_server && !has_dir => StorageType::SurrealdbServer,
        named => named.unwrap_or(default),
    };
    match kind.is_shared() {
        true if has_dir => {
            bail!("the storage {} has no directory: name another kind, or no directory", kind.as_str())
        }
        false if has_server => bail!(
            "the storage {} has no server, namespace, database or user: those are of surrealdb-server",
            kind.as_str()
        ),
        _ => Ok(kind),
    }
}

/// The same configuration with the storage that somebody asks for. The configured user signs in only at the
/// configured server.
///
/// # Errors
/// A backend that this release does not know, or a password that cannot be read or has no user.
pub fn targeted(config: &Config, target: &StorageTarget) -> anyhow::Result<Config> {
    let storage_type = StorageType::from_str(&target.storage_type, false)
        .ok()
        .filter(|storage_type| KNOWN.contains(storage_type))
        .with_context(|| format!("there is no storage '{}': use {}", target.storage_type, known()))?;
    let StorageTarget { dir, url, namespace, database, username, password_file, .. } = target;
    let has_server = [url, namespace, database, username, password_file].iter().any(|said| said.is_some());
    let storage_type = kind(Some(storage_type), storage_type, dir.is_some(), has_server)?;
    let storage_dir = match &target.dir {
        Some(dir) => std::path::absolute(dir).with_context(|| format!("'{dir}' is no path"))?,
        None => config.data_dir.clone(),
    };
    if target.password_file.is_some() && target.username.is_none() {
        bail!("a password file without a user: name the user too");
    }
    let password = target.password_file.as_ref().map(|file| read_password(Path::new(file))).transpose()?;
    let user = target.username.clone().map(|username| (username, password));
    let configured = config.surrealdb.clone();
    let surrealdb = SurrealdbSettings {
        namespace: target.namespace.clone().unwrap_or(configured.namespace.clone()),
        database: target.database.clone().unwrap_or(configured.database.clone()),
        ..configured.on(target.url.as_deref(), user)
    };
    Ok(Config { storage_type, storage_dir, surrealdb, ..config.clone() })
}

/// The storages of this build.
const KNOWN: &[StorageType] = if cfg!(feature = "surrealdb") {
    &[StorageType::Filesystem, StorageType::SurrealdbEmbedded, StorageType::SurrealdbServer]
} else {
    &[StorageType::Filesystem]
};

/// Their names.
fn known() -> String {
    let names: Vec<&str> = KNOWN.iter().map(|storage_type| storage_type.as_str()).collect();
    match cfg!(feature = "surrealdb") {
        true => names.join(" or "),
        false => format!("{}; the others need a build with --features surrealdb", names.join(" or ")),
    }
}

/// Whether there is a storage at a place; `None` where that cannot be told without asking a server.
pub fn exists(place: &Place) -> Option<bool> {
    let inside = match StorageType::from_str(&place.backend, false).ok()? {
        StorageType::Filesystem => "queue.rkvs",
        StorageType::SurrealdbEmbedded => "orchestrator.db",
        StorageType::SurrealdbServer => return None,
    };
    Some(Path::new(&place.location).join(inside).is_dir())
}

/// What to configure so that an engine starts at a place by itself.
pub fn advice(place: &Place) -> String {
    let Place { backend, location } = place;
    match SurrealdbSettings::default().at(location) {
        Some(there) if backend == StorageType::SurrealdbServer.as_str() => format!(
            "set storage_type = \"{backend}\", surrealdb_url = \"{}\", surrealdb_namespace = \"{}\", \
             surrealdb_database = \"{}\", and the user there if it has one",
            there.url.unwrap_or_default(),
            there.namespace,
            there.database
        ),
        _ => format!("set storage_type = \"{backend}\" and storage_dir = \"{location}\""),
    }
}

/// What to configure after records have moved, and what an engine does that is started before that is done. It
/// follows the records as the user that it is configured with.
fn afterwards(from: &Config, to: &Config) -> String {
    let user = |config: &Config| (config.surrealdb.username.clone(), config.surrealdb.password.clone());
    let until_then = match to.storage_type.is_shared() && user(from) != user(to) {
        true => "until then no engine starts: the user that is configured now is not the one there",
        false => "until then an engine that is started follows by itself",
    };
    format!("{}: {until_then}", advice(&place(to)))
}

/// The same as a migration that has ended tells it: what a target asks for that could not be marked as the truth
/// comes first.
fn advised(report: &Report, afterwards: &str) -> String {
    let Some(warning) = &report.warning else { return afterwards.to_owned() };
    format!(
        "do not remove the storage that was left yet: the target is not marked as the truth ({warning}); an engine \
         that works on it, or starts on it while the other one is there, finishes that, and `orchestrator storage \
         status` says `active` then; {afterwards}"
    )
}

/// An error of the protocol in one line, with what to do.
fn in_one_line(error: &orchestrator_protocol::Error) -> String {
    match &error.help {
        Some(help) => format!("{error}; {help}"),
        None => error.to_string(),
    }
}

/// A place in the protocol's words.
pub fn shown(place: &Place) -> StoragePlace {
    StoragePlace { backend: place.backend.clone(), location: place.location.clone() }
}

/// Opens a storage that must be there already.
async fn open_existing(config: &Config) -> anyhow::Result<Arc<dyn Store>> {
    let place = place(config);
    let is_there = match exists(&place) {
        Some(is_there) => is_there,
        None => init::is_prepared(config).await?,
    };
    if !is_there {
        bail!("there is no storage: {place}");
    }
    open_store(config).await
}

/// Opens the storage that is the truth: the configured one, or the one to which its records have moved. Makes
/// an empty one where there is none. Returns the configuration with which it was opened.
///
/// # Errors
/// When it cannot be opened, is the unfinished target of a migration, or cannot be followed.
pub async fn open_truth(config: Config) -> anyhow::Result<(Config, Arc<dyn Store>)> {
    let store = open_store(&config).await?;
    follow(config, store).await
}

/// The same for a storage that must be there already.
///
/// # Errors
/// As there, and when there is none.
pub async fn reopen_truth(config: Config) -> anyhow::Result<(Config, Arc<dyn Store>)> {
    let store = open_existing(&config).await?;
    follow(config, store).await
}

async fn follow(mut config: Config, mut store: Arc<dyn Store>) -> anyhow::Result<(Config, Arc<dyn Store>)> {
    let mut been = Vec::new();
    loop {
        let here = place(&config);
        let state = read_state(&*store).await;
        let state = state.with_context(|| format!("cannot read the state of the {here}"))?.state;
        let is_target = matches!(state, StorageState::Migrating { .. } | StorageState::Ready { .. });
        let is_sealed = matches!(state, StorageState::Sealed { .. });
        // Copies, of what its source must hold too.
        let has_copies = is_target && holds_records(&*store).await?;
        let (to, epoch, id) = match state {
            StorageState::Active { .. } => return Ok((config, store)),
            StorageState::Sealed { to, epoch, target, .. } => {
                let advice = advice(&to);
                warn!(from = %here, to = %to, "the records have moved; {advice}");
                (to, epoch, target)
            }
            StorageState::Ready { migration, epoch, from, .. }
                if is_sealed_by(&config, &from, &migration).await.with_context(|| {
                    format!(
                        "the {here} is the target of a migration that was broken off at its end, and it cannot be \
                         told whether the records are there or still in the {from}"
                    )
                })? =>
            {
                settle_target(&*store, &migration, epoch).await?;
                info!(storage = %here, "the migration that ended here is finished");
                continue;
            }
            StorageState::Migrating { from, epoch, source, .. }
            | StorageState::Ready { from, epoch, source, .. } => {
                go_back(&config, &here, &from)?;
                (from, epoch.saturating_sub(1), source)
            }
        };
        store.close().await?;
        if been.contains(&to) {
            bail!("the records have moved in a circle, from the {here} to the {to} and back");
        }
        let advice = advice(&to);
        let cannot =
            || format!("the records are not in the {here} but in the {to}, which cannot be opened: {advice}");
        config = at(&config, &to)?;
        store = open_existing(&config).await.with_context(cannot)?;
        let found = read_state(&*store).await.with_context(cannot)?;
        let is_another = match found.state {
            StorageState::Active { epoch: found } if found < epoch => true,
            StorageState::Active { .. } if has_copies && !holds_records(&*store).await? => true,
            _ if is_sealed => !found.may_be_sealed_to(id.as_ref()),
            _ => !found.may_be(id.as_ref()),
        };
        if is_another {
            bail!(
                "the records should be in the {to}, as the {here} says, and are not there: it was made anew since, or \
                 the one that is meant is on another machine; restore it, or say where the records are"
            );
        }
        been.push(here);
    }
}

/// Whether there is anything in a storage that an engine has put there.
async fn holds_records(store: &dyn Store) -> anyhow::Result<bool> {
    for table in [Table::Task, Table::IdempotencyKey, Table::Environment] {
        if !store.counts(table).await?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// From the unfinished target of a migration back to its source, where the records still are.
///
/// # Errors
/// Where that source is no storage, or may be on another machine.
fn go_back(config: &Config, here: &Place, from: &Place) -> anyhow::Result<()> {
    if from.backend == portable::BACKEND {
        bail!(
            "the import from {} into the {here} has not ended: finish it with `orchestrator storage import`",
            from.location
        );
    }
    let advice = advice(from);
    let is_elsewhere = config.storage_type.is_shared() && exists(from).is_some();
    if is_elsewhere {
        bail!(
            "the {here} is the target of a migration that has not finished, and not whole: the records are in the \
             {from}; {advice}, or finish it with `orchestrator storage migrate`"
        );
    }
    warn!(storage = %here, from = %from, "this is the target of a migration that has not finished; {advice}");
    Ok(())
}

/// Whether the source of a migration is sealed by it.
async fn is_sealed_by(config: &Config, from: &Place, migration: &str) -> anyhow::Result<bool> {
    let source = open_existing(&at(config, from)?).await?;
    let state = read_state(&*source).await;
    source.close().await?;
    Ok(matches!(state?.state, StorageState::Sealed { migration: found, .. } if found == migration))
}

/// What a storage is and holds.
///
/// # Errors
/// Those of the storage.
pub async fn report(store: &dyn Store, here: &Place) -> StoreResult<StorageReport> {
    let (state, epoch, other) = match read_state(store).await?.state {
        StorageState::Active { epoch } => ("active", epoch, None),
        StorageState::Migrating { epoch, from, .. } => ("migrating", epoch, Some(from)),
        StorageState::Ready { epoch, from, .. } => ("ready", epoch, Some(from)),
        StorageState::Sealed { epoch, to, .. } => ("sealed", epoch, Some(to)),
    };
    let health = store.health().await;
    let mut tables = std::collections::BTreeMap::new();
    for table in Table::ALL {
        let records: u64 = store.counts(table).await?.iter().map(|count| count.records).sum();
        tables.insert(table.as_str().to_owned(), records);
    }
    Ok(StorageReport {
        place: shown(here),
        state: state.into(),
        epoch,
        other: other.as_ref().map(shown),
        writable: health.writable,
        reason: health.reason,
        free_bytes: health.free_bytes,
        tables,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_target_that_is_not_marked_is_told_before_what_to_configure() {
        let marked =
            Report { records: 1, checksum: "0".into(), epoch: 1, waited: Duration::ZERO, warning: None };
        assert_eq!(advised(&marked, "set storage_dir"), "set storage_dir");
        let unmarked = Report { warning: Some("the disk is full".into()), ..marked };
        let told = advised(&unmarked, "set storage_dir");
        assert!(told.starts_with("do not remove the storage that was left yet"), "{told}");
        assert!(told.contains("(the disk is full)") && told.ends_with("; set storage_dir"), "{told}");
    }
}
