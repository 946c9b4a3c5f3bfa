//! `orchestrator task list`

use std::collections::VecDeque;

use chrono::Utc;
use nu_plugin::{DynamicCompletionCall, EngineInterface, EvaluatedCall, PluginCommand};
use nu_protocol::engine::ArgType;
use nu_protocol::{
    Completion, DynamicSuggestion, Example, Flag, LabeledError, ListStream, PipelineData, Signature,
    SyntaxShape, Type, Value,
};
use orchestrator_protocol::request::ListTasks;
use orchestrator_protocol::task::{Task, TaskKind};

use super::{STATUSES, SignatureExt, one_or_more, statuses, unknown, until_error};
use crate::completion;
use crate::connection::Session;
use crate::errors::Failure;
use crate::input::{labels, named_task, number, past_time};
use crate::plugin::Orchestrator;
use crate::values;

/// Lists tasks.
pub struct TaskList;

/// How many tasks are read at a time: enough to fill a screen, so that the first rows come at once.
const PAGE: usize = 200;

const KINDS: &[(&str, TaskKind)] =
    &[("command", TaskKind::Command), ("action", TaskKind::Action), ("workflow", TaskKind::Workflow)];

impl PluginCommand for TaskList {
    type Plugin = Orchestrator;

    fn name(&self) -> &str {
        "orchestrator task list"
    }

    fn description(&self) -> &str {
        "List tasks, newest first."
    }

    fn extra_description(&self) -> &str {
        "Rows are read from the engine as they are needed, so `first 10` on a long list is cheap. The filters are \
applied by the engine; all that are given must fit. `progress` goes from 0 to 1, `duration` is the time since the \
first attempt began, or how long the task took, `error` is why it failed or why its last attempt did."
    }

    fn search_terms(&self) -> Vec<&str> {
        vec!["jobs", "queue", "ls", "show", "find"]
    }

    fn signature(&self) -> Signature {
        let point = || SyntaxShape::OneOf(vec![SyntaxShape::Duration, SyntaxShape::DateTime]);
        Signature::build(self.name())
            .for_engine()
            .param(
                Flag::new("status")
                    .short('s')
                    .arg(one_or_more(SyntaxShape::String))
                    .desc("Only tasks in this state, or in one of these")
                    .completion(Completion::new_list(STATUSES)),
            )
            .param(Flag::new("group").short('g').arg(SyntaxShape::String).desc("Only tasks of this group"))
            .param(
                Flag::new("kind")
                    .short('k')
                    .arg(SyntaxShape::String)
                    .desc("Only tasks of this kind")
                    .completion(Completion::new_list(&["command", "action", "workflow"])),
            )
            .param(
                Flag::new("workflow")
                    .short('w')
                    .arg(SyntaxShape::String)
                    .desc("Only the tasks of this workflow"),
            )
            .param(
                Flag::new("label")
                    .short('l')
                    .arg(SyntaxShape::OneOf(vec![SyntaxShape::record(), SyntaxShape::String]))
                    .desc("Only tasks with this label (key=value), or with all of these (a record)"),
            )
            .param(
                Flag::new("since")
                    .short('a')
                    .arg(point())
                    .desc("Only tasks submitted since this date, or so long ago"),
            )
            .param(
                Flag::new("until")
                    .short('b')
                    .arg(point())
                    .desc("Only tasks submitted before this date, or so long ago"),
            )
            .param(
                Flag::new("text")
                    .short('t')
                    .arg(SyntaxShape::String)
                    .desc("Only tasks whose name, command or error holds this text"),
            )
            .param(Flag::new("limit").short('n').arg(SyntaxShape::Int).desc("At most so many"))
            .param(Flag::new("long").short('L').desc("All that is known of each task"))
            .input_output_type(Type::Nothing, Type::table())
    }

