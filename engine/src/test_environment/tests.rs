//! Requests become blueprints, or are refused with the part that is wrong.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

use std::fs;
use std::path::Path;
use std::time::Duration;

use orchestrator_protocol::Error;
use orchestrator_protocol::environment::{EnvironmentRequest, RunOptions};
use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::taskservs::{Library, Needs, Timeouts};
use crate::topologies;

/// Some taskservs: `base`, `web` on it, `cluster` with roles and parameters, and a heavy one.
fn library() -> (TempDir, Library) {
    let place = tempfile::tempdir().unwrap();
    for (name, text) in [
        ("base", ""),
        ("web", "depends_on = ['base']\n[needs]\nmemory_mb = 64"),
        (
            "cluster",
            "roles = ['controlplane', 'worker']\n[parameters.port]\ntype = 'integer 1 9'\ndefault = 3\nabout = 'p'",
        ),
        ("heavy", "depends_on = ['cluster']\n[needs]\nprivileged = true\nsystemd = true"),
    ] {
        let folder = place.path().join(name);
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("taskserv.toml"), format!("description = 'd'\n{text}\n")).unwrap();
        for script in ["install.sh", "verify.sh"] {
            fs::write(folder.join(script), "true\n").unwrap();
        }
    }
    let library = Library { places: vec![place.path().to_owned()] };
    (place, library)
}

fn plan(request: Value) -> Result<Blueprint, Error> {
    let request: EnvironmentRequest = serde_json::from_value(request).unwrap();
    let (_place, library) = library();
    Blueprint::plan(&request, &library, &Defaults { base_image: "base:1".into() })
}

fn nodes(nodes: Value) -> Value {
    json!({"config": {"type": "cluster_topology", "cluster_type": "c", "topology": {"nodes": nodes}}})
}

fn names(plan: &NodePlan) -> Vec<&str> {
    plan.taskservs.iter().map(|plan| plan.taskserv.name.as_str()).collect()
}

#[test]
fn each_kind_is_filled_in() {
    let single = plan(json!({"config": {"type": "single_taskserv", "taskserv": "web"}})).unwrap();
    assert_eq!((single.name.as_str(), single.infra.as_str()), ("web", "test"));
    let [node] = &single.nodes[..] else { panic!("{single:?}") };
    assert_eq!(node.config.name, "web");
    assert_eq!(node.config.base_image.as_deref(), Some("base:1"));
    assert_eq!(node.config.taskservs, ["base", "web"]);
    assert_eq!(names(node), ["base", "web"]);

    let server = plan(json!({"infra": "shop", "config": {"type": "server_simulation", "server_name": "s-01",
        "taskservs": ["web", "heavy"], "base_image": "other:2", "taskserv_options": {"cluster": {"port": 4}}}}));
    let server = server.unwrap();
    assert_eq!((server.name.as_str(), server.infra.as_str()), ("s-01", "shop"));
    let node = &server.nodes[0];
    assert_eq!(names(node), ["base", "web", "cluster", "heavy"]);
    assert_eq!(node.config.base_image.as_deref(), Some("other:2"));
    assert_eq!(node.taskservs[2].choices.parameters["port"], "4");
    assert!(node.privileged() && node.systemd());
    assert!(!single.nodes[0].privileged() && !single.nodes[0].systemd());

    let cluster =
        plan(nodes(json!([{"name": "n1", "role": "worker", "taskservs": ["cluster"]}, {"name": "n2"}])));
    let cluster = cluster.unwrap();
    assert_eq!(cluster.name, "c");
    assert_eq!(cluster.nodes[0].taskservs[0].choices.role, "worker");
    assert!(cluster.nodes[1].taskservs.is_empty());
}

