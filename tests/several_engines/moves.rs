//! What keeps the records of several engines where they are, and who may have a name.

use std::sync::Arc;

use orchestrator_engine::membership::{self, About, Membership, Seat};
use orchestrator_engine::storage::alone;
use orchestrator_protocol::ErrorCode;
use orchestrator_protocol::task::AttemptOutcome;
use orchestrator_storage::migration::Plan;
use orchestrator_storage::migration::live::SwitchingStore;
use orchestrator_storage::migration::state::Place;
use orchestrator_storage::{StoreError, Table};
use orchestrator_tests::queue::{submit, task};
use orchestrator_tests::shared::{Peer, SharedStore, short_times, store};

use crate::queues::{claim, claim_next, finish, in_step};

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_no_seat_sees_who_is_there_and_removes_who_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let store = store(directory).await;
    alone::no_seats(&*store, short_times()).await.unwrap();
    let peer = Peer::join_with(&store, directory, "there", short_times(), |_| {}).await;
    let refused = alone::no_seats(&*store, short_times()).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Conflict);
    assert!(refused.message.contains("there on there.example"), "{refused}");
    peer.fall_silent();
    alone::no_seats(&*store, short_times()).await.unwrap();
    assert!(matches!(membership::seat(&*store, "there").await.unwrap(), Seat::Free(_)));
    // It was only held up, and writes nothing more.
    assert!(matches!(peer.membership.renew().await, Err(StoreError::Unseated)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_have_begun_keeps_the_records_from_going_where_one_has_them_for_itself() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let store = store(directory).await;
    let (one, other) =
        (Peer::join(&store, directory, "one").await, Peer::join(&store, directory, "other").await);
    submit(&one.queue, vec![task(directory, "a", &[])], None).await;
    let claimed = claim(&one.queue).await.unwrap();
    in_step(&one, &other, directory).await;
    alone::no_attempts_of_others(&*store, "one").await.unwrap();
    let refused = alone::no_attempts_of_others(&*store, "other").await.unwrap_err();
    let named = format!("{} 'a' on one", claimed.task.id);
    assert!(refused.code == ErrorCode::Conflict && refused.message.contains(&named), "{refused}");
    let refused = alone::no_other_seats(&*store, "other").await.unwrap_err();
    assert!(refused.message.contains("one on one.example"), "{refused}");
}

/// A machine that was cloned: its engine does not take the seat of the one that works.
#[tokio::test(flavor = "multi_thread")]
async fn an_engine_on_a_copy_of_a_data_directory_takes_no_seat_that_is_held() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let store = store(directory).await;
    let peer = Peer::join_with(&store, directory, "one", short_times(), |_| {}).await;
    let join = async || {
        let view = SharedStore::new(&store);
        let about = About { host: "clone.example".into(), ..About::default() };
        let data_dir = directory.join("clone");
        std::fs::create_dir_all(&data_dir).unwrap();
        Membership::join(view as _, "one".into(), "second".into(), about, short_times(), &data_dir).await
    };
    let refused = join().await.err().unwrap();
    assert_eq!(refused.code, ErrorCode::Conflict);
    assert!(refused.help.unwrap().contains("copy of this data directory"));
    submit(&peer.queue, vec![task(directory, "a", &[])], None).await;
    assert!(store.counts(Table::Task).await.unwrap().iter().any(|count| count.records == 1));
    // Of one that is gone it takes the place at once.
    peer.fall_silent();
    join().await.unwrap();
}

/// An engine is gone for good, and its records were moved by the commands of a stopped one.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_engine_that_is_gone_has_begun_is_taken_over_where_the_records_are_then() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (old, new) = (store(from.path()).await, store(to.path()).await);
    let gone = Peer::join_with(&old, from.path(), "gone", short_times(), |_| {}).await;
    submit(&gone.queue, vec![task(from.path(), "a", &[]), task(from.path(), "b", &[])], None).await;
    let begun = claim(&gone.queue).await.unwrap();
    gone.fall_silent();
    let place = |of: &tempfile::TempDir| Place {
        backend: "surrealdb-server".into(),
        location: of.path().display().to_string(),
    };
    alone::no_seats(&*old, short_times()).await.unwrap();
    let moving = Arc::new(SwitchingStore::guarded(SharedStore::new(&old)).await.unwrap());
    let plan = Plan { migration: "m".into(), from: place(&from), to: place(&to) };
    moving.migrate(SharedStore::new(&new), plan, Arc::default()).await.unwrap();
    // Whatever it has to say comes too late.
    assert!(matches!(gone.membership.renew().await, Err(StoreError::Unseated)));
    let other = Peer::join_with(&new, to.path(), "other", short_times(), |_| {}).await;
    assert_eq!(other.queue.take_over().await.unwrap(), [begun.task.id]);
    let (one, two) = (claim_next(&other.queue).await, claim_next(&other.queue).await);
    let again = if one.task.id == begun.task.id { one } else { two };
    assert_eq!((again.task.id, again.task.fence), (begun.task.id, 2));
    assert_eq!(again.task.attempts[0].outcome, Some(AttemptOutcome::Lost));
    finish(&other.queue, &again, AttemptOutcome::Succeeded).await;
}
