//! Engines as processes, and the program's commands, on the real server: through an outage, with a user who
//! has to sign in, and over TLS.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use orchestrator_protocol::event::OutputStream;
use orchestrator_protocol::request::GetStatus;
use orchestrator_protocol::storage::{
    Initialised, StorageReport, StorageTarget, ValidateMigration, Validation,
};
use orchestrator_protocol::submit::NewTask;
use orchestrator_protocol::task::{OnEngineLoss, TaskStatus};
use orchestrator_storage::surrealdb::ServerOptions;
use orchestrator_tests::engine::TestEngine;
use orchestrator_tests::gate::open_gate;
use orchestrator_tests::surrealdb::SurrealServer;
use orchestrator_tests::wait;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::is_asked_for;

const ENGINE: &str = env!("CARGO_BIN_EXE_orchestrator-under-test");
const SERVER: &str = env!("CARGO_BIN_EXE_surrealdb-server-for-tests");

/// A server, unless another storage is asked for.
fn server(is_open: bool) -> Option<SurrealServer> {
    is_asked_for("surrealdb-server").then(|| SurrealServer::start(SERVER, is_open))
}

/// The options that name a database.
fn place(options: &ServerOptions) -> [&str; 4] {
    ["--surrealdb-url", &options.url, "--surrealdb-namespace", &options.namespace]
}

/// An engine on a database that has not been started.
fn engine(options: &ServerOptions, more: &[&str]) -> TestEngine {
    let arguments = [&["--storage-type", "surrealdb-server"][..], &place(options), more].concat();
    TestEngine::new(ENGINE).with_arguments(&arguments)
}

/// A task comes to its end.
fn finish_one(engine: &TestEngine) {
    let script = engine.script("quick", "echo done");
    let id = engine.submit(engine.run(&script));
    let task = engine.wait(id);
    assert_eq!((task.status, task.attempt), (TaskStatus::Completed, 1), "{task:?}");
}

/// Waits until an engine can write to its storage.
fn until_writable(engine: &TestEngine) {
    wait::until("the engine to reach its storage", || {
        engine.client().call(GetStatus {}).ok().filter(|status| status.storage.writable)
    });
}

/// `orchestrator storage …` in a directory, without what whoever runs the tests has in the environment.
fn storage(directory: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(ENGINE);
    command.arg("storage").args(words).current_dir(directory);
    for variable in ["SURREAL_USER", "SURREAL_PASS", "SSL_CERT_FILE", "SSL_CERT_DIR"] {
        command.env_remove(variable);
    }
    command
}

