//! The trait behind every front door.
//!
//! The engine implements it; the local socket and the REST router serve anything that does. Tests of
//! a front door give it a service of their own.

use async_trait::async_trait;
use futures::stream::BoxStream;

use crate::error::Result;
use crate::event::Item;
use crate::request::{Request, Response, Subscription};

/// On whose behalf a request comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// A process of the engine's own user, or of root, on the local socket.
    Local {
        /// Its process, where the system tells.
        pid: Option<u32>,
    },
    /// A connection over HTTP whose owner is the engine's user or root.
    LoopbackOwner,
}

/// What answers requests.
#[async_trait]
pub trait Service: Send + Sync + 'static {
    /// Answers a question.
    async fn call(&self, caller: &Caller, request: Request) -> Result<Response>;

    /// Begins a stream of answers. Dropping it ends it.
    async fn subscribe(
        &self,
        caller: &Caller,
        subscription: Subscription,
    ) -> Result<BoxStream<'static, Result<Item>>>;
}
