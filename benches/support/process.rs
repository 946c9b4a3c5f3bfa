//! What a process takes of the machine, as its kernel counts it. Linux only.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A process of this user.
#[derive(Debug, Clone, Copy)]
pub struct Process {
    id: u32,
}

/// What a process has read and written through calls of the system, in bytes, whether or not it came from
/// or went to a disk: files above all. What goes over sockets is not in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Io {
    /// Read.
    pub read: u64,
    /// Written.
    pub written: u64,
}

impl Process {
    /// This one.
    pub fn this() -> Self {
        Self::with_id(std::process::id())
    }

    /// The one with an identifier.
    pub fn with_id(id: u32) -> Self {
        Self { id }
    }

    /// How much of it is in memory, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        self.number("status", "VmRSS:") * 1024
    }

    /// The most of it that was in memory at once, in bytes.
    pub fn peak_bytes(&self) -> u64 {
        self.number("status", "VmHWM:") * 1024
    }

    /// What it has read and written since it started.
    pub fn io(&self) -> Io {
        Io { read: self.number("io", "rchar:"), written: self.number("io", "wchar:") }
    }

    fn number(&self, file: &str, name: &str) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/{file}", self.id)).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

/// A program that was built in the same profile as this one.
///
/// # Panics
/// When it is missing: with the command that builds it.
pub fn program(name: &str, build: &str) -> PathBuf {
    // target/release/deps/processes-HASH
    let path = std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().join(name);
    assert!(path.is_file(), "{} is missing: {build}", path.display());
    path
}

/// What the files of a directory take on the disk, in bytes, with those of the directories in it.
pub fn disk_bytes(directory: &Path) -> u64 {
    let mut bytes = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        // A database may have removed it meanwhile.
        let Ok(metadata) = entry.metadata() else { continue };
        bytes += if metadata.is_dir() { disk_bytes(&entry.path()) } else { metadata.blocks() * 512 };
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_files() {
        let process = Process::this();
        assert!(process.resident_bytes() > 1024 * 1024);
        assert!(process.peak_bytes() > 1024 * 1024);
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("inner")).unwrap();
        let before = process.io();
        std::fs::write(directory.path().join("inner/file"), vec![1; 100_000]).unwrap();
        assert!(process.io().written >= before.written + 100_000);
        assert!(disk_bytes(directory.path()) >= 100_000);
    }
}
