//! What comes in: checked whole at the door, then queued in one commit, or not at all.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use chrono::{TimeDelta, Utc};
use orchestrator_protocol::request::EngineMode;
use orchestrator_protocol::submit::{NewTask, SubmitRequest, Submitted, SubmittedTask};
use orchestrator_protocol::task::{
    Command, Program, RetryPolicy, SecretReference, Task, TaskId, TaskStatus, Work, Workflow,
};
use orchestrator_protocol::{Error, name};
use orchestrator_storage::{Expect, Fields, Key, Operation, Table};
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Queue;
use super::draft::Draft;
use crate::graph::{self, GraphError};
use crate::{labels, records};

/// How many tasks one submission may hold.
pub const MAX_TASKS: usize = 10_000;
/// How many retries a task may ask for.
pub const MAX_RETRIES: u32 = 100;
/// The longest wait between two attempts: 30 days.
pub const MAX_WAIT_MS: u64 = 30 * 24 * 60 * 60 * 1_000;
/// How long a key is kept after the end of what it was used for.
pub const KEY_LIFETIME: TimeDelta = TimeDelta::days(1);

/// A used idempotency key, as stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KeyRecord {
    /// The SHA-256 of the request, in hexadecimal.
    pub request: String,
    /// What it made.
    pub submitted: Submitted,
}

/// The record of an idempotency key: each principal has keys of its own.
pub fn idempotency_key(principal: &str, key: &str) -> Key {
    Key::new(Table::IdempotencyKey, format!("{principal}/{key}"))
}

impl Queue {
    /// Queues tasks, all of them or none.
    pub async fn submit(&self, principal: &str, request: &SubmitRequest) -> Result<Submitted, Error> {
        self.submit_resolved(principal, request, request).await
    }

    /// The same with the paths of a request resolved. Its key goes by what was asked: that stays the same
    /// whatever becomes of files and links.
    pub async fn submit_resolved(
        &self,
        principal: &str,
        asked: &SubmitRequest,
        resolved: &SubmitRequest,
    ) -> Result<Submitted, Error> {
        let key = asked.idempotency_key.as_deref();
        // Before any look at files: they may be gone by now.
        if let Some(earlier) = self.used(principal, key, asked).await? {
            return Ok(earlier);
        }
        let (tasks, submitted) = self.plan_tasks(resolved)?;
        self.queue_tasks(principal, key, asked, tasks, submitted).await
    }

    /// What a key was used for before.
    pub(super) async fn used<T: Serialize>(
        &self,
        principal: &str,
        key: Option<&str>,
        request: &T,
    ) -> Result<Option<Submitted>, Error> {
        let Some(key) = key else { return Ok(None) };
        let nothing = Submitted { id: None, name: None, tasks: Vec::new(), existed: false };
        self.use_key(&mut self.draft(), principal, key, request, &nothing).await
    }

    pub(super) async fn queue_tasks<T: Serialize>(
        &self,
        principal: &str,
        key: Option<&str>,
        request: &T,
        tasks: Vec<Task>,
        submitted: Submitted,
    ) -> Result<Submitted, Error> {
        self.queue_tasks_with(principal, key, request, tasks, submitted, Vec::new()).await
    }

    /// The same, with other records in the same commit.
    pub(super) async fn queue_tasks_with<T: Serialize>(
        &self,
        principal: &str,
        key: Option<&str>,
        request: &T,
        tasks: Vec<Task>,
        submitted: Submitted,
        records: Vec<Operation>,
    ) -> Result<Submitted, Error> {
        if *self.mode.borrow() != EngineMode::Active {
            return Err(Error::unavailable("the engine is about to stop and takes nothing new")
                .with_help("nothing was queued; submit again when it has been started again"));
        }
        loop {
            let mut draft = self.draft();
            if let Some(key) = key {
                match self.use_key(&mut draft, principal, key, request, &submitted).await? {
                    None => {}
                    Some(earlier) => return Ok(earlier),
                }
            }
            self.check_existing_dependencies(&mut draft, &tasks).await?;
            for task in &tasks {
                draft.create(Task { idempotency_key: key.map(String::from), ..task.clone() });
            }
            for record in &records {
                draft.operation(record.clone());
            }
            crate::fault::point("submit.before_commit");
            if self.commit(draft).await?.is_some() {
                crate::fault::point("submit.after_commit");
                return Ok(submitted);
            }
        }
    }

