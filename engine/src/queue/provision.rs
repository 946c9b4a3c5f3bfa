//! Work on an infra: a workflow whose tasks call the provisioning program.
//!
//! Only that program reads settings files and knows what depends on what. So unless the request names
//! its servers itself, the workflow begins with two tasks: a command that reports a plan, and a step of
//! the engine ([`crate::actions`]) that adds the planned tasks.

use std::collections::BTreeMap;
use std::fs;

use orchestrator_protocol::provision::{Operation, ProvisionRequest, Target};
use orchestrator_protocol::submit::{Submitted, SubmittedTask};
use orchestrator_protocol::task::{
    Action, AttemptOutcome, Command, Program, Task, TaskDefaults, TaskId, Work, WorkerCall, Workflow,
};
use orchestrator_protocol::{Error, name};
use sha2::{Digest, Sha256};

use super::Queue;
use super::finish::Ending;
use super::submit::{
    MAX_TASKS, check_environment, check_secrets, checked_timeout, hex, readable_file, working_directory,
};

/// The label with the server that a task is about.
pub const SERVER_LABEL: &str = "server";

/// A call of the provisioning program that is to become a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedTask {
    /// The task's name, unique in its plan.
    pub name: String,
    /// What the program is to do.
    pub operation: Vec<String>,
    /// To what: names that have been checked.
    pub names: Vec<String>,
    /// The tasks of the plan that must complete first, by their places in it.
    pub after: Vec<usize>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

impl PlannedTask {
    /// An operation on one server.
    pub fn for_server(operation: &[String], server: &str) -> Self {
        let verb = operation.last().map_or("", String::as_str);
        Self {
            name: format!("{verb} {server}"),
            operation: operation.to_vec(),
            names: vec![server.to_owned()],
            after: Vec::new(),
            labels: [(SERVER_LABEL.to_owned(), server.to_owned())].into(),
        }
    }
}

impl Queue {
    /// Queues work on an infra.
    pub async fn provision(&self, principal: &str, request: &ProvisionRequest) -> Result<Submitted, Error> {
        self.provision_resolved(principal, request, request).await
    }

    /// The same with the paths of a request resolved, as [`Queue::submit_resolved`].
    pub async fn provision_resolved(
        &self,
        principal: &str,
        asked: &ProvisionRequest,
        resolved: &ProvisionRequest,
    ) -> Result<Submitted, Error> {
        let key = asked.idempotency_key.as_deref();
        // Before any look at files: they may be gone by now.
        if let Some(earlier) = self.used(principal, key, asked).await? {
            return Ok(earlier);
        }
        let (tasks, submitted) = self.plan_workflow(resolved)?;
        self.queue_tasks(principal, key, asked, tasks, submitted).await
    }

    /// Adds planned tasks to the workflow of an action, and ends the action, in one commit.
    pub async fn add_tasks(
        &self,
        action: &Task,
        plan: &[PlannedTask],
        call: &WorkerCall,
        defaults: &TaskDefaults,
        ending: &Ending,
    ) -> Result<(), Error> {
        let parent = action.parent.ok_or_else(|| Error::internal("an action without a workflow"))?;
        loop {
            let mut draft = self.draft();
            let workflow = draft.task(parent).await?.clone();
            let (added, ending) = match (&workflow.cancel, workflow.work.clone()) {
                (None, Work::Workflow(mut summary)) => {
                    summary.total += plan.len() as u64;
                    draft.edit(parent).await?.work = Work::Workflow(summary);
                    (plan, ending.clone())
                }
                // Called off meanwhile: nothing is added.
                _ => {
                    draft.edit(action.id).await?.cancel = workflow.cancel.clone();
                    (&[][..], Ending::bare(AttemptOutcome::Cancelled, None))
                }
            };
            for task in self.planned_tasks(&workflow, added, call, defaults) {
                draft.create(task);
            }
            if !self.draft_ending(&mut draft, action.id, action.fence, &ending).await? {
                return Ok(());
            }
            if self.commit(draft).await?.is_some() {
                return Ok(());
            }
        }
    }

