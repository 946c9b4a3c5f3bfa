//! What a runner promises, with real processes.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use orchestrator_runner::attempt::{Attempt, AttemptState, Runner};
use orchestrator_runner::identity::{ProcessIdentity, boot_id};
use orchestrator_runner::output::{Entry, Reader, Stream};
use orchestrator_runner::spec::{Secret, Spec};
use orchestrator_runner::status::{Reason, Status};
use proptest::prelude::*;
use tempfile::TempDir;

const RUNNER: &str = env!("CARGO_BIN_EXE_orchestrator-runner");
const PATIENCE: Duration = Duration::from_secs(60);

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
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
struct Case {
    root: TempDir,
    attempt: Attempt,
}

impl Case {
    fn new(script: &str) -> Self {
        Self::with(script, |_| {})
    }

    fn with(script: &str, change: impl FnOnce(&mut Spec)) -> Self {
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

    fn directory(&self) -> PathBuf {
        self.root.path().join("task/7")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn spawn(&self) -> Runner {
        self.attempt.spawn(Path::new(RUNNER), &[]).unwrap()
    }

    fn run(&self) -> Status {
        self.spawn().wait().unwrap();
        self.status()
    }

    fn status(&self) -> Status {
        match self.attempt.state().unwrap() {
            AttemptState::Finished(status) => *status,
            other => panic!("not finished: {other:?}"),
        }
    }

    fn runner(&self) -> ProcessIdentity {
        until("the runner", || match self.attempt.state().unwrap() {
            AttemptState::Running { identity } => Some(identity),
            _ => None,
        })
    }

    fn lines(&self, stream: Stream) -> Vec<String> {
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

    fn wait_for_file(&self, name: &str) -> String {
        until(name, || fs::read_to_string(self.path(name)).ok().filter(|text| text.ends_with('\n')))
            .trim()
            .to_owned()
    }

    fn wait_for_pid(&self, name: &str) -> i32 {
        self.wait_for_file(name).parse().unwrap()
    }
}

fn is_alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[test]
fn output_exit_code_and_words_are_kept() {
    let case = Case::new(
        "echo one; echo two >&2; echo '::progress 1/4 a quarter' >&2; echo '::result [1]'; echo '::other'; exit 5",
    );
    let status = case.run();
    assert_eq!((status.reason, status.exit_code, status.signal), (Reason::Exited, Some(5), None));
    assert_eq!(status.result, Some(serde_json::json!([1])));
    assert_eq!(status.stderr_tail, ["two"]);
    assert_eq!(case.lines(Stream::Out), ["one", "::other"]);
    assert_eq!(case.attempt.progress().unwrap().unwrap().message, "a quarter");
}

#[test]
fn an_unterminated_last_line_is_a_line_and_a_signal_is_told() {
    let case = Case::new("printf unfinished; kill -9 $$");
    let status = case.run();
    assert_eq!((status.exit_code, status.signal), (None, Some(9)));
    assert_eq!(case.lines(Stream::Out), ["unfinished"]);
}

#[test]
fn the_environment_is_exactly_the_one_that_was_given() {
    let case = Case::with("", |spec| {
        spec.program = "/usr/bin/env".into();
        spec.args.clear();
        spec.env = vec![("A".into(), "1".into()), ("B".into(), "two words".into())];
    });
    assert_eq!(case.run().exit_code, Some(0));
    assert_eq!(case.lines(Stream::Out), ["A=1", "B=two words"]);
}

#[test]
fn standard_input_is_given_whole() {
    let text = "x".repeat(300_000);
    let case = Case::with("wc -c", |spec| spec.stdin = Some(text));
    case.run();
    assert_eq!(case.lines(Stream::Out), ["300000"]);
    let case = Case::new("wc -c");
    case.run();
    assert_eq!(case.lines(Stream::Out), ["0"]);
}

#[test]
fn of_many_runners_one_starts_the_script() {
    let case = Case::new("echo started >> starts; read line < gate");
    Command::new("mkfifo").arg(case.path("gate")).status().unwrap();
    let mut runners: Vec<Runner> = (0..8).map(|_| case.spawn()).collect();
    case.wait_for_file("starts");
    fs::write(case.path("gate"), "go\n").unwrap();
    for runner in &mut runners {
        runner.wait().unwrap();
    }
    assert_eq!(case.status().exit_code, Some(0));
    assert_eq!(fs::read_to_string(case.path("starts")).unwrap(), "started\n");
}

#[test]
fn an_abandoned_attempt_is_never_started() {
    let case = Case::new("echo started > started");
    assert_eq!(case.attempt.state().unwrap(), AttemptState::NotStarted);
    assert!(case.attempt.abandon().unwrap());
    assert!(case.attempt.abandon().unwrap());
    case.spawn().wait().unwrap();
    assert_eq!(case.attempt.state().unwrap(), AttemptState::Abandoned);
    assert!(!case.path("started").exists());
}

#[test]
fn a_started_attempt_cannot_be_abandoned() {
    let case = Case::new("echo $$ > script; exec sleep 600");
    let mut runner = case.spawn();
    case.wait_for_pid("script");
    assert!(!case.attempt.abandon().unwrap());
    case.attempt.kill().unwrap();
    runner.wait().unwrap();
    assert_eq!(case.status().reason, Reason::Cancelled);
}

#[test]
fn a_timeout_ends_everything() {
    let case = Case::with("sleep 600 & echo $! > child; wait", |spec| spec.timeout_ms = Some(150));
    let mut runner = case.spawn();
    let child = case.wait_for_pid("child");
    runner.wait().unwrap();
    assert_eq!(case.status().reason, Reason::TimedOut);
    assert!(!is_alive(child));
}

fn cancelling_ends_even_what_has_detached(cgroup: bool) {
    let script = r#"trap '' TERM
        setsid sh -c 'trap "" TERM; (trap "" TERM; echo $$ > /dev/null; sh -c "echo \$PPID > grandchild; sleep 600") & echo $$ > detached; sleep 600' > /dev/null 2>&1 &
        echo $$ > script; while :; do sleep 600; done"#;
    let case = Case::with(script, |spec| {
        spec.cgroup = cgroup;
        spec.grace_ms = 50;
    });
    let mut runner = case.spawn();
    let pids = ["script", "detached", "grandchild"].map(|name| case.wait_for_pid(name));
    case.attempt.cancel().unwrap();
    runner.wait().unwrap();
    assert_eq!(case.status().reason, Reason::Cancelled);
    assert_eq!(pids.map(is_alive), [false; 3]);
}

#[test]
fn cancelling_ends_even_what_has_detached_by_cgroup() {
    cancelling_ends_even_what_has_detached(true);
}

#[test]
fn cancelling_ends_even_what_has_detached_by_descent() {
    cancelling_ends_even_what_has_detached(false);
}

#[test]
fn grace_lets_a_script_clean_up() {
    let case = Case::new("trap 'echo cleaned; exit 3' TERM; echo $$ > script; while :; do sleep 0.01; done");
    let mut runner = case.spawn();
    case.wait_for_pid("script");
    case.attempt.cancel().unwrap();
    runner.wait().unwrap();
    assert_eq!((case.status().reason, case.status().exit_code), (Reason::Cancelled, Some(3)));
    assert_eq!(case.lines(Stream::Out), ["cleaned"]);
}

#[test]
fn what_a_script_leaves_behind_is_ended_and_its_exit_code_kept() {
    let case = Case::with(
        "setsid sh -c 'echo $$ > detached; echo late; sleep 600' & while [ ! -s detached ]; do sleep 0.01; done; exit 4",
        |spec| {
            spec.grace_ms = 50;
        },
    );
    let status = case.run();
    assert_eq!((status.reason, status.exit_code), (Reason::Exited, Some(4)));
    assert!(status.leftovers > 0);
    assert!(!is_alive(case.wait_for_pid("detached")));
    assert_eq!(case.lines(Stream::Out), ["late"]);
}

#[test]
fn a_runner_that_is_killed_takes_its_script_along_and_what_is_left_is_found() {
    let case =
        Case::with("setsid sh -c 'echo $$ > detached; sleep 600' & echo $$ > script; sleep 600", |spec| {
            spec.cgroup = false
        });
    let mut runner = case.spawn();
    let pids = ["script", "detached"].map(|name| case.wait_for_pid(name));
    let identity = case.runner();
    assert_eq!(identity.boot_id, boot_id().unwrap());
    kill(identity.pid);
    runner.wait().unwrap();
    assert_eq!(case.attempt.state().unwrap(), AttemptState::Lost { identity });
    until("the script to die with its runner", || (!is_alive(pids[0])).then_some(()));
    assert!(is_alive(pids[1]));
    assert!(case.attempt.kill_leftovers().unwrap() >= 1);
    assert!(!is_alive(pids[1]));
    assert_eq!(case.attempt.kill_leftovers().unwrap(), 0);
}

#[test]
fn what_cannot_be_started_is_told() {
    let problem = |change: fn(&mut Spec)| match Case::with("true", change).run().reason {
        Reason::StartFailed { error } => error,
        other => panic!("started: {other:?}"),
    };
    assert!(
        problem(|spec| spec.program = "/no/such/program".into())
            .starts_with("the program /no/such/program cannot be used")
    );
    assert!(problem(|spec| spec.program = "/etc/passwd".into()).contains("Permission denied"));
    assert!(
        problem(|spec| spec.cwd = "/no/such/directory".into())
            .starts_with("the working directory /no/such/directory cannot be used")
    );
    let secret = |reference: &str| Secret { name: "token".into(), reference: reference.into() };
    let unset = Case::with("true", |spec| spec.secrets = vec![secret("env:NO_SUCH_VARIABLE")]).run().reason;
    assert_eq!(
        unset,
        Reason::StartFailed {
            error: "the secret 'token' (env:NO_SUCH_VARIABLE) is not in the engine's environment".into()
        }
    );
    let missing = Case::with("true", |spec| spec.secrets = vec![secret("file:/no/such/file")]).run().reason;
    assert!(
        matches!(missing, Reason::StartFailed { error } if error.contains("file:/no/such/file) cannot be read"))
    );
}

#[test]
fn secrets_are_readable_and_never_spooled() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("secret");
    fs::write(&file, "correct horse battery\n").unwrap();
    let script = r#"cat "$ORCHESTRATOR_SECRETS"; echo; cat "$ORCHESTRATOR_SECRETS" | base64; printf 'correct '; sleep 0.05; echo 'horse battery'; echo "correct horse battery" >&2; env"#;
    let reference = format!("file:{}", file.display());
    let case = Case::with(script, |spec| spec.secrets = vec![Secret { name: "pass".into(), reference }]);
    let status = case.run();
    let lines = case.lines(Stream::Out);
    assert_eq!((lines[0].as_str(), lines[2].as_str()), (r#"{"pass":"***"}"#, "***"));
    assert!(lines[1].contains("***"), "{lines:?}");
    assert_eq!(status.stderr_tail, ["***"]);
    for entry in fs::read_dir(case.directory().join("output")).unwrap() {
        assert!(!fs::read_to_string(entry.unwrap().path()).unwrap().contains("horse"));
    }
}

#[test]
fn a_flood_of_output_is_bounded() {
    let limit = 1024 * 1024;
    let case = Case::with("yes 'a line of a flood of output' | head -n 1000000; echo the end", |spec| {
        spec.output_limit_bytes = limit
    });
    let status = case.run();
    assert_eq!(status.exit_code, Some(0));
    assert_eq!(status.output.lines, 1_000_001);
    let kept: u64 = fs::read_dir(case.directory().join("output"))
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    assert!(kept < 2 * limit, "{kept} bytes are kept");
    assert_eq!(case.lines(Stream::Out).last().map(String::as_str), Some("the end"));
}

#[test]
fn a_line_without_an_end_is_cut_and_still_masked() {
    let case = Case::new("echo '::mask topsecretvalue'; yes topsecretvalue | tr -d '\\n' | head -c 1000000");
    assert_eq!(case.run().exit_code, Some(0));
    let lines = case.lines(Stream::Out);
    assert!(lines.len() > 10);
    for line in &lines[..lines.len() - 1] {
        assert!(line.chars().all(|c| c == '*'), "{line}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// However a masked value is cut into writes, it never shows.
    #[test]
    fn a_value_that_is_printed_in_pieces_is_masked(cuts in prop::collection::vec(1..10_usize, 1..6)) {
        let value = "s3cr3t-v4lu3-that-is-long";
        let mut pieces = Vec::new();
        let mut rest = value;
        for cut in cuts {
            let (piece, after) = rest.split_at(cut.min(rest.len()));
            pieces.push(piece);
            rest = after;
        }
        pieces.push(rest);
        let prints: String = pieces.iter().map(|piece| format!("printf '%s' '{piece}'; sleep 0.002; ")).collect();
        let case = Case::new(&format!("echo '::mask {value}'; printf '<'; {prints} echo '>'"));
        case.run();
        prop_assert_eq!(case.lines(Stream::Out), ["<***>"]);
    }
}
