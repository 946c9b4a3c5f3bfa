//! What every answer looks like.
//!
//! `{"success": true, "data": …, "error": null}`, or `{"success": false, "data": null, "error": "what
//! was wrong", "code": "not_found", "details": {"help": …, "field": …}}`. The status code says the
//! same. A list has `cursor` beside `data`.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use orchestrator_protocol::{Error, ErrorCode};
use serde::Serialize;
use serde_json::{Value, json};

/// How long a client should wait before it asks again, in seconds.
const RETRY_AFTER_SECONDS: &str = "1";

/// An answer that succeeded.
#[derive(Debug, Serialize)]
pub struct Envelope<T> {
    success: bool,
    data: T,
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<Option<String>>,
}

impl<T> Envelope<T> {
    /// An answer.
    pub fn new(data: T) -> Self {
        Self { success: true, data, error: None, cursor: None }
    }

    /// A page of a list, and where the next one starts.
    pub fn page(data: T, cursor: Option<String>) -> Self {
        Self { cursor: Some(cursor), ..Self::new(data) }
    }
}

impl<T: Serialize> IntoResponse for Envelope<T> {
    fn into_response(self) -> Response {
        Json(self).into_response()
    }
}

/// An answer that failed.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    error: Error,
    data: Value,
}

impl ApiError {
    /// There is no such thing.
    pub fn not_found(message: impl Into<String>) -> Self {
        Error::not_found(message).into()
    }

    /// The request cannot be read.
    pub fn malformed(message: impl Into<String>) -> Self {
        Error::new(ErrorCode::Malformed, message).into()
    }

    /// The caller may not.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Error::new(ErrorCode::Forbidden, message).into()
    }

    /// A fault of ours. The message is for the log.
    pub fn internal(message: impl Into<String>) -> Self {
        Error::internal(message).into()
    }

    /// There is such a thing, but not for this method.
    pub fn method_not_allowed(message: impl Into<String>) -> Self {
        Self { status: StatusCode::METHOD_NOT_ALLOWED, ..Self::malformed(message) }
    }

    /// Adds data, for an answer that is more than an error.
    #[must_use]
    pub fn with_data(mut self, data: Value) -> Self {
        self.data = data;
        self
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        let status = match error.code {
            ErrorCode::Malformed => StatusCode::BAD_REQUEST,
            ErrorCode::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
            ErrorCode::NotFound => StatusCode::NOT_FOUND,
            ErrorCode::Conflict => StatusCode::CONFLICT,
            ErrorCode::Unauthenticated => StatusCode::UNAUTHORIZED,
            ErrorCode::Forbidden => StatusCode::FORBIDDEN,
            ErrorCode::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            ErrorCode::TooMany => StatusCode::TOO_MANY_REQUESTS,
            ErrorCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            ErrorCode::VersionMismatch | ErrorCode::Internal | ErrorCode::Unknown => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self { status, error, data: Value::Null }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let Self { status, mut error, data } = self;
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::error!(error = error.message, "a request failed");
            error = Error::internal("the engine failed; its log says more");
        }
        let mut details = serde_json::Map::new();
        details.extend(error.help.map(|help| ("help".to_owned(), help.into())));
        details.extend(error.field.map(|field| ("field".to_owned(), field.into())));
        let body = json!({
            "success": false,
            "data": data,
            "error": error.message,
            "code": error.code,
            "details": if details.is_empty() { Value::Null } else { details.into() },
        });
        let mut response = (status, Json(body)).into_response();
        if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS));
        }
        response
    }
}
