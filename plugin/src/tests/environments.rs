//! Test environments: what is asked for, what comes back, what is pointed at.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::sync::Mutex;

use nu_protocol::Value;
use orchestrator_protocol::Error;
use orchestrator_protocol::environment::{
    DiskPolicy, Environment, EnvironmentConfig, EnvironmentId, EnvironmentRequest, EnvironmentStatus,
    EnvironmentTask, Fault, NamedTopology, NodeConfig, NodeLine, Topology,
};
use orchestrator_protocol::event::{Item, OutputStream};
use orchestrator_protocol::request::{Changed, Request, Response, Subscription};
use orchestrator_protocol::task::{CancelRequest, Task, TaskId, TaskStatus};
use serde_json::json;

use super::fixtures::{environment, moment, result, task};
use super::played::{Behaviour, Play, Played, Stream, Then};

/// An engine with one environment, whose work ends as it is told.
struct Testing {
    environment: Environment,
    ended: TaskStatus,
    /// Whether work ends only when it is called off.
    hangs: Mutex<bool>,
}

impl Testing {
    fn new(environment: Environment, ended: TaskStatus) -> Self {
        Self { environment, ended, hangs: Mutex::new(false) }
    }
}

fn node(name: &str) -> NodeConfig {
    NodeConfig { name: name.into(), taskservs: vec!["etcd".into()], ..NodeConfig::default() }
}

impl Behaviour for Testing {
    fn answer(&self, request: &Request) -> Play {
        let made = EnvironmentTask {
            environment: self.environment.id,
            task: TaskId(self.environment.id.0),
            existed: false,
        };
        match request {
            Request::CreateEnvironment(_) => Response::CreateEnvironment(made).into(),
            Request::RunEnvironment(run) => Response::RunEnvironment(EnvironmentTask {
                environment: run.id,
                task: TaskId(run.id.0),
                ..made
            })
            .into(),
            Request::CleanEnvironment(clean) => Response::CleanEnvironment(EnvironmentTask {
                environment: clean.id,
                task: TaskId(clean.id.0),
                ..made
            })
            .into(),
            Request::Cancel(cancel) => {
                *self.hangs.lock().unwrap() = false;
                let cancelled = Task { id: cancel.id, ..task("redis") };
                Response::Cancel(Changed { task: Box::new(cancelled), others: Vec::new() }).into()
            }
            Request::GetEnvironment(get) => {
                let found = Environment { id: get.id, ..self.environment.clone() };
                Response::GetEnvironment(Box::new(found)).into()
            }
            Request::InjectFault(_) => Response::InjectFault(Box::new(self.environment.clone())).into(),
            Request::ListTopologies(_) => Response::ListTopologies(vec![NamedTopology {
                name: "etcd_cluster".into(),
                description: "A quorum.".into(),
                cluster_type: "etcd".into(),
                file: None,
                topology: Topology {
                    nodes: vec![
                        node("etcd-01"),
                        NodeConfig { base_image: Some("own".into()), ..node("etcd-02") },
                    ],
                    ..Topology::default()
                },
            }])
            .into(),
            other => Play::Refuse(Error::internal(other.name())),
        }
    }

    fn stream(&self, subscription: &Subscription) -> Stream {
        let ids = match subscription {
            Subscription::Watch { ids } => ids,
            Subscription::EnvironmentLogs(logs) if logs.node.is_some() => {
                let refusal = Error::not_found("there is no node 'web'").with_field("node");
                return Stream { items: Vec::new(), then: Then::End(Some(refusal)) };
            }
            _ => {
                let line = |stream, text: &str| {
                    Item::Node(NodeLine {
                        node: "redis".into(),
                        step: "start redis".into(),
                        time: moment(),
                        stream,
                        line: text.into(),
                    })
                };
                let items = vec![line(OutputStream::Stdout, "up"), line(OutputStream::Stderr, "slow")];
                return Stream { items, then: Then::End(None) };
            }
        };
        let hangs = *self.hangs.lock().unwrap();
        let status = if hangs { TaskStatus::Running } else { self.ended };
        let cancel = (status == TaskStatus::Cancelled).then(|| CancelRequest {
            reason: "its time was over".into(),
            at: moment(),
            caused_by: None,
        });
        let item = |id: &TaskId| {
            let error = cancel.is_some().then(|| "1 of 2 tasks were cancelled".to_owned());
            Item::Task(Box::new(Task { id: *id, status, cancel: cancel.clone(), error, ..task("redis") }))
        };
        let then = if hangs { Then::Wait } else { Then::End(None) };
        Stream { items: ids.iter().map(item).collect(), then }
    }
}

