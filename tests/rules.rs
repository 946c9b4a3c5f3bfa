//! Rules of the queue that are easily broken: the queue as a library, without processes.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use chrono::{TimeDelta, Utc};
use orchestrator_engine::config::RetentionSettings;
use orchestrator_protocol::ErrorCode;
use orchestrator_protocol::submit::{NewTask, SubmitRequest};
use orchestrator_protocol::task::{AttemptOutcome, RetryPolicy, TaskStatus};
use orchestrator_storage::filesystem::{FilesystemOptions, FilesystemStore};
use orchestrator_storage::{
    Changes, Commit, Count, Filter, Key, Operation, Order, Page, Query, Record, Sequence, Store, StoreHealth,
    StoreResult, Table,
};
use orchestrator_tests::queue::{queue, queue_on, run, submit, task};
use tokio::sync::Notify;

#[tokio::test]
async fn what_depends_on_a_workflow_runs_when_it_has_completed() {
    let directory = tempfile::tempdir().unwrap();
    let queue = queue(directory.path(), 8).await;
    let workflow = submit(&queue, vec![task(directory.path(), "a", &[])], Some("w")).await.id.unwrap();
    let after = NewTask { depends_on: vec![workflow], ..task(directory.path(), "after", &[]) };
    let after = submit(&queue, vec![after], None).await.id.unwrap();
    run(&queue, AttemptOutcome::Succeeded).await;
    assert_eq!(queue.task(workflow).await.unwrap().status, TaskStatus::Completed);
    assert_eq!(queue.next().map(|entry| entry.id), Some(after));
}

#[tokio::test]
async fn a_retried_workflow_revives_what_its_failure_had_cancelled() {
    let directory = tempfile::tempdir().unwrap();
    let queue = queue(directory.path(), 8).await;
    let workflow = submit(&queue, vec![task(directory.path(), "a", &[])], Some("w")).await.id.unwrap();
    let after = NewTask { depends_on: vec![workflow], ..task(directory.path(), "after", &[]) };
    let after = submit(&queue, vec![after], None).await.id.unwrap();
    run(&queue, AttemptOutcome::Failed).await;
    assert_eq!(queue.task(after).await.unwrap().status, TaskStatus::Cancelled);
    queue.retry(workflow).await.unwrap();
    assert_eq!(queue.task(after).await.unwrap().status, TaskStatus::Pending);
}

#[tokio::test]
async fn a_workflow_ends_again_when_a_revived_task_cannot_run_after_all() {
    let directory = tempfile::tempdir().unwrap();
    let queue = queue(directory.path(), 8).await;
    let tasks = vec![task(directory.path(), "a", &[]), task(directory.path(), "b", &["a"])];
    let submitted = submit(&queue, tasks, Some("w")).await;
    run(&queue, AttemptOutcome::Failed).await;
    queue.retry(submitted.tasks[1].id).await.unwrap();
    assert_eq!(queue.task(submitted.tasks[1].id).await.unwrap().status, TaskStatus::Cancelled);
    assert_eq!(queue.task(submitted.id.unwrap()).await.unwrap().status, TaskStatus::Failed);
}

#[tokio::test]
async fn what_is_called_off_before_it_begins_tells_why() {
    let directory = tempfile::tempdir().unwrap();
    let queue = queue(directory.path(), 8).await;
    let id = submit(&queue, vec![task(directory.path(), "a", &[])], None).await.id.unwrap();
    let claimed = queue.claim(queue.next().unwrap()).await.unwrap().unwrap().task;
    queue.cancel(id, "no longer needed").await.unwrap();
    queue.hand_back(id, claimed.fence).await.unwrap();
    let task = queue.task(id).await.unwrap();
    assert_eq!((task.status, task.error.as_deref()), (TaskStatus::Cancelled, Some("no longer needed")));
    assert_eq!((task.attempt, task.started_at), (0, None), "nothing was started");
}

