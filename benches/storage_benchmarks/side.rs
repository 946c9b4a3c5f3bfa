//! A store with so many tasks, and what is measured on it.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use orchestrator_benches::backend::{Backend, Counted, Home};
use orchestrator_benches::tasks::{self, Cycle, Sample};
use orchestrator_engine::queue::Queue;
use orchestrator_protocol::submit::NewTask;
use orchestrator_storage::{Key, Store};

/// How many records a page has.
pub const PAGE: usize = 100;
/// How many records are read one by one, in turn.
const KEYS: usize = 1_000;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Read one record.
    Get,
    /// Read the newest hundred records.
    Page,
    /// Write one new record.
    Commit,
    /// Submit, claim and finish a task.
    Cycle,
}

impl Action {
    /// All of them. Those that change something come last.
    pub const ALL: [Self; 4] = [Self::Get, Self::Page, Self::Commit, Self::Cycle];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Page => "page",
            Self::Commit => "commit",
            Self::Cycle => "cycle",
        }
    }

    /// How often it is done in one measurement.
    pub fn times(self) -> usize {
        match self {
            Self::Get => 200,
            Self::Page => 10,
            Self::Commit => 50,
            Self::Cycle => 20,
        }
    }
}

/// A store with so many tasks.
pub struct Side {
    store: Arc<Counted>,
    queue: Queue,
    task: NewTask,
    sample: Sample,
    keys: Vec<Key>,
    next_key: usize,
    /// Where all of it is: it goes last.
    _home: Home,
}

impl Side {
    /// A new one.
    pub async fn filled(backend: Backend, stored: usize) -> Self {
        let home = Home::fresh(backend);
        let store = home.open().await;
        let queue = tasks::queue_on(Arc::clone(&store) as _);
        let task = tasks::new_task(home.directory());
        tasks::fill(&queue, &task, stored).await;
        Self::on(home, store, queue, task).await
    }

    /// The one in a directory.
    pub async fn at(backend: Backend, directory: &Path) -> Self {
        let home = Home::at(backend, directory);
        let store = home.open().await;
        let queue = tasks::queue_on(Arc::clone(&store) as _);
        queue.recover().await.unwrap();
        let task = tasks::new_task(directory);
        Self::on(home, store, queue, task).await
    }

    async fn on(home: Home, store: Arc<Counted>, queue: Queue, task: NewTask) -> Self {
        let sample = Sample::of(&*store).await;
        let stored = tasks::all(&*store).await;
        let step = stored.len().div_ceil(KEYS);
        let keys: Vec<Key> = stored.into_iter().step_by(step).map(|record| record.key).collect();
        Self { store, queue, task, sample, keys, next_key: 0, _home: home }
    }

    /// The store, which counts its work.
    pub fn store(&self) -> &Arc<Counted> {
        &self.store
    }

    /// Does something once.
    pub async fn act(&mut self, action: Action) {
        match action {
            Action::Get => {
                // A stride without a common divisor, so that neighbours are not read one after the other.
                self.next_key = (self.next_key + 389) % self.keys.len();
                assert!(self.store.get(&self.keys[self.next_key]).await.unwrap().is_some());
            }
            Action::Page => {
                assert_eq!(tasks::page(&*self.store, PAGE, None).await.records.len(), PAGE);
            }
            Action::Commit => {
                self.store.commit(vec![self.sample.write()]).await.unwrap();
            }
            Action::Cycle => {
                Cycle::of(&self.queue, &self.task).await;
            }
        }
    }

    /// Takes a task through the queue; how long each part of it takes.
    pub async fn cycle(&self) -> Cycle {
        Cycle::of(&self.queue, &self.task).await
    }

    /// Does something so often and removes what that has written, so that as much is stored afterwards as
    /// before. How long it took without the removals.
    pub async fn repeat(&mut self, action: Action, times: u64) -> Duration {
        let mut taken = Duration::ZERO;
        for _ in 0..times {
            match action {
                Action::Get | Action::Page => {
                    let start = Instant::now();
                    self.act(action).await;
                    taken += start.elapsed();
                }
                Action::Commit => {
                    let write = self.sample.write();
                    let key = write.key.clone();
                    let start = Instant::now();
                    self.store.commit(vec![write]).await.unwrap();
                    taken += start.elapsed();
                    tasks::remove(&*self.store, &key).await;
                }
                Action::Cycle => {
                    let cycle = self.cycle().await;
                    taken += cycle.whole();
                    tasks::remove(&*self.store, &orchestrator_engine::records::task_key(cycle.id)).await;
                }
            }
        }
        taken
    }

    /// Closes the store and ends what holds it.
    pub async fn close(self) {
        self.store.close().await.unwrap();
    }
}
