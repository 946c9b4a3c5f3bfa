//! How a process is known: by the machine's boot, its PID namespace, its PID and its start time.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;

use serde::{Deserialize, Serialize};

/// A process that no later one can be mistaken for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessIdentity {
    /// The machine's boot.
    pub boot_id: String,
    /// The PID namespace, by its inode.
    pub pid_namespace: u64,
    /// The process.
    pub pid: i32,
    /// When it started, in clock ticks since boot.
    pub start_time: u64,
}

impl ProcessIdentity {
    /// Of this process.
    pub fn own() -> io::Result<Self> {
        Self::of(rustix::process::getpid().as_raw_nonzero().get())
    }

    /// Of any process of this machine and namespace.
    pub fn of(pid: i32) -> io::Result<Self> {
        Ok(Self { boot_id: boot_id()?, pid_namespace: pid_namespace()?, pid, start_time: start_time(pid)? })
    }

    /// Whether it still runs, as far as PID and start time tell.
    pub fn is_alive(&self) -> bool {
        Self::of(self.pid).is_ok_and(|now| now == *self)
    }
}

/// Whether a process belongs to this boot of the machine and to this PID namespace, so that its number
/// means here what it meant there.
pub fn is_here(identity: &ProcessIdentity) -> bool {
    boot_id().is_ok_and(|boot| boot == identity.boot_id)
        && pid_namespace().is_ok_and(|namespace| namespace == identity.pid_namespace)
}

/// The identifier of this boot of the machine.
pub fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

fn pid_namespace() -> io::Result<u64> {
    Ok(fs::metadata("/proc/self/ns/pid")?.ino())
}

/// When a process started, in clock ticks since boot.
pub fn start_time(pid: i32) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    stat_field(&stat, 22)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "an unreadable /proc/PID/stat"))
}

/// A field of `/proc/PID/stat` by its number in proc(5), from 3 on: the name before it may hold
/// anything.
pub(crate) fn stat_field(stat: &str, number: usize) -> Option<u64> {
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(number - 3)?.parse().ok()
}
