//! The committer: the one thread that writes.
//!
//! Commits come to it through a bounded channel. It takes all that wait, checks each against the
//! index and against those before it in the same batch, and then makes one write and one sync for all
//! of them; only then does the index know of them and are they answered. A write that fails is cut off
//! again, and the store goes on. A sync that fails, or a cut that does, leaves it unknown what the
//! disk holds: then nothing more is acknowledged until the store has been opened again.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::checkpoint::{Checkpoint, Outcome};
use super::directory_lock::DirectoryLock;
use super::frame::DataFile;
use super::index::{Applied, Index, Location};
use super::journal::{self, Span};
use super::shared::{Shared, count};
use crate::record::{Change, Commit, Expect, Key, Operation, Revision};
use crate::request::revision_after;
use crate::store::{StoreError, StoreResult};

/// A batch takes no further commit once it has grown past this. After a restart at least so much of
/// the journal's end is written and synced again, since it may have been what a failed sync left.
pub(super) const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// How often the free space is looked at while there is enough.
const SPACE_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// A commit on its way to the committer.
pub(super) struct Request {
    pub(super) operations: Vec<Operation>,
    pub(super) reply: oneshot::Sender<StoreResult<Commit>>,
}

/// The journal that commits are written to.
pub(super) struct OpenJournal {
    pub(super) number: u64,
    pub(super) file: Arc<DataFile>,
    /// Up to where it holds whole commits.
    pub(super) length: u64,
}

/// When to act.
#[derive(Debug, Clone, Copy)]
pub(super) struct Thresholds {
    /// A checkpoint starts when the journals have grown by this, or by what the records take.
    pub(super) checkpoint_bytes: u64,
    /// Commits are refused while less space than this is free; 0 never looks.
    pub(super) min_free_bytes: u64,
}

/// The committer's own state.
pub(super) struct Committer {
    pub(super) shared: Arc<Shared>,
    pub(super) thresholds: Thresholds,
    pub(super) journal: OpenJournal,
    /// The newest generation that was tried.
    pub(super) generation: u64,
    /// The journals and packed files that make up the store, but for the open journal.
    pub(super) files: Vec<PathBuf>,
    /// How many bytes the journals have grown since the last checkpoint was tried.
    pub(super) journal_bytes: u64,
    pub(super) checkpoint: Option<JoinHandle<Outcome>>,
    pub(super) space: Space,
    pub(super) buffer: Vec<u8>,
    /// Let go of when the thread ends.
    pub(super) _lock: DirectoryLock,
}

/// What is known of the free space.
#[derive(Debug, Default)]
pub(super) struct Space {
    looked_at: Option<Instant>,
    low: bool,
}

/// Why a batch did not become durable.
enum Failure {
    Full(io::Error),
    Io(io::Error),
    Unknown(String),
}

/// A commit of a batch that is in the buffer.
struct Accepted {
    request: Request,
    spans: Vec<Span>,
}

