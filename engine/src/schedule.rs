//! Who is next: the order of the queue, as a pure data structure.
//!
//! It holds the pending tasks of one engine and knows nothing of storage, time or processes. Ready
//! tasks are indexed by group, and [`Schedule::next`] picks among the heads of the groups: higher
//! priority first; at equal priority the group whose turn was longest ago; within a group, older
//! first. What cannot run is kept apart, so that it never hides what can: a paused or full group has
//! no head in the index, a task whose lock is taken is parked until the lock is free, a task that
//! waits for a dependency, a time or the end of an old script is not in a group's queue at all.
//!
//! It is a hint, not the truth: whoever claims a task reads the stored record and decides by it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use chrono::{DateTime, Utc};
use orchestrator_protocol::task::TaskId;

/// What the schedule must know of a pending task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The task.
    pub id: TaskId,
    /// The revision of its record that this was made from.
    pub revision: u64,
    /// Its group.
    pub group: String,
    /// Higher comes first.
    pub priority: i32,
    /// Not before this time: its own wish, or the wait between two attempts.
    pub not_before: Option<DateTime<Utc>>,
    /// The lock it needs.
    pub lock: Option<String>,
    /// Who holds that lock for it: its workflow, or itself.
    pub holder: TaskId,
    /// The dependencies that have not completed.
    pub waits_for: HashSet<TaskId>,
    /// Whether this engine is one that it may run on. Else it is here for those who depend on it.
    pub fits: bool,
}

/// Order within a group: higher priority, then older.
type Rank = (Reverse<i32>, TaskId);

/// Order among the heads of groups: higher priority, then longest without a turn, then older.
type Head = (Reverse<i32>, u64, TaskId, String);

#[derive(Debug, Default)]
struct Group {
    ready: BTreeSet<Rank>,
    running: u32,
    limit: Option<u32>,
    paused: bool,
    last_turn: u64,
    head: Option<Head>,
}

impl Group {
    fn is_full(&self) -> bool {
        self.limit.is_some_and(|limit| self.running >= limit)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Waiting,
    Timed(DateTime<Utc>),
    Ready,
    Parked,
}

/// What keeps a task from being next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obstacle {
    /// These dependencies have not completed.
    Dependencies(Vec<TaskId>),
    /// Its time has not come.
    Time(DateTime<Utc>),
    /// It is for other engines.
    Engine,
    /// The script of an earlier attempt still runs here.
    Stray,
    /// Its lock is held by another.
    Lock {
        /// The lock.
        lock: String,
        /// The task or workflow that holds it.
        holder: TaskId,
    },
    /// Its group runs as many as it may.
    GroupFull {
        /// So many.
        limit: u32,
    },
    /// The whole queue is paused.
    Paused,
    /// Its group is paused.
    GroupPaused,
    /// Only its turn: so many tasks of its group come first.
    Turn {
        /// How many.
        before: usize,
    },
}

/// The pending tasks of one engine, in order.
#[derive(Debug, Default)]
pub struct Schedule {
    entries: HashMap<TaskId, (Entry, Place)>,
    dependents: HashMap<TaskId, HashSet<TaskId>>,
    timers: BTreeSet<(DateTime<Utc>, TaskId)>,
    groups: HashMap<String, Group>,
    heads: BTreeSet<Head>,
    /// Who holds each lock.
    locks: HashMap<String, TaskId>,
    /// Ready but for the lock, by lock, group and rank.
    parked: HashMap<String, BTreeMap<String, BTreeSet<Rank>>>,
    /// Attempts whose scripts still run here, by task and fence.
    strays: BTreeSet<(TaskId, u64)>,
    limits: HashMap<String, u32>,
    paused: bool,
    turns: u64,
}

impl Schedule {
    /// An empty schedule with the limits of groups: how many of a group may run at once.
    pub fn new(limits: HashMap<String, u32>) -> Self {
        Self { limits, ..Self::default() }
    }

    /// How many tasks are pending here.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no task is pending.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether a task is pending here.
    pub fn contains(&self, id: TaskId) -> bool {
        self.entries.contains_key(&id)
    }

