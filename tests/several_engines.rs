//! Several engines on one store: what they promise together, whatever becomes of one of them.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

#[path = "several_engines/attempts.rs"]
mod attempts;
#[path = "several_engines/claims.rs"]
mod claims;
#[path = "several_engines/moves.rs"]
mod moves;
#[path = "several_engines/queues.rs"]
mod queues;
