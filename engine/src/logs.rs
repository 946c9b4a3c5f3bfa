//! What attempts printed: read from their spools, followed while they run. What was printed where another
//! engine is comes from the segments that it ships ([`crate::log_segments`]).

use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::stream::{self, BoxStream, StreamExt};
use orchestrator_protocol::event::{Item, LogLine, OutputStream};
use orchestrator_protocol::request::LogsRequest;
use orchestrator_protocol::task::{Task, TaskId, TaskKind, TaskStatus};
use orchestrator_protocol::{Error, Result};
use orchestrator_runner::output::{Entry, Line, Reader, Stream};
use tokio::sync::mpsc;

use crate::config::Config;
use crate::events::Listener;
use crate::log_segments::{SegmentReader, Source};
use crate::queue::Queue;
use crate::supervisor::attempt_dir;

/// Between two looks at a spool that is being followed.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(50);
/// Between two looks for segments that another engine ships.
const SEGMENT_INTERVAL: Duration = Duration::from_millis(250);
/// How long the next segment of an attempt that has ended is waited for.
const SHIPPING_PATIENCE: Duration = Duration::from_secs(3);
/// How many items wait for whoever reads them.
const BUFFER: usize = 256;
/// How much of the output is kept with the task, at most.
const LAST_LINES: u64 = 100;
const LAST_BYTES: usize = 4 * 1024;

/// The output that was asked for.
pub async fn stream(
    queue: Arc<Queue>,
    config: Arc<Config>,
    request: LogsRequest,
) -> Result<BoxStream<'static, Result<Item>>> {
    let task = queue.task(request.id).await?;
    if let Some(number) = request.attempt
        && !task.attempts.iter().any(|attempt| attempt.number == number)
    {
        return Err(Error::not_found(format!(
            "task {} has no attempt {number}: it has {}",
            task.id,
            task.attempts.len()
        ))
        .with_field("attempt"));
    }
    let (items, received) = mpsc::channel(BUFFER);
    tokio::spawn(async move {
        let logs = Logs { queue, config, request, items };
        if let Err(Stop::Failed(error)) = logs.send(&task).await {
            // Whoever asked may be gone.
            let _ = logs.items.send(Err(error)).await;
        }
    });
    Ok(stream::unfold(received, |mut received| async move { Some((received.recv().await?, received)) })
        .boxed())
}

/// Why no more is sent.
enum Stop {
    /// Nobody reads it.
    Unread,
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Failed(Error::internal(format!("the output cannot be read: {error}")))
    }
}

struct Logs {
    queue: Arc<Queue>,
    config: Arc<Config>,
    request: LogsRequest,
    items: mpsc::Sender<Result<Item>>,
}

impl Logs {
    async fn send(&self, task: &Task) -> Result<(), Stop> {
        if task.kind() != TaskKind::Workflow {
            return self.send_task(task.id).await;
        }
        let mut events = self.queue.listen();
        let mut sent = HashSet::new();
        loop {
            let has_ended = self.queue.task(task.id).await?.status.is_final();
            for child in self.queue.children(task.id, &[]).await? {
                if sent.insert(child) {
                    self.send_task(child).await?;
                }
            }
            // While it goes on, tasks may be added to it.
            if has_ended || !self.request.follow {
                return Ok(());
            }
            self.changed(&mut events, task.id).await?;
        }
    }

    /// Waits until the task, or one that belongs to it, has changed; the bound covers events that were
    /// missed.
    async fn changed(&self, events: &mut Listener, id: TaskId) -> Result<(), Stop> {
        let change = async {
            while let Ok(event) = events.next().await
                && event.id != id
                && event.parent != Some(id)
            {}
        };
        let _ = tokio::time::timeout(Duration::from_secs(1), change).await;
        if self.items.is_closed() { Err(Stop::Unread) } else { Ok(()) }
    }

    /// The newest attempt, or the one that was asked for; followed, also the ones that come after it.
    async fn send_task(&self, id: TaskId) -> Result<(), Stop> {
        let mut events = self.queue.listen();
        let mut sent = 0;
        loop {
            let task = self.queue.task(id).await?;
            let attempt = match self.request.attempt {
                Some(number) => task.attempts.iter().find(|attempt| attempt.number == number),
                None => task.attempts.last(),
            };
            if let Some(attempt) = attempt
                && attempt.fence > sent
            {
                sent = attempt.fence;
                self.send_attempt(id, attempt.number, attempt.fence).await?;
                continue;
            }
            if !self.request.follow || self.request.attempt.is_some() || task.status.is_final() {
                return Ok(());
            }
            self.changed(&mut events, id).await?;
        }
    }

