//! Moving records from a store that nobody else writes to, beside inserting them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use orchestrator_benches::backend::{Backend, Counted, Home};
use orchestrator_benches::{Spread, ratios, tasks};
use orchestrator_storage::migration::state::{StorageState, read_state, write_state};
use orchestrator_storage::migration::{Plan, Steering, migrate};
use orchestrator_storage::{Change, Expect, Operation, Record, Store};

/// How many pairs are measured: as many as there is time for, within these bounds.
const PAIRS: std::ops::RangeInclusive<usize> = 3..=20;
const TIME: Duration = Duration::from_secs(120);
/// How often a source is read, to say what that takes.
const READS: usize = 3;

/// As many tasks, as a queue writes them: the operations that create their records.
pub async fn records(tasks: usize) -> Vec<Operation> {
    let home = Home::fresh(Backend::Filesystem);
    let store = home.open().await;
    let queue = tasks::queue_on(Arc::clone(&store) as _);
    tasks::fill(&queue, &tasks::new_task(home.directory()), tasks).await;
    let put = |record: Record| {
        let Record { key, fields, body, .. } = record;
        Operation { key, expect: Expect::Absent, change: Change::Put { fields, body } }
    };
    // Oldest first, as a migration writes them.
    tasks::all(&*store).await.into_iter().rev().map(put).collect()
}

/// Inserts records into an empty store, so many in a commit as a migration does.
pub async fn insert(store: &dyn Store, records: &[Operation]) -> Duration {
    let start = Instant::now();
    for batch in records.chunks(tasks::BATCH) {
        store.commit(batch.to_vec()).await.unwrap();
    }
    start.elapsed()
}

/// What a migration between two places is told.
pub fn plan(from: &Home, to: &Home) -> Plan {
    Plan { migration: "bench".to_owned(), from: from.place(), to: to.place() }
}

/// A store with records, which are moved away from it again and again.
pub struct Source {
    home: Home,
    store: Arc<Counted>,
    records: usize,
}

impl Source {
    /// A new one.
    pub async fn filled(backend: Backend, records: &[Operation]) -> Self {
        let home = Home::fresh(backend);
        let store = home.open().await;
        insert(&*store, records).await;
        Self { home, store, records: records.len() }
    }

    /// Reads all its records once.
    pub async fn read(&self) -> Duration {
        let start = Instant::now();
        assert_eq!(tasks::all(&*self.store).await.len(), self.records);
        start.elapsed()
    }

    /// Moves its records to a new store.
    pub async fn move_to(&self, backend: Backend) -> Duration {
        let target = Home::fresh(backend);
        let store = target.open().await;
        let plan = plan(&self.home, &target);
        let start = Instant::now();
        let report = migrate(&*self.store, &*store, &plan, &Steering::default()).await.unwrap();
        let taken = start.elapsed();
        assert_eq!((report.records, report.warning), (self.records as u64, None));
        store.close().await.unwrap();
        // It is sealed; the next one starts from what it was before.
        let sealed = read_state(&*self.store).await.unwrap();
        write_state(&*self.store, &sealed, &StorageState::Active { epoch: 0 }).await.unwrap();
        taken
    }

    /// Closes the store.
    pub async fn close(self) {
        self.store.close().await.unwrap();
    }
}

/// Inserts records into a new store.
pub async fn insert_into(backend: Backend, records: &[Operation]) -> Duration {
    let home = Home::fresh(backend);
    let store = home.open().await;
    let taken = insert(&*store, records).await;
    store.close().await.unwrap();
    taken
}

/// Measures and prints.
pub async fn print(tasks: usize) {
    let records = records(tasks).await;
    println!("\n## {tasks} records moved, beside inserting them\n");
    println!(
        "| from | to | pairs | reading once, s | inserting, s | moving, s | records a second \
         | of the time of inserting |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for &from in Backend::ALL {
        let source = Source::filled(from, &records).await;
        let mut reading = Vec::new();
        for _ in 0..READS {
            reading.push(source.read().await.as_secs_f64());
        }
        let reading = Spread::of(reading);
        for &to in Backend::ALL {
            eprintln!("from {} to {}", from.name(), to.name());
            let start = Instant::now();
            let mut pairs = Vec::new();
            while pairs.len() < *PAIRS.start() || (pairs.len() < *PAIRS.end() && start.elapsed() < TIME) {
                // Each is first as often as second.
                pairs.push(if pairs.len() % 2 == 0 {
                    let inserting = insert_into(to, &records).await;
                    (inserting, source.move_to(to).await)
                } else {
                    let moving = source.move_to(to).await;
                    (insert_into(to, &records).await, moving)
                });
            }
            let seconds = |pick: fn(&(Duration, Duration)) -> Duration| {
                Spread::of(pairs.iter().map(|pair| pick(pair).as_secs_f64()).collect())
            };
            let moving = seconds(|pair| pair.1);
            println!(
                "| {} | {} | {} | {reading:.2} | {:.2} | {moving:.2} | {:.0} | **{:.2}** |",
                from.name(),
                to.name(),
                pairs.len(),
                seconds(|pair| pair.0),
                tasks as f64 / moving.median,
                ratios(&pairs),
            );
        }
        source.close().await;
    }
}
