//! What moving the records costs: beside inserting the same records straight into the same kind of target,
//! and for those who go on working meanwhile.
//!
//! `cargo bench --bench migration_benchmarks`, and with `--features surrealdb` from each backend to each.
//! First a report is printed, then Criterion measures its groups, with fewer records. `-- report` prints
//! the report only, and `-- report moves` or `-- report live` that part of it. `ORCHESTRATOR_BENCH_TASKS`
//! says how many records the report moves.
#![expect(clippy::unwrap_used, reason = "a benchmark may panic")]

use orchestrator_benches::Parts;

#[path = "migration_benchmarks/groups.rs"]
mod groups;
#[path = "migration_benchmarks/live.rs"]
mod live;
#[path = "migration_benchmarks/moves.rs"]
mod moves;

fn main() {
    let parts = Parts::of_process();
    parts.expect(&["moves", "live"]);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        if parts.reports("moves") {
            moves::print(parts.tasks()).await;
        }
        if parts.reports("live") {
            live::print(parts.tasks()).await;
        }
    });
    if parts.groups {
        groups::run(&runtime);
    }
}
