//! The life of a task, as one pure function.
//!
//! Everything that changes the state of a task asks [`apply`] first. An illegal change is an error
//! for whoever asked, never a silent write.

use serde::{Deserialize, Serialize};

/// The state of a task, or of a workflow as the sum of its tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TaskStatus {
    /// Waits: for its turn, its dependencies, a lock, a time, or its next attempt.
    Pending,
    /// An attempt is under way.
    Running,
    /// Ended well.
    Completed,
    /// Ended badly, for good, until somebody retries it.
    Failed,
    /// Ended because somebody, or the failure of a dependency, said so.
    Cancelled,
}

impl TaskStatus {
    /// Every state, in the order in which a task meets them.
    pub const ALL: [TaskStatus; 5] =
        [Self::Pending, Self::Running, Self::Completed, Self::Failed, Self::Cancelled];

    /// Whether nothing more happens by itself.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }

    /// The name, as stored and as shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Running => "Running",
            Self::Completed => "Completed",
            Self::Failed => "Failed",
            Self::Cancelled => "Cancelled",
        }
    }
}

impl std::fmt::Display for TaskStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for TaskStatus {
    type Err = UnknownStatus;

    /// Reads a name in any case.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|status| status.as_str().eq_ignore_ascii_case(text))
            .ok_or_else(|| UnknownStatus(text.to_owned()))
    }
}

/// A word that names no state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a status: use pending, running, completed, failed or cancelled")]
pub struct UnknownStatus(pub String);

/// What happens to a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transition {
    /// An attempt begins.
    Start,
    /// The attempt that was begun never started anything: it is handed back.
    HandBack,
    /// The attempt failed, and there will be another one.
    RetryLater,
    /// The work is done.
    Complete,
    /// The attempt failed, and there will not be another one.
    Fail,
    /// It is called off.
    Cancel,
    /// Somebody wants it tried again from the beginning.
    Revive,
}

/// A change that a task in its state cannot undergo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a task that is {from} cannot {}", verb(*.transition))]
pub struct IllegalTransition {
    /// The state it is in.
    pub from: TaskStatus,
    /// What was asked of it.
    pub transition: Transition,
}

fn verb(transition: Transition) -> &'static str {
    match transition {
        Transition::Start => "be started",
        Transition::HandBack => "be handed back",
        Transition::RetryLater => "wait for its next attempt",
        Transition::Complete => "be completed",
        Transition::Fail => "fail",
        Transition::Cancel => "be cancelled",
        Transition::Revive => "be retried",
    }
}

/// The state after a change, or why there is none.
pub fn apply(from: TaskStatus, transition: Transition) -> Result<TaskStatus, IllegalTransition> {
    use TaskStatus::{Cancelled, Completed, Failed, Pending, Running};
    match (from, transition) {
        (Pending, Transition::Start) => Ok(Running),
        (Running, Transition::HandBack | Transition::RetryLater) => Ok(Pending),
        (Running, Transition::Complete) => Ok(Completed),
        (Running, Transition::Fail) => Ok(Failed),
        (Pending | Running, Transition::Cancel) => Ok(Cancelled),
        (Failed | Cancelled, Transition::Revive) => Ok(Pending),
        _ => Err(IllegalTransition { from, transition }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRANSITIONS: [Transition; 7] = [
        Transition::Start,
        Transition::HandBack,
        Transition::RetryLater,
        Transition::Complete,
        Transition::Fail,
        Transition::Cancel,
        Transition::Revive,
    ];

    #[test]
    fn a_final_state_is_left_only_by_a_revival() {
        for status in TaskStatus::ALL.into_iter().filter(|status| status.is_final()) {
            for transition in TRANSITIONS {
                let after = apply(status, transition);
                if transition == Transition::Revive && status != TaskStatus::Completed {
                    assert_eq!(after, Ok(TaskStatus::Pending));
                } else {
                    assert_eq!(after, Err(IllegalTransition { from: status, transition }));
                }
            }
        }
    }

    #[test]
    fn only_a_running_task_ends_well_or_badly() {
        for status in TaskStatus::ALL {
            for transition in [Transition::Complete, Transition::Fail, Transition::RetryLater] {
                assert_eq!(apply(status, transition).is_ok(), status == TaskStatus::Running);
            }
        }
    }

    #[test]
    fn names_are_read_back_in_any_case() {
        for status in TaskStatus::ALL {
            assert_eq!(status.as_str().to_uppercase().parse(), Ok(status));
        }
        assert_eq!("paused".parse::<TaskStatus>(), Err(UnknownStatus("paused".into())));
    }
}
