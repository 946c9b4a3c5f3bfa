//! Errors as the user sees them: what went wrong, where in what was typed, and what to do.
//!
//! [`Failure`] is why the engine gave no answer; only here it becomes a [`LabeledError`]. Each carries a
//! code, `orchestrator::not_found` and the like, which scripts can compare in a `catch`.

use std::error::Error as _;
use std::path::PathBuf;

use nu_protocol::{LabeledError, ShellError, Span};
use orchestrator_protocol::client::ClientError;
use orchestrator_protocol::client::start::StartError;
use orchestrator_protocol::{Error, ErrorCode};

/// Why there is no answer.
#[derive(Debug)]
pub enum Failure {
    /// Nobody listens on the socket.
    NotRunning {
        /// The socket.
        socket: PathBuf,
        /// What to do about it.
        help: String,
    },
    /// The engine's program is not to be found.
    NoProgram,
    /// Talking to the engine failed, or it said no.
    Client(ClientError),
    /// The connection broke while something was asked that must not be asked twice.
    Unsure(ClientError),
    /// It could not be started.
    Start(StartError),
    /// The shell did not say what it was asked.
    Shell(Box<ShellError>),
    /// The user pressed Ctrl-C.
    Interrupted,
}

impl From<ShellError> for Failure {
    fn from(error: ShellError) -> Self {
        Self::Shell(Box::new(error))
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Client(error) => Self::Client(error),
            other => Self::Start(other),
        }
    }
}

impl Failure {
    /// The error, pointing at `span`.
    pub fn at(self, span: Span) -> LabeledError {
        self.at_field(span, |_| None)
    }

    /// The error, pointing at whatever made the part of the request that the engine complains about, else
    /// at `span`. `find` is given names such as `tasks[2].after[0]`.
    pub fn at_field(self, span: Span, find: impl FnOnce(&str) -> Option<Span>) -> LabeledError {
        match self {
            Self::NotRunning { socket, help } => error(
                "not_running",
                "No engine is running",
                format!("nothing listens on {}", socket.display()),
                span,
            )
            .with_help(help),
            Self::NoProgram => error(
                "no_program",
                "The engine's program is not to be found",
                "there is no 'orchestrator' beside the plugin or on the PATH",
                span,
            )
            .with_help(
                "set $env.ORCHESTRATOR_ENGINE, or engine in $env.config.plugins.orchestrator, to its path",
            ),
            Self::Shell(error) => (*error).into(),
            Self::Interrupted => ShellError::Interrupted { span }.into(),
            Self::Client(ClientError::Refused(refusal)) => {
                let span = refusal.field.as_deref().and_then(find).unwrap_or(span);
                refused(refusal, span)
            }
            Self::Client(broken) => client(&broken, span),
            Self::Unsure(broken) => client(&broken, span).with_help(
                "whether the engine has done it is not known: look with `orchestrator task list`. \
                 A submission with --idempotency-key can be sent again safely",
            ),
            Self::Start(start) => starting(&start, span),
        }
    }

    /// Whether nobody listens on the socket.
    pub fn is_not_running(&self) -> bool {
        matches!(self, Self::NotRunning { .. } | Self::Client(ClientError::NotRunning { .. }))
    }

    /// Whether the engine said that it contradicts what is there.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Client(ClientError::Refused(error)) if error.code == ErrorCode::Conflict)
    }

    /// Whether the engine said that it cannot answer now.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Client(ClientError::Refused(error)) if error.code == ErrorCode::Unavailable)
    }

    /// Whether a new connection may help.
    pub fn is_broken(&self) -> bool {
        matches!(self, Self::Client(error) if error.is_broken())
    }
}

/// An error of the user's own, pointing at what was typed.
pub fn invalid(message: impl Into<String>, label: impl Into<String>, span: Span) -> LabeledError {
    error("invalid", message, label, span)
}

/// An error with a code of ours.
pub fn error(code: &str, message: impl Into<String>, label: impl Into<String>, span: Span) -> LabeledError {
    LabeledError::new(message).with_label(label, span).with_code(format!("orchestrator::{code}"))
}

fn refused(refusal: Error, span: Span) -> LabeledError {
    let (code, label) = match refusal.code {
        ErrorCode::Malformed => ("malformed", "the engine cannot read this"),
        ErrorCode::Invalid => ("invalid", "not accepted"),
        ErrorCode::NotFound => ("not_found", "the engine knows no such thing"),
        ErrorCode::Conflict => ("conflict", "contradicts what is there"),
        ErrorCode::Unauthenticated => ("unauthenticated", "the engine does not know who asks"),
        ErrorCode::Forbidden => ("forbidden", "not allowed"),
        ErrorCode::TooLarge => ("too_large", "too large"),
        ErrorCode::TooMany => ("too_many", "too many requests at once"),
        ErrorCode::Unavailable => ("unavailable", "not now"),
        ErrorCode::VersionMismatch => ("version_mismatch", "plugin and engine do not understand each other"),
        ErrorCode::Internal => ("internal", "the engine failed; its log says more"),
        ErrorCode::Unknown => ("unknown", "refused by the engine"),
    };
    let labeled = error(code, capitalised(&refusal.message), label, span);
    match refusal.help {
        Some(help) => labeled.with_help(help),
        None => labeled,
    }
}

