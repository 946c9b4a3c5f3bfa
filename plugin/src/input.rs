//! What the user typed and piped in, made into the words of the protocol.
//!
//! Every error here points at the value that cannot be used.

pub mod environment;

use std::collections::{BTreeMap, HashSet};
use std::hash::Hash;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use chrono::{DateTime, Utc};
use nu_plugin::EvaluatedCall;
use nu_protocol::{FromValue, LabeledError, PipelineData, Span, Value};
use orchestrator_protocol::environment::EnvironmentId;
use orchestrator_protocol::task::{OnEngineLoss, RetryPolicy, SecretReference, TaskId};

use crate::errors::invalid;

/// What can be named by an id.
pub trait Identifier: FromStr + Copy + Eq + Hash + Send + 'static {
    /// What it is the id of, with its article.
    const OF: &'static str;
    /// The command that shows the ids.
    const LISTED_BY: &'static str;
}

impl Identifier for TaskId {
    const OF: &'static str = "a task";
    const LISTED_BY: &'static str = "orchestrator task list";
}

impl Identifier for EnvironmentId {
    const OF: &'static str = "an environment";
    const LISTED_BY: &'static str = "orchestrator test env list";
}

/// Something as it was named, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Named<I> {
    /// Its id.
    pub id: I,
    /// The text that names it.
    pub span: Span,
}

/// A task as it was named.
pub type NamedTask = Named<TaskId>;
/// An environment as it was named.
pub type NamedEnvironment = Named<EnvironmentId>;

/// What a command is about.
pub enum Things<I> {
    /// One, so that the answer is one record.
    One(Named<I>),
    /// Any number, so that the answer is a table. Read as they come.
    Many(Box<dyn Iterator<Item = Result<Named<I>, LabeledError>> + Send>),
}

/// The tasks that a command is about.
pub type Tasks = Things<TaskId>;
/// The environments that a command is about.
pub type Environments = Things<EnvironmentId>;

impl<I: Identifier> Things<I> {
    /// What is named by arguments, else by the input: an id, a list of them, or a record or table with a
    /// column `id`.
    pub fn read(call: &EvaluatedCall, input: PipelineData) -> Result<Self, LabeledError> {
        let mut named = call.positional.iter().map(named).collect::<Result<Vec<_>, _>>()?;
        match (named.len(), input) {
            (1, _) => Ok(Self::One(named.remove(0))),
            (0, PipelineData::Empty | PipelineData::Value(Value::Nothing { .. }, _)) => {
                Err(which::<I>("needs an id, as an argument or from the pipeline", call.head)
                    .with_help(format!("`{}` shows the ids", I::LISTED_BY)))
            }
            (0, PipelineData::Value(Value::List { vals, .. }, _)) => {
                Ok(Self::Many(Box::new(vals.into_iter().map(|value| self::named(&value)))))
            }
            (0, PipelineData::ListStream(stream, _)) => {
                Ok(Self::Many(Box::new(stream.into_iter().map(|value| self::named(&value)))))
            }
            (0, input) => Ok(Self::One(self::named(&input.into_value(call.head)?)?)),
            _ => Ok(Self::Many(Box::new(named.into_iter().map(Ok)))),
        }
    }

    /// All of them, each once, and whether it was one alone.
    pub fn collect(self) -> Result<(Vec<Named<I>>, bool), LabeledError> {
        match self {
            Self::One(one) => Ok((vec![one], true)),
            Self::Many(many) => {
                let mut seen = HashSet::new();
                let mut all = many.collect::<Result<Vec<_>, _>>()?;
                all.retain(|named| seen.insert(named.id));
                Ok((all, false))
            }
        }
    }
}

/// The task that a value names: its id, or a record with one.
pub fn named_task(value: &Value) -> Result<NamedTask, LabeledError> {
    named(value)
}

/// What a value names: an id, or a record with one.
pub fn named<I: Identifier>(value: &Value) -> Result<Named<I>, LabeledError> {
    let span = value.span();
    let text = match value {
        Value::String { val, .. } => val,
        Value::Record { val, .. } => match val.get("id") {
            Some(id @ Value::String { .. }) => return named(id),
            Some(other) => return Err(not_an_id::<I>(&other.get_type().to_string(), other.span())),
            None => {
                return Err(which::<I>("this record has no column 'id'", span)
                    .with_help(format!("pass ids, or rows of `{}`", I::LISTED_BY)));
            }
        },
        Value::Error { error, .. } => return Err((**error).clone().into()),
        other => return Err(not_an_id::<I>(&other.get_type().to_string(), span)),
    };
    match text.parse() {
        Ok(id) => Ok(Named { id, span }),
        Err(_) => Err(not_an_id::<I>(&format!("'{text}'"), span)),
    }
}

