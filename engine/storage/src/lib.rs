//! Versioned records and atomic commits.
//!
//! This crate says what a storage backend promises and keeps those promises. It knows no task and
//! no rule of scheduling: a [`Record`] has a key, a revision, a few indexed [`Fields`] and a JSON
//! body that only its owner reads. Everything that changes, changes by [`Store::commit`]: a list of
//! operations, each with the revision that its author read; all of them happen, durably, or none.
//! That is enough for a graph of tasks submitted at once, for a claim together with its lock and its
//! slot, and for a change together with its audit entry.
//!
//! - [`record`]: keys, records, fields, operations: the words of the contract.
//! - [`store`]: the trait, its queries and its errors.
//! - [`filesystem`]: the default backend: a journal of JSON lines and packed, readable JSON.
//! - `surrealdb`: the backends on SurrealDB, embedded and server, under the cargo feature of that name.
//! - [`migration`]: moving the records of one store to another, offline or under a running engine.
//! - [`chaos`]: a seeded wrapper that injects faults into any backend.
//! - [`conformance`]: the suite that every backend and the wrapper must pass.

pub mod chaos;
pub mod conformance;
pub mod filesystem;
pub mod migration;
pub mod record;
mod request;
pub mod store;
#[cfg(feature = "surrealdb")]
pub mod surrealdb;

pub use record::{Change, Commit, Expect, Fields, Key, Operation, Record, Revision, Sequence, Table};
pub use store::{
    Changes, Count, Cursor, Filter, Order, Page, Query, Store, StoreError, StoreHealth, StoreResult,
};
