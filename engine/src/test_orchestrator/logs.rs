//! What nodes have printed: a file for each node of an environment, of lines of JSON.
//!
//! Written by whoever reads a step's output, and still there when the node is gone. A step that is taken
//! over from an engine that has died is read from its beginning, and what its log has already is left out.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use chrono::{DateTime, Utc};
use futures::StreamExt;
use futures::stream::BoxStream;
use orchestrator_protocol::Error;
use orchestrator_protocol::environment::{EnvironmentId, EnvironmentLogs, EnvironmentStatus, NodeLine};
use orchestrator_protocol::event::{Item, OutputStream};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::TestOrchestrator;
use crate::containers::Output;

/// How much is kept of one node, in bytes. What comes after is not: the beginning of a failure says more
/// than its thousandth repetition.
const MAX_NODE_BYTES: u64 = 32 * 1024 * 1024;
/// How many lines of the container's own output are shown.
const CONTAINER_LINES: u64 = 1000;
/// How long to wait for a sign of more output before it is looked whether anything runs.
const LOOK_EVERY: std::time::Duration = std::time::Duration::from_secs(1);
/// How many lines wait for a slow listener before the reader waits too.
const AHEAD: usize = 256;

/// A line in a node's file.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    /// The step's identifier on the node.
    id: String,
    step: String,
    time: DateTime<Utc>,
    stream: OutputStream,
    /// `None` where a step begins: only what comes after it is of this step and not of one before it that
    /// had the same identifier.
    line: Option<String>,
}

fn entry(id: &str, step: &str, stream: OutputStream, line: Option<String>) -> Entry {
    Entry { id: id.into(), step: step.into(), time: Utc::now(), stream, line }
}

fn encoded(entries: &[Entry]) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    for entry in entries {
        serde_json::to_writer(&mut text, entry)?;
        text.push(b'\n');
    }
    Ok(text)
}

/// The files of all environments.
#[derive(Debug)]
pub(super) struct Logs {
    directory: PathBuf,
    /// How long the files are that were written to, so that each has its bound.
    length_by_file: Mutex<BTreeMap<PathBuf, u64>>,
    /// Changes with each line.
    written: watch::Sender<u64>,
}

impl Logs {
    pub(super) fn new(directory: PathBuf) -> Self {
        Self { directory, length_by_file: Mutex::default(), written: watch::Sender::new(0) }
    }

    fn file(&self, environment: EnvironmentId, node: &str) -> PathBuf {
        self.directory.join(environment.to_string()).join(format!("{node}.jsonl"))
    }

    /// Notes that a step begins.
    pub(super) fn begin(
        &self,
        environment: EnvironmentId,
        node: &str,
        id: &str,
        step: &str,
    ) -> io::Result<()> {
        self.write(environment, node, &[entry(id, step, OutputStream::Stdout, None)])
    }

    /// Adds lines of a step.
    pub(super) fn append(
        &self,
        environment: EnvironmentId,
        node: &str,
        id: &str,
        step: &str,
        lines: &[(OutputStream, String)],
    ) -> io::Result<()> {
        let entries = lines.iter().map(|(stream, line)| entry(id, step, *stream, Some(line.clone())));
        self.write(environment, node, &entries.collect::<Vec<_>>())
    }

    fn write(&self, environment: EnvironmentId, node: &str, entries: &[Entry]) -> io::Result<()> {
        let Some(first) = entries.first() else { return Ok(()) };
        let path = self.file(environment, node);
        let mut lengths = self.length_by_file.lock().unwrap_or_else(PoisonError::into_inner);
        if !lengths.contains_key(&path) {
            self.open(environment, &path)?;
            lengths.insert(path.clone(), fs::metadata(&path)?.len());
        }
        let length = lengths.entry(path.clone()).or_default();
        if *length >= MAX_NODE_BYTES {
            return Ok(());
        }
        let mut text = encoded(entries)?;
        if *length + text.len() as u64 > MAX_NODE_BYTES {
            let note = "what comes after this is not kept: this node has printed too much";
            text = encoded(&[entry(&first.id, &first.step, OutputStream::Stderr, Some(note.into()))])?;
            *length = MAX_NODE_BYTES;
        }
        OpenOptions::new().append(true).open(&path)?.write_all(&text)?;
        *length += text.len() as u64;
        self.written.send_modify(|count| *count += 1);
        Ok(())
    }

