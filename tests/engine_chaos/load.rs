//! What the engines are given to do, and what must become of it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use orchestrator_protocol::submit::{NewTask, SubmitRequest};
use orchestrator_protocol::task::{OnEngineLoss, RetryPolicy, TaskStatus};
use orchestrator_tests::history::several::{self, Fate, Mark, Starts};
use rand::RngExt;
use rand::rngs::StdRng;
use tempfile::TempDir;

/// A group that runs one task at a time, by the configuration of the engines.
pub const NARROW: &str = "narrow";

/// Marks its start and its end, and holds a lock on a file for each thing that it must have alone as long
/// as anything of it is alive. It goes on until its gate is open, where it has one.
const SCRIPT: &str = r#"#!/bin/sh
note() { read -r up _ < /proc/uptime; echo "$1 $NAME $ORCHESTRATOR_FENCE $up${2:+ $2}" >> "$MARKS/history"; }
if [ -n "$STUBBORN" ]; then trap '' TERM; else trap 'note told; exit 9' TERM; fi
note start "$ORCHESTRATOR_ATTEMPT"
exec 7>>"$MARKS/alive.$NAME"; flock -n 7 || note overlap task
[ -z "$LOCK" ] || { exec 8>>"$MARKS/held.$LOCK"; flock -n 8 || note overlap "lock/$LOCK"; }
[ -z "$ALONE" ] || { exec 9>>"$MARKS/alone.$ALONE"; flock -n 9 || note overlap "group/$ALONE"; }
sleep "$PAUSE"
[ -z "$GATE" ] || while [ -d "$MARKS" ] && [ ! -e "$GATE" ]; do sleep 0.1; done
[ "$FAILS" = once ] && mkdir "$MARKS/failed.$NAME" 2>/dev/null && { note end 3; exit 3; }
[ "$FAILS" = always ] && { echo "::fail permanent it cannot be done"; note end 4; exit 4; }
echo "::result {\"task\": \"$NAME\", \"fence\": $ORCHESTRATOR_FENCE}"
note end 0
exit 0
"#;

/// Something to submit, and what must become of each task in it.
#[derive(Debug, Clone)]
pub struct Submission {
    /// What is asked.
    pub request: SubmitRequest,
    /// The fates, by name.
    pub fates: Vec<(String, Fate)>,
}

/// Keeps a task from ending until it is opened.
#[derive(Debug, Clone)]
pub struct Gate(PathBuf);

impl Gate {
    /// Lets the tasks behind it come to their ends.
    pub fn open(&self) {
        fs::write(&self.0, "").unwrap();
    }
}

/// Makes tasks, and has what their scripts leave behind.
pub struct Load {
    directory: TempDir,
    next: u32,
}

