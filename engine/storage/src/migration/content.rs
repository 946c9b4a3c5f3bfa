//! What a store holds, walked in order, compared with another and summed up.

use std::collections::VecDeque;

use sha2::{Digest, Sha256};

use super::MigrationError;
use super::state::state_key;
use crate::record::{Key, Record, Table};
use crate::store::{Cursor, Filter, Order, Query, Store, StoreResult};

/// How many records are asked for at a time.
pub(super) const PAGE: usize = 500;

/// How many of a table are: fewer where each may take hundreds of kilobytes.
pub(super) fn page(table: Table) -> usize {
    match table {
        Table::LogSegment => 16,
        _ => PAGE,
    }
}

/// How many records of the usual size one of a table counts for.
pub(super) fn weight(table: Table) -> usize {
    PAGE / page(table)
}

/// The records of a table in ascending order, page by page; the record of the store's state is left
/// out.
pub(super) struct Walk<'s> {
    store: &'s dyn Store,
    table: Table,
    buffer: VecDeque<Record>,
    after: Option<Cursor>,
    ended: bool,
}

impl<'s> Walk<'s> {
    pub(super) fn new(store: &'s dyn Store, table: Table) -> Self {
        Self { store, table, buffer: VecDeque::new(), after: None, ended: false }
    }

    async fn fill(&mut self) -> StoreResult<()> {
        let state = state_key();
        while self.buffer.is_empty() && !self.ended {
            let (table, after) = (self.table, self.after.take());
            let (order, limit) = (Order::OldestFirst, page(table));
            let page =
                self.store.list(&Query { table, filter: Filter::default(), order, after, limit }).await?;
            self.ended = page.next.is_none();
            self.after = page.next;
            self.buffer.extend(page.records.into_iter().filter(|record| record.key != state));
        }
        Ok(())
    }

    pub(super) async fn next(&mut self) -> StoreResult<Option<Record>> {
        self.fill().await?;
        Ok(self.buffer.pop_front())
    }
}

/// A key, and what the two stores have under it: one of them at least.
pub(super) struct Pair {
    pub(super) key: Key,
    pub(super) source: Option<Record>,
    pub(super) target: Option<Record>,
}

/// All records of two stores, side by side, table by table in ascending order.
pub(super) struct Pairs<'s> {
    source: Walk<'s>,
    target: Walk<'s>,
    tables: std::slice::Iter<'static, Table>,
}

impl<'s> Pairs<'s> {
    pub(super) fn new(source: &'s dyn Store, target: &'s dyn Store) -> Self {
        let mut tables = Table::ALL.iter();
        let first = tables.next().copied().unwrap_or(Table::Task);
        Self { source: Walk::new(source, first), target: Walk::new(target, first), tables }
    }

    /// The next key. Both sides are looked at before either goes on, so that what is written to the
    /// target for keys that were returned is never met again.
    pub(super) async fn next(&mut self) -> Result<Option<Pair>, MigrationError> {
        loop {
            self.source.fill().await.map_err(MigrationError::Source)?;
            self.target.fill().await.map_err(MigrationError::Target)?;
            let (source, target) = (&mut self.source.buffer, &mut self.target.buffer);
            let id = |side: &VecDeque<Record>| side.front().map(|record| record.key.id.clone());
            let first = match (id(source), id(target)) {
                (Some(source), Some(target)) => source.min(target),
                (Some(one), None) | (None, Some(one)) => one,
                (None, None) => {
                    let Some(table) = self.tables.next() else { return Ok(None) };
                    self.source = Walk::new(self.source.store, *table);
                    self.target = Walk::new(self.target.store, *table);
                    continue;
                }
            };
            let key = Key::new(self.source.table, first);
            let source = source.pop_front_if(|record| record.key == key);
            let target = target.pop_front_if(|record| record.key == key);
            return Ok(Some(Pair { key, source, target }));
        }
    }
}

/// Whether two records are the same in every part.
pub(super) fn same(one: &Record, other: &Record) -> bool {
    one.key == other.key
        && one.revision == other.revision
        && one.fields == other.fields
        && one.body.get() == other.body.get()
}

/// What records add up to: how many there are, and the sum of their digests. The order in which they
/// were added does not matter, and each can be taken out again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// How many records.
    pub records: u64,
    sum: u128,
}

impl Tally {
    /// Takes a record in.
    pub fn add(&mut self, record: &Record) {
        self.records += 1;
        self.sum = self.sum.wrapping_add(digest(record));
    }

    /// Takes a record out that was taken in.
    pub fn remove(&mut self, record: &Record) {
        self.records -= 1;
        self.sum = self.sum.wrapping_sub(digest(record));
    }

    /// The checksum of the content, in 32 hexadecimal digits: equal for equal records, whatever backend
    /// holds them.
    pub fn checksum(&self) -> String {
        format!("{:032x}", self.sum)
    }
}

/// The first half of the SHA-256 of all parts of a record, each with its length before it.
fn digest(record: &Record) -> u128 {
    let mut hash = Sha256::new();
    let mut feed = |part: Option<&[u8]>| match part {
        None => hash.update([0]),
        Some(bytes) => {
            hash.update([1]);
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        }
    };
    let Record { key, revision, fields, body } = record;
    feed(Some(key.table.as_str().as_bytes()));
    feed(Some(key.id.as_bytes()));
    feed(Some(&revision.to_le_bytes()));
    for text in [&fields.status, &fields.group, &fields.kind, &fields.parent] {
        feed(text.as_ref().map(|text| text.as_bytes()));
    }
    feed(Some(&fields.created_at_ms.to_le_bytes()));
    feed(fields.ended_at_ms.map(i64::to_le_bytes).as_ref().map(|bytes| &bytes[..]));
    feed(Some(&(fields.labels.len() as u64).to_le_bytes()));
    for (name, value) in &fields.labels {
        feed(Some(name.as_bytes()));
        feed(Some(value.as_bytes()));
    }
    feed(Some(body.get().as_bytes()));
    let bytes: [u8; 32] = hash.finalize().into();
    bytes[..16].iter().fold(0, |sum, byte| sum << 8 | u128::from(*byte))
}

/// How many records a store has, as its kept counts say, without that of its state.
pub(super) async fn counted(store: &dyn Store) -> StoreResult<u64> {
    let state = store.get(&state_key()).await?.is_some();
    let mut records = 0;
    for table in Table::ALL {
        records += store.counts(table).await?.iter().map(|count| count.records).sum::<u64>();
    }
    Ok(records.saturating_sub(u64::from(state)))
}
