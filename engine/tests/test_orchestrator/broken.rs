//! A container engine in memory that fails at every call, and engines that die there.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use futures::StreamExt;
use orchestrator_engine::containers::calls::Call;
use orchestrator_engine::containers::scripted::{Outputs, Scripted, Strike, printed};
use orchestrator_engine::containers::{
    Container, ContainerError, ContainerManager, ContainerSpec, ExecSpec, NetworkSpec,
};
use orchestrator_protocol::environment::{EnvironmentStatus, Fault};
use orchestrator_protocol::task::TaskId;
use serde_json::{Value, json};

use crate::support::{World, cluster, image, small};

const KINDS: [Call; 20] = [
    Call::Version,
    Call::Info,
    Call::InspectImage,
    Call::Commit,
    Call::CreateNetwork,
    Call::InspectNetwork,
    Call::ListNetworks,
    Call::RemoveNetwork,
    Call::CreateVolume,
    Call::ListVolumes,
    Call::RemoveVolume,
    Call::CreateContainer,
    Call::Start,
    Call::InspectContainer,
    Call::ListContainers,
    Call::RemoveContainer,
    Call::CreateExec,
    Call::StartExec,
    Call::InspectExec,
    Call::Upload,
];

/// A node on which every step succeeds, after others had a chance to do something.
pub fn steps(_: &Container, spec: &ExecSpec) -> Outputs {
    let words: Vec<&str> = spec.command.iter().map(String::as_str).collect();
    let output = match words[..] {
        ["sh", _, "run", mark, ..] => format!("{mark} began\nprinted\n{mark} exit 0\n"),
        _ => String::new(),
    };
    let later = async move {
        tokio::task::yield_now().await;
        printed(&output, 0)
    };
    futures::stream::once(later).flatten().boxed()
}

pub fn world() -> (World, Arc<Scripted>) {
    let docker = Arc::new(Scripted::new(steps));
    docker.add_image(&image());
    let world = World::new(docker.clone());
    small(&world, "one", &[("start.sh", "true\n")]);
    small(&world, "two", &[("taskserv.toml", "description = \"Another\"\ndepends_on = [\"one\"]\n")]);
    (world, docker)
}

pub fn two_nodes() -> Value {
    let volumes = json!([{"name": "data", "path": "/data"}]);
    cluster(json!([{"name": "a", "taskservs": ["two"], "volumes": volumes}, {"name": "b"}]))
}

fn away() -> ContainerError {
    ContainerError::Away { at: "memory".into(), reason: "the answer was lost".into() }
}

fn counts(docker: &Scripted) -> Vec<(Call, u64)> {
    KINDS.iter().map(|call| (*call, docker.calls().of(*call))).filter(|(_, count)| *count > 0).collect()
}

/// Wherever the creation breaks off: it can be gone on with, and nothing of it stays when it is cleaned.
#[tokio::test]
async fn a_creation_that_breaks_off_anywhere_goes_on() {
    let (smooth, docker) = world();
    smooth.made(two_nodes()).await;
    let all = counts(&docker).into_iter().flat_map(|(call, count)| (1..=count).map(move |nth| (call, nth)));
    let cases = all.flat_map(|(call, nth)| {
        let ways = [(Strike::Before, false), (Strike::After, false), (Strike::After, true)];
        ways.map(|(strike, is_dead)| break_off(call, nth, strike, is_dead))
    });
    assert!(futures::future::join_all(cases).await.len() > 60);
}

async fn break_off(call: Call, nth: u64, strike: Strike, is_dead: bool) {
    let (world, docker) = world_that_fails(call, nth, strike);
    let id = world.ask(two_nodes());
    let Err(failure) = world.orchestrator.create(id, &world.context()).await else {
        panic!("{call:?} {nth} is not noticed");
    };
    assert!(!failure.permanent, "{call:?} {nth}: {failure}");
    assert_eq!(world.record(id).status, EnvironmentStatus::Error);
    if is_dead {
        // So a record is left by an engine that had no time for a last word.
        world.change(id, |record| (record.status, record.error) = (EnvironmentStatus::Creating, None));
    }
    let next = world.another();
    if let Err(failure) = next.create(id, &world.context()).await {
        panic!("{call:?} {nth} {strike:?}: {failure}");
    }
    let record = world.record(id);
    assert_eq!((record.status, record.error), (EnvironmentStatus::Ready, None));
    assert_eq!(record.nodes[0].done.len(), 3, "{:?}", record.nodes[0].done);
    let nodes = [("orchestrator.environment".to_owned(), id.to_string())].into();
    assert_eq!(docker.containers(&nodes).await.unwrap().len(), 2, "{call:?} {nth}");
    next.clean(id, &world.context()).await.unwrap();
    // What was to become an image belongs to no environment.
    next.reconcile().await.unwrap();
    assert_eq!(world.things().await, [""; 0], "{call:?} {nth} {strike:?}");
}

