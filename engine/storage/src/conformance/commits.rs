//! What a commit does, and what it refuses.

#![expect(clippy::unwrap_used, reason = "a failed call is a failed test")]

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Harness, check, content, create, delete, fields, import, put, task, update};
use crate::record::{Change, Expect, Fields, Key, MAX_ID_BYTES, Operation, Table};
use crate::store::{Store, StoreError, StoreResult};

fn assert_conflict<T: std::fmt::Debug>(result: StoreResult<T>, on: &Key) {
    assert!(matches!(&result, Err(StoreError::Conflict { key }) if key == on), "{result:?}, not a conflict");
}

fn assert_invalid<T: std::fmt::Debug>(result: StoreResult<T>) {
    assert!(matches!(&result, Err(StoreError::Invalid { .. })), "{result:?}, not invalid");
}

async fn text(store: &dyn Store, key: &Key) -> Option<String> {
    store.get(key).await.unwrap().map(|record| record.body.get().to_owned())
}

pub(super) async fn an_expectation_of_absence_holds_once(harness: Arc<dyn Harness>) {
    let (store, key) = (harness.open().await, task("a"));
    assert!(store.get(&key).await.unwrap().is_none());
    let commit = store.commit(vec![create(&key, "1")]).await.unwrap();
    assert_eq!(commit.revisions, [1]);
    assert_conflict(store.commit(vec![create(&key, "2")]).await, &key);
    assert_eq!(text(&*store, &key).await.as_deref(), Some("1"));
}

pub(super) async fn an_expectation_of_a_revision_holds_once(harness: Arc<dyn Harness>) {
    let (store, key) = (harness.open().await, task("a"));
    assert_conflict(store.commit(vec![update(&key, 1, "0")]).await, &key);
    store.commit(vec![create(&key, "1")]).await.unwrap();
    assert_conflict(store.commit(vec![update(&key, 2, "2")]).await, &key);
    let commit = store.commit(vec![update(&key, 1, "2")]).await.unwrap();
    assert_eq!(commit.revisions, [2]);
    assert_conflict(store.commit(vec![update(&key, 1, "3")]).await, &key);
    assert_conflict(store.commit(vec![delete(&key, 1)]).await, &key);
    let record = store.get(&key).await.unwrap().unwrap();
    assert_eq!((record.key, record.revision, record.body.get()), (key, 2, "2"));
}

pub(super) async fn revisions_grow_by_one_and_start_again_after_removal(harness: Arc<dyn Harness>) {
    let (store, key) = (harness.open().await, task("a"));
    for round in 0..2 {
        assert_eq!(store.commit(vec![create(&key, "0")]).await.unwrap().revisions, [1], "round {round}");
        for revision in 1..=3 {
            let commit = store.commit(vec![update(&key, revision, "1")]).await.unwrap();
            assert_eq!(commit.revisions, [revision + 1]);
        }
        assert_eq!(store.commit(vec![delete(&key, 4)]).await.unwrap().revisions, [0]);
        assert!(store.get(&key).await.unwrap().is_none());
        assert_conflict(store.commit(vec![delete(&key, 4)]).await, &key);
    }
}

pub(super) async fn an_import_keeps_the_revision_of_the_original(harness: Arc<dyn Harness>) {
    let (store, key, other) = (harness.open().await, task("a"), task("b"));
    let pending = || fields("Pending", "g");
    let copied = store
        .commit(vec![import(&key, Expect::Absent, 7, pending(), "7"), create(&other, "1")])
        .await
        .unwrap();
    assert_eq!(copied.revisions, [7, 1]);
    assert_conflict(store.commit(vec![import(&key, Expect::Absent, 9, pending(), "9")]).await, &key);
    assert_conflict(store.commit(vec![update(&key, 1, "2")]).await, &key);
    assert_invalid(store.commit(vec![import(&task("c"), Expect::Absent, 0, pending(), "0")]).await);
    // Who read the original at this revision may go on.
    assert_eq!(store.commit(vec![update(&key, 7, "8")]).await.unwrap().revisions, [8]);
    // The original has gone on as well, by any number of steps, or was made anew.
    let again = import(&key, Expect::Revision(8), 40, pending(), "40");
    assert_eq!(store.commit(vec![again]).await.unwrap().revisions, [40]);
    let anew = import(&other, Expect::Revision(1), 1, pending(), "\"anew\"");
    assert_eq!(store.commit(vec![anew]).await.unwrap().revisions, [1]);
    assert_eq!(store.counts(Table::Task).await.unwrap()[0].records, 2);
    let expected = content(&*store).await;
    let changed = store.changes(0, 100).await.unwrap();
    assert!(matches!(&changed, crate::Changes::Since { keys, .. } if keys.len() == 5), "{changed:?}");
    store.close().await.unwrap();
    let store = harness.open().await;
    assert_eq!(content(&*store).await, expected);
    assert_eq!(store.commit(vec![update(&key, 40, "41")]).await.unwrap().revisions, [41]);
    assert_eq!(store.commit(vec![update(&other, 1, "2")]).await.unwrap().revisions, [2]);
}