fn which<I: Identifier>(label: &str, span: Span) -> LabeledError {
    let noun = I::OF.rsplit(' ').next().unwrap_or(I::OF);
    invalid(format!("Which {noun}?"), label, span)
}

fn not_an_id<I: Identifier>(what: &str, span: Span) -> LabeledError {
    invalid(
        format!("Not {}'s id: {what}", I::OF),
        "should look like 01890a5d-ac96-774b-bcce-b302099a8057",
        span,
    )
    .with_help(format!("`{}` shows the ids, and Tab completes them", I::LISTED_BY))
}

/// A path as the user means it: `~` is the home directory, and it starts at Nushell's current directory.
pub fn absolute(cwd: &Path, path: &str) -> PathBuf {
    let home = || std::env::var_os("HOME").map(PathBuf::from);
    match (path.strip_prefix("~/"), home()) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => cwd.join(path),
    }
}

/// A record whose values are text or can be written as text: labels, variables.
pub fn text_map(value: &Value) -> Result<BTreeMap<String, String>, LabeledError> {
    let entry = |(key, value): (&String, &Value)| match value.coerce_str() {
        Ok(text) => Ok((key.clone(), text.into_owned())),
        Err(_) => Err(invalid(
            format!("'{key}' is not text"),
            format!("a {} cannot be written as text here", value.get_type()),
            value.span(),
        )),
    };
    value.as_record()?.iter().map(entry).collect()
}

/// Labels: a record, or one as `key=value`.
pub fn labels(value: &Value) -> Result<BTreeMap<String, String>, LabeledError> {
    let Value::String { val, .. } = value else { return text_map(value) };
    match val.split_once('=') {
        Some((key, text)) if !key.is_empty() => Ok(BTreeMap::from([(key.to_owned(), text.to_owned())])),
        _ => Err(invalid("Not a label", "write key=value, or a record {key: value}", value.span())),
    }
}

/// A record of references to secrets. A relative path starts at Nushell's current directory.
pub fn secrets(value: &Value, cwd: &Path) -> Result<BTreeMap<String, SecretReference>, LabeledError> {
    let reference = |(name, value): (&String, &Value)| {
        let text = value.as_str()?;
        let full = match text.strip_prefix("file:") {
            Some(path) => format!("file:{}", absolute(cwd, path).display()),
            None => text.to_owned(),
        };
        match SecretReference::try_from(full) {
            Ok(reference) => Ok((name.clone(), reference)),
            // The value itself stays out of the message: it may be the secret.
            Err(_) => Err(invalid(
                format!("The secret '{name}' is not a reference"),
                "write env:NAME or file:PATH",
                value.span(),
            )
            .with_help("the engine resolves the reference when an attempt starts, so the secret itself is never stored")),
        }
    };
    value.as_record()?.iter().map(reference).collect()
}

/// A duration in whole milliseconds, greater than zero.
pub fn milliseconds(value: &Value) -> Result<u64, LabeledError> {
    const NANOS: i64 = 1_000_000;
    match u64::try_from(value.as_duration()? / NANOS) {
        Ok(milliseconds) if milliseconds > 0 => Ok(milliseconds),
        _ => Err(invalid("Too short", "must be one millisecond or more", value.span())),
    }
}

/// A whole number within the bounds of its type.
pub fn number<T: TryFrom<i64>>(value: &Value) -> Result<T, LabeledError> {
    T::try_from(value.as_int()?)
        .map_err(|_| invalid("Out of range", "this number cannot be used here", value.span()))
}

/// A point in time: a date, or a duration before now.
pub fn past_time(value: &Value) -> Result<DateTime<Utc>, LabeledError> {
    match value {
        Value::Duration { val, .. } => Utc::now()
            .checked_sub_signed(chrono::TimeDelta::nanoseconds(*val))
            .ok_or_else(|| invalid("Out of range", "no date lies that far back", value.span())),
        _ => Ok(value.as_date()?.to_utc()),
    }
}

