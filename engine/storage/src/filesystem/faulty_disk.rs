//! A disk that fails on purpose: for the tests of whatever stands on a store.
//!
//! [`FaultyDisk`] wraps the machine's disk. Single faults are queued with [`FaultyDisk::inject`] and
//! strike the next operation that they fit; [`FaultyDisk::limit_free_bytes`] makes it fill up, in the
//! middle of a write; [`FaultyDisk::cut_power_after`] stops everything at the n-th change, half done.
//! [`FaultyDisk::lose_power`] then does to the files what a loss of power may do: bytes that were not
//! synced are gone from any byte on or read as zeros, and names that were not synced are as before.
//! The same seed and the same operations give the same result.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::disk::{Disk, DiskFile, RealDisk};

/// What can go wrong once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A write fails after a part of its bytes.
    Write,
    /// A file cannot be cut off.
    Truncate,
    /// A sync of a file fails, and nothing of what it was for becomes durable.
    Sync,
    /// A sync of a directory fails.
    SyncDirectory,
    /// A file cannot be created.
    Create,
    /// A file cannot be renamed.
    Rename,
    /// A file cannot be removed.
    Remove,
}

/// The machine's disk with faults. Clones share their state.
#[derive(Clone)]
pub struct FaultyDisk {
    state: Arc<Mutex<State>>,
}

struct State {
    random: StdRng,
    faults: Vec<Fault>,
    free: Option<u64>,
    /// Changes made so far.
    changes: u64,
    power_ends_at: Option<u64>,
    power: bool,
    /// What of each file is durable.
    durable: HashMap<PathBuf, Durable>,
    /// Changes to directories that are not durable yet, oldest first.
    names: Vec<NameChange>,
}

/// What of a file is durable.
#[derive(Debug, Clone, Copy, Default)]
struct Durable {
    /// Everything up to here.
    length: u64,
    /// What a failed sync was for. The system takes it for written, so that a later sync does not make
    /// it durable unless it is written again.
    lost: Option<(u64, u64)>,
}

impl Durable {
    fn wrote(&mut self, start: u64, end: u64) {
        if let Some((from, to)) = self.lost
            && start <= from
        {
            self.lost = (end < to).then(|| (from.max(end), to));
        }
    }

    fn cut(&mut self, length: u64) {
        self.length = self.length.min(length);
        self.lost = self.lost.and_then(|(from, to)| (from < length).then(|| (from, to.min(length))));
    }

    fn synced(&mut self, length: u64) {
        self.length = self.lost.map_or(length, |(from, _)| from);
    }

    fn sync_failed(&mut self, length: u64) {
        if length > self.length {
            self.lost = Some((self.length, length));
        }
    }
}

enum NameChange {
    Created(PathBuf),
    Renamed { from: PathBuf, to: PathBuf, replaced: Option<Vec<u8>> },
    Removed { path: PathBuf, content: Vec<u8> },
}

impl NameChange {
    fn directory(&self) -> Option<&Path> {
        match self {
            NameChange::Created(path)
            | NameChange::Renamed { to: path, .. }
            | NameChange::Removed { path, .. } => path.parent(),
        }
    }

    /// Brings the names back to before, and notes what of the files is durable then.
    fn undo(&self, durable: &mut HashMap<PathBuf, Durable>) -> io::Result<()> {
        match self {
            NameChange::Created(path) => {
                durable.remove(path);
                std::fs::remove_file(path)
            }
            NameChange::Removed { path, content } => {
                durable.remove(path);
                std::fs::write(path, content)
            }
            NameChange::Renamed { from, to, replaced } => {
                let moved = durable.remove(to).unwrap_or_default();
                durable.insert(from.clone(), moved);
                std::fs::rename(to, from)?;
                replaced.as_ref().map_or(Ok(()), |content| std::fs::write(to, content))
            }
        }
    }
}

fn injected(what: &str) -> io::Error {
    io::Error::other(format!("injected fault: {what}"))
}

