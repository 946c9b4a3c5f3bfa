//! What a run is asked to do, checked against the nodes that there are.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use orchestrator_protocol::environment::{Fault, RunOptions, TestScript};
use orchestrator_protocol::{Error, name};

use super::topology::refuse;
use crate::taskservs::listed;

/// A script is copied to each node: this is more than any has, in bytes.
const MAX_SCRIPT_BYTES: u64 = 16 * 1024 * 1024;

/// The longest that a script may be given on a node, in milliseconds: a day.
const MAX_TIMEOUT_MS: u64 = 24 * 60 * 60 * 1000;

/// A run holds so many tests, and so many faults, at most: each result is kept in the environment's record.
pub const MAX_STEPS: usize = 100;

/// How the results of the engine's own tests are called. No script may be called so.
const RESERVED: [&str; 4] = ["verify ", "install ", "fault ", "disk limits"];

/// Checks a run for an environment with these nodes. The `field` of an error is `prefix` and the path from
/// there, such as `run.tests[0].script` with the prefix `run.`.
pub fn check_run(run: &RunOptions, nodes: &[&str], cwd: Option<&str>, prefix: &str) -> Result<(), Error> {
    for (field, count) in [("tests", run.tests.len()), ("faults", run.faults.len())] {
        if count > MAX_STEPS {
            let message = format!("a run has at most {MAX_STEPS} {field}, and not {count}");
            return Err(refuse(format!("{prefix}{field}"), message));
        }
    }
    let mut index_by_result: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for (index, test) in run.tests.iter().enumerate() {
        let on: Vec<&str> = test.nodes.iter().map(String::as_str).collect();
        for node in if on.is_empty() { nodes } else { &on } {
            if let Some(first) = index_by_result.insert((*node, test_name(test)), index) {
                let name = test_name(test);
                let message =
                    format!("'{name}' is also tests[{first}] on '{node}': give one of them another `name`");
                return Err(refuse(format!("{prefix}tests[{index}].name"), message));
            }
        }
        check_test(test, nodes, cwd, &format!("{prefix}tests[{index}]"))?;
    }
    for (index, step) in run.faults.iter().enumerate() {
        check_fault(&step.fault, nodes, &format!("{prefix}faults[{index}].fault"))?;
    }
    Ok(())
}

/// Checks a fault for an environment with these nodes. The `field` of an error begins with `field`.
pub fn check_fault(fault: &Fault, nodes: &[&str], field: &str) -> Result<(), Error> {
    match fault {
        Fault::Kill { node }
        | Fault::Stop { node }
        | Fault::Pause { node }
        | Fault::Unpause { node }
        | Fault::Restart { node } => check_node(node, nodes, format!("{field}.node")),
        Fault::Partition { nodes: side } => {
            for (index, node) in side.iter().enumerate() {
                check_node(node, nodes, format!("{field}.nodes[{index}]"))?;
            }
            let side: BTreeSet<&str> = side.iter().map(String::as_str).collect();
            if side.is_empty() || side.len() == nodes.len() {
                let message = "a partition has two sides: name some of the nodes, but not all";
                return Err(refuse(format!("{field}.nodes"), message));
            }
            Ok(())
        }
        Fault::Heal {} => Ok(()),
    }
}

/// What the results of a script are called: as it says, or as its file.
pub fn test_name(test: &TestScript) -> &str {
    let file = || Path::new(&test.script).file_name().and_then(|name| name.to_str());
    test.name.as_deref().or_else(file).unwrap_or("script")
}

/// The file of a script, seen from the request's directory.
///
/// # Errors
/// It is relative, and there is no directory.
pub fn script_path(script: &str, cwd: Option<&str>) -> Result<PathBuf, Error> {
    match cwd {
        _ if Path::new(script).is_absolute() => Ok(script.into()),
        Some(cwd) => Ok(Path::new(cwd).join(script)),
        None => Err(Error::invalid(format!("the script '{script}' is relative, and there is no `cwd`"))),
    }
}

fn check_node(node: &str, nodes: &[&str], field: String) -> Result<(), Error> {
    if nodes.contains(&node) {
        return Ok(());
    }
    Err(refuse(field, format!("there is no node '{node}': there is {}", listed(nodes))))
}

fn check_test(test: &TestScript, nodes: &[&str], cwd: Option<&str>, field: &str) -> Result<(), Error> {
    if let Some(name) = &test.name {
        name::word("test name", name)
            .map_err(|invalid| Error::from(invalid).with_field(format!("{field}.name")))?;
    }
    if let Some(reserved) = RESERVED.iter().find(|reserved| test_name(test).starts_with(**reserved)) {
        let message =
            format!("a test's name must not begin with '{}': the engine's own do", reserved.trim_end());
        return Err(refuse(format!("{field}.name"), message));
    }
    for (index, node) in test.nodes.iter().enumerate() {
        check_node(node, nodes, format!("{field}.nodes[{index}]"))?;
    }
    if let Some(timeout_ms) = test.timeout_ms
        && !(1..=MAX_TIMEOUT_MS).contains(&timeout_ms)
    {
        let message =
            format!("timeout_ms must be a whole number from 1 to {MAX_TIMEOUT_MS}, not {timeout_ms}");
        return Err(refuse(format!("{field}.timeout_ms"), message));
    }
    let path = script_path(&test.script, cwd);
    path.and_then(|path| check_script(&path).map_err(Error::invalid))
        .map_err(|error| error.with_field(format!("{field}.script")))
}

fn check_script(path: &Path) -> Result<(), String> {
    let shown = path.display();
    let unreadable = |error| format!("the script {shown} cannot be read: {error}");
    let about = path.metadata().map_err(unreadable)?;
    if !about.is_file() {
        return Err(format!("{shown} is no file"));
    }
    if about.len() > MAX_SCRIPT_BYTES {
        return Err(format!(
            "the script {shown} has {} bytes: at most {MAX_SCRIPT_BYTES} are taken",
            about.len()
        ));
    }
    let mut beginning = Vec::new();
    File::open(path).and_then(|file| file.take(2).read_to_end(&mut beginning)).map_err(unreadable)?;
    if beginning != b"#!" {
        return Err(format!("the script {shown} must begin with `#!` and what runs it, such as `#!/bin/sh`"));
    }
    Ok(())
}
