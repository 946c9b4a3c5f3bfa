//! `orchestrator task submit`

use std::path::Path;

use nu_plugin::{EngineInterface, EvaluatedCall, PluginCommand};
use nu_protocol::{
    Completion, Example, Flag, LabeledError, ListStream, PipelineData, Record, Signature, Span, SyntaxShape,
    Type, Value,
};
use orchestrator_protocol::submit::{NewTask, SubmitRequest, Submitted};

use super::{SignatureExt, task_get};
use crate::connection::Session;
use crate::errors::invalid;
use crate::input::{self, FieldPath, NamedTask, absolute, milliseconds, number};
use crate::plugin::Orchestrator;
use crate::progress::Line;
use crate::values::{self, json};
use crate::watch::Watch;

/// Submits a script, once or for each row of a table.
pub struct TaskSubmit;

impl PluginCommand for TaskSubmit {
    type Plugin = Orchestrator;

    fn name(&self) -> &str {
        "orchestrator task submit"
    }

    fn description(&self) -> &str {
        "Submit a script to the queue, once or for each row of a table."
    }

    fn extra_description(&self) -> &str {
        "The script gets its parameters as JSON on standard input. They come from --params or from the pipeline: a \
record is one task, a table one task for each row, all of them queued or none. A .nu file is run by Nushell, any other \
by itself.

It is accepted when this returns: no crash loses it. With --wait the finished task is returned, whatever its \
`status`; Ctrl-C then stops waiting, never the task. The script runs in --cwd, else in your current directory, with \
the environment of the engine's configuration and what --env adds."
    }

    fn search_terms(&self) -> Vec<&str> {
        vec!["run", "queue", "enqueue", "add", "spawn", "background", "job"]
    }

    fn signature(&self) -> Signature {
        let id = SyntaxShape::String;
        Signature::build(self.name())
            .for_engine()
            .required("script", SyntaxShape::Filepath, "The script")
            .param(Flag::new("params").short('P').arg(SyntaxShape::record()).desc("Parameters of the script"))
            .param(
                Flag::new("name")
                    .short('n')
                    .arg(SyntaxShape::String)
                    .desc("What to call it (default: the script's name); the tasks of a table are numbered"),
            )
            .param(
                Flag::new("depends-on")
                    .short('d')
                    .arg(SyntaxShape::OneOf(vec![SyntaxShape::List(Box::new(id.clone())), id]))
                    .desc("Run it only when these tasks have completed"),
            )
            .param(
                Flag::new("group")
                    .short('g')
                    .arg(SyntaxShape::String)
                    .desc("Groups take turns (default: default)"),
            )
            .param(
                Flag::new("label")
                    .short('l')
                    .arg(SyntaxShape::OneOf(vec![SyntaxShape::record(), SyntaxShape::String]))
                    .desc("Labels to find it by: key=value, or a record"),
            )
            .param(
                Flag::new("lock")
                    .short('L')
                    .arg(SyntaxShape::String)
                    .desc("Only one task with this lock runs at a time"),
            )
            .with_attempt_rules()
            .param(
                Flag::new("retry-base")
                    .short('B')
                    .arg(SyntaxShape::Duration)
                    .desc("The wait before the second attempt; it doubles (default: 1sec)"),
            )
            .param(
                Flag::new("retry-cap")
                    .short('C')
                    .arg(SyntaxShape::Duration)
                    .desc("The longest wait between attempts (default: 1min)"),
            )
            .param(
                Flag::new("grace")
                    .short('G')
                    .arg(SyntaxShape::Duration)
                    .desc("The time between SIGTERM and SIGKILL (default: 10sec)"),
            )
            .param(
                Flag::new("not-before")
                    .short('b')
                    .arg(SyntaxShape::DateTime)
                    .desc("Do not run it before this time"),
            )
            .param(
                Flag::new("requires")
                    .arg(SyntaxShape::OneOf(vec![SyntaxShape::record(), SyntaxShape::String]))
                    .desc("Labels that an engine must have to run it: key=value, or a record"),
            )
            .param(
                Flag::new("on-engine-loss")
                    .arg(SyntaxShape::String)
                    .completion(Completion::new_list(&["retry", "hold"]))
                    .desc("When its engine is lost: retry it on another, or hold it for its own (default: retry)"),
            )
            .with_environment()
            .with_idempotency_key()
            .param(
                Flag::new("cwd")
                    .short('c')
                    .arg(SyntaxShape::Directory)
                    .desc("The script's working directory (default: yours)"),
            )
            .param(Flag::new("wait").short('w').desc("Wait until it has ended, and return it"))
            .input_output_types(vec![
                (Type::Nothing, Type::record()),
                (Type::record(), Type::record()),
                (Type::table(), Type::table()),
                // In a closure, its own input comes along.
                (Type::Any, Type::Any),
            ])
    }