    /// The pending tasks.
    pub fn ids(&self) -> impl Iterator<Item = TaskId> {
        self.entries.keys().copied()
    }

    /// The revision of a pending task's record that its entry was made from.
    pub fn revision(&self, id: TaskId) -> Option<u64> {
        self.entries.get(&id).map(|(entry, _)| entry.revision)
    }

    /// Takes in a pending task, in place of what it knew of the same task.
    pub fn insert(&mut self, entry: Entry) {
        self.remove(entry.id);
        for dependency in &entry.waits_for {
            self.dependents.entry(*dependency).or_default().insert(entry.id);
        }
        let id = entry.id;
        self.entries.insert(id, (entry, Place::Waiting));
        self.settle(id);
    }

    /// Forgets a task that is no longer pending, or was not at all.
    pub fn remove(&mut self, id: TaskId) -> Option<Entry> {
        self.unsettle(id);
        let (entry, _) = self.entries.remove(&id)?;
        for dependency in &entry.waits_for {
            if let Some(dependents) = self.dependents.get_mut(dependency) {
                dependents.remove(&id);
                if dependents.is_empty() {
                    self.dependents.remove(dependency);
                }
            }
        }
        if let Some(lock) = &entry.lock {
            self.offer(lock);
        }
        Some(entry)
    }

    /// Forgets a task that is no longer pending since a revision of its record. What was made from a
    /// later one stays: it has been revived since.
    pub fn remove_until(&mut self, id: TaskId, revision: u64) {
        if self.entries.get(&id).is_some_and(|(entry, _)| entry.revision <= revision) {
            self.remove(id);
        }
    }

    /// A task has completed: what waited for it waits no more.
    pub fn completed(&mut self, dependency: TaskId) {
        for id in self.dependents.remove(&dependency).unwrap_or_default() {
            if let Some((entry, _)) = self.entries.get_mut(&id) {
                entry.waits_for.remove(&dependency);
                self.settle(id);
            }
        }
    }

    /// The tasks that pending ones wait for.
    pub fn waited_for(&self) -> impl Iterator<Item = TaskId> {
        self.dependents.keys().copied()
    }

    /// The pending tasks that wait for a task.
    pub fn dependents(&self, dependency: TaskId) -> Vec<TaskId> {
        let mut dependents: Vec<_> =
            self.dependents.get(&dependency).into_iter().flatten().copied().collect();
        dependents.sort_unstable();
        dependents
    }

    /// Takes out the task that is next, and counts it as running in its group and as holder of its
    /// lock. `None` while nothing can run.
    pub fn next(&mut self, now: DateTime<Utc>) -> Option<Entry> {
        self.wake(now);
        if self.paused {
            return None;
        }
        while let Some(head) = self.heads.first().cloned() {
            let (_, _, id, group_name) = head;
            let (entry, _) = self.entries.get(&id)?;
            if let Some(lock) = &entry.lock
                && self.locks.get(lock).is_some_and(|holder| *holder != entry.holder)
            {
                self.park(id);
                continue;
            }
            if let Some(lock) = entry.lock.clone() {
                self.locks.insert(lock, entry.holder);
            }
            let entry = self.remove(id)?;
            self.turns += 1;
            let turn = self.turns;
            let group = self.group(&group_name);
            group.last_turn = turn;
            group.running += 1;
            self.refresh(&group_name);
            return Some(entry);
        }
        None
    }

    /// A task that runs already, found at start: counts it in its group.
    pub fn adopt(&mut self, group: &str) {
        self.group(group).running += 1;
        self.refresh(group);
    }

    /// A task that [`Schedule::next`] gave out, or that was adopted, no longer runs.
    pub fn stopped(&mut self, group_name: &str) {
        let group = self.group(group_name);
        group.running = group.running.saturating_sub(1);
        self.refresh(group_name);
    }

