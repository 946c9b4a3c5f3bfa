//! Attempts with real processes, and waiting for what they do.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use orchestrator_runner::attempt::{Attempt, AttemptState, Runner};
use orchestrator_runner::identity::ProcessIdentity;
use orchestrator_runner::output::{Entry, Reader, Stream};
use orchestrator_runner::spec::Spec;
use orchestrator_runner::status::Status;
use tempfile::TempDir;

pub const RUNNER: &str = env!("CARGO_BIN_EXE_orchestrator-runner");
const PATIENCE: Duration = Duration::from_secs(60);

pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// An attempt in a directory of its own, which is also the script's working directory.
pub struct Case {
    pub root: TempDir,
    pub attempt: Attempt,
}

impl Case {
    pub fn new(script: &str) -> Self {
        Self::with(script, |_| {})
    }

    pub fn with(script: &str, change: impl FnOnce(&mut Spec)) -> Self {
        let root = tempfile::tempdir().unwrap();
        let mut spec = Spec {
            program: "/bin/sh".into(),
            args: vec!["-c".into(), script.into()],
            env: vec![("PATH".into(), std::env::var("PATH").unwrap())],
            cwd: root.path().to_str().unwrap().into(),
            task_id: root.path().file_name().unwrap().to_str().unwrap().into(),
            fence: 7,
            grace_ms: 5_000,
            ..Spec::default()
        };
        spec.env.push(("ORCHESTRATOR_TASK_ID".into(), spec.task_id.clone()));
        spec.env.push(("ORCHESTRATOR_FENCE".into(), "7".into()));
        change(&mut spec);
        let attempt = Attempt::create(&root.path().join("task/7"), &spec).unwrap();
        Self { root, attempt }
    }

    pub fn directory(&self) -> PathBuf {
        self.root.path().join("task/7")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub fn spawn(&self) -> Runner {
        self.attempt.spawn(Path::new(RUNNER), &[]).unwrap()
    }

    pub fn run(&self) -> Status {
        self.spawn().wait().unwrap();
        self.status()
    }

    pub fn status(&self) -> Status {
        match self.attempt.state().unwrap() {
            AttemptState::Finished(status) => *status,
            other => panic!("not finished: {other:?}"),
        }
    }

    pub fn runner(&self) -> ProcessIdentity {
        until("the runner", || match self.attempt.state().unwrap() {
            AttemptState::Running { identity } => Some(identity),
            _ => None,
        })
    }

    pub fn lines(&self, stream: Stream) -> Vec<String> {
        let mut reader = Reader::open(&self.directory());
        let mut lines = Vec::new();
        loop {
            let entries = reader.read().unwrap();
            if entries.is_empty() {
                return lines;
            }
            for entry in entries {
                if let Entry::Line(line) = entry
                    && line.stream == stream
                {
                    lines.push(line.text);
                }
            }
        }
    }

    pub fn wait_for_file(&self, name: &str) -> String {
        until(name, || fs::read_to_string(self.path(name)).ok().filter(|text| text.ends_with('\n')))
            .trim()
            .to_owned()
    }

    pub fn wait_for_pid(&self, name: &str) -> i32 {
        self.wait_for_file(name).parse().unwrap()
    }
}

pub fn is_alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

pub fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}
