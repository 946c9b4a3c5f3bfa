//! `orchestrator test env single|server|cluster`: one command for each kind of environment.

use std::path::Path;

use nu_plugin::{DynamicCompletionCall, EngineInterface, EvaluatedCall, PluginCommand};
use nu_protocol::engine::ArgType;
use nu_protocol::{
    DynamicSuggestion, Example, Flag, LabeledError, PipelineData, Signature, SyntaxShape, Type, Value,
};
use orchestrator_protocol::environment::{EnvironmentConfig, EnvironmentRequest, NodeConfig, Topology};

use super::test_env_list::one_or_table;
use super::test_flags::{NodeFlags, TestSignature, request, span_of};
use super::{SignatureExt, test_topology};
use crate::completion;
use crate::connection::Session;
use crate::environments::{self, Begun, Report};
use crate::errors::invalid;
use crate::input::environment::{options, topology};
use crate::input::texts;
use crate::plugin::Orchestrator;

/// What kind of environment a command makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Single,
    Server,
    Cluster,
}

/// One of the commands.
pub struct TestEnvCreate {
    kind: Kind,
    name: &'static str,
    description: &'static str,
    extra_description: &'static str,
    search_terms: &'static [&'static str],
    /// What each does, and the line.
    examples: &'static [(&'static str, &'static str)],
}

/// All of them.
pub const ALL: [TestEnvCreate; 3] = [
    TestEnvCreate {
        kind: Kind::Single,
        name: "orchestrator test env single",
        description: "Make a test environment of one node with one taskserv.",
        extra_description: "What the taskserv depends on is installed too. Returns the environment; with --wait, when \
all that was asked for has been done. With --auto-start its tests are run as soon as it is ready, and with \
--auto-cleanup it is removed when they have passed.",
        search_terms: &["taskserv", "docker", "container", "create"],
        examples: &[
            (
                "Install, test, and remove what has passed",
                "orchestrator test env single postgres --auto-start --auto-cleanup",
            ),
            (
                "Another port, and the environment when its tests have run",
                "orchestrator test env single redis --option {port: 7000} --auto-start --wait",
            ),
        ],
    },
    TestEnvCreate {
        kind: Kind::Server,
        name: "orchestrator test env server",
        description: "Make a test environment of one node that stands for a server.",
        extra_description: "Returns the environment; with --wait, when all that was asked for has been done. What the \
taskservs depend on is installed too.",
        search_terms: &["simulation", "docker", "container", "create", "host"],
        examples: &[(
            "A server with three taskservs",
            "orchestrator test env server web-01 [containerd kubernetes cilium] --auto-start",
        )],
    },
    TestEnvCreate {
        kind: Kind::Cluster,
        name: "orchestrator test env cluster",
        description: "Make a test environment of several nodes.",
        extra_description: "The nodes come from a topology: piped in, as `orchestrator test topology load` returns it \
or as a record {nodes: […], network: {…}}, or named with --topology. Image, variables and limits that the flags name \
hold for the nodes that name none. Returns the environment; with --wait, when all that was asked for has been done.",
        search_terms: &["topology", "nodes", "docker", "container", "create"],
        examples: &[
            (
                "A cluster of three",
                "orchestrator test topology load kubernetes_3node | orchestrator test env cluster kubernetes",
            ),
            (
                "A quorum that must survive the loss of one member",
                "orchestrator test env cluster etcd --topology etcd_cluster --auto-start --wait \
--fault ['kill etcd-02' 'restart etcd-02']",
            ),
        ],
    },
];

