//! Waiting for a condition, with a bound, instead of for a time.

use std::time::{Duration, Instant};

/// How long a condition may take before the test fails. Generous: it costs nothing when all is well.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Looks every few milliseconds until `look` finds something.
///
/// # Panics
/// When nothing was found within [`PATIENCE`]; `what` says what was waited for.
pub fn until<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    at_most(PATIENCE, what, look)
}

/// The same for what takes longer, such as an installation.
///
/// # Panics
/// When nothing was found within `patience`; `what` says what was waited for.
pub fn at_most<T>(patience: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {} s in vain for {what}", patience.as_secs());
        std::thread::park_timeout(Duration::from_millis(5));
    }
}
