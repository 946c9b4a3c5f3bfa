//! What a run of the tests does, and the faults that can be part of one.

use orchestrator_protocol::environment as protocol;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::same::{Same, same_fields, yes};

same_fields! {
    /// A script of one's own that is part of a run.
    TestScript as TestScriptRequest of protocol::TestScript {
        /// What it is called in the report. Default: the file's name.
        #[serde(default)]
        name: Option<String>,
        /// The file; it is copied to the node and run there, so it needs a first line that begins with
        /// `#!`. A relative path starts at the engine's own working directory.
        script: String,
        /// On which nodes; on all where empty.
        #[serde(default)]
        nodes: Vec<String>,
        /// How long it may take on a node, in milliseconds.
        #[serde(default)]
        timeout_ms: Option<u64>,
    }
}

same_fields! {
    /// What a run does.
    RunOptions as RunOptionsRequest of protocol::RunOptions {
        /// Scripts that run after the verify steps, in this order.
        #[serde(default)]
        tests: Vec<TestScript>,
        /// Install everything again first, and fail where that changes something.
        #[serde(default)]
        idempotence_check: bool,
        /// Faults and the steps between them, after the verify steps and the scripts.
        #[serde(default)]
        faults: Vec<FaultStep>,
    }
}

impl Default for RunOptions {
    fn default() -> Self {
        protocol::RunOptions::default().same()
    }
}

same_fields! {
    /// A fault, then a check that everything still works, or works again.
    FaultStep as FaultStepRequest of protocol::FaultStep {
        /// What is done.
        fault: Fault,
        /// Whether the verify steps of all nodes that are up must pass after it.
        #[serde(default = "yes")]
        verify: bool,
    }
}

/// What can be done to the nodes of an environment, by its `kind`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
#[schema(as = FaultRequest)]
pub enum Fault {
    /// SIGKILL to everything on a node.
    #[schema(title = "Kill")]
    Kill {
        /// The node.
        node: String,
    },
    /// Stops a node as an operator would.
    #[schema(title = "Stop")]
    Stop {
        /// The node.
        node: String,
    },
    /// Freezes a node.
    #[schema(title = "Pause")]
    Pause {
        /// The node.
        node: String,
    },
    /// Lets a frozen node go on.
    #[schema(title = "Unpause")]
    Unpause {
        /// The node.
        node: String,
    },
    /// Starts a node that is down, or starts it anew, with its taskservs.
    #[schema(title = "Restart")]
    Restart {
        /// The node.
        node: String,
    },
    /// Cuts the connections between two sides: some nodes, and the others.
    #[schema(title = "Partition")]
    Partition {
        /// The nodes of one side.
        nodes: Vec<String>,
    },
    /// Undoes all partitions.
    #[schema(title = "Heal")]
    Heal {},
}

macro_rules! same_variants {
    ($one:path, $other:path) => {
        impl Same<$other> for $one {
            fn same(self) -> $other {
                use $other as Other;
                match self {
                    Self::Kill { node } => Other::Kill { node },
                    Self::Stop { node } => Other::Stop { node },
                    Self::Pause { node } => Other::Pause { node },
                    Self::Unpause { node } => Other::Unpause { node },
                    Self::Restart { node } => Other::Restart { node },
                    Self::Partition { nodes } => Other::Partition { nodes },
                    Self::Heal {} => Other::Heal {},
                }
            }
        }
    };
}

same_variants!(Fault, protocol::Fault);
same_variants!(protocol::Fault, Fault);

/// A run of the tests.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
#[schema(as = RunRequest)]
pub struct RunBody {
    /// Scripts that run after the verify steps, in this order.
    tests: Vec<TestScript>,
    /// Install everything again first, and fail where that changes something.
    idempotence_check: bool,
    /// Faults and the steps between them, after the verify steps and the scripts.
    faults: Vec<FaultStep>,
    /// Answer when the run has ended.
    pub(crate) wait: bool,
}

impl RunBody {
    pub(super) fn into_options(self) -> protocol::RunOptions {
        let Self { tests, idempotence_check, faults, wait: _ } = self;
        RunOptions { tests, idempotence_check, faults }.same()
    }
}

/// A fault to inject.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = InjectFaultRequest)]
pub struct FaultBody {
    /// What is done.
    fault: Fault,
}

impl FaultBody {
    pub(super) fn into_fault(self) -> protocol::Fault {
        self.fault.same()
    }
}
