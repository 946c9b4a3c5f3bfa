//! Connections to engines that wait for the next command.
//!
//! A connection is taken out while it is used, so two commands of one pipeline never share one. Most of
//! the time there is one connection to one engine.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use orchestrator_protocol::client::Client;

/// How many connections to one engine are kept; enough for the commands of a pipeline.
const MAX_KEPT: usize = 4;

/// The kept connections, by socket.
#[derive(Debug, Default)]
pub struct Pool {
    clients_by_socket: Mutex<HashMap<PathBuf, Vec<Client>>>,
}

impl Pool {
    /// Takes a connection out, if one is kept.
    pub fn take(&self, socket: &Path) -> Option<Client> {
        self.locked().get_mut(socket)?.pop()
    }

    /// Keeps a connection for later.
    pub fn give(&self, socket: &Path, client: Client) {
        let mut clients_by_socket = self.locked();
        let kept = clients_by_socket.entry(socket.to_owned()).or_default();
        if kept.len() < MAX_KEPT {
            kept.push(client);
        }
    }

    /// Closes all connections to an engine.
    pub fn forget(&self, socket: &Path) {
        self.locked().remove(socket);
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<PathBuf, Vec<Client>>> {
        self.clients_by_socket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
