//! Who may ask.
//!
//! Every request passes here before an endpoint sees it: whose the connection is, for whom the request
//! is meant, how large it is, and whether there is room. There are no CORS headers, so a browser shows
//! no other site's page what the engine answers; and a page that says where it comes from is refused.

use std::net::SocketAddr;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::envelope::ApiError;
use crate::state::{AppState, Place};

/// The other end of a connection, as far as it is known. Found out once, when it is accepted, and
/// carried by each of its requests as an extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// It belongs to the engine's user or to root.
    Owner,
    /// It belongs to somebody else, or to nobody any more.
    Stranger,
    /// This system does not tell to whom it belongs.
    Untold,
    /// It came while too many others were connected.
    OneTooMany,
}

impl Peer {
    fn check(self) -> Result<(), ApiError> {
        let refused = match self {
            Self::Owner => return Ok(()),
            Self::Stranger => {
                ApiError::forbidden("only processes of the engine's own user, or of root, are served")
                    .with_detail("help", "run the client as the user that runs the engine")
            }
            Self::Untold => {
                ApiError::forbidden("this system does not tell whose a connection is, so HTTP needs a token, which this release does not have")
                    .with_detail("help", "use the commands in Nushell: they take the local socket")
            }
            Self::OneTooMany => ApiError::unavailable("too many connections are open"),
        };
        Err(refused.closing())
    }
}

/// The names under which a request may ask for this engine, each with the port.
///
/// A page of another site can make a browser connect to a loopback address under a name of its own
/// (DNS rebinding), but it cannot make the browser say one of these.
#[derive(Debug, Clone)]
pub struct Names(Vec<String>);

impl Names {
    /// The names of an engine that is bound to `address`.
    pub fn of(address: SocketAddr) -> Self {
        let port = address.port();
        let bound = SocketAddr::new(address.ip().to_canonical(), port).to_string();
        let mut names =
            vec![format!("127.0.0.1:{port}"), format!("localhost:{port}"), format!("[::1]:{port}")];
        if !names.contains(&bound) {
            names.push(bound);
        }
        // Clients leave out the port that is HTTP's own.
        if port == 80 {
            let bare: Vec<_> = names.iter().map(|name| name.trim_end_matches(":80").to_owned()).collect();
            names.extend(bare);
        }
        Self(names)
    }

    /// Whether a host with its port is one of them.
    pub fn contain(&self, host: &str) -> bool {
        self.0.iter().any(|name| name.eq_ignore_ascii_case(host))
    }
}

/// Lets in requests of the engine's own user that are meant for this engine, as many as there is room
/// for.
pub async fn admit(State(state): State<AppState>, mut request: Request, next: Next) -> Response {
    let mut response = match check(&state, &request) {
        Ok(place) => {
            request.extensions_mut().insert(place.clone());
            let response = next.run(request).await;
            drop(place);
            response
        }
        Err(error) => error.into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// The request's place among those that are under way, kept until it is answered.
fn check(state: &AppState, request: &Request) -> Result<Place, ApiError> {
    request.extensions().get::<Peer>().copied().unwrap_or(Peer::Stranger).check()?;
    check_host(state.names(), request.uri(), request.headers())?;
    check_origin(state.names(), request.headers())?;
    check_size(state.limits().body_bytes, request.headers())?;
    state.take_place()
}

/// For whom the request is meant: its `Host`, and its target where that names a host too.
fn check_host(names: &Names, uri: &Uri, headers: &HeaderMap) -> Result<(), ApiError> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host,
        (None, _) => return Err(ApiError::malformed("the request names no host")),
        (Some(_), Some(_)) => return Err(ApiError::malformed("the request names more than one host")),
    };
    let is_meant = host.to_str().is_ok_and(|host| names.contain(host))
        && uri.authority().is_none_or(|authority| names.contain(authority.as_str()));
    if is_meant {
        return Ok(());
    }
    let host = String::from_utf8_lossy(host.as_bytes());
    Err(ApiError::forbidden(format!("the request is meant for another host: '{host}'"))
        .with_detail("help", format!("ask one of {}", names.0.join(", "))))
}

/// Of which site the page is that sent the request, where a browser says so.
fn check_origin(names: &Names, headers: &HeaderMap) -> Result<(), ApiError> {
    let is_ours = |origin: &HeaderValue| {
        origin
            .to_str()
            .ok()
            .and_then(|origin| origin.strip_prefix("http://"))
            .is_some_and(|host| names.contain(host))
    };
    match headers.get_all(header::ORIGIN).iter().all(is_ours) {
        true => Ok(()),
        false => Err(ApiError::forbidden("the request comes from a page of another site")),
    }
}

/// How large the body is said to be. Whoever reads a body without a length bounds it.
fn check_size(limit: usize, headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(length) = headers.get(header::CONTENT_LENGTH) else { return Ok(()) };
    let length: u64 = length
        .to_str()
        .ok()
        .and_then(|length| length.parse().ok())
        .ok_or_else(|| ApiError::malformed("the Content-Length is not a number of bytes"))?;
    if length > limit as u64 {
        // Nobody reads the body, so nothing else can come on this connection.
        return Err(ApiError::too_large(format!(
            "the body has {length} bytes, and at most {limit} are read"
        ))
        .closing());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    fn names(address: &str) -> Names {
        Names::of(address.parse().unwrap())
    }

    #[test]
    fn only_loopback_names_with_the_port_pass() {
        let names = names("127.0.0.9:8080");
        for host in ["localhost:8080", "LocalHost:8080", "127.0.0.1:8080", "[::1]:8080", "127.0.0.9:8080"] {
            assert!(names.contain(host), "{host}");
        }
        for host in [
            "",
            "localhost",
            "127.0.0.1",
            "localhost:8081",
            "localhost:08080",
            "localhost.:8080",
            "localhost:8080 ",
            "me@localhost:8080",
            "localhost:8080@example.org",
            "localhost.example.org:8080",
            "example.org:8080",
            "10.0.0.1:8080",
            "127.0.0.2:8080",
            "0.0.0.0:8080",
            "[::]:8080",
            "::1:8080",
            "2130706433:8080",
        ] {
            assert!(!names.contain(host), "{host}");
        }
    }

    #[test]
    fn the_port_of_http_itself_may_be_left_out() {
        let names = names("127.0.0.1:80");
        for host in ["localhost", "localhost:80", "127.0.0.1", "[::1]", "[::1]:80"] {
            assert!(names.contain(host), "{host}");
        }
        assert!(!names.contain("localhost:8080"));
    }

    #[test]
    fn an_ipv4_address_written_as_ipv6_goes_by_its_plain_name() {
        assert!(names("[::ffff:127.0.0.9]:8080").contain("127.0.0.9:8080"));
    }
}