pub(super) async fn many_operations_are_one_commit(harness: Arc<dyn Harness>) {
    let store = harness.open().await;
    let (old, gone) = (task("old"), task("gone"));
    let first = store.commit(vec![create(&old, "1"), create(&gone, "1")]).await.unwrap();
    assert_eq!(first.revisions, [1, 1]);
    let keys: Vec<Key> = (0..500).map(|n| task(&format!("new-{n:03}"))).collect();
    let mut operations = vec![update(&old, 1, "2"), delete(&gone, 1)];
    operations.extend(keys.iter().map(|key| create(key, "\"new\"")));
    let second = store.commit(operations).await.unwrap();
    assert_eq!(second.sequence, first.sequence + 1, "a commit is one step, however much it changes");
    assert_eq!(second.revisions[..3], [2, 0, 1]);
    assert_eq!(second.revisions.len(), 502);
    assert_eq!(content(&*store).await.len(), 501);
    assert_eq!(text(&*store, &keys[499]).await.as_deref(), Some("\"new\""));
}

pub(super) async fn a_conflict_leaves_nothing(harness: Arc<dyn Harness>) {
    let (store, key, other) = (harness.open().await, task("a"), task("b"));
    store.commit(vec![create(&key, "1")]).await.unwrap();
    let (before, sequence) = (content(&*store).await, store.sequence().await.unwrap());
    for refused in [create(&key, "2"), update(&key, 7, "2"), delete(&key, 2), check(&key, Expect::Absent)] {
        let lock = Key::new(Table::Lock, "l");
        let operations = vec![create(&other, "0"), create(&lock, "0"), refused];
        assert_conflict(store.commit(operations).await, &key);
    }
    assert_eq!(content(&*store).await, before);
    assert_eq!(store.sequence().await.unwrap(), sequence);
    assert_eq!(store.counts(Table::Lock).await.unwrap(), []);
}

pub(super) async fn a_check_guards_and_changes_nothing(harness: Arc<dyn Harness>) {
    let (store, guard, key) = (harness.open().await, task("guard"), task("a"));
    let absent = check(&guard, Expect::Absent);
    let commit = store.commit(vec![absent.clone(), create(&key, "1")]).await.unwrap();
    assert_eq!(commit.revisions, [0, 1]);
    store.commit(vec![create(&guard, "9")]).await.unwrap();
    assert_conflict(store.commit(vec![absent, update(&key, 1, "2")]).await, &guard);
    let held = check(&guard, Expect::Revision(1));
    let commit = store.commit(vec![held.clone(), update(&key, 1, "2")]).await.unwrap();
    assert_eq!(commit.revisions, [1, 2]);
    store.commit(vec![update(&guard, 1, "10")]).await.unwrap();
    assert_conflict(store.commit(vec![held, update(&key, 2, "3")]).await, &guard);
    // A commit of nothing but checks is a question, and may be asked.
    let only = store.commit(vec![check(&guard, Expect::Revision(2))]).await.unwrap();
    assert_eq!(only.revisions, [2]);
    assert_eq!(text(&*store, &key).await.as_deref(), Some("2"));
    assert_eq!(text(&*store, &guard).await.as_deref(), Some("10"));
}

