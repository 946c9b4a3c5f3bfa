//! `orchestrator workflow submit`

use std::path::Path;

use nu_plugin::{EngineInterface, EvaluatedCall, PluginCommand};
use nu_protocol::{
    Example, Flag, LabeledError, PipelineData, Record, Signature, Span, SyntaxShape, Type, Value,
};
use orchestrator_protocol::submit::{NewTask, SubmitRequest, Submitted, SubmittedTask};

use super::{SignatureExt, task_get};
use crate::connection::Session;
use crate::errors::{Failure, invalid};
use crate::input::{self, FieldPath, NamedTask, absolute, milliseconds, number};
use crate::plugin::Orchestrator;
use crate::progress::Line;
use crate::values::{self, json};
use crate::watch::Watch;

/// Submits a table of steps.
pub struct WorkflowSubmit;

/// The columns that a step may have.
const COLUMNS: &[&str] = &[
    "name",
    "script",
    "after",
    "depends_on",
    "params",
    "priority",
    "group",
    "labels",
    "lock",
    "retries",
    "retry_base",
    "retry_cap",
    "timeout",
    "grace",
    "not_before",
    "requires",
    "on_engine_loss",
    "env",
    "secrets",
    "cwd",
];

impl PluginCommand for WorkflowSubmit {
    type Plugin = Orchestrator;

    fn name(&self) -> &str {
        "orchestrator workflow submit"
    }

    fn description(&self) -> &str {
        "Submit a table of steps as one workflow."
    }

    fn extra_description(&self) -> &str {
        "Each row is a step; only `script` is required. `after` names the steps that must complete first, one or a \
list; steps that wait for nothing run in parallel. When a step fails for good, those after it are cancelled. The steps \
are queued all or none: a cycle or an unknown name is refused.

Columns: name, script, after, depends_on (ids of other tasks), params, priority, group, labels, lock, retries, \
retry_base, retry_cap, timeout, grace, not_before, requires, on_engine_loss, env, secrets, cwd. An empty cell is as good as none.

Returns the workflow with its tasks; with --wait, when all have ended."
    }

    fn search_terms(&self) -> Vec<&str> {
        vec!["graph", "dag", "steps", "pipeline", "dependencies", "run"]
    }

    fn signature(&self) -> Signature {
        Signature::build(self.name())
            .for_engine()
            .required("name", SyntaxShape::String, "What to call the workflow")
            .with_idempotency_key()
            .param(Flag::new("wait").short('w').desc("Wait until it has ended, and return it"))
            .input_output_types(vec![
                (Type::table(), Type::record()),
                (Type::list(Type::Any), Type::record()),
            ])
    }

    fn examples(&self) -> Vec<Example<'_>> {
        vec![
            Example {
                description: "Two steps at once, then a third",
                example: "[[name script after]; [db db.nu []] [cache cache.nu []] [app app.nu [db cache]]] \
| orchestrator workflow submit site --wait",
                result: None,
            },
            Example {
                description: "Steps from a file",
                example: "open steps.yaml | orchestrator workflow submit site",
                result: None,
            },
        ]
    }

    fn run(
        &self,
        plugin: &Orchestrator,
        engine: &EngineInterface,
        call: &EvaluatedCall,
        input: PipelineData,
    ) -> Result<PipelineData, LabeledError> {
        let cwd = engine.get_current_dir()?;
        let rows = rows(call, input)?;
        let tasks = rows.iter().map(|row| step(row, Path::new(&cwd))).collect::<Result<Vec<_>, _>>()?;
        let request = SubmitRequest {
            tasks,
            workflow: Some(call.req(0)?),
            idempotency_key: call.get_flag("idempotency-key")?,
        };
        let session = Session::open(plugin, engine, call)?;
        let repeatable = request.idempotency_key.is_some();
        let submitted = session.ask_repeatable(request, repeatable).map_err(|failure| {
            failure.at_field(session.place(call.head), |field| span_of(call, &rows, field))
        })?;
        answer(&session, engine, call, &submitted)
    }
}

