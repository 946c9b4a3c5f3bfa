//! Lines of output as records.

use nu_protocol::{Record, Span, Value, record};
use orchestrator_protocol::event::{LogLine, OutputStream};

use super::time;

/// What the user calls one of the two outputs.
pub fn stream_name(stream: OutputStream) -> &'static str {
    match stream {
        OutputStream::Stdout => "out",
        OutputStream::Stderr => "err",
    }
}

/// A line as a record. `task` names the task where lines of several are mixed.
pub fn line(line: &LogLine, task: Option<&str>, span: Span) -> Value {
    let mut record = of_task(task, span);
    record.extend(record! {
        "time" => time(line.time, span),
        "attempt" => Value::int(line.attempt.into(), span),
        "stream" => Value::string(stream_name(line.stream), span),
        "line" => Value::string(&line.line, span),
    });
    Value::record(record, span)
}

/// In place of lines that were not kept.
pub fn dropped(lines: u64, bytes: u64, task: Option<&str>, span: Span) -> Value {
    let mut record = of_task(task, span);
    record.extend(record! {
        "time" => Value::nothing(span),
        "attempt" => Value::nothing(span),
        "stream" => Value::string("dropped", span),
        "line" => Value::string(dropped_text(lines, bytes), span),
    });
    Value::record(record, span)
}

/// The sentence in place of lines that were not kept.
pub fn dropped_text(lines: u64, bytes: u64) -> String {
    format!("[{lines} lines, {bytes} bytes, were dropped here: the output was longer than is kept]")
}

fn of_task(task: Option<&str>, span: Span) -> Record {
    task.map(|name| ("task".to_owned(), Value::string(name, span))).into_iter().collect()
}