fn world_that_fails(call: Call, nth: u64, strike: Strike) -> (World, Arc<Scripted>) {
    let (world, docker) = world();
    docker.fail(call, nth, strike, away());
    (world, docker)
}

/// Wherever the creation breaks off: the next engine removes what no record owns, and nothing of others.
#[tokio::test]
async fn what_no_record_owns_is_removed() {
    let (smooth, docker) = world();
    smooth.made(two_nodes()).await;
    for (call, count) in counts(&docker) {
        for nth in 1..=count {
            let (world, docker) = world();
            let other = World::new(docker.clone());
            let kept = other.made(cluster(json!([{"name": "a"}]))).await;
            let before = other.things().await;
            assert!(before.iter().any(|name| name.contains(&kept.to_string())));

            docker.fail(call, nth, Strike::After, away());
            let id = world.ask(two_nodes());
            world.orchestrator.create(id, &world.context()).await.unwrap_err();
            // A record that is there keeps what belongs to it.
            let things = world.things().await;
            let next = world.another();
            let reconciled = next.reconcile().await.unwrap();
            assert!(reconciled.removed.iter().all(|name| name.contains("scratch")), "{reconciled:?}");
            assert_eq!(world.things().await.len(), things.len() - reconciled.removed.len());
            world.forget(id);
            next.reconcile().await.unwrap();
            assert_eq!(world.things().await, [""; 0], "{call:?} {nth}");
            assert_eq!(other.things().await, before);
        }
    }
}

/// Wherever the removal breaks off: it can be done again.
#[tokio::test]
async fn a_removal_that_breaks_off_goes_on() {
    let kinds = [
        Call::ListContainers,
        Call::ListNetworks,
        Call::ListVolumes,
        Call::RemoveContainer,
        Call::RemoveNetwork,
        Call::RemoveVolume,
    ];
    for call in kinds {
        for strike in [Strike::Before, Strike::After] {
            let (world, docker) = world();
            let id = world.made(two_nodes()).await;
            docker.fail(call, 1, strike, away());
            let failure = world.orchestrator.clean(id, &world.context()).await.unwrap_err();
            assert!(!failure.permanent);
            assert_eq!(world.record(id).status, EnvironmentStatus::Error);
            let next = world.another();
            next.clean(id, &world.context()).await.unwrap();
            assert_eq!(world.record(id).status, EnvironmentStatus::Cleaned);
            assert_eq!(world.things().await, [""; 0], "{call:?} {strike:?}");
            // Once more does nothing, and it is not made again.
            next.clean(id, &world.context()).await.unwrap();
            assert!(next.create(id, &world.context()).await.unwrap_err().permanent);
        }
    }
}

/// What is asked of Docker for some nodes, and for their removal: no more than is needed.
#[tokio::test]
async fn no_call_is_made_in_vain() {
    for number in [1, 3, 6] {
        let (world, docker) = world();
        let nodes: Vec<_> = (0..number).map(|node| json!({"name": format!("n{node}")})).collect();
        let id = world.made(cluster(json!(nodes))).await;
        let made = [
            (Call::InspectImage, 1),
            (Call::CreateNetwork, 1),
            (Call::ListNetworks, 1),
            (Call::CreateContainer, number),
            (Call::Start, number),
            (Call::ListContainers, 1),
        ];
        assert_eq!(counts(&docker), made);
        world.orchestrator.clean(id, &world.context()).await.unwrap();
        let removed = [
            (Call::InspectImage, 1),
            (Call::CreateNetwork, 1),
            (Call::ListNetworks, 2),
            (Call::RemoveNetwork, 1),
            (Call::ListVolumes, 1),
            (Call::CreateContainer, number),
            (Call::Start, number),
            (Call::ListContainers, 2),
            (Call::RemoveContainer, number),
        ];
        assert_eq!(counts(&docker), removed);
    }
}

