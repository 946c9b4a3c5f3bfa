//! The runner: one thread, one loop, one script.
//!
//! It starts the script, reads its two pipes, and leaves when nothing that the script has started is
//! alive any more; only then it writes how the script ended. Whoever reads `status.json` knows that
//! nothing is left.

mod collect;
mod status_file;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;

use self::collect::Collector;
use self::status_file::StatusFile;
use crate::attempt::{self, ScriptProcess, put_start_mark};
use crate::identity::ProcessIdentity;
use crate::lease;
use crate::mask::{Masker, Refused};
use crate::output::Spool;
use crate::process::{self, Cgroup, Child, Ended, Launch, Member};
use crate::spec::{self, Spec};
use crate::status::{self, Reason, Status};
use crate::{EXIT_ALREADY_STARTED, PROTOCOL, files};

/// What is left when a script ends may have so long to end by itself: a `tee` has yet to write what it
/// has read.
const SETTLE: Duration = Duration::from_millis(200);
/// Between two looks for what is left, while it is being ended.
const LEFTOVER_INTERVAL: Duration = Duration::from_millis(20);

/// Runs the attempt of a directory.
pub fn run(directory: &Path) -> io::Result<ExitCode> {
    let directory = fs::canonicalize(directory)?;
    // The engine's terminal and its end are none of the runner's business. Fails for a leader only.
    let _ = rustix::process::setsid();
    // Before the mark: from then on an engine may send some.
    let signals =
        process::signals(&[libc::SIGTERM, libc::SIGINT, libc::SIGUSR1, libc::SIGHUP, libc::SIGCHLD])?;
    process::become_subreaper()?;
    let _lock = match put_start_mark(&directory, Some(ProcessIdentity::own()?)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Ok(ExitCode::from(EXIT_ALREADY_STARTED));
        }
        Err(error) => return Err(error),
    };
    let status_file = StatusFile::reserve(&directory)?;
    let status = match supervise(&directory, signals) {
        Ok(status) => status,
        Err(error) => not_started(Reason::StartFailed { error }),
    };
    status_file.write(&status)?;
    Ok(ExitCode::SUCCESS)
}