    /// Adds the record of a key, or returns what it was used for before.
    async fn use_key<T: Serialize>(
        &self,
        draft: &mut Draft<'_>,
        principal: &str,
        key: &str,
        request: &T,
        submitted: &Submitted,
    ) -> Result<Option<Submitted>, Error> {
        let text = serde_json::to_vec(request).map_err(|error| Error::internal(error.to_string()))?;
        let digest = hex(&Sha256::digest(text));
        let record_key = idempotency_key(principal, key);
        if let Some(record) = self.store.get(&record_key).await.map_err(records::storage_error)? {
            let used: KeyRecord = records::read(&record)?;
            if used.request != digest {
                return Err(Error::conflict(format!(
                    "the idempotency key '{key}' was used for another request"
                ))
                .with_help("use a key of its own for each request")
                .with_field("idempotency_key"));
            }
            return Ok(Some(Submitted { existed: true, ..used.submitted }));
        }
        let record = KeyRecord { request: digest, submitted: submitted.clone() };
        let main = submitted.id.or_else(|| submitted.tasks.last().map(|task| task.id));
        let fields = Fields {
            parent: main.map(|id| id.to_string().into()),
            created_at_ms: Utc::now().timestamp_millis(),
            ..Fields::default()
        };
        draft.operation(records::put(record_key, fields, &record, Expect::Absent)?);
        Ok(None)
    }

    /// What new tasks depend on must exist and not have ended badly.
    async fn check_existing_dependencies(&self, draft: &mut Draft<'_>, tasks: &[Task]) -> Result<(), Error> {
        let ours: HashMap<TaskId, ()> = tasks.iter().map(|task| (task.id, ())).collect();
        for (index, task) in tasks.iter().enumerate() {
            let foreign = task.depends_on.iter().enumerate().filter(|(_, id)| !ours.contains_key(id));
            for (position, dependency) in foreign {
                let status = draft.get(*dependency).await?.map(|task| (task.status, task.name.clone()));
                let problem = match status {
                    None => "does not exist".to_owned(),
                    Some((TaskStatus::Failed, name)) => format!("('{name}') has failed"),
                    Some((TaskStatus::Cancelled, name)) => format!("('{name}') was cancelled"),
                    Some(_) => continue,
                };
                return Err(Error::invalid(format!(
                    "task '{}' depends on {dependency}, which {problem}",
                    task.name
                ))
                .with_help("nothing was queued; retry the dependency first, or leave it out")
                .with_field(format!("tasks[{index}].depends_on[{position}]")));
            }
        }
        Ok(())
    }

    fn plan_tasks(&self, request: &SubmitRequest) -> Result<(Vec<Task>, Submitted), Error> {
        if request.tasks.is_empty() {
            return Err(Error::invalid("the submission holds no task").with_field("tasks"));
        }
        if request.tasks.len() > MAX_TASKS {
            return Err(Error::invalid(format!(
                "the submission holds {} tasks, and {MAX_TASKS} are allowed at once",
                request.tasks.len()
            ))
            .with_field("tasks"));
        }
        if let Some(key) = &request.idempotency_key {
            name::word("idempotency key", key)
                .map_err(|error| Error::from(error).with_field("idempotency_key"))?;
        }
        let names = names(&request.tasks)?;
        let after = graph::resolve(
            names.iter().zip(&request.tasks).map(|(name, task)| (name.as_str(), task.after.as_slice())),
        )
        .map_err(graph_error)?;
        let workflow =
            request.workflow.as_deref().map(|name| self.new_workflow(name, request)).transpose()?;
        let ids: Vec<TaskId> = request.tasks.iter().map(|_| TaskId::generate()).collect();
        let mut tasks = Vec::with_capacity(ids.len() + 1);
        for (index, new) in request.tasks.iter().enumerate() {
            let at = |error: Error| {
                let field = error.field.clone().map_or(String::new(), |field| format!(".{field}"));
                error.with_field(format!("tasks[{index}]{field}"))
            };
            let mut task = self.new_command(ids[index], &names[index], new).map_err(at)?;
            task.depends_on.extend(after[index].iter().map(|place| ids[*place]));
            task.parent = workflow.as_ref().map(|workflow| workflow.id);
            tasks.push(task);
        }
        let listed = tasks
            .iter()
            .map(|task| SubmittedTask { id: task.id, name: task.name.clone() })
            .collect::<Vec<_>>();
        let (id, name) = match (&workflow, listed.as_slice()) {
            (Some(workflow), _) => (Some(workflow.id), Some(workflow.name.clone())),
            (None, [only]) => (Some(only.id), Some(only.name.clone())),
            (None, _) => (None, None),
        };
        tasks.extend(workflow);
        Ok((tasks, Submitted { id, name, tasks: listed, existed: false }))
    }

