//! Test environments as records of the queue, and the tasks that work on them.
//!
//! An environment is a record, changed by compare-and-set. Its creation, its runs and its removal are
//! actions, so that priorities, cancel, logs and events hold for them as for anything else. All of them
//! carry the environment's id as a label and hold a lock of its name, so that they never overlap. What
//! the actions do is not known here ([`crate::test_orchestrator`]).

use chrono::{DateTime, TimeDelta, Utc};
use orchestrator_protocol::Error;
use orchestrator_protocol::environment::{
    Environment, EnvironmentId, EnvironmentRequest, EnvironmentStatus, EnvironmentTask, ListEnvironments,
    RunEnvironment,
};
use orchestrator_protocol::name;
use orchestrator_protocol::submit::{Submitted, SubmittedTask};
use orchestrator_protocol::task::{Action, RetryPolicy, Task, TaskId, TaskStatus, Work, Workflow};
use orchestrator_storage::{
    Change, Expect, Fields, Filter, Key, Operation, Order, Query, Record, StoreError, Table,
};

use super::Queue;
use super::draft::lock_key;
use super::finish::{Ending, Verdict, judge};
use super::submit::MAX_RETRIES;
use crate::{labels, records};

/// The label with the environment that a task is about.
pub const ENVIRONMENT_LABEL: &str = "environment";
/// The group of environments that name no infra.
pub const DEFAULT_GROUP: &str = "test";
/// How long an environment lives that does not say otherwise.
const LIFETIME: TimeDelta = TimeDelta::days(1);
/// The longest that it may ask for.
const LONGEST_LIFETIME: TimeDelta = TimeDelta::days(30);
/// Why an environment that nothing works on is in `error`, and what it said until then.
const LEFT: &str = "the task that left it";
const BEFORE: &str = "; before that: ";
/// How many records one look into the store returns here.
const PAGE: usize = 500;

fn key(id: EnvironmentId) -> Key {
    Key::new(Table::Environment, id.to_string())
}

/// The lock that every task about an environment holds.
fn environment_lock(id: EnvironmentId) -> String {
    format!("environment:{id}")
}

fn fields(environment: &Environment) -> Fields {
    Fields {
        status: Some(environment.status.as_str().into()),
        group: Some(group(&environment.request).into()),
        created_at_ms: environment.created_at.timestamp_millis(),
        ended_at_ms: environment.cleaned_at.map(|time| time.timestamp_millis()),
        ..Fields::default()
    }
}

fn group(request: &EnvironmentRequest) -> String {
    request.infra.clone().unwrap_or_else(|| DEFAULT_GROUP.to_owned())
}

/// There is no such environment.
pub fn unknown_environment(id: EnvironmentId) -> Error {
    Error::not_found(format!("there is no environment {id}")).with_help(
        "`orchestrator test env list` shows those that there are; removed ones are forgotten after a while",
    )
}

impl Queue {
    /// Queues the creation of an environment, and with `auto_start` its run. The caller has checked what
    /// it is to become. What is made of it belongs to the `owner`, whichever engine makes or removes it.
    pub async fn create_environment(
        &self,
        principal: &str,
        request: &EnvironmentRequest,
        environment_name: &str,
        owner: &str,
    ) -> Result<EnvironmentTask, Error> {
        if let Some(infra) = &request.infra {
            name::dns_label("infra name", infra).map_err(|error| Error::from(error).with_field("infra"))?;
        }
        if let Some(key) = &request.idempotency_key {
            name::word("idempotency key", key)
                .map_err(|error| Error::from(error).with_field("idempotency_key"))?;
        }
        let idempotency_key = request.idempotency_key.as_deref();
        if let Some(earlier) = self.used(principal, idempotency_key, request).await? {
            return self.made_before(&earlier).await;
        }
        let now = Utc::now();
        let id = EnvironmentId::generate();
        let environment = Environment {
            id,
            name: environment_name.to_owned(),
            status: EnvironmentStatus::Creating,
            request: request.clone(),
            engine: self.options.engine.clone(),
            docker: self.options.labels.get(labels::DOCKER).cloned(),
            owner: Some(owner.to_owned()),
            network: None,
            nodes: Vec::new(),
            partitions: Vec::new(),
            runs: 0,
            run_task: None,
            results: Vec::new(),
            task: None,
            error: None,
            created_at: now,
            ready_at: None,
            cleaned_at: None,
            expires_at: now + lifetime(request)?,
        };
        let title = format!("test environment {environment_name}");
        let group = group(request);
        let mut workflow = self.new_task(&title, Work::Workflow(Workflow::default()), &group);
        workflow.priority = request.priority;
        workflow.labels.insert(ENVIRONMENT_LABEL.into(), id.to_string());
        let action = Action::CreateEnvironment { environment: id };
        let create = self.environment_task(&environment, Some(&workflow), "create", action);
        let mut tasks = vec![create];
        if request.auto_start {
            let action = Action::RunEnvironment {
                environment: id,
                run: Box::new(request.run.clone()),
                cwd: request.cwd.clone(),
            };
            let mut run = self.environment_task(&environment, Some(&workflow), "run the tests of", action);
            run.depends_on = vec![tasks[0].id];
            tasks.push(run);
        }
        workflow.work = Work::Workflow(Workflow { total: tasks.len() as u64, ..Workflow::default() });
        let listed =
            tasks.iter().map(|task| SubmittedTask { id: task.id, name: task.name.clone() }).collect();
        let submitted = Submitted { id: Some(workflow.id), name: Some(title), tasks: listed, existed: false };
        let environment = Environment { task: Some(tasks[0].id), ..environment };
        let record = records::put(key(id), fields(&environment), &environment, Expect::Absent)?;
        let task = workflow.id;
        tasks.push(workflow);
        let made = self
            .queue_tasks_with(principal, idempotency_key, request, tasks, submitted, vec![record])
            .await?;
        if made.existed {
            return self.made_before(&made).await;
        }
        Ok(EnvironmentTask { environment: id, task, existed: false })
    }

