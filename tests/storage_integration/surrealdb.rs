//! The backends on SurrealDB: in this process, and on the real server.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use orchestrator_storage::chaos::{ChaosPlan, ChaosStore};
use orchestrator_storage::conformance::{Harness, run_all};
use orchestrator_storage::surrealdb::{
    EmbeddedOptions, ServerOptions, SurrealStore, bootstrap, stored_version,
};
use orchestrator_storage::{
    Change, Changes, Expect, Fields, Filter, Key, Operation, Order, Query, Record, Sequence, Store,
    StoreError, Table,
};
use orchestrator_tests::proxy::{Proxy, Way};
use orchestrator_tests::shared;
use orchestrator_tests::surrealdb::SurrealServer;
use orchestrator_tests::wait::{PATIENCE, until};

use super::is_asked_for;

type Opening = Pin<Box<dyn Future<Output = Arc<dyn Store>> + Send>>;

/// Opens a store, again and again.
struct Open<F>(F);

#[async_trait::async_trait]
impl<F: Fn() -> Opening + Send + Sync + 'static> Harness for Open<F> {
    async fn open(&self) -> Arc<dyn Store> {
        (self.0)().await
    }
}

fn embedded() -> Arc<dyn Harness> {
    let directory = tempfile::tempdir().unwrap();
    Arc::new(Open(move || {
        let options = EmbeddedOptions::new(directory.path());
        Box::pin(
            async move { Arc::new(SurrealStore::open_embedded(options).await.unwrap()) as Arc<dyn Store> },
        ) as Opening
    }))
}

