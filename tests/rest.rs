//! REST from outside: real engines, real connections, `docs/user/rest.md` run line by line.
//!
//! What the endpoints answer one by one is tested in `api`, over a service that is made up. Here is what
//! only a whole engine shows.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

#[path = "rest/door.rs"]
mod door;
#[path = "rest/http.rs"]
mod http;
#[path = "rest/page.rs"]
mod page;
#[path = "rest/pattern.rs"]
mod pattern;
#[path = "rest/sse.rs"]
mod sse;

#[path = "rest/bad_input.rs"]
mod bad_input;
#[path = "rest/docs.rs"]
mod docs;
#[path = "rest/events.rs"]
mod events;
#[path = "rest/generated_client.rs"]
mod generated_client;
#[cfg(feature = "surrealdb")]
#[path = "rest/moved.rs"]
mod moved;
#[path = "rest/replays.rs"]
mod replays;
