//! Pages of a listing, and the counts.
//!
//! One index gives records in order; what else a filter asks for is looked for in a window of what the
//! index gives, so that a page costs the same whatever it finds. Several states are windows of their own,
//! merged here, because the database would sort all of them; they are read in one transaction, so that a
//! record that changes its state meanwhile is in one of them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use surrealdb::types::{Number, Object, Value};

use super::link::{Link, Trouble};
use super::row::{count, int, label_word, list, object, record, shared, table_name};
use crate::record::{Record, Table};
use crate::store::{Cursor, Order, Page, Query};

/// How many records a page with a filter beside the index looks at, at least.
const WINDOW: usize = 1_000;

/// What gives the records in order.
enum Source {
    All,
    /// A column with an index, and its value.
    Column(&'static str, Arc<str>),
    /// The rows of a label.
    Label(String),
}

/// What a source has given.
struct Window {
    records: Vec<Record>,
    /// The last identifier that was looked at, where there is more behind it.
    end: Option<Cursor>,
}

/// One page.
pub(super) async fn page(link: &Link, query: &Query) -> Result<Page, Trouble> {
    let mut values = Object::new();
    let (mut statements, mut results, mut limits) = (String::new(), Vec::new(), Vec::new());
    for (n, source) in sources(query).iter().enumerate() {
        let window = select(query, source, n, &mut values);
        statements += &window.statements;
        results.push(window.result);
        limits.push(window.limit);
    }
    let text = format!("{{ {statements} RETURN [{}]; }}", results.join(", "));
    let Value::Array(answers) = link.read(&text, values).await? else { return Err(broken()) };
    let answers = answers.into_vec().into_iter().zip(limits);
    let windows = answers.map(|(answer, limit)| window(query, answer, limit));
    Ok(merge(windows.collect::<Result<_, _>>()?, query))
}

fn broken() -> Trouble {
    Trouble::Refused("a page is not what it should be".to_owned())
}

/// The sources whose records together are those that the filter can find.
fn sources(query: &Query) -> Vec<Source> {
    let filter = &query.filter;
    if let Some((name, value)) = filter.labels.first() {
        return vec![Source::Label(label_word(query.table, name, value))];
    }
    if let Some(parent) = &filter.parent {
        return vec![Source::Column("parent", Arc::clone(parent))];
    }
    if !filter.statuses.is_empty() {
        let mut statuses = filter.statuses.clone();
        statuses.sort();
        statuses.dedup();
        return statuses.into_iter().map(|status| Source::Column("status", status)).collect();
    }
    match &filter.group {
        Some(group) => vec![Source::Column("grp", Arc::clone(group))],
        None => vec![Source::All],
    }
}

/// The conditions that a source does not see to, with their values.
fn rest(query: &Query, source: &Source, values: &mut Object) -> String {
    let filter = &query.filter;
    let mut conditions = Vec::new();
    let mut add = |condition: &'static str, name: &str, value: Value| {
        conditions.push(condition);
        values.insert(name, value);
    };
    let is_source = |column: &str| matches!(source, Source::Column(name, _) if *name == column);
    let text = |text: &Arc<str>| Value::String((**text).to_owned());
    if !filter.statuses.is_empty() && !is_source("status") {
        add("status IN $statuses", "statuses", list(filter.statuses.iter().map(text)));
    }
    for (column, condition, value) in [
        ("grp", "grp = $grp", &filter.group),
        ("kind", "kind = $kind", &filter.kind),
        ("parent", "parent = $parent_id", &filter.parent),
    ] {
        if let Some(value) = value
            && !is_source(column)
        {
            // `$parent` has a meaning of its own in the database.
            let name = if column == "parent" { "parent_id" } else { column };
            add(condition, name, text(value));
        }
    }
    // The first label is the source.
    if filter.labels.len() > 1 {
        let words = filter.labels.iter().map(|(name, value)| label_word(query.table, name, value));
        add("labels CONTAINSALL $words", "words", list(words.map(Value::String)));
    }
    let time = |ms: i64| Value::Number(Number::Int(ms));
    if let Some(from) = filter.created_from_ms {
        add("created >= $created_from", "created_from", time(from));
    }
    if let Some(before) = filter.created_before_ms {
        add("created < $created_before", "created_before", time(before));
    }
    if let Some(before) = filter.ended_before_ms {
        add("ended != NONE AND ended < $ended_before", "ended_before", time(before));
    }
    conditions.join(" AND ")
}

/// How a source is asked for a window of its records.
struct Select {
    statements: String,
    /// An expression of what the statements have found.
    result: String,
    /// How many records are looked at, at most.
    limit: usize,
}

