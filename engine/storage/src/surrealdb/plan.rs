//! Commits that wait at the same time, merged into one transaction.

use std::collections::{BTreeMap, HashMap};

use surrealdb::types::{Object, RecordId, Value};
use tokio::sync::oneshot;

use super::row::{content, ids, label_id, label_words, list, number, object, record_id, table_name, text};
use crate::record::{Change, Commit, Expect, Key, Operation, Revision};
use crate::request::revision_after;
use crate::store::{StoreError, StoreResult};

/// A commit on its way to the committer.
pub(super) struct Request {
    pub(super) operations: Vec<Operation>,
    pub(super) reply: oneshot::Sender<StoreResult<Commit>>,
}

impl Request {
    /// Answers its author, who may have gone.
    pub(super) fn answer(self, result: StoreResult<Commit>) {
        let _ = self.reply.send(result);
    }

    /// How much it adds to a transaction, in bytes.
    pub(super) fn size(&self) -> usize {
        let size = |operation: &Operation| match &operation.change {
            Change::Put { body, .. } | Change::Import { body, .. } => {
                512 + operation.key.id.len() + body.get().len()
            }
            Change::Delete | Change::Check => 256 + operation.key.id.len(),
        };
        self.operations.iter().map(size).sum()
    }

    /// The keys that it writes or removes.
    pub(super) fn changed(&self) -> Vec<Key> {
        let changed = self.operations.iter().filter(|operation| !matches!(operation.change, Change::Check));
        changed.map(|operation| operation.key.clone()).collect()
    }

    /// The new revisions of its records.
    pub(super) fn revisions(&self) -> Vec<Revision> {
        self.operations.iter().map(revision_after).collect()
    }
}

/// Revisions that the database has told of; 0 where there is no record.
pub(super) type Known = HashMap<Key, Revision>;

/// Which of the waiting commits are made together.
#[derive(Default)]
pub(super) struct Plan {
    /// These.
    pub(super) accepted: Vec<Request>,
    /// These lose to one of them, which one knows when those are made.
    pub(super) outrun: Vec<(Request, Key)>,
    /// These have lost already.
    pub(super) lost: Vec<(Request, Key)>,
    /// What is believed of the records before the transaction.
    before: HashMap<Key, Revision>,
    /// What the accepted ones make of the records.
    after: HashMap<Key, Revision>,
}

impl Plan {
    /// Sorts the commits. What is not known of a record is believed of the first who expects it.
    pub(super) fn new(waiting: Vec<Request>, known: &Known) -> Self {
        let mut plan = Self::default();
        for request in waiting {
            let mut loses_to = None;
            for Operation { key, expect, .. } in &request.operations {
                let expected = match expect {
                    Expect::Absent => 0,
                    Expect::Revision(revision) => *revision,
                };
                let (found, is_fact) = match (plan.after.get(key), known.get(key)) {
                    (Some(after), _) => (*after, false),
                    (None, Some(known)) => (*known, true),
                    (None, None) => (expected, false),
                };
                if found != expected {
                    loses_to = Some((key.clone(), is_fact));
                    break;
                }
            }
            match loses_to {
                None => plan.accept(request),
                Some((key, true)) => plan.lost.push((request, key)),
                Some((key, false)) => plan.outrun.push((request, key)),
            }
        }
        plan
    }

    fn accept(&mut self, request: Request) {
        for operation in &request.operations {
            let expected = match operation.expect {
                Expect::Absent => 0,
                Expect::Revision(revision) => revision,
            };
            self.before.entry(operation.key.clone()).or_insert(expected);
            self.after.insert(operation.key.clone(), revision_after(operation));
        }
        self.accepted.push(request);
    }

    /// Whether it is a single commit.
    pub(super) fn is_one(&self) -> bool {
        self.accepted.len() + self.outrun.len() == 1
    }

    /// All commits again.
    pub(super) fn into_waiting(self) -> Vec<Request> {
        self.accepted.into_iter().chain(self.outrun.into_iter().map(|(request, _)| request)).collect()
    }

    /// Answers all commits alike.
    pub(super) fn fail(self, error: impl Fn() -> StoreError) {
        for request in self.into_waiting() {
            request.answer(Err(error()));
        }
    }

    /// The keys of each accepted commit.
    pub(super) fn keys(&self) -> Vec<Vec<Key>> {
        self.accepted.iter().map(Request::changed).collect()
    }

    /// What is known of the records after the database has told which of them it has.
    pub(super) fn learn(&self, have: Vec<(Key, Revision)>) -> Known {
        let mut known: Known = self.before.keys().map(|key| (key.clone(), 0)).collect();
        known.extend(have);
        known
    }

