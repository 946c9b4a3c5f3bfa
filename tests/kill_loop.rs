//! The engine is killed again and again while it works, and nothing is lost, doubled or wrong.
//!
//! Each round starts an engine, submits tasks of several groups, and kills the engine at a fault point
//! or at a random moment; sometimes a runner, sometimes both. In the end one engine finishes what is
//! left, and the history that the scripts wrote is held against what the engine says.
//!
//! `ORCHESTRATOR_KILL_ROUNDS` sets the number of rounds, `ORCHESTRATOR_KILL_SEED` the seed.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use orchestrator_protocol::event::OutputStream;
use orchestrator_protocol::request::{GetStatus, ListTasks};
use orchestrator_protocol::submit::{NewTask, SubmitRequest};
use orchestrator_protocol::task::{AttemptOutcome, RetryPolicy, TaskStatus};
use orchestrator_tests::engine::TestEngine;
use orchestrator_tests::history::{self, Expected, Told};
use orchestrator_tests::wait;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const ENGINE: &str = env!("CARGO_BIN_EXE_orchestrator-under-test");

/// Every point at which an engine can be ended between two steps.
const POINTS: [&str; 10] = [
    "submit.before_commit",
    "submit.after_commit",
    "claim.before_commit",
    "claim.after_commit",
    "spawn.before",
    "spawn.prepared",
    "spawn.after",
    "finish.before_commit",
    "finish.after_commit",
    "cancel.before_commit",
];

/// Writes its start and its end to the history, holds a lock in between, and prints its lines.
const SCRIPT: &str = r#"
name=$(basename "$PWD"); exec 9>>"lock"
flock -n 9 || echo "overlap $NAME" >> "$HISTORY"
echo "start $NAME $ORCHESTRATOR_FENCE $$" >> "$HISTORY"
i=1; while [ $i -le "$LINES_TO_PRINT" ]; do echo "line $i of $NAME"; sleep "$PAUSE"; i=$((i+1)); done
echo "end $NAME $ORCHESTRATOR_FENCE $$" >> "$HISTORY"
"#;

struct Loop {
    engine: TestEngine,
    script: String,
    random: StdRng,
    next: u32,
    /// Submissions that were sent and not acknowledged: sent again, with the same key.
    unsure: Vec<SubmitRequest>,
    acknowledged: BTreeMap<String, Vec<String>>,
}

impl Loop {
    fn new(seed: u64) -> Self {
        let engine = TestEngine::new(ENGINE).with_arguments(&["--max-parallel", "4"]);
        let script = engine.script("work", SCRIPT);
        Self {
            engine,
            script,
            random: StdRng::seed_from_u64(seed),
            next: 0,
            unsure: Vec::new(),
            acknowledged: BTreeMap::new(),
        }
    }

    fn history(&self) -> String {
        self.engine.directory().join("history").to_str().unwrap().to_owned()
    }

    fn request(&mut self) -> SubmitRequest {
        self.next += 1;
        let name = format!("t{}", self.next);
        let cwd = self.engine.directory().join(&name);
        fs::create_dir_all(&cwd).unwrap();
        let lines = self.random.random_range(1..6_u32);
        let env = BTreeMap::from([
            ("NAME".to_owned(), name.clone()),
            ("HISTORY".to_owned(), self.history()),
            ("LINES_TO_PRINT".to_owned(), lines.to_string()),
            ("PAUSE".to_owned(), format!("0.{:02}", self.random.random_range(0..12_u32))),
        ]);
        let task = NewTask {
            name: Some(name.clone()),
            cwd: Some(cwd.to_str().unwrap().to_owned()),
            env,
            group: Some(format!("group-{}", self.next % 3)),
            priority: self.random.random_range(-1..2),
            retry: Some(RetryPolicy { max_retries: 50, base_ms: 10, cap_ms: 50 }),
            ..self.engine.run(&self.script)
        };
        SubmitRequest { tasks: vec![task], workflow: None, idempotency_key: Some(name) }
    }

    fn acknowledge(&mut self, request: &SubmitRequest) {
        let task = &request.tasks[0];
        let (name, lines) = (task.name.clone().unwrap(), task.env["LINES_TO_PRINT"].parse::<u32>().unwrap());
        let lines = (1..=lines).map(|line| format!("line {line} of {name}")).collect();
        self.acknowledged.insert(name, lines);
    }

    /// Sends what is unsure again, and new tasks, until one is not acknowledged.
    fn submit_until_refused(&mut self, new: u32) {
        for request in std::mem::take(&mut self.unsure) {
            self.submit(request);
        }
        for _ in 0..new {
            let request = self.request();
            if !self.submit(request) {
                return;
            }
        }
    }

