//! Environments on the real daemon.

use std::time::Duration;

use futures::StreamExt;
use orchestrator_engine::containers::ContainerSpec;
use orchestrator_protocol::environment::{EnvironmentId, EnvironmentLogs, EnvironmentStatus};
use orchestrator_protocol::event::Item;
use serde_json::json;
use uuid::Uuid;

use crate::support::{World, cluster, on_docker, small};

/// Redis from nothing, and from the prepared image: then nothing is installed.
#[tokio::test(flavor = "multi_thread")]
async fn redis_is_installed_once() {
    on_docker(|world| async move {
        // A variable of its own, so that no other engine's image fits.
        let mark = Uuid::new_v4().to_string();
        let request = json!({"config":
            {"type": "single_taskserv", "taskserv": "redis", "environment": {"MARK": mark}}});
        let first = world.made(request.clone()).await;
        assert_eq!(world.record(first).status, EnvironmentStatus::Ready);
        let answer = world.run(first, json!({"idempotence_check": true})).await;
        assert!(answer.is_ok(), "{answer:?} {:#?}", world.record(first).results);
        let record = world.record(first);
        let names: Vec<_> = record.results.iter().map(|result| result.name.as_str()).collect();
        assert_eq!(names, ["install redis again", "verify redis"]);
        assert_eq!(record.results[1].result.as_ref().unwrap()["ping"], "PONG");
        assert_eq!(record.status, EnvironmentStatus::Passed);

        let before = world.log().len();
        let second = world.made(request).await;
        let record = world.record(second);
        assert!(record.nodes[0].prepared);
        let log = world.log().split_off(before).join("\n");
        assert!(!log.contains("Setting up") && !log.contains("preparing"), "{log}");
        assert!(world.run(second, json!({})).await.is_ok());

        // What somebody makes of a prepared image is theirs, although it has the image's labels.
        let theirs = ContainerSpec {
            name: format!("theirs-{mark}"),
            image: prepared_image(&world, second).await,
            network: "none".into(),
            ..ContainerSpec::default()
        };
        let theirs = world.docker.create_container(&theirs).await.unwrap();
        let labels = world.docker.container(&theirs).await.unwrap().unwrap().labels;
        assert_eq!(labels.get("orchestrator.data"), Some(&world.options.owner));
        world.orchestrator.reconcile().await.unwrap();
        assert!(world.docker.container(&theirs).await.unwrap().is_some());
        world.docker.remove_container(&theirs).await.unwrap();

        // What must differ between machines does.
        let id_of = |id| world.on(id, "redis", "cat /etc/machine-id");
        assert_ne!(id_of(first).await, id_of(second).await);
        for id in [first, second] {
            world.orchestrator.clean(id, &world.context()).await.unwrap();
            assert_eq!(world.record(id).status, EnvironmentStatus::Cleaned);
        }
        assert_eq!(world.things().await, [""; 0]);
        let pruned = world.orchestrator.prune(true).await.unwrap();
        assert_eq!(pruned.images.len(), 1);
        assert!(pruned.bytes > 0);
    })
    .await;
}

/// The image that the first node of an environment is made from.
async fn prepared_image(world: &World, id: EnvironmentId) -> String {
    let container = world.record(id).nodes[0].container.clone().unwrap();
    world.docker.container(&container).await.unwrap().unwrap().image
}

/// Lines come while the script that prints them runs, and the listener is let go when nothing runs any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_listener_hears_lines_as_they_are_printed() {
    on_docker(|world| async move {
        let verify = "echo before; while [ ! -e /go ]; do sleep 0.05; done; echo after\n";
        small(&world, "slow", &[("verify.sh", verify)]);
        let id = world.made(cluster(json!([{"name": "a", "taskservs": ["slow"]}, {"name": "b"}]))).await;
        world.change(id, |environment| environment.status = EnvironmentStatus::RunningTests);
        let request = EnvironmentLogs { id, node: Some("a".into()), tail: None, follow: true };
        let mut lines = world.orchestrator.logs(&request).await.unwrap();
        let running = {
            let world = world.clone();
            tokio::spawn(async move { world.run(id, json!({})).await })
        };
        let mut heard = Vec::new();
        while let Some(item) = lines.next().await {
            let Ok(Item::Node(line)) = item else { panic!("{item:?}") };
            if line.line == "before" {
                assert!(!running.is_finished(), "it waits for what comes after this line");
                world.on(id, "a", "touch /go").await;
            }
            heard.push(line.line);
        }
        assert!(running.await.unwrap().is_ok());
        assert_eq!(heard.iter().rev().take(2).collect::<Vec<_>>(), ["after", "before"], "{heard:?}");
    })
    .await;
}