    /// Makes a file, and cuts off a line that an engine died in the middle of.
    fn open(&self, environment: EnvironmentId, path: &PathBuf) -> io::Result<()> {
        use std::os::unix::fs::OpenOptionsExt;
        fs::create_dir_all(self.directory.join(environment.to_string()))?;
        let file = OpenOptions::new().create(true).append(true).read(true).mode(0o600).open(path)?;
        let content = fs::read(path)?;
        let whole = content.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        file.set_len(whole as u64)
    }

    /// How many lines of a step there are already, on each stream.
    pub(super) fn lines_of(
        &self,
        environment: EnvironmentId,
        node: &str,
        id: &str,
    ) -> io::Result<(u64, u64)> {
        let mut counts = (0, 0);
        let (entries, _) = self.read(environment, node, 0)?;
        for entry in entries.iter().filter(|entry| entry.id == id) {
            match (&entry.line, entry.stream) {
                (None, _) => counts = (0, 0),
                (Some(_), OutputStream::Stdout) => counts.0 += 1,
                (Some(_), OutputStream::Stderr) => counts.1 += 1,
            }
        }
        Ok(counts)
    }

    /// The lines from a place in a node's file, and the place behind them.
    fn read(&self, environment: EnvironmentId, node: &str, from: u64) -> io::Result<(Vec<Entry>, u64)> {
        let mut file = match File::open(self.file(environment, node)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), 0)),
            Err(error) => return Err(error),
        };
        file.seek(SeekFrom::Start(from))?;
        let mut reader = BufReader::new(file);
        let (mut entries, mut place, mut line) = (Vec::new(), from, Vec::new());
        while reader.read_until(b'\n', &mut line)? > 0 && line.ends_with(b"\n") {
            place += line.len() as u64;
            entries.extend(serde_json::from_slice::<Entry>(&line).ok());
            line.clear();
        }
        Ok((entries, place))
    }

    /// The last lines of a node.
    pub(super) fn last(&self, environment: EnvironmentId, node: &str, count: u64) -> Vec<String> {
        let (entries, _) = self.read(environment, node, 0).unwrap_or_default();
        let lines = entries.into_iter().filter_map(|entry| Some(format!("{}: {}", entry.step, entry.line?)));
        let lines: Vec<String> = lines.collect();
        let skipped = lines.len().saturating_sub(usize::try_from(count).unwrap_or(usize::MAX));
        lines.into_iter().skip(skipped).collect()
    }

    /// Removes the logs of environments that are not among these.
    pub(super) fn keep_only(&self, is_known: &dyn Fn(EnvironmentId) -> bool) -> io::Result<()> {
        let entries = match fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            let id = entry.file_name().to_str().and_then(|name| name.parse::<EnvironmentId>().ok());
            if id.is_some_and(|id| !is_known(id)) {
                fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(())
    }
}

