//! Somebody who looks at the store itself, and keeps what every write has made of a task.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use orchestrator_engine::records;
use orchestrator_protocol::task::Task;
use orchestrator_storage::surrealdb::{ServerOptions, SurrealStore};
use orchestrator_storage::{Changes, Filter, Order, Query, Record, Store, Table};
use orchestrator_tests::history::several::Sighting;
use orchestrator_tests::wait;

/// Between two looks when the store gives no hint.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// How many changes are read at once.
const BATCH: usize = 1_000;

/// What was seen.
pub struct Seen {
    /// Tasks as they were stored at some time, those of the end among them.
    pub sightings: Vec<Sighting>,
    /// Locks and slots that are taken in the end.
    pub locks: Vec<String>,
}

/// Looks, in a thread of its own, until it is asked what it has seen.
pub struct Observer {
    is_over: Arc<AtomicBool>,
    looking: JoinHandle<Seen>,
}

impl Observer {
    /// Begins to look. The database is prepared when this returns.
    pub fn start(options: ServerOptions) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let is_ready = Arc::new(AtomicBool::new(false));
        let (over, ready) = (Arc::clone(&is_over), Arc::clone(&is_ready));
        let looking = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let store = SurrealStore::open_server(options).await.unwrap();
                let after = store.sequence().await.unwrap();
                ready.store(true, Ordering::SeqCst);
                look(&store, after, &over).await
            })
        });
        wait::until("the database", || {
            assert!(!looking.is_finished(), "the database cannot be opened");
            is_ready.load(Ordering::SeqCst).then_some(())
        });
        Self { is_over, looking }
    }

    /// What it has seen. Nothing is written any more.
    pub fn finish(self) -> Seen {
        self.is_over.store(true, Ordering::SeqCst);
        self.looking.join().unwrap()
    }
}

async fn look(store: &SurrealStore, mut after: u64, is_over: &AtomicBool) -> Seen {
    let mut sightings = Vec::new();
    let mut newest = store.watch();
    while !is_over.load(Ordering::SeqCst) {
        match store.changes(after, BATCH).await.unwrap() {
            Changes::Since { upto, keys } if upto == after => {
                assert!(keys.is_empty(), "changes without a commit: {keys:?}");
                // Without anybody who gives hints there is still the interval.
                let _ = tokio::time::timeout(LOOK_INTERVAL, newest.changed()).await;
            }
            Changes::Since { upto, keys } => {
                for (_, key) in keys.iter().filter(|(_, key)| key.table == Table::Task) {
                    sightings.extend(store.get(key).await.unwrap().as_ref().map(sighting));
                }
                after = upto;
            }
            Changes::Gone { upto } => {
                sightings.extend(all(store, Table::Task).await.iter().map(sighting));
                after = upto;
            }
        }
    }
    sightings.extend(all(store, Table::Task).await.iter().map(sighting));
    let locks = all(store, Table::Lock).await.iter().map(|record| record.key.id.to_string()).collect();
    store.close().await.unwrap();
    Seen { sightings, locks }
}

fn sighting(record: &Record) -> Sighting {
    Sighting { revision: record.revision, told: (&records::read::<Task>(record).unwrap()).into() }
}

async fn all(store: &SurrealStore, table: Table) -> Vec<Record> {
    let mut query =
        Query { table, filter: Filter::default(), order: Order::OldestFirst, after: None, limit: BATCH };
    let mut records = Vec::new();
    loop {
        let page = store.list(&query).await.unwrap();
        records.extend(page.records);
        match page.next {
            Some(next) => query.after = Some(next),
            None => return records,
        }
    }
}
