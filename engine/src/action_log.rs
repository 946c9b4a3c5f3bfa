//! What a step of the engine's own prints, kept in the directory of its attempt like the output of a
//! script, so that it is read, followed and removed in the same way.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use chrono::Utc;
use orchestrator_runner::output::{Spool, Stream};

/// The output of one attempt of an action.
#[derive(Debug)]
pub struct ActionLog(Mutex<Spool>);

impl ActionLog {
    /// An empty log in the directory of an attempt, which is made; of at most so many bytes.
    pub fn create(attempt: &Path, limit_bytes: u64) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(attempt)?;
        Ok(Self(Mutex::new(Spool::create(attempt, limit_bytes)?)))
    }

    /// Adds a line. A disk that is full costs lines, and nothing else.
    pub fn line(&self, text: &str) {
        let now = u64::try_from(Utc::now().timestamp_millis()).unwrap_or_default();
        let mut spool = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for line in text.lines() {
            spool.add(now, Stream::Out, line, false);
        }
        spool.flush();
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;
    use crate::logs::last_lines;

    #[test]
    fn what_an_action_prints_is_read_like_the_output_of_a_script() {
        let place = tempfile::tempdir().unwrap();
        let attempt = place.path().join("task/1");
        let log = ActionLog::create(&attempt, 1 << 20).unwrap();
        log.line("network made\nnodes made");
        assert_eq!(last_lines(&attempt).unwrap().as_deref(), Some("network made\nnodes made"));
    }
}