/// Starts the script and stays until nothing of it is left. An error says why it was not started.
fn supervise(directory: &Path, signals: File) -> Result<Status, String> {
    let spec: Spec = files::read(&directory.join(spec::FILE))
        .map_err(|error| error.to_string())?
        .ok_or_else(|| "nobody has said what to start: the attempt has no spec.json".to_owned())?;
    let lease_deadline_ms = spec.lease_file.as_ref().map(|file| lease::deadline_ms(Path::new(file)));
    // Held up for so long that another engine may have begun the next attempt.
    if lease_deadline_ms.is_some_and(|deadline_ms| deadline_ms <= lease::boot_time_ms()) {
        return Ok(not_started(Reason::LeaseLost));
    }
    Ok(Supervision::start(directory, &spec, lease_deadline_ms, signals)?.run())
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

fn not_started(reason: Reason) -> Status {
    Status {
        protocol: PROTOCOL,
        reason,
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

/// Why the script is being ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    TimedOut,
    Cancelled,
    LeaseLost,
    /// The script has ended and left something behind.
    Leftovers,
}

struct Supervision<'a> {
    spec: &'a Spec,
    signals: File,
    script: i32,
    cgroup: Option<Cgroup>,
    started_at: u64,
    deadline: Option<Instant>,
    /// The deadline that the engine's lease had when it was last read, by the lease's clock.
    lease_deadline_ms: Option<u64>,
    collector: Collector<'a>,
    ended: Option<Ended>,
    /// Until when what the script left may end by itself.
    settle_until: Option<Instant>,
    ending: Option<Ending>,
    kill_at: Option<Instant>,
    leftovers: BTreeSet<Member>,
}

impl<'a> Supervision<'a> {
    fn start(
        directory: &'a Path,
        spec: &'a Spec,
        lease_deadline_ms: Option<u64>,
        signals: File,
    ) -> Result<Self, String> {
        let say = |what: &str, error: io::Error| format!("{what}: {error}");
        let (masker, secrets, short) = resolve_secrets(spec)?;
        let mut spool = Spool::create(directory, spec.output_limit_bytes)
            .map_err(|error| say("the output cannot be kept", error))?;
        for name in short {
            collect::note(
                &mut spool,
                now_ms(),
                &format!("the secret '{name}' is not masked: {}", Refused::TooShort),
            );
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
        let pipe = || process::output_pipe().map_err(|error| say("the output cannot be read", error));
        let ((out, out_writer), (err, err_writer)) = (pipe()?, pipe()?);
        let mut cgroup = if spec.cgroup { Cgroup::create(&attempt::cgroup_name(spec)) } else { None };
        let launch = Launch {
            program: spec.program.clone(),
            args: spec.args.clone(),
            env,
            cwd: spec.cwd.clone(),
            stdio: [stdin, out_writer, err_writer],
            inherited,
        };
        let started_at = now_ms();
        let started = process::start(launch, cgroup.as_ref());
        if !matches!(started, Ok((_, true)))
            && let Some(unused) = cgroup.take()
        {
            unused.remove();
        }
        let (script, _) = started.map_err(|error| error.to_string())?;
        note_script(directory, script, cgroup.as_ref());
        Ok(Self {
            spec,
            signals,
            script,
            cgroup,
            started_at,
            deadline: spec
                .timeout_ms
                .and_then(|timeout| Instant::now().checked_add(Duration::from_millis(timeout))),
            lease_deadline_ms,
            collector: Collector::new(directory, spool, masker, out, err),
            ended: None,
            settle_until: None,
            ending: None,
            kill_at: None,
            leftovers: BTreeSet::new(),
        })
    }

    fn run(mut self) -> Status {
        loop {
            self.wait();
            // Taken before children are looked for: a child that ends in between wakes the next wait.
            let signals = process::take_signals(&mut self.signals);
            let is_everything_gone = self.reap();
            self.obey(&signals);
            self.collector.read();
            if is_everything_gone {
                break;
            }
            self.go_on(Instant::now());
        }
        if let Some(cgroup) = &self.cgroup {
            cgroup.remove();
        }
        self.into_status()
    }

    /// Waits until there is something to read, to reap or to do.
    fn wait(&self) {
        let mut at = vec![self.collector.due(), self.next_look_at_lease()];
        if self.ending.is_none() {
            at.push(self.settle_until);
            at.push(self.deadline.filter(|_| self.ended.is_none()));
        } else {
            let soon = Instant::now() + LEFTOVER_INTERVAL;
            at.push(Some(self.kill_at.map_or(soon, |kill_at| kill_at.max(soon))));
            // Only children tell of their end; what else is in the cgroup is looked for.
            at.push(self.ended.map(|_| soon));
        }
        let timeout = at.into_iter().flatten().min().map(|at| {
            let left = at.saturating_duration_since(Instant::now());
            Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) }
        });
        let mut polled: Vec<PollFd<'_>> = self
            .collector
            .pipes()
            .chain([self.signals.as_fd()])
            .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
            .collect();
        // Interrupted or not: the loop looks at everything.
        let _ = poll(&mut polled, timeout.as_ref());
    }

    /// Takes note of children that have ended. Whether everything that the attempt started is gone.
    fn reap(&mut self) -> bool {
        loop {
            match process::any_child() {
                Child::Ended(ended) if ended.pid == self.script => self.ended = Some(ended),
                Child::Ended(_) => {}
                Child::Alive => return false,
                // Every living descendant has a living ancestor that is a child, so there is none.
                // What was put into the cgroup from outside is still to be looked at.
                Child::None => return self.cgroup.as_ref().is_none_or(Cgroup::is_empty),
            }
        }
    }

    fn obey(&mut self, signals: &[i32]) {
        for signal in signals {
            // A script that has ended cannot be called off, but what it left can be ended sooner.
            let ending = if self.ended.is_some() { Ending::Leftovers } else { Ending::Cancelled };
            match *signal {
                libc::SIGTERM => self.end(ending),
                libc::SIGINT | libc::SIGUSR1 => {
                    self.end(ending);
                    self.kill_at = Some(Instant::now());
                }
                _ => {}
            }
        }
    }

    /// Does what is due.
    fn go_on(&mut self, now: Instant) {
        self.look_at_lease();
        if self.ended.is_some() {
            let settle_until = *self.settle_until.get_or_insert(now + SETTLE);
            if settle_until <= now {
                self.end(Ending::Leftovers);
            }
        } else if self.deadline.is_some_and(|deadline| deadline <= now) {
            self.end(Ending::TimedOut);
        }
        if self.kill_at.is_some_and(|kill_at| kill_at <= now) {
            self.kill();
        }
    }

    fn next_look_at_lease(&self) -> Option<Instant> {
        let left_ms = self.lease_deadline_ms?.saturating_sub(lease::boot_time_ms());
        Instant::now().checked_add(Duration::from_millis(left_ms).min(lease::LOOK))
    }

    /// Ends everything at the deadline of the engine's lease, unless it was renewed since.
    fn look_at_lease(&mut self) {
        let (Some(file), Some(deadline_ms)) = (&self.spec.lease_file, self.lease_deadline_ms) else { return };
        if lease::boot_time_ms() < deadline_ms {
            return;
        }
        let renewed = lease::deadline_ms(Path::new(file));
        if lease::boot_time_ms() < renewed {
            self.lease_deadline_ms = Some(renewed);
            return;
        }
        // Over for good: nothing is read again.
        self.lease_deadline_ms = None;
        let ending = if self.ended.is_some() { Ending::Leftovers } else { Ending::LeaseLost };
        self.end(ending);
        // Also what is being ended for another reason has no more time than this.
        let at_last = Instant::now() + lease::GRACE;
        self.kill_at = Some(self.kill_at.map_or(at_last, |kill_at| kill_at.min(at_last)));
    }

    /// Begins to end everything: SIGTERM now, SIGKILL after the grace.
    fn end(&mut self, ending: Ending) {
        // Whoever calls it off while it is timing out or cleaning up changes nothing.
        if self.ending.is_some() {
            return;
        }
        self.ending = Some(ending);
        self.kill_at = Instant::now().checked_add(Duration::from_millis(self.spec.grace_ms));
        for member in self.members() {
            member.send(Signal::TERM);
            // What is stopped could not follow it.
            member.send(Signal::CONT);
        }
    }

    fn kill(&mut self) {
        let members = self.members();
        if let Some(cgroup) = &self.cgroup {
            // Those outside of it are ended one by one; so are all where it cannot be done at once.
            let _ = cgroup.kill();
        }
        for member in members {
            member.send(Signal::KILL);
        }
    }

    /// Everything that the attempt has started and that is alive.
    fn members(&mut self) -> BTreeSet<Member> {
        let own = rustix::process::getpid().as_raw_nonzero().get();
        let mut members = process::descendants(&process::members(), [own]);
        members.extend(self.cgroup.iter().flat_map(Cgroup::members));
        if self.ended.is_some() {
            self.leftovers.extend(&members);
        }
        members
    }

    fn into_status(self) -> Status {
        let reason = match self.ending {
            Some(Ending::TimedOut) => Reason::TimedOut,
            Some(Ending::Cancelled) => Reason::Cancelled,
            Some(Ending::LeaseLost) => Reason::LeaseLost,
            Some(Ending::Leftovers) | None => Reason::Exited,
        };
        let collected = self.collector.finish();
        Status {
            protocol: PROTOCOL,
            reason,
            exit_code: self.ended.and_then(|ended| ended.exit_code),
            signal: self.ended.and_then(|ended| ended.signal),
            started_at: self.started_at,
            ended_at: now_ms(),
            result: collected.result,
            failure: collected.failure,
            stderr_tail: collected.stderr_tail,
            output: collected.output,
            leftovers: self.leftovers.len() as u64,
        }
    }
}

/// The secrets by name, what masks them, and the names of those that are too short to be masked.
type Secrets<'a> = (Masker, serde_json::Map<String, serde_json::Value>, Vec<&'a str>);

fn resolve_secrets(spec: &Spec) -> Result<Secrets<'_>, String> {
    let (mut masker, mut values, mut short) = (Masker::default(), serde_json::Map::new(), Vec::new());
    for secret in &spec.secrets {
        let value = secret.resolve()?;
        match masker.add(value.as_bytes()) {
            Ok(()) => {}
            Err(Refused::TooShort) => short.push(secret.name.as_str()),
            Err(why) => return Err(format!("the secret '{}' cannot be masked: {why}", secret.name)),
        }
        values.insert(secret.name.clone(), value.into());
    }
    Ok((masker, values, short))
}

/// Lets an engine find the script should this process be killed.
fn note_script(directory: &Path, script: i32, cgroup: Option<&Cgroup>) {
    let Ok(identity) = ProcessIdentity::of(script) else { return };
    let cgroup = cgroup.map(|cgroup| cgroup.path().to_owned());
    // Without it an engine still finds what carries the task's variables.
    let _ = files::replace(&directory.join(attempt::CHILD), &ScriptProcess { identity, cgroup });
}