#[test]
fn what_is_wrong_is_named_with_its_place_in_the_request() {
    let single = |more: Value| {
        let mut config = json!({"type": "single_taskserv", "taskserv": "web"});
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"config": config})
    };
    let server = |more: Value| {
        let mut config = json!({"type": "server_simulation", "server_name": "s", "taskservs": ["web"]});
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"config": config})
    };
    let with = |key: &str, value: Value| {
        let mut request = single(json!({}));
        request[key] = value;
        request
    };
    let on = |subnet: Value, all: Value| {
        let mut request = nodes(all);
        request["config"]["topology"]["network"] = json!({"subnet": subnet});
        request
    };
    let many: Vec<Value> = (0..51).map(|index| json!({"name": format!("n{index}")})).collect();
    let crowd: Vec<Value> = many[..14].to_vec();
    for (request, field, message) in [
        (
            single(json!({"taskserv": "wbe"})),
            "config.taskserv",
            "there is no taskserv 'wbe': there is base, cluster",
        ),
        (single(json!({"taskserv": "../web"})), "config.taskserv", "'../web' is not a valid taskserv"),
        (single(json!({"base_image": "--x"})), "config.base_image", "not the name of an image"),
        (
            single(json!({"environment": {"A-B": "x"}})),
            "config.environment.A-B",
            "not a valid environment variable",
        ),
        (single(json!({"environment": {"A": "\0"}})), "config.environment.A", "holds a NUL"),
        (
            single(json!({"resources": {"cpu_millicores": 9}})),
            "config.resources.cpu_millicores",
            "from 10 to 1024000, not 9",
        ),
        (single(json!({"resources": {"disk_mb": 0}})), "config.resources.disk_mb", "from 16 to"),
        (single(json!({"resources": {"max_processes": 0}})), "config.resources.max_processes", "from 1 to"),
        (
            single(json!({"resources": {"memory_mb": 63}})),
            "config.resources.memory_mb",
            "taskserv 'web' needs 64 MiB of memory, and node 'web' is limited to 63",
        ),
        (
            single(json!({"taskserv_options": {"redis": {}}})),
            "config.taskserv_options.redis",
            "taskserv 'redis' is not on node 'web': it has base, web",
        ),
        (
            single(json!({"taskserv_options": {"web": {"port": 1}}})),
            "config.taskserv_options.web.port",
            "taskserv 'web' has no parameter `port`: it has none",
        ),
        (with("infra", json!("a b")), "infra", "not a valid infra"),
        (with("cwd", json!("here")), "cwd", "must be an absolute path"),
        (with("expires_after_ms", json!(0)), "expires_after_ms", "from 1 to 31536000000"),
        (server(json!({"server_name": "S"})), "config.server_name", "not a valid server name"),
        (server(json!({"taskservs": ["web", "wbe"]})), "config.taskservs[1]", "there is no taskserv 'wbe'"),
        (nodes(json!([])), "config.topology.nodes", "there are no nodes"),
        (nodes(json!(many)), "config.topology.nodes", "there are 51 nodes: an environment has at most 50"),
        (nodes(json!([{"name": "n"}, {"name": "n"}])), "config.topology.nodes[1].name", "two nodes 'n'"),
        (nodes(json!([{"name": "n."}])), "config.topology.nodes[0].name", "not a valid node name"),
        (
            nodes(json!([{"name": "n"}, {"name": "m", "taskservs": ["web", "x"]}])),
            "config.topology.nodes[1].taskservs[1]",
            "there is no taskserv 'x'",
        ),
        (
            nodes(json!([{"name": "n", "role": "king", "taskservs": ["heavy"]}])),
            "config.topology.nodes[0].role",
            "no taskserv on node 'n' knows the role 'king': 'cluster' knows controlplane, worker",
        ),
        (
            nodes(json!([{"name": "n", "role": "king", "taskservs": ["web"]}])),
            "config.topology.nodes[0].role",
            "none of them has roles",
        ),
        (
            nodes(
                json!([{"name": "n", "taskservs": ["cluster"], "taskserv_options": {"cluster": {"port": 10}}}]),
            ),
            "config.topology.nodes[0].taskserv_options.cluster.port",
            "from 1 to 9, not the number 10",
        ),
        (
            nodes(
                json!([{"name": "n", "volumes": [{"name": "v", "path": "/data"}, {"name": "w", "path": "/data/"}]}]),
            ),
            "config.topology.nodes[0].volumes[1].path",
            "two volumes of node 'n' are mounted at /data/",
        ),
        (
            nodes(json!([{"name": "n", "volumes": [{"name": "V", "path": "/data"}]}])),
            "config.topology.nodes[0].volumes[0].name",
            "not a valid volume name",
        ),
        (
            nodes(json!([{"name": "n", "volumes": [{"name": "v", "path": "/"}]}])),
            "config.topology.nodes[0].volumes[0].path",
            "below /",
        ),
        (
            nodes(json!([{"name": "n", "volumes": [{"name": "v", "path": "/a/../b"}]}])),
            "config.topology.nodes[0].volumes[0].path",
            "below /",
        ),
        (
            nodes(json!([{"name": "n", "volumes": [{"name": "v", "path": "/a/./b"}]}])),
            "config.topology.nodes[0].volumes[0].path",
            "below /",
        ),
        (
            nodes(json!([{"name": "n", "address": "10.0.0.2"}])),
            "config.topology.nodes[0].address",
            "the network needs a `subnet`",
        ),
        (on(json!("10.0.0.0/30"), json!([{"name": "n"}])), "config.topology.network.subnet", "/8 to /28"),
        (
            on(json!("10.0.0.0/28"), json!(crowd)),
            "config.topology.network.subnet",
            "has room for 13 nodes, not for 14",
        ),
        (
            on(json!("10.0.0.0/24"), json!([{"name": "n", "address": "10.0.1.2"}])),
            "config.topology.nodes[0].address",
            "outside of the network 10.0.0.0/24",
        ),
        (
            on(json!("10.0.0.0/24"), json!([{"name": "n", "address": "10.0.0.1"}])),
            "config.topology.nodes[0].address",
            "nodes in 10.0.0.0/24 have 10.0.0.2 to 10.0.0.254",
        ),
        (
            on(
                json!("10.0.0.0/24"),
                json!([{"name": "n", "address": "10.0.0.2"}, {"name": "m", "address": "10.0.0.2"}]),
            ),
            "config.topology.nodes[1].address",
            "the nodes 'n' and 'm' have the same address 10.0.0.2",
        ),
    ] {
        let error = plan(request).unwrap_err();
        assert_eq!(error.field.as_deref(), Some(field), "{error:?}");
        assert!(error.message.contains(message), "{}\nhas no\n{message}", error.message);
    }
}

