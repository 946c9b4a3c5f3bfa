//! What every answer looks like.
//!
//! `{"success": true, "data": …, "error": null}`, or `{"success": false, "data": null, "error": "what
//! was wrong", "code": "not_found", "details": {"help": …, "field": …}}`. The status code says the
//! same. A list has `cursor` beside `data`, null on its last page; a query that was not understood has
//! `details.parameters`.

use axum::Json;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use orchestrator_protocol::{Error, ErrorCode};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// How long a client should wait before it asks again, in seconds.
const RETRY_AFTER_SECONDS: &str = "1";

/// An answer that succeeded.
#[derive(Debug, Serialize, ToSchema)]
pub struct Envelope<T> {
    /// Always true.
    success: bool,
    data: T,
    /// Always null.
    error: Option<String>,
}

impl<T> Envelope<T> {
    /// An answer.
    pub fn new(data: T) -> Self {
        Self { success: true, data, error: None }
    }
}

impl<T: Serialize> IntoResponse for Envelope<T> {
    fn into_response(self) -> Response {
        Json(self).into_response()
    }
}

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct Page<T> {
    /// Always true.
    success: bool,
    data: Vec<T>,
    /// Always null.
    error: Option<String>,
    /// Where the next page starts; null on the last.
    cursor: Option<String>,
}

impl<T> Page<T> {
    /// A page, and where the next one starts.
    pub fn new(data: Vec<T>, cursor: Option<String>) -> Self {
        Self { success: true, data, error: None, cursor }
    }
}

impl<T: Serialize> IntoResponse for Page<T> {
    fn into_response(self) -> Response {
        Json(self).into_response()
    }
}

/// An answer that failed.
#[derive(Debug, Serialize, ToSchema)]
pub struct Failure {
    /// Always false.
    success: bool,
    /// Null, except where an answer is more than an error.
    data: Value,
    /// What was wrong, in a sentence.
    error: String,
    /// What kind of no it is: `malformed`, `invalid`, `not_found`, `conflict`, `forbidden`,
    /// `unauthenticated`, `method_not_allowed`, `too_large`, `too_slow`, `too_many`,
    /// `unsupported_media_type`, `unavailable` or `internal`.
    code: &'static str,
    /// What a person or a program can go by: `help`, `field` (which part of the body it is about),
    /// `parameters` (which of the query), `line` and `column`, `task`.
    #[schema(value_type = Option<Object>)]
    details: Option<Map<String, Value>>,
}

