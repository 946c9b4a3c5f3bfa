//! Short words for the tests of this crate.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use orchestrator_storage::filesystem::faulty_disk::FaultyDisk;
use orchestrator_storage::filesystem::{FilesystemOptions, FilesystemStore};
use orchestrator_storage::{
    Change, Expect, Fields, Filter, Key, Operation, Order, Query, Revision, Store, StoreError, Table,
};
use serde_json::value::RawValue;

/// Options of a store that makes checkpoints all the time.
pub fn eager(directory: &Path) -> FilesystemOptions {
    FilesystemOptions { checkpoint_bytes: 0, ..FilesystemOptions::new(directory) }
}

pub fn open(directory: &Path) -> FilesystemStore {
    FilesystemStore::open(FilesystemOptions::new(directory)).unwrap()
}

/// Opens a store on a disk that does not wait for the hardware: for tests that open thousands.
pub fn open_unsynced(directory: &Path) -> FilesystemStore {
    FilesystemStore::open_on(FilesystemOptions::new(directory), Arc::new(FaultyDisk::new(0))).unwrap()
}

pub fn open_error(directory: &Path) -> StoreError {
    match FilesystemStore::open(FilesystemOptions::new(directory)) {
        Ok(_) => panic!("the store was opened"),
        Err(error) => error,
    }
}

pub fn task(id: &str) -> Key {
    Key::new(Table::Task, id)
}

pub fn put(key: &Key, expect: Expect, fields: Fields, text: &str) -> Operation {
    let body: Arc<RawValue> = RawValue::from_string(text.to_owned()).unwrap().into();
    Operation { key: key.clone(), expect, change: Change::Put { fields, body } }
}

pub fn create(id: &str, text: &str) -> Operation {
    put(&task(id), Expect::Absent, Fields::default(), text)
}

pub fn update(id: &str, revision: Revision, text: &str) -> Operation {
    put(&task(id), Expect::Revision(revision), Fields::default(), text)
}

pub fn delete(key: &Key, revision: Revision) -> Operation {
    Operation { key: key.clone(), expect: Expect::Revision(revision), change: Change::Delete }
}

/// Commits operations in such a way that a checkpoint follows, on a store with [`eager`] options:
/// what the journal holds by then is mostly a record that is gone.
pub async fn commit_with_checkpoint(store: &FilesystemStore, mut operations: Vec<Operation>) {
    let text = format!("\"{}\"", "x".repeat(5_000));
    store.commit(vec![create("x", &text)]).await.unwrap();
    operations.push(delete(&task("x"), 1));
    store.commit(operations).await.unwrap();
    until("a checkpoint", || store.counters().checkpoints == 1).await;
}

/// What a store holds.
pub type Content = BTreeMap<Key, (Revision, Fields, String)>;

pub async fn content(store: &dyn Store) -> Content {
    let mut content = Content::new();
    for table in Table::ALL {
        let mut query =
            Query { table, filter: Filter::default(), order: Order::OldestFirst, after: None, limit: 1_000 };
        loop {
            let page = store.list(&query).await.unwrap();
            for record in page.records {
                let value = (record.revision, record.fields, record.body.get().to_owned());
                assert!(content.insert(record.key, value).is_none());
            }
            query.after = page.next;
            if query.after.is_none() {
                break;
            }
        }
    }
    content
}

/// Waits for something that a thread of the store brings about.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !condition() {
        assert!(start.elapsed().as_secs() < 60, "waited in vain: {what}");
        tokio::task::yield_now().await;
    }
}

/// The files below a directory, with their content, but for the lock.
pub fn files(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut waiting = vec![directory.to_owned()];
    while let Some(next) = waiting.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path);
            } else if path.file_name().unwrap() != "lock" {
                let content = std::fs::read(&path).unwrap();
                files.insert(path.strip_prefix(directory).unwrap().to_owned(), content);
            }
        }
    }
    files
}

/// Writes files below a directory, in the place of whatever is there.
pub fn restore(directory: &Path, files: &BTreeMap<PathBuf, Vec<u8>>) {
    let _ = std::fs::remove_dir_all(directory);
    for (path, content) in files {
        let path = directory.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
}
