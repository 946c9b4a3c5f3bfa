//! The journal as a pure function: what is written is read, and nothing else is.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::record::Expect;

fn body(text: &str) -> Arc<RawValue> {
    RawValue::from_string(text.to_owned()).unwrap().into()
}

fn put(id: &str, expect: Expect, text: &str) -> Operation {
    let fields = Fields { status: Some("Pending".into()), created_at_ms: 5, ..Fields::default() };
    let change = Change::Put { fields, body: body(text) };
    Operation { key: Key::new(Table::Task, id), expect, change }
}

fn remove(id: &str) -> Operation {
    Operation { key: Key::new(Table::Lock, id), expect: Expect::Revision(4), change: Change::Delete }
}

/// Some commits, and where each ends.
fn sample() -> (Vec<u8>, Vec<usize>) {
    let commits = [
        vec![put("a", Expect::Absent, "{\"n\": 1}")],
        vec![
            put("a", Expect::Revision(1), "\"zwei\\n\""),
            remove("\"b\"\n"),
            put("c", Expect::Absent, "null"),
        ],
        vec![Operation { change: Change::Check, ..remove("d") }],
        vec![put("é", Expect::Revision(8), "[ ]")],
    ];
    let (mut bytes, mut ends) = (Vec::new(), Vec::new());
    for (n, operations) in commits.iter().enumerate() {
        encode(&mut bytes, n as u64 + 1, operations).unwrap();
        ends.push(bytes.len());
    }
    (bytes, ends)
}

#[test]
fn what_is_written_is_read() {
    let (bytes, _) = sample();
    let journal = read(&bytes).unwrap();
    assert_eq!((journal.whole_bytes, journal.torn_bytes), (bytes.len() as u64, 0));
    let sequences: Vec<_> = journal.commits.iter().map(JournalCommit::sequence).collect();
    assert_eq!(sequences, [1, 2, 3, 4]);
    let second = &journal.commits[1];
    let keys: Vec<String> = second.keys().map(ToString::to_string).collect();
    assert_eq!(keys, ["task/a", "lock/\"b\"\n", "task/c"]);
    let (revision, fields, span) = second.operations[0].put.as_ref().unwrap();
    assert_eq!((*revision, fields.created_at_ms), (2, 5));
    let found = &bytes[span.offset as usize..][..span.length as usize];
    assert_eq!(found, b"\"zwei\\n\"");
    assert_eq!(crc32fast::hash(found), span.checksum);
    assert!(second.operations[1].put.is_none());
    assert!(journal.commits[2].operations.is_empty(), "a check leaves no trace");
}

#[test]
fn spans_of_the_writer_are_those_of_the_reader() {
    let mut bytes = b"x".repeat(7);
    let spans = encode(
        &mut bytes,
        1,
        &[put("a", Expect::Absent, "1"), remove("b"), put("c", Expect::Absent, "[22]")],
    );
    let texts: Vec<&[u8]> =
        spans.unwrap().iter().map(|s| &bytes[s.offset as usize..][..s.length as usize]).collect();
    assert_eq!(texts, [&b"1"[..], b"[22]"]);
}

#[test]
fn each_line_is_json_of_its_own() {
    let (bytes, _) = sample();
    for line in std::str::from_utf8(&bytes).unwrap().lines() {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(value[3]["seq"].is_u64(), "{line}");
    }
}

#[test]
fn every_prefix_is_read_up_to_its_last_whole_commit() {
    let (bytes, ends) = sample();
    let all = read(&bytes).unwrap().commits;
    for cut in 0..=bytes.len() {
        let whole = ends.iter().filter(|end| **end <= cut).count();
        let whole_bytes = if whole == 0 { 0 } else { ends[whole - 1] };
        for zeros in [0, 1, 5_000] {
            let mut prefix = bytes[..cut].to_vec();
            prefix.resize(cut + zeros, 0);
            let journal = read(&prefix).unwrap();
            assert_eq!(journal.commits, all[..whole], "cut at {cut} with {zeros} zeros");
            assert_eq!(journal.whole_bytes, whole_bytes as u64);
            assert_eq!(journal.torn_bytes, (prefix.len() - whole_bytes) as u64);
        }
    }
}

#[test]
fn a_wrong_byte_anywhere_is_refused() {
    let (bytes, _) = sample();
    let last = bytes.len() - 1;
    for place in 0..bytes.len() {
        let flips = (0..8).map(|bit| bytes[place] ^ (1 << bit));
        for value in flips.chain([0, b' ', b'0', b'f', b'}', 0xff]) {
            let mut damaged = bytes.clone();
            if damaged[place] == value {
                continue;
            }
            damaged[place] = value;
            match read(&damaged) {
                Err(_) => {}
                // A zero at the very end reads as a byte that was never written.
                Ok(journal) => assert!(
                    place == last && value == 0 && journal.commits.len() == 3,
                    "byte {place} as {value} went unnoticed"
                ),
            }
        }
    }
}

