//! What holds for every container engine. The image has `true`, `false` and `echo`.

use orchestrator_engine::containers::{
    ContainerError, ContainerManager, ContainerSpec, ContainerState, ExecSpec, Labels, Mount, NetworkSpec,
};

use super::support::{Place, collect, remove_all, run, started};

/// All of it.
pub async fn whole(manager: &dyn ContainerManager, place: &Place) {
    networks(manager, place).await;
    volumes(manager, place).await;
    containers(manager, place).await;
    programs(manager, place).await;
    images(manager, place).await;
    absent(manager, place).await;
    remove_all(manager, place).await;
    let labels = place.labels();
    assert_eq!(manager.containers(&labels).await.unwrap(), []);
    assert_eq!(manager.networks(&labels).await.unwrap(), []);
    assert_eq!(manager.volumes(&labels).await.unwrap(), []);
    assert_eq!(manager.images(&labels).await.unwrap(), []);
}

fn is_not_found(error: &ContainerError, kind: &str, which: &str) -> bool {
    matches!(error, ContainerError::NotFound { what, name } if *what == kind && name == which)
}

fn exists(error: &ContainerError, kind: &str, which: &str) -> bool {
    matches!(error, ContainerError::Exists { what, name } if *what == kind && name == which)
}

async fn networks(manager: &dyn ContainerManager, place: &Place) {
    let spec = place.network(None);
    let made = manager.create_network(&spec).await.unwrap();
    assert_eq!((&made.name, &made.labels), (&spec.name, &spec.labels));
    let subnet = made.subnet.clone().unwrap();
    assert_eq!(manager.networks(&place.labels()).await.unwrap(), std::slice::from_ref(&made));
    assert!(manager.networks(&Labels::new()).await.unwrap().contains(&made));

    let again = manager.create_network(&spec).await.unwrap_err();
    assert!(exists(&again, "network", &spec.name), "{again}");
    assert_eq!(manager.networks(&place.labels()).await.unwrap().len(), 1, "one name, one network");

    let clash = NetworkSpec { name: place.name("clash"), subnet: Some(subnet.clone()), ..spec.clone() };
    let error = manager.create_network(&clash).await.unwrap_err();
    let holder = format!("{} ({subnet})", spec.name);
    assert!(
        matches!(&error, ContainerError::SubnetTaken { subnet: asked, holder: Some(found) } if *asked == subnet && *found == holder),
        "{error}"
    );
    assert_eq!(error.to_string(), format!("the subnet {subnet} overlaps the network {holder}"));
}

async fn volumes(manager: &dyn ContainerManager, place: &Place) {
    let name = place.name("data");
    manager.create_volume(&name, &place.labels()).await.unwrap();
    manager.create_volume(&name, &place.labels()).await.unwrap();
    let foreign = Labels::from([("orchestrator.test".to_owned(), "somebody-else".to_owned())]);
    let error = manager.create_volume(&name, &foreign).await.unwrap_err();
    assert!(exists(&error, "volume", &name), "{error}");
    let found = manager.volumes(&place.labels()).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((&found[0].name, &found[0].labels), (&name, &place.labels()));
}

async fn containers(manager: &dyn ContainerManager, place: &Place) {
    let mut spec = place.container("one");
    let mount =
        |volume: &str, path: &str| Mount { volume: volume.into(), path: path.into(), read_only: false };
    spec.mounts = vec![mount(&place.name("data"), "/data"), mount(&place.name("implied"), "/implied")];
    spec.labels.insert("part".into(), "one".into());
    let id = manager.create_container(&spec).await.unwrap();
    let made = manager.container(&id).await.unwrap().unwrap();
    assert_eq!((&made.id, &made.name, made.state), (&id, &spec.name, ContainerState::Created));
    assert!(spec.labels.iter().all(|(key, value)| made.labels.get(key) == Some(value)), "{made:?}");
    assert_eq!(
        manager.volumes(&spec.labels).await.unwrap().len(),
        1,
        "a volume made on the way has labels too"
    );

    let again = manager.create_container(&spec).await.unwrap_err();
    assert!(exists(&again, "container", &spec.name), "{again}");
    let without_image =
        ContainerSpec { name: place.name("x"), image: "no-such-image:never".into(), ..spec.clone() };
    let error = manager.create_container(&without_image).await.unwrap_err();
    assert!(is_not_found(&error, "image", "no-such-image:never"), "{error}");
    let alone = ContainerSpec { name: place.name("s"), systemd: true, ..spec.clone() };
    let error = manager.create_container(&alone).await.unwrap_err();
    assert!(matches!(error, ContainerError::Unsupported(_)), "{error}");

    manager.start(&id).await.unwrap();
    manager.start(&id).await.unwrap();
    let running = manager.container(&spec.name).await.unwrap().unwrap();
    assert_eq!(running.state, ContainerState::Running);
    assert!(running.addresses.contains_key(&spec.network), "{running:?}");
    assert_eq!(manager.containers(&spec.labels).await.unwrap(), [running]);

    manager.pause(&id).await.unwrap();
    manager.pause(&id).await.unwrap();
    assert_eq!(state(manager, &id).await, ContainerState::Paused);
    manager.unpause(&id).await.unwrap();
    manager.unpause(&id).await.unwrap();
    assert_eq!(state(manager, &id).await, ContainerState::Running);

    manager.kill(&id).await.unwrap();
    manager.kill(&id).await.unwrap();
    let killed = ContainerState::Exited { code: 137, out_of_memory: false };
    super::support::until("the container has ended", async || state(manager, &id).await == killed).await;
    let found = manager.containers(&spec.labels).await.unwrap();
    assert_eq!(found.iter().map(|container| container.state).collect::<Vec<_>>(), [killed]);

    manager.start(&id).await.unwrap();
    manager.stop(&id, 10).await.unwrap();
    manager.stop(&id, 10).await.unwrap();
    let stopped = ContainerState::Exited { code: 143, out_of_memory: false };
    assert_eq!(state(manager, &id).await, stopped, "SIGTERM ends it, long before the time is over");

    let in_use = manager.remove_volume(&place.name("data")).await.unwrap_err();
    assert!(matches!(in_use, ContainerError::Refused { .. }), "{in_use}");
    manager.start(&id).await.unwrap();
    let in_use = manager.remove_network(&spec.network).await.unwrap_err();
    assert!(matches!(in_use, ContainerError::Refused { .. }), "{in_use}");
    manager.remove_container(&id).await.unwrap();
    assert_eq!(manager.container(&id).await.unwrap(), None);
}

