//! Talking to the engine on behalf of one command.
//!
//! A [`Session`] knows where the engine is ([`target`]), borrows a connection from the plugin's pool
//! ([`pool`]), starts an engine where that is wanted, and can be interrupted: the exchange runs on a thread
//! of its own while the command looks for Ctrl-C.
//!
//! What is safe to repeat goes over a kept connection, and once more over a new one when that breaks.
//! What is not goes over a new connection from the start, so that a connection that went stale between
//! two commands never makes a submission fail.

pub mod pool;
pub mod storage_options;
pub mod target;

use std::ffi::OsString;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use nu_plugin::{EngineInterface, EvaluatedCall};
use nu_protocol::{LabeledError, Signals, Span};
use orchestrator_protocol::client::start::{StartOptions, Variables, connect_or_start, find_program};
use orchestrator_protocol::client::{Client, ClientError, Items};
use orchestrator_protocol::request::{Call, Subscription};
use rustix::process::{Pid, getppid};

use crate::errors::Failure;
use crate::plugin::Orchestrator;
use pool::Pool;
use target::Target;

/// Between two looks whether the user has pressed Ctrl-C.
pub const LOOK: Duration = Duration::from_millis(100);

/// How long an engine may take for one answer before it is taken for stuck.
const ANSWER_PATIENCE: Duration = Duration::from_secs(60);

/// How long an engine that was started may take until it is ready: it reads its whole queue first.
const START_PATIENCE: Duration = Duration::from_secs(30);

/// The conversation of one command with its engine. Cheap to clone: streams take one along.
#[derive(Debug, Clone)]
pub struct Session {
    engine: Engine,
    /// The shell, as far as it talks to this command.
    nushell: EngineInterface,
    /// The shell's process: this process ends with it, so a wait must not outlive it.
    shell: Option<Pid>,
    may_start: bool,
}

/// The engine of a session. Threads that nobody may wait for any more have this, and nothing of the shell's.
#[derive(Debug, Clone)]
struct Engine {
    pool: Arc<Pool>,
    target: Arc<Target>,
}

impl Session {
    /// A session with the engine that the call, the environment and the configuration name. Asks nothing yet.
    pub fn open(
        plugin: &Orchestrator,
        engine: &EngineInterface,
        call: &EvaluatedCall,
    ) -> Result<Self, LabeledError> {
        let target = Target::of_call(engine, call)?;
        let may_start = target.may_start_by_itself();
        let (pool, target) = (Arc::clone(&plugin.pool), Arc::new(target));
        let of_target = Engine { pool, target };
        Ok(Self { engine: of_target, nushell: engine.clone(), shell: getppid(), may_start })
    }

    /// The same, but it never starts an engine.
    #[must_use]
    pub fn without_start(mut self) -> Self {
        self.may_start = false;
        self
    }

    /// Where the engine is.
    pub fn target(&self) -> &Target {
        &self.engine.target
    }

    /// Whether nobody waits for an answer any more: the user has pressed Ctrl-C, or the shell is gone.
    pub fn interrupted(&self) -> bool {
        self.nushell.signals().interrupted() || getppid() != self.shell
    }

    /// The signals of the command.
    pub fn signals(&self) -> Signals {
        self.nushell.signals().clone()
    }

    /// What to point at when the engine itself is the trouble: the flag that names it, else the command.
    pub fn place(&self, head: Span) -> Span {
        self.target().span.unwrap_or(head)
    }

    /// Asks a question.
    pub fn ask<C>(&self, question: C) -> Result<C::Reply, Failure>
    where
        C: Call + Clone + 'static,
        C::Reply: 'static,
    {
        self.ask_repeatable(question, C::IDEMPOTENT)
    }

    /// Asks a question that is safe to repeat if `repeatable`, whatever its kind says: a submission with
    /// an idempotency key is.
    pub fn ask_repeatable<C>(&self, question: C, repeatable: bool) -> Result<C::Reply, Failure>
    where
        C: Call + Clone + 'static,
        C::Reply: 'static,
    {
        self.with_engine(|| {
            let (engine, question) = (self.engine.clone(), question.clone());
            self.interruptible(move || engine.exchange(question, repeatable))
        })
    }

