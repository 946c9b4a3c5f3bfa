//! Changes and watchers.

#![expect(clippy::unwrap_used, reason = "a failed call is a failed test")]

use std::sync::Arc;

use super::{Harness, check, create, delete, task, update};
use crate::record::{Expect, Key, Sequence};
use crate::store::{Changes, Store};

/// The changes after a sequence, as far as the store knows.
async fn since(store: &dyn Store, after: Sequence, limit: usize) -> (Sequence, Vec<(Sequence, Key)>) {
    match store.changes(after, limit).await.unwrap() {
        Changes::Since { upto, keys } => (upto, keys),
        Changes::Gone { .. } => (0, Vec::new()),
    }
}

pub(super) async fn changes_come_in_order(harness: Arc<dyn Harness>) {
    let (store, a, b) = (harness.open().await, task("a"), task("b"));
    assert_eq!(since(&*store, 0, 100).await, (0, vec![]));
    store.commit(vec![create(&a, "1")]).await.unwrap();
    store.commit(vec![update(&a, 1, "2"), create(&b, "1")]).await.unwrap();
    store.commit(vec![check(&b, Expect::Revision(1)), delete(&a, 2)]).await.unwrap();
    let all = [(1, a.clone()), (2, a.clone()), (2, b.clone()), (3, a.clone())];
    for after in 0..=3 {
        let expected: Vec<_> = all.iter().filter(|(sequence, _)| *sequence > after).cloned().collect();
        assert_eq!(since(&*store, after, 100).await, (3, expected), "after {after}");
    }
}

pub(super) async fn changes_end_at_a_commit(harness: Arc<dyn Harness>) {
    let store = harness.open().await;
    for n in 0..20 {
        let keys = (0..3).map(|k| task(&format!("{n}-{k}")));
        store.commit(keys.map(|key| create(&key, "1")).collect()).await.unwrap();
    }
    for limit in [1, 2, 3, 4, 10, 1_000] {
        let (mut after, mut seen) = (0, 0);
        while after < 20 {
            let (upto, keys) = since(&*store, after, limit).await;
            assert!(upto > after, "with limit {limit} a reader after {after} does not get on");
            assert_eq!(keys.len() as u64, (upto - after) * 3, "whole commits");
            assert!(keys.len() < limit + 3, "{} keys with limit {limit}", keys.len());
            seen += keys.len();
            after = upto;
        }
        assert_eq!(seen, 60);
    }
}

pub(super) async fn changes_of_another_store_are_gone(harness: Arc<dyn Harness>) {
    let store = harness.open().await;
    store.commit(vec![create(&task("a"), "1")]).await.unwrap();
    let changes = store.changes(1_000, 10).await.unwrap();
    assert!(matches!(changes, Changes::Gone { upto: 1 }), "{changes:?}");
}

pub(super) async fn watchers_are_told(harness: Arc<dyn Harness>) {
    let store = harness.open().await;
    let mut watcher = store.watch();
    for n in 0..10 {
        let commit = store.commit(vec![create(&task(&n.to_string()), "1")]).await.unwrap();
        let seen = *watcher.wait_for(|sequence| *sequence >= commit.sequence).await.unwrap();
        assert_eq!(seen, commit.sequence);
    }
    let late = store.watch();
    assert!(*late.borrow() >= 10, "who comes late starts with what is");
}
