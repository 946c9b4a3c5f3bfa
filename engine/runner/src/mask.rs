//! What must not be seen: the values of secrets, and those that a script announces.
//!
//! Replaced by `***` wherever they stand in a line: as they are, as base64 (standard and URL-safe, with
//! and without padding, wrapped as `base64` and PEM do it, and inside a longer encoded text, which
//! shifts it), percent-encoded, and as they stand in a JSON string. Of a value of several lines each
//! line counts, because output is masked line by line. What is shorter than four characters without the
//! white space around it is not masked: it would hide half of every log, and is no secret.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::Range;

use aho_corasick::AhoCorasick;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

/// Shorter parts of a value, in characters, are not masked.
pub const MIN_CHARS: usize = 4;
/// Longer values, in bytes, are refused: no secret is so long, and its forms would take much memory.
pub const MAX_BYTES: usize = 64 * 1024;
/// How many values are masked; more are refused.
pub const MAX_VALUES: usize = 4096;

/// What stands in the place of a value.
pub const REPLACEMENT: &str = "***";

/// What RFC 3986 leaves alone.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// What `encodeURIComponent` leaves alone besides.
const COMPONENT: &AsciiSet = &UNRESERVED.remove(b'!').remove(b'\'').remove(b'(').remove(b')').remove(b'*');
/// What may stand in a path besides.
const PATH: &AsciiSet = &COMPONENT
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b',')
    .remove(b';')
    .remove(b'=')
    .remove(b':')
    .remove(b'@')
    .remove(b'/');

/// Where programs break long base64: `openssl` and PEM files, `base64` and MIME.
const BASE64_WIDTHS: [usize; 2] = [64, 76];

/// Why a value is not masked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// It is shorter than [`MIN_CHARS`].
    TooShort,
    /// It is longer than [`MAX_BYTES`].
    TooLong,
    /// [`MAX_VALUES`] are masked already.
    TooMany,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TooShort => write!(formatter, "it is shorter than {MIN_CHARS} characters"),
            Self::TooLong => write!(formatter, "it is longer than {MAX_BYTES} bytes"),
            Self::TooMany => write!(formatter, "{MAX_VALUES} values are masked already"),
        }
    }
}

/// Replaces values.
#[derive(Debug, Default)]
pub struct Masker {
    values: BTreeSet<Vec<u8>>,
    longest: usize,
    /// Each has at least twice as many patterns as the next one, so that a script that announces values
    /// one by one does not have all of them prepared for the search each time.
    searches: Vec<Search>,
    /// There are too many forms to search for. Then nothing may be seen.
    hides_everything: bool,
}

#[derive(Debug)]
struct Search {
    patterns: Vec<Vec<u8>>,
    automaton: AhoCorasick,
}

impl Masker {
    /// Masks a value from now on.
    ///
    /// # Errors
    /// Says why a value is not masked.
    pub fn add(&mut self, value: &[u8]) -> Result<(), Refused> {
        let value = value.trim_ascii();
        if is_short(value) {
            return Err(Refused::TooShort);
        }
        if value.len() > MAX_BYTES {
            return Err(Refused::TooLong);
        }
        if self.values.contains(value) {
            return Ok(());
        }
        if self.values.len() >= MAX_VALUES {
            return Err(Refused::TooMany);
        }
        self.values.insert(value.to_owned());
        let lines = value.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
        let parts: BTreeSet<&[u8]> = lines.filter(|line| !is_short(line)).chain([value]).collect();
        let patterns: BTreeSet<Vec<u8>> = parts.into_iter().flat_map(forms).collect();
        self.search_for(patterns.into_iter().collect());
        Ok(())
    }

    fn search_for(&mut self, mut patterns: Vec<Vec<u8>>) {
        self.longest = patterns.iter().map(Vec::len).fold(self.longest, usize::max);
        while let Some(smaller) = self.searches.pop_if(|last| last.patterns.len() < 2 * patterns.len()) {
            patterns.extend(smaller.patterns);
        }
        match AhoCorasick::new(&patterns) {
            Ok(automaton) => self.searches.push(Search { patterns, automaton }),
            Err(_) => self.hides_everything = true,
        }
    }

