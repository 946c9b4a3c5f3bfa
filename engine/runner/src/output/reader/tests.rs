//! Reading what a spool wrote.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::output::Spool;

const LIMIT: u64 = 64 * 1024;

fn read_all(reader: &mut Reader) -> Vec<Entry> {
    let mut all = Vec::new();
    loop {
        let entries = reader.read().unwrap();
        if entries.is_empty() {
            return all;
        }
        all.extend(entries);
    }
}

fn numbers(entries: &[Entry]) -> Vec<u64> {
    let number = |entry: &Entry| match entry {
        Entry::Line(line) => Some(line.number),
        Entry::Dropped { .. } => None,
    };
    entries.iter().filter_map(number).collect()
}

fn dropped(entries: &[Entry]) -> Vec<(u64, u64)> {
    let amount = |entry: &Entry| match entry {
        Entry::Dropped { lines, bytes } => Some((*lines, *bytes)),
        Entry::Line(_) => None,
    };
    entries.iter().filter_map(amount).collect()
}

/// A spool of so many lines, every third one of standard error.
fn spool_of(lines: u64) -> (TempDir, Spool) {
    let directory = tempfile::tempdir().unwrap();
    let mut spool = Spool::create(directory.path(), LIMIT).unwrap();
    add(&mut spool, 1..=lines);
    (directory, spool)
}

fn add(spool: &mut Spool, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        let stream = if number % 3 == 0 { Stream::Err } else { Stream::Out };
        spool.add(number, stream, &format!("line {number}"), false);
    }
    spool.flush();
}

#[test]
fn a_reader_follows_what_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let mut reader = Reader::open(directory.path());
    assert_eq!(read_all(&mut reader), []);
    let mut spool = Spool::create(directory.path(), 1 << 20).unwrap();
    spool.add(1, Stream::Out, "one", false);
    spool.flush();
    assert_eq!(read_all(&mut reader).len(), 1);
    spool.add(2, Stream::Err, "two", false);
    assert_eq!(read_all(&mut reader), []);
    spool.flush();
    let [Entry::Line(line)] = &read_all(&mut reader)[..] else { panic!("not one line") };
    assert_eq!((line.number, line.stream, line.text.as_str()), (2, Stream::Err, "two"));
}

#[test]
fn the_beginning_and_the_end_are_kept_and_the_gap_is_told() {
    let total = 20_000;
    let (directory, spool) = spool_of(total);
    let files = fs::read_dir(directory.path().join(DIRECTORY)).unwrap();
    let stored: u64 = files.map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
    assert!(stored <= LIMIT, "{stored} bytes are kept of {LIMIT}");
    let entries = read_all(&mut Reader::open(directory.path()));
    let numbers = numbers(&entries);
    assert_eq!((numbers.first(), numbers.last()), (Some(&1), Some(&total)));
    let totals = spool.totals();
    assert_eq!(dropped(&entries), [(totals.dropped_lines, totals.dropped_bytes)]);
    assert_eq!(numbers.len() as u64 + totals.dropped_lines, total);
    let bytes: u64 = (1..=total)
        .filter(|n| numbers.binary_search(n).is_err())
        .map(|n| format!("line {n}").len() as u64)
        .sum();
    assert_eq!(totals.dropped_bytes, bytes);
}

#[test]
fn a_slow_reader_is_told_what_it_missed() {
    let (directory, mut spool) = spool_of(100);
    let mut reader = Reader::open(directory.path());
    assert_eq!(read_all(&mut reader).len(), 100);
    add(&mut spool, 101..=2_000);
    let position: Position = reader.position().to_string().parse().unwrap();
    drop(reader);
    add(&mut spool, 2_001..=20_000);
    let mut reader = Reader::resume(directory.path(), position);
    let entries = read_all(&mut reader);
    let numbers = numbers(&entries);
    assert_eq!((numbers[0], numbers.last()), (101, Some(&20_000)));
    assert_eq!(dropped(&entries).iter().map(|(lines, _)| lines).sum::<u64>() + numbers.len() as u64, 19_900);
    // In a segment that is dropped before it goes on.
    let position = reader.position();
    add(&mut spool, 20_001..=40_000);
    let entries = read_all(&mut Reader::resume(directory.path(), position));
    let Entry::Dropped { lines, .. } = entries[0] else { panic!("nothing is missing") };
    assert_eq!(lines + entries.len() as u64 - 1, 20_000);
}

#[test]
fn a_token_that_is_none_is_refused() {
    for text in ["", "1.2.3", "1.2.3.4.5", "a.b.c.d", "-1.0.0.0"] {
        assert_eq!(text.parse::<Position>(), Err(PositionError), "{text:?}");
    }
}

#[test]
fn one_stream_is_read_alone() {
    let (directory, _spool) = spool_of(30);
    let entries = read_all(&mut Reader::open(directory.path()).only(Stream::Err));
    assert_eq!(numbers(&entries), [3, 6, 9, 12, 15, 18, 21, 24, 27, 30]);
    assert_eq!(dropped(&entries), []);
}

#[test]
fn half_a_line_is_no_line_yet() {
    let (directory, _spool) = spool_of(3);
    let path = directory.path().join(DIRECTORY).join("head.jsonl");
    let whole = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("{whole}{{\"n\":4,\"b\":1")).unwrap();
    assert_eq!(numbers(&read_all(&mut Reader::open(directory.path()))), [1, 2, 3]);
    assert_eq!(numbers(&read_all(&mut Reader::last(directory.path(), 2, None).unwrap())), [2, 3]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_last_lines_are_the_end_of_all_lines(
        total in prop_oneof![0..50_u64, 900..30_000_u64],
        wanted in prop_oneof![0..40_u64, 500..40_000_u64],
        stream in prop_oneof![Just(None), Just(Some(Stream::Out)), Just(Some(Stream::Err))],
    ) {
        let (directory, _spool) = spool_of(total);
        let mut all = Reader::open(directory.path());
        all.stream = stream;
        let all = numbers(&read_all(&mut all));
        let last = read_all(&mut Reader::last(directory.path(), wanted, stream).unwrap());
        let skipped = all.len().saturating_sub(usize::try_from(wanted).unwrap());
        prop_assert_eq!(&numbers(&last), &all[skipped..]);
    }
}
