//! What the store's handle, its committer and its checkpoints share.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use serde_json::value::RawValue;
use tokio::sync::watch;

use super::disk::Disk;
use super::frame::{ReadAt, ReadError};
use super::index::{Index, Location};
use super::manifest::Layout;
use crate::record::Sequence;
use crate::store::StoreResult;

/// Work that a store has done since it was opened. Times differ from machine to machine; these
/// numbers do not, so budgets are held against them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct IoCounters {
    /// Commits that became durable.
    pub commits: u64,
    /// Bodies read for a caller.
    pub records_read: u64,
    /// Records written or removed by commits.
    pub records_written: u64,
    /// Bytes written to the journal.
    pub bytes_written: u64,
    /// Writes to the journal: one serves all commits that wait at the same time.
    pub writes: u64,
    /// Syncs of the journal.
    pub syncs: u64,
    /// Checkpoints that were finished.
    pub checkpoints: u64,
    /// Checkpoints that were given up; the journals stay, and a later one is tried.
    pub failed_checkpoints: u64,
    /// Bytes written by checkpoints: in the background, a constant share of the journal's.
    pub checkpoint_bytes_written: u64,
}

#[derive(Default)]
pub(super) struct Counters {
    pub(super) commits: AtomicU64,
    pub(super) records_read: AtomicU64,
    pub(super) records_written: AtomicU64,
    pub(super) bytes_written: AtomicU64,
    pub(super) writes: AtomicU64,
    pub(super) syncs: AtomicU64,
    pub(super) checkpoints: AtomicU64,
    pub(super) failed_checkpoints: AtomicU64,
    pub(super) checkpoint_bytes_written: AtomicU64,
}

/// Adds to a counter.
pub(super) fn count(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}

impl Counters {
    pub(super) fn snapshot(&self) -> IoCounters {
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        IoCounters {
            commits: value(&self.commits),
            records_read: value(&self.records_read),
            records_written: value(&self.records_written),
            bytes_written: value(&self.bytes_written),
            writes: value(&self.writes),
            syncs: value(&self.syncs),
            checkpoints: value(&self.checkpoints),
            failed_checkpoints: value(&self.failed_checkpoints),
            checkpoint_bytes_written: value(&self.checkpoint_bytes_written),
        }
    }
}

/// Shared by all threads of one open store.
pub(super) struct Shared {
    pub(super) layout: Layout,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) counters: Counters,
    /// The newest durable commit, for those who watch.
    pub(super) newest: watch::Sender<Sequence>,
    /// Why no commit is accepted any more; set once.
    pub(super) failure: OnceLock<String>,
    /// The store is being closed: a checkpoint gives up, reads are refused.
    pub(super) closed: AtomicBool,
    index: RwLock<Index>,
}

impl Shared {
    pub(super) fn new(layout: Layout, disk: Arc<dyn Disk>, index: Index) -> Self {
        Self {
            layout,
            disk,
            counters: Counters::default(),
            newest: watch::Sender::new(index.sequence()),
            failure: OnceLock::new(),
            closed: AtomicBool::new(false),
            index: RwLock::new(index),
        }
    }

    // A thread that panicked while it held the lock has only read, or is the committer, after whose
    // death nothing is acknowledged any more.
    pub(super) fn index(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn index_mut(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}

/// Reads a body and compares it with its checksum.
///
/// # Errors
/// `Io`, or `Corrupt` when the bytes are no longer those that were written.
pub(super) fn read_body(location: &Location) -> StoreResult<Box<RawValue>> {
    let Location { file, span } = location;
    let mut bytes = vec![0; span.length as usize];
    file.read_exact_at(&mut bytes, span.offset).map_err(|source| file.error(source))?;
    let damaged = |reason: &str| ReadError::damaged(span.offset, reason).in_file(&file.path);
    if crc32fast::hash(&bytes) != span.checksum {
        return Err(damaged("a body has changed since it was written"));
    }
    let text = String::from_utf8(bytes).map_err(|_| damaged("a body is not UTF-8"))?;
    RawValue::from_string(text).map_err(|_| damaged("a body is not JSON"))
}
