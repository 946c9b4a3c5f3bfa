//! What the engine costs beside doing the same without it: start latency beside a bare spawn, many
//! short scripts beside `xargs -P`, plugin calls in one shell, and how an engine comes back with
//! 100 000 tasks.
//!
//! It needs the programs in release builds (`cargo build --release --workspace`) and `nu` (the
//! variable `ORCHESTRATOR_TEST_NU`, or on the `PATH`). An argument names the only part to run:
//! `latency`, `scripts`, `plugin` or `recovery`.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a benchmark may panic")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use orchestrator_benches::process::{self, Process};
use orchestrator_benches::{Spread, ratios};
use orchestrator_protocol::client::{Client, Look};
use orchestrator_protocol::request::{GetStatus, ListTasks, PauseQueue, StopEngine, StopMode, Subscription};
use orchestrator_protocol::submit::{NewTask, SubmitRequest};
use orchestrator_protocol::task::{TaskId, TaskStatus};

const PAIRS: usize = 20;

fn program(name: &str) -> PathBuf {
    process::program(name, "cargo build --release --workspace")
}

fn nu() -> PathBuf {
    std::env::var_os("ORCHESTRATOR_TEST_NU").map_or_else(|| "nu".into(), PathBuf::from)
}

struct Engine {
    child: Child,
    directory: tempfile::TempDir,
}

impl Engine {
    fn start(directory: tempfile::TempDir, arguments: &[&str]) -> (Self, Duration) {
        let socket = directory.path().join("engine.sock");
        let start = Instant::now();
        let child = Command::new(program("orchestrator"))
            .args(["--no-http", "--data-dir"])
            .arg(directory.path().join("data"))
            .arg("--socket")
            .arg(&socket)
            .args(arguments)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let engine = Self { child, directory };
        while Client::connect(&socket, None).is_err() {
            std::thread::park_timeout(Duration::from_millis(1));
        }
        (engine, start.elapsed())
    }

