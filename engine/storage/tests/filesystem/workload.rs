//! Long random lives of a store, compared with a map.

use std::collections::BTreeMap;
use std::sync::Arc;

use orchestrator_storage::filesystem::{FilesystemOptions, FilesystemStore};
use orchestrator_storage::{Changes, Count, Order, Query, Sequence, Store, StoreError, Table};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::model::{any_commit, any_filter, apply, matches};
use super::support::{Content, content, create, open, task, until, update};

async fn compare(store: &dyn Store, expected: &Content, random: &mut StdRng) {
    assert_eq!(content(store).await, *expected);
    for table in [Table::Task, Table::Lock] {
        let mut counts: BTreeMap<_, u64> = BTreeMap::new();
        for (key, (_, fields, _)) in expected {
            if key.table == table {
                *counts.entry((fields.status.clone(), fields.group.clone())).or_default() += 1;
            }
        }
        let found = store.counts(table).await.unwrap().into_iter();
        let found: BTreeMap<_, u64> =
            found.map(|Count { status, group, records }| ((status, group), records)).collect();
        assert_eq!(found, counts);
        let filter = any_filter(random);
        let order = if random.random_bool(0.5) { Order::NewestFirst } else { Order::OldestFirst };
        let mut query = Query { table, filter, order, after: None, limit: random.random_range(1..6) };
        let mut ids = Vec::new();
        loop {
            let page = store.list(&query).await.unwrap();
            ids.extend(page.records.into_iter().map(|record| record.key.id));
            let Some(next) = page.next else { break };
            query.after = Some(next);
        }
        let mut wanted: Vec<Arc<str>> = expected
            .iter()
            .filter(|(key, (_, fields, _))| key.table == table && matches(fields, &query.filter))
            .map(|(key, _)| key.id.clone())
            .collect();
        if order == Order::NewestFirst {
            wanted.reverse();
        }
        assert_eq!(ids, wanted, "{query:?}");
    }
}

#[tokio::test]
async fn a_store_does_what_a_map_does() {
    for seed in 0..6 {
        let mut random = StdRng::seed_from_u64(seed);
        let directory = tempfile::tempdir().unwrap();
        let options = FilesystemOptions {
            checkpoint_bytes: [0, 3_000, u64::MAX][seed as usize % 3],
            ..FilesystemOptions::new(directory.path())
        };
        let mut store = FilesystemStore::open(options.clone()).unwrap();
        let (mut model, mut sequence): (Content, Sequence) = Default::default();
        for _ in 0..400 {
            let operations = any_commit(&mut random, &model);
            let fits = apply(&mut model, &operations);
            match store.commit(operations).await {
                Ok(commit) => {
                    sequence += 1;
                    assert!(fits && commit.sequence == sequence);
                }
                Err(StoreError::Conflict { .. }) => assert!(!fits),
                Err(error) => panic!("seed {seed}: {error}"),
            }
            if random.random_bool(0.05) {
                if random.random_bool(0.5) {
                    store.close().await.unwrap();
                }
                drop(store);
                store = FilesystemStore::open(options.clone()).unwrap();
                assert_eq!(store.sequence().await.unwrap(), sequence);
            }
            if random.random_bool(0.1) {
                compare(&store, &model, &mut random).await;
            }
        }
        compare(&store, &model, &mut random).await;
    }
}

#[tokio::test]
async fn changes_are_remembered_up_to_a_bound_and_then_gone() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    for chunk in 0..3 {
        let ids = (0..30_000).map(|n| format!("{chunk}-{n}"));
        store.commit(ids.map(|id| create(&id, "1")).collect()).await.unwrap();
    }
    // The first commit is only known in part, so it must not be answered at all.
    assert!(matches!(store.changes(0, 10).await.unwrap(), Changes::Gone { upto: 3 }));
    let Changes::Since { upto, keys } = store.changes(1, 10).await.unwrap() else { panic!("gone") };
    assert_eq!((upto, keys.len()), (2, 30_000));
    let Changes::Since { upto, keys } = store.changes(1, 100_000).await.unwrap() else { panic!("gone") };
    assert_eq!((upto, keys.len()), (3, 60_000));
    drop(store);
    let store = open(directory.path());
    assert!(
        matches!(store.changes(1, 10).await.unwrap(), Changes::Since { upto: 2, .. }),
        "the journal has them"
    );
}

/// What a commit costs must not depend on how many records there are.
#[tokio::test]
async fn a_commit_does_equal_work_in_a_small_and_in_a_large_store() {
    let mut work = Vec::new();
    for records in [100, 20_000] {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path());
        let ids = (0..records).map(|n| format!("{n:08}"));
        store.commit(ids.map(|id| create(&id, "1")).collect()).await.unwrap();
        let before = store.counters();
        for revision in 1..=20 {
            store.commit(vec![update("00000007", revision, "\"same length\"")]).await.unwrap();
            store.get(&task("00000007")).await.unwrap();
        }
        let after = store.counters();
        work.push([
            after.records_read - before.records_read,
            after.records_written - before.records_written,
            after.writes - before.writes,
            after.syncs - before.syncs,
            // The sequence is the one number that grows; it has as many digits in both.
            after.bytes_written - before.bytes_written,
        ]);
    }
    assert_eq!(work[0], work[1]);
    assert_eq!(work[0][..4], [20, 20, 20, 20]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn commits_that_wait_together_share_a_sync() {
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(open(directory.path()));
    let authors: Vec<_> = (0..200)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move { store.commit(vec![create(&n.to_string(), "1")]).await.unwrap() })
        })
        .collect();
    for author in authors {
        author.await.unwrap();
    }
    let counters = store.counters();
    assert_eq!((counters.commits, counters.records_written), (200, 200));
    assert_eq!(counters.syncs, counters.writes);
    assert!(counters.syncs < 200, "{counters:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn pages_are_whole_while_checkpoints_replace_the_files() {
    let directory = tempfile::tempdir().unwrap();
    let options = FilesystemOptions { checkpoint_bytes: 0, ..FilesystemOptions::new(directory.path()) };
    let store = Arc::new(FilesystemStore::open(options).unwrap());
    let text = |revision: u64| format!("{{\"revision\":{revision},\"pad\":\"{}\"}}", "p".repeat(300));
    store.commit((0..50).map(|n| create(&format!("{n:02}"), &text(1))).collect()).await.unwrap();
    let writer = tokio::spawn({
        let store = store.clone();
        async move {
            for revision in 1..200 {
                let operations = (0..50).map(|n| update(&format!("{n:02}"), revision, &text(revision + 1)));
                store.commit(operations.collect()).await.unwrap();
            }
        }
    });
    while !writer.is_finished() {
        for (revision, _, body) in content(&*store).await.into_values() {
            assert_eq!(body, text(revision));
        }
    }
    writer.await.unwrap();
    until("some checkpoints", || store.counters().checkpoints > 2).await;
    assert_eq!(store.counters().failed_checkpoints, 0);
}
