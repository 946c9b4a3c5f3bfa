//! What the filesystem backend keeps in memory: everything about the records but their bodies.
//!
//! For each table there is a map from identifier to [`Entry`] (revision, fields, and where the body
//! lies), the same identifiers in buckets by state and group, and by parent. So the number of records
//! in a state is the size of a bucket, and listing the few that match out of many does not look at
//! the many. Strings that many records share are kept once. The index holds durable commits only.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use super::frame::DataFile;
use super::journal::Span;
use super::merge::Merge;
use crate::record::{Fields, Key, Revision, Sequence, Table};
use crate::store::{Changes, Count, Cursor, Filter, Order, Query};

/// How many changed keys are remembered for [`Index::changes`]: what a reader may fall behind.
const REMEMBERED_CHANGES: usize = 65_536;

/// How many entries one page looks at before it hands back what it has, so that no listing holds up
/// the commits for long (a few milliseconds).
const LOOKS_PER_PAGE: usize = 50_000;

/// How many bytes of bodies one page holds, apart from its first record.
const BODY_BYTES_PER_PAGE: u64 = 32 * 1024 * 1024;

/// What a record costs on disk beside its body, about.
const RECORD_OVERHEAD_BYTES: u64 = 160;

/// Where a body lies.
#[derive(Clone)]
pub(super) struct Location {
    pub(super) file: Arc<DataFile>,
    pub(super) span: Span,
}

/// A record without its body.
pub(super) struct Entry {
    pub(super) revision: Revision,
    pub(super) location: Location,
    status: Option<Arc<str>>,
    group: Option<Arc<str>>,
    kind: Option<Arc<str>>,
    parent: Option<Arc<str>>,
    created_at_ms: i64,
    ended_at_ms: Option<i64>,
    // Smaller than the map of `Fields`, whose first label alone takes some 400 bytes.
    labels: Box<[(Arc<str>, Arc<str>)]>,
}

impl Entry {
    /// The same record with its body in another place.
    pub(super) fn moved_to(&self, location: Location) -> Self {
        Self {
            revision: self.revision,
            location,
            status: self.status.clone(),
            group: self.group.clone(),
            kind: self.kind.clone(),
            parent: self.parent.clone(),
            created_at_ms: self.created_at_ms,
            ended_at_ms: self.ended_at_ms,
            labels: self.labels.clone(),
        }
    }

    /// The fields as the contract has them.
    pub(super) fn fields(&self) -> Fields {
        Fields {
            status: self.status.clone(),
            group: self.group.clone(),
            kind: self.kind.clone(),
            parent: self.parent.clone(),
            created_at_ms: self.created_at_ms,
            ended_at_ms: self.ended_at_ms,
            labels: self.labels.iter().cloned().collect(),
        }
    }

    fn matches(&self, filter: &Filter) -> bool {
        let same = |wanted: &Option<Arc<str>>, is: &Option<Arc<str>>| wanted.is_none() || wanted == is;
        (filter.statuses.is_empty() || self.status.as_ref().is_some_and(|is| filter.statuses.contains(is)))
            && same(&filter.group, &self.group)
            && same(&filter.kind, &self.kind)
            && same(&filter.parent, &self.parent)
            && filter.created_from_ms.is_none_or(|from| self.created_at_ms >= from)
            && filter.created_before_ms.is_none_or(|before| self.created_at_ms < before)
            && filter
                .ended_before_ms
                .is_none_or(|before| self.ended_at_ms.is_some_and(|ended| ended < before))
            && filter.labels.iter().all(|label| self.labels.contains(label))
    }

    fn bucket(&self) -> Bucket {
        (self.status.clone(), self.group.clone())
    }

    fn stored_bytes(&self) -> u64 {
        u64::from(self.location.span.length) + RECORD_OVERHEAD_BYTES
    }
}

/// A change that is durable.
pub(super) struct Applied {
    pub(super) key: Key,
    /// `None` for a removal.
    pub(super) put: Option<(Revision, Fields, Location)>,
}

/// A page of a listing whose bodies are still to be read.
pub(super) struct Listing {
    pub(super) found: Vec<(Arc<str>, Arc<Entry>)>,
    pub(super) next: Option<Cursor>,
}

type Bucket = (Option<Arc<str>>, Option<Arc<str>>);
type Ids = BTreeSet<Arc<str>>;

#[derive(Default)]
struct TableIndex {
    entries: BTreeMap<Arc<str>, Arc<Entry>>,
    buckets: BTreeMap<Bucket, Ids>,
    children: HashMap<Arc<str>, Ids>,
}

impl TableIndex {
    fn add_to_sets(&mut self, id: &Arc<str>, entry: &Entry) {
        self.buckets.entry(entry.bucket()).or_default().insert(id.clone());
        if let Some(parent) = &entry.parent {
            self.children.entry(parent.clone()).or_default().insert(id.clone());
        }
    }

