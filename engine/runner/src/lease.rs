//! Until when scripts may run, where several engines share a store.
//!
//! An engine that cannot renew its lease is taken over, and its tasks are begun anew elsewhere. So its
//! runners must have ended their scripts by then, whether the engine is alive or not: it puts the deadline
//! into a file with each renewal, and its runners look there. The clock goes on while the machine sleeps.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{files, identity};

/// Between two looks at the clock by which a lease runs, which goes on while the machine sleeps, when no timer
/// does.
pub const LOOK: Duration = Duration::from_millis(250);
/// What a script whose engine has lost its lease may have to end by itself: less than is left until another
/// engine may start it again.
pub const GRACE: Duration = Duration::from_secs(1);

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

/// How long the file is, in bytes: always the same, so that a renewal needs no room on the disk.
const FILE_BYTES: usize = 256;
/// How often the file is read again that is just being written.
const READS: u32 = 10;

/// Writes a lease: over the one before, also when the disk is full.
pub fn write(file: &Path, lease: &Lease) -> io::Result<()> {
    let mut text = files::encode(lease)?;
    text.resize(FILE_BYTES.max(text.len()), b' ');
    match OpenOptions::new().write(true).open(file) {
        Ok(file) => file.write_all_at(&text, 0),
        Err(error) if error.kind() == io::ErrorKind::NotFound => files::replace_bytes(file, &text),
        Err(error) => Err(error),
    }
}

/// Reads a lease; again where it is just being written.
fn read(file: &Path) -> Option<Lease> {
    (0..READS).find_map(|_| files::read::<Lease>(file).ok()).flatten()
}

/// Whether scripts may go on whatever becomes of the lease.
pub fn is_released(file: &Path) -> bool {
    read(file).is_some_and(|lease| lease.deadline_ms == u64::MAX)
}

/// The deadline that a file holds; 0, which is long over, where it does not say.
pub fn deadline_ms(file: &Path) -> u64 {
    let lease = read(file);
    let is_here = |lease: &Lease| identity::boot_id().is_ok_and(|boot| boot == lease.boot_id);
    lease.filter(is_here).map_or(0, |lease| lease.deadline_ms)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn a_renewal_takes_the_place_of_the_one_before_and_needs_no_room() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("lease-1.json");
        assert_eq!(deadline_ms(&file), 0);
        let boot_id = identity::boot_id().unwrap();
        let mut sizes = Vec::new();
        for deadline in [7, u64::MAX, 1_000] {
            write(&file, &Lease { boot_id: boot_id.clone(), deadline_ms: deadline }).unwrap();
            assert_eq!(deadline_ms(&file), deadline);
            assert_eq!(is_released(&file), deadline == u64::MAX);
            sizes.push(file.metadata().unwrap().len());
        }
        assert_eq!(sizes, [FILE_BYTES as u64; 3]);
        write(&file, &Lease { boot_id: "another".into(), deadline_ms: 7 }).unwrap();
        assert_eq!(deadline_ms(&file), 0, "another boot's clock");
    }
}
