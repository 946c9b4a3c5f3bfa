//! Closing, opening again, health.

#![expect(clippy::unwrap_used, reason = "a failed call is a failed test")]

use std::sync::Arc;

use super::{Harness, content, create, delete, fields, put, query, task, update};
use crate::record::{Expect, Table};
use crate::store::{Filter, Order, StoreError};

pub(super) async fn reopening_keeps_everything(harness: Arc<dyn Harness>) {
    let mut expected = None;
    for round in 0..4 {
        let store = harness.open().await;
        let found = content(&*store).await;
        if let Some(expected) = expected {
            assert_eq!(found, expected, "round {round}");
        }
        let id = |n: i32| task(&format!("{round}-{n}"));
        for n in 0..10 {
            let operations = vec![
                put(&id(n), Expect::Absent, fields("Pending", "g"), &format!("{{\"round\":{round}}}")),
                create(&crate::Key::new(Table::Audit, format!("{round}-{n}")), "null"),
            ];
            store.commit(operations).await.unwrap();
        }
        store.commit(vec![delete(&id(3), 1), update(&id(4), 1, "[ 1 ]")]).await.unwrap();
        expected = Some(content(&*store).await);
        store.close().await.unwrap();
    }
}

pub(super) async fn sequences_go_on_after_reopening(harness: Arc<dyn Harness>) {
    for round in 0..3 {
        let store = harness.open().await;
        assert_eq!(store.sequence().await.unwrap(), round * 2);
        assert_eq!(*store.watch().borrow(), round * 2);
        let key = task(&round.to_string());
        let created = store.commit(vec![create(&key, "1")]).await.unwrap();
        let updated = store.commit(vec![update(&key, 1, "1")]).await.unwrap();
        assert_eq!((created.sequence, updated.sequence), (round * 2 + 1, round * 2 + 2));
        store.close().await.unwrap();
    }
}

pub(super) async fn a_closed_store_says_so(harness: Arc<dyn Harness>) {
    let (store, key) = (harness.open().await, task("a"));
    store.commit(vec![create(&key, "1")]).await.unwrap();
    store.close().await.unwrap();
    let closed = |error: Option<StoreError>| matches!(error, Some(StoreError::Closed));
    assert!(closed(store.get(&key).await.err()), "get");
    assert!(closed(store.list(&query(Filter::default(), Order::NewestFirst)).await.err()), "list");
    assert!(closed(store.counts(Table::Task).await.err()), "counts");
    assert!(closed(store.commit(vec![create(&task("b"), "1")]).await.err()), "commit");
    assert!(closed(store.sequence().await.err()), "sequence");
    assert!(closed(store.changes(0, 10).await.err()), "changes");
    let again = store.close().await;
    assert!(matches!(again, Ok(()) | Err(StoreError::Closed)), "closing twice does no harm: {again:?}");
}

pub(super) async fn health_is_good_until_closed(harness: Arc<dyn Harness>) {
    let store = harness.open().await;
    let health = store.health().await;
    assert!(health.writable && health.reason.is_none(), "{health:?}");
    assert!(!health.backend.is_empty() && !health.location.is_empty(), "{health:?}");
    store.close().await.unwrap();
    let health = store.health().await;
    assert!(!health.writable && health.reason.is_some(), "{health:?}");
}