    fn examples(&self) -> Vec<Example<'_>> {
        vec![
            Example { description: "List all tasks", example: "orchestrator task list", result: None },
            Example {
                description: "The names of the tasks that have failed",
                example: "(orchestrator task list --status failed).name",
                result: Some(Value::test_list(vec![Value::test_string("web-02")])),
            },
            Example {
                description: "Try again what failed in the last hour",
                example: "orchestrator task list --status failed --since 1hr | orchestrator task retry",
                result: None,
            },
            Example {
                description: "What runs or waits, with a label",
                example: "orchestrator task list --status [pending running] --label env=prod",
                result: None,
            },
        ]
    }

    fn run(
        &self,
        plugin: &Orchestrator,
        engine: &EngineInterface,
        call: &EvaluatedCall,
        _: PipelineData,
    ) -> Result<PipelineData, LabeledError> {
        let filter = filter(call)?;
        let limit = call.get_flag_value("limit").map(|value| number::<usize>(&value)).transpose()?;
        let session = Session::open(plugin, engine, call)?;
        let make = if call.has_flag("long")? { values::task::whole } else { values::task::row };
        let head = call.head;
        let mut pages = Pages::new(session, filter, limit);
        // The first page now, so that an error is the command's own and not one in its rows.
        pages.read().map_err(|failure| {
            failure.at_field(pages.session.place(head), |field| {
                call.get_flag_value(field).map(|value| value.span())
            })
        })?;
        let signals = engine.signals().clone();
        let rows = pages.map(move |task| match task {
            Ok(task) => Ok(make(&task, Utc::now(), head)),
            Err(failure) => Err(failure.at(head)),
        });
        Ok(values::task::table(ListStream::new(until_error(rows, head), head, signals), head))
    }

    #[expect(deprecated, reason = "the marker of an experimental interface")]
    fn get_dynamic_completion(
        &self,
        _: &Orchestrator,
        engine: &EngineInterface,
        call: DynamicCompletionCall,
        arg_type: ArgType,
        _: nu_protocol::engine::ExperimentalMarker,
    ) -> Option<Vec<DynamicSuggestion>> {
        match arg_type {
            ArgType::Flag(flag) if flag == "group" => completion::groups(engine, &call),
            ArgType::Flag(flag) if flag == "workflow" => completion::workflows(engine, &call),
            _ => None,
        }
    }
}

fn filter(call: &EvaluatedCall) -> Result<ListTasks, LabeledError> {
    let flag = |name| call.get_flag_value(name);
    Ok(ListTasks {
        statuses: flag("status").map(|value| statuses(&value)).transpose()?.unwrap_or_default(),
        group: call.get_flag("group")?,
        kind: flag("kind").map(|value| kind(&value)).transpose()?,
        parent: flag("workflow").map(|value| named_task(&value)).transpose()?.map(|named| named.id),
        labels: flag("label").map(|value| labels(&value)).transpose()?.unwrap_or_default(),
        since: flag("since").map(|value| past_time(&value)).transpose()?,
        until: flag("until").map(|value| past_time(&value)).transpose()?,
        text: call.get_flag("text")?,
        ..ListTasks::default()
    })
}

fn kind(value: &Value) -> Result<TaskKind, LabeledError> {
    let name = value.as_str()?;
    match KINDS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)) {
        Some((_, kind)) => Ok(*kind),
        None => Err(unknown(name, "kind", &["command", "action", "workflow"], value.span())),
    }
}

/// The tasks that fit a filter, read page by page.
struct Pages {
    session: Session,
    next: Option<ListTasks>,
    read: VecDeque<Task>,
    left: Option<usize>,
}

impl Pages {
    fn new(session: Session, filter: ListTasks, limit: Option<usize>) -> Self {
        let next = (limit != Some(0)).then_some(filter);
        Self { session, next, read: VecDeque::new(), left: limit }
    }

    /// Reads the next page, if there is one.
    fn read(&mut self) -> Result<(), Failure> {
        let Some(question) = self.next.take() else { return Ok(()) };
        let limit = self.left.map_or(PAGE, |left| left.min(PAGE));
        let page = self.session.ask(ListTasks { limit: Some(limit), ..question.clone() })?;
        self.left = self.left.map(|left| left.saturating_sub(page.tasks.len()));
        if self.left != Some(0) {
            self.next = page.cursor.map(|cursor| ListTasks { cursor: Some(cursor), ..question });
        }
        self.read.extend(page.tasks);
        Ok(())
    }
}

impl Iterator for Pages {
    type Item = Result<Task, Failure>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.read.is_empty() && self.next.is_some() {
            if let Err(failure) = self.read() {
                return Some(Err(failure));
            }
        }
        self.read.pop_front().map(Ok)
    }
}
