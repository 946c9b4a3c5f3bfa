//! Stores that nobody else writes to.

use std::path::Path;
use std::sync::Arc;

use orchestrator_storage::migration::portable::{export, import};
use orchestrator_storage::migration::state::{StorageState, read_state};
use orchestrator_storage::migration::{MigrationError, Phase, Steering, migrate, settle_target};
use orchestrator_storage::{Expect, Key, Operation, Store, StoreError, Table};

use crate::stores::{Hooked, Say, activates, content, counted, fill, open, place, plan, put};

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_the_same_on_the_other_side_and_revisions_go_on() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (source, target) = (open(from.path()), open(to.path()));
    // Several pages, several batches.
    fill(&*source, 700).await;
    let before = content(&*source).await;
    let steering = Steering::default();
    let report = migrate(&*source, &*target, &plan("m", from.path(), to.path()), &steering).await.unwrap();
    assert_eq!((report.records, report.epoch), (before.len() as u64, 1));
    assert_eq!(report.warning, None);
    assert!(content(&*target).await == before);
    assert_eq!(counted(&*target).await, before.len() as u64);
    let progress = *steering.progress().borrow();
    assert_eq!((progress.phase, progress.done), (Phase::Done, report.records));
    // Who read revision 3 before the move is right, who read revision 2 is wrong.
    let key = Key::new(Table::Task, "00002 \"é\"\n");
    assert_eq!(target.get(&key).await.unwrap().unwrap().revision, 3);
    let stale = target.commit(vec![put(&key, Expect::Revision(2), "0")]).await;
    assert!(matches!(stale, Err(StoreError::Conflict { .. })), "{stale:?}");
    assert_eq!(target.commit(vec![put(&key, Expect::Revision(3), "0")]).await.unwrap().revisions, [4]);
    // The same over a restart.
    let after = content(&*target).await;
    target.close().await.unwrap();
    assert!(content(&*open(to.path())).await == after);
}

#[tokio::test(flavor = "multi_thread")]
async fn states_say_who_is_the_truth_and_the_way_back_is_open() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (source, target) = (open(from.path()), open(to.path()));
    fill(&*source, 10).await;
    let there = plan("there", from.path(), to.path());
    migrate(&*source, &*target, &there, &Steering::default()).await.unwrap();
    let sealed = read_state(&*source).await.unwrap().state;
    let target_id = read_state(&*target).await.unwrap().id;
    assert_eq!(target_id.as_deref(), Some("there/target"));
    let expected =
        StorageState::Sealed { migration: "there".into(), epoch: 1, to: place(to.path()), target: target_id };
    assert_eq!(sealed, expected);
    assert_eq!(read_state(&*target).await.unwrap().state, StorageState::Active { epoch: 1 });
    let again = migrate(&*source, &*target, &there, &Steering::default()).await;
    assert!(matches!(&again, Err(MigrationError::SourceSealed { to: found }) if *found == place(to.path())));
    // Work goes on there, and then back.
    let new = Key::new(Table::Task, "new");
    target.commit(vec![put(&new, Expect::Absent, "1")]).await.unwrap();
    let before = content(&*target).await;
    let back = plan("back", to.path(), from.path());
    let report = migrate(&*target, &*source, &back, &Steering::default()).await.unwrap();
    assert_eq!((report.epoch, report.records), (2, before.len() as u64));
    assert!(content(&*source).await == before);
    assert_eq!(read_state(&*source).await.unwrap().state, StorageState::Active { epoch: 2 });
}

/// Two machines with a store in a directory of the same name: only one of them has filled the target, or is about
/// to.
#[tokio::test(flavor = "multi_thread")]
async fn a_target_of_another_store_of_the_same_name_is_not_touched() {
    let directories: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let [source, namesake, target] = [0, 1, 2].map(|n: usize| open(directories[n].path()));
    fill(&*source, 5).await;
    fill(&*namesake, 3).await;
    let named = |migration: &str| plan(migration, Path::new("/data"), directories[2].path());
    let refused = async || {
        let before = content(&*target).await;
        let state = read_state(&*target).await.unwrap().state;
        let error = migrate(&*namesake, &*target, &named("n"), &Steering::default()).await.unwrap_err();
        assert!(
            matches!(&error, MigrationError::TargetOfNamesake { from } if *from == named("n").from),
            "{error}"
        );
        assert!(content(&*target).await == before);
        assert_eq!(read_state(&*target).await.unwrap().state, state);
    };
    let cancelled = Steering::default();
    cancelled.cancel();
    let begun = migrate(&*source, &*target, &named("a"), &cancelled).await;
    assert!(matches!(begun, Err(MigrationError::Cancelled)));
    assert!(matches!(read_state(&*target).await.unwrap().state, StorageState::Migrating { .. }));
    refused().await;
    // The source is sealed, and the target does not say yet that it is the truth: it is the only copy.
    let failing = Hooked::around(target.clone(), |operations: &[Operation]| -> Say {
        let fails = activates(operations);
        Box::pin(async move { if fails { Err(StoreError::Closed) } else { Ok(()) } })
    });
    let moved = migrate(&*source, &*failing, &named("b"), &Steering::default()).await.unwrap();
    assert!(moved.warning.is_some());
    assert!(matches!(read_state(&*source).await.unwrap().state, StorageState::Sealed { .. }));
    assert!(matches!(read_state(&*target).await.unwrap().state, StorageState::Ready { .. }));
    refused().await;
    assert!(settle_target(&*target, "b", moved.epoch).await.unwrap());
    assert!(content(&*target).await == content(&*source).await);
    assert_eq!(read_state(&*namesake).await.unwrap().state, StorageState::Active { epoch: 0 });
}

