//! What is asked for of test environments: limits, parameters, scripts, faults, topologies.

use std::collections::BTreeMap;
use std::path::Path;

use nu_plugin::EvaluatedCall;
use nu_protocol::{LabeledError, Record, Span, Value};
use orchestrator_protocol::environment::{
    DiskPolicy, EnvironmentStatus, Fault, FaultStep, NodeConfig, NodeResources, RunOptions, TestScript,
    Topology,
};
use serde_json::Value as Json;

use super::{absolute, milliseconds, number, texts};
use crate::errors::invalid;
use crate::values::json;

/// The states of environments, as users type them.
pub const STATUSES: &[&str] =
    &["creating", "ready", "running_tests", "passed", "failed", "cleaning", "cleaned", "error"];
/// What can be done to nodes.
pub const FAULTS: &[&str] = &["kill", "stop", "pause", "unpause", "restart", "partition", "heal"];
/// What can be done about a disk limit.
pub const DISK_POLICIES: &[&str] = &["enforce", "watch"];

/// What a topology's record may say beside its nodes and its network: it is for people.
const REMARKS: &[&str] = &["name", "description", "cluster_type", "file"];

/// The taskservs' parameters, by taskserv and name.
pub type TaskservOptions = BTreeMap<String, BTreeMap<String, Json>>;

/// One state or a list of them.
pub fn statuses(value: &Value) -> Result<Vec<EnvironmentStatus>, LabeledError> {
    let status = |(index, name): (usize, String)| {
        let place = part(value, &format!("[{index}]")).span();
        name.parse().map_err(|_| not_known(&name, "state", STATUSES, place))
    };
    texts(value)?.into_iter().enumerate().map(status).collect()
}

/// What is done about a disk limit.
pub fn disk_policy(value: &Value) -> Result<DiskPolicy, LabeledError> {
    match value.as_str()? {
        "enforce" => Ok(DiskPolicy::Enforce),
        "watch" => Ok(DiskPolicy::Watch),
        other => Err(not_known(other, "disk policy", DISK_POLICIES, value.span())),
    }
}

/// The limits of a node that the flags set.
pub fn resources(call: &EvaluatedCall) -> Result<NodeResources, LabeledError> {
    let flag = |name| call.get_flag_value(name);
    Ok(NodeResources {
        cpu_millicores: flag("cpu").map(|value| number(&value)).transpose()?,
        memory_mb: flag("memory").map(|value| mebibytes(&value)).transpose()?,
        disk_mb: flag("disk").map(|value| mebibytes(&value)).transpose()?,
        max_processes: flag("max-processes").map(|value| number(&value)).transpose()?,
    })
}

/// A size in whole mebibytes. A limit never becomes larger than it was typed.
fn mebibytes(value: &Value) -> Result<u64, LabeledError> {
    const MEBIBYTE: i64 = 1 << 20;
    match u64::try_from(value.as_filesize()?.get() / MEBIBYTE) {
        Ok(size) if size > 0 => Ok(size),
        _ => Err(invalid("Too small", "must be 1MiB or more", value.span())),
    }
}

/// Parameters: `{TASKSERV: {NAME: value}}` or `{TASKSERV.NAME: value}`; where the command is about one
/// taskserv, `own`, also `{NAME: value}`.
pub fn options(value: &Value, own: Option<&str>) -> Result<TaskservOptions, LabeledError> {
    let mut options = TaskservOptions::new();
    for (key, value) in value.as_record()? {
        if let Value::Record { val, .. } = value {
            let of_taskserv = options.entry(key.clone()).or_default();
            for (name, value) in val.iter() {
                of_taskserv.insert(name.clone(), json::to_json(value)?);
            }
            continue;
        }
        let Some((taskserv, name)) = key.split_once('.').or_else(|| Some((own?, key.as_str()))) else {
            return Err(invalid(format!("Which taskserv's '{key}'?"), "names no taskserv", value.span())
                .with_help("write {TASKSERV: {NAME: value}}, or {TASKSERV.NAME: value}"));
        };
        options.entry(taskserv.to_owned()).or_default().insert(name.to_owned(), json::to_json(value)?);
    }
    Ok(options)
}

/// What a run does, by the flags.
pub fn run_options(call: &EvaluatedCall, cwd: &Path) -> Result<RunOptions, LabeledError> {
    let each = |name: &str| match call.get_flag_value(name) {
        None => Vec::new(),
        Some(Value::List { vals, .. }) => vals.into_owned(),
        Some(one) => vec![one],
    };
    Ok(RunOptions {
        tests: each("script").iter().map(|value| script(value, cwd)).collect::<Result<_, _>>()?,
        idempotence_check: call.has_flag("idempotence-check")?,
        faults: each("fault").iter().map(fault_step).collect::<Result<_, _>>()?,
    })
}

/// A script: its file, or a record `{script, name, nodes, timeout}`.
fn script(value: &Value, cwd: &Path) -> Result<TestScript, LabeledError> {
    let file = |value: &Value| Ok::<_, LabeledError>(absolute(cwd, value.as_str()?).display().to_string());
    let Value::Record { val: record, .. } = value else {
        return Ok(TestScript { name: None, script: file(value)?, nodes: Vec::new(), timeout_ms: None });
    };
    only_columns(record, &["script", "name", "nodes", "timeout"], "script")?;
    let cell = |name: &str| record.get(name).filter(|value| !value.is_nothing());
    let Some(path) = cell("script") else {
        return Err(invalid("Which script?", "this record has no column 'script'", value.span()));
    };
    Ok(TestScript {
        name: cell("name").map(|name| name.as_str().map(str::to_owned)).transpose()?,
        script: file(path)?,
        nodes: cell("nodes").map(texts).transpose()?.unwrap_or_default(),
        timeout_ms: cell("timeout").map(milliseconds).transpose()?,
    })
}