/// A service that leaves its script's session only after the script has ended, as one does that a busy
/// machine keeps from its next step, runs on. What stays in the session is ended.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_has_time_to_leave_the_script_that_starts_it() {
    on_docker(|world| async move {
        let start = "sh -c 'sleep 0.7; exec setsid sleep 4444' >/dev/null 2>&1 &\nsleep 5555 &\n";
        small(&world, "late", &[("start.sh", start)]);
        let id = world.made(cluster(json!([{"name": "a", "taskservs": ["late"]}, {"name": "b"}]))).await;
        assert_eq!(world.on(id, "a", "pgrep -x -f 'sleep 4444' | wc -l").await.1, "1");
        assert_eq!(world.on(id, "a", "pgrep -x -f 'sleep 5555' | wc -l").await.1, "0");
    })
    .await;
}

/// A node that runs containers has the rights that its taskserv asks for, and no other node has them.
#[tokio::test(flavor = "multi_thread")]
async fn containerd_runs_a_container_by_the_rights_that_it_asks_for() {
    on_docker(|world| async move {
        let id = world
            .made(cluster(json!([{"name": "box", "taskservs": ["containerd"]}, {"name": "desk"}])))
            .await;
        let answer = world.run(id, json!({})).await;
        assert!(answer.is_ok(), "{answer:?} {:#?}", world.record(id).results);
        let record = world.record(id);
        assert_eq!(record.results[0].name, "verify containerd");
        assert_eq!(record.results[0].result.as_ref().unwrap()["snapshotter"], "native");
        let may_mount = "mount -t tmpfs tmpfs /mnt 2>/dev/null && echo yes || echo no";
        assert_eq!(world.on(id, "box", may_mount).await.1.trim(), "yes");
        assert_eq!(world.on(id, "desk", may_mount).await.1.trim(), "no");
    })
    .await;
}

/// Two services on two nodes that know each other by name and address, and cannot reach another environment.
#[tokio::test(flavor = "multi_thread")]
async fn postgres_and_redis_share_a_network_of_their_own() {
    on_docker(|world| async move {
        let request = cluster(json!([
            {"name": "db-01", "taskservs": ["postgres"]},
            {"name": "cache-01", "taskservs": ["redis"], "taskserv_options":
                {"redis": {"bind": "0.0.0.0", "protected_mode": false}}},
        ]));
        let id = world.made(request).await;
        std::fs::write(
            world.path("ping.sh"),
            "#!/bin/sh\necho \"nodes: $TEST_NODES\"\nprintf 'PING\\r\\n' | timeout 5 bash -c \
             'exec 3<>/dev/tcp/cache-01/6379; cat >&3; head -n 1 <&3'\n",
        )
        .unwrap();
        let run = json!({"tests": [{"script": "ping.sh", "nodes": ["db-01"]}]});
        let answer = world.run(id, run).await;
        let record = world.record(id);
        assert!(answer.is_ok(), "{answer:?} {:#?}", record.results);
        let ping = record.results.iter().find(|result| result.name == "ping.sh").unwrap();
        assert!(ping.output.contains("+PONG"), "{ping:?}");
        let address = record.nodes[1].address.unwrap();
        assert!(ping.output.contains(&format!("cache-01 {address}")), "{ping:?}");

        // Another environment is out of reach, by name and by address.
        small(&world, "one", &[]);
        let other = world.made(json!({"config": {"type": "single_taskserv", "taskserv": "one"}})).await;
        let reach = format!("timeout 2 bash -c 'exec 3<>/dev/tcp/{address}/6379'");
        assert_ne!(world.on(other, "one", &reach).await.0, 0);
        assert_eq!(world.on(id, "db-01", &reach).await.0, 0);
        assert_ne!(world.on(other, "one", "getent hosts cache-01").await.0, 0);
        let subnets = [id, other].map(|id| world.record(id).network.unwrap().subnet);
        assert_ne!(subnets[0], subnets[1]);
        for id in [id, other] {
            world.orchestrator.clean(id, &world.context()).await.unwrap();
        }
        assert_eq!(world.things().await, [""; 0]);
    })
    .await;
}

