//! Claims at their edges: an answer that is lost, and a limit that others reach between two steps.

use std::collections::HashMap;

use orchestrator_protocol::submit::NewTask;
use orchestrator_protocol::task::{AttemptOutcome, TaskStatus};
use orchestrator_tests::queue::{submit, task};
use orchestrator_tests::shared::{Peer, store, until};

use crate::queues::{claim, finish, in_step};

/// The claim was made and nobody was told: it is this engine's all the same, and runs once.
#[tokio::test(flavor = "multi_thread")]
async fn a_claim_whose_answer_was_lost_is_found_again() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let store = store(directory).await;
    let limits = HashMap::from([("small".to_owned(), 1)]);
    let join = |name| {
        let limits = limits.clone();
        Peer::join_with(&store, directory, name, Default::default(), |options| options.group_limits = limits)
    };
    let (one, other) = (join("one").await, join("other").await);
    let new = NewTask { group: Some("small".into()), ..task(directory, "a", &[]) };
    let id = submit(&one.queue, vec![new], None).await.id.unwrap();
    let entry = one.queue.next().unwrap();
    // The lease is not to be what is answered to.
    one.fall_silent();
    one.store.lose_answer();
    one.queue.claim(entry).await.unwrap_err();
    assert_eq!(other.queue.task(id).await.unwrap().status, TaskStatus::Running);
    // What others have done since is learnt, and with it the claim itself.
    in_step(&other, &one, directory).await;
    assert!(claim(&other.queue).await.is_none());
    let claimed = until("the claim", async || claim(&one.queue).await).await;
    assert_eq!((claimed.task.id, claimed.task.fence, claimed.task.attempt), (id, 1, 1));
    finish(&one.queue, &claimed, AttemptOutcome::Succeeded).await;
    let task = other.queue.task(id).await.unwrap();
    assert_eq!((task.status, task.attempts.len()), (TaskStatus::Completed, 1));
    assert_eq!(one.queue.running_count(), 0);
    // Its slot is free again.
    let new = NewTask { group: Some("small".into()), ..orchestrator_tests::queue::task(directory, "b", &[]) };
    submit(&one.queue, vec![new], None).await;
    assert!(claim(&one.queue).await.is_some());
}

/// A task was given out when there was room, and another engine has filled it since.
#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_others_reach_before_the_claim_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let store = store(directory).await;
    let join = |name| {
        let limits = HashMap::from([("small".to_owned(), 1)]);
        Peer::join_with(&store, directory, name, Default::default(), |options| options.group_limits = limits)
    };
    let (one, other) = (join("one").await, join("other").await);
    let small = |name| NewTask { group: Some("small".into()), ..task(directory, name, &[]) };
    submit(&one.queue, vec![small("a"), small("b")], None).await;
    let given_out = one.queue.next().unwrap();
    let first = until("a task to claim", async || {
        // Both are offered the oldest one first.
        let entry = other.queue.next()?;
        if entry.id == given_out.id {
            return other.queue.claim(entry).await.unwrap();
        }
        None
    })
    .await;
    in_step(&other, &one, directory).await;
    assert!(one.queue.claim(given_out).await.unwrap().is_none());
    assert!(claim(&one.queue).await.is_none(), "one at a time");
    finish(&other.queue, &first, AttemptOutcome::Succeeded).await;
    let second = until("the free slot", async || claim(&one.queue).await).await;
    assert_eq!(second.task.claim.unwrap().slot, Some(0));
}
