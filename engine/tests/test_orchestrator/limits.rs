//! Limits of nodes, and nodes that die, on the real daemon.

use orchestrator_protocol::ErrorCode;
use orchestrator_protocol::environment::EnvironmentStatus;
use serde_json::json;

use crate::support::{cluster, on_docker, small};

/// A script that needs more memory than its node may use is killed, and nothing else is.
#[tokio::test(flavor = "multi_thread")]
async fn a_memory_hog_is_killed_by_its_limit() {
    on_docker(|world| async move {
        small(&world, "hog", &[("verify.sh", "exec tail -c 400M /dev/zero\n")]);
        let node =
            json!({"name": "a", "taskservs": ["hog"], "resources": {"memory_mb": 64, "max_processes": 200}});
        let id = world.made(cluster(json!([node, {"name": "b"}]))).await;
        let why = world.run(id, json!({})).await.unwrap_err();
        assert!(why.contains("64 MiB of memory"), "{why}");
        assert_eq!(world.on(id, "b", "true").await.0, 0);
    })
    .await;
}

/// What was asked for is what the node's own kernel says, with either version of control groups; and what
/// is beyond it is refused.
#[tokio::test(flavor = "multi_thread")]
async fn limits_hold_as_the_node_itself_sees_them() {
    on_docker(|world| async move {
        let limits = json!({"cpu_millicores": 250, "memory_mb": 96, "max_processes": 40});
        let id = world.made(cluster(json!([{"name": "a", "resources": limits}, {"name": "b"}]))).await;
        let look = "cd /sys/fs/cgroup
            if [ -e cpu.max ]; then cat cpu.max memory.max pids.max
            else echo $(cat cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us)
                cat memory/memory.limit_in_bytes pids/pids.max
            fi";
        let seen = world.on(id, "a", look).await.1;
        let numbers: Vec<u64> = seen.split_whitespace().map(|number| number.parse().unwrap()).collect();
        let [quota, period, memory, processes] = numbers[..] else { panic!("{seen}") };
        assert_eq!((quota * 1000 / period, memory, processes), (250, 96 << 20, 40));

        // More than its share of the processor is taken from it.
        let burn = "timeout 1 sh -c 'while :; do :; done' 2>/dev/null
            cat /sys/fs/cgroup/cpu.stat /sys/fs/cgroup/cpu/cpu.stat 2>/dev/null | grep nr_throttled";
        let throttled = world.on(id, "a", burn).await.1;
        let times: u64 = throttled.rsplit(' ').next().unwrap().parse().unwrap();
        assert!(times > 0, "{throttled}");

        let crowd = "i=0; while [ $i -lt 60 ]; do sleep 9 & i=$((i + 1)); done; echo all of them";
        let (code, said) = world.on(id, "a", crowd).await;
        assert!(code != 0 && !said.contains("all of them"), "{code} {said}");
        let (code, said) = world.on(id, "b", crowd).await;
        assert_eq!((code, said.as_str()), (0, "all of them"), "the other node has no such limit");
    })
    .await;
}

/// What a node has printed last is in the error when it dies while it is waited for.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_dies_shows_its_last_lines() {
    on_docker(|world| async move {
        // The container's own process is PID 1's only child that sleeps for ever.
        let start =
            "echo about to die\nsleep 0.3\npkill -x sleep -P 1 || pkill -f 'sleep infinity'\nsleep 60\n";
        small(&world, "mortal", &[("start.sh", start)]);
        let id = world.ask(cluster(json!([{"name": "a", "taskservs": ["mortal"]}])));
        let failure = world.orchestrator.create(id, &world.context()).await.unwrap_err();
        let message = failure.error.message;
        assert!(message.starts_with("start mortal on a: node 'a' has ended with exit status"), "{message}");
        assert!(message.contains("about to die"), "{message}");
        assert!(!failure.permanent);
        let record = world.record(id);
        assert_eq!((record.status, record.error), (EnvironmentStatus::Error, Some(message)));
    })
    .await;
}

/// Without quotas a disk limit is refused, unless it is to be watched: then it stops the node.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_limit_is_enforced_or_refused() {
    on_docker(|world| async move {
        let hog = "echo writing; dd if=/dev/zero of=/opt/hog bs=1M count=300 2>/dev/null; sleep 60\n";
        small(&world, "hog", &[("verify.sh", hog)]);
        let mut request =
            cluster(json!([{"name": "a", "taskservs": ["hog"], "resources": {"disk_mb": 100}}]));
        let daemon = world.docker.daemon().await.unwrap();
        if !daemon.enforces_disk {
            let id = world.ask(request.clone());
            let failure = world.orchestrator.create(id, &world.context()).await.unwrap_err();
            assert!(failure.permanent && failure.error.code == ErrorCode::Invalid, "{failure:?}");
        }
        request["disk_policy"] = json!("watch");
        let id = world.made(request).await;
        let why = world.run(id, json!({})).await.unwrap_err();
        assert!(why.contains("its disk_mb is 100"), "{why}");
        let record = world.record(id);
        assert!(record.results[0].error.as_ref().unwrap().contains("node 'a' was stopped"), "{record:?}");
    })
    .await;
}

/// Two environments cannot have the same range: the second one says who has it, and removes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_range_that_is_taken_is_refused_with_the_name_of_its_holder() {
    on_docker(|world| async move {
        let mut request = cluster(json!([{"name": "a", "address": "10.207.33.9"}, {"name": "b"}]));
        request["config"]["topology"]["network"] = json!({"subnet": "10.207.33.0/24"});
        let first = world.made(request.clone()).await;
        assert_eq!(
            world.on(first, "b", "getent hosts a").await.1.split_whitespace().next(),
            Some("10.207.33.9")
        );
        let second = world.ask(request);
        let failure = world.orchestrator.create(second, &world.context()).await.unwrap_err();
        assert!(failure.permanent, "{failure}");
        assert!(failure.error.message.contains(&format!("orchestrator-{first}")), "{failure}");
        world.orchestrator.clean(second, &world.context()).await.unwrap();
        assert_eq!(world.on(first, "a", "true").await.0, 0);
    })
    .await;
}
