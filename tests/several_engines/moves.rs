//! What keeps the records of several engines where they are, and who may have a name.

use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use clap::Parser;
use orchestrator_engine::config::{Arguments, Config, StorageType};
use orchestrator_engine::membership::{self, About, Membership, Seat};
use orchestrator_engine::queue::takeover;
use orchestrator_engine::records::task_key;
use orchestrator_engine::storage::alone;
use orchestrator_engine::storage::migrations::Migrations;
use orchestrator_protocol::ErrorCode;
use orchestrator_protocol::request::GetTask;
use orchestrator_protocol::storage::{MigrationStatus, StorageTarget};
use orchestrator_protocol::submit::{NewTask, SubmitRequest};
use orchestrator_protocol::task::{AttemptOutcome, TaskStatus};
use orchestrator_runner::lease;
use orchestrator_storage::migration::live::SwitchingStore;
use orchestrator_storage::migration::state::{Place, StorageState, read_state};
use orchestrator_storage::migration::{MigrationError, Plan};
use orchestrator_storage::{Store, StoreError, Table};
use orchestrator_tests::queue::{queue_on, submit, task};
use orchestrator_tests::shared::{Member, Peer, SharedStore, short_times, store, until};
use tempfile::TempDir;
use tokio::sync::oneshot;

use crate::attempts::RUNNER;
use crate::queues::{claim, claim_next, finish, in_step};

fn plan(from: &TempDir, to: &TempDir) -> Plan {
    let place = |of: &TempDir| Place {
        backend: "surrealdb-server".into(),
        location: of.path().display().to_string(),
    };
    Plan { migration: "m".into(), from: place(from), to: place(to) }
}

/// What whoever moves the records without a seat asks.
async fn nobody_there(store: Arc<dyn Store>) -> Result<(), MigrationError> {
    let alone = alone::no_seats(&*store, short_times()).await;
    alone.map_err(|error| MigrationError::NotAlone(error.message))
}

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

/// An engine takes its seat just when another has begun to move the records.
#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_joins_while_the_records_move_keeps_them_and_is_named_with_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let store = store(directory).await;
    let view = SharedStore::new(&store);
    let moving = Arc::new(SwitchingStore::guarded(view.clone()).await.unwrap());
    let text = |name: &str| directory.join(name).to_str().unwrap().to_owned();
    let (data_dir, socket) = (text("moving"), text("socket"));
    let arguments = ["orchestrator", "--no-http", "--data-dir", &data_dir, "--socket", &socket];
    let config = Config::load(Arguments::parse_from(arguments)).unwrap();
    let config = Config { storage_type: StorageType::SurrealdbServer, ..config };
    let migrations = Migrations::new(moving, Arc::new(config), "moving".into());
    // The first thing that it writes is that it has begun.
    view.stall_at("storage/migration/");
    let started = tokio::spawn({
        let migrations = migrations.clone();
        let to = StorageTarget {
            storage_type: "filesystem".into(),
            dir: Some(text("new")),
            ..StorageTarget::default()
        };
        async move { migrations.start(&to).await }
    });
    view.stalled().await;
    let _late = Peer::join(&store, directory, "late").await;
    view.stall(false);
    let id = started.await.unwrap().unwrap().id;
    let look = async || {
        let migration = migrations.get(id).await.unwrap();
        (migration.status != MigrationStatus::Running).then_some(migration)
    };
    let ended = until("the end of the migration", look).await;
    assert_eq!(ended.status, MigrationStatus::Failed);
    let error = ended.error.unwrap();
    assert!(error.contains("late on late.example"), "{error}");
    assert!(error.contains("stop them: whoever moves the records must be alone"), "{error}");
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
    alone::no_seats(&*old, short_times()).await.unwrap();
    let moving = Arc::new(SwitchingStore::guarded(SharedStore::new(&old)).await.unwrap());
    moving.migrate(SharedStore::new(&new), plan(&from, &to), Arc::default()).await.unwrap();
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

#[tokio::test(flavor = "multi_thread")]
async fn records_on_which_another_engine_works_stay_where_they_are_and_nothing_is_begun_elsewhere() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (old, new) = (store(from.path()).await, store(to.path()).await);
    let peer = Peer::join_with(&old, from.path(), "there", short_times(), |_| {}).await;
    let moving = Arc::new(SwitchingStore::guarded(SharedStore::new(&old)).await.unwrap());
    let alone = nobody_there(Arc::clone(&old));
    let moved = moving
        .migrate_when(SharedStore::new(&new), plan(&from, &to), Arc::default(), alone)
        .await
        .unwrap_err();
    let named = |words: &String| words.contains("there on there.example");
    assert!(matches!(&moved, MigrationError::NotAlone(words) if named(words)), "{moved:?}");
    assert_eq!(read_state(&*old).await.unwrap().state, StorageState::Active { epoch: 0 });
    for table in Table::ALL {
        assert!(new.counts(table).await.unwrap().is_empty(), "{table}");
    }
    submit(&peer.queue, vec![task(from.path(), "a", &[])], None).await;
    let claimed = claim_next(&peer.queue).await;
    finish(&peer.queue, &claimed, AttemptOutcome::Succeeded).await;
    assert_eq!(peer.queue.task(claimed.task.id).await.unwrap().status, TaskStatus::Completed);
}

