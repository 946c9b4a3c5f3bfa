//! Where the daemon is, from the variables that Docker's own command reads.
//!
//! `DOCKER_HOST` names it, `DOCKER_TLS_VERIFY` and `DOCKER_TLS` ask for TLS, `DOCKER_CERT_PATH` is the
//! directory of `ca.pem`, `cert.pem` and `key.pem`
//! (<https://docs.docker.com/reference/cli/docker/#environment-variables>). A daemon's certificate is always
//! verified, also where `DOCKER_TLS` alone would not ask for it. Contexts of the command are not read.

use std::fmt;
use std::path::PathBuf;

use crate::containers::{ContainerError, Result};

/// Where Docker listens when it is not told otherwise.
const DEFAULT_SOCKET: &str = "/var/run/docker.sock";

/// Where a daemon is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A socket of this machine.
    Unix(PathBuf),
    /// A host and a port, in plain text: only for a network that is trusted.
    Plain(String),
    /// A host and a port, with TLS on both sides.
    Tls {
        /// The host and the port.
        authority: String,
        /// The directory of `ca.pem`, `cert.pem` and `key.pem`.
        certificates: PathBuf,
    },
    /// `[user@]host[:port]`, reached by the machine's own `ssh`; `docker system dial-stdio` runs there.
    Ssh(String),
}

impl Address {
    /// Reads it from the variables that `variable` gives. An empty one counts as not set, as it does for
    /// Docker's command.
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let Some(host) = set("DOCKER_HOST") else { return Ok(Self::Unix(DEFAULT_SOCKET.into())) };
        let (scheme, rest) = host.split_once("://").unwrap_or(("tcp", host.as_str()));
        let rest = rest.trim_end_matches('/');
        if rest.is_empty() {
            return Err(ContainerError::Unsupported(format!("DOCKER_HOST '{host}' names no host")));
        }
        let tls = set("DOCKER_TLS_VERIFY").is_some() || set("DOCKER_TLS").is_some();
        match scheme {
            "unix" => Ok(Self::Unix(rest.into())),
            "ssh" => ssh(rest, &host),
            "https" => Self::with_tls(rest, set),
            "tcp" if tls => Self::with_tls(rest, set),
            "tcp" | "http" => Ok(Self::Plain(with_port(rest, 2375))),
            _ => Err(ContainerError::Unsupported(format!(
                "DOCKER_HOST '{host}' is not of a kind that is known: unix://, tcp:// and ssh:// are"
            ))),
        }
    }

    fn with_tls(authority: &str, set: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let directory = set("DOCKER_CERT_PATH")
            .or_else(|| set("DOCKER_CONFIG"))
            .map(PathBuf::from)
            .or_else(|| set("HOME").map(|home| PathBuf::from(home).join(".docker")));
        let certificates = directory.ok_or_else(|| {
            ContainerError::Unsupported("TLS to Docker needs certificates: set DOCKER_CERT_PATH".into())
        })?;
        Ok(Self::Tls { authority: with_port(authority, 2376), certificates })
    }
}

/// What is said of a daemon that does not answer.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Plain(authority) => write!(f, "tcp://{authority}"),
            Self::Tls { authority, .. } => write!(f, "tcp://{authority} (TLS)"),
            Self::Ssh(destination) => write!(f, "ssh://{destination}"),
        }
    }
}

/// A destination that begins with a hyphen would be an option of `ssh`, and a path is a socket that is not
/// asked for there.
fn ssh(destination: &str, host: &str) -> Result<Address> {
    if destination.starts_with('-') || destination.contains("@-") || destination.contains('/') {
        return Err(ContainerError::Unsupported(format!(
            "DOCKER_HOST '{host}' should look like ssh://user@host:port"
        )));
    }
    Ok(Address::Ssh(destination.to_owned()))
}

/// The port that Docker's command adds where none is given. An IPv6 address stands in brackets.
fn with_port(authority: &str, port: u16) -> String {
    let after_brackets = authority.rsplit(']').next().unwrap_or(authority);
    if after_brackets.contains(':') { authority.to_owned() } else { format!("{authority}:{port}") }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    fn address(variables: &[(&str, &str)]) -> Result<Address> {
        let find =
            |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).into());
        Address::from_variables(find)
    }

    #[test]
    fn nothing_set_is_the_socket_of_this_machine() {
        for variables in [&[][..], &[("DOCKER_HOST", ""), ("DOCKER_TLS_VERIFY", "1")]] {
            assert_eq!(address(variables).unwrap(), Address::Unix(DEFAULT_SOCKET.into()));
        }
    }

    #[test]
    fn each_kind_of_host_is_read() {
        let cases = [
            ("unix:///run/user/1000/podman.sock", "unix:///run/user/1000/podman.sock"),
            ("tcp://build:2375", "tcp://build:2375"),
            ("tcp://build/", "tcp://build:2375"),
            ("tcp://[::1]", "tcp://[::1]:2375"),
            ("tcp://[::1]:99", "tcp://[::1]:99"),
            ("http://build:80", "tcp://build:80"),
            ("build:2375", "tcp://build:2375"),
            ("ssh://ops@build:2222", "ssh://ops@build:2222"),
        ];
        for (host, shown) in cases {
            assert_eq!(address(&[("DOCKER_HOST", host)]).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn tls_is_never_left_out_where_it_is_asked_for() {
        let tls = |authority: &str, certificates: &str| Address::Tls {
            authority: authority.into(),
            certificates: certificates.into(),
        };
        let cases = [
            (
                &[("DOCKER_HOST", "tcp://b"), ("DOCKER_TLS_VERIFY", "1"), ("HOME", "/h")][..],
                tls("b:2376", "/h/.docker"),
            ),
            (
                &[("DOCKER_HOST", "tcp://b:9"), ("DOCKER_TLS", "1"), ("DOCKER_CERT_PATH", "/c")],
                tls("b:9", "/c"),
            ),
            (
                &[("DOCKER_HOST", "https://b"), ("DOCKER_CERT_PATH", "/c"), ("HOME", "/h")],
                tls("b:2376", "/c"),
            ),
        ];
        for (variables, expected) in cases {
            assert_eq!(address(variables).unwrap(), expected);
        }
        let without = address(&[("DOCKER_HOST", "tcp://b"), ("DOCKER_TLS_VERIFY", "1")]).unwrap_err();
        assert!(without.to_string().contains("DOCKER_CERT_PATH"), "{without}");
    }

    #[test]
    fn what_is_no_host_is_named() {
        for host in
            ["unix://", "npipe:////./pipe/docker", "ssh://-oProxyCommand=x", "ssh://a@-x", "ssh://a/sock"]
        {
            let error = address(&[("DOCKER_HOST", host)]).unwrap_err();
            assert!(matches!(&error, ContainerError::Unsupported(words) if words.contains(host)), "{error}");
        }
    }
}
