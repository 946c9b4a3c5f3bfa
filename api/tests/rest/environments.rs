//! Test environments: what reaches the engine, what is answered, and what is refused.

use std::sync::Arc;

use axum::http::{HeaderValue, Method, header};
use futures::StreamExt;
use orchestrator_api::limits::Limits;
use orchestrator_protocol::Error;
use orchestrator_protocol::environment::{
    CleanEnvironment, EnvironmentConfig, EnvironmentRequest, EnvironmentStatus, EnvironmentTask, Fault,
    FaultStep, GetEnvironment, InjectFault, ListEnvironments, ListTopologies, NodeResources, PrunePrepared,
    RunEnvironment, RunOptions, TestScript, Topology,
};
use orchestrator_protocol::event::Item;
use orchestrator_protocol::request::{Request, Response, Subscription};
use orchestrator_protocol::task::{Task, TaskStatus};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::fake::{
    Fake, Seen, ending, environment, environment_id, environment_request, get, healthy, id, post, posting,
    queued, request, router_within, seen, send, silent_after, task,
};

const CREATE: &str = "/test/environments/create";
const REDIS: &str = r#"{"config":{"type":"single_taskserv","taskserv":"redis"}}"#;

/// A path under the environment's own.
fn target(rest: &str) -> String {
    format!("/test/environments/{}{rest}", environment_id())
}

/// What queues work on environments: method, path, body, and the same with a wait.
fn queueing() -> Vec<(Method, String, String, (String, String))> {
    let waiting = |body: &str| body.replacen('{', r#"{"wait":true,"#, 1).replace(",}", "}");
    let posts = [(CREATE.to_owned(), REDIS), (target("/run"), "{}")];
    let mut all: Vec<_> =
        posts.map(|(path, body)| (Method::POST, path.clone(), body.to_owned(), (path, waiting(body)))).into();
    all.push((Method::DELETE, target(""), String::new(), (target("?wait=true"), String::new())));
    all
}

async fn ask(service: &Arc<Fake>, method: &Method, path: &str, body: &str) -> Seen {
    match body {
        "" => send(service, request(method.clone(), path)).await,
        body => post(service, path, body).await,
    }
}

/// What a documented body is for the engine.
async fn created(body: &str) -> EnvironmentRequest {
    let service = Fake::healthy();
    let answer = post(&service, CREATE, body).await;
    assert_eq!(answer.status, 202, "{body}: {answer:?}");
    match &service.asked()[..] {
        [Request::CreateEnvironment(asked)] => asked.clone(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_three_kinds_as_they_are_documented() {
    let plain = created(REDIS).await;
    let single = |resources| EnvironmentConfig::SingleTaskserv {
        taskserv: "redis".into(),
        base_image: Some("ubuntu:22.04".into()),
        environment: Default::default(),
        resources,
        taskserv_options: Default::default(),
    };
    let body = r#"{"config": {"type": "single_taskserv", "taskserv": "redis", "base_image": "ubuntu:22.04",
        "environment": {}, "resources": {"cpu_millicores": 2000, "memory_mb": 4096}},
        "infra": "my-project", "auto_start": true, "auto_cleanup": false}"#;
    let resources =
        NodeResources { cpu_millicores: Some(2000), memory_mb: Some(4096), ..NodeResources::default() };
    let expected = EnvironmentRequest {
        config: single(resources),
        infra: Some("my-project".into()),
        auto_start: true,
        ..plain.clone()
    };
    assert_eq!(created(body).await, expected);

    let body = r#"{"config": {"type": "server_simulation", "server_name": "web-01",
        "taskservs": ["containerd", "redis"], "base_image": "ubuntu:22.04"}}"#;
    let config = EnvironmentConfig::ServerSimulation {
        server_name: "web-01".into(),
        taskservs: vec!["containerd".into(), "redis".into()],
        base_image: Some("ubuntu:22.04".into()),
        environment: Default::default(),
        resources: NodeResources::default(),
        taskserv_options: Default::default(),
    };
    assert_eq!(created(body).await, EnvironmentRequest { config, ..plain.clone() });

    let body =
        r#"{"config": {"type": "cluster_topology", "cluster_type": "etcd", "topology": {"nodes": []}}}"#;
    let config =
        EnvironmentConfig::ClusterTopology { cluster_type: "etcd".into(), topology: Topology::default() };
    assert_eq!(created(body).await, EnvironmentRequest { config, ..plain });
}

