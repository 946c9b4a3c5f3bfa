//! How the engine says no: one error for every door.

use serde::{Deserialize, Serialize};

/// The result of a request.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of no it is. REST maps each to a status code; the plugin to an error code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The request cannot be read.
    Malformed,
    /// The request can be read and means nothing: an unknown dependency, a bad name.
    Invalid,
    /// There is no such thing.
    NotFound,
    /// It contradicts what is there: an illegal change of state, a used key.
    Conflict,
    /// The caller is unknown.
    Unauthenticated,
    /// The caller may not do that.
    Forbidden,
    /// Too many bytes.
    TooLarge,
    /// Too many requests at once.
    TooMany,
    /// Not now: stopping, draining, storage full or away. It may work later.
    Unavailable,
    /// The two sides do not speak the same version.
    VersionMismatch,
    /// A fault of the engine; its log says more.
    Internal,
    /// A code of a newer release.
    #[serde(other)]
    Unknown,
}

/// Why a request was refused or failed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// What kind of no.
    pub code: ErrorCode,
    /// What was wrong, in a sentence.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// Which part of the request it is about, such as `tasks[2].after[0]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
}

impl Error {
    /// An error from a code and a sentence.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), help: None, field: None }
    }

    /// The request means nothing.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Invalid, message)
    }

    /// There is no such thing.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::NotFound, message)
    }

    /// It contradicts what is there.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Conflict, message)
    }

    /// Not now.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Unavailable, message)
    }

    /// A fault of ours.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Internal, message)
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds which part of the request it is about.
    #[must_use]
    pub fn with_field(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }
}

impl From<crate::name::InvalidName> for Error {
    fn from(invalid: crate::name::InvalidName) -> Self {
        Error::invalid(invalid.to_string())
    }
}

impl From<crate::state::IllegalTransition> for Error {
    fn from(illegal: crate::state::IllegalTransition) -> Self {
        Error::conflict(illegal.to_string())
    }
}