/// When to try again: `None` where nothing was said, so that the engine's own rule holds.
pub fn retry(
    retries: Option<&Value>,
    base: Option<&Value>,
    cap: Option<&Value>,
) -> Result<Option<RetryPolicy>, LabeledError> {
    if retries.is_none() && base.is_none() && cap.is_none() {
        return Ok(None);
    }
    let mut policy = RetryPolicy::default();
    if let Some(value) = retries {
        policy.max_retries = number(value)?;
    }
    if let Some(value) = base {
        policy.base_ms = milliseconds(value)?;
        policy.cap_ms = policy.cap_ms.max(policy.base_ms);
    }
    if let Some(value) = cap {
        policy.cap_ms = milliseconds(value)?;
        if policy.cap_ms < policy.base_ms {
            return Err(invalid(
                "The cap is below the base",
                "must be at least the first wait",
                value.span(),
            ));
        }
    }
    Ok(Some(policy))
}

/// One id or a list of them.
pub fn ids(value: &Value) -> Result<Vec<TaskId>, LabeledError> {
    match value {
        Value::List { vals, .. } => vals.iter().map(|value| Ok(named_task(value)?.id)).collect(),
        other => Ok(vec![named_task(other)?.id]),
    }
}

/// One text or a list of them.
pub fn texts(value: &Value) -> Result<Vec<String>, LabeledError> {
    match value {
        Value::List { .. } => Ok(<Vec<String>>::from_value(value.clone())?),
        other => Ok(vec![other.as_str()?.to_owned()]),
    }
}

/// A part of a request that the engine complains about, such as `tasks[2].after[0]`.
#[derive(Debug, PartialEq, Eq)]
pub struct FieldPath<'a> {
    /// The task, by its place in the request.
    pub index: Option<usize>,
    /// The field.
    pub name: &'a str,
    /// The item of the field, where that is a list.
    pub position: Option<usize>,
}

impl<'a> FieldPath<'a> {
    /// Takes the path apart.
    pub fn parse(field: &'a str) -> Self {
        let task = field.strip_prefix("tasks[").and_then(|rest| rest.split_once(']'));
        let (index, rest) = match task {
            Some((index, rest)) => (index.parse().ok(), rest.trim_start_matches('.')),
            None => (None, field),
        };
        let (name, position) = match rest.strip_suffix(']').and_then(|rest| rest.rsplit_once('[')) {
            Some((name, position)) => (name, position.parse().ok()),
            None => (rest, None),
        };
        Self { index, name, position }
    }
}

/// What becomes of a task whose engine is lost.
pub fn on_engine_loss(value: &Value) -> Result<OnEngineLoss, LabeledError> {
    match value.as_str()? {
        "retry" => Ok(OnEngineLoss::Retry),
        "hold" => Ok(OnEngineLoss::Hold),
        _ => Err(invalid("Not a way to go on when an engine is lost", "use retry or hold", value.span())),
    }
}

/// The column of a step that a field of the request comes from.
pub fn column_of_field(field: &str) -> &str {
    match field {
        "retry.max_retries" => "retries",
        "retry.base_ms" => "retry_base",
        "retry.cap_ms" => "retry_cap",
        other => other.strip_suffix("_ms").unwrap_or(other),
    }
}