    /// Queues a run of an environment's tests.
    pub async fn run_environment(&self, request: &RunEnvironment) -> Result<EnvironmentTask, Error> {
        let environment = self.environment(request.id).await?;
        match environment.status {
            EnvironmentStatus::Ready | EnvironmentStatus::Passed | EnvironmentStatus::Failed => {}
            EnvironmentStatus::Creating | EnvironmentStatus::RunningTests => {}
            other => {
                return Err(Error::conflict(format!(
                    "environment '{}' is '{other}': its tests cannot be run",
                    environment.name
                )));
            }
        }
        let action = Action::RunEnvironment {
            environment: request.id,
            run: Box::new(request.run.clone()),
            cwd: request.cwd.clone(),
        };
        let mut task = self.environment_task(&environment, None, "run the tests of", action);
        // One that is still being made is waited for.
        if environment.status == EnvironmentStatus::Creating {
            task.depends_on = environment.task.into_iter().collect();
        }
        self.queue_environment_task(task, request.id).await
    }

    /// Queues the removal of an environment, and calls off what is under way in it. One that is being
    /// removed already is left at that.
    pub async fn clean_environment(&self, id: EnvironmentId, reason: &str) -> Result<EnvironmentTask, Error> {
        let environment = self.environment(id).await?;
        let open = self.open_tasks(id).await?;
        let is_removal = |task: &Task| matches!(task.work, Work::Action(Action::CleanEnvironment { .. }));
        if let Some(removal) = open.iter().find(|task| is_removal(task)) {
            return Ok(EnvironmentTask { environment: id, task: removal.id, existed: true });
        }
        if environment.status == EnvironmentStatus::Cleaned {
            let task = environment.task.ok_or_else(|| unknown_environment(id))?;
            return Ok(EnvironmentTask { environment: id, task, existed: true });
        }
        let action = Action::CleanEnvironment { environment: id };
        let task = self.environment_task(&environment, None, "clean", action);
        let queued = self.queue_environment_task(task, id).await?;
        for task in open {
            match self.cancel(task.id, reason).await {
                Ok(_) => {}
                // It has ended in the meantime.
                Err(error) if error.code == orchestrator_protocol::ErrorCode::Conflict => {}
                Err(error) => return Err(error),
            }
        }
        Ok(queued)
    }

    /// Commits the end of an action on an environment. Where that end is final and `and_clean`, the
    /// removal is queued with it.
    pub async fn finish_environment_task(
        &self,
        task: &Task,
        ending: &Ending,
        environment: &Environment,
        and_clean: bool,
    ) -> Result<(), Error> {
        loop {
            let mut draft = self.draft();
            let Some(now) = draft.get(task.id).await?.cloned() else { return Ok(()) };
            let is_final = !matches!(judge(&now, ending, 0.0), Verdict::Retry(_));
            if and_clean && is_final {
                let workflow = match now.parent {
                    // Before this task ends, so that the workflow does not end with it.
                    Some(parent) => {
                        draft.get(parent).await?.filter(|workflow| workflow.cancel.is_none()).cloned()
                    }
                    None => None,
                };
                if let Some(workflow) = &workflow
                    && let Work::Workflow(mut summary) = workflow.work
                {
                    summary.total += 1;
                    draft.edit(workflow.id).await?.work = Work::Workflow(summary);
                }
                let action = Action::CleanEnvironment { environment: environment.id };
                draft.create(self.environment_task(environment, workflow.as_ref(), "clean", action));
            }
            if !self.draft_ending(&mut draft, task.id, task.fence, ending).await? {
                self.leave(task.id, task.fence);
                return Ok(());
            }
            if self.commit(draft).await?.is_some() {
                return Ok(());
            }
        }
    }

