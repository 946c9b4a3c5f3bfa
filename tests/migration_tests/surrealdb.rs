//! Between all kinds of storage, in all directions: at rest, under load, and with a process that ends in
//! the middle.

use std::path::Path;
use std::sync::Arc;

use orchestrator_protocol::request::{EngineMode, GetStatus, StopEngine, StopMode};
use orchestrator_protocol::storage::{StartMigration, StorageTarget};
use orchestrator_protocol::task::TaskStatus;
use orchestrator_storage::migration::live::SwitchingStore;
use orchestrator_storage::migration::state::{Place, StorageState, read_state};
use orchestrator_storage::migration::{Plan, Steering, migrate, settle_target};
use orchestrator_storage::surrealdb::{EmbeddedOptions, ServerOptions, SurrealStore};
use orchestrator_storage::{Expect, Key, Store, StoreError, Table};
use orchestrator_tests::engine::TestEngine;
use orchestrator_tests::gate::{GATED, gated, has_begun, open_gate};
use orchestrator_tests::surrealdb::SurrealServer;
use orchestrator_tests::wait;
use tempfile::TempDir;

use crate::killed::killed_again_and_again;
use crate::live::Load;
use crate::stores::{Mortal, Power, content, counted, fill, open, put};

/// One storage, which can be opened again and again.
enum End {
    Filesystem(TempDir),
    Embedded(TempDir),
    Server(ServerOptions),
}

impl End {
    async fn open(&self) -> Arc<dyn Store> {
        match self {
            Self::Filesystem(directory) => open(directory.path()),
            Self::Embedded(directory) => {
                Arc::new(SurrealStore::open_embedded(EmbeddedOptions::new(directory.path())).await.unwrap())
            }
            Self::Server(options) => Arc::new(SurrealStore::open_server(options.clone()).await.unwrap()),
        }
    }

    fn place(&self) -> Place {
        let at = |directory: &Path| directory.display().to_string();
        let (backend, location) = match self {
            Self::Filesystem(directory) => ("filesystem", at(directory.path())),
            Self::Embedded(directory) => ("surrealdb-embedded", at(directory.path())),
            Self::Server(options) => {
                ("surrealdb-server", format!("{}/{}/{}", options.url, options.namespace, options.database))
            }
        };
        Place { backend: backend.into(), location }
    }
}

/// Makes an empty storage of a kind.
type Make<'s> = Box<dyn Fn() -> End + 's>;

/// Every kind.
fn kinds(server: &SurrealServer) -> [Make<'_>; 3] {
    [
        Box::new(|| End::Filesystem(tempfile::tempdir().unwrap())),
        Box::new(|| End::Embedded(tempfile::tempdir().unwrap())),
        Box::new(|| End::Server(server.database("ws"))),
    ]
}

fn server() -> SurrealServer {
    SurrealServer::start(env!("CARGO_BIN_EXE_surrealdb-server-for-tests"), true)
}

