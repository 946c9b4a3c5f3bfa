//! What is found at a start: torn ends are cut off, everything else that is wrong is refused.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use orchestrator_storage::filesystem::FilesystemStore;
use orchestrator_storage::{Key, Store, StoreError, Table};
use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::support::{
    Content, content, create, delete, eager, files, open, open_error, open_unsynced, put, restore, task,
    until, update,
};

fn queue(directory: &Path) -> PathBuf {
    directory.join("queue.rkvs/queue")
}

fn journal(directory: &Path) -> PathBuf {
    queue(directory).join("journal-00000001.jsonl")
}

/// Fills a store with a few commits of all kinds, and says what it held after each.
async fn fill(store: &dyn Store) -> Vec<Content> {
    let lock = Key::new(Table::Lock, "l");
    let mut history = vec![content(store).await];
    for operations in [
        vec![create("a", "{\"n\": 1}")],
        vec![create("b", "[]"), put(&lock, orchestrator_storage::Expect::Absent, Default::default(), "null")],
        vec![update("a", 1, "\"zwei\"")],
        vec![delete(&task("b"), 1), delete(&lock, 1)],
        vec![create("c", "3")],
    ] {
        store.commit(operations).await.unwrap();
        history.push(content(store).await);
    }
    history
}

#[tokio::test]
async fn every_prefix_of_a_journal_is_recovered() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let mut ends = vec![0];
    let history = {
        let store = open(path);
        let history = fill(&store).await;
        store.close().await.unwrap();
        history
    };
    let whole = files(path);
    let bytes = &whole[Path::new("queue.rkvs/queue/journal-00000001.jsonl")];
    ends.extend(bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1));
    assert_eq!(ends.len(), history.len());
    for cut in 0..=bytes.len() {
        restore(path, &whole);
        std::fs::write(journal(path), &bytes[..cut]).unwrap();
        let store = open_unsynced(path);
        let commits = ends.iter().filter(|end| **end <= cut).count() - 1;
        assert_eq!(content(&store).await, history[commits], "cut at {cut}");
        assert_eq!(store.sequence().await.unwrap(), commits as u64);
        if cut % 7 != 0 {
            continue;
        }
        // It goes on where it was cut, and that is read again.
        store.commit(vec![create("z", "0")]).await.unwrap();
        drop(store);
        let store = open_unsynced(path);
        assert_eq!(store.sequence().await.unwrap(), commits as u64 + 1);
        assert!(store.get(&task("z")).await.unwrap().is_some());
    }
}

/// Damages each byte of every file of a store in turn.
#[tokio::test]
async fn any_damage_is_refused_and_nothing_is_touched() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    {
        let store = FilesystemStore::open(eager(path)).unwrap();
        fill(&store).await;
        until("a checkpoint", || store.counters().checkpoints > 0).await;
        store.close().await.unwrap();
        // Something in a journal after it.
        let store = open(path);
        store.commit(vec![create("d", "4")]).await.unwrap();
        store.close().await.unwrap();
    }
    let whole = files(path);
    assert!(whole.keys().any(|file| file.starts_with("queue.rkvs/tasks")), "{:?}", whole.keys());
    for (file, bytes) in &whole {
        for place in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[place] ^= 1 << (place % 8);
            std::fs::write(path.join(file), &damaged).unwrap();
            let error = open_error(path);
            match &error {
                StoreError::Corrupt { path: named, .. } => assert_eq!(named, &path.join(file), "{error}"),
                StoreError::NewerSchema { .. } => assert!(file.ends_with("manifest.json")),
                other => panic!("{} damaged at {place}: {other}", file.display()),
            }
            assert_eq!(std::fs::read(path.join(file)).unwrap(), damaged, "the damage is kept as it is");
        }
        std::fs::write(path.join(file), bytes).unwrap();
    }
    assert_eq!(files(path), whole);
    open(path);
}

