//! Which names are accepted at the door, before anything is queued.
//!
//! Names travel into command lines, container names, host names and file names. So the door takes
//! only names that cannot be anything else there: `--x;^rm` is refused here, not escaped later.

/// A name that was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{name}' is not a valid {what}: {rule}")]
pub struct InvalidName {
    /// What it was to name, such as "server name".
    pub what: &'static str,
    /// The name.
    pub name: String,
    /// What is allowed.
    pub rule: &'static str,
}

/// Checks a DNS label (RFC 1123): what names a server, a cluster, an infra.
pub fn dns_label(what: &'static str, name: &str) -> Result<(), InvalidName> {
    let bytes = name.as_bytes();
    let edge = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let valid = bytes.len() <= 63
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-');
    if valid {
        return Ok(());
    }
    Err(InvalidName {
        what,
        name: name.to_owned(),
        rule: "use 1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or a digit",
    })
}

/// Checks a word: what names a task, a group, a lock or a label. Letters and digits of any script,
/// and `. _ - / : @ + =` and blanks inside; at most 200 bytes.
pub fn word(what: &'static str, name: &str) -> Result<(), InvalidName> {
    let inside = |c: char| c.is_alphanumeric() || "._-/:@+= ".contains(c);
    let edges = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    let valid =
        name.len() <= 200 && edges(name.chars().next()) && !name.ends_with(' ') && name.chars().all(inside);
    if valid {
        return Ok(());
    }
    Err(InvalidName {
        what,
        name: name.to_owned(),
        rule: "use up to 200 bytes of letters, digits, blanks and . _ - / : @ + =, beginning with a letter or a digit",
    })
}

/// Checks the name of an environment variable that a submitter chooses.
pub fn environment_variable(name: &str) -> Result<(), InvalidName> {
    let invalid = |rule| InvalidName { what: "environment variable", name: name.to_owned(), rule };
    let letters = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) || !name.chars().all(letters) {
        return Err(invalid("use letters, digits and '_', not beginning with a digit"));
    }
    if name.starts_with("ORCHESTRATOR_") {
        return Err(invalid("names that begin with ORCHESTRATOR_ are set by the engine"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hostile_server_names_are_refused() {
        for name in ["--x;^rm", "", "-a", "a-", "A", "web_01", "web.01", "a b", "ä", &"a".repeat(64)] {
            assert!(dns_label("server name", name).is_err(), "{name:?} was accepted");
        }
        for name in ["web-01", "a", "0", &"a".repeat(63)] {
            assert_eq!(dns_label("server name", name), Ok(()));
        }
    }

    proptest! {
        #[test]
        fn an_accepted_word_can_be_neither_a_flag_nor_a_control_sequence(name in ".{0,30}") {
            if word("task name", &name).is_ok() {
                prop_assert!(!name.starts_with('-'));
                prop_assert!(!name.chars().any(char::is_control));
            }
        }
    }
}
