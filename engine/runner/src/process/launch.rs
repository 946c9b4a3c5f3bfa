//! From a clone to the program's first instruction.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use super::cgroup::Cgroup;

/// What a program is started with.
pub struct Launch {
    /// The program's path, or a name that is looked for in the `PATH` of `env`.
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

impl Launch {
    /// The file to run. A name without a slash is never looked for in the working directory.
    fn executable(&self) -> io::Result<PathBuf> {
        if self.program.contains('/') {
            return Ok(PathBuf::from(&self.program));
        }
        let path = self.env.iter().find(|(name, _)| name == "PATH").map_or("", |(_, value)| value);
        let found = std::env::split_paths(path)
            .filter(|directory| directory.is_absolute())
            .map(|directory| directory.join(&self.program))
            .find(|candidate| {
                rustix::fs::access(candidate, rustix::fs::Access::EXEC_OK).is_ok() && candidate.is_file()
            });
        found.ok_or_else(|| {
            let message =
                format!("the program {} cannot be used: it is not in PATH, which is '{path}'", self.program);
            io::Error::new(io::ErrorKind::NotFound, message)
        })
    }
}

/// Starts a program in a session of its own. It ends with this process. It must be called while this
/// process has one thread. Whether the program is in the cgroup is told besides its number: a cgroup
/// that exists may still refuse it.
///
/// # Errors
/// Those of the system, also of what the child does before the program: a missing directory or
/// program.
pub fn start(launch: Launch, cgroup: Option<&Cgroup>) -> io::Result<(i32, bool)> {
    let executable = launch.executable()?;
    let text = |what: &str, text: &str| {
        CString::new(text)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, format!("{what} holds a NUL byte")))
    };
    let program = text("the program's path", &executable.to_string_lossy())?;
    let mut arguments = vec![text("the program's name", &launch.program)?];
    for argument in &launch.args {
        arguments.push(text("an argument", argument)?);
    }
    let mut environment = Vec::with_capacity(launch.env.len());
    for (name, value) in &launch.env {
        environment.push(text(&format!("the variable {name}"), &format!("{name}={value}"))?);
    }
    let cwd = text("the working directory", &launch.cwd)?;
    let pointers = |strings: &[CString]| -> Vec<*const libc::c_char> {
        strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (argv, envp) = (pointers(&arguments), pointers(&environment));
    let (report_reader, report_writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
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
    let (pid, is_in_cgroup) = match directory.as_ref().map(|directory| fork(Some(directory.as_raw_fd()))) {
        Some(Ok(pid)) => (pid, true),
        Some(Err(_)) | None => (fork(None)?, false),
    };
    if pid == 0 {
        // SAFETY: this is the child of a process with one thread, and `plan` holds what it needs.
        unsafe { become_program(&plan) }
    }
    drop(report_writer);
    let mut report = Vec::new();
    File::from(report_reader).read_to_end(&mut report)?;
    let Ok([s0, s1, s2, s3, e0, e1, e2, e3]) = <[u8; 8]>::try_from(report) else {
        // Nothing to report: it is the program now, or it was ended before.
        return Ok((pid, is_in_cgroup));
    };
    let (step, errno) = (i32::from_ne_bytes([s0, s1, s2, s3]), i32::from_ne_bytes([e0, e1, e2, e3]));
    // SAFETY: no status is asked for.
    unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
    Err(describe(&launch, &executable, step, io::Error::from_raw_os_error(errno)))
}

fn describe(launch: &Launch, executable: &Path, step: i32, error: io::Error) -> io::Error {
    let what = match step {
        STEP_DIRECTORY => format!("the working directory {}", launch.cwd),
        STEP_PROGRAM => format!("the program {}", launch.program),
        _ => "the process".to_owned(),
    };
    let file = Path::new(&launch.cwd).join(executable);
    let why = match (step, error.raw_os_error()) {
        (STEP_PROGRAM, Some(libc::ENOENT)) if file.exists() => {
            "the interpreter that its first line names does not exist".to_owned()
        }
        (STEP_PROGRAM, Some(libc::ENOEXEC)) => {
            "it is neither a program nor a script whose first line names its interpreter, such as #!/bin/sh"
                .to_owned()
        }
        (STEP_PROGRAM, Some(libc::EACCES)) if file.is_file() => format!("{error}: is it executable?"),
        _ => error.to_string(),
    };
    io::Error::new(error.kind(), format!("{what} cannot be used: {why}"))
}

const STEP_PROCESS: i32 = 1;
const STEP_DIRECTORY: i32 = 2;
const STEP_PROGRAM: i32 = 3;
/// The highest number of a signal.
const LAST_SIGNAL: i32 = 64;

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
        // Rust's runtime ignores SIGPIPE, and whoever started the engine may have had more ignored;
        // what is ignored stays so in a new program. Those that cannot be set are refused.
        // The library's function refuses the two that it uses itself.
        let default = [0_u64; 4];
        for signal in 1..=LAST_SIGNAL {
            let none: *mut u64 = std::ptr::null_mut();
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), none, size_of::<u64>());
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
        if libc::chdir(plan.cwd.as_ptr()) < 0 {
            fail(STEP_DIRECTORY);
        }
        libc::execve(plan.program.as_ptr(), plan.argv, plan.envp);
        fail(STEP_PROGRAM)
    }
}
