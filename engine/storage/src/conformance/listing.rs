//! Listings, filters and counts.

#![expect(clippy::unwrap_used, reason = "a failed call is a failed test")]

use std::sync::Arc;

use super::{Harness, create, delete, fields, list_all, list_ids, put, query, task, update};
use crate::record::{Expect, Fields, Key, Table};
use crate::store::{Count, Filter, Order, Query, Store, StoreError};

pub(super) async fn records_come_in_order(harness: Arc<dyn Harness>) {
    let store = harness.open().await;
    for id in ["b", "a", "ä", "B", "a-1", "10", "9", "aa"] {
        store.commit(vec![create(&task(id), "1")]).await.unwrap();
    }
    let ascending = ["10", "9", "B", "a", "a-1", "aa", "b", "ä"];
    assert_eq!(list_ids(&*store, query(Filter::default(), Order::OldestFirst)).await, ascending);
    let mut descending = ascending;
    descending.reverse();
    for limit in [1, 2, 3, 8, 9] {
        let query = Query { limit, ..query(Filter::default(), Order::NewestFirst) };
        assert_eq!(list_ids(&*store, query).await, descending, "in pages of {limit}");
    }
    let empty = Query { table: Table::Lock, ..query(Filter::default(), Order::NewestFirst) };
    let page = store.list(&empty).await.unwrap();
    assert!(page.records.is_empty() && page.next.is_none());
}

pub(super) async fn pages_follow_each_other_while_records_come_and_go(harness: Arc<dyn Harness>) {
    let store = harness.open().await;
    for n in (0..40).step_by(2) {
        store.commit(vec![create(&task(&format!("{n:02}")), "1")]).await.unwrap();
    }
    for order in [Order::OldestFirst, Order::NewestFirst] {
        let mut query = Query { limit: 3, ..query(Filter::default(), order) };
        let mut seen: Vec<String> = Vec::new();
        let mut new = 1;
        loop {
            let page = store.list(&query).await.unwrap();
            seen.extend(page.records.iter().map(|record| record.key.id.to_string()));
            // Another record appears somewhere, and the one at the cursor goes away and comes back.
            let key = task(&format!("{new:02}"));
            store.commit(vec![create(&key, "1")]).await.unwrap();
            store.commit(vec![delete(&key, 1)]).await.unwrap();
            new += 2;
            let Some(next) = page.next else { break };
            let at_cursor = Key { table: Table::Task, id: next.clone() };
            let revision = store.get(&at_cursor).await.unwrap().unwrap().revision;
            store.commit(vec![delete(&at_cursor, revision)]).await.unwrap();
            let page = store.list(&Query { after: Some(next.clone()), ..query.clone() }).await.unwrap();
            let beyond = page.records.iter().all(|record| match order {
                Order::OldestFirst => record.key.id > next,
                Order::NewestFirst => record.key.id < next,
            });
            assert!(beyond, "a page goes on after its cursor, also when that record is gone");
            store.commit(vec![create(&at_cursor, "1")]).await.unwrap();
            query.after = Some(next);
        }
        let mut expected: Vec<String> = (0..40).step_by(2).map(|n| format!("{n:02}")).collect();
        if order == Order::NewestFirst {
            expected.reverse();
        }
        assert_eq!(seen, expected, "{order:?}: what was there all the time comes exactly once");
    }
}

/// Twelve records that differ in everything a filter can ask for.
async fn varied(store: &dyn Store) {
    for n in 0..12_i64 {
        let pick = |names: [&str; 3]| Some(names[n as usize % 3].into());
        let fields = Fields {
            status: (n != 11).then(|| ["Pending", "Running", "Failed"][n as usize / 4].into()),
            group: pick(["g0", "g1", "g2"]),
            kind: Some(if n < 6 { "command" } else { "workflow" }.into()),
            parent: (n % 2 == 0).then(|| "root".into()),
            created_at_ms: n * 10,
            ended_at_ms: (n >= 8).then_some(n * 100),
            labels: [("n".into(), n.to_string().into()), ("odd".into(), (n % 2).to_string().into())].into(),
        };
        store.commit(vec![put(&task(&format!("{n:02}")), Expect::Absent, fields, "1")]).await.unwrap();
    }
}

