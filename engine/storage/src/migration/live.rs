//! A store that can be moved while it is used.
//!
//! [`SwitchingStore`] hands every call on to the store that is the truth now. While it migrates, commits
//! go to the source as ever, and the copy follows. At the end a gate is closed for some milliseconds:
//! commits wait, those under way are waited for, the last changes are brought over and compared, the
//! target is marked as ready, the source sealed, and from then on calls go to the target. Until the seal
//! any failure of the target opens the gate again, and nobody who commits learns of it.
//!
//! Sequences go on: what the target counts is shifted so that it follows on what the source has counted.
//! What was changed before the move is [`Changes::Gone`] after it.
//!
//! Where other engines may write to the same store, each commit can be guarded: it checks the record of
//! the store's state as well, so that nothing can be written to a store that somebody has sealed. Only an
//! engine that is alone may move the records of such a store; whoever joins it writes the state once more
//! ([`renew_state`](super::state::renew_state)), which keeps a migration that has begun before from sealing.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use super::catch_up::catch_up;
use super::copy::Copier;
use super::gate::{Closed, Gate};
use super::state::{Epoch, HeldState, MOVED, StorageState, read_state, state_key};
use super::target::{Target, may_pass};
use super::{MigrationError, Phase, Plan, Report, Steering, identify, inspect, seal, settle_target, told};
use crate::record::{Change, Commit, Expect, Key, Operation, Record, Sequence, Table};
use crate::store::{Changes, Count, Page, Query, Store, StoreError, StoreHealth, StoreResult};

/// How long is waited before a target that could not be marked as the truth is tried again, as long as it is used.
const MARKED_LATER: Duration = Duration::from_secs(1);

/// A store that can be moved while it is used.
pub struct SwitchingStore {
    active: RwLock<Arc<Active>>,
    gate: Gate,
    migrating: tokio::sync::Mutex<()>,
    newest: Arc<watch::Sender<Sequence>>,
    failed: watch::Sender<bool>,
}

/// The store that is the truth now.
struct Active {
    store: Arc<dyn Store>,
    /// What its sequences are shifted by.
    shift: Sequence,
    /// Before this one, as shifted, nothing is known of changes.
    since: Sequence,
    guard: Option<Guard>,
    /// Why nothing is committed any more.
    failed: OnceLock<String>,
}

/// What every commit checks: the record of the store's state.
struct Guard {
    epoch: Epoch,
    expect: Mutex<Expect>,
}

impl Guard {
    fn new(epoch: Epoch, expect: Expect) -> Self {
        Self { epoch, expect: Mutex::new(expect) }
    }

    /// The guard of a store that was found like this; `None` for one that is not the truth.
    fn of(held: &HeldState) -> Option<Self> {
        let StorageState::Active { epoch } = held.state else { return None };
        Some(Self::new(epoch, held.expect))
    }

    fn expect(&self) -> MutexGuard<'_, Expect> {
        self.expect.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The check for a commit.
    fn check(&self) -> Operation {
        Operation { key: state_key(), expect: *self.expect(), change: Change::Check }
    }

    /// Looks at the state again, which somebody has written. Whether it is what it was: else no commit is let
    /// through by what was found.
    async fn renew(&self, store: &dyn Store) -> StoreResult<bool> {
        let held = read_state(store).await?;
        let is_same = matches!(held.state, StorageState::Active { epoch } if epoch == self.epoch);
        if is_same {
            *self.expect() = held.expect;
        }
        Ok(is_same)
    }
}

/// Reads from the store that is the truth; again where that has changed, and the one that was asked has
/// been closed meanwhile.
macro_rules! read {
    ($self:ident, $active:ident => $call:expr) => {{
        let mut $active = $self.active();
        loop {
            match $call {
                Err(StoreError::Closed) => {
                    let now = $self.active();
                    if Arc::ptr_eq(&now.store, &$active.store) {
                        break Err(StoreError::Closed);
                    }
                    $active = now;
                }
                result => break result,
            }
        }
    }};
}

