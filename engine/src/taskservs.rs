//! Taskservs: the folders that describe installable services, as the engine needs them for test
//! environments. What a folder holds is in `docs/user/taskservs.md`; the provisioning program reads the
//! same folders for real servers.

mod description;
mod folder;
mod kind;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use orchestrator_protocol::{Error, name};
use serde_json::Value;

use kind::{Kind, as_text, describe};

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
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Needs {
    /// Memory in MiB.
    pub memory_mb: Option<u64>,
    /// What it may do on the machine's kernel beyond what a container may: capabilities(7), without `CAP_`.
    pub capabilities: Vec<String>,
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

impl Library {
    /// The folders of all taskservs, by name. The first place that has a name counts.
    pub fn available(&self) -> BTreeMap<String, PathBuf> {
        let mut found = BTreeMap::new();
        for place in &self.places {
            let place = std::path::absolute(place).unwrap_or_else(|_| place.clone());
            let Ok(entries) = place.read_dir() else { continue };
            for folder in entries.filter_map(|entry| Some(entry.ok()?.path())) {
                let Some(name) = folder.file_name().and_then(|name| name.to_str()) else { continue };
                if name::dns_label("taskserv", name).is_ok() && folder.join("taskserv.toml").is_file() {
                    found.entry(name.to_owned()).or_insert(folder);
                }
            }
        }
        found
    }

    /// A taskserv by its name.
    ///
    /// # Errors
    /// There is none of that name, or it is wrong: the message names the file and the key.
    pub fn load(&self, name: &str) -> Result<Taskserv, Error> {
        self.load_for(name, None)
    }

    /// The taskservs with these names and all that they depend on, each after what it depends on.
    ///
    /// # Errors
    /// As for [`Library::load`]; and where they depend on each other in a circle.
    pub fn in_order(&self, names: &[String]) -> Result<Vec<Arc<Taskserv>>, Error> {
        let mut shelf = Shelf::new(self);
        let mut done = Vec::new();
        for name in names {
            shelf.add(name, &mut done)?;
        }
        Ok(done)
    }

    fn load_for(&self, name: &str, dependent: Option<&str>) -> Result<Taskserv, Error> {
        let available = self.available();
        if let Some(folder) = available.get(name) {
            return description::read(name, folder);
        }
        let reason = dependent.map_or_else(String::new, |it| format!(", which '{it}' depends on"));
        let known = listed(available.keys());
        let places = self.places.iter().map(|place| place.display().to_string()).collect::<Vec<_>>();
        Err(Error::invalid(format!("there is no taskserv '{name}'{reason}: there is {known}"))
            .with_help(format!("looked in {}", places.join(", "))))
    }
}

/// Taskservs of a library, each read once.
#[derive(Debug)]
pub(crate) struct Shelf<'a> {
    library: &'a Library,
    read: BTreeMap<String, Arc<Taskserv>>,
}

impl<'a> Shelf<'a> {
    /// Nothing has been read.
    pub(crate) fn new(library: &'a Library) -> Self {
        Self { library, read: BTreeMap::new() }
    }

    /// Adds a taskserv to those that are done, after what it depends on.
    pub(crate) fn add(&mut self, name: &str, done: &mut Vec<Arc<Taskserv>>) -> Result<(), Error> {
        self.visit(name, done, &mut Vec::new())
    }

    /// `path` is what led to `name`.
    fn visit(
        &mut self,
        name: &str,
        done: &mut Vec<Arc<Taskserv>>,
        path: &mut Vec<String>,
    ) -> Result<(), Error> {
        if done.iter().any(|taskserv| taskserv.name == name) {
            return Ok(());
        }
        if let Some(start) = path.iter().position(|step| step == name) {
            let circle = [&path[start..], &[name.to_owned()]].concat().join(" → ");
            return Err(Error::invalid(format!("taskservs depend on each other in a circle: {circle}")));
        }
        let taskserv = match self.read.get(name) {
            Some(taskserv) => taskserv.clone(),
            None => Arc::new(self.library.load_for(name, path.last().map(String::as_str))?),
        };
        self.read.insert(name.to_owned(), taskserv.clone());
        path.push(name.to_owned());
        for dependency in &taskserv.depends_on {
            self.visit(dependency, done, path)?;
        }
        path.pop();
        done.push(taskserv);
        Ok(())
    }
}

impl Taskserv {
    /// The values of its parameters on a node, and the node's role: what `options` says of them, else their
    /// defaults. `role` is the node's own; it counts where `options` has no `role`, and this taskserv knows it.
    ///
    /// # Errors
    /// An option that it does not have, a value that does not fit, or one that must be said and is not. The
    /// error's `field` is the parameter.
    pub fn choose(
        &self,
        node: &str,
        options: &BTreeMap<String, Value>,
        role: Option<&str>,
    ) -> Result<Choices, Error> {
        let role_kind = (!self.roles.is_empty()).then(|| Kind::Choice(self.roles.clone()));
        let is_known =
            |name: &String| self.parameters.contains_key(name) || (role_kind.is_some() && name == "role");
        if let Some(unknown) = options.keys().find(|name| !is_known(name)) {
            let known =
                self.parameters.keys().map(String::as_str).chain(role_kind.is_some().then_some("role"));
            let message = format!(
                "node '{node}': taskserv '{}' has no parameter `{unknown}`: it has {}",
                self.name,
                listed(known)
            );
            return Err(Error::invalid(message).with_field(unknown.clone()));
        }
        let value_of = |name: &str, kind: &Kind, default: Option<&Value>| {
            let value = options.get(name).filter(|value| !value.is_null()).or(default);
            let problem = match value {
                Some(value) if kind.fits(value) => return Ok(as_text(value)),
                Some(value) => format!("must be {}, not {}", kind.in_words(), describe(value)),
                None => "must be said: it has no default".into(),
            };
            let message =
                format!("node '{node}': the parameter `{name}` of taskserv '{}' {problem}", self.name);
            Err(Error::invalid(message).with_field(name))
        };
        let mut parameters = BTreeMap::new();
        for (name, parameter) in &self.parameters {
            let kind = Kind::parse(&parameter.kind)
                .ok_or_else(|| Error::internal(format!("'{}' is no type of a parameter", parameter.kind)))?;
            parameters.insert(name.clone(), value_of(name, &kind, parameter.default.as_ref())?);
        }
        let role = match &role_kind {
            None => String::new(),
            Some(kind) => {
                let own = role.filter(|role| self.roles.iter().any(|known| known == role));
                let default = own.or(self.roles.first().map(String::as_str)).map(Value::from);
                value_of("role", kind, default.as_ref())?
            }
        };
        Ok(Choices { role, parameters })
    }

    /// The files of its folder as a tar archive: always the same bytes for the same files.
    ///
    /// # Errors
    /// A file cannot be read, or the files are no longer those that `digest` is of.
    pub fn archive(&self) -> io::Result<Vec<u8>> {
        let (archive, digest) = folder::archive(&self.folder)?;
        if digest == self.digest {
            return Ok(archive);
        }
        Err(io::Error::other(format!(
            "the taskserv in {} has changed since it was read",
            self.folder.display()
        )))
    }
}

/// Names in a row, for messages.
pub(crate) fn listed(names: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    let names: Vec<String> = names.into_iter().map(|name| name.as_ref().to_owned()).collect();
    if names.is_empty() { "none".into() } else { names.join(", ") }
}
