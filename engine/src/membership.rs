//! An engine among others on one store: its seat, its lease, and who of the others is still there.
//!
//! Each engine has two records. Its **seat** is written when it starts and when others take over its work,
//! and every commit of the engine carries a check of it ([`seated_store`]). Its **lease** is counted on at
//! intervals, and says who the engine is. Whoever sees that a lease was not counted on for the lease time
//! ([`observer`]) removes the engine from its seat, in one commit that holds only if the lease was still
//! the same: so one observer wins, and none that was held up itself does harm. From then on nothing of
//! the engine is written any more, and its attempts may be begun anew.
//!
//! Its scripts must have ended by then, also when nobody can reach the machine that they run on. So the
//! engine puts its deadline into a file with each renewal that was acknowledged, and the runners end
//! their scripts at that deadline, which lies well before the lease time. A seat has an *epoch*, which
//! grows when the engine is removed from it, and the file is named after it: scripts of an engine that has
//! lost its seat cannot be kept alive by the same engine when it is back.
//!
//! A seat that was lost is kept as a record, so that its revisions never repeat, and forgotten after a
//! day.

pub mod observer;
pub mod seated_store;
mod seats;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use orchestrator_protocol::Error;
use orchestrator_protocol::request::MemberState;
use orchestrator_runner::lease::{self, Lease};
use orchestrator_storage::{Expect, Fields, Operation, Revision, Store, StoreError};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::records;
use observer::{Beat, Observer};
use seated_store::SeatedStore;
pub use seats::seat_key;
use seats::{LeaseRecord, SeatRecord, Seats, expect, free, lease_key};

/// How long a seat that nobody holds is remembered.
const FORGET_AFTER: Duration = Duration::from_secs(24 * 60 * 60);
/// How often taking a seat is tried while something comes in between.
const JOIN_TRIES: u32 = 20;

/// How long things take that engines have agreed on. All engines of a store must have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseTimes {
    /// Between two renewals.
    pub renew: Duration,
    /// From before a renewal was sent to the end of the scripts, when it was the last one.
    pub scripts: Duration,
    /// Whoever has not renewed its lease for so long is lost.
    pub lost: Duration,
}

impl LeaseTimes {
    /// Between two looks at the others: twice as often as they give signs of life, so that it is soon known when
    /// they stop.
    pub fn look(&self) -> Duration {
        self.renew / 2
    }
}

impl Default for LeaseTimes {
    fn default() -> Self {
        Self { renew: Duration::from_secs(2), scripts: Duration::from_secs(8), lost: Duration::from_secs(10) }
    }
}

/// What an engine says of itself, in its lease.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct About {
    /// The machine's name.
    pub host: String,
    /// The process.
    pub pid: u32,
    /// The machine's boot.
    pub boot_id: String,
    /// When it started, by its own clock.
    pub started_at: DateTime<Utc>,
    /// Its data directory.
    pub data_dir: String,
    /// Its socket.
    pub socket: String,
    /// Its release.
    pub release: String,
    /// What it is labelled with, by its configuration and by what it is.
    pub labels: BTreeMap<String, String>,
}

/// How the seat of a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seat {
    /// Somebody holds it.
    Taken,
    /// Nobody does: what makes a commit hold only as long as that is so.
    Free(Expect),
}

/// Looks at the seat of a member.
pub async fn seat(store: &dyn Store, member: &str) -> Result<Seat, Error> {
    let record = store.get(&seat_key(member)).await.map_err(records::storage_error)?;
    let Some(record) = record else { return Ok(Seat::Free(Expect::Absent)) };
    Ok(match records::read::<SeatRecord>(&record)?.life {
        Some(_) => Seat::Taken,
        None => Seat::Free(Expect::Revision(record.revision)),
    })
}

/// One engine of a store, as another sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name, the same over all its lives.
    pub id: String,
    /// Whether it holds its seat.
    pub is_seated: bool,
    /// Whether it has left in peace.
    pub has_left: bool,
    /// What it said last of itself.
    pub about: About,
}

/// Who has, or had, a seat in a store.
pub async fn members(store: &dyn Store) -> Result<Vec<Member>, Error> {
    Ok(Seats::read(store).await?.members())
}

