//! Stores that earlier releases have written: each must open for ever.

use std::path::{Path, PathBuf};

use orchestrator_storage::filesystem::FilesystemStore;
use orchestrator_storage::{Expect, Fields, Key, Store, Table};

use super::support::{
    Content, commit_with_checkpoint, content, create, delete, eager, files, open, put, restore, task, update,
};

fn fixture(version: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(version)
}

/// Content as it is kept beside a fixture.
fn lines(content: &Content) -> String {
    let line = |(key, (revision, fields, body)): (&Key, &(u64, Fields, String))| {
        let fields = serde_json::to_string(fields).unwrap();
        format!("{key}\t{revision}\t{fields}\t{}\n", serde_json::to_string(body).unwrap())
    };
    content.iter().map(line).collect()
}

#[tokio::test]
async fn version_1_opens() {
    let directory = tempfile::tempdir().unwrap();
    let source = fixture("v1");
    restore(&directory.path().join("queue.rkvs"), &files(&source.join("queue.rkvs")));
    let store = open(directory.path());
    assert_eq!(lines(&content(&store).await), std::fs::read_to_string(source.join("content.tsv")).unwrap());
    assert_eq!(store.sequence().await.unwrap(), 7);
    store.commit(vec![create("new", "1")]).await.unwrap();
}

/// Writes the fixture of the version that this release writes. Only for a new version: the ones that
/// are there stay as they are.
#[tokio::test]
#[ignore = "writes a new fixture"]
async fn write_a_fixture() {
    let target = fixture("v1");
    assert!(!target.exists(), "a fixture is never written anew");
    let directory = tempfile::tempdir().unwrap();
    let store = FilesystemStore::open(eager(directory.path())).unwrap();
    let fields = Fields {
        status: Some("Pending".into()),
        group: Some("production".into()),
        kind: Some("command".into()),
        parent: Some("workflow-1".into()),
        created_at_ms: 1_700_000_000_000,
        ended_at_ms: Some(1_700_000_060_000),
        labels: [("team".into(), "plätze \"ü\"".into())].into(),
    };
    let packed = vec![
        put(&task("a"), Expect::Absent, fields.clone(), "{\"script\": \"deploy.nu\",\n \"n\": 1e2}"),
        put(&Key::new(Table::IdempotencyKey, "k/1 \"x\""), Expect::Absent, Fields::default(), "null"),
        create("b", "\"\\ud83d\\ude00 😀\""),
    ];
    commit_with_checkpoint(&store, packed).await;
    store.close().await.unwrap();
    let store = open(directory.path());
    store
        .commit(vec![
            update("b", 1, "[ ]"),
            put(&Key::new(Table::Lock, "l"), Expect::Absent, fields.clone(), "2"),
        ])
        .await
        .unwrap();
    store.commit(vec![delete(&Key::new(Table::Lock, "l"), 1)]).await.unwrap();
    store.commit(vec![put(&task("b"), Expect::Revision(2), fields, "3")]).await.unwrap();
    store.commit(vec![create("c", "4")]).await.unwrap();
    store.commit(vec![delete(&task("c"), 1), create("d", "5")]).await.unwrap();
    let content = lines(&content(&store).await);
    store.close().await.unwrap();
    restore(&target.join("queue.rkvs"), &files(&directory.path().join("queue.rkvs")));
    std::fs::write(target.join("content.tsv"), content).unwrap();
}