fn ready() -> Testing {
    Testing::new(environment(EnvironmentStatus::Ready), TaskStatus::Completed)
}

fn asked_for(engine: &Played) -> EnvironmentRequest {
    let created = engine.asked().into_iter().find_map(|request| match request {
        Request::CreateEnvironment(request) => Some(request),
        _ => None,
    });
    created.unwrap()
}

fn column(value: &Value, name: &str) -> Value {
    value.get_data_by_key(name).unwrap()
}

fn names(engine: &Played) -> Vec<&'static str> {
    engine.asked().iter().map(Request::name).collect()
}

const LIMITS: &str = "--infra i --base-image b --env {A: 1} --cpu 500 --memory 512MiB --disk 2GiB --max-processes 99 \
                      --disk-policy watch --no-keep --no-prepared --pull --expires-after 2hr --priority 3 \
                      --idempotency-key k";

#[test]
fn an_environment_is_asked_for_with_all_that_was_said_of_it() {
    let engine = Played::start(ready());
    engine.shell().value(&format!(
        "orchestrator test env single redis {LIMITS} --auto-start --auto-cleanup --option {{port: 7, other: {{a: b}}}} \
         --script [check.sh {{script: /x/more.sh, name: more, nodes: [redis], timeout: 2sec}}] --idempotence-check \
         --fault [{{kind: kill, node: redis}} 'restart redis' {{kind: heal, verify: false}}]"
    ));
    let sent = serde_json::to_value(asked_for(&engine)).unwrap();
    let expected = json!({
        "config": {
            "type": "single_taskserv", "taskserv": "redis", "base_image": "b", "environment": {"A": "1"},
            "resources": {"cpu_millicores": 500, "memory_mb": 512, "disk_mb": 2048, "max_processes": 99},
            "taskserv_options": {"redis": {"port": 7}, "other": {"a": "b"}},
        },
        "infra": "i", "auto_start": true, "auto_cleanup": true, "keep_on_failure": false,
        "run": {
            "tests": [
                {"name": null, "script": "/tmp/check.sh", "nodes": [], "timeout_ms": null},
                {"name": "more", "script": "/x/more.sh", "nodes": ["redis"], "timeout_ms": 2000},
            ],
            "idempotence_check": true,
            "faults": [
                {"fault": {"kind": "kill", "node": "redis"}, "verify": true},
                {"fault": {"kind": "restart", "node": "redis"}, "verify": true},
                {"fault": {"kind": "heal"}, "verify": false},
            ],
        },
        "disk_policy": "watch", "use_prepared": false, "pull": true, "expires_after_ms": 7_200_000,
        "cwd": "/tmp", "priority": 3, "idempotency_key": "k",
    });
    assert_eq!(sent, expected);
}

#[test]
fn a_server_takes_its_taskservs_as_one_list() {
    let engine = Played::start(ready());
    let line = "orchestrator test env server web-01 [containerd redis] --option {redis.port: 7}";
    let answer = engine.shell().value(line);
    assert_eq!(column(&answer, "status"), Value::test_string("ready"));
    let request = asked_for(&engine);
    assert!(!request.auto_start && !request.auto_cleanup && request.keep_on_failure && request.use_prepared);
    assert_eq!(request.disk_policy, DiskPolicy::Enforce);
    let EnvironmentConfig::ServerSimulation { server_name, taskservs, taskserv_options, .. } = request.config
    else {
        unreachable!()
    };
    assert_eq!((server_name.as_str(), taskservs), ("web-01", vec!["containerd".into(), "redis".to_owned()]));
    assert_eq!(taskserv_options["redis"]["port"], json!(7));
}

