//! Waiting for the end of tasks.
//!
//! Whoever waits holds a long place and nothing else: a client that goes away cancels nothing. When the
//! engine stops first, the answer is 503 with `details.task`, by which the next engine can be asked.

use orchestrator_protocol::event::Item;
use orchestrator_protocol::request::Subscription;
use orchestrator_protocol::task::{Task, TaskId};

use crate::envelope::ApiError;
use crate::state::{AppState, LongPlace};

/// The task, once it has ended.
pub(crate) async fn for_one(state: &AppState, place: &LongPlace, id: TaskId) -> Result<Task, ApiError> {
    match for_all(state, place, vec![id]).await?.pop() {
        Some(task) => Ok(task),
        None => Err(broken(ApiError::unavailable("the engine tells no more of the task"), &[id])),
    }
}

/// The tasks in this order, once all of them have ended.
pub(crate) async fn for_all(
    state: &AppState,
    _place: &LongPlace,
    ids: Vec<TaskId>,
) -> Result<Vec<Task>, ApiError> {
    let mut ended: Vec<Option<Task>> = vec![None; ids.len()];
    let mut answers = match state.open(Subscription::Watch { ids: ids.clone() }).await {
        Ok(answers) => answers,
        Err(error) => return Err(broken(error, &ids)),
    };
    while ended.iter().any(Option::is_none) {
        match answers.next().await {
            Some(Ok(Item::Task(task))) if task.status.is_final() => {
                let places = ids.iter().zip(&mut ended).filter(|(id, _)| **id == task.id);
                places.for_each(|(_, ended)| *ended = Some((*task).clone()));
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(broken(error.into(), &ids)),
            None => {
                return Err(broken(ApiError::unavailable("the engine tells no more of the task"), &ids));
            }
        }
    }
    Ok(ended.into_iter().flatten().collect())
}

/// An error that says of which task it was.
fn broken(error: ApiError, ids: &[TaskId]) -> ApiError {
    match ids {
        [id] => error.with_detail("task", id.to_string()),
        ids => error.with_detail("tasks", ids.iter().map(TaskId::to_string).collect::<Vec<_>>()),
    }
}
