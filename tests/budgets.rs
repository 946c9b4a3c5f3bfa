//! Counted work: what a submit, a claim and a finish cost does not grow with what is stored.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::Arc;

use orchestrator_protocol::submit::NewTask;
use orchestrator_protocol::task::AttemptOutcome;
use orchestrator_storage::filesystem::{FilesystemOptions, FilesystemStore, IoCounters};
use orchestrator_tests::queue::{queue_on, run, submit, task};

const CYCLES: u64 = 50;

/// The work of some cycles with so many tasks stored.
async fn work(stored: usize) -> IoCounters {
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(FilesystemStore::open(FilesystemOptions::new(directory.path())).unwrap());
    let queue = queue_on(Arc::clone(&store) as _, 4);
    let one = task(directory.path(), "measured", &[]);
    let name = |number| Some(format!("stored {number}"));
    let tasks = (0..stored).map(|number| NewTask { name: name(number), priority: -1, ..one.clone() });
    submit(&queue, tasks.collect(), None).await;
    let before = store.counters();
    for _ in 0..CYCLES {
        submit(&queue, vec![one.clone()], None).await;
        run(&queue, AttemptOutcome::Succeeded).await;
    }
    let after = store.counters();
    IoCounters {
        commits: after.commits - before.commits,
        records_read: after.records_read - before.records_read,
        records_written: after.records_written - before.records_written,
        bytes_written: after.bytes_written - before.bytes_written,
        writes: after.writes - before.writes,
        syncs: after.syncs - before.syncs,
        ..IoCounters::default()
    }
}

#[tokio::test]
async fn a_cycle_costs_the_same_with_few_and_with_many_tasks_stored() {
    let (few, many) = (work(100).await, work(10_000).await);
    assert_eq!((few.commits, few.records_written, few.records_read), (3 * CYCLES, 3 * CYCLES, 2 * CYCLES));
    assert_eq!((few.syncs, few.writes), (3 * CYCLES, 3 * CYCLES));
    // Numbers of commits have more digits in the larger store.
    let more = many.bytes_written.abs_diff(few.bytes_written);
    assert!(more <= few.bytes_written / 100, "{few:?} {many:?}");
    assert_eq!(IoCounters { bytes_written: 0, ..few }, IoCounters { bytes_written: 0, ..many });
}