impl Committer {
    /// Serves commits until the channel is closed and empty.
    pub(super) fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        while let Some(first) = requests.blocking_recv() {
            self.serve(first, &mut requests);
            self.checkpoint_if_due();
        }
        if let Some(checkpoint) = self.checkpoint.take() {
            self.note(checkpoint.join());
        }
    }

    /// Serves one commit and those that wait behind it.
    fn serve(&mut self, first: Request, requests: &mut mpsc::Receiver<Request>) {
        let refusal = match self.shared.failure.get() {
            Some(reason) => Some(Failure::Unknown(reason.clone())),
            None => self.space_is_low().map(Failure::Full),
        };
        if let Some(failure) = refusal {
            answer(first.reply, Err(self.error(&failure)));
            return;
        }
        let mut batch = Batch { revisions: HashMap::new(), accepted: Vec::new(), outrun: Vec::new() };
        let mut next = Some(first);
        self.buffer.clear();
        while let Some(request) = next {
            batch.add(request, &self.shared.index(), &mut self.buffer);
            next = if self.buffer.len() < BATCH_BYTES { requests.try_recv().ok() } else { None };
        }
        if batch.accepted.is_empty() {
            return;
        }
        match self.write() {
            Ok(()) => self.acknowledge(batch),
            Err(failure) => {
                if let Failure::Unknown(reason) = &failure {
                    tracing::error!(reason, "the store failed");
                    // Only this thread sets it, and only once.
                    let _ = self.shared.failure.set(reason.clone());
                }
                let accepted = batch.accepted.into_iter().map(|accepted| accepted.request.reply);
                for reply in accepted.chain(batch.outrun.into_iter().map(|(reply, _)| reply)) {
                    answer(reply, Err(self.error(&failure)));
                }
            }
        }
        self.buffer.shrink_to(BATCH_BYTES);
    }

    /// Writes and syncs the buffer at the journal's end.
    fn write(&mut self) -> Result<(), Failure> {
        let counters = &self.shared.counters;
        let OpenJournal { file, length, .. } = &mut self.journal;
        if let Err(error) = file.file.write_all_at(&self.buffer, *length) {
            return Err(match file.file.truncate(*length).and_then(|()| file.file.sync()) {
                Ok(()) if is_full(&error) => Failure::Full(error),
                Ok(()) => Failure::Io(error),
                Err(second) => Failure::Unknown(format!(
                    "{} could not be written ({error}) nor cut off again ({second})",
                    file.path.display()
                )),
            });
        }
        count(&counters.writes, 1);
        count(&counters.bytes_written, self.buffer.len() as u64);
        count(&counters.syncs, 1);
        if let Err(error) = file.file.sync() {
            return Err(Failure::Unknown(format!("{} could not be synced ({error})", file.path.display())));
        }
        *length += self.buffer.len() as u64;
        self.journal_bytes += self.buffer.len() as u64;
        Ok(())
    }

    /// Tells the index and the authors about a batch that is durable.
    fn acknowledge(&mut self, batch: Batch) {
        let file = &self.journal.file;
        let start = self.journal.length - self.buffer.len() as u64;
        let counters = &self.shared.counters;
        let mut answers = Vec::with_capacity(batch.accepted.len());
        let mut index = self.shared.index_mut();
        for Accepted { request, spans } in batch.accepted {
            let sequence = index.sequence() + 1;
            let revisions = request.operations.iter().map(revision_after).collect();
            let mut spans = spans.into_iter();
            let changes = request.operations.into_iter().filter_map(|operation| {
                let revision = revision_after(&operation);
                let put = match operation.change {
                    Change::Put { fields, .. } | Change::Import { fields, .. } => {
                        let Span { offset, length, checksum } = spans.next()?;
                        let span = Span { offset: start + offset, length, checksum };
                        Some((revision, fields, Location { file: file.clone(), span }))
                    }
                    Change::Delete => None,
                    Change::Check => return None,
                };
                count(&counters.records_written, 1);
                Some(Applied { key: operation.key, put })
            });
            index.apply(sequence, changes);
            count(&counters.commits, 1);
            answers.push((request.reply, Commit { sequence, revisions }));
        }
        let newest = index.sequence();
        drop(index);
        for (reply, commit) in answers {
            answer(reply, Ok(commit));
        }
        for (reply, key) in batch.outrun {
            answer(reply, Err(StoreError::Conflict { key }));
        }
        self.shared.newest.send_replace(newest);
    }

    /// The error of "no space" while too little is free.
    fn space_is_low(&mut self) -> Option<io::Error> {
        let minimum = self.thresholds.min_free_bytes;
        let recent = self.space.looked_at.is_some_and(|at| at.elapsed() < SPACE_CHECK_INTERVAL);
        if minimum == 0 || (recent && !self.space.low) {
            return None;
        }
        // A disk that does not tell its free space still tells when it is full.
        let free = self.shared.disk.free_bytes(&self.shared.layout.root).unwrap_or(u64::MAX);
        self.space = Space { looked_at: Some(Instant::now()), low: free < minimum };
        self.space.low.then(|| {
            let words = format!("{free} bytes are free, and {minimum} are kept in reserve");
            io::Error::new(io::ErrorKind::StorageFull, words)
        })
    }

    fn error(&self, failure: &Failure) -> StoreError {
        let copy = |error: &io::Error| match error.raw_os_error() {
            Some(code) => io::Error::from_raw_os_error(code),
            None => io::Error::new(error.kind(), error.to_string()),
        };
        match failure {
            Failure::Full(error) => {
                let location = self.shared.layout.root.display().to_string();
                StoreError::Full { location, source: copy(error) }
            }
            Failure::Io(error) => {
                StoreError::Io { path: self.journal.file.path.clone(), source: copy(error) }
            }
            Failure::Unknown(reason) => StoreError::Failed { reason: reason.clone() },
        }
    }

    /// Starts a checkpoint when the journals have grown enough and none is under way.
    fn checkpoint_if_due(&mut self) {
        if let Some(checkpoint) = self.checkpoint.take_if(|checkpoint| checkpoint.is_finished()) {
            self.note(checkpoint.join());
        }
        let due = self.thresholds.checkpoint_bytes.max(self.shared.index().stored_bytes());
        let failed = self.shared.failure.get().is_some();
        if failed || self.checkpoint.is_some() || self.journal_bytes <= due {
            return;
        }
        // Also when it comes to nothing: the next one is tried after as much again.
        self.journal_bytes = 0;
        if let Err(error) = self.turn_to_next_journal() {
            tracing::warn!(%error, "no new journal could be started, the old one goes on");
            return;
        }
        let (snapshot, sequence) = {
            let index = self.shared.index();
            (index.snapshot(), index.sequence())
        };
        self.generation += 1;
        let checkpoint = Checkpoint {
            shared: self.shared.clone(),
            snapshot,
            sequence,
            generation: self.generation,
            first_journal: self.journal.number,
            obsolete: self.files.clone(),
        };
        let thread = std::thread::Builder::new().name("store-checkpoint".to_owned());
        match thread.spawn(move || checkpoint.run()) {
            Ok(handle) => self.checkpoint = Some(handle),
            Err(error) => {
                count(&self.shared.counters.failed_checkpoints, 1);
                tracing::warn!(%error, "no thread for a checkpoint");
            }
        }
    }

    /// Creates the next journal, durably, before anything is written to it.
    fn turn_to_next_journal(&mut self) -> io::Result<()> {
        let Shared { disk, layout, .. } = &*self.shared;
        let number = self.journal.number + 1;
        let path = layout.journal(number);
        let file = disk.create(&path)?;
        if let Err(error) = disk.sync_directory(&layout.queue) {
            // Whether it stays or goes: an empty journal after the open one does no harm.
            return Err(disk.remove(&path).err().unwrap_or(error));
        }
        let file = Arc::new(DataFile { path, file });
        let old = std::mem::replace(&mut self.journal, OpenJournal { number, file, length: 0 });
        self.files.push(old.file.path.clone());
        Ok(())
    }

    /// Learns from a checkpoint which files make up the store now.
    fn note(&mut self, outcome: std::thread::Result<Outcome>) {
        match outcome {
            Ok(Outcome::Done(packed)) => self.files = packed,
            Ok(Outcome::GivenUp(packed)) => self.files.extend(packed),
            Err(_) => {
                count(&self.shared.counters.failed_checkpoints, 1);
                tracing::error!("a checkpoint ended without a result");
            }
        }
    }
}

