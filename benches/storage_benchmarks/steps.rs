//! The steps of the report, each on one backend and in a process of its own.
//!
//! The benchmark starts itself with the words of a step; what the step has found out is one line of JSON
//! on its standard output. All steps on a backend go to the same directory, one after the other.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use orchestrator_benches::backend::{Backend, Counted, Home, Work};
use orchestrator_benches::tasks::{self, Sample};
use orchestrator_benches::{Spread, Tail, ratios};
use orchestrator_storage::Store;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::FEW;
use crate::side::{Action, Side};

/// The first argument of a process that does a step.
pub const STEP: &str = "step";

/// How many pairs are measured, and with each number of writers a third as many rounds of commits. With
/// fewer tasks than a report is made of, it is to be seen that everything works.
pub fn pairs(tasks: usize) -> usize {
    if tasks < 10_000 { 9 } else { 30 }
}

/// How many commits each writer makes in a round.
const COMMITS: usize = 64;
/// How many writers write at the same time, where several do.
pub const WRITERS: usize = 16;

/// What a store takes of memory, in bytes.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Memory {
    /// The process that holds the store.
    pub resident: u64,
    /// How much of that came after the process was ready to open it.
    pub grown: u64,
    /// The most that the process has had at once.
    pub peak: u64,
}

/// A store was filled.
#[derive(Debug, Serialize, Deserialize)]
pub struct Filled {
    /// How long that took.
    pub seconds: f64,
    /// How long the body of a record is, in bytes.
    pub body_bytes: usize,
    /// With the store full and still open.
    pub memory: Memory,
    /// With the store closed.
    pub disk_bytes: u64,
}

/// A store with many tasks was opened.
#[derive(Debug, Serialize, Deserialize)]
pub struct Started {
    /// Until the process that holds it was there: a server's.
    pub process_ms: f64,
    /// Until it was open.
    pub open_ms: f64,
    /// Until a queue knew what may run.
    pub recover_ms: f64,
    /// When it did.
    pub memory: Memory,
    /// What it takes on the disk, after that.
    pub disk_bytes: u64,
}

/// Something was done with few and with many tasks stored.
#[derive(Debug, Serialize, Deserialize)]
pub struct Grown {
    /// What.
    pub action: String,
    /// How long once takes with few, in microseconds.
    pub few_micros: Spread,
    /// How long once takes with many, in microseconds.
    pub many_micros: Spread,
    /// How many times as long.
    pub ratio: Spread,
    /// The work with few.
    pub few: Each,
    /// The work with many.
    pub many: Each,
    /// How many times as many bytes are written; `None` where none are.
    pub written_ratio: Option<Spread>,
}

/// The work of doing something once: of bytes the median of the pairs, because what a database does in the
/// background comes in large pieces.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Each {
    pub commits: f64,
    pub records_written: f64,
    pub records_read: f64,
    pub syncs: Option<f64>,
    pub bytes_written: f64,
    pub bytes_read: f64,
}

/// The parts of a cycle with many tasks stored, in microseconds.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Parts {
    pub submit: Spread,
    pub claim: Spread,
    pub finish: Spread,
}

/// Few and many were compared.
#[derive(Debug, Serialize, Deserialize)]
pub struct Compared {
    pub actions: Vec<Grown>,
    pub parts: Parts,
}

/// Commits were made by several writers at once.
#[derive(Debug, Serialize, Deserialize)]
pub struct Throughput {
    /// Commits a second, in each round.
    pub per_second: Spread,
    /// How long one takes.
    pub latency: Tail,
}

/// A store was written to.
#[derive(Debug, Serialize, Deserialize)]
pub struct Loaded {
    pub one_writer: Throughput,
    pub several_writers: Throughput,
    /// Afterwards.
    pub memory: Memory,
}

