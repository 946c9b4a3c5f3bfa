//! Moving the records of one store to another, of whatever backends.
//!
//! Everything here works on the [`Store`] trait. [`migrate`] moves the records of a store that nobody
//! else writes to; [`live::SwitchingStore`] does the same under an engine that goes on working;
//! [`portable`] writes them to a file and reads them back. Revisions move with the records, so whoever
//! has read a record before the move is right or wrong about it after it.
//!
//! # Which store is the truth
//!
//! Each store may hold one record that says what it is ([`state::StorageState`]). A migration with an
//! identifier `m`, from a store in epoch `e`, writes these records, each durable before the next thing
//! is begun:
//!
//! | step | where | what | what it means to whoever opens |
//! |---|---|---|---|
//! | 0 | source | its identity, where it has none | nothing; each end names the other by its identity |
//! | 1 | target | `migrating m, e + 1, from source` | the target refuses: it is not whole |
//! | 2 | target | the records, compared one by one; both sums are equal | the same |
//! | 3 | target | `ready m, e + 1, from source` | the target asks its source, and refuses unless 4 has happened |
//! | 4 | source | `sealed m, e + 1, to target` | **the moment of change**: one record in one commit |
//! | 5 | target | `active e + 1` | the target is the truth without a question |
//!
//! Before 4 the source is not sealed, so it is the truth; the target is `migrating` or `ready`, and
//! neither starts. From 4 on the source is sealed and never starts again; its seal names the target, and
//! the target is `ready` with the same identifier, which together mean `active`. So a crash after
//! 1, 2 or 3 leaves the source, and a migration of it to the same target goes on where the other broke off:
//! it puts right what differs, whatever is there. One of another source, in a directory of the same name on
//! another machine, does not: it cannot know that 4 has not happened there. Nor does it fill what was left by
//! records that have moved to a directory of that name. A crash after 4 leaves the
//! target: who opens it, or follows the seal to it, does step 5 ([`settle_target`]). Step 5 itself may fail
//! where 4 has not: it is tried again for some time, and as long as it has not succeeded the source is
//! needed, since it alone says that the target is the truth. Step 4 expects the state that was read before
//! step 1, or written in step 0, so of two migrations of a store one seals it. When the outcome of step 4 is
//! unknown, the source is asked; and where it says that it is not sealed, its state is written once more as
//! it was, with the same expectation, so that a seal that is still on its way can never arrive.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use crate::record::{Expect, Key};
use crate::store::{Store, StoreError};

mod catch_up;
pub mod content;
mod copy;
mod gate;
pub mod live;
pub mod portable;
pub mod state;
mod target;

use content::counted;
use copy::Copier;
use state::{Epoch, HeldState, Place, StorageState, read_state, write_state};
use target::Target;

