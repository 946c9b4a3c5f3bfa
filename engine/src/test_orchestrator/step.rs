//! Scripts on nodes.
//!
//! A script is run by `step.sh`, which is copied to the node and needs no engine: it keeps output and
//! exit status in files there, ends the script when its time is over, and tells whoever asks for the same
//! step again about the one that there is. What is asked for here may therefore be asked for again at any
//! time; dropping it leaves the script running.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use futures::StreamExt;
use orchestrator_protocol::Error;
use orchestrator_protocol::event::OutputStream;
use orchestrator_protocol::task::Progress;
use orchestrator_runner::lines::{Lines, MAX_WORD_BYTES, Piece};
use orchestrator_runner::mask::Masker;
use orchestrator_runner::status::Failure as Fail;
use orchestrator_runner::words::{self, Word, shorten};
use serde_json::Value;
use uuid::Uuid;

use super::{Context, Failure, Place, TestOrchestrator, state_in_words};
use crate::containers::{ContainerState, ExecSpec, Output};

/// The script that runs scripts.
pub(super) const STEP_SH: &str = include_str!("step.sh");
/// Where it is on a node, with the taskservs.
pub(super) const BASE: &str = "/var/lib/orchestrator";

/// How much of a step's output is kept for its result, in bytes.
const TAIL_BYTES: usize = 8 * 1024;
/// How many lines of a node that has died are shown.
const LAST_LINES: u64 = 10;
/// How long a step that was called off may take to end: what `step.sh` gives it, and some time for Docker.
const CANCEL_WITHIN: Duration = Duration::from_secs(20);

/// How often it is looked whether a node has died whose script has ended without a word.
const DEATH_LOOKS: usize = 20;
const BETWEEN_DEATH_LOOKS: Duration = Duration::from_millis(100);

/// A script to run on a node.
#[derive(Debug, Clone)]
pub(super) struct Order {
    /// What it is known by on the node: the same for each attempt.
    pub id: String,
    /// What people call it, such as `start postgres`.
    pub label: String,
    /// The folder on the node that it runs in a copy of.
    pub folder: String,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Its variables.
    pub env: BTreeMap<String, String>,
    /// How long it may take.
    pub limit: Duration,
    /// Where it is to be run until it succeeds: how long that may take.
    pub within: Option<Duration>,
}

/// How a step has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ended {
    /// The script has ended, with this exit status.
    Exited(i32),
    /// It took longer than it may.
    TimedOut,
    /// It has never succeeded within its time.
    NotReady,
    /// Its node has died, or what carried it out was killed: in words.
    Lost(String),
}

/// What became of a step.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Outcome {
    pub ended: Ended,
    /// The last `::result`.
    pub result: Option<Value>,
    /// The last `::fail`.
    pub fail: Option<Fail>,
    /// The end of the output, masked.
    pub tail: String,
    /// The last line of standard error, or else of standard output.
    pub last_line: Option<String>,
    pub duration: Duration,
}

impl Outcome {
    /// Whether the script has succeeded.
    pub fn succeeded(&self) -> bool {
        self.ended == Ended::Exited(0)
    }

    /// The exit status, where there is one.
    pub fn exit_code(&self) -> Option<i32> {
        match self.ended {
            Ended::Exited(code) => Some(code),
            Ended::TimedOut | Ended::NotReady | Ended::Lost(_) => None,
        }
    }

    /// Why it did not succeed, in a sentence.
    pub fn why(&self, order: &Order, place: &Place) -> String {
        let about = format!("{} on {}", order.label, place.node);
        if let Some(fail) = &self.fail {
            return format!("{about}: {}", fail.message);
        }
        let last = self
            .last_line
            .as_ref()
            .map_or("it has printed nothing".into(), |line| format!("its last line: {line}"));
        match &self.ended {
            Ended::Exited(137) if place.memory_mb.is_some() => {
                let limit = place.memory_mb.unwrap_or_default();
                format!(
                    "{about} was killed (exit status 137): the node may use {limit} MiB of memory; {last}"
                )
            }
            Ended::Exited(code) => format!("{about} ended with exit status {code}; {last}"),
            Ended::TimedOut => {
                format!("{about} took longer than its {} s; {last}", order.limit.as_secs_f64())
            }
            Ended::NotReady => {
                let within = order.within.unwrap_or_default().as_secs();
                format!("{about}: it is not ready within {within} s; {last}")
            }
            Ended::Lost(why) => format!("{about}: {why}"),
        }
    }

