//! The filesystem backend: the contract, and what befalls real files.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

mod checkpoints;
mod contract;
mod crashes;
mod fixtures;
mod full_disk;
mod model;
mod opening;
mod support;
mod workload;
