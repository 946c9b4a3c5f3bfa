//! Nushell values of the engine's answers.
//!
//! Times are dates in the local zone, lengths of time are durations, sizes are file sizes, ids are
//! strings, and what is not known is null. Column names are the same everywhere.

pub mod engine;
pub mod environment;
pub mod event;
pub mod json;
pub mod log;
pub mod storage;
pub mod task;

use chrono::{DateTime, Local, Utc};
use nu_protocol::{Span, Value};

/// A point in time, in the local zone.
pub fn time(time: DateTime<Utc>, span: Span) -> Value {
    Value::date(time.with_timezone(&Local).fixed_offset(), span)
}

/// A length of time in milliseconds.
pub fn milliseconds(milliseconds: u64, span: Span) -> Value {
    let nanoseconds = i64::try_from(milliseconds).unwrap_or(i64::MAX).saturating_mul(1_000_000);
    Value::duration(nanoseconds, span)
}

/// The time between two points; none is shorter than nothing.
pub fn between(from: DateTime<Utc>, to: DateTime<Utc>, span: Span) -> Value {
    let length = (to - from).num_milliseconds().max(0);
    Value::duration(length.saturating_mul(1_000_000), span)
}

/// A count.
pub fn count(number: impl TryInto<i64>, span: Span) -> Value {
    Value::int(number.try_into().unwrap_or(i64::MAX), span)
}

/// A list of texts.
pub fn texts<T: ToString>(texts: impl IntoIterator<Item = T>, span: Span) -> Value {
    Value::list(texts.into_iter().map(|text| Value::string(text.to_string(), span)).collect(), span)
}

/// A record with a text for each key.
pub fn text_map<'a>(map: impl IntoIterator<Item = (&'a String, String)>, span: Span) -> Value {
    let columns = map.into_iter().map(|(key, text)| (key.clone(), Value::string(text, span)));
    Value::record(columns.collect(), span)
}

/// What may be missing: null then.
pub fn optional<T>(value: Option<T>, span: Span, make: impl FnOnce(T) -> Value) -> Value {
    value.map_or_else(|| Value::nothing(span), make)
}

/// A text that may be missing.
pub fn optional_text(text: Option<impl ToString>, span: Span) -> Value {
    optional(text, span, |text| Value::string(text.to_string(), span))
}
