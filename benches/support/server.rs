//! The real SurrealDB server on loopback, with its records on RocksDB.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use orchestrator_storage::surrealdb::ServerOptions;
use rustix::process::{Pid, Signal, kill_process};

use crate::process::{Process, program};

/// How long it may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(60);
const INTERVAL: Duration = Duration::from_millis(2);

/// A server that lets everybody in. It ends when this is dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    /// Starts the server of a directory, and waits until it listens.
    ///
    /// # Panics
    /// When it does not.
    pub fn start(directory: &Path) -> Self {
        // The port is free at this moment; the server takes it at once.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let log_path = directory.join("log");
        let log = std::fs::File::create(&log_path).unwrap();
        // Cargo builds it with the benchmarks.
        let build = "cargo build --release --features surrealdb --bin surrealdb-server-for-benches";
        let mut child = Command::new(program("surrealdb-server-for-benches", build))
            .args(["start", "--no-banner", "--log", "warn", "--unauthenticated", "--bind"])
            .arg(address.to_string())
            .arg(format!("rocksdb://{}", directory.join("records").display()))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_err() {
            let ended = child.try_wait().unwrap().is_some() || Instant::now() > deadline;
            let log = || std::fs::read_to_string(&log_path).unwrap_or_default();
            assert!(!ended, "the server does not listen: {}", log());
            std::thread::sleep(INTERVAL);
        }
        Self { child, address }
    }

    /// How to open a store on it.
    pub fn options(&self) -> ServerOptions {
        // It may be busy with what it was given before.
        ServerOptions { patience: PATIENCE, ..ServerOptions::new(format!("ws://{}", self.address)) }
    }

    /// Its process.
    pub fn process(&self) -> Process {
        Process::with_id(self.child.id())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // As its administrator would, so that it writes down what it has in memory.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let deadline = Instant::now() + PATIENCE;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(INTERVAL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