    /// The script of an attempt runs here although its task has gone on without it: the task is not next until
    /// that has ended, whether it is pending now or later.
    pub fn stray_found(&mut self, id: TaskId, fence: u64) {
        self.strays.insert((id, fence));
        self.settle(id);
    }

    /// That script has ended.
    pub fn stray_ended(&mut self, id: TaskId, fence: u64) {
        self.strays.remove(&(id, fence));
        self.settle(id);
    }

    fn has_stray(&self, id: TaskId) -> bool {
        self.strays.range((id, u64::MIN)..=(id, u64::MAX)).next().is_some()
    }

    /// A lock that is held already, found at start or learnt from another engine.
    pub fn hold(&mut self, lock: &str, holder: TaskId) {
        let before = self.locks.insert(lock.to_owned(), holder);
        if before != Some(holder) {
            self.admit(lock, holder);
        }
    }

    /// A lock that nobody holds, whoever was thought to.
    pub fn free(&mut self, lock: &str) {
        if self.locks.remove(lock).is_some() {
            self.offer(lock);
        }
    }

    /// The locks that are held.
    pub fn held_locks(&self) -> Vec<String> {
        self.locks.keys().cloned().collect()
    }

    /// Lets the parked tasks of the holder of a lock go on: they share it.
    fn admit(&mut self, lock: &str, holder: TaskId) {
        let Some(groups) = self.parked.get(lock) else { return };
        let is_holders = |id: &TaskId| self.entries.get(id).is_some_and(|(entry, _)| entry.holder == holder);
        let admitted: Vec<TaskId> =
            groups.values().flatten().map(|(_, id)| *id).filter(|id| is_holders(id)).collect();
        for id in admitted {
            self.settle(id);
        }
    }

    /// A holder gives a lock back, if it has it.
    pub fn release(&mut self, lock: &str, holder: TaskId) {
        if self.locks.get(lock) == Some(&holder) {
            self.locks.remove(lock);
            self.offer(lock);
        }
    }

    /// Lets the best parked task of each group try a lock that nobody holds, with the others of its
    /// holder. Whoever gets it will release it; whoever goes without it makes way for the next.
    fn offer(&mut self, lock: &str) {
        if self.locks.contains_key(lock) {
            return;
        }
        let Some(groups) = self.parked.get(lock) else { return };
        let mut freed = Vec::new();
        for ranks in groups.values() {
            let holder_of = |id: &TaskId| self.entries.get(id).map(|(entry, _)| entry.holder);
            let best = ranks.first().and_then(|(_, id)| holder_of(id));
            freed.extend(ranks.iter().map(|(_, id)| *id).filter(|id| holder_of(id) == best));
        }
        for id in freed {
            self.settle(id);
        }
    }

    /// Pauses or resumes the whole queue.
    pub fn pause_all(&mut self, paused: bool) {
        self.paused = paused;
    }

    /// Pauses or resumes a group.
    pub fn pause_group(&mut self, group: &str, paused: bool) {
        self.group(group).paused = paused;
        self.refresh(group);
    }

    /// When the next task that waits for a time may run.
    pub fn next_time(&self) -> Option<DateTime<Utc>> {
        self.timers.first().map(|(time, _)| *time)
    }

    /// What keeps a pending task from being next; `None` for a task that is not pending here.
    pub fn obstacles(&self, id: TaskId) -> Option<Vec<Obstacle>> {
        let (entry, place) = self.entries.get(&id)?;
        let mut obstacles = Vec::new();
        if !entry.waits_for.is_empty() {
            let mut waits_for: Vec<_> = entry.waits_for.iter().copied().collect();
            waits_for.sort_unstable();
            obstacles.push(Obstacle::Dependencies(waits_for));
        }
        if let Place::Timed(time) = place {
            obstacles.push(Obstacle::Time(*time));
        }
        if !entry.fits {
            obstacles.push(Obstacle::Engine);
        }
        if self.has_stray(id) {
            obstacles.push(Obstacle::Stray);
        }
        if let Some(lock) = &entry.lock
            && let Some(holder) = self.locks.get(lock)
            && *holder != entry.holder
        {
            obstacles.push(Obstacle::Lock { lock: lock.clone(), holder: *holder });
        }
        if self.paused {
            obstacles.push(Obstacle::Paused);
        }
        if let Some(group) = self.groups.get(&entry.group) {
            if group.paused {
                obstacles.push(Obstacle::GroupPaused);
            }
            if let (true, Some(limit)) = (group.is_full(), group.limit) {
                obstacles.push(Obstacle::GroupFull { limit });
            }
            if obstacles.is_empty() {
                let rank = (Reverse(entry.priority), id);
                obstacles.push(Obstacle::Turn { before: group.ready.range(..rank).count() });
            }
        }
        Some(obstacles)
    }

