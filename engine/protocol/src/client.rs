//! Clients of the local socket, and how an engine is started.
//!
//! [`Client`] blocks: it is what the plugin uses. Questions go one after the other over one
//! connection; a stream of answers takes a connection of its own ([`Items`]), which is looked at with
//! a timeout, so that Ctrl-C can be honoured between two looks. [`asynchronous::AsyncClient`] has
//! many questions in flight over one connection. [`start`] finds an engine or starts one.

pub mod asynchronous;
pub mod start;

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use interprocess::local_socket::{ConnectOptions, GenericFilePath, Stream, prelude::*};

use crate::error::{Error, ErrorCode};
use crate::event::Item;
use crate::frame::{self, ClientFrame, Decoder, EngineFrame, FrameError};
use crate::hello::{Hello, Side};
use crate::request::{Call, Subscription, UnexpectedResponse};

/// How long a side may take for its hello.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a client has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens on the socket.
    #[error("no engine is running: nothing listens on {}", socket.display())]
    NotRunning {
        /// The socket.
        socket: PathBuf,
    },
    /// The engine said no.
    #[error(transparent)]
    Refused(#[from] Error),
    /// The connection broke; whether the engine has read the question is not known.
    #[error("the connection to the engine broke")]
    Broken(#[source] io::Error),
    /// The engine took too long.
    #[error("the engine did not answer within {} ms", waited.as_millis())]
    TimedOut {
        /// How long it was waited for.
        waited: Duration,
    },
    /// The engine sent something that cannot be read.
    #[error("the engine's answer cannot be read")]
    Garbled(#[from] FrameError),
    /// The engine answered something else.
    #[error(transparent)]
    Unexpected(#[from] UnexpectedResponse),
}

impl ClientError {
    /// Whether a new connection may help.
    pub fn is_broken(&self) -> bool {
        matches!(self, Self::Broken(_))
    }
}

/// A connection that asks one question at a time.
#[derive(Debug)]
pub struct Client {
    stream: Stream,
    decoder: Decoder,
    next_id: u64,
    timeout: Option<Duration>,
    engine: Hello,
}

impl Client {
    /// Connects to the engine behind a socket. `timeout` bounds each wait for an answer; without one
    /// it waits as long as the engine lives.
    pub fn connect(socket: &Path, timeout: Option<Duration>) -> Result<Self, ClientError> {
        let not_running = || ClientError::NotRunning { socket: socket.to_owned() };
        let name = socket.to_fs_name::<GenericFilePath>().map_err(ClientError::Broken)?;
        let stream = ConnectOptions::new().name(name).connect_sync().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => not_running(),
            _ => ClientError::Broken(error),
        })?;
        let mut client =
            Self { stream, decoder: Decoder::default(), next_id: 1, timeout, engine: Hello::ours() };
        client.send(&ClientFrame::Hello(Hello::ours()))?;
        let patience = timeout.unwrap_or(HELLO_TIMEOUT).min(HELLO_TIMEOUT);
        match client.receive(Some(patience))? {
            EngineFrame::Hello(hello) => {
                Hello::ours().check(Side::Client, &hello)?;
                client.engine = hello;
                Ok(client)
            }
            EngineFrame::Refused(error) => Err(error.into()),
            _ => Err(UnexpectedResponse.into()),
        }
    }

    /// What the engine said of itself.
    pub fn engine(&self) -> &Hello {
        &self.engine
    }

    /// Asks a question and waits for its answer.
    pub fn call<C: Call>(&mut self, call: C) -> Result<C::Reply, ClientError> {
        let id = self.next_id;
        self.next_id += 1;
        self.send(&ClientFrame::Call { id, request: Box::new(call.into()) })?;
        loop {
            match self.receive(self.timeout)? {
                EngineFrame::Reply { id: of, result } if of == id => return Ok(C::reply(*result?)?),
                EngineFrame::Refused(error) => return Err(error.into()),
                // The late answer to a question that timed out.
                EngineFrame::Reply { .. } | EngineFrame::Item { .. } | EngineFrame::End { .. } => {}
                EngineFrame::Hello(_) => return Err(UnexpectedResponse.into()),
            }
        }
    }

    /// Asks a question with many answers. The connection belongs to it from now on.
    pub fn subscribe(mut self, subscription: Subscription) -> Result<Items, ClientError> {
        let id = self.next_id;
        self.send(&ClientFrame::Subscribe { id, subscription })?;
        Ok(Items { client: self, ended: false })
    }

    fn send(&mut self, frame: &ClientFrame) -> Result<(), ClientError> {
        let bytes = frame::encode(frame)?;
        self.stream.write_all(&bytes).and_then(|()| self.stream.flush()).map_err(ClientError::Broken)
    }

    fn receive(&mut self, timeout: Option<Duration>) -> Result<EngineFrame, ClientError> {
        let deadline = timeout.map(|timeout| (Instant::now() + timeout, timeout));
        let mut buffer = [0; 16 * 1024];
        loop {
            if let Some(frame) = self.decoder.next_frame()? {
                return Ok(frame);
            }
            let left = deadline.map(|(at, _)| at.saturating_duration_since(Instant::now()));
            if let (Some(Duration::ZERO), Some((_, waited))) = (left, deadline) {
                return Err(ClientError::TimedOut { waited });
            }
            self.stream.set_recv_timeout(left).map_err(ClientError::Broken)?;
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(ClientError::Broken(io::ErrorKind::UnexpectedEof.into())),
                Ok(read) => self.decoder.push(&buffer[..read]),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted => {}
                    _ => return Err(ClientError::Broken(error)),
                },
            }
        }
    }
}

/// What a look at a stream found.
#[derive(Debug, Clone, PartialEq)]
pub enum Look {
    /// An item.
    Item(Box<Item>),
    /// Nothing yet.
    Nothing,
    /// The stream has come to its end.
    End,
}

/// The answers of a [`Subscription`].
#[derive(Debug)]
pub struct Items {
    client: Client,
    ended: bool,
}

impl Items {
    /// Waits at most `patience` for the next item.
    pub fn next(&mut self, patience: Duration) -> Result<Look, ClientError> {
        if self.ended {
            return Ok(Look::End);
        }
        match self.client.receive(Some(patience)) {
            Ok(EngineFrame::Item { item, .. }) => Ok(Look::Item(Box::new(item))),
            Ok(EngineFrame::End { error, .. }) => {
                self.ended = true;
                error.map_or(Ok(Look::End), |error| Err(error.into()))
            }
            Ok(EngineFrame::Refused(error)) => Err(error.into()),
            Ok(EngineFrame::Reply { .. } | EngineFrame::Hello(_)) => Err(UnexpectedResponse.into()),
            Err(ClientError::TimedOut { .. }) => Ok(Look::Nothing),
            Err(error) => Err(error),
        }
    }
}

/// The error of a question that the engine of another release does not know.
pub(crate) fn stopped() -> Error {
    Error::new(ErrorCode::Unavailable, "the engine closed the connection")
}
