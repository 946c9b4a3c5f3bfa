//! Connections: accepted, judged, served, and let go.
//!
//! A connection is judged once, when it is accepted: whose it is, and whether there is room. Whoever
//! is refused is told why; by few connections at a time, so that those take nobody's place.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use orchestrator_protocol::service::Service;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio_util::task::TaskTracker;
use tower::Service as _;
use tracing::{debug, warn};

use crate::guard::Peer;
use crate::limits::Limits;
use crate::state::{AppState, Ending};
use crate::{owner, router};

/// How many connections are judged at once; more wait in the kernel's queue.
const JUDGES: usize = 4;
/// How long to wait after a failed accept. Too few files, for example: those who are connected go on.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// An address that must not be served on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0} is not a loopback address: without tokens, which this release does not have, HTTP is served on loopback only"
)]
pub struct AddressError(SocketAddr);

/// Whether an address may be served on: loopback only, as long as there are no tokens.
///
/// # Errors
/// When it is any other address.
pub fn check_address(address: SocketAddr) -> Result<(), AddressError> {
    if address.ip().to_canonical().is_loopback() { Ok(()) } else { Err(AddressError(address)) }
}

/// Serves until `closed` is ready; then streams end, whoever waits is told so, requests that are under
/// way are given a moment, and cut off after it.
///
/// # Errors
/// When the listener's address is unknown or no loopback address. None that concern one connection only.
pub async fn serve(
    listener: TcpListener,
    service: Arc<dyn Service>,
    closed: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    serve_within(Limits::default(), listener, service, closed).await
}

/// [`serve`], with limits of the caller's.
///
/// # Errors
/// As there.
pub async fn serve_within(
    limits: Limits,
    listener: TcpListener,
    service: Arc<dyn Service>,
    closed: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    let address = listener.local_addr()?;
    check_address(address).map_err(|refused| io::Error::new(io::ErrorKind::InvalidInput, refused))?;
    let farewell = limits.farewell;
    let door = Arc::new(Door::new(limits, service, address));
    let connections = TaskTracker::new();
    let mut closed = pin!(closed);
    loop {
        let accepted = async {
            let judging = Arc::clone(&door.judges).acquire_owned().await;
            match listener.accept().await {
                Ok((stream, peer)) => Some((stream, peer, judging.ok())),
                Err(error) => {
                    warn!(%error, "a connection cannot be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    None
                }
            }
        };
        tokio::select! {
            () = &mut closed => break,
            accepted = accepted => if let Some((stream, peer, judging)) = accepted {
                connections.spawn(Arc::clone(&door).receive(stream, peer, judging));
            },
        }
    }
    drop(listener);
    let Ending { closing, cut, changes } = &door.ending;
    closing.cancel();
    connections.close();
    // Changes whose clients are gone are made to their end too. None is begun after the last connection.
    changes.close();
    let finished = async {
        connections.wait().await;
        changes.wait().await;
    };
    if tokio::time::timeout(farewell, finished).await.is_err() {
        warn!(connections = connections.len(), "requests that were under way are given up");
        cut.cancel();
        connections.wait().await;
        changes.wait().await;
    }
    Ok(())
}

/// What all connections share.
struct Door {
    router: Router,
    limits: Limits,
    judges: Arc<Semaphore>,
    /// Places for those who are served.
    places: Semaphore,
    /// Places for those who are told no.
    refusals: Semaphore,
    ending: Ending,
}

impl Door {
    fn new(limits: Limits, service: Arc<dyn Service>, address: SocketAddr) -> Self {
        let state = AppState::new(service, address, limits.clone());
        Self {
            ending: state.ending().clone(),
            router: router(state),
            judges: Arc::new(Semaphore::new(JUDGES)),
            places: Semaphore::new(limits.connections),
            refusals: Semaphore::new(limits.refusals),
            limits,
        }
    }

    /// Judges a connection, and serves it to its end.
    async fn receive(
        self: Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        judging: Option<OwnedSemaphorePermit>,
    ) {
        let peer = judge(&stream, peer).await;
        drop(judging);
        let Some((peer, _place)) = self.seat(peer) else {
            debug!("a connection is closed without a word: too many are being refused");
            return;
        };
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%error, "answers may be late");
        }
        tokio::select! {
            () = self.converse(stream, peer) => {}
            () = self.ending.cut.cancelled() => {}
        }
    }

    /// A place for a connection, among those who are served or those who are told no.
    fn seat(&self, peer: Peer) -> Option<(Peer, SemaphorePermit<'_>)> {
        let refused = match peer {
            Peer::Owner => match self.places.try_acquire() {
                Ok(place) => return Some((Peer::Owner, place)),
                Err(_) => Peer::OneTooMany,
            },
            refused => refused,
        };
        self.refusals.try_acquire().ok().map(|place| (refused, place))
    }

    /// Answers the requests of a connection.
    async fn converse(&self, stream: TcpStream, peer: Peer) {
        let answer = service_fn(|request: hyper::Request<Incoming>| {
            let mut router = self.router.clone();
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(peer);
            async move { Ok::<_, Infallible>(router.call(request).await.unwrap_or_else(|never| match never {})) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.head)
            .max_buf_size(self.limits.head_bytes)
            .serve_connection(TokioIo::new(stream), answer);
        let mut connection = pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.ending.closing.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            debug!(%error, "a connection ended");
        }
    }
}

/// Finds out whose a connection is, on a thread that may block.
async fn judge(stream: &TcpStream, peer: SocketAddr) -> Peer {
    let Ok(local) = stream.local_addr() else {
        // It is gone already.
        return Peer::Stranger;
    };
    match tokio::task::spawn_blocking(move || owner::judge(peer, local)).await {
        Ok(peer) => peer,
        Err(error) => {
            warn!(%error, "whose a connection is was not found out");
            Peer::Stranger
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn only_loopback_addresses_are_served_on() {
        for good in ["127.0.0.1:8080", "127.8.9.10:1", "[::1]:8080", "[::ffff:127.0.0.1]:8080"] {
            assert_eq!(check_address(good.parse().unwrap()), Ok(()), "{good}");
        }
        for bad in ["0.0.0.0:8080", "192.168.1.2:80", "[::]:8080", "[fe80::1]:80", "[::ffff:10.0.0.1]:80"] {
            let refused = check_address(bad.parse().unwrap()).unwrap_err();
            assert!(refused.to_string().starts_with(bad), "{refused}");
        }
    }
}
