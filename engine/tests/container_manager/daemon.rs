//! What only a real daemon has: limits, names, programs, logs, and no answer.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::time::Duration;

use futures::{StreamExt, stream};
use orchestrator_engine::container_manager::DockerManager;
use orchestrator_engine::container_manager::address::Address;
use orchestrator_engine::containers::calls::Call;
use orchestrator_engine::containers::{
    ContainerError, ContainerManager, ContainerSpec, ContainerState, ExecSpec, Mount, NetworkSpec, Output,
};
use orchestrator_protocol::event::OutputStream;

use super::suite;
use super::support::{Ran, collect, on_docker, run, script, sh, started, until};

#[tokio::test]
async fn keeps_the_contract() {
    on_docker(async |manager, place| suite::whole(&*manager, &place).await).await;
}

#[tokio::test]
async fn the_daemon_is_known() {
    on_docker(async |manager, _| {
        let daemon = manager.daemon().await.unwrap();
        assert!(daemon.version.starts_with(|first: char| first.is_ascii_digit()), "{daemon:?}");
        assert!(daemon.api_version.starts_with("1."), "{daemon:?}");
        assert!(["amd64", "arm64"].contains(&daemon.architecture.as_str()), "{daemon:?}");
        assert_eq!(daemon.enforces_disk, daemon.disk_reason.is_none(), "{daemon:?}");
    })
    .await;
}

#[tokio::test]
async fn no_call_is_made_in_vain() {
    on_docker(async |manager, place| {
        manager.daemon().await.unwrap();
        let before = manager.calls().by_kind();
        manager.create_network(&place.network(Some("10.83.11.0/24"))).await.unwrap();
        let id = started(&*manager, &place.container("one")).await;
        sh(&*manager, &id, "true").await;
        manager.remove_container(&id).await.unwrap();
        manager.remove_network(&place.name("net")).await.unwrap();
        let made: BTreeMap<Call, u64> = manager
            .calls()
            .by_kind()
            .into_iter()
            .map(|(call, count)| (call, count - before.get(&call).copied().unwrap_or_default()))
            .filter(|(_, count)| *count > 0)
            .collect();
        let inspections = made[&Call::InspectExec];
        let expected = [
            (Call::CreateNetwork, 1),
            (Call::RemoveNetwork, 1),
            (Call::CreateContainer, 1),
            (Call::Start, 1),
            (Call::RemoveContainer, 1),
            (Call::CreateExec, 1),
            (Call::StartExec, 1),
            // Its exit status may be a moment later than the end of its output.
            (Call::InspectExec, inspections),
        ];
        assert_eq!(made, BTreeMap::from(expected));
        assert!((1..=3).contains(&inspections), "{inspections}");
    })
    .await;
}

/// Prints a limit from whichever version of control groups there is.
fn limit(unified: &str, legacy: &str) -> String {
    format!("cat /sys/fs/cgroup/{unified} 2>/dev/null || cat /sys/fs/cgroup/{legacy}")
}

#[tokio::test]
async fn limits_are_seen_from_inside() {
    on_docker(async |manager, place| {
        manager.create_network(&place.network(None)).await.unwrap();
        let limited = ContainerSpec {
            cpu_millicores: Some(8_250),
            memory_mb: Some(64),
            max_processes: Some(40),
            ..place.container("limited")
        };
        let id = started(&*manager, &limited).await;
        let inside = async |unified, legacy| sh(&*manager, &id, &limit(unified, legacy)).await;
        assert_eq!(inside("memory.max", "memory/memory.limit_in_bytes").await, (64 << 20).to_string());
        // One counts swap alone, the other memory and swap.
        let swap = inside("memory.swap.max", "memory/memory.memsw.limit_in_bytes").await;
        assert!(swap == "0" || swap == (64 << 20).to_string(), "{swap}");
        assert_eq!(inside("pids.max", "pids/pids.max").await, "40");
        // More than this machine may have: it is kept as it is.
        let cpu = inside("cpu.max", "cpu/cpu.cfs_quota_us").await;
        assert!(cpu == "825000 100000" || cpu == "825000", "{cpu}");

        let text = "i=0; while [ $i -lt 60 ]; do sleep 5 & i=$((i+1)); done";
        let forks = run(&*manager, &id, &script(text)).await.unwrap();
        assert!(forks.code != Some(0) && forks.stderr.contains("ork"), "{forks:?}");
        let hog = ContainerSpec {
            command: ["perl", "-e", "my $x = 'x' x (256 * 1024 * 1024); sleep 100"]
                .map(String::from)
                .to_vec(),
            memory_mb: Some(32),
            ..place.container("hog")
        };
        let hog = started(&*manager, &hog).await;
        let state = async || manager.container(&hog).await.unwrap().unwrap().state;
        // Not every daemon notices that it was the memory.
        until("the hog is killed", async || {
            matches!(state().await, ContainerState::Exited { code: 137, .. })
        })
        .await;
        let other = manager.container(&id).await.unwrap().unwrap();
        assert_eq!(other.state, ContainerState::Running, "and nobody else");
    })
    .await;
}

