//! What attempts printed, for the other engines of a store: shipped in segments, read back from them.
//!
//! The spool on the machine of the attempt is the truth while it runs. Its engine copies it into records, a
//! segment a second at most while something is printed, and the rest after the attempt's end; none of that
//! is in the way of what runs. Each segment says where in the spool it ends, so that shipping goes on
//! there, by whoever does it. The last one says that it is the last. As long as that is not there, a file in the
//! attempt's directory says so: should the engine end, its next life ships the rest.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use orchestrator_protocol::Error;
use orchestrator_protocol::task::{Task, TaskId};
use orchestrator_runner::output::{Entry, Line, Position, Reader};
use orchestrator_storage::{
    Expect, Fields, Filter, Key, Operation, Order, Query, Record, Store, StoreError, Table,
};
use serde::{Deserialize, Serialize};
use tracing::debug;

use crate::logs::blocking;
use crate::records;

/// The file in the directory of an attempt that says that not all of its output has been shipped.
const MARK: &str = "unshipped";
/// Between two looks for what was printed.
const SHIP_INTERVAL: Duration = Duration::from_secs(1);
/// How many segments one look into the store returns here.
const PAGE: usize = 8;
/// How many records one commit removes.
const REMOVED_AT_ONCE: usize = 100;

/// One thing in a segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
enum Shipped {
    Line(Line),
    Dropped { lines: u64, bytes: u64 },
}

/// A segment, as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Segment {
    /// Where in the spool it ends.
    position: String,
    /// What was printed.
    entries: Vec<Shipped>,
    /// Whether nothing follows: the attempt has ended.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    is_last: bool,
}

/// The attempt whose output it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Source {
    /// The task.
    pub task: TaskId,
    /// The attempt's fence.
    pub fence: u64,
}

impl Source {
    /// The newest attempt of a task.
    pub fn of(task: &Task) -> Self {
        Self { task: task.id, fence: task.fence }
    }

    fn prefix(self) -> String {
        format!("{}/{:010}/", self.task, self.fence)
    }

    fn key(self, number: u64) -> Key {
        Key::new(Table::LogSegment, format!("{}{number:010}", self.prefix()))
    }

    fn number(self, record: &Record) -> Option<u64> {
        record.key.id.strip_prefix(self.prefix().as_str())?.parse().ok()
    }

    /// The newest segments, newest first, from before a number on.
    async fn newest(
        self,
        store: &dyn Store,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<(u64, Segment)>, Error> {
        let after = match before {
            Some(number) => self.key(number).id,
            // Sorts after every number.
            None => format!("{}~", self.prefix()).into(),
        };
        let mut query = Query {
            table: Table::LogSegment,
            filter: Filter { parent: Some(self.task.to_string().into()), ..Filter::default() },
            order: Order::NewestFirst,
            after: Some(after),
            limit,
        };
        let mut segments = Vec::new();
        loop {
            let page = store.list(&query).await.map_err(records::storage_error)?;
            for record in &page.records {
                // Behind them come those of earlier attempts.
                let Some(number) = self.number(record) else { return Ok(segments) };
                segments.push((number, records::read(record)?));
            }
            match page.next {
                Some(next) if segments.len() < limit => query.after = Some(next),
                _ => return Ok(segments),
            }
        }
    }
}

/// Notes in the directory of an attempt that its output is to be shipped.
pub fn mark(directory: &Path) -> io::Result<()> {
    std::fs::write(directory.join(MARK), "")
}

/// Whether that is noted, and not all of it has been shipped.
pub fn is_marked(directory: &Path) -> bool {
    directory.join(MARK).exists()
}

/// Ships the output of an attempt while it runs; never ends by itself.
pub async fn ship(store: Arc<dyn Store>, source: Source, directory: PathBuf) {
    loop {
        if let Err(error) = ship_on(&*store, source, &directory, false).await {
            debug!(task = %source.task, %error, "output cannot be shipped now");
        }
        tokio::time::sleep(SHIP_INTERVAL).await;
    }
}

/// Ships the rest of the output of an attempt that has ended.
pub async fn ship_rest(store: &dyn Store, source: Source, directory: &Path) -> Result<(), Error> {
    ship_on(store, source, directory, true).await?;
    match std::fs::remove_file(directory.join(MARK)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            debug!(task = %source.task, %error, "whether output was shipped is looked at once more");
        }
        _ => {}
    }
    Ok(())
}

