//! Moving the records while work goes on.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use orchestrator_engine::queue::Queue;
use orchestrator_engine::queue::finish::Ending;
#[cfg(feature = "surrealdb")]
use orchestrator_protocol::submit::NewTask;
use orchestrator_protocol::submit::SubmitRequest;
use orchestrator_protocol::task::{AttemptOutcome, TaskId, TaskStatus};
use orchestrator_storage::chaos::{ChaosPlan, ChaosStore};
use orchestrator_storage::filesystem::faulty_disk::{Fault, FaultyDisk};
use orchestrator_storage::filesystem::{FilesystemOptions, FilesystemStore};
use orchestrator_storage::migration::live::SwitchingStore;
use orchestrator_storage::migration::state::{StorageState, read_state};
use orchestrator_storage::migration::{MigrationError, Phase, Steering, migrate};
use orchestrator_storage::{Changes, Expect, Key, Operation, Store, StoreError, Table};
use orchestrator_tests::queue::{queue_on, task};
use orchestrator_tests::shared::{SharedStore, until};
use tokio::task::JoinHandle;

use crate::stores::{
    Hooked, Mortal, Power, Say, activates, content, counted, fill, open, passing_error, plan, put,
};

/// Work on a queue until it is told to stop: several who submit, one who runs what was submitted. Each
/// failure is a panic.
pub struct Load {
    queue: Arc<Queue>,
    stop: Arc<AtomicBool>,
    submitted: Arc<AtomicUsize>,
    /// How long each submit has taken, since somebody asked last.
    took: Arc<Mutex<Vec<Duration>>>,
    /// Tasks that were there before.
    before: Vec<TaskId>,
    submitters: Vec<JoinHandle<Vec<TaskId>>>,
    runner: JoinHandle<Vec<TaskId>>,
    _scripts: tempfile::TempDir,
}

impl Load {
    pub fn on(store: Arc<dyn Store>) -> Self {
        Self::after(store, Vec::new(), Duration::ZERO)
    }

    /// Work on a queue that holds so many tasks already, at a pace that every storage keeps.
    #[cfg(feature = "surrealdb")]
    pub async fn begun(store: Arc<dyn Store>, tasks: usize) -> Self {
        let queue = queue_on(Arc::clone(&store), 0);
        let scripts = tempfile::tempdir().unwrap();
        let new = task(scripts.path(), "before", &[]);
        let mut ids = Vec::new();
        while ids.len() < tasks {
            let some = 500.min(tasks - ids.len());
            let tasks = (0..some).map(|n| NewTask { name: Some(n.to_string()), ..new.clone() }).collect();
            let request = SubmitRequest { tasks, workflow: None, idempotency_key: None };
            let submitted = queue.submit("test", &request).await.unwrap();
            ids.extend(submitted.tasks.iter().map(|task| task.id));
        }
        let load = Self::after(store, ids, Duration::from_millis(700));
        load.goes_on(20).await;
        load
    }

    fn after(store: Arc<dyn Store>, before: Vec<TaskId>, pause: Duration) -> Self {
        let queue = Arc::new(queue_on(store, 1_000));
        let scripts = tempfile::tempdir().unwrap();
        let (stop, submitted) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let took = Arc::new(Mutex::new(Vec::new()));
        let submitters = (0..4).map(|submitter| {
            let (queue, stop, submitted) = (Arc::clone(&queue), Arc::clone(&stop), Arc::clone(&submitted));
            let took = Arc::clone(&took);
            let new = task(scripts.path(), "work", &[]);
            tokio::spawn(async move {
                let mut ids = Vec::new();
                while !stop.load(Ordering::SeqCst) {
                    let request = SubmitRequest {
                        tasks: vec![new.clone()],
                        workflow: None,
                        idempotency_key: Some(format!("{submitter}-{}", ids.len())),
                    };
                    let started = Instant::now();
                    ids.push(queue.submit("test", &request).await.unwrap().id.unwrap());
                    took.lock().unwrap().push(started.elapsed());
                    submitted.fetch_add(1, Ordering::SeqCst);
                    if !pause.is_zero() {
                        tokio::time::sleep(pause).await;
                    }
                }
                ids
            })
        });
        let submitters: Vec<_> = submitters.collect();
        let runner = tokio::spawn({
            let (queue, stop) = (Arc::clone(&queue), Arc::clone(&stop));
            async move {
                let mut ended = Vec::new();
                while !stop.load(Ordering::SeqCst) {
                    let Some(next) = queue.next() else {
                        tokio::task::yield_now().await;
                        continue;
                    };
                    let claimed = queue.claim(next).await.unwrap().unwrap().task;
                    let ending = Ending::bare(AttemptOutcome::Succeeded, None);
                    queue.finish(claimed.id, claimed.fence, &ending).await.unwrap();
                    ended.push(claimed.id);
                }
                ended
            }
        });
        Self { queue, stop, submitted, took, before, submitters, runner, _scripts: scripts }
    }

