//! An engine that serves HTTP.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use orchestrator_tests::engine::TestEngine;
use serde_json::Value;

use crate::http::{Answer, Connection};

const ENGINE: &str = env!("CARGO_BIN_EXE_orchestrator-under-test");

/// The port that the documentation names.
const PORT: u16 = 8080;

/// An engine, and where it serves HTTP: each has an address of its own on loopback, so that all of them
/// can have the documented port, also after a restart.
pub struct Door {
    pub engine: TestEngine,
    pub address: SocketAddr,
}

impl Door {
    /// An engine with further arguments.
    pub fn open(arguments: &[&str]) -> Self {
        let mut door = Self::closed(arguments);
        door.engine.start();
        door
    }

    /// The same, not started yet.
    pub fn closed(arguments: &[&str]) -> Self {
        let address = address_of_its_own();
        let (ip, port) = (address.ip().to_string(), PORT.to_string());
        let http = ["--bind", ip.as_str(), "--port", port.as_str()];
        let arguments: Vec<&str> = http.into_iter().chain(arguments.iter().copied()).collect();
        Self { engine: TestEngine::new(ENGINE).with_arguments(&arguments), address }
    }

    /// A request with a body, as bytes. `head` are further lines of its head.
    pub fn request(&self, method: &str, path: &str, head: &[&str], body: &str) -> String {
        let mut request = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
        let has_host = head.iter().any(|line| line.starts_with("Host:"));
        if !has_host {
            request += &format!("Host: {}\r\n", self.address);
        }
        for line in head {
            request += &format!("{line}\r\n");
        }
        if method != "GET" {
            request += &format!("Content-Length: {}\r\n", body.len());
        }
        request + "\r\n" + body
    }

    /// Sends bytes over a connection of their own.
    pub fn talk(&self, request: impl AsRef<[u8]>) -> Answer {
        let connection = Connection::open(self.address);
        connection.send(request);
        connection.answer()
    }

    pub fn get(&self, path: &str) -> Answer {
        self.talk(self.request("GET", path, &[], ""))
    }

    /// Posts a text that is said to be JSON.
    pub fn post(&self, path: &str, body: &str) -> Answer {
        self.post_with(path, &[], body)
    }

    /// The same with further lines of the head.
    pub fn post_with(&self, path: &str, head: &[&str], body: &str) -> Answer {
        let head: Vec<&str> = ["Content-Type: application/json"].iter().chain(head).copied().collect();
        self.talk(self.request("POST", path, &head, body))
    }

    /// Queues something, and the id of what was queued.
    pub fn queue(&self, path: &str, body: &Value) -> String {
        let answer = self.post(path, &body.to_string());
        assert_eq!(answer.status, 202, "{answer:?}");
        answer.json()["data"].as_str().unwrap_or_else(|| panic!("no id: {answer:?}")).to_owned()
    }
}

/// A loopback address that no other test of this machine has: 127, then 24 bits by chance.
fn address_of_its_own() -> SocketAddr {
    let [_, a, b, c] = rand::random::<u32>().to_be_bytes();
    SocketAddr::from((Ipv4Addr::new(127, a, b, c), PORT))
}

/// Something that a test needs of the machine: `None`, and a word about it, where it is missing; a
/// failure where the environment promises it.
pub fn needed<T>(what: &str, found: Option<T>) -> Option<T> {
    if found.is_none() {
        assert!(std::env::var_os("ORCHESTRATOR_CI").is_none(), "this test needs {what}");
        eprintln!("NOT TESTED: there is no {what}");
    }
    found
}

/// A program, as the shell would find it.
pub fn program(name: &str) -> Option<PathBuf> {
    let directories = std::env::var_os("PATH")?;
    std::env::split_paths(&directories).map(|directory| directory.join(name)).find(|path| path.is_file())
}

/// The Nushell that runs scripts and the worker.
pub fn nushell() -> Option<PathBuf> {
    std::env::var_os("ORCHESTRATOR_TEST_NU").map(PathBuf::from).or_else(|| program("nu"))
}

/// The Docker client, where there is a daemon too.
pub fn docker() -> Option<PathBuf> {
    let docker = program("docker")?;
    let answers = Command::new(&docker).arg("version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    answers.is_ok_and(|status| status.success()).then_some(docker)
}

/// The image that the documentation names.
pub const IMAGE: &str = "orchestrator-base:bookworm";

/// The image that stands for it here.
pub fn image() -> String {
    std::env::var("ORCHESTRATOR_TEST_IMAGE").unwrap_or_else(|_| IMAGE.into())
}