    fn remove_from_sets(&mut self, id: &str, entry: &Entry) {
        let bucket = entry.bucket();
        if let Some(ids) = self.buckets.get_mut(&bucket) {
            ids.remove(id);
            if ids.is_empty() {
                self.buckets.remove(&bucket);
            }
        }
        if let Some(parent) = &entry.parent
            && let Some(ids) = self.children.get_mut(parent)
        {
            ids.remove(id);
            if ids.is_empty() {
                self.children.remove(parent);
            }
        }
    }

    /// The identifiers among which the matches of a filter are, in order, after a cursor.
    fn candidates<'a>(&'a self, query: &'a Query) -> Box<dyn Iterator<Item = &'a Arc<str>> + 'a> {
        let (filter, order) = (&query.filter, query.order);
        let range = range(order, query.after.as_ref());
        if let Some(parent) = &filter.parent {
            return match self.children.get(parent) {
                Some(ids) => in_order(ids.range::<str, _>(range), order),
                None => Box::new(std::iter::empty()),
            };
        }
        if filter.statuses.is_empty() && filter.group.is_none() {
            return in_order(self.entries.range::<str, _>(range).map(|(id, _)| id), order);
        }
        let chosen = self.buckets.iter().filter(|((status, group), _)| {
            (filter.statuses.is_empty()
                || status.as_ref().is_some_and(|status| filter.statuses.contains(status)))
                && (filter.group.is_none() || filter.group == *group)
        });
        let mut sources: Vec<_> =
            chosen.map(|(_, ids)| in_order(ids.range::<str, _>(range), order)).collect();
        match sources.len() {
            1 => sources.remove(0),
            _ => Box::new(Merge::new(sources, order)),
        }
    }
}

fn range(order: Order, after: Option<&Cursor>) -> (Bound<&str>, Bound<&str>) {
    match (order, after) {
        (_, None) => (Bound::Unbounded, Bound::Unbounded),
        (Order::OldestFirst, Some(id)) => (Bound::Excluded(&**id), Bound::Unbounded),
        (Order::NewestFirst, Some(id)) => (Bound::Unbounded, Bound::Excluded(&**id)),
    }
}

fn in_order<'a>(
    ids: impl DoubleEndedIterator<Item = &'a Arc<str>> + 'a,
    order: Order,
) -> Box<dyn Iterator<Item = &'a Arc<str>> + 'a> {
    match order {
        Order::OldestFirst => Box::new(ids),
        Order::NewestFirst => Box::new(ids.rev()),
    }
}

/// Everything that is durable, but for the bodies.
#[derive(Default)]
pub(super) struct Index {
    tables: [TableIndex; Table::ALL.len()],
    strings: HashSet<Arc<str>>,
    sequence: Sequence,
    stored_bytes: u64,
    /// Keys that commits after `forgotten` have changed, oldest first.
    changed: VecDeque<(Sequence, Key)>,
    forgotten: Sequence,
}

impl Index {
    /// An index that packed files are loaded into: they hold what commits up to `sequence` have made.
    pub(super) fn starting_at(sequence: Sequence) -> Self {
        Self { sequence, forgotten: sequence, ..Self::default() }
    }

    fn table(&self, table: Table) -> &TableIndex {
        &self.tables[table as usize]
    }

    /// The newest commit.
    pub(super) fn sequence(&self) -> Sequence {
        self.sequence
    }

    /// What all records take on disk, about.
    pub(super) fn stored_bytes(&self) -> u64 {
        self.stored_bytes
    }

    /// The revision of a record; 0 where there is none.
    pub(super) fn revision(&self, key: &Key) -> Revision {
        self.entry(key).map_or(0, |entry| entry.revision)
    }

    /// A record without its body.
    pub(super) fn entry(&self, key: &Key) -> Option<&Arc<Entry>> {
        self.table(key.table).entries.get(&key.id)
    }

    /// Adds the changes of the next commit.
    pub(super) fn apply(&mut self, sequence: Sequence, changes: impl IntoIterator<Item = Applied>) {
        self.sequence = sequence;
        for Applied { key, put } in changes {
            let id = match put {
                Some((revision, fields, location)) => self.put(key.table, key.id, revision, fields, location),
                None => {
                    self.delete(&key);
                    key.id
                }
            };
            if self.changed.len() == REMEMBERED_CHANGES
                && let Some((oldest, _)) = self.changed.pop_front()
            {
                self.forgotten = oldest;
            }
            self.changed.push_back((sequence, Key { table: key.table, id }));
        }
    }

