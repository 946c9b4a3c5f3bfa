//! Lists the files of the provisioning program and of the taskservs, which the engine carries.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// What of `nulib` is carried.
const PARTS: [&str; 2] = ["worker", "taskservs"];

fn main() -> io::Result<()> {
    let missing = |name| io::Error::other(format!("cargo does not set {name}"));
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or_else(|| missing("CARGO_MANIFEST_DIR"))?);
    let nulib = root.join("../nulib").canonicalize()?;
    let mut files = Vec::new();
    for part in PARTS {
        let part = nulib.join(part);
        println!("cargo::rerun-if-changed={}", part.display());
        collect(&part, &mut files)?;
    }
    files.sort();
    let mut list = String::from("&[\n");
    for file in files {
        let name = file.strip_prefix(&nulib).map_err(io::Error::other)?.to_string_lossy().into_owned();
        writeln!(list, "    ({name:?}, include_str!({:?})),", file.display().to_string())
            .map_err(io::Error::other)?;
    }
    list.push_str("]\n");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or_else(|| missing("OUT_DIR"))?);
    fs::write(out.join("worker_files.rs"), list)
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}
