//! `nu_plugin_orchestrator`: the commands of the provisioning orchestrator, as a Nushell plugin.
//!
//! Read it in this order: [`plugin`] lists the commands; [`commands`] has one file for each, or for a
//! small family; [`connection`] finds the engine, starts it where that is wanted, and asks it;
//! [`input`] reads what the user typed and piped in; [`values`] makes Nushell values of the engine's
//! answers; [`errors`] makes errors that point at what was typed; [`watch`] waits for tasks,
//! [`environments`] for work in test environments, and [`progress`] shows how far they are; [`completion`] answers Tab.
#![expect(clippy::result_large_err, reason = "the size of an error is Nushell's choice, and errors are rare")]

mod commands;
mod completion;
mod connection;
mod environments;
mod errors;
mod input;
mod plugin;
mod progress;
#[cfg(test)]
mod tests;
mod values;
mod watch;

/// Serves Nushell until it hangs up. Nothing may happen before this: Nushell starts a plugin more than
/// once, to find out how to talk to it.
pub fn serve() {
    nu_plugin::serve_plugin(&plugin::Orchestrator::default(), nu_plugin::MsgPackSerializer);
}
