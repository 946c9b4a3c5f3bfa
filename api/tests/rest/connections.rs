//! Real connections to a listener that is served.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream as BlockingStream};
use std::sync::Arc;
use std::time::Duration;

use orchestrator_api::limits::Limits;
use orchestrator_api::serve;
use orchestrator_api::server::serve_within;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::fake::{Fake, PATIENCE};

/// A front door that is being served.
pub struct Served {
    pub address: SocketAddr,
    pub stop: CancellationToken,
    task: JoinHandle<std::io::Result<()>>,
}

impl Served {
    pub async fn start(service: &Arc<Fake>, limits: Limits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::on(listener, service, limits)
    }

    pub fn on(listener: TcpListener, service: &Arc<Fake>, limits: Limits) -> Self {
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let (service, stopped) = (Arc::clone(service), stop.clone().cancelled_owned());
        let task = tokio::spawn(serve_within(limits, listener, service, stopped));
        Self { address, stop, task }
    }

    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// A request for a path, after which the connection stays open.
    pub fn get(&self, path: &str) -> String {
        format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.address)
    }

    /// A request for a path, after which the connection ends.
    pub fn get_last(&self, path: &str) -> String {
        format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.address)
    }

    /// A request that posts JSON, after which the connection stays open.
    pub fn post(&self, path: &str, json: &str) -> String {
        let (host, length) = (self.address, json.len());
        format!(
            "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{json}"
        )
    }

    /// Sends bytes on a new connection and reads until the engine closes it.
    pub async fn talk(&self, bytes: &str) -> String {
        let mut stream = self.connect().await;
        stream.write_all(bytes.as_bytes()).await.unwrap();
        to_end(&mut stream).await
    }

    /// Stops it, which must succeed, and waits for its end.
    pub async fn end(self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.task).await.unwrap().unwrap().unwrap();
    }
}

pub async fn to_end(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.unwrap().unwrap();
    String::from_utf8(bytes).unwrap()
}