    /// One environment.
    pub async fn environment(&self, id: EnvironmentId) -> Result<Environment, Error> {
        self.find_environment(id).await?.ok_or_else(|| unknown_environment(id))
    }

    /// The same, `None` where there is none.
    pub async fn find_environment(&self, id: EnvironmentId) -> Result<Option<Environment>, Error> {
        let record = self.store.get(&key(id)).await.map_err(records::storage_error)?;
        record.as_ref().map(records::read).transpose()
    }

    /// Changes an environment, as often as another change comes first.
    ///
    /// # Errors
    /// A conflict when the change of its state is not legal.
    pub async fn update_environment(
        &self,
        id: EnvironmentId,
        change: &(dyn Fn(&mut Environment) + Send + Sync),
    ) -> Result<Environment, Error> {
        loop {
            let record = self.store.get(&key(id)).await.map_err(records::storage_error)?;
            let record = record.ok_or_else(|| unknown_environment(id))?;
            let before: Environment = records::read(&record)?;
            let mut after = before.clone();
            change(&mut after);
            if !before.status.may_become(after.status) {
                return Err(Error::conflict(format!(
                    "environment '{}' is '{}' and cannot become '{}'",
                    before.name, before.status, after.status
                )));
            }
            if after == before {
                return Ok(after);
            }
            let put = records::put(key(id), fields(&after), &after, Expect::Revision(record.revision))?;
            match self.store.commit(vec![put]).await {
                Ok(_) => return Ok(after),
                Err(StoreError::Conflict { .. }) => tokio::task::yield_now().await,
                Err(error) => return Err(records::storage_error(error)),
            }
        }
    }

    /// Says of an environment that is not at rest, and that no task works on or is about to, that it is in
    /// `error`. Does nothing to any other; nobody takes it up in between.
    pub async fn abandon_environment(&self, id: EnvironmentId) -> Result<(), Error> {
        loop {
            let record = self.store.get(&key(id)).await.map_err(records::storage_error)?;
            let Some(record) = record else { return Ok(()) };
            let mut environment: Environment = records::read(&record)?;
            let lock = lock_key(&environment_lock(id));
            let is_held = self.store.get(&lock).await.map_err(records::storage_error)?.is_some();
            if !environment.status.is_at_work() || is_held || !self.open_tasks(id).await?.is_empty() {
                return Ok(());
            }
            let was = environment.status;
            environment.status = EnvironmentStatus::Error;
            let why = format!("{LEFT} '{was}' has ended");
            let before = environment.error.take();
            let before = before.as_deref().and_then(|said| said.rsplit(BEFORE).next());
            environment.error = Some(match before.filter(|said| !said.starts_with(LEFT)) {
                Some(before) => format!("{why}{BEFORE}{before}"),
                None => why,
            });
            let expect = Expect::Revision(record.revision);
            let put = records::put(key(id), fields(&environment), &environment, expect)?;
            // Whoever works on it holds its lock from the claim on.
            let check = Operation { key: lock, expect: Expect::Absent, change: Change::Check };
            match self.store.commit(vec![put, check]).await {
                Ok(_) => return Ok(()),
                Err(StoreError::Conflict { .. }) => tokio::task::yield_now().await,
                Err(error) => return Err(records::storage_error(error)),
            }
        }
    }

    /// Environments that pass the filters, newest first. Those that are gone only where they are asked
    /// for.
    pub async fn environments(&self, request: &ListEnvironments) -> Result<Vec<Environment>, Error> {
        let wanted: Vec<EnvironmentStatus> = match request.statuses.as_slice() {
            [] => EnvironmentStatus::ALL
                .into_iter()
                .filter(|status| *status != EnvironmentStatus::Cleaned)
                .collect(),
            some => some.to_vec(),
        };
        let filter = Filter {
            statuses: wanted.iter().map(|status| status.as_str().into()).collect(),
            group: request.infra.as_deref().map(Into::into),
            ..Filter::default()
        };
        self.list_environments(filter, Order::NewestFirst).await
    }

    /// Every environment that is remembered.
    pub async fn all_environments(&self) -> Result<Vec<Environment>, Error> {
        self.list_environments(Filter::default(), Order::OldestFirst).await
    }

