//! Points at which a test may end the engine at once, as `kill -9` or a power cut would.
//!
//! With the cargo feature `fault-points` the variable `ORCHESTRATOR_FAULT=NAME:N` ends the process
//! when it passes the point of that name for the N-th time. Without the feature nothing is compiled
//! in.

/// Passes a point.
#[cfg(not(feature = "fault-points"))]
#[inline(always)]
pub fn point(_name: &'static str) {}

/// Passes a point, unless this is where the process is to end.
#[cfg(feature = "fault-points")]
pub fn point(name: &'static str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicI64, Ordering};

    static CHOSEN: OnceLock<Option<(String, AtomicI64)>> = OnceLock::new();
    let chosen = CHOSEN.get_or_init(|| {
        let text = std::env::var("ORCHESTRATOR_FAULT").ok()?;
        let (name, count) = text.rsplit_once(':')?;
        Some((name.to_owned(), AtomicI64::new(count.parse().ok()?)))
    });
    if let Some((chosen, left)) = chosen
        && chosen == name
        && left.fetch_sub(1, Ordering::SeqCst) == 1
    {
        // Not `abort`: no message, no core, no destructor, like the real thing.
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}
