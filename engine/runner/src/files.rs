//! Small files, written whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Creates a file for its owner alone; it must not exist.
pub fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
}

/// A value with the version of the protocol that it is written in.
#[derive(Serialize)]
struct Versioned<'a, T> {
    protocol: u32,
    #[serde(flatten)]
    value: &'a T,
}

/// Puts a JSON object in its place at once, with the protocol's version in it. Not synced: after a
/// power cut it may be missing.
pub fn replace<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    replace_bytes(path, &encode(value)?)
}

/// A value as the content of a file.
pub(crate) fn encode<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    Ok(serde_json::to_vec(&Versioned { protocol: crate::PROTOCOL, value })?)
}

/// Puts a file in its place at once.
pub(crate) fn replace_bytes(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let scratch = path.with_extension("tmp");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&scratch)?;
    file.write_all(bytes)?;
    fs::rename(&scratch, path)
}

/// Reads a JSON file; `None` where there is none.
pub fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let invalid = |message: String| {
        io::Error::new(io::ErrorKind::InvalidData, format!("{}: {message}", path.display()))
    };
    let value: serde_json::Value =
        serde_json::from_slice(&bytes).map_err(|error| invalid(error.to_string()))?;
    match value.get("protocol").and_then(serde_json::Value::as_u64) {
        Some(protocol) if protocol > u64::from(crate::PROTOCOL) => Err(invalid(format!(
            "it was written by a newer release: its protocol is {protocol}, and this release knows {}",
            crate::PROTOCOL
        ))),
        _ => serde_json::from_value(value).map(Some).map_err(|error| invalid(error.to_string())),
    }
}
