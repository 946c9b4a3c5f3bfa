//! Whose the other end of a loopback connection is: the kernel's socket table tells.
//!
//! Both ends of a loopback connection are sockets of this machine, and `/proc/net/tcp` (proc(5)) says
//! for each which user owns it. Elsewhere nobody can tell, and nobody is taken for the owner.
//!
//! Of a socket that its process has closed the kernel keeps the addresses and shows user 0 and inode 0.
//! Such a line does not count: whoever sends a request and closes at once would pass for root.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use orchestrator_protocol::socket::user_id;
use tracing::{debug, warn};

use crate::guard::Peer;

/// The tables, one for each family; a socket for IPv6 that speaks IPv4 is in the second.
const TABLES: [&str; 2] = ["/proc/net/tcp", "/proc/net/tcp6"];
/// How often the tables are read. They may change under a reader, who then misses a line.
const READS: usize = 2;

/// Whose the far end of a connection is. Blocks while it reads the kernel's table.
pub fn judge(peer: SocketAddr, local: SocketAddr) -> Peer {
    if !cfg!(target_os = "linux") {
        return Peer::Untold;
    }
    match user_of(peer, local) {
        Ok(Some(user)) if user == 0 || user == user_id() => Peer::Owner,
        Ok(user) => {
            debug!(user, "a connection of somebody else is refused");
            Peer::Stranger
        }
        Err(error) => {
            warn!(%error, "whose a connection is cannot be found out");
            Peer::Untold
        }
    }
}

/// The user who owns the socket at the far end of a connection; `None` when nobody holds it.
///
/// # Errors
/// Those of reading the table.
pub fn user_of(peer: SocketAddr, local: SocketAddr) -> io::Result<Option<u32>> {
    for table in [TABLES; READS].as_flattened() {
        let text = match fs::read_to_string(table) {
            // A kernel without IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            text => text?,
        };
        let user = user_in(&text, peer, local);
        if user.is_some() {
            return Ok(user);
        }
    }
    Ok(None)
}

/// The user whom a table names for the far end of a connection. Its entry has the two addresses the
/// other way round than ours.
fn user_in(table: &str, peer: SocketAddr, local: SocketAddr) -> Option<u32> {
    let is_far_end = |entry: &Entry| same(entry.local, peer) && same(entry.remote, local) && entry.inode != 0;
    table.lines().skip(1).filter_map(entry).find(is_far_end).map(|entry| entry.user)
}

/// Whether two addresses are one, also where one is an IPv4 address written as IPv6.
fn same(left: SocketAddr, right: SocketAddr) -> bool {
    left.port() == right.port() && left.ip().to_canonical() == right.ip().to_canonical()
}

/// What a line of the table says.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    local: SocketAddr,
    remote: SocketAddr,
    user: u32,
    /// 0 when no process holds the socket.
    inode: u64,
}

fn entry(line: &str) -> Option<Entry> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (local, remote) = (address(fields.next()?)?, address(fields.next()?)?);
    // State, queues, timer and retransmissions come before the user, a timeout after it.
    let user = fields.nth(4)?.parse().ok()?;
    let inode = fields.nth(1)?.parse().ok()?;
    Some(Entry { local, remote, user, inode })
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

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// As a little-endian machine writes it.
    #[cfg(target_endian = "little")]
    const TABLE: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 700 1 0000000000000000
   1: 0100007F:1F90 0100007F:C001 01 00000000:00000000 00:00000000 00000000  1000        0 701 1 0000000000000000
   2: 0100007F:C001 0100007F:1F90 01 00000000:00000000 00:00000000 00000000  1001        0 702 1 0000000000000000
   3: 0100007F:C002 0100007F:1F90 05 00000000:00000000 03:0000176F 00000000     0        0 0 3 0000000000000000
   4: 0100007F:C003 0100007F:1F90 06 00000000:00000000 03:0000176F 00000000     0        0 0 3 0000000000000000
   5: 0100007F:C004 0100007F:1F90 01 00000000:00000000 00:00000000 00000000     0        0 703 1 0000000000000000
   6: 0100007F:C005 0100007F:1F91 01 00000000:00000000 00:00000000 00000000  1002        0 704 1 0000000000000000
   7: 0200007F:C006 0100007F:1F90 01 00000000:00000000 00:00000000 00000000  1003        0 705 1 0000000000000000
   8: 0100007F:C007 0100007F:1F90 01 00000000:00000000 00:00000000 00000000
   9: 0000000000000000FFFF00000100007F:C008 0000000000000000FFFF00000100007F:1F90 01 0:0 0:0 0  1004 0 706 1 0
";

    #[cfg(target_endian = "little")]
    #[test]
    fn a_line_counts_when_both_addresses_fit_and_somebody_holds_the_socket() {
        let user = |peer: &str| user_in(TABLE, peer.parse().unwrap(), "127.0.0.1:8080".parse().unwrap());
        assert_eq!(user("127.0.0.1:49153"), Some(1001), "the far end's line, not ours");
        assert_eq!(user("127.0.0.1:49154"), None, "closed, and still shown as root's");
        assert_eq!(user("127.0.0.1:49155"), None, "long closed, and still shown as root's");
        assert_eq!(user("127.0.0.1:49156"), Some(0), "root's");
        assert_eq!(user("127.0.0.1:49157"), None, "connected to another port");
        assert_eq!(user("127.0.0.1:49158"), None, "another address's");
        assert_eq!(user("127.0.0.2:49158"), Some(1003));
        assert_eq!(user("127.0.0.1:49159"), None, "cut off");
        assert_eq!(user("127.0.0.1:49160"), Some(1004), "IPv4 written as IPv6");
        assert_eq!(user("127.0.0.1:49161"), None, "not there");
        assert_eq!(user("127.0.0.1:0"), None, "nobody listens at a far end");
    }

    #[test]
    fn the_other_end_of_a_connection_of_ours_is_ours_until_it_is_closed() {
        for (bind, connect) in [
            ("127.0.0.1:0", "127.0.0.1"),
            ("127.0.0.1:0", "::ffff:127.0.0.1"),
            ("[::ffff:127.0.0.1]:0", "127.0.0.1"),
            ("[::1]:0", "::1"),
        ] {
            // A machine may have no IPv6.
            let Ok(listener) = TcpListener::bind(bind) else { continue };
            let port = listener.local_addr().unwrap().port();
            let connected = TcpStream::connect((connect.parse::<IpAddr>().unwrap(), port));
            let Ok(client) = connected else { continue };
            let (stream, peer) = listener.accept().unwrap();
            let local = stream.local_addr().unwrap();
            assert_eq!(user_of(peer, local).unwrap(), Some(user_id()), "{bind} {connect}");
            assert_eq!(judge(peer, local), Peer::Owner, "{bind} {connect}");
            drop(client);
            assert_eq!(user_of(peer, local).unwrap(), None, "{bind} {connect}");
            assert_eq!(judge(peer, local), Peer::Stranger, "{bind} {connect}");
        }
    }
}
