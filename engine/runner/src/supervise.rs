//! The runner: one thread, one loop, one script.
//!
//! It starts the script, reads its two pipes, and leaves when nothing that the script has started is
//! alive any more; only then it writes how the script ended. Whoever reads `status.json` knows that
//! nothing is left.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::attempt::{self, ScriptProcess, put_start_mark};
use crate::identity::ProcessIdentity;
use crate::mask::{MIN_CHARS, Masker};
use crate::output::{Spool, Stream};
use crate::process::{self, Cgroup, Child, Ended, Launch};
use crate::spec::{self, Spec};
use crate::status::{self, Failure, Progress, Reason, Status};
use crate::words::{self, Word};
use crate::{EXIT_ALREADY_STARTED, PROTOCOL, files};

/// How much is read from a pipe at once.
const READ_BYTES: usize = 64 * 1024;
/// A line longer than this is cut into several.
const MAX_LINE_BYTES: usize = 64 * 1024;
/// How many lines of standard error are kept for the error message, and how long each may be.
const TAIL_LINES: usize = 5;
const TAIL_LINE_CHARS: usize = 500;
/// Room for the status, reserved while there is some: a disk that fills up later cannot hide how the
/// script ended.
const STATUS_RESERVE_BYTES: i64 = 64 * 1024;
/// Between two writes of the progress.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);
/// Between two looks for what is left, while it is being ended.
const LEFTOVER_INTERVAL: Duration = Duration::from_millis(20);
/// Between two tries to write the status to a disk that is full.
const STATUS_PAUSE: Duration = Duration::from_millis(500);
/// How often that is tried: about ten minutes.
const STATUS_TRIES: u32 = 1_200;

/// Runs the attempt of a directory.
pub fn run(directory: &Path) -> io::Result<ExitCode> {
    let directory = fs::canonicalize(directory)?;
    // The engine's terminal and its end are none of the runner's business. Fails for a leader only.
    let _ = rustix::process::setsid();
    let _lock = match put_start_mark(&directory, Some(ProcessIdentity::own()?)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Ok(ExitCode::from(EXIT_ALREADY_STARTED));
        }
        Err(error) => return Err(error),
    };
    let signals = process::signals(&[libc::SIGTERM, libc::SIGINT, libc::SIGUSR1, libc::SIGCHLD])?;
    process::become_subreaper()?;
    let status_file = StatusFile::reserve(&directory)?;
    let spec: Spec = files::read(&directory.join(spec::FILE))?
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the attempt has no spec.json"))?;
    let status = match Supervision::start(&directory, &spec, signals) {
        Ok(supervision) => supervision.run(),
        Err(error) => start_failed(error),
    };
    status_file.write(&status)?;
    Ok(ExitCode::SUCCESS)
}

/// Milliseconds since the Unix epoch.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Nanoseconds since the Unix epoch, to tell names apart.
pub(crate) fn now_ns() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos())
}

fn start_failed(error: String) -> Status {
    Status {
        protocol: PROTOCOL,
        reason: Reason::StartFailed { error },
        exit_code: None,
        signal: None,
        started_at: now_ms(),
        ended_at: now_ms(),
        result: None,
        failure: None,
        stderr_tail: Vec::new(),
        output: status::Totals::default(),
        leftovers: 0,
    }
}

/// The file that the status will be, with room reserved.
struct StatusFile<'a> {
    directory: &'a Path,
    file: File,
}

impl<'a> StatusFile<'a> {
    const SCRATCH: &'static str = "status.tmp";

    fn reserve(directory: &'a Path) -> io::Result<Self> {
        let path = directory.join(Self::SCRATCH);
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        process::reserve(&file, STATUS_RESERVE_BYTES);
        Ok(Self { directory, file })
    }