impl PluginCommand for TestEnvCreate {
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
        let list = || SyntaxShape::List(Box::new(SyntaxShape::String));
        let signature = Signature::build(self.name).for_engine();
        let signature = match self.kind {
            Kind::Single => signature
                .required("taskserv", SyntaxShape::String, "The taskserv")
                .with_options("{NAME: value}, or {TASKSERV: {NAME: value}}")
                .input_output_type(Type::Nothing, Type::record()),
            Kind::Server => signature
                .required("name", SyntaxShape::String, "The name of the server")
                .optional("taskservs", list(), "The taskservs on it")
                .with_options("{TASKSERV: {NAME: value}}")
                .input_output_type(Type::Nothing, Type::record()),
            Kind::Cluster => signature
                .required("type", SyntaxShape::String, "What kind of cluster it is, for people")
                .param(
                    Flag::new("topology")
                        .short('t')
                        .arg(SyntaxShape::String)
                        .desc("The topology, where it is not piped in"),
                )
                .input_output_types(vec![
                    (Type::Nothing, Type::record()),
                    (Type::record(), Type::record()),
                    (Type::Any, Type::record()),
                ]),
        };
        signature
            .param(Flag::new("auto-start").short('a').desc("Run the tests as soon as it is ready"))
            .param(Flag::new("auto-cleanup").short('c').desc("Remove it when its tests have passed"))
            .param(
                Flag::new("wait")
                    .short('w')
                    .desc("Wait until it is ready, and has been tested and removed if it shall"),
            )
            .with_nodes()
            .with_run()
            .with_junit()
    }

    fn examples(&self) -> Vec<Example<'_>> {
        let example = |(description, example): &(&'static str, &'static str)| Example {
            description,
            example,
            result: None,
        };
        self.examples.iter().map(example).collect()
    }

    fn run(
        &self,
        plugin: &Orchestrator,
        engine: &EngineInterface,
        call: &EvaluatedCall,
        input: PipelineData,
    ) -> Result<PipelineData, LabeledError> {
        let cwd = engine.get_current_dir()?;
        let cwd = Path::new(&cwd);
        let piped = match self.kind {
            Kind::Cluster if call.get_flag_value("topology").is_none() => piped(call, input)?,
            _ => None,
        };
        let session = Session::open(plugin, engine, call)?;
        let request = EnvironmentRequest {
            auto_start: call.has_flag("auto-start")?,
            auto_cleanup: call.has_flag("auto-cleanup")?,
            ..request(call, cwd, self.config(&session, call, cwd, piped.as_ref())?)?
        };
        let report = Report::open_if_awaited(call, cwd)?;
        let repeatable = request.idempotency_key.is_some();
        let made = session.ask_repeatable(request, repeatable).map_err(|failure| {
            failure.at_field(session.place(call.head), |field| span_of(call, piped.as_ref(), field))
        })?;
        let begun = [Begun::new(made, call.head)];
        let made = environments::answer(&session, engine, call, &begun, report.as_ref())?;
        Ok(one_or_table(&made, true, call))
    }

    #[expect(deprecated, reason = "the marker of an experimental interface")]
    fn get_dynamic_completion(
        &self,
        _: &Orchestrator,
        engine: &EngineInterface,
        call: DynamicCompletionCall,
        arg_type: ArgType,
        _: nu_protocol::engine::ExperimentalMarker,
    ) -> Option<Vec<DynamicSuggestion>> {
        match arg_type {
            ArgType::Flag(flag) if flag == "topology" => completion::topologies(engine, &call),
            _ => None,
        }
    }
}

/// The topology that was piped in.
fn piped(call: &EvaluatedCall, input: PipelineData) -> Result<Option<Value>, LabeledError> {
    match input.into_value(call.head)? {
        Value::Nothing { .. } => {
            Err(invalid("Which topology?", "needs one, from the pipeline or with --topology", call.head)
                .with_help("`orchestrator test topology list` shows those that there are"))
        }
        value => Ok(Some(value)),
    }
}

impl TestEnvCreate {
    fn config(
        &self,
        session: &Session,
        call: &EvaluatedCall,
        cwd: &Path,
        piped: Option<&Value>,
    ) -> Result<EnvironmentConfig, LabeledError> {
        let first: String = call.req(0)?;
        let flags = NodeFlags::read(call)?;
        let option = call.get_flag_value("option");
        let chosen = |own| option.as_ref().map(|value| options(value, own)).transpose();
        Ok(match self.kind {
            Kind::Single => EnvironmentConfig::SingleTaskserv {
                taskserv_options: chosen(Some(&first))?.unwrap_or_default(),
                taskserv: first,
                base_image: flags.base_image,
                environment: flags.environment,
                resources: flags.resources,
            },
            Kind::Server => EnvironmentConfig::ServerSimulation {
                taskserv_options: chosen(None)?.unwrap_or_default(),
                server_name: first,
                taskservs: call.nth(1).map(|value| texts(&value)).transpose()?.unwrap_or_default(),
                base_image: flags.base_image,
                environment: flags.environment,
                resources: flags.resources,
            },
            Kind::Cluster => {
                let found = match piped {
                    Some(value) => topology(value)?,
                    None => {
                        test_topology::find(session, call, cwd, call.get_flag_value("topology"))?.topology
                    }
                };
                EnvironmentConfig::ClusterTopology { cluster_type: first, topology: filled(found, &flags) }
            }
        })
    }
}

/// A topology whose nodes have what the flags say, where they say nothing themselves.
fn filled(topology: Topology, flags: &NodeFlags) -> Topology {
    let fill = |mut node: NodeConfig| {
        node.base_image = node.base_image.or_else(|| flags.base_image.clone());
        for (name, text) in &flags.environment {
            node.environment.entry(name.clone()).or_insert_with(|| text.clone());
        }
        let (limits, wanted) = (&mut node.resources, flags.resources);
        limits.cpu_millicores = limits.cpu_millicores.or(wanted.cpu_millicores);
        limits.memory_mb = limits.memory_mb.or(wanted.memory_mb);
        limits.disk_mb = limits.disk_mb.or(wanted.disk_mb);
        limits.max_processes = limits.max_processes.or(wanted.max_processes);
        node
    };
    Topology { nodes: topology.nodes.into_iter().map(fill).collect(), ..topology }
}
