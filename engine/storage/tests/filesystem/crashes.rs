//! Loss of power at every step, and single failures of the disk.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use orchestrator_storage::filesystem::faulty_disk::{Fault, FaultyDisk};
use orchestrator_storage::filesystem::{FilesystemOptions, FilesystemStore};
use orchestrator_storage::{Store, StoreError, StoreResult};
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::model::{any_commit, apply};
use super::support::{Content, content, create, eager, open, task, update};

/// Opens a store that was open a moment ago. A program that another test of this process is just starting has
/// its lock too, until it has begun.
fn reopen(directory: &Path, disk: &FaultyDisk) -> StoreResult<FilesystemStore> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match FilesystemStore::open_on(eager(directory), Arc::new(disk.clone())) {
            Err(StoreError::InUse { .. }) if Instant::now() < deadline => std::thread::yield_now(),
            opened => return opened,
        }
    }
}

/// One author makes commits until the power fails. What was acknowledged must be there afterwards,
/// and of the commit that was under way all or nothing.
async fn live_until_the_power_fails(seed: u64, changes: u64) -> bool {
    let directory = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::new(seed);
    disk.cut_power_after(changes);
    let mut random = StdRng::seed_from_u64(seed);
    let mut known = Content::new();
    let mut under_way = Content::new();
    let mut failed = true;
    if let Ok(store) = FilesystemStore::open_on(eager(directory.path()), Arc::new(disk.clone())) {
        failed = false;
        for _ in 0..40 {
            let operations = any_commit(&mut random, &known);
            under_way = known.clone();
            apply(&mut under_way, &operations);
            match store.commit(operations).await {
                Ok(_) => known = under_way.clone(),
                Err(StoreError::Conflict { .. }) => under_way = known.clone(),
                Err(_) => {
                    failed = true;
                    break;
                }
            }
            // Lets checkpoints come between the commits more often than not.
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
        }
        assert_eq!(content(&store).await, known, "only what is durable is read");
    }
    disk.lose_power().unwrap();
    // Also the start after it may lose its power, while it repairs.
    disk.cut_power_after(disk.changes() + changes % 5 + 1);
    drop(reopen(directory.path(), &disk));
    disk.lose_power().unwrap();
    let store = match reopen(directory.path(), &disk) {
        Ok(store) => store,
        Err(error) => panic!("seed {seed}, power lost at {changes}: {error}"),
    };
    let found = content(&store).await;
    assert!(
        found == known || found == under_way,
        "seed {seed}, power lost at {changes}: {found:?} not {known:?}"
    );
    store.commit(vec![create("afterwards", "1")]).await.unwrap();
    failed
}

