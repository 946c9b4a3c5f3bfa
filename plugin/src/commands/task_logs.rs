//! `orchestrator task logs`

use std::collections::{HashMap, VecDeque};

use nu_plugin::{DynamicCompletionCall, EngineInterface, EvaluatedCall, PluginCommand};
use nu_protocol::engine::ArgType;
use nu_protocol::{
    ByteStream, ByteStreamType, Completion, DynamicSuggestion, Example, Flag, LabeledError, ListStream,
    PipelineData, Signature, Span, SyntaxShape, Type, Value,
};
use orchestrator_protocol::client::{Items, Look};
use orchestrator_protocol::event::{Item, OutputStream};
use orchestrator_protocol::request::{GetTask, LogsRequest, Subscription};
use orchestrator_protocol::task::{Task, TaskId, TaskKind};

use super::{SignatureExt, until_error};
use crate::completion;
use crate::connection::{LOOK, Session};
use crate::errors::{Failure, invalid};
use crate::input::{NamedTask, Tasks, number};
use crate::plugin::Orchestrator;
use crate::values::log;

/// Shows the output of tasks.
pub struct TaskLogs;

impl PluginCommand for TaskLogs {
    type Plugin = Orchestrator;

    fn name(&self) -> &str {
        "orchestrator task logs"
    }

    fn description(&self) -> &str {
        "Show what a task has printed, and follow it while it runs."
    }

    fn extra_description(&self) -> &str {
        "Each line is a record with its time, attempt and stream (out or err); with several tasks, or the tasks of a \
workflow, also with the task's name. The newest attempt is shown; with --follow, further ones too, until the task has \
ended. Ctrl-C stops following, never the task."
    }

    fn search_terms(&self) -> Vec<&str> {
        vec!["output", "stdout", "stderr", "tail", "follow"]
    }

    fn signature(&self) -> Signature {
        let lines = || Type::one_of([Type::table(), Type::String]);
        Signature::build(self.name())
            .about_tasks()
            .param(Flag::new("follow").short('f').desc("Go on until the task has ended"))
            .param(Flag::new("tail").short('n').arg(SyntaxShape::Int).desc("Only the last so many lines"))
            .param(
                Flag::new("attempt")
                    .short('a')
                    .arg(SyntaxShape::Int)
                    .desc("This attempt (default: the newest)"),
            )
            .param(
                Flag::new("stream")
                    .short('s')
                    .arg(SyntaxShape::String)
                    .desc("Only one of the two outputs")
                    .completion(Completion::new_list(&["out", "err"])),
            )
            .param(Flag::new("raw").short('r').desc("The text alone"))
            .input_output_types(vec![
                (Type::Nothing, lines()),
                (Type::String, lines()),
                (Type::list(Type::String), lines()),
                (Type::record(), lines()),
                (Type::table(), lines()),
                (Type::Any, lines()),
            ])
    }

    fn examples(&self) -> Vec<Example<'_>> {
        vec![
            Example {
                description: "Follow a task",
                example: "orchestrator task logs 01890a5d-ac96-774b-bcce-b302099a8057 --follow",
                result: None,
            },
            Example {
                description: "What it has printed on standard error",
                example: "(orchestrator task logs 01890a5d-ac96-774b-bcce-b302099a8057 --stream err).line",
                result: Some(Value::test_list(vec![Value::test_string("almost full")])),
            },
            Example {
                description: "Keep the output of the first attempt in a file",
                example: "orchestrator task logs 01890a5d-ac96-774b-bcce-b302099a8057 --attempt 1 --raw | save first.log",
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
        let wanted = Wanted::read(call)?;
        let (tasks, alone) = Tasks::read(call, input)?.collect()?;
        let session = Session::open(plugin, engine, call)?;
        let lines = Lines::open(session, tasks, alone, wanted)?;
        let head = call.head;
        let signals = engine.signals().clone();
        if call.has_flag("raw")? {
            let text = lines.map(|part| match part {
                Ok(Part { item: Item::Line(line), .. }) => Ok(line.line + "\n"),
                Ok(Part { item: Item::Dropped { lines, bytes, .. }, .. }) => {
                    Ok(log::dropped_text(lines, bytes) + "\n")
                }
                Ok(_) => Ok(String::new()),
                Err(error) => Err(error.into()),
            });
            let stream = ByteStream::from_result_iter(text, head, signals, ByteStreamType::String);
            return Ok(PipelineData::byte_stream(stream, None));
        }
        let records = lines.filter_map(move |part| match part {
            Ok(Part { item: Item::Line(line), task }) => Some(Ok(log::line(&line, task.as_deref(), head))),
            Ok(Part { item: Item::Dropped { lines, bytes, .. }, task }) => {
                Some(Ok(log::dropped(lines, bytes, task.as_deref(), head)))
            }
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        });
        Ok(PipelineData::list_stream(ListStream::new(until_error(records, head), head, signals), None))
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
        completion::ids(engine, &call, &arg_type, &[])
    }
}

/// Which lines are wanted, of whatever task.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    follow: bool,
    tail: Option<u64>,
    attempt: Option<u32>,
    stream: Option<OutputStream>,
}