/// Why records could not be moved. Unless it says otherwise the source is as it was.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    /// The source failed.
    #[error("the storage that the records come from failed")]
    Source(#[source] StoreError),
    /// The target failed.
    #[error("the storage that the records go to failed")]
    Target(#[source] StoreError),
    /// The source is not the truth: the records have moved already.
    #[error("the records have moved already: to {to}")]
    SourceSealed {
        /// Where they are.
        to: Place,
    },
    /// The source is itself the unfinished target of a migration.
    #[error("the source is the unfinished target of another migration: from {from}")]
    SourceIncomplete {
        /// Where the records are.
        from: Place,
    },
    /// The target holds records of its own.
    #[error("the target is not empty: it holds {records} records")]
    TargetNotEmpty {
        /// How many.
        records: u64,
    },
    /// The target belongs to the unfinished migration of another source.
    #[error("the target is the unfinished target of another migration: from {from}")]
    TargetTaken {
        /// Of which.
        from: Place,
    },
    /// The target belongs to the unfinished migration of another store with the name of the source.
    #[error(
        "the target is the unfinished target of another storage, {from} as well: on another machine, or here before \
         it was made anew"
    )]
    TargetOfNamesake {
        /// Its name.
        from: Place,
    },
    /// The target was left behind by other records, which are elsewhere.
    #[error("the target is sealed: its records have moved to {to}")]
    TargetSealed {
        /// Where they are.
        to: Place,
    },
    /// The records of the target have moved to a store with the name of the source before, which is another one.
    #[error(
        "the target is sealed: its records have moved to another storage, {to} as well: on another machine, or here \
         before it was made anew"
    )]
    SourceReplaced {
        /// Its name.
        to: Place,
    },
    /// Another migration, or an engine, has taken the target.
    #[error("the target was taken by another migration or an engine meanwhile")]
    TargetLost,
    /// A record is not the same on both sides, though nobody has changed it.
    #[error("{key} is not the same on both sides")]
    Unlike {
        /// Which.
        key: Key,
    },
    /// What both sides hold does not add up to the same.
    #[error(
        "the source holds {source_records} records with checksum {source_checksum}, \
         the target {target_records} with {target_checksum}"
    )]
    Sums {
        /// How many records the source counts.
        source_records: u64,
        /// How many records the target counts.
        target_records: u64,
        /// What those of the source add up to.
        source_checksum: String,
        /// What those of the target add up to.
        target_checksum: String,
    },
    /// The source changes faster than it can be read.
    #[error("the records change faster than they can be copied")]
    Outrun,
    /// Somebody called it off.
    #[error("the migration was cancelled")]
    Cancelled,
    /// Another migration of this store is under way.
    #[error("another migration is under way")]
    Busy,
    /// Others work on the source.
    #[error("{0}")]
    NotAlone(String),
    /// Commits would have had to wait too long for those under way and for the last changes to be brought over.
    #[error("commits would have had to wait for longer than {} ms", patience.as_millis())]
    TooSlow {
        /// How long they wait at most.
        patience: Duration,
    },
    /// It is not known whether the source is sealed: it must be opened again, which tells.
    #[error("it is not known whether the records have moved: the storage must be opened again")]
    Unknown(#[source] StoreError),
}

/// What is to be moved where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// An identifier that no other migration has.
    pub migration: String,
    /// Where the source is, as the target remembers it.
    pub from: Place,
    /// Where the target is, as the seal of the source names it.
    pub to: Place,
}

/// What a migration is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It looks at both ends.
    Checking,
    /// It copies records.
    Copying,
    /// It brings over what has changed meanwhile.
    CatchingUp,
    /// It compares every record.
    Verifying,
    /// Commits wait for the moment of change.
    Switching,
    /// The records have moved.
    Done,
}

impl Phase {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Checking => "checking",
            Self::Copying => "copying",
            Self::CatchingUp => "catching_up",
            Self::Verifying => "verifying",
            Self::Switching => "switching",
            Self::Done => "done",
        }
    }
}

/// How far a migration is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// What it is doing.
    pub phase: Phase,
    /// With how many records it has done that.
    pub done: u64,
    /// With about how many it will have.
    pub total: u64,
}

/// Where whoever started a migration sees how far it is, and calls it off.
#[derive(Debug)]
pub struct Steering {
    progress: watch::Sender<Progress>,
    cancelled: AtomicBool,
}

impl Default for Steering {
    fn default() -> Self {
        let progress = Progress { phase: Phase::Checking, done: 0, total: 0 };
        Self { progress: watch::Sender::new(progress), cancelled: AtomicBool::new(false) }
    }
}

impl Steering {
    /// How far it is, and every change of that.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Calls it off. Once the moment of change has come this does nothing.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::SeqCst);
    }

    fn check(&self) -> Result<(), MigrationError> {
        if self.cancelled.load(Ordering::SeqCst) { Err(MigrationError::Cancelled) } else { Ok(()) }
    }

    fn enter(&self, phase: Phase, total: u64) {
        self.progress.send_replace(Progress { phase, done: 0, total });
    }

    fn reach(&self, done: u64) {
        self.progress.send_modify(|progress| {
            progress.done = done;
            progress.total = progress.total.max(done);
        });
    }

    fn advance(&self, more: u64) {
        self.progress.send_modify(|progress| {
            progress.done += more;
            progress.total = progress.total.max(progress.done);
        });
    }

    fn reach_all(&self) {
        self.progress.send_modify(|progress| progress.done = progress.total);
    }
}

/// What a migration has moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// How many records.
    pub records: u64,
    /// What they add up to, on both sides.
    pub checksum: String,
    /// The epoch of the target.
    pub epoch: Epoch,
    /// How long commits have waited; zero where nobody else wrote.
    pub waited: Duration,
    /// Why the target could not be marked as the truth after the moment of change. It is the truth, but only the
    /// source says so, which must stay until somebody has opened the target while it is there.
    pub warning: Option<String>,
}