pub(super) async fn a_key_stands_once_in_a_commit(harness: Arc<dyn Harness>) {
    let (store, key) = (harness.open().await, task("a"));
    assert_invalid(store.commit(vec![create(&key, "1"), create(&key, "2")]).await);
    assert_invalid(store.commit(vec![create(&key, "1"), update(&key, 1, "2")]).await);
    assert_invalid(store.commit(vec![check(&key, Expect::Absent), create(&key, "1")]).await);
    assert!(store.get(&key).await.unwrap().is_none());
    // The same identifier in another table is another key.
    let other = Key::new(Table::Lock, "a");
    store.commit(vec![create(&key, "1"), create(&other, "1")]).await.unwrap();
}

pub(super) async fn senseless_requests_are_invalid(harness: Arc<dyn Harness>) {
    let store = harness.open().await;
    assert_invalid(store.commit(Vec::new()).await);
    let too_long = task(&"x".repeat(MAX_ID_BYTES + 1));
    for key in [task(""), too_long] {
        assert_invalid(store.commit(vec![create(&key, "1")]).await);
        assert_invalid(store.get(&key).await);
    }
    let key = task("a");
    assert_invalid(store.commit(vec![update(&key, 0, "1")]).await);
    let remove = Operation { key: key.clone(), expect: Expect::Absent, change: Change::Delete };
    assert_invalid(store.commit(vec![remove]).await);
    assert_eq!(store.sequence().await.unwrap(), 0);
    let longest = task(&"é".repeat(MAX_ID_BYTES / 2));
    store.commit(vec![create(&longest, "1")]).await.unwrap();
    assert_eq!(store.get(&longest).await.unwrap().unwrap().key, longest);
}

pub(super) async fn tables_are_apart(harness: Arc<dyn Harness>) {
    let store = harness.open().await;
    for table in Table::ALL {
        let text = format!("\"{table}\"");
        store.commit(vec![create(&Key::new(table, "same"), &text)]).await.unwrap();
    }
    for table in Table::ALL {
        let expected = format!("\"{table}\"");
        assert_eq!(text(&*store, &Key::new(table, "same")).await, Some(expected));
        assert_eq!(store.counts(table).await.unwrap()[0].records, 1);
    }
    store.commit(vec![delete(&Key::new(Table::Lock, "same"), 1)]).await.unwrap();
    assert_eq!(content(&*store).await.len(), Table::ALL.len() - 1);
}

pub(super) async fn bodies_are_kept_byte_for_byte(harness: Arc<dyn Harness>) {
    let store = harness.open().await;
    let big = format!("\"{}\"", "äöü €😀 ".repeat(300_000));
    assert!(big.len() > 4 * 1024 * 1024);
    let deep = format!("{}{}", "[".repeat(5_000), "]".repeat(5_000));
    let bodies = [
        "null",
        "true",
        "-0.0",
        "1e400",
        "123456789012345678901234567890",
        "\"\"",
        "\"\\u00e4\\ud83d\\ude00 ä😀 \\/ \\u0000\"",
        "{ \"b\" : 1,\t\"a\" : 2,\r\n  \"a\" : [ ] }",
        "[\n]",
        deep.as_str(),
        big.as_str(),
    ];
    for (n, body) in bodies.iter().enumerate() {
        store.commit(vec![create(&task(&n.to_string()), body)]).await.unwrap();
    }
    // Identifiers, too, may hold any character.
    let strange = task("a/b\\c \"d\"\n\t../é😀\u{7f}");
    store.commit(vec![create(&strange, "1")]).await.unwrap();
    store.close().await.unwrap();
    let store = harness.open().await;
    for (n, body) in bodies.iter().enumerate() {
        let found = text(&*store, &task(&n.to_string())).await.unwrap();
        assert!(found == *body, "body {n} came back with {} bytes instead of {}", found.len(), body.len());
    }
    assert_eq!(store.get(&strange).await.unwrap().unwrap().key, strange);
}