    fn submit(&mut self, request: SubmitRequest) -> bool {
        let submitted = self.engine.try_client().and_then(|mut client| client.call(request.clone()));
        match submitted {
            Ok(_) => {
                self.acknowledge(&request);
                true
            }
            Err(_) => {
                self.unsure.push(request);
                false
            }
        }
    }

    /// Kills the supervisors of some attempts that are under way.
    fn kill_runners(&mut self) -> bool {
        let mut killed = false;
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
            let Ok(command) = fs::read(entry.path().join("cmdline")) else { continue };
            let command = String::from_utf8_lossy(&command).into_owned();
            let ours = command.contains(self.engine.data_dir().to_str().unwrap())
                && command.split('\0').next().is_some_and(|program| program.ends_with("-runner"));
            if ours && self.random.random_bool(0.5) {
                let pid = rustix::process::Pid::from_raw(pid).unwrap();
                killed |= rustix::process::kill_process(pid, rustix::process::Signal::KILL).is_ok();
            }
        }
        killed
    }

    fn round(&mut self, kill_runners: bool) {
        let fault = self.random.random_bool(0.6).then(|| {
            let point = POINTS[self.random.random_range(0..POINTS.len())];
            format!("{point}:{}", self.random.random_range(1..6_u32))
        });
        self.engine.start_with(fault.as_deref());
        wait::until("an engine that is ready, or gone", || {
            self.engine.try_client().map(drop).ok().or_else(|| self.engine.ended().map(drop))
        });
        let new = self.random.random_range(3..10);
        self.submit_until_refused(new);
        let deadline = Instant::now() + Duration::from_millis(self.random.random_range(0..400));
        while Instant::now() < deadline && self.engine.ended().is_none() {
            std::thread::park_timeout(Duration::from_millis(2));
        }
        if kill_runners && self.random.random_bool(0.5) {
            self.kill_runners();
        }
        self.engine.kill();
        if kill_runners && self.random.random_bool(0.5) {
            self.kill_runners();
        }
    }

    fn finish(&mut self, attempts_may_be_lost: bool) -> Vec<String> {
        self.engine.start();
        self.submit_until_refused(0);
        assert!(self.unsure.is_empty(), "an engine without faults refuses: {}", self.engine.log());
        let ids: Vec<_> = self.engine.tasks().iter().map(|task| task.id).collect();
        for id in ids {
            self.engine.wait(id);
        }
        let told: Vec<Told> = self
            .engine
            .tasks()
            .into_iter()
            .map(|task| Told {
                completed: task.status == TaskStatus::Completed,
                exit_code: task.attempts.last().and_then(|attempt| attempt.exit_code),
                fences: task
                    .attempts
                    .iter()
                    .filter(|attempt| attempt.outcome != Some(AttemptOutcome::NotStarted))
                    .map(|attempt| attempt.fence)
                    .collect(),
                lines: self.engine.lines(task.id, OutputStream::Stdout),
                task: task.name,
            })
            .collect();
        let text = fs::read_to_string(self.history()).unwrap_or_default();
        let expected = Expected { acknowledged: self.acknowledged.clone(), attempts_may_be_lost };
        history::check(&history::read(&text), &told, &expected)
    }
}

fn rounds(default: u32) -> u32 {
    std::env::var("ORCHESTRATOR_KILL_ROUNDS").ok().map_or(default, |rounds| rounds.parse().unwrap())
}

fn seed() -> u64 {
    let seed =
        std::env::var("ORCHESTRATOR_KILL_SEED").ok().map_or_else(rand::random, |seed| seed.parse().unwrap());
    eprintln!("ORCHESTRATOR_KILL_SEED={seed}");
    seed
}

fn run(kill_runners: bool) {
    let mut test = Loop::new(seed());
    for _ in 0..rounds(8) {
        test.round(kill_runners);
    }
    let wrong = test.finish(kill_runners);
    assert!(wrong.is_empty(), "{}\n{}", wrong.join("\n"), test.engine.log());
    let status = test.engine.ask(GetStatus {});
    assert_eq!(status.tasks.get(&TaskStatus::Running), None);
    assert_eq!(test.engine.ask(ListTasks::default()).tasks.len().min(100), test.acknowledged.len().min(100));
}

#[test]
fn a_killed_engine_loses_nothing_and_starts_nothing_twice() {
    run(false);
}

#[test]
fn killed_runners_cost_an_attempt_and_nothing_else() {
    run(true);
}
