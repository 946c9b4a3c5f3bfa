//! Tasks as records: [`row`] for lists, [`whole`] for one task with all that is known of it.

use chrono::{DateTime, Utc};
use nu_protocol::{ListStream, PipelineData, PipelineMetadata, Record, Span, Value, record};
use orchestrator_protocol::submit::{Submitted, SubmittedTask};
use orchestrator_protocol::task::{Attempt, AttemptOutcome, Command, OnEngineLoss, Program, Task, Work};

use super::{between, count, json, milliseconds, optional, optional_text, text_map, texts, time};

/// The columns that a narrow terminal cuts last.
const IMPORTANT: [&str; 5] = ["name", "status", "progress", "duration", "error"];

/// How far a task is, from 0 to 1: what it said itself, or how many of a workflow's tasks have ended.
pub fn fraction(task: &Task) -> Option<f64> {
    match (&task.work, &task.progress) {
        (_, Some(progress)) if progress.fraction.is_some() => progress.fraction,
        (Work::Workflow(summary), _) if summary.total > 0 => {
            Some(summary.ended() as f64 / summary.total as f64)
        }
        _ => None,
    }
}

/// A task as one row of a list.
pub fn row(task: &Task, now: DateTime<Utc>, span: Span) -> Value {
    Value::record(row_record(task, now, span), span)
}

fn row_record(task: &Task, now: DateTime<Utc>, span: Span) -> Record {
    record! {
        "name" => Value::string(&task.name, span),
        "status" => Value::string(task.status.as_str(), span),
        "group" => Value::string(&task.group, span),
        "attempt" => Value::int(task.attempt.into(), span),
        "progress" => optional(fraction(task), span, |fraction| Value::float(fraction, span)),
        "created" => time(task.created_at, span),
        "duration" => duration(task, now, span),
        "error" => optional_text(task.error.as_ref().or(task.last_error.as_ref()), span),
        "priority" => Value::int(task.priority.into(), span),
        "id" => Value::string(task.id.to_string(), span),
    }
}

/// The time from the start of the first attempt to the end, or to now.
fn duration(task: &Task, now: DateTime<Utc>, span: Span) -> Value {
    optional(task.started_at, span, |start| between(start, task.completed_at.unwrap_or(now), span))
}

/// A task with everything that is known of it. Begins with the columns of [`row`].
pub fn whole(task: &Task, now: DateTime<Utc>, span: Span) -> Value {
    let (command, args) = task.command_line();
    let mut record = row_record(task, now, span);
    let progress = task.progress.as_ref();
    let message = progress.map(|progress| &progress.message).filter(|message| !message.is_empty());
    let more = record! {
        "kind" => Value::string(task.kind().as_str(), span),
        "command" => Value::string(command, span),
        "args" => texts(args, span),
        "result" => optional(task.result.as_ref(), span, |result| json::to_value(result, span)),
        "output" => optional_text(task.output.as_ref(), span),
        "message" => optional_text(message, span),
        "steps" => optional(progress.and_then(|progress| progress.total.map(|total| (progress.done, total))), span,
            |(done, total)| Value::record(record! {
                "done" => optional(done, span, |done| count(done, span)),
                "total" => count(total, span),
            }, span)),
        "workflow" => optional_text(task.parent, span),
        "counts" => counts(task, span),
        "depends_on" => texts(&task.depends_on, span),
        "labels" => text_map(task.labels.iter().map(|(key, text)| (key, text.clone())), span),
        "lock" => optional_text(task.lock.as_ref(), span),
        "started" => optional(task.started_at, span, |at| time(at, span)),
        "completed" => optional(task.completed_at, span, |at| time(at, span)),
        "requires" => text_map(task.requires.iter().map(|(label, value)| (label, value.clone())), span),
        "on_engine_loss" => Value::string(
            match task.on_engine_loss {
                OnEngineLoss::Retry => "retry",
                OnEngineLoss::Hold => "hold",
            },
            span,
        ),
        "not_before" => optional(task.not_before, span, |at| time(at, span)),
        "next_attempt" => optional(task.next_attempt_at, span, |at| time(at, span)),
        "attempts" => Value::list(task.attempts.iter().map(|attempt| attempt_record(attempt, now, span)).collect(), span),
        "retries" => Value::int(task.retry.max_retries.into(), span),
        "retry_base" => milliseconds(task.retry.base_ms, span),
        "retry_cap" => milliseconds(task.retry.cap_ms, span),
        "timeout" => optional(task.timeout_ms, span, |timeout| milliseconds(timeout, span)),
        "grace" => milliseconds(task.grace_ms, span),
        "idempotency_key" => optional_text(task.idempotency_key.as_ref(), span),
        "cancelled_because" => optional_text(task.cancel.as_ref().map(|cancel| &cancel.reason), span),
        "engine" => optional_text(task.claim.as_ref().map(|claim| &claim.engine), span),
    };
    record.extend(more);
    record.extend(of_command(task, span));
    Value::record(record, span)
}

