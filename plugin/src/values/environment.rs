//! Test environments, their nodes, results and topologies as records.

use nu_protocol::{IntoPipelineData as _, PipelineData, PipelineMetadata, Record, Span, Value, record};
use orchestrator_protocol::environment::{
    Environment, EnvironmentConfig, EnvironmentStatus, NamedTopology, Node, NodeLine, Pruned, TestResult,
};

use super::log::stream_name;
use super::{count, json, milliseconds, optional, optional_text, texts, time};

/// The columns that a narrow terminal cuts last.
const IMPORTANT: [&str; 4] = ["name", "status", "passed", "error"];

/// Whether the newest run has passed; `None` where there was none, or it goes on.
pub fn passed(environment: &Environment) -> Option<bool> {
    match environment.status {
        EnvironmentStatus::Passed => Some(true),
        EnvironmentStatus::Failed | EnvironmentStatus::Error => Some(false),
        EnvironmentStatus::RunningTests => None,
        // What is removed has been run before, or has not.
        _ if environment.error.is_some() => Some(false),
        EnvironmentStatus::Cleaning | EnvironmentStatus::Cleaned if !environment.results.is_empty() => {
            Some(environment.results.iter().all(|result| result.passed))
        }
        _ => None,
    }
}

/// An environment as one row of a list.
pub fn row(environment: &Environment, span: Span) -> Value {
    Value::record(row_record(environment, span), span)
}

fn row_record(environment: &Environment, span: Span) -> Record {
    record! {
        "name" => Value::string(&environment.name, span),
        "status" => Value::string(environment.status.as_str(), span),
        "passed" => optional(passed(environment), span, |passed| Value::bool(passed, span)),
        "kind" => Value::string(kind(&environment.request.config), span),
        "infra" => optional_text(environment.request.infra.as_ref(), span),
        "created" => time(environment.created_at, span),
        "expires" => time(environment.expires_at, span),
        "error" => optional_text(environment.error.as_ref(), span),
        "id" => Value::string(environment.id.to_string(), span),
    }
}

fn kind(config: &EnvironmentConfig) -> &'static str {
    match config {
        EnvironmentConfig::SingleTaskserv { .. } => "single_taskserv",
        EnvironmentConfig::ServerSimulation { .. } => "server_simulation",
        EnvironmentConfig::ClusterTopology { .. } => "cluster_topology",
    }
}

/// An environment with everything that is known of it. Begins with the columns of [`row`].
pub fn whole(environment: &Environment, span: Span) -> Value {
    let mut record = row_record(environment, span);
    let request = serde_json::to_value(&environment.request).unwrap_or_default();
    record.extend(record! {
        "results" => Value::list(environment.results.iter().map(|found| result(found, span)).collect(), span),
        "nodes" => Value::list(environment.nodes.iter().map(|one| node(one, span)).collect(), span),
        "runs" => count(environment.runs, span),
        "partitions" => Value::list(environment.partitions.iter().map(|side| texts(side, span)).collect(), span),
        "network" => optional(environment.network.as_ref(), span, |network| Value::record(record! {
            "name" => Value::string(&network.name, span),
            "subnet" => Value::string(&network.subnet, span),
            "id" => Value::string(&network.id, span),
        }, span)),
        "ready" => optional(environment.ready_at, span, |at| time(at, span)),
        "cleaned" => optional(environment.cleaned_at, span, |at| time(at, span)),
        "task" => optional_text(environment.task, span),
        "engine" => Value::string(&environment.engine, span),
        "request" => json::to_value(&request, span),
        "help" => optional_text(advice(environment), span),
    });
    Value::record(record, span)
}

/// What to do about an environment that was kept for a look.
fn advice(environment: &Environment) -> Option<String> {
    let is_kept = !matches!(environment.status, EnvironmentStatus::Cleaning | EnvironmentStatus::Cleaned);
    let id = environment.id;
    (is_kept && passed(environment) == Some(false)).then(|| {
        format!(
            "it is kept for a look: `orchestrator test env logs {id}` shows what its nodes have printed, \
             `orchestrator test env cleanup {id}` removes it"
        )
    })
}