#[tokio::test]
async fn what_is_used_is_told_or_not_known() {
    on_docker(async |manager, place| {
        manager.create_network(&place.network(None)).await.unwrap();
        let id = started(&*manager, &place.container("one")).await;
        sh(&*manager, &id, "head -c 3000000 /dev/zero >/zeros").await;
        let usage = manager.usage(&id).await.unwrap();
        assert!(usage.disk_bytes.unwrap() >= 3_000_000, "{usage:?}");
        // A daemon that cannot read its control groups measures nothing, and it is not taken for zero.
        let none = usage.cpu_ns.is_none() && usage.memory_bytes.is_none() && usage.processes.is_none();
        let some = usage.cpu_ns > Some(0) && usage.memory_bytes > Some(0) && usage.processes > Some(0);
        assert!(none || some, "{usage:?}");
        manager.kill(&id).await.unwrap();
        let state = async || manager.container(&id).await.unwrap().unwrap().state;
        until("it has ended", async || state().await != ContainerState::Running).await;
        let usage = manager.usage(&id).await.unwrap();
        assert_eq!(
            (usage.memory_bytes, usage.processes),
            (Some(0), Some(0)),
            "one that has ended uses nothing"
        );
        assert!(usage.disk_bytes.unwrap() >= 3_000_000, "{usage:?}");
    })
    .await;
}

#[tokio::test]
async fn a_limit_of_size_is_kept_or_refused() {
    on_docker(async |manager, place| {
        manager.create_network(&place.network(None)).await.unwrap();
        let spec = ContainerSpec { disk_mb: Some(600), ..place.container("small") };
        let daemon = manager.daemon().await.unwrap();
        if !daemon.enforces_disk {
            let error = manager.create_container(&spec).await.unwrap_err();
            assert!(
                matches!(&error, ContainerError::Unsupported(words) if words.contains("disk_mb")),
                "{error}"
            );
            assert_eq!(manager.container(&spec.name).await.unwrap(), None);
            return;
        }
        let id = started(&*manager, &spec).await;
        let text = "dd if=/dev/zero of=/big bs=1M count=700 conv=fsync";
        let written = run(&*manager, &id, &script(text)).await.unwrap();
        assert_ne!(written.code, Some(0), "{written:?}");
    })
    .await;
}

#[tokio::test]
async fn names_and_addresses_are_as_asked() {
    on_docker(async |manager, place| {
        manager.create_network(&place.network(Some("10.83.12.0/24"))).await.unwrap();
        let fixed = Ipv4Addr::new(10, 83, 12, 77);
        let db = ContainerSpec {
            address: Some(fixed),
            aliases: vec!["db".into(), "db.internal".into()],
            ..place.container("db")
        };
        let db = started(&*manager, &db).await;
        let hosts = BTreeMap::from([("elsewhere".to_owned(), Ipv4Addr::new(192, 0, 2, 7))]);
        let web = started(&*manager, &ContainerSpec { hosts, ..place.container("web") }).await;
        for name in ["db", "db.internal", &place.name("db")] {
            assert!(
                sh(&*manager, &web, &format!("getent hosts {name}")).await.starts_with("10.83.12.77 "),
                "{name}"
            );
        }
        assert!(sh(&*manager, &web, "getent ahostsv4 elsewhere").await.starts_with("192.0.2.7 "));
        assert_eq!(sh(&*manager, &web, "hostname").await, "web");
        let found = manager.container(&db).await.unwrap().unwrap();
        assert_eq!(found.addresses, BTreeMap::from([(place.name("net"), fixed)]));
        let web = manager.container(&web).await.unwrap().unwrap().addresses[&place.name("net")];
        assert!(sh(&*manager, &db, "getent hosts web").await.starts_with(&format!("{web} ")));

        // By the network's identifier too, and not twice.
        let network = manager.networks(&place.labels()).await.unwrap()[0].id.clone();
        let third = started(&*manager, &ContainerSpec { network, ..place.container("third") }).await;
        assert!(sh(&*manager, &third, "getent hosts db").await.starts_with("10.83.12.77 "));
        assert!(sh(&*manager, &db, "getent hosts third").await.starts_with("10.83.12."));
        let twin = ContainerSpec { address: Some(fixed), ..place.container("twin") };
        let twin = manager.create_container(&twin).await.unwrap();
        let error = manager.start(&twin).await.unwrap_err();
        assert!(
            matches!(&error, ContainerError::Refused { reason, .. } if reason.contains("ddress")),
            "{error}"
        );
    })
    .await;
}

