//! The listeners of an engine. They stay open while an engine is opened again behind them: whoever comes
//! meanwhile waits until there is somebody to answer. The socket's file goes with them.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use interprocess::local_socket::tokio::Listener;
use tracing::warn;

use crate::config::Config;
use crate::server;

/// The listeners that are open.
#[derive(Default)]
pub struct Doors {
    socket: Option<(PathBuf, Arc<Listener>)>,
    #[cfg(feature = "http")]
    http: Option<Arc<tokio::net::TcpListener>>,
}

impl Doors {
    /// The local socket.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub(super) fn socket(&mut self, config: &Config) -> anyhow::Result<Arc<Listener>> {
        if let Some((_, listener)) = &self.socket {
            return Ok(Arc::clone(listener));
        }
        let path = config.socket.clone();
        let listener =
            server::listen(&path).with_context(|| format!("cannot listen on {}", path.display()))?;
        let listener = Arc::new(listener);
        self.socket = Some((path, Arc::clone(&listener)));
        Ok(listener)
    }

    /// The listener for HTTP, where there is to be one.
    ///
    /// # Errors
    /// When the address is taken, or can be reached by others.
    #[cfg(feature = "http")]
    pub(super) async fn http(
        &mut self,
        config: &Config,
    ) -> anyhow::Result<Option<Arc<tokio::net::TcpListener>>> {
        let Some(address) = config.http else { return Ok(None) };
        if self.http.is_none() {
            orchestrator_api::check_address(address)?;
            let listener = tokio::net::TcpListener::bind(address).await.with_context(|| {
                format!("cannot listen on {address}: choose another port with --port, or use --no-http")
            })?;
            self.http = Some(Arc::new(listener));
        }
        Ok(self.http.clone())
    }
}

impl Drop for Doors {
    fn drop(&mut self) {
        if let Some((path, _)) = self.socket.take()
            && let Err(error) = std::fs::remove_file(path)
        {
            warn!(%error, "the socket cannot be removed");
        }
    }
}
