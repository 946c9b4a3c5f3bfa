//! The backends of storage, side by side: how fast they are, whether they slow down as they grow, and what
//! they take of the machine.
//!
//! `cargo bench --bench storage_benchmarks`, and with `--features surrealdb` all of them. First a report is
//! printed, for which each step on each backend has a process of its own, so that memory and what a start
//! costs are those of that step; then Criterion measures its groups. `-- report` prints the report only,
//! and `-- report NAME` that of a backend. `ORCHESTRATOR_BENCH_TASKS` says how many tasks are stored where
//! many are.
#![expect(clippy::unwrap_used, reason = "a benchmark may panic")]

use orchestrator_benches::Parts;

#[path = "storage_benchmarks/groups.rs"]
mod groups;
#[path = "storage_benchmarks/report.rs"]
mod report;
#[path = "storage_benchmarks/side.rs"]
mod side;
#[path = "storage_benchmarks/steps.rs"]
mod steps;

/// How many tasks are stored where few are.
const FEW: usize = 100;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [first, step, backend, directory, tasks] = &arguments[..]
        && first == steps::STEP
    {
        return steps::run(step, backend, directory, tasks.parse().unwrap());
    }
    let parts = Parts::of_process();
    if parts.report.is_some() {
        report::print(&parts);
    }
    if parts.groups {
        groups::run(parts.tasks());
    }
}
