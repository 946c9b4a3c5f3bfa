//! The engine's answers: the protocol's service trait, on top of the queue.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use futures::stream::{self, BoxStream, StreamExt};
use orchestrator_protocol::event::{Item, TaskEvent};
use orchestrator_protocol::frame;
use orchestrator_protocol::request::{
    Changed, EngineMember, EngineMode, EngineStatus, EventsRequest, ListTasks, MemberState, QueuePauses,
    Request, Response, StopMode, Stopping, StorageStatus, Subscription, TaskPage,
};
use orchestrator_protocol::service::{Caller, Service};
use orchestrator_protocol::task::{Task, TaskId, TaskStatus};
use orchestrator_protocol::{Error, Result};
use orchestrator_storage::{Count, Filter, Order, Query, StoreHealth, Table};
use tokio::sync::mpsc;

use crate::config::Config;
use crate::environments::TestEnvironments;
use crate::events::{Listener, NoEvent};
use crate::membership::{About, Membership};
use crate::queue::{Pauses, Queue};
use crate::storage::migrations::Migrations;
use crate::worker::Programs;
use crate::{doctor, logs, records};

/// How many tasks a page holds unless asked otherwise, and at most.
const DEFAULT_PAGE: usize = 100;
const MAX_PAGE: usize = 1_000;
/// How much of stored tasks a page holds, in bytes; but one task at least. Half of what a frame holds.
const MAX_PAGE_BYTES: usize = frame::MAX_FRAME_BYTES / 2;

/// What answers for the engine.
pub struct EngineService {
    /// The queue.
    pub queue: Arc<Queue>,
    /// The test environments.
    pub environments: Arc<TestEnvironments>,
    /// What moves the records.
    pub migrations: Arc<Migrations>,
    /// What the engine was told.
    pub config: Arc<Config>,
    /// The programs it runs.
    pub programs: Programs,
    /// When it started.
    pub started_at: DateTime<Utc>,
    /// What it says of itself to others.
    pub about: About,
    /// Its place among the engines of its store, where there may be several.
    pub membership: Option<Arc<Membership>>,
    /// Where whoever runs the engine hears that it is to stop.
    pub stop: mpsc::Sender<StopMode>,
    /// How many tasks there were when the storage was last asked.
    pub known_counts: Mutex<Vec<Count>>,
}

/// The name under which a caller's keys and changes are kept.
fn principal(caller: &Caller) -> &'static str {
    match caller {
        Caller::Local { .. } | Caller::LoopbackOwner => "owner",
    }
}

impl EngineService {
    /// Stops the engine. From here on nothing new is taken.
    pub(crate) fn begin_to_stop(&self, mode: StopMode) {
        self.queue.set_mode(match mode {
            StopMode::Now => EngineMode::Stopping,
            StopMode::Drain | StopMode::Cancel => EngineMode::Draining,
        });
        // Whoever is stopping already needs no second word.
        let _ = self.stop.try_send(mode);
    }
}

