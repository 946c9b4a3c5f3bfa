//! An engine that is played: it speaks the protocol over a real socket and says what a test tells it to.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;

use nu_plugin_test_support::PluginTest;
use nu_protocol::{LabeledError, ShellError, Span, Value};
use orchestrator_protocol::event::Item;
use orchestrator_protocol::frame::{ClientFrame, Decoder, EngineFrame, encode};
use orchestrator_protocol::hello::Hello;
use orchestrator_protocol::request::{Request, Response, Subscription};
use orchestrator_protocol::{Error, Result};

use crate::plugin::Orchestrator;

/// What the engine does about a question.
pub enum Play {
    /// Answers.
    Answer(Box<Response>),
    /// Says no.
    Refuse(Error),
    /// Breaks the connection without a word.
    HangUp,
}

impl From<Response> for Play {
    fn from(response: Response) -> Self {
        Self::Answer(Box::new(response))
    }
}

/// What the engine does about a stream: these items, then its end, unless it hangs up or waits.
pub struct Stream {
    /// The items.
    pub items: Vec<Item>,
    /// What comes after them.
    pub then: Then,
}

/// What comes after the items of a stream.
pub enum Then {
    /// Its end.
    End(Option<Error>),
    /// Nothing: the connection breaks.
    HangUp,
    /// Nothing: the stream stays open.
    Wait,
}

/// How an engine behaves.
pub trait Behaviour: Send + Sync + 'static {
    /// Its hello.
    fn hello(&self) -> Hello {
        Hello::ours()
    }
    /// What it does about a question.
    fn answer(&self, request: &Request) -> Play {
        Play::Refuse(Error::internal(format!("{} was not expected", request.name())))
    }
    /// What it does about a stream.
    fn stream(&self, subscription: &Subscription) -> Stream {
        Stream { items: Vec::new(), then: Then::End(Some(Error::internal(format!("{subscription:?}")))) }
    }
}

/// A running engine.
pub struct Played {
    /// Its socket.
    pub socket: PathBuf,
    asked: Arc<Mutex<Vec<Request>>>,
    _directory: tempfile::TempDir,
}

impl Played {
    /// Starts to play.
    pub fn start(behaviour: impl Behaviour) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("s");
        let listener = UnixListener::bind(&socket).unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (behaviour, record) = (Arc::new(behaviour), Arc::clone(&asked));
        thread::spawn(move || {
            for connection in listener.incoming() {
                let (behaviour, record) = (Arc::clone(&behaviour), Arc::clone(&record));
                thread::spawn(move || converse(connection.unwrap(), &*behaviour, &record));
            }
        });
        Self { socket, asked, _directory: directory }
    }

    /// Everything it was asked, in order.
    pub fn asked(&self) -> Vec<Request> {
        self.asked.lock().unwrap().clone()
    }

    /// A shell with the plugin whose engine is this one.
    pub fn shell(&self) -> Shell {
        let mut test = PluginTest::new("orchestrator", Arc::new(Orchestrator::default())).unwrap();
        let mut set = |name: &str, value: &str| {
            test.engine_state_mut().add_env_var(name.into(), Value::test_string(value));
        };
        set("ORCHESTRATOR_SOCKET", self.socket.to_str().unwrap());
        set("PWD", "/tmp");
        Shell(test)
    }
}

/// A shell with the plugin.
pub struct Shell(pub PluginTest);

impl Shell {
    /// The value of a line.
    pub fn eval(&mut self, line: &str) -> std::result::Result<Value, ShellError> {
        match self.0.eval(line)?.into_value(Span::test_data())? {
            Value::Error { error, .. } => Err(*error),
            value => Ok(value),
        }
    }

    /// The value of a line that must succeed.
    pub fn value(&mut self, line: &str) -> Value {
        self.eval(line).unwrap()
    }

    /// The error of a line that must fail, and the text that it points at, without the name of a flag:
    /// Nushell counts that to the flag's value.
    pub fn error(&mut self, line: &str) -> (LabeledError, String) {
        let error = match self.eval(line).unwrap_err() {
            ShellError::LabeledError(error) => *error,
            other => LabeledError::from(other),
        };
        assert!(!error.labels.is_empty(), "{line}: {error:?}");
        let span = error.labels[0].span;
        let text = self.0.engine_state().get_span_contents(span);
        let text = String::from_utf8_lossy(text).into_owned();
        match text.strip_prefix("--").and_then(|rest| rest.split_once([' ', '='])) {
            Some((_, value)) => (error, value.to_owned()),
            None => (error, text),
        }
    }
}

fn converse(mut connection: UnixStream, behaviour: &dyn Behaviour, asked: &Mutex<Vec<Request>>) {
    let mut decoder = Decoder::default();
    while let Some(frame) = read(&mut connection, &mut decoder) {
        match frame {
            ClientFrame::Hello(_) => write(&mut connection, &EngineFrame::Hello(behaviour.hello())),
            ClientFrame::Call { id, request } => {
                asked.lock().unwrap().push((*request).clone());
                let result: Result<Box<Response>> = match behaviour.answer(&request) {
                    Play::Answer(response) => Ok(response),
                    Play::Refuse(error) => Err(error),
                    Play::HangUp => return,
                };
                write(&mut connection, &EngineFrame::Reply { id, result });
            }
            ClientFrame::Subscribe { id, subscription } => {
                let Stream { items, then } = behaviour.stream(&subscription);
                for item in items {
                    write(&mut connection, &EngineFrame::Item { id, item });
                }
                match then {
                    Then::End(error) => write(&mut connection, &EngineFrame::End { id, error }),
                    Then::HangUp => return,
                    Then::Wait => {}
                }
            }
            ClientFrame::Unsubscribe { .. } => {}
        }
    }
}

fn read(connection: &mut UnixStream, decoder: &mut Decoder) -> Option<ClientFrame> {
    let mut buffer = [0; 4096];
    loop {
        if let Some(frame) = decoder.next_frame().unwrap() {
            return Some(frame);
        }
        match connection.read(&mut buffer) {
            Ok(read) if read > 0 => decoder.push(&buffer[..read]),
            _ => return None,
        }
    }
}

fn write(connection: &mut UnixStream, frame: &EngineFrame) {
    // The plugin may have hung up.
    let _ = connection.write_all(&encode(frame).unwrap());
}
