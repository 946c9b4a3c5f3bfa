//! Portable files.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use orchestrator_storage::Store;
use orchestrator_storage::migration::portable::{PortableError, check, export, import};
use orchestrator_storage::migration::state::{StorageState, read_state, write_state};
use orchestrator_storage::migration::{MigrationError, Steering};

use crate::stores::{Hooked, Mortal, Power, content, counted, fill, open};

#[tokio::test(flavor = "multi_thread")]
async fn a_file_brings_everything_to_another_store() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (source, target) = (open(from.path()), open(to.path()));
    fill(&*source, 600).await;
    let file = from.path().join("records.jsonl");
    let exported = export(&*source, &file, &Steering::default()).await.unwrap();
    assert_eq!(exported.records, counted(&*source).await);
    let lines = fs::read_to_string(&file).unwrap();
    assert_eq!(lines.lines().count() as u64, exported.records + 2);
    assert!(lines.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
    let imported = import(&file, &*target, &Steering::default()).await.unwrap();
    assert_eq!(imported, exported);
    assert!(content(&*target).await == content(&*source).await);
    assert_eq!(read_state(&*target).await.unwrap().state, StorageState::Active { epoch: 0 });
    // What it says does not depend on which store says it.
    let again = to.path().join("again.jsonl");
    assert_eq!(export(&*target, &again, &Steering::default()).await.unwrap(), exported);
    assert_eq!(fs::read(&again).unwrap(), fs::read(&file).unwrap());
    // Neither a file nor a store is overwritten.
    let refused = export(&*source, &file, &Steering::default()).await.unwrap_err();
    assert!(matches!(&refused, PortableError::File { path, .. } if *path == file), "{refused}");
    let refused = import(&file, &*target, &Steering::default()).await.unwrap_err();
    assert!(matches!(refused, PortableError::Store(MigrationError::TargetNotEmpty { .. })), "{refused}");
}

/// It changes no number of records.
#[tokio::test(flavor = "multi_thread")]
async fn an_export_into_which_an_engine_begins_to_work_fails() {
    let directory = tempfile::tempdir().unwrap();
    let source = open(directory.path());
    fill(&*source, 20).await;
    let held = read_state(&*source).await.unwrap();
    write_state(&*source, &held, &held.state).await.unwrap();
    let (joining, reads) = (Arc::clone(&source), AtomicU32::new(0));
    let joined = Hooked::around(Arc::clone(&source) as _, move |_| {
        let (joining, is_due) = (Arc::clone(&joining), reads.fetch_add(1, Ordering::SeqCst) == 4);
        Box::pin(async move {
            if is_due {
                let held = read_state(&*joining).await?;
                write_state(&*joining, &held, &held.state).await?;
            }
            Ok(())
        })
    });
    let file = directory.path().join("records.jsonl");
    let refused = export(&*joined, &file, &Steering::default()).await.unwrap_err();
    assert!(matches!(refused, PortableError::Store(MigrationError::NotAlone(_))), "{refused}");
    assert!(!file.exists());
    export(&*source, &file, &Steering::default()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_refused_and_its_line_is_named() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (source, target) = (open(from.path()), open(to.path()));
    fill(&*source, 2).await;
    let file = from.path().join("records.jsonl");
    export(&*source, &file, &Steering::default()).await.unwrap();
    let whole = fs::read(&file).unwrap();
    let damaged = from.path().join("damaged.jsonl");
    let named = |bytes: &[u8]| {
        fs::write(&damaged, bytes).unwrap();
        match check(&damaged) {
            Err(PortableError::Damaged { line, path, .. }) if path == damaged => line,
            other => panic!("not refused as damaged: {other:?}"),
        }
    };
    // Every bit of every byte.
    let mut line = 1;
    for place in 0..whole.len() {
        let mut bytes = whole.clone();
        for bit in [0x01, 0x20, 0x80] {
            bytes[place] = whole[place] ^ bit;
            let is_joined = whole[place] == b'\n';
            let found = named(&bytes);
            assert!(
                found == line || (is_joined && found == line + 1),
                "byte {place}: line {found}, not {line}"
            );
        }
        line += u64::from(whole[place] == b'\n');
    }
    // Cut off anywhere.
    let mut line = 1;
    for length in 0..whole.len() {
        assert_eq!(named(&whole[..length]), line, "cut at {length}");
        line += u64::from(whole[length] == b'\n');
    }
    // Lines that are whole, but too few, too many, or in another order.
    let lines: Vec<&[u8]> = whole.split_inclusive(|byte| *byte == b'\n').collect();
    let last = lines.len() as u64;
    assert_eq!(named(&[&lines[..3], &lines[4..]].concat().concat()), last - 1);
    assert_eq!(named(&[&lines[..4], &lines[3..]].concat().concat()), 5);
    let mut swapped = lines.clone();
    swapped.swap(3, 4);
    assert_eq!(named(&swapped.concat()), 5);
    assert_eq!(named(&[&lines[..], &lines[1..2]].concat().concat()), last + 1);
    // Nothing of it was imported.
    let refused = import(&damaged, &*target, &Steering::default()).await.unwrap_err();
    assert!(matches!(refused, PortableError::Damaged { .. }), "{refused}");
    assert_eq!(target.sequence().await.unwrap(), 0);
    // A newer one is told from a damaged one.
    let line = r#""header":{"format":"orchestrator-records","version":2,"epoch":0,"records":0}"#;
    let text = format!("{{\"crc\":\"{:08x}\",{line}}}\n", crc32(line.as_bytes()));
    fs::write(&damaged, text).unwrap();
    let refused = check(&damaged).unwrap_err();
    assert!(matches!(refused, PortableError::Newer { found: 2, .. }), "{refused}");
}

/// CRC-32, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    let mut sum = u32::MAX;
    for byte in bytes {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = if sum & 1 == 1 { sum >> 1 ^ 0xedb8_8320 } else { sum >> 1 };
        }
    }
    !sum
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_is_broken_off_is_no_store_and_can_be_made_again() {
    let from = tempfile::tempdir().unwrap();
    let source = open(from.path());
    fill(&*source, 120).await;
    let file = from.path().join("records.jsonl");
    export(&*source, &file, &Steering::default()).await.unwrap();
    for commits in 0.. {
        let to = tempfile::tempdir().unwrap();
        let target = open(to.path());
        let power = Power::for_commits(commits, true);
        let mortal = Mortal { inner: target.clone(), power };
        let result = import(&file, &mortal, &Steering::default()).await;
        let state = read_state(&*target).await.unwrap().state;
        if result.is_ok() {
            assert!(commits > 3);
            break;
        }
        if content(&*target).await.len() as u64 != counted(&*source).await {
            assert!(matches!(state, StorageState::Migrating { .. }), "after {commits}: {state:?}");
        }
        if matches!(state, StorageState::Migrating { .. }) {
            import(&file, &*target, &Steering::default()).await.unwrap();
        }
        assert!(content(&*target).await == content(&*source).await, "after {commits} and a rerun");
        assert!(matches!(read_state(&*target).await.unwrap().state, StorageState::Active { .. }));
    }
}
