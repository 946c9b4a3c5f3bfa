//! Who may ask.

use axum::extract::Request;
use axum::http::header;
use axum::http::uri::Authority;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::envelope::ApiError;

/// The other end of a connection, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Whether it belongs to the engine's user or to root.
    pub is_owner: bool,
}

/// Lets in requests of the engine's own user that name a loopback host.
pub async fn admit(request: Request, next: Next) -> Response {
    match check(&request) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

fn check(request: &Request) -> Result<(), ApiError> {
    if !request.extensions().get::<Peer>().is_some_and(|peer| peer.is_owner) {
        return Err(ApiError::forbidden("only processes of the engine's own user, or of root, are served"));
    }
    // A page of another site can make a browser connect here, but not say this name.
    let host = match request.headers().get(header::HOST) {
        Some(host) => host.to_str().ok().and_then(|host| host.parse::<Authority>().ok()),
        None => request.uri().authority().cloned(),
    };
    let host = host.ok_or_else(|| ApiError::malformed("the request names no host"))?;
    if is_loopback(host.host()) {
        return Ok(());
    }
    Err(ApiError::forbidden(format!("the host '{}' is not a loopback address: use 127.0.0.1 or localhost", host.host())))
}

fn is_loopback(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    bare.eq_ignore_ascii_case("localhost") || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_names_pass() {
        for host in ["localhost", "LocalHost", "127.0.0.1", "127.8.8.8", "[::1]"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["example.org", "localhost.example.org", "10.0.0.1", "0.0.0.0", "[::]", ""] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