impl Wanted {
    fn read(call: &EvaluatedCall) -> Result<Self, LabeledError> {
        let stream = |value: Value| match value.as_str()? {
            "out" => Ok(OutputStream::Stdout),
            "err" => Ok(OutputStream::Stderr),
            other => Err(invalid(format!("There is no output '{other}'"), "not known", value.span())
                .with_help("use out or err")),
        };
        let attempt = call.get_flag_value("attempt").map(|value| number(&value)).transpose()?;
        if let (Some(0), Some(value)) = (attempt, call.get_flag_value("attempt")) {
            return Err(invalid("Attempts are counted from 1", "there is no such attempt", value.span()));
        }
        Ok(Self {
            follow: call.has_flag("follow")?,
            tail: call.get_flag_value("tail").map(|value| number(&value)).transpose()?,
            attempt,
            stream: call.get_flag_value("stream").map(stream).transpose()?,
        })
    }

    fn of(self, id: TaskId) -> Subscription {
        let Self { follow, tail, attempt, stream } = self;
        Subscription::Logs(LogsRequest { id, attempt, tail, follow, stream })
    }
}

/// An item of some task's output.
struct Part {
    item: Item,
    /// The task's name, where lines of several are mixed.
    task: Option<String>,
}

/// The output of one task that is being read.
struct Open {
    items: Items,
    span: Span,
}

/// The output of tasks: one after the other, or, when they are followed, all at once.
struct Lines {
    session: Session,
    wanted: Wanted,
    waiting: VecDeque<NamedTask>,
    open: VecDeque<Open>,
    /// Names, where lines of several tasks are mixed.
    names: Option<HashMap<TaskId, String>>,
}

impl Lines {
    fn open(
        session: Session,
        tasks: Vec<NamedTask>,
        alone: bool,
        wanted: Wanted,
    ) -> Result<Self, LabeledError> {
        let ask =
            |task: &NamedTask| session.ask(GetTask { id: task.id }).map_err(|failure| failure.at(task.span));
        // Asked for now, so that an unknown id is the command's own error and not one in its lines.
        let known = tasks.iter().map(ask).collect::<Result<Vec<Box<Task>>, _>>()?;
        let mixed = !alone || known.iter().any(|task| task.kind() == TaskKind::Workflow);
        let names = mixed.then(|| known.into_iter().map(|task| (task.id, task.name)).collect());
        Ok(Self { session, wanted, waiting: tasks.into(), open: VecDeque::new(), names })
    }

    fn name(&mut self, id: TaskId) -> Option<String> {
        let names = self.names.as_mut()?;
        if let Some(name) = names.get(&id) {
            return Some(name.clone());
        }
        // A task of a workflow: looked up once. Its id does where it cannot be looked up.
        let name = self.session.ask(GetTask { id }).map_or_else(|_| id.to_string(), |task| task.name);
        names.insert(id, name.clone());
        Some(name)
    }

    /// Begins to read what is to be read now.
    fn fill(&mut self) -> Result<(), LabeledError> {
        while self.wanted.follow || self.open.is_empty() {
            let Some(task) = self.waiting.pop_front() else { break };
            let items =
                self.session.subscribe(self.wanted.of(task.id)).map_err(|failure| failure.at(task.span))?;
            self.open.push_back(Open { items, span: task.span });
        }
        Ok(())
    }

    /// One look at the next of the open outputs.
    fn look(&mut self, mut open: Open) -> Result<Option<Part>, LabeledError> {
        let patience = LOOK / u32::try_from(self.open.len() + 1).unwrap_or(u32::MAX);
        match open.items.next(patience.max(std::time::Duration::from_millis(1))) {
            Ok(Look::Item(item)) => {
                let task = match &*item {
                    Item::Line(line) => self.name(line.task),
                    Item::Dropped { task, .. } => self.name(*task),
                    _ => None,
                };
                // What has more to say now goes on first; the others are looked at when it pauses.
                self.open.push_front(open);
                Ok(Some(Part { item: *item, task }))
            }
            Ok(Look::Nothing) => {
                self.open.push_back(open);
                Ok(None)
            }
            Ok(Look::End) => Ok(None),
            Err(error) => Err(Failure::from(error).at(open.span)),
        }
    }
}

impl Iterator for Lines {
    type Item = Result<Part, LabeledError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.session.interrupted() {
                return None;
            }
            if let Err(error) = self.fill() {
                return Some(Err(error));
            }
            let open = self.open.pop_front()?;
            match self.look(open) {
                Ok(None) => {}
                Ok(Some(part)) => return Some(Ok(part)),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}