impl SwitchingStore {
    /// Around a store that this process alone writes to. Call it in a runtime.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self::with_guard(store, None)
    }

    /// Around a store that other engines may write to as well.
    ///
    /// # Errors
    /// Those of reading the store's state; [`StoreError::Failed`] when it is not the truth.
    pub async fn guarded(store: Arc<dyn Store>) -> StoreResult<Self> {
        match Guard::of(&read_state(&*store).await?) {
            Some(guard) => Ok(Self::with_guard(store, Some(guard))),
            None => Err(StoreError::Failed { reason: MOVED.to_owned() }),
        }
    }

    fn with_guard(store: Arc<dyn Store>, guard: Option<Guard>) -> Self {
        let sequence = *store.watch().borrow();
        let newest = Arc::new(watch::Sender::new(sequence));
        pass_on(&store, 0, &newest);
        let active = Active { store, shift: 0, since: 0, guard, failed: OnceLock::new() };
        Self {
            active: RwLock::new(Arc::new(active)),
            gate: Gate::default(),
            migrating: tokio::sync::Mutex::default(),
            newest,
            failed: watch::Sender::new(false),
        }
    }

    /// Waits until a commit was answered with [`StoreError::Failed`]: the storage must be opened again.
    pub async fn failed(&self) {
        // The sender lives as long as this does.
        let _ = self.failed.subscribe().wait_for(|failed| *failed).await;
    }

    fn active(&self) -> Arc<Active> {
        self.active.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_active(&self, active: Active) {
        *self.active.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(active);
    }

    /// The store that is the truth now.
    pub fn current(&self) -> Arc<dyn Store> {
        Arc::clone(&self.active().store)
    }

    /// Moves the records to another store, from which everything is answered then. The source is closed.
    /// Whoever does not wait for the end does not stop it: only [`Steering::cancel`] does.
    ///
    /// # Errors
    /// After any error but [`MigrationError::Unknown`] everything goes on with the source. After that one
    /// nothing is committed any more until the storage is opened again.
    pub async fn migrate(
        self: &Arc<Self>,
        target: Arc<dyn Store>,
        plan: Plan,
        steering: Arc<Steering>,
    ) -> Result<Report, MigrationError> {
        self.migrate_when(target, plan, steering, async { Ok(()) }).await
    }

    /// The same for a store on which there may be others. `alone` is asked once the migration has looked at
    /// the store: it sees whoever has come until then, and whoever comes later keeps the store from being
    /// sealed.
    ///
    /// # Errors
    /// As there; what `alone` answers.
    pub async fn migrate_when(
        self: &Arc<Self>,
        target: Arc<dyn Store>,
        plan: Plan,
        steering: Arc<Steering>,
        alone: impl Future<Output = Result<(), MigrationError>> + Send + 'static,
    ) -> Result<Report, MigrationError> {
        let this = Arc::clone(self);
        let work = tokio::spawn(async move { this.migrate_here(target, &plan, &steering, alone).await });
        let failed = |error| StoreError::Failed { reason: format!("a migration ended early: {error}") };
        work.await.map_err(|error| MigrationError::Unknown(failed(error)))?
    }

    async fn migrate_here(
        &self,
        target: Arc<dyn Store>,
        plan: &Plan,
        steering: &Steering,
        alone: impl Future<Output = Result<(), MigrationError>> + Send,
    ) -> Result<Report, MigrationError> {
        let _only = self.migrating.try_lock().map_err(|_| MigrationError::Busy)?;
        let active = self.active();
        let source = Arc::clone(&active.store);
        let mut ends = inspect(&*source, &*target, plan).await?;
        identify(&*source, plan, &mut ends).await?;
        alone.await?;
        let filled = Target::take(&*target, ends.target.clone(), plan.migrating(&ends)).await?;
        let mut copier = Copier::new(&*source, filled, steering);
        let gate = loop {
            match self.bring_over(&mut copier).await {
                Ok(gate) => break gate,
                Err(error) => copier.begin_anew(error)?,
            }
        };
        let ready = async {
            steering.check()?;
            copier.target.mark(plan.ready(&ends)).await
        };
        gate.in_time(ready).await?;
        if let Err(error) = seal(&*source, plan, &ends).await {
            active.stay(&error).await;
            return Err(error);
        }
        self.switch(&active, &target, Guard::new(ends.epoch, copier.target.expect()));
        let waited = gate.waited();
        drop(gate);
        let warning = copier.target.activate_patiently(ends.epoch).await.err().map(|error| told(&error));
        let tally = copier.target_tally;
        drop(copier);
        if let Some(error) = &warning {
            tracing::warn!(error, "the storage where the records are is not marked as the truth yet");
            mark_later(&target, plan.migration.clone(), ends.epoch);
        }
        if let Err(error) = source.close().await {
            tracing::warn!(error = told(&error), "the storage that was left cannot be closed");
        }
        steering.enter(Phase::Done, tally.records);
        steering.reach_all();
        Ok(Report { records: tally.records, checksum: tally.checksum(), epoch: ends.epoch, waited, warning })
    }

    /// Makes the target hold what the source holds. From the last moment of that on commits wait.
    async fn bring_over(&self, copier: &mut Copier<'_>) -> Result<Closed, MigrationError> {
        copier.copy().await?;
        copier.verify().await?;
        catch_up(&self.gate, copier).await?;
        let gate = self.gate.close().await?;
        copier.enter(Phase::Switching);
        let last = async {
            copier.look().await?;
            copier.settle().await?;
            copier.conclude().await
        };
        gate.in_time(last).await?;
        Ok(gate)
    }

    /// From here on the target answers. Its commits are guarded: on a server others may move the records on
    /// before this engine has taken a seat there.
    fn switch(&self, active: &Active, target: &Arc<dyn Store>, guard: Guard) {
        // The seal itself is a commit of the source that somebody may have seen.
        raise(&self.newest, *active.store.watch().borrow() + active.shift);
        let (newest, sequence) = (*self.newest.borrow(), *target.watch().borrow());
        let shift = newest.saturating_sub(sequence);
        let since = shift + sequence;
        pass_on(target, shift, &self.newest);
        self.set_active(Active {
            store: Arc::clone(target),
            shift,
            since,
            guard: Some(guard),
            failed: OnceLock::new(),
        });
    }
}

