//! Whose a thing is: several engines that share records on one daemon, and people who use the engine's images.

use std::sync::Arc;

use orchestrator_engine::containers::calls::Call;
use orchestrator_engine::containers::scripted::Strike;
use orchestrator_engine::containers::{ContainerError, ContainerManager, ContainerSpec, Labels};
use orchestrator_engine::test_orchestrator::{Options, TestOrchestrator};
use orchestrator_protocol::environment::EnvironmentStatus;
use serde_json::json;

use crate::broken::{two_nodes, world};
use crate::support::{World, cluster};

/// An engine with data of its own that knows the same records, on the same daemon.
fn colleague(world: &World) -> TestOrchestrator {
    let options = Options { owner: "colleague".into(), ..world.options.clone() };
    TestOrchestrator::new(world.docker.clone(), world.records.clone(), options)
}

/// The record says whose an environment's things are: another engine goes on with its creation, runs it and
/// removes all of it, and neither takes it for something that was left behind.
#[tokio::test]
async fn an_engine_that_shares_the_records_finds_what_another_has_made() {
    let (world, docker) = world();
    let colleague = colleague(&world);
    let id = world.ask(two_nodes());
    world.change(id, |record| record.owner = Some(world.options.owner.clone()));
    let away = ContainerError::Away { at: "memory".into(), reason: "the answer was lost".into() };
    // Of the two nodes, one is made by each: the containers before them become images.
    docker.fail(Call::CreateContainer, 3, Strike::Before, away);
    world.orchestrator.create(id, &world.context()).await.unwrap_err();
    colleague.create(id, &world.context()).await.unwrap();
    let owned = Labels::from([
        ("orchestrator.data".to_owned(), world.options.owner.clone()),
        ("orchestrator.environment".to_owned(), id.to_string()),
    ]);
    assert_eq!(docker.containers(&owned).await.unwrap().len(), 2);
    for orchestrator in [world.orchestrator.as_ref(), &colleague] {
        orchestrator.reconcile().await.unwrap();
        assert_eq!(docker.containers(&owned).await.unwrap().len(), 2);
    }
    let options =
        serde_json::from_value(json!({"faults": [{"fault": {"kind": "kill", "node": "b"}}]})).unwrap();
    let task = orchestrator_protocol::task::TaskId::generate();
    colleague.run(id, task, &options, None, &world.context()).await.unwrap();
    let names: Vec<String> = world.record(id).results.into_iter().map(|result| result.name).collect();
    assert!(names.contains(&"verify two after fault 1: kill b".into()), "{names:?}");

    let removed = colleague.clean(id, &world.context()).await.unwrap();
    assert_eq!(removed["removed"].as_array().unwrap().len(), 4, "{removed}");
    assert_eq!(world.record(id).status, EnvironmentStatus::Cleaned);
    let environment = Labels::from([("orchestrator.environment".to_owned(), id.to_string())]);
    assert!(docker.containers(&environment).await.unwrap().is_empty());
    assert!(docker.networks(&environment).await.unwrap().is_empty());
    assert!(docker.volumes(&environment).await.unwrap().is_empty());
}

/// A record from before owners were kept belongs to the engine that reads it.
#[tokio::test]
async fn a_record_without_an_owner_is_this_engines() {
    let (world, _) = world();
    let id = world.made(two_nodes()).await;
    let mut old = serde_json::to_value(world.record(id)).unwrap();
    old.as_object_mut().unwrap().remove("owner");
    world.change(id, |record| *record = serde_json::from_value(old).unwrap());
    world.another().clean(id, &world.context()).await.unwrap();
    assert_eq!(world.things().await, [""; 0]);
}

/// What people make from the engine's images, and from its nodes, has their labels, and is theirs whatever
/// it is called.
#[tokio::test]
async fn what_people_make_from_images_is_theirs() {
    let (world, docker) = world();
    let id = world.made(two_nodes()).await;
    let node = docker.container(&format!("orchestrator-{id}-a")).await.unwrap().unwrap();
    let prepared = docker.image(&node.image).await.unwrap().unwrap();
    // As `docker commit` does it, with all labels.
    let of_node = docker.commit(&node.id, "mine:node", &node.labels).await.unwrap();
    let of_image = docker.commit(&node.id, "mine:image", &prepared.labels).await.unwrap();
    for (name, image) in [("orchestrator-look", &prepared.id), ("orchestrator-copy", &of_node)] {
        let spec = ContainerSpec { name: name.into(), image: image.clone(), ..ContainerSpec::default() };
        docker.create_container(&spec).await.unwrap();
    }
    world.orchestrator.reconcile().await.unwrap();
    world.orchestrator.clean(id, &world.context()).await.unwrap();
    world.orchestrator.reconcile().await.unwrap();
    let pruned = world.orchestrator.prune(true).await.unwrap();
    assert_eq!(pruned.images, [""; 0], "the prepared one is in use, and the others are not the engine's");
    assert!(docker.image(&of_image).await.unwrap().is_some());
    let left: Vec<String> = docker
        .containers(&Labels::new())
        .await
        .unwrap()
        .into_iter()
        .map(|container| container.name)
        .collect();
    assert_eq!(left, ["orchestrator-copy", "orchestrator-look"]);
}

/// One thing that cannot be removed does not keep prepared images from their bound.
#[tokio::test(start_paused = true)]
async fn what_cannot_be_removed_keeps_no_image() {
    let (world, docker) = world();
    let made = world.made(json!({"config": {"type": "single_taskserv", "taskserv": "one"}})).await;
    world.orchestrator.clean(made, &world.context()).await.unwrap();
    let stuck = world.made(cluster(json!([{"name": "a"}]))).await;
    world.forget(stuck);
    for nth in 1..=20 {
        let refused = ContainerError::Refused { doing: "to remove".into(), reason: "device is busy".into() };
        docker.fail(Call::RemoveContainer, nth, Strike::Before, refused);
    }
    let options = Options { prepared_max_bytes: 0, ..world.options.clone() };
    let bounded = TestOrchestrator::new(Arc::clone(&world.docker), world.records.clone(), options);
    let failure = bounded.reconcile().await.unwrap_err();
    assert!(failure.message.contains("device is busy"), "{failure}");
    let kind = Labels::from([("orchestrator.kind".to_owned(), "prepared".to_owned())]);
    assert_eq!(docker.images(&kind).await.unwrap(), []);
}
