//! Staying with a runner until it is gone, and making it go.
//!
//! A runner that is told to end does so after the grace of its script at the latest. One that does not, since it
//! was stopped or something of its script waits for a broken disk, is told to end at once, again and again: what
//! cannot follow now follows when it can.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use orchestrator_runner::attempt::{Attempt, Runner};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::logs::blocking;

/// A runner that was told to end is given its script's grace and this much more before it is told to end at
/// once; twice as much before it is told so again, and so on, up to the bound.
const PATIENCE: Duration = Duration::from_secs(30);
const MAX_PATIENCE: Duration = Duration::from_secs(600);
/// Between two looks whether one that nobody attends to any more is gone.
const REAP_INTERVAL: Duration = Duration::from_secs(1);

/// Waits until the runner of an attempt is gone. When `cancel` fires it is made to go; its script has `grace` for
/// that.
///
/// # Errors
/// When it cannot be watched.
pub(super) async fn gone(
    pidfd: OwnedFd,
    directory: &Path,
    grace: Duration,
    cancel: &CancellationToken,
) -> io::Result<()> {
    // SAFETY: an `OwnedFd` keeps its descriptor open, and the same one, until it is dropped.
    let gone = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) }?;
    tokio::select! {
        // Readable means ended; the guard is not cleared, since it stays so.
        ready = gone.readable() => ready.map(drop),
        () = make_go(directory, grace, cancel) => Ok(()),
    }
}

/// Tells a runner to end once `cancel` has fired, and tells it again; never ends by itself.
async fn make_go(directory: &Path, grace: Duration, cancel: &CancellationToken) {
    cancel.cancelled().await;
    tell(directory, Attempt::cancel).await;
    sleep(grace).await;
    let mut patience = PATIENCE;
    loop {
        sleep(patience).await;
        warn!("the runner does not end although it was told to; ending it");
        tell(directory, Attempt::kill).await;
        patience = (patience * 2).min(MAX_PATIENCE);
    }
}

async fn tell(directory: &Path, word: fn(&Attempt) -> io::Result<()>) {
    let directory = directory.to_owned();
    let told = blocking(move || {
        let attempt = Attempt::open(&directory)?;
        // A runner that has not come so far would not hear it; now it starts nothing.
        if attempt.abandon()? { Ok(()) } else { word(&attempt) }
    });
    if let Err(error) = told.await {
        warn!(%error, "the runner cannot be told to end");
    }
}

/// Takes a runner out of the process table as soon as it is gone. Only the process that has started it can, so
/// this goes on when the engine that did is opened again.
pub(super) fn reap(mut runner: Runner) {
    tokio::spawn(async move {
        while let Ok(false) = runner.is_gone() {
            sleep(REAP_INTERVAL).await;
        }
    });
}
