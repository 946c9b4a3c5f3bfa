//! `servers create` as a workflow: with a stub for an interpreter in place of Nushell, so that only the
//! engine is looked at. The real worker has its own tests.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;

use orchestrator_protocol::ErrorCode;
use orchestrator_protocol::provision::{Operation, ProvisionRequest, Target};
use orchestrator_protocol::request::{CancelTask, Diagnose, ExplainTask, ListTasks, ReasonKind};
use orchestrator_protocol::task::{AttemptOutcome, RetryPolicy, Task, TaskStatus};
use orchestrator_tests::engine::TestEngine;
use orchestrator_tests::wait;
use serde_json::json;

const ENGINE: &str = env!("CARGO_BIN_EXE_orchestrator-under-test");

/// What stands in for Nushell: it is called as `STUB -n --no-std-lib WORKER server create web-01 …`.
const STUB: &str = r#"
shift 3
echo "$*" >> calls
case "$2" in
  names | plan) cat names.json ;;
  create) [ -e "fail.$3" ] && { echo "no route to $3" >&2; exit 1; }
          [ -e gate ] && { : > "begun.$3"; while [ -e gate ]; do sleep 0.01; done; }
          echo "::result {\"servers\": [{\"name\": \"$3\", \"action\": \"created\"}]}" ;;
esac
"#;

fn engine() -> TestEngine {
    let engine = TestEngine::new(ENGINE);
    let stub = engine.script("stub", STUB);
    fs::write(engine.directory().join("settings.yaml"), "servers: {}\n").unwrap();
    let mut engine = engine.with_arguments(&["--max-parallel", "4", "--nu-path", &stub]);
    engine.start();
    engine
}

fn request(engine: &TestEngine, servers: &[&str]) -> ProvisionRequest {
    ProvisionRequest {
        infra: "production".into(),
        settings: "./settings.yaml".into(),
        target: Target::Servers { servers: servers.iter().map(|server| (*server).to_owned()).collect() },
        cwd: Some(engine.directory().to_str().unwrap().to_owned()),
        retry: Some(RetryPolicy { max_retries: 0, ..RetryPolicy::default() }),
        ..ProvisionRequest::default()
    }
}

fn calls(engine: &TestEngine) -> Vec<String> {
    let settings = engine.directory().join("settings.yaml");
    let text = fs::read_to_string(engine.directory().join("calls")).unwrap_or_default();
    let mut calls: Vec<String> =
        text.lines().map(|line| line.replace(settings.to_str().unwrap(), "SETTINGS")).collect();
    calls.sort();
    calls
}

fn children(engine: &TestEngine, workflow: &Task) -> Vec<Task> {
    let mut tasks = engine.ask(ListTasks { parent: Some(workflow.id), ..ListTasks::default() }).tasks;
    tasks.sort_by(|left, right| left.name.cmp(&right.name));
    tasks
}

#[test]
fn one_task_is_made_for_each_server_that_is_named() {
    let engine = engine();
    let submitted = engine.ask(request(&engine, &["web-01", "web-02"]));
    let workflow = engine.wait(submitted.id.unwrap());
    assert_eq!(workflow.status, TaskStatus::Completed);
    assert_eq!(workflow.progress.as_ref().unwrap().done, Some(2));
    let tasks = children(&engine, &workflow);
    assert_eq!(
        tasks.iter().map(|task| task.name.as_str()).collect::<Vec<_>>(),
        ["create web-01", "create web-02"]
    );
    assert_eq!(tasks[0].result, Some(json!({"servers": [{"name": "web-01", "action": "created"}]})));
    assert_eq!(tasks[0].group, "production");
    assert_eq!(
        calls(&engine),
        [
            "server create web-01 --infra production --settings SETTINGS",
            "server create web-02 --infra production --settings SETTINGS",
        ]
    );
}