impl Load {
    /// A directory of its own.
    pub fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("orchestrator-chaos-").tempdir().unwrap();
        let script = directory.path().join("work");
        fs::write(&script, SCRIPT).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(directory.path().join("marks")).unwrap();
        Self { directory, next: 0 }
    }

    /// The script.
    pub fn script(&self) -> PathBuf {
        self.directory.path().join("work")
    }

    /// Where scripts leave their marks.
    pub fn marks_dir(&self) -> PathBuf {
        self.directory.path().join("marks")
    }

    /// What scripts have written up to now.
    pub fn marks(&self) -> Vec<Mark> {
        several::read(&fs::read_to_string(self.marks_dir().join("history")).unwrap_or_default())
    }

    /// A gate that is closed.
    pub fn gate(&mut self) -> Gate {
        let name = self.name("gate");
        Gate(self.directory.path().join(name))
    }

    fn name(&mut self, kind: &str) -> String {
        self.next += 1;
        format!("{kind}-{}", self.next)
    }

    /// A task that goes on until a gate is open. One that is held is never begun anew.
    pub fn gated(&mut self, gate: &Gate, is_held: bool, random: &mut StdRng) -> Submission {
        let name = self.name(if is_held { "held" } else { "gated" });
        let mut task = self.task(&name, 0);
        task.env.insert("GATE".into(), text(&gate.0));
        task.priority = 10;
        task.on_engine_loss = Some(if is_held { OnEngineLoss::Hold } else { OnEngineLoss::Retry });
        if random.random_bool(0.5) {
            task.env.insert("STUBBORN".into(), "yes".into());
        }
        let starts = if is_held { Starts::Once } else { Starts::AtLeastOnce };
        single(task, fate(TaskStatus::Completed, starts))
    }

    /// A task that goes on until it is called off.
    pub fn endless(&mut self) -> Submission {
        let name = self.name("endless");
        let mut task = self.task(&name, 0);
        task.env.insert("GATE".into(), text(&self.directory.path().join("never")));
        task.priority = 10;
        single(task, fate(TaskStatus::Cancelled, Starts::Any))
    }

    /// Some work, of any kind.
    pub fn some(&mut self, random: &mut StdRng) -> Submission {
        let completed = fate(TaskStatus::Completed, Starts::AtLeastOnce);
        match random.random_range(0..8_u32) {
            0 | 1 => {
                let name = self.name("quick");
                single(self.grouped(&name, random.random_range(0..10), random), completed)
            }
            2 => {
                let name = self.name("slow");
                let mut task = self.grouped(&name, random.random_range(100..300), random);
                if random.random_bool(0.3) {
                    task.env.insert("STUBBORN".into(), "yes".into());
                }
                single(task, completed)
            }
            3 => {
                let name = self.name("flaky");
                let mut task = self.grouped(&name, random.random_range(0..50), random);
                task.env.insert("FAILS".into(), "once".into());
                single(task, completed)
            }
            4 => {
                let name = self.name("locked");
                let lock = format!("infra-{}", random.random_range(0..2_u32));
                let mut task = self.grouped(&name, random.random_range(0..100), random);
                task.env.insert("LOCK".into(), lock.clone());
                task.lock = Some(lock.clone());
                single(task, Fate { holds: vec![format!("lock/{lock}")], ..completed })
            }
            5 => {
                let name = self.name("narrow");
                let mut task = self.task(&name, random.random_range(0..50));
                task.env.insert("ALONE".into(), NARROW.into());
                task.group = Some(NARROW.into());
                single(task, Fate { holds: vec![format!("group/{NARROW}")], ..completed })
            }
            6 => self.doomed(random),
            _ => self.diamond(random),
        }
    }

    /// A workflow whose first task fails for good: what comes after it is called off.
    fn doomed(&mut self, random: &mut StdRng) -> Submission {
        let (workflow, first, second) = (self.name("doomed"), self.name("failing"), self.name("vain"));
        let mut failing = self.task(&first, random.random_range(0..50));
        failing.env.insert("FAILS".into(), "always".into());
        let vain = NewTask { after: vec![first.clone()], ..self.task(&second, 0) };
        let of_vain = Fate { after: vec![first.clone()], ..fate(TaskStatus::Cancelled, Starts::Never) };
        let fates = vec![
            (workflow.clone(), fate(TaskStatus::Failed, Starts::Never)),
            (first, fate(TaskStatus::Failed, Starts::AtLeastOnce)),
            (second, of_vain),
        ];
        several_tasks(workflow, vec![failing, vain], fates)
    }

    /// A workflow of one task, two after it, and one after those.
    fn diamond(&mut self, random: &mut StdRng) -> Submission {
        let workflow = self.name("diamond");
        let names: Vec<String> = (0..4).map(|_| self.name("facet")).collect();
        let after = [vec![], vec![0], vec![0], vec![1, 2]];
        let mut fates = vec![(workflow.clone(), fate(TaskStatus::Completed, Starts::Never))];
        let mut tasks = Vec::new();
        for (name, after) in names.iter().zip(after) {
            let after: Vec<String> = after.into_iter().map(|index: usize| names[index].clone()).collect();
            let completed = fate(TaskStatus::Completed, Starts::AtLeastOnce);
            fates.push((name.clone(), Fate { after: after.clone(), ..completed }));
            tasks.push(NewTask { after, ..self.task(name, random.random_range(0..50)) });
        }
        several_tasks(workflow, tasks, fates)
    }

    /// A task in one of several groups, with a priority.
    fn grouped(&self, name: &str, pause_cs: u32, random: &mut StdRng) -> NewTask {
        NewTask {
            group: Some(format!("group-{}", random.random_range(0..3_u32))),
            priority: random.random_range(-1..2),
            ..self.task(name, pause_cs)
        }
    }

    /// A task that takes at least so many hundredths of a second.
    fn task(&self, name: &str, pause_cs: u32) -> NewTask {
        let pause = format!("{}.{:02}", pause_cs / 100, pause_cs % 100);
        let values = [
            ("NAME", name.to_owned()),
            ("MARKS", text(&self.marks_dir())),
            ("PAUSE", pause),
            ("GATE", String::new()),
            ("LOCK", String::new()),
            ("ALONE", String::new()),
            ("FAILS", String::new()),
            ("STUBBORN", String::new()),
        ];
        NewTask {
            name: Some(name.to_owned()),
            script: text(&self.script()),
            cwd: Some(text(self.directory.path())),
            env: values.map(|(name, value)| (name.to_owned(), value)).into(),
            retry: Some(RetryPolicy { max_retries: 100, base_ms: 10, cap_ms: 200 }),
            ..NewTask::default()
        }
    }
}

/// The environment in which a script of a task runs, besides what the engine adds.
pub fn environment(submission: &Submission) -> &BTreeMap<String, String> {
    &submission.request.tasks[0].env
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

fn fate(status: TaskStatus, starts: Starts) -> Fate {
    Fate { status, starts, after: Vec::new(), holds: Vec::new() }
}

fn single(task: NewTask, fate: Fate) -> Submission {
    let name = task.name.clone().unwrap();
    let request =
        SubmitRequest { tasks: vec![task], idempotency_key: Some(name.clone()), ..SubmitRequest::default() };
    Submission { request, fates: vec![(name, fate)] }
}

fn several_tasks(workflow: String, tasks: Vec<NewTask>, fates: Vec<(String, Fate)>) -> Submission {
    let request = SubmitRequest { tasks, workflow: Some(workflow.clone()), idempotency_key: Some(workflow) };
    Submission { request, fates }
}