    /// The length of the longest form of a value, in bytes: a form that begins in a text is whole when
    /// so many bytes are there.
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// A text without the values.
    pub fn mask<'a>(&self, text: &'a [u8]) -> Cow<'a, [u8]> {
        self.mask_range(text, 0..text.len())
    }

    /// A text without the values.
    pub fn mask_str(&self, text: &str) -> String {
        String::from_utf8_lossy(&self.mask(text.as_bytes())).into_owned()
    }

    /// A part of a text without the values, also without those that only reach into it.
    pub fn mask_range<'a>(&self, text: &'a [u8], part: Range<usize>) -> Cow<'a, [u8]> {
        if self.hides_everything {
            return Cow::Borrowed(REPLACEMENT.as_bytes());
        }
        if !self.searches.iter().any(|search| search.automaton.is_match(text)) {
            return Cow::Borrowed(&text[part]);
        }
        let mut masked = Vec::with_capacity(part.len());
        let mut done = part.start;
        for hidden in self.hidden(text) {
            let (start, end) = (hidden.start.max(part.start), hidden.end.min(part.end));
            if start < end {
                masked.extend_from_slice(&text[done..start]);
                masked.extend_from_slice(REPLACEMENT.as_bytes());
                done = end;
            }
        }
        masked.extend_from_slice(&text[done..part.end]);
        Cow::Owned(masked)
    }

    /// A JSON value without the values, in its keys, strings and numbers.
    pub fn mask_json(&self, value: serde_json::Value) -> serde_json::Value {
        use serde_json::Value;
        match value {
            Value::String(text) => Value::String(self.mask_str(&text)),
            Value::Number(number) => {
                let text = number.to_string();
                let masked = self.mask_str(&text);
                if masked == text { Value::Number(number) } else { Value::String(masked) }
            }
            Value::Array(items) => items.into_iter().map(|item| self.mask_json(item)).collect(),
            Value::Object(map) => {
                map.into_iter().map(|(key, value)| (self.mask_str(&key), self.mask_json(value))).collect()
            }
            other => other,
        }
    }

    /// Where values stand in a text, in order. What overlaps is one: of two values that share a few
    /// characters neither may show the rest of the other.
    fn hidden(&self, text: &[u8]) -> Vec<Range<usize>> {
        let searches = self.searches.iter();
        let mut found: Vec<Range<usize>> = searches
            .flat_map(|search| search.automaton.find_overlapping_iter(text).map(|found| found.range()))
            .collect();
        found.sort_unstable_by_key(|range| range.start);
        let mut merged: Vec<Range<usize>> = Vec::new();
        for range in found {
            match merged.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => merged.push(range),
            }
        }
        merged
    }
}

fn is_short(text: &[u8]) -> bool {
    String::from_utf8_lossy(text).chars().nth(MIN_CHARS - 1).is_none()
}

/// The forms of a value in which it may be printed.
fn forms(value: &[u8]) -> BTreeSet<Vec<u8>> {
    let mut forms = BTreeSet::from([value.to_owned()]);
    base64_forms(value, &mut forms);
    for set in [NON_ALPHANUMERIC, UNRESERVED, COMPONENT, PATH] {
        let encoded = percent_encode(value, set).to_string();
        forms.insert(lower_hex(&encoded).into_bytes());
        // As forms and query strings write it.
        let plus = encoded.replace("%20", "+");
        forms.insert(lower_hex(&plus).into_bytes());
        forms.extend([encoded.into_bytes(), plus.into_bytes()]);
    }
    let json = serde_json::Value::String(String::from_utf8_lossy(value).into_owned()).to_string();
    forms.extend(json.get(1..json.len() - 1).map(|inner| inner.as_bytes().to_owned()));
    forms.retain(|form| !is_short(form));
    forms
}

fn base64_forms(value: &[u8], forms: &mut BTreeSet<Vec<u8>>) {
    for shift in 0..3 {
        let mut bytes = vec![0; shift];
        bytes.extend_from_slice(value);
        // Only the characters that depend on the value alone, whatever stands before and after it.
        let (first, last) = ((shift * 8).div_ceil(6), bytes.len() * 8 / 6);
        for (plain, padded) in [(&STANDARD_NO_PAD, &STANDARD), (&URL_SAFE_NO_PAD, &URL_SAFE)] {
            let text = plain.encode(&bytes);
            forms.insert(text.as_bytes()[first..last].to_owned());
            // At the end of the encoded text.
            forms.insert(text.as_bytes()[first..].to_owned());
            forms.insert(padded.encode(&bytes).as_bytes()[first..].to_owned());
            if shift == 0 {
                let wrapped = BASE64_WIDTHS.iter().filter(|width| last > **width);
                forms.extend(
                    wrapped.flat_map(|width| text.as_bytes()[..last].chunks(*width)).map(<[u8]>::to_owned),
                );
            }
        }
    }
}

