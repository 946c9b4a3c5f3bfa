//! The directory of an attempt, from the engine's side.
//!
//! `spec.json` is written by the engine; the runner's first act is to put the start mark `start` in its
//! place, with its identity in it and with a lock on it that it holds as long as it lives: exclusively,
//! and in one step. So of two runners one starts, a mark without a lock means a runner that is gone,
//! and an engine can put a mark of its own there, after which no runner starts any more.
//!
//! Besides, the runner leaves `child.json` (who the script is), `progress.json`, `output/` (see
//! [`crate::output`]) and, when everything that it started is gone, `status.json`. Every file says which
//! version of the protocol it is written in; a newer one is refused, unknown fields are not.

mod leftovers;

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use crate::files;
use crate::identity::{self, ProcessIdentity};
use crate::spec::{self, Spec};
use crate::status::{self, Progress, Status};
use crate::supervise;

pub(crate) const START_MARK: &str = "start";
pub(crate) const CHILD: &str = "child.json";
pub(crate) const PROGRESS: &str = "progress.json";

/// What is in the start mark.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StartMark {
    pub protocol: u32,
    /// The runner; `None` where an engine has made sure that none starts.
    pub runner: Option<ProcessIdentity>,
}

/// The script's process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScriptProcess {
    /// Who it is. It leads a session of the same number.
    pub identity: ProcessIdentity,
    /// Its cgroup.
    pub cgroup: Option<PathBuf>,
}

/// What became of an attempt.
#[derive(Debug, Clone, PartialEq)]
pub enum AttemptState {
    /// No runner has started it.
    NotStarted,
    /// An engine has made sure that no runner will.
    Abandoned,
    /// Its runner is alive.
    Running {
        /// The runner.
        identity: ProcessIdentity,
    },
    /// It has ended.
    Finished(Box<Status>),
    /// Its runner is gone without a word.
    Lost {
        /// The runner.
        identity: ProcessIdentity,
    },
}

/// The directory of an attempt.
#[derive(Debug, Clone)]
pub struct Attempt {
    directory: PathBuf,
}

