//! Three engines on one SurrealDB server, and what is done to them.

use std::fmt;
use std::fs;
use std::process::ExitStatus;
use std::time::Duration;

use orchestrator_protocol::client::{Client, ClientError};
use orchestrator_protocol::request::{Call, EngineMember, GetStatus, MemberState};
use orchestrator_storage::surrealdb::ServerOptions;
use orchestrator_tests::engine::TestEngine;
use orchestrator_tests::proxy::{Proxy, Way};
use orchestrator_tests::surrealdb::SurrealServer;
use orchestrator_tests::wait;
use rustix::process::{Pid, Signal};

use crate::load::NARROW;

const ENGINE: &str = env!("CARGO_BIN_EXE_orchestrator-under-test");
const SERVER: &str = env!("CARGO_BIN_EXE_surrealdb-server-for-tests");

/// How many engines there are.
pub const ENGINES: usize = 3;
/// How many attempts each of them runs at once.
const MAX_PARALLEL: &str = "4";
/// How long an engine to which nothing was done may take for an answer.
const ANSWER: Duration = Duration::from_secs(10);
/// How much of the engines' logs is shown when the test fails.
const LOG_LINES: usize = 80;

/// What is done to an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is ended as by a crash, and started again.
    Kill,
    /// Its process is held up, and goes on.
    Stop,
    /// It cannot reach the database.
    Cut(Way),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kill => "killed",
            Self::Stop => "stopped",
            Self::Cut(Way::Closed) => "cut off, with its connections broken",
            Self::Cut(_) => "cut off, without a word",
        })
    }
}

/// One engine, and its way to the database.
pub struct Member {
    /// The engine.
    pub engine: TestEngine,
    /// The name by which the others know it.
    pub id: String,
    proxy: Proxy,
    is_stopped: bool,
}

impl Member {
    fn start(options: &ServerOptions, server: &SurrealServer) -> Self {
        let proxy = Proxy::start(server.address());
        let url = format!("ws://{}", proxy.address());
        let engine = TestEngine::new(ENGINE);
        let config = engine.directory().join("orchestrator.toml");
        fs::write(&config, format!("[groups.{NARROW}]\nmax_parallel = 1\n")).unwrap();
        let mut engine = engine.with_arguments(&[
            "--storage-type",
            "surrealdb-server",
            "--surrealdb-url",
            &url,
            "--surrealdb-namespace",
            &options.namespace,
            "--surrealdb-database",
            &options.database,
            "--config",
            config.to_str().unwrap(),
            "--max-parallel",
            MAX_PARALLEL,
        ]);
        engine.start();
        let id = engine.ask(GetStatus {}).engines.into_iter().find(|member| member.is_this).unwrap().id;
        Self { engine, id, proxy, is_stopped: false }
    }

    /// Does something to it.
    pub fn strike(&mut self, fault: Fault) {
        match fault {
            Fault::Kill => self.engine.kill(),
            Fault::Stop => {
                self.signal(Signal::STOP);
                self.is_stopped = true;
            }
            Fault::Cut(way) => self.proxy.set(way),
        }
    }

    /// Undoes what was done to it.
    pub fn heal(&mut self, fault: Fault) {
        match fault {
            Fault::Kill => self.engine.start_with(None),
            Fault::Stop => {
                self.signal(Signal::CONT);
                self.is_stopped = false;
            }
            Fault::Cut(_) => self.proxy.set(Way::Open),
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.engine.pid().cast_signed()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// A connection on which an answer is waited for so long.
    pub fn connect(&self, patience: Duration) -> Result<Client, ClientError> {
        Client::connect(&self.engine.socket(), Some(patience))
    }

    /// Asks something, of an engine that may be in trouble.
    pub fn try_ask<C: Call>(&self, call: C) -> Result<C::Reply, ClientError> {
        self.connect(ANSWER).and_then(|mut client| client.call(call))
    }

    /// How this engine sees the engines; `None` when it does not say.
    fn members(&self) -> Option<Vec<EngineMember>> {
        self.try_ask(GetStatus {}).ok().map(|status| status.engines)
    }

    /// How it sees one of them.
    fn state_of(&self, id: &str) -> Option<MemberState> {
        self.members()?.into_iter().find(|member| member.id == id).map(|member| member.state)
    }
}

/// All of them.
pub struct Cluster {
    /// The engines.
    pub members: Vec<Member>,
    /// How to reach the database directly.
    pub options: ServerOptions,
    server: SurrealServer,
}

impl Cluster {
    /// Starts the server. There are no engines yet.
    pub fn start() -> Self {
        let server = SurrealServer::start(SERVER, true);
        Self { members: Vec::new(), options: server.database("ws"), server }
    }

    /// Starts the engines.
    pub fn start_engines(&mut self) {
        for _ in 0..ENGINES {
            self.members.push(Member::start(&self.options, &self.server));
        }
    }

    /// Whether an engine works as all others see it.
    pub fn is_back(&self, index: usize) -> bool {
        let id = &self.members[index].id;
        self.members.iter().all(|member| member.state_of(id) == Some(MemberState::Alive))
    }

    /// Stops them one after the other, as their service manager would.
    pub fn stop(&mut self) -> Vec<ExitStatus> {
        self.members.iter_mut().map(|member| member.engine.terminate()).collect()
    }
}

impl Drop for Cluster {
    /// Lets what is held up end.
    fn drop(&mut self) {
        for (index, member) in self.members.iter_mut().enumerate() {
            if member.is_stopped {
                member.heal(Fault::Stop);
            }
            member.proxy.set(Way::Open);
            if std::thread::panicking() {
                let log = member.engine.log();
                let lines: Vec<&str> = log.lines().collect();
                let tail = &lines[lines.len().saturating_sub(LOG_LINES)..];
                eprintln!("the end of the log of engine {index}, {}:\n{}", member.id, tail.join("\n"));
            }
        }
    }
}

/// Waits until nobody holds the lock on any of these files: nothing that had opened them is alive.
pub fn until_nobody_holds(files: impl Iterator<Item = fs::File>) {
    for file in files {
        wait::until("whoever holds a file", || file.try_lock().ok());
    }
}
