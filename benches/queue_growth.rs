//! Does the queue slow down as it grows? Submit, claim and finish, with few and with many tasks stored:
//! counted work, and the ratio of the times, measured alternately.
#![expect(clippy::unwrap_used, reason = "a benchmark may panic")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use orchestrator_benches::tasks::{self, Cycle};
use orchestrator_benches::{Spread, ratios};
use orchestrator_engine::queue::Queue;
use orchestrator_protocol::submit::NewTask;
use orchestrator_storage::filesystem::{FilesystemOptions, FilesystemStore};

const CYCLES: usize = 200;
const PAIRS: usize = 30;

struct Sized {
    queue: Queue,
    store: Arc<FilesystemStore>,
    task: NewTask,
    _directory: tempfile::TempDir,
}

impl Sized {
    async fn new(stored: usize) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Arc::new(FilesystemStore::open(FilesystemOptions::new(directory.path())).unwrap());
        let queue = tasks::queue_on(Arc::clone(&store) as _);
        let task = tasks::new_task(directory.path());
        tasks::fill(&queue, &task, stored).await;
        Self { queue, store, task, _directory: directory }
    }

    async fn cycle(&self) -> Cycle {
        Cycle::of(&self.queue, &self.task).await
    }

    async fn page(&self) -> Duration {
        let start = Instant::now();
        assert_eq!(tasks::page(&*self.store, 100, None).await.records.len(), 100);
        start.elapsed()
    }
}

#[tokio::main]
async fn main() {
    println!("filesystem backend, one sync a commit; {PAIRS} pairs of {CYCLES} cycles each");
    let few = Sized::new(100).await;
    println!(
        "| stored | commits | syncs | records written | records read | bytes written | submit µs | claim µs | finish µs |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for stored in [100, 10_000, 100_000] {
        let many = Sized::new(stored).await;
        let before = many.store.counters();
        let mut cycles = Vec::new();
        for _ in 0..CYCLES {
            cycles.push(many.cycle().await);
        }
        let after = many.store.counters();
        let each = |after: u64, before: u64| (after - before) as f64 / CYCLES as f64;
        let times =
            |pick: fn(&Cycle) -> Duration| Spread::of_micros(&cycles.iter().map(pick).collect::<Vec<_>>());
        println!(
            "| {stored} | {:.2} | {:.2} | {:.2} | {:.2} | {:.0} | {:.0} | {:.0} | {:.0} |",
            each(after.commits, before.commits),
            each(after.syncs, before.syncs),
            each(after.records_written, before.records_written),
            each(after.records_read, before.records_read),
            each(after.bytes_written, before.bytes_written),
            times(|cycle| cycle.submit),
            times(|cycle| cycle.claim),
            times(|cycle| cycle.finish),
        );
        if stored == 100 {
            continue;
        }
        let mut pairs = Vec::new();
        let mut pages = Vec::new();
        for _ in 0..PAIRS {
            let mut sides = [Duration::ZERO; 2];
            for (side, queue) in sides.iter_mut().zip([&few, &many]) {
                let start = Instant::now();
                for _ in 0..CYCLES / 10 {
                    queue.cycle().await;
                }
                *side = start.elapsed();
            }
            pairs.push((sides[0], sides[1]));
            pages.push(many.page().await);
        }
        println!(
            "submit + claim + finish with {stored} stored, as a multiple of 100 stored: {:.2}",
            ratios(&pairs)
        );
        println!("a page of 100 out of {stored}: {:.0} µs", Spread::of_micros(&pages));
    }
}