/// What the ends of a migration are, as they were found.
#[derive(Debug, Clone)]
pub struct Ends {
    source: HeldState,
    target: HeldState,
    /// The epoch of the target.
    pub epoch: Epoch,
    /// Whether the target holds what an earlier migration of the same source has left.
    pub resumed: bool,
}

/// Looks whether records may be moved from one store to the other, and changes nothing.
///
/// # Errors
/// Why not.
pub async fn inspect(source: &dyn Store, target: &dyn Store, plan: &Plan) -> Result<Ends, MigrationError> {
    let held = read_state(source).await.map_err(MigrationError::Source)?;
    let epoch = match &held.state {
        StorageState::Active { epoch } => *epoch,
        StorageState::Sealed { to, .. } => return Err(MigrationError::SourceSealed { to: to.clone() }),
        StorageState::Migrating { from, .. } | StorageState::Ready { from, .. } => {
            return Err(MigrationError::SourceIncomplete { from: from.clone() });
        }
    };
    let found = read_state(target).await.map_err(MigrationError::Target)?;
    let resumed = match found.state.clone() {
        StorageState::Active { .. } => match counted(target).await.map_err(MigrationError::Target)? {
            0 => false,
            records => return Err(MigrationError::TargetNotEmpty { records }),
        },
        StorageState::Migrating { from, source: of, .. } | StorageState::Ready { from, source: of, .. } => {
            match (from == plan.from, held.may_be(of.as_ref())) {
                (true, true) => true,
                (true, false) => return Err(MigrationError::TargetOfNamesake { from }),
                (false, _) => return Err(MigrationError::TargetTaken { from }),
            }
        }
        // What this very source has left behind when it moved: it moves back.
        StorageState::Sealed { to, epoch: left, target: of, .. } => match to == plan.from {
            true if epoch < left || !held.may_be_sealed_to(of.as_ref()) => {
                return Err(MigrationError::SourceReplaced { to });
            }
            true => true,
            false => return Err(MigrationError::TargetSealed { to }),
        },
    };
    Ok(Ends { source: held, target: found, epoch: epoch + 1, resumed })
}

/// Step 0. Gives both ends an identity where they have none, from which each will know whose it is; the target's
/// is written with its mark.
async fn identify(source: &dyn Store, plan: &Plan, ends: &mut Ends) -> Result<(), MigrationError> {
    ends.target.id.get_or_insert_with(|| format!("{}/target", plan.migration));
    if ends.source.id.is_some() {
        return Ok(());
    }
    let named = HeldState { id: Some(format!("{}/source", plan.migration)), ..ends.source.clone() };
    let revision = write_state(source, &named, &named.state).await.map_err(|error| match error {
        StoreError::Conflict { .. } => not_alone(),
        error => MigrationError::Source(error),
    })?;
    ends.source = HeldState { expect: Expect::Revision(revision), ..named };
    Ok(())
}

fn not_alone() -> MigrationError {
    MigrationError::NotAlone(
        "another engine has begun to work on the records meanwhile: stop it and begin again".to_owned(),
    )
}

impl Plan {
    fn migrating(&self, ends: &Ends) -> StorageState {
        StorageState::Migrating {
            migration: self.migration.clone(),
            epoch: ends.epoch,
            from: self.from.clone(),
            source: ends.source.id.clone(),
        }
    }

    fn ready(&self, ends: &Ends) -> StorageState {
        StorageState::Ready {
            migration: self.migration.clone(),
            epoch: ends.epoch,
            from: self.from.clone(),
            source: ends.source.id.clone(),
        }
    }

    fn sealed(&self, ends: &Ends) -> StorageState {
        StorageState::Sealed {
            migration: self.migration.clone(),
            epoch: ends.epoch,
            to: self.to.clone(),
            target: ends.target.id.clone(),
        }
    }
}