pub(super) async fn fields_are_kept(harness: Arc<dyn Harness>) {
    let (store, key) = (harness.open().await, task("a"));
    let full = Fields {
        status: Some("Pending".into()),
        group: Some("g \"ü\"\n".into()),
        kind: Some("command".into()),
        parent: Some("p".into()),
        created_at_ms: -1,
        ended_at_ms: Some(i64::MAX),
        labels: [("k".into(), "v".into()), ("".into(), "".into())].into(),
    };
    store.commit(vec![put(&key, Expect::Absent, full.clone(), "1")]).await.unwrap();
    assert_eq!(store.get(&key).await.unwrap().unwrap().fields, full);
    store.commit(vec![update(&key, 1, "1")]).await.unwrap();
    let record = store.get(&key).await.unwrap().unwrap();
    assert_eq!(record.fields, Fields::default(), "a put writes the record whole");
}

pub(super) async fn of_concurrent_commits_to_a_record_one_wins(harness: Arc<dyn Harness>) {
    let (store, key) = (harness.open().await, task("a"));
    store.commit(vec![create(&key, "0")]).await.unwrap();
    for revision in 1..=10 {
        let racers: Vec<_> = (0..16)
            .map(|racer| {
                let (store, key) = (store.clone(), key.clone());
                tokio::spawn(async move {
                    let mark = create(&task(&format!("mark-{revision}-{racer}")), "1");
                    let result = store.commit(vec![mark, update(&key, revision, &racer.to_string())]).await;
                    if let Err(StoreError::Conflict { .. }) = &result {
                        let found = store.get(&key).await.unwrap().unwrap().revision;
                        assert!(found > revision, "who lost must be able to read what it lost to");
                    }
                    result
                })
            })
            .collect();
        let mut winners = Vec::new();
        for (racer, result) in racers.into_iter().enumerate() {
            match result.await.unwrap() {
                Ok(_) => winners.push(racer),
                error => assert_conflict(error, &key),
            }
        }
        assert_eq!(winners.len(), 1, "{winners:?} have won");
        let record = store.get(&key).await.unwrap().unwrap();
        assert_eq!(record.body.get(), winners[0].to_string());
        assert_eq!(record.revision, revision + 1);
    }
    assert_eq!(content(&*store).await.len(), 11, "losers leave nothing");
}

pub(super) async fn concurrent_commits_to_many_records_all_succeed(harness: Arc<dyn Harness>) {
    let store = harness.open().await;
    let authors: Vec<_> = (0..32)
        .map(|author| {
            let store = store.clone();
            tokio::spawn(async move {
                let key = task(&format!("{author:02}"));
                let mut sequences = vec![store.commit(vec![create(&key, "0")]).await.unwrap().sequence];
                for revision in 1..10 {
                    let commit = store.commit(vec![update(&key, revision, "1")]).await.unwrap();
                    sequences.push(commit.sequence);
                }
                assert!(sequences.is_sorted());
                sequences
            })
        })
        .collect();
    let mut all = BTreeSet::new();
    for author in authors {
        all.extend(author.await.unwrap());
    }
    assert_eq!(all, (1..=320).collect(), "each commit has a number of its own, without gaps");
    assert_eq!(store.sequence().await.unwrap(), 320);
    assert!(content(&*store).await.values().all(|(revision, ..)| *revision == 10));
}

pub(super) async fn a_dropped_future_undoes_nothing(harness: Arc<dyn Harness>) {
    let store = harness.open().await;
    store.commit(vec![put(&task("a"), Expect::Absent, fields("x", "g"), "1")]).await.unwrap();
    for n in 0..50 {
        let key = task(&format!("b-{n}"));
        let operations = vec![create(&key, "1"), create(&task(&format!("c-{n}")), "1")];
        let author = tokio::spawn({
            let store = store.clone();
            async move { store.commit(operations).await }
        });
        tokio::task::yield_now().await;
        author.abort();
        let _ = author.await;
    }
    // Whatever became of each: it is whole, and the store goes on.
    store.commit(vec![create(&task("last"), "1")]).await.unwrap();
    let content = content(&*store).await;
    for n in 0..50 {
        let halves = [task(&format!("b-{n}")), task(&format!("c-{n}"))];
        let found = halves.iter().filter(|key| content.contains_key(key)).count();
        assert_ne!(found, 1, "half of commit {n} is there");
    }
}
