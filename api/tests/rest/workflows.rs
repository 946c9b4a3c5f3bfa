//! Work that is handed in: what reaches the engine, what is answered, and what is refused.

use axum::body::Body;
use axum::http::{HeaderValue, Method, header};
use futures::FutureExt;
use orchestrator_api::limits::Limits;
use orchestrator_protocol::Error;
use orchestrator_protocol::event::Item;
use orchestrator_protocol::provision::{Operation, ProvisionRequest, Target};
use orchestrator_protocol::request::{Request, Response, Subscription};
use orchestrator_protocol::submit::{NewTask, SubmitRequest, Submitted, SubmittedTask};
use orchestrator_protocol::task::{OnEngineLoss, RetryPolicy, SecretReference, TaskStatus};
use serde_json::json;
use tower::ServiceExt;

use crate::fake::{
    Fake, at, ending, healthy, id, post, posting, request, router_within, send, submitted, task,
};

/// The paths that take work.
const PATHS: [(&str, &str); 5] = [
    ("/workflows", r#"{"tasks":[{"script":"a.nu"}]}"#),
    ("/workflows/servers/create", r#"{"infra":"production","settings":"s.yaml"}"#),
    ("/workflows/servers/delete", r#"{"infra":"production","settings":"s.yaml","servers":["web-01"]}"#),
    ("/workflows/taskserv/create", r#"{"infra":"production","settings":"s.yaml","taskserv":"redis"}"#),
    ("/workflows/cluster/create", r#"{"infra":"production","settings":"s.yaml","cluster_type":"web"}"#),
];

async fn asked(path: &str, body: &str) -> Request {
    let service = Fake::healthy();
    let answer = post(&service, path, body).await;
    assert_eq!(answer.status, 202, "{body}: {answer:?}");
    assert_eq!(answer.json(), json!({ "success": true, "data": id(2), "error": null }));
    assert_eq!(answer.headers[header::LOCATION].to_str().unwrap(), format!("/tasks/{}", id(2)));
    let [asked] = &service.asked()[..] else { panic!("{:?}", service.asked()) };
    asked.clone()
}

fn provision(target: Target) -> ProvisionRequest {
    ProvisionRequest {
        infra: "production".into(),
        settings: "./settings.yaml".into(),
        target,
        ..ProvisionRequest::default()
    }
}

#[tokio::test]
async fn servers_to_create() {
    let expected = |servers: &[&str]| {
        let servers = servers.iter().map(|name| (*name).to_owned()).collect();
        Request::from(provision(Target::Servers { servers }))
    };
    let path = "/workflows/servers/create";
    let documented = r#"{"infra": "production", "settings": "./settings.yaml",
        "servers": ["web-01", "web-02"], "check_mode": false, "wait": false}"#;
    assert_eq!(asked(path, documented).await, expected(&["web-01", "web-02"]));
    for servers in ["", r#","servers":null"#, r#","servers":[]"#] {
        let body = format!(r#"{{"infra":"production","settings":"./settings.yaml"{servers}}}"#);
        assert_eq!(asked(path, &body).await, expected(&[]), "{body}");
    }
}

#[tokio::test]
async fn everything_that_can_be_said_reaches_the_engine() {
    let everything = json!({
        "infra": "production",
        "settings": "./settings.yaml",
        "servers": ["web-01"],
        "check_mode": true,
        "env": { "REGION": "fra" },
        "secrets": { "KEY": "file:/etc/key" },
        "priority": -3,
        "allow_concurrent": true,
        "retry": { "max_retries": 1, "base_ms": 2, "cap_ms": 3 },
        "timeout_ms": 60_000,
        "idempotency_key": "once",
    });
    let expected = ProvisionRequest {
        operation: Operation::Delete,
        check_mode: true,
        cwd: None,
        env: [("REGION".into(), "fra".into())].into(),
        secrets: [("KEY".into(), SecretReference::File("/etc/key".into()))].into(),
        priority: -3,
        allow_concurrent: true,
        retry: Some(RetryPolicy { max_retries: 1, base_ms: 2, cap_ms: 3 }),
        timeout_ms: Some(60_000),
        idempotency_key: Some("once".into()),
        ..provision(Target::Servers { servers: vec!["web-01".into()] })
    };
    assert_eq!(asked("/workflows/servers/delete", &everything.to_string()).await, expected.into());
}

#[tokio::test]
async fn taskservs_and_clusters() {
    let body = |rest: &str| format!(r#"{{"infra":"production","settings":"./settings.yaml",{rest}}}"#);
    let redis = |servers: Vec<String>| Target::Taskserv { taskserv: "redis".into(), servers };
    let web = || Target::Cluster { cluster_type: "web".into() };
    let (taskserv, cluster) = ("/workflows/taskserv/create", "/workflows/cluster/create");
    let table = [
        (taskserv, r#""taskserv":"redis""#, redis(Vec::new()), Operation::Create),
        (
            taskserv,
            r#""taskserv":"redis","operation":"create","servers":null"#,
            redis(Vec::new()),
            Operation::Create,
        ),
        (
            taskserv,
            r#""taskserv":"redis","operation":"verify","servers":["web-01"]"#,
            redis(vec!["web-01".into()]),
            Operation::Verify,
        ),
        (cluster, r#""cluster_type":"web""#, web(), Operation::Create),
        (cluster, r#""cluster_type":"web","operation":"verify""#, web(), Operation::Verify),
        (cluster, r#""cluster_type":"web","operation":"delete""#, web(), Operation::Delete),
    ];
    for (path, rest, target, operation) in table {
        let expected = ProvisionRequest { operation, ..provision(target) };
        assert_eq!(asked(path, &body(rest)).await, expected.into(), "{rest}");
    }
}

#[tokio::test]
async fn a_graph_of_scripts() {
    let graph = json!({
        "workflow": "install",
        "idempotency_key": "once",
        "tasks": [
            { "script": "prepare.nu" },
            {
                "name": "install redis", "script": "redis.nu", "params": { "port": 6379 }, "cwd": "/srv",
                "env": { "REGION": "fra" }, "secrets": { "KEY": "env:KEY" }, "after": ["prepare.nu"],
                "depends_on": [id(3)], "priority": 5, "group": "production", "labels": { "team": "data" },
                "lock": "web-01", "retry": { "max_retries": 0, "base_ms": 1, "cap_ms": 1 },
                "timeout_ms": 1, "grace_ms": 2, "not_before": "2026-01-31T12:00:01.500Z",
                "on_engine_loss": "hold", "requires": { "zone": "a" },
            },
        ],
    });
    let expected = SubmitRequest {
        tasks: vec![
            NewTask { script: "prepare.nu".into(), ..NewTask::default() },
            NewTask {
                name: Some("install redis".into()),
                script: "redis.nu".into(),
                params: Some(json!({ "port": 6379 })),
                cwd: Some("/srv".into()),
                env: [("REGION".into(), "fra".into())].into(),
                secrets: [("KEY".into(), SecretReference::Environment("KEY".into()))].into(),
                after: vec!["prepare.nu".into()],
                depends_on: vec![id(3)],
                priority: 5,
                group: Some("production".into()),
                labels: [("team".into(), "data".into())].into(),
                lock: Some("web-01".into()),
                retry: Some(RetryPolicy { max_retries: 0, base_ms: 1, cap_ms: 1 }),
                timeout_ms: Some(1),
                grace_ms: Some(2),
                not_before: Some(at(1)),
                requires: [("zone".into(), "a".into())].into(),
                on_engine_loss: Some(OnEngineLoss::Hold),
            },
        ],
        workflow: Some("install".into()),
        idempotency_key: Some("once".into()),
    };
    assert_eq!(asked("/workflows", &graph.to_string()).await, expected.into());
}

/// What several tasks without a workflow make.
fn several() -> Submitted {
    let tasks = [1, 4].map(|last| SubmittedTask { id: id(last), name: format!("task {last}") });
    Submitted { id: None, name: None, tasks: tasks.to_vec(), existed: false }
}

#[tokio::test]
async fn several_tasks_without_a_workflow_have_no_common_identifier() {
    let service = Fake::new(|_| Ok(Response::Submit(several())));
    let answer = post(&service, "/workflows", r#"{"tasks":[{"script":"a"},{"script":"b"}]}"#).await;
    assert_eq!(answer.status, 202);
    assert!(!answer.headers.contains_key(header::LOCATION));
    let tasks = json!([{ "id": id(1), "name": "task 1" }, { "id": id(4), "name": "task 4" }]);
    assert_eq!(answer.json()["data"], json!({ "tasks": tasks }));
}

/// A service whose tasks end when they are watched, the last that is asked for first.
fn finishing(made: Submitted) -> std::sync::Arc<Fake> {
    let answer = move |request: &Request| match request {
        Request::Submit(_) => Ok(Response::Submit(made.clone())),
        other => healthy(other),
    };
    Fake::streaming(answer, |subscription| {
        let Subscription::Watch { ids } = subscription else { panic!("{subscription:?}") };
        let state =
            |id, status| Item::Task(Box::new(orchestrator_protocol::task::Task { id, status, ..task() }));
        let running = ids.iter().map(|id| state(*id, TaskStatus::Running));
        let ended = ids.iter().rev().map(|id| state(*id, TaskStatus::Failed));
        Ok(ending(running.chain(ended).collect()))
    })
}

#[tokio::test]
async fn whoever_waits_gets_the_finished_task_whatever_its_end() {
    for (path, body) in PATHS {
        let body = body.replacen('{', r#"{"wait":true,"#, 1);
        let service = finishing(submitted());
        let answer = post(&service, path, &body).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        let data = &answer.json()["data"];
        assert_eq!((&data["id"], &data["status"]), (&json!(id(2)), &json!("Failed")), "{path}");
        assert_eq!(service.subscribed(), [Subscription::Watch { ids: vec![id(2)] }]);
        assert_eq!(service.asked().len(), 1);
    }
}

#[tokio::test]
async fn whoever_waits_for_several_tasks_gets_all_in_their_order() {
    let body = r#"{"tasks":[{"script":"a"},{"script":"b"}],"wait":true}"#;
    let answer = post(&finishing(several()), "/workflows", body).await;
    assert_eq!(answer.status, 200);
    let data = answer.json()["data"].take();
    let seen: Vec<_> = data["tasks"].as_array().unwrap().iter().map(|task| &task["id"]).collect();
    assert_eq!(seen, [&json!(id(1)), &json!(id(4))]);
}

#[tokio::test]
async fn what_had_been_made_already_is_said_to_be() {
    for existed in [false, true] {
        let made = Submitted { existed, ..submitted() };
        let body = r#"{"tasks":[{"script":"a.nu"}],"idempotency_key":"once"}"#;
        for wait in ["", r#""wait":true,"#] {
            let body = body.replacen('{', &format!("{{{wait}"), 1);
            let answer = post(&finishing(made.clone()), "/workflows", &body).await;
            assert_eq!(answer.status, if wait.is_empty() { 202 } else { 200 });
            assert_eq!(answer.headers.contains_key("idempotent-replayed"), existed);
        }
    }
}

#[tokio::test]
async fn a_key_in_the_header_is_as_good_as_one_in_the_body() {
    for (path, body) in PATHS {
        let with_key = body.replacen('{', r#"{"idempotency_key":"once","#, 1);
        for (body, keys, expected) in [
            (body, &["once"][..], Ok(())),
            (&with_key, &["once"], Ok(())),
            (&with_key, &[], Ok(())),
            (&with_key, &["twice"], Err("twice")),
            (body, &[""], Err("Idempotency-Key")),
            (body, &["once", "once"], Err("Idempotency-Key")),
            (body, &["\u{e4}"], Err("Idempotency-Key")),
        ] {
            let service = Fake::healthy();
            let mut request = posting(path, body);
            for key in keys {
                request
                    .headers_mut()
                    .append("idempotency-key", HeaderValue::from_bytes(key.as_bytes()).unwrap());
            }
            let answer = send(&service, request).await;
            match expected {
                Ok(()) => {
                    assert_eq!(answer.status, 202, "{path} {keys:?}: {answer:?}");
                    let key = match &service.asked()[..] {
                        [Request::Submit(asked)] => asked.idempotency_key.clone(),
                        [Request::Provision(asked)] => asked.idempotency_key.clone(),
                        other => panic!("{other:?}"),
                    };
                    assert_eq!(key.as_deref(), Some("once"));
                }
                Err(word) => {
                    assert_eq!(answer.status, 400, "{path} {keys:?}: {answer:?}");
                    assert!(answer.json()["error"].as_str().unwrap().contains(word), "{answer:?}");
                    assert_eq!(service.asked(), []);
                }
            }
        }
    }
}

#[tokio::test]
async fn what_is_no_json_is_told_where() {
    let deep = "[".repeat(200);
    for (body, line, column) in [
        ("", 1, 0),
        ("{", 1, 1),
        ("{\n  \"infra\": production\n}", 2, 12),
        (r#"{"infra":"p","settings":"s"} and more"#, 1, 30),
        (r#"{"infra":"p","settings":"s",}"#, 1, 29),
        ("infra=production", 1, 1),
        ("\u{feff}{}", 1, 1),
        (r#"{"infra":7,"settings":"s""#, 1, 25),
        (&format!(r#"{{"infra":{deep}"#), 1, 209),
    ] {
        let service = Fake::healthy();
        let answer = post(&service, "/workflows/servers/create", body).await;
        assert_eq!(answer.status, 400, "{body}: {answer:?}");
        let answer = answer.json();
        assert_eq!(answer["code"], "malformed", "{body}");
        assert_eq!(answer["details"], json!({ "line": line, "column": column }), "{body}");
        assert_eq!(service.asked(), []);
    }
    let deep = format!(r#"{{"tasks":[{{"script":"a","params":{deep}{}}}]}}"#, "]".repeat(200));
    let answer = post(&Fake::healthy(), "/workflows", &deep).await;
    assert_eq!(answer.status, 400, "deeper than is read: {answer:?}");
    let mut request = posting("/workflows", "");
    *request.body_mut() = Body::from(b"{\"tasks\":\"\xff\"}".to_vec());
    assert_eq!(send(&Fake::healthy(), request).await.status, 400);
}

#[tokio::test]
async fn json_that_means_nothing_names_the_field() {
    let servers = "/workflows/servers/create";
    let start = r#"{"infra":"p","settings":"s""#;
    let table = [
        (servers, "{}".to_owned(), "infra"),
        (servers, r#"{"infra":"p"}"#.into(), "settings"),
        (servers, r#"{"infra":7,"settings":"s"}"#.into(), "infra"),
        (servers, r#"{"infra":null,"settings":"s"}"#.into(), "infra"),
        (servers, format!(r#"{start},"servers":"web-01"}}"#), "servers"),
        (servers, format!(r#"{start},"servers":["web-01",2]}}"#), "servers[1]"),
        (servers, format!(r#"{start},"check_mode":"yes"}}"#), "check_mode"),
        (servers, format!(r#"{start},"wait":1}}"#), "wait"),
        (servers, format!(r#"{start},"priority":1.5}}"#), "priority"),
        (servers, format!(r#"{start},"timeout_ms":-1}}"#), "timeout_ms"),
        (servers, format!(r#"{start},"colour":"red"}}"#), "colour"),
        (servers, format!(r#"{start},"operation":"delete"}}"#), "operation"),
        (servers, format!(r#"{start},"cwd":"/"}}"#), "cwd"),
        (servers, format!(r#"{start},"infra":"q"}}"#), "infra"),
        (servers, format!(r#"{start},"env":{{"REGION":7}}}}"#), "env.REGION"),
        (servers, format!(r#"{start},"secrets":{{"KEY":"hunter2"}}}}"#), "secrets.KEY"),
        (servers, format!(r#"{start},"retry":{{"max_retries":1}}}}"#), "retry.base_ms"),
        (servers, format!(r#"{start},"retry":{{"tries":1}}}}"#), "retry.tries"),
        ("/workflows/servers/delete", format!("{start}}}"), "servers"),
        ("/workflows/servers/delete", format!(r#"{start},"servers":null}}"#), "servers"),
        ("/workflows/taskserv/create", format!("{start}}}"), "taskserv"),
        (
            "/workflows/taskserv/create",
            format!(r#"{start},"taskserv":"redis","operation":"delete"}}"#),
            "operation",
        ),
        (
            "/workflows/cluster/create",
            format!(r#"{start},"cluster_type":"web","operation":"mend"}}"#),
            "operation",
        ),
        ("/workflows/cluster/create", format!(r#"{start},"cluster_type":"web","servers":[]}}"#), "servers"),
        ("/workflows", r#"{"tasks":{}}"#.into(), "tasks"),
        ("/workflows", r#"{"tasks":[{}]}"#.into(), "tasks[0].script"),
        ("/workflows", r#"{"tasks":[{"script":"a"},{"script":"b","colour":1}]}"#.into(), "tasks[1].colour"),
        (
            "/workflows",
            r#"{"tasks":[{"script":"a","depends_on":["seven"]}]}"#.into(),
            "tasks[0].depends_on[0]",
        ),
        ("/workflows", r#"{"tasks":[{"script":"a","not_before":"soon"}]}"#.into(), "tasks[0].not_before"),
    ];
    for (path, body, field) in table {
        let service = Fake::healthy();
        let answer = post(&service, path, &body).await;
        assert_eq!(answer.status, 422, "{path} {body}: {answer:?}");
        let answer = answer.json();
        assert_eq!(
            (&answer["code"], &answer["details"]["field"]),
            (&json!("invalid"), &json!(field)),
            "{body}"
        );
        assert!(answer["error"].as_str().unwrap().starts_with(field), "{answer}");
        assert_eq!(service.asked(), [], "{body}");
    }
    for body in ["7", "[]", "null", r#""text""#] {
        let answer = post(&Fake::healthy(), servers, body).await;
        assert_eq!(answer.status, 422, "{body}: {answer:?}");
    }
}

#[tokio::test]
async fn a_secrets_value_is_not_repeated() {
    let body = r#"{"infra":"p","settings":"s","secrets":{"KEY":"hunter2"}}"#;
    let answer = post(&Fake::healthy(), "/workflows/servers/create", body).await;
    assert!(!answer.text.contains("hunter2"), "{}", answer.text);
}

#[tokio::test]
async fn only_json_is_taken() {
    let targets = PATHS.iter().map(|(path, body)| ((*path).to_owned(), *body));
    let optional = ["/queue/pause", "/engine/stop"].map(|path| (path.to_owned(), "{}"));
    for (path, body) in targets.chain(optional) {
        for (types, status) in [
            (&["application/json; charset=utf-8"][..], 202),
            (&["APPLICATION/JSON"], 202),
            (&["text/plain"], 415),
            (&["application/x-www-form-urlencoded"], 415),
            (&["application/jsonp"], 415),
            (&["application/json", "text/plain"], 415),
            (&[""], 415),
            (&[], 415),
        ] {
            let service = Fake::healthy();
            let mut request = request(Method::POST, &path);
            *request.body_mut() = Body::from(body);
            for of_body in types {
                request.headers_mut().append(header::CONTENT_TYPE, HeaderValue::from_static(of_body));
            }
            let answer = send(&service, request).await;
            let status = if path == "/queue/pause" && status == 202 { 200 } else { status };
            assert_eq!(answer.status, status, "{path} {types:?}: {answer:?}");
            assert_eq!(service.asked().len(), usize::from(status != 415));
        }
    }
}

#[tokio::test]
async fn a_page_of_another_site_hands_nothing_in() {
    for (path, body) in PATHS {
        let service = Fake::healthy();
        let mut request = posting(path, body);
        request.headers_mut().insert(header::ORIGIN, HeaderValue::from_static("http://evil.example"));
        assert_eq!(send(&service, request).await.status, 403);
        assert_eq!(service.asked(), []);
    }
}

#[tokio::test]
async fn what_the_engine_finds_wrong_is_told() {
    let service = Fake::new(|_| {
        Err(Error::invalid("'--x;^rm' is not a valid server name")
            .with_field("servers[0]")
            .with_help("rename it"))
    });
    let (path, body) = PATHS[1];
    insta::assert_snapshot!(post(&service, path, body).await.shown());
}

#[tokio::test]
async fn a_client_that_goes_away_in_the_middle_has_submitted() {
    for (path, body) in PATHS {
        let service = Fake::healthy();
        service.open.send_replace(false);
        let gone = tokio::spawn(router_within(&service, Limits::default()).oneshot(posting(path, body)));
        service.has_been_asked(1).await;
        gone.abort();
        assert!(gone.await.unwrap_err().is_cancelled());
        service.open.send_replace(true);
        service.has_answered(1).await;
        assert_eq!(service.asked().len(), 1, "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_submission_that_takes_too_long_is_not_called_refused() {
    let service = Fake::healthy();
    service.open.send_replace(false);
    let (path, body) = PATHS[0];
    let answer = post(&service, path, body).await;
    assert_eq!(answer.status, 503);
    assert!(answer.json()["error"].as_str().unwrap().contains("may still"), "{answer:?}");
    assert!(!answer.headers.contains_key(header::RETRY_AFTER));
    assert!(answer.json()["details"]["help"].as_str().unwrap().contains("idempotency"), "{answer:?}");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_is_not_waited_for_for_ever() {
    let service = Fake::healthy();
    let mut request = posting("/workflows", "");
    *request.body_mut() = Body::from_stream(futures::stream::pending::<Result<&[u8], std::io::Error>>());
    let answer = send(&service, request).await;
    assert_eq!((answer.status, &answer.json()["code"]), (408, &json!("too_slow")));
    assert_eq!(answer.headers[header::CONNECTION], "close");
}

#[tokio::test]
async fn a_list_is_no_object_at_any_depth() {
    let task = r#"["greet","hello.nu",null,null,{},{},[],[],0,null,{},null,null,null,null,null]"#;
    let table = [
        (format!(r#"{{"tasks":[{task}]}}"#), "tasks[0]"),
        (r#"{"tasks":[{"script":"a.nu","retry":[3,1000,60000]}]}"#.to_owned(), "tasks[0].retry"),
    ];
    for (body, field) in table {
        let service = Fake::healthy();
        let answer = post(&service, "/workflows", &body).await;
        assert_eq!(answer.status, 422, "{body}: {answer:?}");
        assert_eq!(answer.json()["details"]["field"], field);
        assert_eq!(service.asked(), []);
    }
    let service = Fake::healthy();
    let body = r#"{"infra":"production","settings":"s.yaml","retry":[3,1000,60000]}"#;
    let answer = post(&service, "/workflows/servers/create", body).await;
    assert_eq!((answer.status, service.asked()), (422, vec![]), "{answer:?}");
}

#[tokio::test]
async fn changes_whose_clients_are_gone_count_among_those_that_are_made() {
    let service = Fake::healthy();
    service.open.send_replace(false);
    let router = router_within(&service, Limits { requests: 1, waits: 1, ..Limits::default() });
    let (path, body) = PATHS[0];
    for count in 1..=2 {
        let gone = tokio::spawn(router.clone().oneshot(posting(path, body)));
        service.has_been_asked(count).await;
        gone.abort();
        assert!(gone.await.unwrap_err().is_cancelled());
    }
    let refused = router.clone().oneshot(posting(path, body)).now_or_never().unwrap().unwrap();
    assert_eq!((refused.status().as_u16(), service.asked().len()), (503, 2));
    service.open.send_replace(true);
    service.has_answered(2).await;
    assert_eq!(router.oneshot(posting(path, body)).await.unwrap().status(), 202);
}
