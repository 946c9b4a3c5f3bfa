//! The record `control/storage/state`: whether a store is the truth, or on its way, or left behind.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::value::to_raw_value;

use crate::record::{Change, Expect, Fields, Key, Operation, Revision, Table};
use crate::store::{Store, StoreError, StoreResult};

/// Where a store is, in words from which it can be opened again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The backend's name, as [`StoreHealth::backend`](crate::StoreHealth::backend) has it; `file` for a
    /// portable file.
    pub backend: String,
    /// The directory that holds it, or the address of the server, without a password.
    pub location: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}", self.backend, self.location)
    }
}

/// How often the records have moved before: grows by one with each migration.
pub type Epoch = u64;

/// Which store it is, wherever it is: two machines may have one in directories of the same name. Named after the
/// first migration of which it was an end. A copy of a directory has that of its original.
pub type StoreId = String;

/// What a store is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case", deny_unknown_fields)]
pub enum StorageState {
    /// The truth. A store without the record is this, in epoch 0.
    Active {
        /// How often the records have moved.
        epoch: Epoch,
    },
    /// Being filled, and not whole.
    Migrating {
        /// The migration's identifier.
        migration: String,
        /// The epoch that the store will have.
        epoch: Epoch,
        /// Where the records come from, and still are.
        from: Place,
        /// Which store that is; `None` for a file.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        source: Option<StoreId>,
    },
    /// Whole and verified. The truth as soon as its source is sealed by the same migration, and not
    /// before.
    Ready {
        /// The migration's identifier.
        migration: String,
        /// The epoch that the store has when its source is sealed.
        epoch: Epoch,
        /// Where the records come from.
        from: Place,
        /// Which store that is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        source: Option<StoreId>,
    },
    /// Left behind: the truth is elsewhere.
    Sealed {
        /// The migration's identifier.
        migration: String,
        /// The epoch of the store where the records are now.
        epoch: Epoch,
        /// Where that is.
        to: Place,
        /// Which store that is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        target: Option<StoreId>,
    },
}

/// The key of the record.
pub fn state_key() -> Key {
    Key::new(Table::Control, "storage/state")
}

/// The record.
#[derive(Serialize, Deserialize)]
struct Stored {
    #[serde(flatten)]
    state: StorageState,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<StoreId>,
}

/// A state as it was read, and what to expect when it is replaced.
#[derive(Debug, Clone)]
pub struct HeldState {
    /// What the store is.
    pub state: StorageState,
    /// Which store it is; `None` until it is an end of a migration. It stays whatever becomes of the state.
    pub id: Option<StoreId>,
    pub(super) expect: Expect,
}

impl HeldState {
    /// Whether it is the store that another one names; where that names none it may be.
    pub fn may_be(&self, id: Option<&StoreId>) -> bool {
        id.is_none() || self.id.as_ref() == id
    }

    /// Whether it is the one that a seal names. One without an identity may be: it was restored from a file.
    pub fn may_be_sealed_to(&self, id: Option<&StoreId>) -> bool {
        self.id.is_none() || self.may_be(id)
    }
}

/// Reads what a store is.
///
/// # Errors
/// Those of the store; [`StoreError::Corrupt`] for a record that this release does not understand.
pub async fn read_state(store: &dyn Store) -> StoreResult<HeldState> {
    let Some(record) = store.get(&state_key()).await? else {
        return Ok(HeldState { state: StorageState::Active { epoch: 0 }, id: None, expect: Expect::Absent });
    };
    match serde_json::from_str(record.body.get()) {
        Ok(Stored { state, id }) => Ok(HeldState { state, id, expect: Expect::Revision(record.revision) }),
        Err(error) => Err(StoreError::Corrupt {
            path: store.health().await.location.into(),
            offset: 0,
            reason: format!("the record {} is not understood: {error}", record.key),
        }),
    }
}

/// Replaces the state that was read, for the same store. Returns the record's revision.
///
/// # Errors
/// Those of a commit; [`StoreError::Conflict`] when another came first.
pub async fn write_state(store: &dyn Store, held: &HeldState, state: &StorageState) -> StoreResult<Revision> {
    let stored = Stored { state: state.clone(), id: held.id.clone() };
    let body = to_raw_value(&stored)
        .map_err(|error| StoreError::Invalid { reason: format!("the state cannot be written: {error}") })?;
    let change = Change::Put { fields: Fields::default(), body: body.into() };
    let operation = Operation { key: state_key(), expect: held.expect, change };
    let commit = store.commit(vec![operation]).await?;
    Ok(commit.revisions.first().copied().unwrap_or_default())
}

/// Writes the state of a store that is the truth once more, as it is: a migration that has looked at the
/// store before cannot seal it any more. Whoever begins to write to a store that others may be moving says
/// so with this.
///
/// # Errors
/// Those of the store; [`StoreError::Failed`] when it is not the truth.
pub async fn renew_state(store: &dyn Store) -> StoreResult<()> {
    loop {
        let held = read_state(store).await?;
        if !matches!(held.state, StorageState::Active { .. }) {
            return Err(StoreError::Failed { reason: MOVED.to_owned() });
        }
        match write_state(store, &held, &held.state).await {
            Ok(_) => return Ok(()),
            Err(StoreError::Conflict { .. }) => {}
            Err(error) => return Err(error),
        }
    }
}

/// What whoever writes to a store that somebody has sealed is told.
pub(super) const MOVED: &str = "another engine has moved the records";

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn a_record_says_which_store_it_is_and_nothing_that_is_not_understood() {
        let stored: Stored = serde_json::from_str(r#"{"state":"active","epoch":2,"id":"m"}"#).unwrap();
        assert_eq!((stored.state, stored.id.as_deref()), (StorageState::Active { epoch: 2 }, Some("m")));
        let without: Stored = serde_json::from_str(r#"{"state":"active","epoch":2}"#).unwrap();
        assert_eq!(without.id, None);
        assert_eq!(serde_json::to_string(&without).unwrap(), r#"{"state":"active","epoch":2}"#);
        for unknown in [r#"{"state":"active","epoch":2,"more":1}"#, r#"{"state":"other","epoch":2}"#] {
            assert!(serde_json::from_str::<Stored>(unknown).is_err(), "{unknown}");
        }
    }
}
