//! What a folder with a `taskserv.toml` describes, checked whole. The provisioning program reads the same
//! files (`nulib/worker/taskservs.nu`, with the tables of `schema.nu`): what one takes the other takes.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use orchestrator_protocol::{Error, name};
use serde::Deserialize;
use serde_json::Value;

use super::kind::{Kind, describe, is_parameter_name, is_text};
use super::{Needs, Parameter, Taskserv, Timeouts, folder};
use crate::toml_text::TomlText;

/// A `taskserv.toml`, as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    description: String,
    #[serde(default)]
    depends_on: Vec<String>,
    #[serde(default)]
    needs: FileNeeds,
    #[serde(default)]
    ports: Vec<Value>,
    #[serde(default)]
    roles: Vec<String>,
    #[serde(default)]
    parameters: BTreeMap<String, FileParameter>,
    ready: Option<FileReady>,
    #[serde(default)]
    timeouts: FileTimeouts,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FileNeeds {
    memory_mb: Option<u64>,
    capabilities: Vec<String>,
    privileged: bool,
    systemd: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileParameter {
    r#type: String,
    default: Option<Value>,
    about: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileReady {
    within_sec: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FileTimeouts {
    install_sec: u64,
    start_sec: u64,
    verify_sec: u64,
}

impl Default for FileTimeouts {
    fn default() -> Self {
        Self { install_sec: 900, start_sec: 120, verify_sec: 60 }
    }
}

/// The capabilities of Linux, without `CAP_` (capabilities(7)).
const CAPABILITIES: [&str; 41] = [
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "WAKE_ALARM",
];

/// Reads the taskserv in a folder. Every mistake is told with its file and key.
pub(super) fn read(name: &str, folder: &Path) -> Result<Taskserv, Error> {
    let path = folder.join("taskserv.toml").display().to_string();
    let text = fs::read_to_string(&path)
        .map_err(|error| Error::invalid(format!("{path} cannot be read: {error}")))?;
    let toml = TomlText::parse(&path, &text)?;
    let file: File = toml.read()?;
    check(name, &file).map_err(|(key, problem)| toml.refuse(&key, &problem))?;
    check_scripts(folder, file.ready.is_some())?;
    let digest = folder::digest(folder).map_err(|error| {
        Error::invalid(format!("the taskserv in {} cannot be read: {error}", folder.display()))
    })?;
    let seconds = Duration::from_secs;
    Ok(Taskserv {
        name: name.to_owned(),
        folder: folder.to_owned(),
        description: file.description,
        depends_on: file.depends_on,
        needs: Needs {
            memory_mb: file.needs.memory_mb,
            capabilities: file.needs.capabilities,
            privileged: file.needs.privileged,
            systemd: file.needs.systemd,
        },
        roles: file.roles,
        parameters: file
            .parameters
            .into_iter()
            .map(|(name, it)| (name, Parameter { kind: it.r#type, default: it.default }))
            .collect(),
        ready_within: file.ready.map(|ready| seconds(ready.within_sec)),
        timeouts: Timeouts {
            install: seconds(file.timeouts.install_sec),
            start: seconds(file.timeouts.start_sec),
            verify: seconds(file.timeouts.verify_sec),
        },
        has_start: folder.join("start.sh").exists(),
        digest,
    })
}

/// A key and what is wrong with its value.
type Problem = (String, String);

fn check(name: &str, file: &File) -> Result<(), Problem> {
    text("description", &file.description)?;
    labels("depends_on", &file.depends_on)?;
    labels("roles", &file.roles)?;
    if let Some(memory_mb) = file.needs.memory_mb {
        within("needs.memory_mb", memory_mb, 16_777_216)?;
    }
    for (index, capability) in file.needs.capabilities.iter().enumerate() {
        if !CAPABILITIES.contains(&capability.as_str()) {
            let problem = format!(
                "it must be a capability of Linux such as `SYS_ADMIN`, not {}",
                describe(&capability.as_str().into())
            );
            return Err((format!("needs.capabilities[{index}]"), problem));
        }
    }
    if let Some(ready) = &file.ready {
        within("ready.within_sec", ready.within_sec, 3600)?;
    }
    within("timeouts.install_sec", file.timeouts.install_sec, 86_400)?;
    within("timeouts.start_sec", file.timeouts.start_sec, 86_400)?;
    within("timeouts.verify_sec", file.timeouts.verify_sec, 86_400)?;
    for (name, parameter) in &file.parameters {
        check_parameter(name, parameter)?;
    }
    for (index, port) in file.ports.iter().enumerate() {
        check_port(port, &file.parameters).map_err(|problem| (format!("ports[{index}]"), problem))?;
    }
    if let Some(index) = file.depends_on.iter().position(|it| it == name) {
        return Err((format!("depends_on[{index}]"), "it cannot depend on itself".into()));
    }
    if !file.roles.is_empty() && file.parameters.contains_key("role") {
        return Err(("parameters.role".into(), "`role` is taken by `roles`".into()));
    }
    Ok(())
}

fn check_parameter(name: &str, parameter: &FileParameter) -> Result<(), Problem> {
    let key = format!("parameters.{name}");
    if !is_parameter_name(name) {
        let rule = "use a-z, digits and '_', beginning with a letter";
        return Err((key, format!("`{name}` cannot be the name of a parameter: {rule}")));
    }
    text(&format!("{key}.about"), &parameter.about)?;
    let Some(kind) = Kind::parse(&parameter.r#type) else {
        let known = "text, boolean, integer MIN MAX, choice A B …, label or address";
        return Err((format!("{key}.type"), format!("it must be {known}, not '{}'", parameter.r#type)));
    };
    match &parameter.default {
        Some(default) if !kind.fits(default) => Err((
            format!("{key}.default"),
            format!("it must be {}, not {}", kind.in_words(), describe(default)),
        )),
        _ => Ok(()),
    }
}

fn check_port(port: &Value, parameters: &BTreeMap<String, FileParameter>) -> Result<(), String> {
    let is_number = |name: &str| {
        let kind = parameters.get(name).and_then(|parameter| Kind::parse(&parameter.r#type));
        matches!(kind, Some(Kind::Integer(..)))
    };
    match port {
        Value::String(name) if is_number(name) => Ok(()),
        Value::String(name) => Err(format!("'{name}' is no parameter that is a whole number")),
        Value::Number(port) if port.as_u64().is_some_and(|port| (1..=65535).contains(&port)) => Ok(()),
        other => Err(format!(
            "it must be a port from 1 to 65535 or the name of a parameter, not {}",
            describe(other)
        )),
    }
}

fn text(key: &str, value: &str) -> Result<(), Problem> {
    if is_text(value) {
        return Ok(());
    }
    Err((key.to_owned(), format!("it must be a text on one line, not {}", describe(&value.into()))))
}

fn labels(key: &str, names: &[String]) -> Result<(), Problem> {
    for (index, label) in names.iter().enumerate() {
        name::dns_label("name", label).map_err(|invalid| (format!("{key}[{index}]"), invalid.to_string()))?;
    }
    Ok(())
}

fn within(key: &str, value: u64, max: u64) -> Result<(), Problem> {
    if (1..=max).contains(&value) {
        return Ok(());
    }
    Err((key.to_owned(), format!("it must be a whole number from 1 to {max}, not {value}")))
}

fn check_scripts(folder: &Path, has_ready: bool) -> Result<(), Error> {
    let scripts = ["install.sh", "verify.sh", "ready.sh"];
    let needed = if has_ready { &scripts[..] } else { &scripts[..2] };
    let is_missing = |script: &&&str| !folder.join(script).symlink_metadata().is_ok_and(|it| it.is_file());
    let missing: Vec<&str> = needed.iter().filter(is_missing).copied().collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Error::invalid(format!("the taskserv in {} has no {}", folder.display(), missing.join(", "))))
}