    /// Writes one record and returns its identifier, shared with the index.
    pub(super) fn put(
        &mut self,
        table: Table,
        id: Arc<str>,
        revision: Revision,
        fields: Fields,
        location: Location,
    ) -> Arc<str> {
        let mut share = |string: Arc<str>| match self.strings.get(&string) {
            Some(known) => known.clone(),
            None => {
                self.strings.insert(string.clone());
                string
            }
        };
        let labels = fields.labels.into_iter().map(|(name, value)| (share(name), share(value))).collect();
        let entry = Arc::new(Entry {
            revision,
            location,
            status: fields.status.map(&mut share),
            group: fields.group.map(&mut share),
            kind: fields.kind.map(&mut share),
            parent: fields.parent.map(&mut share),
            created_at_ms: fields.created_at_ms,
            ended_at_ms: fields.ended_at_ms,
            labels,
        });
        self.stored_bytes += entry.stored_bytes();
        let table = &mut self.tables[table as usize];
        let known = table.entries.get_key_value(&id).map(|(id, old)| (id.clone(), old.clone()));
        let Some((id, old)) = known else {
            table.add_to_sets(&id, &entry);
            table.entries.insert(id.clone(), entry);
            return id;
        };
        self.stored_bytes -= old.stored_bytes();
        if old.bucket() != entry.bucket() || old.parent != entry.parent {
            table.remove_from_sets(&id, &old);
            table.add_to_sets(&id, &entry);
        }
        table.entries.insert(id.clone(), entry);
        id
    }

    fn delete(&mut self, key: &Key) {
        let table = &mut self.tables[key.table as usize];
        if let Some(old) = table.entries.remove(&key.id) {
            self.stored_bytes -= old.stored_bytes();
            table.remove_from_sets(&key.id, &old);
        }
    }

    /// All records as they are now, by table and identifier: what a checkpoint writes.
    pub(super) fn snapshot(&self) -> Vec<(Table, Arc<str>, Arc<Entry>)> {
        let entries =
            |table| self.table(table).entries.iter().map(move |(id, e)| (table, id.clone(), e.clone()));
        Table::ALL.into_iter().flat_map(entries).collect()
    }

    /// Notes the new places of bodies, where the record has not been changed since.
    pub(super) fn relocate<'a>(
        &mut self,
        moves: impl IntoIterator<Item = (Table, &'a Arc<str>, &'a Arc<Entry>, Location)>,
    ) {
        for (table, id, old, location) in moves {
            if let Some(entry) = self.tables[table as usize].entries.get_mut(id)
                && Arc::ptr_eq(entry, old)
            {
                *entry = Arc::new(old.moved_to(location));
            }
        }
    }

    /// Lets go of shared strings that no record has any more.
    pub(super) fn forget_unused_strings(&mut self) {
        self.strings.retain(|string| Arc::strong_count(string) > 1);
    }

    /// The entries of one page.
    pub(super) fn list(&self, query: &Query) -> Listing {
        let table = self.table(query.table);
        let mut found = Vec::new();
        let mut body_bytes = 0;
        let mut last: Option<&Arc<str>> = None;
        for (looked, id) in table.candidates(query).enumerate() {
            let Some(entry) = table.entries.get(id) else { continue };
            let matches = entry.matches(&query.filter);
            let size = u64::from(entry.location.span.length);
            let full =
                found.len() == query.limit || (!found.is_empty() && body_bytes + size > BODY_BYTES_PER_PAGE);
            if looked == LOOKS_PER_PAGE || (matches && full) {
                return Listing { found, next: last.cloned() };
            }
            if matches {
                body_bytes += size;
                found.push((id.clone(), entry.clone()));
            }
            last = Some(id);
        }
        Listing { found, next: None }
    }

    /// The sizes of the buckets.
    pub(super) fn counts(&self, table: Table) -> Vec<Count> {
        let count = |((status, group), ids): (&Bucket, &Ids)| Count {
            status: status.clone(),
            group: group.clone(),
            records: ids.len() as u64,
        };
        self.table(table).buckets.iter().map(count).collect()
    }

    /// The keys that commits after a sequence have changed: whole commits, at most about `limit` keys.
    pub(super) fn changes(&self, after: Sequence, limit: usize) -> Changes {
        if after < self.forgotten || after > self.sequence {
            return Changes::Gone { upto: self.sequence };
        }
        let start = self.changed.partition_point(|(sequence, _)| *sequence <= after);
        let mut keys: Vec<(Sequence, Key)> = Vec::new();
        for change in self.changed.range(start..) {
            if let Some((last, _)) = keys.last()
                && keys.len() >= limit
                && *last != change.0
            {
                return Changes::Since { upto: *last, keys };
            }
            keys.push(change.clone());
        }
        Changes::Since { upto: self.sequence, keys }
    }
}
