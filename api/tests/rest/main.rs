//! The front door: the router without a socket, and real connections.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

mod changes;
mod connections;
mod environment_logs;
mod environments;
mod events;
mod fake;
mod logs;
mod openapi;
mod queries;
mod refusals;
mod routes;
mod storage;
mod strangers;
mod streams;
mod waiting;
mod workflows;
