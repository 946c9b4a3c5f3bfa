//! What the commands that make environments share: flags, the request that they make, and where the user
//! typed what the engine complains about.

use std::collections::BTreeMap;
use std::path::Path;

use nu_plugin::EvaluatedCall;
use nu_protocol::{Completion, Flag, LabeledError, Signature, Span, SyntaxShape, Value};
use orchestrator_protocol::environment::{EnvironmentConfig, EnvironmentRequest, NodeResources};

use super::SignatureExt;
use crate::input::environment::{DISK_POLICIES, disk_policy, part, resources, run_options};
use crate::input::{flag_of_field, milliseconds, number, text_map};

/// Parts that the signatures of these commands share.
pub trait TestSignature: Sized {
    /// The flags for the nodes of a new environment, and for how it is made and removed.
    fn with_nodes(self) -> Self;
    /// The flag for parameters of taskservs.
    fn with_options(self, form: &str) -> Self;
    /// The flags for what a run does.
    fn with_run(self) -> Self;
    /// The flag for a file of results.
    fn with_junit(self) -> Self;
}

impl TestSignature for Signature {
    fn with_nodes(self) -> Self {
        self.param(
            Flag::new("infra")
                .short('I')
                .arg(SyntaxShape::String)
                .desc("The infra it is for (default: test)"),
        )
        .param(
            Flag::new("base-image")
                .short('b')
                .arg(SyntaxShape::String)
                .desc("The image of the nodes (default: the engine's)"),
        )
        .param(
            Flag::new("env").short('e').arg(SyntaxShape::record()).desc("Variables of the nodes' processes"),
        )
        .param(Flag::new("cpu").arg(SyntaxShape::Int).desc("Processor time of a node, in thousandths of one"))
        .param(Flag::new("memory").short('m').arg(SyntaxShape::Filesize).desc("Memory of a node"))
        .param(Flag::new("disk").arg(SyntaxShape::Filesize).desc("Size of a node's own file system"))
        .param(
            Flag::new("disk-policy")
                .arg(SyntaxShape::String)
                .desc("How --disk is kept: by the storage driver (default), or watched and the node stopped")
                .completion(Completion::new_list(DISK_POLICIES)),
        )
        .param(
            Flag::new("max-processes").arg(SyntaxShape::Int).desc("Processes and threads of a node at once"),
        )
        .param(Flag::new("no-keep").desc("Remove it also when its tests have failed"))
        .param(Flag::new("no-prepared").desc("Use and keep no images with the taskservs installed"))
        .param(Flag::new("pull").desc("Fetch images that the machine does not have"))
        .param(
            Flag::new("expires-after")
                .short('x')
                .arg(SyntaxShape::Duration)
                .desc("Remove it so long after it was made (default: a day)"),
        )
        .param(Flag::new("priority").short('p').arg(SyntaxShape::Int).desc("Higher comes first (default: 0)"))
        .with_idempotency_key()
    }

    fn with_options(self, form: &str) -> Self {
        let about = format!("Parameters of taskservs: {form}");
        self.param(Flag::new("option").short('o').arg(SyntaxShape::record()).desc(about))
    }

    fn with_run(self) -> Self {
        let each = |shapes: Vec<SyntaxShape>| {
            let list = SyntaxShape::List(Box::new(SyntaxShape::Any));
            SyntaxShape::OneOf([vec![list], shapes].concat())
        };
        self.param(
            Flag::new("script")
                .short('s')
                .arg(each(vec![SyntaxShape::record(), SyntaxShape::Filepath]))
                .desc("Scripts to run on the nodes too: files, or records {script, name, nodes, timeout}"),
        )
        .param(Flag::new("idempotence-check").desc("Install everything again, which must change nothing"))
        .param(
            Flag::new("fault")
                .short('f')
                .arg(each(vec![SyntaxShape::record(), SyntaxShape::String]))
                .desc("Faults to go through after that, such as 'kill NODE', or {kind: kill, node: NODE}"),
        )
    }

