//! Making one store hold what another holds, while that one may go on changing.
//!
//! A walk over both sides puts right whatever differs: on an empty target that is a snapshot, on the
//! target of a migration that was broken off it goes on there. What changes meanwhile is noted as keys
//! and brought over afterwards: the record as it is then, with its revision. A second walk compares
//! every record; those that it finds different are brought over like the changed ones. From then on each key
//! that is brought over is read back and compared at once, and the sums of both sides follow, so that
//! what remains to be done at the end is only what has changed in the last moment.
//!
//! A source remembers its newest changes only. So whoever does something long looks at them between two
//! pieces of it; and where some have been forgotten nevertheless, everything begins anew with the walk.

use std::collections::BTreeSet;

use futures::stream::{self, StreamExt, TryStreamExt};

use super::content::{PAGE, Pair, Pairs, Tally, counted, same, weight};
use super::state::state_key;
use super::target::Target;
use super::{MigrationError, Phase, Steering};
use crate::record::{Change, Expect, Key, Operation, Record, Sequence};
use crate::store::{Changes, Store, StoreResult};

/// A commit to the target is made when it holds so many records, or so many bytes of bodies. Large
/// enough that syncs do not matter, small enough for a server's limit of a request.
const BATCH_RECORDS: usize = 500;
const BATCH_BYTES: usize = 1024 * 1024;

/// How many changed keys are asked for at a time.
const CHANGES: usize = 10_000;

/// How many records are read at the same time.
const READS: usize = 32;

/// How often everything begins anew because the source no longer knew what had changed.
const MAX_RESTARTS: u32 = 5;

pub(super) struct Copier<'s> {
    source: &'s dyn Store,
    pub(super) target: Target<'s>,
    steering: &'s Steering,
    /// Up to which commit of the source the changed keys are noted.
    covered: Sequence,
    changed: BTreeSet<Key>,
    /// Whether the source has forgotten changes that are not noted: only another walk finds what they were.
    is_lost: bool,
    /// How often everything may begin anew because of that.
    restarts_left: u32,
    /// Keys that the walk of verification has found different, and left out of the sums.
    differing: BTreeSet<Key>,
    pub(super) source_tally: Tally,
    pub(super) target_tally: Tally,
}

/// Operations for the target that are committed together.
#[derive(Default)]
struct Batch {
    operations: Vec<Operation>,
    bytes: usize,
}

impl Batch {
    /// Adds what makes the target's record that of the source.
    fn add(&mut self, pair: Pair) {
        let Pair { key, source, target } = pair;
        let expect = target.as_ref().map_or(Expect::Absent, |record| Expect::Revision(record.revision));
        let change = match (source, target) {
            (Some(source), Some(target)) if same(&source, &target) => return,
            (None, None) => return,
            (None, Some(_)) => Change::Delete,
            (Some(Record { revision, fields, body, .. }), _) => {
                self.bytes += body.get().len();
                Change::Import { revision, fields, body }
            }
        };
        self.operations.push(Operation { key, expect, change });
    }

    fn is_full(&self) -> bool {
        self.operations.len() >= BATCH_RECORDS || self.bytes >= BATCH_BYTES
    }

    async fn flush(&mut self, target: &Target<'_>) -> Result<(), MigrationError> {
        target.commit(std::mem::take(self).operations).await
    }
}

/// Reads records, several at a time, in the order of the keys.
async fn read_all(store: &dyn Store, keys: &[Key]) -> StoreResult<Vec<Option<Record>>> {
    let reads: Vec<_> = keys.iter().map(|key| store.get(key)).collect();
    stream::iter(reads).buffered(READS).try_collect().await
}

impl<'s> Copier<'s> {
    pub(super) fn new(source: &'s dyn Store, target: Target<'s>, steering: &'s Steering) -> Self {
        Self {
            source,
            target,
            steering,
            covered: 0,
            changed: BTreeSet::new(),
            is_lost: false,
            restarts_left: MAX_RESTARTS,
            differing: BTreeSet::new(),
            source_tally: Tally::default(),
            target_tally: Tally::default(),
        }
    }

    /// How many changed keys are known and not brought over.
    pub(super) fn behind(&self) -> usize {
        self.changed.len()
    }

    /// Says that what is known to have changed is brought over from here on.
    pub(super) fn enter(&self, phase: Phase) {
        self.steering.enter(phase, self.behind() as u64);
    }

    /// Says whether what has failed like this can begin anew, with [`Copier::copy`]: the source has forgotten
    /// changes, and has not done so too often.
    ///
    /// # Errors
    /// The one that it has failed with, where it cannot.
    pub(super) fn begin_anew(&mut self, error: MigrationError) -> Result<(), MigrationError> {
        if !self.is_lost || self.restarts_left == 0 {
            return Err(error);
        }
        self.restarts_left -= 1;
        tracing::info!(
            "the source has forgotten what was changed meanwhile: its records are walked over again"
        );
        Ok(())
    }

    /// Notes which keys have changed since the last look.
    ///
    /// # Errors
    /// [`MigrationError::Outrun`] when the source has forgotten some of them; those of the source.
    pub(super) async fn look(&mut self) -> Result<(), MigrationError> {
        loop {
            match self.source.changes(self.covered, CHANGES).await.map_err(MigrationError::Source)? {
                Changes::Since { upto, keys } => {
                    let (state, found) = (state_key(), keys.len());
                    self.changed.extend(keys.into_iter().map(|(_, key)| key).filter(|key| *key != state));
                    self.covered = upto;
                    // That was all; who waited for nothing to come would wait as long as others commit.
                    if found < CHANGES {
                        return Ok(());
                    }
                }
                Changes::Gone { .. } => {
                    self.is_lost = true;
                    return Err(MigrationError::Outrun);
                }
            }
        }
    }

