//! An engine of its own for each test: a real process on a temporary directory.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use orchestrator_protocol::client::{Client, ClientError, Look};
use orchestrator_protocol::event::{Item, OutputStream};
use orchestrator_protocol::request::{Call, GetTask, ListTasks, LogsRequest, Subscription};
use orchestrator_protocol::submit::{NewTask, SubmitRequest};
use orchestrator_protocol::task::{Task, TaskId};
use tempfile::TempDir;

use crate::wait;

/// A data directory, and the engine that serves it.
pub struct TestEngine {
    program: PathBuf,
    directory: TempDir,
    arguments: Vec<String>,
    child: Option<Child>,
}

impl TestEngine {
    /// An engine that has not been started. `program` is `env!("CARGO_BIN_EXE_orchestrator-under-test")`.
    pub fn new(program: &str) -> Self {
        let directory = tempfile::Builder::new().prefix("orchestrator-test-").tempdir().unwrap();
        Self { program: program.into(), directory, arguments: Vec::new(), child: None }
    }

    /// The same, started.
    pub fn started(program: &str) -> Self {
        let mut engine = Self::new(program);
        engine.start();
        engine
    }

    /// Gives every engine that is started from now on these arguments.
    pub fn with_arguments(mut self, arguments: &[&str]) -> Self {
        self.arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        self
    }

