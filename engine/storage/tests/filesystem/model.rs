//! A store in a map, and seeded commits: what the backend is compared with.

use std::sync::Arc;

use orchestrator_storage::{Change, Expect, Fields, Filter, Key, Operation, Table};
use rand::RngExt;
use rand::rngs::StdRng;

use super::support::{Content, put};

/// Applies a commit to what a store holds, if its expectations hold.
pub fn apply(content: &mut Content, operations: &[Operation]) -> bool {
    let holds = operations.iter().all(|operation| {
        let found = content.get(&operation.key).map(|(revision, ..)| *revision);
        match operation.expect {
            Expect::Absent => found.is_none(),
            Expect::Revision(revision) => found == Some(revision),
        }
    });
    if holds {
        for Operation { key, change, .. } in operations {
            match change {
                Change::Put { fields, body } => {
                    let revision = content.get(key).map_or(0, |(revision, ..)| *revision) + 1;
                    content.insert(key.clone(), (revision, fields.clone(), body.get().to_owned()));
                }
                Change::Import { revision, fields, body } => {
                    content.insert(key.clone(), (*revision, fields.clone(), body.get().to_owned()));
                }
                Change::Delete => {
                    content.remove(key);
                }
                Change::Check => {}
            }
        }
    }
    holds
}

fn pick<'a>(random: &mut StdRng, words: &[&'a str]) -> Option<&'a str> {
    words.get(random.random_range(0..=words.len())).copied()
}

pub fn any_fields(random: &mut StdRng) -> Fields {
    Fields {
        status: pick(random, &["Pending", "Running", "Completed"]).map(Into::into),
        group: pick(random, &["alpha", "beta"]).map(Into::into),
        kind: pick(random, &["command", "workflow"]).map(Into::into),
        parent: pick(random, &["p1", "p2"]).map(Into::into),
        created_at_ms: random.random_range(-3..10),
        ended_at_ms: random.random_bool(0.5).then(|| random.random_range(0..10)),
        labels: pick(random, &["x", "y"]).map(|value| ("label".into(), value.into())).into_iter().collect(),
    }
}

pub fn any_filter(random: &mut StdRng) -> Filter {
    let Fields { status, group, kind, parent, labels, ended_at_ms, .. } = any_fields(random);
    let mut rarely = || random.random_bool(0.3);
    Filter {
        statuses: status.filter(|_| rarely()).into_iter().chain(rarely().then(|| "Running".into())).collect(),
        group: group.filter(|_| rarely()),
        kind: kind.filter(|_| rarely()),
        parent: parent.filter(|_| rarely()),
        labels: labels.into_iter().filter(|_| rarely()).collect(),
        created_from_ms: rarely().then_some(1),
        created_before_ms: rarely().then_some(7),
        ended_before_ms: ended_at_ms.filter(|_| rarely()),
    }
}

/// Whether a record is what a filter asks for, said in the plainest way.
pub fn matches(fields: &Fields, filter: &Filter) -> bool {
    let is = |wanted: &Option<Arc<str>>, found: &Option<Arc<str>>| wanted.is_none() || wanted == found;
    let status_fits = filter.statuses.is_empty()
        || fields.status.as_ref().is_some_and(|status| filter.statuses.contains(status));
    status_fits
        && is(&filter.group, &fields.group)
        && is(&filter.kind, &fields.kind)
        && is(&filter.parent, &fields.parent)
        && filter.labels.iter().all(|(name, value)| fields.labels.get(name) == Some(value))
        && filter.created_from_ms.is_none_or(|from| fields.created_at_ms >= from)
        && filter.created_before_ms.is_none_or(|before| fields.created_at_ms < before)
        && filter.ended_before_ms.is_none_or(|before| fields.ended_at_ms.is_some_and(|at| at < before))
}

/// A commit that mostly fits what is there.
pub fn any_commit(random: &mut StdRng, content: &Content) -> Vec<Operation> {
    let mut operations: Vec<Operation> = Vec::new();
    for _ in 0..random.random_range(1..5) {
        let table = if random.random_bool(0.8) { Table::Task } else { Table::Lock };
        let key = Key::new(table, format!("r{:02}", random.random_range(0..30)));
        if operations.iter().any(|operation| operation.key == key) {
            continue;
        }
        let found = content.get(&key).map(|(revision, ..)| *revision);
        let expect = match found {
            _ if random.random_bool(0.03) => Expect::Revision(random.random_range(1..9)),
            Some(revision) => Expect::Revision(revision),
            None => Expect::Absent,
        };
        let text = format!("\"{}\"", "x".repeat(random.random_range(0..80)));
        let change = match random.random_range(0..10) {
            0 => match put(&key, expect, any_fields(random), &text).change {
                Change::Put { fields, body } => {
                    Change::Import { revision: random.random_range(1..9), fields, body }
                }
                other => other,
            },
            1..=6 => put(&key, expect, any_fields(random), &text).change,
            7 | 8 if expect != Expect::Absent => Change::Delete,
            _ => Change::Check,
        };
        operations.push(Operation { key, expect, change });
    }
    operations
}