/// What a command answers in JSON.
fn answered<T: DeserializeOwned>(command: &mut Command) -> T {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Why a command does nothing. It says so itself: it does not panic.
fn refusal(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{command:?}: {words}");
    words
}

/// What came back over HTTP.
#[derive(Debug)]
struct Answer {
    status: u16,
    /// In lower case.
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Sends a request over a connection of its own, and reads the answer. `head` are further lines of its head,
/// each with its end.
fn http(address: SocketAddr, what: &str, head: &str, body: &str) -> Answer {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(wait::PATIENCE)).unwrap();
    let length = body.len();
    let request = format!(
        "{what} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n{head}\r\n{body}"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: '{answer}'"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
}

/// What a server says to somebody who writes statements by hand.
struct Console {
    address: SocketAddr,
    authorization: String,
}

impl Console {
    /// Of somebody who is not known.
    fn open(server: &SurrealServer) -> Self {
        Self { address: server.address(), authorization: String::new() }
    }

    /// Of a user.
    fn sign_in(server: &SurrealServer, user: &Value) -> Self {
        let address = server.address();
        let answer = http(address, "POST /signin", "Accept: text/plain\r\n", &user.to_string());
        assert_eq!(answer.status, 200, "{answer:?}");
        Self { address, authorization: format!("Authorization: Bearer {}\r\n", answer.body) }
    }

    /// Of the administrator.
    fn of_root(server: &SurrealServer) -> Self {
        Self::sign_in(server, &json!({"user": "root", "pass": "root"}))
    }

    /// What came of each statement.
    fn run(&self, statements: &str) -> Vec<Value> {
        let head = format!("Accept: application/json\r\n{}", self.authorization);
        let answer = http(self.address, "POST /sql", &head, statements);
        assert_eq!(answer.status, 200, "{answer:?}");
        serde_json::from_value(answer.json()).unwrap()
    }

    /// The names of a kind, by the last of some statements.
    fn names(&self, statements: &str, kind: &str) -> Vec<String> {
        let results = self.run(statements);
        let of_kind = results.last().and_then(|last| last["result"][kind].as_object());
        let of_kind = of_kind.unwrap_or_else(|| panic!("{statements}: no {kind}: {results:?}"));
        of_kind.keys().cloned().collect()
    }
}

#[test]
fn an_engine_goes_on_through_an_outage_of_its_server() {
    let Some(mut server) = server(true) else { return };
    let options = server.database("ws");
    // An address that no other test of this machine has: 127, then 24 bits by chance.
    let [_, a, b, c] = rand::random::<u32>().to_be_bytes();
    let address = SocketAddr::from((Ipv4Addr::new(127, a, b, c), 8080));
    let (ip, port) = (address.ip().to_string(), address.port().to_string());
    let mut engine = engine(&options, &["--bind", &ip, "--port", &port, "--max-parallel", "1"]);
    engine.start();
    let (engine, ready) = (&engine, || http(address, "GET /ready", "", ""));
    assert_eq!(ready().status, 200);
    // It ends with the directory, should the test fail.
    let script = r#"while [ -e count ] && [ ! -e open ]; do
    n=$((n + 1)); echo "line $n"; echo "$n" >> printed; sleep 0.05
done"#;
    let count = engine.script("count", script);
    let printed =
        || fs::read_to_string(engine.directory().join("printed")).unwrap_or_default().lines().count();
    let held = engine.submit(NewTask { on_engine_loss: Some(OnEngineLoss::Hold), ..engine.run(&count) });
    wait::until("the script to print", || (printed() > 0).then_some(()));
    // Each run of a task leaves a file that no other run may leave. They wait: only one runs at a time.
    let short = engine.script("short", "set -C; : > \"ran.$ORCHESTRATOR_TASK_ID.$ORCHESTRATOR_ATTEMPT\"");
    let mut acknowledged: Vec<_> = (0..5).map(|_| engine.submit(engine.run(&short))).collect();
    server.kill();
    let unready =
        wait::until("the engine not to be ready", || Some(ready()).filter(|answer| answer.status == 503));
    let reason = unready.json()["error"].as_str().unwrap_or_default().to_owned();
    assert!(reason.contains(&format!("{} cannot be reached", options.url)), "{unready:?}");
    let submit = |name: &str| {
        let body = json!({"tasks": [{"name": name, "script": short}]}).to_string();
        http(address, "POST /workflows", "Content-Type: application/json\r\n", &body)
    };
    // Longer than a lease lasts: it is tried for ten seconds. One that waits behind a commit whose answer was
    // lost is given up before it is known that it will not be made, and nobody is told to ask again.
    let refused = wait::until("a submission to be refused", || {
        let refused = submit("refused");
        assert_eq!(refused.status, 503, "{refused:?}");
        refused.head.contains("\r\nretry-after: ").then_some(refused)
    });
    assert_eq!(refused.json()["code"], "unavailable", "{refused:?}");
    let before = printed();
    wait::until("the script to print on", || (printed() > before + 2).then_some(()));
    server.resume();
    wait::until("the engine to be ready again", || (ready().status == 200).then_some(()));
    let accepted = submit("accepted");
    assert_eq!(accepted.status, 202, "{accepted:?}");
    acknowledged.push(accepted.json()["data"].as_str().unwrap().parse().unwrap());
    open_gate(engine);
    let task = engine.wait(held);
    assert_eq!((task.status, task.attempt), (TaskStatus::Completed, 1), "{task:?}");
    for id in &acknowledged {
        let task = engine.wait(*id);
        assert_eq!((task.status, task.attempt), (TaskStatus::Completed, 1), "{task:?}");
    }
    assert_eq!(engine.tasks().len(), acknowledged.len() + 1, "what was refused was not written");
    let ran = fs::read_dir(engine.directory()).unwrap().flatten();
    let ran = ran.filter(|file| file.file_name().to_string_lossy().starts_with("ran.")).count();
    assert_eq!(ran, acknowledged.len(), "each has run once");
    let lines: Vec<String> = (1..=printed()).map(|n| format!("line {n}")).collect();
    assert_eq!(engine.lines(held, OutputStream::Stdout), lines);
    // Another engine has only what was shipped.
    let mut other = self::engine(&options, &[]);
    other.start();
    let shipped = wait::until("the last line", || {
        let shipped = other.lines(held, OutputStream::Stdout);
        (shipped.len() >= lines.len()).then_some(shipped)
    });
    assert_eq!(shipped, lines);
}

#[test]
fn init_prepares_a_server_and_the_engine_signs_in_again_by_itself() {
    let Some(mut server) = server(false) else { return };
    let options = server.database("ws");
    let directory = tempfile::tempdir().unwrap();
    let init = || -> Initialised {
        let words = ["init", "--json", "--surrealdb-password-file", "engine.password"];
        answered(storage(directory.path(), &words).args(place(&options)).env("SURREAL_PASS", "root"))
    };
    let made = init();
    let file = directory.path().join("engine.password");
    assert_eq!(made.username, "orchestrator");
    assert_eq!(made.location, format!("{}/{}/tasks", options.url, options.namespace));
    assert!(made.password_file.is_some());
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let password = fs::read_to_string(&file).unwrap();
    assert!(password.trim().len() >= 16, "too short to be safe");
    let user = ["--surrealdb-username", "orchestrator", "--surrealdb-password-file", file.to_str().unwrap()];
    let mut engine = engine(&options, &user);
    engine.start();
    finish_one(&engine);
    let again = init();
    assert_eq!(again, Initialised { password_file: None, ..made });
    assert_eq!(fs::read_to_string(&file).unwrap(), password);
    finish_one(&engine);
    server.kill();
    server.resume();
    until_writable(&engine);
    finish_one(&engine);
    assert_eq!(engine.tasks().len(), 3);
}

#[test]
fn init_takes_the_user_of_the_configuration_file() {
    let Some(server) = server(false) else { return };
    let ServerOptions { url, namespace, .. } = server.database("ws");
    let directory = tempfile::tempdir().unwrap();
    let in_directory = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (config, password) = (in_directory("orchestrator.toml"), in_directory("worker.password"));
    let text = format!(
        "storage_type = \"surrealdb-server\"\nsurrealdb_url = \"{url}\"\nsurrealdb_namespace = \"{namespace}\"\n\
         surrealdb_username = \"worker\"\n"
    );
    fs::write(&config, text).unwrap();
    fs::write(in_directory("root.password"), "root\n").unwrap();
    let user = ["--config", config.as_str(), "--surrealdb-password-file", password.as_str()];
    let words = [&["init", "--json", "--root-password-file", "root.password"][..], &user].concat();
    let made: Initialised = answered(&mut storage(directory.path(), &words));
    assert_eq!(made.username, "worker");
    let database = format!("USE NS `{namespace}` DB tasks; INFO FOR DB");
    assert_eq!(Console::of_root(&server).names(&database, "users"), ["worker"]);
    let mut engine = TestEngine::new(ENGINE).with_arguments(&user);
    engine.start();
    finish_one(&engine);
}

#[test]
fn init_writes_nothing_where_a_password_is_missing() {
    let Some(server) = server(false) else { return };
    let options = server.database("ws");
    let directory = tempfile::tempdir().unwrap();
    let init = |file: &str| {
        let mut command = storage(directory.path(), &["init", "--surrealdb-password-file", file]);
        command.args(place(&options));
        command
    };
    let refused = refusal(&mut init("new.password"));
    assert!(refused.contains("--root-password-file"), "{refused}");
    assert!(!directory.path().join("new.password").exists());
    for nothing in ["", "\n"] {
        let file = directory.path().join("empty.password");
        fs::write(&file, nothing).unwrap();
        let refused = refusal(init("empty.password").env("SURREAL_PASS", "root"));
        assert!(refused.contains("empty.password") && refused.contains("no password"), "{refused}");
        assert_eq!(fs::read_to_string(&file).unwrap(), nothing);
    }
    // No namespace, and so no user in it.
    let namespaces = Console::of_root(&server).names("INFO FOR ROOT", "namespaces");
    assert!(!namespaces.contains(&options.namespace), "{namespaces:?}");
}

#[test]
fn the_user_of_engines_can_do_nothing_outside_the_database() {
    let Some(server) = server(false) else { return };
    let options = server.database("ws");
    let directory = tempfile::tempdir().unwrap();
    let words = ["init", "--json", "--surrealdb-password-file", "engine.password"];
    let made: Initialised =
        answered(storage(directory.path(), &words).args(place(&options)).env("SURREAL_PASS", "root"));
    let root = Console::of_root(&server);
    let secret = "DEFINE NAMESPACE other; USE NS other; DEFINE DATABASE other; USE NS other DB other; \
                  CREATE word SET text = 'hush'";
    for result in root.run(secret) {
        assert_eq!(result["status"], "OK", "{result}");
    }
    let look = "USE NS other DB other; SELECT * FROM word";
    assert!(root.run(look)[1].to_string().contains("hush"));
    let password = fs::read_to_string(directory.path().join("engine.password")).unwrap();
    let (namespace, password) = (&options.namespace, password.trim());
    let user = json!({"ns": namespace, "db": "tasks", "user": made.username, "pass": password});
    let engine = Console::sign_in(&server, &user);
    let own = engine.run("SELECT VALUE version FROM ONLY store:schema");
    assert_eq!(own[0]["result"], 1, "{own:?}");
    for statements in [
        look,
        "INFO FOR ROOT",
        "DEFINE USER intruder ON ROOT PASSWORD 'x' ROLES OWNER",
        "DEFINE USER intruder ON NAMESPACE PASSWORD 'x' ROLES OWNER",
        "DEFINE USER intruder ON DATABASE PASSWORD 'x' ROLES OWNER",
        "DEFINE NAMESPACE intruder",
        "DEFINE DATABASE intruder",
        "REMOVE NAMESPACE other",
        "REMOVE DATABASE tasks",
    ] {
        let results = engine.run(statements);
        assert_eq!(results[0]["status"], "ERR", "{statements}: {results:?}");
        let said = format!("{results:?}");
        assert!(said.contains("permission") && !said.contains("hush"), "{statements}: {said}");
    }
    assert_eq!(root.names("INFO FOR ROOT", "users"), ["root"]);
    assert!(!root.names("INFO FOR ROOT", "namespaces").contains(&"intruder".to_owned()));
    assert_eq!(root.names(&format!("USE NS `{namespace}`; INFO FOR NS"), "databases"), ["tasks"]);
}

#[test]
fn a_password_on_the_command_line_is_hidden_once_the_engine_is_ready() {
    let Some(server) = server(false) else { return };
    let options = server.database("ws");
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("engine.password"), "hush\n").unwrap();
    let words = ["init", "--json", "--surrealdb-password-file", "engine.password"];
    let made: Initialised =
        answered(storage(directory.path(), &words).args(place(&options)).env("SURREAL_PASS", "root"));
    assert_eq!(made.password_file, None, "it is taken as it is");
    let user = ["--surrealdb-username", "orchestrator", "--surrealdb-password", "hush"];
    let mut engine = engine(&options, &user);
    engine.start();
    let line = fs::read(format!("/proc/{}/cmdline", engine.pid())).unwrap();
    let line = String::from_utf8_lossy(&line).replace('\0', " ");
    assert!(line.contains("--surrealdb-username orchestrator"), "{line}");
    assert!(!line.contains("hush") && !line.contains("--surrealdb-password"), "{line}");
    let log = engine.log();
    assert!(log.contains("--surrealdb-password-file") && !log.contains("hush"), "{log}");
    // It is not handed on either.
    let script = engine.script("tell", r#"echo "${ORCHESTRATOR_SURREALDB_PASSWORD-nothing}""#);
    let id = engine.submit(engine.run(&script));
    assert_eq!(engine.wait(id).status, TaskStatus::Completed);
    assert_eq!(engine.lines(id, OutputStream::Stdout), ["nothing"]);
}

#[test]
fn a_command_that_looks_at_a_storage_that_is_not_there_makes_none() {
    let Some(server) = server(true) else { return };
    let directory = tempfile::tempdir().unwrap();
    let console = Console::open(&server);
    // A namespace that is missing, and a database that is missing in one that is there.
    let (nowhere, bare) = (server.database("ws"), server.database("http"));
    console.run(&format!("DEFINE NAMESPACE `{}`", bare.namespace));
    for options in [&nowhere, &bare] {
        for words in [
            &["status"][..],
            &["validate", "--to", "filesystem", "--target-dir", "new"],
            &["export", "records.jsonl"],
        ] {
            let words = [words, &["--from", "surrealdb-server"], &place(options)].concat();
            let refused = refusal(&mut storage(directory.path(), &words));
            assert!(refused.contains("there is no storage"), "{words:?}: {refused}");
        }
    }
    let namespaces = console.names("INFO FOR ROOT", "namespaces");
    assert!(!namespaces.contains(&nowhere.namespace), "{namespaces:?}");
    let databases = console.names(&format!("USE NS `{}`; INFO FOR NS", bare.namespace), "databases");
    assert!(databases.is_empty(), "{databases:?}");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn a_database_that_is_only_looked_at_as_a_target_is_not_made() {
    let Some(server) = server(true) else { return };
    let mut engine = TestEngine::new(ENGINE).with_arguments(&["--storage-type", "filesystem"]);
    engine.start();
    let (online, offline) = (server.database("ws"), server.database("http"));
    let to = StorageTarget {
        storage_type: "surrealdb-server".into(),
        url: Some(online.url),
        namespace: Some(online.namespace.clone()),
        ..StorageTarget::default()
    };
    let found = engine.ask(ValidateMigration { to });
    assert!(found.is_possible, "{found:?}");
    engine.terminate();
    let data_dir = engine.data_dir();
    let words = [
        "validate",
        "--json",
        "--data-dir",
        data_dir.to_str().unwrap(),
        "--from",
        "filesystem",
        "--to",
        "surrealdb-server",
        "--target-url",
        offline.url.as_str(),
        "--target-namespace",
        offline.namespace.as_str(),
    ];
    let found: Validation = answered(&mut storage(engine.directory(), &words));
    assert!(found.is_possible, "{found:?}");
    let namespaces = Console::open(&server).names("INFO FOR ROOT", "namespaces");
    for namespace in [&online.namespace, &offline.namespace] {
        assert!(!namespaces.contains(namespace), "{namespaces:?}");
    }
}

#[test]
fn a_server_is_reached_over_tls_where_its_certificate_is_trusted() {
    if !is_asked_for("surrealdb-server") {
        return;
    }
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let server = SurrealServer::start_with_tls(SERVER, &made.cert.pem(), &made.signing_key.serialize_pem());
    let certificate = server.certificate();
    let certificate = certificate.to_str().unwrap();
    for scheme in ["wss", "https"] {
        let options = server.database(scheme);
        let mut engine = engine(&options, &[]);
        engine.start_in_environment("SSL_CERT_FILE", certificate);
        finish_one(&engine);
        let words =
            [&["status", "--json", "--storage-type", "surrealdb-server"][..], &place(&options)].concat();
        let mut command = storage(engine.directory(), &words);
        let report: StorageReport = answered(command.env("SSL_CERT_FILE", certificate));
        assert_eq!((report.place.backend.as_str(), report.tables["task"]), ("surrealdb-server", 1));
        let refused = refusal(&mut storage(engine.directory(), &words));
        assert!(refused.contains("certificate"), "{scheme}: {refused}");
    }
}