#[test]
fn a_cluster_takes_its_topology_from_the_pipeline_or_by_name() {
    let load = "orchestrator test topology load etcd_cluster";
    for line in [
        format!("{load} | orchestrator test env cluster etcd --base-image b --memory 1GiB"),
        "orchestrator test env cluster etcd --topology etcd_cluster --base-image b --memory 1GiB".into(),
        "{nodes: [{name: etcd-01, resources: {memory_mb: 64}}]} \
         | orchestrator test env cluster etcd --base-image b --memory 1GiB"
            .into(),
        "{nodes: [[name taskservs role]; [etcd-01 [etcd] null]], network: {subnet: '172.30.0.0/16'}} \
         | orchestrator test env cluster etcd --base-image b --memory 1GiB"
            .into(),
    ] {
        let engine = Played::start(ready());
        engine.shell().value(&line);
        let EnvironmentConfig::ClusterTopology { cluster_type, topology } = asked_for(&engine).config else {
            unreachable!()
        };
        let first = &topology.nodes[0];
        let memory = if line.contains("resources") { 64 } else { 1024 };
        assert_eq!((cluster_type.as_str(), first.resources.memory_mb), ("etcd", Some(memory)), "{line}");
        assert_eq!(first.base_image.as_deref(), Some("b"));
        // A flag never replaces what a node says itself.
        let second = topology.nodes.get(1).and_then(|node| node.base_image.as_deref());
        assert!(second.is_none_or(|image| image == "own"));
    }
}

#[test]
fn what_cannot_be_asked_for_is_pointed_at_and_nothing_is_asked_for() {
    let engine = Played::start(ready());
    let mut shell = engine.shell();
    // Nushell could take an id that ends like this for a size in bytes.
    let id = "01890a5d-ac96-774b-bcce-b302099a805b";
    for (line, place) in [
        ("orchestrator test quick redis --keep --no-keep", "orchestrator test quick"),
        ("orchestrator test quick redis --memory 10b", "10b"),
        ("orchestrator test quick redis --cpu=-1", "-1"),
        ("orchestrator test quick redis --disk-policy maybe", "maybe"),
        ("orchestrator test quick redis --expires-after 1ns", "1ns"),
        ("orchestrator test quick redis --script {file: a.sh}", "a.sh"),
        ("orchestrator test quick redis --script {name: a}", "{name: a}"),
        ("orchestrator test quick redis --fault [{kind: explode, node: a}]", "{kind: explode, node: a}"),
        ("orchestrator test quick redis --fault {node: a}", "{node: a}"),
        ("orchestrator test quick redis --fault ''", "''"),
        ("orchestrator test quick redis --fault ['kill a' 'kill a b']", "'kill a b'"),
        ("orchestrator test quick redis --junit /nowhere/r.xml", "/nowhere/r.xml"),
        ("orchestrator test env single redis --junit r.xml", "r.xml"),
        ("orchestrator test env server web-01 [redis] --option {port: 7}", "7"),
        ("orchestrator test env cluster etcd", "orchestrator test env cluster"),
        ("orchestrator test env cluster etcd --topology etcd", "etcd"),
        ("{nodes: [{name: a} {name: b, rol: x}]} | orchestrator test env cluster etcd", "{name: b, rol: x}"),
        ("{name: a} | orchestrator test env cluster etcd", "{name: a}"),
        ("{nodes: [], subnet: x} | orchestrator test env cluster etcd", "x"),
        ("orchestrator test topology load etcd", "etcd"),
        ("orchestrator test env list --status [passed broken]", "broken"),
        ("orchestrator test env status redis", "redis"),
        ("orchestrator test env status", "orchestrator test env status"),
        ("orchestrator test env cleanup [a]", "[a]"),
        ("orchestrator test env fault redis kill a", "redis"),
        ("orchestrator test env fault kill a", "orchestrator test env fault"),
        (&format!("orchestrator test env fault {id} explode a"), "explode"),
        (&format!("orchestrator test env fault {id} kill"), "kill"),
        (&format!("orchestrator test env fault {id} kill a b"), "b"),
        (&format!("orchestrator test env fault {id} heal a"), "a"),
        (&format!("orchestrator test env fault {id}"), "orchestrator test env fault"),
    ] {
        let (_, text) = shell.error(line);
        assert_eq!(text, place, "{line}");
    }
    let kept: Vec<_> = names(&engine).into_iter().filter(|name| *name != "ListTopologies").collect();
    assert_eq!(kept, Vec::<&str>::new());
}