/// Looks at the engines that have seats for as long as it takes to see whether each is still there, and removes
/// those that are not: for whoever has no seat of its own. Returns those that are there, as soon as it has seen
/// one.
pub async fn remove_lost(store: &dyn Store, times: LeaseTimes) -> Result<Vec<Member>, Error> {
    let mut observer = Observer::new(times.lost);
    let mut first: Option<BTreeMap<String, Beat>> = None;
    loop {
        let asked = Instant::now();
        let seats = Seats::read(store).await?;
        let answered = Instant::now();
        let beats = seats.beats()?;
        observer.observe(beats.clone(), asked.into_std(), answered.into_std());
        let before = first.get_or_insert_with(|| beats.clone());
        let lives = |member: &String| beats.get(member) != before.get(member);
        if seats.taken.keys().any(lives) {
            let members = seats.members().into_iter();
            return Ok(members.filter(|member| member.is_seated && lives(&member.id)).collect());
        }
        let mut is_clear = true;
        for member in seats.taken.keys() {
            let removal = if observer.is_lost(member) { removal(&seats, member)? } else { None };
            is_clear &= match removal {
                Some(removal) => match store.commit(removal).await {
                    Ok(_) => true,
                    Err(StoreError::Conflict { .. }) => false,
                    Err(error) => return Err(records::storage_error(error)),
                },
                None => false,
            };
        }
        if is_clear {
            return Ok(Vec::new());
        }
        tokio::time::sleep(times.look()).await;
    }
}

fn lease_file(data_dir: &Path, epoch: u64) -> PathBuf {
    data_dir.join(format!("lease-{epoch}.json"))
}

fn lease_files(data_dir: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = std::fs::read_dir(data_dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| {
        let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        name.starts_with("lease-") && name.ends_with(".json")
    })
}

/// Whether the engine of a data directory has ever had a seat.
pub fn has_had_seat(data_dir: &Path) -> bool {
    lease_files(data_dir).next().is_some()
}

/// Lets the scripts that a member has begun on its seat go on whatever becomes of its lease: its records are its
/// own now, and nobody can take over its work any more. The seat is the one in `store`, which has come along with
/// the records; of scripts that were begun for other records the store knows nothing.
///
/// # Errors
/// Those of the storage, and of the files in the data directory.
pub async fn release_scripts(store: &dyn Store, member: &str, data_dir: &Path) -> anyhow::Result<()> {
    let Some(record) = store.get(&seat_key(member)).await? else { return Ok(()) };
    let SeatRecord { epoch, .. } = records::read(&record)?;
    let file = lease_file(data_dir, epoch);
    if file.exists() && !lease::is_released(&file) {
        let boot_id = orchestrator_runner::identity::boot_id()?;
        lease::write(&file, &Lease { boot_id, deadline_ms: u64::MAX })?;
    }
    Ok(())
}