#[test]
fn a_run_names_what_is_there() {
    let cwd = tempfile::tempdir().unwrap();
    fs::write(cwd.path().join("good.sh"), "#!/bin/sh\n").unwrap();
    fs::write(cwd.path().join("plain.txt"), "echo\n").unwrap();
    let absolute = cwd.path().join("good.sh").display().to_string();
    let run = |run: Value, cwd: Option<&Path>| {
        let mut request = nodes(json!([{"name": "n1"}, {"name": "n2"}]));
        request["run"] = run;
        request["cwd"] = json!(cwd);
        plan(request).map_err(|error| (error.field.unwrap(), error.message))
    };
    let here = Some(cwd.path());
    let good = json!({"tests": [{"script": "good.sh", "nodes": ["n2"], "timeout_ms": 1000}, {"script": absolute, "name": "everywhere"}],
        "faults": [{"fault": {"kind": "kill", "node": "n1"}}, {"fault": {"kind": "partition", "nodes": ["n2"]}},
                   {"fault": {"kind": "heal"}}]});
    run(good.clone(), here).unwrap();
    let (field, message) = run(good, None).unwrap_err();
    assert_eq!(field, "run.tests[0].script");
    assert!(message.contains("relative"), "{message}");
    let test = |more: Value| {
        let mut test = json!({"script": "good.sh"});
        test.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"tests": [test]})
    };
    let fault = |fault: Value| json!({"faults": [{"fault": fault}]});
    for (asked, field, message) in [
        (test(json!({"script": "none.sh"})), "run.tests[0].script", "none.sh cannot be read"),
        (test(json!({"script": "plain.txt"})), "run.tests[0].script", "must begin with `#!`"),
        (test(json!({"script": "."})), "run.tests[0].script", "is no file"),
        (
            test(json!({"nodes": ["n1", "n3"]})),
            "run.tests[0].nodes[1]",
            "there is no node 'n3': there is n1, n2",
        ),
        (test(json!({"timeout_ms": 0})), "run.tests[0].timeout_ms", "from 1 to"),
        (test(json!({"name": "\u{1b}[1m"})), "run.tests[0].name", "not a valid test name"),
        (fault(json!({"kind": "stop", "node": "n3"})), "run.faults[0].fault.node", "there is no node 'n3'"),
        (fault(json!({"kind": "partition", "nodes": []})), "run.faults[0].fault.nodes", "two sides"),
        (
            fault(json!({"kind": "partition", "nodes": ["n1", "n2"]})),
            "run.faults[0].fault.nodes",
            "two sides",
        ),
        (
            fault(json!({"kind": "partition", "nodes": ["n3"]})),
            "run.faults[0].fault.nodes[0]",
            "no node 'n3'",
        ),
    ] {
        let (at, found) = run(asked, here).unwrap_err();
        assert_eq!(at, field);
        assert!(found.contains(message), "{found}\nhas no\n{message}");
    }
}