impl TestOrchestrator {
    /// What the nodes of an environment have printed, oldest first; with `follow` also what they print from
    /// now on, for as long as something is done in the environment. What the containers themselves have
    /// printed comes after it, as the step `container`.
    pub async fn logs(
        &self,
        request: &EnvironmentLogs,
    ) -> Result<BoxStream<'static, Result<Item, Error>>, Error> {
        let environment = self.environment(request.id).await?;
        let names: Vec<String> = environment.nodes.iter().map(|node| node.config.name.clone()).collect();
        if let Some(node) = request.node.as_ref().filter(|node| !names.contains(node)) {
            return Err(Error::not_found(format!(
                "there is no node '{node}': there is {}",
                names.join(", ")
            )));
        }
        let nodes: Vec<String> =
            names.into_iter().filter(|name| request.node.as_ref().is_none_or(|node| node == name)).collect();
        let own = self.own_output(&environment, &nodes, request.tail).await;
        let (sender, receiver) = tokio::sync::mpsc::channel(AHEAD);
        let reader = Reader {
            logs: self.logs.clone(),
            environments: self.environments.clone(),
            request: request.clone(),
            place_by_node: nodes.into_iter().map(|node| (node, 0)).collect(),
        };
        tokio::spawn(async move {
            if let Err(problem) = reader.tell(own, &sender).await {
                // Who has gone away needs no answer.
                let _ = sender.send(Err(problem)).await;
            }
        });
        let items = futures::stream::unfold(receiver, |mut receiver| async {
            receiver.recv().await.map(|item| (item, receiver))
        });
        Ok(items.boxed())
    }

    /// What containers have printed by themselves. Where Docker does not tell, there is none.
    async fn own_output(
        &self,
        environment: &orchestrator_protocol::environment::Environment,
        nodes: &[String],
        tail: Option<u64>,
    ) -> Vec<NodeLine> {
        let mut lines = Vec::new();
        let tail = Some(tail.unwrap_or(CONTAINER_LINES).min(CONTAINER_LINES));
        for node in environment.nodes.iter().filter(|node| nodes.contains(&node.config.name)) {
            let Some(container) = &node.container else { continue };
            let printed = self.printed(container, tail).await.unwrap_or_default();
            lines.extend(printed.into_iter().map(|(stream, line)| NodeLine {
                node: node.config.name.clone(),
                step: "container".into(),
                time: Utc::now(),
                stream,
                line,
            }));
        }
        lines
    }

    /// The last lines that a container has printed.
    pub(super) async fn printed(
        &self,
        container: &str,
        tail: Option<u64>,
    ) -> crate::containers::Result<Vec<(OutputStream, String)>> {
        let mut output = self.docker.logs(container, tail, false).await?;
        let mut lines = Vec::new();
        let mut parts: [(OutputStream, Vec<u8>); 2] =
            [(OutputStream::Stdout, Vec::new()), (OutputStream::Stderr, Vec::new())];
        while let Some(item) = output.next().await {
            let Output::Bytes(stream, bytes) = item? else { continue };
            let part = &mut parts[usize::from(stream == OutputStream::Stderr)].1;
            part.extend_from_slice(&bytes);
            while let Some(at) = part.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = part.drain(..=at).collect();
                lines.push((stream, String::from_utf8_lossy(line.trim_ascii_end()).into_owned()));
            }
        }
        for (stream, rest) in parts.into_iter().filter(|(_, rest)| !rest.is_empty()) {
            lines.push((stream, String::from_utf8_lossy(&rest).into_owned()));
        }
        Ok(lines)
    }
}

/// Reads the files of one environment for one listener.
struct Reader {
    logs: std::sync::Arc<Logs>,
    environments: std::sync::Arc<dyn super::Environments>,
    request: EnvironmentLogs,
    place_by_node: BTreeMap<String, u64>,
}

type Listener = tokio::sync::mpsc::Sender<Result<Item, Error>>;

impl Reader {
    async fn tell(mut self, own: Vec<NodeLine>, listener: &Listener) -> Result<(), Error> {
        let mut written = self.logs.written.subscribe();
        let mut tail = self.request.tail;
        let mut own = Some(own);
        loop {
            written.mark_unchanged();
            // Looked at before the files, so that nothing that was printed before the end is left out.
            let is_over = !self.request.follow || !self.is_at_work().await?;
            let mut lines = self.next(tail.take())?;
            lines.extend(own.take().into_iter().flatten());
            for line in lines {
                if listener.send(Ok(Item::Node(line))).await.is_err() {
                    return Ok(());
                }
            }
            if is_over {
                return Ok(());
            }
            tokio::select! {
                _ = tokio::time::timeout(LOOK_EVERY, written.changed()) => {}
                () = listener.closed() => return Ok(()),
            }
        }
    }

    /// Whether something is done in the environment.
    async fn is_at_work(&self) -> Result<bool, Error> {
        use EnvironmentStatus::{Cleaning, Creating, RunningTests};
        let environment = self.environments.get(self.request.id).await?;
        Ok(environment.is_some_and(|it| matches!(it.status, Creating | RunningTests | Cleaning)))
    }

    fn next(&mut self, tail: Option<u64>) -> Result<Vec<NodeLine>, Error> {
        let unreadable = |error: io::Error| Error::internal(format!("a log cannot be read: {error}"));
        let mut lines = Vec::new();
        for (node, place) in &mut self.place_by_node {
            let (mut entries, end) = self.logs.read(self.request.id, node, *place).map_err(unreadable)?;
            *place = end;
            entries.retain(|entry| entry.line.is_some());
            if let Some(tail) = tail {
                entries.drain(..entries.len().saturating_sub(usize::try_from(tail).unwrap_or(usize::MAX)));
            }
            lines.extend(entries.into_iter().map(|entry| NodeLine {
                node: node.clone(),
                step: entry.step,
                time: entry.time,
                stream: entry.stream,
                line: entry.line.unwrap_or_default(),
            }));
        }
        lines.sort_by_key(|line| line.time);
        Ok(lines)
    }
}