    fn plan_workflow(&self, request: &ProvisionRequest) -> Result<(Vec<Task>, Submitted), Error> {
        name::dns_label("infra name", &request.infra)
            .map_err(|error| Error::from(error).with_field("infra"))?;
        check_target(&request.target, request.operation)?;
        if let Some(key) = &request.idempotency_key {
            name::word("idempotency key", key)
                .map_err(|error| Error::from(error).with_field("idempotency_key"))?;
        }
        check_environment(&request.env)?;
        check_secrets(&request.secrets)?;
        let cwd = working_directory(request.cwd.as_deref())?;
        let settings = readable_file("settings file", &cwd, &request.settings)
            .map_err(|error| error.with_field("settings"))?;
        let text = fs::read(&settings).map_err(|error| {
            Error::invalid(format!("the settings file {settings} cannot be read: {error}"))
        })?;
        let call = WorkerCall {
            operation: Vec::new(),
            names: Vec::new(),
            infra: request.infra.clone(),
            settings,
            settings_digest: hex(&Sha256::digest(&text)),
            check: request.check_mode,
        };
        let defaults = TaskDefaults {
            cwd: cwd.to_string_lossy().into_owned(),
            env: request.env.clone(),
            secrets: request.secrets.clone(),
            retry: self.checked_retry(request.retry)?,
            timeout_ms: checked_timeout(request.timeout_ms)?,
        };
        let title = format!("{} {} of {}", request.operation, in_words(&request.target), request.infra);
        let mut workflow = self.new_task(&title, Work::Workflow(Workflow::default()), &request.infra);
        workflow.priority = request.priority;
        if !request.check_mode && !request.allow_concurrent {
            workflow.lock = Some(format!("infra:{}", request.infra));
        }
        let on_servers = ["server".to_owned(), request.operation.to_string()];
        let tasks = match &request.target {
            Target::Servers { servers } if !servers.is_empty() => {
                let plan: Vec<_> =
                    servers.iter().map(|server| PlannedTask::for_server(&on_servers, server)).collect();
                self.planned_tasks(&workflow, &plan, &call, &defaults)
            }
            target => {
                // Where the answer is a list of servers, this is what is done with each of them.
                let call = WorkerCall { operation: on_servers.to_vec(), ..call };
                self.planning_tasks(&workflow, target, request.operation, call, defaults)
            }
        };
        workflow.work = Work::Workflow(Workflow { total: tasks.len() as u64, ..Workflow::default() });
        let listed =
            tasks.iter().map(|task| SubmittedTask { id: task.id, name: task.name.clone() }).collect();
        let submitted = Submitted {
            id: Some(workflow.id),
            name: Some(workflow.name.clone()),
            tasks: listed,
            existed: false,
        };
        Ok((tasks.into_iter().chain([workflow]).collect(), submitted))
    }

    /// The two tasks that find out what is to be done: one asks the provisioning program, and one adds
    /// what it answers.
    fn planning_tasks(
        &self,
        workflow: &Task,
        target: &Target,
        operation: Operation,
        call: WorkerCall,
        defaults: TaskDefaults,
    ) -> Vec<Task> {
        let (title, words, names) = match target {
            Target::Servers { servers } => {
                (format!("servers of {}", call.infra), ["server", "names"], servers.clone())
            }
            Target::Taskserv { taskserv, servers } => {
                let names = [operation.as_str(), taskserv].into_iter().map(String::from);
                let names = names.chain(servers.iter().cloned()).collect();
                (format!("plan of {taskserv}"), ["taskserv", "plan"], names)
            }
            Target::Cluster { cluster_type } => {
                let names = vec![operation.to_string(), cluster_type.clone()];
                (format!("plan of {cluster_type}"), ["cluster", "plan"], names)
            }
        };
        let plan = WorkerCall { operation: words.map(String::from).to_vec(), names, ..call.clone() };
        let plan = self.worker_task(workflow, &title, plan, &defaults);
        let action = Action::AddTasks { plan_from: plan.id, call, defaults: Box::new(defaults) };
        let add = Task {
            parent: Some(workflow.id),
            priority: workflow.priority,
            depends_on: vec![plan.id],
            ..self.new_task("add tasks", Work::Action(action), &workflow.group)
        };
        vec![plan, add]
    }

