//! Until when scripts may run, where several engines share a store.
//!
//! An engine that cannot renew its lease is taken over, and its tasks are begun anew elsewhere. So its
//! runners must have ended their scripts by then, whether the engine is alive or not: it puts the deadline
//! into a file with each renewal, and its runners look there. The clock goes on while the machine sleeps.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{files, identity};

/// What is in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The boot of the machine whose clock it is.
    pub boot_id: String,
    /// When scripts must have begun to end, in milliseconds since that boot, by [`boot_time_ms`].
    pub deadline_ms: u64,
}

/// Milliseconds since the machine's boot, with the time that it slept.
pub fn boot_time_ms() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    u64::try_from(time.tv_sec).unwrap_or_default() * 1_000
        + u64::try_from(time.tv_nsec).unwrap_or_default() / 1_000_000
}

/// Puts a lease in its place at once.
pub fn write(file: &Path, lease: &Lease) -> io::Result<()> {
    files::replace(file, lease)
}

/// The deadline that a file holds; 0, which is long over, where it does not say.
pub fn deadline_ms(file: &Path) -> u64 {
    let lease = files::read::<Lease>(file).ok().flatten();
    let is_here = |lease: &Lease| identity::boot_id().is_ok_and(|boot| boot == lease.boot_id);
    lease.filter(is_here).map_or(0, |lease| lease.deadline_ms)
}
