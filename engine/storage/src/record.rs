//! Keys, records, fields and operations: the words of the storage contract.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// What kind of thing a record is. Each table is ordered by identifier on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Table {
    /// Tasks, workflows among them. The identifier is a UUID v7, so that newer sorts after older.
    Task,
    /// Idempotency keys, with the hash of the request that used them.
    IdempotencyKey,
    /// Named locks and the slots of groups, held by tasks.
    Lock,
    /// Settings of the queue: what is paused, limits of groups.
    Control,
    /// Engines that share this store.
    Engine,
    /// Containerised test environments.
    Environment,
    /// Entries of the audit trail.
    Audit,
    /// Those who may call: names, roles, hashes of tokens.
    Principal,
    /// Segments of output, shipped where several engines share the store.
    LogSegment,
}

impl Table {
    /// Every table, in a fixed order.
    pub const ALL: [Table; 9] = [
        Table::Task,
        Table::IdempotencyKey,
        Table::Lock,
        Table::Control,
        Table::Engine,
        Table::Environment,
        Table::Audit,
        Table::Principal,
        Table::LogSegment,
    ];

    /// The name under which the table is stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Table::Task => "task",
            Table::IdempotencyKey => "idempotency-key",
            Table::Lock => "lock",
            Table::Control => "control",
            Table::Engine => "engine",
            Table::Environment => "environment",
            Table::Audit => "audit",
            Table::Principal => "principal",
            Table::LogSegment => "log-segment",
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The longest identifier a backend accepts, in bytes.
pub const MAX_ID_BYTES: usize = 512;

/// Where a record lives. `id` is not empty, at most [`MAX_ID_BYTES`] long, and orders the table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    /// The table.
    pub table: Table,
    /// The identifier within the table.
    pub id: Arc<str>,
}

impl Key {
    /// A key from its parts.
    pub fn new(table: Table, id: impl Into<Arc<str>>) -> Self {
        Self { table, id: id.into() }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.table, self.id)
    }
}

/// How often a record has been written: 1 when created, then one more with each write. A copy of a
/// record goes on from the revision of the original ([`Change::Import`]).
pub type Revision = u64;

/// The number of a commit in this store: it grows with each, may skip numbers, and never goes back.
pub type Sequence = u64;

/// What of a record a backend indexes. Everything else is in the body, which no backend reads.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fields {
    /// The state, for filters and for the counts that are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Arc<str>>,
    /// The fairness group, for filters and for the counts that are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<Arc<str>>,
    /// The kind of task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<Arc<str>>,
    /// The identifier of the record that this one belongs to, such as a task's workflow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Arc<str>>,
    /// When it was created, in milliseconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub created_at_ms: i64,
    /// When it ended, in milliseconds since the Unix epoch; what retention looks at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at_ms: Option<i64>,
    /// The user's labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<Arc<str>, Arc<str>>,
}

fn is_zero(value: &i64) -> bool {
    *value == 0
}

/// A record as stored.
#[derive(Debug, Clone)]
pub struct Record {
    /// Where it lives.
    pub key: Key,
    /// How often it has been written.
    pub revision: Revision,
    /// What the backend indexes.
    pub fields: Fields,
    /// What its owner keeps in it: JSON text, handed back byte for byte.
    pub body: Arc<RawValue>,
}

/// What the author of an operation believes about the record it changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// There is no record under this key.
    Absent,
    /// There is one, with this revision.
    Revision(Revision),
}

/// What an operation does.
#[derive(Debug, Clone)]
pub enum Change {
    /// Write the record, whole.
    Put {
        /// What the backend indexes.
        fields: Fields,
        /// JSON text.
        body: Arc<RawValue>,
    },
    /// Write the record, whole, with a revision of the author's choice, 1 or more, in place of the
    /// next one. Only for copying a store, so that whoever read the record there is right or wrong
    /// about its revision here as well.
    Import {
        /// The revision that the record has from here on.
        revision: Revision,
        /// What the backend indexes.
        fields: Fields,
        /// JSON text.
        body: Arc<RawValue>,
    },
    /// Remove the record.
    Delete,
    /// Leave it alone, but fail unless the expectation holds.
    Check,
}

/// One change to one record.
#[derive(Debug, Clone)]
pub struct Operation {
    /// The record.
    pub key: Key,
    /// What its author believes about it.
    pub expect: Expect,
    /// What to do.
    pub change: Change,
}

/// A commit that is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Its number.
    pub sequence: Sequence,
    /// The new revision of each operation's record, in the order of the operations: 0 for a record
    /// that was removed, unchanged for one that was only checked.
    pub revisions: Vec<Revision>,
}