#[tokio::test]
async fn a_network_is_internal_only_when_asked() {
    on_docker(async |manager, place| {
        let inner = place.network(None);
        let outer = NetworkSpec { name: place.name("outer"), internal: false, ..inner.clone() };
        for spec in [inner, outer] {
            manager.create_network(&spec).await.unwrap();
            let shown = Command::new("docker")
                .args(["network", "inspect", "-f", "{{.Internal}}", &spec.name])
                .output();
            assert_eq!(String::from_utf8(shown.unwrap().stdout).unwrap().trim(), spec.internal.to_string());
        }
    })
    .await;
}

#[tokio::test]
async fn programs_give_both_streams_and_their_status() {
    on_docker(async |manager, place| {
        manager.create_network(&place.network(None)).await.unwrap();
        let id = started(&*manager, &place.container("one")).await;
        let ran = run(&*manager, &id, &script("echo out; echo err >&2; exit 42")).await.unwrap();
        assert_eq!((ran.stdout.as_str(), ran.stderr.as_str(), ran.code), ("out\n", "err\n", Some(42)));
        let killed = run(&*manager, &id, &script("kill -9 $$")).await.unwrap();
        assert_eq!(killed.code, Some(137));

        let big = run(&*manager, &id, &script("seq 2000000; seq 5 >&2")).await.unwrap();
        assert_eq!(
            (big.stdout.len(), big.stderr.as_str(), big.code),
            (14_888_896, "1\n2\n3\n4\n5\n", Some(0))
        );
        assert!(big.stdout.ends_with("\n2000000\n"));
        let bytes = run(&*manager, &id, &script("printf 'no newline'")).await.unwrap();
        assert_eq!(bytes.stdout, "no newline");

        let value = "a b\n'c' \"d\" $HOME `x` \\ =ä\t";
        let env =
            BTreeMap::from([("AWKWARD".to_owned(), value.to_owned()), ("EMPTY".to_owned(), String::new())]);
        let spec = ExecSpec {
            env,
            user: Some("nobody".into()),
            ..script("id -un; printf %s \"$AWKWARD\" >&2; exit ${EMPTY:-7}")
        };
        let ran = run(&*manager, &id, &spec).await.unwrap();
        assert_eq!((ran.stdout.as_str(), ran.stderr.as_str(), ran.code), ("nobody\n", value, Some(7)));
        // Arguments are not read by a shell.
        let plain =
            ExecSpec { command: vec!["printf".into(), "%s".into(), value.into()], ..ExecSpec::default() };
        assert_eq!(run(&*manager, &id, &plain).await.unwrap().stdout, value);

        let absent = ExecSpec { command: vec!["no-such-program".into()], ..ExecSpec::default() };
        match run(&*manager, &id, &absent).await {
            Ok(ran) => {
                assert!([Some(126), Some(127)].contains(&ran.code), "{ran:?}");
                assert!([ran.stdout, ran.stderr].concat().contains("no-such-program"));
            }
            Err(error) => assert!(matches!(error, ContainerError::Refused { .. }), "{error}"),
        }
    })
    .await;
}

