//! A Docker that goes away in the middle of the work, and comes back.
//!
//! The daemon is one of the test's own, in a network namespace of its own, so that neither the machine's
//! daemon nor its networks see anything of it.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use orchestrator_protocol::environment::{CleanEnvironment, EnvironmentStatus};
use orchestrator_protocol::task::TaskStatus;
use orchestrator_tests::engine::TestEngine;
use orchestrator_tests::wait;
use tempfile::TempDir;

use crate::world::*;

/// A Docker daemon of a test's own.
struct Daemon {
    directory: TempDir,
    namespace: String,
    process: Option<Child>,
}

impl Daemon {
    /// `None`, and a word about it, where one cannot be had: it takes root, Docker's daemon and iproute2.
    fn new() -> Option<Self> {
        let namespace = format!("orchestrator-{}", std::process::id());
        let made = Command::new("ip").args(["netns", "add", &namespace]).output();
        if !made.as_ref().is_ok_and(|output| output.status.success()) {
            assert!(std::env::var_os("ORCHESTRATOR_CI").is_none(), "no network namespace: {made:?}");
            eprintln!("not tested: a network namespace cannot be made ({made:?})");
            return None;
        }
        run(Command::new("ip").args(["-n", &namespace, "link", "set", "lo", "up"]));
        Some(Self { directory: TempDir::with_prefix_in("od", "/tmp").unwrap(), namespace, process: None })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn host(&self) -> String {
        format!("unix://{}", self.path("s").display())
    }

    fn start(&mut self) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.path("log")).unwrap();
        let child = Command::new("nsenter")
            .arg(format!("--net=/run/netns/{}", self.namespace))
            .args(["dockerd", "--host", &self.host()])
            .args(
                [("--data-root", "data"), ("--exec-root", "x"), ("--pidfile", "pid")]
                    .iter()
                    .flat_map(|(option, name)| [(*option).to_owned(), self.path(name).display().to_string()]),
            )
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.process = Some(child);
        wait::until("the daemon to answer", || {
            let ended = self.process.as_mut().and_then(|child| child.try_wait().unwrap());
            if let Some(status) = ended {
                panic!("dockerd ended ({status}):\n{}", fs::read_to_string(self.path("log")).unwrap());
            }
            self.docker(&["version"])
        });
    }

    /// Lets it die at once: its containers go on without it.
    fn kill(&mut self) {
        let mut child = self.process.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        // What it has started ends too: the next daemon starts its own.
        if let Ok(pid) = fs::read_to_string(self.path("x/containerd/containerd.pid")) {
            run(Command::new("kill").args(["-KILL", pid.trim()]));
            wait::until("its containerd to end", || {
                let is_there = PathBuf::from(format!("/proc/{}/exe", pid.trim())).read_link().is_ok();
                (!is_there).then_some(())
            });
        }
        // Nobody takes the old ones, which may not have been waited for, for the new ones.
        for pid in ["pid", "x/containerd/containerd.pid"] {
            let _ = fs::remove_file(self.path(pid));
        }
    }

    /// Ends it in order.
    fn stop(&mut self) {
        let Some(mut child) = self.process.take() else { return };
        run(Command::new("kill").args(["-TERM", &child.id().to_string()]));
        child.wait().unwrap();
    }

    fn docker(&self, arguments: &[&str]) -> Option<String> {
        let output = Command::new("docker").args(["--host", &self.host()]).args(arguments).output().unwrap();
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        for container in self.docker(&["ps", "--all", "--quiet"]).unwrap_or_default().lines() {
            self.docker(&["rm", "--force", container]);
        }
        self.stop();
        let _ = Command::new("ip").args(["netns", "delete", &self.namespace]).status();
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Docker dies while a node is being started, and comes back: what is wrong is said meanwhile, the creation
/// is completed by a later attempt, and nothing is left in the end.
#[test]
fn docker_that_dies_in_mid_create_is_waited_for() {
    let Some(image) = image() else { return };
    let Some(mut daemon) = Daemon::new() else { return };
    daemon.start();
    let archive = daemon.path("image.tar");
    docker(&["save", "--output", archive.to_str().unwrap(), &image]).unwrap();
    daemon.docker(&["load", "--input", archive.to_str().unwrap()]).unwrap();

    let engine = TestEngine::new(ENGINE);
    let config = engine.directory().join("orchestrator.toml");
    fs::write(&config, "[retry]\nmax_retries = 30\ncap_ms = 1000\n").unwrap();
    let mut engine = engine.with_arguments(&["--config", config.to_str().unwrap()]);
    add_clock(&engine);
    let gate = "[ -e /gate-opened ] || { touch /gate-opened; sleep 3333; }\ndate >/run/clock\n";
    change(&engine, "start.sh", gate);
    engine.start_in_environment("DOCKER_HOST", &daemon.host());
    let made = engine.ask(request(&engine, &image, &["one", "two"]));
    wait::until("both nodes to be started", || {
        let nodes = environment(&engine, made).nodes;
        let is_starting = |container: &str| daemon.docker(&["exec", container, "pgrep", "-f", "sleep 3333"]);
        (nodes.len() == 2).then_some(())?;
        nodes.iter().try_for_each(|node| is_starting(node.container.as_deref()?).map(|_| ()))
    });
    daemon.kill();
    let create = tasks_of(&engine, made)["create clocks"].id;
    let waiting = engine.wait_for(create, "to say why it goes on later", |task| {
        task.last_error.as_deref().is_some_and(|error| error.contains("Docker cannot be reached"))
    });
    assert!(!waiting.status.is_final(), "{waiting:#?}");
    daemon.start();
    let workflow = engine.wait(made.task);
    assert_eq!(workflow.status, TaskStatus::Completed, "{workflow:#?}\n{}", engine.log());
    let gone = environment(&engine, made);
    assert_eq!(gone.status, EnvironmentStatus::Cleaned, "{gone:#?}");
    assert!(gone.results.len() == 2 && gone.results.iter().all(|result| result.passed), "{gone:#?}");
    assert!(engine.ask(CleanEnvironment { id: gone.id }).existed);
    assert_eq!(daemon.docker(&["ps", "--all", "--quiet"]).as_deref(), Some(""));
    let networks = daemon.docker(&["network", "ls", "--quiet", "--filter", "label=orchestrator.data"]);
    assert_eq!(networks.as_deref(), Some(""));
}
