//! The suite that every backend and every wrapper must pass: the contract of [`Store`], sentence by
//! sentence.
//!
//! A backend's test gives [`run_all`] a function that makes a [`Harness`], each around a new, empty
//! store:
//!
//! ```no_run
//! # use std::sync::Arc;
//! # use orchestrator_storage::{Store, conformance::{Harness, run_all}, filesystem::*};
//! struct Directory(std::path::PathBuf);
//!
//! #[async_trait::async_trait]
//! impl Harness for Directory {
//!     async fn open(&self) -> Arc<dyn Store> {
//!         Arc::new(FilesystemStore::open(FilesystemOptions::new(&self.0)).unwrap())
//!     }
//! }
//!
//! # async fn example(mut fresh: impl FnMut() -> std::path::PathBuf + Send) {
//! run_all(|| Arc::new(Directory(fresh()))).await;
//! # }
//! ```
//!
//! A failure panics, and says which cases failed.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::value::RawValue;

use crate::record::{Change, Expect, Fields, Key, Operation, Record, Revision, Table};
use crate::store::{Filter, Order, Query, Store};

mod commits;
mod lifetime;
mod listing;
mod watching;

/// Around one store: opens it, the first time empty, later with what was left in it. The suite closes
/// a store before it opens it again.
#[async_trait]
pub trait Harness: Send + Sync + 'static {
    /// Opens the store.
    async fn open(&self) -> Arc<dyn Store>;
}

type Running = Pin<Box<dyn Future<Output = ()> + Send>>;

/// One case of the suite.
#[derive(Clone, Copy)]
pub struct Case {
    /// What it shows.
    pub name: &'static str,
    run: fn(Arc<dyn Harness>) -> Running,
}

impl Case {
    /// Runs it on an empty store.
    ///
    /// # Panics
    /// When the store does not keep the contract.
    pub async fn run(&self, harness: Arc<dyn Harness>) {
        (self.run)(harness).await;
    }
}

macro_rules! cases {
    ($($module:ident::$name:ident),* $(,)?) => {
        /// Every case.
        pub const CASES: &[Case] = &[$(Case {
            name: stringify!($name),
            run: |harness| Box::pin($module::$name(harness)),
        }),*];
    };
}

cases![
    commits::an_expectation_of_absence_holds_once,
    commits::an_expectation_of_a_revision_holds_once,
    commits::revisions_grow_by_one_and_start_again_after_removal,
    commits::an_import_keeps_the_revision_of_the_original,
    commits::many_operations_are_one_commit,
    commits::a_conflict_leaves_nothing,
    commits::a_check_guards_and_changes_nothing,
    commits::a_key_stands_once_in_a_commit,
    commits::senseless_requests_are_invalid,
    commits::tables_are_apart,
    commits::bodies_are_kept_byte_for_byte,
    commits::fields_are_kept,
    commits::of_concurrent_commits_to_a_record_one_wins,
    commits::concurrent_commits_to_many_records_all_succeed,
    commits::a_dropped_future_undoes_nothing,
    listing::records_come_in_order,
    listing::pages_follow_each_other_while_records_come_and_go,
    listing::every_filter_picks_its_records,
    listing::filters_are_combined,
    listing::a_filter_finds_a_few_among_many,
    listing::a_record_that_changes_its_state_meanwhile_is_listed_once,
    listing::limits_are_checked,
    listing::counts_are_kept,
    watching::changes_come_in_order,
    watching::changes_end_at_a_commit,
    watching::changes_of_another_store_are_gone,
    watching::watchers_are_told,
    lifetime::reopening_keeps_everything,
    lifetime::sequences_go_on_after_reopening,
    lifetime::a_closed_store_says_so,
    lifetime::health_is_good_until_closed,
];

/// Runs every case, each on a store of its own.
///
/// # Panics
/// When the store does not keep the contract: with the names of the cases that failed.
#[expect(clippy::panic, reason = "a failed case is a failed test")]
pub async fn run_all(mut make: impl FnMut() -> Arc<dyn Harness>) {
    let mut failed = Vec::new();
    for case in CASES {
        // A task of its own, so that one failure does not hide the others.
        if tokio::spawn((case.run)(make())).await.is_err() {
            failed.push(case.name);
        }
    }
    if !failed.is_empty() {
        panic!("{} of {} cases of the storage contract failed: {failed:?}", failed.len(), CASES.len());
    }
}

/// A key of the table of tasks.
fn task(id: &str) -> Key {
    Key::new(Table::Task, id)
}

/// JSON text as a body.
#[expect(clippy::unwrap_used, reason = "the suite's own text is valid")]
fn body(text: &str) -> Arc<RawValue> {
    RawValue::from_string(text.to_owned()).unwrap().into()
}

/// Fields with a state and a group.
fn fields(status: &str, group: &str) -> Fields {
    Fields { status: Some(status.into()), group: Some(group.into()), ..Fields::default() }
}

fn put(key: &Key, expect: Expect, fields: Fields, text: &str) -> Operation {
    Operation { key: key.clone(), expect, change: Change::Put { fields, body: body(text) } }
}

fn create(key: &Key, text: &str) -> Operation {
    put(key, Expect::Absent, Fields::default(), text)
}

fn update(key: &Key, revision: Revision, text: &str) -> Operation {
    put(key, Expect::Revision(revision), Fields::default(), text)
}

fn import(key: &Key, expect: Expect, revision: Revision, fields: Fields, text: &str) -> Operation {
    Operation { key: key.clone(), expect, change: Change::Import { revision, fields, body: body(text) } }
}

fn delete(key: &Key, revision: Revision) -> Operation {
    Operation { key: key.clone(), expect: Expect::Revision(revision), change: Change::Delete }
}

fn check(key: &Key, expect: Expect) -> Operation {
    Operation { key: key.clone(), expect, change: Change::Check }
}

fn query(filter: Filter, order: Order) -> Query {
    Query { table: Table::Task, filter, order, after: None, limit: 100 }
}

/// The records of a listing, page by page to its end.
#[expect(clippy::unwrap_used, reason = "a failed call is a failed test")]
async fn list_all(store: &dyn Store, mut query: Query) -> Vec<Record> {
    let mut records = Vec::new();
    loop {
        let page = store.list(&query).await.unwrap();
        assert!(page.records.len() <= query.limit, "a page is longer than its limit");
        records.extend(page.records);
        match page.next {
            None => return records,
            Some(next) => {
                assert_ne!(query.after.as_ref(), Some(&next), "a cursor does not move");
                query.after = Some(next);
            }
        }
    }
}

/// The identifiers of a listing.
async fn list_ids(store: &dyn Store, query: Query) -> Vec<String> {
    list_all(store, query).await.iter().map(|record| record.key.id.to_string()).collect()
}

/// What a store holds, for comparisons.
async fn content(store: &dyn Store) -> BTreeMap<Key, (Revision, Fields, String)> {
    let mut content = BTreeMap::new();
    for table in Table::ALL {
        let all = Query { table, ..query(Filter::default(), Order::OldestFirst) };
        for record in list_all(store, all).await {
            let value = (record.revision, record.fields, record.body.get().to_owned());
            assert!(content.insert(record.key, value).is_none(), "a listing repeats a record");
        }
    }
    content
}
