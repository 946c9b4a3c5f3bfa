//! The doors of an engine: the local socket, and HTTP. They are opened once for a process, and stay open while
//! an engine is opened again behind them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use orchestrator_protocol::request::StopMode;
use orchestrator_protocol::service::Service;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use super::relay::Relay;
use crate::config::Config;
use crate::server;
use crate::service::EngineService;

/// How long the doors may take to close, and an engine to answer what it was asked.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);

/// The doors that are open. The socket's file goes with them.
#[derive(Default)]
pub struct Doors {
    relay: Arc<Relay>,
    serving: TaskTracker,
    close: CancellationToken,
    socket: Option<PathBuf>,
}

impl Doors {
    /// Opens them where they are closed. From here on this engine answers.
    ///
    /// # Errors
    /// When a door cannot be opened: the address is taken, or can be reached by others.
    pub(super) async fn open(&mut self, config: &Config, service: &Arc<EngineService>) -> anyhow::Result<()> {
        if self.socket.is_none() {
            let path = config.socket.clone();
            let listener =
                server::listen(&path).with_context(|| format!("cannot listen on {}", path.display()))?;
            self.socket = Some(path);
            self.open_http(config).await?;
            let relay = Arc::clone(&self.relay) as Arc<dyn Service>;
            self.serving.spawn(server::serve(listener, relay, self.close.clone()));
        }
        self.relay.open(Arc::clone(service));
        Ok(())
    }

    #[cfg(feature = "http")]
    async fn open_http(&self, config: &Config) -> anyhow::Result<()> {
        let Some(address) = config.http else { return Ok(()) };
        orchestrator_api::check_address(address)?;
        let listener = tokio::net::TcpListener::bind(address).await.with_context(|| {
            format!("cannot listen on {address}: choose another port with --port, or use --no-http")
        })?;
        let (relay, close) = (Arc::clone(&self.relay) as Arc<dyn Service>, self.close.clone());
        self.serving.spawn(async move {
            let closed = async move { close.cancelled().await };
            if let Err(error) = orchestrator_api::serve(listener, relay, closed).await {
                tracing::error!(%error, "HTTP is served no more");
            }
        });
        Ok(())
    }

    #[cfg(not(feature = "http"))]
    async fn open_http(&self, config: &Config) -> anyhow::Result<()> {
        match config.http {
            Some(_) => anyhow::bail!("this build has no HTTP: use --no-http"),
            None => Ok(()),
        }
    }

    /// Lets whoever asks wait for the next engine, when what was asked before has been answered.
    pub(super) async fn pause(&self) {
        self.relay.pause(CLOSE_PATIENCE).await;
    }

    /// Refuses whoever asks until the next engine is open, and says why.
    pub async fn refuse(&self, why: &str) {
        self.relay.refuse(why, CLOSE_PATIENCE).await;
    }

    /// Waits until somebody asks at the doors, while no engine is open, for the end whatever runs. Any other
    /// request to stop is for the next engine.
    pub async fn stop_now(&self) {
        self.relay.stop_now().await;
    }

    /// Keeps a request to stop for the next engine that this one had no time for, unless a newer one has come.
    pub(super) fn keep(&self, mode: StopMode) {
        self.relay.keep_older(mode);
    }

    /// Lets nobody in any more, and waits for those who are inside.
    pub async fn close(&self) {
        self.close.cancel();
        self.serving.close();
        if tokio::time::timeout(CLOSE_PATIENCE, self.serving.wait()).await.is_err() {
            warn!("a client does not let go of its connection");
        }
    }
}

impl Drop for Doors {
    fn drop(&mut self) {
        self.close.cancel();
        if let Some(path) = self.socket.take()
            && let Err(error) = std::fs::remove_file(path)
        {
            warn!(%error, "the socket cannot be removed");
        }
    }
}