/// Looks for a filter's records in both orders and in small pages.
async fn assert_found(store: &dyn Store, filter: Filter, expected: &[u32]) {
    let mut expected: Vec<String> = expected.iter().map(|n| format!("{n:02}")).collect();
    for order in [Order::OldestFirst, Order::NewestFirst] {
        for limit in [2, 100] {
            let query = Query { limit, ..query(filter.clone(), order) };
            let found = list_ids(store, query.clone()).await;
            assert_eq!(found, expected, "{query:?}");
        }
        expected.reverse();
    }
}

pub(super) async fn every_filter_picks_its_records(harness: Arc<dyn Harness>) {
    let store = harness.open().await;
    varied(&*store).await;
    let any = Filter::default;
    let cases: Vec<(Filter, Vec<u32>)> = vec![
        (any(), (0..12).collect()),
        (Filter { statuses: vec!["Running".into()], ..any() }, vec![4, 5, 6, 7]),
        (Filter { statuses: vec!["Failed".into(), "Pending".into()], ..any() }, vec![0, 1, 2, 3, 8, 9, 10]),
        (Filter { statuses: vec!["Unheard".into()], ..any() }, vec![]),
        (Filter { group: Some("g1".into()), ..any() }, vec![1, 4, 7, 10]),
        (Filter { group: Some("none".into()), ..any() }, vec![]),
        (Filter { kind: Some("workflow".into()), ..any() }, vec![6, 7, 8, 9, 10, 11]),
        (Filter { parent: Some("root".into()), ..any() }, vec![0, 2, 4, 6, 8, 10]),
        (Filter { parent: Some("00".into()), ..any() }, vec![]),
        (Filter { labels: vec![("odd".into(), "1".into())], ..any() }, vec![1, 3, 5, 7, 9, 11]),
        (Filter { labels: vec![("odd".into(), "1".into()), ("n".into(), "3".into())], ..any() }, vec![3]),
        (Filter { labels: vec![("odd".into(), "0".into()), ("n".into(), "3".into())], ..any() }, vec![]),
        (Filter { created_from_ms: Some(90), ..any() }, vec![9, 10, 11]),
        (Filter { created_before_ms: Some(20), ..any() }, vec![0, 1]),
        (Filter { ended_before_ms: Some(1_000), ..any() }, vec![8, 9]),
    ];
    for (filter, expected) in cases {
        assert_found(&*store, filter, &expected).await;
    }
}

pub(super) async fn filters_are_combined(harness: Arc<dyn Harness>) {
    let store = harness.open().await;
    varied(&*store).await;
    let filter = Filter {
        statuses: vec!["Pending".into(), "Running".into()],
        group: Some("g0".into()),
        kind: Some("command".into()),
        ..Filter::default()
    };
    assert_found(&*store, filter.clone(), &[0, 3]).await;
    assert_found(&*store, Filter { parent: Some("root".into()), ..filter.clone() }, &[0]).await;
    let filter = Filter { created_from_ms: Some(1), created_before_ms: Some(31), ..filter };
    assert_found(&*store, filter, &[3]).await;
    // A record is found where it is now, no longer where it was.
    let moved = fields("Completed", "g9");
    store.commit(vec![put(&task("03"), Expect::Revision(1), moved, "1")]).await.unwrap();
    store.commit(vec![delete(&task("00"), 1)]).await.unwrap();
    assert_found(&*store, Filter { group: Some("g0".into()), ..Filter::default() }, &[6, 9]).await;
    assert_found(&*store, Filter { statuses: vec!["Completed".into()], ..Filter::default() }, &[3]).await;
    let children = Filter { parent: Some("root".into()), ..Filter::default() };
    assert_found(&*store, children, &[2, 4, 6, 8, 10]).await;
}