    /// The outcome where it is a success, and a failure where it is none.
    pub fn or_fail(self, order: &Order, place: &Place) -> Result<Self, Failure> {
        if self.succeeded() {
            return Ok(self);
        }
        let permanent = self.fail.as_ref().is_some_and(|fail| fail.permanent);
        Err(Failure { error: Error::unavailable(self.why(order, place)), permanent })
    }
}

impl TestOrchestrator {
    /// Runs a script on a node, or takes over the one that an attempt before this has begun.
    pub(super) async fn take_step(
        &self,
        place: &Place,
        order: &Order,
        context: &Context,
    ) -> Result<Outcome, Failure> {
        context.go_on()?;
        let began = Instant::now();
        let mark = format!("::{}", Uuid::new_v4().simple());
        let mut reader = Reader::new(self, place, order, context, &mark);
        let mut problem = None;
        match self.docker.exec(&place.container, &spec(order, &mark)).await {
            Err(refused) => problem = Some(refused),
            Ok(mut output) => loop {
                let item = tokio::select! {
                    item = output.next() => item,
                    () = context.cancel.cancelled() => {
                        self.call_off(place, order, context).await;
                        return Err(Failure::cancelled());
                    }
                };
                match item {
                    Some(Ok(Output::Bytes(stream, bytes))) => reader.push(stream, &bytes),
                    Some(Ok(Output::Exit(_))) | None => break,
                    Some(Err(broke_off)) => {
                        problem = Some(broke_off);
                        break;
                    }
                }
            },
        }
        let ended = match reader.finish() {
            Some(Last::Ended(ended)) => ended,
            // Somebody else has called it off; whoever did knows why.
            Some(Last::Cancelled) => {
                return Err(Failure::passing(format!("{} on {} was called off", order.label, place.node)));
            }
            Some(Last::Broken(why)) => Ended::Lost(self.loss(place, &why).await?),
            None => match (self.died(place).await?, problem) {
                (Some(death), _) => Ended::Lost(death),
                (None, Some(problem)) => return Err(problem.into()),
                (None, None) => Ended::Lost(self.silence(place).await?),
            },
        };
        Ok(reader.outcome(ended, began.elapsed()))
    }

    /// Ends a step on its node, within a bound: a node that does not answer must not keep the task.
    async fn call_off(&self, place: &Place, order: &Order, context: &Context) {
        let command = ["sh", &format!("{BASE}/step.sh"), "cancel", &order.id].map(String::from).to_vec();
        let spec = ExecSpec { command, user: Some("0".into()), ..ExecSpec::default() };
        let end = async {
            let mut output = self.docker.exec(&place.container, &spec).await?;
            while let Some(item) = output.next().await {
                item?;
            }
            Ok::<_, crate::containers::ContainerError>(())
        };
        match tokio::time::timeout(CANCEL_WITHIN, end).await {
            Ok(Ok(())) => {}
            Ok(Err(problem)) => (context.log)(&format!(
                "{} on {} could not be called off: {problem}",
                order.label, place.node
            )),
            Err(_) => (context.log)(&format!("{} on {} did not end in time", order.label, place.node)),
        }
    }

    /// Why a step has ended without a last word. A program's output ends a moment before Docker knows that
    /// its container has died.
    async fn silence(&self, place: &Place) -> Result<String, Failure> {
        for _ in 0..DEATH_LOOKS {
            if let Some(death) = self.died(place).await? {
                return Ok(death);
            }
            tokio::time::sleep(BETWEEN_DEATH_LOOKS).await;
        }
        self.loss(place, "it ended without a word").await
    }

