//! Single questions: what is sent, what is made of the answer, what breaks.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::atomic::{AtomicUsize, Ordering};

use nu_protocol::Value;
use orchestrator_protocol::Error;
use orchestrator_protocol::event::Item;
use orchestrator_protocol::hello::Hello;
use orchestrator_protocol::request::{Changed, Request, Response, Subscription, TaskPage};
use orchestrator_protocol::submit::{SubmitRequest, Submitted, SubmittedTask};
use orchestrator_protocol::task::{SecretReference, Task, TaskId, TaskStatus};
use serde_json::json;

use super::fixtures::{task, workflow};
use super::played::{Behaviour, Play, Played, Stream, Then};

fn accept(request: &SubmitRequest) -> Response {
    let name = |task: &orchestrator_protocol::submit::NewTask| task.name.clone().unwrap_or("unnamed".into());
    let tasks: Vec<_> =
        request.tasks.iter().map(|task| SubmittedTask { id: TaskId::generate(), name: name(task) }).collect();
    let only = tasks.first().filter(|_| tasks.len() == 1).map(|task| task.id);
    let id = if request.workflow.is_some() { Some(TaskId::generate()) } else { only };
    Response::Submit(Submitted { id, name: request.workflow.clone(), tasks, existed: false })
}

struct Accepting;

impl Behaviour for Accepting {
    fn answer(&self, request: &Request) -> Play {
        match request {
            Request::Submit(request) => accept(request).into(),
            Request::GetTask(_) => Response::GetTask(Box::new(task("web-01"))).into(),
            Request::ListTasks(_) => Response::ListTasks(TaskPage { tasks: Vec::new(), cursor: None }).into(),
            other => Play::Refuse(Error::internal(other.name())),
        }
    }
}

fn submitted(engine: &Played) -> Vec<SubmitRequest> {
    let request = |request| match request {
        Request::Submit(request) => Some(request),
        _ => None,
    };
    engine.asked().into_iter().filter_map(request).collect()
}

fn column(value: &Value, name: &str) -> Value {
    value.get_data_by_key(name).unwrap()
}

#[test]
fn a_script_is_submitted_with_all_that_was_said_of_it() {
    let engine = Played::start(Accepting);
    let answer = engine.shell().value(
        "orchestrator task submit deploy.nu --params {version: 2} --name web --group prod --label tier=1 --lock db \
         --retries 5 --retry-base 2sec --timeout 1min --grace 3sec --env {A: 1} --secret {t: 'file:token'} \
         --priority -4 --idempotency-key k",
    );
    assert_eq!(column(&answer, "name"), Value::test_string("web"));
    let request = submitted(&engine).remove(0);
    assert_eq!(request.idempotency_key.as_deref(), Some("k"));
    let sent = &request.tasks[0];
    assert_eq!((sent.script.as_str(), sent.cwd.as_deref()), ("/tmp/deploy.nu", Some("/tmp")));
    assert_eq!(sent.params, Some(json!({"version": 2})));
    assert_eq!((sent.group.as_deref(), sent.lock.as_deref(), sent.priority), (Some("prod"), Some("db"), -4));
    assert_eq!((&sent.labels["tier"][..], &sent.env["A"][..]), ("1", "1"));
    assert_eq!((sent.timeout_ms, sent.grace_ms), (Some(60_000), Some(3_000)));
    let retry = sent.retry.unwrap();
    assert_eq!((retry.max_retries, retry.base_ms, retry.cap_ms), (5, 2_000, 60_000));
    assert_eq!(sent.secrets["t"], SecretReference::File("/tmp/token".into()));
}

#[test]
fn a_table_becomes_one_submission_with_a_task_for_each_row() {
    let engine = Played::start(Accepting);
    let answer = engine.shell().value("[[host]; [a] [b]] | orchestrator task submit deploy.nu --name d");
    assert_eq!(answer.as_list().unwrap().len(), 2);
    let request = submitted(&engine).remove(0);
    let sent: Vec<_> = request.tasks.iter().map(|task| (task.name.clone(), task.params.clone())).collect();
    assert_eq!(
        sent,
        [(Some("d-1".into()), Some(json!({"host": "a"}))), (Some("d-2".into()), Some(json!({"host": "b"})))]
    );
    assert_eq!(submitted(&engine).len(), 1);
}

#[test]
fn a_record_is_parameters_and_a_closures_own_input_is_not() {
    let engine = Played::start(Accepting);
    let mut shell = engine.shell();
    shell.value("{host: a} | orchestrator task submit deploy.nu");
    assert_eq!(submitted(&engine)[0].tasks[0].params, Some(json!({"host": "a"})));
    shell.value("'in' | do {|script| orchestrator task submit $script } deploy.nu");
    assert_eq!(submitted(&engine)[1].tasks[0].params, None);
    assert_eq!(shell.value("[] | orchestrator task submit deploy.nu"), Value::test_list(Vec::new()));
    assert_eq!(submitted(&engine).len(), 2);
}