/// Several that want the same image at once wait for the one that is made.
#[tokio::test]
async fn an_image_is_prepared_once() {
    let (world, docker) = world();
    let request = json!({"config": {"type": "single_taskserv", "taskserv": "two"}});
    futures::future::join_all((0..4).map(|_| world.made(request.clone()))).await;
    assert_eq!(docker.calls().of(Call::Commit), 1);
    // In use, it stays.
    assert_eq!(world.orchestrator.prune(true).await.unwrap().images, [""; 0]);
    // Other parameters, or another file, make another image.
    small(&world, "two", &[("taskserv.toml", "description = \"Changed\"\ndepends_on = [\"one\"]\n")]);
    world.made(request).await;
    assert_eq!(docker.calls().of(Call::Commit), 2);
}

/// Another engine removes its images when it likes: one that is gone at the moment of its use is made again.
#[tokio::test]
async fn an_image_that_vanishes_is_made_again() {
    let (world, docker) = world();
    let request = json!({"config": {"type": "single_taskserv", "taskserv": "two"}});
    // The first container becomes the image, the second is made from it.
    docker.take_images(Call::CreateContainer, 2);
    let id = world.made(request.clone()).await;
    assert_eq!(docker.calls().of(Call::Commit), 2);
    assert!(world.record(id).nodes[0].prepared);
    // Where it happens each time, the failure says what is missing, and the next attempt can be better.
    world.orchestrator.clean(id, &world.context()).await.unwrap();
    for nth in [1, 3, 5, 7] {
        docker.take_images(Call::CreateContainer, nth);
    }
    let id = world.ask(request);
    let failure = world.orchestrator.create(id, &world.context()).await.unwrap_err();
    assert!(!failure.permanent && failure.error.message.contains("no image"), "{failure}");
    world.orchestrator.create(id, &world.context()).await.unwrap();
}

/// What is being made is not taken for what was left behind.
#[tokio::test]
async fn a_look_at_what_there_is_disturbs_nobody() {
    let (world, docker) = world();
    let look = async {
        for _ in 0..50 {
            let reconciled = world.orchestrator.reconcile().await.unwrap();
            assert_eq!(reconciled.removed, [""; 0]);
            tokio::task::yield_now().await;
        }
    };
    let (id, ()) = futures::join!(world.made(two_nodes()), look);
    assert_eq!(docker.calls().of(Call::Commit), 1);
    assert_eq!(world.record(id).status, EnvironmentStatus::Ready);
}

/// An image is fetched only on request, and what is missing is named with what helps.
#[tokio::test]
async fn an_image_that_is_not_there_is_named() {
    let (world, docker) = world();
    let mut request =
        json!({"config": {"type": "single_taskserv", "taskserv": "one", "base_image": "far:1"}});
    let id = world.ask(request.clone());
    let failure = world.orchestrator.create(id, &world.context()).await.unwrap_err();
    assert!(failure.permanent && failure.error.message.contains("docker pull far:1"), "{failure}");
    assert_eq!(world.things().await, [""; 0]);
    docker.publish("far:1");
    request["pull"] = json!(true);
    world.made(request).await;
    assert_eq!(docker.calls().of(Call::PullImage), 1);
}

/// A name that somebody else has is not taken over.
#[tokio::test]
async fn what_is_not_ours_is_not_taken_for_ours() {
    let (world, docker) = world();
    let id = world.ask(two_nodes());
    let network = NetworkSpec { name: "foreign".into(), subnet: None, internal: false, labels: [].into() };
    docker.create_network(&network).await.unwrap();
    let spec = ContainerSpec {
        name: format!("orchestrator-{id}-b"),
        image: image(),
        network: "foreign".into(),
        ..ContainerSpec::default()
    };
    docker.create_container(&spec).await.unwrap();
    let failure = world.orchestrator.create(id, &world.context()).await.unwrap_err();
    assert!(failure.permanent && failure.error.message.contains("already"), "{failure}");
    world.orchestrator.clean(id, &world.context()).await.unwrap();
    assert!(docker.container(&spec.name).await.unwrap().is_some());
}