/// Does a step in a process of its own.
pub fn start<T: DeserializeOwned>(step: &str, backend: Backend, directory: &Path, tasks: usize) -> T {
    let output = Command::new(std::env::current_exe().unwrap())
        .args([STEP, step, backend.name()])
        .arg(directory)
        .arg(tasks.to_string())
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "the step {step} on {} has failed: {text}", backend.name());
    serde_json::from_str(text.trim()).unwrap()
}

/// Does a step in this process.
pub fn run(step: &str, backend: &str, directory: &str, tasks: usize) {
    let backend = Backend::with_name(backend).unwrap();
    let directory = Path::new(directory);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let found = runtime.block_on(async {
        match step {
            "fill" => serde_json::to_string(&fill(backend, directory, tasks).await),
            "open" => serde_json::to_string(&open(backend, directory).await),
            "compare" => serde_json::to_string(&compare(backend, directory, pairs(tasks)).await),
            _ => serde_json::to_string(&load(backend, directory, pairs(tasks) / 3).await),
        }
    });
    println!("{}", found.unwrap());
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn memory(home: &Home, before: u64) -> Memory {
    let process = home.process();
    let resident = process.resident_bytes();
    Memory { resident, grown: resident.saturating_sub(before), peak: process.peak_bytes() }
}

async fn fill(backend: Backend, directory: &Path, tasks: usize) -> Filled {
    let home = Home::at(backend, directory);
    let before = home.process().resident_bytes();
    let store = home.open().await;
    let queue = tasks::queue_on(Arc::clone(&store) as _);
    let task = tasks::new_task(directory);
    let start = Instant::now();
    tasks::fill(&queue, &task, tasks).await;
    let seconds = start.elapsed().as_secs_f64();
    let memory = memory(&home, before);
    let body_bytes = Sample::of(&*store).await.body_bytes();
    store.close().await.unwrap();
    drop(home);
    Filled { seconds, body_bytes, memory, disk_bytes: orchestrator_benches::process::disk_bytes(directory) }
}

async fn open(backend: Backend, directory: &Path) -> Started {
    let start = Instant::now();
    let home = Home::at(backend, directory);
    let process_ms = ms(start.elapsed());
    let before = home.process().resident_bytes();
    let start = Instant::now();
    let store = home.open().await;
    let open_ms = ms(start.elapsed());
    let start = Instant::now();
    tasks::queue_on(Arc::clone(&store) as _).recover().await.unwrap();
    let recover_ms = ms(start.elapsed());
    let memory = memory(&home, before);
    store.close().await.unwrap();
    drop(home);
    let disk_bytes = orchestrator_benches::process::disk_bytes(directory);
    Started { process_ms, open_ms, recover_ms, memory, disk_bytes }
}

/// One measurement: how long it took, and the work.
async fn measure(side: &mut Side, action: Action) -> (Duration, Work) {
    let before = side.store().work();
    let start = Instant::now();
    for _ in 0..action.times() {
        side.act(action).await;
    }
    let taken = start.elapsed();
    (taken, side.store().work().since(before))
}

async fn compare(backend: Backend, directory: &Path, count: usize) -> Compared {
    let mut few = Side::filled(backend, FEW).await;
    let mut many = Side::at(backend, directory).await;
    let mut pairs: [Vec<[(Duration, Work); 2]>; 4] = Default::default();
    // The first one warms up, and does not count.
    for pair in 0..=count {
        for (action, pairs) in Action::ALL.into_iter().zip(&mut pairs) {
            // Each is first as often as second.
            let pair = if pair % 2 == 0 {
                let first = measure(&mut few, action).await;
                [first, measure(&mut many, action).await]
            } else {
                let first = measure(&mut many, action).await;
                [measure(&mut few, action).await, first]
            };
            pairs.push(pair);
        }
    }
    let actions = Action::ALL.into_iter().zip(&pairs).map(|(action, pairs)| grown(action, &pairs[1..]));
    let actions = actions.collect();
    let mut cycles = Vec::new();
    for _ in 0..count * 5 {
        cycles.push(many.cycle().await);
    }
    let part =
        |pick: fn(&tasks::Cycle) -> Duration| Spread::of_micros(&cycles.iter().map(pick).collect::<Vec<_>>());
    let parts = Parts {
        submit: part(|cycle| cycle.submit),
        claim: part(|cycle| cycle.claim),
        finish: part(|cycle| cycle.finish),
    };
    few.close().await;
    many.close().await;
    Compared { actions, parts }
}

fn grown(action: Action, pairs: &[[(Duration, Work); 2]]) -> Grown {
    let side = |n: usize| pairs.iter().map(move |pair| pair[n]);
    let micros = |n| {
        let times = action.times() as f64;
        Spread::of(side(n).map(|(taken, _)| taken.as_secs_f64() * 1e6 / times).collect())
    };
    let each = |n| {
        let middle = |pick: fn(Work) -> u64| {
            let values = side(n).map(|(_, work)| pick(work) as f64 / action.times() as f64);
            Spread::of(values.collect()).median
        };
        let counts_syncs = side(n).all(|(_, work)| work.syncs.is_some());
        Each {
            commits: middle(|work| work.commits),
            records_written: middle(|work| work.records_written),
            records_read: middle(|work| work.records_read),
            syncs: counts_syncs.then(|| middle(|work| work.syncs.unwrap_or_default())),
            bytes_written: middle(|work| work.bytes_written),
            bytes_read: middle(|work| work.bytes_read),
        }
    };
    let written: Vec<[u64; 2]> = pairs.iter().map(|pair| pair.map(|(_, work)| work.bytes_written)).collect();
    let writes = matches!(action, Action::Commit | Action::Cycle);
    let written_ratio = writes
        .then(|| Spread::of(written.iter().map(|[few, many]| *many as f64 / (*few).max(1) as f64).collect()));
    Grown {
        action: action.name().to_owned(),
        few_micros: micros(0),
        many_micros: micros(1),
        ratio: ratios(&pairs.iter().map(|pair| (pair[0].0, pair[1].0)).collect::<Vec<_>>()),
        few: each(0),
        many: each(1),
        written_ratio,
    }
}

/// A round: commits a second, and how long each took.
async fn write(store: &Arc<Counted>, sample: &Sample, writers: usize) -> (f64, Vec<Duration>) {
    let start = Instant::now();
    let writers: Vec<_> = (0..writers)
        .map(|_| {
            let (store, sample) = (Arc::clone(store), sample.clone());
            tokio::spawn(async move {
                let mut latencies = Vec::with_capacity(COMMITS);
                for _ in 0..COMMITS {
                    let start = Instant::now();
                    store.commit(vec![sample.write()]).await.unwrap();
                    latencies.push(start.elapsed());
                }
                latencies
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for writer in writers {
        latencies.extend(writer.await.unwrap());
    }
    (latencies.len() as f64 / start.elapsed().as_secs_f64(), latencies)
}

async fn load(backend: Backend, directory: &Path, rounds: usize) -> Loaded {
    let home = Home::at(backend, directory);
    let before = home.process().resident_bytes();
    let store = home.open().await;
    let queue = tasks::queue_on(Arc::clone(&store) as _);
    queue.recover().await.unwrap();
    let sample = Sample::of(&*store).await;
    let mut rates: [Vec<f64>; 2] = Default::default();
    let mut latencies: [Vec<Duration>; 2] = Default::default();
    write(&store, &sample, 1).await;
    for _ in 0..rounds {
        for (n, writers) in [1, WRITERS].into_iter().enumerate() {
            let (rate, taken) = write(&store, &sample, writers).await;
            rates[n].push(rate);
            latencies[n].extend(taken);
        }
    }
    let memory = memory(&home, before);
    store.close().await.unwrap();
    let [one_writer, several_writers] = [0, 1].map(|n| Throughput {
        per_second: Spread::of(std::mem::take(&mut rates[n])),
        latency: Tail::of(std::mem::take(&mut latencies[n])),
    });
    Loaded { one_writer, several_writers, memory }
}
