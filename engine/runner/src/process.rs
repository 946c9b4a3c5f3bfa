//! Everything particular to Linux: starting a program, finding and ending what it started.
//!
//! - `launch`: from a clone to the program's first instruction.
//! - `cgroup`: a group that nothing leaves.
//! - `table`: the process table, for what no group holds.
//!
//! Linux 5.11 or later is needed for all of it; the rest of the crate would do elsewhere too.

mod cgroup;
mod launch;
mod table;

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

pub use cgroup::Cgroup;
pub use launch::{Launch, start};
pub use table::{Member, descendants, member, members, with_environment};

/// A descriptor that is inherited gets this number or a higher one: shell scripts use the small ones
/// themselves.
const FIRST_INHERITED: i32 = 20;

/// Closes every descriptor but the standard three, so that nothing of the engine is held open.
///
/// # Safety
/// Only at the start of a program, while nothing in it owns a descriptor.
pub unsafe fn close_inherited() {
    // SAFETY: the caller says that nobody owns them. An old kernel refuses, and leaves them open.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
}

/// A pipe: its reading end, which never blocks and is as wide as may be, and its writing end. Neither is
/// inherited.
pub fn output_pipe() -> io::Result<(File, OwnedFd)> {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&reader, true)?;
    // Smaller ones, which a user over some limit gets, are only slower.
    let _ = rustix::pipe::fcntl_setpipe_size(&reader, PIPE_BYTES);
    Ok((reader.into(), writer))
}

/// How much a pipe holds, where the system allows it.
const PIPE_BYTES: usize = 1024 * 1024;

/// A file in memory that nobody can change, read from its beginning. Its descriptor is out of the way
/// of those that scripts use.
pub fn memory_file(content: &[u8]) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // A kernel before 6.3 does not know the second flag.
    let created = memfd_create(c"orchestrator", flags | MemfdFlags::NOEXEC_SEAL)
        .or_else(|_| memfd_create(c"orchestrator", flags))?;
    let mut file = File::from(created);
    file.write_all(content)?;
    file.rewind()?;
    fcntl_add_seals(&file, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)?;
    Ok(rustix::io::fcntl_dupfd_cloexec(file.as_fd(), FIRST_INHERITED)?)
}

/// Makes this process the parent of orphans among its descendants.
pub fn become_subreaper() -> io::Result<()> {
    Ok(rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?)
}

/// Blocks signals and makes them readable.
pub fn signals(signals: &[i32]) -> io::Result<File> {
    // SAFETY: a zeroed set is made empty before use; the descriptor is new and belongs to nobody else.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in signals {
            libc::sigaddset(&raw mut set, *signal);
        }
        if libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) < 0 {
            return Err(io::Error::last_os_error());
        }
        let descriptor = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(File::from_raw_fd(descriptor))
    }
}

/// The signals that have come in.
pub fn take_signals(file: &mut File) -> Vec<i32> {
    let mut taken = Vec::new();
    let mut record = [0; size_of::<libc::signalfd_siginfo>()];
    while file.read_exact(&mut record).is_ok() {
        taken.push(i32::from_ne_bytes([record[0], record[1], record[2], record[3]]));
    }
    taken
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Which.
    pub pid: i32,
    /// Its exit code.
    pub exit_code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
}

/// What waiting for any child found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Child {
    /// One has ended.
    Ended(Ended),
    /// There are some, and none has ended.
    Alive,
    /// There is none, and so no descendant either.
    None,
}

/// Looks whether any child has ended, without waiting.
pub fn any_child() -> Child {
    let mut status = 0;
    // SAFETY: `status` lives until it returns.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
    match pid {
        0 => Child::Alive,
        pid if pid > 0 => Child::Ended(Ended {
            pid,
            exit_code: libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status)),
            signal: libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status)),
        }),
        _ => Child::None,
    }
}

/// Reserves room in a file, where the filesystem can.
pub fn reserve(file: &File, bytes: u64) {
    // Where it is not possible, it is not needed either.
    let _ = rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, bytes);
}