#[tokio::test]
async fn a_loss_of_power_at_any_step_loses_nothing_acknowledged() {
    for seed in 0..4 {
        let mut survived = 0;
        for changes in 1..1_000 {
            // The last ones go through without a failure.
            survived += u64::from(!live_until_the_power_fails(seed * 1_000 + changes, changes).await);
            if survived == 5 {
                break;
            }
        }
        assert_eq!(survived, 5, "the power failed even after 1 000 changes");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_authors_none_loses_what_was_acknowledged() {
    for changes in (6..60).step_by(2) {
        let directory = tempfile::tempdir().unwrap();
        let disk = FaultyDisk::new(changes);
        let store = FilesystemStore::open_on(eager(directory.path()), Arc::new(disk.clone())).unwrap();
        disk.cut_power_after(disk.changes() + changes);
        let store = Arc::new(store);
        let authors: Vec<_> = (0..8)
            .map(|author| {
                let store = store.clone();
                tokio::spawn(async move {
                    for n in 0..30 {
                        let pair = ["left", "right"].map(|side| create(&format!("{author}-{n}-{side}"), "1"));
                        if store.commit(pair.into()).await.is_err() {
                            return n;
                        }
                    }
                    30
                })
            })
            .collect();
        let mut acknowledged = Vec::new();
        for author in authors {
            acknowledged.push(author.await.unwrap());
        }
        store.close().await.unwrap();
        disk.lose_power().unwrap();
        let store = open(directory.path());
        let found = content(&store).await;
        for (author, acknowledged) in acknowledged.into_iter().enumerate() {
            for n in 0..30 {
                let there = |side: &str| found.contains_key(&task(&format!("{author}-{n}-{side}")));
                assert_eq!(there("left"), there("right"), "half a commit");
                assert!(there("left") || n >= acknowledged, "an acknowledged commit is lost");
                assert!(!there("left") || n <= acknowledged, "a commit that was never made is there");
            }
        }
    }
}

fn store_on(disk: &FaultyDisk, directory: &std::path::Path) -> FilesystemStore {
    FilesystemStore::open_on(FilesystemOptions::new(directory), Arc::new(disk.clone())).unwrap()
}

#[tokio::test]
async fn a_failed_write_is_cut_off_and_the_store_goes_on() {
    for seed in 0..30 {
        let directory = tempfile::tempdir().unwrap();
        let disk = FaultyDisk::new(seed);
        let store = store_on(&disk, directory.path());
        store.commit(vec![create("a", "1")]).await.unwrap();
        disk.inject(Fault::Write);
        let error = store.commit(vec![create("b", "1")]).await.unwrap_err();
        assert!(matches!(error, StoreError::Io { .. }), "{error}");
        assert_eq!(store.sequence().await.unwrap(), 1);
        store.commit(vec![create("b", "2")]).await.unwrap();
        let before = content(&store).await;
        drop(store);
        disk.lose_power().unwrap();
        assert_eq!(content(&open(directory.path())).await, before);
    }
}

#[tokio::test]
async fn nothing_is_acknowledged_after_a_failed_sync_until_reopened() {
    // A sync that fails, and a write that fails and cannot be cut off or whose cut cannot be synced.
    for faults in [&[Fault::Sync][..], &[Fault::Write, Fault::Truncate], &[Fault::Write, Fault::Sync]] {
        for seed in 0..20 {
            let directory = tempfile::tempdir().unwrap();
            let disk = FaultyDisk::new(seed);
            let store = store_on(&disk, directory.path());
            store.commit(vec![create("a", "1")]).await.unwrap();
            faults.iter().for_each(|fault| disk.inject(*fault));
            let error = store.commit(vec![create("b", "1")]).await.unwrap_err();
            assert!(matches!(error, StoreError::Failed { .. }), "{error}");
            assert_eq!(disk.waiting_faults(), 0);
            let error = store.commit(vec![create("c", "1")]).await.unwrap_err();
            assert!(matches!(error, StoreError::Failed { .. }), "{error}");
            let health = store.health().await;
            assert!(!health.writable && health.reason.unwrap().contains("journal-00000001.jsonl"));
            assert_eq!(content(&store).await.len(), 1, "what is durable can be read");
            drop(store);
            if seed % 2 == 0 {
                disk.lose_power().unwrap();
            }
            let store = store_on(&disk, directory.path());
            let found = content(&store).await;
            assert!(found.contains_key(&task("a")) && found.len() <= 2, "{found:?}");
            // What this start has read is durable from now on, whatever that sync has left.
            store.commit(vec![create("c", "1")]).await.unwrap();
            let before = content(&store).await;
            drop(store);
            disk.lose_power().unwrap();
            assert_eq!(content(&store_on(&disk, directory.path())).await, before);
        }
    }
}

#[tokio::test]
async fn who_waited_with_a_failed_commit_is_answered_too() {
    let directory = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::new(1);
    let store = Arc::new(store_on(&disk, directory.path()));
    store.commit(vec![create("a", "1")]).await.unwrap();
    disk.inject(Fault::Sync);
    let authors: Vec<_> = (0..50)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move { store.commit(vec![update("a", 1, &n.to_string())]).await })
        })
        .collect();
    for author in authors {
        let error = author.await.unwrap().unwrap_err();
        assert!(matches!(error, StoreError::Failed { .. }), "{error}, though nobody knows who came first");
    }
}

#[tokio::test]
async fn a_store_whose_power_failed_can_still_be_closed() {
    let directory = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::new(1);
    let store = FilesystemStore::open_on(eager(directory.path()), Arc::new(disk.clone())).unwrap();
    disk.cut_power_after(disk.changes() + 1);
    assert!(store.commit(vec![create("a", "1")]).await.is_err());
    assert!(!store.health().await.writable);
    store.close().await.unwrap();
}