#[tokio::test]
async fn what_is_left_out_is_what_the_protocol_says() {
    let expected: EnvironmentRequest = serde_json::from_str(REDIS).unwrap();
    assert_eq!(created(REDIS).await, expected);
}

#[tokio::test]
async fn everything_that_can_be_said_of_an_environment_reaches_the_engine() {
    let mut body = serde_json::to_value(environment_request()).unwrap();
    body.as_object_mut().unwrap().remove("cwd");
    assert_eq!(created(&body.to_string()).await, environment_request());
    for fault in [
        json!({ "kind": "kill", "node": "a" }),
        json!({ "kind": "stop", "node": "a" }),
        json!({ "kind": "pause", "node": "a" }),
        json!({ "kind": "unpause", "node": "a" }),
        json!({ "kind": "restart", "node": "a" }),
        json!({ "kind": "partition", "nodes": ["a", "b"] }),
        json!({ "kind": "heal" }),
    ] {
        let service = Fake::healthy();
        let body = json!({ "fault": fault }).to_string();
        let answer = post(&service, &target("/faults"), &body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.json()["data"]["status"], "failed", "the environment after it");
        let fault = serde_json::from_value(fault).unwrap();
        assert_eq!(service.asked(), [InjectFault { id: environment_id(), fault }.into()]);
    }
}

#[tokio::test]
async fn a_run_says_what_it_does() {
    let everything = r#"{"tests":[{"script":"a.sh","nodes":["web-01"]}],"idempotence_check":true,
        "faults":[{"fault":{"kind":"pause","node":"web-01"}}]}"#;
    let options = RunOptions {
        tests: vec![TestScript {
            name: None,
            script: "a.sh".into(),
            nodes: vec!["web-01".into()],
            timeout_ms: None,
        }],
        idempotence_check: true,
        faults: vec![FaultStep { fault: Fault::Pause { node: "web-01".into() }, verify: true }],
    };
    for (body, run) in [(everything, options), ("{}", RunOptions::default()), ("", RunOptions::default())] {
        let service = Fake::healthy();
        assert_eq!(ask(&service, &Method::POST, &target("/run"), body).await.status, 202);
        let expected = RunEnvironment { id: environment_id(), run, cwd: None };
        assert_eq!(service.asked(), [expected.into()], "{body}");
    }
}

#[tokio::test]
async fn what_was_queued_is_named_and_where_to_ask() {
    for (method, path, body, _) in queueing() {
        for existed in [false, true] {
            let made = EnvironmentTask { existed, ..queued() };
            let service = Fake::new(move |request| {
                Ok(match request {
                    Request::CreateEnvironment(_) => Response::CreateEnvironment(made),
                    Request::RunEnvironment(_) => Response::RunEnvironment(made),
                    Request::CleanEnvironment(_) => Response::CleanEnvironment(made),
                    other => panic!("{other:?}"),
                })
            });
            let answer = ask(&service, &method, &path, &body).await;
            assert_eq!(answer.status, 202, "{path}: {answer:?}");
            let data = json!({ "environment": environment_id(), "task": id(2) });
            assert_eq!(answer.json(), json!({ "success": true, "data": data, "error": null }));
            assert_eq!(answer.headers[header::LOCATION].to_str().unwrap(), target(""));
            assert_eq!(answer.headers.contains_key("idempotent-replayed"), existed);
        }
    }
}

