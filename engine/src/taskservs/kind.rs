//! The types of parameters: what each takes, and how it is called.

use orchestrator_protocol::name;
use serde_json::Value;

/// What the value of a parameter is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Boolean,
    Label,
    Address,
    Integer(i64, i64),
    Choice(Vec<String>),
}

impl Kind {
    /// Reads a type such as `integer 1 65535`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let words: Vec<&str> = text.split(' ').collect();
        match words[..] {
            ["text"] => Some(Self::Text),
            ["boolean"] => Some(Self::Boolean),
            ["label"] => Some(Self::Label),
            ["address"] => Some(Self::Address),
            ["integer", min, max] => Some(Self::Integer(bound(min)?, bound(max)?)),
            ["choice", _, ..] => {
                let is_word = |word: &&str| !word.is_empty() && !word.contains(char::is_whitespace);
                let choices = &words[1..];
                choices
                    .iter()
                    .all(is_word)
                    .then(|| Self::Choice(choices.iter().map(|&word| word.into()).collect()))
            }
            _ => None,
        }
    }

    /// Whether a value is one of these.
    pub(super) fn fits(&self, value: &Value) -> bool {
        match (self, value) {
            (Self::Text, Value::String(text)) => is_text(text),
            (Self::Boolean, Value::Bool(_)) => true,
            (Self::Label, Value::String(text)) => name::dns_label("label", text).is_ok(),
            (Self::Address, Value::String(text)) => is_address(text),
            (Self::Integer(min, max), Value::Number(number)) => {
                number.as_i64().is_some_and(|number| (*min..=*max).contains(&number))
            }
            (Self::Choice(choices), Value::String(text)) => choices.contains(text),
            _ => false,
        }
    }

    /// What it takes, for messages.
    pub(super) fn in_words(&self) -> String {
        match self {
            Self::Text => "a text".into(),
            Self::Boolean => "true or false".into(),
            Self::Label => "a name (1 to 63 of a-z, 0-9 and '-')".into(),
            Self::Address => "an IPv4 address".into(),
            Self::Integer(min, max) => format!("a whole number from {min} to {max}"),
            Self::Choice(choices) => format!("one of {}", choices.join(", ")),
        }
    }
}

/// A bound of a whole number: at most 18 digits.
fn bound(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let is_number = (1..=18).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok())?
}

/// Whether a text is on one line, and not empty.
pub(super) fn is_text(text: &str) -> bool {
    !text.is_empty() && !text.contains(['\0', '\r', '\n'])
}

/// Whether a text can be the name of a parameter.
pub(super) fn is_parameter_name(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

/// Four numbers up to 255. Leading zeros are taken, as the provisioning program takes them.
fn is_address(text: &str) -> bool {
    let is_part = |part: &str| {
        (1..=3).contains(&part.len())
            && part.bytes().all(|byte| byte.is_ascii_digit())
            && part.parse::<u16>().is_ok_and(|number| number <= 255)
    };
    text.split('.').count() == 4 && text.split('.').all(is_part)
}

/// A value, for messages.
pub(super) fn describe(value: &Value) -> String {
    match value {
        Value::Null => "nothing".into(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) if text.is_empty() => "an empty text".into(),
        Value::String(text) => format!("the text '{}'", text.replace('\n', " ")),
        Value::Array(_) => format!("the list {}", in_short(value)),
        Value::Object(_) => format!("the mapping {}", in_short(value)),
    }
}

fn in_short(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= 40 { text } else { text.chars().take(39).chain(['…']).collect() }
}

/// A value as scripts get it.
pub(super) fn as_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_type_takes_what_it_says() {
        for (kind, fitting, others) in [
            ("text", vec![json!("a b")], vec![json!(""), json!("a\nb"), json!(1), json!(null)]),
            ("boolean", vec![json!(true)], vec![json!("true"), json!(1)]),
            ("label", vec![json!("a-1")], vec![json!("A"), json!("-a"), json!(1)]),
            (
                "address",
                vec![json!("10.0.0.1")],
                vec![json!("10.0.0"), json!("10.0.0.256"), json!("a.b.c.d")],
            ),
            ("integer -1 3", vec![json!(-1), json!(3)], vec![json!(4), json!(1.0), json!("1")]),
            ("choice a b", vec![json!("b")], vec![json!("c"), json!("a b"), json!("")]),
        ] {
            let kind = Kind::parse(kind).unwrap();
            assert!(fitting.iter().all(|value| kind.fits(value)), "{kind:?}: {fitting:?}");
            assert!(!others.iter().any(|value| kind.fits(value)), "{kind:?}: {others:?}");
        }
    }

    #[test]
    fn what_is_no_type_is_refused() {
        for text in [
            "",
            "number",
            "integer",
            "integer 1",
            "integer 1 x",
            "integer + 1",
            "choice",
            "choice ",
            "choice a  b",
            "text ",
        ] {
            assert_eq!(Kind::parse(text), None, "{text:?}");
        }
    }
}