/// Nobody was there when it was asked, and then somebody comes before the moment of change.
#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_joins_while_the_records_move_keeps_them_where_they_are() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (old, new) = (store(from.path()).await, store(to.path()).await);
    let moving = Arc::new(SwitchingStore::guarded(SharedStore::new(&old)).await.unwrap());
    // Nothing runs, so that only records are looked at.
    let tomorrow = Utc::now() + Duration::from_secs(86_400);
    let later = |name| NewTask { not_before: Some(tomorrow), ..task(from.path(), name, &[]) };
    let queue = queue_on(Arc::clone(&moving) as _, 0);
    let before = submit(&queue, vec![later("before")], None).await.id.unwrap();
    let (answered, is_answered) = oneshot::channel::<()>();
    let (joined, has_joined) = oneshot::channel::<()>();
    let seats = Arc::clone(&old);
    let alone = async move {
        let alone = nobody_there(seats).await;
        answered.send(()).unwrap();
        has_joined.await.unwrap();
        alone
    };
    let moved = moving.migrate_when(SharedStore::new(&new), plan(&from, &to), Arc::default(), alone);
    let joining = async {
        is_answered.await.unwrap();
        let member = Member::start(&old, from.path(), "late", RUNNER, short_times()).await;
        joined.send(()).unwrap();
        member
    };
    let (moved, member) = tokio::join!(moved, joining);
    let Err(MigrationError::NotAlone(why)) = &moved else { panic!("{moved:?}") };
    assert!(why.starts_with("another engine has begun to work on the records"), "{why}");
    // The source is the truth, and both of them go on there.
    assert_eq!(read_state(&*old).await.unwrap().state, StorageState::Active { epoch: 0 });
    let request = SubmitRequest { tasks: vec![later("theirs")], ..SubmitRequest::default() };
    let theirs = member.ask(request).await.unwrap().id.unwrap();
    let ours = submit(&queue, vec![later("ours")], None).await.id.unwrap();
    assert_eq!(queue.task(theirs).await.unwrap().name, "theirs");
    assert_eq!(member.ask(GetTask { id: ours }).await.unwrap().name, "ours");
    // The target has been filled, and no engine takes it for the truth.
    let Plan { migration, from: source, .. } = plan(&from, &to);
    let id = read_state(&*old).await.unwrap().id;
    let ready = StorageState::Ready { migration, epoch: 1, from: source, source: id };
    assert_eq!(read_state(&*new).await.unwrap().state, ready);
    assert!(new.get(&task_key(before)).await.unwrap().is_some());
    assert!(new.get(&task_key(ours)).await.unwrap().is_none());
    let refused = Member::open(&new, to.path(), "lost", RUNNER, short_times()).await.err().unwrap();
    assert!(matches!(refused.downcast_ref::<StoreError>(), Some(StoreError::Failed { .. })), "{refused:#}");
    // Once it is gone they move, and what was left there is finished.
    member.stop().await;
    let alone = nobody_there(Arc::clone(&old));
    moving.migrate_when(SharedStore::new(&new), plan(&from, &to), Arc::default(), alone).await.unwrap();
    assert_eq!(read_state(&*new).await.unwrap().state, StorageState::Active { epoch: 1 });
    for id in [before, ours, theirs] {
        assert!(new.get(&task_key(id)).await.unwrap().is_some());
    }
}

/// The records leave a server and come to another one while a script runs: nobody may begin it anew, since it
/// has been without a deadline in between.
#[tokio::test(flavor = "multi_thread")]
async fn what_runs_while_its_engine_has_the_records_for_itself_is_held_where_they_are_shared_again() {
    let directories = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let mut stores = Vec::new();
    for directory in &directories {
        stores.push(store(directory.path()).await);
    }
    let directory = directories[0].path();
    let place = |n: usize, backend: &str| Place {
        backend: backend.into(),
        location: directories[n].path().display().to_string(),
    };
    let one = Peer::join_with(&stores[0], directory, "one", short_times(), |_| {}).await;
    submit(&one.queue, vec![task(directory, "a", &[])], None).await;
    let begun = claim(&one.queue).await.unwrap();
    assert!(begun.task.claim.as_ref().unwrap().is_leased);
    let moving = Arc::new(SwitchingStore::guarded(SharedStore::new(&stores[0])).await.unwrap());
    let (from, to) = (place(0, "surrealdb-server"), place(1, "filesystem"));
    moving
        .migrate(SharedStore::new(&stores[1]), Plan { migration: "m".into(), from, to }, Arc::default())
        .await
        .unwrap();
    let lease = one.membership.lease_file().to_owned();
    drop(one);
    let data_dir = directory.join("one");
    // An engine that was started for other records by mistake frees nothing.
    let elsewhere = tempfile::tempdir().unwrap();
    let other_records = store(elsewhere.path()).await;
    membership::release_scripts(&*other_records, "one", &data_dir).await.unwrap();
    assert!(!lease::is_released(&lease));
    takeover::end_leases(&*stores[1]).await.unwrap();
    membership::release_scripts(&*stores[1], "one", &data_dir).await.unwrap();
    assert!(lease::is_released(&lease));
    let moving = Arc::new(SwitchingStore::new(SharedStore::new(&stores[1])));
    let (from, to) = (place(1, "filesystem"), place(2, "surrealdb-server"));
    moving
        .migrate(SharedStore::new(&stores[2]), Plan { migration: "n".into(), from, to }, Arc::default())
        .await
        .unwrap();
    let one = Peer::join_with(&stores[2], directory, "one", short_times(), |_| {}).await;
    let other = Peer::join_with(&stores[2], directory, "other", short_times(), |_| {}).await;
    one.fall_silent();
    until("the engine to be lost", async || {
        Some(other.membership.observe().await.unwrap()).filter(|removed| !removed.is_empty())
    })
    .await;
    assert!(other.queue.take_over().await.unwrap().is_empty());
    assert!(claim(&other.queue).await.is_none());
}