#[tokio::test]
async fn a_program_goes_on_when_nobody_listens_and_ends_when_it_leaves_others_behind() {
    on_docker(async |manager, place| {
        manager.create_network(&place.network(None)).await.unwrap();
        let id = started(&*manager, &place.container("one")).await;
        let text = "echo started; while [ ! -e /go ]; do sleep 0.05; done; seq 100000; touch /done";
        let mut output = manager.exec(&id, &script(text)).await.unwrap();
        let first = output.next().await.unwrap().unwrap();
        assert_eq!(first, Output::Bytes(OutputStream::Stdout, b"started\n".to_vec()));
        drop(output);
        sh(&*manager, &id, "touch /go").await;
        let done = async || run(&*manager, &id, &script("test -e /done")).await.unwrap().code == Some(0);
        until("the program has ended", done).await;

        // A service that was left in the background keeps the output open.
        let spec = script("sleep 300 & echo up; exit 3");
        let left = tokio::time::timeout(Duration::from_secs(30), run(&*manager, &id, &spec)).await;
        let left = left.unwrap().unwrap();
        assert_eq!((left.stdout.as_str(), left.code), ("up\n", Some(3)));
        // One that closes its output is waited for.
        let quiet = run(&*manager, &id, &script("exec >&- 2>&-; sleep 0.5; exit 5")).await.unwrap();
        assert_eq!(quiet.code, Some(5));
    })
    .await;
}

#[tokio::test]
async fn logs_are_followed_to_the_end() {
    on_docker(async |manager, place| {
        manager.create_network(&place.network(None)).await.unwrap();
        let text = "seq 3; echo warned >&2; while [ ! -e /hello ]; do sleep 0.05; done; echo last";
        let id =
            started(&*manager, &ContainerSpec { command: script(text).command, ..place.container("one") })
                .await;
        let mut follow = manager.logs(&id, None, true).await.unwrap();
        // It has begun while the container runs; which of two streams is first is not told.
        let first = follow.next().await.unwrap();
        // Not by a program in it, which the end of the container would end too.
        let directory = tempfile::tempdir().unwrap();
        manager.copy_in(&id, "/", archive(directory.path())).await.unwrap();
        let whole = Ran { stdout: "1\n2\n3\nlast\n".into(), stderr: "warned\n".into(), code: None };
        assert_eq!(collect(stream::iter([first]).chain(follow).boxed()).await.unwrap(), whole);
        assert_eq!(collect(manager.logs(&id, None, false).await.unwrap()).await.unwrap(), whole);
        let tail = collect(manager.logs(&id, Some(1), false).await.unwrap()).await.unwrap();
        assert_eq!((tail.stdout.as_str(), tail.stderr.as_str()), ("last\n", ""));
    })
    .await;
}

/// An archive of one file, `hello`.
fn archive(directory: &std::path::Path) -> Vec<u8> {
    std::fs::write(directory.join("hello"), "from outside\n").unwrap();
    let mut tar = Command::new("tar");
    tar.args(["-cf", "-", "--owner=0", "--group=0", "hello"]).current_dir(directory).stderr(Stdio::inherit());
    let output = tar.output().unwrap();
    assert!(output.status.success());
    output.stdout
}

#[tokio::test]
async fn files_come_in_and_stay_in_an_image() {
    on_docker(async |manager, place| {
        let directory = tempfile::tempdir().unwrap();
        manager.create_network(&place.network(None)).await.unwrap();
        let mut spec = place.container("one");
        spec.labels.insert("environment".into(), "abc".into());
        let id = manager.create_container(&spec).await.unwrap();
        manager.copy_in(&id, "/opt", archive(directory.path())).await.unwrap();
        manager.start(&id).await.unwrap();
        assert_eq!(sh(&*manager, &id, "cat /opt/hello; stat -c %u /opt/hello").await, "from outside\n0");
        let error = manager.copy_in(&id, "/no/such/place", archive(directory.path())).await.unwrap_err();
        assert!(matches!(error, ContainerError::Refused { .. }), "{error}");

        let mut labels = place.labels();
        labels.insert("digest".into(), "d1".into());
        let name = place.name("prepared");
        let image = manager.commit(&id, &name, &labels).await.unwrap();
        let found = manager.image(&name).await.unwrap().unwrap();
        assert_eq!(found.names, [format!("{name}:latest")]);
        assert!(found.size_bytes > 0 && found.created_at_sec > 1_700_000_000, "{found:?}");
        assert_eq!((found.labels["digest"].as_str(), found.labels["environment"].as_str()), ("d1", ""));
        let environment = std::collections::BTreeMap::from([("environment".to_owned(), "abc".to_owned())]);
        assert_eq!(manager.images(&environment).await.unwrap(), [], "it is no thing of that environment");
        assert_eq!(sh(&*manager, &id, "cat /opt/hello").await, "from outside", "it goes on");
        let next = started(&*manager, &ContainerSpec { image, ..place.container("two") }).await;
        assert_eq!(sh(&*manager, &next, "cat /opt/hello; hostname").await, "from outside\ntwo");
    })
    .await;
}

