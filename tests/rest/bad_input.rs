//! The table of bad input: each row has a test here, and each test a row.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use orchestrator_protocol::task::{TaskId, TaskStatus};
use orchestrator_tests::wait;
use serde_json::{Value, json};

use crate::door::{Door, needed};
use crate::http::{Answer, Connection};
use crate::page::{Page, Row};
use crate::pattern::fits;
use crate::sse::Events;

const GIB: u64 = 1 << 30;
/// A user who is neither root nor whoever runs the tests.
const NOBODY: u32 = 65_534;
/// A well-formed id that no task and no environment has.
const NOBODYS: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

/// How a row is sent, and what came back, if anything can.
type Send = fn(&mut Door) -> Option<Answer>;

const CASES: &[(&str, Send)] = &[
    ("malformed JSON", |door| servers(door, r#"{"infra": "production",, }"#)),
    ("a body that is not UTF-8", |door| {
        let head = door.request("POST", "/workflows", &["Content-Type: application/json"], "{'tasks': []}");
        let mut bytes = head.replace('\'', "\"").into_bytes();
        let at = bytes.windows(5).rposition(|window| window == b"tasks").unwrap();
        bytes[at] = 0xff;
        Some(door.talk(bytes))
    }),
    ("JSON nested 10 000 deep", |door| {
        let params = "[".repeat(10_000) + &"]".repeat(10_000);
        tasks(door, &format!(r#"[{{"script": "ok", "params": {params}}}]"#))
    }),
    ("an empty body", |door| servers(door, "")),
    ("a list in place of an object, of what its fields hold", |door| {
        let list = r#"["production", "settings.yaml", ["web-01"], false, false, {}, {}, 0, false, null, null, null]"#;
        servers(door, list)
    }),
    (r#"a wrong type: `"servers": "web-01"`"#, |door| servers(door, &with("servers", json!("web-01")))),
    (r#"an unknown field: `"server"` for `"servers"`"#, |door| {
        servers(door, &with("server", json!(["web-01"])))
    }),
    ("a field left out: no `infra`", |door| servers(door, r#"{"settings": "./settings.yaml"}"#)),
    (r#"an unknown operation: `"destroy"`"#, |door| {
        let body = with("cluster_type", json!("cache")).replacen('{', r#"{"operation": "destroy", "#, 1);
        Some(door.post("/workflows/cluster/create", &body))
    }),
    ("a settings file that does not exist", |door| servers(door, &with("settings", json!("./nowhere.yaml")))),
    ("a script that does not exist", |door| tasks(door, r#"[{"script": "nowhere.nu"}]"#)),
    ("a hostile server name: `--x;^rm`", |door| {
        servers(door, &with("servers", json!(["web-01", "--x;^rm"])))
    }),
    ("a hostile infra name: `../../etc`", |door| servers(door, &with("infra", json!("../../etc")))),
    ("a hostile taskserv name: `$(reboot)`", |door| {
        Some(door.post("/workflows/taskserv/create", &with("taskserv", json!("$(reboot)"))))
    }),
    ("a hostile task name: an escape sequence", |door| {
        tasks(door, r#"[{"name": "\u001b[2J", "script": "ok"}]"#)
    }),
    ("a secret's value in place of a reference", |door| {
        tasks(door, r#"[{"script": "ok", "secrets": {"PASSWORD": "hunter2"}}]"#)
    }),
    (r#"an unknown kind of environment: `"type": "vm"`"#, |door| environment(door, json!({"type": "vm"}))),
    (r#"an unknown field of a node: `"rolle"`"#, |door| {
        topology(door, json!([{"name": "a"}, {"name": "b", "rolle": "member"}]))
    }),
    ("a field left out of a fault: no `node`", |door| {
        let body = r#"{"fault": {"kind": "kill"}}"#;
        Some(door.post(&format!("/test/environments/{NOBODYS}/faults"), body))
    }),
    ("a hostile node name: `../../etc`", |door| topology(door, json!([{"name": "../../etc"}]))),
    ("a taskserv that is not there: `nowhere`", |door| {
        environment(door, json!({"type": "single_taskserv", "taskserv": "nowhere"}))
    }),
    ("a test's script that does not exist", |door| tested(door, "./nowhere.sh")),
    ("a test's script outside `script_roots`", |door| tested(door, "/bin/sh")),
    ("no server to delete", |door| Some(door.post("/workflows/servers/delete", &with("servers", json!([]))))),
    ("a cycle: `a` after `b` after `a`", |door| {
        let cycle = r#"[{"name": "a", "script": "ok", "after": ["b"]}, {"name": "b", "script": "ok", "after": ["a"]}]"#;
        tasks(door, cycle)
    }),
    ("`after` an unknown task", |door| tasks(door, r#"[{"name": "a", "script": "ok", "after": ["z"]}]"#)),
    ("a body of 1 GiB, announced", |door| {
        let announced = format!("Content-Length: {GIB}\r\n");
        let request = door.request("POST", "/workflows", &["Content-Type: application/json"], "");
        Some(door.talk(request.replace("Content-Length: 0\r\n", &announced)))
    }),
    ("a body of 1 GiB, in chunks", |door| Some(endless(door))),
    ("`Content-Type: text/plain`", |door| {
        Some(door.talk(door.request("POST", "/workflows", &["Content-Type: text/plain"], r#"{"tasks": []}"#)))
    }),
    ("no `Content-Type`", |door| {
        Some(door.talk(door.request("POST", "/workflows", &[], r#"{"tasks": []}"#)))
    }),
    ("a foreign `Host`", |door| Some(door.talk(door.request("GET", "/tasks", &["Host: example.org"], "")))),
    ("a foreign `Origin`", |door| {
        Some(door.talk(door.request("GET", "/tasks", &["Origin: https://example.org"], "")))
    }),
    ("another user's process on loopback", strangers),
    ("an unknown id", |door| Some(door.get(&format!("/tasks/{NOBODYS}")))),
    ("an id that is none", |door| Some(door.get("/tasks/web-01"))),
    ("an environment's id that is none", |door| Some(door.get("/test/environments/redis"))),
    ("an unknown environment", |door| Some(door.get(&format!("/test/environments/{NOBODYS}")))),
    ("an unknown state of environments in a query", |door| {
        Some(door.get("/test/environments?status=broken"))
    }),
    ("a path that climbs: `/tasks/..%2F..%2Fetc%2Fpasswd`", |door| {
        Some(door.get("/tasks/..%2F..%2Fetc%2Fpasswd"))
    }),
    ("an unknown path", |door| Some(door.get("/nowhere"))),
    ("a wrong method", |door| Some(door.talk(door.request("DELETE", "/tasks", &[], "")))),
    ("an unknown query parameter", |door| Some(door.get("/tasks?stauts=failed"))),
    ("an unknown status in a query", |door| Some(door.get("/tasks?status=broken"))),
    ("a `Last-Event-ID` that is no cursor", |door| {
        Some(door.talk(door.request("GET", "/events", &["Last-Event-ID: yesterday"], "")))
    }),
    ("a used idempotency key with another request", |door| {
        let key = ["Idempotency-Key: used"];
        let first = door.post_with("/workflows", &key, r#"{"tasks": [{"script": "ok"}]}"#);
        assert_eq!(first.status, 202, "{first:?}");
        Some(door.post_with("/workflows", &key, r#"{"tasks": [{"script": "ok", "priority": 1}]}"#))
    }),
    ("two different idempotency keys", |door| {
        let body = r#"{"tasks": [{"script": "ok"}], "idempotency_key": "one"}"#;
        Some(door.post_with("/workflows", &["Idempotency-Key: two"], body))
    }),
    ("a retry of a completed task", |door| {
        let id = door.queue("/workflows", &json!({"tasks": [{"script": "ok"}]}));
        assert_eq!(door.get(&format!("/tasks/{id}?wait=true")).json()["data"]["status"], "Completed");
        Some(door.post(&format!("/tasks/{id}/retry"), ""))
    }),
    ("the 129th client that waits or listens", |door| {
        let _listening: Vec<Events> = (0..128).map(|_| Events::listen(door, "", None)).collect();
        Some(door.get("/events"))
    }),
    ("a client that disconnects while it waits", disconnects),
    ("an engine that stops while a client waits", stops),
];

/// A request for servers with one field changed.
fn with(field: &str, value: Value) -> String {
    let mut body = json!({"infra": "production", "settings": "./settings.yaml"});
    body[field] = value;
    body.to_string()
}

fn servers(door: &mut Door, body: &str) -> Option<Answer> {
    Some(door.post("/workflows/servers/create", body))
}

fn tasks(door: &mut Door, tasks: &str) -> Option<Answer> {
    Some(door.post("/workflows", &format!(r#"{{"tasks": {tasks}}}"#)))
}

fn environment(door: &mut Door, config: Value) -> Option<Answer> {
    Some(door.post("/test/environments/create", &json!({"config": config}).to_string()))
}

fn topology(door: &mut Door, nodes: Value) -> Option<Answer> {
    let topology = json!({"nodes": nodes});
    environment(door, json!({"type": "cluster_topology", "cluster_type": "web", "topology": topology}))
}

/// An environment whose run would have this test.
fn tested(door: &mut Door, script: &str) -> Option<Answer> {
    let config = json!({"type": "single_taskserv", "taskserv": "redis"});
    let body = json!({"config": config, "auto_start": true, "run": {"tests": [{"script": script}]}});
    Some(door.post("/test/environments/create", &body.to_string()))
}

/// A body whose end is not told, and does not come before it is too much.
fn endless(door: &mut Door) -> Answer {
    const CHUNK: usize = 64 * 1024;
    let request = format!(
        "POST /workflows HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
        door.address
    );
    let connection = Connection::open(door.address);
    connection.send(request);
    let socket = connection.socket().try_clone().unwrap();
    let chunk = format!("{CHUNK:x}\r\n{}\r\n", " ".repeat(CHUNK));
    let writer = std::thread::spawn(move || {
        crate::http::write_while_taken(&socket, chunk.as_bytes(), GIB as usize / CHUNK)
    });
    let answer = connection.answer();
    let taken = writer.join().unwrap();
    assert!(taken < GIB as usize / CHUNK / 4, "{taken} chunks were taken");
    answer
}

/// A process of another user's that asks, and what it is told. Only root can start one.
fn strangers(door: &mut Door) -> Option<Answer> {
    let is_root = rustix::process::getuid().is_root();
    needed("root, who can be another user", is_root.then_some(()))?;
    let script = r#"exec 3<>"/dev/tcp/$1/$2" && printf '%s' "$3" >&3 && cat <&3"#;
    let address = door.address;
    let request = door.request("GET", "/tasks", &[], "");
    let output = Command::new("bash")
        .args(["-c", script, "client", &address.ip().to_string(), &address.port().to_string(), &request])
        .current_dir("/")
        .stdin(Stdio::null())
        .gid(NOBODY)
        .uid(NOBODY)
        .output()
        .unwrap();
    Some(Answer::read(output.stdout.as_slice()))
}

/// A client that goes away while it waits, whose task runs on, once, to its end.
fn disconnects(door: &mut Door) -> Option<Answer> {
    let directory = door.engine.directory().to_owned();
    let body = json!({"wait": true, "tasks": [{"name": "waited for", "script": "gate"}]}).to_string();
    let connection = Connection::open(door.address);
    connection.send(door.request("POST", "/workflows", &["Content-Type: application/json"], &body));
    wait::until("the script to run", || directory.join("begun").exists().then_some(()));
    drop(connection);
    fs::write(directory.join("go"), "").unwrap();
    let list = || door.get("/tasks?text=waited").json()["data"].clone();
    wait::until("the task to end", || (list()[0]["status"] == "Completed").then_some(()));
    assert_eq!(list().as_array().unwrap().len(), 1, "it was queued once");
    assert_eq!(list()[0]["attempt"], 1);
    assert_eq!(fs::read_to_string(directory.join("begun")).unwrap(), "begun\n", "it ran once");
    None
}

/// A client that is told that the engine stops, and how to find the task again. The task goes on.
fn stops(door: &mut Door) -> Option<Answer> {
    let directory = door.engine.directory().to_owned();
    for file in ["begun", "go"] {
        fs::remove_file(directory.join(file)).or_else(absent).unwrap();
    }
    let body = json!({"wait": true, "tasks": [{"script": "gate"}]}).to_string();
    let connection = Connection::open(door.address);
    connection.send(door.request("POST", "/workflows", &["Content-Type: application/json"], &body));
    wait::until("the script to run", || directory.join("begun").exists().then_some(()));
    assert_eq!(door.post("/engine/stop", r#"{"mode": "now"}"#).status, 202);
    let answer = connection.answer();
    assert!(door.engine.wait_ended().success());
    door.engine.start();
    fs::write(directory.join("go"), "").unwrap();
    let id: TaskId = answer.json()["details"]["task"].as_str().unwrap().parse().unwrap();
    assert_eq!(door.engine.wait(id).status, TaskStatus::Completed);
    Some(answer)
}

fn absent(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

#[test]
fn every_row_is_tested_and_every_test_has_a_row() {
    let page = Page::read();
    let rows: BTreeSet<&str> = page.rows.iter().map(|row| row.sent.as_str()).collect();
    let cases: BTreeSet<&str> = CASES.iter().map(|(sent, _)| *sent).collect();
    assert_eq!(rows, cases);
    assert_eq!(rows.len(), page.rows.len(), "a row stands twice");
}

#[test]
fn bad_input_is_told_what_is_wrong_with_it() {
    let mut door = Door::open(&[]);
    door.engine.script("ok", "");
    door.engine.script("gate", "echo begun >> begun; while [ ! -e go ]; do sleep 0.01; done");
    fs::write(door.engine.directory().join("settings.yaml"), "infra: production\nservers: []\n").unwrap();
    let mut faults = Vec::new();
    for row in &Page::read().rows {
        let Some((_, send)) = CASES.iter().find(|(sent, _)| *sent == row.sent) else { continue };
        let before = door.engine.tasks().len();
        if let Some(answer) = send(&mut door) {
            faults.extend(fault(row, &answer));
        }
        let is_refused = row.status.starts_with('4') && row.status != "409";
        if is_refused && door.engine.tasks().len() != before {
            faults.push(format!("{}: something was queued", row.sent));
        }
        assert_eq!(door.get("/health").status, 200, "the engine is well after: {}", row.sent);
    }
    assert!(faults.is_empty(), "{}\n{}", faults.join("\n"), door.engine.log());
}

/// What of an answer is not as its row says.
fn fault(row: &Row, answer: &Answer) -> Option<String> {
    let body = answer.json();
    let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
    let found = [answer.status.to_string(), text("code"), text("error")];
    let is_as_said = found[0] == row.status
        && found[1] == row.code
        && fits(&row.message, &found[2])
        && !found[2].is_empty();
    let is_failure = body["success"] == false && body["data"].is_null() && body.get("details").is_some();
    // Nothing offers for repetition what was done: the one that was waited for was submitted.
    let is_for_now = matches!(answer.status, 429 | 503) && body["details"]["task"].is_null();
    let says_when = answer.header("retry-after").is_some() == is_for_now;
    (!is_as_said || !is_failure || !says_when).then(|| format!("{}: {found:?} {answer:?}", row.sent))
}