#[test]
fn anything_after_the_last_commit_is_refused() {
    let (bytes, _) = sample();
    for garbage in [&b"\n"[..], b" ", b"[", b"[\"0000000g", b"{}", b"\0x", &[0xff]] {
        let mut longer = bytes.clone();
        longer.extend_from_slice(garbage);
        let result = read(&longer);
        // A lone bracket could be the beginning of a commit; all else could not.
        if garbage == b"[" {
            assert_eq!(result.unwrap().torn_bytes, 1);
        } else {
            let damaged = result.unwrap_err();
            assert_eq!(damaged.offset, bytes.len() as u64, "{garbage:?}: {damaged}");
        }
    }
}

#[test]
fn a_whole_commit_with_senseless_content_is_refused() {
    let frame = |payload: &str| {
        let mut bytes = Vec::new();
        encode(&mut bytes, 1, &[]).unwrap();
        let mut head = bytes[..HEAD.len()].to_vec();
        head[LENGTH_AT..][..DIGITS].copy_from_slice(&digits(payload.len() as u32));
        head[CHECKSUM_AT..][..DIGITS].copy_from_slice(&digits(crc32fast::hash(payload.as_bytes())));
        let own = crc32fast::hash(&head[..HEAD_CHECKSUM_AT]);
        head[HEAD_CHECKSUM_AT..][..DIGITS].copy_from_slice(&digits(own));
        [&head, payload.as_bytes(), TAIL].concat()
    };
    assert_eq!(read(&frame(r#"{"seq":1,"ops":[]}"#)).unwrap().commits.len(), 1);
    for payload in [
        "",
        "[]",
        r#"{"seq":1}"#,
        r#"{"seq":-1,"ops":[]}"#,
        r#"{"seq":1,"ops":[],"more":1}"#,
        r#"{"seq":1,"ops":[{"put":{"table":"task","id":"a","revision":1,"fields":{}}}]}"#,
        r#"{"seq":1,"ops":[{"delete":{"table":"task","id":""}}]}"#,
        r#"{"seq":1,"ops":[{"delete":{"table":"other","id":"a"}}]}"#,
    ] {
        let damaged = read(&frame(payload)).unwrap_err();
        assert!(damaged.reason.starts_with("not a commit"), "{payload}: {damaged}");
    }
}

fn any_operation() -> impl Strategy<Value = Operation> {
    let id = "[a-c\"\\\\é\n]{1,4}";
    let change = prop_oneof![
        4 => "[ -~é\n]{0,40}".prop_map(|text| Change::Put {
            fields: Fields { group: Some(text.as_str().into()), ..Fields::default() },
            body: RawValue::from_string(serde_json::to_string(&text).unwrap()).unwrap().into(),
        }),
        1 => (1..9_u64).prop_map(|revision| Change::Import {
            revision,
            fields: Fields::default(),
            body: RawValue::from_string("[ 1 ]".to_owned()).unwrap().into(),
        }),
        1 => Just(Change::Delete),
        1 => Just(Change::Check),
    ];
    let expect = prop_oneof![Just(Expect::Absent), (1..9_u64).prop_map(Expect::Revision)];
    (id, expect, change).prop_map(|(id, expect, change)| Operation {
        key: Key::new(Table::Task, id),
        expect,
        change,
    })
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(journal) = read(&bytes) {
            prop_assert_eq!(journal.whole_bytes + journal.torn_bytes, bytes.len() as u64);
        }
    }

    #[test]
    fn any_commits_survive_any_cut(
        commits in proptest::collection::vec(proptest::collection::vec(any_operation(), 0..4), 1..6),
        cut in any::<proptest::sample::Index>(),
        junk in proptest::collection::vec(any::<u8>(), 0..20),
    ) {
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        for (n, operations) in commits.iter().enumerate() {
            encode(&mut bytes, n as u64, operations).unwrap();
            ends.push(bytes.len());
        }
        let all = read(&bytes).unwrap();
        prop_assert_eq!(all.commits.len(), commits.len());
        let cut = cut.index(bytes.len() + 1);
        let whole = ends.iter().filter(|end| **end <= cut).count();
        let journal = read(&bytes[..cut]).unwrap();
        prop_assert_eq!(&journal.commits[..], &all.commits[..whole]);
        // With anything behind the cut, what is read is never something else.
        bytes.truncate(cut);
        bytes.extend(junk);
        if let Ok(journal) = read(&bytes) {
            prop_assert!(all.commits.starts_with(&journal.commits) || journal.commits.len() > whole);
            prop_assert!(journal.commits.len() >= whole);
        }
    }
}
