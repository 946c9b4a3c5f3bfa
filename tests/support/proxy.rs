//! A way over the network that a test can cut: it passes on what is sent, until it is told otherwise.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;

/// What becomes of what is sent over it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// It arrives.
    Open,
    /// It is held, in both directions, and arrives when the way is open again, also when its sender has
    /// given the connection up meanwhile.
    Silent,
    /// Connections are broken, with what was held, and new ones end at once.
    Closed,
}

/// A listener on loopback, before a server. It ends, with its connections, when this is dropped.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    server: SocketAddr,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    way: Way,
    is_over: bool,
    connections: Vec<Weak<Connection>>,
}

struct Connection {
    client: TcpStream,
    server: TcpStream,
}

impl Proxy {
    /// An open way to a server.
    pub fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = State { way: Way::Open, is_over: false, connections: Vec::new() };
        let shared = Arc::new(Shared { server, state: Mutex::new(state), changed: Condvar::new() });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || accept(&accepting, &listener));
        Self { address, shared }
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes what becomes of what is sent from now on, and of what is held.
    pub fn set(&self, way: Way) {
        self.shared.set(way);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.state().is_over = true;
        self.shared.set(Way::Closed);
        // Wakes the listener, which sees that it is over.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, way: Way) {
        let mut state = self.state();
        state.way = way;
        if way == Way::Closed {
            for connection in state.connections.drain(..).filter_map(|connection| connection.upgrade()) {
                connection.close();
            }
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Takes in a connection, unless the way is closed.
    fn admit(&self, connection: &Arc<Connection>) -> bool {
        let mut state = self.state();
        if state.way == Way::Closed {
            return false;
        }
        state.connections.retain(|connection| connection.strong_count() > 0);
        state.connections.push(Arc::downgrade(connection));
        true
    }

    /// Waits as long as the way is silent. Whether it is open then.
    fn is_passable(&self) -> bool {
        let state = self.state();
        let state = self.changed.wait_while(state, |state| state.way == Way::Silent);
        state.unwrap_or_else(PoisonError::into_inner).way == Way::Open
    }
}

impl Connection {
    fn close(&self) {
        // Whichever end is closed already needs no word.
        let _ = self.client.shutdown(Shutdown::Both);
        let _ = self.server.shutdown(Shutdown::Both);
    }
}

fn accept(shared: &Arc<Shared>, listener: &TcpListener) {
    for client in listener.incoming().flatten() {
        if shared.state().is_over {
            return;
        }
        let Ok(server) = TcpStream::connect(shared.server) else { continue };
        // Small messages go at once.
        let _ = client.set_nodelay(true).and_then(|()| server.set_nodelay(true));
        let connection = Arc::new(Connection { client, server });
        if !shared.admit(&connection) {
            continue;
        }
        let (to_server, to_client) = (Arc::clone(shared), Arc::clone(shared));
        let back = Arc::clone(&connection);
        thread::spawn(move || pass(&to_server, &connection, &connection.client, &connection.server));
        thread::spawn(move || pass(&to_client, &back, &back.server, &back.client));
    }
}

/// Passes on what one side sends, until it has said everything.
fn pass(shared: &Shared, connection: &Connection, mut from: &TcpStream, mut to: &TcpStream) {
    let mut buffer = [0; 16 * 1024];
    loop {
        // What cannot be read is at its end.
        let read = from.read(&mut buffer).unwrap_or(0);
        if !shared.is_passable() {
            return connection.close();
        }
        if read == 0 {
            let _ = to.shutdown(Shutdown::Write);
            return;
        }
        if to.write_all(&buffer[..read]).is_err() {
            return connection.close();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::time::Duration;

    use super::*;
    use crate::wait;

    /// A server that tells what it has read of each connection, and answers every byte.
    fn server() -> (SocketAddr, Arc<Mutex<Vec<u8>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let hearing = Arc::clone(&heard);
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let hearing = Arc::clone(&hearing);
                thread::spawn(move || {
                    let mut byte = [0];
                    while stream.read_exact(&mut byte).is_ok() {
                        hearing.lock().unwrap().push(byte[0]);
                        // Its client may not listen any more.
                        let _ = stream.write_all(&byte);
                    }
                });
            }
        });
        (address, heard)
    }

    fn connect(proxy: &Proxy) -> TcpStream {
        let stream = TcpStream::connect(proxy.address()).unwrap();
        stream.set_read_timeout(Some(wait::PATIENCE)).unwrap();
        stream
    }

    /// Sends a byte and reads the answer.
    fn ask(stream: &mut TcpStream, byte: u8) -> io::Result<u8> {
        let mut answer = [byte];
        stream.write_all(&answer)?;
        stream.read_exact(&mut answer)?;
        Ok(answer[0])
    }

    #[test]
    fn what_is_sent_arrives_and_what_is_held_arrives_later() {
        let (address, heard) = server();
        let proxy = Proxy::start(address);
        let mut stream = connect(&proxy);
        assert_eq!(ask(&mut stream, 1).unwrap(), 1);
        proxy.set(Way::Silent);
        stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        assert!(ask(&mut stream, 2).is_err());
        let mut late = connect(&proxy);
        late.write_all(&[3]).unwrap();
        // Given up by its client, and held nevertheless.
        drop(stream);
        assert_eq!(*heard.lock().unwrap(), [1]);
        proxy.set(Way::Open);
        assert_eq!(late.read_exact(&mut [0]).ok(), Some(()));
        wait::until("what was held", || {
            let mut heard = heard.lock().unwrap().clone();
            heard.sort_unstable();
            (heard == [1, 2, 3]).then_some(())
        });
    }

    #[test]
    fn nothing_passes_a_closed_way_and_what_was_held_is_lost() {
        let (address, heard) = server();
        let proxy = Proxy::start(address);
        let mut stream = connect(&proxy);
        assert_eq!(ask(&mut stream, 1).unwrap(), 1);
        proxy.set(Way::Silent);
        stream.write_all(&[2]).unwrap();
        proxy.set(Way::Closed);
        assert!(ask(&mut stream, 3).is_err());
        assert!(ask(&mut connect(&proxy), 4).is_err());
        proxy.set(Way::Open);
        assert!(ask(&mut stream, 5).is_err(), "it was broken");
        assert_eq!(ask(&mut connect(&proxy), 6).unwrap(), 6);
        assert_eq!(*heard.lock().unwrap(), [1, 6]);
    }
}