    async fn send_attempt(&self, id: TaskId, number: u32, fence: u64) -> Result<(), Stop> {
        if self.is_elsewhere(id, fence).await? {
            return self.send_segments(id, number, fence).await;
        }
        let (directory, tail) = (attempt_dir(&self.config, id, fence), self.request.tail);
        let wanted = self.request.stream.map(|stream| match stream {
            OutputStream::Stdout => Stream::Out,
            OutputStream::Stderr => Stream::Err,
        });
        let mut reader = blocking(move || {
            let reader = match tail {
                Some(lines) => Reader::last(&directory, lines, wanted)?,
                None => Reader::open(&directory),
            };
            Ok(match wanted {
                Some(stream) => reader.only(stream),
                None => reader,
            })
        })
        .await?;
        loop {
            // Looked at before the last read, so that nothing is printed in between.
            let has_ended = !self.request.follow || self.has_ended(id, fence).await?;
            loop {
                let (back, entries) = blocking(move || {
                    let entries = reader.read()?;
                    Ok((reader, entries))
                })
                .await?;
                reader = back;
                if entries.is_empty() {
                    break;
                }
                for entry in entries {
                    self.items.send(Ok(item(id, number, entry))).await.map_err(|_| Stop::Unread)?;
                }
            }
            if has_ended {
                return Ok(());
            }
            if self.items.is_closed() {
                return Err(Stop::Unread);
            }
            tokio::time::sleep(FOLLOW_INTERVAL).await;
        }
    }

    /// Whether another engine has, or had, the attempt.
    async fn is_elsewhere(&self, id: TaskId, fence: u64) -> Result<bool, Stop> {
        let options = self.queue.options();
        if attempt_dir(&self.config, id, fence).is_dir() {
            return Ok(false);
        }
        if !options.is_shared {
            // Of a time when several engines shared the records.
            let mut shipped = SegmentReader::open(Source { task: id, fence });
            return Ok(!shipped.read(&**self.queue.store()).await?.is_empty());
        }
        let task = self.queue.task(id).await?;
        Ok(task.fence != fence || task.claim.is_none_or(|claim| claim.engine != options.engine))
    }

    async fn send_segments(&self, id: TaskId, number: u32, fence: u64) -> Result<(), Stop> {
        let (store, source) = (&**self.queue.store(), Source { task: id, fence });
        let wanted = self.request.stream;
        let is_wanted = |line: &Line| wanted.is_none_or(|wanted| wanted == stream_of(line));
        let mut reader = match self.request.tail {
            Some(lines) => SegmentReader::last(store, source, lines, is_wanted).await?,
            None => SegmentReader::open(source),
        };
        let mut patience = SHIPPING_PATIENCE;
        loop {
            // Looked at before the last read, so that nothing is shipped in between.
            let has_ended = !self.request.follow || self.has_ended(id, fence).await?;
            loop {
                let entries = reader.read(store).await?;
                if entries.is_empty() {
                    break;
                }
                patience = SHIPPING_PATIENCE;
                for entry in entries {
                    if matches!(&entry, Entry::Line(line) if !is_wanted(line)) {
                        continue;
                    }
                    self.items.send(Ok(item(id, number, entry))).await.map_err(|_| Stop::Unread)?;
                }
            }
            // The rest is shipped right after the end; of an engine that is lost nothing comes.
            let is_lost = !self.request.follow || patience.is_zero();
            if reader.is_over() || (has_ended && is_lost) {
                return Ok(());
            }
            if self.items.is_closed() {
                return Err(Stop::Unread);
            }
            if has_ended {
                patience = patience.saturating_sub(SEGMENT_INTERVAL);
            }
            tokio::time::sleep(SEGMENT_INTERVAL).await;
        }
    }

    async fn has_ended(&self, id: TaskId, fence: u64) -> Result<bool, Stop> {
        let task = self.queue.task(id).await?;
        Ok(task.fence != fence || task.status != TaskStatus::Running)
    }
}

fn stream_of(line: &Line) -> OutputStream {
    match line.stream {
        Stream::Out => OutputStream::Stdout,
        Stream::Err => OutputStream::Stderr,
    }
}

fn item(task: TaskId, attempt: u32, entry: Entry) -> Item {
    match entry {
        Entry::Dropped { lines, bytes } => Item::Dropped { task, lines, bytes },
        Entry::Line(line) => {
            let stream = stream_of(&line);
            let time = i64::try_from(line.time_ms).ok().and_then(DateTime::from_timestamp_millis);
            Item::Line(LogLine {
                task,
                attempt,
                time: time.unwrap_or_else(Utc::now),
                stream,
                line: line.text,
            })
        }
    }
}

/// Does what blocks on a thread of its own.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

/// The last lines of an attempt's output, at most 4 KiB of them.
pub fn last_lines(attempt: &Path) -> io::Result<Option<String>> {
    let mut reader = Reader::last(attempt, LAST_LINES, None)?;
    let mut last = String::new();
    loop {
        let entries = reader.read()?;
        if entries.is_empty() {
            return Ok((!last.is_empty()).then_some(last));
        }
        for entry in entries {
            if let Entry::Line(line) = entry {
                if !last.is_empty() {
                    last.push('\n');
                }
                last.push_str(&line.text);
            }
        }
        if last.len() > LAST_BYTES {
            let cut = last.len() - LAST_BYTES;
            let cut = (cut..=last.len()).find(|place| last.is_char_boundary(*place)).unwrap_or(0);
            last.drain(..cut);
        }
    }
}
