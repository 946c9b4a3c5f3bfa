//! The check of the whole set-up: what must be there for scripts to run, and what to do where it is
//! not.

use std::path::Path;
use std::time::Duration;

use orchestrator_protocol::request::{Check, CheckState, Diagnosis};
use tokio::process::Command;

use crate::config::Config;
use crate::queue::Queue;
use crate::worker::Programs;

/// How long a program may take to say its version.
const PATIENCE: Duration = Duration::from_secs(5);
/// Less free space than this is worth a warning.
const LOW_SPACE_BYTES: u64 = 1024 * 1024 * 1024;
/// The Nushell that the scripts in this project are written for.
const NU_SERIES: &str = "0.115.";

/// Looks at everything that the engine needs.
pub async fn diagnose(config: &Config, programs: &Programs, queue: &Queue) -> Diagnosis {
    let (nu, docker) = tokio::join!(nushell(programs), docker());
    let checks = vec![
        nu,
        file("provisioning program", programs.worker(), "give an existing file with --provisioning-path"),
        runner(config),
        storage(queue).await,
        docker,
        inotify(),
        cgroup(),
        clock(),
    ];
    Diagnosis { checks }
}

fn check(name: &str, state: CheckState, found: impl Into<String>, advice: &str) -> Check {
    let advice = (state != CheckState::Ok).then(|| advice.to_owned());
    Check { name: name.into(), state, found: found.into(), advice }
}

async fn nushell(programs: &Programs) -> Check {
    let advice = "install Nushell 0.115, or name it with --nu-path";
    match say(programs.nu(), &["--version"]).await {
        Ok(version) if version.starts_with(NU_SERIES) => {
            check("nushell", CheckState::Ok, format!("{version} at {}", programs.nu().display()), advice)
        }
        Ok(version) => {
            check("nushell", CheckState::Warning, format!("{version} at {}", programs.nu().display()), advice)
        }
        Err(problem) => {
            check("nushell", CheckState::Failed, format!("{}: {problem}", programs.nu().display()), advice)
        }
    }
}

async fn docker() -> Check {
    let advice = "start Docker, or set DOCKER_HOST for the engine; only servers and test environments in containers need it";
    match say(Path::new("docker"), &["version", "--format", "{{.Server.Version}}"]).await {
        Ok(version) => check("docker", CheckState::Ok, version, advice),
        Err(problem) => check("docker", CheckState::Warning, problem, advice),
    }
}

/// The first line that a program prints.
async fn say(program: &Path, args: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(args).kill_on_drop(true).output();
    let output = tokio::time::timeout(PATIENCE, output)
        .await
        .map_err(|_| format!("no answer within {} s", PATIENCE.as_secs()))?
        .map_err(|error| error.to_string())?;
    let first =
        |bytes: &[u8]| String::from_utf8_lossy(bytes).lines().next().unwrap_or_default().trim().to_owned();
    if output.status.success() { Ok(first(&output.stdout)) } else { Err(first(&output.stderr)) }
}

fn file(name: &str, path: &Path, advice: &str) -> Check {
    let (state, found) = match std::fs::File::open(path) {
        Ok(_) => (CheckState::Ok, path.display().to_string()),
        Err(error) => (CheckState::Failed, format!("{}: {error}", path.display())),
    };
    check(name, state, found, advice)
}

fn runner(config: &Config) -> Check {
    let advice =
        "install `orchestrator-runner` beside `orchestrator`: attempts start faster, and take less memory";
    let found = config.runner.display().to_string();
    let state = if config.runner_args.is_empty() { CheckState::Ok } else { CheckState::Warning };
    check("runner", state, found, advice)
}

async fn storage(queue: &Queue) -> Check {
    let health = queue.store().health().await;
    let advice = "free some space, or look at the engine's log";
    let free =
        health.free_bytes.map_or(String::new(), |bytes| format!(", {} MiB free", bytes / (1024 * 1024)));
    let found = format!("{} in {}{free}", health.backend, health.location);
    if !health.writable {
        let reason = health.reason.unwrap_or_else(|| "writes are refused".into());
        return check("storage", CheckState::Failed, format!("{found}: {reason}"), advice);
    }
    let low = health.free_bytes.is_some_and(|bytes| bytes < LOW_SPACE_BYTES);
    check("storage", if low { CheckState::Warning } else { CheckState::Ok }, found, advice)
}

fn inotify() -> Check {
    let advice = "raise fs.inotify.max_user_instances to 512: containers that run systemd need several each";
    let limit = std::fs::read_to_string("/proc/sys/fs/inotify/max_user_instances");
    match limit.as_deref().map(str::trim).map(str::parse::<u64>) {
        Ok(Ok(limit)) if limit >= 512 => {
            check("inotify instances", CheckState::Ok, limit.to_string(), advice)
        }
        Ok(Ok(limit)) => check("inotify instances", CheckState::Warning, limit.to_string(), advice),
        _ => check("inotify instances", CheckState::Warning, "the limit cannot be read", advice),
    }
}

fn cgroup() -> Check {
    let advice =
        "without cgroup v2 the engine finds what a script has started by its descendants, which is slower";
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    match mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2")) {
        Some(line) => check("cgroup v2", CheckState::Ok, line.split(' ').nth(1).unwrap_or_default(), advice),
        None => check("cgroup v2", CheckState::Warning, "not mounted", advice),
    }
}

fn clock() -> Check {
    let advice = "set the clock: times of tasks and identifiers come from it";
    // 2024-01-01: no engine is older.
    let plausible = chrono::Utc::now().timestamp() > 1_704_067_200;
    let state = if plausible { CheckState::Ok } else { CheckState::Failed };
    check("clock", state, chrono::Utc::now().to_rfc3339(), advice)
}
