//! The process table, as `/proc` shows it.
//!
//! A number of a process may be given to another one at any time, so a process is signalled through a
//! descriptor of it, and only if it started when the one that is meant did.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::identity::stat_field;

/// A living process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    /// Its number.
    pub pid: i32,
    /// When it started, in clock ticks since boot.
    pub start_time: u64,
    /// Its parent's number.
    pub parent: i32,
    /// Its session's number.
    pub session: i32,
}

impl Member {
    /// A descriptor of it that is readable when it is gone; `None` when it is gone already.
    pub fn open(&self) -> Option<OwnedFd> {
        let descriptor = pidfd_open(Pid::from_raw(self.pid)?, PidfdFlags::empty()).ok()?;
        let now = member(self.pid)?;
        (now.start_time == self.start_time).then_some(descriptor)
    }

    /// Sends it a signal; nothing happens when it is gone.
    pub fn send(&self, signal: Signal) {
        if let Some(descriptor) = self.open() {
            // It may end in this moment.
            let _ = pidfd_send_signal(descriptor, signal);
        }
    }
}

/// A process, if it is alive; a zombie is not.
pub fn member(pid: i32) -> Option<Member> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let state = stat.rsplit_once(") ")?.1.as_bytes().first().copied()?;
    let number = |field| i32::try_from(stat_field(&stat, field)?).ok();
    let member = Member { pid, start_time: stat_field(&stat, 22)?, parent: number(4)?, session: number(6)? };
    (!matches!(state, b'Z' | b'X')).then_some(member)
}

/// All living processes.
pub fn members() -> Vec<Member> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.filter_map(|entry| member(entry.ok()?.file_name().to_str()?.parse().ok()?)).collect()
}

/// Those of `members` that descend from one of `ancestors`, without these.
pub fn descendants(members: &[Member], ancestors: impl IntoIterator<Item = i32>) -> BTreeSet<Member> {
    let mut children: BTreeMap<i32, Vec<Member>> = BTreeMap::new();
    for member in members {
        children.entry(member.parent).or_default().push(*member);
    }
    let mut found = BTreeSet::new();
    let mut open: Vec<i32> = ancestors.into_iter().collect();
    while let Some(parent) = open.pop() {
        for child in children.get(&parent).into_iter().flatten() {
            if found.insert(*child) {
                open.push(child.pid);
            }
        }
    }
    found
}

/// Those of `members` whose environment, as it was when their program started, holds all of these
/// variables.
pub fn with_environment(members: &[Member], variables: &[(&str, &str)]) -> Vec<Member> {
    let wanted: Vec<Vec<u8>> =
        variables.iter().map(|(name, value)| format!("{name}={value}").into_bytes()).collect();
    let holds = |member: &&Member| {
        let environment = fs::read(format!("/proc/{}/environ", member.pid)).unwrap_or_default();
        wanted.iter().all(|wanted| environment.split(|byte| *byte == 0).any(|variable| variable == wanted))
    };
    members.iter().filter(holds).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descendants_are_found_through_generations() {
        let member = |pid, parent| Member { pid, start_time: 1, parent, session: 1 };
        let all = [member(1, 0), member(5, 4), member(4, 2), member(2, 1), member(3, 1), member(6, 3)];
        let pids: Vec<i32> = descendants(&all, [2]).iter().map(|member| member.pid).collect();
        assert_eq!(pids, [4, 5]);
        assert_eq!(descendants(&all, [2, 3]).len(), 3);
        assert_eq!(descendants(&all, [6]).len(), 0);
    }

    #[test]
    fn a_process_that_started_at_another_time_is_another_one() {
        let own = i32::try_from(std::process::id()).unwrap_or_default();
        let found = member(own).filter(|member| member.open().is_some());
        assert!(found.is_some_and(|member| Member { start_time: 1, ..member }.open().is_none()));
    }
}