    /// A place for the test's own files.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The engine's data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// The engine's socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("engine.sock")
    }

    /// The engine's log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("engine.log")).unwrap_or_default()
    }

    /// The command that starts the engine.
    pub fn command(&self) -> Command {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.directory.path().join("engine.log"))
            .unwrap();
        let mut command = Command::new(&self.program);
        command
            .arg("--data-dir")
            .arg(self.data_dir())
            .arg("--socket")
            .arg(self.socket())
            .args(&self.arguments)
            .env_remove("ORCHESTRATOR_FAULT")
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        if !self.arguments.iter().any(|argument| argument == "--port") {
            command.arg("--no-http");
        }
        command
    }

    /// Starts the engine and waits until it answers.
    pub fn start(&mut self) {
        self.start_with(None);
        self.wait_ready();
    }

    /// Starts the engine with a variable of its own, and waits until it answers.
    pub fn start_in_environment(&mut self, variable: &str, value: &str) {
        self.child = Some(self.command().env(variable, value).spawn().unwrap());
        self.wait_ready();
    }

    /// Starts the engine with a fault point, without waiting: it may end before it answers.
    pub fn start_with(&mut self, fault: Option<&str>) {
        let mut command = self.command();
        if let Some(fault) = fault {
            command.env("ORCHESTRATOR_FAULT", fault);
        }
        self.child = Some(command.spawn().unwrap());
    }

    /// Waits until the engine answers.
    pub fn wait_ready(&mut self) {
        wait::until("the engine to be ready", || {
            if let Some(status) = self.ended() {
                panic!("the engine ended ({status}) before it was ready:\n{}", self.log());
            }
            self.try_client().ok()
        });
    }

    /// The engine's process.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// How the engine ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut().unwrap().try_wait().unwrap()
    }

    /// Ends the engine as a crash would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _ = child.kill();
            child.wait().unwrap();
        }
    }

    /// Ends the engine as a service manager would, and leaves scripts running.
    pub fn terminate(&mut self) -> ExitStatus {
        let child = self.child.as_mut().unwrap();
        let pid = rustix::process::Pid::from_child(child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.wait_ended()
    }

    /// Waits until the engine has ended.
    pub fn wait_ended(&mut self) -> ExitStatus {
        let status = wait::until("the engine to end", || self.ended());
        self.child = None;
        status
    }

    /// Whether the engine was ended by `kill -9` or a fault point.
    pub fn was_killed(status: ExitStatus) -> bool {
        status.signal() == Some(rustix::process::Signal::KILL.as_raw())
    }

    /// A connection, if the engine answers.
    pub fn try_client(&self) -> Result<Client, ClientError> {
        Client::connect(&self.socket(), Some(wait::PATIENCE))
    }

    /// A connection.
    pub fn client(&self) -> Client {
        self.try_client().unwrap_or_else(|error| panic!("{error}\n{}", self.log()))
    }

    /// Asks a question over a connection of its own.
    pub fn ask<C: Call>(&self, call: C) -> C::Reply {
        self.client().call(call).unwrap_or_else(|error| panic!("{error:?}\n{}", self.log()))
    }

    /// Asks a question that is refused.
    pub fn refused<C: Call>(&self, call: C) -> orchestrator_protocol::Error
    where
        C::Reply: std::fmt::Debug,
    {
        match self.client().call(call) {
            Err(ClientError::Refused(error)) => error,
            other => panic!("should have been refused: {other:?}"),
        }
    }

    /// One task.
    pub fn task(&self, id: TaskId) -> Task {
        *self.ask(GetTask { id })
    }

    /// Every task, oldest first.
    pub fn tasks(&self) -> Vec<Task> {
        let mut tasks = Vec::new();
        let mut request = ListTasks { limit: Some(1_000), ..ListTasks::default() };
        loop {
            let page = self.ask(request.clone());
            tasks.extend(page.tasks);
            match page.cursor {
                Some(cursor) => request.cursor = Some(cursor),
                None => break,
            }
        }
        tasks.reverse();
        tasks
    }

    /// Waits until a task has ended.
    pub fn wait(&self, id: TaskId) -> Task {
        self.wait_for(id, "to end", |task| task.status.is_final())
    }

    /// Waits until a task is as it should be.
    pub fn wait_for(&self, id: TaskId, what: &str, is_so: impl Fn(&Task) -> bool) -> Task {
        let mut last = None;
        let deadline = std::time::Instant::now() + wait::PATIENCE;
        while std::time::Instant::now() < deadline {
            let task = self.task(id);
            if is_so(&task) {
                return task;
            }
            last = Some(task);
            std::thread::park_timeout(Duration::from_millis(5));
        }
        panic!("waited in vain for a task {what}: {last:#?}\n{}", self.log());
    }

    /// The lines of a task's output.
    pub fn lines(&self, id: TaskId, stream: OutputStream) -> Vec<String> {
        let request = LogsRequest { id, attempt: None, tail: None, follow: false, stream: Some(stream) };
        let mut items = self.client().subscribe(Subscription::Logs(request)).unwrap();
        let mut lines = Vec::new();
        loop {
            match items.next(wait::PATIENCE).unwrap() {
                Look::Item(item) => match *item {
                    Item::Line(line) => lines.push(line.line),
                    other => panic!("not a line: {other:?}"),
                },
                Look::Nothing => panic!("the log does not end"),
                Look::End => return lines,
            }
        }
    }

    /// Writes an executable script for `sh`.
    pub fn script(&self, name: &str, body: &str) -> String {
        let path = self.directory.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Queues one task.
    pub fn submit(&self, task: NewTask) -> TaskId {
        self.ask(SubmitRequest { tasks: vec![task], ..SubmitRequest::default() }).id.unwrap()
    }

    /// A task that runs a script, to be filled in further.
    pub fn run(&self, script: &str) -> NewTask {
        let cwd = self.directory.path().to_str().unwrap().to_owned();
        NewTask { script: script.to_owned(), cwd: Some(cwd), ..NewTask::default() }
    }
}

impl Drop for TestEngine {
    /// Ends the engine and whatever its attempts left running.
    fn drop(&mut self) {
        if self.child.is_some()
            && let Ok(mut client) = self.try_client()
        {
            let stop = orchestrator_protocol::request::StopEngine {
                mode: orchestrator_protocol::request::StopMode::Cancel,
            };
            if client.call(stop).is_ok()
                && let Some(child) = &mut self.child
            {
                let deadline = std::time::Instant::now() + Duration::from_secs(20);
                while std::time::Instant::now() < deadline && matches!(child.try_wait(), Ok(None)) {
                    std::thread::park_timeout(Duration::from_millis(5));
                }
            }
        }
        self.kill();
    }
}