    /// The tasks of a plan, in its order. They share the lock of their workflow.
    fn planned_tasks(
        &self,
        workflow: &Task,
        plan: &[PlannedTask],
        call: &WorkerCall,
        defaults: &TaskDefaults,
    ) -> Vec<Task> {
        let ids: Vec<TaskId> = plan.iter().map(|_| TaskId::generate()).collect();
        let tasks = plan.iter().zip(&ids).map(|(planned, id)| {
            let PlannedTask { name, operation, names, after, labels } = planned;
            let call = WorkerCall { operation: operation.clone(), names: names.clone(), ..call.clone() };
            Task {
                id: *id,
                depends_on: after.iter().filter_map(|place| ids.get(*place).copied()).collect(),
                labels: labels.clone(),
                lock: workflow.lock.clone(),
                shares_workflow_lock: workflow.lock.is_some(),
                ..self.worker_task(workflow, name, call, defaults)
            }
        });
        tasks.collect()
    }

    fn worker_task(&self, workflow: &Task, title: &str, call: WorkerCall, defaults: &TaskDefaults) -> Task {
        let command = Command {
            program: Program::Worker(call),
            cwd: defaults.cwd.clone(),
            env: defaults.env.clone(),
            secrets: defaults.secrets.clone(),
            params: None,
        };
        Task {
            parent: Some(workflow.id),
            priority: workflow.priority,
            retry: defaults.retry,
            timeout_ms: defaults.timeout_ms,
            ..self.new_task(title, Work::Command(command), &workflow.group)
        }
    }
}

/// Refuses names that are none, and operations that do not go with what they are asked of.
fn check_target(target: &Target, operation: Operation) -> Result<(), Error> {
    let (what, known, servers) = match target {
        Target::Servers { servers } => {
            if operation == Operation::Delete && servers.is_empty() {
                return Err(Error::invalid("deleting servers needs their names").with_field("servers"));
            }
            ("servers", [Operation::Create, Operation::Delete].as_slice(), servers.as_slice())
        }
        Target::Taskserv { taskserv, servers } => {
            name::dns_label("taskserv name", taskserv)
                .map_err(|error| Error::from(error).with_field("taskserv"))?;
            ("a taskserv", [Operation::Create, Operation::Verify].as_slice(), servers.as_slice())
        }
        Target::Cluster { cluster_type } => {
            name::dns_label("cluster type", cluster_type)
                .map_err(|error| Error::from(error).with_field("cluster_type"))?;
            let known = [Operation::Create, Operation::Verify, Operation::Delete].as_slice();
            ("a cluster", known, [].as_slice())
        }
    };
    if !known.contains(&operation) {
        let known: Vec<_> = known.iter().map(|operation| operation.as_str()).collect();
        return Err(Error::invalid(format!(
            "'{operation}' is nothing that is done with {what}: use {}",
            known.join(" or ")
        ))
        .with_field("operation"));
    }
    if servers.len() > MAX_TASKS {
        return Err(Error::invalid(format!("more than {MAX_TASKS} servers at once")).with_field("servers"));
    }
    for (index, server) in servers.iter().enumerate() {
        let field = || format!("servers[{index}]");
        name::dns_label("server name", server).map_err(|error| Error::from(error).with_field(field()))?;
        if servers[..index].contains(server) {
            return Err(Error::invalid(format!("server '{server}' is named twice")).with_field(field()));
        }
    }
    Ok(())
}

fn in_words(target: &Target) -> String {
    match target {
        Target::Servers { .. } => "servers".to_owned(),
        Target::Taskserv { taskserv, .. } => taskserv.clone(),
        Target::Cluster { cluster_type } => format!("cluster {cluster_type}"),
    }
}