/// Step 4. When this returns `Ok`, the source is sealed; on [`MigrationError::Unknown`] nobody knows; on
/// any other error it is not sealed, and never will be by this migration.
async fn seal(source: &dyn Store, plan: &Plan, ends: &Ends) -> Result<(), MigrationError> {
    let sealed = plan.sealed(ends);
    let first = match write_state(source, &ends.source, &sealed).await {
        Ok(_) => return Ok(()),
        Err(error) => error,
    };
    if let Ok(found) = read_state(source).await
        && found.state == sealed
    {
        // It can be seen, and need not be durable yet; but what is committed after it is never durable
        // without it.
        let again = write_state(source, &found, &sealed).await;
        return again.map(drop).map_err(MigrationError::Unknown);
    }
    // Whichever of the two is made, the other one's expectation does not hold any more.
    match write_state(source, &ends.source, &ends.source.state).await {
        Ok(_) => Err(MigrationError::Source(first)),
        Err(StoreError::Conflict { .. }) => match read_state(source).await {
            Ok(found) if found.state == sealed => {
                write_state(source, &found, &sealed).await.map(drop).map_err(MigrationError::Unknown)
            }
            Ok(HeldState { state: StorageState::Active { .. }, .. }) => Err(not_alone()),
            Ok(_) => Err(MigrationError::Source(first)),
            Err(error) => Err(MigrationError::Unknown(error)),
        },
        // A store that makes nothing until it is opened again may have made the first one.
        Err(second) if is_known(&first) && is_known(&second) => Err(MigrationError::Source(first)),
        Err(_) => Err(MigrationError::Unknown(first)),
    }
}

/// Whether an error says that nothing was written.
fn is_known(error: &StoreError) -> bool {
    matches!(
        error,
        StoreError::Full { .. }
            | StoreError::Io { .. }
            | StoreError::Invalid { .. }
            | StoreError::Away { .. }
            | StoreError::Database { .. }
    )
}

/// Moves the records of a store that nobody else writes to.
///
/// # Errors
/// After any error but [`MigrationError::Unknown`] the source is the truth as before.
pub async fn migrate(
    source: &dyn Store,
    target: &dyn Store,
    plan: &Plan,
    steering: &Steering,
) -> Result<Report, MigrationError> {
    let mut ends = inspect(source, target, plan).await?;
    identify(source, plan, &mut ends).await?;
    let target = Target::take(target, ends.target.clone(), plan.migrating(&ends)).await?;
    let mut copier = Copier::new(source, target, steering);
    while let Err(error) = bring_over(&mut copier).await {
        copier.begin_anew(error)?;
    }
    steering.check()?;
    steering.enter(Phase::Switching, 0);
    copier.target.mark(plan.ready(&ends)).await?;
    seal(source, plan, &ends).await?;
    let warning = copier.target.activate_patiently(ends.epoch).await.err().map(|error| told(&error));
    steering.enter(Phase::Done, copier.target_tally.records);
    steering.reach_all();
    Ok(Report {
        records: copier.target_tally.records,
        checksum: copier.target_tally.checksum(),
        epoch: ends.epoch,
        waited: Duration::ZERO,
        warning,
    })
}

/// Step 2.
async fn bring_over(copier: &mut Copier<'_>) -> Result<(), MigrationError> {
    copier.copy().await?;
    copier.verify().await?;
    copier.enter(Phase::CatchingUp);
    loop {
        copier.settle().await?;
        copier.look().await?;
        if copier.behind() == 0 {
            return copier.conclude().await;
        }
    }
}

/// Step 5 for a target whose source was found sealed: makes it active where it is ready by the migration
/// that has sealed the source, for this epoch. Returns whether it is the truth now: one of an earlier epoch
/// was made anew since.
///
/// # Errors
/// Those of the target.
pub async fn settle_target(
    target: &dyn Store,
    migration: &str,
    sealed: Epoch,
) -> Result<bool, MigrationError> {
    let held = read_state(target).await.map_err(MigrationError::Target)?;
    match &held.state {
        StorageState::Active { epoch } => Ok(*epoch >= sealed),
        StorageState::Ready { migration: found, epoch, .. } if found == migration => {
            let epoch = *epoch;
            Target::held(target, held).activate(epoch).await?;
            Ok(true)
        }
        StorageState::Ready { .. } | StorageState::Migrating { .. } | StorageState::Sealed { .. } => {
            Ok(false)
        }
    }
}

/// An error with what lies behind it, in one line.
pub fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