/// Ships what was not shipped yet; with `is_last` nothing will follow.
async fn ship_on(store: &dyn Store, source: Source, directory: &Path, is_last: bool) -> Result<(), Error> {
    let newest = source.newest(store, None, 1).await?.pop();
    let (mut number, position) = match newest {
        Some((_, segment)) if segment.is_last => return Ok(()),
        Some((number, segment)) => (number + 1, segment.position.parse().unwrap_or_default()),
        None => (0, Position::default()),
    };
    let mut reader = Reader::resume(directory, position);
    loop {
        let read = blocking(move || {
            let entries = reader.read()?;
            Ok((reader, entries))
        });
        let (back, entries) = read.await.map_err(|error| unreadable(&error))?;
        reader = back;
        let is_end = entries.is_empty();
        if is_end && !is_last {
            return Ok(());
        }
        let entries = entries.into_iter().map(|entry| match entry {
            Entry::Line(line) => Shipped::Line(line),
            Entry::Dropped { lines, bytes } => Shipped::Dropped { lines, bytes },
        });
        let segment = Segment {
            position: reader.position().to_string(),
            entries: entries.collect(),
            is_last: is_end && is_last,
        };
        let fields = Fields { parent: Some(source.task.to_string().into()), ..Fields::default() };
        let put = records::put(source.key(number), fields, &segment, Expect::Absent)?;
        match store.commit(vec![put]).await {
            Ok(_) => number += 1,
            // One that was being shipped before has come through: from there on, next time.
            Err(StoreError::Conflict { .. }) if !is_last => return Ok(()),
            Err(StoreError::Conflict { .. }) => {
                return Box::pin(ship_on(store, source, directory, is_last)).await;
            }
            Err(error) => return Err(records::storage_error(error)),
        }
        if is_end {
            return Ok(());
        }
    }
}

fn unreadable(error: &io::Error) -> Error {
    Error::internal(format!("the output cannot be read: {error}"))
}

/// Reads the segments of an attempt.
#[derive(Debug)]
pub struct SegmentReader {
    source: Source,
    /// The next segment to read.
    next: u64,
    /// How many lines of the next segment are not wanted.
    skip: usize,
    is_over: bool,
}

impl SegmentReader {
    /// From the first line on.
    pub fn open(source: Source) -> Self {
        Self { source, next: 0, skip: 0, is_over: false }
    }

    /// From the last so many lines on, of those that are wanted.
    pub async fn last(
        store: &dyn Store,
        source: Source,
        lines: u64,
        is_wanted: impl Fn(&Line) -> bool,
    ) -> Result<Self, Error> {
        let (mut wanted, mut before) = (lines, None);
        let mut reader = Self::open(source);
        loop {
            let segments = source.newest(store, before, PAGE).await?;
            let Some(oldest) = segments.last().map(|(number, _)| *number) else { return Ok(reader) };
            for (number, segment) in segments {
                for (place, entry) in segment.entries.iter().enumerate().rev() {
                    if wanted == 0 {
                        reader.next = number;
                        reader.skip = place + 1;
                        return Ok(reader);
                    }
                    if matches!(entry, Shipped::Line(line) if is_wanted(line)) {
                        wanted -= 1;
                    }
                }
            }
            before = Some(oldest);
        }
    }

    /// What is there and was not read before, a segment at most; empty when there is nothing now.
    pub async fn read(&mut self, store: &dyn Store) -> Result<Vec<Entry>, Error> {
        loop {
            let record = store.get(&self.source.key(self.next)).await.map_err(records::storage_error)?;
            let Some(record) = record else { return Ok(Vec::new()) };
            let segment: Segment = records::read(&record)?;
            let skip = std::mem::take(&mut self.skip);
            self.next += 1;
            self.is_over = segment.is_last;
            let entries = segment.entries.into_iter().skip(skip).map(|entry| match entry {
                Shipped::Line(line) => Entry::Line(line),
                Shipped::Dropped { lines, bytes } => Entry::Dropped { lines, bytes },
            });
            let entries: Vec<Entry> = entries.collect();
            if !entries.is_empty() || self.is_over {
                return Ok(entries);
            }
        }
    }

    /// Whether nothing follows: the last segment was read.
    pub fn is_over(&self) -> bool {
        self.is_over
    }
}

/// Removes the segments of a task.
pub async fn remove(store: &dyn Store, task: TaskId) -> Result<(), Error> {
    let mut query = Query {
        table: Table::LogSegment,
        filter: Filter { parent: Some(task.to_string().into()), ..Filter::default() },
        order: Order::OldestFirst,
        after: None,
        limit: REMOVED_AT_ONCE,
    };
    loop {
        let page = store.list(&query).await.map_err(records::storage_error)?;
        let removals =
            page.records.into_iter().map(|Record { key, revision, .. }| records::delete(key, revision));
        let removals: Vec<Operation> = removals.collect();
        if !removals.is_empty() {
            match store.commit(removals).await {
                // Another engine removes them too: look again.
                Err(StoreError::Conflict { .. }) => continue,
                removed => removed.map(drop).map_err(records::storage_error)?,
            }
        }
        match page.next {
            Some(next) => query.after = Some(next),
            None => return Ok(()),
        }
    }
}
