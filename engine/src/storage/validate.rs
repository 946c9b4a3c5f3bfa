//! What is looked at before records are moved. Nothing is changed by it: a target that does not exist
//! is not made, one that does is opened and closed again.

use std::path::{Path, PathBuf};

use orchestrator_protocol::request::{Check, CheckState};
use orchestrator_protocol::storage::Validation;
use orchestrator_storage::migration::state::Place;
use orchestrator_storage::migration::{MigrationError, Plan, inspect, told};
use orchestrator_storage::{Store, StoreError, Table};
use rustix::fs::{Access, access, statvfs};

use super::init;
use super::open::open_store;
use super::{exists, place, shown};
use crate::config::{Config, StorageType};

/// What is left free at least, in bytes, beside what the records take twice: once in a journal, once
/// packed.
const RESERVE_BYTES: u64 = 16 * 1024 * 1024;
/// How large a record is taken for whose size cannot be looked at, in bytes: well above a task with its history,
/// and a segment of output as most of them are at most.
const RECORD_BYTES: u64 = 4 * 1024;
const SEGMENT_BYTES: u64 = 64 * 1024;

fn check(name: &str, found: Result<String, (String, &str)>) -> Check {
    let (state, found, advice) = match found {
        Ok(found) => (CheckState::Ok, found, None),
        Err((found, advice)) => (CheckState::Failed, found, Some(advice.to_owned())),
    };
    Check { name: name.into(), state, found, advice }
}

/// Looks at a target for the records of a source.
pub async fn validate(source: &dyn Store, from: &Place, target: &Config) -> Validation {
    let to = place(target);
    let mut checks = Vec::new();
    let health = source.health().await;
    checks.push(check(
        "source",
        match health.reason {
            None => Ok(format!("{from}")),
            Some(reason) => Err((reason, "make the source work first: the last step writes to it")),
        },
    ));
    if *from == to {
        let advice = "name another directory or another type";
        checks.push(check("target", Err((format!("it is the source itself: {to}"), advice))));
    } else {
        if target.storage_type != StorageType::SurrealdbServer {
            checks.push(permissions(&target.storage_dir));
            checks.push(space(&target.storage_dir, taken_by(source, from).await));
        }
        checks.push(ends(source, from, target, &to).await);
    }
    let is_possible = checks.iter().all(|check| check.state != CheckState::Failed);
    Validation { from: shown(from), to: shown(&to), is_possible, checks }
}

/// The state of both ends, as far as they are there.
async fn ends(source: &dyn Store, from: &Place, target: &Config, to: &Place) -> Check {
    let plan = Plan { migration: String::new(), from: from.clone(), to: to.clone() };
    let (is_there, advice) = match exists(to) {
        Some(is_there) => (Ok(is_there), "name an empty or a new directory"),
        None => (
            init::is_prepared(target).await,
            "start the server, and prepare its database with `orchestrator storage init`",
        ),
    };
    let is_there = match is_there {
        Ok(is_there) => is_there,
        Err(error) => return check("target", Err((format!("{error:#}"), advice))),
    };
    let found = if !is_there {
        // An empty store has no state and no records: the source is all there is to look at.
        inspect_source(source).await.map(|()| format!("{to}: will be made"))
    } else {
        match open_store(target).await {
            Err(error) => return check("target", Err((format!("{error:#}"), advice))),
            Ok(store) => {
                let found = inspect(source, &*store, &plan).await;
                // It was only looked at.
                let _ = store.close().await;
                found.map(|ends| match ends.resumed {
                    true => format!("{to}: goes on with what a migration before has left"),
                    false => format!("{to}: empty"),
                })
            }
        }
    };
    let advice = match found {
        Err(MigrationError::SourceSealed { .. } | MigrationError::SourceIncomplete { .. }) => {
            "start from where the records are"
        }
        Err(_) if target.storage_type.is_shared() => "name another database or namespace",
        _ => advice,
    };
    check("target", found.map_err(|error| (told(&error), advice)))
}

async fn inspect_source(source: &dyn Store) -> Result<(), MigrationError> {
    use orchestrator_storage::migration::state::{StorageState, read_state};
    match read_state(source).await.map_err(MigrationError::Source)?.state {
        StorageState::Active { .. } => Ok(()),
        StorageState::Sealed { to, .. } => Err(MigrationError::SourceSealed { to }),
        StorageState::Migrating { from, .. } | StorageState::Ready { from, .. } => {
            Err(MigrationError::SourceIncomplete { from })
        }
    }
}

/// The directory itself, or the nearest one above it that is there.
fn nearest(directory: &Path) -> PathBuf {
    let above = directory.ancestors().find(|path| path.exists());
    above.unwrap_or(Path::new("/")).to_owned()
}

fn permissions(directory: &Path) -> Check {
    let nearest = nearest(directory);
    let found = if !nearest.is_dir() {
        Err((format!("{} is no directory", nearest.display()), "name another directory"))
    } else {
        match access(&nearest, Access::WRITE_OK | Access::EXEC_OK) {
            Ok(()) => Ok(format!("{} can be written to", nearest.display())),
            Err(error) => Err((
                format!("{} cannot be written to: {error}", nearest.display()),
                "name a directory of the engine's user",
            )),
        }
    };
    check("permissions", found)
}

/// How many bytes the records of a storage take; on a server as they are likely to.
async fn taken_by(source: &dyn Store, place: &Place) -> Result<u64, StoreError> {
    match place.backend.as_str() {
        "filesystem" => Ok(taken(&Path::new(&place.location).join("queue.rkvs"))),
        "surrealdb-embedded" => Ok(taken(&Path::new(&place.location).join("orchestrator.db"))),
        _ => {
            let mut bytes = 0;
            for table in Table::ALL {
                let size = if table == Table::LogSegment { SEGMENT_BYTES } else { RECORD_BYTES };
                bytes += size * source.counts(table).await?.iter().map(|count| count.records).sum::<u64>();
            }
            Ok(bytes)
        }
    }
}

fn space(directory: &Path, taken: Result<u64, StoreError>) -> Check {
    let needed = match taken {
        Ok(bytes) => 2 * bytes + RESERVE_BYTES,
        Err(error) => {
            return check("space", Err((format!("how much is needed cannot be told: {error}"), "try again")));
        }
    };
    let found = match statvfs(nearest(directory)) {
        Ok(of) => {
            let free = of.f_bavail.saturating_mul(of.f_frsize);
            let words = format!("{free} bytes free, {needed} may be needed");
            match free >= needed {
                true => Ok(words),
                false => Err((words, "free some space, or name a directory on another disk")),
            }
        }
        Err(error) => Err((format!("the free space cannot be told: {error}"), "look at the disk")),
    };
    check("space", found)
}

/// How many bytes the files below a directory take, as far as they can be looked at.
fn taken(directory: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(directory) else { return 0 };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(data) if data.is_dir() => taken(&entry.path()),
        Ok(data) => data.len(),
        Err(_) => 0,
    });
    sizes.sum()
}