    /// The median, the 99th percentile and the longest of what submits have taken since this was asked last.
    pub async fn latencies(&self) -> String {
        let mut took = std::mem::take(&mut *self.took.lock().unwrap());
        took.sort();
        let at = |share: f64| took.get((took.len() as f64 * share) as usize).copied().unwrap_or_default();
        let longest = took.last().copied().unwrap_or_default();
        format!("{:.1?} (99 %: {:.1?}, longest: {longest:.1?})", at(0.5), at(0.99))
    }

    /// Waits until so many more were submitted.
    pub async fn goes_on(&self, more: usize) {
        let goal = self.submitted.load(Ordering::SeqCst) + more;
        let reached = async {
            while self.submitted.load(Ordering::SeqCst) < goal {
                assert!(!self.runner.is_finished(), "what runs has failed");
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(orchestrator_tests::wait::PATIENCE, reached).await.unwrap();
    }

    /// Stops, and checks that a store holds what was acknowledged, all of it and once.
    pub async fn end(self, store: &dyn Store) {
        self.stop.store(true, Ordering::SeqCst);
        let mut submitted = self.before;
        for submitter in self.submitters {
            submitted.extend(submitter.await.unwrap());
        }
        let ended: HashSet<TaskId> = self.runner.await.unwrap().into_iter().collect();
        assert!(!ended.is_empty());
        for id in &submitted {
            let status = self.queue.task(*id).await.unwrap().status;
            let expected = if ended.contains(id) { TaskStatus::Completed } else { TaskStatus::Pending };
            assert_eq!(status, expected, "{id}");
        }
        let tasks = content(store).await.into_keys().filter(|key| key.table == Table::Task).count();
        assert_eq!(tasks, submitted.len(), "nothing is lost and nothing doubled");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn work_goes_on_and_nobody_notices() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Arc::new(SwitchingStore::new(open(from.path())));
    let load = Load::on(store.clone());
    load.goes_on(300).await;
    let calm = load.latencies().await;
    let newest = store.sequence().await.unwrap();
    let target = open(to.path());
    let steering = Arc::new(Steering::default());
    let report = store.migrate(target.clone(), plan("m", from.path(), to.path()), steering).await.unwrap();
    assert!(report.records >= 600, "tasks and keys: {}", report.records);
    println!("{} records, commits waited {:?}", report.records, report.waited);
    println!("a submit took {calm} before, {} meanwhile", load.latencies().await);
    // After the move sequences have grown, and what was before is forgotten.
    let now = store.sequence().await.unwrap();
    assert!(now > newest, "{now} {newest}");
    assert!(matches!(store.changes(newest, 10).await.unwrap(), Changes::Gone { .. }));
    load.goes_on(300).await;
    assert!(*store.watch().borrow() > now, "who watches is told");
    load.end(&*target).await;
    assert_eq!(store.health().await.location, to.path().join("queue.rkvs").display().to_string());
    assert_eq!(read_state(&*target).await.unwrap().state, StorageState::Active { epoch: 1 });
    // What was left is sealed, and holds what the target held at that moment.
    let left = open(from.path());
    assert!(matches!(read_state(&*left).await.unwrap().state, StorageState::Sealed { epoch: 1, .. }));
    assert_eq!(counted(&*left).await, report.records);
    // The sums are those of the records: a third store has them as well.
    let third = tempfile::tempdir().unwrap();
    let copy = open(third.path());
    let again = plan("n", to.path(), third.path());
    let quiet = migrate(&*target, &*copy, &again, &Steering::default()).await.unwrap();
    assert!(quiet.records > report.records);
    assert!(content(&*copy).await == content(&*target).await);
}

/// Many more changes come than the target takes: whoever commits is slowed down, and it comes to an end.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_slow_target_catches_up_with_those_who_commit_quickly() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Arc::new(SwitchingStore::new(open(from.path())));
    let load = Load::on(store.clone());
    load.goes_on(100).await;
    let target = open(to.path());
    let slow = ChaosPlan { delay: 1.0, max_delay: Duration::from_millis(10), ..ChaosPlan::calm(1) };
    let slow = Arc::new(ChaosStore::new(target.clone(), slow));
    let moved = store.migrate(slow, plan("m", from.path(), to.path()), Arc::default());
    let report = tokio::time::timeout(orchestrator_tests::wait::PATIENCE, moved).await.unwrap().unwrap();
    println!("{} records; a submit took {}", report.records, load.latencies().await);
    load.goes_on(20).await;
    load.end(&*target).await;
}

/// While the target takes what has changed, more commits come than the source remembers.
#[tokio::test(flavor = "multi_thread")]
async fn a_source_is_looked_at_before_it_forgets_what_has_changed() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (source, target) = (open(from.path()), open(to.path()));
    fill(&*source, 1).await;
    let store = Arc::new(SwitchingStore::new(Hooked::forgetful(source.clone(), 3)));
    let steering = Arc::new(Steering::default());
    let (progress, writes) = (steering.progress(), Arc::new(AtomicUsize::new(0)));
    let (others, made) = (source.clone(), writes.clone());
    let busy = Hooked::around(target.clone(), move |operations: &[Operation]| -> Say {
        let phase = progress.borrow().phase;
        let records = match (phase, made.load(Ordering::SeqCst)) {
            _ if operations.is_empty() => 0,
            // Enough for several pieces, and then a commit of others with each.
            (Phase::Copying, 0) => 3_000,
            (Phase::CatchingUp, 1..=8) => 100,
            _ => 0,
        };
        if records == 0 {
            return Box::pin(async { Ok(()) });
        }
        let (source, commit) = (others.clone(), made.fetch_add(1, Ordering::SeqCst));
        Box::pin(async move {
            let keys = (0..records).map(|n| Key::new(Table::Audit, format!("{commit}-{n:04}")));
            source.commit(keys.map(|key| put(&key, Expect::Absent, "1")).collect()).await.map(drop)
        })
    });
    let report = store.migrate(busy, plan("m", from.path(), to.path()), steering).await.unwrap();
    assert_eq!(writes.load(Ordering::SeqCst), 9, "so many came meanwhile");
    assert!(content(&*target).await == content(&*source).await);
    assert_eq!(counted(&*target).await, report.records);
}

/// However often it is looked at, a source may have forgotten: more has come at once than it remembers.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_source_has_forgotten_is_found_by_another_walk() {
    for moment in [Phase::Copying, Phase::Verifying, Phase::CatchingUp] {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (source, target) = (open(from.path()), open(to.path()));
        fill(&*source, 20).await;
        let view = SharedStore::new(&(source.clone() as Arc<dyn Store>));
        let store = Arc::new(SwitchingStore::new(view.clone()));
        let steering = Arc::new(Steering::default());
        let progress = steering.progress();
        let (others, has_begun, has_forgotten) =
            (source.clone(), AtomicBool::new(false), AtomicBool::new(false));
        let busy = Hooked::around(target.clone(), move |_: &[Operation]| -> Say {
            let phase = progress.borrow().phase;
            let mut keys = Vec::new();
            // So that there is something to catch up with.
            if phase == Phase::Copying && !has_begun.swap(true, Ordering::SeqCst) {
                keys.push("early");
            }
            if phase == moment && !has_forgotten.swap(true, Ordering::SeqCst) {
                keys.push("late");
                view.forget_changes();
            }
            let source = others.clone();
            Box::pin(async move {
                for key in keys {
                    source.commit(vec![put(&Key::new(Table::Audit, key), Expect::Absent, "1")]).await?;
                }
                Ok(())
            })
        });
        let moved = store.migrate(busy, plan("m", from.path(), to.path()), steering).await;
        let report = moved.unwrap_or_else(|error| panic!("{moment:?}: {error}"));
        let found = content(&*target).await;
        assert!(found.contains_key(&Key::new(Table::Audit, "late")), "{moment:?}");
        assert!(found == content(&*source).await, "{moment:?}");
        assert_eq!(found.len() as u64, report.records);
    }
}