#[test]
fn without_names_the_worker_is_asked_for_them() {
    let engine = engine();
    fs::write(engine.directory().join("names.json"), r#"::result {"servers": ["db-01", "web-01"]}"#).unwrap();
    let workflow =
        engine.wait(engine.ask(ProvisionRequest { check_mode: true, ..request(&engine, &[]) }).id.unwrap());
    assert_eq!(workflow.status, TaskStatus::Completed, "{workflow:#?}");
    let names: Vec<_> = children(&engine, &workflow).into_iter().map(|task| task.name).collect();
    assert_eq!(names, ["add tasks", "create db-01", "create web-01", "servers of production"]);
    assert_eq!(
        calls(&engine),
        [
            "server create db-01 --infra production --settings SETTINGS --check",
            "server create web-01 --infra production --settings SETTINGS --check",
            "server names --infra production --settings SETTINGS --check",
        ]
    );
}

#[test]
fn names_that_the_worker_reports_are_checked_too() {
    let engine = engine();
    for (reported, complaint) in [
        (r#"::result {"servers": ["--x;^rm"]}"#, "'--x;^rm' is not a valid server name"),
        (r#"::result {"servers": ["a", "a"]}"#, "server 'a' is named twice"),
        (r#"::result {"servers": []}"#, "names no server for infra 'production'"),
        (r#"::result 7"#, "the plan of the provisioning program cannot be read"),
        ("nothing", "the provisioning program reported no plan"),
    ] {
        fs::write(engine.directory().join("names.json"), reported).unwrap();
        let workflow = engine.wait(engine.ask(request(&engine, &[])).id.unwrap());
        assert_eq!(workflow.status, TaskStatus::Failed);
        let tasks = children(&engine, &workflow);
        let error = tasks[0].error.clone().unwrap();
        assert!(error.contains(complaint), "{error:?} does not say {complaint:?}");
        assert_eq!(tasks.len(), 2);
    }
}

fn cluster(engine: &TestEngine, operation: Operation) -> ProvisionRequest {
    let target = Target::Cluster { cluster_type: "web".into() };
    ProvisionRequest { target, operation, ..request(engine, &[]) }
}

/// What the stand-in answers when it is asked for a plan.
fn plan(engine: &TestEngine, tasks: &serde_json::Value) {
    let report = json!({"infra": "production", "tasks": tasks});
    fs::write(engine.directory().join("names.json"), format!("::result {report}\n")).unwrap();
}

#[test]
fn a_cluster_becomes_the_graph_that_the_worker_plans() {
    let engine = engine();
    plan(
        &engine,
        &json!([
            {"name": "create db-01", "operation": "server create", "names": ["db-01"], "after": []},
            {"name": "postgres on db-01", "operation": "taskserv create", "names": ["postgres", "db-01"],
             "after": ["create db-01"], "labels": {"server": "db-01", "taskserv": "postgres"}},
        ]),
    );
    let submitted = engine.ask(cluster(&engine, Operation::Create));
    assert_eq!(submitted.name.as_deref(), Some("create cluster web of production"));
    let workflow = engine.wait(submitted.id.unwrap());
    assert_eq!(workflow.status, TaskStatus::Completed, "{workflow:#?}");
    let tasks = children(&engine, &workflow);
    let names: Vec<_> = tasks.iter().map(|task| task.name.as_str()).collect();
    assert_eq!(names, ["add tasks", "create db-01", "plan of web", "postgres on db-01"]);
    assert_eq!(tasks[3].depends_on, [tasks[1].id]);
    assert!(tasks[3].started_at >= tasks[1].completed_at);
    assert_eq!(tasks[3].labels["taskserv"], "postgres");
    assert!(tasks.iter().all(|task| task.parent == Some(workflow.id)));
    assert_eq!(
        calls(&engine),
        [
            "cluster plan create web --infra production --settings SETTINGS",
            "server create db-01 --infra production --settings SETTINGS",
            "taskserv create postgres db-01 --only --infra production --settings SETTINGS",
        ]
    );
}

#[test]
fn a_taskserv_that_fails_takes_along_what_depends_on_it_and_is_retried_with_it() {
    let engine = engine();
    let step = |name: &str, after: &[&str]| json!({"name": name, "operation": "taskserv create", "names": [name, "db-01"], "after": after});
    plan(&engine, &json!([step("first", &[]), step("second", &["first"]), step("third", &["second"])]));
    fs::write(engine.directory().join("fail.first"), "").unwrap();
    let target = Target::Taskserv { taskserv: "third".into(), servers: vec!["db-01".into()] };
    let asked = ProvisionRequest { target, ..request(&engine, &[]) };
    let workflow = engine.wait(engine.ask(asked).id.unwrap());
    assert_eq!(workflow.status, TaskStatus::Failed);
    let statuses = || children(&engine, &workflow).iter().map(|task| task.status).collect::<Vec<_>>();
    let (done, failed, cancelled) = (TaskStatus::Completed, TaskStatus::Failed, TaskStatus::Cancelled);
    assert_eq!(statuses(), [done, failed, done, cancelled, cancelled]);
    fs::remove_file(engine.directory().join("fail.first")).unwrap();
    engine.ask(orchestrator_protocol::request::RetryTask { id: workflow.id });
    assert_eq!(engine.wait(workflow.id).status, TaskStatus::Completed);
    assert_eq!(
        calls(&engine)[0],
        "taskserv create first db-01 --only --infra production --settings SETTINGS"
    );
    assert!(
        calls(&engine)
            .contains(&"taskserv plan create third db-01 --infra production --settings SETTINGS".into())
    );
}

#[test]
fn a_plan_is_checked_like_a_submission() {
    let engine = engine();
    let good = json!({"name": "a", "operation": "server create", "names": ["a"], "after": []});
    let with = |field: &str, value: serde_json::Value| {
        let mut task = good.clone();
        task[field] = value;
        task
    };
    for (tasks, complaint) in [
        (json!([]), "holds no task"),
        (json!([good, good]), "two tasks are named 'a'"),
        (json!([with("after", json!(["b"]))]), "'a' comes after 'b', which is not a task"),
        (json!([with("after", json!(["a"]))]), "the tasks wait for each other: a -> a"),
        (json!([with("names", json!(["--x;^rm"]))]), "'--x;^rm' is not a valid name in the plan"),
        (json!([with("operation", json!("cluster plan"))]), "'cluster plan' cannot be part of a plan"),
        (json!([with("operation", json!("rm"))]), "'rm' cannot be part of a plan"),
        (json!([with("operation", json!("server burn"))]), "no words for the operation 'server burn'"),
        (json!([with("name", json!("-x"))]), "'-x' is not a valid task name"),
        (json!([with("labels", json!({"-": "x"}))]), "'-' is not a valid label"),
        (json!([{"name": "a"}]), "cannot be read: missing field `operation`"),
    ] {
        plan(&engine, &tasks);
        let workflow = engine.wait(engine.ask(cluster(&engine, Operation::Create)).id.unwrap());
        assert_eq!(workflow.status, TaskStatus::Failed);
        let error = workflow.error.unwrap();
        assert!(error.contains(complaint), "{error:?} does not say {complaint:?}");
    }
    assert!(calls(&engine).iter().all(|call| call.starts_with("cluster plan")), "{:?}", calls(&engine));
}

#[test]
fn what_cannot_be_done_with_a_target_is_refused() {
    let engine = engine();
    let taskserv = |name: &str| Target::Taskserv { taskserv: name.into(), servers: Vec::new() };
    let cluster = |name: &str| Target::Cluster { cluster_type: name.into() };
    let servers = Target::Servers { servers: vec!["a".into()] };
    for (target, operation, complaint, field) in [
        (
            taskserv("redis"),
            Operation::Delete,
            "'delete' is nothing that is done with a taskserv: use create or verify",
            "operation",
        ),
        (
            servers,
            Operation::Verify,
            "'verify' is nothing that is done with servers: use create or delete",
            "operation",
        ),
        (Target::default(), Operation::Delete, "deleting servers needs their names", "servers"),
        (taskserv("-r;"), Operation::Create, "'-r;' is not a valid taskserv name", "taskserv"),
        (cluster("../web"), Operation::Create, "'../web' is not a valid cluster type", "cluster_type"),
    ] {
        let error = engine.refused(ProvisionRequest { target, operation, ..request(&engine, &[]) });
        assert!(error.message.contains(complaint), "{:?} does not say {complaint:?}", error.message);
        assert_eq!((error.code, error.field.as_deref()), (ErrorCode::Invalid, Some(field)));
    }
    assert_eq!(engine.tasks(), []);
}

#[test]
fn steps_of_the_engine_give_their_slots_back() {
    let engine = TestEngine::new(ENGINE);
    let stub = engine.script("stub", STUB);
    fs::write(engine.directory().join("settings.yaml"), "servers: {}\n").unwrap();
    fs::write(engine.directory().join("names.json"), r#"::result {"servers": ["a", "b"]}"#).unwrap();
    let config = engine.directory().join("orchestrator.toml");
    fs::write(&config, "[groups.production]\nmax_parallel = 2\n").unwrap();
    let arguments = ["--max-parallel", "8", "--nu-path", &stub, "--config", config.to_str().unwrap()];
    let mut engine = engine.with_arguments(&arguments);
    engine.start();
    for _ in 0..3 {
        let workflow = engine.wait(engine.ask(request(&engine, &[])).id.unwrap());
        assert_eq!(workflow.status, TaskStatus::Completed);
    }
    // With leaked slots only one of the two would run.
    fs::write(engine.directory().join("gate"), "").unwrap();
    let workflow = engine.ask(request(&engine, &[])).id.unwrap();
    let has_begun = |server: &str| engine.directory().join(format!("begun.{server}")).exists();
    wait::until("both at once", || (has_begun("a") && has_begun("b")).then_some(()));
    fs::remove_file(engine.directory().join("gate")).unwrap();
    assert_eq!(engine.wait(workflow).status, TaskStatus::Completed);
}

#[test]
fn a_failed_server_is_retried_alone() {
    let engine = engine();
    fs::write(engine.directory().join("fail.web-02"), "").unwrap();
    let workflow = engine.wait(engine.ask(request(&engine, &["web-01", "web-02"])).id.unwrap());
    assert_eq!(
        (workflow.status, workflow.error.as_deref()),
        (TaskStatus::Failed, Some("1 of 2 tasks failed: 'create web-02': exit status 1: no route to web-02"))
    );
    let failed = children(&engine, &workflow).pop().unwrap();
    assert_eq!(failed.error.as_deref(), Some("exit status 1: no route to web-02"));
    fs::remove_file(engine.directory().join("fail.web-02")).unwrap();
    let retried = engine.ask(orchestrator_protocol::request::RetryTask { id: workflow.id });
    assert_eq!(retried.others, [failed.id]);
    assert_eq!(engine.wait(workflow.id).status, TaskStatus::Completed);
    assert_eq!(calls(&engine).iter().filter(|call| call.contains("web-01")).count(), 1);
}

#[test]
fn what_failed_is_retried_while_the_rest_goes_on() {
    let engine = engine();
    fs::write(engine.directory().join("gate"), "").unwrap();
    fs::write(engine.directory().join("fail.a"), "").unwrap();
    let workflow = engine.ask(request(&engine, &["a", "b"])).id.unwrap();
    let retry = orchestrator_protocol::request::RetryTask { id: workflow };
    let failed = wait::until("one to fail", || {
        let tasks = children(&engine, &engine.task(workflow));
        (tasks[0].status == TaskStatus::Failed).then(|| tasks[0].id)
    });
    fs::remove_file(engine.directory().join("fail.a")).unwrap();
    assert_eq!(engine.ask(retry).others, [failed]);
    // Nothing has failed any more.
    assert_eq!(engine.refused(retry).code, ErrorCode::Conflict);
    fs::remove_file(engine.directory().join("gate")).unwrap();
    assert_eq!(engine.wait(workflow).status, TaskStatus::Completed);
}

#[test]
fn one_workflow_changes_an_infra_at_a_time_unless_asked_otherwise() {
    let engine = engine();
    let has_begun = |server: &str| engine.directory().join(format!("begun.{server}")).exists();
    fs::write(engine.directory().join("gate"), "").unwrap();
    let first = engine.ask(request(&engine, &["a", "b"]));
    wait::until("both servers of the first", || (has_begun("a") && has_begun("b")).then_some(()));
    let second = engine.ask(request(&engine, &["c"]));
    let reasons = engine.ask(ExplainTask { id: second.tasks[0].id }).reasons;
    assert_eq!(reasons[0].kind, ReasonKind::Lock);
    assert_eq!(reasons[0].message, "the lock 'infra:production' is held by 'create servers of production'");
    let beside = engine.ask(ProvisionRequest { allow_concurrent: true, ..request(&engine, &["d"]) });
    wait::until("the one that does not wait", || has_begun("d").then_some(()));
    assert!(!has_begun("c"));
    fs::remove_file(engine.directory().join("gate")).unwrap();
    for submitted in [first, second, beside] {
        assert_eq!(engine.wait(submitted.id.unwrap()).status, TaskStatus::Completed);
    }
}

#[test]
fn a_cancelled_workflow_gives_its_lock_back() {
    let engine = engine();
    fs::write(engine.directory().join("gate"), "").unwrap();
    let first = engine.ask(request(&engine, &["a"])).id.unwrap();
    wait::until("it to begin", || engine.directory().join("begun.a").exists().then_some(()));
    let second = engine.ask(request(&engine, &["b"])).id.unwrap();
    engine.ask(CancelTask { force: false, id: first, reason: None });
    assert_eq!(engine.wait(first).status, TaskStatus::Cancelled);
    fs::remove_file(engine.directory().join("gate")).unwrap();
    assert_eq!(engine.wait(second).status, TaskStatus::Completed);
}

#[test]
fn bad_requests_queue_nothing() {
    let engine = engine();
    let refused = |request: ProvisionRequest| {
        let error = engine.refused(request);
        assert_eq!(error.code, ErrorCode::Invalid);
        (error.message, error.field.unwrap())
    };
    let (message, field) = refused(request(&engine, &["web-01", "--x;^rm"]));
    assert!(message.starts_with("'--x;^rm' is not a valid server name"), "{message}");
    assert_eq!(field, "servers[1]");
    let (message, field) = refused(ProvisionRequest { infra: "--check;rm".into(), ..request(&engine, &[]) });
    assert!(message.starts_with("'--check;rm' is not a valid infra name"), "{message}");
    assert_eq!(field, "infra");
    let (message, field) =
        refused(ProvisionRequest { settings: "none.yaml".into(), ..request(&engine, &[]) });
    assert!(message.ends_with("none.yaml does not exist"), "{message}");
    assert_eq!(field, "settings");
    assert_eq!(
        refused(request(&engine, &["a", "a"])),
        ("server 'a' is named twice".into(), "servers[1]".into())
    );
    assert_eq!(engine.tasks(), []);
}

#[test]
fn a_wrong_interpreter_is_told_by_the_task_and_by_the_doctor() {
    let mut engine = TestEngine::new(ENGINE).with_arguments(&["--nu-path", "/no/such/nu"]);
    engine.start();
    fs::write(engine.directory().join("work.nu"), "").unwrap();
    let retry = Some(RetryPolicy { max_retries: 0, ..RetryPolicy::default() });
    let task = orchestrator_protocol::submit::NewTask { retry, ..engine.run("work.nu") };
    let task = engine.wait(engine.submit(task));
    assert_eq!(task.attempts[0].outcome, Some(AttemptOutcome::NotStarted));
    assert!(task.error.as_ref().is_some_and(|error| error.contains("/no/such/nu")), "{task:#?}");
    let checks = engine.ask(Diagnose {}).checks;
    let nushell = checks.iter().find(|check| check.name == "nushell").unwrap();
    assert!(nushell.found.contains("/no/such/nu"));
    assert_eq!(nushell.advice.as_deref(), Some("install Nushell 0.115, or name it with --nu-path"));
}
