//! Shared pieces of the suites: an engine under test, waiting for conditions, and the checker of
//! histories.
#![expect(clippy::unwrap_used, clippy::panic, reason = "test support: a failure is a panic")]

pub mod engine;
pub mod gate;
pub mod history;
pub mod proxy;
pub mod queue;
pub mod shared;
pub mod store;
#[cfg(feature = "surrealdb")]
pub mod surrealdb;
pub mod wait;
