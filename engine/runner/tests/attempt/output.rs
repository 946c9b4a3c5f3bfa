//! Output without bounds, and disks with them.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::process::Command;

use orchestrator_runner::output::{Entry, Reader, Stream};

use crate::support::{Case, RUNNER};

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
fn a_flood_takes_neither_memory_nor_disk_and_what_is_missing_is_told() {
    let limit = 8 * 1024 * 1024;
    let script = "echo first; yes 'a line of output of a length that is common, for a program that talks' | head -c 100000000; echo; grep VmHWM /proc/$PPID/status";
    let case = Case::with(script, |spec| spec.output_limit_bytes = limit);
    let status = case.run();
    assert_eq!(status.exit_code, Some(0));
    let files = fs::read_dir(case.directory().join("output")).unwrap();
    let kept: u64 = files.map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
    assert!(kept <= limit && kept > limit / 2, "{kept} bytes are kept of {limit}");
    let (mut lines, mut bytes, mut gaps) = (0, 0, Vec::new());
    let mut reader = Reader::open(&case.directory());
    loop {
        let entries = reader.read().unwrap();
        if entries.is_empty() {
            break;
        }
        for entry in entries {
            match entry {
                Entry::Line(line) => (lines, bytes) = (lines + 1, bytes + line.text.len() as u64),
                Entry::Dropped { lines, bytes } => gaps.push((lines, bytes)),
            }
        }
    }
    assert_eq!(gaps, [(status.output.dropped_lines, status.output.dropped_bytes)]);
    assert_eq!(lines + gaps[0].0, status.output.lines);
    assert_eq!(bytes + gaps[0].1, status.output.bytes);
    let printed = case.lines(Stream::Out);
    assert_eq!(printed[0], "first");
    let memory = printed.last().unwrap().split_ascii_whitespace().nth(1).unwrap().parse::<u64>().unwrap();
    assert!(memory < 32 * 1024, "the runner used {memory} KiB");
}

#[test]
fn a_disk_that_refuses_output_does_not_stop_the_script() {
    let case = Case::new("yes 'a line that finds no room' | head -n 200000; echo the end >&2; exit 7");
    // No file may grow beyond 1 MiB: every write behind that fails.
    let runner = "trap '' XFSZ; ulimit -f 2048; exec \"$0\" \"$1\"";
    let ran = Command::new("sh").args(["-c", runner, RUNNER]).arg(case.directory()).status().unwrap();
    assert!(ran.success());
    let status = case.status();
    assert_eq!(status.exit_code, Some(7));
    assert_eq!(status.stderr_tail, ["the end"]);
    assert_eq!(status.output.lines, 200_001);
    assert!(status.output.unwritten_lines > 100_000);
    let kept = case.lines(Stream::Out).len() as u64 + case.lines(Stream::Err).len() as u64;
    assert_eq!(kept + status.output.unwritten_lines, status.output.lines);
}
