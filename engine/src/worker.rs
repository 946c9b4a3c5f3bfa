//! From a task to a program with arguments: the interpreter, the user's script, or the provisioning
//! program with its words.
//!
//! The provisioning program is carried inside the engine and unpacked into a directory named by its
//! content, so that two releases never overwrite each other's.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use orchestrator_protocol::Error;
use orchestrator_protocol::task::{Command, Program, SecretReference, Task, Work, WorkerCall};
use orchestrator_runner::spec::{Secret, Spec};
use sha2::{Digest, Sha256};

use crate::config::Config;
use crate::queue::submit::hex;

/// The files of the provisioning program and the taskservs, as they were when the engine was built.
const FILES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/worker_files.rs"));

/// The file of them that is run.
const MAIN: &str = "worker/worker.nu";

/// Parameters up to this many bytes are also given in a variable.
const MAX_PARAMS_VARIABLE: usize = 64 * 1024;

/// The programs that attempts run.
#[derive(Debug, Clone)]
pub struct Programs {
    nu: PathBuf,
    worker: PathBuf,
    taskservs: PathBuf,
    digest: String,
}

impl Programs {
    /// Finds the interpreter and unpacks the provisioning program.
    pub fn prepare(config: &Config) -> io::Result<Self> {
        let own = unpack(&config.data_dir.join("worker"))?;
        let worker = config.provisioning_path.clone().unwrap_or_else(|| own.join(MAIN));
        let nu = find_on_path(&config.nu_path).unwrap_or_else(|| config.nu_path.clone());
        let digest = match &config.provisioning_path {
            // One that cannot be read is the affair of the attempts that are to run it.
            Some(path) => fs::read(path).map(|text| hex(&Sha256::digest(text))).unwrap_or_default(),
            None => own.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        };
        Ok(Self { nu, worker, taskservs: own.join("taskservs"), digest: digest.chars().take(16).collect() })
    }

    /// The interpreter.
    pub fn nu(&self) -> &Path {
        &self.nu
    }

    /// The provisioning program.
    pub fn worker(&self) -> &Path {
        &self.worker
    }

    /// What tells the provisioning program from others: the beginning of the digest of the engine's own, or
    /// of the file of another one.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The folder with the project's own taskservs.
    pub fn taskservs(&self) -> PathBuf {
        self.taskservs.clone()
    }

    /// Everything a runner must know to run an attempt of a task.
    pub fn spec(&self, task: &Task, config: &Config) -> Result<Spec, Error> {
        let Work::Command(command) = &task.work else {
            return Err(Error::internal(format!("task {} runs no program", task.id)));
        };
        let params = command.params.as_ref().map(ToString::to_string);
        let (program, args) = self.program(command, params.is_some(), config)?;
        let mut env = environment(config);
        env.extend(command.env.clone());
        env.insert("ORCHESTRATOR_TASK_ID".into(), task.id.to_string());
        env.insert("ORCHESTRATOR_ATTEMPT".into(), task.attempt.to_string());
        env.insert("ORCHESTRATOR_FENCE".into(), task.fence.to_string());
        env.insert("ORCHESTRATOR_SOCKET".into(), config.socket.to_string_lossy().into_owned());
        if let Some(params) = params.as_ref().filter(|params| params.len() <= MAX_PARAMS_VARIABLE) {
            env.insert("ORCHESTRATOR_PARAMS".into(), params.clone());
        }
        Ok(Spec {
            program,
            args,
            env: env.into_iter().collect(),
            cwd: command.cwd.clone(),
            stdin: params,
            secrets: command.secrets.iter().map(|(name, reference)| secret(name, reference)).collect(),
            timeout_ms: task.timeout_ms,
            grace_ms: task.grace_ms,
            output_limit_bytes: config.output.max_bytes,
            task_id: task.id.to_string(),
            attempt: task.attempt,
            fence: task.fence,
            ..Spec::default()
        })
    }