/// Goes on trying to mark the store where the records are as the truth, as long as it is used and open.
fn mark_later(store: &Arc<dyn Store>, migration: String, epoch: Epoch) {
    let store = Arc::downgrade(store);
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(MARKED_LATER).await;
            let Some(store) = store.upgrade() else { return };
            match settle_target(&*store, &migration, epoch).await {
                Err(error) if may_pass(&error) => continue,
                Ok(true) => tracing::info!("the storage where the records are is marked as the truth now"),
                Ok(false) | Err(_) => {}
            }
            return;
        }
    });
}

/// Tells those who watch of what comes anew in a store, as long as it is there.
fn pass_on(store: &Arc<dyn Store>, shift: Sequence, newest: &Arc<watch::Sender<Sequence>>) {
    let (mut inner, newest) = (store.watch(), Arc::downgrade(newest));
    tokio::spawn(async move {
        loop {
            let sequence = *inner.borrow_and_update() + shift;
            let Some(newest) = newest.upgrade() else { return };
            raise(&newest, sequence);
            drop(newest);
            if inner.changed().await.is_err() {
                return;
            }
        }
    });
}

fn raise(newest: &watch::Sender<Sequence>, sequence: Sequence) {
    newest.send_if_modified(|now| {
        let is_new = sequence > *now;
        *now = sequence.max(*now);
        is_new
    });
}

impl Active {
    /// Commits nothing any more, for the first reason that was given.
    fn fail(&self, reason: String) -> StoreError {
        StoreError::Failed { reason: self.failed.get_or_init(|| reason).clone() }
    }

