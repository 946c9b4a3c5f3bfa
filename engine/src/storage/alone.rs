//! Being alone on a storage that several engines may use: what moving its records away asks for.

use orchestrator_protocol::task::{Task, TaskKind, TaskStatus};
use orchestrator_protocol::{Error, Result};
use orchestrator_storage::{Store, Table};

use crate::membership::{self, LeaseTimes, Member};
use crate::records::{self, status_filter};

/// How many tasks an error names.
const NAMED: usize = 5;

/// For an engine with a seat: fails while others have theirs.
///
/// # Errors
/// A conflict that names them; those of the storage.
pub async fn no_other_seats(store: &dyn Store, own: &str) -> Result<()> {
    let members = membership::members(store).await?;
    refuse(members.into_iter().filter(|member| member.is_seated && member.id != own).collect())
}

/// For whoever has no seat: looks for as long as a lease lasts whether the engines with seats are still there,
/// and removes those that are not.
///
/// # Errors
/// A conflict that names those that are; those of the storage.
pub async fn no_seats(store: &dyn Store, times: LeaseTimes) -> Result<()> {
    refuse(membership::remove_lost(store, times).await?)
}

fn refuse(others: Vec<Member>) -> Result<()> {
    if others.is_empty() {
        return Ok(());
    }
    let others = others.iter().map(|member| format!("{} on {}", member.id, member.about.host));
    let others: Vec<String> = others.collect();
    Err(Error::conflict(format!("other engines work on these records: {}", others.join(", ")))
        .with_help("stop them: whoever moves the records must be alone"))
}

/// For records that go to where one engine has them for itself: fails while a task runs of which only another
/// engine can tell what becomes of it.
///
/// # Errors
/// A conflict that names such tasks; those of the storage.
pub async fn no_attempts_of_others(store: &dyn Store, own: &str) -> Result<()> {
    let mut found = Vec::new();
    records::each(store, Table::Task, status_filter(TaskStatus::Running), |record| {
        let task: Task = records::read(&record)?;
        if task.kind() != TaskKind::Workflow
            && let Some(claim) = task.claim.filter(|claim| claim.engine != own)
        {
            found.push(format!("{} '{}' on {}", task.id, task.name, claim.engine));
        }
        Ok(())
    })
    .await?;
    if found.is_empty() {
        return Ok(());
    }
    let more = found.len().saturating_sub(NAMED);
    found.truncate(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    Err(Error::conflict(format!("tasks run that other engines have begun: {}{more}", found.join(", ")))
        .with_help(
            "start their engines until they have ended, or call them off with `orchestrator task cancel --force`",
        ))
}