#[test]
fn what_cannot_be_sent_is_pointed_at_and_nothing_is_sent() {
    let engine = Played::start(Accepting);
    let mut shell = engine.shell();
    for (line, place) in [
        ("[[host]; [a]] | orchestrator task submit d.nu --params {v: 1}", "{v: 1}"),
        ("[1 2] | orchestrator task submit d.nu", "1"),
        ("orchestrator task submit d.nu --params {run: {|| 1}}", "{|| 1}"),
        ("orchestrator task submit d.nu --timeout 1ns", "1ns"),
        ("orchestrator task submit d.nu --retries=-1", "-1"),
        ("orchestrator task submit d.nu --secret {t: hunter2}", "hunter2"),
        ("orchestrator task submit d.nu --label prod", "prod"),
        ("orchestrator task submit d.nu --depends-on [web-01]", "web-01"),
        ("[[script when]; [a.nu now]] | orchestrator workflow submit w", "now"),
        ("[{name: a}] | orchestrator workflow submit w", "{name: a}"),
        ("orchestrator workflow submit w", "orchestrator workflow submit"),
        ("orchestrator task get web-01", "web-01"),
        ("orchestrator task get", "orchestrator task get"),
        ("[{name: x}] | orchestrator task cancel", "{name: x}"),
        ("orchestrator task list --status broken", "broken"),
        ("orchestrator task list --status [failed broken]", "broken"),
        ("orchestrator task list --kind thing", "thing"),
        ("orchestrator task list --limit=-3", "-3"),
        ("orchestrator task logs 01890a5d-ac96-774b-bcce-b302099a8057 --stream both", "both"),
        ("orchestrator task logs 01890a5d-ac96-774b-bcce-b302099a8057 --attempt 0", "0"),
        ("orchestrator stop --now --cancel", "--cancel"),
        ("orchestrator start --port 70000", "70000"),
        ("orchestrator events --status broken", "broken"),
        ("orchestrator events --since yesterday", "yesterday"),
        ("orchestrator events --task web-01", "web-01"),
    ] {
        let (error, text) = shell.error(line);
        assert_eq!(text, place, "{line}: {error:?}");
    }
    assert_eq!(engine.asked(), []);
}

struct Refusing;

impl Behaviour for Refusing {
    fn answer(&self, request: &Request) -> Play {
        Play::Refuse(match request {
            Request::Submit(request) if request.workflow.is_some() => {
                Error::invalid("no such step").with_field("tasks[1].after[0]")
            }
            Request::Submit(_) => Error::invalid("does not exist").with_field("tasks[0].script"),
            Request::Provision(_) => Error::invalid("not a name").with_field("servers[1]"),
            _ => Error::not_found("there is no such task").with_help("look at the list"),
        })
    }
}

#[test]
fn what_the_engine_refuses_is_pointed_at() {
    let engine = Played::start(Refusing);
    let mut shell = engine.shell();
    let id = "01890a5d-ac96-774b-bcce-b302099a8057";
    for (line, place, code) in [
        ("orchestrator task submit d.nu", "d.nu", "invalid"),
        ("[[script after]; [a.nu []] [b.nu [x]]] | orchestrator workflow submit w", "x", "invalid"),
        ("orchestrator workflow server create a b --infra i --settings s.yaml", "b", "invalid"),
        (&format!("orchestrator task get {id}"), id, "not_found"),
        (&format!("'{id}' | orchestrator task cancel"), &format!("'{id}'"), "not_found"),
    ] {
        let (error, text) = shell.error(line);
        assert_eq!((text.as_str(), error.code.unwrap()), (place, format!("orchestrator::{code}")), "{line}");
    }
}

/// Breaks the connection at the first question of each kind, or always.
struct Breaking {
    asked: AtomicUsize,
    always: bool,
}

impl Breaking {
    fn new(always: bool) -> Self {
        Self { asked: AtomicUsize::new(0), always }
    }
}

impl Behaviour for Breaking {
    fn answer(&self, request: &Request) -> Play {
        match self.asked.fetch_add(1, Ordering::SeqCst) {
            0 => Play::HangUp,
            _ if self.always => Play::HangUp,
            _ => Accepting.answer(request),
        }
    }
}

#[test]
fn what_is_safe_to_repeat_is_asked_once_more_over_a_new_connection() {
    let engine = Played::start(Breaking::new(false));
    engine.shell().value("orchestrator task list");
    assert_eq!(engine.asked().len(), 2);
    let engine = Played::start(Breaking::new(false));
    engine.shell().value("orchestrator task submit d.nu --idempotency-key k");
    assert_eq!(submitted(&engine).len(), 2);
}

#[test]
fn a_submission_without_a_key_is_never_sent_twice() {
    let engine = Played::start(Breaking::new(false));
    let (error, text) = engine.shell().error("orchestrator task submit d.nu");
    assert_eq!(error.code.as_deref(), Some("orchestrator::connection_broken"));
    assert!(error.help.unwrap().contains("not known"));
    assert_eq!(text, "orchestrator task submit");
    assert_eq!(submitted(&engine).len(), 1);
}