    /// Why a step has no end: its node has died, or what carried it out was killed.
    async fn loss(&self, place: &Place, why: &str) -> Result<String, Failure> {
        let limit = place.memory_mb.map(|limit| format!(" (the node may use {limit} MiB of memory)"));
        Ok(self.died(place).await?.unwrap_or_else(|| format!("{why}{}", limit.unwrap_or_default())))
    }

    /// Whether a node has died: how, and what it has printed last.
    pub(super) async fn died(&self, place: &Place) -> Result<Option<String>, Failure> {
        let Some(container) = self.docker.container(&place.container).await? else {
            return Ok(Some(format!("the container of node '{}' is gone", place.node)));
        };
        if container.state == ContainerState::Running {
            return Ok(None);
        }
        let mut lines = self.logs.last(place.environment, &place.node, LAST_LINES);
        let own = self.printed(&place.container, Some(LAST_LINES)).await.unwrap_or_default();
        lines.extend(own.into_iter().map(|(_, line)| line));
        let state = state_in_words(container.state);
        let lines = if lines.is_empty() { "it has printed nothing".into() } else { lines.join("\n") };
        Ok(Some(format!("node '{}' {state}; its last lines:\n{lines}", place.node)))
    }
}

fn spec(order: &Order, mark: &str) -> ExecSpec {
    let limit = order.limit.as_secs_f64().to_string();
    let within = order.within.map_or_else(|| "-".to_owned(), |within| within.as_secs().to_string());
    let path = format!("{BASE}/step.sh");
    let mut command =
        ["sh", &path, "run", mark, &order.id, &limit, &within, &order.folder].map(String::from).to_vec();
    command.extend(order.command.iter().cloned());
    ExecSpec { command, env: order.env.clone(), user: Some("0".into()) }
}

/// The first word of `step.sh`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum First {
    Began,
    TakenOver,
}

/// The last word of `step.sh`.
#[derive(Debug, PartialEq, Eq)]
enum Last {
    Ended(Ended),
    Cancelled,
    Broken(String),
}

fn last_word(text: &str) -> Option<Last> {
    match text.split_once(' ').unwrap_or((text, "")) {
        ("exit", code) => code.parse().ok().map(|code| Last::Ended(Ended::Exited(code))),
        ("timed-out", _) => Some(Last::Ended(Ended::TimedOut)),
        ("not-ready", _) => Some(Last::Ended(Ended::NotReady)),
        ("cancelled", _) => Some(Last::Cancelled),
        ("broken", why) => Some(Last::Broken(why.to_owned())),
        _ => None,
    }
}

/// Makes lines and words of a step's output, and keeps them.
struct Reader<'a> {
    orchestrator: &'a TestOrchestrator,
    place: &'a Place,
    order: &'a Order,
    context: &'a Context,
    mark: &'a str,
    out: Lines,
    err: Lines,
    kept: Kept,
}

/// What is kept of a step's output.
#[derive(Default)]
struct Kept {
    masker: Masker,
    /// How many lines of each stream the log has already.
    skip: (u64, u64),
    fresh: Vec<(OutputStream, String)>,
    tail: VecDeque<String>,
    tail_bytes: usize,
    last_out: Option<String>,
    last_err: Option<String>,
    result: Option<Value>,
    fail: Option<Fail>,
    progress: Option<orchestrator_runner::status::Progress>,
    first: Option<First>,
    last: Option<Last>,
}

impl<'a> Reader<'a> {
    fn new(
        orchestrator: &'a TestOrchestrator,
        place: &'a Place,
        order: &'a Order,
        context: &'a Context,
        mark: &'a str,
    ) -> Self {
        let (out, err) = (Lines::default(), Lines::default());
        Self { orchestrator, place, order, context, mark, out, err, kept: Kept::default() }
    }