    fn examples(&self) -> Vec<Example<'_>> {
        vec![
            Example {
                description: "Run a script in the background",
                example: "orchestrator task submit deploy.nu --params {version: 2}",
                result: None,
            },
            Example {
                description: "Run it once for each row, and wait for all",
                example: "[[host]; [web-01] [web-02]] | orchestrator task submit deploy.nu --wait",
                result: None,
            },
            Example {
                description: "Run it when another task has completed, at most once",
                example: "orchestrator task submit check.nu --depends-on 01890a5d-ac96-774b-bcce-b302099a8057 \
--idempotency-key nightly",
                result: None,
            },
            Example {
                description: "Give it a secret without writing the secret anywhere",
                example: "orchestrator task submit backup.nu --secret {token: 'file:~/.config/token'} --timeout 1hr",
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
        let template = template(call, Path::new(&cwd))?;
        let rows = Rows::read(call, input)?;
        let request = SubmitRequest {
            tasks: rows.tasks(&template)?,
            workflow: None,
            idempotency_key: call.get_flag("idempotency-key")?,
        };
        if request.tasks.is_empty() {
            return Ok(PipelineData::value(Value::list(Vec::new(), call.head), None));
        }
        let session = Session::open(plugin, engine, call)?;
        let repeatable = request.idempotency_key.is_some();
        let submitted = session.ask_repeatable(request, repeatable).map_err(|failure| {
            failure.at_field(session.place(call.head), |field| span_of(call, &rows, field))
        })?;
        let mut records = match call.has_flag("wait")? {
            true => finished(&session, engine, call, &submitted)?,
            false => values::task::submitted(&submitted, call.head),
        };
        if matches!(rows, Rows::One(_))
            && let Some(record) = records.pop()
        {
            return Ok(PipelineData::value(record, None));
        }
        let stream = ListStream::new(records.into_iter(), call.head, engine.signals().clone());
        Ok(values::task::table(stream, call.head))
    }
}

/// What all tasks of the submission have in common.
fn template(call: &EvaluatedCall, cwd: &Path) -> Result<NewTask, LabeledError> {
    let flag = |name| call.get_flag_value(name);
    let directory = match call.get_flag::<String>("cwd")? {
        Some(path) => absolute(cwd, &path),
        None => cwd.to_owned(),
    };
    Ok(NewTask {
        name: call.get_flag("name")?,
        script: absolute(cwd, &call.req::<String>(0)?).to_string_lossy().into_owned(),
        params: None,
        cwd: Some(directory.to_string_lossy().into_owned()),
        env: flag("env").map(|value| input::text_map(&value)).transpose()?.unwrap_or_default(),
        secrets: flag("secret").map(|value| input::secrets(&value, cwd)).transpose()?.unwrap_or_default(),
        after: Vec::new(),
        depends_on: flag("depends-on").map(|value| input::ids(&value)).transpose()?.unwrap_or_default(),
        priority: flag("priority").map(|value| number(&value)).transpose()?.unwrap_or_default(),
        group: call.get_flag("group")?,
        labels: flag("label").map(|value| input::labels(&value)).transpose()?.unwrap_or_default(),
        lock: call.get_flag("lock")?,
        retry: input::retry(
            flag("retries").as_ref(),
            flag("retry-base").as_ref(),
            flag("retry-cap").as_ref(),
        )?,
        timeout_ms: flag("timeout").map(|value| milliseconds(&value)).transpose()?,
        grace_ms: flag("grace").map(|value| milliseconds(&value)).transpose()?,
        requires: flag("requires").map(|value| input::labels(&value)).transpose()?.unwrap_or_default(),
        on_engine_loss: flag("on-engine-loss").map(|value| input::on_engine_loss(&value)).transpose()?,
        not_before: flag("not-before").map(|value| value.as_date()).transpose()?.map(|date| date.to_utc()),
    })
}

/// The parameters of the tasks.
enum Rows {
    /// One task, with or without parameters.
    One(Option<Value>),
    /// One task for each.
    Many(Vec<Value>),
}

impl Rows {
    /// Parameters from the flag, else from the pipeline. A single value that is no record is not meant as
    /// parameters: in a closure, the closure's own input comes in here.
    fn read(call: &EvaluatedCall, input: PipelineData) -> Result<Self, LabeledError> {
        let params = call.get_flag_value("params");
        let rows = match input {
            PipelineData::Value(Value::List { vals, .. }, _) => vals.into_owned(),
            PipelineData::ListStream(stream, _) => stream.into_iter().collect(),
            PipelineData::Value(record @ Value::Record { .. }, _) => {
                return Ok(Self::One(params.or(Some(record))));
            }
            _ => return Ok(Self::One(params)),
        };
        match params {
            Some(params) => Err(invalid(
                "The parameters come from the pipeline and from --params",
                "must come from one of the two",
                params.span(),
            )
            .with_help("add columns to the table instead: `| insert version 2`")),
            None => Ok(Self::Many(rows)),
        }
    }