fn plan(id: &str, from: &End, to: &End) -> Plan {
    Plan { migration: id.into(), from: from.place(), to: to.place() }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_the_same_wherever_they_go() {
    let server = server();
    for from in kinds(&server) {
        for to in kinds(&server) {
            let (from, to) = (from(), to());
            let way = format!("from {} to {}", from.place(), to.place());
            let source = from.open().await;
            fill(&*source, 5).await;
            let before = content(&*source).await;
            let target = to.open().await;
            let report = migrate(&*source, &*target, &plan("m", &from, &to), &Steering::default()).await;
            let report = report.unwrap_or_else(|error| panic!("{way}: {error}"));
            assert_eq!((report.records, report.epoch), (before.len() as u64, 1), "{way}");
            source.close().await.unwrap();
            target.close().await.unwrap();
            drop((source, target));
            // Over a restart of both.
            let (source, target) = (from.open().await, to.open().await);
            assert!(content(&*target).await == before, "{way}");
            assert_eq!(counted(&*target).await, before.len() as u64, "{way}");
            assert_eq!(read_state(&*target).await.unwrap().state, StorageState::Active { epoch: 1 });
            let sealed = StorageState::Sealed {
                migration: "m".into(),
                epoch: 1,
                to: to.place(),
                target: Some("m/target".into()),
            };
            assert_eq!(read_state(&*source).await.unwrap().state, sealed, "{way}");
            // Revisions go on where they were.
            let key = Key::new(Table::Task, "00002 \"é\"\n");
            let stale = target.commit(vec![put(&key, Expect::Revision(2), "0")]).await;
            assert!(matches!(stale, Err(StoreError::Conflict { .. })), "{way}: {stale:?}");
            let next = target.commit(vec![put(&key, Expect::Revision(3), "0")]).await.unwrap();
            assert_eq!(next.revisions, [4], "{way}");
            // And back.
            let back = migrate(&*target, &*source, &plan("n", &to, &from), &Steering::default()).await;
            assert_eq!(back.unwrap_or_else(|error| panic!("{way} and back: {error}")).epoch, 2);
            assert!(content(&*source).await == content(&*target).await, "{way} and back");
            source.close().await.unwrap();
            target.close().await.unwrap();
        }
    }
}

/// How many tasks are there before, where somebody asks for a number. Then all ways are gone; else six of the nine:
/// the others are those of a running engine (`rest moved`).
fn asked() -> Option<usize> {
    let asked = std::env::var("ORCHESTRATOR_MIGRATION_TASKS").ok()?;
    Some(asked.parse().unwrap_or_else(|_| panic!("'{asked}' is no number of tasks")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn work_goes_on_whatever_the_records_move_from_and_to() {
    let server = server();
    for (n, from) in kinds(&server).into_iter().enumerate() {
        for (m, to) in kinds(&server).into_iter().enumerate() {
            if asked().is_none() && m == (n + 2) % 3 {
                continue;
            }
            let (from, to) = (from(), to());
            let way = format!("from {} to {}", from.place(), to.place());
            let store = Arc::new(SwitchingStore::new(from.open().await));
            let load = Load::begun(store.clone(), asked().unwrap_or(60)).await;
            let calm = load.latencies().await;
            let target = to.open().await;
            let started = std::time::Instant::now();
            let steering = Arc::default();
            let report = store.migrate(target.clone(), plan("m", &from, &to), steering).await;
            let report = report.unwrap_or_else(|error| panic!("{way}: {error}"));
            let took = started.elapsed();
            println!(
                "{way}: {} records in {took:.1?}, the gate was closed for {:.1?}; a submit took {calm} before, \
                 {} meanwhile",
                report.records,
                report.waited,
                load.latencies().await,
            );
            load.goes_on(20).await;
            load.end(&*target).await;
            let left = from.open().await;
            assert!(matches!(read_state(&*left).await.unwrap().state, StorageState::Sealed { .. }), "{way}");
            assert_eq!(counted(&*left).await, report.records, "{way}");
            left.close().await.unwrap();
            store.close().await.unwrap();
        }
    }
}

/// A process that ends at a commit of a migration, made or not.
async fn move_with(commits: i64, made: bool, from: &End, to: &End) -> bool {
    let (source, target) = (from.open().await, to.open().await);
    let power = Power::for_commits(commits, made);
    let mortal = |inner: &Arc<dyn Store>| -> Arc<dyn Store> {
        Arc::new(Mortal { inner: Arc::clone(inner), power: Arc::clone(&power) })
    };
    let store = Arc::new(SwitchingStore::new(mortal(&source)));
    // Whatever came of it, the storages tell.
    let _ = store.migrate(mortal(&target), plan("m", from, to), Arc::default()).await;
    drop(store);
    source.close().await.unwrap();
    target.close().await.unwrap();
    !power.is_out()
}

/// After the source's name: the mark, the records, the mark, the seal, the last mark; and nothing that ends.
const POINTS: i64 = 6;

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_ends_anywhere_leaves_one_truth_of_whatever_kind() {
    let server = server();
    let (mut stayed, mut moved, mut round) = (0, 0, 0);
    for from in kinds(&server) {
        for to in kinds(&server) {
            // Of each way two points, so that over all ways each point comes three times.
            for _ in 0..2 {
                let (from, to) = (from(), to());
                let (commits, made) = (1 + round % POINTS, round % 4 < 2);
                round += 1;
                let way = format!("from {} to {}, {commits} commits, {made}", from.place(), to.place());
                let source = from.open().await;
                fill(&*source, 2).await;
                let expected = content(&*source).await;
                source.close().await.unwrap();
                drop(source);
                let lasted = move_with(commits, made, &from, &to).await;
                let (source, target) = (from.open().await, to.open().await);
                let is_sealed =
                    matches!(read_state(&*source).await.unwrap().state, StorageState::Sealed { .. });
                if is_sealed {
                    moved += 1;
                    assert!(settle_target(&*target, "m", 1).await.unwrap(), "{way}");
                    assert!(content(&*target).await == expected, "{way}");
                } else {
                    stayed += 1;
                    assert!(!lasted && !settled(&*target).await, "{way}");
                    assert!(content(&*source).await == expected, "{way}");
                }
                source.close().await.unwrap();
                target.close().await.unwrap();
            }
        }
    }
    assert!(stayed >= 6 && moved >= 6, "{stayed} {moved}");
}

/// Whether a target may pass for the truth: it holds records, and says so.
async fn settled(target: &dyn Store) -> bool {
    let is_active = matches!(read_state(target).await.unwrap().state, StorageState::Active { .. });
    is_active && counted(target).await > 0
}

#[test]
fn a_killed_engine_leaves_one_truth_wherever_its_records_go() {
    let server = server();
    killed_again_and_again(100, |engine, round| {
        let dir = || Some(engine.directory().join(format!("to-{round}")).to_str().unwrap().to_owned());
        let there =
            |storage_type: &str| StorageTarget { storage_type: storage_type.into(), ..Default::default() };
        let server = |scheme: &str| {
            let ServerOptions { url, namespace, .. } = server.database(scheme);
            let (url, namespace) = (Some(url), Some(namespace));
            StorageTarget { url, namespace, ..there("surrealdb-server") }
        };
        // Each way between two kinds comes once.
        match round % 9 {
            0 | 5 => server("ws"),
            6 => server("http"),
            1 | 2 | 4 => StorageTarget { dir: dir(), ..there("surrealdb-embedded") },
            _ => StorageTarget { dir: dir(), ..there("filesystem") },
        }
    });
}

#[test]
fn an_engine_that_finishes_what_runs_takes_a_seat_where_its_records_have_moved() {
    let server = server();
    let mut engine = TestEngine::started(env!("CARGO_BIN_EXE_orchestrator-under-test"));
    let script = engine.script("script", GATED);
    let running = engine.submit(gated(&engine, &script, "running"));
    wait::until("the script", || has_begun(&engine, "running").then_some(()));
    engine.ask(StopEngine { mode: StopMode::Drain });
    let ServerOptions { url, namespace, database, .. } = server.database("ws");
    let to = StorageTarget {
        storage_type: "surrealdb-server".into(),
        url: Some(url),
        namespace: Some(namespace),
        database: Some(database),
        ..StorageTarget::default()
    };
    engine.ask(StartMigration { to });
    let status = wait::until("the engine's seat", || {
        let status = engine.ask(GetStatus {});
        status.engines.iter().any(|engine| engine.is_this).then_some(status)
    });
    assert_eq!(status.mode, EngineMode::Draining, "the word holds where it goes on");
    assert_eq!(engine.task(running).status, TaskStatus::Running);
    open_gate(&engine);
    assert!(engine.wait_ended().success());
}
