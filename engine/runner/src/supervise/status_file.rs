//! The runner's last word, written so that neither a power cut nor a full disk loses it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use crate::process;
use crate::status::{self, Failure, Status};

/// Room that is reserved while there is some: a disk that fills up later cannot hide how the script
/// ended.
const RESERVE_BYTES: u64 = 64 * 1024;
/// Between two tries to write to a disk that is full.
const PAUSE: Duration = Duration::from_millis(500);
/// How often that is tried: about ten minutes.
const TRIES: u32 = 1_200;

const SCRATCH: &str = "status.tmp";

/// The file that the status will be, with room reserved.
pub(super) struct StatusFile<'a> {
    directory: &'a Path,
    file: File,
}

impl<'a> StatusFile<'a> {
    pub(super) fn reserve(directory: &'a Path) -> io::Result<Self> {
        let path = directory.join(SCRATCH);
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        process::reserve(&file, RESERVE_BYTES);
        Ok(Self { directory, file })
    }

    /// Puts the status in its place, durably. A full disk is waited for, for some minutes.
    pub(super) fn write(mut self, status: &Status) -> io::Result<()> {
        let mut bytes = serde_json::to_vec(status)?;
        for _ in 1..TRIES {
            match self.try_write(&bytes) {
                Err(error) if is_full(&error) => {
                    // A long result is the first thing to do without.
                    if bytes.len() as u64 > RESERVE_BYTES {
                        bytes = serde_json::to_vec(&without_result(status))?;
                    }
                    std::thread::sleep(PAUSE);
                }
                other => return other,
            }
        }
        self.try_write(&bytes)
    }

    fn try_write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.rewind()?;
        self.file.write_all(bytes)?;
        self.file.set_len(bytes.len() as u64)?;
        self.file.sync_all()?;
        fs::rename(self.directory.join(SCRATCH), self.directory.join(status::FILE))?;
        File::open(self.directory)?.sync_all()
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn without_result(status: &Status) -> Status {
    let message = "its result could not be stored: the disk is full".to_owned();
    let failure = status.failure.clone().unwrap_or(Failure { permanent: false, message });
    Status { result: None, failure: Some(failure), ..status.clone() }
}