    fn fresh(arguments: &[&str]) -> Self {
        Self::start(tempfile::tempdir().unwrap(), arguments).0
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn client(&self) -> Client {
        Client::connect(&self.path().join("engine.sock"), None).unwrap()
    }

    fn task(&self, script: &Path) -> NewTask {
        NewTask {
            script: script.to_str().unwrap().to_owned(),
            cwd: Some(self.path().to_str().unwrap().to_owned()),
            ..NewTask::default()
        }
    }

    fn wait(&self, ids: Vec<TaskId>) {
        let mut items = self.client().subscribe(Subscription::Watch { ids }).unwrap();
        while items.next(Duration::from_secs(60)).unwrap() != Look::End {}
    }

    /// Processor time of the engine and of what it has waited for.
    fn processor_time(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().collect();
        fields[11..15].iter().map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>() / 100.0
    }

    fn stop(mut self) -> tempfile::TempDir {
        self.client().call(StopEngine { mode: StopMode::Cancel }).unwrap();
        self.child.wait().unwrap();
        self.directory
    }
}

fn executable(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn now_ns() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()
}

/// From the acknowledgement of a submit to the script's first instruction, and from a bare spawn to
/// the same: the script writes the time.
fn latency() {
    let engine = Engine::fresh(&[]);
    let script = engine.path().join("stub");
    executable(&script, "#!/bin/sh\ndate +%s%N > began.tmp; mv began.tmp began\n");
    let began = engine.path().join("began");
    let mut client = engine.client();
    let read = || -> Option<u128> { fs::read_to_string(&began).ok()?.trim().parse().ok() };
    let (mut with, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..PAIRS * 5 {
        let request = SubmitRequest { tasks: vec![engine.task(&script)], ..SubmitRequest::default() };
        let id = client.call(request).unwrap().id.unwrap();
        let acknowledged = now_ns();
        engine.wait(vec![id]);
        with.push((read().unwrap().saturating_sub(acknowledged)) as f64 / 1e6);
        fs::remove_file(&began).unwrap();
        let start = now_ns();
        Command::new(&script).current_dir(engine.path()).status().unwrap();
        bare.push((read().unwrap() - start) as f64 / 1e6);
        fs::remove_file(&began).unwrap();
    }
    let added = with.iter().zip(&bare).map(|(with, bare)| with - bare).collect();
    println!("submit acknowledged to first instruction: {:.2} ms", Spread::of(with));
    println!("bare spawn to first instruction:          {:.2} ms", Spread::of(bare));
    println!("added by the engine:                      {:.2} ms", Spread::of(added));
    engine.stop();
}

fn completed(client: &mut Client) -> u64 {
    client.call(GetStatus {}).unwrap().tasks.get(&TaskStatus::Completed).copied().unwrap_or(0)
}

/// Processor time of children that were waited for, in seconds.
fn children_time() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().collect();
    fields[13..15].iter().map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>() / 100.0
}

/// Short Nushell scripts on a number of workers, beside `xargs -P`.
fn scripts() {
    const SCRIPTS: usize = 500;
    for workers in ["2", "4"] {
        let nu = nu();
        let config = tempfile::tempdir().unwrap();
        let file = config.path().join("orchestrator.toml");
        fs::write(&file, "[scripts]\ninterpreter_args = [\"-n\", \"--no-std-lib\"]\n").unwrap();
        let engine = Engine::fresh(&[
            "--max-parallel",
            workers,
            "--nu-path",
            nu.to_str().unwrap(),
            "--config",
            file.to_str().unwrap(),
        ]);
        let script = engine.path().join("empty.nu");
        fs::write(&script, "def main [] {}\n").unwrap();
        let mut pairs = Vec::new();
        let (mut engine_time, mut xargs_time) = (0.0, 0.0);
        for _ in 0..PAIRS / 2 {
            let before = children_time();
            let start = Instant::now();
            let xargs = Command::new("sh")
                .arg("-c")
                .arg(format!(
                    "seq {SCRIPTS} | xargs -P{workers} -I_ {} -n --no-std-lib {}",
                    nu.display(),
                    script.display()
                ))
                .stdout(Stdio::null())
                .status();
            assert!(xargs.unwrap().success());
            let beside = start.elapsed();
            xargs_time += children_time() - before;
            let before = engine.processor_time();
            let tasks = (0..SCRIPTS)
                .map(|number| NewTask { name: Some(format!("n{number}")), ..engine.task(&script) });
            let request = SubmitRequest { tasks: tasks.collect(), ..SubmitRequest::default() };
            let start = Instant::now();
            let mut client = engine.client();
            let before_it = completed(&mut client);
            client.call(request).unwrap();
            while completed(&mut client) < before_it + SCRIPTS as u64 {
                std::thread::park_timeout(Duration::from_millis(10));
            }
            pairs.push((beside, start.elapsed()));
            engine_time += engine.processor_time() - before;
        }
        let rate = |pick: fn(&(Duration, Duration)) -> Duration| {
            SCRIPTS as f64 / Spread::of(pairs.iter().map(|pair| pick(pair).as_secs_f64()).collect()).median
        };
        let each = |seconds: f64| seconds * 1e3 / (SCRIPTS * pairs.len()) as f64;
        println!(
            "{SCRIPTS} empty nu scripts, {workers} workers: {:.2} of xargs -P{workers} ({:.0} scripts/s beside {:.0}); processor time a script {:.1} ms beside {:.1} ms",
            ratios(&pairs),
            rate(|pair| pair.1),
            rate(|pair| pair.0),
            each(engine_time),
            each(xargs_time),
        );
        engine.stop();
    }
}

/// A thousand plugin calls in one shell.
fn plugin() {
    let engine = Engine::fresh(&[]);
    let script = engine.path().join("empty");
    executable(&script, "#!/bin/sh\n");
    let id = engine
        .client()
        .call(SubmitRequest { tasks: vec![engine.task(&script)], ..SubmitRequest::default() })
        .unwrap()
        .id
        .unwrap();
    engine.wait(vec![id]);
    let code = |body: &str| {
        format!("let start = date now; for _ in 1..1000 {{ {body} }}; ((date now) - $start) / 1ms / 1000")
    };
    let run = |body: &str| -> f64 {
        let output = Command::new(nu())
            .args(["-n", "--no-std-lib", "--plugins"])
            .arg(program("nu_plugin_orchestrator"))
            .arg("-c")
            .arg(code(body))
            .env("ORCHESTRATOR_SOCKET", engine.path().join("engine.sock"))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        text.parse().unwrap_or_else(|_| panic!("{text} {}", String::from_utf8_lossy(&output.stderr)))
    };
    let get = (0..5).map(|_| run(&format!("orchestrator task get {id} | ignore"))).collect();
    let status = (0..5).map(|_| run("orchestrator status | ignore")).collect();
    println!(
        "plugin calls, 1 000 in one nu: task get {:.2} ms each, status {:.2} ms each",
        Spread::of(get),
        Spread::of(status)
    );
    engine.stop();
}

/// An engine that comes back with 100 000 pending tasks of about 1 KiB.
fn recovery() {
    const TASKS: usize = 100_000;
    let engine = Engine::fresh(&[]);
    let script = engine.path().join("empty");
    executable(&script, "#!/bin/sh\n");
    let mut client = engine.client();
    client.call(PauseQueue::default()).unwrap();
    for batch in 0..TASKS / 5_000 {
        let tasks = (0..5_000).map(|number| NewTask {
            name: Some(format!("task {batch} {number}")),
            group: Some(format!("group-{}", number % 20)),
            env: [("PADDING".to_owned(), "x".repeat(400))].into(),
            ..engine.task(&script)
        });
        client.call(SubmitRequest { tasks: tasks.collect(), ..SubmitRequest::default() }).unwrap();
    }
    drop(client);
    let mut directory = engine.stop();
    let mut starts = Vec::new();
    let mut memory = Vec::new();
    let mut pages = Vec::new();
    for _ in 0..5 {
        let (engine, start) = Engine::start(directory, &[]);
        starts.push(start.as_secs_f64());
        memory.push(Process::with_id(engine.child.id()).resident_bytes() as f64 / (1024.0 * 1024.0));
        let mut client = engine.client();
        assert_eq!(client.call(GetStatus {}).unwrap().tasks.values().sum::<u64>(), TASKS as u64);
        for _ in 0..PAIRS {
            let start = Instant::now();
            assert_eq!(client.call(ListTasks::default()).unwrap().tasks.len(), 100);
            pages.push(start.elapsed());
        }
        directory = engine.stop();
    }
    println!(
        "ready again with {TASKS} pending tasks of 1 KiB: {:.2} s, {:.0} MiB resident",
        Spread::of(starts),
        Spread::of(memory)
    );
    println!("a page of 100 out of {TASKS} over the socket: {:.0} µs", Spread::of_micros(&pages));
}

fn main() {
    let only = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let parts: [(&str, fn()); 4] =
        [("latency", latency), ("scripts", scripts), ("plugin", plugin), ("recovery", recovery)];
    for (name, part) in parts {
        if only.as_deref().is_none_or(|only| only == name) {
            println!("== {name}");
            part();
        }
    }
}
