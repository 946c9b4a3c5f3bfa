//! Where the socket of an engine lies.
//!
//! One engine serves one data directory, so the socket is named by a hash of that directory's path
//! (socket paths are short), in a private directory below the user's runtime directory, or below the
//! temporary directory where there is none.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The data directory of an engine that the plugin starts: in the user's state directory.
pub fn default_data_dir() -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state =
        absolute("XDG_STATE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/state")))?;
    Some(state.join("orchestrator"))
}

/// The socket of the engine that serves a data directory, which need not exist. The same directory
/// gives the same socket however it is spelled.
pub fn socket_path(data_dir: &Path) -> io::Result<PathBuf> {
    let absolute = match data_dir.canonicalize() {
        Ok(path) => path,
        Err(error) if error.kind() == io::ErrorKind::NotFound => canonical_parent(data_dir)?,
        Err(error) => return Err(error),
    };
    let hash = fnv1a(absolute.as_os_str().as_encoded_bytes());
    Ok(runtime_directory().join(format!("{hash:016x}.sock")))
}

fn canonical_parent(path: &Path) -> io::Result<PathBuf> {
    let absolute = std::path::absolute(path)?;
    match (absolute.parent(), absolute.file_name()) {
        (Some(parent), Some(name)) => {
            let parent = parent.canonicalize().or_else(|_| canonical_parent(parent))?;
            Ok(parent.join(name))
        }
        _ => Ok(absolute),
    }
}

/// FNV-1a, 64 bit: small, stable for ever, and nobody gains by a collision in their own directory.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

fn runtime_directory() -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from) {
        Some(path) if path.is_absolute() && path.is_dir() => path.join("orchestrator"),
        _ => std::env::temp_dir().join(format!("orchestrator-{}", user_id())),
    }
}

/// The user this process acts for.
pub fn user_id() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Makes the directory of a socket, private to this user, or says why it cannot be trusted.
pub fn prepare_directory(socket: &Path) -> io::Result<()> {
    let Some(directory) = socket.parent() else { return Ok(()) };
    match DirBuilder::new().mode(0o700).create(directory) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return DirBuilder::new().mode(0o700).recursive(true).create(directory);
        }
        Err(error) => return Err(error),
    }
    let metadata = fs::symlink_metadata(directory)?;
    let private =
        metadata.is_dir() && metadata.uid() == user_id() && metadata.permissions().mode() & 0o077 == 0;
    // A socket that the user put elsewhere lies in a directory of the user's choice.
    if private
        || socket.extension().is_none_or(|extension| extension != "sock")
        || !directory.starts_with(runtime_directory())
    {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::PermissionDenied,
        format!("{} must be a directory of your own with mode 0700", directory.display()),
    ))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn one_directory_has_one_socket_however_it_is_spelled() {
        let root = tempfile::tempdir().unwrap();
        let before = socket_path(&root.path().join("./data")).unwrap();
        fs::create_dir(root.path().join("data")).unwrap();
        std::os::unix::fs::symlink("data", root.path().join("link")).unwrap();
        assert_eq!(socket_path(&root.path().join("data")).unwrap(), before);
        assert_eq!(socket_path(&root.path().join("link")).unwrap(), before);
        assert_ne!(socket_path(&root.path().join("other")).unwrap(), before);
        assert!(before.as_os_str().len() < 100, "{} is too long for a socket", before.display());
    }
}
