//! The commands, one file for each or for a small family, and what they share.

mod doctor;
mod events;
mod families;
mod given;
mod provision;
mod start;
mod status;
mod stop;
mod storage_file;
mod storage_init;
mod storage_migrate;
mod storage_offline;
mod storage_status;
mod storage_target;
mod task_change;
mod task_get;
mod task_list;
mod task_logs;
mod task_pause;
mod task_submit;
mod task_wait;
mod test_env_create;
mod test_env_fault;
mod test_env_list;
mod test_env_logs;
mod test_env_run;
mod test_flags;
mod test_image;
mod test_quick;
mod test_topology;
mod workflow_submit;

use nu_plugin::{EvaluatedCall, PluginCommand};
use nu_protocol::{
    Category, Flag, LabeledError, ListStream, PipelineData, Signature, Span, SyntaxShape, Type, Value,
};
use orchestrator_protocol::task::TaskStatus;

use crate::connection::Session;
use crate::errors::invalid;
use crate::input::{NamedTask, Tasks, texts};
use crate::plugin::Orchestrator;
use crate::values;

/// Every command of the plugin.
pub fn all() -> Vec<Box<dyn PluginCommand<Plugin = Orchestrator>>> {
    let mut all: Vec<Box<dyn PluginCommand<Plugin = Orchestrator>>> = vec![
        Box::new(start::Start),
        Box::new(stop::Stop),
        Box::new(status::Status),
        Box::new(doctor::Doctor),
        Box::new(task_list::TaskList),
        Box::new(task_get::TaskGet),
        Box::new(task_get::TaskExplain),
        Box::new(task_submit::TaskSubmit),
        Box::new(task_wait::TaskWait),
        Box::new(task_logs::TaskLogs),
        Box::new(task_change::TaskCancel),
        Box::new(task_change::TaskRetry),
        Box::new(task_pause::TaskPause),
        Box::new(task_pause::TaskResume),
        Box::new(workflow_submit::WorkflowSubmit),
        Box::new(events::Events),
        Box::new(storage_status::StorageStatus),
        Box::new(storage_status::StorageMigrations),
        Box::new(storage_init::StorageInit),
        Box::new(storage_migrate::StorageValidate),
        Box::new(storage_migrate::StorageMigrate),
        Box::new(storage_file::StorageExport),
        Box::new(storage_file::StorageImport),
        Box::new(test_quick::TestQuick),
        Box::new(test_env_list::TestEnvList),
        Box::new(test_env_list::TestEnvStatus),
        Box::new(test_env_run::TestEnvRun),
        Box::new(test_env_run::TestEnvCleanup),
        Box::new(test_env_logs::TestEnvLogs),
        Box::new(test_env_fault::TestEnvFault),
        Box::new(test_topology::TestTopologyList),
        Box::new(test_topology::TestTopologyLoad),
        Box::new(test_image::TestImagePrune),
    ];
    all.extend(provision::ALL.into_iter().map(|command| Box::new(command) as Box<_>));
    all.extend(test_env_create::ALL.into_iter().map(|command| Box::new(command) as Box<_>));
    all.extend(families::all());
    all.into_iter().map(|command| Box::new(given::Given(command)) as Box<_>).collect()
}

/// Parts that signatures share.
trait SignatureExt: Sized {
    /// The category, and the flags that say which engine is meant.
    fn for_engine(self) -> Self;
    /// Tasks as arguments or from the pipeline; one record for one task, a table for several. Any input is
    /// let in: in a closure whose command names its tasks, the closure's own input comes along.
    fn about_tasks(self) -> Self;
    /// The same for environments.
    fn about_environments(self) -> Self;
    /// The same for what `ids` describes.
    fn about(self, ids: &str) -> Self;
    /// The flag that makes a submission repeatable.
    fn with_idempotency_key(self) -> Self;
    /// The flags with which attempts are repeated and bounded.
    fn with_attempt_rules(self) -> Self;
    /// The flags for what a script finds in its environment.
    fn with_environment(self) -> Self;
}

impl SignatureExt for Signature {
    fn for_engine(self) -> Self {
        self.category(category())
            .param(Flag::new("socket").short('S').arg(SyntaxShape::Filepath).desc("Socket of the engine"))
            .param(
                Flag::new("data-dir")
                    .short('D')
                    .arg(SyntaxShape::Directory)
                    .desc("Data directory of the engine"),
            )
    }

    fn about_tasks(self) -> Self {
        self.about("Ids of tasks; without one they come from the pipeline")
    }

