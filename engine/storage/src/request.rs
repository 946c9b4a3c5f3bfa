//! What can be said of a request without looking at the records: the same in every backend.

use std::collections::HashSet;

use crate::record::{Change, Expect, Key, MAX_ID_BYTES, Operation, Revision};
use crate::store::{Query, StoreError, StoreResult};

/// The most that one commit may hold, in bytes of identifiers and bodies. It bounds the memory that
/// a commit can take, and lies far below what a length in the journal can say.
const MAX_COMMIT_BYTES: usize = 1024 * 1024 * 1024;

/// The longest page of a listing, in records.
const MAX_PAGE: usize = 10_000;

fn invalid<T>(reason: String) -> StoreResult<T> {
    Err(StoreError::Invalid { reason })
}

/// The length of an identifier.
pub(crate) fn check_id(key: &Key) -> StoreResult<()> {
    match key.id.len() {
        0 => invalid(format!("an empty identifier in {}", key.table)),
        1..=MAX_ID_BYTES => Ok(()),
        length => invalid(format!("an identifier of {length} bytes in {}", key.table)),
    }
}

/// The length of the page that is asked for.
pub(crate) fn check_query(query: &Query) -> StoreResult<()> {
    match query.limit {
        1..=MAX_PAGE => Ok(()),
        limit => invalid(format!("a page of {limit} records")),
    }
}

/// What can be said of a commit without looking at the records.
pub(crate) fn check_commit(operations: &[Operation]) -> StoreResult<()> {
    if operations.is_empty() {
        return invalid("a commit without operations".to_owned());
    }
    let mut keys = HashSet::with_capacity(operations.len());
    let mut bytes = 0;
    for Operation { key, expect, change } in operations {
        check_id(key)?;
        if !keys.insert(key) {
            return invalid(format!("{key} stands twice in a commit"));
        }
        match (expect, change) {
            (Expect::Revision(0), _) => return invalid(format!("{key} is expected at revision 0")),
            (Expect::Absent, Change::Delete) => {
                return invalid(format!("{key} is to be removed and expected to be absent"));
            }
            (_, Change::Import { revision: 0, .. }) => {
                return invalid(format!("{key} is to be imported at revision 0"));
            }
            (_, Change::Put { body, .. } | Change::Import { body, .. }) => bytes += body.get().len(),
            _ => {}
        }
        bytes += key.id.len();
    }
    if bytes > MAX_COMMIT_BYTES {
        return invalid(format!("a commit of {bytes} bytes"));
    }
    Ok(())
}

/// The revision that an operation gives its record: 0 when it is removed or was checked to be absent.
pub(crate) fn revision_after(operation: &Operation) -> Revision {
    match (&operation.change, operation.expect) {
        (Change::Put { .. }, Expect::Absent) => 1,
        (Change::Put { .. }, Expect::Revision(revision)) => revision + 1,
        (Change::Import { revision, .. }, _) => *revision,
        (Change::Delete, _) | (Change::Check, Expect::Absent) => 0,
        (Change::Check, Expect::Revision(revision)) => revision,
    }
}
