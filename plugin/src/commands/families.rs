//! The commands that only have subcommands: they show their help.

use nu_plugin::{EngineInterface, EvaluatedCall, PluginCommand};
use nu_protocol::{LabeledError, PipelineData, Signature, Type, Value};

use super::category;
use crate::plugin::Orchestrator;

struct Family {
    name: &'static str,
    description: &'static str,
    extra_description: &'static str,
    search_terms: &'static [&'static str],
}

const FAMILIES: [Family; 11] = [
    Family {
        name: "orchestrator",
        description: "Run provisioning scripts in a durable background queue.",
        extra_description: "An engine in the background holds the queue and runs the scripts, in parallel and with a \
memory; these commands talk to it. It is started when it is needed.

The engine is looked for by --socket, --data-dir, $env.ORCHESTRATOR_SOCKET, then the settings below, then in your \
state directory. Settings, all optional:

    $env.config.plugins.orchestrator = {
        data_dir: ~/.local/state/orchestrator  # where the engine keeps its queue
        socket: /run/orchestrator.sock         # an engine that somebody else looks after
        engine: /opt/orchestrator              # its program
        auto_start: true                       # start it when a command needs it
        args: [--max-parallel 8]               # more arguments for it
    }",
        search_terms: &["queue", "provisioning", "background", "job", "workflow"],
    },
    Family {
        name: "orchestrator task",
        description: "Submit tasks, follow them, and decide what becomes of them.",
        extra_description: "A task runs one script. It is Pending, Running, Completed, Failed or Cancelled; a failed \
attempt is repeated, and a task is Failed only when no attempt is left.",
        search_terms: &["job", "queue", "run", "background"],
    },
    Family {
        name: "orchestrator workflow",
        description: "Submit tasks that belong together.",
        extra_description: "A workflow is a task whose work is other tasks: it can be waited for, cancelled and \
retried like any other.",
        search_terms: &["graph", "pipeline", "dag"],
    },
    Family {
        name: "orchestrator workflow server",
        description: "Workflows over the servers of a settings file.",
        extra_description: "",
        search_terms: &["machine", "vm", "host"],
    },
    Family {
        name: "orchestrator workflow taskserv",
        description: "Workflows over the taskservs of a settings file.",
        extra_description: "A taskserv is an installable service, such as redis or postgres.",
        search_terms: &["service", "install", "package"],
    },
    Family {
        name: "orchestrator workflow cluster",
        description: "Workflows over the clusters of a settings file.",
        extra_description: "A cluster is servers that belong together, and the taskservs on them.",
        search_terms: &["kubernetes", "group"],
    },
    Family {
        name: "orchestrator storage",
        description: "Where the records are, and moving them elsewhere.",
        extra_description: "The engine's data directory stays where it is, with the logs of attempts; what moves are the records of tasks, keys, locks and environments.",
        search_terms: &["database", "backend", "migrate", "backup"],
    },
    Family {
        name: "orchestrator test",
        description: "Test taskservs, servers and clusters in containers.",
        extra_description: "An environment is nodes on a network of its own, with taskservs on them: it is created, its \
tests are run, and it is removed. `orchestrator test quick TASKSERV` does it all.",
        search_terms: &["docker", "container", "verify", "sandbox"],
    },
    Family {
        name: "orchestrator test env",
        description: "Test environments: create them, run their tests, look, remove.",
        extra_description: "An environment is creating, ready, running_tests, passed, failed, cleaning, cleaned or in \
error. It is removed when it expires, a day after it was made unless that was said otherwise.",
        search_terms: &["environment", "docker", "container", "sandbox"],
    },
    Family {
        name: "orchestrator test topology",
        description: "Topologies: lists of nodes and their network, by name.",
        extra_description: "There are the project's own, and those in topologies/*.toml under the current directory.",
        search_terms: &["cluster", "nodes", "template"],
    },
    Family {
        name: "orchestrator test image",
        description: "Prepared images: base images with taskservs installed in them.",
        extra_description: "They are made when they are needed for the first time, so that the next environment with the \
same taskservs is there sooner.",
        search_terms: &["docker", "cache"],
    },
];

/// The families.
pub fn all() -> impl Iterator<Item = Box<dyn PluginCommand<Plugin = Orchestrator>>> {
    FAMILIES.into_iter().map(|family| Box::new(family) as Box<_>)
}

impl PluginCommand for Family {
    type Plugin = Orchestrator;

    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> Signature {
        Signature::build(self.name).category(category()).input_output_type(Type::Nothing, Type::String)
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

    fn run(
        &self,
        _: &Orchestrator,
        engine: &EngineInterface,
        call: &EvaluatedCall,
        _: PipelineData,
    ) -> Result<PipelineData, LabeledError> {
        Ok(PipelineData::value(Value::string(engine.get_help()?, call.head), None))
    }
}
