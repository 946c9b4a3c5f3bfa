//! Moving records while tasks are submitted and run: what those who submit notice.
//!
//! A store is moved there and back again, several times. Those who submit do so at fixed times, whether or
//! not the one before has been answered, and a submit counts from when it was due: so a gate that is closed
//! is felt by all who would have come meanwhile. Each then claims a task and ends it. In the end every task
//! must be there, once, and as it was left.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use orchestrator_benches::backend::{Backend, Home};
use orchestrator_benches::{Spread, Tail, tasks};
use orchestrator_engine::queue::Queue;
use orchestrator_engine::queue::finish::Ending;
use orchestrator_protocol::submit::NewTask;
use orchestrator_protocol::task::AttemptOutcome;
use orchestrator_storage::migration::MigrationError;
use orchestrator_storage::migration::live::SwitchingStore;
use orchestrator_storage::{Operation, Store, Table};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::moves::{insert, plan, records};

/// How often the records are moved in each direction.
const MOVES: usize = 2;
/// Who submits, and how often each of them.
const SUBMITTERS: u32 = 4;
const INTERVAL: Duration = Duration::from_millis(100);
/// How long they do so before the records are moved.
const BEFORE: Duration = Duration::from_secs(5);

/// When a submit was due, and how long after that it was answered.
type Submit = (Instant, Duration);

/// Submits that go on until they are stopped.
struct Load {
    stop: Arc<AtomicBool>,
    submitters: Vec<JoinHandle<Vec<Submit>>>,
}

impl Load {
    fn on(queue: &Arc<Queue>, task: &NewTask) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let start = Instant::now();
        let submitter = |n: u32| {
            let (queue, task, stop) = (Arc::clone(queue), task.clone(), Arc::clone(&stop));
            let mut due = start + INTERVAL * n / SUBMITTERS;
            tokio::spawn(async move {
                let mut submits = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    tokio::time::sleep_until(due).await;
                    tasks::submit(&queue, &task).await;
                    submits.push((due, due.elapsed()));
                    let claimed = queue.claim(queue.next().unwrap()).await.unwrap().unwrap().task;
                    let ending = Ending::bare(AttemptOutcome::Succeeded, None);
                    queue.finish(claimed.id, claimed.fence, &ending).await.unwrap();
                    due += INTERVAL;
                }
                submits
            })
        };
        Self { submitters: (0..SUBMITTERS).map(submitter).collect(), stop }
    }

    async fn end(self) -> Vec<Submit> {
        self.stop.store(true, Ordering::Relaxed);
        let mut submits = Vec::new();
        for submitter in self.submitters {
            submits.extend(submitter.await.unwrap());
        }
        submits
    }
}

/// What was noticed in one direction.
#[derive(Default)]
struct Noticed {
    seconds: Vec<f64>,
    waited_ms: Vec<f64>,
    before: Vec<Duration>,
    during: Vec<Duration>,
    /// Why records were not moved. Everything goes on where they are.
    given_up: Vec<MigrationError>,
}

/// Measures and prints.
pub async fn print(tasks: usize) {
    let records = records(tasks).await;
    let each_second = SUBMITTERS as f64 / INTERVAL.as_secs_f64();
    println!("\n## {tasks} records moved while {each_second:.0} tasks a second are submitted\n");
    println!(
        "| from | to | moves | s | submit before, median / p99 / longest, ms | meanwhile | \
         gate closed, ms |"
    );
    println!("|---|---|---|---|---|---|---|");
    for (n, &one) in Backend::ALL.iter().enumerate() {
        for &other in &Backend::ALL[n..] {
            let [there, back] = there_and_back(one, other, &records).await;
            there.print(one, other);
            if one != other {
                back.print(other, one);
            }
        }
    }
}

impl Noticed {
    fn print(self, from: Backend, to: Backend) {
        let (from, to, moves) = (from.name(), to.name(), self.seconds.len());
        for error in self.given_up {
            println!("| {from} | {to} | given up: {error} | | | | |");
        }
        if moves > 0 {
            println!(
                "| {from} | {to} | {moves} | {:.1} | {} | {} | **{:.1}** |",
                Spread::of(self.seconds),
                Tail::of(self.before),
                Tail::of(self.during),
                Spread::of(self.waited_ms),
            );
        }
    }
}

/// Moves records from one backend to the other and back, again and again.
async fn there_and_back(one: Backend, other: Backend, records: &[Operation]) -> [Noticed; 2] {
    let mut home = Home::fresh(one);
    let store = home.open().await;
    insert(&*store, records).await;
    let store = Arc::new(SwitchingStore::new(store));
    let queue = Arc::new(tasks::queue_on(Arc::clone(&store) as _));
    let scripts = tempfile::tempdir().unwrap();
    let task = tasks::new_task(scripts.path());
    let mut noticed: [Noticed; 2] = Default::default();
    let moves = if one == other { MOVES } else { 2 * MOVES };
    let mut submitted = 0;
    for n in 0..moves {
        let is_back = home.backend() != one;
        let next = Home::fresh(if is_back { one } else { other });
        eprintln!("move {} of {moves}: from {} to {}", n + 1, home.backend().name(), next.backend().name());
        let target = next.open().await;
        let load = Load::on(&queue, &task);
        tokio::time::sleep(BEFORE).await;
        let (start, steering) = (Instant::now(), Arc::default());
        let moved = store.migrate(Arc::clone(&target) as _, plan(&home, &next), steering).await;
        let end = Instant::now();
        let submits = load.end().await;
        submitted += submits.len() as u64;
        let noticed = &mut noticed[usize::from(is_back)];
        let report = match moved {
            Ok(report) => report,
            Err(error) => {
                noticed.given_up.push(error);
                target.close().await.unwrap();
                continue;
            }
        };
        for (due, taken) in submits {
            if due + taken < start {
                noticed.before.push(taken);
            } else if due < end {
                noticed.during.push(taken);
            }
        }
        noticed.seconds.push((end - start).as_secs_f64());
        noticed.waited_ms.push(report.waited.as_secs_f64() * 1e3);
        // What was left is closed.
        home = next;
    }
    let counts = store.counts(Table::Task).await.unwrap();
    let count = |status: &str| -> u64 {
        let of_status = counts.iter().filter(|count| count.status.as_deref() == Some(status));
        of_status.map(|count| count.records).sum()
    };
    assert_eq!(count("Completed"), submitted, "each was submitted and ended once");
    assert_eq!(count("Pending"), records.len() as u64, "what waited still waits");
    store.close().await.unwrap();
    noticed
}
