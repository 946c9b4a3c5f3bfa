//! The engine in memory: it keeps the contract, and fails when it is told to.

use orchestrator_engine::containers::calls::Call;
use orchestrator_engine::containers::scripted::{Scripted, Strike, printed};
use orchestrator_engine::containers::{ContainerError, ContainerManager};
use orchestrator_protocol::event::OutputStream;

use super::suite;
use super::support::{Place, collect, started};

fn place() -> Place {
    Place { name: "memory".into(), image: "base:1".into() }
}

fn scripted() -> Scripted {
    let scripted = Scripted::new(|_, spec| match spec.command[0].as_str() {
        "echo" => printed(&format!("{}\n", spec.command[1]), 0),
        "false" => printed("", 1),
        _ => printed("", 0),
    });
    scripted.add_image("base:1");
    scripted
}

fn lost() -> ContainerError {
    ContainerError::Away { at: "memory".into(), reason: "the answer was lost".into() }
}

#[tokio::test]
async fn keeps_the_contract() {
    suite::whole(&scripted(), &place()).await;
}

#[tokio::test]
async fn a_call_fails_once_before_or_after_it_is_done() {
    let (scripted, place) = (scripted(), place());
    scripted.create_network(&place.network(None)).await.unwrap();
    let spec = place.container("one");
    scripted.fail(Call::CreateContainer, 2, Strike::Before, lost());
    scripted.fail(Call::CreateContainer, 3, Strike::After, lost());
    let other = place.container("other");
    scripted.create_container(&other).await.unwrap();
    assert!(matches!(scripted.create_container(&spec).await, Err(ContainerError::Away { .. })));
    assert_eq!(scripted.container(&spec.name).await.unwrap(), None);
    assert!(matches!(scripted.create_container(&spec).await, Err(ContainerError::Away { .. })));
    assert!(scripted.container(&spec.name).await.unwrap().is_some());
    assert!(matches!(scripted.create_container(&spec).await, Err(ContainerError::Exists { .. })));
    assert_eq!(scripted.calls().of(Call::CreateContainer), 4);
}

#[tokio::test]
async fn away_is_away_for_all_and_ends() {
    let (scripted, place) = (scripted(), place());
    scripted.set_away(true);
    assert!(matches!(scripted.daemon().await, Err(ContainerError::Away { .. })));
    assert!(matches!(scripted.create_network(&place.network(None)).await, Err(ContainerError::Away { .. })));
    scripted.set_away(false);
    assert_eq!(scripted.networks(&place.labels()).await.unwrap(), []);
}

#[tokio::test]
async fn a_container_prints_and_ends_by_itself() {
    let (scripted, place) = (scripted(), place());
    scripted.create_network(&place.network(None)).await.unwrap();
    let id = started(&scripted, &place.container("one")).await;
    scripted.print(&id, OutputStream::Stdout, "first\n");
    scripted.print(&id, OutputStream::Stderr, "last\n");
    scripted.end(&id, 9, true);
    let log = collect(scripted.logs(&id, Some(1), false).await.unwrap()).await.unwrap();
    assert_eq!((log.stdout.as_str(), log.stderr.as_str(), log.code), ("", "last\n", None));
    let ended = scripted.container(&id).await.unwrap().unwrap();
    assert_eq!(format!("{:?}", ended.state), "Exited { code: 9, out_of_memory: true }");
    scripted.copy_in(&id, "/etc", b"tar".to_vec()).await.unwrap();
    assert_eq!(scripted.uploads(&id), [("/etc".to_owned(), b"tar".to_vec())]);
    assert_eq!(scripted.spec(&id).unwrap(), place.container("one"));
}