#[tokio::test]
async fn volumes_outlive_containers_and_can_be_read_only() {
    on_docker(async |manager, place| {
        manager.create_network(&place.network(None)).await.unwrap();
        let volume = place.name("data");
        manager.create_volume(&volume, &place.labels()).await.unwrap();
        let with = |part: &str, read_only| {
            let mounts = vec![Mount { volume: volume.clone(), path: "/data".into(), read_only }];
            ContainerSpec { mounts, ..place.container(part) }
        };
        let first = started(&*manager, &with("one", false)).await;
        sh(&*manager, &first, "echo kept >/data/file").await;
        manager.remove_container(&first).await.unwrap();
        let second = started(&*manager, &with("two", true)).await;
        assert_eq!(sh(&*manager, &second, "cat /data/file").await, "kept");
        assert_ne!(run(&*manager, &second, &script("touch /data/other")).await.unwrap().code, Some(0));
    })
    .await;
}

#[tokio::test]
async fn all_in_a_container_is_frozen_and_all_of_it_is_killed() {
    on_docker(async |manager, place| {
        manager.create_network(&place.network(None)).await.unwrap();
        let counting = "while :; do echo tick; sleep 0.02; done";
        let spec = ContainerSpec { command: script(counting).command, ..place.container("one") };
        let id = started(&*manager, &spec).await;
        let ticks =
            async || collect(manager.logs(&id, None, false).await.unwrap()).await.unwrap().stdout.len();
        until("it ticks", async || ticks().await > 0).await;
        manager.pause(&id).await.unwrap();
        let frozen = ticks().await;
        let error = run(&*manager, &id, &script("true")).await.unwrap_err();
        assert!(matches!(error, ContainerError::Refused { .. }), "{error}");
        assert_eq!(ticks().await, frozen);
        manager.unpause(&id).await.unwrap();
        until("it ticks again", async || ticks().await > frozen).await;

        manager.pause(&id).await.unwrap();
        manager.kill(&id).await.unwrap();
        let state = async || manager.container(&id).await.unwrap().unwrap().state;
        let killed = ContainerState::Exited { code: 137, out_of_memory: false };
        until("one that is frozen is killed too", async || state().await == killed).await;
        manager.start(&id).await.unwrap();
        assert_eq!(state().await, ContainerState::Running);
    })
    .await;
}