/// The workflow that was submitted, or, with `--wait`, that has ended.
pub fn answer(
    session: &Session,
    engine: &EngineInterface,
    call: &EvaluatedCall,
    submitted: &Submitted,
) -> Result<PipelineData, LabeledError> {
    let (Some(id), Some(name)) = (submitted.id, submitted.name.clone()) else {
        let unexpected = orchestrator_protocol::client::ClientError::from(
            orchestrator_protocol::request::UnexpectedResponse,
        );
        return Err(Failure::from(unexpected).at(call.head));
    };
    if !call.has_flag("wait")? {
        let workflow = SubmittedTask { id, name };
        return Ok(PipelineData::value(
            values::task::submitted_workflow(workflow, submitted, call.head),
            None,
        ));
    }
    let ended = Watch::begin(session, vec![id], None, Line::for_command(engine))
        .and_then(Watch::finish)
        .map_err(|error| error.at(call.head, &[NamedTask { id, span: call.head }]))?;
    let record = match ended.first() {
        Some(workflow) => {
            task_get::record(session, workflow, call.head).map_err(|failure| failure.at(call.head))?
        }
        None => Value::nothing(call.head),
    };
    Ok(PipelineData::value(record, None))
}

fn rows(call: &EvaluatedCall, input: PipelineData) -> Result<Vec<Value>, LabeledError> {
    let rows: Vec<Value> = match input {
        PipelineData::Value(Value::List { vals, .. }, _) => vals.into_owned(),
        PipelineData::ListStream(stream, _) => stream.into_iter().collect(),
        PipelineData::Value(row @ Value::Record { .. }, _) => vec![row],
        _ => Vec::new(),
    };
    if rows.is_empty() {
        return Err(invalid("A workflow needs steps", "pipe a table of steps into this command", call.head)
            .with_help("[[name script after]; [build build.nu []] [test test.nu build]] | orchestrator workflow submit ci"));
    }
    Ok(rows)
}

/// A step of a workflow, from a row.
fn step(row: &Value, cwd: &Path) -> Result<NewTask, LabeledError> {
    let record = match row {
        Value::Record { val, .. } => val,
        Value::Error { error, .. } => return Err((**error).clone().into()),
        other => {
            return Err(invalid(
                "A step must be a record",
                format!("this is a {}", other.get_type()),
                row.span(),
            ));
        }
    };
    if let Some((column, value)) = record.iter().find(|(column, _)| !COLUMNS.contains(&column.as_str())) {
        return Err(invalid(format!("A step has no column '{column}'"), "not known", value.span())
            .with_help(format!("the columns are {}", COLUMNS.join(", "))));
    }
    let cell = |name: &str| record.get(name).filter(|value| !value.is_nothing());
    let text = |name: &str| cell(name).map(|value| value.as_str().map(str::to_owned)).transpose();
    let Some(script) = text("script")? else {
        return Err(invalid("A step needs a script", "this step has none", row.span())
            .with_help("the column `script` names the file to run"));
    };
    let directory = text("cwd")?.map_or_else(|| cwd.to_owned(), |path| absolute(cwd, &path));
    Ok(NewTask {
        name: text("name")?,
        script: absolute(cwd, &script).to_string_lossy().into_owned(),
        params: cell("params").map(json::to_json).transpose()?,
        cwd: Some(directory.to_string_lossy().into_owned()),
        env: cell("env").map(input::text_map).transpose()?.unwrap_or_default(),
        secrets: cell("secrets").map(|value| input::secrets(value, cwd)).transpose()?.unwrap_or_default(),
        after: cell("after").map(input::texts).transpose()?.unwrap_or_default(),
        depends_on: cell("depends_on").map(input::ids).transpose()?.unwrap_or_default(),
        priority: cell("priority").map(number).transpose()?.unwrap_or_default(),
        group: text("group")?,
        labels: cell("labels").map(input::labels).transpose()?.unwrap_or_default(),
        lock: text("lock")?,
        retry: input::retry(cell("retries"), cell("retry_base"), cell("retry_cap"))?,
        timeout_ms: cell("timeout").map(milliseconds).transpose()?,
        grace_ms: cell("grace").map(milliseconds).transpose()?,
        requires: cell("requires").map(input::labels).transpose()?.unwrap_or_default(),
        on_engine_loss: cell("on_engine_loss").map(input::on_engine_loss).transpose()?,
        not_before: cell("not_before").map(Value::as_date).transpose()?.map(|date| date.to_utc()),
    })
}