/// How many tasks a workflow has, and how many of them have ended in which way.
fn counts(task: &Task, span: Span) -> Value {
    let Work::Workflow(summary) = &task.work else { return Value::nothing(span) };
    Value::record(
        record! {
            "total" => count(summary.total, span),
            "completed" => count(summary.completed, span),
            "failed" => count(summary.failed, span),
            "cancelled" => count(summary.cancelled, span),
        },
        span,
    )
}

/// What only a command has; null for the other kinds, so that all records have the same columns.
fn of_command(task: &Task, span: Span) -> Record {
    let command = match &task.work {
        Work::Command(command) => Some(command),
        Work::Action(_) | Work::Workflow(_) => None,
    };
    let settings_digest = command.and_then(|command| match &command.program {
        Program::Worker(call) => Some(&call.settings_digest),
        Program::Script { .. } => None,
    });
    let part = |make: fn(&Command, Span) -> Value| optional(command, span, |command| make(command, span));
    record! {
        "cwd" => part(|command, span| Value::string(&command.cwd, span)),
        "params" => part(|command, span| optional(command.params.as_ref(), span, |params| json::to_value(params, span))),
        "env" => part(|command, span| text_map(command.env.iter().map(|(key, text)| (key, text.clone())), span)),
        "secrets" => part(|command, span| {
            text_map(command.secrets.iter().map(|(name, reference)| (name, String::from(reference.clone()))), span)
        }),
        "settings_digest" => optional_text(settings_digest, span),
    }
}

fn attempt_record(attempt: &Attempt, now: DateTime<Utc>, span: Span) -> Value {
    let end = attempt.ended_at;
    let record = record! {
        "number" => Value::int(attempt.number.into(), span),
        "started" => time(attempt.started_at, span),
        "ended" => optional(end, span, |at| time(at, span)),
        "duration" => between(attempt.started_at, end.unwrap_or(now), span),
        "outcome" => optional_text(attempt.outcome.map(outcome), span),
        "exit_code" => optional(attempt.exit_code, span, |code| Value::int(code.into(), span)),
        "signal" => optional(attempt.signal, span, |signal| Value::int(signal.into(), span)),
        "error" => optional_text(attempt.error.as_ref(), span),
    };
    Value::record(record, span)
}

fn outcome(outcome: AttemptOutcome) -> &'static str {
    match outcome {
        AttemptOutcome::Succeeded => "succeeded",
        AttemptOutcome::Failed => "failed",
        AttemptOutcome::TimedOut => "timed out",
        AttemptOutcome::Cancelled => "cancelled",
        AttemptOutcome::Lost => "lost",
        AttemptOutcome::NotStarted => "not started",
        AttemptOutcome::Unknown => "unknown",
    }
}

/// A workflow with its tasks, whole, as a table inside.
pub fn with_tasks(workflow: &Task, tasks: &[Task], now: DateTime<Utc>, span: Span) -> Value {
    let table = Value::list(tasks.iter().map(|task| whole(task, now, span)).collect(), span);
    match whole(workflow, now, span) {
        Value::Record { val, .. } => {
            let mut record = val.into_owned();
            record.insert("tasks", table);
            Value::record(record, span)
        }
        other => other,
    }
}

/// What a submission made: one record for each task, in the order of the request.
pub fn submitted(submitted: &Submitted, span: Span) -> Vec<Value> {
    submitted
        .tasks
        .iter()
        .map(|task| Value::record(submitted_record(task, submitted.existed, span), span))
        .collect()
}