/// What is wrong with a test, and what a script says about itself, is in the results.
#[tokio::test(flavor = "multi_thread")]
async fn tests_that_fail_say_why() {
    on_docker(|world| async move {
        small(
            &world,
            "one",
            &[("verify.sh", "echo looking\necho '::fail permanent it is not as it should be'\nexit 3\n")],
        );
        small(
            &world,
            "two",
            &[
                ("install.sh", "echo '::result {\"changed\": true}'\n"),
                ("verify.sh", "echo '::mask hunter22'; echo hunter22\n"),
            ],
        );
        let id =
            world.made(cluster(json!([{"name": "a", "taskservs": ["one", "two"]}, {"name": "b"}]))).await;
        std::fs::write(world.path("slow.sh"), "#!/bin/sh\necho before\nsleep 600 & sleep 600\n").unwrap();
        std::fs::write(
            world.path("ok.sh"),
            "#!/bin/sh\ntest $TEST_NODE = b && echo '::result {\"seen\": 1}'\n",
        )
        .unwrap();
        let options = json!({"idempotence_check": true, "tests": [
            {"script": "slow.sh", "timeout_ms": 500, "nodes": ["b"]},
            {"script": "ok.sh", "name": "fine", "nodes": ["b"]}]});
        let why = world.run(id, options).await.unwrap_err();
        assert!(why.starts_with("3 of 6 tests failed"), "{why}");
        let record = world.record(id);
        assert_eq!(record.status, EnvironmentStatus::Failed);
        let found = |name: &str| record.results.iter().find(|result| result.name == name).unwrap();
        let one = found("verify one");
        assert_eq!((one.exit_code, one.output.as_str()), (Some(3), "looking"));
        assert_eq!(one.error.as_deref(), Some("verify one on a: it is not as it should be"));
        assert_eq!(found("verify two").output, "***");
        assert!(found("install two again").error.as_ref().unwrap().contains("changed something"));
        let slow = found("slow.sh");
        assert_eq!(
            slow.error.as_deref(),
            Some("slow.sh on b took longer than its 0.5 s; its last line: before")
        );
        assert_eq!(slow.exit_code, None);
        assert_eq!(world.on(id, "b", "pgrep -fa '[s]leep 600'").await.1, "");
        assert_eq!(found("fine").result, Some(json!({"seen": 1})));
        let lines = world.logs(id, Some("a"), None).await;
        let shown: Vec<_> = lines.iter().map(|line| (line.step.as_str(), line.line.as_str())).collect();
        assert!(
            shown.contains(&("verify one", "looking")) && shown.contains(&("verify two", "***")),
            "{shown:?}"
        );
        assert_eq!(world.logs(id, Some("a"), Some(1)).await.len(), 1);
    })
    .await;
}

/// An engine that dies while a script runs finds it again: it runs once, and its output is there once.
#[tokio::test(flavor = "multi_thread")]
async fn a_script_outlives_the_engine() {
    on_docker(|world| async move {
        small(
            &world,
            "one",
            &[
                ("taskserv.toml", "description = \"Slow\"\n"),
                (
                    "install.sh",
                    "echo first; echo run >>/opt/runs; until [ -e /opt/go ]; do sleep 0.1; done; echo last\n",
                ),
                ("verify.sh", "test $(wc -l </opt/runs) = 1\n"),
            ],
        );
        let mut request = json!({"config": {"type": "single_taskserv", "taskserv": "one"}});
        request["use_prepared"] = json!(false);
        let id = world.ask(request);
        let (orchestrator, context) = (world.orchestrator.clone(), world.context());
        let life = tokio::spawn(async move { orchestrator.create(id, &context).await });
        wait_for(|| world.log().iter().any(|line| line == "one: first")).await;
        life.abort();
        assert!(life.await.unwrap_err().is_cancelled());

        let next = world.another();
        world.on(id, "one", "touch /opt/go").await;
        next.create(id, &world.context()).await.unwrap();
        world.run(id, json!({})).await.unwrap();
        let lines = world.logs(id, None, None).await;
        let shown: Vec<_> = lines.iter().map(|line| line.line.as_str()).collect();
        assert_eq!(shown, ["first", "last"]);
    })
    .await;
}

/// What is called off leaves nothing running, and what is called off or failed can be made again.
#[tokio::test(flavor = "multi_thread")]
async fn a_creation_can_be_called_off() {
    on_docker(|world| async move {
        small(&world, "one", &[("install.sh", "echo begun; setsid sleep 601 & sleep 602 & wait\n")]);
        let request =
            json!({"config": {"type": "single_taskserv", "taskserv": "one"}, "use_prepared": false});
        let id = world.ask(request);
        let context = world.context();
        let (orchestrator, its) = (world.orchestrator.clone(), context.clone());
        let work = tokio::spawn(async move { orchestrator.create(id, &its).await });
        wait_for(|| world.log().iter().any(|line| line == "one: begun")).await;
        context.cancel.cancel();
        let failure = work.await.unwrap().unwrap_err();
        assert_eq!(failure.error.message, "it was called off");
        assert_eq!(world.on(id, "one", "pgrep -fc '[s]leep 602'").await.1, "0");
        assert_eq!(world.record(id).status, EnvironmentStatus::Error);
        world.orchestrator.clean(id, &world.context()).await.unwrap();
        assert_eq!(world.things().await, [""; 0]);
    })
    .await;
}

/// Waits until something holds.
pub async fn wait_for(condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap();
}
