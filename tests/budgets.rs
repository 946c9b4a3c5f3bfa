//! Counted work: what a submit, a claim and a finish cost does not grow with what is stored.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::HashMap;
use std::sync::Arc;

use orchestrator_engine::queue::finish::Ending;
use orchestrator_engine::queue::{Queue, QueueOptions};
use orchestrator_protocol::submit::{NewTask, SubmitRequest};
use orchestrator_protocol::task::{AttemptOutcome, RetryPolicy};
use orchestrator_storage::filesystem::{FilesystemOptions, FilesystemStore, IoCounters};

const CYCLES: u64 = 50;

/// The work of some cycles with so many tasks stored.
async fn work(stored: usize) -> IoCounters {
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("script");
    std::fs::write(&script, "").unwrap();
    let store = Arc::new(FilesystemStore::open(FilesystemOptions::new(directory.path())).unwrap());
    let options = QueueOptions {
        engine: "test".into(),
        boot_id: "test".into(),
        retry: RetryPolicy::default(),
        grace_ms: 0,
        group_limits: HashMap::new(),
        max_parallel: 4,
    };
    let queue = Queue::new(Arc::clone(&store) as _, options);
    let task = |priority, name: String| NewTask {
        name: Some(name),
        script: script.to_str().unwrap().to_owned(),
        cwd: Some(directory.path().to_str().unwrap().to_owned()),
        priority,
        ..NewTask::default()
    };
    let tasks = (0..stored).map(|number| task(-1, format!("stored {number}"))).collect();
    queue.submit("test", &SubmitRequest { tasks, ..SubmitRequest::default() }).await.unwrap();
    let before = store.counters();
    for _ in 0..CYCLES {
        let request = SubmitRequest { tasks: vec![task(1, "measured".into())], ..SubmitRequest::default() };
        queue.submit("test", &request).await.unwrap();
        let claimed = queue.claim(queue.next().unwrap()).await.unwrap().unwrap();
        let ending = Ending::bare(AttemptOutcome::Succeeded, None);
        queue.finish(claimed.task.id, claimed.task.fence, &ending).await.unwrap();
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