    /// The transaction: its text and its values, but for those of the writer.
    pub(super) fn statement(&self) -> (String, Object) {
        let mut last: HashMap<&Key, &Operation> = HashMap::new();
        for operation in self.accepted.iter().flat_map(|request| &request.operations) {
            let is_check = matches!(operation.change, Change::Check);
            if !is_check || !last.contains_key(&operation.key) {
                last.insert(&operation.key, operation);
            }
        }
        let mut write = Writes::default();
        for (key, operation) in last {
            let before = self.before.get(key).copied().unwrap_or_default();
            write.add(key, before, operation);
        }
        let mut values = object([
            ("ids", ids(write.ids)),
            ("want", list(write.want)),
            ("touched", ids(write.touched)),
            ("puts", list(write.puts)),
            ("dels", ids(write.dels)),
            ("tally", list(write.tally.into_iter().map(|(place, n)| place.count(n)))),
            ("labels", list(write.labels)),
            ("marks", ids(write.marks)),
        ]);
        let names: Vec<String> = (0..write.held.len()).map(|n| format!("$c{n}")).collect();
        for (n, id) in write.held.into_iter().enumerate() {
            values.insert(format!("c{n}"), Value::RecordId(id));
        }
        let held = match names.is_empty() {
            true => String::new(),
            false => format!("LET $held = (SELECT VALUE id FROM {} FOR UPDATE);", names.join(", ")),
        };
        // A list that is inserted at once takes a fraction of the time of as many statements.
        let mut made = String::new();
        for (table, rows) in write.news {
            made += &format!("INSERT INTO `{table}` $new_{table} RETURN NONE;\n");
            values.insert(format!("new_{table}"), list(rows));
        }
        (COMMIT.replace("/*held*/", &held).replace("/*made*/", &made), values)
    }
}

/// One transaction. It looks first whether the writer is still who it was, then whether the records are
/// what they are believed to be; its only result says which of the two is not so, or that it is done.
const COMMIT: &str = "{
IF (SELECT VALUE epoch FROM ONLY $meta) != $epoch { RETURN { fenced: true } };
/*held*/
LET $have = (SELECT VALUE [id, rev] FROM $ids);
IF $have != $want { RETURN { have: $have } };
LET $old = (SELECT t, s, g, count() AS n FROM (SELECT record::tb(id) AS t, status AS s, grp AS g FROM $touched) GROUP BY t, s, g);
LET $oldmarks = array::flatten((SELECT VALUE marks FROM $touched));
LET $gone = array::complement($oldmarks, $marks);
/*made*/
FOR $p IN $puts { UPDATE $p.id CONTENT $p.rec RETURN NONE };
DELETE $dels RETURN NONE;
DELETE $gone RETURN NONE;
INSERT IGNORE INTO label $labels RETURN NONE;
FOR $t IN $old { UPSERT type::record('tally', [$me, $t.t, $t.s, $t.g]) SET n -= $t.n, w = $me, t = $t.t, status = $t.s, grp = $t.g RETURN NONE };
FOR $t IN $tally { UPSERT type::record('tally', [$me, $t.t, $t.s, $t.g]) SET n += $t.n, w = $me, t = $t.t, status = $t.s, grp = $t.g RETURN NONE };
UPDATE $meta SET n += $k, token = $tx, at = time::now() RETURN NONE;
INSERT INTO change $log RETURN NONE;
RETURN { done: true };
}";

/// What a tally counts.
#[derive(PartialEq, Eq, Hash)]
struct Place {
    table: &'static str,
    status: Option<std::sync::Arc<str>>,
    group: Option<std::sync::Arc<str>>,
}

impl Place {
    fn count(self, n: u64) -> Value {
        let table = Value::String(self.table.to_owned());
        let (status, group) = (text(self.status.as_ref()), text(self.group.as_ref()));
        Value::Object(object([("t", table), ("s", status), ("g", group), ("n", number(n))]))
    }
}

/// The values of a transaction.
#[derive(Default)]
struct Writes {
    ids: Vec<RecordId>,
    want: Vec<Value>,
    touched: Vec<RecordId>,
    held: Vec<RecordId>,
    news: BTreeMap<&'static str, Vec<Value>>,
    puts: Vec<Value>,
    dels: Vec<RecordId>,
    tally: HashMap<Place, u64>,
    labels: Vec<Value>,
    marks: Vec<RecordId>,
}

impl Writes {
    /// What the last operation on a record makes of it, where it had this revision before all of them.
    fn add(&mut self, key: &Key, before: Revision, operation: &Operation) {
        let id = record_id(key);
        self.ids.push(id.clone());
        let exists = before > 0;
        if exists {
            self.want.push(list([Value::RecordId(id.clone()), number(before)]));
        }
        match &operation.change {
            Change::Put { fields, body } | Change::Import { fields, body, .. } => {
                let mut row = content(key, revision_after(operation), fields, body);
                if exists {
                    let put = object([("id", Value::RecordId(id.clone())), ("rec", Value::Object(row))]);
                    self.touched.push(id.clone());
                    self.puts.push(Value::Object(put));
                } else {
                    row.insert("id", Value::RecordId(id.clone()));
                    self.news.entry(table_name(key.table)).or_default().push(Value::Object(row));
                }
                let place = Place {
                    table: table_name(key.table),
                    status: fields.status.clone(),
                    group: fields.group.clone(),
                };
                *self.tally.entry(place).or_default() += 1;
                for word in label_words(key.table, fields) {
                    let label = label_id(key, &word);
                    let row = object([
                        ("id", Value::RecordId(label.clone())),
                        ("word", Value::String(word)),
                        ("key", Value::String((*key.id).to_owned())),
                        ("rec", Value::RecordId(id.clone())),
                    ]);
                    self.labels.push(Value::Object(row));
                    self.marks.push(label);
                }
            }
            Change::Delete if exists => {
                self.touched.push(id.clone());
                self.dels.push(id);
            }
            // Made and removed within the transaction: it must not be there before.
            Change::Delete | Change::Check => self.held.push(id),
        }
    }
}