    /// Walks over both sides and puts right what differs.
    pub(super) async fn copy(&mut self) -> Result<(), MigrationError> {
        self.covered = self.source.sequence().await.map_err(MigrationError::Source)?;
        self.changed.clear();
        self.is_lost = false;
        let total = counted(self.source).await.map_err(MigrationError::Source)?;
        self.steering.enter(Phase::Copying, total);
        let mut pairs = Pairs::new(self.source, self.target.store);
        let mut batch = Batch::default();
        let (mut walked, mut since_pause) = (0, 0);
        while let Some(pair) = pairs.next().await? {
            walked += u64::from(pair.source.is_some());
            since_pause += weight(pair.key.table);
            batch.add(pair);
            if batch.is_full() || since_pause >= PAGE {
                since_pause = 0;
                batch.flush(&self.target).await?;
                self.pause(walked).await?;
            }
        }
        batch.flush(&self.target).await?;
        self.pause(walked).await
    }

    /// Between two pieces of a walk.
    async fn pause(&mut self, done: u64) -> Result<(), MigrationError> {
        self.steering.check()?;
        self.steering.reach(done);
        self.look().await
    }

    /// Compares every record of both sides and sums them up.
    pub(super) async fn verify(&mut self) -> Result<(), MigrationError> {
        let total = counted(self.source).await.map_err(MigrationError::Source)?;
        self.steering.enter(Phase::Verifying, total);
        (self.source_tally, self.target_tally) = (Tally::default(), Tally::default());
        self.differing.clear();
        let mut pairs = Pairs::new(self.source, self.target.store);
        let (mut walked, mut since_pause) = (0, 0);
        while let Some(Pair { key, source, target }) = pairs.next().await? {
            walked += 1;
            since_pause += weight(key.table);
            match (&source, &target) {
                (Some(source), Some(target)) if same(source, target) => {
                    self.source_tally.add(source);
                    self.target_tally.add(target);
                }
                _ => {
                    self.differing.insert(key);
                }
            }
            if since_pause >= PAGE {
                since_pause = 0;
                self.pause(walked).await?;
            }
        }
        self.pause(walked).await?;
        // A commit can be read a moment before it is among the changes. Whatever is brought over from here on
        // is compared once more, so what differs for another reason is found out then.
        self.changed.extend(self.differing.iter().cloned());
        Ok(())
    }

    /// Brings all keys over that are known to have changed, and compares and sums up each: after
    /// [`Copier::verify`].
    pub(super) async fn settle(&mut self) -> Result<(), MigrationError> {
        while self.settle_piece().await? > 0 {}
        Ok(())
    }

    /// The same for as many of them as one commit holds. How many there were.
    pub(super) async fn settle_piece(&mut self) -> Result<usize, MigrationError> {
        self.settle_some(BATCH_RECORDS).await
    }

    /// The same for about so many of them at most, fewer of large ones.
    pub(super) async fn settle_some(&mut self, at_most: usize) -> Result<usize, MigrationError> {
        self.steering.check()?;
        let mut room = at_most;
        let keys: Vec<Key> = std::iter::from_fn(|| {
            let key = (room > 0).then(|| self.changed.pop_first()).flatten()?;
            room = room.saturating_sub(weight(key.table));
            Some(key)
        })
        .collect();
        let sources = read_all(self.source, &keys).await.map_err(MigrationError::Source)?;
        let targets = read_all(self.target.store, &keys).await.map_err(MigrationError::Target)?;
        let mut batch = Batch::default();
        for ((key, source), target) in keys.iter().zip(&sources).zip(targets) {
            if !self.differing.remove(key)
                && let Some(target) = &target
            {
                self.source_tally.remove(target);
                self.target_tally.remove(target);
            }
            batch.add(Pair { key: key.clone(), source: source.clone(), target });
            if batch.is_full() {
                batch.flush(&self.target).await?;
            }
        }
        batch.flush(&self.target).await?;
        let targets = read_all(self.target.store, &keys).await.map_err(MigrationError::Target)?;
        for ((key, source), target) in keys.iter().zip(sources).zip(targets) {
            match (source, target) {
                (None, None) => {}
                (Some(source), Some(target)) if same(&source, &target) => {
                    self.source_tally.add(&source);
                    self.target_tally.add(&target);
                }
                _ => return Err(MigrationError::Unlike { key: key.clone() }),
            }
        }
        self.steering.advance(keys.len() as u64);
        Ok(keys.len())
    }

    /// What must hold at the end, when the source does not change any more and nothing is left to bring
    /// over: the sums are equal, and both stores count as many records as were compared.
    pub(super) async fn conclude(&self) -> Result<(), MigrationError> {
        if let Some(key) = self.differing.first() {
            return Err(MigrationError::Unlike { key: key.clone() });
        }
        let source = counted(self.source).await.map_err(MigrationError::Source)?;
        let target = counted(self.target.store).await.map_err(MigrationError::Target)?;
        let (ours, theirs) = (self.source_tally, self.target_tally);
        if ours != theirs || source != ours.records || target != theirs.records {
            return Err(MigrationError::Sums {
                source_records: source,
                target_records: target,
                source_checksum: ours.checksum(),
                target_checksum: theirs.checksum(),
            });
        }
        Ok(())
    }
}