/// Reads one answer of `GET /health` and leaves the connection open.
async fn one_answer(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\"error\":null}") {
        let read = tokio::time::timeout(PATIENCE, stream.read_buf(&mut bytes)).await.unwrap().unwrap();
        assert!(read > 0, "closed after {}", String::from_utf8_lossy(&bytes));
    }
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn the_engines_user_is_served_many_times_on_a_connection() {
    let service = Fake::healthy();
    let served = Served::start(&service, Limits::default()).await;
    let mut stream = served.connect().await;
    for _ in 0..3 {
        stream.write_all(served.get("/health").as_bytes()).await.unwrap();
        let answer = one_answer(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains(r#""status":"ok""#), "{answer}");
    }
    assert_eq!(service.asked().len(), 3);
    drop(stream);
    served.end().await;
}

#[tokio::test]
async fn a_foreign_host_is_refused() {
    let service = Fake::healthy();
    let served = Served::start(&service, Limits::default()).await;
    let ours = served.get_last("/tasks").replace("127.0.0.1", "localhost");
    let foreign = served.get_last("/tasks").replace("127.0.0.1", "evil.example");
    let answer = served.talk(&foreign).await;
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    let answer = served.talk(&ours).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(service.asked().len(), 1);
    served.end().await;
}

#[tokio::test]
async fn too_many_connections_are_told_to_come_back() {
    let service = Fake::healthy();
    let served = Served::start(&service, Limits { connections: 1, ..Limits::default() }).await;
    let mut first = served.connect().await;
    first.write_all(served.get("/health").as_bytes()).await.unwrap();
    one_answer(&mut first).await;
    let answer = served.talk(&served.get("/health")).await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("retry-after: 1\r\n"), "{answer}");
    first.write_all(served.get_last("/health").as_bytes()).await.unwrap();
    assert!(to_end(&mut first).await.starts_with("HTTP/1.1 200 "), "the first is served on");
    served.end().await;
}

#[tokio::test]
async fn a_client_that_is_too_slow_is_let_go() {
    let service = Fake::healthy();
    let served =
        Served::start(&service, Limits { head: Duration::from_millis(250), ..Limits::default() }).await;
    let answer = served.talk("GET /health HTTP/1.1\r\nHost: loc").await;
    assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(service.asked(), []);
    let answer = served.talk("").await;
    assert!(!answer.starts_with("HTTP/1.1 200"), "one that says nothing at all: {answer}");
    // The test sends no word that would end the connection: an idle one is not kept for ever.
    let answer = served.talk(&served.get("/health")).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    served.end().await;
}

#[tokio::test]
async fn heads_and_bodies_that_are_too_large_are_refused() {
    let service = Fake::healthy();
    let served = Served::start(&service, Limits { head_bytes: 8192, ..Limits::default() }).await;
    let large = served.get("/tasks").replace("\r\n\r\n", "\r\nContent-Length: 1073741824\r\n\r\n");
    let answer = served.talk(&large).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(answer.contains(r#""code":"too_large""#), "{answer}");
    let head =
        served.get("/health").replace("\r\n\r\n", &format!("\r\nX-Long: {}\r\n\r\n", "x".repeat(9000)));
    let address = served.address;
    let answer = tokio::task::spawn_blocking(move || {
        let mut stream = BlockingStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // The engine may close before it has read all; what matters is what it says.
        let _ = stream.write_all(head.as_bytes());
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    });
    assert_eq!(answer.await.unwrap(), "HTTP/1.1 431");
    assert_eq!(service.asked(), []);
    served.end().await;
}

#[tokio::test]
async fn what_is_no_http_harms_nobody() {
    let service = Fake::healthy();
    let served = Served::start(&service, Limits::default()).await;
    for nonsense in [
        "\0\0\0\0\r\n\r\n",
        "\u{16}\u{3}\u{1}hello\r\n\r\n",
        "GET\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let answer = served.talk(nonsense).await;
        assert!(!answer.starts_with("HTTP/1.1 2"), "{nonsense:?}: {answer}");
    }
    let options = served.get_last("/").replace("GET /", "OPTIONS *");
    let answer = served.talk(&options).await;
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    assert_eq!(service.asked(), []);
    served.end().await;
}

#[tokio::test]
async fn a_stop_lets_answers_finish_and_idle_connections_go() {
    let service = Fake::healthy();
    // Nothing but the stop ends a connection here.
    let limits = Limits { farewell: PATIENCE, head: 2 * PATIENCE, ..Limits::default() };
    let served = Served::start(&service, limits).await;
    let mut idle = served.connect().await;
    idle.write_all(served.get("/health").as_bytes()).await.unwrap();
    one_answer(&mut idle).await;
    service.open.send_replace(false);
    let mut busy = served.connect().await;
    busy.write_all(served.get("/health").as_bytes()).await.unwrap();
    service.has_been_asked(2).await;
    served.stop.cancel();
    assert_eq!(to_end(&mut idle).await, "", "an idle connection is closed");
    service.open.send_replace(true);
    assert!(to_end(&mut busy).await.starts_with("HTTP/1.1 200 "), "an answer under way is given");
    let address = served.address;
    served.end().await;
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn a_stop_does_not_wait_for_ever() {
    let service = Fake::healthy();
    service.open.send_replace(false);
    let served =
        Served::start(&service, Limits { farewell: Duration::from_millis(20), ..Limits::default() }).await;
    let mut stream = served.connect().await;
    stream.write_all(served.get("/health").as_bytes()).await.unwrap();
    service.has_been_asked(1).await;
    served.end().await;
    assert_eq!(to_end(&mut stream).await, "");
    assert_eq!(Arc::strong_count(&service), 1, "nothing holds the service any more");
}

#[tokio::test]
async fn other_addresses_are_not_served_on() {
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let refused = serve(listener, Fake::healthy(), std::future::pending()).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::InvalidInput);
    assert!(refused.to_string().contains("loopback"), "{refused}");
}
