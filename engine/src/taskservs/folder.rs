//! The files of a taskserv: their digest, and the archive that is unpacked where they are needed.
//!
//! Both know a file by its name below the folder and by its content, and a symbolic link by what it says;
//! nothing outside of the folder is ever read. Owners, times and modes are not part of it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::queue::submit::hex;

/// What a name in the folder is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Entry {
    File,
    Link(String),
}

/// The SHA-256 of all files, in hexadecimal.
pub(super) fn digest(folder: &Path) -> io::Result<String> {
    let mut whole = Sha256::new();
    for (name, entry) in entries(folder)? {
        let mut content = Sha256::new();
        match &entry {
            Entry::File => add_file(&mut content, &folder.join(&name))?,
            Entry::Link(target) => content.update(target.as_bytes()),
        }
        add(&mut whole, &name, &entry, content);
    }
    Ok(hex(&whole.finalize()))
}

/// All files as a tar archive, and their digest. The same files always give the same bytes. Every file
/// may be executed, since modes do not count.
pub(super) fn archive(folder: &Path) -> io::Result<(Vec<u8>, String)> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut whole = Sha256::new();
    for (name, entry) in entries(folder)? {
        let mut content = Sha256::new();
        match &entry {
            Entry::File => {
                let bytes = fs::read(folder.join(&name))?;
                content.update(&bytes);
                let mut header = header(tar::EntryType::Regular);
                header.set_size(bytes.len() as u64);
                archive.append_data(&mut header, &name, &bytes[..])?;
            }
            Entry::Link(target) => {
                content.update(target.as_bytes());
                archive.append_link(&mut header(tar::EntryType::Symlink), &name, target)?;
            }
        }
        add(&mut whole, &name, &entry, content);
    }
    Ok((archive.into_inner()?, hex(&whole.finalize())))
}

fn header(kind: tar::EntryType) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(0o755);
    header.set_mtime(0);
    header.set_size(0);
    header
}

/// Adds an entry to the digest. A name holds no NUL and a digest has one length, so that two different
/// lists of entries never look the same.
fn add(whole: &mut Sha256, name: &str, entry: &Entry, content: Sha256) {
    whole.update(if *entry == Entry::File { b"file\0" } else { b"link\0" });
    whole.update(name.as_bytes());
    whole.update([0]);
    whole.update(content.finalize());
}

/// Adds a file's bytes to a digest, a piece at a time: a folder may hold what is to be installed.
fn add_file(digest: &mut Sha256, path: &Path) -> io::Result<()> {
    let mut file = BufReader::new(File::open(path)?);
    loop {
        let bytes = file.fill_buf()?;
        if bytes.is_empty() {
            return Ok(());
        }
        digest.update(bytes);
        let read = bytes.len();
        file.consume(read);
    }
}

/// The entries below a folder by their names, with `/` between the parts.
fn entries(folder: &Path) -> io::Result<BTreeMap<String, Entry>> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![(folder.to_owned(), String::new())];
    while let Some((directory, prefix)) = waiting.pop() {
        for entry in fs::read_dir(&directory)? {
            let path = entry?.path();
            let name = format!("{prefix}{}", file_name(&path)?);
            let kind = fs::symlink_metadata(&path)?.file_type();
            if kind.is_dir() {
                waiting.push((path, format!("{name}/")));
            } else if kind.is_symlink() {
                let target = fs::read_link(&path)?;
                found.insert(name, Entry::Link(utf8(&target, &path)?));
            } else if kind.is_file() {
                found.insert(name, Entry::File);
            } else {
                return Err(refuse(&path, "it is neither a file nor a folder nor a symbolic link"));
            }
        }
    }
    Ok(found)
}

fn file_name(path: &Path) -> io::Result<String> {
    utf8(&path.file_name().map(PathBuf::from).unwrap_or_default(), path)
}

fn utf8(text: &Path, path: &Path) -> io::Result<String> {
    text.to_str().map(String::from).ok_or_else(|| refuse(path, "its name is not UTF-8"))
}

fn refuse(path: &Path, problem: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{}: {problem}", path.display()))
}
