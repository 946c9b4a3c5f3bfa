//! The conformance suite, on the backend as it is and in every wrapping.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use orchestrator_storage::chaos::{ChaosPlan, ChaosStore};
use orchestrator_storage::conformance::{Harness, run_all};
use orchestrator_storage::filesystem::faulty_disk::FaultyDisk;
use orchestrator_storage::filesystem::{FilesystemOptions, FilesystemStore};
use orchestrator_storage::migration::live::SwitchingStore;
use orchestrator_storage::{Operation, Store, StoreError};

use super::support::{create, eager, open, task};

type Open = Box<dyn Fn(PathBuf) -> Arc<dyn Store> + Send + Sync>;

struct Directory {
    directory: tempfile::TempDir,
    open: Open,
}

#[async_trait::async_trait]
impl Harness for Directory {
    async fn open(&self) -> Arc<dyn Store> {
        (self.open)(self.directory.path().to_owned())
    }
}

fn harness(open: impl Fn(PathBuf) -> Arc<dyn Store> + Send + Sync + 'static) -> Arc<dyn Harness> {
    Arc::new(Directory { directory: tempfile::tempdir().unwrap(), open: Box::new(open) })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_backend_keeps_the_contract() {
    run_all(|| harness(|path| Arc::new(open(&path)))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_backend_keeps_the_contract_under_constant_checkpoints() {
    run_all(|| harness(|path| Arc::new(FilesystemStore::open(eager(&path)).unwrap()))).await;
}

#[tokio::test]
async fn the_backend_keeps_the_contract_on_one_thread_and_a_stand_in_disk() {
    run_all(|| {
        let disk = FaultyDisk::new(0);
        harness(move |path| {
            let options = FilesystemOptions::new(path);
            Arc::new(FilesystemStore::open_on(options, Arc::new(disk.clone())).unwrap())
        })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_wrapper_keeps_the_contract_while_it_only_delays() {
    let plan = ChaosPlan { delay: 0.2, max_delay: Duration::from_micros(300), ..ChaosPlan::calm(7) };
    run_all(|| harness(move |path| Arc::new(ChaosStore::new(Arc::new(open(&path)), plan)))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_can_be_moved_while_it_is_used_keeps_the_contract() {
    run_all(|| harness(|path| Arc::new(SwitchingStore::new(Arc::new(open(&path)))))).await;
}

fn word(result: &Result<impl Sized, StoreError>) -> &'static str {
    match result {
        Ok(_) => "ok",
        Err(StoreError::Io { .. }) => "io",
        Err(StoreError::Full { .. }) => "full",
        Err(StoreError::Failed { .. }) => "failed",
        Err(_) => "other",
    }
}

/// Runs some commits and reads through chaos; says what each answered and what was really done.
async fn chaotic(seed: u64) -> Vec<(&'static str, bool)> {
    let directory = tempfile::tempdir().unwrap();
    let plan = ChaosPlan {
        read_error: 0.3,
        commit_error: 0.1,
        full: 0.1,
        outcome_unknown: 0.2,
        ..ChaosPlan::calm(seed)
    };
    let store = ChaosStore::new(Arc::new(open(directory.path())), plan);
    let mut trace = Vec::new();
    for n in 0..60 {
        let id = n.to_string();
        let commit: Vec<Operation> = vec![create(&id, "1")];
        let answer = word(&store.commit(commit).await);
        let made = store.inner().get(&task(&id)).await.unwrap().is_some();
        trace.push((answer, made));
        if answer == "failed" {
            assert!(!store.health().await.writable);
            assert_eq!(word(&store.commit(vec![create("later", "1")]).await), "failed");
            store.reopen();
            assert!(store.health().await.writable);
        }
        trace.push((word(&store.get(&task(&id)).await), made));
    }
    trace
}

#[tokio::test]
async fn chaos_is_seeded_and_never_lies_about_what_is_certain() {
    let traces = [chaotic(1).await, chaotic(1).await, chaotic(2).await];
    assert_eq!(traces[0], traces[1]);
    assert_ne!(traces[0], traces[2]);
    let commits: Vec<_> = traces[0].iter().step_by(2).copied().collect();
    for (answer, made) in &commits {
        match *answer {
            "ok" => assert!(made),
            "io" | "full" => assert!(!made),
            "failed" => {}
            other => panic!("a commit answered {other}"),
        }
    }
    for expected in [("ok", true), ("io", false), ("full", false), ("failed", true), ("failed", false)] {
        assert!(commits.contains(&expected), "{expected:?} never happened");
    }
    assert!(traces[0].iter().skip(1).step_by(2).any(|(answer, _)| *answer == "io"));
}