#[test]
fn scripts_are_told_where_they_are_and_who_else_is_there() {
    let blueprint = plan(nodes(json!([
        {"name": "cp", "taskservs": ["cluster"]},
        {"name": "w1", "role": "worker", "taskservs": ["cluster", "web"]},
        {"name": "w2", "role": "worker", "taskservs": ["heavy"]},
        {"name": "other", "taskservs": ["web"]},
    ])))
    .unwrap();
    let addresses = BTreeMap::from([("cp".to_owned(), Ipv4Addr::new(10, 0, 0, 2))]);
    let w1 = &blueprint.nodes[1];
    let variables = |index: usize, with_peers: bool| {
        blueprint.variables(w1, &w1.taskservs[index], &addresses, with_peers)
    };
    let expected = [
        ("TASKSERV_ADDRESS", "w1"),
        ("TASKSERV_INFRA", "test"),
        ("TASKSERV_NAME", "cluster"),
        ("TASKSERV_PARAM_PORT", "3"),
        ("TASKSERV_PEERS", "cp 10.0.0.2 controlplane\nw2 w2 worker"),
        ("TASKSERV_ROLE", "worker"),
        ("TASKSERV_SERVER", "w1"),
    ];
    let expected: BTreeMap<String, String> =
        expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    assert_eq!(variables(0, true), expected);
    assert!(!variables(0, false).contains_key("TASKSERV_PEERS"));
    assert_eq!(variables(2, true)["TASKSERV_PEERS"], "other other");
    let cp = &blueprint.nodes[0];
    assert_eq!(blueprint.variables(cp, &cp.taskservs[0], &addresses, false)["TASKSERV_ADDRESS"], "10.0.0.2");

    let order = blueprint.start_order();
    let expected = [
        ("cluster", vec![vec![0], vec![1, 2]]),
        ("base", vec![vec![1, 3]]),
        ("web", vec![vec![1, 3]]),
        ("heavy", vec![vec![2]]),
    ];
    assert_eq!(order, expected.map(|(name, groups)| (name.to_owned(), groups)));
}

/// Taskservs that depend only on ones with a smaller number.
fn graph(edges: &[Vec<bool>], roles: usize) -> Vec<Arc<Taskserv>> {
    let taskserv = |(index, before): (usize, &Vec<bool>)| {
        let depends_on = before.iter().take(index).enumerate().filter(|(_, is_needed)| **is_needed);
        Arc::new(Taskserv {
            name: format!("t{index}"),
            folder: "/".into(),
            description: String::new(),
            depends_on: depends_on.map(|(other, _)| format!("t{other}")).collect(),
            needs: Needs::default(),
            roles: (0..roles).map(|role| format!("r{role}")).collect(),
            parameters: BTreeMap::new(),
            ready_within: None,
            timeouts: Timeouts { install: Duration::ZERO, start: Duration::ZERO, verify: Duration::ZERO },
            has_start: false,
            digest: String::new(),
        })
    };
    edges.iter().enumerate().map(taskserv).collect()
}

