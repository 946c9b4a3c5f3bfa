//! How the engine's things are stored as records.

use std::sync::Arc;

use orchestrator_protocol::task::{Task, TaskId, TaskStatus};
use orchestrator_protocol::{Error, ErrorCode};
use orchestrator_storage::{
    Change, Expect, Fields, Filter, Key, Operation, Order, Query, Record, Revision, Store, StoreError, Table,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::{RawValue, to_raw_value};

/// How many records one look into the store returns here.
const PAGE: usize = 1_000;

/// Shows every record of a table that a filter lets through, the oldest first.
///
/// # Errors
/// Those of the storage and of whoever is shown the records.
pub async fn each(
    store: &dyn Store,
    table: Table,
    filter: Filter,
    mut visit: impl FnMut(Record) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut query = Query { table, filter, order: Order::OldestFirst, after: None, limit: PAGE };
    loop {
        let page = store.list(&query).await.map_err(storage_error)?;
        page.records.into_iter().try_for_each(&mut visit)?;
        match page.next {
            Some(next) => query.after = Some(next),
            None => return Ok(()),
        }
    }
}

/// What lets tasks in a status through.
pub fn status_filter(status: TaskStatus) -> Filter {
    Filter { statuses: vec![status_field(status)], ..Filter::default() }
}

/// The key of a task.
pub fn task_key(id: TaskId) -> Key {
    Key::new(Table::Task, id.to_string())
}

/// What is indexed of a task.
fn task_fields(task: &Task) -> Fields {
    let pairs = task.labels.iter().map(|(name, value)| (Arc::from(name.as_str()), Arc::from(value.as_str())));
    Fields {
        status: Some(task.status.as_str().into()),
        group: Some(task.group.as_str().into()),
        kind: Some(task.kind().as_str().into()),
        parent: task.parent.map(|parent| parent.to_string().into()),
        created_at_ms: task.created_at.timestamp_millis(),
        ended_at_ms: task.completed_at.map(|time| time.timestamp_millis()),
        labels: pairs.collect(),
    }
}

/// The operation that writes a task.
pub fn put_task(task: &Task, expect: Expect) -> Result<Operation, Error> {
    put(task_key(task.id), task_fields(task), task, expect)
}

/// The operation that writes anything.
pub fn put<T: Serialize>(key: Key, fields: Fields, value: &T, expect: Expect) -> Result<Operation, Error> {
    let body: Box<RawValue> = to_raw_value(value)
        .map_err(|error| Error::internal(format!("{key} cannot be written as JSON: {error}")))?;
    Ok(Operation { key, expect, change: Change::Put { fields, body: body.into() } })
}

/// The operation that removes a record.
pub fn delete(key: Key, revision: Revision) -> Operation {
    Operation { key, expect: Expect::Revision(revision), change: Change::Delete }
}

/// The operation that fails a commit unless a record is as it was read.
pub fn check(key: Key, revision: Revision) -> Operation {
    Operation { key, expect: Expect::Revision(revision), change: Change::Check }
}

/// The operation that fails a commit when there is a record.
pub fn check_absent(key: Key) -> Operation {
    Operation { key, expect: Expect::Absent, change: Change::Check }
}

/// What a record says.
pub fn read<T: DeserializeOwned>(record: &Record) -> Result<T, Error> {
    serde_json::from_str(record.body.get()).map_err(|error| {
        Error::internal(format!("the stored record {} cannot be understood: {error}", record.key))
    })
}

/// The name of a state, as stored.
pub fn status_field(status: TaskStatus) -> Arc<str> {
    status.as_str().into()
}

/// A storage error, as a front door tells it.
pub fn storage_error(error: StoreError) -> Error {
    let chain = |error: &StoreError| match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    };
    match &error {
        StoreError::Conflict { .. } => Error::conflict(error.to_string()).with_help("ask again"),
        StoreError::Full { .. } => Error::unavailable(chain(&error))
            .with_help("free some space: nothing was lost, and the engine goes on by itself"),
        StoreError::Failed { .. } => Error::unavailable(error.to_string())
            .with_help("the engine opens it again by itself and reads back what is there; if that lasts, look at the disk"),
        StoreError::Away { .. } => Error::unavailable(error.to_string())
            .with_help("nothing was written: the engine goes on by itself when the database is back"),
        StoreError::OutcomeUnknown { .. } => Error::unavailable(error.to_string())
            .with_help("look whether it has happened before you ask for it again"),
        StoreError::Unseated => Error::unavailable(error.to_string())
            .with_help("nothing was changed; the engine takes a new seat by itself: ask again in a moment"),
        StoreError::Closed => Error::unavailable("the engine is stopping"),
        StoreError::Invalid { .. } => Error::invalid(error.to_string()),
        StoreError::InUse { .. }
        | StoreError::Corrupt { .. }
        | StoreError::NewerSchema { .. }
        | StoreError::Database { .. }
        | StoreError::Io { .. } => Error::new(ErrorCode::Internal, chain(&error)),
    }
}
