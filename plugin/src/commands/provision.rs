//! `orchestrator workflow server|taskserv|cluster create|verify|delete`: one command for each thing that
//! can be done with a settings file.

use std::path::Path;

use nu_plugin::{EngineInterface, EvaluatedCall, PluginCommand};
use nu_protocol::{Example, Flag, LabeledError, PipelineData, Signature, Span, SyntaxShape, Type, Value};
use orchestrator_protocol::provision::{Operation, ProvisionRequest, Target};

use super::{SignatureExt, workflow_submit};
use crate::connection::Session;
use crate::input::{self, FieldPath, absolute, milliseconds, number};
use crate::plugin::Orchestrator;

/// What a command is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subject {
    Server,
    Taskserv,
    Cluster,
}

/// One of the commands.
pub struct Provision {
    subject: Subject,
    operation: Operation,
    name: &'static str,
    description: &'static str,
    extra_description: &'static str,
    search_terms: &'static [&'static str],
    /// What each does, and the line.
    examples: &'static [(&'static str, &'static str)],
}

/// All of them.
pub const ALL: [Provision; 7] = [
    Provision {
        subject: Subject::Server,
        operation: Operation::Create,
        name: "orchestrator workflow server create",
        description: "Create servers from a settings file, one task for each, in parallel.",
        extra_description: "Without names, all servers of the settings file are created. What exists already is left as \
it is, and a server that was half made is completed. A server that fails is tried again alone. With --check nothing \
changes: the plan is the `result` of each task.

Only one workflow at a time changes an infra, unless --allow-concurrent is given. Returns the workflow with its tasks; \
with --wait, when all have ended: then `status` says how, and each task's `result` is the server's record.",
        search_terms: &["provision", "machine", "vm", "infra", "host"],
        examples: &[
            (
                "Create all servers of a settings file",
                "orchestrator workflow server create --infra production --settings ./settings.yaml --wait",
            ),
            (
                "See what creating one of them would do",
                "(orchestrator workflow server create web-01 --infra production --settings ./settings.yaml --check \
--wait).tasks.result",
            ),
        ],
    },
    Provision {
        subject: Subject::Server,
        operation: Operation::Delete,
        name: "orchestrator workflow server delete",
        description: "Remove servers, one task for each, in parallel.",
        extra_description: "The servers must be named. One that has left the settings file is looked for with the \
providers in it. One that does not exist is left at that. With --check nothing changes: the plan is the `result` of \
each task.",
        search_terms: &["remove", "destroy", "machine", "vm", "host"],
        examples: &[(
            "Remove a server",
            "orchestrator workflow server delete web-01 --infra production --settings ./settings.yaml --wait",
        )],
    },
    Provision {
        subject: Subject::Taskserv,
        operation: Operation::Create,
        name: "orchestrator workflow taskserv create",
        description: "Install a taskserv on servers, after what it depends on.",
        extra_description: "Without servers, it is installed on all that have it by the settings file, in parallel. What \
it depends on comes first, as tasks of their own. Each is installed, started and verified; what is there already is \
left as it is. With --check nothing changes: the plan is the `result` of each task.",
        search_terms: &["install", "service", "package", "database"],
        examples: &[
            (
                "Install Redis on all servers that are to have it",
                "orchestrator workflow taskserv create redis --infra production --settings ./settings.yaml --wait",
            ),
            (
                "On one server only",
                "orchestrator workflow taskserv create redis web-01 --infra production --settings ./settings.yaml",
            ),
        ],
    },
    Provision {
        subject: Subject::Taskserv,
        operation: Operation::Verify,
        name: "orchestrator workflow taskserv verify",
        description: "Look whether a taskserv works on its servers, and change nothing.",
        extra_description: "Without servers, it is looked at on all that have it by the settings file. One that does not \
work is a failed task whose `error` says why; it is not tried again.",
        search_terms: &["test", "check", "health", "service"],
        examples: &[(
            "See whether Redis works everywhere",
            "(orchestrator workflow taskserv verify redis --infra production --settings ./settings.yaml --wait).status",
        )],
    },
    Provision {
        subject: Subject::Cluster,
        operation: Operation::Create,
        name: "orchestrator workflow cluster create",
        description: "Create the servers of a cluster, then the taskservs on them.",
        extra_description: "A cluster is named by its `name` or its `type` in the settings file. Its servers are created \
in parallel; on each the taskservs follow in the order in which they depend on each other. What is there already is \
left as it is. With --check nothing changes: the plan is the `result` of each task.",
        search_terms: &["kubernetes", "provision", "group"],
        examples: &[(
            "Create a cluster",
            "orchestrator workflow cluster create web --infra production --settings ./settings.yaml --wait",
        )],
    },
    Provision {
        subject: Subject::Cluster,
        operation: Operation::Verify,
        name: "orchestrator workflow cluster verify",
        description: "Look whether the taskservs of a cluster work, and change nothing.",
        extra_description: "One that does not work is a failed task whose `error` says why; it is not tried again.",
        search_terms: &["test", "check", "health"],
        examples: &[(
            "See whether a cluster works",
            "(orchestrator workflow cluster verify web --infra production --settings ./settings.yaml --wait).status",
        )],
    },
    Provision {
        subject: Subject::Cluster,
        operation: Operation::Delete,
        name: "orchestrator workflow cluster delete",
        description: "Remove the servers of a cluster.",
        extra_description: "What runs on the servers goes with them. With --check nothing changes: the plan is the \
`result` of each task.",
        search_terms: &["remove", "destroy"],
        examples: &[(
            "See what would be removed",
            "(orchestrator workflow cluster delete web --infra production --settings ./settings.yaml --check \
--wait).tasks.result",
        )],
    },
];