    /// Begins a stream of answers, over a connection of its own.
    pub fn subscribe(&self, subscription: Subscription) -> Result<Items, Failure> {
        self.with_engine(|| {
            let (engine, subscription) = (self.engine.clone(), subscription.clone());
            self.interruptible(move || Ok(engine.connect()?.subscribe(subscription)?))
        })
    }

    /// Starts the engine unless it runs; says whether it was started now.
    pub fn start(&self, more_args: Vec<OsString>) -> Result<bool, Failure> {
        let variables = storage_options::variables(&self.nushell)?;
        let engine = self.engine.clone();
        self.interruptible(move || {
            let (client, started) = engine.connect_or_start(more_args, variables)?;
            engine.pool.give(&engine.target.socket, client);
            Ok(started)
        })
    }

    /// Whether anything listens on the socket.
    pub fn is_alive(&self) -> bool {
        !matches!(Client::connect(&self.target().socket, Some(LOOK)), Err(ClientError::NotRunning { .. }))
    }

    /// Forgets all connections to the engine: it has stopped.
    pub fn forget(&self) {
        self.engine.pool.forget(&self.target().socket);
    }

    /// Does something with the engine. Where none runs, one is started first, if that may be.
    fn with_engine<T>(&self, work: impl Fn() -> Result<T, Failure>) -> Result<T, Failure> {
        match work() {
            Err(failure) if failure.is_not_running() && self.may_start => {
                self.start(Vec::new())?;
                work()
            }
            other => other,
        }
    }

    /// Runs `work` on a thread of its own until it is done or the user presses Ctrl-C. Then it is left
    /// alone: it ends by itself, and nobody reads what it brings.
    fn interruptible<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let (sender, receiver) = mpsc::sync_channel(1);
        // The receiver may be gone: the user has pressed Ctrl-C.
        let run = move || drop(sender.send(work()));
        std::thread::Builder::new()
            .name("exchange".into())
            .spawn(run)
            .map_err(|error| Failure::Client(ClientError::Broken(error)))?;
        loop {
            match receiver.recv_timeout(LOOK) {
                Ok(result) => return result,
                Err(RecvTimeoutError::Timeout) if self.interrupted() => return Err(Failure::Interrupted),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Failure::Client(ClientError::Broken(
                        std::io::ErrorKind::UnexpectedEof.into(),
                    )));
                }
            }
        }
    }
}

impl Engine {
    fn exchange<C: Call + Clone>(&self, question: C, repeatable: bool) -> Result<C::Reply, Failure> {
        let kept = if repeatable { self.pool.take(&self.target.socket) } else { None };
        let client = match kept {
            Some(client) => client,
            None => self.connect()?,
        };
        match self.call(client, question.clone()) {
            Err(failure) if failure.is_broken() && repeatable => self.call(self.connect()?, question),
            Err(Failure::Client(error)) if error.is_broken() => Err(Failure::Unsure(error)),
            other => other,
        }
    }

    fn call<C: Call>(&self, mut client: Client, question: C) -> Result<C::Reply, Failure> {
        let answer = client.call(question);
        // A refusal leaves the connection usable; after anything else where the next answer starts is unknown.
        if matches!(answer, Ok(_) | Err(ClientError::Refused(_))) {
            self.pool.give(&self.target.socket, client);
        }
        Ok(answer?)
    }

    fn connect(&self) -> Result<Client, Failure> {
        Client::connect(&self.target.socket, Some(ANSWER_PATIENCE)).map_err(|error| match error {
            ClientError::NotRunning { socket } => {
                Failure::NotRunning { socket, help: self.target.how_to_start() }
            }
            other => other.into(),
        })
    }

    fn connect_or_start(
        &self,
        more_args: Vec<OsString>,
        variables: Variables,
    ) -> Result<(Client, bool), Failure> {
        let target = &self.target;
        // The engine's program is looked for only when it is needed.
        match Client::connect(&target.socket, Some(ANSWER_PATIENCE)) {
            Err(ClientError::NotRunning { .. }) => {}
            other => return Ok((other?, false)),
        }
        let (Some(program), Some(data_dir)) =
            (target.engine.clone().or_else(find_program), target.data_dir_to_start())
        else {
            return Err(Failure::NoProgram);
        };
        let args = target.engine_args(more_args);
        let options = StartOptions { program, data_dir, args, variables, patience: START_PATIENCE };
        Ok(connect_or_start(&target.socket, Some(ANSWER_PATIENCE), &options)?)
    }
}