    fn push(&mut self, stream: OutputStream, bytes: &[u8]) {
        // A value may be announced on one stream and printed on the other.
        for value in words::announced(bytes) {
            let _ = self.kept.masker.add(value);
        }
        match stream {
            OutputStream::Stdout => self.out.push(bytes),
            OutputStream::Stderr => self.err.push(bytes),
        }
        self.read(false);
    }

    /// Takes what is left, and returns the last word.
    fn finish(&mut self) -> Option<Last> {
        self.read(true);
        self.kept.last.take()
    }

    fn read(&mut self, is_end: bool) {
        for (stream, lines) in [(OutputStream::Stdout, &mut self.out), (OutputStream::Stderr, &mut self.err)]
        {
            while let Some(piece) = lines.next(self.kept.masker.longest(), is_end) {
                self.kept.take(stream, &piece, self.mark);
                let logs = &self.orchestrator.logs;
                let (place, order) = (self.place, self.order);
                match self.kept.first.take() {
                    Some(First::Began) => {
                        // That it cannot be written is told with the first lines.
                        let _ = logs.begin(place.environment, &place.node, &order.id, &order.label);
                    }
                    Some(First::TakenOver) => {
                        let counts = logs.lines_of(place.environment, &place.node, &order.id);
                        self.kept.skip = counts.unwrap_or_default();
                    }
                    None => {}
                }
            }
        }
        let fresh = std::mem::take(&mut self.kept.fresh);
        for (_, line) in &fresh {
            (self.context.log)(&format!("{}: {line}", self.place.node));
        }
        let (place, order) = (self.place, self.order);
        let written =
            self.orchestrator.logs.append(place.environment, &place.node, &order.id, &order.label, &fresh);
        if let Err(problem) = written {
            tracing::warn!(node = place.node, %problem, "the output of a node cannot be kept");
        }
        if let Some(progress) = self.kept.progress.take() {
            let message = format!("{} on {}: {}", order.label, place.node, progress.message);
            let orchestrator_runner::status::Progress { fraction, done, total, .. } = progress;
            (self.context.progress)(Progress { fraction, done, total, message });
        }
    }

    fn outcome(self, ended: Ended, duration: Duration) -> Outcome {
        let Kept { result, fail, tail, last_out, last_err, .. } = self.kept;
        let tail = Vec::from(tail).join("\n");
        Outcome { ended, result, fail, tail, last_line: last_err.or(last_out), duration }
    }
}

impl Kept {
    fn take(&mut self, stream: OutputStream, piece: &Piece<'_>, mark: &str) {
        match piece {
            Piece::Line(line) => {
                if stream == OutputStream::Stdout
                    && let Some(word) =
                        std::str::from_utf8(line).ok().and_then(|line| line.strip_prefix(mark))
                {
                    match word.trim() {
                        "began" => self.first = Some(First::Began),
                        "taken-over" => self.first = Some(First::TakenOver),
                        word => self.last = last_word(word).or(self.last.take()),
                    }
                    return;
                }
                match words::parse(line) {
                    Some(word) => self.hear(stream, word),
                    None => {
                        let line = self.masker.mask(line).into_owned();
                        self.print(stream, &line);
                    }
                }
            }
            Piece::Part { text, range, .. } => {
                let part = self.masker.mask_range(text, range.clone()).into_owned();
                self.print(stream, &part);
            }
            Piece::LongWord(name) => {
                let note = format!("a '::{name}' of more than {MAX_WORD_BYTES} bytes is not kept");
                self.print(stream, note.as_bytes());
            }
        }
    }