#[tokio::test]
async fn a_claim_that_comes_to_nothing_makes_room_and_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let queue = queue(directory.path(), 1).await;
    let first = submit(&queue, vec![task(directory.path(), "a", &[])], None).await.id.unwrap();
    submit(&queue, vec![task(directory.path(), "b", &[])], None).await;
    queue.woken().await;
    let entry = queue.next().unwrap();
    queue.cancel(first, "enough").await.unwrap();
    queue.woken().await;
    assert!(queue.next().is_none(), "there is no room yet");
    assert!(queue.claim(entry).await.unwrap().is_none());
    let woken = tokio::time::timeout(Duration::from_secs(20), queue.woken()).await;
    assert!(woken.is_ok() && queue.next().is_some());
}

#[tokio::test]
async fn a_time_that_comes_while_there_is_no_room_is_waited_for_once() {
    let directory = tempfile::tempdir().unwrap();
    let queue = queue(directory.path(), 1).await;
    submit(&queue, vec![task(directory.path(), "a", &[])], None).await;
    let _running = queue.claim(queue.next().unwrap()).await.unwrap().unwrap();
    let soon = Some(Utc::now() + TimeDelta::milliseconds(50));
    submit(&queue, vec![NewTask { not_before: soon, ..task(directory.path(), "b", &[]) }], None).await;
    let (mut rounds, end) = (0, Instant::now() + Duration::from_millis(500));
    while Instant::now() < end {
        assert!(queue.next().is_none());
        let _ = tokio::time::timeout(Duration::from_millis(250), queue.woken()).await;
        rounds += 1;
    }
    assert!(rounds < 10, "{rounds} rounds in half a second");
}

#[tokio::test]
async fn a_long_chain_is_cancelled_to_its_end() {
    let directory = tempfile::tempdir().unwrap();
    let queue = queue(directory.path(), 1).await;
    let length = 2_000;
    let before = |number: usize| number.checked_sub(1).map(|before| format!("t{before}"));
    let tasks = (0..length).map(|number| NewTask {
        after: before(number).into_iter().collect(),
        ..task(directory.path(), &format!("t{number}"), &[])
    });
    let submitted = submit(&queue, tasks.collect(), None).await;
    run(&queue, AttemptOutcome::Failed).await;
    let last = submitted.tasks[length - 1].id;
    assert_eq!(queue.task(last).await.unwrap().status, TaskStatus::Cancelled);
}

#[tokio::test]
async fn a_failure_is_remembered_as_long_as_what_it_let_down() {
    let directory = tempfile::tempdir().unwrap();
    let queue = queue(directory.path(), 8).await;
    let tasks = vec![task(directory.path(), "a", &[]), task(directory.path(), "b", &["a"])];
    let submitted = submit(&queue, tasks, None).await;
    run(&queue, AttemptOutcome::Failed).await;
    let settings = RetentionSettings { max_age_days: 30, max_finished: 1 };
    let removed = queue.retain(&settings, Utc::now()).await.unwrap();
    assert_eq!(removed, [submitted.tasks[1].id]);
    assert!(queue.task(submitted.tasks[0].id).await.is_ok());
}

#[tokio::test]
async fn waits_have_a_bound() {
    let directory = tempfile::tempdir().unwrap();
    let queue = queue(directory.path(), 8).await;
    let retry = Some(RetryPolicy { max_retries: 1, base_ms: u64::MAX, cap_ms: u64::MAX });
    let task = NewTask { retry, ..task(directory.path(), "a", &[]) };
    let request = SubmitRequest { tasks: vec![task], ..SubmitRequest::default() };
    let refused = queue.submit("test", &request).await.unwrap_err();
    assert_eq!(refused.field.as_deref(), Some("tasks[0].retry.base_ms"));
}

#[tokio::test]
async fn a_key_answers_also_when_the_script_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let queue = queue(directory.path(), 8).await;
    let tasks = vec![task(directory.path(), "a", &[])];
    let request = SubmitRequest { tasks, workflow: None, idempotency_key: Some("key".into()) };
    let first = queue.submit("test", &request).await.unwrap();
    fs::remove_file(directory.path().join("script.nu")).unwrap();
    assert_eq!(queue.submit("test", &request).await.unwrap().id, first.id);
}