/// The source is sealed, and then the target fails for a moment.
#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_fails_at_its_last_mark_is_tried_again() {
    for is_live in [true, false] {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (source, target) = (open(from.path()), open(to.path()));
        fill(&*source, 5).await;
        let tries = Arc::new(AtomicUsize::new(0));
        let counting = tries.clone();
        let failing = Hooked::around(target.clone(), move |operations: &[Operation]| -> Say {
            let fails = activates(operations) && counting.fetch_add(1, Ordering::SeqCst) < 3;
            Box::pin(async move { if fails { Err(passing_error()) } else { Ok(()) } })
        });
        let plan = plan("m", from.path(), to.path());
        let moved = if is_live {
            Arc::new(SwitchingStore::new(source.clone())).migrate(failing, plan, Arc::default()).await
        } else {
            migrate(&*source, &*failing, &plan, &Steering::default()).await
        };
        assert_eq!(moved.unwrap().warning, None);
        assert_eq!(tries.load(Ordering::SeqCst), 4);
        assert_eq!(read_state(&*target).await.unwrap().state, StorageState::Active { epoch: 1 });
    }
}

/// It fails for longer: that is told, work goes on there, and the mark follows.
#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_does_not_take_its_last_mark_gets_it_while_it_is_used() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (source, target) = (open(from.path()), open(to.path()));
    fill(&*source, 5).await;
    let is_failing = Arc::new(AtomicBool::new(true));
    let asked = is_failing.clone();
    let failing = Hooked::around(target.clone(), move |operations: &[Operation]| -> Say {
        let fails = activates(operations) && asked.load(Ordering::SeqCst);
        Box::pin(async move { if fails { Err(passing_error()) } else { Ok(()) } })
    });
    let store = Arc::new(SwitchingStore::new(source));
    let moved = store.migrate(failing, plan("m", from.path(), to.path()), Arc::default()).await;
    let warning = moved.unwrap().warning.unwrap();
    assert!(warning.contains("injected fault"), "{warning}");
    let state = async || read_state(&*target).await.unwrap().state;
    assert!(matches!(state().await, StorageState::Ready { .. }));
    let commit =
        async |id: &str| store.commit(vec![put(&Key::new(Table::Task, id), Expect::Absent, "1")]).await;
    commit("before").await.unwrap();
    is_failing.store(false, Ordering::SeqCst);
    until("the mark", async || (state().await == StorageState::Active { epoch: 1 }).then_some(())).await;
    commit("after").await.unwrap();
}

