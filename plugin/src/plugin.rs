//! The plugin itself: its state and the list of its commands.
//!
//! Nushell stops a plugin that was idle for ten seconds, so it keeps nothing but connections: all
//! that has to last is the engine's.

use std::sync::Arc;

use nu_plugin::{Plugin, PluginCommand};

use crate::commands;
use crate::connection::pool::Pool;

/// The plugin.
#[derive(Debug, Default)]
pub struct Orchestrator {
    /// Connections to engines, kept from one command to the next.
    pub pool: Arc<Pool>,
}

impl Plugin for Orchestrator {
    fn version(&self) -> String {
        env!("CARGO_PKG_VERSION").into()
    }

    fn commands(&self) -> Vec<Box<dyn PluginCommand<Plugin = Self>>> {
        commands::all()
    }
}