impl Attempt {
    /// Makes the directory of a new attempt, for its owner alone.
    ///
    /// # Errors
    /// `AlreadyExists` when there is one.
    pub fn create(directory: &Path, spec: &Spec) -> io::Result<Self> {
        let directory = &std::path::absolute(directory)?;
        if let Some(parent) = directory.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
        }
        DirBuilder::new().mode(0o700).create(directory)?;
        files::replace(&directory.join(spec::FILE), spec)?;
        Ok(Self { directory: directory.to_owned() })
    }

    /// The directory of an attempt that is there.
    ///
    /// # Errors
    /// `NotFound` when there is none.
    pub fn open(directory: &Path) -> io::Result<Self> {
        let directory = &std::path::absolute(directory)?;
        if !fs::metadata(directory)?.is_dir() {
            return Err(io::Error::new(io::ErrorKind::NotADirectory, "an attempt is a directory"));
        }
        Ok(Self { directory: directory.to_owned() })
    }

    /// Starts a runner, as a child of this process that outlives it. It inherits the environment, from
    /// which secrets are taken.
    pub fn spawn(&self, runner: &Path, arguments: &[String]) -> io::Result<Runner> {
        let child = Command::new(runner)
            .args(arguments)
            .arg(&self.directory)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Runner { child })
    }

    /// What became of it: judged by what the runner said last, then by the machine's boot and by the
    /// lock on the start mark, never by a process's number.
    pub fn state(&self) -> io::Result<AttemptState> {
        if let Some(status) = self.status()? {
            return Ok(AttemptState::Finished(Box::new(status)));
        }
        let Some(mark) = files::read::<StartMark>(&self.directory.join(START_MARK))? else {
            return Ok(AttemptState::NotStarted);
        };
        let Some(identity) = mark.runner else { return Ok(AttemptState::Abandoned) };
        if identity.boot_id == identity::boot_id()? && self.is_locked()? {
            return Ok(AttemptState::Running { identity });
        }
        // It may have ended between the two looks.
        match self.status()? {
            Some(status) => Ok(AttemptState::Finished(Box::new(status))),
            None => Ok(AttemptState::Lost { identity }),
        }
    }

    fn status(&self) -> io::Result<Option<Status>> {
        files::read(&self.directory.join(status::FILE))
    }

    fn is_locked(&self) -> io::Result<bool> {
        let mark = File::open(self.directory.join(START_MARK))?;
        // Shared, so that two who look at once do not take each other for a runner.
        match flock(&mark, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(false),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes sure that no runner starts it. `false` when one has.
    pub fn abandon(&self) -> io::Result<bool> {
        match put_start_mark(&self.directory, None) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let mark: Option<StartMark> = files::read(&self.directory.join(START_MARK))?;
                Ok(mark.is_some_and(|mark| mark.runner.is_none()))
            }
            Err(error) => Err(error),
        }
    }

    /// Something that is readable once the runner is gone.
    ///
    /// # Errors
    /// `NotFound` when it is gone already.
    pub fn pidfd(&self) -> io::Result<OwnedFd> {
        let AttemptState::Running { identity } = self.state()? else {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the runner is gone"));
        };
        let pid =
            Pid::from_raw(identity.pid).ok_or_else(|| io::Error::other("a start mark without a process"))?;
        let gone = || io::Error::new(io::ErrorKind::NotFound, "the runner is gone");
        let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
            Err(Errno::SRCH) => return Err(gone()),
            pidfd => pidfd?,
        };
        // The number may have been given to another process before it was opened, not after.
        if identity.is_alive() { Ok(pidfd) } else { Err(gone()) }
    }

    /// How long its script may take to end when it is told to.
    pub fn grace(&self) -> io::Result<Duration> {
        let spec = files::read::<Spec>(&self.directory.join(spec::FILE))?.unwrap_or_default();
        Ok(Duration::from_millis(spec.grace_ms))
    }

    /// Tells the runner to end the attempt, with grace. A runner that is gone is no error.
    pub fn cancel(&self) -> io::Result<()> {
        self.signal(Signal::TERM)
    }

    /// Tells the runner to end the attempt at once. A runner that is gone is no error.
    pub fn kill(&self) -> io::Result<()> {
        self.signal(Signal::USR1)
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        match self.pidfd() {
            Ok(pidfd) => match pidfd_send_signal(&pidfd, signal) {
                Ok(()) if signal == Signal::USR1 => {
                    // One that was stopped could not follow it. It may be gone by now.
                    let _ = pidfd_send_signal(&pidfd, Signal::CONT);
                    Ok(())
                }
                Ok(()) | Err(Errno::SRCH) => Ok(()),
                Err(error) => Err(error.into()),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Ends what a lost attempt has left, and returns once nothing of it is alive. How many processes
    /// there were. Of another boot of the machine nothing can be left.
    ///
    /// # Errors
    /// `ResourceBusy` while its runner is alive; `TimedOut` when something could not be ended, and it is
    /// worth another try.
    pub fn kill_leftovers(&self) -> io::Result<usize> {
        self.refuse_running()?;
        leftovers::kill(&self.directory)
    }

    /// Removes it with its output.
    ///
    /// # Errors
    /// `ResourceBusy` while its runner is alive.
    pub fn remove(self) -> io::Result<()> {
        self.refuse_running()?;
        fs::remove_dir_all(&self.directory)
    }

    fn refuse_running(&self) -> io::Result<()> {
        match self.state()? {
            AttemptState::Running { .. } => {
                Err(io::Error::new(io::ErrorKind::ResourceBusy, "the attempt is running"))
            }
            _ => Ok(()),
        }
    }

    /// The script's process, as its runner noted it; `None` before that.
    pub fn script(&self) -> io::Result<Option<ScriptProcess>> {
        files::read(&self.directory.join(CHILD))
    }

    /// How far the script is.
    pub fn progress(&self) -> io::Result<Option<Progress>> {
        files::read(&self.directory.join(PROGRESS))
    }
}

/// A runner that this process has started.
#[derive(Debug)]
pub struct Runner {
    child: std::process::Child,
}

impl Runner {
    /// Something that is readable once it is gone.
    pub fn pidfd(&self) -> io::Result<OwnedFd> {
        Ok(pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty())?)
    }

    /// Waits until it is gone, and takes its entry out of the process table.
    pub fn wait(&mut self) -> io::Result<()> {
        self.child.wait().map(drop)
    }

    /// Whether it is gone, without waiting for that. If so, its entry is taken out of the process table.
    pub fn is_gone(&mut self) -> io::Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }
}

/// What the attempt's cgroup is called.
pub(crate) fn cgroup_name(spec: &Spec) -> String {
    format!("orchestrator-{}-{}", spec.task_id, spec.fence)
}

/// Puts a start mark in its place, exclusively, and returns it with the lock on it.
pub(crate) fn put_start_mark(directory: &Path, runner: Option<ProcessIdentity>) -> io::Result<File> {
    let scratch = directory.join(format!("{START_MARK}.{}-{}", std::process::id(), supervise::now_ns()));
    let mut file = files::create(&scratch)?;
    let mark = StartMark { protocol: crate::PROTOCOL, runner };
    let result = serde_json::to_writer(&mut file, &mark)
        .map_err(io::Error::from)
        .and_then(|()| Ok(flock(&file, FlockOperation::NonBlockingLockExclusive)?))
        .and_then(|()| fs::hard_link(&scratch, directory.join(START_MARK)));
    // Left behind it harms nobody.
    let _ = fs::remove_file(&scratch);
    result.map(|()| file)
}