impl PluginCommand for Provision {
    type Plugin = Orchestrator;

    fn name(&self) -> &str {
        self.name
    }

    fn description(&self) -> &str {
        self.description
    }

    fn extra_description(&self) -> &str {
        self.extra_description
    }

    fn search_terms(&self) -> Vec<&str> {
        self.search_terms.to_vec()
    }

    fn signature(&self) -> Signature {
        let signature = Signature::build(self.name()).for_engine();
        let signature = match (self.subject, self.operation) {
            (Subject::Server, Operation::Delete) => signature
                .required("name", SyntaxShape::String, "A server to remove")
                .rest("more", SyntaxShape::String, "More of them"),
            (Subject::Server, _) => signature.rest(
                "name",
                SyntaxShape::String,
                "Servers to create (default: all of the settings file)",
            ),
            (Subject::Taskserv, _) => signature
                .required("taskserv", SyntaxShape::String, "The taskserv")
                .rest("server", SyntaxShape::String, "The servers (default: all that have it)"),
            (Subject::Cluster, _) => {
                signature.required("cluster", SyntaxShape::String, "The name or the type of the cluster")
            }
        };
        let signature = signature
            .param(
                Flag::new("infra")
                    .short('I')
                    .arg(SyntaxShape::String)
                    .required()
                    .desc("The infra they belong to"),
            )
            .param(
                Flag::new("settings")
                    .short('f')
                    .arg(SyntaxShape::Filepath)
                    .required()
                    .desc("The settings file"),
            );
        let signature = match self.operation {
            Operation::Verify => signature,
            Operation::Create | Operation::Delete => {
                signature.param(Flag::new("check").short('c').desc("Change nothing, and return the plan"))
            }
        };
        signature
            .param(
                Flag::new("allow-concurrent")
                    .short('a')
                    .desc("Do not wait for other workflows of the same infra"),
            )
            .with_attempt_rules()
            .with_environment()
            .with_idempotency_key()
            .param(Flag::new("wait").short('w').desc("Wait until all is done, and return the workflow"))
            .input_output_type(Type::Nothing, Type::record())
    }

    fn examples(&self) -> Vec<Example<'_>> {
        self.examples
            .iter()
            .map(|(description, example)| Example { description, example, result: None })
            .collect()
    }

    fn run(
        &self,
        plugin: &Orchestrator,
        engine: &EngineInterface,
        call: &EvaluatedCall,
        _: PipelineData,
    ) -> Result<PipelineData, LabeledError> {
        let cwd = engine.get_current_dir()?;
        let request = self.request(call, Path::new(&cwd))?;
        let session = Session::open(plugin, engine, call)?;
        let repeatable = request.idempotency_key.is_some();
        let submitted = session.ask_repeatable(request, repeatable).map_err(|failure| {
            failure.at_field(session.place(call.head), |field| self.span_of(call, field))
        })?;
        workflow_submit::answer(&session, engine, call, &submitted)
    }
}

impl Provision {
    fn target(&self, call: &EvaluatedCall) -> Result<Target, LabeledError> {
        Ok(match self.subject {
            Subject::Server => Target::Servers { servers: call.rest(0)? },
            Subject::Taskserv => Target::Taskserv { taskserv: call.req(0)?, servers: call.rest(1)? },
            Subject::Cluster => Target::Cluster { cluster_type: call.req(0)? },
        })
    }

    fn request(&self, call: &EvaluatedCall, cwd: &Path) -> Result<ProvisionRequest, LabeledError> {
        let flag = |name| call.get_flag_value(name);
        let text = |name| call.get_flag::<String>(name).map(Option::unwrap_or_default);
        Ok(ProvisionRequest {
            infra: text("infra")?,
            settings: absolute(cwd, &text("settings")?).to_string_lossy().into_owned(),
            target: self.target(call)?,
            operation: self.operation,
            check_mode: call.has_flag("check")?,
            cwd: Some(cwd.to_string_lossy().into_owned()),
            env: flag("env").map(|value| input::text_map(&value)).transpose()?.unwrap_or_default(),
            secrets: flag("secret").map(|value| input::secrets(&value, cwd)).transpose()?.unwrap_or_default(),
            priority: flag("priority").map(|value| number(&value)).transpose()?.unwrap_or_default(),
            allow_concurrent: call.has_flag("allow-concurrent")?,
            retry: input::retry(flag("retries").as_ref(), None, None)?,
            timeout_ms: flag("timeout").map(|value| milliseconds(&value)).transpose()?,
            idempotency_key: call.get_flag("idempotency-key")?,
        })
    }

    /// Where the user typed what the engine complains about.
    fn span_of(&self, call: &EvaluatedCall, field: &str) -> Option<Span> {
        let path = FieldPath::parse(field);
        let first_server = usize::from(self.subject == Subject::Taskserv);
        let value: Option<Value> = match (path.name, path.position) {
            ("servers", position) => call.nth(first_server + position.unwrap_or(0)),
            ("taskserv" | "cluster_type", _) => call.nth(0),
            (name, _) => call.get_flag_value(input::flag_of_field(name)),
        };
        value.map(|value| value.span())
    }
}
