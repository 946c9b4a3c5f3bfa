//! Answers for the engine that is open now.
//!
//! The doors speak to this and not to an engine, so that they, and the connections of those who have come
//! through them, stay while an engine is opened again. What was asked before is answered first; what is asked
//! meanwhile waits, or is refused where it may take long.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt};
use orchestrator_protocol::event::Item;
use orchestrator_protocol::request::{Request, Response, StopMode, Stopping, Subscription};
use orchestrator_protocol::service::{Caller, Service};
use orchestrator_protocol::{Error, Result};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::warn;

use crate::service::EngineService;

/// What is told to whoever asks while the process is about to end.
const STOPPING: &str = "the engine is stopping";

/// Who answers.
#[derive(Clone)]
enum State {
    /// Nobody, for a moment: whoever asks waits.
    Paused,
    /// Nobody, and it may take long: why.
    Away(Arc<str>),
    /// An engine.
    Open(Arc<Behind>),
}

/// The engine that answers.
struct Behind {
    service: Arc<EngineService>,
    /// What it is answering.
    calls: TaskTracker,
    /// Fires when it answers no more.
    gone: CancellationToken,
}

/// Answers for the engine that is open now.
pub(super) struct Relay {
    state: watch::Sender<State>,
    /// How an engine is to stop that was asked while none answered, or that had no time for it.
    stop: watch::Sender<Option<StopMode>>,
    /// How many attempts were under way when the last engine left.
    left_running: AtomicU64,
}

impl Default for Relay {
    fn default() -> Self {
        let (state, stop) = (watch::Sender::new(State::Paused), watch::Sender::new(None));
        Self { state, stop, left_running: AtomicU64::new(0) }
    }
}

impl Relay {
    /// From here on this engine answers. It stops where somebody has asked for that.
    pub(super) fn open(&self, service: Arc<EngineService>) {
        let (calls, gone) = (TaskTracker::new(), CancellationToken::new());
        self.state.send_replace(State::Open(Arc::new(Behind { service, calls, gone })));
        self.hand_over();
    }

    /// Lets whoever asks wait, and returns when everything that was asked before has been answered.
    pub(super) async fn pause(&self, patience: Duration) {
        self.leave(State::Paused, patience).await;
    }

    /// Refuses whoever asks, and returns when everything that was asked before has been answered.
    pub(super) async fn refuse(&self, why: &str, patience: Duration) {
        self.leave(State::Away(why.into()), patience).await;
    }

    /// Keeps a request to stop until an engine answers, unless a newer one was kept already.
    pub(super) fn keep_older(&self, mode: StopMode) {
        if self.stop.borrow().is_none() {
            self.keep(mode);
        }
    }

    /// Keeps a request to stop until an engine answers. Where nothing runs nobody need be waited for.
    fn keep(&self, mode: StopMode) {
        let is_idle = self.left_running.load(Ordering::Relaxed) == 0;
        self.stop.send_replace(Some(if is_idle { StopMode::Now } else { mode }));
        // One may have been opened in between: whoever comes second here sees both.
        self.hand_over();
    }

    /// Gives the engine that answers the request to stop that was kept for it.
    fn hand_over(&self) {
        let state = self.state.borrow().clone();
        if let State::Open(behind) = state
            && let Some(mode) = self.stop.send_replace(None)
        {
            behind.service.begin_to_stop(mode);
        }
    }

    /// Waits until somebody asks, while nobody answers, for the end whatever runs.
    pub(super) async fn stop_now(&self) {
        // The sender lives as long as this does.
        let _ = self.stop.subscribe().wait_for(|stop| *stop == Some(StopMode::Now)).await;
    }

    async fn leave(&self, state: State, patience: Duration) {
        let State::Open(behind) = self.state.send_replace(state) else { return };
        self.left_running.store(behind.service.queue.running_count() as u64, Ordering::Relaxed);
        behind.gone.cancel();
        behind.calls.close();
        if tokio::time::timeout(patience, behind.calls.wait()).await.is_err() {
            warn!(calls = behind.calls.len(), "not everything that was asked can be answered in time");
        }
    }

    /// The engine that answers, once there is one. It waits for who holds the token.
    async fn behind(&self) -> Result<(Arc<Behind>, TaskTrackerToken)> {
        let mut state = self.state.subscribe();
        loop {
            let now = state.borrow_and_update().clone();
            match now {
                State::Open(behind) => {
                    let token = behind.calls.token();
                    // Taken before the look, so that whoever leaves sees it.
                    if !behind.gone.is_cancelled() {
                        return Ok((behind, token));
                    }
                }
                State::Away(why) => {
                    return Err(Error::unavailable(why.to_string())
                        .with_help("nothing was changed; the engine tries on by itself"));
                }
                State::Paused => {}
            }
            if state.changed().await.is_err() {
                return Err(Error::unavailable(STOPPING));
            }
        }
    }
}

#[async_trait]
impl Service for Relay {
    async fn call(&self, caller: &Caller, request: Request) -> Result<Response> {
        match (self.behind().await, request) {
            (Ok((behind, _token)), request) => behind.service.call(caller, request).await,
            // Only an engine can wait for what runs, or call it off: the next one does.
            (Err(_), Request::Stop(request)) => {
                self.keep(request.mode);
                Ok(Response::Stop(Stopping { running: self.left_running.load(Ordering::Relaxed) }))
            }
            (Err(error), _) => Err(error),
        }
    }

    async fn subscribe(
        &self,
        caller: &Caller,
        subscription: Subscription,
    ) -> Result<BoxStream<'static, Result<Item>>> {
        let (behind, _token) = self.behind().await?;
        // What is told of changes can be asked again from the start; lines cannot.
        let last = match subscription {
            Subscription::Watch { .. } | Subscription::Events(_) => {
                Ok(Item::Reset(behind.service.queue.listen().cursor()))
            }
            Subscription::Logs(_) | Subscription::EnvironmentLogs(_) => {
                Err(Error::unavailable("the engine was opened again").with_help("follow the output again"))
            }
        };
        let items = behind.service.subscribe(caller, subscription).await?;
        let gone = behind.gone.clone();
        let last = stream::once(async move { gone.is_cancelled().then_some(last) });
        let items = items.take_until(behind.gone.clone().cancelled_owned());
        Ok(items.chain(last.filter_map(std::future::ready)).boxed())
    }
}