/// Commits that are written together.
struct Batch {
    /// What the commits accepted so far make of the records they change.
    revisions: HashMap<Key, Revision>,
    accepted: Vec<Accepted>,
    /// Those that lost to another one of this batch. They are told so only when that one is durable,
    /// so that their authors, who read again, find what they lost to.
    outrun: Vec<(oneshot::Sender<StoreResult<Commit>>, Key)>,
}

impl Batch {
    fn add(&mut self, request: Request, index: &Index, buffer: &mut Vec<u8>) {
        for Operation { key, expect, .. } in &request.operations {
            let in_batch = self.revisions.get(key).copied();
            let expected = match expect {
                Expect::Absent => 0,
                Expect::Revision(revision) => *revision,
            };
            if in_batch.unwrap_or_else(|| index.revision(key)) == expected {
                continue;
            }
            let key = key.clone();
            match in_batch {
                Some(_) => self.outrun.push((request.reply, key)),
                None => answer(request.reply, Err(StoreError::Conflict { key })),
            }
            return;
        }
        let sequence = index.sequence() + self.accepted.len() as u64 + 1;
        match journal::encode(buffer, sequence, &request.operations) {
            Ok(spans) => {
                let changed = request.operations.iter().filter(|o| !matches!(o.change, Change::Check));
                self.revisions.extend(changed.map(|o| (o.key.clone(), revision_after(o))));
                self.accepted.push(Accepted { request, spans });
            }
            Err(error) => {
                let reason = format!("the commit cannot be written down: {error}");
                answer(request.reply, Err(StoreError::Invalid { reason }));
            }
        }
    }
}

/// Answers an author, who may have gone.
fn answer(reply: oneshot::Sender<StoreResult<Commit>>, result: StoreResult<Commit>) {
    let _ = reply.send(result);
}

/// Whether a failed write means that there is no room.
pub(super) fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull, WriteZero};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge | WriteZero)
}
