//! The body of a request: JSON, read within bounds, and told precisely what is wrong with it.
//!
//! What is no JSON is 400, with `details.line` and `details.column`. JSON that means nothing, such as a
//! wrong type, an unknown field or a missing one, is 422, with `details.field`. A body that is not said
//! to be `application/json` is 415, so that no form of a page in a browser is ever taken for one.

use std::fmt;
use std::marker::PhantomData;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::de::value::MapAccessDeserializer;
use serde::de::{
    self, Deserialize, DeserializeOwned, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde_json::Value;
use serde_json::error::Category;

use crate::envelope::ApiError;
use crate::state::AppState;

/// What was sent.
#[derive(Debug)]
pub struct Sent<T>(pub T);

/// What was sent, or the default where the body is empty or null.
#[derive(Debug)]
pub struct SentOrDefault<T>(pub T);

impl<T: DeserializeOwned> FromRequest<AppState> for Sent<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, ApiError> {
        check_type(request.headers())?;
        let Object(value) = parse(&read(request, state).await?)?;
        Ok(Self(value))
    }
}

impl<T: DeserializeOwned + Default> FromRequest<AppState> for SentOrDefault<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, ApiError> {
        let is_typed = request.headers().contains_key(header::CONTENT_TYPE);
        if is_typed {
            check_type(request.headers())?;
        }
        let bytes = read(request, state).await?;
        match (bytes.is_empty(), is_typed) {
            (true, _) => Ok(Self(T::default())),
            (false, true) => {
                Ok(Self(parse::<Option<Object<T>>>(&bytes)?.map(|Object(value)| value).unwrap_or_default()))
            }
            (false, false) => Err(not_json()),
        }
    }
}

fn not_json() -> ApiError {
    ApiError::unsupported_media_type("the body must be JSON, and be said to be")
        .with_detail("help", "send the header Content-Type: application/json")
}

/// Whether the body is said to be JSON.
fn check_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let is_json = |value: &HeaderValue| {
        let essence = value.to_str().ok()?.split(';').next()?;
        Some(essence.trim().eq_ignore_ascii_case("application/json"))
    };
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    match (types.next().and_then(is_json), types.next()) {
        (Some(true), None) => Ok(()),
        _ => Err(not_json()),
    }
}

/// The whole body, as long as it is neither too large nor too slow.
async fn read(request: Request, state: &AppState) -> Result<Bytes, ApiError> {
    let limits = state.limits();
    match tokio::time::timeout(limits.body, Bytes::from_request(request, state)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        // The rest of it is on its way, so nothing else can come on this connection.
        Ok(Err(refused)) if refused.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            let limit = limits.body_bytes;
            Err(ApiError::too_large(format!("the body has more than the {limit} bytes that are read"))
                .closing())
        }
        Ok(Err(_)) => Err(ApiError::malformed("the body breaks off").closing()),
        Err(_) => Err(ApiError::too_slow("the body took too long to come").closing()),
    }
}

/// Reads JSON.
fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        // What means nothing may be followed by what is no JSON, which comes first.
        match serde_json::from_slice::<IgnoredAny>(bytes) {
            Ok(_) => refused(&error.path().to_string(), error.inner()),
            Err(broken) => refused(".", &broken),
        }
    })?;
    json.end().map_err(|error| refused(".", &error))?;
    Ok(value)
}

/// Reads a part of a body that depends on another part. `place` is the field that it is in.
pub(crate) fn part<T: DeserializeOwned>(value: Value, place: &str) -> Result<T, ApiError> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = match error.path().to_string() {
            inner if inner == "." => place.to_owned(),
            inner => format!("{place}.{inner}"),
        };
        refused(&path, error.inner())
    })
}

/// What is wrong with a body: its form, or what it says in the field at `path`.
fn refused(path: &str, error: &serde_json::Error) -> ApiError {
    let whole = error.to_string();
    let problem = whole.rsplit_once(" at line ").map_or(whole.as_str(), |(problem, _)| problem);
    match error.classify() {
        Category::Syntax | Category::Eof | Category::Io => {
            ApiError::malformed(format!("the body is not JSON: {whole}"))
                .with_detail("line", error.line())
                .with_detail("column", error.column())
        }
        Category::Data => match field(path, problem) {
            Some(field) => ApiError::invalid(format!("{field}: {problem}")).with_detail("field", field),
            None => ApiError::invalid(format!("the body means nothing: {problem}")),
        },
    }
}

/// Which field a problem is about. Of one that is missing or unknown the path says only where it should
/// or should not be, and the problem its name.
fn field(path: &str, problem: &str) -> Option<String> {
    let quoted = ["missing field `", "unknown field `", "duplicate field `"]
        .iter()
        .find_map(|start| problem.strip_prefix(start)?.split('`').next());
    let place = (path != ".").then_some(path);
    match (place, quoted) {
        (Some(place), Some(name)) if place != name && !place.ends_with(&format!(".{name}")) => {
            Some(format!("{place}.{name}"))
        }
        (Some(place), _) => Some(place.to_owned()),
        (None, name) => name.map(str::to_owned),
    }
}

/// What is read from an object only. A list of the right length would otherwise be taken for the fields
/// in their order.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Asked for a map, serde_json would refuse a list in its own words.
        deserializer.deserialize_any(Fields(PhantomData)).map(Self)
    }
}

struct Fields<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
    type Value = T;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(fields))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<T, A::Error> {
        Err(de::Error::custom("it is a list, and should be an object"))
    }
}

/// A field that holds an object, or nothing.
pub(crate) fn object_if_any<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    Ok(Option::<Object<T>>::deserialize(deserializer)?.map(|Object(value)| value))
}

/// A field that holds objects.
pub(crate) fn objects<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    Ok(Vec::<Object<T>>::deserialize(deserializer)?.into_iter().map(|Object(value)| value).collect())
}
