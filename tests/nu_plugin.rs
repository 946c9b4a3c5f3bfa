//! End to end: the real shell, the real plugin, the real engine.
//!
//! Each test is a user with a home and an engine of their own. What is tested here is what only real
//! processes show; the commands one by one are tested in the plugin.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

#[path = "nu_plugin/shell.rs"]
mod shell;

#[path = "nu_plugin/commands.rs"]
mod commands;
#[path = "nu_plugin/doors.rs"]
mod doors;
#[path = "nu_plugin/engine.rs"]
mod engine;
#[path = "nu_plugin/help.rs"]
mod help;
#[path = "nu_plugin/terminal.rs"]
mod terminal;
