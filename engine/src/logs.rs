//! What attempts printed: read from their spools, followed while they run.

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
use orchestrator_runner::output::{Entry, Reader, Stream};
use tokio::sync::mpsc;

use crate::config::Config;
use crate::queue::Queue;
use crate::supervisor::attempt_dir;

/// Between two looks at a spool that is being followed.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(50);
/// How many items wait for whoever reads them.
const BUFFER: usize = 256;
/// How much of the output is kept with the task.
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
        for child in self.queue.children(task.id, &[]).await? {
            self.send_task(child).await?;
        }
        Ok(())
    }

    /// The newest attempt, or the one that was asked for; followed, also the ones that come after it.
    async fn send_task(&self, id: TaskId) -> Result<(), Stop> {
        let mut events = self.queue.events();
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
            // Until something has changed; the bound covers events that were missed.
            let _ = tokio::time::timeout(Duration::from_secs(1), events.recv()).await;
        }
    }

    async fn send_attempt(&self, id: TaskId, number: u32, fence: u64) -> Result<(), Stop> {
        let mut reader = Reader::open(&attempt_dir(&self.config, id, fence));
        let mut tail = Tail::new(self.request.tail);
        loop {
            // Looked at before the last read, so that nothing is printed in between.
            let has_ended = !self.request.follow || self.has_ended(id, fence).await?;
            loop {
                let (back, entries) = tokio::task::spawn_blocking(move || {
                    let entries = reader.read();
                    (reader, entries)
                })
                .await
                .map_err(io::Error::other)?;
                reader = back;
                let entries = entries?;
                if entries.is_empty() {
                    break;
                }
                for item in entries.into_iter().filter_map(|entry| self.item(id, number, entry)) {
                    if let Some(item) = tail.pass(item) {
                        self.items.send(Ok(item)).await.map_err(|_| Stop::Unread)?;
                    }
                }
            }
            for item in tail.release() {
                self.items.send(Ok(item)).await.map_err(|_| Stop::Unread)?;
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

    async fn has_ended(&self, id: TaskId, fence: u64) -> Result<bool, Stop> {
        let task = self.queue.task(id).await?;
        Ok(task.fence != fence || task.status != TaskStatus::Running)
    }

    fn item(&self, task: TaskId, attempt: u32, entry: Entry) -> Option<Item> {
        match entry {
            Entry::Dropped { lines, bytes } => Some(Item::Dropped { task, lines, bytes }),
            Entry::Line(line) => {
                let stream = match line.stream {
                    Stream::Out => OutputStream::Stdout,
                    Stream::Err => OutputStream::Stderr,
                };
                let wanted = self.request.stream.is_none_or(|wanted| wanted == stream);
                let time = i64::try_from(line.time_ms).ok().and_then(DateTime::from_timestamp_millis);
                wanted.then(|| {
                    let time = time.unwrap_or_else(Utc::now);
                    Item::Line(LogLine { task, attempt, time, stream, line: line.text })
                })
            }
        }
    }
}

/// Holds back all but the last so many items, until what is there now has been read.
struct Tail {
    limit: Option<usize>,
    held: std::collections::VecDeque<Item>,
}

impl Tail {
    fn new(limit: Option<u64>) -> Self {
        let limit = limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
        Self { limit, held: std::collections::VecDeque::new() }
    }

    fn pass(&mut self, item: Item) -> Option<Item> {
        let Some(limit) = self.limit else { return Some(item) };
        self.held.push_back(item);
        if self.held.len() > limit {
            self.held.pop_front();
        }
        None
    }

    /// What was held back; from now on everything passes.
    fn release(&mut self) -> std::collections::VecDeque<Item> {
        self.limit = None;
        std::mem::take(&mut self.held)
    }
}

/// The last lines of an attempt's output, at most 4 KiB of them.
pub fn last_lines(attempt: &Path) -> io::Result<Option<String>> {
    let mut reader = Reader::open(attempt);
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