#[async_trait]
impl Service for EngineService {
    async fn call(&self, caller: &Caller, mut request: Request) -> Result<Response> {
        let principal = principal(caller);
        let asked = match caller {
            Caller::Local { .. } => None,
            Caller::LoopbackOwner => {
                let asked = request.clone();
                self.config.reach.confine(&mut request)?;
                Some(asked)
            }
        };
        Ok(match request {
            Request::Status(_) => Response::Status(Box::new(self.status().await?)),
            Request::Diagnose(_) => {
                Response::Diagnose(doctor::diagnose(&self.config, &self.programs, &self.queue).await)
            }
            Request::Submit(request) => Response::Submit(match asked {
                Some(Request::Submit(asked)) => {
                    self.queue.submit_resolved(principal, &asked, &request).await?
                }
                _ => self.queue.submit(principal, &request).await?,
            }),
            Request::Provision(request) => Response::Provision(match asked {
                Some(Request::Provision(asked)) => {
                    self.queue.provision_resolved(principal, &asked, &request).await?
                }
                _ => self.queue.provision(principal, &request).await?,
            }),
            Request::CreateEnvironment(request) => {
                Response::CreateEnvironment(self.environments.create(principal, &request).await?)
            }
            Request::RunEnvironment(request) => {
                Response::RunEnvironment(self.environments.run(&request).await?)
            }
            Request::CleanEnvironment(request) => {
                Response::CleanEnvironment(self.environments.clean(&request).await?)
            }
            Request::InjectFault(request) => {
                Response::InjectFault(Box::new(self.environments.inject(&request).await?))
            }
            Request::GetEnvironment(request) => {
                Response::GetEnvironment(Box::new(self.queue.environment(request.id).await?))
            }
            Request::ListEnvironments(request) => {
                Response::ListEnvironments(self.queue.environments(&request).await?)
            }
            Request::ListTopologies(request) => {
                Response::ListTopologies(self.environments.topologies(&request)?)
            }
            Request::PrunePrepared(_) => Response::PrunePrepared(self.environments.prune().await?),
            Request::GetTask(request) => Response::GetTask(Box::new(self.queue.task(request.id).await?)),
            Request::ListTasks(request) => Response::ListTasks(self.list(&request).await?),
            Request::Explain(request) => Response::Explain(self.queue.explain(request.id).await?),
            Request::Cancel(request) => {
                let reason = request.reason.as_deref().unwrap_or("cancelled on request");
                let others = match request.force {
                    true => self.queue.cancel_by_force(request.id, reason).await?,
                    false => self.queue.cancel(request.id, reason).await?,
                };
                Response::Cancel(self.changed(request.id, others).await?)
            }
            Request::Retry(request) => {
                let others = self.queue.retry(request.id).await?;
                Response::Retry(self.changed(request.id, others).await?)
            }
            Request::Pause(request) => {
                Response::Pause(pauses(self.queue.pause(request.group.as_deref(), true).await?))
            }
            Request::Resume(request) => {
                Response::Resume(pauses(self.queue.pause(request.group.as_deref(), false).await?))
            }
            Request::GetStorage(_) => Response::GetStorage(Box::new(self.migrations.report().await?)),
            Request::ValidateMigration(request) => {
                Response::ValidateMigration(Box::new(self.migrations.validate(&request.to).await?))
            }
            Request::StartMigration(request) => {
                Response::StartMigration(Box::new(self.migrations.start(&request.to).await?))
            }
            Request::ListMigrations(_) => Response::ListMigrations(self.migrations.list().await?),
            Request::GetMigration(request) => {
                Response::GetMigration(Box::new(self.migrations.get(request.id).await?))
            }
            Request::CancelMigration(request) => {
                Response::CancelMigration(Box::new(self.migrations.cancel(request.id).await?))
            }
            Request::Stop(request) => {
                self.begin_to_stop(request.mode);
                Response::Stop(Stopping { running: self.queue.running_count() as u64 })
            }
        })
    }

    async fn subscribe(
        &self,
        _caller: &Caller,
        subscription: Subscription,
    ) -> Result<BoxStream<'static, Result<Item>>> {
        match subscription {
            Subscription::Watch { ids } => watch(Arc::clone(&self.queue), ids).await,
            Subscription::Logs(request) => {
                logs::stream(Arc::clone(&self.queue), Arc::clone(&self.config), request).await
            }
            Subscription::EnvironmentLogs(request) => self.environments.logs(&request).await,
            Subscription::Events(request) => Ok(events(&self.queue, request)),
        }
    }
}

impl EngineService {
    async fn changed(&self, id: TaskId, others: Vec<TaskId>) -> Result<Changed> {
        Ok(Changed { task: Box::new(self.queue.task(id).await?), others })
    }