#[tokio::test]
async fn a_missing_file_is_refused_and_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let store = FilesystemStore::open(eager(path)).unwrap();
    fill(&store).await;
    until("a checkpoint", || store.counters().checkpoints > 0).await;
    drop(store);
    let whole = files(path);
    for file in whole.keys() {
        restore(path, &whole);
        std::fs::remove_file(path.join(file)).unwrap();
        let left = files(path);
        let error = open_error(path);
        assert!(
            matches!(&error, StoreError::Corrupt { path: named, .. } if *named == path.join(file)),
            "{error}"
        );
        assert_eq!(files(path), left, "nothing is overwritten");
    }
}

#[tokio::test]
async fn a_torn_end_is_refused_where_a_journal_follows() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let store = open(path);
    let history = fill(&store).await;
    drop(store);
    let bytes = std::fs::read(journal(path)).unwrap();
    std::fs::write(journal(path), &bytes[..bytes.len() - 5]).unwrap();
    let next = queue(path).join("journal-00000002.jsonl");
    // An empty one after it is what a checkpoint that has just begun leaves.
    std::fs::write(&next, b"").unwrap();
    assert_eq!(content(&open(path)).await, history[4]);
    std::fs::write(journal(path), &bytes[..bytes.len() - 5]).unwrap();
    std::fs::write(&next, &bytes[..10]).unwrap();
    let error = open_error(path);
    assert!(matches!(&error, StoreError::Corrupt { path: named, .. } if *named == journal(path)), "{error}");
    // Numbers that do not follow each other: a journal was taken out.
    std::fs::remove_file(&next).unwrap();
    std::fs::write(journal(path), &bytes).unwrap();
    std::fs::write(queue(path).join("journal-00000003.jsonl"), b"").unwrap();
    let error = open_error(path);
    assert!(matches!(&error, StoreError::Corrupt { path: named, .. } if *named == next), "{error}");
}

#[tokio::test]
async fn zeros_after_a_loss_of_power_are_cut_off() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let store = open(path);
    let history = fill(&store).await;
    drop(store);
    let whole = std::fs::read(journal(path)).unwrap();
    let mut longer = whole.clone();
    longer.extend_from_slice(&whole[..50]);
    longer.resize(whole.len() + 9_000, 0);
    std::fs::write(journal(path), longer).unwrap();
    assert_eq!(content(&open(path)).await, *history.last().unwrap());
    assert_eq!(std::fs::read(journal(path)).unwrap(), whole);
}

#[tokio::test]
async fn a_journal_of_another_store_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let store = open(path);
    fill(&store).await;
    drop(store);
    let bytes = std::fs::read(journal(path)).unwrap();
    std::fs::write(queue(path).join("journal-00000002.jsonl"), &bytes).unwrap();
    let error = open_error(path).to_string();
    assert!(error.contains("commit 1 stands where 6 should"), "{error}");
    assert!(error.contains("journal-00000002.jsonl") && error.contains("byte 0"), "{error}");
}

#[tokio::test]
async fn something_else_in_the_place_of_a_file_is_refused_and_named() {
    for place in ["queue/journal-00000001.jsonl", "queue/manifest.json"] {
        for pipe in [false, true] {
            let directory = tempfile::tempdir().unwrap();
            drop(open(directory.path()));
            let path = directory.path().join("queue.rkvs").join(place);
            std::fs::remove_file(&path).unwrap();
            if pipe {
                // Not by a program: while one is started it has the locks of all tests.
                mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
            } else {
                std::fs::create_dir(&path).unwrap();
            }
            let error = open_error(directory.path());
            assert!(matches!(&error, StoreError::Io { path: named, .. } if *named == path), "{error}");
        }
    }
}

#[tokio::test]
async fn a_file_that_may_not_be_read_is_refused_and_named() {
    use std::os::unix::fs::PermissionsExt;
    if rustix::process::geteuid().is_root() {
        eprintln!("nothing is forbidden to root: only the test with a directory in the place has run");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    drop(open(directory.path()));
    let path = journal(directory.path());
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o000)).unwrap();
    let error = open_error(directory.path());
    assert!(matches!(&error, StoreError::Io { path: named, .. } if *named == path), "{error}");
}