    fn with_junit(self) -> Self {
        self.param(
            Flag::new("junit")
                .arg(SyntaxShape::Filepath)
                .desc("Write the results to this file, as JUnit XML"),
        )
    }
}

/// What the flags say of the nodes.
pub struct NodeFlags {
    /// Their image.
    pub base_image: Option<String>,
    /// Variables of their processes.
    pub environment: BTreeMap<String, String>,
    /// Their limits.
    pub resources: NodeResources,
}

impl NodeFlags {
    /// Reads the flags.
    pub fn read(call: &EvaluatedCall) -> Result<Self, LabeledError> {
        Ok(Self {
            base_image: call.get_flag("base-image")?,
            environment: call
                .get_flag_value("env")
                .map(|value| text_map(&value))
                .transpose()?
                .unwrap_or_default(),
            resources: resources(call)?,
        })
    }
}

/// The request for an environment. Whether it is run and cleaned by itself is left to the command.
pub fn request(
    call: &EvaluatedCall,
    cwd: &Path,
    config: EnvironmentConfig,
) -> Result<EnvironmentRequest, LabeledError> {
    let flag = |name| call.get_flag_value(name);
    Ok(EnvironmentRequest {
        config,
        infra: call.get_flag("infra")?,
        auto_start: false,
        auto_cleanup: false,
        keep_on_failure: !call.has_flag("no-keep")?,
        run: run_options(call, cwd)?,
        disk_policy: flag("disk-policy").map(|value| disk_policy(&value)).transpose()?.unwrap_or_default(),
        use_prepared: !call.has_flag("no-prepared")?,
        pull: call.has_flag("pull")?,
        expires_after_ms: flag("expires-after").map(|value| milliseconds(&value)).transpose()?,
        cwd: Some(cwd.to_string_lossy().into_owned()),
        priority: flag("priority").map(|value| number(&value)).transpose()?.unwrap_or_default(),
        idempotency_key: call.get_flag("idempotency-key")?,
    })
}

/// Where the user typed what the engine complains about. `topology` was piped in.
pub fn span_of(call: &EvaluatedCall, topology: Option<&Value>, field: &str) -> Option<Span> {
    let field = field.strip_prefix("config.").unwrap_or(field);
    let (first, rest) = field.split_at(field.find(['.', '[']).unwrap_or(field.len()));
    let flag = |name| call.get_flag_value(name);
    let typed = match (first, rest.strip_prefix('.').unwrap_or(rest)) {
        ("taskserv" | "server_name" | "cluster_type", _) => call.nth(0),
        ("taskservs", rest) => call.nth(1).map(|value| part(&value, rest).clone()),
        ("topology", rest) => match topology {
            Some(value) => Some(part(value, rest).clone()),
            None => flag("topology"),
        },
        ("resources", "cpu_millicores") => flag("cpu"),
        ("resources", limit) => flag(&limit.trim_end_matches("_mb").replace('_', "-")),
        ("taskserv_options", rest) => flag("option").map(|value| part(&value, rest).clone()),
        ("environment", rest) => flag("env").map(|value| part(&value, rest).clone()),
        ("run", rest) => return span_in_run(call, rest),
        (other, _) => flag(&flag_of_field(other).replace('_', "-")),
    };
    typed.map(|value| value.span())
}

/// The same for the field of a run.
pub fn span_in_run(call: &EvaluatedCall, field: &str) -> Option<Span> {
    let field = field.strip_prefix("run.").unwrap_or(field);
    let (list, rest) = field.split_at(field.find(['.', '[']).unwrap_or(field.len()));
    let value = call.get_flag_value(match list {
        "tests" => "script",
        "faults" => "fault",
        "idempotence_check" => "idempotence-check",
        other => other,
    })?;
    let found = part(&value, &rest.replace(".timeout_ms", ".timeout").replace(".fault.", ".")).span();
    Some(found)
}
