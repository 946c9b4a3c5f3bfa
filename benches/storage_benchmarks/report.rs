//! The report: what each backend costs, and whether it slows down as it grows.

use orchestrator_benches::backend::Backend;
use orchestrator_benches::{Parts, Spread};

use crate::FEW;
use crate::side::Action;
use crate::steps::{self, Compared, Filled, Grown, Loaded, Memory, Started, WRITERS};

/// How often a store with many tasks is opened.
const STARTS: usize = 5;

/// What was found out about a backend.
struct Findings {
    backend: Backend,
    filled: Filled,
    starts: Vec<Started>,
    compared: Compared,
    loaded: Loaded,
}

/// Measures and prints.
pub fn print(parts: &Parts) {
    parts.expect(&Backend::ALL.iter().map(|backend| backend.name()).collect::<Vec<_>>());
    let tasks = parts.tasks();
    let mut findings = Vec::new();
    for &backend in Backend::ALL.iter().filter(|backend| parts.reports(backend.name())) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        eprintln!("{}: filling with {tasks} tasks", backend.name());
        let filled = steps::start("fill", backend, path, tasks);
        eprintln!("{}: opening", backend.name());
        let starts = (0..STARTS).map(|_| steps::start("open", backend, path, tasks)).collect();
        eprintln!("{}: comparing with {FEW} tasks", backend.name());
        let compared = steps::start("compare", backend, path, tasks);
        eprintln!("{}: writing", backend.name());
        let loaded = steps::start("load", backend, path, tasks);
        let found = Findings { backend, filled, starts, compared, loaded };
        found.print(tasks);
        findings.push(found);
    }
    if findings.len() > 1 {
        beside(&findings, tasks);
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / (1024.0 * 1024.0)
}

impl Findings {
    fn started(&self, pick: fn(&Started) -> f64) -> Spread {
        Spread::of(self.starts.iter().map(pick).collect())
    }

    fn print(&self, tasks: usize) {
        let Self { backend, filled, compared, loaded, .. } = self;
        println!("\n## {}\n", backend.name());
        println!(
            "{tasks} tasks, each with a body of {} bytes, in commits of {}: {:.1} s, {:.0} a second",
            filled.body_bytes,
            orchestrator_benches::tasks::BATCH,
            filled.seconds,
            tasks as f64 / filled.seconds
        );
        println!("\n{} pairs; work and times are those of doing it once\n", steps::pairs(tasks));
        println!(
            "| | stored | commits | syncs | records written | records read | bytes written | bytes read | µs \
             | of the time with {FEW} | of the bytes written |"
        );
        println!("|---|---|---|---|---|---|---|---|---|---|---|");
        for grown in &compared.actions {
            print_grown(grown, tasks);
        }
        let parts = &compared.parts;
        println!(
            "\nwith {tasks} stored: submit {:.0} µs, claim {:.0} µs, finish {:.0} µs",
            parts.submit, parts.claim, parts.finish
        );
        let (one, several) = (&loaded.one_writer, &loaded.several_writers);
        println!("\n| writers | commits a second | median / p99 / longest, ms |");
        println!("|---|---|---|");
        println!("| 1 | {:.0} | {} |", one.per_second, one.latency);
        println!("| {WRITERS} | {:.0} | {} |", several.per_second, several.latency);
        println!(
            "\nstart with {tasks} tasks, ms: the server's process {:.0}, opening {:.0}, \
             until the queue knows what may run {:.0}",
            self.started(|start| start.process_ms),
            self.started(|start| start.open_ms),
            self.started(|start| start.recover_ms),
        );
        println!("\n| memory, MiB | resident | of that since the process was there | highest |");
        println!("|---|---|---|---|");
        let print_memory = |when: &str, memory: &Memory| {
            let Memory { resident, grown, peak } = memory;
            println!("| {when} | {:.0} | {:.0} | {:.0} |", mib(*resident), mib(*grown), mib(*peak));
        };
        print_memory("filled", &filled.memory);
        if let Some(start) = self.starts.last() {
            print_memory("started", &start.memory);
        }
        print_memory("written to", &loaded.memory);
        println!(
            "\non the disk: {:.0} MiB after filling, {:.0} MiB after the starts; bodies alone {:.0} MiB",
            mib(filled.disk_bytes),
            mib(self.disk_bytes()),
            mib((filled.body_bytes * tasks) as u64),
        );
    }

