//! Test environments as they are made, run, broken and removed: on a container engine in memory that fails
//! when it is told to, and on the real one.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

mod broken;
mod docker;
mod faults;
mod limits;
mod owners;
mod support;
