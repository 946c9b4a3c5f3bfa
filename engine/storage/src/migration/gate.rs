//! The gate that every commit passes, and that a migration closes for a moment.
//!
//! Whoever closes it waits for the commits under way, and from that moment on all others wait. So the time
//! for which they do is counted from there, and what is done while the gate is closed has what is left of it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};
use tokio::time::{Instant, timeout_at};

use super::MigrationError;

/// How long commits wait at most. Then the migration is given up. The renewals of an engine's lease wait as well,
/// and its scripts live for eight seconds without one.
const PATIENCE: Duration = Duration::from_secs(5);

/// The gate of a store.
#[derive(Default)]
pub(super) struct Gate {
    lock: Arc<RwLock<()>>,
}

/// What a commit under way holds.
pub(super) type Pass = OwnedRwLockReadGuard<()>;

/// The gate as long as it is closed: it opens when this is dropped.
pub(super) struct Closed {
    /// Since when commits wait.
    since: Instant,
    _lock: OwnedRwLockWriteGuard<()>,
}

fn too_slow<T>() -> Result<T, MigrationError> {
    Err(MigrationError::TooSlow { patience: PATIENCE })
}

impl Gate {
    /// For a commit; waits while the gate is closed.
    pub(super) async fn pass(&self) -> Pass {
        Arc::clone(&self.lock).read_owned().await
    }

    /// Lets commits wait, once those under way have ended.
    pub(super) async fn close(&self) -> Result<Closed, MigrationError> {
        let since = Instant::now();
        match timeout_at(since + PATIENCE, Arc::clone(&self.lock).write_owned()).await {
            Ok(lock) => Ok(Closed { since, _lock: lock }),
            Err(_) => too_slow(),
        }
    }
}

impl Closed {
    /// Does what commits wait for, if they do not wait too long for it.
    pub(super) async fn in_time<T>(
        &self,
        work: impl Future<Output = Result<T, MigrationError>>,
    ) -> Result<T, MigrationError> {
        timeout_at(self.since + PATIENCE, work).await.unwrap_or_else(|_| too_slow())
    }

    /// How long commits have waited.
    pub(super) fn waited(&self) -> Duration {
        self.since.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    /// Longer than half of the patience.
    const LONG: Duration = Duration::from_secs(3);

    /// Whether so much time has passed; timers are exact to a millisecond.
    fn is_about(found: Duration, expected: Duration) -> bool {
        found >= expected && found < expected + Duration::from_millis(10)
    }

    #[tokio::test(start_paused = true)]
    async fn commits_wait_no_longer_than_they_may_whatever_for() {
        let gate = Gate::default();
        let under_way = gate.pass().await;
        tokio::spawn(async move {
            sleep(LONG).await;
            drop(under_way);
        });
        let start = Instant::now();
        let closed = gate.close().await;
        assert!(matches!(&closed, Ok(closed) if is_about(closed.waited(), LONG)));
        let result = match &closed {
            Ok(closed) => {
                let work = async {
                    sleep(LONG).await;
                    Ok(())
                };
                closed.in_time(work).await
            }
            Err(_) => Ok(()),
        };
        assert!(matches!(result, Err(MigrationError::TooSlow { .. })), "{result:?}");
        drop(closed);
        drop(gate.pass().await);
        assert!(is_about(start.elapsed(), PATIENCE), "both together: {:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_commit_that_does_not_end_holds_nobody_up_for_longer() {
        let gate = Gate::default();
        let under_way = gate.pass().await;
        let start = Instant::now();
        assert!(matches!(gate.close().await, Err(MigrationError::TooSlow { .. })));
        drop(gate.pass().await);
        assert!(is_about(start.elapsed(), PATIENCE), "{:?}", start.elapsed());
        drop(under_way);
        assert!(matches!(gate.close().await, Ok(closed) if closed.waited() < LONG));
    }
}
