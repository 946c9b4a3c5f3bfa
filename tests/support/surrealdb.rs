//! A real SurrealDB server on loopback, for the suites.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use orchestrator_storage::surrealdb::{Credentials, ServerOptions};
use serde_json::Value;
use tempfile::TempDir;

use crate::wait::{PATIENCE, until};

/// The files with what a server shows to those who speak TLS to it, in its directory.
const CERTIFICATE: &str = "certificate.pem";
const KEY: &str = "key.pem";

/// A server with its records on RocksDB in a directory of its own. It ends when this is dropped.
pub struct SurrealServer {
    program: PathBuf,
    address: SocketAddr,
    directory: TempDir,
    child: Option<Child>,
    /// Whether it lets everybody in. A password takes seconds to check in an unoptimised server.
    is_open: bool,
    /// Whether it speaks TLS, and nothing else.
    has_tls: bool,
    databases: AtomicU32,
}

impl SurrealServer {
    /// Starts the server program and waits until it listens. An open one lets everybody in.
    ///
    /// # Panics
    /// When it does not.
    pub fn start(program: &str, is_open: bool) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), program, is_open, false)
    }

    /// The same, open to everybody who speaks TLS. The certificate and its key are PEM.
    ///
    /// # Panics
    /// When it does not.
    pub fn start_with_tls(program: &str, certificate: &str, key: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(CERTIFICATE), certificate).unwrap();
        std::fs::write(directory.path().join(KEY), key).unwrap();
        Self::start_in(directory, program, true, true)
    }

    fn start_in(directory: TempDir, program: &str, is_open: bool, has_tls: bool) -> Self {
        // The port is free at this moment; the server takes it at once.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut server = Self {
            program: program.into(),
            address,
            directory,
            child: None,
            is_open,
            has_tls,
            databases: AtomicU32::new(0),
        };
        server.resume();
        server
    }

    /// Starts it on the same port and records, after [`SurrealServer::kill`].
    ///
    /// # Panics
    /// When it does not listen in time.
    pub fn resume(&mut self) {
        let log = std::fs::File::create(self.in_directory("log")).unwrap();
        let mut command = Command::new(&self.program);
        command
            .args(["start", "--no-banner", "--log", "warn", "--user", "root", "--pass", "root", "--bind"])
            .arg(self.address.to_string())
            .arg(format!("rocksdb://{}", self.in_directory("records").display()))
            .args(self.is_open.then_some("--unauthenticated"))
            // The suite's largest body is larger than what a server takes over HTTP by itself.
            .env("SURREAL_HTTP_MAX_RPC_BODY_SIZE", "67108864")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        if self.has_tls {
            command.arg("--web-crt").arg(self.certificate()).arg("--web-key").arg(self.in_directory(KEY));
        }
        self.child = Some(command.spawn().unwrap());
        until("the server to listen", || {
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "the server ended: {}", self.log());
            TcpStream::connect_timeout(&self.address, Duration::from_secs(1)).ok()
        });
    }

    /// Ends it as a crash would.
    ///
    /// # Panics
    /// When it cannot be ended.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    fn in_directory(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// What it has logged.
    fn log(&self) -> String {
        std::fs::read_to_string(self.in_directory("log")).unwrap_or_default()
    }

    /// The file with its certificate, where it speaks TLS.
    pub fn certificate(&self) -> PathBuf {
        self.in_directory(CERTIFICATE)
    }

    /// How to open a store in a new database of its own; `scheme` is `ws` or `http`, or `wss` or `https`.
    /// Where the server is not open, an administrator has to prepare it first.
    pub fn database(&self, scheme: &str) -> ServerOptions {
        let n = self.databases.fetch_add(1, Ordering::Relaxed);
        let mut options = ServerOptions::new(format!("{scheme}://{}", self.address));
        options.namespace = format!("suite_{n}");
        if !self.is_open {
            // The password has what must be escaped.
            let password = "it's a \\ \"secret\"".to_owned();
            options.credentials = Some(Credentials { username: "engine".to_owned(), password });
        }
        options
    }

    /// Asks an open server in its own language, for what no store tells or does. The result of each statement.
    ///
    /// # Panics
    /// When it does not do what it is asked.
    pub fn ask(&self, options: &ServerOptions, statements: &str) -> Vec<Value> {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // After an answer in this version of the protocol the connection ends.
        let request = format!(
            "POST /sql HTTP/1.0\r\nHost: {}\r\nAccept: application/json\r\nSurreal-NS: {}\r\n\
             Surreal-DB: {}\r\nContent-Length: {}\r\n\r\n{statements}",
            self.address,
            options.namespace,
            options.database,
            statements.len()
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: '{answer}'"));
        let results: Vec<Value> = serde_json::from_str(body).unwrap_or_else(|_| panic!("{answer}"));
        results
            .into_iter()
            .map(|mut result| {
                assert_eq!(result["status"], "OK", "{result}");
                result["result"].take()
            })
            .collect()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The administrator.
    pub fn root(&self) -> Credentials {
        Credentials { username: "root".to_owned(), password: "root".to_owned() }
    }
}

impl Drop for SurrealServer {
    fn drop(&mut self) {
        self.kill();
    }
}
