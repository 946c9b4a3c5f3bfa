//! The conformance suite on the backend that `TEST_STORAGE` names: `filesystem` (the default).
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

use std::sync::Arc;

use orchestrator_storage::Store;
use orchestrator_storage::conformance::{CASES, Harness, run_all};
use orchestrator_storage::filesystem::{FilesystemOptions, FilesystemStore};
use tempfile::TempDir;

struct Filesystem(TempDir);

#[async_trait::async_trait]
impl Harness for Filesystem {
    async fn open(&self) -> Arc<dyn Store> {
        Arc::new(FilesystemStore::open(FilesystemOptions::new(self.0.path())).unwrap())
    }
}

fn fresh() -> Arc<dyn Harness> {
    match std::env::var("TEST_STORAGE").as_deref() {
        Err(_) | Ok("filesystem") => Arc::new(Filesystem(tempfile::tempdir().unwrap())),
        Ok(other) => panic!("TEST_STORAGE={other}: this build tests filesystem"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_backend_keeps_the_contract() {
    assert!(CASES.len() > 20);
    run_all(fresh).await;
}