    async fn status(&self) -> Result<EngineStatus> {
        let health = self.queue.store().health().await;
        let counts = self.counts(&health).await?;
        let mut tasks: BTreeMap<TaskStatus, u64> = BTreeMap::new();
        let mut groups: BTreeMap<String, BTreeMap<TaskStatus, u64>> = BTreeMap::new();
        for count in counts {
            let Some(status) = count.status.as_deref().and_then(|status| status.parse().ok()) else {
                continue;
            };
            *tasks.entry(status).or_default() += count.records;
            let group = count.group.as_deref().unwrap_or_default().to_owned();
            *groups.entry(group).or_default().entry(status).or_default() += count.records;
        }
        let paused = self.queue.pauses();
        let mode = *self.queue.mode().borrow();
        Ok(EngineStatus {
            engine: self.queue.options().engine.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            started_at: self.started_at,
            data_dir: self.config.data_dir.to_string_lossy().into_owned(),
            socket: self.config.socket.to_string_lossy().into_owned(),
            http: self.config.http.map(|address| format!("http://{address}")),
            storage: StorageStatus {
                backend: health.backend.into(),
                location: health.location,
                writable: health.writable,
                reason: health.reason,
                free_bytes: health.free_bytes,
            },
            mode,
            paused: paused.all,
            paused_groups: paused.groups.into_iter().collect(),
            max_parallel: self.config.max_parallel,
            tasks,
            groups,
            engines: match self.engines().await {
                Err(_) if !health.writable => Vec::new(),
                engines => engines?,
            },
        })
    }

    /// How many tasks there are; while the storage is away, how many there were when it was last asked.
    async fn counts(&self, health: &StoreHealth) -> Result<Vec<Count>> {
        let counts = self.queue.store().counts(Table::Task).await;
        let mut known = self.known_counts.lock().unwrap_or_else(PoisonError::into_inner);
        match counts {
            Ok(counts) => *known = counts,
            Err(_) if !health.writable => {}
            Err(error) => return Err(records::storage_error(error)),
        }
        Ok(known.clone())
    }

    /// The engines of the store.
    async fn engines(&self) -> Result<Vec<EngineMember>> {
        let this = &self.queue.options().engine;
        let describe = |id: &String, about: &About, state, running| EngineMember {
            id: id.clone(),
            host: about.host.clone(),
            pid: about.pid,
            since: about.started_at,
            state,
            running,
            labels: about.labels.clone(),
            version: about.release.clone(),
            data_dir: about.data_dir.clone(),
            is_this: id == this,
        };
        let Some(membership) = &self.membership else {
            let running = self.queue.running_count() as u64;
            return Ok(vec![describe(this, &self.about, MemberState::Alive, running)]);
        };
        let running = self.queue.running_by_engine().await?;
        let members = membership.members().await?.into_iter();
        Ok(members
            .map(|(member, state)| {
                let running = running.get(&member.id).copied().unwrap_or_default();
                describe(&member.id, &member.about, state, running)
            })
            .collect())
    }

    async fn list(&self, request: &ListTasks) -> Result<TaskPage> {
        let limit = request.limit.unwrap_or(DEFAULT_PAGE);
        if limit == 0 || limit > MAX_PAGE {
            return Err(
                Error::invalid(format!("the limit is {limit}: use 1 to {MAX_PAGE}")).with_field("limit")
            );
        }
        if let Some(cursor) = &request.cursor {
            cursor.parse::<TaskId>().map_err(|_| {
                Error::invalid(format!(
                    "'{cursor}' is not a cursor: use the one that came with the page before"
                ))
                .with_field("cursor")
            })?;
        }
        let text = request.text.as_ref().map(|text| text.to_lowercase());
        let mut query = Query {
            table: Table::Task,
            filter: Filter {
                statuses: request.statuses.iter().map(|status| records::status_field(*status)).collect(),
                group: request.group.as_deref().map(Into::into),
                kind: request.kind.map(|kind| kind.as_str().into()),
                parent: request.parent.map(|parent| parent.to_string().into()),
                labels: request
                    .labels
                    .iter()
                    .map(|(name, value)| (name.as_str().into(), value.as_str().into()))
                    .collect(),
                created_from_ms: request.since.map(|time| time.timestamp_millis()),
                created_before_ms: request.until.map(|time| time.timestamp_millis()),
                ended_before_ms: None,
            },
            order: Order::NewestFirst,
            after: request.cursor.as_deref().map(Into::into),
            limit: limit + 1,
        };
        let (mut skip, mut bytes) = (request.offset, 0);
        let mut tasks: Vec<Task> = Vec::with_capacity(limit);
        loop {
            let page = self.queue.store().list(&query).await.map_err(records::storage_error)?;
            for record in &page.records {
                let mut task: Task = records::read(record)?;
                if text.as_ref().is_some_and(|text| !mentions(&task, text)) {
                    continue;
                }
                if skip > 0 {
                    skip -= 1;
                    continue;
                }
                bytes += record.body.get().len();
                if tasks.len() == limit || (bytes > MAX_PAGE_BYTES && !tasks.is_empty()) {
                    let cursor = tasks.last().map(|task| task.id.to_string());
                    return Ok(TaskPage { tasks, cursor });
                }
                self.queue.add_progress(&mut task);
                tasks.push(task);
            }
            match page.next {
                Some(next) => query.after = Some(next),
                None => return Ok(TaskPage { tasks, cursor: None }),
            }
        }
    }
}