/// A service whose workflow ends as told when it is watched.
fn finishing(status: TaskStatus) -> Arc<Fake> {
    Fake::healthy_streaming(move |subscription| {
        let Subscription::Watch { ids } = subscription else { panic!("{subscription:?}") };
        let state = |status| Item::Task(Box::new(Task { id: ids[0], status, ..task() }));
        Ok(ending(vec![state(TaskStatus::Running), state(status)]))
    })
}

#[tokio::test]
async fn whoever_waits_gets_the_environment_whatever_the_end() {
    for (method, _, _, (path, body)) in queueing() {
        for status in [TaskStatus::Completed, TaskStatus::Failed, TaskStatus::Cancelled] {
            let service = finishing(status);
            let answer = ask(&service, &method, &path, &body).await;
            assert_eq!(answer.status, 200, "{path}: {answer:?}");
            let data = &answer.json()["data"];
            assert_eq!((&data["id"], &data["status"]), (&json!(environment_id()), &json!("failed")));
            assert_eq!(service.subscribed(), [Subscription::Watch { ids: vec![id(2)] }]);
            let [_, then] = &service.asked()[..] else { panic!("{:?}", service.asked()) };
            assert_eq!(*then, GetEnvironment { id: environment_id() }.into());
        }
    }
}

#[tokio::test]
async fn an_engine_that_stops_says_of_which_environment_it_was() {
    for (method, _, _, (path, body)) in queueing() {
        let service = Fake::healthy_streaming(|_| {
            let items = [Err(Error::unavailable("the engine is stopping"))];
            Ok(futures::stream::iter(items).boxed())
        });
        let answer = ask(&service, &method, &path, &body).await;
        assert_eq!(answer.status, 503, "{path}: {answer:?}");
        let details = json!({ "task": id(2), "environment": environment_id() });
        assert_eq!(answer.json()["details"], details);
    }
}

