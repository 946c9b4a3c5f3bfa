//! The page, typed.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use orchestrator_protocol::environment::EnvironmentRequest;
use orchestrator_tests::wait;
use rustix::fs::{FlockOperation, flock};
use serde_json::Value;

use crate::door::{Door, IMAGE, docker, image, needed, nushell};
use crate::page::{Line, Page, Shown};
use crate::pattern::{difference, fits};

/// How long two taskservs may take to be installed.
const INSTALLATION: Duration = Duration::from_secs(240);

/// The infra of the page, of which a machine has one.
const INFRA: &str = "production";

#[test]
fn every_line_of_the_page_does_what_it_says() {
    let (Some(nu), Some(docker)) = (needed("nu", nushell()), needed("Docker", docker())) else { return };
    let page = Page::read();
    let _servers = Servers::none(&docker);
    // Before the engine, so that it is gone when what it may have left is removed.
    let mut queued = Queued::nothing(&docker);
    // The page shows an engine as it is by default.
    let mut door = Door::closed(&["--nu-path", nu.to_str().unwrap(), "--storage-type", "filesystem"]);
    let image = image();
    for (name, content) in &page.files {
        fs::write(door.engine.directory().join(name), content.replace(IMAGE, &image)).unwrap();
    }
    door.engine.start();
    // Who types is somewhere else than the engine.
    let elsewhere = tempfile::tempdir().unwrap();
    let config = format!(
        "connect-to = \"127.0.0.1:8080:{}\"\ndump-header = \"head\"\nsilent\nshow-error\n",
        door.address
    );
    fs::write(elsewhere.path().join(".curlrc"), config).unwrap();
    for line in &page.lines {
        let typed = Typed::run(line, &line.command.replace(IMAGE, &image), elsewhere.path(), &queued);
        typed.check(line, &door);
        let answer: Value = serde_json::from_str(&typed.output).unwrap_or_default();
        queued.take_note(&answer["data"]);
    }
    assert!(door.engine.wait_ended().success(), "the last line stops it:\n{}", door.engine.log());
}

/// What was queued or started last, as the lines of the page name it. What a failure leaves of the environment is
/// removed.
struct Queued {
    docker: PathBuf,
    /// `$ID`
    id: String,
    /// `$ENVIRONMENT`
    environment: String,
    /// `$MIGRATION`
    migration: String,
}

impl Queued {
    fn nothing(docker: &Path) -> Self {
        let [id, environment, migration] = std::array::from_fn(|_| String::new());
        Self { docker: docker.to_owned(), id, environment, migration }
    }

    fn take_note(&mut self, data: &Value) {
        if let Some(id) = data.as_str() {
            id.clone_into(&mut self.id);
        }
        if let (Some(id), Some(_)) = (data["id"].as_str(), data["phase"].as_str()) {
            id.clone_into(&mut self.migration);
        }
        if let (Some(task), Some(environment)) = (data["task"].as_str(), data["environment"].as_str()) {
            task.clone_into(&mut self.id);
            environment.clone_into(&mut self.environment);
        }
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        if !self.environment.is_empty() {
            remove(&self.docker, &format!("orchestrator.environment={}", self.environment));
        }
    }
}

/// A line that was typed.
struct Typed {
    status: u16,
    output: String,
    errors: String,
}

impl Typed {
    /// Types a line, and waits for its end, or, of a stream that has none, for what the page shows of it.
    fn run(line: &Line, command: &str, directory: &Path, queued: &Queued) -> Self {
        let mut shell = Command::new("bash");
        shell.args(["-c", &format!("exec {command}")]).current_dir(directory).process_group(0);
        shell.env("CURL_HOME", directory).env("ID", &queued.id).env("ENVIRONMENT", &queued.environment);
        shell.env("MIGRATION", &queued.migration);
        for proxy in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
            shell.env_remove(proxy);
        }
        let mut child =
            shell.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let output = match &line.answer {
            Some(Shown::Text(shown)) => read_until(&mut child, shown),
            _ => {
                let mut output = String::new();
                child.stdout.take().unwrap().read_to_string(&mut output).unwrap();
                output
            }
        };
        // It may have ended by itself.
        let _ = child.kill();
        child.wait().unwrap();
        let mut errors = String::new();
        child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        let head = fs::read_to_string(directory.join("head")).unwrap_or_default();
        let status = head.split_ascii_whitespace().nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        Self { status, output, errors }
    }

    fn check(&self, line: &Line, door: &Door) {
        let told = || {
            let Self { status, output, errors } = self;
            let Line { number, command, .. } = line;
            format!("line {number}: {command}\n{status}\n{output}\n{errors}\n{}", door.engine.log())
        };
        assert_eq!(self.status, line.status, "{}", told());
        match &line.answer {
            None => {}
            Some(Shown::Text(shown)) => {
                assert_eq!(missing(shown, self.output.lines()), None, "{}", told());
            }
            Some(Shown::Json(shown)) => {
                let answer = serde_json::from_str(&self.output).unwrap_or_else(|_| panic!("{}", told()));
                assert_eq!(difference(shown, &answer), None, "{}", told());
            }
        }
    }
}

/// Reads until everything that is shown has come, or there is no more.
fn read_until(child: &mut Child, shown: &[String]) -> String {
    let (sender, receiver) = mpsc::channel();
    let output = BufReader::new(child.stdout.take().unwrap());
    std::thread::spawn(move || {
        for line in output.lines() {
            let Ok(line) = line else { break };
            // Nobody may listen any more.
            let _ = sender.send(line);
        }
    });
    let mut output = String::new();
    let deadline = Instant::now() + wait::PATIENCE;
    while missing(shown, output.lines()).is_some() {
        match receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => output += &format!("{line}\n"),
            Err(_) => break,
        }
    }
    output
}

