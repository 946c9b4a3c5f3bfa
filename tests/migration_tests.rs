//! Moving the records: stopped, under load, to a target that fails, with a crash at every point, and
//! through a file.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

#[path = "migration_tests/crashes.rs"]
mod crashes;
#[path = "migration_tests/engine.rs"]
mod engine;
#[path = "migration_tests/files.rs"]
mod files;
#[path = "migration_tests/killed.rs"]
mod killed;
#[path = "migration_tests/live.rs"]
mod live;
#[path = "migration_tests/offline.rs"]
mod offline;
#[path = "migration_tests/stores.rs"]
mod stores;
#[cfg(feature = "surrealdb")]
#[path = "migration_tests/surrealdb.rs"]
mod surrealdb;
