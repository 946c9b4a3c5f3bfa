//! Test environments through the whole engine, on the real Docker: a taskserv of the test's own, so that
//! nothing is installed and each takes a second.
//!
//! `ORCHESTRATOR_ENVIRONMENT_ROUNDS` sets how often the engine is killed, `ORCHESTRATOR_KILL_SEED` where.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

#[path = "environments/world.rs"]
mod world;

#[path = "environments/daemon.rs"]
mod daemon;
#[path = "environments/life.rs"]
mod life;
#[path = "environments/together.rs"]
mod together;
