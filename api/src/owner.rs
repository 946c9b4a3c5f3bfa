//! Whose the other end of a loopback connection is: the kernel's socket table tells.
//!
//! Both ends of a loopback connection are sockets of this machine, and `/proc/net/tcp` (proc(5)) says
//! for each which user owns it. Elsewhere nobody can tell, and nobody is taken for the owner.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The user who owns the socket at the far end of a connection; `None` when it is not in the table.
///
/// # Errors
/// Those of reading the table.
pub fn user_of(peer: SocketAddr, local: SocketAddr) -> io::Result<Option<u32>> {
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let text = match fs::read_to_string(table) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            text => text?,
        };
        // The far end's own entry has the two addresses the other way round.
        let found = text.lines().skip(1).filter_map(entry).find(|(near, far, _)| {
            same(*near, peer) && same(*far, local)
        });
        if let Some((_, _, user)) = found {
            return Ok(Some(user));
        }
    }
    Ok(None)
}

/// Whether two addresses are one, also where one is an IPv4 address written as IPv6.
fn same(left: SocketAddr, right: SocketAddr) -> bool {
    left.port() == right.port() && left.ip().to_canonical() == right.ip().to_canonical()
}

/// Local address, remote address and user of a line of the table.
fn entry(line: &str) -> Option<(SocketAddr, SocketAddr, u32)> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (local, remote) = (address(fields.next()?)?, address(fields.next()?)?);
    // State, queues, timer and retransmissions come in between.
    Some((local, remote, fields.nth(4)?.parse().ok()?))
}

/// An address such as `0100007F:1F90`: 32-bit words in the machine's byte order, then the port.
fn address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let words = (0..address.len())
        .step_by(8)
        .map(|start| u32::from_str_radix(address.get(start..start + 8)?, 16).ok())
        .collect::<Option<Vec<u32>>>()?;
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let ip = match bytes.len() {
        4 => IpAddr::from(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        16 => IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?)),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_line_of_the_table_is_read() {
        let line = "   1: 0100007F:1F90 0200007F:C350 01 00000000:00000000 00:00000000 00000000  1000        0 12345 1";
        let expected = ("127.0.0.1:8080".parse().unwrap(), "127.0.0.2:50000".parse().unwrap(), 1000);
        assert_eq!(entry(line), Some(expected));
        assert_eq!(entry("  sl  local_address rem_address"), None);
    }

    #[test]
    fn the_other_end_of_a_connection_of_ours_is_ours() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (stream, peer) = listener.accept().unwrap();
            let user = user_of(peer, stream.local_addr().unwrap()).unwrap();
            assert_eq!(user, Some(orchestrator_protocol::socket::user_id()), "{address}");
        }
    }
}