    /// Forgets environments that were gone before a time.
    pub async fn forget_environments(&self, before: DateTime<Utc>) -> Result<Vec<EnvironmentId>, Error> {
        let filter = Filter { ended_before_ms: Some(before.timestamp_millis()), ..Filter::default() };
        let mut forgotten = Vec::new();
        for environment in self.list_environments(filter, Order::OldestFirst).await? {
            let record = self.store.get(&key(environment.id)).await.map_err(records::storage_error)?;
            let Some(Record { key, revision, .. }) = record else { continue };
            self.store.commit(vec![records::delete(key, revision)]).await.map_err(records::storage_error)?;
            forgotten.push(environment.id);
        }
        Ok(forgotten)
    }

    async fn list_environments(&self, filter: Filter, order: Order) -> Result<Vec<Environment>, Error> {
        let mut query = Query { table: Table::Environment, filter, order, after: None, limit: PAGE };
        let mut environments = Vec::new();
        loop {
            let page = self.store.list(&query).await.map_err(records::storage_error)?;
            for record in &page.records {
                environments.push(records::read(record)?);
            }
            match page.next {
                Some(next) => query.after = Some(next),
                None => return Ok(environments),
            }
        }
    }

    /// The tasks about an environment that have not ended, workflows left out.
    async fn open_tasks(&self, id: EnvironmentId) -> Result<Vec<Task>, Error> {
        let mut query = Query {
            table: Table::Task,
            filter: Filter {
                statuses: [TaskStatus::Pending, TaskStatus::Running].map(records::status_field).to_vec(),
                labels: [(ENVIRONMENT_LABEL.into(), id.to_string().into())].into(),
                ..Filter::default()
            },
            order: Order::OldestFirst,
            after: None,
            limit: PAGE,
        };
        let mut tasks = Vec::new();
        loop {
            let page = self.store.list(&query).await.map_err(records::storage_error)?;
            for record in &page.records {
                let task: Task = records::read(record)?;
                if matches!(task.work, Work::Action(_)) {
                    tasks.push(task);
                }
            }
            match page.next {
                Some(next) => query.after = Some(next),
                None => return Ok(tasks),
            }
        }
    }

    /// A task that works on an environment, in a workflow or by itself.
    fn environment_task(
        &self,
        environment: &Environment,
        workflow: Option<&Task>,
        verb: &str,
        action: Action,
    ) -> Task {
        // What is left of an environment is removed however long that takes.
        let retry = match action {
            Action::CleanEnvironment { .. } => RetryPolicy { max_retries: MAX_RETRIES, ..self.options.retry },
            _ => self.options.retry,
        };
        let title = format!("{verb} {}", environment.name);
        Task {
            parent: workflow.map(|workflow| workflow.id),
            priority: environment.request.priority,
            labels: [(ENVIRONMENT_LABEL.to_owned(), environment.id.to_string())].into(),
            lock: Some(environment_lock(environment.id)),
            requires: environment.docker.iter().map(|id| (labels::DOCKER.to_owned(), id.clone())).collect(),
            retry,
            ..self.new_task(&title, Work::Action(action), &group(&environment.request))
        }
    }

    async fn queue_environment_task(&self, task: Task, id: EnvironmentId) -> Result<EnvironmentTask, Error> {
        let task_id: TaskId = task.id;
        let listed = vec![SubmittedTask { id: task.id, name: task.name.clone() }];
        let submitted =
            Submitted { id: Some(task.id), name: Some(task.name.clone()), tasks: listed, existed: false };
        self.queue_tasks("engine", None, &(), vec![task], submitted).await?;
        Ok(EnvironmentTask { environment: id, task: task_id, existed: false })
    }

    /// What an earlier request with the same key has made.
    async fn made_before(&self, earlier: &Submitted) -> Result<EnvironmentTask, Error> {
        let unknown = || Error::internal("an idempotency key of an environment that is not there");
        let task = earlier.id.ok_or_else(unknown)?;
        let label = self.task(task).await?.labels.get(ENVIRONMENT_LABEL).cloned();
        let environment = label.and_then(|id| id.parse().ok()).ok_or_else(unknown)?;
        Ok(EnvironmentTask { environment, task, existed: true })
    }
}

fn lifetime(request: &EnvironmentRequest) -> Result<TimeDelta, Error> {
    let Some(asked) = request.expires_after_ms else { return Ok(LIFETIME) };
    let asked = i64::try_from(asked).ok().and_then(TimeDelta::try_milliseconds);
    asked.filter(|asked| (TimeDelta::seconds(1)..=LONGEST_LIFETIME).contains(asked)).ok_or_else(|| {
        Error::invalid("an environment lives from a second to 30 days").with_field("expires_after_ms")
    })
}
