//! Server-sent events, as a client that may lose its connection anywhere reads them.

use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::net::TcpStream;
use std::time::Instant;

use orchestrator_tests::wait;
use serde_json::Value;

use crate::door::Door;
use crate::http::{Body, Connection, begin};

/// An event.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Event {
    pub name: String,
    pub id: String,
    pub data: String,
}

impl Event {
    /// The epoch and the sequence of its id.
    pub fn place(&self) -> (&str, u64) {
        let (epoch, sequence) = self.id.split_once(':').unwrap();
        (epoch, sequence.parse().unwrap())
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// A stream of events. What comes after so many bytes is lost with the connection.
pub struct Events {
    body: BufReader<std::io::Take<Body<BufReader<TcpStream>>>>,
}

impl Events {
    /// Listens from now on, or on from an event.
    pub fn listen(door: &Door, query: &str, last: Option<&str>) -> Self {
        Self::listen_for(door, query, last, u64::MAX)
    }

    /// The same with a connection that breaks after so many bytes.
    pub fn listen_for(door: &Door, query: &str, last: Option<&str>, bytes: u64) -> Self {
        Self::on(Connection::open(door.address), door, query, last, bytes)
    }

    /// The same over a connection that is there.
    pub fn on(connection: Connection, door: &Door, query: &str, last: Option<&str>, bytes: u64) -> Self {
        let last = last.map(|id| format!("Last-Event-ID: {id}"));
        let head: Vec<&str> = last.as_deref().into_iter().chain(["Accept: text/event-stream"]).collect();
        connection.send(door.request("GET", &format!("/events{query}"), &head, ""));
        let (status, headers, body) = begin(connection.into_stream());
        assert_eq!(status, 200, "{headers:?}");
        assert!(headers.contains(&("content-type".into(), "text/event-stream".into())), "{headers:?}");
        Self { body: BufReader::new(body.take(bytes)) }
    }

    /// The next event, once its last line has come; `None` when the connection is gone.
    pub fn next(&mut self) -> Option<Event> {
        let mut event = Event::default();
        let deadline = Instant::now() + wait::PATIENCE;
        loop {
            // Comments come, whether events do or not.
            assert!(Instant::now() < deadline, "waited in vain for an event");
            let mut line = String::new();
            match self.body.read_line(&mut line) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("waited in vain for an event"),
                // Whatever else breaks a connection.
                Err(_) => return None,
                Ok(_) => {}
            }
            let line = line.strip_suffix('\n')?;
            match line.split_once(": ") {
                None if line.is_empty() && event == Event::default() => {}
                None if line.is_empty() => return Some(event),
                Some(("event", name)) => event.name = name.to_owned(),
                Some(("id", id)) => event.id = id.to_owned(),
                Some(("data", data)) => event.data += data,
                _ if line.starts_with(':') => {}
                _ => panic!("not a line of an event: '{line}'"),
            }
        }
    }
}
