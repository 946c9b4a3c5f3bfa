//! `orchestrator workflow server create`

use std::path::Path;

use nu_plugin::{EngineInterface, EvaluatedCall, PluginCommand};
use nu_protocol::{Example, Flag, LabeledError, PipelineData, Signature, Span, SyntaxShape, Type, Value};
use orchestrator_protocol::submit::ServersRequest;

use super::{SignatureExt, workflow_submit};
use crate::connection::Session;
use crate::input::{self, FieldPath, absolute, milliseconds, number};
use crate::plugin::Orchestrator;

/// Creates the servers of a settings file.
pub struct ServerCreate;

impl PluginCommand for ServerCreate {
    type Plugin = Orchestrator;

    fn name(&self) -> &str {
        "orchestrator workflow server create"
    }

    fn description(&self) -> &str {
        "Create servers from a settings file, one task for each, in parallel."
    }

    fn extra_description(&self) -> &str {
        "Without names, all servers of the settings file are created. What exists already is left as it is, and a \
server that was half made is completed. A server that fails is tried again alone. With --check nothing changes: the \
plan is the `result` of each task.

Only one workflow at a time changes an infra, unless --allow-concurrent is given. Returns the workflow with its tasks; \
with --wait, when all have ended: then `status` says how, and each task's `result` is the server's record."
    }

    fn search_terms(&self) -> Vec<&str> {
        vec!["provision", "machine", "vm", "infra", "host"]
    }

    fn signature(&self) -> Signature {
        Signature::build(self.name())
            .for_engine()
            .rest("name", SyntaxShape::String, "Servers to create (default: all of the settings file)")
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
            )
            .param(Flag::new("check").short('c').desc("Change nothing, and return the plan"))
            .param(
                Flag::new("allow-concurrent")
                    .short('a')
                    .desc("Do not wait for other workflows of the same infra"),
            )
            .with_attempt_rules()
            .with_environment()
            .with_idempotency_key()
            .param(Flag::new("wait").short('w').desc("Wait until they are created, and return the workflow"))
            .input_output_type(Type::Nothing, Type::record())
    }

    fn examples(&self) -> Vec<Example<'_>> {
        vec![
            Example {
                description: "Create all servers of a settings file",
                example: "orchestrator workflow server create --infra production --settings ./settings.yaml --wait",
                result: None,
            },
            Example {
                description: "See what creating one of them would do",
                example: "(orchestrator workflow server create web-01 --infra production --settings ./settings.yaml \
--check --wait).tasks.result",
                result: None,
            },
        ]
    }

    fn run(
        &self,
        plugin: &Orchestrator,
        engine: &EngineInterface,
        call: &EvaluatedCall,
        _: PipelineData,
    ) -> Result<PipelineData, LabeledError> {
        let cwd = engine.get_current_dir()?;
        let request = request(call, Path::new(&cwd))?;
        let session = Session::open(plugin, engine, call)?;
        let repeatable = request.idempotency_key.is_some();
        let name = format!("create servers of {}", request.infra);
        let submitted = session
            .ask_repeatable(request, repeatable)
            .map_err(|failure| failure.at_field(session.place(call.head), |field| span_of(call, field)))?;
        workflow_submit::answer(&session, engine, call, &submitted, name)
    }
}

fn request(call: &EvaluatedCall, cwd: &Path) -> Result<ServersRequest, LabeledError> {
    let flag = |name| call.get_flag_value(name);
    let text = |name| call.get_flag::<String>(name).map(Option::unwrap_or_default);
    Ok(ServersRequest {
        infra: text("infra")?,
        settings: absolute(cwd, &text("settings")?).to_string_lossy().into_owned(),
        servers: call.rest(0)?,
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
fn span_of(call: &EvaluatedCall, field: &str) -> Option<Span> {
    let path = FieldPath::parse(field);
    let value: Option<Value> = match (path.name, path.position) {
        ("servers", position) => call.nth(position.unwrap_or(0)),
        (name, _) => call.get_flag_value(input::flag_of_field(name)),
    };
    value.map(|value| value.span())
}