/// The first of some patterns that is not in the lines after those of the patterns before it.
fn missing<'a>(shown: &'a [String], mut lines: std::str::Lines<'_>) -> Option<&'a str> {
    shown.iter().find(|pattern| !lines.any(|line| fits(pattern, line))).map(String::as_str)
}

#[test]
fn every_endpoint_has_a_line_and_every_line_an_endpoint() {
    let door = Door::open(&[]);
    let document = door.get("/openapi.json").json();
    let mut endpoints = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in ["get", "post", "put", "patch", "delete"] {
            if item.get(method).is_some() {
                endpoints.insert(format!("{} {path}", method.to_uppercase()));
            }
        }
    }
    let typed: BTreeSet<String> = Page::read().lines.iter().map(|line| endpoint(&line.command)).collect();
    assert_eq!(typed, endpoints);
}

#[test]
fn bodies_that_are_shown_only_are_requests() {
    for body in Page::read().bodies {
        let request = serde_json::from_value::<EnvironmentRequest>(body.clone());
        assert!(request.is_ok(), "{body}: {request:?}");
    }
}

/// The method and the path of a line.
fn endpoint(command: &str) -> String {
    let method = command.split_once("-X ").map_or("GET", |(_, rest)| rest.split(' ').next().unwrap());
    let (_, rest) = command.split_once("http://127.0.0.1:8080").unwrap();
    let path = rest.split(['?', '"', '\'', ' ']).next().unwrap();
    format!(
        "{method} {}",
        path.replace("$ID", "{id}").replace("$ENVIRONMENT", "{id}").replace("$MIGRATION", "{id}")
    )
}

/// The other two kinds of environments, as the page has them, on real Docker.
#[test]
fn the_documented_environments_are_made_tested_and_removed() {
    let Some(docker) = needed("Docker", docker()) else { return };
    let door = Door::open(&[]);
    let image = image();
    let asked: Vec<(Value, Queued)> = Page::read()
        .bodies
        .into_iter()
        .filter(|body| body["config"]["type"] != "single_taskserv")
        .map(|body| {
            let text = body.to_string().replace("debian:12", &image);
            let answer = door.post("/test/environments/create", &text);
            assert_eq!(answer.status, 202, "{answer:?}");
            let mut queued = Queued::nothing(&docker);
            queued.take_note(&answer.json()["data"]);
            (body, queued)
        })
        .collect();
    assert_eq!(asked.len(), 2);
    for (body, queued) in &asked {
        let path = format!("/test/environments/{}", queued.environment);
        let look = || door.get(&path).json()["data"].clone();
        let is_cleaned = body["auto_cleanup"] == true;
        let end = if is_cleaned { "cleaned" } else { "passed" };
        let found = wait::at_most(INSTALLATION, &format!("{body} to be {end}"), || {
            let found = look();
            assert!(found["status"] != "error" && found["status"] != "failed", "{found:#}");
            (found["status"] == end).then_some(found)
        });
        let results = found["results"].as_array().unwrap();
        assert!(results.iter().all(|result| result["passed"] == true), "{found:#}");
        let nodes = found["nodes"].as_array().unwrap().len();
        assert_eq!(results.len(), if is_cleaned { 2 } else { nodes }, "{found:#}");
        if !is_cleaned {
            assert_eq!(found["network"]["subnet"], body["config"]["topology"]["network"]["subnet"]);
            let answer = door.talk(door.request("DELETE", &path, &[], ""));
            assert_eq!(answer.status, 202, "{answer:?}");
            wait::until("it to be removed", || (look()["status"] == "cleaned").then_some(()));
        }
    }
}

/// The page's servers: none before and none after, and nobody else's test has them meanwhile. Servers of
/// that name that no test made are left alone, and the test fails.
struct Servers {
    docker: PathBuf,
    /// Locked while a test has the servers; not empty while there may be some.
    ours: fs::File,
}

impl Servers {
    fn none(docker: &Path) -> Self {
        let path = std::env::temp_dir().join("orchestrator-test-production");
        let ours = fs::File::options().create(true).truncate(false).write(true).open(path).unwrap();
        flock(&ours, FlockOperation::LockExclusive).unwrap();
        if ours.metadata().unwrap().len() > 0 {
            remove(docker, &of_the_infra());
        }
        let found =
            with_label(docker, &of_the_infra(), r#""$0" ps --all --filter "$1" --format '{{.Names}}'"#);
        assert_eq!(found, "", "this test makes servers of the infra {INFRA}, and there are some already");
        ours.set_len(1).unwrap();
        Self { docker: docker.to_owned(), ours }
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        remove(&self.docker, &of_the_infra());
        self.ours.set_len(0).unwrap();
    }
}

/// The label of what belongs to the infra.
fn of_the_infra() -> String {
    format!("orchestrator.infra={INFRA}")
}

fn remove(docker: &Path, label: &str) {
    for line in [
        r#""$0" ps --all --quiet --filter "$1" | xargs --no-run-if-empty "$0" rm --force --volumes"#,
        r#""$0" network ls --quiet --filter "$1" | xargs --no-run-if-empty "$0" network rm"#,
        r#""$0" volume ls --quiet --filter "$1" | xargs --no-run-if-empty "$0" volume rm"#,
    ] {
        with_label(docker, label, line);
    }
}

/// Runs a line of the shell, in which `$0` is the Docker client and `$1` chooses what has a label.
fn with_label(docker: &Path, label: &str, line: &str) -> String {
    let label = format!("label={label}");
    let output = Command::new("sh").args(["-c", line]).arg(docker).arg(label).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
