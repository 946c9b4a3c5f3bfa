//! Which storage an engine opens for which configuration.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use clap::Parser;
use orchestrator_engine::config::{Arguments, Config};
use orchestrator_engine::storage::open::open_store;

fn config(directory: &std::path::Path, storage: Option<&str>) -> Config {
    let mut arguments =
        vec!["orchestrator".to_owned(), "--data-dir".to_owned(), directory.to_str().unwrap().to_owned()];
    arguments.extend(storage.map(|storage| format!("--storage-type={storage}")));
    Config::load(Arguments::parse_from(arguments)).unwrap()
}

#[tokio::test]
async fn the_filesystem_is_the_default_and_lies_in_the_data_directory() {
    let directory = tempfile::tempdir().unwrap();
    for storage in [None, Some("filesystem")] {
        let store = open_store(&config(directory.path(), storage)).await.unwrap();
        assert_eq!(store.health().await.backend, "filesystem");
        store.close().await.unwrap();
    }
    assert!(directory.path().join("queue.rkvs/queue").is_dir());
    assert!(directory.path().join("queue.rkvs/tasks").is_dir());
}

#[tokio::test]
async fn one_engine_has_a_data_directory_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(directory.path(), None);
    let first = open_store(&config).await.unwrap();
    let refused = open_store(&config).await.err().unwrap().to_string();
    assert!(refused.starts_with("another engine already uses the data directory"), "{refused}");
    first.close().await.unwrap();
    open_store(&config).await.unwrap();
}

#[cfg(not(feature = "surrealdb"))]
#[tokio::test]
async fn a_storage_that_is_not_built_in_is_refused_with_the_feature() {
    let directory = tempfile::tempdir().unwrap();
    for storage in ["surrealdb-embedded", "surrealdb-server"] {
        let refused = open_store(&config(directory.path(), Some(storage))).await.err().unwrap().to_string();
        assert_eq!(
            refused,
            format!(
                "this build has no storage '{storage}': build it with `cargo build --release --features surrealdb`"
            )
        );
    }
    assert!(!directory.path().join("orchestrator.db").exists());
}

#[cfg(feature = "surrealdb")]
#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_database_lies_in_the_data_directory() {
    let directory = tempfile::tempdir().unwrap();
    let store = open_store(&config(directory.path(), Some("surrealdb-embedded"))).await.unwrap();
    assert_eq!(store.health().await.backend, "surrealdb-embedded");
    assert!(directory.path().join("orchestrator.db").is_dir());
    store.close().await.unwrap();
}

#[cfg(feature = "surrealdb")]
#[tokio::test]
async fn a_server_needs_an_address() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(directory.path(), Some("surrealdb-server"));
    let refused = open_store(&config).await.err().unwrap().to_string();
    assert!(refused.contains("--surrealdb-url"), "{refused}");
}
