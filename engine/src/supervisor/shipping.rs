//! What attempts print, brought to the other engines of the store while they run and when they have ended.

use std::sync::Arc;

use orchestrator_protocol::{Error, ErrorCode};
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;

use super::Supervisor;
use crate::log_segments::{self, Source};
use crate::records::{self, task_key};

impl Supervisor {
    /// Ships the output of an attempt to the other engines of the store, as long as this is kept.
    pub(super) fn shipping(&self, source: Source) -> Option<AbortOnDropHandle<()>> {
        self.membership.as_ref()?;
        let (store, directory) = (Arc::clone(self.queue.store()), self.directory(source.task, source.fence));
        if let Err(error) = log_segments::mark(&directory) {
            warn!(%error, "should the engine end early, the end of the output may never come to the others");
        }
        Some(AbortOnDropHandle::new(tokio::spawn(log_segments::ship(store, source, directory))))
    }

    /// Ships the rest of the output of an attempt that has ended, as long as it takes: nobody else has it.
    /// What cannot be shipped in this engine's life is in the next one's.
    pub(super) async fn ship_rest(&self, source: Source) {
        if self.membership.is_none() {
            return;
        }
        while let Err(error) = self.try_to_ship_rest(source).await {
            let what = "the rest of the output cannot be shipped to the other engines";
            // Another error would come again.
            if error.code != ErrorCode::Unavailable {
                warn!(%error, "{what}");
                return;
            }
            if self.pause_after(&error, what).await.is_break() {
                return;
            }
        }
    }

    async fn try_to_ship_rest(&self, source: Source) -> Result<(), Error> {
        let (store, directory) = (self.queue.store(), self.directory(source.task, source.fence));
        if !directory.is_dir() {
            return Ok(());
        }
        // With a task goes what it has printed.
        if store.get(&task_key(source.task)).await.map_err(records::storage_error)?.is_none() {
            return Ok(());
        }
        log_segments::ship_rest(&**store, source, &directory).await
    }
}