#[test]
fn a_pipe_in_place_of_a_file_holds_up_nobody() {
    let (told, answer) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe.nu");
        let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR);
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, kind, mode, 0).unwrap();
        let mut task = task(directory.path(), "piped", &[]);
        task.script = pipe.to_str().unwrap().to_owned();
        let request = SubmitRequest { tasks: vec![task], ..SubmitRequest::default() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let refused = runtime
            .block_on(async { queue(directory.path(), 1).await.submit("test", &request).await.unwrap_err() });
        told.send(refused.message).unwrap();
    });
    let message = answer.recv_timeout(Duration::from_secs(20)).unwrap();
    assert!(message.ends_with("is not a file"), "{message}");
}

#[tokio::test]
async fn a_reason_is_a_text_that_can_be_kept_with_every_task_and_shown() {
    let directory = tempfile::tempdir().unwrap();
    let queue = queue(directory.path(), 1).await;
    let id = submit(&queue, vec![task(directory.path(), "a", &[])], None).await.id.unwrap();
    for bad in ["x".repeat(1_001), "\u{1b}[2Jgone".to_owned()] {
        let refused = queue.cancel(id, &bad).await.unwrap_err();
        assert_eq!((refused.code, refused.field.as_deref()), (ErrorCode::Invalid, Some("reason")));
        assert_eq!(queue.task(id).await.unwrap().status, TaskStatus::Pending);
    }
    queue.cancel(id, "not needed:\n\tgone at last").await.unwrap();
}

/// A store that is as quick as the one inside, and tells of its first commit when the test says so.
struct Late {
    inner: Arc<FilesystemStore>,
    is_first: AtomicBool,
    go: Notify,
}

#[async_trait::async_trait]
impl Store for Late {
    async fn get(&self, key: &Key) -> StoreResult<Option<Record>> {
        self.inner.get(key).await
    }

    async fn list(&self, query: &Query) -> StoreResult<Page> {
        self.inner.list(query).await
    }

    async fn counts(&self, table: Table) -> StoreResult<Vec<Count>> {
        self.inner.counts(table).await
    }

    async fn commit(&self, operations: Vec<Operation>) -> StoreResult<Commit> {
        let is_first = self.is_first.swap(false, Ordering::Relaxed);
        let commit = self.inner.commit(operations).await;
        if is_first {
            self.go.notified().await;
        }
        commit
    }

    async fn sequence(&self) -> StoreResult<Sequence> {
        self.inner.sequence().await
    }

    async fn changes(&self, after: Sequence, limit: usize) -> StoreResult<Changes> {
        self.inner.changes(after, limit).await
    }

    fn watch(&self) -> tokio::sync::watch::Receiver<Sequence> {
        self.inner.watch()
    }

    async fn health(&self) -> StoreHealth {
        self.inner.health().await
    }

    async fn close(&self) -> StoreResult<()> {
        self.inner.close().await
    }
}

#[tokio::test]
async fn the_last_event_of_a_task_is_how_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let inner = Arc::new(FilesystemStore::open(FilesystemOptions::new(directory.path())).unwrap());
    let store = Arc::new(Late { inner, is_first: AtomicBool::new(true), go: Notify::new() });
    let queue = queue_on(Arc::clone(&store) as Arc<dyn Store>, 1);
    let mut events = queue.listen();
    let cancelled_first = async {
        let query = Query {
            table: Table::Task,
            filter: Filter::default(),
            order: Order::NewestFirst,
            after: None,
            limit: 1,
        };
        let id = loop {
            if let [record] = &store.inner.list(&query).await.unwrap().records[..] {
                break record.key.id.parse().unwrap();
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        };
        queue.cancel(id, "not needed").await.unwrap();
        store.go.notify_one();
    };
    tokio::join!(submit(&queue, vec![task(directory.path(), "a", &[])], None), cancelled_first);
    submit(&queue, vec![task(directory.path(), "end", &[])], None).await;
    let mut last = None;
    loop {
        let event = events.next().await.unwrap();
        if event.name == "end" {
            break;
        }
        last = Some(event.status);
    }
    assert_eq!(last, Some(TaskStatus::Cancelled));
}