/// The flag that a field of the request comes from.
pub fn flag_of_field(field: &str) -> &str {
    match column_of_field(field) {
        "retry_base" => "retry-base",
        "retry_cap" => "retry-cap",
        "labels" => "label",
        "secrets" => "secret",
        "depends_on" => "depends-on",
        "not_before" => "not-before",
        "on_engine_loss" => "on-engine-loss",
        "idempotency_key" => "idempotency-key",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use nu_protocol::record;

    use super::*;

    const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

    fn spanned(text: &str) -> Value {
        Value::string(text, Span::new(7, 9))
    }

    fn call_with(arguments: &[&str]) -> EvaluatedCall {
        let mut call = EvaluatedCall::new(Span::new(0, 4));
        for argument in arguments {
            call.add_positional(spanned(argument));
        }
        call
    }

    #[test]
    fn tasks_come_from_arguments_ids_records_and_tables() {
        let row = Value::test_record(record! { "id" => spanned(ID), "name" => spanned("x") });
        let inputs = [
            (vec![ID], PipelineData::empty(), true),
            (vec![ID], PipelineData::value(Value::test_int(1), None), true),
            (vec![ID, ID], PipelineData::empty(), false),
            (vec![], PipelineData::value(spanned(ID), None), true),
            (vec![], PipelineData::value(row.clone(), None), true),
            (vec![], PipelineData::value(Value::test_list(vec![row, spanned(ID)]), None), false),
        ];
        for (arguments, input, alone) in inputs {
            let (tasks, one) = Tasks::read(&call_with(&arguments), input).unwrap().collect().unwrap();
            assert_eq!(tasks, [NamedTask { id: ID.parse().unwrap(), span: Span::new(7, 9) }]);
            assert_eq!(one, alone, "{arguments:?}");
        }
    }

    #[test]
    fn what_names_no_task_is_pointed_at() {
        let wrong = [
            spanned("web-01"),
            Value::int(3, Span::new(7, 9)),
            Value::record(record! { "name" => Value::test_nothing() }, Span::new(7, 9)),
            Value::test_record(record! { "id" => Value::int(3, Span::new(7, 9)) }),
        ];
        for value in wrong {
            let error = named_task(&value).unwrap_err();
            assert_eq!(error.labels[0].span, Span::new(7, 9), "{error:?}");
        }
        let nothing = Tasks::read(&call_with(&[]), PipelineData::empty()).err().unwrap();
        assert_eq!(nothing.labels[0].span, Span::new(0, 4));
    }

    #[test]
    fn a_secret_is_a_reference_and_its_value_stays_out_of_the_error() {
        let cwd = Path::new("/work");
        let value = Value::test_record(record! { "a" => spanned("file:token"), "b" => spanned("env:TOKEN") });
        let references = secrets(&value, cwd).unwrap();
        assert_eq!(references["a"], SecretReference::File("/work/token".into()));
        assert_eq!(references["b"], SecretReference::Environment("TOKEN".into()));
        let plain = Value::test_record(record! { "a" => spanned("hunter2") });
        let error = secrets(&plain, cwd).unwrap_err();
        assert_eq!(error.labels[0].span, Span::new(7, 9));
        assert!(!format!("{error:?}").contains("hunter2"));
    }

    #[test]
    fn numbers_times_and_labels_are_checked() {
        assert_eq!(milliseconds(&Value::test_duration(1_500_000_000)).unwrap(), 1500);
        assert!(milliseconds(&Value::test_duration(-1)).is_err());
        assert!(milliseconds(&Value::test_duration(10)).is_err());
        assert_eq!(number::<i32>(&Value::test_int(-5)).unwrap(), -5);
        assert!(number::<u32>(&Value::test_int(-5)).is_err());
        assert_eq!(labels(&Value::test_string("env=prod=1")).unwrap()["env"], "prod=1");
        assert!(labels(&Value::test_string("prod")).is_err());
        let hour_ago = past_time(&Value::test_duration(3_600_000_000_000)).unwrap();
        assert!((Utc::now() - hour_ago).num_minutes() >= 60);
        assert!(past_time(&Value::test_duration(i64::MIN)).is_ok());
    }

    #[test]
    fn a_retry_rule_is_sent_only_when_something_was_said() {
        assert_eq!(retry(None, None, None).unwrap(), None);
        let base = Value::test_duration(120_000_000_000);
        let policy = retry(Some(&Value::test_int(0)), Some(&base), None).unwrap().unwrap();
        assert_eq!(policy, RetryPolicy { max_retries: 0, base_ms: 120_000, cap_ms: 120_000 });
        assert!(retry(None, Some(&base), Some(&Value::test_duration(1_000_000_000))).is_err());
    }

    #[test]
    fn the_paths_of_fields_are_taken_apart() {
        let path = |index, name, position| FieldPath { index, name, position };
        assert_eq!(FieldPath::parse("tasks[2].after[0]"), path(Some(2), "after", Some(0)));
        assert_eq!(
            FieldPath::parse("tasks[12].retry.max_retries"),
            path(Some(12), "retry.max_retries", None)
        );
        assert_eq!(FieldPath::parse("servers[1]"), path(None, "servers", Some(1)));
        assert_eq!(FieldPath::parse("tasks"), path(None, "tasks", None));
        assert_eq!(flag_of_field("timeout_ms"), "timeout");
        assert_eq!(flag_of_field("retry.max_retries"), "retries");
    }
}
