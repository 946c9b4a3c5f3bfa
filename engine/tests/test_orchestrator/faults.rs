//! Faults on the real daemon.

use orchestrator_protocol::environment::{EnvironmentId, EnvironmentStatus, Fault};
use serde_json::json;

use crate::support::{World, cluster, on_docker, small};

const START: &str = "setsid sh -c 'echo $$ >/run/beat; exec sleep 7000' >/dev/null 2>&1 </dev/null &\n\
    until [ -s /run/beat ]; do sleep 0.05; done\n";
const READY: &str = "kill -0 \"$(cat /run/beat)\"\n";

async fn inject(world: &World, id: EnvironmentId, fault: serde_json::Value) {
    let fault: Fault = serde_json::from_value(fault).unwrap();
    world.orchestrator.inject(id, &fault).await.unwrap();
}

/// Whether a node's answer comes back.
async fn reaches(world: &World, id: EnvironmentId, one: &str, other: &str) -> bool {
    let address =
        world.record(id).nodes.into_iter().find(|node| node.config.name == other).unwrap().address.unwrap();
    // Refused is an answer: nobody listens there, but the node is reached.
    let probe = format!("timeout 2 bash -c 'exec 3<>/dev/tcp/{address}/9' 2>&1 | grep -q refused");
    world.on(id, one, &probe).await.0 == 0
}

/// Whether an answer comes back in the end: a neighbour that was away is looked for again after a while.
async fn comes_to_reach(world: &World, id: EnvironmentId, one: &str, other: &str) -> bool {
    for _ in 0..10 {
        if reaches(world, id, one, other).await {
            return true;
        }
    }
    false
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_are_killed_paused_cut_off_and_come_back() {
    on_docker(|world| async move {
        let files = [
            ("taskserv.toml", "description = \"Beats\"\n[ready]\nwithin_sec = 10\n"),
            ("start.sh", START),
            ("ready.sh", READY),
            ("verify.sh", READY),
        ];
        small(&world, "beat", &files);
        let nodes = ["a", "b", "c"].map(|name| json!({"name": name, "taskservs": ["beat"]}));
        let id = world.made(cluster(json!(nodes))).await;
        let addresses = || world.record(id).nodes.iter().map(|node| node.address).collect::<Vec<_>>();
        let before = addresses();

        inject(&world, id, json!({"kind": "kill", "node": "b"})).await;
        assert!(!reaches(&world, id, "a", "b").await);
        inject(&world, id, json!({"kind": "restart", "node": "b"})).await;
        assert!(comes_to_reach(&world, id, "a", "b").await);
        assert_eq!(world.on(id, "b", READY).await.0, 0);
        let labels = [("orchestrator.environment".to_owned(), id.to_string())].into();
        for container in world.docker.containers(&labels).await.unwrap() {
            assert!(before.contains(&container.addresses.values().next().copied()), "{container:?}");
        }

        inject(&world, id, json!({"kind": "partition", "nodes": ["c"]})).await;
        assert!(!reaches(&world, id, "a", "c").await && !reaches(&world, id, "c", "b").await);
        assert!(comes_to_reach(&world, id, "a", "b").await);
        // A node that was started again is still cut off.
        inject(&world, id, json!({"kind": "restart", "node": "c"})).await;
        assert!(!reaches(&world, id, "c", "a").await);
        inject(&world, id, json!({"kind": "heal"})).await;
        assert!(comes_to_reach(&world, id, "c", "a").await && comes_to_reach(&world, id, "a", "c").await);
        assert_eq!(world.record(id).partitions, [[""; 0]; 0]);

        let faults = json!([
            {"fault": {"kind": "pause", "node": "a"}},
            {"fault": {"kind": "unpause", "node": "a"}},
            {"fault": {"kind": "stop", "node": "c"}},
            {"fault": {"kind": "restart", "node": "c"}},
            {"fault": {"kind": "partition", "nodes": ["c"]}},
            {"fault": {"kind": "heal"}},
        ]);
        let answer = world.run(id, json!({"faults": faults})).await;
        let record = world.record(id);
        assert!(answer.is_ok(), "{:#?}", record.results);
        let found: Vec<_> =
            record.results.iter().map(|result| format!("{}: {}", result.node, result.name)).collect();
        assert!(found.contains(&"a: fault 1: pause a".into()), "{found:?}");
        assert!(!found.contains(&"a: verify beat after fault 1: pause a".into()), "{found:?}");
        assert!(found.contains(&"b: verify beat after fault 1: pause a".into()), "{found:?}");
        assert!(found.contains(&"c: verify beat after fault 4: restart c".into()), "{found:?}");
        // Who is cut off is not asked how the others are, and what a run has cut it heals.
        assert!(!found.contains(&"c: verify beat after fault 5: partition c".into()), "{found:?}");
        assert!(found.contains(&"a: verify beat after fault 5: partition c".into()), "{found:?}");
        assert!(found.contains(&"c: verify beat after fault 6: heal".into()), "{found:?}");
        assert_eq!((record.status, record.partitions), (EnvironmentStatus::Passed, vec![]));
        assert!(comes_to_reach(&world, id, "c", "a").await && comes_to_reach(&world, id, "a", "c").await);

        let unknown = world.orchestrator.inject(id, &Fault::Kill { node: "z".into() }).await.unwrap_err();
        assert!(unknown.message.contains("there is no node 'z'"), "{unknown}");
    })
    .await;
}