/// Environments whose time is over are told, and those that are gone are not.
#[tokio::test]
async fn what_has_expired_is_told() {
    let (world, _) = world();
    let request = json!({"config": {"type": "single_taskserv", "taskserv": "one"}});
    let (old, new) = (world.made(request.clone()).await, world.made(request).await);
    world.change(old, |record| record.expires_at = record.created_at);
    assert_eq!(world.orchestrator.reconcile().await.unwrap().expired, [old]);
    world.orchestrator.clean(old, &world.context()).await.unwrap();
    assert!(world.orchestrator.reconcile().await.unwrap().expired.is_empty());
    assert_eq!(world.record(new).status, EnvironmentStatus::Ready);
    assert_eq!(world.logs(old, None, None).await[0].line, "printed");
    world.forget(old);
    world.orchestrator.reconcile().await.unwrap();
    assert!(!world.options.logs_dir.join(old.to_string()).exists());
}

/// A run that an engine has died in is gone on with: what has a result is not done again.
#[tokio::test]
async fn a_run_goes_on_where_it_was() {
    let (world, docker) = world();
    let id = world.made(two_nodes()).await;
    docker.fail(Call::CreateExec, 2, Strike::Before, away());
    let options = serde_json::from_value(json!({})).unwrap();
    let task = TaskId::generate();
    world.orchestrator.run(id, task, &options, None, &world.context()).await.unwrap_err();
    world.change(id, |record| record.status = EnvironmentStatus::RunningTests);
    let before = docker.calls().of(Call::CreateExec);
    let next = world.another();
    next.run(id, task, &options, None, &world.context()).await.unwrap();
    assert_eq!(docker.calls().of(Call::CreateExec), before + 1);
    let record = world.record(id);
    assert_eq!((record.status, record.runs, record.results.len()), (EnvironmentStatus::Passed, 1, 2));
    next.run(id, TaskId::generate(), &options, None, &world.context()).await.unwrap();
    assert_eq!(world.record(id).runs, 2);
}

/// What another task's run has left is not taken for what this one has found.
#[tokio::test]
async fn a_run_of_another_task_begins_anew() {
    let (world, docker) = world();
    let id = world.made(two_nodes()).await;
    docker.fail(Call::CreateExec, 2, Strike::Before, away());
    let options = serde_json::from_value(json!({})).unwrap();
    world.orchestrator.run(id, TaskId::generate(), &options, None, &world.context()).await.unwrap_err();
    let found = world.record(id).results.len();
    assert_eq!(found, 1);
    // So a record is left by an engine that had no time for a last word.
    world.change(id, |record| record.status = EnvironmentStatus::RunningTests);
    let before = docker.calls().of(Call::CreateExec);
    world.another().run(id, TaskId::generate(), &options, None, &world.context()).await.unwrap();
    assert_eq!(docker.calls().of(Call::CreateExec), before + 2);
    let record = world.record(id);
    assert_eq!((record.status, record.runs, record.results.len()), (EnvironmentStatus::Passed, 2, 2));
}

/// One thing that cannot be removed keeps its own network and volume, and nothing else.
#[tokio::test(start_paused = true)]
async fn what_cannot_be_removed_keeps_no_other() {
    let (world, docker) = world();
    let request = || {
        let node = |name| json!({"name": name, "volumes": [{"name": "data", "path": "/data"}]});
        cluster(json!([node("a"), node("b")]))
    };
    let (stuck, other) = (world.made(request()).await, world.made(request()).await);
    for id in [stuck, other] {
        world.forget(id);
    }
    // It is the first of four in each round.
    let refused = || ContainerError::Refused { doing: "to remove".into(), reason: "device is busy".into() };
    for nth in (1..=60).step_by(4) {
        docker.fail(Call::RemoveContainer, nth, Strike::Before, refused());
    }
    let failure = world.orchestrator.reconcile().await.unwrap_err();
    assert!(failure.message.contains("device is busy"), "{failure}");
    let left = world.things().await;
    assert_eq!(left.len(), 3, "{left:?}");
    let whose = if left[0].contains(&stuck.to_string()) { stuck } else { other };
    assert!(left.iter().all(|name| name.contains(&whose.to_string())), "{left:?}");
}