#[tokio::test]
async fn what_cannot_be_waited_for_is_not_queued() {
    let service = Fake::healthy_streaming(|_| Ok(silent_after(Vec::new())));
    let router = router_within(&service, Limits { waits: 1, ..Limits::default() });
    let waits = tokio::spawn(router.clone().oneshot(request(Method::GET, "/events")));
    service.has_listeners(1).await;
    let long = [
        (Method::POST, target("/faults"), r#"{"fault":{"kind":"heal"}}"#.to_owned()),
        (Method::POST, "/test/images/prune".into(), "{}".into()),
        (Method::GET, target("/logs?follow=true"), String::new()),
    ];
    let waiting = queueing().into_iter().map(|(method, _, _, (path, body))| (method, path, body));
    for (method, path, body) in waiting.chain(long) {
        let mut asks = posting(&path, &body);
        *asks.method_mut() = method;
        let answer = seen(router.clone().oneshot(asks).await.unwrap()).await;
        assert_eq!((answer.status, &answer.json()["code"]), (429, &json!("too_many")), "{path}");
    }
    assert_eq!(service.asked(), []);
    drop(waits.await.unwrap().unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_fault_may_take_long_and_is_made_to_its_end() {
    let service = Fake::healthy();
    service.open.send_replace(false);
    let router = router_within(&service, Limits { requests: 1, ..Limits::default() });
    let body = r#"{"fault":{"kind":"restart","node":"etcd-01"}}"#;
    let asks = tokio::spawn(router.clone().oneshot(posting(&target("/faults"), body)));
    service.has_been_asked(1).await;
    tokio::time::advance(std::time::Duration::from_secs(3600)).await;
    assert!(!asks.is_finished());
    assert_eq!(
        router.oneshot(request(Method::GET, "/nowhere")).await.unwrap().status(),
        404,
        "has its place"
    );
    asks.abort();
    assert!(asks.await.unwrap_err().is_cancelled());
    service.open.send_replace(true);
    service.has_answered(1).await;
}

#[tokio::test]
async fn the_key_of_an_environment_may_come_in_the_header() {
    for (in_body, in_header, status) in [("", "once", 202), ("once", "once", 202), ("twice", "once", 400)] {
        let service = Fake::healthy();
        let mut body: Value = serde_json::from_str(REDIS).unwrap();
        if !in_body.is_empty() {
            body["idempotency_key"] = json!(in_body);
        }
        let mut request = posting(CREATE, &body.to_string());
        request.headers_mut().insert("idempotency-key", HeaderValue::from_static(in_header));
        assert_eq!(send(&service, request).await.status, status, "{in_body}");
        let keys: Vec<_> = service
            .asked()
            .into_iter()
            .map(|asked| match asked {
                Request::CreateEnvironment(asked) => asked.idempotency_key,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(keys, if status == 202 { vec![Some("once".to_owned())] } else { vec![] });
    }
}

#[tokio::test]
async fn an_environment() {
    insta::assert_snapshot!(get(&Fake::healthy(), &target("")).await.shown());
}

#[tokio::test]
async fn an_environment_of_which_nothing_is_known_yet_has_every_key() {
    let full = get(&Fake::healthy(), &target("")).await.json()["data"].take();
    let answer = |_: &Request| {
        let mut bare = environment();
        (bare.network, bare.task, bare.error, bare.ready_at) = (None, None, None, None);
        bare.nodes[0].address = None;
        bare.nodes[0].container = None;
        bare.nodes[0].image = None;
        bare.results[0].exit_code = None;
        bare.results[0].result = None;
        bare.request.infra = None;
        bare.request.expires_after_ms = None;
        Ok(Response::GetEnvironment(Box::new(bare)))
    };
    let bare = get(&Fake::new(answer), &target("")).await.json()["data"].take();
    for place in ["", "/nodes/0", "/results/0", "/request"] {
        let keys = |of: &Value| of.pointer(place).unwrap().as_object().unwrap().keys().cloned().collect();
        let (full, bare): (Vec<String>, Vec<String>) = (keys(&full), keys(&bare));
        assert_eq!(full, bare, "{place}");
    }
}

#[tokio::test]
async fn results_as_junit() {
    for accept in ["application/xml", "application/json;q=0.5, Application/XML"] {
        let service = Fake::healthy();
        let mut request = request(Method::GET, &target(""));
        request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static(accept));
        let answer = send(&service, request).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.headers[header::CONTENT_TYPE], "application/xml");
        assert_eq!(answer.text, orchestrator_protocol::junit::junit(&environment()));
        assert_eq!(service.asked(), [GetEnvironment { id: environment_id() }.into()]);
    }
    let service = Fake::new(|_| Err(Error::not_found("there is no such environment")));
    let mut request = request(Method::GET, &target(""));
    request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static("application/xml"));
    let answer = send(&service, request).await;
    assert_eq!((answer.status, &answer.json()["code"]), (404, &json!("not_found")));
}

#[tokio::test]
async fn environments_are_chosen_by_state_and_infra() {
    use EnvironmentStatus::{Failed, Passed, RunningTests};
    for (query, statuses, infra) in [
        ("", vec![], None),
        ("?status=failed", vec![Failed], None),
        ("?status=FAILED,running_tests&status=passed", vec![Failed, RunningTests, Passed], None),
        ("?infra=staging", vec![], Some("staging".to_owned())),
    ] {
        let service = Fake::healthy();
        let answer = get(&service, &format!("/test/environments{query}")).await;
        assert_eq!(answer.status, 200, "{query}: {answer:?}");
        assert_eq!(answer.json()["data"][0]["id"], json!(environment_id()));
        assert_eq!(service.asked(), [ListEnvironments { statuses, infra }.into()], "{query}");
    }
    for query in ["status=broken", "status=failed,", "status=", "infra=a&infra=b", "stauts=failed"] {
        let service = Fake::healthy();
        let answer = get(&service, &format!("/test/environments?{query}")).await;
        assert_eq!((answer.status, &answer.json()["code"]), (400, &json!("malformed")), "{query}");
        assert_eq!(service.asked(), [], "{query}");
    }
}

#[tokio::test]
async fn a_topology_can_be_sent_as_it_was_answered() {
    let service = Fake::healthy();
    let answer = get(&service, "/test/topologies").await;
    assert_eq!(service.asked(), [ListTopologies { cwd: None }.into()]);
    let named = answer.json()["data"][0].take();
    assert_eq!((&named["name"], &named["cluster_type"]), (&json!("etcd_cluster"), &json!("etcd")));
    let config = json!({ "type": "cluster_topology", "cluster_type": "etcd", "topology": named["topology"] });
    let sent = created(&json!({ "config": config }).to_string()).await;
    assert_eq!(sent.config, environment_request().config);
}

#[tokio::test]
async fn prepared_images_are_pruned() {
    for body in ["{}", ""] {
        let service = Fake::healthy();
        let answer = ask(&service, &Method::POST, "/test/images/prune", body).await;
        let data = json!({ "images": ["sha256:12"], "bytes": 1 << 20 });
        assert_eq!(answer.json(), json!({ "success": true, "data": data, "error": null }));
        assert_eq!(service.asked(), [PrunePrepared {}.into()]);
    }
}

#[tokio::test]
async fn a_delete_removes_one_environment() {
    for query in ["", "?wait=false"] {
        let service = Fake::healthy();
        let answer = send(&service, request(Method::DELETE, &target(query))).await;
        assert_eq!(answer.status, 202, "{answer:?}");
        assert_eq!(service.asked(), [CleanEnvironment { id: environment_id() }.into()]);
    }
    for path in ["?wait=yes", "?force=true"].map(target) {
        let service = Fake::healthy();
        assert_eq!(send(&service, request(Method::DELETE, &path)).await.status, 400, "{path}");
        assert_eq!(service.asked(), []);
    }
    let service = Fake::healthy();
    let mut foreign = request(Method::DELETE, &target(""));
    foreign.headers_mut().insert(header::ORIGIN, HeaderValue::from_static("http://evil.example"));
    assert_eq!(send(&service, foreign).await.status, 403);
    assert_eq!(service.asked(), []);
}

#[tokio::test]
async fn what_is_no_environments_id_is_refused() {
    for (method, path) in [
        (Method::GET, "/test/environments/etcd"),
        (Method::DELETE, "/test/environments/etcd"),
        (Method::GET, "/test/environments/etcd/logs"),
        (Method::POST, "/test/environments/etcd/run"),
    ] {
        let service = Fake::healthy();
        let answer = send(&service, request(method, path)).await;
        assert_eq!(answer.status, 400, "{path}");
        let error = answer.json()["error"].take();
        assert!(error.as_str().unwrap().contains("'etcd' is not an environment id"), "{error}");
        assert_eq!(service.asked(), []);
    }
}

#[tokio::test]
async fn a_body_about_environments_that_means_nothing_names_the_field() {
    let node = |rest: &str| {
        let nodes = format!(r#"[{{"name":"a"}},{{"name":"b"{rest}}}]"#);
        let topology = format!(r#"{{"nodes":{nodes}}}"#);
        format!(r#"{{"config":{{"type":"cluster_topology","cluster_type":"c","topology":{topology}}}}}"#)
    };
    let single = |rest: &str| format!(r#"{{"config":{{"type":"single_taskserv"{rest}}}}}"#);
    let with = |rest: &str| REDIS.replacen('{', &format!("{{{rest},"), 1);
    let (create, run, faults) = (CREATE.to_owned(), target("/run"), target("/faults"));
    let table = [
        (&create, "{}".to_owned(), "config"),
        (&create, r#"{"config":"redis"}"#.into(), "config"),
        (&create, r#"{"config":{}}"#.into(), "config.type"),
        (&create, r#"{"config":{"type":7}}"#.into(), "config.type"),
        (&create, r#"{"config":{"type":"vm"}}"#.into(), "config.type"),
        (&create, single(""), "config.taskserv"),
        (&create, single(r#","taskserv":["redis"]"#), "config.taskserv"),
        (&create, single(r#","taskserv":"redis","server_name":"a""#), "config.server_name"),
        (&create, single(r#","taskserv":"redis","resources":{"memory":1}"#), "config.resources.memory"),
        (
            &create,
            single(r#","taskserv":"redis","resources":{"memory_mb":-1}"#),
            "config.resources.memory_mb",
        ),
        (&create, single(r#","taskserv":"redis","environment":{"A":1}"#), "config.environment.A"),
        (
            &create,
            single(r#","taskserv":"redis","taskserv_options":{"redis":7}"#),
            "config.taskserv_options.redis",
        ),
        (&create, r#"{"config":{"type":"server_simulation","taskservs":[]}}"#.into(), "config.server_name"),
        (&create, r#"{"config":{"type":"server_simulation","server_name":"a"}}"#.into(), "config.taskservs"),
        (&create, r#"{"config":{"type":"cluster_topology","cluster_type":"c"}}"#.into(), "config.topology"),
        (&create, node(r#","rolle":"x""#), "config.topology.nodes[1].rolle"),
        (&create, node(r#","address":"web-01""#), "config.topology.nodes[1].address"),
        (&create, node(r#","volumes":[{"name":"v"}]"#), "config.topology.nodes[1].volumes[0].path"),
        (&create, with(r#""cwd":"/srv""#), "cwd"),
        (&create, with(r#""colour":"red""#), "colour"),
        (&create, with(r#""disk_policy":"hope""#), "disk_policy"),
        (&create, with(r#""expires_after_ms":"1h""#), "expires_after_ms"),
        (&create, with(r#""run":{"tests":[{}]}"#), "run.tests[0].script"),
        (&create, with(r#""run":{"faults":[{}]}"#), "run.faults[0].fault"),
        (&run, r#"{"tests":[{"script":"a","node":"b"}]}"#.into(), "tests[0].node"),
        (&run, r#"{"cwd":"/srv"}"#.into(), "cwd"),
        (&run, r#"{"faults":[{"fault":{"kind":"burn"}}]}"#.into(), "faults[0].fault.kind"),
        (&run, r#"{"faults":[{"fault":{"kind":"kill"}}]}"#.into(), "faults[0].fault.node"),
        (&faults, "{}".into(), "fault"),
        (&faults, r#"{"fault":{"node":"a"}}"#.into(), "fault.kind"),
        (&faults, r#"{"fault":{"kind":"heal","node":"a"}}"#.into(), "fault.node"),
    ];
    for (path, body, field) in table {
        let service = Fake::healthy();
        let answer = post(&service, path, &body).await;
        assert_eq!(answer.status, 422, "{path} {body}: {answer:?}");
        let answer = answer.json();
        assert_eq!(answer["details"]["field"], *field, "{body}: {answer}");
        assert!(answer["error"].as_str().unwrap().starts_with(field), "{answer}");
        assert_eq!(service.asked(), [], "{body}");
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_run_is_named_as_its_body_has_it() {
    let refuse = |_: &Request| Err(Error::invalid("there is no a.sh").with_field("run.tests[0].script"));
    let with_run = REDIS.replacen('{', r#"{"run":{"tests":[{"script":"a.sh"}]},"#, 1);
    for (path, body, field) in [
        (target("/run"), r#"{"tests":[{"script":"a.sh"}]}"#, "tests[0].script"),
        (CREATE.to_owned(), &with_run, "run.tests[0].script"),
    ] {
        let answer = post(&Fake::new(refuse), &path, body).await;
        assert_eq!((answer.status, &answer.json()["details"]["field"]), (422, &json!(field)), "{path}");
    }
}

#[tokio::test]
async fn what_the_engine_finds_wrong_with_an_environment_is_told() {
    let refuse = |request: &Request| match request {
        Request::CreateEnvironment(_) => Err(Error::conflict("the subnet 172.30.0.0/16 is taken")
            .with_field("config.topology.network.subnet")
            .with_help("leave it out")),
        other => healthy(other),
    };
    insta::assert_snapshot!(post(&Fake::new(refuse), CREATE, REDIS).await.shown());
}