/// The nodes that a choice of taskservs gives: each with all that these depend on, and a role.
fn blueprint(all: &[Arc<Taskserv>], chosen: &[(Vec<bool>, usize)]) -> Blueprint {
    let node = |(index, (wanted, role)): (usize, &(Vec<bool>, usize))| {
        let mut is_there: Vec<bool> = (0..all.len()).map(|it| wanted.get(it) == Some(&true)).collect();
        for it in (0..all.len()).rev().filter(|&it| is_there[it]).collect::<Vec<_>>() {
            let mut waiting = vec![it];
            while let Some(it) = waiting.pop() {
                is_there[it] = true;
                waiting.extend(all[it].depends_on.iter().map(|name| name[1..].parse::<usize>().unwrap()));
            }
        }
        let present = all.iter().zip(is_there).filter(|(_, is_there)| *is_there);
        let role_of = |taskserv: &Taskserv| taskserv.roles.get(role % taskserv.roles.len().max(1)).cloned();
        let taskservs = present.map(|(taskserv, _)| TaskservPlan {
            taskserv: taskserv.clone(),
            choices: Choices { role: role_of(taskserv).unwrap_or_default(), parameters: BTreeMap::new() },
        });
        let config = NodeConfig { name: format!("n{index}"), ..NodeConfig::default() };
        NodePlan { config, taskservs: taskservs.collect() }
    };
    let nodes = chosen.iter().enumerate().map(node).collect();
    Blueprint { name: "b".into(), infra: "i".into(), network: NetworkConfig::default(), nodes }
}

proptest! {
    #[test]
    fn everything_starts_once_and_after_what_it_depends_on(
        edges in prop::collection::vec(prop::collection::vec(any::<bool>(), 6), 1..6),
        roles in 0_usize..3,
        chosen in prop::collection::vec((prop::collection::vec(any::<bool>(), 6), 0_usize..3), 1..5),
    ) {
        let all = graph(&edges, roles);
        let blueprint = blueprint(&all, &chosen);
        let mut started: Vec<(usize, String)> = Vec::new();
        for (name, groups) in blueprint.start_order() {
            let taskserv = all.iter().find(|taskserv| taskserv.name == name).unwrap();
            let mut last_role = None;
            for group in groups {
                prop_assert!(!group.is_empty());
                let role_of = |index: usize| {
                    let plan = blueprint.nodes[index].taskservs.iter().find(|plan| plan.taskserv.name == name).unwrap();
                    taskserv.roles.iter().position(|role| *role == plan.choices.role)
                };
                let role = role_of(group[0]);
                prop_assert!(group.iter().all(|&index| role_of(index) == role));
                prop_assert!(last_role.is_none_or(|last| last < role));
                last_role = Some(role);
                for index in group {
                    for dependency in &taskserv.depends_on {
                        prop_assert!(started.contains(&(index, dependency.clone())));
                        // On the other nodes too: what is depended on is up everywhere.
                        for (other, node) in blueprint.nodes.iter().enumerate() {
                            let has_it = names(node).contains(&dependency.as_str());
                            prop_assert!(!has_it || started.contains(&(other, dependency.clone())));
                        }
                    }
                    prop_assert!(!started.contains(&(index, name.clone())));
                    started.push((index, name.clone()));
                }
            }
        }
        prop_assert_eq!(started.len(), blueprint.nodes.iter().map(|node| node.taskservs.len()).sum::<usize>());
    }

    #[test]
    fn a_prepared_image_is_known_by_all_that_install_sees(
        one in ("[ab]{0,2}", "[ab]{0,2}", "[ab]{0,2}", prop::collection::btree_map("[ab]", "[ab]{0,2}", 0..3)),
        other in ("[ab]{0,2}", "[ab]{0,2}", "[ab]{0,2}", prop::collection::btree_map("[ab]", "[ab]{0,2}", 0..3)),
        names in ("[ab]", "[ab]"),
    ) {
        let digest = |(base, files, role, parameters): &(String, String, String, BTreeMap<String, String>), name: &str| {
            let mut taskserv = (*graph(&[vec![]], 0)[0]).clone();
            taskserv.digest.clone_from(files);
            let choices = Choices { role: role.clone(), parameters: parameters.clone() };
            let config = NodeConfig { name: name.into(), ..NodeConfig::default() };
            let plan = NodePlan { config, taskservs: vec![TaskservPlan { taskserv: Arc::new(taskserv), choices }] };
            plan.prepared_digest(base, "amd64")
        };
        prop_assert_eq!(digest(&one, &names.0) == digest(&other, &names.1), one == other);
    }
}

