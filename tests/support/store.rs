//! The backend that the suites are run on: the one that `TEST_STORAGE` names, else the filesystem.
//!
//! Engines in processes of their own learn of it by the program that is tested
//! (`tests/support/bin/orchestrator.rs`).

use std::path::Path;
use std::sync::Arc;

use orchestrator_storage::Store;
use orchestrator_storage::filesystem::{FilesystemOptions, FilesystemStore};

/// The name of the backend.
///
/// # Panics
/// When `TEST_STORAGE` names one on which the suites cannot be run.
pub fn backend() -> &'static str {
    match std::env::var("TEST_STORAGE").as_deref() {
        // The suites of the server are run on it in any case, and the others beside it.
        Err(_) | Ok("filesystem" | "surrealdb-server") => "filesystem",
        Ok("surrealdb-embedded") if cfg!(feature = "surrealdb") => "surrealdb-embedded",
        Ok(asked) => panic!(
            "TEST_STORAGE={asked}: this build has filesystem, and with the cargo feature surrealdb \
                             surrealdb-embedded and surrealdb-server"
        ),
    }
}

/// Whether what is tested are files that only one backend has. The others are not asked then.
pub fn is_on_files() -> bool {
    backend() == "filesystem"
}

/// Opens the store of a data directory.
///
/// # Panics
/// When it cannot be opened.
pub async fn open(data_dir: &Path) -> Arc<dyn Store> {
    #[cfg(feature = "surrealdb")]
    if !is_on_files() {
        use orchestrator_storage::surrealdb::{EmbeddedOptions, SurrealStore};
        return Arc::new(SurrealStore::open_embedded(EmbeddedOptions::new(data_dir)).await.unwrap());
    }
    Arc::new(FilesystemStore::open(FilesystemOptions::new(data_dir)).unwrap())
}
