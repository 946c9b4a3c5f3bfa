//! The contract of [`ContainerManager`]: one suite for the real daemon and for the one in memory, and what
//! only a real daemon has.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod daemon;
mod scripted;
mod suite;
mod support;
