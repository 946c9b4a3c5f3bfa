//! Ending what a lost attempt has left behind.
//!
//! The script itself died with its runner; what it had started did not. That is found in the attempt's
//! cgroup where there was one, in the script's session, by the task's variables in the environment, and
//! among the descendants of all of these. Only what has left its session, its parents and its
//! environment behind escapes, where there is no cgroup.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, pidfd_send_signal};

use super::{CHILD, ScriptProcess, cgroup_name};
use crate::files;
use crate::identity::{self, ProcessIdentity};
use crate::process::{self, Cgroup, Member};
use crate::spec::{self, Spec};

/// How long it may take. A process that waits for a broken disk ends when it may.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long one process is waited for before all are looked for again.
const ROUND: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
/// Between two looks, where there is none to wait for.
const PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 2_000_000 };

/// Ends it, and returns once nothing of it is alive. How many processes there were.
pub(super) fn kill(directory: &Path) -> io::Result<usize> {
    let Some(spec) = files::read::<Spec>(&directory.join(spec::FILE))? else { return Ok(0) };
    let script = files::read::<ScriptProcess>(&directory.join(CHILD))?;
    // The numbers of another boot or namespace mean nothing here.
    let script = script.filter(|script| identity::is_here(&script.identity));
    let cgroup = match &script {
        Some(script) => script.cgroup.clone().and_then(Cgroup::at),
        // The runner may have been killed before it noted it.
        None => Cgroup::find(&cgroup_name(&spec)),
    };
    let deadline = Instant::now() + PATIENCE;
    let mut killed = BTreeSet::new();
    loop {
        let left = find(&spec, script.as_ref(), cgroup.as_ref());
        if left.is_empty() && cgroup.as_ref().is_none_or(Cgroup::is_empty) {
            break;
        }
        if Instant::now() >= deadline {
            let pids: Vec<String> = left.iter().map(|member| member.pid.to_string()).collect();
            let message = format!("processes that the attempt left cannot be ended: {}", pids.join(", "));
            return Err(io::Error::new(io::ErrorKind::TimedOut, message));
        }
        if let Some(cgroup) = &cgroup {
            // Those outside of it are ended one by one; so are all where it cannot be done at once.
            let _ = cgroup.kill();
        }
        let descriptors: Vec<OwnedFd> = left.iter().filter_map(Member::open).collect();
        for descriptor in &descriptors {
            // It may end in this moment.
            let _ = pidfd_send_signal(descriptor, Signal::KILL);
        }
        killed.extend(left);
        if descriptors.is_empty() {
            // They are ending; the kernel has not yet taken note of it.
            let _ = poll(&mut [], Some(&PAUSE));
        }
        for descriptor in descriptors {
            let mut polled = [PollFd::new(&descriptor, PollFlags::IN)];
            // Gone or not: the next look tells.
            let _ = poll(&mut polled, Some(&ROUND));
        }
    }
    if let Some(cgroup) = cgroup {
        cgroup.remove();
    }
    Ok(killed.len())
}

fn find(spec: &Spec, script: Option<&ScriptProcess>, cgroup: Option<&Cgroup>) -> BTreeSet<Member> {
    let all = process::members();
    let fence = spec.fence.to_string();
    let variables = [("ORCHESTRATOR_TASK_ID", spec.task_id.as_str()), ("ORCHESTRATOR_FENCE", fence.as_str())];
    let mut found: BTreeSet<Member> = process::with_environment(&all, &variables).into_iter().collect();
    found.extend(cgroup.into_iter().flat_map(Cgroup::members));
    found.extend(script.into_iter().flat_map(|script| session(&all, &script.identity)));
    let below = process::descendants(&all, found.iter().map(|member| member.pid));
    found.extend(below);
    // An engine that was itself started by a task must not end itself.
    let own = rustix::process::getpid().as_raw_nonzero().get();
    found.retain(|member| member.pid != own);
    found
}

/// The members of a session, unless its number was given to a later one. It is not while the session
/// has members.
fn session(all: &[Member], leader: &ProcessIdentity) -> Vec<Member> {
    let is_stolen =
        all.iter().any(|member| member.pid == leader.pid && member.start_time != leader.start_time);
    let is_member = |member: &&Member| {
        !is_stolen && member.session == leader.pid && member.start_time >= leader.start_time
    };
    all.iter().filter(is_member).copied().collect()
}