fn node(node: &Node, span: Span) -> Value {
    let limits = node.config.resources;
    Value::record(
        record! {
            "name" => Value::string(&node.config.name, span),
            "role" => optional_text(node.config.role.as_ref(), span),
            "taskservs" => texts(&node.config.taskservs, span),
            "address" => optional_text(node.address, span),
            "done" => texts(&node.done, span),
            "prepared" => Value::bool(node.prepared, span),
            "image" => optional_text(node.image.as_ref(), span),
            "container" => optional_text(node.container.as_ref(), span),
            "cpu_millicores" => optional(limits.cpu_millicores, span, |number| count(number, span)),
            "memory" => optional(limits.memory_mb, span, |size| mebibytes(size, span)),
            "disk" => optional(limits.disk_mb, span, |size| mebibytes(size, span)),
            "max_processes" => optional(limits.max_processes, span, |number| count(number, span)),
        },
        span,
    )
}

fn result(found: &TestResult, span: Span) -> Value {
    Value::record(
        record! {
            "node" => Value::string(&found.node, span),
            "name" => Value::string(&found.name, span),
            "passed" => Value::bool(found.passed, span),
            "duration" => milliseconds(found.duration_ms, span),
            "exit_code" => optional(found.exit_code, span, |code| Value::int(code.into(), span)),
            "error" => optional_text(found.error.as_ref(), span),
            "output" => Value::string(&found.output, span),
            "result" => optional(found.result.as_ref(), span, |result| json::to_value(result, span)),
        },
        span,
    )
}

/// A line that a node has printed.
pub fn line(line: &NodeLine, span: Span) -> Value {
    Value::record(
        record! {
            "node" => Value::string(&line.node, span),
            "step" => Value::string(&line.step, span),
            "time" => time(line.time, span),
            "stream" => Value::string(stream_name(line.stream), span),
            "line" => Value::string(&line.line, span),
        },
        span,
    )
}

/// A topology as one row of a list.
pub fn topology_row(topology: &NamedTopology, span: Span) -> Value {
    let mut taskservs: Vec<&String> = Vec::new();
    for taskserv in topology.topology.nodes.iter().flat_map(|node| &node.taskservs) {
        if !taskservs.contains(&taskserv) {
            taskservs.push(taskserv);
        }
    }
    let nodes = topology.topology.nodes.iter().map(|node| &node.name);
    Value::record(
        record! {
            "name" => Value::string(&topology.name, span),
            "description" => Value::string(&topology.description, span),
            "cluster_type" => Value::string(&topology.cluster_type, span),
            "nodes" => texts(nodes, span),
            "taskservs" => texts(taskservs, span),
            "file" => optional_text(topology.file.as_ref(), span),
        },
        span,
    )
}

/// A topology as it can be changed and piped on: nodes and network as a file of topologies has them.
pub fn topology(topology: &NamedTopology, span: Span) -> Value {
    let part = |part: Result<serde_json::Value, _>| json::to_value(&part.unwrap_or_default(), span);
    Value::record(
        record! {
            "name" => Value::string(&topology.name, span),
            "description" => Value::string(&topology.description, span),
            "cluster_type" => Value::string(&topology.cluster_type, span),
            "file" => optional_text(topology.file.as_ref(), span),
            "nodes" => part(serde_json::to_value(&topology.topology.nodes)),
            "network" => part(serde_json::to_value(&topology.topology.network)),
        },
        span,
    )
}

/// The prepared images that were removed.
pub fn pruned(pruned: &Pruned, span: Span) -> Value {
    Value::record(
        record! {
            "images" => texts(&pruned.images, span),
            "size" => Value::filesize(i64::try_from(pruned.bytes).unwrap_or(i64::MAX), span),
        },
        span,
    )
}

fn mebibytes(size: u64, span: Span) -> Value {
    Value::filesize(i64::try_from(size).unwrap_or(i64::MAX).saturating_mul(1 << 20), span)
}

/// Rows for a terminal: tells it which columns to keep when there is not enough room.
pub fn table(rows: Vec<Value>, span: Span) -> PipelineData {
    let metadata = PipelineMetadata::default().with_table_width_priority_columns(span, IMPORTANT);
    Value::list(rows, span).into_pipeline_data_with_metadata(metadata)
}
