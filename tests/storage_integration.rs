//! The conformance suite on every backend of this build; `TEST_STORAGE` picks one of them:
//! `filesystem`, and with the cargo feature `surrealdb` also `surrealdb-embedded` and
//! `surrealdb-server`.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

use std::sync::Arc;

use orchestrator_storage::Store;
use orchestrator_storage::conformance::{CASES, Harness, run_all};
use orchestrator_storage::filesystem::{FilesystemOptions, FilesystemStore};
use tempfile::TempDir;

#[cfg(feature = "surrealdb")]
#[path = "storage_integration/surrealdb.rs"]
mod on_surrealdb;
#[cfg(feature = "surrealdb")]
#[path = "storage_integration/engines.rs"]
mod surrealdb_engines;

/// The backends of this build.
const BACKENDS: &[&str] = if cfg!(feature = "surrealdb") {
    &["filesystem", "surrealdb-embedded", "surrealdb-server"]
} else {
    &["filesystem"]
};

/// Whether a backend is asked for.
fn is_asked_for(backend: &str) -> bool {
    match std::env::var("TEST_STORAGE") {
        Err(_) => true,
        Ok(asked) if BACKENDS.contains(&asked.as_str()) => asked == backend,
        Ok(asked) => panic!("TEST_STORAGE={asked}: this build tests {BACKENDS:?}"),
    }
}

struct Filesystem(TempDir);

#[async_trait::async_trait]
impl Harness for Filesystem {
    async fn open(&self) -> Arc<dyn Store> {
        Arc::new(FilesystemStore::open(FilesystemOptions::new(self.0.path())).unwrap())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_filesystem_keeps_the_contract() {
    assert!(CASES.len() > 20);
    if is_asked_for("filesystem") {
        run_all(|| Arc::new(Filesystem(tempfile::tempdir().unwrap()))).await;
    }
}