/// A step of a run with faults: words such as `kill NODE`, or `{kind: kill, node: NAME}` or `{kind: partition,
/// nodes: [NAME …]}`, with `verify: false` where nothing is to be verified after it.
fn fault_step(value: &Value) -> Result<FaultStep, LabeledError> {
    if let Value::String { val, .. } = value {
        let word = |word: &str| Value::string(word, value.span());
        let mut words = val.split_whitespace().map(word);
        let kind = words.next().unwrap_or_else(|| word(""));
        return Ok(FaultStep { fault: fault(&kind, &words.collect::<Vec<_>>())?, verify: true });
    }
    let mut fault = value.as_record()?.clone();
    let verify = fault.remove("verify").filter(|verify| !verify.is_nothing());
    Ok(FaultStep {
        fault: of_json(&Value::record(fault, value.span()), "fault", serde_json::from_value)?,
        verify: verify.map(|verify| verify.as_bool()).transpose()?.unwrap_or(true),
    })
}

/// A fault from its words: what is done, and to which nodes.
pub fn fault(kind: &Value, nodes: &[Value]) -> Result<Fault, LabeledError> {
    let word = kind.as_str()?;
    if !FAULTS.contains(&word) {
        return Err(not_known(word, "fault", FAULTS, kind.span()));
    }
    let most = match word {
        "heal" => 0,
        "partition" => usize::MAX,
        _ => 1,
    };
    if let Some(surplus) = nodes.get(most) {
        let label = if most == 0 { "it takes no node" } else { "one at a time" };
        return Err(invalid(format!("Too many nodes to {word}"), label, surplus.span()));
    }
    if nodes.is_empty() && most > 0 {
        return Err(invalid("Which node?", format!("{word} needs the name of a node"), kind.span()));
    }
    let names = nodes.iter().map(|node| node.as_str().map(str::to_owned)).collect::<Result<Vec<_>, _>>()?;
    let fault = match word {
        "heal" => serde_json::json!({"kind": word}),
        "partition" => serde_json::json!({"kind": word, "nodes": names}),
        _ => serde_json::json!({"kind": word, "node": names.first()}),
    };
    serde_json::from_value(fault).map_err(|error| invalid("Not a fault", error.to_string(), kind.span()))
}

/// A topology from a record with `nodes` and `network`, as `topology load` returns it and as a file of
/// topologies has it.
pub fn topology(value: &Value) -> Result<Topology, LabeledError> {
    let record = match value {
        Value::Record { val, .. } => val,
        other => {
            return Err(not_a_topology(format!("this is a {}", other.get_type()), other.span()));
        }
    };
    let known: Vec<&str> = ["nodes", "network"].iter().chain(REMARKS).copied().collect();
    only_columns(record, &known, "topology")?;
    let Some(nodes) = record.get("nodes") else {
        return Err(not_a_topology("this record has no column 'nodes'".into(), value.span()));
    };
    let network = record.get("network").filter(|network| !network.is_nothing());
    Ok(Topology {
        nodes: nodes
            .as_list()?
            .iter()
            .map(|node| of_json::<NodeConfig>(node, "node", serde_json::from_value))
            .collect::<Result<_, _>>()?,
        network: network
            .map(|network| of_json(network, "network", serde_json::from_value))
            .transpose()?
            .unwrap_or_default(),
    })
}

fn not_a_topology(label: String, span: Span) -> LabeledError {
    invalid("Not a topology", label, span).with_help(
        "pipe in what `orchestrator test topology load NAME` returns, or a record {nodes: [{name: …, taskservs: […]}]}",
    )
}

/// A value as the protocol's type. Empty cells count for nothing.
fn of_json<T>(value: &Value, what: &str, read: fn(Json) -> serde_json::Result<T>) -> Result<T, LabeledError> {
    let json = without_nulls(json::to_json(value)?);
    read(json).map_err(|error| invalid(format!("Not a {what}: {error}"), "cannot be used", value.span()))
}

fn without_nulls(json: Json) -> Json {
    match json {
        Json::Object(entries) => {
            let kept = entries.into_iter().filter(|(_, value)| !value.is_null());
            Json::Object(kept.map(|(key, value)| (key, without_nulls(value))).collect())
        }
        Json::Array(items) => Json::Array(items.into_iter().map(without_nulls).collect()),
        other => other,
    }
}

fn only_columns(record: &Record, known: &[&str], what: &str) -> Result<(), LabeledError> {
    match record.iter().find(|(column, _)| !known.contains(&column.as_str())) {
        Some((column, value)) => Err(not_known(column, &format!("column of a {what}"), known, value.span())),
        None => Ok(()),
    }
}

fn not_known(name: &str, what: &str, known: &[&str], span: Span) -> LabeledError {
    invalid(format!("There is no {what} '{name}'"), "not known", span)
        .with_help(format!("use {}", known.join(", ")))
}

/// The part of a value that a path such as `nodes[1].taskservs[0]` leads to, as far as there is one.
pub fn part<'a>(value: &'a Value, path: &str) -> &'a Value {
    let mut at = value;
    for step in path.split(['.', '[']).filter(|step| !step.is_empty()) {
        let inner = match (at, step.strip_suffix(']')) {
            (Value::List { vals, .. }, Some(index)) => {
                index.parse().ok().and_then(|index: usize| vals.get(index))
            }
            (Value::Record { val, .. }, None) => val.get(step),
            _ => None,
        };
        match inner {
            Some(inner) => at = inner,
            None => break,
        }
    }
    at
}
