//! Connections: their limits, and the end of them.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use orchestrator_protocol::service::Service;
use orchestrator_protocol::socket::user_id;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tracing::{debug, warn};

use crate::guard::Peer;
use crate::{AppState, owner, router};

/// How many connections are served at once; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 512;
/// How long a client may take for the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long requests that are under way may take at the end.
const CLOSE_PATIENCE: Duration = Duration::from_secs(3);

/// An address that must not be served on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not a loopback address: without tokens, which this release does not have, HTTP is served on loopback only")]
pub struct AddressError(SocketAddr);

/// Whether an address may be served on: loopback only, as long as there are no tokens.
///
/// # Errors
/// When it is any other address.
pub fn check_address(address: SocketAddr) -> Result<(), AddressError> {
    if address.ip().is_loopback() { Ok(()) } else { Err(AddressError(address)) }
}

/// Serves until `closed` is ready; then requests that are under way are given a moment.
///
/// # Errors
/// None that concern one connection only.
pub async fn serve(
    listener: TcpListener,
    service: Arc<dyn Service>,
    closed: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    let router = router(AppState::new(service));
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let graceful = GracefulShutdown::new();
    let mut closed = std::pin::pin!(closed);
    loop {
        let accepted = async {
            // Never closed, so there is always a permit in the end.
            let permit = Arc::clone(&room).acquire_owned().await;
            (listener.accept().await, permit)
        };
        let (accepted, permit) = tokio::select! {
            () = &mut closed => break,
            accepted = accepted => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "a connection cannot be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let app = router.clone().layer(Extension(peer_of(&stream)));
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(app));
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            let _permit = permit;
            if let Err(error) = connection.await {
                debug!(%error, "a connection ended");
            }
        });
    }
    if tokio::time::timeout(CLOSE_PATIENCE, graceful.shutdown()).await.is_err() {
        warn!("requests that were under way are given up");
    }
    Ok(())
}

fn peer_of(stream: &TcpStream) -> Peer {
    let user = stream.peer_addr().and_then(|peer| owner::user_of(peer, stream.local_addr()?));
    let is_owner = match user {
        Ok(user) => user.is_some_and(|user| user == 0 || user == user_id()),
        Err(error) => {
            warn!(%error, "whose a connection is cannot be found out");
            false
        }
    };
    Peer { is_owner }
}