fn mentions(task: &Task, text: &str) -> bool {
    let (command, args) = task.command_line();
    [Some(&task.name), Some(&command), task.error.as_ref(), task.last_error.as_ref()]
        .into_iter()
        .flatten()
        .chain(&args)
        .any(|field| field.to_lowercase().contains(text))
}

fn pauses(pauses: Pauses) -> QueuePauses {
    QueuePauses { all: pauses.all, groups: pauses.groups.into_iter().collect() }
}

/// The tasks now, and each again after every change, until all have ended.
async fn watch(queue: Arc<Queue>, ids: Vec<TaskId>) -> Result<BoxStream<'static, Result<Item>>> {
    let events = queue.listen();
    for id in &ids {
        queue.task(*id).await?;
    }
    let open: HashSet<TaskId> = ids.iter().copied().collect();
    let state = Watch { queue: Arc::downgrade(&queue), events, due: ids, open };
    Ok(stream::unfold(state, |mut state| async move { state.next().await.map(|item| (item, state)) }).boxed())
}

struct Watch {
    queue: Weak<Queue>,
    events: Listener,
    /// Tasks to be looked at.
    due: Vec<TaskId>,
    /// Tasks that have not ended, as far as was told.
    open: HashSet<TaskId>,
}

impl Watch {
    async fn next(&mut self) -> Option<Result<Item>> {
        loop {
            if let Some(id) = self.due.pop() {
                if !self.open.contains(&id) {
                    continue;
                }
                let task = match self.queue.upgrade()?.task(id).await {
                    Ok(task) => task,
                    Err(error) => return Some(Err(error)),
                };
                if task.status.is_final() {
                    self.open.remove(&id);
                }
                return Some(Ok(Item::Task(Box::new(task))));
            }
            if self.open.is_empty() {
                return None;
            }
            match self.events.next().await {
                Ok(event) if self.open.contains(&event.id) => self.due.push(event.id),
                Ok(_) => {}
                Err(NoEvent::Missed) => self.due = self.open.iter().copied().collect(),
                Err(NoEvent::Closed) => {
                    return Some(Err(Error::unavailable("the engine is stopping")));
                }
            }
        }
    }
}

/// Where the stream begins, then every change that passes the filters.
fn events(queue: &Queue, request: EventsRequest) -> BoxStream<'static, Result<Item>> {
    let log = queue.events();
    let (first, listener) = match request.since.as_ref().map(|cursor| log.listen_after(cursor)) {
        Some(None) => {
            let listener = log.listen();
            (Item::Reset(listener.cursor()), listener)
        }
        Some(Some(listener)) => (Item::Listening(listener.cursor()), listener),
        None => {
            let listener = log.listen();
            (Item::Listening(listener.cursor()), listener)
        }
    };
    let rest = stream::unfold((listener, request), |(mut listener, request)| async move {
        loop {
            match listener.next().await {
                Ok(event) if passes(&request, &event) => {
                    return Some((Item::Event(TaskEvent::clone(&event)), (listener, request)));
                }
                Ok(_) => {}
                Err(NoEvent::Missed) => {
                    return Some((Item::Reset(listener.cursor()), (listener, request)));
                }
                Err(NoEvent::Closed) => return None,
            }
        }
    });
    stream::iter([first]).chain(rest).map(Ok).boxed()
}

fn passes(request: &EventsRequest, event: &TaskEvent) -> bool {
    let EventsRequest { group, task, statuses, since: _ } = request;
    group.as_ref().is_none_or(|group| *group == event.group)
        && task.is_none_or(|task| task == event.id || Some(task) == event.parent)
        && (statuses.is_empty() || statuses.contains(&event.status))
}