/// How the source of this number is asked for its records after the cursor.
fn select(query: &Query, source: &Source, n: usize, values: &mut Object) -> Select {
    let conditions = rest(query, source, values);
    // One more than is wanted tells whether there is more.
    let wanted = query.limit + 1;
    let limit = if conditions.is_empty() { wanted } else { wanted.max(WINDOW) };
    let table = table_name(query.table);
    let driver = format!("driver{n}");
    let (what, table, condition) = match source {
        Source::All => ("*", table, "every = 0".to_owned()),
        Source::Column(column, value) => {
            values.insert(driver.clone(), Value::String((**value).to_owned()));
            ("*", table, format!("{column} = ${driver}"))
        }
        Source::Label(word) => {
            values.insert(driver.clone(), Value::String(word.clone()));
            ("key, rec", "label", format!("word = ${driver}"))
        }
    };
    let (beyond, direction) = match query.order {
        Order::NewestFirst => ("<", "DESC"),
        Order::OldestFirst => (">", "ASC"),
    };
    let mut select = format!("SELECT {what} FROM `{table}` WHERE {condition}");
    if let Some(after) = &query.after {
        values.insert("after_key", Value::String((**after).to_owned()));
        // Writing to a string does not fail.
        let _ = write!(select, " AND key {beyond} $after_key");
    }
    // The limit is text, because a bound one is not pushed down to the index.
    let _ = write!(select, " ORDER BY key {direction} LIMIT {limit}");
    let w = format!("$w{n}");
    let statements = match source {
        Source::Label(_) => format!("LET $l{n} = ({select}); LET {w} = (SELECT * FROM $l{n}.rec);"),
        _ => format!("LET {w} = ({select});"),
    };
    let found = if conditions.is_empty() { w.clone() } else { format!("{w}[WHERE {conditions}]") };
    let result = format!("{{ n: array::len({w}), last: array::last({w}).key, rows: {found} }}");
    Select { statements, result, limit }
}

/// What a source has given that was asked for so many records.
fn window(query: &Query, answer: Value, limit: usize) -> Result<Window, Trouble> {
    let Value::Object(answer) = answer else { return Err(broken()) };
    let mut answer = answer.into_inner();
    let Some(Value::Array(rows)) = answer.remove("rows") else { return Err(broken()) };
    let records = rows.into_vec().into_iter().map(|row| record(query.table, row));
    let records = records.collect::<Result<_, _>>().map_err(Trouble::Refused)?;
    let looked_at = answer.get("n").and_then(count).ok_or_else(broken)?;
    let end = if looked_at >= limit as u64 { shared(answer.remove("last")) } else { None };
    Ok(Window { records, end })
}

/// Puts what the sources have given into one page.
fn merge(windows: Vec<Window>, query: &Query) -> Page {
    let comes_first = |a: &str, b: &str| match query.order {
        Order::NewestFirst => b.cmp(a),
        Order::OldestFirst => a.cmp(b),
    };
    // Beyond the first end, records of that source may be missing.
    let horizon = windows.iter().filter_map(|window| window.end.clone()).min_by(|a, b| comes_first(a, b));
    let mut records: Vec<Record> = windows.into_iter().flat_map(|window| window.records).collect();
    records.sort_by(|a, b| comes_first(&a.key.id, &b.key.id));
    if let Some(horizon) = &horizon {
        records.retain(|record| comes_first(&record.key.id, horizon).is_le());
    }
    if records.len() > query.limit {
        records.truncate(query.limit);
        let next = records.last().map(|record| Arc::clone(&record.key.id));
        return Page { records, next };
    }
    Page { records, next: horizon }
}

/// The tallies of all writers.
pub(super) const COUNTS: &str = "SELECT VALUE [status, grp, n] FROM tally WHERE t = $t";

/// What [`COUNTS`] asks for.
pub(super) fn counts_of(table: Table) -> Object {
    object([("t", Value::String(table_name(table).to_owned()))])
}

/// How many records there are by state and group.
pub(super) type Sums = BTreeMap<(Option<Arc<str>>, Option<Arc<str>>), i64>;

/// Adds up what [`COUNTS`] gives.
pub(super) fn sums(rows: Value) -> Result<Sums, String> {
    let Value::Array(rows) = rows else { return Err("the tallies are no list".to_owned()) };
    let mut sums = Sums::new();
    for row in rows.into_vec() {
        let Value::Array(row) = row else { return Err("a tally is no list".to_owned()) };
        let mut row = row.into_vec().into_iter();
        let place = (shared(row.next()), shared(row.next()));
        let n = row.next().as_ref().and_then(int).ok_or_else(|| "a tally has no number".to_owned())?;
        *sums.entry(place).or_default() += n;
    }
    Ok(sums)
}