    fn hear(&mut self, stream: OutputStream, word: Word) {
        match word {
            Word::Mask(value) => {
                if let Err(why) = self.masker.add(&value) {
                    self.print(stream, format!("a value that was announced is not masked: {why}").as_bytes());
                }
            }
            Word::Progress(progress) => {
                let message = shorten(self.masker.mask_str(&progress.message));
                self.progress = Some(orchestrator_runner::status::Progress { message, ..progress });
            }
            Word::Result(value) => self.result = Some(self.masker.mask_json(value)),
            Word::BadResult(why) => {
                let why = self.masker.mask_str(&why);
                self.print(stream, format!("a '::result' is not kept: {why}").as_bytes());
            }
            Word::Fail(fail) => {
                let message = shorten(self.masker.mask_str(&fail.message));
                self.fail = Some(Fail { message, ..fail });
            }
        }
    }

    /// Keeps a masked line.
    fn print(&mut self, stream: OutputStream, line: &[u8]) {
        let line = String::from_utf8_lossy(line).into_owned();
        if !line.trim().is_empty() {
            let last = if stream == OutputStream::Stdout { &mut self.last_out } else { &mut self.last_err };
            *last = Some(shorten(line.clone()));
        }
        self.tail_bytes += line.len() + 1;
        self.tail.push_back(line.clone());
        while self.tail_bytes > TAIL_BYTES && self.tail.len() > 1 {
            self.tail_bytes -= self.tail.pop_front().map_or(0, |line| line.len() + 1);
        }
        let skip = if stream == OutputStream::Stdout { &mut self.skip.0 } else { &mut self.skip.1 };
        if *skip > 0 {
            *skip -= 1;
        } else {
            self.fresh.push((stream, line));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_words_of_a_step_are_understood() {
        assert_eq!(last_word("exit 3"), Some(Last::Ended(Ended::Exited(3))));
        assert_eq!(last_word("timed-out"), Some(Last::Ended(Ended::TimedOut)));
        assert_eq!(last_word("not-ready"), Some(Last::Ended(Ended::NotReady)));
        assert_eq!(last_word("cancelled"), Some(Last::Cancelled));
        assert_eq!(last_word("broken no room"), Some(Last::Broken("no room".into())));
        for other in ["began", "taken-over", "exit", "exit x", ""] {
            assert_eq!(last_word(other), None, "{other}");
        }
    }

    #[test]
    fn lines_and_words_are_told_apart_and_masked_and_what_the_log_has_is_left_out() {
        let mut kept = Kept { skip: (1, 0), ..Kept::default() };
        let mut take = |stream, line: &str| kept.take(stream, &Piece::Line(line.as_bytes()), "::mark");
        take(OutputStream::Stdout, "first");
        take(OutputStream::Stdout, "::mask hunter22");
        take(OutputStream::Stdout, "it is hunter22");
        take(OutputStream::Stderr, "hunter22 again");
        take(OutputStream::Stdout, r#"::result {"password": "hunter22"}"#);
        take(OutputStream::Stdout, "::fail permanent not hunter22");
        take(OutputStream::Stdout, "::mark exit 4");
        let fresh: Vec<&str> = kept.fresh.iter().map(|(_, line)| line.as_str()).collect();
        assert_eq!(fresh, ["it is ***", "*** again"]);
        assert_eq!(Vec::from(kept.tail.clone()), ["first", "it is ***", "*** again"]);
        assert_eq!(kept.result, Some(serde_json::json!({"password": "***"})));
        assert_eq!(kept.fail, Some(Fail { permanent: true, message: "not ***".into() }));
        assert_eq!(kept.last, Some(Last::Ended(Ended::Exited(4))));
    }

    #[test]
    fn the_tail_of_a_long_output_is_bounded() {
        let mut kept = Kept::default();
        for number in 0..10_000 {
            kept.print(OutputStream::Stdout, format!("line {number}").as_bytes());
        }
        let bytes: usize = kept.tail.iter().map(|line| line.len() + 1).sum();
        assert!(bytes <= TAIL_BYTES && bytes > TAIL_BYTES - 100, "{bytes}");
        assert_eq!(kept.tail.back().map(String::as_str), Some("line 9999"));
    }
}