    fn group(&mut self, name: &str) -> &mut Group {
        if !self.groups.contains_key(name) {
            let group = Group { limit: self.limits.get(name).copied(), ..Group::default() };
            self.groups.insert(name.to_owned(), group);
        }
        self.groups.entry(name.to_owned()).or_default()
    }

    /// Puts a task where it belongs now.
    fn settle(&mut self, id: TaskId) {
        self.unsettle(id);
        let has_stray = self.has_stray(id);
        let Some((entry, place)) = self.entries.get_mut(&id) else { return };
        if !entry.waits_for.is_empty() || !entry.fits || has_stray {
            *place = Place::Waiting;
        } else if let Some(time) = entry.not_before {
            *place = Place::Timed(time);
            self.timers.insert((time, id));
        } else {
            *place = Place::Ready;
            let (rank, name) = ((Reverse(entry.priority), id), entry.group.clone());
            self.group(&name).ready.insert(rank);
            self.refresh(&name);
        }
    }

    /// Takes a task out of the index it is in.
    fn unsettle(&mut self, id: TaskId) {
        let Some((entry, place)) = self.entries.get_mut(&id) else { return };
        let rank = (Reverse(entry.priority), id);
        match std::mem::replace(place, Place::Waiting) {
            Place::Waiting => {}
            Place::Timed(time) => {
                self.timers.remove(&(time, id));
            }
            Place::Ready => {
                let name = entry.group.clone();
                self.group(&name).ready.remove(&rank);
                self.refresh(&name);
            }
            Place::Parked => {
                let Some(lock) = &entry.lock else { return };
                if let Some(groups) = self.parked.get_mut(lock) {
                    if let Some(ranks) = groups.get_mut(&entry.group) {
                        ranks.remove(&rank);
                        if ranks.is_empty() {
                            groups.remove(&entry.group);
                        }
                    }
                    if groups.is_empty() {
                        self.parked.remove(lock);
                    }
                }
            }
        }
    }

    /// Sets a ready task aside until its lock is free.
    fn park(&mut self, id: TaskId) {
        self.unsettle(id);
        let Some((entry, place)) = self.entries.get_mut(&id) else { return };
        let Some(lock) = &entry.lock else { return };
        *place = Place::Parked;
        let groups = self.parked.entry(lock.clone()).or_default();
        groups.entry(entry.group.clone()).or_default().insert((Reverse(entry.priority), id));
    }

    /// Makes ready whose time has come.
    pub fn wake(&mut self, now: DateTime<Utc>) {
        while let Some((time, id)) = self.timers.first().copied()
            && time <= now
        {
            if let Some((entry, _)) = self.entries.get_mut(&id) {
                entry.not_before = None;
            }
            self.settle(id);
        }
    }

    /// Brings the index of heads in line with a group.
    fn refresh(&mut self, name: &str) {
        let Some(group) = self.groups.get_mut(name) else { return };
        let head = match group.ready.first() {
            Some((priority, id)) if !group.paused && !group.is_full() => {
                Some((*priority, group.last_turn, *id, name.to_owned()))
            }
            _ => None,
        };
        if group.head == head {
            return;
        }
        if let Some(old) = std::mem::replace(&mut group.head, head.clone()) {
            self.heads.remove(&old);
        }
        self.heads.extend(head);
    }
}

#[cfg(test)]
mod tests;