fn client(failure: &ClientError, span: Span) -> LabeledError {
    let cause = failure.source().map(ToString::to_string);
    match failure {
        ClientError::NotRunning { socket } => error(
            "not_running",
            "The engine has gone",
            format!("nothing listens on {} any more", socket.display()),
            span,
        )
        .with_help("start it again with `orchestrator start`; no task that it has accepted is lost"),
        ClientError::Broken(_) => error(
            "connection_broken",
            "The connection to the engine broke",
            cause.unwrap_or_else(|| "no answer came".into()),
            span,
        )
        .with_help("`orchestrator status` tells whether it still runs; no task that it has accepted is lost"),
        ClientError::TimedOut { .. } => {
            error("timed_out", capitalised(&failure.to_string()), "no answer came", span)
                .with_help("`orchestrator doctor` tells more; the engine's log is in its data directory")
        }
        ClientError::Refused(refusal) => refused(refusal.clone(), span),
        ClientError::Garbled(_) | ClientError::Unexpected(_) => error(
            "protocol",
            capitalised(&failure.to_string()),
            cause.unwrap_or_else(|| "not what was asked".into()),
            span,
        )
        .with_help("install the plugin and the engine from the same release"),
    }
}

fn starting(failure: &StartError, span: Span) -> LabeledError {
    let cause =
        failure.source().map_or_else(|| "it ended before it was ready".to_owned(), ToString::to_string);
    let labeled = match failure {
        StartError::Exited { status, log } => {
            let said = log.trim();
            let help = if said.is_empty() {
                "it has left no message".to_owned()
            } else {
                format!("it says: {said}")
            };
            return error(
                "start_failed",
                "The engine did not start",
                format!("it ended with {status}"),
                span,
            )
            .with_help(help);
        }
        StartError::NotReady { .. } => {
            error("start_failed", capitalised(&failure.to_string()), "it was not ready in time", span)
        }
        _ => error("start_failed", capitalised(&failure.to_string()), cause, span),
    };
    labeled.with_help("`orchestrator doctor` checks the set-up")
}

/// A sentence as it stands at the beginning of an error.
fn capitalised(sentence: &str) -> String {
    let mut letters = sentence.chars();
    match letters.next() {
        Some(first) => first.to_uppercase().chain(letters).collect(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_points_at_the_part_that_is_refused() {
        let typed = Span::new(10, 20);
        let head = Span::new(0, 5);
        let refusal = || {
            let error = Error::invalid("the script x.nu does not exist")
                .with_help("look again")
                .with_field("tasks[0].script");
            Failure::Client(ClientError::Refused(error))
        };
        let labeled = refusal().at_field(head, |field| (field == "tasks[0].script").then_some(typed));
        assert_eq!(labeled.msg, "The script x.nu does not exist");
        assert_eq!(labeled.labels[0].span, typed);
        assert_eq!(labeled.help.as_deref(), Some("look again"));
        assert_eq!(labeled.code.as_deref(), Some("orchestrator::invalid"));
        assert_eq!(refusal().at(head).labels[0].span, head);
    }

    #[test]
    fn every_failure_has_a_code_a_place_and_says_what_to_do() {
        let head = Span::new(1, 2);
        let socket = PathBuf::from("/run/x.sock");
        let broken = || ClientError::Broken(std::io::ErrorKind::ConnectionReset.into());
        let failures = [
            Failure::NotRunning { socket: socket.clone(), help: "start it".into() },
            Failure::NoProgram,
            Failure::Client(ClientError::NotRunning { socket: socket.clone() }),
            Failure::Client(broken()),
            Failure::Unsure(broken()),
            Failure::Client(ClientError::TimedOut { waited: std::time::Duration::from_secs(1) }),
            Failure::Start(StartError::NotReady {
                waited: std::time::Duration::from_secs(9),
                log: "/var/log".into(),
            }),
            Failure::Start(StartError::Spawn {
                program: socket,
                source: std::io::ErrorKind::NotFound.into(),
            }),
        ];
        for failure in failures {
            let named = format!("{failure:?}");
            let labeled = failure.at(head);
            assert!(labeled.code.is_some_and(|code| code.starts_with("orchestrator::")), "{named}");
            assert_eq!(labeled.labels[0].span, head, "{named}");
            assert!(labeled.help.is_some(), "{named}");
            assert!(labeled.msg.starts_with(char::is_uppercase), "{named}");
        }
    }
}
