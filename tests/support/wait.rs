//! Waiting for a condition, with a bound, instead of for a time.

use std::time::{Duration, Instant};

/// How long a condition may take before the test fails. Generous: it costs nothing when all is well.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Looks every few milliseconds until `look` finds something.
///
/// # Panics
/// When nothing was found within [`PATIENCE`]; `what` says what was waited for.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {} s in vain for {what}", PATIENCE.as_secs());
        std::thread::park_timeout(Duration::from_millis(5));
    }
}
