//! What a script is given, and what is told of it.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

use std::fs;
use std::os::unix::fs::PermissionsExt;

use orchestrator_runner::attempt::AttemptState;
use orchestrator_runner::output::Stream;
use orchestrator_runner::spec::{Secret, Spec};
use orchestrator_runner::status::Reason;

use crate::support::Case;

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
fn a_script_without_an_interpreter_is_told_apart_from_one_that_is_missing() {
    let problem = |text: &str, program: &str| {
        let case = Case::with("", |spec| {
            spec.program = program.into();
            spec.args.clear();
        });
        fs::write(case.path("deploy-it"), text).unwrap();
        fs::set_permissions(case.path("deploy-it"), fs::Permissions::from_mode(0o755)).unwrap();
        match case.run().reason {
            Reason::StartFailed { error } => error,
            other => panic!("started: {other:?}"),
        }
    };
    assert_eq!(
        problem("#!/no/such/interpreter\n", "./deploy-it"),
        "the program ./deploy-it cannot be used: the interpreter that its first line names does not exist"
    );
    assert!(problem("echo hello\n", "./deploy-it").contains("such as #!/bin/sh"));
    // Not even where it lies in the working directory.
    assert!(problem("#!/bin/sh\n", "deploy-it").contains("it is not in PATH"));
    assert!(problem("#!/bin/sh\n", "./deploy\0it").ends_with("holds a NUL byte"));
}

#[test]
fn a_name_is_looked_for_in_the_path_that_was_given() {
    let case = Case::with("echo found", |spec| spec.program = "sh".into());
    assert_eq!(case.run().exit_code, Some(0));
    assert_eq!(case.lines(Stream::Out), ["found"]);
}

#[test]
fn nothing_of_the_engine_reaches_the_script() {
    let case = Case::new(
        "ls /proc/self/fd | wc -l; grep -E 'SigBlk|SigIgn' /proc/self/status; ls -l /proc/self/fd/0",
    );
    // An engine that ignores and holds what it should not.
    let runner = "trap '' HUP PIPE USR2; exec 9< /dev/null; exec \"$0\" \"$1\" 2> /dev/null";
    let started = std::process::Command::new("sh")
        .args(["-c", runner, crate::support::RUNNER])
        .arg(case.directory())
        .env("ORCHESTRATOR_TEST_LEAK", "1")
        .status()
        .unwrap();
    assert!(started.success());
    let lines = case.lines(Stream::Out);
    // The standard three, and the one that `ls` has opened.
    assert_eq!(lines[0], "4");
    assert_eq!(lines[1..3], ["SigBlk:\t0000000000000000", "SigIgn:\t0000000000000000"]);
    assert!(lines[3].ends_with("/dev/null"), "{}", lines[3]);
}

#[test]
fn the_script_leads_a_session_of_its_own() {
    let case =
        Case::new("cut -d ' ' -f 5,6 /proc/$$/stat; echo $$; cut -d ' ' -f 6 /proc/$PPID/stat; echo $PPID");
    assert_eq!(case.run().exit_code, Some(0));
    let lines = case.lines(Stream::Out);
    assert_eq!(lines[0], format!("{0} {0}", lines[1]));
    assert_eq!(lines[2], lines[3]);
}

#[test]
fn a_spec_of_a_newer_release_is_refused_and_an_unknown_field_is_not() {
    let case = Case::new("true");
    let path = case.directory().join("spec.json");
    let mut spec: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    spec["protocol"] = 2.into();
    fs::write(&path, spec.to_string()).unwrap();
    let Reason::StartFailed { error } = case.run().reason else { panic!("started") };
    assert!(error.contains("newer release: its protocol is 2, and this release knows 1"), "{error}");

    let case = Case::new("true");
    spec["protocol"] = 1.into();
    spec["colour"] = "blue".into();
    fs::write(case.directory().join("spec.json"), spec.to_string()).unwrap();
    assert_eq!(case.run().exit_code, Some(0));
}

#[test]
fn every_file_says_its_protocol_and_a_newer_status_is_refused() {
    let case = Case::new("echo '::progress 1/2'");
    case.run();
    for name in ["spec.json", "start", "child.json", "progress.json", "status.json"] {
        let file: serde_json::Value =
            serde_json::from_slice(&fs::read(case.directory().join(name)).unwrap()).unwrap();
        assert_eq!(file["protocol"], 1, "{name}");
    }
    assert!(matches!(case.attempt.state(), Ok(AttemptState::Finished(_))));
    let path = case.directory().join("status.json");
    fs::write(&path, fs::read_to_string(&path).unwrap().replace("\"protocol\":1", "\"protocol\":9")).unwrap();
    assert!(case.attempt.state().unwrap_err().to_string().contains("newer release"));
}

#[test]
fn the_last_progress_is_kept_however_fast_it_comes() {
    let case = Case::new("for i in 1 2 3 4 5 6 7 8 9 10; do echo \"::progress $i/10 step $i\"; done");
    case.run();
    let progress = case.attempt.progress().unwrap().unwrap();
    assert_eq!(
        (progress.fraction, progress.done, progress.message.as_str()),
        (Some(1.0), Some(10), "step 10")
    );
    assert_eq!(case.lines(Stream::Out), [""; 0]);
}

#[test]
fn a_long_result_is_whole_and_one_that_is_no_result_is_told() {
    let case = Case::new(
        "printf '::result \"'; head -c 900000 /dev/zero | tr '\\0' x; echo '\"'; echo '::fail permanent no licence'",
    );
    let status = case.run();
    assert_eq!(status.result.unwrap().as_str().map(str::len), Some(900_000));
    assert_eq!(
        status.failure.map(|failure| (failure.permanent, failure.message)),
        Some((true, "no licence".into()))
    );
    assert_eq!(case.lines(Stream::Out), [""; 0]);

    let case = Case::new(
        "echo '::result {oops'; printf '::result \"'; head -c 3000000 /dev/zero | tr '\\0' x; echo '\"'",
    );
    assert_eq!(case.run().result, None);
    assert_eq!(case.lines(Stream::Out), ["::result {oops"]);
    let notes = case.lines(Stream::Err);
    assert!(notes[0].starts_with("orchestrator: a '::result' is not kept: it is not JSON"), "{notes:?}");
    assert!(notes[1].starts_with("orchestrator: a '::result' of more than"), "{notes:?}");
}

#[test]
fn bytes_that_are_no_text_are_kept_as_well_as_they_can_be() {
    let case = Case::new(r"printf 'a\377b\n\303\244\r\n'");
    case.run();
    assert_eq!(case.lines(Stream::Out), ["a\u{fffd}b", "ä"]);
}

#[test]
fn each_stream_keeps_its_order() {
    let case = Case::new("i=0; while [ $i -lt 500 ]; do echo $i; echo $i >&2; i=$((i+1)); done");
    let status = case.run();
    let expected: Vec<String> = (0..500).map(|number| number.to_string()).collect();
    assert_eq!(case.lines(Stream::Out), expected);
    assert_eq!(case.lines(Stream::Err), expected);
    assert_eq!(status.stderr_tail, expected[480..]);
    assert!(status.started_at <= status.ended_at);
}
