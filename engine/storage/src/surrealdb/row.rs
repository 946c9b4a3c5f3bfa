//! Records as rows, and back.
//!
//! One table for each kind of record; a row's id is the record's identifier. What is absent is left
//! out. A label is a word (`table`, name and value in one, the name's length first) and a row of the
//! table `label` of its own, because no index serves a search in a list.

use std::sync::Arc;

use serde_json::value::RawValue;
use surrealdb::types::{Array, Number, Object, RecordId, RecordIdKey, Value};

use crate::record::{Fields, Key, Record, Revision, Table};

/// The name of a table in the database.
pub(super) fn table_name(table: Table) -> &'static str {
    match table {
        Table::Task => "task",
        Table::IdempotencyKey => "idempotency_key",
        Table::Lock => "lock",
        Table::Control => "control",
        Table::Engine => "engine",
        Table::Environment => "environment",
        Table::Audit => "audit",
        Table::Principal => "principal",
        Table::LogSegment => "log_segment",
    }
}

/// A record's id.
pub(super) fn record_id(key: &Key) -> RecordId {
    RecordId::new(table_name(key.table), &*key.id)
}

/// The key that belongs to a record's id.
pub(super) fn key(id: Value) -> Option<Key> {
    let Value::RecordId(RecordId { table, key: RecordIdKey::String(id) }) = id else { return None };
    let table = Table::ALL.into_iter().find(|known| table_name(*known) == table.as_str())?;
    Some(Key::new(table, id))
}

/// An object from names and values.
pub(super) fn object<const N: usize>(fields: [(&str, Value); N]) -> Object {
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// A list.
pub(super) fn list(values: impl IntoIterator<Item = Value>) -> Value {
    Value::Array(Array::from(values.into_iter().collect::<Vec<_>>()))
}

/// A list of ids.
pub(super) fn ids(ids: impl IntoIterator<Item = RecordId>) -> Value {
    list(ids.into_iter().map(Value::RecordId))
}

/// A whole number. What is counted here stays far below the bound.
pub(super) fn number(n: u64) -> Value {
    Value::Number(Number::Int(i64::try_from(n).unwrap_or(i64::MAX)))
}

/// Text, or nothing.
pub(super) fn text(text: Option<&Arc<str>>) -> Value {
    text.map_or(Value::None, |text| Value::String((**text).to_owned()))
}

/// A whole number that was read.
pub(super) fn int(value: &Value) -> Option<i64> {
    match value {
        Value::Number(Number::Int(n)) => Some(*n),
        _ => None,
    }
}

/// A count that was read.
pub(super) fn count(value: &Value) -> Option<u64> {
    int(value).and_then(|n| u64::try_from(n).ok())
}

/// Text that was read, where there is some.
pub(super) fn shared(value: Option<Value>) -> Option<Arc<str>> {
    match value {
        Some(Value::String(text)) => Some(text.into()),
        _ => None,
    }
}

/// A label as one word. Every pair of a name and a value has a word of its own.
pub(super) fn label_word(table: Table, name: &str, value: &str) -> String {
    format!("{}:{}:{name}{value}", table_name(table), name.len())
}

/// The name and the value that a word was made of.
fn label_parts(word: &str) -> Option<(Arc<str>, Arc<str>)> {
    let (_, rest) = word.split_once(':')?;
    let (length, both) = rest.split_once(':')?;
    let (name, value) = both.split_at_checked(length.parse().ok()?)?;
    Some((name.into(), value.into()))
}

/// The words of a record's labels.
pub(super) fn label_words(table: Table, fields: &Fields) -> Vec<String> {
    fields.labels.iter().map(|(name, value)| label_word(table, name, value)).collect()
}

/// The id of the row of a label.
pub(super) fn label_id(key: &Key, word: &str) -> RecordId {
    let parts = [table_name(key.table), &*key.id, word].map(|part| Value::String(part.to_owned()));
    RecordId::new("label", Array::from(parts.to_vec()))
}

/// What is stored of a record.
pub(super) fn content(key: &Key, revision: Revision, fields: &Fields, body: &RawValue) -> Object {
    let words = label_words(key.table, fields);
    let marks = list(words.iter().map(|word| Value::RecordId(label_id(key, word))));
    let mut row = object([
        ("rev", number(revision)),
        ("key", Value::String((*key.id).to_owned())),
        ("every", number(0)),
        ("created", Value::Number(Number::Int(fields.created_at_ms))),
        ("labels", list(words.into_iter().map(Value::String))),
        ("marks", marks),
        ("body", Value::String(body.get().to_owned())),
    ]);
    let texts = [
        ("status", &fields.status),
        ("grp", &fields.group),
        ("kind", &fields.kind),
        ("parent", &fields.parent),
    ];
    for (name, value) in texts {
        if let Some(value) = value {
            row.insert(name, Value::String((**value).to_owned()));
        }
    }
    if let Some(ended) = fields.ended_at_ms {
        row.insert("ended", Value::Number(Number::Int(ended)));
    }
    row
}

/// The record that a row holds; what is wrong with it otherwise.
pub(super) fn record(table: Table, row: Value) -> Result<Record, String> {
    let Value::Object(row) = row else { return Err(format!("a row of {table} is no object")) };
    let mut row = row.into_inner();
    let Some(Value::String(id)) = row.remove("key") else {
        return Err(format!("a row of {table} has no key"));
    };
    let key = Key::new(table, id);
    let wrong = |what: &str| format!("the row of {key} has no {what}");
    let revision = row.get("rev").and_then(count).ok_or_else(|| wrong("revision"))?;
    let Some(Value::String(body)) = row.remove("body") else { return Err(wrong("body")) };
    let body =
        RawValue::from_string(body).map_err(|error| format!("the body of {key} is no JSON: {error}"))?;
    let Some(Value::Array(words)) = row.remove("labels") else { return Err(wrong("labels")) };
    let label = |word: Value| match word {
        Value::String(word) => label_parts(&word),
        _ => None,
    };
    let labels = words.into_vec().into_iter().map(label).collect::<Option<_>>();
    let fields = Fields {
        status: shared(row.remove("status")),
        group: shared(row.remove("grp")),
        kind: shared(row.remove("kind")),
        parent: shared(row.remove("parent")),
        created_at_ms: row.get("created").and_then(int).ok_or_else(|| wrong("time of creation"))?,
        ended_at_ms: row.get("ended").and_then(int),
        labels: labels.ok_or_else(|| wrong("readable labels"))?,
    };
    Ok(Record { key, revision, fields, body: body.into() })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn a_label_comes_back_from_its_word_and_no_two_share_one() {
        let pairs = [("", ""), ("a", "b"), ("ab", ""), ("", "ab"), ("a:1", "2:b"), ("ä\0", "\"'")];
        let words: std::collections::HashSet<String> = pairs
            .iter()
            .map(|(name, value)| {
                let word = label_word(Table::Task, name, value);
                assert_eq!(label_parts(&word).unwrap(), ((*name).into(), (*value).into()));
                word
            })
            .collect();
        assert_eq!(words.len(), pairs.len());
        assert_ne!(label_word(Table::Task, "a", "b"), label_word(Table::Lock, "a", "b"));
    }
}