    fn disk_bytes(&self) -> u64 {
        self.starts.last().map_or(self.filled.disk_bytes, |start| start.disk_bytes)
    }

    fn action(&self, action: Action) -> &Grown {
        self.compared.actions.iter().find(|grown| grown.action == action.name()).unwrap()
    }

    /// The most memory that the store has taken at the end of any step.
    fn memory(&self) -> u64 {
        let started = self.starts.iter().map(|start| start.memory.grown);
        started.chain([self.filled.memory.grown, self.loaded.memory.grown]).max().unwrap_or_default()
    }
}

fn print_grown(grown: &Grown, tasks: usize) {
    let ratio = format!("**{:.2}**", grown.ratio);
    let written = grown.written_ratio.map_or(String::new(), |ratio| format!("{ratio:.2}"));
    let rows = [
        (FEW, &grown.few, &grown.few_micros, String::new(), String::new()),
        (tasks, &grown.many, &grown.many_micros, ratio, written),
    ];
    for (stored, each, micros, ratio, written) in rows {
        println!(
            "| {} | {stored} | {:.2} | {} | {:.2} | {:.2} | {:.0} | {:.0} | {micros:.0} | {ratio} | {written} |",
            grown.action,
            each.commits,
            each.syncs.map_or("not counted".to_owned(), |syncs| format!("{syncs:.2}")),
            each.records_written,
            each.records_read,
            each.bytes_written,
            each.bytes_read,
        );
    }
}

/// One way to fill in a row of the comparison.
type Cell = fn(&Findings) -> String;

/// The backends side by side.
fn beside(findings: &[Findings], tasks: usize) {
    println!("\n## Side by side, {tasks} tasks stored\n");
    println!("| | {} |", findings.iter().map(|one| one.backend.name()).collect::<Vec<_>>().join(" | "));
    println!("|---{}|", "|---".repeat(findings.len()));
    let rows: [(&str, Cell); 12] = [
        ("commits a second, 1 writer", |one| format!("{:.0}", one.loaded.one_writer.per_second)),
        ("commits a second, 16 writers", |one| format!("{:.0}", one.loaded.several_writers.per_second)),
        ("commit, 1 writer, median / p99 / longest, ms", |one| one.loaded.one_writer.latency.to_string()),
        ("commit, 16 writers, the same", |one| one.loaded.several_writers.latency.to_string()),
        ("submit, claim, finish, µs", |one| format!("{:.0}", one.action(Action::Cycle).many_micros)),
        ("the same, of the time with 100 stored", |one| format!("{:.2}", one.action(Action::Cycle).ratio)),
        ("page of 100, µs", |one| format!("{:.0}", one.action(Action::Page).many_micros)),
        ("get, µs", |one| format!("{:.0}", one.action(Action::Get).many_micros)),
        ("start, ms", |one| {
            format!("{:.0}", one.started(|start| start.process_ms + start.open_ms + start.recover_ms))
        }),
        ("memory, MiB, at most", |one| format!("{:.0}", mib(one.memory()))),
        ("the whole process, MiB, at most", |one| {
            let peaks = one.starts.iter().map(|start| start.memory.peak);
            let peaks = peaks.chain([one.filled.memory.peak, one.loaded.memory.peak]);
            format!("{:.0}", mib(peaks.max().unwrap_or_default()))
        }),
        ("on the disk, MiB", |one| format!("{:.0}", mib(one.disk_bytes()))),
    ];
    for (name, cell) in rows {
        println!("| {name} | {} |", findings.iter().map(cell).collect::<Vec<_>>().join(" | "));
    }
}
