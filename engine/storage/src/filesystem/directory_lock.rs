//! The lock that keeps a second engine out of a store's directory.
//!
//! It is an advisory lock on a file named `lock`. The system lets go of it when the process ends, in
//! whatever way, so that no stale lock can ever keep an engine from starting.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::store::{StoreError, StoreResult};

/// Held as long as this value lives.
#[derive(Debug)]
pub(super) struct DirectoryLock {
    // Never read: closing it is what lets go of the lock.
    _file: File,
}

impl DirectoryLock {
    /// Takes the lock of a store's directory without waiting for it.
    ///
    /// # Errors
    /// [`StoreError::InUse`] while another process, or this one, holds it.
    pub(super) fn take(directory: &Path) -> StoreResult<Self> {
        let path = directory.join("lock");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|source| StoreError::Io { path: path.clone(), source })?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(StoreError::InUse { path: directory.to_owned() }),
            Err(TryLockError::Error(source)) => Err(StoreError::Io { path, source }),
        }
    }
}
