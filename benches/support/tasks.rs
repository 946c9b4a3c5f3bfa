//! Queues, tasks, and what each task goes through: submit, claim, finish.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use orchestrator_engine::queue::finish::Ending;
use orchestrator_engine::queue::{Queue, QueueOptions};
use orchestrator_engine::records;
use orchestrator_protocol::submit::{NewTask, SubmitRequest};
use orchestrator_protocol::task::{AttemptOutcome, RetryPolicy, TaskId};
use orchestrator_storage::{
    Change, Expect, Fields, Filter, Key, Operation, Order, Page, Query, Record, Store, Table,
};
use serde_json::value::RawValue;

/// How many tasks are stored in one commit, where many are.
pub const BATCH: usize = 500;

/// The queue of an engine that is alone on a store.
pub fn queue_on(store: Arc<dyn Store>) -> Queue {
    let options = QueueOptions {
        engine: "bench".into(),
        is_shared: false,
        labels: BTreeMap::new(),
        boot_id: "bench".into(),
        retry: RetryPolicy::default(),
        grace_ms: 0,
        group_limits: HashMap::new(),
        max_parallel: 4,
    };
    Queue::new(store, options)
}

/// A task whose record takes about 1 KiB, with its script in a directory. It comes before those of
/// [`fill`].
pub fn new_task(directory: &Path) -> NewTask {
    let script = directory.join("script.nu");
    std::fs::write(&script, "").unwrap();
    NewTask {
        script: script.to_str().unwrap().to_owned(),
        cwd: Some(directory.to_str().unwrap().to_owned()),
        env: [("PADDING".to_owned(), "x".repeat(400))].into(),
        priority: 1,
        ..NewTask::default()
    }
}

/// Queues one task.
pub async fn submit(queue: &Queue, task: &NewTask) -> TaskId {
    let request = SubmitRequest { tasks: vec![task.clone()], ..SubmitRequest::default() };
    queue.submit("bench", &request).await.unwrap().id.unwrap()
}

/// Queues tasks that stay where they are: all others come before them.
pub async fn fill(queue: &Queue, task: &NewTask, tasks: usize) {
    for first in (0..tasks).step_by(BATCH) {
        let batch = (first..tasks.min(first + BATCH)).map(|number| NewTask {
            name: Some(format!("stored {number}")),
            priority: -1,
            ..task.clone()
        });
        let request = SubmitRequest { tasks: batch.collect(), ..SubmitRequest::default() };
        queue.submit("bench", &request).await.unwrap();
    }
}

/// What a task goes through, and how long each part of it takes.
#[derive(Debug, Clone, Copy)]
pub struct Cycle {
    /// The task.
    pub id: TaskId,
    /// Until it is queued.
    pub submit: Duration,
    /// From there until it is claimed.
    pub claim: Duration,
    /// From there until its end is stored.
    pub finish: Duration,
}

impl Cycle {
    /// Takes a new task through it.
    pub async fn of(queue: &Queue, task: &NewTask) -> Self {
        let request = SubmitRequest { tasks: vec![task.clone()], ..SubmitRequest::default() };
        let start = Instant::now();
        let id = queue.submit("bench", &request).await.unwrap().id.unwrap();
        let submitted = Instant::now();
        let claimed = queue.claim(queue.next().unwrap()).await.unwrap().unwrap().task;
        let claim = Instant::now();
        assert_eq!(claimed.id, id, "another task came before it");
        let ending = Ending::bare(AttemptOutcome::Succeeded, None);
        queue.finish(id, claimed.fence, &ending).await.unwrap();
        Self { id, submit: submitted - start, claim: claim - submitted, finish: claim.elapsed() }
    }

    /// All of it.
    pub fn whole(&self) -> Duration {
        self.submit + self.claim + self.finish
    }
}

/// A page of tasks, newest first.
pub async fn page(store: &dyn Store, limit: usize, after: Option<Arc<str>>) -> Page {
    let (table, filter) = (Table::Task, Filter::default());
    store.list(&Query { table, filter, order: Order::NewestFirst, after, limit }).await.unwrap()
}

/// All tasks of a store, newest first.
pub async fn all(store: &dyn Store) -> Vec<Record> {
    let mut records = Vec::new();
    let mut after = None;
    loop {
        let page = page(store, 1_000, after).await;
        records.extend(page.records);
        match page.next {
            Some(next) => after = Some(next),
            None => return records,
        }
    }
}

/// What a stored task looks like, to write more of the kind without a queue.
#[derive(Debug, Clone)]
pub struct Sample {
    id: Arc<str>,
    fields: Fields,
    body: Arc<RawValue>,
}

impl Sample {
    /// The newest task of a store.
    pub async fn of(store: &dyn Store) -> Self {
        let Record { key, fields, body, .. } = page(store, 1, None).await.records.remove(0);
        Self { id: key.id, fields, body }
    }

    /// How long its body is, in bytes.
    pub fn body_bytes(&self) -> usize {
        self.body.get().len()
    }

    /// Writes one more, newer than all others.
    pub fn write(&self) -> Operation {
        let id = TaskId::generate();
        let body = self.body.get().replace(&*self.id, &id.to_string());
        let body = RawValue::from_string(body).unwrap().into();
        let change = Change::Put { fields: self.fields.clone(), body };
        Operation { key: records::task_key(id), expect: Expect::Absent, change }
    }
}

/// Removes a record.
pub async fn remove(store: &dyn Store, key: &Key) {
    let revision = store.get(key).await.unwrap().unwrap().revision;
    store.commit(vec![records::delete(key.clone(), revision)]).await.unwrap();
}