/// Whether the seat of a member is held by an engine that renews its lease and is not of this place: of a
/// copy of the data directory.
async fn is_elsewhere(
    store: &dyn Store,
    member: &str,
    about: &About,
    times: LeaseTimes,
) -> Result<bool, Error> {
    let read = async || -> Result<Option<LeaseRecord>, Error> {
        if seat(store, member).await? != Seat::Taken {
            return Ok(None);
        }
        let lease = store.get(&lease_key(member)).await.map_err(records::storage_error)?;
        lease.as_ref().map(records::read).transpose()
    };
    let here = |other: &About| {
        (&other.host, &other.boot_id, &other.data_dir) == (&about.host, &about.boot_id, &about.data_dir)
    };
    let Some(before) = read().await?.filter(|lease| !here(&lease.about)) else { return Ok(false) };
    let deadline = Instant::now() + times.lost;
    loop {
        let Some(now) = read().await?.filter(|now| now.life == before.life) else { return Ok(false) };
        if now.counter != before.counter {
            return Ok(true);
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
        tokio::time::sleep(times.renew / 2).await;
    }
}

fn seat_is_taken(member: &str) -> Error {
    Error::conflict(format!("the seat of engine {member} cannot be taken")).with_help(
        "does another engine run on a copy of this data directory? Then remove the file `owner` from the copy",
    )
}

/// What removes a member from its seat, unless it has given a sign of life since; `None` when it has none.
fn removal(seats: &Seats, member: &str) -> Result<Option<Vec<Operation>>, Error> {
    let Some((record, lease)) = seats.taken.get(member).zip(seats.leases.get(member)) else {
        return Ok(None);
    };
    let removal = free(record, false)?;
    Ok(removal.map(|removal| vec![removal, records::check(lease.key.clone(), lease.revision)]))
}

/// An engine's place among those that share a store.
pub struct Membership {
    member: String,
    life: String,
    about: Mutex<About>,
    times: LeaseTimes,
    store: Arc<SeatedStore>,
    lease_file: PathBuf,
    /// Until when the scripts of this engine may run.
    deadline: watch::Sender<Instant>,
    renewing: tokio::sync::Mutex<Renewing>,
    /// When the last renewal was acknowledged.
    heard: Mutex<Instant>,
    observing: Mutex<Observer>,
    /// Since when this one has seen nobody on a seat.
    free_since: Mutex<BTreeMap<String, Instant>>,
}

struct Renewing {
    counter: u64,
    /// The revision of the lease record; `None` when it must be read again.
    revision: Option<Revision>,
}

impl Membership {
    /// Takes the seat of a member, for a new life of it, and renews its lease for the first time.
    ///
    /// # Errors
    /// A conflict when another engine runs with the same name.
    pub async fn join(
        store: Arc<dyn Store>,
        member: String,
        life: String,
        about: About,
        times: LeaseTimes,
        data_dir: &Path,
    ) -> Result<Arc<Self>, Error> {
        if is_elsewhere(&*store, &member, &about, times).await? {
            return Err(seat_is_taken(&member));
        }
        for _ in 0..JOIN_TRIES {
            let sent = (Instant::now(), lease::boot_time_ms());
            let seat = store.get(&seat_key(&member)).await.map_err(records::storage_error)?;
            let lease = store.get(&lease_key(&member)).await.map_err(records::storage_error)?;
            let epoch = match &seat {
                Some(seat) => records::read::<SeatRecord>(seat)?.epoch,
                None => 1,
            };
            let counter = match &lease {
                Some(lease) => records::read::<LeaseRecord>(lease)?.counter + 1,
                None => 1,
            };
            let seated = SeatRecord { epoch, life: Some(life.clone()), has_left: false };
            let renewed = LeaseRecord { life: life.clone(), counter, about: about.clone() };
            let operations = vec![
                records::put(seat_key(&member), Fields::default(), &seated, expect(seat.as_ref()))?,
                records::put(lease_key(&member), Fields::default(), &renewed, expect(lease.as_ref()))?,
            ];
            let revisions = match store.commit(operations).await {
                Ok(commit) => commit.revisions,
                Err(StoreError::Conflict { .. }) => continue,
                Err(error) => return Err(records::storage_error(error)),
            };
            let [seat_revision, lease_revision] = revisions[..] else {
                return Err(Error::internal("a commit of two records with other revisions"));
            };
            let store = Arc::new(SeatedStore::new(store, seat_key(&member), seat_revision));
            let this = Self {
                lease_file: lease_file(data_dir, epoch),
                member,
                life,
                about: Mutex::new(about),
                times,
                store,
                deadline: watch::Sender::new(sent.0 + times.scripts),
                renewing: tokio::sync::Mutex::new(Renewing { counter, revision: Some(lease_revision) }),
                heard: Mutex::new(Instant::now()),
                observing: Mutex::new(Observer::new(times.lost)),
                free_since: Mutex::default(),
            };
            this.acknowledged(sent);
            this.remove_old_files(data_dir);
            return Ok(Arc::new(this));
        }
        Err(seat_is_taken(&member))
    }

    /// The store, whose commits hold only while this engine has its seat.
    pub fn store(&self) -> &Arc<SeatedStore> {
        &self.store
    }

    /// The name of this engine, the same over all its lives.
    pub fn member(&self) -> &str {
        &self.member
    }

    /// What was agreed on.
    pub fn times(&self) -> LeaseTimes {
        self.times
    }

    /// Says something else of this engine from the next renewal on.
    pub fn describe(&self, about: About) {
        *self.about() = about;
    }

    fn about(&self) -> MutexGuard<'_, About> {
        self.about.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file with the deadline of this engine's scripts.
    pub fn lease_file(&self) -> &Path {
        &self.lease_file
    }

    /// The engines of the store, and how each of them is as far as this one has seen.
    pub async fn members(&self) -> Result<Vec<(Member, MemberState)>, Error> {
        let members = members(&*self.store).await?;
        let observer = self.observing();
        let with_state = members.into_iter().map(|member| {
            let state = match (member.is_seated, member.has_left) {
                (true, _) if !observer.is_lost(&member.id) => MemberState::Alive,
                (false, true) => MemberState::Left,
                _ => MemberState::Lost,
            };
            (member, state)
        });
        Ok(with_state.collect())
    }

    /// Waits until the lease was not renewed in time: whatever this engine does by itself must stop, since
    /// others may soon begin it anew.
    pub async fn overdue(&self) {
        let mut deadline = self.deadline.subscribe();
        loop {
            let at = *deadline.borrow_and_update();
            tokio::select! {
                () = tokio::time::sleep_until(at) => return,
                _ = deadline.changed() => {}
            }
        }
    }

    /// Waits until the last renewal is recent enough for a script to be begun on it. When the storage is back
    /// after an outage a claim may be acknowledged before a renewal is: a script that was begun then would be
    /// ended at once.
    pub async fn renewed(&self) {
        let margin = self.times.scripts / 2;
        let mut deadline = self.deadline.subscribe();
        // The sender lives as long as this does.
        let _ = deadline.wait_for(|at| Instant::now() + margin <= *at).await;
    }

    /// Looks at the others as if it had never seen them, where `now` is long after the last renewal that was
    /// acknowledged: while this one could not renew its own lease they need not have been able to, because the
    /// storage was away, or the machine stood still.
    fn observe_fairly(&self, now: Instant) {
        if now.saturating_duration_since(*self.heard()) >= self.times.scripts {
            *self.observing() = Observer::new(self.times.lost);
        }
    }

    fn heard(&self) -> MutexGuard<'_, Instant> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn observing(&self) -> MutexGuard<'_, Observer> {
        self.observing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Renews the lease at intervals, until the seat is lost.
    pub async fn keep(&self) {
        let mut interval = tokio::time::interval(self.times.renew);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // The first tick is at once, and joining was a renewal.
        interval.tick().await;
        while !self.store.lost().is_cancelled() {
            tokio::select! {
                _ = interval.tick() => {}
                () = self.store.lost().cancelled() => return,
            }
            // Whoever renews late tries again soon.
            while let Err(error) = self.renew().await {
                if matches!(error, StoreError::Unseated | StoreError::Closed) {
                    return;
                }
                warn!(%error, "the engine's lease cannot be renewed; trying again");
                tokio::time::sleep(self.times.renew / 4).await;
            }
        }
    }

    /// Renews the lease once.
    ///
    /// # Errors
    /// [`StoreError::Unseated`] when the seat is lost; whatever the store says.
    pub async fn renew(&self) -> Result<(), StoreError> {
        let mut renewing = self.renewing.lock().await;
        let sent = (Instant::now(), lease::boot_time_ms());
        let key = lease_key(&self.member);
        let expected = match renewing.revision.take() {
            Some(revision) => Expect::Revision(revision),
            // It is not known what became of the renewal before.
            None => expect(self.store.inner().get(&key).await?.as_ref()),
        };
        renewing.counter += 1;
        let about = self.about().clone();
        let record = LeaseRecord { life: self.life.clone(), counter: renewing.counter, about };
        let put = records::put(key, Fields::default(), &record, expected)
            .map_err(|error| StoreError::Invalid { reason: error.message })?;
        let commit = self.store.inner().commit(vec![put, self.store.check()]);
        let commit = tokio::time::timeout(self.times.scripts, commit).await.map_err(|_| {
            StoreError::Failed { reason: "no answer to the renewal of the engine's lease".into() }
        })?;
        let commit = commit.map_err(|error| self.store.judge(error))?;
        renewing.revision = commit.revisions.first().copied();
        let now = Instant::now();
        self.observe_fairly(now);
        *self.heard() = now;
        self.acknowledged(sent);
        Ok(())
    }

    /// A renewal that was sent at this time, by two clocks, has been acknowledged.
    fn acknowledged(&self, sent: (Instant, u64)) {
        let for_ms = u64::try_from(self.times.scripts.as_millis()).unwrap_or(u64::MAX);
        let deadline_ms = sent.1.saturating_add(for_ms);
        let lease = Lease { boot_id: self.about().boot_id.clone(), deadline_ms };
        match lease::write(&self.lease_file, &lease) {
            Ok(()) => {
                self.deadline.send_replace(sent.0 + self.times.scripts);
            }
            // Not renewed, for the runners.
            Err(error) => {
                warn!(%error, file = %self.lease_file.display(), "the lease cannot be told to runners")
            }
        }
    }

    /// Files of earlier epochs: what their runners have run has ended, or does at its deadline; unless it was
    /// released.
    fn remove_old_files(&self, data_dir: &Path) {
        for file in lease_files(data_dir) {
            if file != self.lease_file
                && !lease::is_released(&file)
                && let Err(error) = std::fs::remove_file(&file)
            {
                debug!(%error, file = %file.display(), "an old lease cannot be removed");
            }
        }
    }

    /// Gives up the seat, in peace: others need not wait. Only for an engine that runs nothing any more.
    pub async fn leave(&self) -> Result<(), StoreError> {
        let key = seat_key(&self.member);
        let Some(record) = self.store.inner().get(&key).await? else { return Ok(()) };
        let left = free(&record, true).map_err(|error| StoreError::Invalid { reason: error.message })?;
        let Some(left) = left else { return Ok(()) };
        // Only this life's seat.
        let Operation { expect: _, change, .. } = left;
        let Operation { expect: own, .. } = self.store.check();
        self.store.inner().commit(vec![Operation { key, expect: own, change }]).await?;
        self.store.lost().cancel();
        Ok(())
    }

    /// Looks who of the others is still there, and removes from their seats those who are not. Returns
    /// whom this one has removed: nobody while it cannot renew its own lease.
    pub async fn observe(&self) -> Result<Vec<String>, Error> {
        let asked = Instant::now();
        let seats = Seats::read(&**self.store.inner()).await?;
        let answered = Instant::now();
        self.observe_fairly(answered);
        let lost: Vec<String> = {
            let mut observer = self.observing();
            observer.observe(seats.beats()?, asked.into_std(), answered.into_std());
            let others = seats.taken.keys().filter(|member| **member != self.member);
            others.filter(|member| observer.is_lost(member)).cloned().collect()
        };
        let mut removed = Vec::new();
        for member in lost {
            if self.remove(&seats, &member).await? {
                warn!(engine = member, "an engine has not renewed its lease; its work is taken over");
                removed.push(member);
            }
        }
        self.forget(&seats, answered).await?;
        Ok(removed)
    }

    /// Removes a member from its seat, unless it has given a sign of life since or another was quicker.
    async fn remove(&self, seats: &Seats, member: &str) -> Result<bool, Error> {
        let Some(removal) = removal(seats, member)? else { return Ok(false) };
        match self.store.commit(removal).await {
            Ok(_) => Ok(true),
            Err(StoreError::Conflict { .. }) => Ok(false),
            Err(error) => Err(records::storage_error(error)),
        }
    }

    /// Forgets members that nobody has seen on their seats for a day.
    async fn forget(&self, seats: &Seats, now: Instant) -> Result<(), Error> {
        let due: Vec<String> = {
            let mut free_since = self.free_since.lock().unwrap_or_else(PoisonError::into_inner);
            free_since.retain(|member, _| seats.free.contains_key(member));
            for member in seats.free.keys() {
                free_since.entry(member.clone()).or_insert(now);
            }
            let is_due = |since: &Instant| now.saturating_duration_since(*since) >= FORGET_AFTER;
            free_since.iter().filter(|(_, since)| is_due(since)).map(|(member, _)| member.clone()).collect()
        };
        for member in due {
            let records = seats.free.get(&member).into_iter().chain(seats.leases.get(&member));
            let operations = records.map(|record| records::delete(record.key.clone(), record.revision));
            match self.store.commit(operations.collect()).await {
                Ok(_) => info!(engine = member, "forgotten: it has had no seat for a day"),
                Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(records::storage_error(error)),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_have_ended_before_others_begin_them() {
        let LeaseTimes { renew, scripts, lost } = LeaseTimes::default();
        assert!(scripts + lease::LOOK + lease::GRACE < lost);
        assert!(2 * renew <= scripts / 2, "one that is missed keeps nothing from beginning");
    }
}