    /// Puts the status in its place, durably. A full disk is waited for.
    fn write(mut self, status: &Status) -> io::Result<()> {
        let mut bytes = serde_json::to_vec(status)?;
        for _ in 1..STATUS_TRIES {
            match self.try_write(&bytes) {
                Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                    // A long result is the first thing to do without.
                    if bytes.len() as i64 > STATUS_RESERVE_BYTES {
                        let failure = Some(Failure {
                            permanent: false,
                            message: "its result could not be stored: the disk is full".into(),
                        });
                        bytes = serde_json::to_vec(&Status { result: None, failure, ..status.clone() })?;
                    }
                    std::thread::sleep(STATUS_PAUSE);
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
        fs::rename(self.directory.join(Self::SCRATCH), self.directory.join(status::FILE))?;
        File::open(self.directory)?.sync_all()
    }
}

/// One of the script's two pipes.
struct Source {
    stream: Stream,
    pipe: Option<File>,
    /// What was read and is not yet a whole line.
    partial: Vec<u8>,
}

/// Why the script is being ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    TimedOut,
    Cancelled,
    /// The script has ended and left something behind.
    Leftovers,
}

struct Supervision<'a> {
    directory: &'a Path,
    spec: &'a Spec,
    signals: File,
    script: i32,
    cgroup: Option<Cgroup>,
    started_at: u64,
    deadline: Option<Instant>,
    sources: [Source; 2],
    spool: Spool,
    masker: Masker,
    ended: Option<Ended>,
    ending: Option<Ending>,
    kill_at: Option<Instant>,
    killed: bool,
    leftovers: u64,
    result: Option<serde_json::Value>,
    failure: Option<Failure>,
    stderr_tail: VecDeque<String>,
    progress: Option<Progress>,
    progress_written: Option<Instant>,
}

impl<'a> Supervision<'a> {
    fn start(directory: &'a Path, spec: &'a Spec, signals: File) -> Result<Self, String> {
        let say = |what: &str, error: io::Error| format!("{what}: {error}");
        let mut masker = Masker::default();
        let mut secrets = serde_json::Map::new();
        let mut short = Vec::new();
        for secret in &spec.secrets {
            let value = secret.resolve()?;
            if !masker.add(&value) {
                short.push(&secret.name);
            }
            secrets.insert(secret.name.clone(), value.into());
        }
        let mut spool = Spool::create(directory, spec.output_limit_bytes)
            .map_err(|error| say("the output cannot be kept", error))?;
        for name in short {
            let note =
                format!("the secret '{name}' is shorter than {MIN_CHARS} characters and is not masked");
            spool.add(now_ms(), Stream::Err, &note, false);
        }
        let mut env = spec.env.clone();
        let inherited = if secrets.is_empty() {
            None
        } else {
            let text = serde_json::Value::Object(secrets).to_string();
            let file = process::memory_file(text.as_bytes())
                .map_err(|error| say("the secrets cannot be handed over", error))?;
            env.push(("ORCHESTRATOR_SECRETS".into(), format!("/proc/self/fd/{}", file.as_raw_fd())));
            Some(file)
        };
        let stdin: OwnedFd = match &spec.stdin {
            Some(text) => process::memory_file(text.as_bytes()),
            None => File::open("/dev/null").map(OwnedFd::from),
        }
        .map_err(|error| say("standard input cannot be prepared", error))?;
        let pipe = || process::pipe().map_err(|error| say("the output cannot be read", error));
        let ((out, out_writer), (err, err_writer)) = (pipe()?, pipe()?);
        let cgroup = if spec.cgroup {
            Cgroup::create(&format!("orchestrator-{}-{}", spec.task_id, spec.fence))
        } else {
            None
        };
        let launch = Launch {
            program: spec.program.clone(),
            args: spec.args.clone(),
            env,
            cwd: spec.cwd.clone(),
            stdio: [stdin, out_writer.into(), err_writer.into()],
            inherited,
        };
        let started_at = now_ms();
        let script = match process::start(launch, cgroup.as_ref()) {
            Ok(script) => script,
            Err(error) => {
                if let Some(cgroup) = cgroup {
                    cgroup.remove();
                }
                return Err(error.to_string());
            }
        };
        let source = |stream, pipe| Source { stream, pipe: Some(pipe), partial: Vec::new() };
        let this = Self {
            directory,
            spec,
            signals,
            script,
            cgroup,
            started_at,
            deadline: spec.timeout_ms.map(|timeout| Instant::now() + Duration::from_millis(timeout)),
            sources: [source(Stream::Out, out), source(Stream::Err, err)],
            spool,
            masker,
            ended: None,
            ending: None,
            kill_at: None,
            killed: false,
            leftovers: 0,
            result: None,
            failure: None,
            stderr_tail: VecDeque::new(),
            progress: None,
            progress_written: None,
        };
        this.note_script();
        Ok(this)
    }

    /// Lets an engine find the script should this process be killed.
    fn note_script(&self) {
        let Ok(identity) = ProcessIdentity::of(self.script) else { return };
        let cgroup = self.cgroup.as_ref().map(|cgroup| cgroup.path().to_owned());
        let note = ScriptProcess { identity, cgroup };
        // Without it an engine still finds what carries the task's variables.
        let _ = files::replace(&self.directory.join(attempt::CHILD), &note);
    }

