//! Taskservs: the folders that describe installable services, as the engine needs them for test
//! environments. What a folder holds is in `docs/user/taskservs.md`; the provisioning program reads the
//! same folders for real servers.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

/// A taskserv, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Taskserv {
    /// Its name: the folder's.
    pub name: String,
    /// Its folder. Absolute.
    pub folder: PathBuf,
    /// What it is, in a line.
    pub description: String,
    /// What must be there first, on the same node.
    pub depends_on: Vec<String>,
    /// What a node must have for it.
    pub needs: Needs,
    /// What a node can be in a cluster; the first is what it is unless it says otherwise.
    pub roles: Vec<String>,
    /// What can be chosen, by name.
    pub parameters: BTreeMap<String, Parameter>,
    /// How long it may take from its start until it is ready; `None` where it has no `ready.sh`.
    pub ready_within: Option<Duration>,
    /// How long `install.sh`, `start.sh`, and `verify.sh` and `ready.sh` may take.
    pub timeouts: Timeouts,
    /// Whether it has a `start.sh`.
    pub has_start: bool,
    /// The SHA-256 of all files of the folder, by name and content, in hexadecimal.
    pub digest: String,
}

/// What a node must have for a taskserv.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Needs {
    /// Memory in MiB.
    pub memory_mb: Option<u64>,
    /// All rights on the machine's kernel.
    pub privileged: bool,
    /// systemd as the first process.
    pub systemd: bool,
}

/// How long the scripts of a taskserv may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// `install.sh`.
    pub install: Duration,
    /// `start.sh`.
    pub start: Duration,
    /// `verify.sh`, and each run of `ready.sh`.
    pub verify: Duration,
}

/// Something that can be chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameter {
    /// `text`, `boolean`, `integer MIN MAX`, `choice A B …`, `label` or `address`.
    pub kind: String,
    /// Its value where nothing is said.
    pub default: Option<Value>,
}

/// What was chosen of a taskserv on one node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Choices {
    /// The node's role; empty where there are none.
    pub role: String,
    /// The values of all parameters, as scripts get them.
    pub parameters: BTreeMap<String, String>,
}

/// Where taskservs are looked for: the user's folders first, then the project's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Library {
    /// The folders that hold them.
    pub places: Vec<PathBuf>,
}
