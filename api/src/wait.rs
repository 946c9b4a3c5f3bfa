//! Waiting for the end of tasks.
//!
//! Whoever waits holds a long place and nothing else: a client that goes away cancels nothing. When the
//! engine stops first, the answer is 503 with `details.task`, by which the next engine can be asked.

use orchestrator_protocol::event::Item;
use orchestrator_protocol::request::{GetTask, Subscription};
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
    let mut ended = Ended { tasks: vec![None; ids.len()], ids };
    let error = 'begun: loop {
        let mut answers = match state.open(Subscription::Watch { ids: ended.ids.clone() }).await {
            Err(error) => break error,
            Ok(answers) => answers,
        };
        loop {
            if ended.is_complete() {
                return Ok(ended.tasks.into_iter().flatten().collect());
            }
            match answers.next().await {
                Some(Ok(Item::Task(task))) => ended.take_note(*task),
                // Changes were missed; a new stream begins with the tasks as they are now.
                Some(Ok(Item::Reset(_))) => continue 'begun,
                Some(Ok(_)) => {}
                Some(Err(error)) => break 'begun error.into(),
                None => break 'begun ApiError::unavailable("the engine tells no more of the task"),
            }
        }
    };
    // An engine that finishes what runs and then stops may have finished this in between.
    for id in ended.ids.clone() {
        match state.ask(GetTask { id }).await {
            Ok(task) => ended.take_note(*task),
            Err(_) => break,
        }
    }
    match ended.is_complete() {
        true => Ok(ended.tasks.into_iter().flatten().collect()),
        false => Err(broken(error, &ended.ids)),
    }
}

/// What has ended of what is waited for.
struct Ended {
    ids: Vec<TaskId>,
    /// In the order of the identifiers.
    tasks: Vec<Option<Task>>,
}

impl Ended {
    fn take_note(&mut self, task: Task) {
        if task.status.is_final() {
            let places = self.ids.iter().zip(&mut self.tasks).filter(|(id, _)| **id == task.id);
            places.for_each(|(_, place)| *place = Some(task.clone()));
        }
    }

    fn is_complete(&self) -> bool {
        self.tasks.iter().all(Option::is_some)
    }
}

/// An error that says of which task it was.
fn broken(error: ApiError, ids: &[TaskId]) -> ApiError {
    match ids {
        [id] => error.with_detail("task", id.to_string()),
        ids => error.with_detail("tasks", ids.iter().map(TaskId::to_string).collect::<Vec<_>>()),
    }
}