/// Where the user typed what the engine complains about: the cell, else the row.
fn span_of(call: &EvaluatedCall, rows: &[Value], field: &str) -> Option<Span> {
    let path = FieldPath::parse(field);
    let Some(row) = path.index.and_then(|index| rows.get(index)) else {
        return match path.name {
            "workflow" => call.nth(0).map(|value| value.span()),
            name => call.get_flag_value(input::flag_of_field(name)).map(|value| value.span()),
        };
    };
    let cell = row.as_record().ok().and_then(|record: &Record| record.get(input::column_of_field(path.name)));
    let part = match (cell, path.position) {
        (Some(Value::List { vals, .. }), Some(position)) => vals.get(position).or(cell),
        _ => cell,
    };
    Some(part.unwrap_or(row).span())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use nu_protocol::record;

    use super::*;

    fn here(text: &str) -> Value {
        Value::string(text, Span::new(50, 55))
    }

    #[test]
    fn a_row_becomes_a_step_and_empty_cells_count_for_nothing() {
        let row = Value::test_record(record! {
            "name" => Value::test_string("app"),
            "script" => Value::test_string("app.nu"),
            "after" => Value::test_string("db"),
            "params" => Value::test_record(record! { "port" => Value::test_int(80) }),
            "timeout" => Value::test_duration(5_000_000_000),
            "priority" => Value::test_nothing(),
        });
        let step = step(&row, Path::new("/work")).unwrap();
        let expected = NewTask {
            name: Some("app".into()),
            script: "/work/app.nu".into(),
            cwd: Some("/work".into()),
            after: vec!["db".into()],
            params: Some(serde_json::json!({"port": 80})),
            timeout_ms: Some(5_000),
            ..NewTask::default()
        };
        assert_eq!(step, expected);
    }

    #[test]
    fn an_unknown_column_is_pointed_at_with_those_that_are_known() {
        let row =
            Value::test_record(record! { "script" => Value::test_string("a.nu"), "afetr" => here("db") });
        let error = step(&row, Path::new("/")).unwrap_err();
        assert_eq!(error.labels[0].span, Span::new(50, 55));
        assert!(error.help.unwrap().contains("after"));
    }

    #[test]
    fn what_the_engine_refuses_is_found_in_the_table() {
        let after = Value::test_list(vec![Value::test_string("x"), here("y")]);
        let rows = [
            Value::test_record(record! { "script" => Value::test_string("a.nu") }),
            Value::record(
                record! { "script" => Value::test_string("b.nu"), "after" => after },
                Span::new(40, 90),
            ),
        ];
        let mut call = EvaluatedCall::new(Span::new(0, 4));
        call.add_positional(Value::string("site", Span::new(5, 9)));
        assert_eq!(span_of(&call, &rows, "tasks[1].after[1]"), Some(Span::new(50, 55)));
        assert_eq!(span_of(&call, &rows, "tasks[1].timeout_ms"), Some(Span::new(40, 90)));
        assert_eq!(span_of(&call, &rows, "workflow"), Some(Span::new(5, 9)));
        assert_eq!(span_of(&call, &rows, "tasks"), None);
    }
}