async fn state(manager: &dyn ContainerManager, id: &str) -> ContainerState {
    manager.container(id).await.unwrap().unwrap().state
}

async fn programs(manager: &dyn ContainerManager, place: &Place) {
    let id = started(manager, &place.container("two")).await;
    let program = |words: &[&str]| ExecSpec {
        command: words.iter().map(|word| (*word).into()).collect(),
        ..ExecSpec::default()
    };
    assert_eq!(run(manager, &id, &program(&["true"])).await.unwrap().code, Some(0));
    assert_eq!(run(manager, &id, &program(&["false"])).await.unwrap().code, Some(1));
    let ran = run(manager, &id, &program(&["echo", "hello there"])).await.unwrap();
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str(), ran.code), ("hello there\n", "", Some(0)));
    let usage = manager.usage(&id).await.unwrap();
    assert!(usage.memory_bytes.is_none_or(|bytes| bytes < 1 << 30), "{usage:?}");

    manager.kill(&id).await.unwrap();
    let error = run(manager, &id, &program(&["true"])).await.unwrap_err();
    assert!(matches!(error, ContainerError::Refused { .. }), "{error}");
}

async fn images(manager: &dyn ContainerManager, place: &Place) {
    let base = manager.image(&place.image).await.unwrap().unwrap();
    assert_eq!(manager.image(&base.id).await.unwrap().unwrap().id, base.id);
    let mut labels = place.labels();
    labels.insert("content".into(), "abc".into());
    let name = format!("{}:v1", place.name("image"));
    let made = manager.commit(&place.name("two"), &name, &labels).await.unwrap();
    let found = manager.image(&name).await.unwrap().unwrap();
    assert_eq!((&found.id, &found.names), (&made, &vec![name]));
    assert_eq!(manager.images(&labels).await.unwrap().len(), 1);

    let other = ContainerSpec { image: made.clone(), ..place.container("three") };
    let id = started(manager, &other).await;
    assert_eq!(manager.container(&id).await.unwrap().unwrap().image, made);
    let in_use = manager.remove_image(&made).await.unwrap_err();
    assert!(matches!(in_use, ContainerError::Refused { .. }), "{in_use}");
    manager.remove_container(&id).await.unwrap();
    manager.remove_image(&made).await.unwrap();
    assert_eq!(manager.image(&made).await.unwrap(), None);
}

/// What is not there: removing it is done, all else says so.
async fn absent(manager: &dyn ContainerManager, place: &Place) {
    let name = &place.name("nothing");
    manager.remove_container(name).await.unwrap();
    manager.remove_network(name).await.unwrap();
    manager.remove_volume(name).await.unwrap();
    manager.remove_image(name).await.unwrap();
    assert_eq!(manager.container(name).await.unwrap(), None);
    assert_eq!(manager.image(name).await.unwrap(), None);
    let errors = [
        manager.start(name).await.unwrap_err(),
        manager.stop(name, 1).await.unwrap_err(),
        manager.kill(name).await.unwrap_err(),
        manager.pause(name).await.unwrap_err(),
        manager.unpause(name).await.unwrap_err(),
        manager.usage(name).await.unwrap_err(),
        manager.copy_in(name, "/", Vec::new()).await.unwrap_err(),
        manager.commit(name, "orchestrator-never:made", &place.labels()).await.unwrap_err(),
        run(manager, name, &ExecSpec { command: vec!["true".into()], ..ExecSpec::default() })
            .await
            .unwrap_err(),
        collect(manager.logs(name, None, false).await.unwrap()).await.unwrap_err(),
    ];
    for error in errors {
        assert!(is_not_found(&error, "container", name), "{error}");
    }
    let lost = ContainerSpec { network: place.name("lost"), ..place.container("four") };
    let error = match manager.create_container(&lost).await {
        Ok(id) => manager.start(&id).await.unwrap_err(),
        Err(error) => error,
    };
    assert!(matches!(error, ContainerError::Refused { .. }), "{error}");
}
