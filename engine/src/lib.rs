//! The background engine of the provisioning orchestrator.
//!
//! One process that holds a durable priority queue, runs provisioning scripts in parallel, each at top
//! level in a process of its own, and does not forget: it can be killed at any moment, and the next
//! engine goes on where this one was, with the same scripts still running.
//!
//! - [`config`]: what it is told. [`engine`]: how the parts are put together, started and stopped.
//! - [`membership`]: an engine among others on one store; [`labels`]: what tells it from them;
//!   [`follow`]: what they have changed.
//! - [`queue`]: every change of every task; [`schedule`], [`graph`] and [`backoff`] are its pure parts,
//!   [`records`] how its things are stored.
//! - [`dispatch`] turns ready tasks into attempts; [`supervisor`] stays with them; [`worker`] knows
//!   which program is run, [`actions`] what the engine does itself, [`logs`] what attempts printed,
//!   [`log_segments`] ships that to other engines.
//! - [`test_environment`]: what a test environment is to become; [`taskservs`] and [`topologies`] read what
//!   it is made of, [`toml_text`] says where in a file a mistake is.
//! - [`containers`]: what is needed of a container engine; [`container_manager`]: Docker as one.
//! - [`service`] answers requests, [`server`] carries them over the local socket, [`doctor`] checks the
//!   set-up. [`storage`] opens the storage that is the truth, and moves the records elsewhere.

pub mod action_log;
pub mod actions;
pub mod backoff;
pub mod config;
pub mod container_manager;
pub mod containers;
pub mod dispatch;
pub mod doctor;
pub mod engine;
pub mod environments;
pub mod events;
pub mod fault;
pub mod follow;
pub mod graph;
pub mod labels;
pub mod log_segments;
pub mod logs;
pub mod membership;
pub mod program;
pub mod queue;
pub mod reach;
pub mod records;
pub mod schedule;
pub mod server;
pub mod service;
pub mod storage;
pub mod supervisor;
pub mod taskservs;
pub mod test_environment;
pub mod test_orchestrator;
pub mod toml_text;
pub mod topologies;
pub mod worker;