#[tokio::test]
async fn two_who_remove_one_container_are_both_done_when_it_is_gone() {
    on_docker(async |manager, place| {
        manager.create_network(&place.network(None)).await.unwrap();
        let id = started(&*manager, &place.container("one")).await;
        let removals = (0..4).map(|_| async {
            manager.remove_container(&id).await.unwrap();
            assert_eq!(manager.container(&id).await.unwrap(), None);
        });
        futures::future::join_all(removals).await;
        manager.remove_network(&place.name("net")).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn plain_containers_have_an_init_and_an_own_entry_point() {
    on_docker(async |manager, place| {
        manager.create_network(&place.network(None)).await.unwrap();
        let id = started(&*manager, &place.container("one")).await;
        let first = sh(&*manager, &id, "cat /proc/1/comm; tr '\\0' ' ' </proc/1/cmdline").await;
        assert!(first.contains("init") && first.ends_with("sleep infinity"), "{first}");
        // What an image has as its entry point does not come before what is asked for.
        manager.commit(&id, &place.name("image"), &place.labels()).await.unwrap();
        let command = ["sh", "-c", "sleep 1000; :"].map(String::from).to_vec();
        let other = ContainerSpec { image: place.name("image"), command, ..place.container("two") };
        let other = started(&*manager, &other).await;
        let first = sh(&*manager, &other, "tr '\\0' ' ' </proc/1/cmdline").await;
        assert!(first.ends_with("-- sh -c sleep 1000; :"), "{first}");
    })
    .await;
}

#[tokio::test]
async fn only_a_privileged_container_has_all_and_systemd_a_control_group_to_write() {
    on_docker(async |manager, place| {
        manager.create_network(&place.network(None)).await.unwrap();
        let plain = started(&*manager, &place.container("plain")).await;
        let capabilities = "grep CapEff /proc/self/status";
        let few = sh(&*manager, &plain, capabilities).await;
        let spec = ContainerSpec { privileged: true, systemd: true, ..place.container("one") };
        let id = manager.create_container(&spec).await.unwrap();
        match manager.start(&id).await {
            // A daemon that has not all capabilities itself cannot give them, and says so: it did as asked.
            Err(ContainerError::Refused { reason, .. }) if reason.contains("unable to apply caps") => {
                eprintln!("not seen from inside: {reason}");
                return;
            }
            other => other.unwrap(),
        }
        assert_ne!(sh(&*manager, &id, capabilities).await, few);
        // What systemd checks at its start; the image has none.
        let text = "cat /proc/1/comm; tr '\\0' '\\n' </proc/1/environ | grep ^container=; \
            for d in /sys/fs/cgroup/systemd /sys/fs/cgroup; do [ -e $d/cgroup.procs ] && break; done; \
            mkdir $d/below && rmdir $d/below && grep -c ^1$ $d/cgroup.procs; \
            stat -f -c %T /run /run/lock; printf '#!/bin/sh\\necho runs\\n' >/run/x; chmod +x /run/x; /run/x";
        assert_eq!(sh(&*manager, &id, text).await, "sleep\ncontainer=docker\n1\ntmpfs\ntmpfs\nruns");
    })
    .await;
}

#[tokio::test]
async fn an_image_that_cannot_be_fetched_says_so() {
    on_docker(async |manager, place| {
        let name = "registry.invalid/orchestrator/none:1";
        let error = manager.pull(name, &|_| ()).await.unwrap_err();
        let known = matches!(&error, ContainerError::Refused { doing, .. } if doing.contains(name));
        assert!(known || matches!(&error, ContainerError::NotFound { what: "image", .. }), "{error}");
        // One that is there is not missed because of a registry.
        let local = format!("registry.invalid/{}:1", place.name("local"));
        manager.create_network(&place.network(None)).await.unwrap();
        let id = manager.create_container(&place.container("one")).await.unwrap();
        manager.commit(&id, &local, &place.labels()).await.unwrap();
        manager.pull(&local, &|_| ()).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_name_cannot_reach_another_call() {
    on_docker(async |manager, place| {
        for name in ["", "a/b", "../images", "a?all=1", "a#b", "a b", "%2e%2e"] {
            let errors = [
                manager.container(name).await.unwrap_err(),
                manager.remove_container(name).await.unwrap_err(),
                manager.remove_network(name).await.unwrap_err(),
                manager.remove_volume(name).await.unwrap_err(),
                manager.start(name).await.unwrap_err(),
            ];
            for error in errors {
                assert!(matches!(error, ContainerError::Unsupported(_)), "{name}: {error}");
            }
        }
        assert!(matches!(manager.image("../containers").await, Err(ContainerError::Unsupported(_))));
        assert!(manager.image(&place.image).await.unwrap().is_some());
    })
    .await;
}

#[tokio::test]
async fn a_daemon_that_is_not_there_is_away() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("docker.sock");
    // Somebody has listened here, and does no more.
    drop(std::os::unix::net::UnixListener::bind(directory.path().join("dead.sock")).unwrap());
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let addresses = [
        Address::Unix(socket),
        Address::Unix(directory.path().join("dead.sock")),
        Address::Plain(free.to_string()),
        Address::Ssh(format!("nobody@{free}")),
    ];
    for address in addresses {
        let at = address.to_string();
        let manager = DockerManager::new(address);
        let error = manager.daemon().await.unwrap_err();
        assert!(matches!(&error, ContainerError::Away { at: said, .. } if *said == at), "{error:?}");
        let error = manager.container("x").await.unwrap_err();
        assert!(matches!(error, ContainerError::Away { .. }), "{error:?}");
    }
    let certificates = directory.path().to_owned();
    let manager = DockerManager::new(Address::Tls { authority: free.to_string(), certificates });
    let error = manager.daemon().await.unwrap_err();
    assert!(matches!(&error, ContainerError::Unsupported(words) if words.contains("ca.pem")), "{error}");
}
