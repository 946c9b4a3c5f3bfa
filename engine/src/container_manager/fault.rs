//! What it means when a call does not succeed.

use crate::containers::ContainerError;

/// A call that did not succeed, before it is said what it was for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// There was no answer.
    Away(String),
    /// An answer with this status of HTTP, and the daemon's words.
    Answer(u16, String),
    /// An answer that could not be read, or a request that could not be made.
    Other(String),
}

/// What a call was for.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// `container`, `network`, `volume` or `image`.
    pub what: &'static str,
    /// Which.
    pub name: &'a str,
    /// What was done to it, such as `to start the container`.
    pub doing: &'static str,
}

impl Fault {
    /// Whether there is no such thing.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Answer(404, _))
    }

    /// Whether the daemon's words have this in them, in capitals or not.
    pub fn says(&self, words: &str) -> bool {
        matches!(self, Self::Answer(_, said) if said.to_lowercase().contains(words))
    }

    /// The error of a call for `subject`, at the daemon at `at`.
    pub fn into_error(self, at: &str, subject: Subject<'_>) -> ContainerError {
        let Subject { what, name, doing } = subject;
        let not_found = |what| ContainerError::NotFound { what, name: name.to_owned() };
        match self {
            Self::Away(reason) => ContainerError::Away { at: at.to_owned(), reason },
            // The call that makes a container says 404 of its image, and starting it of its network.
            Self::Answer(404, said) if what == "container" && said.contains("network") => {
                refused(doing, name, said)
            }
            Self::Answer(404, said) if said.contains("Could not find the file") => refused(doing, name, said),
            Self::Answer(404, _) => not_found(what),
            // Docker says 409, Podman 500.
            Self::Answer(409 | 500, said)
                if said.contains("already in use by") || said.contains("already exists") =>
            {
                ContainerError::Exists { what, name: name.to_owned() }
            }
            Self::Answer(501, said) => ContainerError::Unsupported(said),
            Self::Answer(_, said) if said.contains("storage-opt") || said.contains("storage opt") => {
                ContainerError::Unsupported(format!("disk_mb cannot be enforced on this machine: {said}"))
            }
            // The image counts too on btrfs, and is larger than the limit.
            Self::Answer(_, said) if said.contains("qgroup") => {
                ContainerError::Unsupported(format!("disk_mb is too small for the image: {said}"))
            }
            Self::Answer(_, said) | Self::Other(said) => refused(doing, name, said),
        }
    }
}

fn refused(doing: &str, name: &str, reason: String) -> ContainerError {
    ContainerError::Refused { doing: format!("{doing} '{name}'"), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(status: u16, said: &str) -> ContainerError {
        let subject = Subject { what: "container", name: "web", doing: "to make the container" };
        Fault::Answer(status, said.into()).into_error("unix:///x", subject)
    }

    #[test]
    fn statuses_and_words_become_errors() {
        assert!(matches!(
            error(404, "No such container: web"),
            ContainerError::NotFound { what: "container", .. }
        ));
        assert!(matches!(error(404, "network lost not found"), ContainerError::Refused { .. }));
        assert!(matches!(
            error(409, "Conflict. The container name \"/web\" is already in use by container \"ab\"."),
            ContainerError::Exists { what: "container", .. }
        ));
        for podmans in [
            "the container name \"web\" is already in use by ab",
            "network name n already used: network already exists",
        ] {
            assert!(matches!(error(500, podmans), ContainerError::Exists { .. }), "{podmans}");
        }
        assert!(matches!(error(409, "Container ab is not running"), ContainerError::Refused { .. }));
        assert!(matches!(error(501, "not implemented"), ContainerError::Unsupported(_)));
        let size = "--storage-opt is supported only for overlay over xfs with 'pquota' mount option";
        assert!(matches!(error(500, size), ContainerError::Unsupported(_)));
        let smaller = error(500, "Failed to limit qgroup for &{}: disk quota exceeded");
        assert!(
            matches!(smaller, ContainerError::Unsupported(words) if words.starts_with("disk_mb is too small"))
        );
        assert_eq!(error(500, "boom").to_string(), "Docker refused to make the container 'web': boom");
    }

    #[test]
    fn no_answer_says_where_it_was_looked_for() {
        let subject = Subject { what: "image", name: "x", doing: "to look at the image" };
        let error = Fault::Away("connection refused".into()).into_error("tcp://b:1", subject);
        assert_eq!(error.to_string(), "Docker cannot be reached at tcp://b:1: connection refused");
    }
}