#[tokio::test]
async fn a_first_start_that_broke_off_is_made_good() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    std::fs::create_dir_all(queue(path)).unwrap();
    drop(open(path));
    std::fs::remove_file(queue(path).join("manifest.json")).unwrap();
    std::fs::write(queue(path).join("manifest.json.tmp"), b"{\"cr").unwrap();
    let store = open(path);
    assert_eq!(store.sequence().await.unwrap(), 0);
    assert!(!queue(path).join("manifest.json.tmp").exists());
    store.commit(vec![create("a", "1")]).await.unwrap();
    drop(store);
    // With a commit in the journal it is no first start any more.
    std::fs::remove_file(queue(path).join("manifest.json")).unwrap();
    let error = open_error(path);
    let manifest = queue(path).join("manifest.json");
    assert!(matches!(&error, StoreError::Corrupt { path: named, .. } if *named == manifest), "{error}");
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    drop(open(directory.path()));
    let path = queue(directory.path()).join("manifest.json");
    std::fs::write(&path, r#"{"schema_version": 2, "everything": "else may differ"}"#).unwrap();
    let error = open_error(directory.path());
    assert!(matches!(error, StoreError::NewerSchema { found: 2, known: 1 }), "{error}");
}

#[tokio::test]
async fn a_second_opener_is_told_that_the_store_is_in_use() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    for close in [true, false] {
        let store = open(path);
        let error = open_error(path);
        assert!(
            matches!(&error, StoreError::InUse { path: named } if *named == path.join("queue.rkvs")),
            "{error}"
        );
        store.commit(vec![create(&format!("{close}"), "1")]).await.unwrap();
        if close {
            store.close().await.unwrap();
            // The closed store is still there, and does not hold the directory.
            open(path);
        }
    }
}

#[tokio::test]
async fn leftovers_go_and_foreign_files_stay() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let store = FilesystemStore::open(eager(path)).unwrap();
    let history = fill(&store).await;
    until("a checkpoint", || store.counters().checkpoints > 0).await;
    drop(store);
    drop(open(path));
    let whole = files(path);
    let leftovers: BTreeMap<PathBuf, Vec<u8>> = [
        ("queue.rkvs/queue/manifest.json.tmp", "x"),
        ("queue.rkvs/queue/journal-00000000.jsonl", "old"),
        ("queue.rkvs/tasks/task-00000099-0001.json", "newer"),
        ("queue.rkvs/tasks/log-segment-00000000-0001.json", "older"),
    ]
    .map(|(path, text)| (path.into(), text.into()))
    .into();
    let foreign: BTreeMap<PathBuf, Vec<u8>> = [
        ("queue.rkvs/queue/journal-1.jsonl", "mine"),
        ("queue.rkvs/queue/notes.txt", "mine"),
        ("queue.rkvs/tasks/task-00000099-0001.json.bak", "mine"),
        ("queue.rkvs/README", "mine"),
    ]
    .map(|(path, text)| (path.into(), text.into()))
    .into();
    for (file, bytes) in leftovers.iter().chain(&foreign) {
        std::fs::write(path.join(file), bytes).unwrap();
    }
    assert_eq!(content(&open(path)).await, *history.last().unwrap());
    let mut expected = whole;
    expected.extend(foreign);
    assert_eq!(files(path), expected);
}

#[tokio::test]
async fn a_body_that_changes_under_an_open_store_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    store.commit(vec![create("a", "\"original\"")]).await.unwrap();
    let path = journal(directory.path());
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("original", "0riginal")).unwrap();
    let error = store.get(&task("a")).await.unwrap_err();
    assert!(matches!(&error, StoreError::Corrupt { path: named, .. } if *named == path), "{error}");
    std::fs::write(&path, "").unwrap();
    let error = store.get(&task("a")).await.unwrap_err();
    assert!(matches!(&error, StoreError::Io { path: named, .. } if *named == path), "{error}");
}