#[test]
fn a_connection_that_breaks_again_is_an_error() {
    let engine = Played::start(Breaking::new(true));
    let (error, _) = engine.shell().error("orchestrator task list");
    assert_eq!(error.code.as_deref(), Some("orchestrator::connection_broken"));
    assert_eq!(engine.asked().len(), 2);
}

#[test]
fn a_connection_is_kept_from_one_command_to_the_next() {
    struct Counting(AtomicUsize);
    impl Behaviour for &'static Counting {
        fn hello(&self) -> Hello {
            self.0.fetch_add(1, Ordering::SeqCst);
            Hello::ours()
        }
        fn answer(&self, request: &Request) -> Play {
            Accepting.answer(request)
        }
    }
    static CONNECTIONS: Counting = Counting(AtomicUsize::new(0));
    let engine = Played::start(&CONNECTIONS);
    let mut shell = engine.shell();
    for _ in 0..3 {
        shell.value("orchestrator task list");
    }
    assert_eq!(CONNECTIONS.0.load(Ordering::SeqCst), 1);
}

#[test]
fn another_protocol_says_which_side_to_update() {
    struct Newer;
    impl Behaviour for Newer {
        fn hello(&self) -> Hello {
            Hello { protocol: 999, version: "9.9.9".into(), ..Hello::ours() }
        }
    }
    let (error, _) = Played::start(Newer).shell().error("orchestrator task list");
    assert_eq!(error.code.as_deref(), Some("orchestrator::version_mismatch"));
    assert!(error.msg.contains("9.9.9"), "{}", error.msg);
    assert!(error.help.unwrap().contains("update the plugin"));
}

#[test]
fn without_an_engine_status_says_so_and_others_say_how_to_start_one() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("none");
    let mut shell = Played::start(Accepting).shell();
    let status = shell.value(&format!("orchestrator status --socket {}", socket.display()));
    assert_eq!(column(&status, "running"), Value::test_bool(false));
    let stop = shell.value(&format!("orchestrator stop --socket {}", socket.display()));
    assert_eq!(column(&stop, "was_running"), Value::test_bool(false));
    let (error, text) = shell.error(&format!("orchestrator task list --socket {}", socket.display()));
    assert_eq!(error.code.as_deref(), Some("orchestrator::not_running"));
    assert_eq!(text, socket.display().to_string());
    assert!(error.help.is_some());
    let doctor = shell.value(&format!("orchestrator doctor --socket {}", socket.display()));
    let states = column(&doctor, "state");
    assert!(states.as_list().unwrap().contains(&Value::test_string("warning")), "{states:?}");
}

#[test]
fn a_workflow_is_returned_with_its_tasks_when_it_has_ended() {
    struct Ending(Task);
    impl Behaviour for Ending {
        fn answer(&self, request: &Request) -> Play {
            match request {
                Request::Submit(request) => {
                    let Response::Submit(answer) = accept(request) else { unreachable!() };
                    Response::Submit(Submitted { id: Some(self.0.id), ..answer }).into()
                }
                Request::ListTasks(filter) if filter.parent == Some(self.0.id) => {
                    let (tasks, cursor) = match filter.cursor.as_deref() {
                        None => (vec![task("newest")], Some("more".to_owned())),
                        Some(_) => (vec![task("oldest")], None),
                    };
                    Response::ListTasks(TaskPage { tasks, cursor }).into()
                }
                other => Play::Refuse(Error::internal(other.name())),
            }
        }
        fn stream(&self, subscription: &Subscription) -> Stream {
            assert_eq!(*subscription, Subscription::Watch { ids: vec![self.0.id] });
            let items = [TaskStatus::Running, TaskStatus::Failed]
                .map(|status| Item::Task(Box::new(Task { status, ..self.0.clone() })));
            Stream { items: items.into(), then: Then::End(None) }
        }
    }
    let engine = Played::start(Ending(workflow("site")));
    let answer = engine.shell().value("[[script]; [a.nu] [b.nu]] | orchestrator workflow submit site --wait");
    assert_eq!(column(&answer, "status"), Value::test_string("Failed"));
    let names = column(&column(&answer, "tasks"), "name");
    assert_eq!(names, Value::test_list(vec![Value::test_string("oldest"), Value::test_string("newest")]));
}

#[test]
fn tasks_that_were_changed_with_one_are_named() {
    struct Cancelling;
    impl Behaviour for Cancelling {
        fn answer(&self, request: &Request) -> Play {
            let Request::Cancel(cancel) = request else { return Play::HangUp };
            assert_eq!(cancel.reason.as_deref(), Some("late"));
            let others = vec![TaskId::generate()];
            Response::Cancel(Changed { task: Box::new(task("web-01")), others }).into()
        }
    }
    let engine = Played::start(Cancelling);
    let line = "orchestrator task cancel 01890a5d-ac96-774b-bcce-b302099a8057 --reason late";
    let answer = engine.shell().value(line);
    assert_eq!(column(&answer, "others").as_list().unwrap().len(), 1);
}
