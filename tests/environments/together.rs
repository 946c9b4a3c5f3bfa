//! Several environments at once, and what else is on the daemon.

use std::collections::BTreeSet;

use orchestrator_protocol::environment::{
    CleanEnvironment, EnvironmentConfig, EnvironmentRequest, EnvironmentStatus, EnvironmentTask,
    NetworkConfig,
};
use orchestrator_protocol::task::TaskStatus;

use crate::world::*;

/// What a program prints on a node.
fn on(container: &str, command: &str) -> String {
    docker(&["exec", container, "sh", "-c", command]).unwrap().trim().to_owned()
}

/// Two copies of one topology have the same names, and each finds its own under them.
#[test]
fn two_copies_of_a_topology_know_nothing_of_each_other() {
    let Some((engine, image)) = world() else { return };
    let nodes = ["one", "two"];
    let asked: Vec<EnvironmentTask> = (0..2)
        .map(|_| engine.ask(EnvironmentRequest { auto_start: false, ..request(&engine, &image, &nodes) }))
        .collect();
    let ready: Vec<_> = asked.iter().map(|made| wait_for(&engine, *made, EnvironmentStatus::Ready)).collect();
    let subnets: BTreeSet<_> =
        ready.iter().map(|made| made.network.as_ref().unwrap().subnet.clone()).collect();
    assert_eq!(subnets.len(), 2, "{subnets:?}");
    for environment in &ready {
        let [one, two] = &environment.nodes[..] else { panic!("{environment:#?}") };
        let address = two.address.unwrap().to_string();
        let container = one.container.as_deref().unwrap();
        assert!(on(container, "getent ahostsv4 two").starts_with(&address));
    }
    let foreign = ready[1].nodes[1].address.unwrap();
    let reach = format!("timeout 1 bash -c 'exec 3<>/dev/tcp/{foreign}/80'; echo $?");
    assert_eq!(on(ready[0].nodes[0].container.as_deref().unwrap(), &reach), "124", "no way leads there");
    for made in asked {
        engine.wait(engine.ask(CleanEnvironment { id: made.environment }).task);
    }
    nothing_is_left(&engine);
}

#[test]
fn ten_environments_at_once_all_pass_and_leave_nothing() {
    let Some((engine, image)) = world() else { return };
    let asked: Vec<EnvironmentTask> =
        (0..10).map(|_| engine.ask(request(&engine, &image, &["one", "two"]))).collect();
    let mut subnets = BTreeSet::new();
    for made in asked {
        let workflow = engine.wait(made.task);
        assert_eq!(workflow.status, TaskStatus::Completed, "{workflow:#?}\n{}", engine.log());
        let create = tasks_of(&engine, made).remove("create clocks").unwrap();
        subnets.insert(create.result.unwrap()["subnet"].as_str().unwrap().to_owned());
        let gone = environment(&engine, made);
        assert_eq!(gone.status, EnvironmentStatus::Cleaned);
        assert!(gone.results.len() == 2 && gone.results.iter().all(|result| result.passed), "{gone:#?}");
    }
    assert!(subnets.len() > 1, "they ran beside each other: {subnets:?}");
    nothing_is_left(&engine);
}

/// A range that somebody else's network has is refused with that network's name, and stays whose it is.
#[test]
fn a_range_that_a_foreign_network_holds_is_named_with_its_holder() {
    let Some((engine, image)) = world() else { return };
    let network = format!("foreign-{}", std::process::id());
    docker(&["network", "create", "--subnet", "10.213.77.0/24", &network]).unwrap();
    let mut wanted = request(&engine, &image, &["one"]);
    if let EnvironmentConfig::ClusterTopology { topology, .. } = &mut wanted.config {
        topology.network =
            NetworkConfig { subnet: Some("10.213.77.0/25".into()), ..NetworkConfig::default() };
    }
    let made = engine.ask(wanted);
    let workflow = engine.wait(made.task);
    let create = tasks_of(&engine, made).remove("create clocks").unwrap();
    let is_there = docker(&["network", "rm", &network]).is_some();
    assert_eq!((workflow.status, create.attempt), (TaskStatus::Failed, 1), "no later attempt can be better");
    let error = environment(&engine, made).error.unwrap();
    assert!(error.contains("10.213.77.0/25") && error.contains(&network), "{error}");
    assert!(is_there, "the foreign network was touched");
    engine.wait(engine.ask(CleanEnvironment { id: made.environment }).task);
    nothing_is_left(&engine);
}
