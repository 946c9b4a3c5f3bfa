//! What is removed at last, and what is not: the queue as a library, without processes.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use chrono::{TimeDelta, Utc};
use orchestrator_engine::config::RetentionSettings;
use orchestrator_engine::queue::finish::Ending;
use orchestrator_engine::queue::{Queue, QueueOptions};
use orchestrator_protocol::submit::{NewTask, SubmitRequest};
use orchestrator_protocol::task::{AttemptOutcome, RetryPolicy, TaskId};
use orchestrator_storage::filesystem::{FilesystemOptions, FilesystemStore};

fn queue(directory: &Path) -> Queue {
    let store = FilesystemStore::open(FilesystemOptions::new(directory)).unwrap();
    let options = QueueOptions {
        engine: "test".into(),
        boot_id: "test".into(),
        retry: RetryPolicy { max_retries: 0, ..RetryPolicy::default() },
        grace_ms: 0,
        group_limits: HashMap::new(),
        max_parallel: 100,
    };
    Queue::new(Arc::new(store), options)
}

async fn submit(queue: &Queue, directory: &Path, key: Option<&str>, after: Option<TaskId>) -> TaskId {
    let script = directory.join("script");
    std::fs::write(&script, "").unwrap();
    let task = NewTask {
        script: script.to_str().unwrap().to_owned(),
        cwd: Some(directory.to_str().unwrap().to_owned()),
        depends_on: after.into_iter().collect(),
        ..NewTask::default()
    };
    let request = SubmitRequest { tasks: vec![task], workflow: None, idempotency_key: key.map(String::from) };
    queue.submit("test", &request).await.unwrap().id.unwrap()
}

async fn run(queue: &Queue, outcome: AttemptOutcome) {
    let claimed = queue.claim(queue.next().unwrap()).await.unwrap().unwrap();
    queue.finish(claimed.task.id, claimed.task.fence, &Ending::bare(outcome, None)).await.unwrap();
}

#[tokio::test]
async fn finished_tasks_go_by_age_and_what_is_needed_stays() {
    let directory = tempfile::tempdir().unwrap();
    let queue = queue(directory.path());
    let done = submit(&queue, directory.path(), None, None).await;
    run(&queue, AttemptOutcome::Succeeded).await;
    let keyed = submit(&queue, directory.path(), Some("key"), None).await;
    run(&queue, AttemptOutcome::Failed).await;
    let pending = submit(&queue, directory.path(), None, Some(done)).await;
    let settings = RetentionSettings { max_age_days: 30, max_finished: 1_000 };
    assert_eq!(queue.retain(&settings, Utc::now() + TimeDelta::hours(1)).await.unwrap(), []);
    // A key lives for a day after the end; then it goes, and the task with it when its time has come.
    let soon = RetentionSettings { max_age_days: 0, ..settings };
    let removed = queue.retain(&soon, Utc::now() + TimeDelta::hours(1)).await.unwrap();
    assert_eq!(removed, [done], "the task with a key is kept as long as its key");
    let removed = queue.retain(&settings, Utc::now() + TimeDelta::days(31)).await.unwrap();
    assert_eq!(removed, [keyed]);
    assert!(queue.task(pending).await.is_ok());
    let again = submit(&queue, directory.path(), Some("key"), None).await;
    assert_ne!(again, keyed, "the key is free again");
}

#[tokio::test]
async fn of_too_many_finished_tasks_the_oldest_go() {
    let directory = tempfile::tempdir().unwrap();
    let queue = queue(directory.path());
    let mut ids = Vec::new();
    for _ in 0..7 {
        ids.push(submit(&queue, directory.path(), None, None).await);
        run(&queue, AttemptOutcome::Succeeded).await;
    }
    let settings = RetentionSettings { max_age_days: 30, max_finished: 4 };
    assert_eq!(queue.retain(&settings, Utc::now()).await.unwrap(), ids[..3]);
    assert_eq!(queue.retain(&settings, Utc::now()).await.unwrap(), []);
}
