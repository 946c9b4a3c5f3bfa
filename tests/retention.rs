//! What is removed at last, and what is not.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use chrono::{TimeDelta, Utc};
use orchestrator_engine::config::RetentionSettings;
use orchestrator_protocol::submit::{NewTask, SubmitRequest};
use orchestrator_protocol::task::AttemptOutcome;
use orchestrator_tests::queue::{queue, run, submit, task};

#[tokio::test]
async fn finished_tasks_go_by_age_and_what_is_needed_stays() {
    let directory = tempfile::tempdir().unwrap();
    let queue = queue(directory.path(), 8).await;
    let new = || task(directory.path(), "task", &[]);
    let with_key = SubmitRequest { tasks: vec![new()], workflow: None, idempotency_key: Some("key".into()) };
    let done = submit(&queue, vec![new()], None).await.id.unwrap();
    run(&queue, AttemptOutcome::Succeeded).await;
    let keyed = queue.submit("test", &with_key).await.unwrap().id.unwrap();
    run(&queue, AttemptOutcome::Failed).await;
    let pending = submit(&queue, vec![NewTask { depends_on: vec![done], ..new() }], None).await.id.unwrap();
    let settings = RetentionSettings { max_age_days: 30, max_finished: 1_000 };
    assert_eq!(queue.retain(&settings, Utc::now() + TimeDelta::hours(1)).await.unwrap(), []);
    let soon = RetentionSettings { max_age_days: 0, ..settings };
    let removed = queue.retain(&soon, Utc::now() + TimeDelta::hours(1)).await.unwrap();
    assert_eq!(removed, [done], "a task with a key is kept as long as its key: a day after its end");
    let removed = queue.retain(&settings, Utc::now() + TimeDelta::days(31)).await.unwrap();
    assert_eq!(removed, [keyed]);
    assert!(queue.task(pending).await.is_ok());
    assert_ne!(queue.submit("test", &with_key).await.unwrap().id, Some(keyed), "the key is free again");
}

#[tokio::test]
async fn of_too_many_finished_tasks_the_oldest_go() {
    let directory = tempfile::tempdir().unwrap();
    let queue = queue(directory.path(), 8).await;
    let mut ids = Vec::new();
    for _ in 0..7 {
        submit(&queue, vec![task(directory.path(), "task", &[])], None).await;
        ids.push(run(&queue, AttemptOutcome::Succeeded).await);
    }
    let settings = RetentionSettings { max_age_days: 30, max_finished: 4 };
    assert_eq!(queue.retain(&settings, Utc::now()).await.unwrap(), ids[..3]);
    assert_eq!(queue.retain(&settings, Utc::now()).await.unwrap(), []);
}