    fn new_workflow(&self, workflow: &str, request: &SubmitRequest) -> Result<Task, Error> {
        name::word("workflow name", workflow).map_err(|error| Error::from(error).with_field("workflow"))?;
        let group = request.tasks.iter().find_map(|task| task.group.clone()).unwrap_or_else(default_group);
        let summary = Workflow { total: request.tasks.len() as u64, ..Workflow::default() };
        Ok(self.new_task(workflow, Work::Workflow(summary), &group))
    }

    fn new_command(&self, id: TaskId, task_name: &str, new: &NewTask) -> Result<Task, Error> {
        let cwd = working_directory(new.cwd.as_deref())?;
        let script =
            readable_file("script", &cwd, &new.script).map_err(|error| error.with_field("script"))?;
        check_executable(&script)?;
        check_environment(&new.env)?;
        check_secrets(&new.secrets)?;
        let group = new.group.clone().unwrap_or_else(default_group);
        name::word("group", &group).map_err(|error| Error::from(error).with_field("group"))?;
        if let Some(lock) = &new.lock {
            name::word("lock", lock).map_err(|error| Error::from(error).with_field("lock"))?;
        }
        for (label, value) in &new.labels {
            check_label(label, value).map_err(|error| error.with_field("labels"))?;
        }
        labels::check(&new.requires).map_err(|error| error.with_field("requires"))?;
        let command = Command {
            program: Program::Script { path: script },
            cwd: cwd.to_string_lossy().into_owned(),
            env: new.env.clone(),
            secrets: new.secrets.clone(),
            params: new.params.clone(),
        };
        Ok(Task {
            id,
            priority: new.priority,
            depends_on: new.depends_on.clone(),
            labels: new.labels.clone(),
            lock: new.lock.clone(),
            retry: self.checked_retry(new.retry)?,
            timeout_ms: checked_timeout(new.timeout_ms)?,
            grace_ms: new.grace_ms.unwrap_or(self.options.grace_ms),
            requires: new.requires.clone(),
            on_engine_loss: new.on_engine_loss.unwrap_or_default(),
            not_before: new.not_before,
            ..self.new_task(task_name, Work::Command(command), &group)
        })
    }

    pub(super) fn new_task(&self, title: &str, work: Work, group: &str) -> Task {
        let (retry, grace_ms) = (self.options.retry, self.options.grace_ms);
        Task { retry, grace_ms, ..Task::new(title, work, group) }
    }

    pub(super) fn checked_retry(&self, retry: Option<RetryPolicy>) -> Result<RetryPolicy, Error> {
        let retry = retry.unwrap_or(self.options.retry);
        if retry.max_retries > MAX_RETRIES {
            return Err(Error::invalid(format!(
                "{} retries are asked for, and {MAX_RETRIES} are allowed",
                retry.max_retries
            ))
            .with_field("retry.max_retries"));
        }
        for (field, wait) in [("retry.base_ms", retry.base_ms), ("retry.cap_ms", retry.cap_ms)] {
            if wait > MAX_WAIT_MS {
                return Err(Error::invalid(format!(
                    "a wait of {wait} ms is longer than the 30 days that are allowed"
                ))
                .with_field(field));
            }
        }
        Ok(retry)
    }
}

fn default_group() -> String {
    "default".into()
}

/// The name of each task: its own, or its script's. Several tasks of one script are numbered.
fn names(tasks: &[NewTask]) -> Result<Vec<String>, Error> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let given = |task: &NewTask| task.name.clone();
    let stem =
        |task: &NewTask| Path::new(&task.script).file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let unnamed: HashMap<String, usize> =
        tasks.iter().filter(|task| task.name.is_none()).fold(HashMap::new(), |mut counts, task| {
            *counts.entry(stem(task).unwrap_or_default()).or_default() += 1;
            counts
        });
    tasks
        .iter()
        .enumerate()
        .map(|(index, task)| {
            let chosen = given(task).unwrap_or_else(|| {
                let stem = stem(task).unwrap_or_default();
                let number = seen.entry(stem.clone()).or_default();
                *number += 1;
                if unnamed.get(&stem).is_some_and(|count| *count > 1) {
                    format!("{stem}-{number}")
                } else {
                    stem
                }
            });
            name::word("task name", &chosen)
                .map_err(|error| Error::from(error).with_field(format!("tasks[{index}].name")))?;
            Ok(chosen)
        })
        .collect()
}