    fn tasks(&self, template: &NewTask) -> Result<Vec<NewTask>, LabeledError> {
        match self {
            Self::One(params) => {
                let params = params.as_ref().map(json::to_json).transpose()?;
                Ok(vec![NewTask { params, ..template.clone() }])
            }
            Self::Many(rows) => {
                rows.iter().enumerate().map(|(index, row)| numbered(template, index, row)).collect()
            }
        }
    }

    fn params_span(&self, index: usize) -> Option<Span> {
        match self {
            Self::One(params) => params.as_ref().map(Value::span),
            Self::Many(rows) => rows.get(index).map(Value::span),
        }
    }
}

fn numbered(template: &NewTask, index: usize, row: &Value) -> Result<NewTask, LabeledError> {
    let _: &Record = row.as_record().map_err(|_| match row {
        Value::Error { error, .. } => LabeledError::from((**error).clone()),
        other => invalid(
            "A task's parameters must be a record",
            format!("this row is a {}", other.get_type()),
            row.span(),
        )
        .with_help("make a table of it first: `| wrap host`"),
    })?;
    Ok(NewTask {
        name: template.name.as_ref().map(|name| format!("{name}-{}", index + 1)),
        params: Some(json::to_json(row)?),
        ..template.clone()
    })
}

/// Where the user typed what the engine complains about.
fn span_of(call: &EvaluatedCall, rows: &Rows, field: &str) -> Option<Span> {
    let path = FieldPath::parse(field);
    match path.name {
        "script" => call.nth(0).map(|value| value.span()),
        "params" => rows.params_span(path.index.unwrap_or(0)),
        name => call.get_flag_value(input::flag_of_field(name)).map(|value| value.span()),
    }
}

/// The tasks when all have ended, in the order in which they were submitted.
fn finished(
    session: &Session,
    engine: &EngineInterface,
    call: &EvaluatedCall,
    submitted: &Submitted,
) -> Result<Vec<Value>, LabeledError> {
    let named: Vec<_> =
        submitted.tasks.iter().map(|task| NamedTask { id: task.id, span: call.head }).collect();
    let ids = named.iter().map(|task| task.id).collect();
    let tasks = Watch::begin(session, ids, None, Line::for_command(engine))
        .and_then(Watch::finish)
        .map_err(|error| error.at(call.head, &named))?;
    tasks
        .iter()
        .map(|task| task_get::record(session, task, call.head).map_err(|failure| failure.at(call.head)))
        .collect()
}