/// An answer that failed.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
    details: Map<String, Value>,
    data: Value,
    closes: bool,
    /// Whether what was asked may have been done, so that nobody should ask it again unseen.
    may_be_done: bool,
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

    /// The request can be read and means nothing.
    pub fn invalid(message: impl Into<String>) -> Self {
        Error::invalid(message).into()
    }

    /// The caller may not.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Error::new(ErrorCode::Forbidden, message).into()
    }

    /// Too many bytes.
    pub fn too_large(message: impl Into<String>) -> Self {
        Error::new(ErrorCode::TooLarge, message).into()
    }

    /// Too many at once.
    pub fn too_many(message: impl Into<String>) -> Self {
        Error::new(ErrorCode::TooMany, message).into()
    }

    /// Not now.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Error::unavailable(message).into()
    }

    /// A fault of ours. The message is for the log.
    pub fn internal(message: impl Into<String>) -> Self {
        Error::internal(message).into()
    }

    /// The same, of a request that may have been done all the same: it says nothing of asking again.
    pub(crate) fn of_what_may_be_done(mut self) -> Self {
        self.may_be_done = true;
        self
    }

    /// There is such a thing, but not for this method.
    pub fn method_not_allowed(message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::METHOD_NOT_ALLOWED,
            code: "method_not_allowed",
            ..Self::malformed(message)
        }
    }

    /// The body is no JSON, or not said to be.
    pub fn unsupported_media_type(message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::UNSUPPORTED_MEDIA_TYPE,
            code: "unsupported_media_type",
            ..Self::malformed(message)
        }
    }

    /// The client took too long to send its request.
    pub fn too_slow(message: impl Into<String>) -> Self {
        Self { status: StatusCode::REQUEST_TIMEOUT, code: "too_slow", ..Self::malformed(message) }
    }

    /// What is wrong with a request that is nothing but a query is that it cannot be read: there is no
    /// body that could be understood and mean nothing.
    #[must_use]
    pub fn in_query(self) -> Self {
        match self.status {
            StatusCode::UNPROCESSABLE_ENTITY => {
                Self { status: StatusCode::BAD_REQUEST, code: "malformed", ..self }
            }
            _ => self,
        }
    }

    /// Names the field that it is about as the body has it, which is only a part of what the engine was
    /// asked: without `outer` at its beginning.
    #[must_use]
    pub fn without(mut self, outer: &str) -> Self {
        if let Some(Value::String(field)) = self.details.get_mut("field")
            && let Some(inner) = field.strip_prefix(outer)
        {
            *field = inner.to_owned();
        }
        self
    }

    /// Adds data, for an answer that is more than an error.
    #[must_use]
    pub fn with_data(mut self, data: Value) -> Self {
        self.data = data;
        self
    }

    /// Adds something that a person or a program can go by.
    #[must_use]
    pub fn with_detail(mut self, name: &str, detail: impl Into<Value>) -> Self {
        self.details.insert(name.to_owned(), detail.into());
        self
    }

    /// Ends the connection with this answer.
    #[must_use]
    pub fn closing(mut self) -> Self {
        self.closes = true;
        self
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        let (status, code) = match error.code {
            ErrorCode::Malformed => (StatusCode::BAD_REQUEST, "malformed"),
            ErrorCode::Invalid => (StatusCode::UNPROCESSABLE_ENTITY, "invalid"),
            ErrorCode::NotFound => (StatusCode::NOT_FOUND, "not_found"),
            ErrorCode::Conflict => (StatusCode::CONFLICT, "conflict"),
            ErrorCode::Unauthenticated => (StatusCode::UNAUTHORIZED, "unauthenticated"),
            ErrorCode::Forbidden => (StatusCode::FORBIDDEN, "forbidden"),
            ErrorCode::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
            ErrorCode::TooMany => (StatusCode::TOO_MANY_REQUESTS, "too_many"),
            ErrorCode::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
            ErrorCode::VersionMismatch | ErrorCode::Internal | ErrorCode::Unknown => {
                tracing::error!(code = ?error.code, error = error.message, "a request failed");
                return Self {
                    status: StatusCode::INTERNAL_SERVER_ERROR,
                    code: "internal",
                    message: "the engine failed; its log says more".to_owned(),
                    details: Map::new(),
                    data: Value::Null,
                    closes: false,
                    may_be_done: false,
                };
            }
        };
        let mut details = Map::new();
        details.extend(error.help.map(|help| ("help".to_owned(), help.into())));
        details.extend(error.field.map(|field| ("field".to_owned(), field.into())));
        Self {
            status,
            code,
            message: error.message,
            details,
            data: Value::Null,
            closes: false,
            may_be_done: false,
        }
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        let details = (!error.details.is_empty()).then_some(error.details);
        Self { success: false, data: error.data, error: error.message, code: error.code, details }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, closes, may_be_done) = (self.status, self.closes, self.may_be_done);
        let mut response = (status, Json(Failure::from(self))).into_response();
        let is_for_now = matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS);
        // Clients repeat by themselves what comes with this header.
        if is_for_now && !may_be_done {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS));
        }
        if closes {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// Whether a media type is asked for: it is accepted, and what there would be otherwise is not preferred to
/// it (RFC 9110, 12.5.1). Of what is equally welcome the first one wins.
pub(crate) fn prefers(headers: &HeaderMap, media_type: &str) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let offered = accepted.flat_map(|value| value.split(',')).filter_map(|range| {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next()?.to_ascii_lowercase();
        let is_meant = match name.as_str() {
            name if name == media_type => true,
            "application/json" | "application/*" | "text/event-stream" | "*/*" => false,
            _ => return None,
        };
        let quality = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        let quality: f32 = quality.map_or(Some(1.0), |quality| quality.parse().ok())?;
        (quality > 0.0).then_some((is_meant, quality))
    });
    let best = offered.reduce(|best, other| if other.1 > best.1 { other } else { best });
    best.is_some_and(|(is_meant, _)| is_meant)
}