    fn about_environments(self) -> Self {
        self.about("Ids of environments; without one they come from the pipeline")
    }

    fn about(self, ids: &str) -> Self {
        self.for_engine().rest("id", SyntaxShape::String, ids).input_output_types(vec![
            (Type::Nothing, Type::one_of([Type::record(), Type::table()])),
            (Type::String, Type::record()),
            (Type::list(Type::String), Type::table()),
            (Type::record(), Type::record()),
            (Type::table(), Type::table()),
            (Type::Any, Type::Any),
        ])
    }

    fn with_idempotency_key(self) -> Self {
        self.param(
            Flag::new("idempotency-key").short('i').arg(SyntaxShape::String).desc(
                "Submit only once: the same key and request again return what the first submission made",
            ),
        )
    }

    fn with_attempt_rules(self) -> Self {
        self.param(
            Flag::new("retries")
                .short('r')
                .arg(SyntaxShape::Int)
                .desc("Attempts after a failed first one (default: 3)"),
        )
        .param(
            Flag::new("timeout")
                .short('t')
                .arg(SyntaxShape::Duration)
                .desc("End an attempt that takes longer (default: no limit)"),
        )
        .param(Flag::new("priority").short('p').arg(SyntaxShape::Int).desc("Higher comes first (default: 0)"))
    }

    fn with_environment(self) -> Self {
        self.param(
            Flag::new("env")
                .short('e')
                .arg(SyntaxShape::record())
                .desc("Variables to add to the script's environment"),
        )
        .param(
            Flag::new("secret")
                .short('s')
                .arg(SyntaxShape::record())
                .desc("Secrets by name, each a reference: env:NAME (of the engine) or file:PATH"),
        )
    }
}

/// The states of tasks, as users type them.
const STATUSES: &[&str] = &["pending", "running", "completed", "failed", "cancelled"];

/// A flag's value that is one thing or a list of them.
fn one_or_more(shape: SyntaxShape) -> SyntaxShape {
    SyntaxShape::OneOf(vec![SyntaxShape::List(Box::new(shape.clone())), shape])
}

fn statuses(value: &Value) -> Result<Vec<TaskStatus>, LabeledError> {
    let span_of = |index: usize| match value {
        Value::List { vals, .. } => vals.get(index).map_or(value.span(), Value::span),
        other => other.span(),
    };
    let status = |(index, name): (usize, String)| {
        name.parse().map_err(|_| unknown(&name, "state", STATUSES, span_of(index)))
    };
    texts(value)?.into_iter().enumerate().map(status).collect()
}

fn unknown(name: &str, what: &str, known: &[&str], span: Span) -> LabeledError {
    invalid(format!("There is no {what} '{name}'"), "not known", span)
        .with_help(format!("use {}", known.join(", ")))
}

fn category() -> Category {
    Category::Custom("orchestrator".into())
}

/// Answers for each task that the call or the input names: one value for one, a stream for several. The
/// stream ends with the first error.
fn for_each_task(
    session: &Session,
    call: &EvaluatedCall,
    input: PipelineData,
    answer: impl Fn(&Session, NamedTask) -> Result<Value, LabeledError> + Send + 'static,
) -> Result<PipelineData, LabeledError> {
    match Tasks::read(call, input)? {
        Tasks::One(task) => Ok(PipelineData::value(answer(session, task)?, None)),
        Tasks::Many(tasks) => {
            let session = session.clone();
            let signals = session.signals();
            let answers = tasks.map(move |task| task.and_then(|task| answer(&session, task)));
            Ok(values::task::table(
                ListStream::new(until_error(answers, call.head), call.head, signals),
                call.head,
            ))
        }
    }
}

/// Values of a stream that ends with its first error: nothing more is asked after it.
fn until_error(
    mut results: impl Iterator<Item = Result<Value, LabeledError>>,
    span: Span,
) -> impl Iterator<Item = Value> {
    let mut over = false;
    std::iter::from_fn(move || {
        if over {
            return None;
        }
        let result = results.next()?;
        over = result.is_err();
        Some(result.unwrap_or_else(|error| Value::error(error.into(), span)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_asked_after_an_error() {
        let mut asked = 0;
        let results = std::iter::from_fn(|| {
            asked += 1;
            Some(Err(LabeledError::new("refused")))
        });
        assert_eq!(until_error(results, Span::test_data()).count(), 1);
        assert_eq!(asked, 1);
    }
}
