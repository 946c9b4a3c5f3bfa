//! Between Nushell's values and JSON, which is what scripts are given and what they report.

use std::borrow::Cow;

use nu_protocol::{LabeledError, Record, Span, Value};
use serde_json::{Map, Number, Value as Json};

use crate::errors::invalid;

/// The JSON of a value, the same as `to json` makes: dates are text, durations nanoseconds, file sizes
/// bytes, and bytes a list of numbers. What has no JSON is an error that points at it.
pub fn to_json(value: &Value) -> Result<Json, LabeledError> {
    let no_json = |what: Cow<'_, str>| {
        invalid(format!("{what} cannot be a parameter"), "has no form in JSON", value.span())
            .with_help("parameters reach the script as JSON: use text, numbers, lists and records")
    };
    Ok(match value {
        Value::Nothing { .. } => Json::Null,
        Value::Bool { val, .. } => Json::Bool(*val),
        Value::Int { val, .. } | Value::Duration { val, .. } => Json::from(*val),
        Value::Filesize { val, .. } => Json::from(val.get()),
        Value::Float { val, .. } => {
            Json::Number(Number::from_f64(*val).ok_or_else(|| no_json(format!("The number {val}").into()))?)
        }
        Value::String { val, .. } | Value::Glob { val, .. } => Json::String(val.clone()),
        Value::Date { val, .. } => Json::String(val.to_rfc3339()),
        Value::Binary { val, .. } => Json::from(val.to_vec()),
        Value::List { vals, .. } => Json::Array(vals.iter().map(to_json).collect::<Result<_, _>>()?),
        Value::Record { val, .. } => {
            let entry =
                |(key, value): (&String, &Value)| Ok::<_, LabeledError>((key.clone(), to_json(value)?));
            Json::Object(val.iter().map(entry).collect::<Result<Map<_, _>, _>>()?)
        }
        Value::Error { error, .. } => return Err((**error).clone().into()),
        other => return Err(no_json(format!("A {}", other.get_type()).into())),
    })
}

/// The value of a JSON. A number that is too large for Nushell's whole numbers becomes a float.
pub fn to_value(json: &Json, span: Span) -> Value {
    match json {
        Json::Null => Value::nothing(span),
        Json::Bool(value) => Value::bool(*value, span),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => Value::int(whole, span),
            (None, Some(float)) => Value::float(float, span),
            (None, None) => Value::string(number.to_string(), span),
        },
        Json::String(text) => Value::string(text.clone(), span),
        Json::Array(items) => Value::list(items.iter().map(|item| to_value(item, span)).collect(), span),
        Json::Object(entries) => {
            let record: Record =
                entries.iter().map(|(key, value)| (key.clone(), to_value(value, span))).collect();
            Value::record(record, span)
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use nu_protocol::{BlockId, engine::Closure, record};
    use serde_json::json;

    use super::*;

    #[test]
    fn plain_values_survive_the_way_there_and_back() {
        let value = Value::test_record(record! {
            "text" => Value::test_string("ü; $(rm)"),
            "numbers" => Value::test_list(vec![Value::test_int(i64::MIN), Value::test_float(0.5)]),
            "nothing" => Value::test_nothing(),
            "nested" => Value::test_record(record! { "on" => Value::test_bool(true) }),
        });
        assert_eq!(to_value(&to_json(&value).unwrap(), Span::test_data()), value);
    }

    #[test]
    fn typed_values_become_what_to_json_makes_of_them() {
        assert_eq!(to_json(&Value::test_duration(5)).unwrap(), json!(5));
        assert_eq!(to_json(&Value::test_filesize(1024)).unwrap(), json!(1024));
        assert_eq!(to_json(&Value::test_binary([1, 255])).unwrap(), json!([1, 255]));
        let date = chrono::DateTime::parse_from_rfc3339("2024-05-06T07:08:09+02:00").unwrap();
        assert_eq!(to_json(&Value::test_date(date)).unwrap(), json!("2024-05-06T07:08:09+02:00"));
    }

    #[test]
    fn what_has_no_json_is_pointed_at() {
        let span = Span::new(3, 8);
        let closure = Closure { block_id: BlockId::new(0), captures: Vec::new() };
        for value in [Value::closure(closure, span), Value::float(f64::NAN, span)] {
            let outer = Value::test_list(vec![Value::test_int(1), value]);
            assert_eq!(to_json(&outer).unwrap_err().labels[0].span, span);
        }
    }

    #[test]
    fn a_number_beyond_whole_numbers_is_a_float() {
        assert_eq!(to_value(&json!(u64::MAX), Span::test_data()), Value::test_float(u64::MAX as f64));
    }
}