/// Two migrations to one store, as on a server: one is held up, the other comes to its end, and the first one
/// writes nothing more when it goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_migration_that_was_overtaken_changes_nothing() {
    for moment in [Phase::Copying, Phase::Verifying] {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (source, target) = (open(from.path()), open(to.path()));
        fill(&*source, 300).await;
        let expected = content(&*source).await;
        let view = SharedStore::new(&(target.clone() as Arc<dyn Store>));
        let steering = Arc::new(Steering::default());
        let (held_up, progress, has_come) = (view.clone(), steering.progress(), AtomicBool::new(false));
        let stalling = Hooked::around(view.clone(), move |_| -> Say {
            if progress.borrow().phase == moment && !has_come.swap(true, Ordering::SeqCst) {
                held_up.stall(true);
            }
            Box::pin(async { Ok(()) })
        });
        let first = tokio::spawn({
            let (source, plan) = (source.clone(), plan("first", from.path(), to.path()));
            async move { migrate(&*source, &*stalling, &plan, &steering).await }
        });
        view.stalled().await;
        let second = plan("second", from.path(), to.path());
        migrate(&*source, &*target, &second, &Steering::default()).await.unwrap();
        // An engine works there.
        let key = Key::new(Table::Task, "new");
        target.commit(vec![put(&key, Expect::Absent, "1")]).await.unwrap();
        view.stall(false);
        let overtaken = first.await.unwrap();
        assert!(matches!(overtaken, Err(MigrationError::TargetLost)), "{overtaken:?}");
        assert_eq!(read_state(&*target).await.unwrap().state, StorageState::Active { epoch: 1 });
        let mut found = content(&*target).await;
        assert!(found.remove(&key).is_some() && found == expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_target_that_fails_stops_the_migration_and_nothing_else() {
    let mut failed = 0;
    for seed in 0..12 {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (source, target) = (open(from.path()), open(to.path()));
        let store = Arc::new(SwitchingStore::new(source.clone()));
        fill(&*store, 100).await;
        let plans = [
            ChaosPlan { commit_error: 0.4, ..ChaosPlan::calm(seed) },
            ChaosPlan { full: 0.4, ..ChaosPlan::calm(seed) },
            ChaosPlan { outcome_unknown: 0.4, ..ChaosPlan::calm(seed) },
            ChaosPlan { read_error: 0.2, ..ChaosPlan::calm(seed) },
        ];
        let chaos = Arc::new(ChaosStore::new(target.clone(), plans[seed as usize % 4]));
        let writer = tokio::spawn({
            let store = store.clone();
            async move {
                for n in 0..20 {
                    let key = Key::new(Table::Audit, format!("{seed}-{n}"));
                    store.commit(vec![put(&key, Expect::Absent, "1")]).await.unwrap();
                }
            }
        });
        let moved = store.migrate(chaos, plan("m", from.path(), to.path()), Arc::default()).await;
        writer.await.unwrap();
        match moved {
            // It was lucky.
            Ok(_) => continue,
            Err(MigrationError::Target(_)) => failed += 1,
            Err(error) => panic!("seed {seed}: {error}"),
        }
        assert!(store.health().await.writable);
        assert_eq!(store.health().await.location, source.health().await.location);
        assert_eq!(read_state(&*source).await.unwrap().state, StorageState::Active { epoch: 0 });
        let state = read_state(&*target).await.unwrap().state;
        assert!(!matches!(state, StorageState::Active { epoch: 1 }), "{state:?}");
    }
    // Each makes at least four commits there, and many reads.
    assert!(failed >= 5, "{failed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_disk_that_fills_up_or_fails_stops_the_migration_and_the_next_one_goes_on_there() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Arc::new(SwitchingStore::new(open(from.path())));
    let load = Load::on(store.clone());
    load.goes_on(100).await;
    let disk = FaultyDisk::new(3);
    let options = FilesystemOptions { min_free_bytes: 0, ..FilesystemOptions::new(to.path()) };
    let target = Arc::new(FilesystemStore::open_on(options.clone(), Arc::new(disk.clone())).unwrap());
    disk.limit_free_bytes(Some(20_000));
    let moved = store.migrate(target.clone(), plan("m", from.path(), to.path()), Arc::default()).await;
    assert!(matches!(moved, Err(MigrationError::Target(StoreError::Full { .. }))), "{moved:?}");
    disk.limit_free_bytes(None);
    load.goes_on(20).await;
    disk.inject(Fault::Sync);
    let moved = store.migrate(target.clone(), plan("m", from.path(), to.path()), Arc::default()).await;
    assert!(matches!(moved, Err(MigrationError::Target(StoreError::Failed { .. }))), "{moved:?}");
    load.goes_on(20).await;
    let _ = target.close().await;
    drop(target);
    let target = Arc::new(FilesystemStore::open_on(options, Arc::new(disk)).unwrap());
    store.migrate(target.clone(), plan("m", from.path(), to.path()), Arc::default()).await.unwrap();
    load.goes_on(20).await;
    load.end(&*target).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_is_called_off_until_its_moment_of_change() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let source = open(from.path());
    let store = Arc::new(SwitchingStore::new(source.clone()));
    fill(&*store, 50).await;
    let steering = Arc::new(Steering::default());
    steering.cancel();
    let moved = store.migrate(open(to.path()), plan("m", from.path(), to.path()), steering).await;
    assert!(matches!(moved, Err(MigrationError::Cancelled)), "{moved:?}");
    assert_eq!(read_state(&*source).await.unwrap().state, StorageState::Active { epoch: 0 });
    let key = Key::new(Table::Task, "after");
    store.commit(vec![put(&key, Expect::Absent, "1")]).await.unwrap();
}

/// A source whose seal fails: whatever is certain is said, and what is not stops all commits.
#[tokio::test(flavor = "multi_thread")]
async fn a_source_of_which_nobody_knows_whether_it_is_sealed_takes_no_commits() {
    for made in [false, true] {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let source = open(from.path());
        fill(&*source, 3).await;
        // Of the source's commits the first names it, and the seal is the second.
        let mortal = Mortal { inner: source.clone(), power: Power::for_commits(1, made) };
        let store = Arc::new(SwitchingStore::new(Arc::new(mortal)));
        let moved = store.migrate(open(to.path()), plan("m", from.path(), to.path()), Arc::default()).await;
        assert!(matches!(moved, Err(MigrationError::Unknown(_))), "{moved:?}");
        let key = Key::new(Table::Task, "after");
        let refused = store.commit(vec![put(&key, Expect::Absent, "1")]).await;
        assert!(matches!(refused, Err(StoreError::Failed { .. })), "{refused:?}");
        assert!(!store.health().await.writable);
        let sealed = matches!(read_state(&*source).await.unwrap().state, StorageState::Sealed { .. });
        assert_eq!(sealed, made, "the storage itself knows");
    }
}

/// Two engines on one store, as on a server: what one has moved the other cannot write to any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_guarded_store_takes_no_commits_of_others_after_the_move() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let shared = open(from.path());
    let engine = async || {
        let power = Power::for_commits(i64::MAX, true);
        let own: Arc<dyn Store> = Arc::new(Mortal { inner: shared.clone(), power });
        Arc::new(SwitchingStore::guarded(own).await.unwrap())
    };
    let (one, other) = (engine().await, engine().await);
    let key = |id: &str| Key::new(Table::Task, id);
    let commit = one.commit(vec![put(&key("a"), Expect::Absent, "1")]).await.unwrap();
    assert_eq!(commit.revisions, [1], "the guard does not show");
    other.commit(vec![put(&key("b"), Expect::Absent, "1")]).await.unwrap();
    let target = open(to.path());
    one.migrate(target.clone(), plan("m", from.path(), to.path()), Arc::default()).await.unwrap();
    // However often it tries.
    for _ in 0..3 {
        let refused = other.commit(vec![put(&key("c"), Expect::Absent, "1")]).await;
        assert!(matches!(refused, Err(StoreError::Failed { .. })), "{refused:?}");
    }
    assert!(!other.health().await.writable);
    assert!(shared.get(&key("c")).await.unwrap().is_none());
    one.commit(vec![put(&key("c"), Expect::Absent, "1")]).await.unwrap();
    assert!(target.get(&key("c")).await.unwrap().is_some());
}