fn graph_error(error: GraphError) -> Error {
    let field = match &error {
        GraphError::Duplicate { index, .. } => format!("tasks[{index}].name"),
        GraphError::Unknown { index, position, .. } => format!("tasks[{index}].after[{position}]"),
        GraphError::Cycle { .. } => "tasks".to_owned(),
    };
    Error::invalid(error.to_string()).with_help("nothing was queued").with_field(field)
}

pub(super) fn working_directory(cwd: Option<&str>) -> Result<PathBuf, Error> {
    let path = match cwd {
        Some(cwd) => PathBuf::from(cwd),
        None => std::env::current_dir()
            .map_err(|error| Error::internal(format!("the engine's working directory is gone: {error}")))?,
    };
    if !path.is_absolute() {
        return Err(Error::invalid(format!("the working directory '{}' is not absolute", path.display()))
            .with_field("cwd"));
    }
    if !path.is_dir() {
        return Err(Error::invalid(format!("the working directory {} does not exist", path.display()))
            .with_field("cwd"));
    }
    Ok(path)
}

/// The absolute path of a file that can be read.
pub(super) fn readable_file(what: &str, cwd: &Path, path: &str) -> Result<String, Error> {
    let full = cwd.join(path);
    // A pipe that nobody writes to would hold up whoever opens it.
    let without_waiting = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    let opened = fs::OpenOptions::new().read(true).custom_flags(without_waiting).open(&full);
    let problem = match opened.and_then(|file| file.metadata()) {
        Ok(metadata) if metadata.is_file() => None,
        Ok(_) => Some("is not a file".to_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Some("does not exist".to_owned()),
        Err(error) => Some(format!("cannot be read: {error}")),
    };
    match problem {
        Some(problem) => Err(Error::invalid(format!("the {what} {} {problem}", full.display()))
            .with_help("relative paths start at the working directory of whoever submits")),
        None => Ok(std::path::absolute(&full).unwrap_or(full).to_string_lossy().into_owned()),
    }
}

/// What is not run by Nushell runs by itself.
fn check_executable(script: &str) -> Result<(), Error> {
    let is_nu = Path::new(script).extension().is_some_and(|extension| extension == "nu");
    let mode = fs::metadata(script).map_or(0, |metadata| metadata.permissions().mode());
    if is_nu || mode & 0o111 != 0 {
        return Ok(());
    }
    Err(Error::invalid(format!("the script {script} is not executable"))
        .with_help("make it so with chmod +x, or give it a name that ends with .nu")
        .with_field("script"))
}

/// Refuses a label that cannot be stored or shown.
pub fn check_label(label: &str, value: &str) -> Result<(), Error> {
    name::word("label", label)?;
    if value.len() > 200 || value.chars().any(char::is_control) {
        return Err(Error::invalid(format!(
            "the value of label '{label}' is longer than 200 bytes or not text"
        )));
    }
    Ok(())
}

pub(super) fn check_environment(env: &BTreeMap<String, String>) -> Result<(), Error> {
    for (variable, value) in env {
        name::environment_variable(variable).map_err(|error| Error::from(error).with_field("env"))?;
        if value.contains('\0') {
            return Err(Error::invalid(format!("the variable {variable} holds a NUL byte")).with_field("env"));
        }
    }
    Ok(())
}

pub(super) fn check_secrets(secrets: &BTreeMap<String, SecretReference>) -> Result<(), Error> {
    for secret in secrets.keys() {
        name::word("secret name", secret).map_err(|error| Error::from(error).with_field("secrets"))?;
    }
    Ok(())
}

pub(super) fn checked_timeout(timeout_ms: Option<u64>) -> Result<Option<u64>, Error> {
    match timeout_ms {
        Some(0) => {
            Err(Error::invalid("a timeout of 0 would end every attempt at once").with_field("timeout_ms"))
        }
        other => Ok(other),
    }
}

/// Bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