/// A partition that a node refuses is undone and forgotten; one that is asked for twice is one.
#[tokio::test]
async fn a_partition_is_whole_or_not_at_all() {
    let told: Arc<Mutex<Vec<String>>> = Arc::default();
    let heard = Arc::clone(&told);
    let refusing = Arc::new(AtomicBool::new(true));
    let refuses = Arc::clone(&refusing);
    let docker =
        Arc::new(Scripted::new(move |container: &Container, spec: &ExecSpec| match &spec.command[..] {
            [_, _, _, _, word, ..] if word == "cut" || word == "heal" => {
                let node = &container.labels["orchestrator.node"];
                heard.lock().unwrap().push(format!("{word} {node}"));
                let is_refused = word == "cut" && node == "b" && refuses.load(Ordering::Relaxed);
                if is_refused { printed("it has no tools", 1) } else { printed("", 0) }
            }
            _ => steps(container, spec),
        }));
    docker.add_image(&image());
    let world = World::new(docker.clone());
    let nodes = ["a", "b", "c"].map(|name| json!({"name": name}));
    let id = world.made(cluster(json!(nodes))).await;
    let cut = |nodes: &[&str]| Fault::Partition { nodes: nodes.iter().map(|node| (*node).into()).collect() };

    let refused = world.orchestrator.inject(id, &cut(&["a"])).await.unwrap_err();
    assert!(refused.message.contains("node 'b'") && refused.message.contains("no tools"), "{refused}");
    assert_eq!(world.record(id).partitions, [[""; 0]; 0]);
    let all = std::mem::take(&mut *told.lock().unwrap());
    for word in ["cut a", "cut b", "cut c", "heal a", "heal c"] {
        assert!(all.contains(&word.to_owned()), "{word} of {all:?}");
    }
    // It is not cut off when it is started again.
    world.orchestrator.inject(id, &Fault::Restart { node: "b".into() }).await.unwrap();
    assert_eq!(*told.lock().unwrap(), [""; 0]);

    refusing.store(false, Ordering::Relaxed);
    for nodes in [["a", "b"], ["b", "a"]] {
        world.orchestrator.inject(id, &cut(&nodes)).await.unwrap();
        assert_eq!(world.record(id).partitions, [["a", "b"]]);
    }
    // Another one that is refused leaves it as it is.
    refusing.store(true, Ordering::Relaxed);
    told.lock().unwrap().clear();
    world.orchestrator.inject(id, &cut(&["b"])).await.unwrap_err();
    assert_eq!(world.record(id).partitions, [["a", "b"]]);
    let healed: Vec<String> =
        told.lock().unwrap().iter().filter(|word| word.starts_with("heal")).cloned().collect();
    assert!(!healed.contains(&"heal c".to_owned()), "c stays cut off from b: {healed:?}");
}

/// A partition that could not be undone when a node refused it, since Docker was away by then, is healed by
/// `heal`, although it is not noted any more.
#[tokio::test]
async fn what_could_not_be_undone_can_be_healed() {
    let told: Arc<Mutex<Vec<String>>> = Arc::default();
    let heard = Arc::clone(&told);
    let docker =
        Arc::new(Scripted::new(move |container: &Container, spec: &ExecSpec| match &spec.command[..] {
            [_, _, _, _, word, ..] if word == "cut" || word == "heal" => {
                let node = &container.labels["orchestrator.node"];
                heard.lock().unwrap().push(format!("{word} {node}"));
                if word == "cut" && node == "b" { printed("it has no tools", 1) } else { printed("", 0) }
            }
            _ => steps(container, spec),
        }));
    docker.add_image(&image());
    let world = World::new(docker.clone());
    let id = world.made(cluster(json!(["a", "b", "c"].map(|name| json!({"name": name}))))).await;
    // Three are told to cut, and then the three are not reached.
    for nth in 4..=6 {
        docker.fail(Call::CreateExec, nth, Strike::Before, away());
    }
    let cut = Fault::Partition { nodes: vec!["a".into()] };
    world.orchestrator.inject(id, &cut).await.unwrap_err();
    assert!(!told.lock().unwrap().iter().any(|word| word.starts_with("heal")), "nothing was undone");
    assert_eq!(world.record(id).partitions, [[""; 0]; 0]);
    world.orchestrator.inject(id, &Fault::Heal {}).await.unwrap();
    for word in ["heal a", "heal b", "heal c"] {
        assert!(told.lock().unwrap().contains(&word.to_owned()), "{word}");
    }
}