#[test]
fn the_order_the_name_the_architecture_and_variables_count_for_a_prepared_image() {
    let all = graph(&[vec![], vec![]], 0);
    let node = blueprint(&all, &[(vec![true, true], 0)]).nodes.remove(0);
    let digest = node.prepared_digest("base", "amd64");
    assert_ne!(digest, node.prepared_digest("base", "arm64"));
    let mut changed = node.clone();
    changed.taskservs.reverse();
    assert_ne!(digest, changed.prepared_digest("base", "amd64"));
    changed = node.clone();
    changed.taskservs.pop();
    assert_ne!(digest, changed.prepared_digest("base", "amd64"));
    changed = node.clone();
    changed.config.environment.insert("A".into(), "x".into());
    assert_ne!(digest, changed.prepared_digest("base", "amd64"));
    changed = node.clone();
    changed.config.resources.memory_mb = Some(64);
    changed.config.address = Some(Ipv4Addr::LOCALHOST);
    assert_eq!(digest, changed.prepared_digest("base", "amd64"));
}
#[test]
fn the_projects_topologies_can_be_asked_for() {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../nulib/taskservs").canonicalize().unwrap();
    let library = Library { places: vec![own] };
    for named in topologies::list(None).unwrap() {
        let config = json!({"type": "cluster_topology", "cluster_type": named.cluster_type, "topology": named.topology});
        let request: EnvironmentRequest = serde_json::from_value(json!({"config": config})).unwrap();
        let planned = Blueprint::plan(&request, &library, &Defaults { base_image: "base:1".into() });
        assert!(planned.is_ok(), "{}: {planned:?}", named.name);
    }
}

#[test]
fn the_results_of_a_run_can_be_told_apart_and_are_not_too_many() {
    let directory = tempfile::tempdir().unwrap();
    let cwd = directory.path().to_str().unwrap();
    std::fs::write(directory.path().join("look.sh"), "#!/bin/sh\n").unwrap();
    let check = |run: serde_json::Value| {
        let run: RunOptions = serde_json::from_value(run).unwrap();
        check_run(&run, &["a", "b"], Some(cwd), "run.").map_err(|error| (error.field.unwrap(), error.message))
    };
    let look = |nodes: serde_json::Value, name: Option<&str>| json!({"script": "look.sh", "nodes": nodes, "name": name});
    let apart = [
        json!([look(json!(["a"]), None), look(json!(["b"]), None)]),
        json!([look(json!([]), Some("first")), look(json!([]), Some("second")), look(json!([]), None)]),
    ];
    for tests in apart {
        check(json!({"tests": tests})).unwrap();
    }
    let alike = [
        json!([look(json!([]), None), look(json!([]), None)]),
        json!([look(json!(["b"]), None), look(json!([]), Some("look.sh"))]),
        json!([look(json!(["a"]), Some("x")), look(json!(["b", "a"]), Some("x"))]),
        json!([look(json!(["a", "a"]), Some("x"))]),
    ];
    for tests in alike {
        let (field, message) = check(json!({"tests": tests})).unwrap_err();
        assert!(field.starts_with("run.tests[") && field.ends_with("].name"), "{field}");
        assert!(message.contains("another `name`"), "{message}");
    }
    let (field, message) = check(json!({"tests": [look(json!([]), Some("verify redis"))]})).unwrap_err();
    assert_eq!((field.as_str(), message.contains("verify")), ("run.tests[0].name", true), "{message}");

    let tests =
        |count: usize| (0..count).map(|n| look(json!([]), Some(&format!("t{n}")))).collect::<Vec<_>>();
    let faults = |count: usize| vec![json!({"fault": {"kind": "heal"}}); count];
    check(json!({"tests": tests(100), "faults": faults(100)})).unwrap();
    for (run, field) in
        [(json!({"tests": tests(101)}), "run.tests"), (json!({"faults": faults(101)}), "run.faults")]
    {
        let (named, message) = check(run).unwrap_err();
        assert_eq!((named.as_str(), message.contains("at most 100")), (field, true), "{message}");
    }
}
