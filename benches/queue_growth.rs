//! Does the queue slow down as it grows? Submit, claim and finish, with few and with many tasks stored:
//! counted work, and the ratio of the times, measured alternately.
#![expect(clippy::unwrap_used, reason = "a benchmark may panic")]

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use orchestrator_benches::{Spread, ratios};
use orchestrator_engine::queue::finish::Ending;
use orchestrator_engine::queue::{Queue, QueueOptions};
use orchestrator_protocol::submit::{NewTask, SubmitRequest};
use orchestrator_protocol::task::{AttemptOutcome, RetryPolicy};
use orchestrator_storage::filesystem::{FilesystemOptions, FilesystemStore};
use orchestrator_storage::{Filter, Order, Query, Table};

const CYCLES: usize = 200;
const PAIRS: usize = 30;

struct Sized {
    queue: Queue,
    store: Arc<FilesystemStore>,
    task: NewTask,
    _directory: tempfile::TempDir,
}

struct Cycle {
    submit: Duration,
    claim: Duration,
    finish: Duration,
}

impl Sized {
    async fn new(stored: usize) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let script = directory.path().join("script.nu");
        std::fs::write(&script, "").unwrap();
        let store = Arc::new(FilesystemStore::open(FilesystemOptions::new(directory.path())).unwrap());
        let options = QueueOptions {
            engine: "bench".into(),
            is_shared: false,
            labels: std::collections::BTreeMap::new(),
            boot_id: "bench".into(),
            retry: RetryPolicy::default(),
            grace_ms: 0,
            group_limits: HashMap::new(),
            max_parallel: 4,
        };
        let queue = Queue::new(Arc::clone(&store) as _, options);
        let task = new_task(&script);
        let mut left = stored;
        while left > 0 {
            let batch = left.min(5_000);
            let tasks = (0..batch).map(|number| NewTask {
                name: Some(format!("stored {number}")),
                priority: -1,
                ..task.clone()
            });
            queue
                .submit("bench", &SubmitRequest { tasks: tasks.collect(), ..SubmitRequest::default() })
                .await
                .unwrap();
            left -= batch;
        }
        Self { queue, store, task, _directory: directory }
    }

    async fn cycle(&self) -> Cycle {
        let request = SubmitRequest { tasks: vec![self.task.clone()], ..SubmitRequest::default() };
        let start = Instant::now();
        self.queue.submit("bench", &request).await.unwrap();
        let submitted = Instant::now();
        let claimed = self.queue.claim(self.queue.next().unwrap()).await.unwrap().unwrap();
        let claim = Instant::now();
        let ending = Ending::bare(AttemptOutcome::Succeeded, None);
        self.queue.finish(claimed.task.id, claimed.task.fence, &ending).await.unwrap();
        Cycle { submit: submitted - start, claim: claim - submitted, finish: claim.elapsed() }
    }

    async fn page(&self) -> Duration {
        let query = Query {
            table: Table::Task,
            filter: Filter::default(),
            order: Order::NewestFirst,
            after: None,
            limit: 100,
        };
        let start = Instant::now();
        use orchestrator_storage::Store;
        assert_eq!(self.store.list(&query).await.unwrap().records.len(), 100);
        start.elapsed()
    }
}

/// A task whose record takes about 1 KiB.
fn new_task(script: &Path) -> NewTask {
    let text = "x".repeat(400);
    NewTask {
        script: script.to_str().unwrap().to_owned(),
        cwd: Some(script.parent().unwrap().to_str().unwrap().to_owned()),
        env: [("PADDING".to_owned(), text)].into(),
        priority: 1,
        ..NewTask::default()
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