    /// Its records could not be moved. Where it is not the truth, or not known to be, nothing is committed any
    /// more. A guard looks by itself whether the state was written once more.
    async fn stay(&self, error: &MigrationError) {
        let reason = match (read_state(&*self.store).await, error) {
            (_, MigrationError::Unknown(_)) => told(error),
            (Ok(HeldState { state: StorageState::Active { .. }, .. }) | Err(_), _) => return,
            (Ok(_), _) => MOVED.to_owned(),
        };
        self.fail(reason);
    }

    async fn commit(&self, operations: Vec<Operation>) -> StoreResult<Commit> {
        if let Some(reason) = self.failed.get() {
            return Err(StoreError::Failed { reason: reason.clone() });
        }
        let mut commit = match &self.guard {
            Some(guard) if !operations.is_empty() => self.commit_guarded(guard, operations).await?,
            _ => self.store.commit(operations).await?,
        };
        commit.sequence += self.shift;
        Ok(commit)
    }

    async fn commit_guarded(&self, guard: &Guard, operations: Vec<Operation>) -> StoreResult<Commit> {
        loop {
            let guarded = operations.iter().cloned().chain([guard.check()]).collect();
            match self.store.commit(guarded).await {
                Ok(mut commit) => {
                    commit.revisions.pop();
                    return Ok(commit);
                }
                Err(StoreError::Conflict { key }) if key == state_key() => {
                    if !guard.renew(&*self.store).await? {
                        return Err(self.fail(MOVED.to_owned()));
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }
}

#[async_trait]
impl Store for SwitchingStore {
    async fn get(&self, key: &Key) -> StoreResult<Option<Record>> {
        read!(self, active => active.store.get(key).await)
    }

    async fn list(&self, query: &Query) -> StoreResult<Page> {
        read!(self, active => active.store.list(query).await)
    }

    async fn counts(&self, table: Table) -> StoreResult<Vec<Count>> {
        read!(self, active => active.store.counts(table).await)
    }

    async fn commit(&self, operations: Vec<Operation>) -> StoreResult<Commit> {
        let pass = self.gate.pass().await;
        let (active, newest) = (self.active(), Arc::clone(&self.newest));
        // On its own, so that the gate waits for it even where its author does not any more.
        let made = tokio::spawn(async move {
            let result = active.commit(operations).await;
            if let Ok(commit) = &result {
                raise(&newest, commit.sequence);
            }
            drop(pass);
            result
        });
        let result = made.await.unwrap_or_else(|error| {
            Err(StoreError::Failed { reason: format!("a commit ended early: {error}") })
        });
        if let Err(StoreError::Failed { .. }) = &result {
            self.failed.send_replace(true);
        }
        result
    }

    async fn sequence(&self) -> StoreResult<Sequence> {
        read!(self, active => active.store.sequence().await.map(|sequence| sequence + active.shift))
    }

    async fn changes(&self, after: Sequence, limit: usize) -> StoreResult<Changes> {
        let changes = read!(self, active => {
            let known = after >= active.since;
            // Before the first one of a store that was moved to everything is forgotten.
            let inner = if known { after.saturating_sub(active.shift) } else { Sequence::MAX };
            active.store.changes(inner, limit).await.map(|changes| (changes, active.shift))
        });
        let (changes, shift) = changes?;
        Ok(match changes {
            Changes::Gone { upto } => Changes::Gone { upto: upto + shift },
            Changes::Since { upto, keys } => Changes::Since {
                upto: upto + shift,
                keys: keys.into_iter().map(|(sequence, key)| (sequence + shift, key)).collect(),
            },
        })
    }

    fn watch(&self) -> watch::Receiver<Sequence> {
        self.newest.subscribe()
    }

    async fn health(&self) -> StoreHealth {
        let active = self.active();
        let health = active.store.health().await;
        match active.failed.get() {
            Some(reason) => StoreHealth { writable: false, reason: Some(reason.clone()), ..health },
            None => health,
        }
    }

    async fn close(&self) -> StoreResult<()> {
        self.current().close().await
    }
}
