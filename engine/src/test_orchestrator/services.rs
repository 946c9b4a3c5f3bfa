//! The steps of taskservs on nodes: install, start, ready, verify.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use orchestrator_protocol::Error;

use super::step::{BASE, Order, Outcome, STEP_SH};
use super::{Context, Failure, Place, TestOrchestrator};
use crate::test_environment::{Blueprint, NodePlan, TaskservPlan};

/// One of the scripts of a taskserv.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Script {
    Install,
    Start,
    Ready,
    Verify,
}

impl Script {
    fn as_str(self) -> &'static str {
        match self {
            Self::Install => "install",
            Self::Start => "start",
            Self::Ready => "ready",
            Self::Verify => "verify",
        }
    }

    /// What people call the step.
    pub fn label(self, taskserv: &str) -> String {
        format!("{} {taskserv}", self.as_str())
    }
}

/// What the scripts of an environment need to know.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scene<'a> {
    pub blueprint: &'a Blueprint,
    pub address_by_node: &'a BTreeMap<String, Ipv4Addr>,
}

impl Scene<'_> {
    /// A script of a taskserv on a node. `about` tells apart what is to be done more than once.
    pub fn order(&self, node: &NodePlan, plan: &TaskservPlan, script: Script, about: &str) -> Order {
        let taskserv = &plan.taskserv;
        let limit = match script {
            Script::Install => taskserv.timeouts.install,
            Script::Start => taskserv.timeouts.start,
            Script::Ready | Script::Verify => taskserv.timeouts.verify,
        };
        let with_peers = script != Script::Install;
        Order {
            id: format!("{about}{}-{}", script.as_str(), taskserv.name),
            label: script.label(&taskserv.name),
            folder: format!("{BASE}/taskservs/{}", taskserv.name),
            command: vec!["sh".into(), format!("./{}.sh", script.as_str())],
            env: self.blueprint.variables(node, plan, self.address_by_node, with_peers),
            limit,
            within: taskserv.ready_within.filter(|_| script == Script::Ready),
        }
    }
}

/// The scripts that bring a taskserv up that is installed.
pub(super) fn starting(plan: &TaskservPlan) -> Vec<Script> {
    let start = plan.taskserv.has_start.then_some(Script::Start);
    let ready = plan.taskserv.ready_within.map(|_: Duration| Script::Ready);
    start.into_iter().chain(ready).collect()
}

impl TestOrchestrator {
    /// Runs a script of a taskserv; that it does not succeed is a failure.
    pub(super) async fn serve(
        &self,
        place: &Place,
        order: &Order,
        context: &Context,
    ) -> Result<Outcome, Failure> {
        self.take_step(place, order, context).await?.or_fail(order, place)
    }

    /// Brings what the steps of a node need to it: the taskservs' folders and what runs their scripts.
    pub(super) async fn equip(&self, container: &str, node: &NodePlan) -> Result<(), Failure> {
        let archive = equipment(node).map_err(|error| {
            Error::invalid(format!("the taskservs of node '{}' cannot be read: {error}", node.config.name))
        })?;
        // The directory is in every image that follows the Filesystem Hierarchy Standard.
        Ok(self.docker.copy_in(container, "/var/lib", archive).await?)
    }
}

/// An archive for `/var/lib`.
fn equipment(node: &NodePlan) -> std::io::Result<Vec<u8>> {
    let mut archive = Archive::default();
    archive.directory("orchestrator")?;
    archive.directory("orchestrator/taskservs")?;
    archive.file("orchestrator/step.sh", 0o755, STEP_SH.as_bytes())?;
    for TaskservPlan { taskserv, .. } in &node.taskservs {
        let folder = format!("orchestrator/taskservs/{}", taskserv.name);
        archive.directory(&folder)?;
        archive.below(&folder, &taskserv.archive()?)?;
    }
    archive.finish()
}

/// An archive in the making, of files that belong to root.
pub(super) struct Archive(tar::Builder<Vec<u8>>);

impl Default for Archive {
    fn default() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }
}

impl Archive {
    /// Adds a directory that only root can enter.
    pub fn directory(&mut self, path: &str) -> std::io::Result<()> {
        let mut header = header(0o700, 0);
        header.set_entry_type(tar::EntryType::Directory);
        self.0.append_data(&mut header, path, std::io::empty())
    }

    /// Adds a file.
    pub fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> std::io::Result<()> {
        self.0.append_data(&mut header(mode, content.len() as u64), path, content)
    }

    /// Adds what is in another archive, below a directory.
    fn below(&mut self, directory: &str, archive: &[u8]) -> std::io::Result<()> {
        for entry in tar::Archive::new(archive).entries()? {
            let entry = entry?;
            let path = std::path::Path::new(directory).join(entry.path()?);
            let mut header = entry.header().clone();
            match entry.link_name()?.map(std::borrow::Cow::into_owned) {
                Some(target) => self.0.append_link(&mut header, path, target)?,
                None => self.0.append_data(&mut header, path, entry)?,
            }
        }
        Ok(())
    }

    pub fn finish(self) -> std::io::Result<Vec<u8>> {
        self.0.into_inner()
    }
}

fn header(mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_mode(mode);
    header.set_size(size);
    header
}
