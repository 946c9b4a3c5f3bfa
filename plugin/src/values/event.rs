//! Changes of tasks as records.

use nu_protocol::{Span, Value, record};
use orchestrator_protocol::event::{EventCursor, Item, TaskEvent};

use super::{optional, optional_text, time};

/// An item of the stream as a row; `None` for what is not for people.
pub fn row(item: &Item, span: Span) -> Option<Value> {
    match item {
        Item::Event(event) => Some(change(event, span)),
        Item::Reset(cursor) => Some(reset(cursor, span)),
        _ => None,
    }
}

fn change(event: &TaskEvent, span: Span) -> Value {
    let progress = event.progress.as_ref();
    let record = record! {
        "time" => time(event.time, span),
        "kind" => Value::string("task", span),
        "id" => Value::string(event.id.to_string(), span),
        "name" => Value::string(&event.name, span),
        "status" => Value::string(event.status.to_string(), span),
        "group" => Value::string(&event.group, span),
        "workflow" => optional_text(event.parent, span),
        "attempt" => Value::int(event.attempt.into(), span),
        "progress" => optional(progress.and_then(|progress| progress.fraction), span, |fraction| Value::float(fraction, span)),
        "message" => optional_text(progress.map(|progress| &progress.message).filter(|message| !message.is_empty()), span),
        "error" => optional_text(event.error.as_ref(), span),
        "cursor" => Value::string(event.cursor.to_string(), span),
    };
    Value::record(record, span)
}

/// In place of events that were missed. It has the same columns as an event.
fn reset(cursor: &EventCursor, span: Span) -> Value {
    let nothing = || Value::nothing(span);
    let record = record! {
        "time" => nothing(),
        "kind" => Value::string("reset", span),
        "id" => nothing(),
        "name" => nothing(),
        "status" => nothing(),
        "group" => nothing(),
        "workflow" => nothing(),
        "attempt" => nothing(),
        "progress" => nothing(),
        "message" => Value::string("events were missed: list the tasks again", span),
        "error" => nothing(),
        "cursor" => Value::string(cursor.to_string(), span),
    };
    Value::record(record, span)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;
    use crate::tests::fixtures::event;

    #[test]
    fn a_reset_has_the_columns_of_a_change() {
        let event = event("web-01", 3);
        let cursor = event.cursor.clone();
        let rows =
            [Item::Event(event), Item::Reset(cursor)].map(|item| row(&item, Span::test_data()).unwrap());
        let columns = rows.each_ref().map(|row| row.as_record().unwrap().columns().collect::<Vec<_>>());
        assert_eq!(columns[0], columns[1]);
    }
}
