//! Where the records are, and migrations.

use std::time::Duration;

use nu_protocol::{Record, Span, Value, record};
use orchestrator_protocol::storage::{
    Exported, Initialised, Migration, StoragePlace, StorageReport, Validation,
};

use super::{count, engine, optional, optional_text, time};

fn place(place: &StoragePlace, span: Span) -> Value {
    let record = record! {
        "type" => Value::string(&place.backend, span),
        "location" => Value::string(&place.location, span),
    };
    Value::record(record, span)
}

fn bytes(bytes: u64, span: Span) -> Value {
    Value::filesize(i64::try_from(bytes).unwrap_or(i64::MAX), span)
}

/// How the storage is.
pub fn report(report: &StorageReport, span: Span) -> Value {
    let tables: Record = report
        .tables
        .iter()
        .map(|(table, records)| (table.replace('-', "_"), count(*records, span)))
        .collect();
    let record = record! {
        "type" => Value::string(&report.place.backend, span),
        "location" => Value::string(&report.place.location, span),
        "state" => Value::string(&report.state, span),
        "epoch" => count(report.epoch, span),
        "other" => optional(report.other.as_ref(), span, |other| place(other, span)),
        "writable" => Value::bool(report.writable, span),
        "reason" => optional_text(report.reason.as_ref(), span),
        "free" => optional(report.free_bytes, span, |free| bytes(free, span)),
        "records" => Value::record(tables, span),
    };
    Value::record(record, span)
}

/// What was found of both ends.
pub fn validation(validation: &Validation, span: Span) -> Value {
    let checks = validation.checks.iter().map(|check| engine::check(check, span)).collect();
    let record = record! {
        "possible" => Value::bool(validation.is_possible, span),
        "from" => place(&validation.from, span),
        "to" => place(&validation.to, span),
        "checks" => Value::list(checks, span),
    };
    Value::record(record, span)
}

/// A migration.
pub fn migration(migration: &Migration, span: Span) -> Value {
    let waited = |micros: u64| {
        let nanos = Duration::from_micros(micros).as_nanos();
        Value::duration(i64::try_from(nanos).unwrap_or(i64::MAX), span)
    };
    let record = record! {
        "id" => Value::string(migration.id.to_string(), span),
        "status" => Value::string(migration.status.as_str(), span),
        "phase" => Value::string(&migration.phase, span),
        "done" => count(migration.records_done, span),
        "total" => count(migration.records_total, span),
        "from" => place(&migration.from, span),
        "to" => place(&migration.to, span),
        "started" => time(migration.started_at, span),
        "ended" => optional(migration.ended_at, span, |at| time(at, span)),
        "checksum" => optional_text(migration.checksum.as_ref(), span),
        "waited" => optional(migration.waited_us, span, waited),
        "error" => optional_text(migration.error.as_ref(), span),
        "advice" => optional_text(migration.advice.as_ref(), span),
    };
    Value::record(record, span)
}

/// What was written to a file or read from one.
pub fn exported(exported: &Exported, span: Span) -> Value {
    let record = record! {
        "file" => Value::string(&exported.file, span),
        "records" => count(exported.records, span),
        "checksum" => Value::string(&exported.checksum, span),
    };
    Value::record(record, span)
}

/// A server that was prepared.
pub fn initialised(made: &Initialised, span: Span) -> Value {
    let record = record! {
        "location" => Value::string(&made.location, span),
        "username" => Value::string(&made.username, span),
        "password_file" => optional_text(made.password_file.as_ref(), span),
    };
    Value::record(record, span)
}