/// Refuses every environment because of one field.
struct Refusing(&'static str);

impl Behaviour for Refusing {
    fn answer(&self, _: &Request) -> Play {
        Play::Refuse(Error::invalid("it cannot be so").with_field(self.0))
    }
}

#[test]
fn what_the_engine_refuses_is_pointed_at_where_it_was_typed() {
    let single = "orchestrator test env single redis --memory 1MiB --max-processes 9 --option {port: 7, other: {a: b}} \
                  --env {A: x} --script [a.sh {script: b.sh, timeout: 2sec}] --fault [{kind: kill, node: n}] \
                  --expires-after 3hr --idempotency-key k --infra i";
    let server = "orchestrator test env server web [redis etcd]";
    let cluster = "{nodes: [{name: a} {name: b, taskservs: [redis etcd]}], network: {subnet: s}} \
                   | orchestrator test env cluster c";
    for (field, line, place) in [
        ("config.taskserv", single, "redis"),
        ("config.resources.memory_mb", single, "1MiB"),
        ("config.resources.max_processes", single, "9"),
        ("config.taskserv_options.other.a", single, "b"),
        ("config.environment.A", single, "x"),
        ("run.tests[0].script", single, "a.sh"),
        ("run.tests[1].timeout_ms", single, "2sec"),
        ("run.faults[0].fault.node", single, "n"),
        ("expires_after_ms", single, "3hr"),
        ("idempotency_key", single, "k"),
        ("infra", single, "i"),
        ("priority", single, "orchestrator test env single"),
        ("config.server_name", server, "web"),
        ("config.taskservs[1]", server, "etcd"),
        ("config.cluster_type", cluster, "c"),
        ("config.topology.nodes[1].taskservs[1]", cluster, "etcd"),
        ("config.topology.nodes[1].role", cluster, "{name: b, taskservs: [redis etcd]}"),
        ("config.topology.network.subnet", cluster, "s"),
    ] {
        let (error, text) = Played::start(Refusing(field)).shell().error(line);
        assert_eq!((error.msg.as_str(), text.as_str()), ("It cannot be so", place), "{field}");
    }
    let id = EnvironmentId::generate();
    for (field, rest, place) in [
        ("fault.node", "fault ID kill a", "a"),
        ("fault.nodes[1]", "fault ID partition a b", "b"),
        ("run.tests[0].script", "run ID --script [x.sh]", "x.sh"),
        ("id", "cleanup ID", "ID"),
    ] {
        let line = format!("orchestrator test env {}", rest.replace("ID", &id.to_string()));
        let (_, text) = Played::start(Refusing(field)).shell().error(&line);
        assert_eq!(text, place.replace("ID", &id.to_string()), "{line}");
    }
}

#[test]
fn a_test_that_fails_is_data_and_is_kept_with_advice() {
    let directory = tempfile::tempdir().unwrap();
    let report = directory.path().join("report.xml");
    let failed = Environment {
        results: vec![result(true), result(false)],
        error: Some("1 of 2 tests failed".into()),
        ..environment(EnvironmentStatus::Failed)
    };
    let id = failed.id;
    let engine = Played::start(Testing::new(failed, TaskStatus::Failed));
    let answer = engine.shell().value(&format!("orchestrator test quick redis --junit {}", report.display()));
    assert_eq!(column(&answer, "passed"), Value::test_bool(false));
    let results = column(&answer, "results");
    assert_eq!(column(&results, "passed"), Value::test_list([true, false].map(Value::test_bool).into()));
    assert_eq!(column(&results, "duration").as_list().unwrap()[0], Value::test_duration(1_500_000_000));
    assert!(column(&answer, "help").as_str().unwrap().contains(&format!("orchestrator test env logs {id}")));
    let request = asked_for(&engine);
    assert!(request.auto_start && request.auto_cleanup && request.keep_on_failure);
    let xml = fs::read_to_string(&report).unwrap();
    assert!(xml.contains(r#"tests="2" failures="1""#), "{xml}");
}

#[test]
fn a_test_that_passes_leaves_nothing_to_do() {
    let cleaned = Environment { results: vec![result(true)], ..environment(EnvironmentStatus::Cleaned) };
    let engine = Played::start(Testing::new(cleaned, TaskStatus::Completed));
    let answer = engine.shell().value("orchestrator test quick redis --keep --option {port: 7}");
    assert_eq!(column(&answer, "passed"), Value::test_bool(true));
    assert_eq!(column(&answer, "help"), Value::test_nothing());
    assert!(!asked_for(&engine).auto_cleanup);
}

#[test]
fn what_was_called_off_has_not_passed() {
    for (flag, cleans) in [("", false), ("--no-keep", true)] {
        let testing = Testing::new(environment(EnvironmentStatus::Ready), TaskStatus::Cancelled);
        *testing.hangs.lock().unwrap() = true;
        let engine = Played::start(testing);
        let line = format!("orchestrator test quick redis --timeout 100ms {flag}");
        let answer = engine.shell().value(&line);
        assert_eq!(column(&answer, "passed"), Value::test_bool(false));
        assert_eq!(column(&answer, "error"), Value::test_string("called off: its time was over"));
        let asked = names(&engine);
        assert!(asked.contains(&"Cancel"));
        assert_eq!(asked.contains(&"CleanEnvironment"), cleans, "{line}");
    }
}

#[test]
fn passed_is_known_only_when_the_tests_have_run() {
    let results = || vec![result(true)];
    for (status, results, error, passed) in [
        (EnvironmentStatus::Creating, Vec::new(), None, None),
        (EnvironmentStatus::Ready, Vec::new(), None, None),
        (EnvironmentStatus::RunningTests, results(), None, None),
        (EnvironmentStatus::Passed, results(), None, Some(true)),
        (EnvironmentStatus::Failed, results(), None, Some(false)),
        (EnvironmentStatus::Error, results(), None, Some(false)),
        (EnvironmentStatus::Cleaned, Vec::new(), None, None),
        (EnvironmentStatus::Cleaned, results(), None, Some(true)),
        (EnvironmentStatus::Cleaned, results(), Some("broken"), Some(false)),
        (EnvironmentStatus::Cleaning, vec![result(true), result(false)], None, Some(false)),
    ] {
        let known = Environment { results, error: error.map(str::to_owned), ..environment(status) };
        assert_eq!(crate::values::environment::passed(&known), passed, "{known:?}");
    }
}

#[test]
fn several_environments_are_run_and_cleaned_at_once() {
    for command in ["run", "cleanup"] {
        let engine = Played::start(ready());
        let mut shell = engine.shell();
        let ids: Vec<String> = (0..3).map(|_| format!("'{}'", EnvironmentId::generate())).collect();
        let line = format!("[{}] | orchestrator test env {command} --wait", ids.join(" "));
        assert_eq!(shell.value(&line).as_list().unwrap().len(), 3);
        let wanted = if command == "run" { "RunEnvironment" } else { "CleanEnvironment" };
        assert_eq!(names(&engine)[..3], [wanted; 3]);
        let one = shell.value(&format!("{} | orchestrator test env {command}", ids[0]));
        assert_eq!(format!("'{}'", column(&one, "id").as_str().unwrap()), ids[0]);
    }
    let engine = Played::start(ready());
    let ids = [EnvironmentId::generate(), EnvironmentId::generate()].map(|id| id.to_string());
    let line = format!("orchestrator test env run {} --wait --junit r.xml", ids.join(" "));
    assert_eq!(engine.shell().error(&line).1, "r.xml");
}

#[test]
fn faults_are_typed_as_words_for_an_environment_that_is_named_or_piped_in() {
    let engine = Played::start(ready());
    let mut shell = engine.shell();
    let id = EnvironmentId::generate();
    shell
        .value(&format!("orchestrator test env fault {id} partition a b | orchestrator test env fault heal"));
    shell.value(&format!("{{id: '{id}'}} | orchestrator test env fault restart a"));
    let fault = |request| match request {
        Request::InjectFault(inject) => Some(inject.fault),
        _ => None,
    };
    let faults: Vec<Fault> = engine.asked().into_iter().filter_map(fault).collect();
    let node = || "a".to_owned();
    assert_eq!(
        faults,
        [
            Fault::Partition { nodes: vec![node(), "b".into()] },
            Fault::Heal {},
            Fault::Restart { node: node() },
        ]
    );
}

#[test]
fn the_lines_of_nodes_come_as_records_or_as_text() {
    let engine = Played::start(ready());
    let mut shell = engine.shell();
    let id = EnvironmentId::generate();
    let records = shell.value(&format!("orchestrator test env logs {id} --tail 5 --follow"));
    let columns: Vec<&String> = records.as_list().unwrap()[0].as_record().unwrap().columns().collect();
    assert_eq!(columns, ["node", "step", "time", "stream", "line"]);
    let streams = column(&records, "stream");
    assert_eq!(streams, Value::test_list(["out", "err"].map(Value::test_string).into()));
    let text = shell.value(&format!("{{id: '{id}'}} | orchestrator test env logs --raw"));
    assert_eq!(text, Value::test_string("up\nslow\n"));
    assert_eq!(shell.error(&format!("orchestrator test env logs {id} --node web")).1, "web");
}
