//! Which limits a daemon keeps.
//!
//! Docker takes limits that it then does not keep: the kernel's are discarded with a warning in the answer
//! to the call that makes a container (`verifyPlatformContainerResources` in `daemon/daemon_unix.go`), and
//! the size of a container's file system is only known to some storage drivers. Neither may pass silently.

use crate::containers::ContainerSpec;

/// What is known about limits of the size of a container's file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskLimits {
    /// They are kept.
    Kept,
    /// They are kept or refused, never ignored: only a trial tells which.
    Tried,
    /// They are not kept, for this reason.
    Not(String),
}

/// Judges a storage driver by its name and by what the daemon says of it, as pairs of words.
///
/// `overlay2` keeps them over xfs that is mounted with `pquota`, and refuses them elsewhere; `btrfs` and `zfs`
/// always do, and count the image too
/// (<https://docs.docker.com/reference/cli/docker/container/run/#storage-opt>). The image store of
/// containerd, the default of a fresh Engine 29, takes them and does nothing.
pub fn disk_limits(driver: &str, status: &[Vec<String>]) -> DiskLimits {
    let said = |key: &str| {
        let pair = status.iter().find(|pair| pair.first().is_some_and(|word| word == key));
        pair.and_then(|pair| pair.get(1)).map(String::as_str)
    };
    if said("driver-type").is_some_and(|kind| kind.starts_with("io.containerd.")) {
        return DiskLimits::Not("Docker keeps images in containerd, which ignores the limit".into());
    }
    match (driver, said("Backing Filesystem")) {
        ("btrfs" | "zfs", _) => DiskLimits::Kept,
        ("overlay2", Some("xfs")) => DiskLimits::Tried,
        ("overlay2", Some(below)) => DiskLimits::Not(format!(
            "Docker's storage driver overlay2 keeps it only over xfs that is mounted with pquota, and here it is over {below}"
        )),
        _ => DiskLimits::Not(format!("Docker's storage driver {driver} does not keep it")),
    }
}

/// The first limit of `spec` that the daemon says it has dropped, with its words.
pub fn dropped(spec: &ContainerSpec, warnings: &[String]) -> Option<String> {
    let limits = [
        ("memory_mb", spec.memory_mb.is_some(), &["memory limit", "memory limited", "swap limit"][..]),
        ("cpu_millicores", spec.cpu_millicores.is_some(), &["cpu"]),
        ("max_processes", spec.max_processes.is_some(), &["pids", "process"]),
        ("disk_mb", spec.disk_mb.is_some(), &["storage-opt", "storage opt", "quota size"]),
    ];
    let drops = |warning: &&String| {
        let words = warning.to_lowercase();
        ["does not support", "not supported", "discarded", "without swap"]
            .iter()
            .any(|sign| words.contains(sign))
    };
    warnings.iter().filter(drops).find_map(|warning| {
        let words = warning.to_lowercase();
        let named = |signs: &[&str]| signs.iter().any(|sign| words.contains(sign));
        let limit = limits.iter().find(|(_, asked, signs)| *asked && named(signs));
        limit.map(|(name, ..)| format!("{name} cannot be enforced on this machine: {warning}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(pairs: &[(&str, &str)]) -> Vec<Vec<String>> {
        pairs.iter().map(|(key, value)| vec![(*key).to_owned(), (*value).to_owned()]).collect()
    }

    #[test]
    fn only_drivers_that_keep_a_size_are_believed() {
        let containerd = status(&[("driver-type", "io.containerd.snapshotter.v1")]);
        assert!(matches!(disk_limits("overlayfs", &containerd), DiskLimits::Not(_)));
        assert!(matches!(disk_limits("btrfs", &containerd), DiskLimits::Not(_)));
        assert_eq!(disk_limits("btrfs", &[]), DiskLimits::Kept);
        assert_eq!(disk_limits("zfs", &status(&[("Zpool", "tank")])), DiskLimits::Kept);
        assert_eq!(disk_limits("overlay2", &status(&[("Backing Filesystem", "xfs")])), DiskLimits::Tried);
        let over_ext = disk_limits("overlay2", &status(&[("Backing Filesystem", "extfs")]));
        assert!(matches!(over_ext, DiskLimits::Not(reason) if reason.contains("extfs")));
        assert!(matches!(disk_limits("vfs", &[vec!["odd".into()]]), DiskLimits::Not(_)));
    }

    #[test]
    fn a_dropped_limit_is_named_and_other_warnings_are_not() {
        let all = ContainerSpec {
            cpu_millicores: Some(500),
            memory_mb: Some(64),
            max_processes: Some(9),
            ..ContainerSpec::default()
        };
        // The words of Docker 20.10 to 29.
        let cases = [
            (
                "Your kernel does not support memory limit capabilities or the cgroup is not mounted. Limitation discarded.",
                Some("memory_mb"),
            ),
            (
                "Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited without swap.",
                Some("memory_mb"),
            ),
            (
                "Your kernel does not support CPU CFS scheduler. CPU period/quota discarded.",
                Some("cpu_millicores"),
            ),
            (
                "Your kernel does not support CPU cfs quota or the cgroup is not mounted. Quota discarded.",
                Some("cpu_millicores"),
            ),
            (
                "Your kernel does not support PIDs limit capabilities or the cgroup is not mounted. PIDs limit discarded.",
                Some("max_processes"),
            ),
            ("IPv4 forwarding is disabled. Networking will not work.", None),
            (
                "The requested image's platform (linux/arm64) does not match the detected host platform (linux/amd64)",
                None,
            ),
        ];
        for (warning, limit) in cases {
            let warnings = [String::from("something else"), warning.to_owned()];
            let found = dropped(&all, &warnings);
            assert_eq!(found.is_some(), limit.is_some(), "{warning}: {found:?}");
            if let (Some(found), Some(limit)) = (found, limit) {
                assert!(found.starts_with(limit) && found.ends_with(warning), "{found}");
            }
            assert_eq!(dropped(&ContainerSpec::default(), &warnings), None, "nobody asked for a limit");
        }
    }
}
