//! What every endpoint has at hand: the service and how it is asked, the limits, and places.
//!
//! There are two kinds of places. A request that is answered at once takes a short one. One that waits
//! for the end of a task, or follows a stream, gives that back and takes a long one, of which there is
//! another number: however many wait, whoever asks a short question is answered.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt;
use futures::stream::BoxStream;
use orchestrator_protocol::event::Item;
use orchestrator_protocol::request::{Call, Subscription};
use orchestrator_protocol::service::{Caller, Service};
use orchestrator_protocol::{Error, Result as ServiceResult};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::envelope::ApiError;
use crate::guard::Names;
use crate::limits::Limits;

/// What every endpoint has at hand. Cheap to clone.
#[derive(Clone)]
pub struct AppState {
    shared: Arc<Shared>,
}

struct Shared {
    service: Arc<dyn Service>,
    /// Under which names requests may ask.
    names: Names,
    limits: Limits,
    /// Places for requests that are under way.
    places: Arc<Semaphore>,
    /// Places for requests that wait or follow a stream.
    waits: Arc<Semaphore>,
    /// Places for changes that are being made. A change whose client is gone keeps its own, while the
    /// request has given its place back; so there are as many as of both others.
    changes: Arc<Semaphore>,
    ending: Ending,
}

/// How the end of the front door reaches what is under way.
#[derive(Debug, Clone, Default)]
pub struct Ending {
    /// Nobody waits any longer, and streams end.
    pub closing: CancellationToken,
    /// Everything ends at once.
    pub cut: CancellationToken,
    /// Changes that are being made, also those whose clients are gone.
    pub changes: TaskTracker,
}

impl AppState {
    /// The state around a service that is reached at `address`.
    pub fn new(service: Arc<dyn Service>, address: SocketAddr, limits: Limits) -> Self {
        Self {
            shared: Arc::new(Shared {
                service,
                names: Names::of(address),
                places: Arc::new(Semaphore::new(limits.requests)),
                waits: Arc::new(Semaphore::new(limits.waits)),
                changes: Arc::new(Semaphore::new(limits.requests + limits.waits)),
                limits,
                ending: Ending::default(),
            }),
        }
    }

    /// How this front door ends.
    pub fn ending(&self) -> &Ending {
        &self.shared.ending
    }

    pub(crate) fn names(&self) -> &Names {
        &self.shared.names
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.shared.limits
    }

    /// A place for a request that has just come.
    pub(crate) fn take_place(&self) -> Result<Place, ApiError> {
        let place = Arc::clone(&self.shared.places)
            .try_acquire_owned()
            .map_err(|_| ApiError::unavailable("too many requests are under way"))?;
        Ok(Place(Arc::new(Mutex::new(Some(place)))))
    }

    /// Asks a question that the engine answers without waiting for anybody, on behalf of whoever the
    /// guard let in. When the client goes away the question is given up.
    pub(crate) async fn ask<C: Call>(&self, call: C) -> Result<C::Reply, ApiError> {
        let answer = self.shared.service.call(&Caller::LoopbackOwner, call.into());
        match tokio::time::timeout(self.shared.limits.answer, answer).await {
            Ok(response) => C::reply(response?).map_err(|error| ApiError::internal(error.to_string())),
            Err(_) => Err(ApiError::unavailable("the engine took too long to answer")),
        }
    }

    /// Asks for a change. It is made to its end, also when the client goes away in the middle of it.
    pub(crate) async fn change<C: Call>(&self, call: C) -> Result<C::Reply, ApiError> {
        match tokio::time::timeout(self.shared.limits.answer, self.make(call)).await {
            Ok(answer) => answer,
            Err(_) => Err(ApiError::unavailable("the engine took too long to answer; it may still do it")
                .with_detail(
                    "help",
                    "look what became of it, or submit with an idempotency key, which makes it safe to ask again",
                )
                .of_what_may_be_done()),
        }
    }

    /// Asks for a change that may take long, from a place for that. It is waited for until the engine
    /// stops.
    pub(crate) async fn change_slowly<C: Call>(
        &self,
        _place: &LongPlace,
        call: C,
    ) -> Result<C::Reply, ApiError> {
        tokio::select! {
            answer = self.make(call) => answer,
            () = self.shared.ending.closing.cancelled() => Err(stopping().into()),
        }
    }

    /// Makes a change, and goes on with it also when nobody waits for it any longer.
    async fn make<C: Call>(&self, call: C) -> Result<C::Reply, ApiError> {
        let place = Arc::clone(&self.shared.changes)
            .try_acquire_owned()
            .map_err(|_| ApiError::unavailable("too many requests are under way"))?;
        let (service, cut) = (Arc::clone(&self.shared.service), self.shared.ending.cut.clone());
        let request = call.into();
        let change = self.shared.ending.changes.spawn(async move {
            let _place = place;
            tokio::select! {
                answer = service.call(&Caller::LoopbackOwner, request) => answer,
                () = cut.cancelled() => Err(stopping()),
            }
        });
        match change.await {
            Ok(response) => C::reply(response?).map_err(|error| ApiError::internal(error.to_string())),
            Err(error) => Err(ApiError::internal(format!("a change was not made to its end: {error}"))),
        }
    }

    /// Begins a stream of answers.
    pub(crate) async fn open(&self, subscription: Subscription) -> Result<Answers, ApiError> {
        let items = self.shared.service.subscribe(&Caller::LoopbackOwner, subscription);
        match tokio::time::timeout(self.shared.limits.answer, items).await {
            Ok(items) => Ok(Answers { items: items?, closing: self.shared.ending.closing.clone() }),
            Err(_) => Err(ApiError::unavailable("the engine took too long to answer")),
        }
    }
}

fn stopping() -> Error {
    Error::unavailable("the engine is stopping")
}

/// The place of a request among those that are under way.
#[derive(Debug, Clone)]
pub struct Place(Arc<Mutex<Option<OwnedSemaphorePermit>>>);

impl Place {
    /// Gives the place back for one among those that take long.
    ///
    /// # Errors
    /// When as many wait as may.
    pub(crate) fn for_long(&self, state: &AppState) -> Result<LongPlace, ApiError> {
        let place = Arc::clone(&state.shared.waits).try_acquire_owned().map_err(|_| {
            let limit = state.shared.limits.waits;
            ApiError::too_many(format!("{limit} requests wait or follow a stream already, which is the most"))
                .with_detail("help", "ask without waiting, and again after a moment")
        })?;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        Ok(LongPlace { _permit: place })
    }
}

/// A place for a request that takes long, until it is dropped.
#[derive(Debug)]
pub(crate) struct LongPlace {
    _permit: OwnedSemaphorePermit,
}

/// The answers of a stream. It ends with an error when the engine stops before the stream has ended.
pub(crate) struct Answers {
    items: BoxStream<'static, ServiceResult<Item>>,
    closing: CancellationToken,
}

impl Answers {
    /// The next one; `None` at the end. After an error nothing more comes.
    pub(crate) async fn next(&mut self) -> Option<ServiceResult<Item>> {
        tokio::select! {
            biased;
            () = self.closing.cancelled() => Some(Err(stopping())),
            item = self.items.next() => item,
        }
    }
}
