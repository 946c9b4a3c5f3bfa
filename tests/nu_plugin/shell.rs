//! The real shell with the real plugin, in a home of its own.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use orchestrator_protocol::client::Client;
use orchestrator_protocol::request::{GetStatus, StopEngine, StopMode};
use orchestrator_protocol::socket::socket_path;
use orchestrator_tests::wait;
use serde_json::Value;
use tempfile::TempDir;

const ENGINE: &str = env!("CARGO_BIN_EXE_orchestrator-under-test");
const PLUGIN: &str = env!("CARGO_BIN_EXE_nu_plugin_orchestrator_under_test");

/// The Nushell that the plugin is made for, if there is one.
fn nushell() -> Option<PathBuf> {
    let named = std::env::var_os("ORCHESTRATOR_TEST_NU").map(PathBuf::from);
    let on_path = || {
        std::env::split_paths(&std::env::var_os("PATH")?)
            .map(|entry| entry.join("nu"))
            .find(|path| path.is_file())
    };
    named.or_else(on_path)
}

/// A user: a home, a plugin, and an engine that is started when a command needs it.
pub struct Shell {
    home: TempDir,
    nu: PathBuf,
}

impl Shell {
    /// `None`, and a word about it, where there is no Nushell; a failure where there must be one.
    pub fn new() -> Option<Self> {
        let Some(nu) = nushell() else {
            assert!(
                std::env::var_os("ORCHESTRATOR_CI").is_none(),
                "this test needs Nushell: put nu on the PATH, or name it in ORCHESTRATOR_TEST_NU"
            );
            eprintln!("not tested: there is no nu on the PATH and ORCHESTRATOR_TEST_NU does not name one");
            return None;
        };
        let home = tempfile::Builder::new().prefix("orchestrator-nu-").tempdir().unwrap();
        fs::create_dir(home.path().join("run")).unwrap();
        // The name of a plugin's file is the plugin's name.
        symlink(PLUGIN, home.path().join("nu_plugin_orchestrator")).unwrap();
        Some(Self { home, nu })
    }

    /// The user's directory, in which all commands run.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Where the engine keeps its queue.
    pub fn data_dir(&self) -> PathBuf {
        self.home().join("state/orchestrator")
    }

    /// The engine's socket.
    pub fn socket(&self) -> PathBuf {
        let name = socket_path(&self.data_dir()).unwrap();
        self.home().join("run/orchestrator").join(name.file_name().unwrap())
    }

    /// A script of the user's.
    pub fn script(&self, name: &str, body: &str) {
        fs::write(
            self.home().join(name),
            format!("def main [] {{\n    let params = ($in | default 'null' | from json)\n{body}\n}}\n"),
        )
        .unwrap();
    }

    /// A script that says `ready`, goes on when the file `go` exists, and says `done`.
    pub fn waiting_script(&self, name: &str) {
        let body = "    print ready\n    while not ('go' | path exists) { sleep 5ms }\n    print done";
        self.script(name, body);
    }

    /// Lets waiting scripts go on.
    pub fn go(&self) {
        fs::write(self.home().join("go"), "").unwrap();
    }

    /// The process that runs a line.
    pub fn command(&self, line: &str) -> Command {
        let mut command = Command::new(&self.nu);
        self.prepare(&mut command);
        command
            .args(["-n", "--no-std-lib", "--plugins"])
            .arg(self.home().join("nu_plugin_orchestrator"))
            .args(["-c", line]);
        command
    }

    /// Gives a process the user's environment.
    pub fn prepare(&self, command: &mut Command) {
        for name in
            ["ORCHESTRATOR_SOCKET", "ORCHESTRATOR_DATA_DIR", "ORCHESTRATOR_PORT", "ORCHESTRATOR_CONFIG"]
        {
            command.env_remove(name);
        }
        command
            .current_dir(self.home())
            .env("HOME", self.home())
            .env("XDG_STATE_HOME", self.home().join("state"))
            .env("XDG_RUNTIME_DIR", self.home().join("run"))
            .env("ORCHESTRATOR_ENGINE", ENGINE)
            .env("ORCHESTRATOR_NU_PATH", &self.nu)
            .env("ORCHESTRATOR_MAX_PARALLEL", "4")
            .env("TZ", "UTC")
            .env("COLUMNS", "120")
            .stdin(Stdio::null());
    }