/// Nor what was left by records that have moved to a directory of that name: it says where they are.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_left_for_another_store_of_the_same_name_is_not_filled() {
    let directories: Vec<_> = (0..4).map(|_| tempfile::tempdir().unwrap()).collect();
    let [left, target, before, namesake] = [0, 1, 2, 3].map(|n: usize| open(directories[n].path()));
    fill(&*left, 5).await;
    fill(&*before, 3).await;
    let to_name = |migration: &str, n: usize| plan(migration, directories[n].path(), Path::new("/data"));
    migrate(&*left, &*target, &to_name("m", 0), &Steering::default()).await.unwrap();
    // The namesake has moved as often.
    migrate(&*before, &*namesake, &to_name("n", 2), &Steering::default()).await.unwrap();
    let back = |migration: &str| plan(migration, Path::new("/data"), directories[0].path());
    let sealed = read_state(&*left).await.unwrap().state;
    let error = migrate(&*namesake, &*left, &back("wrong"), &Steering::default()).await.unwrap_err();
    assert!(matches!(&error, MigrationError::SourceReplaced { to } if *to == back("m").from), "{error}");
    assert_eq!(read_state(&*left).await.unwrap().state, sealed);
    // Those that it was left for can come back, and go again.
    migrate(&*target, &*left, &back("back"), &Steering::default()).await.unwrap();
    migrate(&*left, &*target, &to_name("again", 0), &Steering::default()).await.unwrap();
    assert_eq!(read_state(&*target).await.unwrap().state, StorageState::Active { epoch: 3 });
}

/// One that was restored from a file has no identity, and has moved as often as the file says.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_restored_from_a_file_moves_back_to_what_it_had_left() {
    let directories: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let [left, target, restored] = [0, 1, 2].map(|n: usize| open(directories[n].path()));
    fill(&*left, 5).await;
    let there = plan("there", directories[0].path(), Path::new("/data"));
    migrate(&*left, &*target, &there, &Steering::default()).await.unwrap();
    let file = directories[1].path().join("records.jsonl");
    export(&*target, &file, &Steering::default()).await.unwrap();
    import(&file, &*restored, &Steering::default()).await.unwrap();
    let back = plan("back", Path::new("/data"), directories[0].path());
    migrate(&*restored, &*left, &back, &Steering::default()).await.unwrap();
    assert!(content(&*left).await == content(&*target).await);
    assert_eq!(read_state(&*left).await.unwrap().state, StorageState::Active { epoch: 2 });
}

#[tokio::test(flavor = "multi_thread")]
async fn what_belongs_to_others_is_not_touched() {
    let directories: Vec<_> = (0..4).map(|_| tempfile::tempdir().unwrap()).collect();
    let [source, own, taken, sealed] = [0, 1, 2, 3].map(|n: usize| open(directories[n].path()));
    let path = |n: usize| directories[n].path();
    fill(&*source, 5).await;
    fill(&*own, 3).await;
    let attempt = async |target: Arc<dyn Store>, n| {
        let before = content(&*target).await;
        let state = read_state(&*target).await.unwrap().state;
        let error = migrate(&*source, &*target, &plan("m", path(0), path(n)), &Steering::default())
            .await
            .unwrap_err();
        assert!(content(&*target).await == before);
        assert_eq!(read_state(&*target).await.unwrap().state, state);
        error
    };
    let error = attempt(own.clone(), 1).await;
    assert!(matches!(error, MigrationError::TargetNotEmpty { records: 27 }), "{error}");
    // Another source has begun to fill one, and has left another.
    let cancelled = Steering::default();
    cancelled.cancel();
    let begun = migrate(&*own, &*taken, &plan("o", path(1), path(2)), &cancelled).await;
    assert!(matches!(begun, Err(MigrationError::Cancelled)));
    let error = attempt(taken.clone(), 2).await;
    assert!(matches!(&error, MigrationError::TargetTaken { from } if *from == place(path(1))), "{error}");
    let unfinished = migrate(&*taken, &*sealed, &plan("p", path(2), path(3)), &Steering::default()).await;
    assert!(matches!(unfinished, Err(MigrationError::SourceIncomplete { .. })));
    migrate(&*own, &*taken, &plan("o", path(1), path(2)), &Steering::default()).await.unwrap();
    let error = attempt(own.clone(), 1).await;
    assert!(matches!(&error, MigrationError::TargetSealed { to } if *to == place(path(2))), "{error}");
    // None of this has touched the source.
    assert_eq!(read_state(&*source).await.unwrap().state, StorageState::Active { epoch: 0 });
}
