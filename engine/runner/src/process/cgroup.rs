//! A control group of version 2 for what an attempt starts: whatever is forked in it stays in it, and
//! all of it can be ended at once.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::table::{Member, member};

/// A control group.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Makes one below this process's own; `None` where that is not possible.
    pub fn create(name: &str) -> Option<Self> {
        let path = own()?.join(name);
        fs::create_dir(&path).ok()?;
        Some(Self { path })
    }

    /// One that is there, by its path.
    pub fn at(path: PathBuf) -> Option<Self> {
        path.join("cgroup.procs").exists().then_some(Self { path })
    }

    /// One that is there below this process's own.
    pub fn find(name: &str) -> Option<Self> {
        Self::at(own()?.join(name))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether nothing in it is alive, nor in a group below it.
    pub fn is_empty(&self) -> bool {
        let events = fs::read_to_string(self.path.join("cgroup.events")).unwrap_or_default();
        !events.lines().any(|line| line == "populated 1")
    }

    /// Its processes, and those of the groups below it.
    pub fn members(&self) -> Vec<Member> {
        self.tree()
            .iter()
            .flat_map(|path| {
                let text = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
                text.lines().filter_map(|line| member(line.parse().ok()?)).collect::<Vec<_>>()
            })
            .collect()
    }

    /// Ends all of its processes at once, also those that are being forked.
    ///
    /// # Errors
    /// Before Linux 5.14 there is no such thing.
    pub fn kill(&self) -> io::Result<()> {
        fs::write(self.path.join("cgroup.kill"), "1")
    }

    /// Removes it, once it is empty.
    pub fn remove(&self) {
        for path in self.tree().iter().rev() {
            // What cannot be removed now is empty and costs nothing.
            let _ = fs::remove_dir(path);
        }
    }

    /// It and the groups below it, each before those below.
    fn tree(&self) -> Vec<PathBuf> {
        let mut tree = vec![self.path.clone()];
        let mut next = 0;
        while let Some(path) = tree.get(next).cloned() {
            next += 1;
            let entries = fs::read_dir(path).into_iter().flatten().flatten();
            tree.extend(
                entries
                    .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                    .map(|entry| entry.path()),
            );
        }
        tree
    }
}

/// The directory of this process's own group.
fn own() -> Option<PathBuf> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    locate(&groups, &mounts)
}

/// Where a group is, from `/proc/self/cgroup` and `/proc/self/mountinfo`, see cgroups(7) and proc(5).
fn locate(groups: &str, mounts: &str) -> Option<PathBuf> {
    let own = Path::new(groups.lines().find_map(|line| line.strip_prefix("0::"))?);
    if own.components().any(|part| part == std::path::Component::ParentDir) {
        // Outside of what this process can see.
        return None;
    }
    mounts.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        if right.split(' ').next() != Some("cgroup2") {
            return None;
        }
        let mut fields = left.split(' ').skip(3);
        let (root, point) = (unescape(fields.next()?), unescape(fields.next()?));
        Some(Path::new(&point).join(own.strip_prefix(root).ok()?))
    })
}

/// Octal escapes, as `mountinfo` writes white space.
fn unescape(field: &str) -> String {
    ["\\040", "\\011", "\\012", "\\134"]
        .iter()
        .zip([" ", "\t", "\n", "\\"])
        .fold(field.to_owned(), |text, (escape, character)| text.replace(escape, character))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_group_is_found_where_it_is_mounted() {
        let mounts = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
            41 31 0:38 / /sys/fs/cgroup/my\\040unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n";
        let at = |groups: &str, mounts: &str| locate(groups, mounts).map(|path| path.display().to_string());
        assert_eq!(at("4:memory:/x\n0::/a/b\n", mounts).as_deref(), Some("/sys/fs/cgroup/my unified/a/b"));
        assert_eq!(at("0::/../other\n", mounts), None);
        assert_eq!(at("4:memory:/x\n", mounts), None);
        let part = "41 31 0:38 /docker/1 /sys/fs/cgroup rw - cgroup2 cgroup rw\n";
        assert_eq!(at("0::/docker/1/c\n", part).as_deref(), Some("/sys/fs/cgroup/c"));
        assert_eq!(at("0::/elsewhere\n", part), None);
    }
}