fn server(is_open: bool) -> SurrealServer {
    SurrealServer::start(env!("CARGO_BIN_EXE_surrealdb-server-for-tests"), is_open)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_database_keeps_the_contract() {
    if is_asked_for("surrealdb-embedded") {
        run_all(embedded).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_opening_of_a_directory_is_refused() {
    if !is_asked_for("surrealdb-embedded") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let options = || EmbeddedOptions::new(directory.path());
    let first = SurrealStore::open_embedded(options()).await.unwrap();
    let refused = SurrealStore::open_embedded(options()).await.err().unwrap();
    assert!(
        matches!(&refused, StoreError::InUse { path } if path.starts_with(directory.path())),
        "{refused}"
    );
    first.close().await.unwrap();
    SurrealStore::open_embedded(options()).await.unwrap().close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_cannot_be_opened_is_not_said_to_be_in_use() {
    if !is_asked_for("surrealdb-embedded") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    // What cannot be opened for writing, not even by root.
    std::fs::create_dir_all(directory.path().join("orchestrator.db/LOCK")).unwrap();
    let refused = SurrealStore::open_embedded(EmbeddedOptions::new(directory.path())).await.err().unwrap();
    assert!(matches!(refused, StoreError::Database { .. }), "{refused}");
    assert!(refused.to_string().contains("LOCK"), "{refused}");
}

/// The suite over one transport.
async fn on_server(scheme: &'static str) {
    if !is_asked_for("surrealdb-server") {
        return;
    }
    let server = server(true);
    run_all(|| on(server.database(scheme))).await;
}

/// A store in a database of its own.
fn on(options: ServerOptions) -> Arc<dyn Harness> {
    Arc::new(Open(move || {
        let options = options.clone();
        Box::pin(async move { Arc::new(SurrealStore::open_server(options).await.unwrap()) as Arc<dyn Store> })
            as Opening
    }))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_keeps_the_contract_over_web_sockets() {
    on_server("ws").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_keeps_the_contract_over_http() {
    on_server("http").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_wrapper_keeps_the_contract_while_it_only_delays() {
    if !is_asked_for("surrealdb-embedded") {
        return;
    }
    let plan = ChaosPlan { delay: 0.2, max_delay: Duration::from_micros(300), ..ChaosPlan::calm(7) };
    run_all(|| {
        let directory = tempfile::tempdir().unwrap();
        Arc::new(Open(move || {
            let options = EmbeddedOptions::new(directory.path());
            Box::pin(async move {
                let store = SurrealStore::open_embedded(options).await.unwrap();
                Arc::new(ChaosStore::new(Arc::new(store), plan)) as Arc<dyn Store>
            }) as Opening
        })) as Arc<dyn Harness>
    })
    .await;
}

fn put(id: &str, expect: Expect, text: &str) -> Operation {
    put_with(Fields::default(), id, expect, text)
}

/// A task in a state.
fn in_state(status: &str, id: &str, expect: Expect) -> Operation {
    put_with(Fields { status: Some(status.into()), ..Fields::default() }, id, expect, "1")
}

fn put_with(fields: Fields, id: &str, expect: Expect, text: &str) -> Operation {
    let body = serde_json::value::RawValue::from_string(text.to_owned()).unwrap().into();
    Operation { key: Key::new(Table::Task, id), expect, change: Change::Put { fields, body } }
}

fn check(id: &str, expect: Expect) -> Operation {
    Operation { key: Key::new(Table::Task, id), expect, change: Change::Check }
}

/// Every task, in order.
async fn tasks(store: &SurrealStore) -> Vec<Record> {
    let (table, filter, order) = (Table::Task, Filter::default(), Order::OldestFirst);
    let page = store.list(&Query { table, filter, order, after: None, limit: 1_000 }).await.unwrap();
    assert!(page.next.is_none(), "there are more");
    page.records
}

/// Waits until a store has learnt that so many records were changed after a commit. Which ones, in order, and
/// each as often as it has learnt of it.
async fn learnt(store: &SurrealStore, after: Sequence, records: usize) -> Vec<Key> {
    let mut keys: Vec<Key> = shared::until("what was committed to be learnt of", async || {
        match store.changes(after, 10_000).await.unwrap() {
            Changes::Since { keys, .. } if keys.len() < records => None,
            Changes::Since { keys, .. } => Some(keys.into_iter().map(|(_, key)| key).collect()),
            Changes::Gone { upto } => panic!("forgotten up to {upto}"),
        }
    })
    .await;
    keys.sort();
    keys
}

/// Looks whether there are so many tasks in each state: as a store counts them, and as it lists them.
async fn assert_states(store: &SurrealStore, expected: &[(&str, u64)]) {
    let expected: BTreeMap<String, u64> =
        expected.iter().map(|(status, tasks)| ((*status).to_owned(), *tasks)).collect();
    let (mut counted, mut listed) = (BTreeMap::<String, u64>::new(), BTreeMap::<String, u64>::new());
    for count in store.counts(Table::Task).await.unwrap() {
        *counted.entry(count.status.unwrap_or_default().to_string()).or_default() += count.records;
    }
    for record in tasks(store).await {
        *listed.entry(record.fields.status.unwrap_or_default().to_string()).or_default() += 1;
    }
    assert_eq!(counted, expected);
    assert_eq!(listed, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_signs_in_as_the_user_that_was_prepared_for_it() {
    if !is_asked_for("surrealdb-server") {
        return;
    }
    let server = server(false);
    let options = server.database("ws");
    bootstrap(server.root(), &options).await.unwrap();
    let store = SurrealStore::open_server(options.clone()).await.unwrap();
    store.commit(vec![put("a", Expect::Absent, "1")]).await.unwrap();
    store.close().await.unwrap();
    let mut wrong = options;
    wrong.credentials.as_mut().unwrap().password.push('x');
    assert!(SurrealStore::open_server(wrong).await.is_err(), "a wrong password opens nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_three_engines_one_wins_a_race_and_all_learn_of_it() {
    if !is_asked_for("surrealdb-server") {
        return;
    }
    let server = server(true);
    for scheme in ["ws", "http"] {
        let options = server.database(scheme);
        let mut stores = Vec::new();
        for _ in 0..3 {
            stores.push(Arc::new(SurrealStore::open_server(options.clone()).await.unwrap()));
        }
        for round in 0..10 {
            let id = format!("race-{round}");
            let race = stores.iter().enumerate().map(|(n, store)| {
                let (store, id) = (Arc::clone(store), id.clone());
                let mark = put(&format!("mark-{round}-{n}"), Expect::Absent, "1");
                tokio::spawn(async move { store.commit(vec![put(&id, Expect::Absent, "1"), mark]).await })
            });
            let race: Vec<_> = race.collect();
            let mut winners = 0;
            for result in race {
                match result.await.unwrap() {
                    Ok(_) => winners += 1,
                    Err(StoreError::Conflict { key }) => assert_eq!(&*key.id, id),
                    Err(error) => panic!("{error}"),
                }
            }
            assert_eq!(winners, 1, "round {round}");
            // Each checks what the other writes: not both may succeed.
            let (x, y) = (format!("x-{round}"), format!("y-{round}"));
            let skew = |write: &str, guard: &str| {
                vec![put(write, Expect::Absent, "1"), check(guard, Expect::Absent)]
            };
            let both = tokio::join!(stores[0].commit(skew(&x, &y)), stores[1].commit(skew(&y, &x)));
            assert_ne!((both.0.is_ok(), both.1.is_ok()), (true, true), "round {round}: write skew");
        }
        let counts = stores[0].counts(Table::Task).await.unwrap();
        let made: Vec<Key> = tasks(&stores[0]).await.into_iter().map(|record| record.key).collect();
        assert_eq!(counts[0].records, made.len() as u64);
        for store in &stores {
            let own = store.counts(Table::Task).await.unwrap();
            assert_eq!(own, counts);
            // Everybody learns of every record that was made, once.
            assert_eq!(learnt(store, 0, made.len()).await, made, "{scheme}");
        }
        for store in stores {
            store.close().await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_loses_nothing_that_was_acknowledged() {
    if !is_asked_for("surrealdb-server") {
        return;
    }
    let mut server = server(true);
    let store = Arc::new(SurrealStore::open_server(server.database("ws")).await.unwrap());
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let acknowledged = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let authors: Vec<_> = (0..4)
        .map(|author| {
            let (store, stop, all) = (Arc::clone(&store), Arc::clone(&stop), Arc::clone(&acknowledged));
            tokio::spawn(async move {
                let (key, mut made, mut unknown) = (format!("author-{author}"), 0, 0);
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let expect = if made == 0 { Expect::Absent } else { Expect::Revision(made) };
                    match store.commit(vec![put(&key, expect, "1")]).await {
                        Ok(_) => {
                            made += 1;
                            all.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        }
                        // Nothing was written.
                        Err(StoreError::Away { .. }) => {}
                        Err(StoreError::OutcomeUnknown { .. }) => {
                            unknown += 1;
                            let found = loop {
                                match store.get(&Key::new(Table::Task, key.as_str())).await {
                                    Ok(found) => break found,
                                    Err(StoreError::Away { .. }) => tokio::task::yield_now().await,
                                    Err(error) => panic!("{error}"),
                                }
                            };
                            made = found.map_or(0, |record| record.revision);
                        }
                        // A conflict here were a commit done twice, or one that was lost.
                        Err(error) => panic!("{key} at {made}: {error}"),
                    }
                }
                (key, made, unknown)
            })
        })
        .collect();
    for _ in 0..10 {
        let before = acknowledged.load(std::sync::atomic::Ordering::Relaxed);
        until("commits to go on", || {
            (acknowledged.load(std::sync::atomic::Ordering::Relaxed) > before + 8).then_some(())
        });
        server.kill();
        server.resume();
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let mut unknown = 0;
    for author in authors {
        let (key, made, told_unknown) = author.await.unwrap();
        unknown += told_unknown;
        let found = store.get(&Key::new(Table::Task, key.as_str())).await.unwrap().unwrap();
        assert_eq!(found.revision, made, "{key}");
    }
    let acknowledged = acknowledged.load(std::sync::atomic::Ordering::Relaxed);
    println!(
        "{acknowledged} commits were acknowledged, and {unknown} others were made or not: nobody knew at first"
    );
    server.kill();
    let health = store.health().await;
    assert!(!health.writable && health.reason.is_some(), "{health:?}");
    let away = store.get(&Key::new(Table::Task, "author-0")).await;
    assert!(matches!(away, Err(StoreError::Away { .. })), "{away:?}");
    server.resume();
    store.commit(vec![put("after", Expect::Absent, "1")]).await.unwrap();
    assert!(store.health().await.writable);
}

/// The next look of its own comes long after this test has ended: whatever a store learns of here the server has
/// told it.
#[tokio::test(flavor = "multi_thread")]
async fn over_a_web_socket_an_engine_is_told_of_what_others_commit() {
    if !is_asked_for("surrealdb-server") {
        return;
    }
    let server = server(true);
    let options = server.database("ws");
    let told = ServerOptions { poll_interval: Duration::from_secs(24 * 60 * 60), ..options.clone() };
    let told = SurrealStore::open_server(told).await.unwrap();
    let author = SurrealStore::open_server(options).await.unwrap();
    let mut made = Vec::new();
    for n in 0..5 {
        let id = n.to_string();
        author.commit(vec![put(&id, Expect::Absent, "1")]).await.unwrap();
        made.push(Key::new(Table::Task, id));
        // Of the first one the look with which it begins may tell, of the others nothing but the live query.
        assert_eq!(learnt(&told, 0, made.len()).await, made);
    }
    told.close().await.unwrap();
    author.close().await.unwrap();
}

/// Two engines have written nothing for so long that a third one takes them for gone, and one of them was only
/// held up, with a commit on its way.
#[tokio::test(flavor = "multi_thread")]
async fn engines_that_were_taken_for_gone_go_on_and_the_counts_are_right() {
    if !is_asked_for("surrealdb-server") {
        return;
    }
    let server = server(true);
    let options = server.database("ws");
    let hasty = ServerOptions { retire_after: Duration::ZERO, ..options.clone() };
    let writers = || server.ask(&options, "SELECT VALUE record::id(id) FROM meta").remove(0);
    let way = Proxy::start(server.address());
    let url = format!("ws://{}", way.address());
    let held_up = ServerOptions { url, patience: PATIENCE, ..options.clone() };
    let held_up = Arc::new(SurrealStore::open_server(held_up).await.unwrap());
    let idle = SurrealStore::open_server(options.clone()).await.unwrap();
    let pending = |id: &str| in_state("Pending", id, Expect::Absent);
    let running = |id: &str| in_state("Running", id, Expect::Revision(1));
    held_up.commit(vec![pending("a"), pending("b")]).await.unwrap();
    idle.commit(vec![pending("c")]).await.unwrap();
    way.set(Way::Silent);
    let late = tokio::spawn({
        let (store, operations) = (Arc::clone(&held_up), vec![running("a"), pending("d")]);
        async move { store.commit(operations).await }
    });
    let third = SurrealStore::open_server(hasty.clone()).await.unwrap();
    let left = writers();
    assert!(left.as_array().unwrap().len() == 2 && left.to_string().contains("\"retired\""), "{left}");
    assert_eq!(third.sequence().await.unwrap(), 2);
    way.set(Way::Open);
    let late = tokio::time::timeout(PATIENCE, late).await.unwrap().unwrap().unwrap();
    assert_eq!(late.revisions, [2, 1]);
    idle.commit(vec![running("c"), pending("e")]).await.unwrap();
    let made = ["a", "c", "d", "e"].map(|id| Key::new(Table::Task, id));
    assert_eq!(learnt(&third, 2, made.len()).await, made);
    assert_states(&third, &[("Pending", 3), ("Running", 2)]).await;
    // Once more, beside what is left of the first two, and the third one with them.
    let fourth = SurrealStore::open_server(hasty).await.unwrap();
    let left = writers();
    assert_eq!(left.as_array().unwrap().len(), 2, "{left}");
    assert_eq!(fourth.sequence().await.unwrap(), 4);
    assert_states(&fourth, &[("Pending", 3), ("Running", 2)]).await;
    third.commit(vec![running("b")]).await.unwrap();
    held_up.commit(vec![in_state("Completed", "a", Expect::Revision(2))]).await.unwrap();
    let made = ["a", "b"].map(|id| Key::new(Table::Task, id));
    assert_eq!(learnt(&fourth, 4, made.len()).await, made);
    assert_states(&fourth, &[("Completed", 1), ("Pending", 2), ("Running", 2)]).await;
    for store in [&*held_up, &idle, &third, &fourth] {
        store.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_a_newer_release_is_refused_and_nothing_is_changed_in_it() {
    if !is_asked_for("surrealdb-server") {
        return;
    }
    let server = server(true);
    // Whoever opens it and goes on puts together what is left of those before.
    let options = ServerOptions { retire_after: Duration::ZERO, ..server.database("ws") };
    let store = SurrealStore::open_server(options.clone()).await.unwrap();
    store.commit(vec![put("a", Expect::Absent, "1")]).await.unwrap();
    store.close().await.unwrap();
    assert_eq!(stored_version(options.clone()).await.unwrap(), Some(1));
    // Everything else may differ there, and there may be less of it.
    server.ask(&options, "UPSERT store:schema SET version = 2; REMOVE TABLE label; CREATE newer:one");
    let everything = || {
        let tables = "store, meta, change, tally, task, newer";
        server.ask(&options, &format!("INFO FOR DB; INFO FOR TABLE task; SELECT * FROM {tables}"))
    };
    let before = everything();
    let refused = SurrealStore::open_server(options.clone()).await.err().unwrap();
    assert!(matches!(refused, StoreError::NewerSchema { found: 2, known: 1 }), "{refused}");
    assert_eq!(stored_version(options.clone()).await.unwrap(), Some(2));
    assert_eq!(everything(), before);
}
