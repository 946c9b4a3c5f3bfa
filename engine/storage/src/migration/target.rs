//! The target of one migration.
//!
//! Whoever fills a store marks it first, and whatever it writes afterwards holds only while that very mark
//! stands: each commit checks the record of the store's state at the revision of the mark. So of two
//! migrations to one store, or of one that was held up while another came to its end, nothing is written by
//! the one that lost the mark.

use std::time::Duration;

use tokio::time::Instant;

use super::MigrationError;
use super::state::{Epoch, HeldState, StorageState, read_state, state_key, write_state};
use crate::record::{Change, Expect, Operation};
use crate::store::{Store, StoreError};

/// For how long a target that fails is tried again once its source is sealed, before the migration is told as
/// ended; and how long the pauses between are, which grow.
const ACTIVATION_PATIENCE: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A store that one migration fills.
pub(super) struct Target<'s> {
    pub(super) store: &'s dyn Store,
    held: HeldState,
}

fn failed(error: StoreError) -> MigrationError {
    match error {
        StoreError::Conflict { key } if key == state_key() => MigrationError::TargetLost,
        error => MigrationError::Target(error),
    }
}

/// Whether the same may succeed later on: not in a store that must be opened again first, or that somebody
/// else has.
pub(super) fn may_pass(error: &MigrationError) -> bool {
    !matches!(
        error,
        MigrationError::TargetLost | MigrationError::Target(StoreError::Failed { .. } | StoreError::Closed)
    )
}

impl<'s> Target<'s> {
    /// A store that is marked like this.
    pub(super) fn held(store: &'s dyn Store, held: HeldState) -> Self {
        Self { store, held }
    }

    /// Marks a store that was found like this.
    pub(super) async fn take(
        store: &'s dyn Store,
        found: HeldState,
        mark: StorageState,
    ) -> Result<Self, MigrationError> {
        let mut this = Self { store, held: found };
        this.mark(mark).await?;
        Ok(this)
    }

    /// Replaces the mark.
    pub(super) async fn mark(&mut self, mark: StorageState) -> Result<(), MigrationError> {
        let revision = write_state(self.store, &self.held, &mark).await.map_err(failed)?;
        self.held = HeldState { state: mark, id: self.held.id.take(), expect: Expect::Revision(revision) };
        Ok(())
    }

    /// What whoever writes to the store has to expect of the record of its state.
    pub(super) fn expect(&self) -> Expect {
        self.held.expect
    }

    /// Commits records.
    pub(super) async fn commit(&self, operations: Vec<Operation>) -> Result<(), MigrationError> {
        if operations.is_empty() {
            return Ok(());
        }
        // First, so that it is what is told where records have changed as well.
        let check = Operation { key: state_key(), expect: self.held.expect, change: Change::Check };
        let operations = [check].into_iter().chain(operations).collect();
        self.store.commit(operations).await.map_err(failed)?;
        Ok(())
    }

    /// Makes a store that is ready the truth, once its source is sealed.
    pub(super) async fn activate(&mut self, epoch: Epoch) -> Result<(), MigrationError> {
        match self.mark(StorageState::Active { epoch }).await {
            Err(MigrationError::TargetLost) => match read_state(self.store).await.map(|held| held.state) {
                // Whoever has opened it meanwhile was quicker.
                Ok(StorageState::Active { epoch: found } | StorageState::Sealed { epoch: found, .. })
                    if found >= epoch =>
                {
                    Ok(())
                }
                Ok(_) => Err(MigrationError::TargetLost),
                Err(error) => Err(MigrationError::Target(error)),
            },
            marked => marked,
        }
    }

    /// The same, tried again for some time where the store fails.
    pub(super) async fn activate_patiently(&mut self, epoch: Epoch) -> Result<(), MigrationError> {
        let deadline = Instant::now() + ACTIVATION_PATIENCE;
        let mut pause = FIRST_PAUSE;
        loop {
            match self.activate(epoch).await {
                Err(error) if may_pass(&error) && Instant::now() + pause < deadline => {
                    tokio::time::sleep(pause).await;
                    pause = (2 * pause).min(LONGEST_PAUSE);
                }
                ended => return ended,
            }
        }
    }
}