    fn run(mut self) -> Status {
        let mut everything_gone = false;
        while !everything_gone {
            self.wait();
            for signal in process::take_signals(&mut self.signals) {
                match signal {
                    libc::SIGTERM | libc::SIGINT => self.end(Ending::Cancelled),
                    libc::SIGUSR1 => {
                        self.end(Ending::Cancelled);
                        self.kill_at = Some(Instant::now());
                    }
                    _ => {}
                }
            }
            for index in 0..self.sources.len() {
                self.read(index);
            }
            self.spool.flush();
            self.write_progress(false);
            everything_gone = self.reap();
            if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) && self.ended.is_none() {
                self.end(Ending::TimedOut);
            }
            if self.ended.is_some() && !everything_gone && self.ending.is_none() {
                self.end(Ending::Leftovers);
            }
            if self.kill_at.is_some_and(|at| Instant::now() >= at) && !everything_gone {
                self.kill();
            }
        }
        self.drain();
        if let Some(cgroup) = &self.cgroup {
            cgroup.remove();
        }
        self.into_status()
    }

    /// Waits until there is something to read, to reap or to do.
    fn wait(&self) {
        let mut at = [self.deadline.filter(|_| self.ended.is_none()), self.kill_at.filter(|_| !self.killed)]
            .into_iter()
            .flatten()
            .min();
        if self.ending.is_some() {
            let soon = Instant::now() + LEFTOVER_INTERVAL;
            at = Some(at.map_or(soon, |at| at.min(soon)));
        }
        if let (Some(_), Some(written)) = (&self.progress, self.progress_written) {
            let due = written + PROGRESS_INTERVAL;
            at = Some(at.map_or(due, |at| at.min(due)));
        }
        let timeout = at.map(|at| {
            let left = at.saturating_duration_since(Instant::now());
            Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) }
        });
        let pipes = self.sources.iter().filter_map(|source| source.pipe.as_ref());
        let mut polled: Vec<PollFd<'_>> = pipes
            .map(AsFd::as_fd)
            .chain([self.signals.as_fd()])
            .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
            .collect();
        // Interrupted or not: the loop looks at everything.
        let _ = poll(&mut polled, timeout.as_ref());
    }

    /// Reads what one pipe holds now, at most [`READ_BYTES`].
    fn read(&mut self, index: usize) {
        let source = &mut self.sources[index];
        let Some(pipe) = &mut source.pipe else { return };
        let mut polled = [PollFd::from_borrowed_fd(pipe.as_fd(), PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        if !poll(&mut polled, Some(&now)).is_ok_and(|ready| ready > 0) {
            return;
        }
        let start = source.partial.len();
        source.partial.resize(start + READ_BYTES, 0);
        let read = pipe.read(&mut source.partial[start..]).unwrap_or(0);
        source.partial.truncate(start + read);
        if read == 0 {
            source.pipe = None;
        }
        let at_end = read == 0;
        self.take_lines(index, at_end);
    }

    fn take_lines(&mut self, index: usize, at_end: bool) {
        let (stream, partial) = {
            let source = &mut self.sources[index];
            (source.stream, std::mem::take(&mut source.partial))
        };
        let now = now_ms();
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', &partial) {
            self.take_line(now, stream, &partial[start..end]);
            start = end + 1;
        }
        let mut rest = &partial[start..];
        while rest.len() > MAX_LINE_BYTES {
            // Held back: the beginning of a value that must not be seen, and of a character.
            let hold = self.masker.longest().min(MAX_LINE_BYTES / 2) + 4;
            let mut cut = MAX_LINE_BYTES - hold;
            cut = self.safe_cut(rest, cut);
            let text = String::from_utf8_lossy(&rest[..cut]).into_owned();
            let masked = self.masker.mask(&text).into_owned();
            self.spool.add(now, stream, &masked, true);
            rest = &rest[cut..];
        }
        if at_end && !rest.is_empty() {
            self.take_line(now, stream, rest);
            rest = &[];
        }
        self.sources[index].partial = rest.to_vec();
    }

    /// A place at or before `cut` where neither a character nor a masked value is cut.
    fn safe_cut(&self, bytes: &[u8], cut: usize) -> usize {
        let mut cut = cut;
        while cut > 1 && bytes.get(cut).is_some_and(|byte| byte & 0xC0 == 0x80) {
            cut -= 1;
        }
        let end = (cut + self.masker.longest()).min(bytes.len());
        let window = String::from_utf8_lossy(&bytes[..end]).into_owned();
        match self.masker.match_across(&window, cut) {
            Some(start) if start > 0 => start,
            _ => cut,
        }
    }

    fn take_line(&mut self, now: u64, stream: Stream, line: &[u8]) {
        let text = String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line));
        match words::parse(&text) {
            Some(Word::Mask(value)) => {
                if !self.masker.add(&value) {
                    let note = format!("a value shorter than {MIN_CHARS} characters is not masked");
                    self.spool.add(now, stream, &note, false);
                }
            }
            Some(Word::Progress(progress)) => {
                let message = self.masker.mask(&progress.message).into_owned();
                self.progress = Some(Progress { message, ..progress });
                self.write_progress(false);
            }
            Some(Word::Result(value)) => self.result = Some(self.masker.mask_json(value)),
            Some(Word::BadResult(why)) => self.spool.add(now, stream, &self.masker.mask(&why), false),
            Some(Word::Fail(failure)) => {
                let message = self.masker.mask(&failure.message).into_owned();
                self.failure = Some(Failure { message, ..failure });
            }
            None => {
                let masked = self.masker.mask(&text).into_owned();
                self.spool.add(now, stream, &masked, false);
                if stream == Stream::Err {
                    if self.stderr_tail.len() == TAIL_LINES {
                        self.stderr_tail.pop_front();
                    }
                    self.stderr_tail.push_back(masked.chars().take(TAIL_LINE_CHARS).collect());
                }
            }
        }
    }

    fn write_progress(&mut self, last: bool) {
        let is_due = self.progress_written.is_none_or(|written| written.elapsed() >= PROGRESS_INTERVAL);
        if !(is_due || last) {
            return;
        }
        if let Some(progress) = self.progress.take() {
            // It is shown while it lasts; a full disk costs nothing else.
            let _ = files::replace(&self.directory.join(attempt::PROGRESS), &progress);
            self.progress_written = Some(Instant::now());
        }
    }

    /// Takes note of children that have ended. Whether there are no descendants any more.
    fn reap(&mut self) -> bool {
        loop {
            match process::any_child() {
                Child::Ended(ended) if ended.pid == self.script => self.ended = Some(ended),
                Child::Ended(_) => {}
                Child::Alive => return false,
                // Every living descendant has a living ancestor that is a child, so there is none.
                Child::None => return true,
            }
        }
    }

    /// Begins to end everything: SIGTERM now, SIGKILL after the grace.
    fn end(&mut self, ending: Ending) {
        // Whoever calls it off while it is timing out or cleaning up changes nothing.
        if self.ending.is_some() {
            return;
        }
        self.ending = Some(ending);
        self.kill_at = Some(Instant::now() + Duration::from_millis(self.spec.grace_ms));
        let members = self.members();
        if ending == Ending::Leftovers {
            self.leftovers = members.len() as u64;
        }
        for pid in members {
            process::send(pid, libc::SIGTERM);
        }
    }

    fn kill(&mut self) {
        self.killed = true;
        if let Some(cgroup) = &self.cgroup {
            // Those outside of it are ended one by one.
            let _ = cgroup.kill();
        }
        for pid in self.members() {
            process::send(pid, libc::SIGKILL);
        }
    }

    /// Everything that the attempt has started and that is alive.
    fn members(&self) -> Vec<i32> {
        let mut members = process::descendants(i32::try_from(std::process::id()).unwrap_or_default());
        members.extend(self.cgroup.iter().flat_map(Cgroup::processes));
        members.into_iter().collect()
    }

    /// Reads what is left in the pipes: all writers are gone.
    fn drain(&mut self) {
        for index in 0..self.sources.len() {
            while let Some(pipe) = &self.sources[index].pipe {
                let mut polled = [PollFd::from_borrowed_fd(pipe.as_fd(), PollFlags::IN)];
                let now = Timespec { tv_sec: 0, tv_nsec: 0 };
                if !poll(&mut polled, Some(&now)).is_ok_and(|ready| ready > 0) {
                    // A descriptor that somebody outside holds: nothing of this attempt writes any more.
                    self.take_lines(index, true);
                    break;
                }
                self.read(index);
            }
        }
        self.spool.flush();
        self.write_progress(true);
    }

    fn into_status(self) -> Status {
        let reason = match self.ending {
            Some(Ending::TimedOut) => Reason::TimedOut,
            Some(Ending::Cancelled) => Reason::Cancelled,
            Some(Ending::Leftovers) | None => Reason::Exited,
        };
        Status {
            protocol: PROTOCOL,
            reason,
            exit_code: self.ended.and_then(|ended| ended.exit_code),
            signal: self.ended.and_then(|ended| ended.signal),
            started_at: self.started_at,
            ended_at: now_ms(),
            result: self.result,
            failure: self.failure,
            stderr_tail: self.stderr_tail.into(),
            output: self.spool.totals(),
            leftovers: self.leftovers,
        }
    }
}