    /// Runs a line.
    pub fn run(&self, line: &str) -> Output {
        bounded(self.command(line))
    }

    /// What a line prints; it must succeed.
    pub fn text(&self, line: &str) -> String {
        let output = self.run(line);
        assert!(output.status.success(), "{line}\n{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    /// The value of a line.
    pub fn value(&self, line: &str) -> Value {
        serde_json::from_str(&self.text(&format!("{line} | to json -r"))).unwrap()
    }

    /// The error of a line that must fail: `{msg, code, help, labels}`.
    pub fn error(&self, line: &str) -> Value {
        self.value(&format!("try {{ {line} | collect; {{}} }} catch {{|error| $error.details }}"))
    }

    /// The code of the error of a line that must fail.
    pub fn code(&self, line: &str) -> String {
        self.error(line)["code"].as_str().unwrap_or_default().to_owned()
    }

    /// What the user sees of a line that must fail, with the user's directory replaced.
    pub fn complaint(&self, line: &str) -> String {
        let output = self.run(line);
        assert!(!output.status.success(), "{line} should fail");
        let text = String::from_utf8(output.stderr).unwrap();
        text.replace(self.home().to_str().unwrap(), "HOME").trim_end().to_owned()
    }

    /// The processes of the user's plugin.
    pub fn plugins(&self) -> Vec<String> {
        let plugin = self.home().join("nu_plugin_orchestrator");
        let is_plugin = |pid: &String| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.starts_with(plugin.as_os_str().as_encoded_bytes())
        };
        let names =
            fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(is_plugin).collect()
    }

    /// A connection to the engine, if one runs.
    pub fn client(&self) -> Option<Client> {
        Client::connect(&self.socket(), Some(wait::PATIENCE)).ok()
    }

    /// The process of the engine that runs.
    pub fn engine_pid(&self) -> u32 {
        self.client().unwrap().call(GetStatus {}).unwrap().pid
    }

    /// Ends the engine as a crash would.
    pub fn kill_engine(&self) {
        let pid = rustix::process::Pid::from_raw(self.engine_pid().cast_signed()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        wait::until("the engine to be gone", || self.client().is_none().then_some(()));
    }
}

impl Drop for Shell {
    /// Ends the engine and its scripts.
    fn drop(&mut self) {
        let stopping = self.client().map(|mut client| client.call(StopEngine { mode: StopMode::Cancel }));
        if stopping.is_some() && !std::thread::panicking() {
            wait::until("the engine to be gone", || self.client().is_none().then_some(()));
        }
    }
}

/// Runs a command to its end. One that hangs is ended, and fails the test.
pub fn bounded(mut command: Command) -> Output {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || drop(sender.send(child.wait_with_output())));
    match receiver.recv_timeout(wait::PATIENCE) {
        Ok(output) => output.unwrap(),
        Err(_) => {
            // It may have ended in this moment.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            panic!("{command:?} hangs");
        }
    }
}

/// A line that runs while the test looks at what it prints.
pub struct Running {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Running {
    /// Starts a line.
    pub fn start(shell: &Shell, line: &str) -> Self {
        let mut child = shell.command(line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self { child, lines }
    }

    /// The next line that it prints.
    pub fn line(&self) -> String {
        self.lines.recv_timeout(wait::PATIENCE).unwrap()
    }

    /// Presses Ctrl-C.
    pub fn interrupt(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    }

    /// Ends the shell as a crash would.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for its end; what it printed on standard error.
    pub fn end(mut self) -> String {
        let status = wait::until("the shell to end", || self.child.try_wait().unwrap());
        let mut text = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        format!("{text}\n{status}")
    }

    /// Whether it still runs after it had some time to end.
    pub fn still_runs(&mut self, time: Duration) -> bool {
        std::thread::park_timeout(time);
        self.child.try_wait().unwrap().is_none()
    }
}