/// What the submission of a workflow made, with its tasks as a table inside.
pub fn submitted_workflow(workflow: SubmittedTask, tasks: &Submitted, span: Span) -> Value {
    let mut record = submitted_record(&workflow, tasks.existed, span);
    record.push("tasks", Value::list(submitted(tasks, span), span));
    Value::record(record, span)
}

fn submitted_record(task: &SubmittedTask, existed: bool, span: Span) -> Record {
    record! {
        "id" => Value::string(task.id.to_string(), span),
        "name" => Value::string(&task.name, span),
        "existed" => Value::bool(existed, span),
    }
}

/// Rows for a terminal: tells it which columns to keep when there is not enough room.
pub fn table(rows: ListStream, span: Span) -> PipelineData {
    let metadata = PipelineMetadata::default().with_table_width_priority_columns(span, IMPORTANT);
    PipelineData::list_stream(rows, metadata)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use nu_protocol::Type;
    use orchestrator_protocol::task::{Progress, TaskStatus, Workflow};
    use serde_json::json;

    use super::*;
    use crate::tests::fixtures::{task, workflow};

    fn column(value: &Value, name: &str) -> Value {
        value.as_record().unwrap().get(name).unwrap_or_else(|| unreachable!("no column {name}")).clone()
    }

    #[test]
    fn a_row_has_real_dates_and_durations() {
        let mut task = task("web-01");
        let start = task.created_at + chrono::TimeDelta::seconds(1);
        task.started_at = Some(start);
        let now = start + chrono::TimeDelta::seconds(3);
        let running = row(&task, now, Span::test_data());
        assert_eq!(column(&running, "created").get_type(), Type::Date);
        assert_eq!(column(&running, "duration"), Value::test_duration(3_000_000_000));
        task.completed_at = Some(start + chrono::TimeDelta::seconds(2));
        assert_eq!(
            column(&row(&task, now, Span::test_data()), "duration"),
            Value::test_duration(2_000_000_000)
        );
        task.started_at = None;
        assert_eq!(column(&row(&task, now, Span::test_data()), "duration"), Value::test_nothing());
    }

    #[test]
    fn progress_is_what_the_task_says_or_what_of_the_workflow_has_ended() {
        let mut task = task("web-01");
        assert_eq!(fraction(&task), None);
        task.progress =
            Some(Progress { fraction: Some(0.25), done: None, total: None, message: String::new() });
        assert_eq!(fraction(&task), Some(0.25));
        task.progress = None;
        task.work = Work::Workflow(Workflow { total: 4, completed: 1, failed: 1, cancelled: 0 });
        assert_eq!(fraction(&task), Some(0.5));
        task.work = Work::Workflow(Workflow::default());
        assert_eq!(fraction(&task), None);
    }

    #[test]
    fn a_whole_record_begins_with_the_columns_of_a_row_for_every_kind() {
        let now = Utc::now();
        let command = whole(&task("web-01"), now, Span::test_data());
        let group = whole(&workflow("site"), now, Span::test_data());
        let columns = |value: &Value| value.as_record().unwrap().columns().cloned().collect::<Vec<_>>();
        assert_eq!(columns(&command), columns(&group));
        assert!(columns(&command).starts_with(&columns(&row(&task("web-01"), now, Span::test_data()))));
    }

    #[test]
    fn a_result_is_data_and_a_failure_says_why() {
        let mut task = task("web-01");
        task.result = Some(json!({"address": "10.0.0.4", "ports": [80]}));
        task.status = TaskStatus::Pending;
        task.last_error = Some("exit code 1".into());
        let record = whole(&task, Utc::now(), Span::test_data());
        assert_eq!(column(&column(&record, "result"), "address"), Value::test_string("10.0.0.4"));
        assert_eq!(column(&record, "error"), Value::test_string("exit code 1"));
    }

    #[test]
    fn a_workflow_can_carry_its_tasks() {
        let record = with_tasks(&workflow("site"), &[task("a"), task("b")], Utc::now(), Span::test_data());
        let tasks = column(&record, "tasks");
        assert_eq!(tasks.as_list().unwrap().len(), 2);
        assert_eq!(column(&tasks.as_list().unwrap()[1], "name"), Value::test_string("b"));
    }
}
