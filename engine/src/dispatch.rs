//! The loop that turns ready tasks into attempts.
//!
//! It waits until something may be ready, claims as long as there is room, and gives each claimed task
//! to a supervisor of its own. Claims are made side by side, so that one sync of the storage serves
//! several. While the storage refuses writes the queue gives nothing out: what is pending stays so. Before
//! the first claim it looks what earlier lives of the engine have left, which is cleared up meanwhile.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use crate::queue::Queue;
use crate::supervisor::Supervisor;

/// Runs until `stop` fires. What it has begun goes on in `tracker`.
pub async fn run(
    queue: Arc<Queue>,
    supervisor: Arc<Supervisor>,
    tracker: TaskTracker,
    stop: CancellationToken,
) {
    // First, so that no task is begun anew beside its old script.
    let left = stop.run_until_cancelled(supervisor.look_behind()).await.unwrap_or_default();
    let cleared = stop.run_until_cancelled(supervisor.clear_up(left));
    tokio::join!(cleared, give_out(&queue, &supervisor, &tracker, &stop));
}

async fn give_out(
    queue: &Arc<Queue>,
    supervisor: &Arc<Supervisor>,
    tracker: &TaskTracker,
    stop: &CancellationToken,
) {
    loop {
        while !stop.is_cancelled()
            && let Some(entry) = queue.next()
        {
            let (queue, supervisor) = (Arc::clone(queue), Arc::clone(supervisor));
            tracker.spawn(async move {
                let id = entry.id;
                match queue.claim(entry).await {
                    Ok(None) => {}
                    Ok(Some(claimed)) => supervisor.begin(claimed).await,
                    Err(error) => warn!(task = %id, %error, "the claim was refused; the task stays pending"),
                }
            });
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = queue.woken() => {}
        }
    }
}
