//! Everything particular to Linux: starting a program in a cgroup, finding and ending what it started.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, CString};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use crate::identity::stat_field;

/// A control group of version 2 that holds what an attempt started.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Makes one below this process's own, where that is possible.
    pub fn create(name: &str) -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
        let mount = mounts.lines().find_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (path, kind) = (fields.next()?, fields.next()?);
            (kind == "cgroup2").then(|| PathBuf::from(path))
        })?;
        let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
        let own = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
        let path = mount.join(own).join(name);
        fs::create_dir(&path).ok()?;
        Some(Self { path })
    }

    /// One that a runner made.
    pub fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its processes.
    pub fn processes(&self) -> Vec<i32> {
        let text = fs::read_to_string(self.path.join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// Ends all of its processes at once, also those that are being forked.
    pub fn kill(&self) -> io::Result<()> {
        fs::write(self.path.join("cgroup.kill"), "1")
    }

    /// Removes it, once it is empty.
    pub fn remove(&self) {
        // What cannot be removed now is empty and costs nothing.
        let _ = fs::remove_dir(&self.path);
    }
}

/// What a program is started with.
pub struct Launch {
    /// The program's path.
    pub program: String,
    /// Its arguments, without its name.
    pub args: Vec<String>,
    /// Its whole environment.
    pub env: Vec<(String, String)>,
    /// Its working directory.
    pub cwd: String,
    /// Its standard input, output and error.
    pub stdio: [OwnedFd; 3],
    /// A descriptor that it inherits besides, under the same number.
    pub inherited: Option<OwnedFd>,
}

/// Starts a program in a session of its own. It ends with this process. It must be called while this
/// process has one thread.
///
/// # Errors
/// Those of the system, also of what the child does before the program: a missing directory or
/// program.
pub fn start(launch: Launch, cgroup: Option<&Cgroup>) -> io::Result<i32> {
    let text = |text: &str| CString::new(text).map_err(|_| io::Error::other("an argument holds a NUL byte"));
    let program = text(&launch.program)?;
    let mut arguments = vec![program.clone()];
    for argument in &launch.args {
        arguments.push(text(argument)?);
    }
    let environment = launch
        .env
        .iter()
        .map(|(name, value)| text(&format!("{name}={value}")))
        .collect::<io::Result<Vec<_>>>()?;
    let cwd = text(&launch.cwd)?;
    let pointers = |strings: &[CString]| -> Vec<*const libc::c_char> {
        strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (argv, envp) = (pointers(&arguments), pointers(&environment));
    let (mut report_reader, report_writer) = pipe()?;
    let directory = cgroup.and_then(|cgroup| File::open(cgroup.path()).ok());
    let plan = Plan {
        program: &program,
        argv: argv.as_ptr(),
        envp: envp.as_ptr(),
        cwd: &cwd,
        stdio: [launch.stdio[0].as_raw_fd(), launch.stdio[1].as_raw_fd(), launch.stdio[2].as_raw_fd()],
        inherited: launch.inherited.as_ref().map(AsRawFd::as_raw_fd),
        report: report_writer.as_raw_fd(),
        parent: std::process::id(),
    };
    let pid = match fork(directory.as_ref().map(AsRawFd::as_raw_fd)) {
        // A cgroup that exists may still refuse processes.
        Err(_) if directory.is_some() => fork(None)?,
        other => other?,
    };
    if pid == 0 {
        // SAFETY: this is the child of a process with one thread, and `plan` holds what it needs.
        unsafe { become_program(&plan) }
    }
    drop(report_writer);
    let mut report = [0; 8];
    let mut length = 0;
    while length < report.len() {
        match report_reader.read(&mut report[length..]) {
            Ok(0) => return Ok(pid),
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let [s0, s1, s2, s3, e0, e1, e2, e3] = report;
    let (step, errno) = (i32::from_ne_bytes([s0, s1, s2, s3]), i32::from_ne_bytes([e0, e1, e2, e3]));
    let error = io::Error::from_raw_os_error(errno);
    reap(pid);
    let what = match step {
        STEP_DIRECTORY => format!("the working directory {}", launch.cwd),
        STEP_PROGRAM => format!("the program {}", launch.program),
        _ => "the process".to_owned(),
    };
    Err(io::Error::new(error.kind(), format!("{what} cannot be used: {error}")))
}

const STEP_PROCESS: i32 = 1;
const STEP_DIRECTORY: i32 = 2;
const STEP_PROGRAM: i32 = 3;

struct Plan<'a> {
    program: &'a CStr,
    argv: *const *const libc::c_char,
    envp: *const *const libc::c_char,
    cwd: &'a CStr,
    stdio: [RawFd; 3],
    inherited: Option<RawFd>,
    report: RawFd,
    parent: u32,
}

/// From `linux/sched.h`; the constant of the `libc` crate is too narrow.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// `fork`, straight into a cgroup where one is given: to be moved there later would cost milliseconds.
fn fork(cgroup: Option<RawFd>) -> io::Result<i32> {
    let pid = match cgroup {
        None => {
            // SAFETY: this process has one thread.
            i64::from(unsafe { libc::fork() })
        }
        Some(cgroup) => {
            // SAFETY: zeroed arguments are valid: every field is a number.
            let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
            args.flags = CLONE_INTO_CGROUP;
            args.exit_signal = libc::SIGCHLD as u64;
            args.cgroup = u64::try_from(cgroup).unwrap_or_default();
            // SAFETY: without CLONE_VM this is a fork; the arguments live until it returns.
            unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>()) }
        }
    };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    i32::try_from(pid).map_err(io::Error::other)
}

/// What the child does until it is the program.
///
/// # Safety
/// Only in a child of a process with one thread. It calls nothing but async-signal-safe functions.
unsafe fn become_program(plan: &Plan<'_>) -> ! {
    // SAFETY: all pointers come from `start`, which still holds what they point to; the rest are
    // system calls on descriptors of this process.
    unsafe {
        let fail = |step: i32| -> ! {
            let errno = *libc::__errno_location();
            let mut report = [0_u8; 8];
            report[..4].copy_from_slice(&step.to_ne_bytes());
            report[4..].copy_from_slice(&errno.to_ne_bytes());
            libc::write(plan.report, report.as_ptr().cast(), report.len());
            libc::_exit(127)
        };
        if libc::setsid() < 0 || libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) < 0 {
            fail(STEP_PROCESS);
        }
        // It may have died before it could be asked to take the child along.
        if u32::try_from(libc::getppid()).ok() != Some(plan.parent) {
            libc::_exit(127);
        }
        for (number, descriptor) in plan.stdio.iter().enumerate() {
            if libc::dup2(*descriptor, number as RawFd) < 0 {
                fail(STEP_PROCESS);
            }
        }
        if let Some(descriptor) = plan.inherited
            && libc::fcntl(descriptor, libc::F_SETFD, 0) < 0
        {
            fail(STEP_PROCESS);
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
        // Rust's runtime ignores it; programs expect to be ended by it.
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        if libc::chdir(plan.cwd.as_ptr()) < 0 {
            fail(STEP_DIRECTORY);
        }
        libc::execve(plan.program.as_ptr(), plan.argv, plan.envp);
        fail(STEP_PROGRAM)
    }
}

/// A pipe whose ends are not inherited.
pub fn pipe() -> io::Result<(File, File)> {
    let mut ends = [0; 2];
    // SAFETY: `ends` has room for two descriptors.
    if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the two descriptors are new and belong to nobody else.
    Ok(unsafe { (File::from_raw_fd(ends[0]), File::from_raw_fd(ends[1])) })
}

/// A file in memory, read from its beginning by whoever opens it.
pub fn memory_file(content: &[u8]) -> io::Result<OwnedFd> {
    // SAFETY: the name is a C string.
    let descriptor = unsafe { libc::memfd_create(c"orchestrator".as_ptr(), libc::MFD_CLOEXEC) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and belongs to nobody else.
    let mut file = unsafe { File::from_raw_fd(descriptor) };
    file.write_all(content)?;
    io::Seek::rewind(&mut file)?;
    Ok(file.into())
}

/// Makes this process the parent of orphans among its descendants.
pub fn become_subreaper() -> io::Result<()> {
    // SAFETY: a system call without pointers.
    match unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
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

fn reap(pid: i32) {
    // SAFETY: no status is asked for.
    unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
}

/// Sends a signal; a process that is gone is no error.
pub fn send(pid: i32, signal: i32) {
    // SAFETY: a system call without pointers.
    unsafe { libc::kill(pid, signal) };
}

/// All living descendants of a process, by walking `/proc`.
pub fn descendants(ancestor: i32) -> BTreeSet<i32> {
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for (pid, stat) in processes() {
        if let Some(parent) = stat_field(&stat, 4).and_then(|parent| i32::try_from(parent).ok()) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = BTreeSet::new();
    let mut open = vec![ancestor];
    while let Some(parent) = open.pop() {
        for child in children.get(&parent).into_iter().flatten() {
            if found.insert(*child) {
                open.push(*child);
            }
        }
    }
    found
}

/// Living processes with what `/proc/PID/stat` says of them; zombies are not alive.
pub fn processes() -> Vec<(i32, String)> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let read = entries.filter_map(|entry| {
        let pid = entry.ok()?.file_name().to_str()?.parse::<i32>().ok()?;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let state = stat.rsplit_once(") ")?.1.as_bytes().first().copied()?;
        (!matches!(state, b'Z' | b'X')).then_some((pid, stat))
    });
    read.collect()
}

/// Living processes whose environment holds all of these variables.
pub fn with_environment(variables: &[(&str, &str)]) -> Vec<i32> {
    let wanted: Vec<Vec<u8>> =
        variables.iter().map(|(name, value)| format!("{name}={value}").into_bytes()).collect();
    let holds = |pid: i32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        wanted.iter().all(|wanted| environment.split(|byte| *byte == 0).any(|variable| variable == wanted))
    };
    processes().into_iter().map(|(pid, _)| pid).filter(|pid| holds(*pid)).collect()
}

/// Reserves room in a file, where the filesystem can.
pub fn reserve(file: &File, bytes: i64) {
    // SAFETY: a system call without pointers. Where it is not possible, it is not needed either.
    unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, bytes) };
}