/// A percent-encoded text with small hexadecimal digits.
fn lower_hex(encoded: &str) -> String {
    let mut digits = 0;
    let lower = encoded.chars().map(|character| {
        if character == '%' {
            digits = 2;
            return character;
        }
        if digits > 0 {
            digits -= 1;
            return character.to_ascii_lowercase();
        }
        character
    });
    lower.collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use proptest::prelude::*;

    use super::*;

    fn masker(values: &[&str]) -> Masker {
        let mut masker = Masker::default();
        for value in values {
            masker.add(value.as_bytes()).unwrap();
        }
        masker
    }

    #[test]
    fn every_form_of_a_value_is_hidden() {
        let masker = masker(&["p\"ss wörd/?"]);
        for text in [
            "p\"ss wörd/?",
            "p%22ss%20w%C3%B6rd%2F%3F",
            "p%22ss%20w%c3%b6rd%2f%3f",
            "p%22ss+w%C3%B6rd%2F%3F",
            "p%22ss%20w%C3%B6rd/%3F",
            r#"p\"ss wörd/?"#,
        ] {
            assert_eq!(masker.mask_str(&format!("<{text}>")), "<***>");
        }
    }

    #[test]
    fn each_line_of_a_value_is_hidden() {
        let masker = masker(&["-----BEGIN KEY-----\r\n  abcdef\r\nx\n"]);
        assert_eq!(masker.mask_str("key abcdef x"), "key *** x");
        assert_eq!(
            masker.mask_json(serde_json::json!({"abcdef": ["-----BEGIN KEY-----"]})),
            serde_json::json!({"***": ["***"]})
        );
    }

    #[test]
    fn what_is_too_short_or_too_long_is_refused() {
        let mut masker = Masker::default();
        assert_eq!(masker.add(b" abc\n"), Err(Refused::TooShort));
        assert_eq!(masker.add("äöü".as_bytes()), Err(Refused::TooShort));
        assert_eq!(masker.add(&vec![b'x'; MAX_BYTES + 1]), Err(Refused::TooLong));
        assert_eq!(masker.mask_str("abc"), "abc");
        for number in 0..MAX_VALUES {
            masker.add(format!("value {number}").as_bytes()).unwrap();
        }
        assert_eq!(masker.add(b"one too many"), Err(Refused::TooMany));
        assert_eq!(masker.add(b"value 7"), Ok(()));
    }

    #[test]
    fn values_that_overlap_hide_each_other_whole() {
        assert_eq!(masker(&["abcd", "cdef", "defghi"]).mask_str("-abcdefghi-"), "-***-");
    }

    #[test]
    fn a_number_that_is_a_value_is_hidden() {
        assert_eq!(
            masker(&["12345678"]).mask_json(serde_json::json!([12345678, 1])),
            serde_json::json!(["***", 1])
        );
    }

    #[test]
    fn wrapped_base64_is_hidden() {
        let value: String = (0..200).map(|number| format!("{number:x}")).collect();
        let masker = masker(&[&value]);
        for width in BASE64_WIDTHS {
            let encoded = STANDARD.encode(format!("{value}\n"));
            let lines: Vec<&[u8]> = encoded.as_bytes().chunks(width).collect();
            for line in &lines[..lines.len() - 1] {
                assert_eq!(*masker.mask(line), *b"***");
            }
        }
    }

    #[test]
    fn base64_that_stands_alone_is_hidden_to_its_end() {
        for length in 4..12 {
            let value = &"s/cr?t>alue~"[..length];
            let masker = masker(&[value]);
            for text in [STANDARD.encode(value), URL_SAFE.encode(value), STANDARD_NO_PAD.encode(value)] {
                assert_eq!(masker.mask_str(&format!("token={text} ok")), "token=*** ok");
            }
        }
    }

    proptest! {
        #[test]
        fn base64_of_anything_around_a_value_hides_it(
            value in "[!-~]{6,40}",
            before in prop::collection::vec(any::<u8>(), 0..10),
            after in prop::collection::vec(any::<u8>(), 0..10),
        ) {
            let masker = masker(&[&value]);
            let bytes = [&before[..], value.as_bytes(), &after[..]].concat();
            for text in [STANDARD.encode(&bytes), URL_SAFE_NO_PAD.encode(&bytes)] {
                // What stays are characters that hold bits of the neighbours: at most one of each side.
                let shown = masker.mask_str(&text).replace(REPLACEMENT, "").len();
                let around = before.len().div_ceil(3) * 4 + after.len().div_ceil(3) * 4 + 4;
                prop_assert!(shown <= around, "{shown} characters of {text} are shown");
            }
        }

        #[test]
        fn what_is_masked_never_shows_the_value(value in "[a-z]{4,12}", text in "[a-z ]{0,60}", at in 0..60_usize) {
            let mut line = text;
            line.insert_str(at.min(line.len()), &value);
            prop_assert!(!masker(&[&value]).mask_str(&line).contains(&value));
        }

        /// Wherever a text is cut, the parts show no more than the whole.
        #[test]
        fn parts_hide_what_the_whole_hides(text in "[ab]{0,40}", values in prop::collection::vec("[ab]{4,7}", 1..4), at in 0..40_usize) {
            let values: Vec<&str> = values.iter().map(String::as_str).collect();
            let masker = masker(&values);
            let cut = at.min(text.len());
            let parts = [masker.mask_range(text.as_bytes(), 0..cut), masker.mask_range(text.as_bytes(), cut..text.len())];
            let shown: Vec<u8> = parts.concat().into_iter().filter(|byte| *byte != b'*').collect();
            let whole: Vec<u8> = masker.mask(text.as_bytes()).iter().copied().filter(|byte| *byte != b'*').collect();
            prop_assert_eq!(shown, whole);
        }
    }
}
