//! What must not be seen is not seen.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;

use orchestrator_runner::output::Stream;
use orchestrator_runner::spec::Secret;
use orchestrator_runner::status::Reason;
use proptest::prelude::*;

use crate::support::Case;

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

/// Everything that the attempt has left on disk, but for what the engine itself wrote.
fn everything_stored(case: &Case) -> String {
    let mut stored = String::new();
    for directory in [case.directory(), case.directory().join("output")] {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() && !path.ends_with("spec.json") {
                stored.push_str(&fs::read_to_string(path).unwrap());
            }
        }
    }
    stored
}

#[test]
fn nothing_that_is_stored_shows_an_announced_value() {
    let case = Case::new(
        "echo '::mask tr0ub4dor'; echo '::progress 1/2 with tr0ub4dor'; echo '::result {\"tr0ub4dor\": [\"a tr0ub4dor b\"]}'; echo '::fail permanent tr0ub4dor'; echo 'err tr0ub4dor' >&2; echo '::result tr0ub4dor'; printf 'dHIwdWI0ZG9y\\n'",
    );
    let status = case.run();
    assert_eq!(status.result, Some(serde_json::json!({"***": ["a *** b"]})));
    assert_eq!(status.failure.unwrap().message, "***");
    assert_eq!(status.stderr_tail, ["err ***"]);
    assert_eq!(case.attempt.progress().unwrap().unwrap().message, "with ***");
    assert_eq!(case.lines(Stream::Out), ["::result ***", "***"]);
    let stored = everything_stored(&case);
    assert!(!stored.contains("tr0ub4dor") && !stored.contains("::mask"), "{stored}");
}

#[test]
fn a_value_that_is_announced_on_one_stream_is_hidden_on_the_other() {
    let case = Case::new(
        "i=100; while [ $i -lt 400 ]; do echo \"::mask value-$i-out\"; echo \"value-$i-out\" >&2; echo \"::mask value-$i-err\" >&2; echo \"value-$i-err\"; i=$((i+1)); done",
    );
    case.run();
    assert_eq!(case.lines(Stream::Out), ["***"; 300]);
    assert_eq!(case.lines(Stream::Err), ["***"; 300]);
}

#[test]
fn a_word_that_is_too_long_is_not_spooled_in_pieces() {
    let case = Case::new(
        "printf '::mask '; head -c 3000000 /dev/zero | tr '\\0' x; echo; echo after; echo '::mask abc'",
    );
    case.run();
    assert_eq!(case.lines(Stream::Out), ["after"]);
    let notes = case.lines(Stream::Err);
    assert!(notes[0].starts_with("orchestrator: a '::mask' of more than"), "{notes:?}");
    assert_eq!(
        notes[1],
        "orchestrator: a value that was announced is not masked: it is shorter than 4 characters"
    );
}

#[test]
fn a_secret_of_the_engines_environment_reaches_the_script_by_a_file_that_nobody_can_change() {
    let (variable, value) =
        std::env::vars().find(|(_, value)| value.len() > 8 && !value.contains('\n')).unwrap();
    let script = r#"echo "$ORCHESTRATOR_SECRETS"; (echo changed > "$ORCHESTRATOR_SECRETS") 2> /dev/null; cat "$ORCHESTRATOR_SECRETS" > copy; exec 3< /dev/null 9< /dev/null; cat "$ORCHESTRATOR_SECRETS" | cmp - copy && echo same"#;
    let case = Case::with(script, |spec| {
        spec.secrets = vec![
            Secret { name: "token".into(), reference: format!("env:{variable}") },
            Secret { name: "pin".into(), reference: "file:/dev/null".into() },
        ];
    });
    assert_eq!(case.run().exit_code, Some(0));
    let lines = case.lines(Stream::Out);
    assert!(lines[0].starts_with("/proc/self/fd/"), "{lines:?}");
    assert_eq!(lines[1], "same");
    let secrets: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(case.path("copy")).unwrap()).unwrap();
    assert_eq!(secrets, serde_json::json!({"token": value, "pin": ""}));
    let notes = case.lines(Stream::Err);
    assert_eq!(notes, ["orchestrator: the secret 'pin' is not masked: it is shorter than 4 characters"]);
}

#[test]
fn a_secret_that_cannot_be_masked_stops_the_start() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("secret");
    fs::write(&path, "x".repeat(70_000)).unwrap();
    let reference = format!("file:{}", path.display());
    let large = Case::with("true", |spec| spec.secrets = vec![Secret { name: "all".into(), reference }]);
    let Reason::StartFailed { error } = large.run().reason else { unreachable!("it is too long") };
    assert_eq!(error, "the secret 'all' cannot be masked: it is longer than 65536 bytes");
}
