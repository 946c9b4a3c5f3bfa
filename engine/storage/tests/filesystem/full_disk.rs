//! A full disk: simulated to the byte, and a real one.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use orchestrator_storage::filesystem::faulty_disk::FaultyDisk;
use orchestrator_storage::filesystem::{FilesystemOptions, FilesystemStore};
use orchestrator_storage::{Store, StoreError};

use super::support::{content, create, delete, eager, open, task};

/// Uses the disk up to its end.
fn to_the_end(directory: &Path) -> FilesystemOptions {
    FilesystemOptions { min_free_bytes: 0, ..eager(directory) }
}

#[tokio::test]
async fn a_full_disk_refuses_and_corrupts_nothing_at_any_byte() {
    for free in 1_000..1_300 {
        let directory = tempfile::tempdir().unwrap();
        let disk = FaultyDisk::new(free);
        let store = FilesystemStore::open_on(to_the_end(directory.path()), Arc::new(disk.clone())).unwrap();
        disk.limit_free_bytes(Some(free));
        let mut made = 0;
        let error = loop {
            match store.commit(vec![create(&format!("{made:03}"), "\"some text\"")]).await {
                Ok(_) => made += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(error, StoreError::Full { .. }), "{error}");
        assert_eq!(content(&store).await.len(), made);
        disk.limit_free_bytes(None);
        store.commit(vec![create("more", "1")]).await.unwrap();
        let before = content(&store).await;
        drop(store);
        disk.lose_power().unwrap();
        let store = open(directory.path());
        assert_eq!(content(&store).await, before);
        assert_eq!(store.sequence().await.unwrap(), made as u64 + 1);
    }
}

#[tokio::test]
async fn a_reserve_is_kept_free() {
    let directory = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::new(1);
    let options = FilesystemOptions { min_free_bytes: 5_000, ..eager(directory.path()) };
    disk.limit_free_bytes(Some(4_999));
    let store = FilesystemStore::open_on(options, Arc::new(disk.clone())).unwrap();
    let error = store.commit(vec![create("a", "1")]).await.unwrap_err();
    assert!(matches!(error, StoreError::Full { .. }), "{error}");
    let reason = std::error::Error::source(&error).unwrap().to_string();
    assert!(reason.contains("5000 are kept in reserve"), "{reason}");
    let health = store.health().await;
    assert!(!health.writable && health.free_bytes < Some(5_000), "{health:?}");
    disk.limit_free_bytes(Some(50_000));
    store.commit(vec![create("a", "1")]).await.unwrap();
    assert!(store.health().await.writable);
}

/// A small filesystem of its own, gone when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None` where this process may not mount; fails where that was promised.
    fn mount(kibibytes: u32) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let options = format!("size={kibibytes}k");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(directory.path())
            .output();
        if mount.is_ok_and(|output| output.status.success()) {
            return Some(Self(directory));
        }
        let promised = std::env::var("ORCHESTRATOR_CI").is_ok_and(|value| value == "1");
        assert!(!promised, "a tmpfs was promised and cannot be mounted");
        eprintln!("no tmpfs can be mounted here: only the simulated full disk was tested");
        None
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn a_real_full_disk_refuses_and_corrupts_nothing() {
    let Some(disk) = SmallDisk::mount(512) else { return };
    let directory = disk.0.path();
    let store = FilesystemStore::open(to_the_end(directory)).unwrap();
    let text = format!("\"{}\"", "z".repeat(1_500));
    let mut made = 0;
    let error = loop {
        match store.commit(vec![create(&format!("{made:04}"), &text)]).await {
            Ok(_) => made += 1,
            Err(error) => break error,
        }
        assert!(made < 1_000, "the disk never fills up");
    };
    assert!(matches!(error, StoreError::Full { .. }), "{error}");
    assert!(made > 50, "full after {made} commits");
    assert_eq!(content(&store).await.len(), made);
    drop(store);
    // It can be opened while it is full, refuses new work, and still has everything.
    let store = FilesystemStore::open(to_the_end(directory)).unwrap();
    assert_eq!(content(&store).await.len(), made);
    drop(store);
    let store = open(directory);
    let health = store.health().await;
    assert!(!health.writable && health.free_bytes < Some(1024 * 1024), "{health:?}");
    let error = store.commit(vec![create("more", &text)]).await.unwrap_err();
    assert!(matches!(error, StoreError::Full { .. }), "{error}");
    drop(store);
    // With room again it goes on.
    let remount = Command::new("mount").args(["-o", "remount,size=16m"]).arg(directory).status();
    assert!(remount.unwrap().success());
    let store = FilesystemStore::open(eager(directory)).unwrap();
    store.commit(vec![create("more", "1"), delete(&task("0000"), 1)]).await.unwrap();
    assert_eq!(content(&store).await.len(), made);
    store.close().await.unwrap();
}
