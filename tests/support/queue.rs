//! The queue as a library, on a store of its own, without processes: attempts are claimed
//! and ended by the test.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use orchestrator_engine::queue::finish::Ending;
use orchestrator_engine::queue::{Queue, QueueOptions};
use orchestrator_protocol::submit::{NewTask, SubmitRequest, Submitted};
use orchestrator_protocol::task::{AttemptOutcome, RetryPolicy, TaskId};
use orchestrator_storage::Store;

use crate::store;

/// A queue in a directory. Its tasks are not retried.
pub async fn queue(directory: &Path, max_parallel: u32) -> Queue {
    queue_on(store::open(directory).await, max_parallel)
}

/// A queue on a store.
pub fn queue_on(store: Arc<dyn Store>, max_parallel: u32) -> Queue {
    let options = QueueOptions {
        engine: "test".into(),
        is_shared: false,
        labels: std::collections::BTreeMap::new(),
        boot_id: "test".into(),
        retry: RetryPolicy { max_retries: 0, ..RetryPolicy::default() },
        grace_ms: 0,
        group_limits: std::collections::HashMap::new(),
        max_parallel,
    };
    Queue::new(store, options)
}

/// A task that runs an empty script, after others of the same submission.
pub fn task(directory: &Path, name: &str, after: &[&str]) -> NewTask {
    let script = directory.join("script.nu");
    fs::write(&script, "").unwrap();
    NewTask {
        name: Some(name.into()),
        script: script.to_str().unwrap().to_owned(),
        cwd: Some(directory.to_str().unwrap().to_owned()),
        after: after.iter().map(|name| (*name).to_owned()).collect(),
        ..NewTask::default()
    }
}

/// Queues tasks.
pub async fn submit(queue: &Queue, tasks: Vec<NewTask>, workflow: Option<&str>) -> Submitted {
    let request = SubmitRequest { tasks, workflow: workflow.map(String::from), idempotency_key: None };
    queue.submit("test", &request).await.unwrap()
}

/// Claims the next task and ends its attempt.
pub async fn run(queue: &Queue, outcome: AttemptOutcome) -> TaskId {
    let claimed = queue.claim(queue.next().unwrap()).await.unwrap().unwrap();
    queue.finish(claimed.task.id, claimed.task.fence, &Ending::bare(outcome, None)).await.unwrap();
    claimed.task.id
}