pub(super) async fn a_filter_finds_a_few_among_many(harness: Arc<dyn Harness>) {
    let store = harness.open().await;
    for chunk in 0..4 {
        let operations = (0..500).map(|n| {
            let n = chunk * 500 + n;
            let rare = n % 700 == 3;
            let fields = Fields {
                kind: Some(if rare { "rare" } else { "usual" }.into()),
                ..fields(if rare { "Running" } else { "Pending" }, &format!("g{}", n % 50))
            };
            put(&task(&format!("{n:04}")), Expect::Absent, fields, "1")
        });
        store.commit(operations.collect()).await.unwrap();
    }
    let expected = ["1403", "0703", "0003"];
    let by_status = Filter { statuses: vec!["Running".into()], ..Filter::default() };
    let by_kind = Filter { kind: Some("rare".into()), ..Filter::default() };
    for filter in [by_status, by_kind] {
        assert_eq!(list_ids(&*store, query(filter, Order::NewestFirst)).await, expected);
    }
    let all = list_all(&*store, Query { limit: 7, ..query(Filter::default(), Order::OldestFirst) }).await;
    assert_eq!(all.len(), 2_000);
    assert!(all.is_sorted_by(|a, b| a.key.id < b.key.id));
}

pub(super) async fn a_record_that_changes_its_state_meanwhile_is_listed_once(harness: Arc<dyn Harness>) {
    const CHANGES: u64 = 200;
    let store = harness.open().await;
    let filler = |n: u64| {
        put(&task(&format!("x{n:03}")), Expect::Absent, fields(["P", "R"][n as usize % 2], "g"), "1")
    };
    store.commit((0..100).map(filler).collect()).await.unwrap();
    let key = task("a");
    store.commit(vec![put(&key, Expect::Absent, fields("P", "g"), "1")]).await.unwrap();
    let changing = async {
        for revision in 1..=CHANGES {
            let status = ["P", "R"][revision as usize % 2];
            store
                .commit(vec![put(&key, Expect::Revision(revision), fields(status, "g"), "1")])
                .await
                .unwrap();
        }
    };
    let listing = async {
        let filter = Filter { statuses: vec!["P".into(), "R".into()], ..Filter::default() };
        let query = Query { limit: 200, ..query(filter, Order::OldestFirst) };
        loop {
            let records = store.list(&query).await.unwrap().records;
            assert_eq!(records.iter().filter(|record| record.key == key).count(), 1);
            if records[0].revision > CHANGES {
                break;
            }
        }
    };
    tokio::join!(changing, listing);
}

pub(super) async fn limits_are_checked(harness: Arc<dyn Harness>) {
    let store = harness.open().await;
    for (limit, valid) in [(0, false), (1, true), (10_000, true), (10_001, false)] {
        let result = store.list(&Query { limit, ..query(Filter::default(), Order::NewestFirst) }).await;
        match valid {
            true => assert!(result.is_ok(), "{limit}: {result:?}"),
            false => assert!(matches!(result, Err(StoreError::Invalid { .. })), "{limit}: {result:?}"),
        }
    }
}

pub(super) async fn counts_are_kept(harness: Arc<dyn Harness>) {
    async fn counts(store: &dyn Store) -> Vec<(Option<String>, Option<String>, u64)> {
        let text = |s: Option<Arc<str>>| s.map(|s| s.to_string());
        let flat = |Count { status, group, records }| (text(status), text(group), records);
        let mut counts: Vec<_> = store.counts(Table::Task).await.unwrap().into_iter().map(flat).collect();
        counts.sort();
        counts
    }
    let count = |status: &str, group: &str, records| (Some(status.into()), Some(group.into()), records);
    let store = harness.open().await;
    assert_eq!(counts(&*store).await, []);
    let new = |id: &str, status, group| put(&task(id), Expect::Absent, fields(status, group), "1");
    store.commit(vec![new("a", "P", "g"), new("b", "P", "g"), new("c", "P", "h")]).await.unwrap();
    assert_eq!(counts(&*store).await, [count("P", "g", 2), count("P", "h", 1)]);
    let running = put(&task("a"), Expect::Revision(1), fields("R", "g"), "1");
    store.commit(vec![running, create(&task("d"), "1")]).await.unwrap();
    let bare = (None, None, 1);
    assert_eq!(counts(&*store).await, [bare, count("P", "g", 1), count("P", "h", 1), count("R", "g", 1)]);
    assert!(store.commit(vec![new("e", "P", "g"), new("a", "P", "g")]).await.is_err());
    store.commit(vec![delete(&task("c"), 1), update(&task("d"), 1, "2")]).await.unwrap();
    let expected = [(None, None, 1), count("P", "g", 1), count("R", "g", 1)];
    assert_eq!(counts(&*store).await, expected);
    store.close().await.unwrap();
    assert_eq!(counts(&*harness.open().await).await, expected, "after reopening");
}
