//! The words all parts of the orchestrator share.
//!
//! Both sides of every conversation import this crate, and neither imports the other: the plugin and
//! the REST front door speak to the engine only through what is written here. It holds no behaviour
//! of the engine, only what can be said about tasks, and how it is sent.
//!
//! - [`task`]: tasks, attempts and workflows; [`state`]: the one function that decides which change
//!   of state is legal.
//! - [`submit`], [`provision`]: what a user hands in; [`request`]: every question the engine answers; [`event`]: what
//!   it reports by itself; [`error`]: how it says no.
//! - [`environment`]: test environments; [`junit`]: their results as CI systems read them.
//! - [`storage`]: where the records are, and moving them elsewhere.
//! - [`service`]: the trait behind every front door.
//! - [`frame`]: bytes on the socket; [`hello`]: versions; [`socket`]: where the socket lies;
//!   [`client`]: the blocking and the asynchronous client, and how an engine is started.
//! - [`name`]: which names are accepted.

pub mod client;
pub mod environment;
pub mod error;
pub mod event;
pub mod frame;
pub mod hello;
pub mod junit;
pub mod name;
pub mod provision;
pub mod request;
pub mod service;
pub mod socket;
pub mod state;
pub mod storage;
pub mod submit;
pub mod task;

pub use error::{Error, ErrorCode, Result};