    fn program(
        &self,
        command: &Command,
        has_params: bool,
        config: &Config,
    ) -> Result<(String, Vec<String>), Error> {
        let nu = || self.nu.to_string_lossy().into_owned();
        match &command.program {
            Program::Script { path }
                if Path::new(path).extension().is_some_and(|extension| extension == "nu") =>
            {
                let mut args = config.scripts.interpreter_args.clone();
                args.extend(has_params.then(|| "--stdin".to_owned()));
                args.push(path.clone());
                Ok((nu(), args))
            }
            Program::Script { path } => Ok((path.clone(), Vec::new())),
            Program::Worker(call) => {
                let operation = call.operation.join(" ");
                let words = config.worker.words.get(&operation).ok_or_else(|| {
                    Error::invalid(format!("the configuration has no words for the operation '{operation}'"))
                        .with_help("add it under [worker.words]")
                })?;
                let mut args = config.worker.interpreter_args.clone();
                args.push(self.worker.to_string_lossy().into_owned());
                args.extend(words.iter().flat_map(|word| expand(word, call)));
                Ok((nu(), args))
            }
        }
    }
}

/// What one word of the configuration becomes.
fn expand(word: &str, call: &WorkerCall) -> Vec<String> {
    match word {
        "{names}" => call.names.clone(),
        "{infra}" => vec![call.infra.clone()],
        "{settings}" => vec![call.settings.clone()],
        other => match other.strip_prefix("{check?").and_then(|rest| rest.strip_suffix('}')) {
            Some(flag) if call.check => vec![flag.to_owned()],
            Some(_) => Vec::new(),
            None => vec![other.to_owned()],
        },
    }
}

fn secret(name: &str, reference: &SecretReference) -> Secret {
    Secret { name: name.to_owned(), reference: reference.clone().into() }
}

/// What of the engine's environment every script sees.
fn environment(config: &Config) -> BTreeMap<String, String> {
    let passed =
        config.environment.pass.iter().filter_map(|name| Some((name.clone(), std::env::var(name).ok()?)));
    passed.chain(config.environment.set.clone()).collect()
}

/// A program as the shell would find it.
pub fn find_on_path(program: &Path) -> Option<PathBuf> {
    if program.components().count() > 1 {
        return std::path::absolute(program).ok();
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|entry| entry.join(program)).find(|candidate| candidate.is_file())
}

/// Writes the provisioning program and the taskservs to a directory named by their content, once.
fn unpack(root: &Path) -> io::Result<PathBuf> {
    let mut digest = Sha256::new();
    for (name, content) in FILES {
        digest.update(name.as_bytes());
        digest.update([0]);
        digest.update(content.as_bytes());
        digest.update([0]);
    }
    let target = root.join(&hex(&digest.finalize())[..16]);
    if target.join(MAIN).is_file() {
        return Ok(target);
    }
    let scratch = root.join(format!(".unpack-{}", std::process::id()));
    for (name, content) in FILES {
        let path = scratch.join(name);
        fs::create_dir_all(path.parent().unwrap_or(&scratch))?;
        fs::File::create(&path)?.write_all(content.as_bytes())?;
    }
    match fs::rename(&scratch, &target) {
        // Another engine was quicker; it wrote the same.
        Err(_) if target.join(MAIN).is_file() => fs::remove_dir_all(&scratch)?,
        result => result?,
    }
    Ok(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_another_program_are_filled_in() {
        let call = WorkerCall {
            operation: vec!["server".into(), "create".into()],
            names: vec!["web-01".into(), "web-02".into()],
            infra: "production".into(),
            settings: "/etc/site.yaml".into(),
            settings_digest: String::new(),
            check: true,
        };
        let words =
            ["servers", "create", "{names}", "-i={infra}", "{infra}", "{settings}", "{check?--dry-run}"];
        let filled = |call: &WorkerCall| words.iter().flat_map(|word| expand(word, call)).collect::<Vec<_>>();
        let expected = [
            "servers",
            "create",
            "web-01",
            "web-02",
            "-i={infra}",
            "production",
            "/etc/site.yaml",
            "--dry-run",
        ];
        assert_eq!(filled(&call), expected);
        assert_eq!(filled(&WorkerCall { check: false, ..call }), expected[..7]);
    }

    #[test]
    fn the_program_is_unpacked_once() -> io::Result<()> {
        let root = tempfile::tempdir()?;
        let own = unpack(root.path())?;
        let main = own.join(MAIN);
        assert!(fs::read_to_string(&main)?.contains("def main"));
        let written = fs::metadata(&main)?.modified()?;
        assert_eq!(unpack(root.path())?, own);
        assert_eq!(fs::metadata(&main)?.modified()?, written);
        Ok(())
    }
}