impl FaultyDisk {
    /// A disk without faults so far.
    pub fn new(seed: u64) -> Self {
        let state = State {
            random: StdRng::seed_from_u64(seed),
            faults: Vec::new(),
            free: None,
            changes: 0,
            power_ends_at: None,
            power: true,
            durable: HashMap::new(),
            names: Vec::new(),
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the next operation of that kind fail. Queued faults of one kind strike one after another.
    pub fn inject(&self, fault: Fault) {
        self.state().faults.push(fault);
    }

    /// The faults that have not struck yet.
    pub fn waiting_faults(&self) -> usize {
        self.state().faults.len()
    }

    /// Lets writes succeed for so many more bytes; `None` for any number. A write beyond that writes
    /// what fits and fails as on a full disk. What is cut off or removed is free again.
    pub fn limit_free_bytes(&self, free: Option<u64>) {
        self.state().free = free;
    }

    /// How many changes were made so far: writes, cuts, syncs, and changes of names.
    pub fn changes(&self) -> u64 {
        self.state().changes
    }

    /// Lets the power fail at a change, counted from the disk's first: a write among them is made in
    /// part. Every operation after it fails too.
    pub fn cut_power_after(&self, changes: u64) {
        self.state().power_ends_at = Some(changes);
    }

    /// Does to the files what a loss of power may do, and brings the power back. Call it when no
    /// store is open on the disk.
    ///
    /// # Errors
    /// Those of the system.
    pub fn lose_power(&self) -> io::Result<()> {
        let mut state = self.state();
        let state = &mut *state;
        // Directories change in order, so some first changes of each are durable.
        let mut directories: HashMap<PathBuf, bool> = HashMap::new();
        let mut undo = Vec::new();
        for change in state.names.drain(..) {
            let directory = change.directory().unwrap_or(Path::new("")).to_owned();
            let kept = directories.entry(directory).or_insert(true);
            *kept = *kept && state.random.random_bool(0.5);
            if !*kept {
                undo.push(change);
            }
        }
        for change in undo.iter().rev() {
            change.undo(&mut state.durable)?;
        }
        for (path, Durable { length: synced, .. }) in state.durable.drain() {
            let length = match std::fs::metadata(&path) {
                Ok(metadata) => metadata.len(),
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            if length > synced {
                let file = std::fs::OpenOptions::new().write(true).open(&path)?;
                file.set_len(state.random.random_range(synced..=length))?;
                if state.random.random_bool(0.3) {
                    file.set_len(length)?;
                }
            }
        }
        state.power = true;
        state.power_ends_at = None;
        state.faults.clear();
        Ok(())
    }
}

impl State {
    /// Counts a change and says whether it fails; a write that fails is made in part.
    fn change(&mut self, fault: Fault) -> io::Result<()> {
        if !self.power {
            return Err(injected("the power is off"));
        }
        self.changes += 1;
        if self.power_ends_at.is_some_and(|end| self.changes >= end) {
            self.power = false;
            return Err(injected("the power fails"));
        }
        match self.faults.iter().position(|waiting| *waiting == fault) {
            Some(place) => {
                self.faults.remove(place);
                Err(injected(&format!("{fault:?}")))
            }
            None => Ok(()),
        }
    }

    fn reclaim(&mut self, bytes: u64) {
        if let Some(free) = &mut self.free {
            *free += bytes;
        }
    }
}

impl Disk for FaultyDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        state.change(Fault::Create)?;
        let inner = RealDisk.create(path)?;
        state.names.push(NameChange::Created(path.to_owned()));
        state.durable.insert(path.to_owned(), Durable::default());
        Ok(Box::new(FaultyFile { path: path.to_owned(), inner, disk: self.clone() }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let inner = RealDisk.open(path)?;
        let length = inner.length()?;
        self.state().durable.entry(path.to_owned()).or_insert(Durable { length, lost: None });
        Ok(Box::new(FaultyFile { path: path.to_owned(), inner, disk: self.clone() }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.change(Fault::Rename)?;
        let replaced = std::fs::read(to).ok();
        RealDisk.rename(from, to)?;
        let durable = state.durable.remove(from).unwrap_or_default();
        state.durable.insert(to.to_owned(), durable);
        state.names.push(NameChange::Renamed { from: from.to_owned(), to: to.to_owned(), replaced });
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.change(Fault::Remove)?;
        let content = std::fs::read(path)?;
        RealDisk.remove(path)?;
        state.reclaim(content.len() as u64);
        state.durable.remove(path);
        state.names.push(NameChange::Removed { path: path.to_owned(), content });
        Ok(())
    }

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        RealDisk.create_directory(path)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.change(Fault::SyncDirectory)?;
        state.names.retain(|change| change.directory() != Some(path));
        Ok(())
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let free = self.state().free;
        free.map_or_else(|| RealDisk.free_bytes(path), Ok)
    }
}

struct FaultyFile {
    path: PathBuf,
    inner: Box<dyn DiskFile>,
    disk: FaultyDisk,
}

impl DiskFile for FaultyFile {
    fn length(&self) -> io::Result<u64> {
        self.inner.length()
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.inner.read_exact_at(buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        let had_power = state.power;
        let result = state.change(Fault::Write);
        if let Err(error) = result {
            if had_power {
                let part = state.random.random_range(0..=bytes.len());
                self.inner.write_all_at(&bytes[..part], offset)?;
            }
            return Err(error);
        }
        // What lies within the file already takes no room.
        let within = self.inner.length()?.saturating_sub(offset).min(bytes.len() as u64);
        let growth = bytes.len() as u64 - within;
        let end = offset + bytes.len() as u64;
        state.durable.entry(self.path.clone()).or_default().wrote(offset, end);
        let Some(free) = state.free else { return self.inner.write_all_at(bytes, offset) };
        let fits = growth.min(free);
        state.free = Some(free - fits);
        self.inner.write_all_at(&bytes[..(within + fits) as usize], offset)?;
        if fits < growth { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.change(Fault::Truncate)?;
        let before = self.inner.length()?;
        self.inner.truncate(length)?;
        state.reclaim(before.saturating_sub(length));
        state.durable.entry(self.path.clone()).or_default().cut(length);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        let length = self.inner.length()?;
        let result = state.change(Fault::Sync);
        let durable = state.durable.entry(self.path.clone()).or_default();
        match &result {
            Ok(()) => durable.synced(length),
            Err(_) => durable.sync_failed(length),
        }
        result
    }
}
