//! The engine's own state as records.

use chrono::{DateTime, Utc};
use nu_protocol::{Record, Span, Value, record};
use orchestrator_protocol::request::{
    Check, CheckState, EngineMember, EngineMode, EngineStatus, Explanation, MemberState, QueuePauses,
    ReasonKind,
};
use orchestrator_protocol::task::TaskStatus;

use super::{between, count, optional, optional_text, text_map, texts, time};
use crate::connection::target::Target;

/// The status of a running engine.
pub fn status(status: &EngineStatus, now: DateTime<Utc>, span: Span) -> Record {
    let storage = record! {
        "backend" => Value::string(&status.storage.backend, span),
        "location" => Value::string(&status.storage.location, span),
        "writable" => Value::bool(status.storage.writable, span),
        "reason" => optional_text(status.storage.reason.as_ref(), span),
        "free" => optional(status.storage.free_bytes, span, |bytes| {
            Value::filesize(i64::try_from(bytes).unwrap_or(i64::MAX), span)
        }),
    };
    let groups = status.groups.iter().map(|(group, numbers)| {
        let mut record = record! { "group" => Value::string(group, span) };
        record.extend(by_state(|state| numbers.get(&state).copied(), span));
        record.push("paused", Value::bool(status.paused || status.paused_groups.contains(group), span));
        Value::record(record, span)
    });
    record! {
        "running" => Value::bool(true, span),
        "state" => Value::string(mode(status.mode), span),
        "version" => Value::string(&status.version, span),
        "pid" => Value::int(status.pid.into(), span),
        "started" => time(status.started_at, span),
        "uptime" => between(status.started_at, now, span),
        "data_dir" => Value::string(&status.data_dir, span),
        "socket" => Value::string(&status.socket, span),
        "http" => optional_text(status.http.as_ref(), span),
        "storage" => Value::record(storage, span),
        "paused" => Value::bool(status.paused, span),
        "paused_groups" => texts(&status.paused_groups, span),
        "max_parallel" => Value::int(status.max_parallel.into(), span),
        "tasks" => Value::record(by_state(|state| status.tasks.get(&state).copied(), span), span),
        "groups" => Value::list(groups.collect(), span),
        "engine" => Value::string(&status.engine, span),
        "engines" => Value::list(status.engines.iter().map(|member| engine(member, now, span)).collect(), span),
    }
}

/// One engine of a store.
fn engine(member: &EngineMember, now: DateTime<Utc>, span: Span) -> Value {
    let state = match member.state {
        MemberState::Alive => "alive",
        MemberState::Lost => "lost",
        MemberState::Left => "left",
        MemberState::Unknown => "unknown",
    };
    Value::record(
        record! {
            "id" => Value::string(&member.id, span),
            "host" => Value::string(&member.host, span),
            "pid" => Value::int(member.pid.into(), span),
            "state" => Value::string(state, span),
            "since" => time(member.since, span),
            "uptime" => between(member.since, now, span),
            "running" => count(member.running, span),
            "labels" => text_map(member.labels.iter().map(|(label, value)| (label, value.clone())), span),
            "version" => Value::string(&member.version, span),
            "data_dir" => Value::string(&member.data_dir, span),
            "this" => Value::bool(member.is_this, span),
        },
        span,
    )
}

/// The status when no engine runs: where it would be.
pub fn stopped(target: &Target, span: Span) -> Record {
    record! {
        "running" => Value::bool(false, span),
        "state" => Value::string("stopped", span),
        "data_dir" => optional_text(target.data_dir.as_ref().map(|path| path.display()), span),
        "socket" => Value::string(target.socket.display().to_string(), span),
    }
}

fn mode(mode: EngineMode) -> &'static str {
    match mode {
        EngineMode::Active => "active",
        EngineMode::Draining => "draining",
        EngineMode::Stopping => "stopping",
    }
}

fn by_state(number: impl Fn(TaskStatus) -> Option<u64>, span: Span) -> Record {
    let column = |state: TaskStatus| (state.as_str().to_lowercase(), count(number(state).unwrap_or(0), span));
    TaskStatus::ALL.into_iter().map(column).collect()
}

/// A thing that was checked.
pub fn check(check: &Check, span: Span) -> Value {
    let state = match check.state {
        CheckState::Ok => "ok",
        CheckState::Warning => "warning",
        CheckState::Failed => "failed",
    };
    Value::record(
        record! {
            "check" => Value::string(&check.name, span),
            "state" => Value::string(state, span),
            "advice" => optional_text(check.advice.as_ref(), span),
            "found" => Value::string(&check.found, span),
        },
        span,
    )
}

/// What is paused.
pub fn pauses(pauses: &QueuePauses, span: Span) -> Value {
    let record =
        record! { "paused" => Value::bool(pauses.all, span), "groups" => texts(&pauses.groups, span) };
    Value::record(record, span)
}

/// Why a task is where it is.
pub fn explanation(explanation: &Explanation, span: Span) -> Value {
    let reasons = explanation.reasons.iter().map(|reason| {
        let record = record! {
            "kind" => Value::string(reason_kind(reason.kind), span),
            "message" => Value::string(&reason.message, span),
            "task" => optional_text(reason.task, span),
            "until" => optional(reason.until, span, |until| time(until, span)),
        };
        Value::record(record, span)
    });
    let record = record! {
        "id" => Value::string(explanation.id.to_string(), span),
        "name" => Value::string(&explanation.name, span),
        "status" => Value::string(explanation.status.as_str(), span),
        "reasons" => Value::list(reasons.collect(), span),
    };
    Value::record(record, span)
}

fn reason_kind(kind: ReasonKind) -> &'static str {
    match kind {
        ReasonKind::Dependency => "dependency",
        ReasonKind::Lock => "lock",
        ReasonKind::GroupLimit => "group_limit",
        ReasonKind::NotBefore => "not_before",
        ReasonKind::Backoff => "backoff",
        ReasonKind::Paused => "paused",
        ReasonKind::Draining => "draining",
        ReasonKind::Busy => "busy",
        ReasonKind::Turn => "turn",
        ReasonKind::Storage => "storage",
        ReasonKind::Engine => "engine",
        ReasonKind::Running => "running",
        ReasonKind::Ended => "ended",
        ReasonKind::Unknown => "unknown",
    }
}
