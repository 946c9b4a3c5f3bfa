//! Checkpoints: what they leave on disk, and what becomes of a store when they fail.

use std::path::Path;
use std::sync::Arc;

use orchestrator_storage::filesystem::faulty_disk::{Fault, FaultyDisk};
use orchestrator_storage::filesystem::{FilesystemOptions, FilesystemStore};
use orchestrator_storage::{Expect, Fields, Store};

use super::support::{commit_with_checkpoint, content, create, eager, files, open, put, task, until, update};

fn names(directory: &Path) -> Vec<String> {
    files(&directory.join("queue.rkvs")).into_keys().map(|path| path.display().to_string()).collect()
}

#[tokio::test]
async fn a_checkpoint_leaves_readable_json_and_an_empty_journal() {
    let directory = tempfile::tempdir().unwrap();
    let store = FilesystemStore::open(eager(directory.path())).unwrap();
    let labels = Fields { labels: [("k".into(), "v".into())].into(), ..Fields::default() };
    let mut operations = vec![put(&task("a"), Expect::Absent, labels, "{\n \"n\": 1\n}")];
    operations.push(create("b", "null"));
    operations.push(put(
        &orchestrator_storage::Key::new(orchestrator_storage::Table::IdempotencyKey, "k"),
        Expect::Absent,
        Fields::default(),
        "2",
    ));
    commit_with_checkpoint(&store, operations).await;
    let expected = [
        "queue/journal-00000002.jsonl",
        "queue/manifest.json",
        "tasks/idempotency-key-00000001-0002.json",
        "tasks/task-00000001-0001.json",
    ];
    assert_eq!(names(directory.path()), expected);
    let path = directory.path().join("queue.rkvs/tasks/task-00000001-0001.json");
    let table: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(table[0]["id"], "a");
    assert_eq!(table[0]["body"]["n"], 1);
    assert_eq!(table[0]["fields"]["labels"]["k"], "v");
    assert_eq!(table[1]["body"], serde_json::Value::Null);
    assert_eq!(table[1]["revision"], 1);
    let manifest = std::fs::read(directory.path().join("queue.rkvs/queue/manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    assert_eq!((&manifest["schema_version"], &manifest["first_journal"]), (&1.into(), &2.into()));
    let before = content(&store).await;
    drop(store);
    assert_eq!(content(&open(directory.path())).await, before);
}

#[tokio::test]
async fn journals_stay_in_proportion_to_the_records() {
    let directory = tempfile::tempdir().unwrap();
    let options = FilesystemOptions { checkpoint_bytes: 20_000, ..FilesystemOptions::new(directory.path()) };
    let store = FilesystemStore::open(options).unwrap();
    let text = format!("\"{}\"", "x".repeat(500));
    store.commit((0..10).map(|n| create(&n.to_string(), &text)).collect()).await.unwrap();
    for revision in 1..=1_000 {
        store.commit(vec![update("3", revision, &text)]).await.unwrap();
    }
    let counters = store.counters();
    until("checkpoints to be counted", || store.counters().checkpoints > 0).await;
    assert!(counters.bytes_written > 600_000, "{counters:?}");
    assert!(counters.checkpoint_bytes_written < counters.bytes_written, "{counters:?}");
    store.close().await.unwrap();
    // One more start finishes what closing interrupted.
    let store = FilesystemStore::open(FilesystemOptions {
        checkpoint_bytes: 0,
        ..FilesystemOptions::new(directory.path())
    })
    .unwrap();
    // As often as it takes for the journals to outgrow the records.
    let mut revision = 1_001;
    while store.counters().checkpoints == 0 {
        store.commit(vec![update("3", revision, &text)]).await.unwrap();
        revision += 1;
        assert!(revision < 2_000, "no checkpoint");
    }
    drop(store);
    let bytes: usize = files(directory.path()).values().map(Vec::len).sum();
    assert!(bytes < 100_000, "{bytes} bytes for ten records of 500");
}

#[tokio::test]
async fn a_large_table_is_split_into_several_files() {
    let directory = tempfile::tempdir().unwrap();
    let store = FilesystemStore::open(eager(directory.path())).unwrap();
    let text = format!("\"{}\"", "y".repeat(4 * 1024 * 1024));
    for n in 0..9 {
        store.commit(vec![create(&n.to_string(), &text)]).await.unwrap();
    }
    for n in 0..9 {
        store.commit(vec![update(&n.to_string(), 1, &text)]).await.unwrap();
    }
    let packed = directory.path().join("queue.rkvs/tasks");
    until("a checkpoint", || store.counters().checkpoints > 0).await;
    assert_eq!(std::fs::read_dir(packed).unwrap().count(), 2);
    let before = content(&store).await;
    store.close().await.unwrap();
    assert!(content(&open(directory.path())).await == before, "the records have changed");
}

/// Lets each step of a checkpoint fail in turn: commits go on, and nothing is lost.
#[tokio::test]
async fn a_failed_checkpoint_changes_nothing() {
    for fault in [Fault::Create, Fault::SyncDirectory, Fault::Rename, Fault::Remove] {
        for times in 1..=3 {
            let directory = tempfile::tempdir().unwrap();
            let disk = FaultyDisk::new(times);
            let calm = FilesystemOptions { checkpoint_bytes: u64::MAX, ..eager(directory.path()) };
            let store = FilesystemStore::open_on(calm, Arc::new(disk.clone())).unwrap();
            store.commit(vec![create("a", "1"), create("b", "1")]).await.unwrap();
            drop(store);
            let store = FilesystemStore::open_on(eager(directory.path()), Arc::new(disk.clone())).unwrap();
            for _ in 0..times {
                disk.inject(fault);
            }
            let mut revision = 1;
            while disk.waiting_faults() > 0 || store.counters().checkpoints < 2 {
                store.commit(vec![update("a", revision, "\"again\"")]).await.unwrap();
                revision += 1;
                assert!(revision < 100_000, "{fault:?} has not struck {times} times");
            }
            assert!(store.health().await.writable);
            let before = content(&store).await;
            assert_eq!(before[&task("a")].0, revision);
            store.close().await.unwrap();
            let store = open(directory.path());
            assert_eq!(content(&store).await, before, "{fault:?}");
            drop(store);
            let leftovers = names(directory.path());
            assert!(leftovers.len() <= 5, "after {fault:?}: {leftovers:?}");
        }
    }
}
