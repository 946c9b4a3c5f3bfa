//! The front door: the router without a socket, and real connections.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

mod connections;
mod fake;
mod queries;
mod refusals;
mod routes;
mod strangers;
