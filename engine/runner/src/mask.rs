//! What must not be seen: the values of secrets, and those that a script announces.
//!
//! Replaced by `***` wherever they stand in a line: as they are, as base64 (standard and URL-safe, also
//! inside a longer encoded text, which shifts it), percent-encoded, and as they stand in a JSON string.
//! Of a value of several lines each line counts. Parts shorter than four characters are not masked:
//! they would hide half of every log, and are no secret.

use std::borrow::Cow;
use std::collections::BTreeSet;

use aho_corasick::{AhoCorasick, MatchKind};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Shorter parts are not masked.
pub const MIN_CHARS: usize = 4;

/// What stands in the place of a value.
pub const REPLACEMENT: &str = "***";

/// Everything but what RFC 3986 leaves alone.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Replaces values.
#[derive(Debug, Default)]
pub struct Masker {
    patterns: BTreeSet<String>,
    automaton: Option<AhoCorasick>,
}

impl Masker {
    /// Masks a value from now on. Whether anything of it is long enough.
    pub fn add(&mut self, value: &str) -> bool {
        let before = self.patterns.len();
        let lines = value.lines().map(str::trim);
        for part in lines.chain([value]).filter(|part| part.chars().count() >= MIN_CHARS) {
            self.patterns.insert(part.to_owned());
            self.patterns.extend(encoded(part));
        }
        if self.patterns.len() == before {
            return value.chars().count() >= MIN_CHARS;
        }
        // Longest first, so that no part of a longer value is left standing.
        self.automaton =
            AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(&self.patterns).ok();
        true
    }

    /// The length of the longest pattern, in bytes: what must be held back where a line is cut.
    pub fn longest(&self) -> usize {
        self.patterns.iter().map(String::len).max().unwrap_or(0)
    }

    /// The text without the values.
    pub fn mask<'a>(&self, text: &'a str) -> Cow<'a, str> {
        match &self.automaton {
            Some(automaton) if automaton.is_match(text) => {
                let replacements = vec![REPLACEMENT; automaton.patterns_len()];
                Cow::Owned(automaton.replace_all(text, &replacements))
            }
            _ => Cow::Borrowed(text),
        }
    }

    /// Where a value begins that goes over a place in a text, if one does.
    pub fn match_across(&self, text: &str, place: usize) -> Option<usize> {
        let mut matches = self.automaton.as_ref()?.find_iter(text);
        matches.find(|found| found.start() < place && place < found.end()).map(|found| found.start())
    }

    /// A JSON value without the values, in its keys and strings.
    pub fn mask_json(&self, value: serde_json::Value) -> serde_json::Value {
        use serde_json::Value;
        match value {
            Value::String(text) => Value::String(self.mask(&text).into_owned()),
            Value::Array(items) => items.into_iter().map(|item| self.mask_json(item)).collect(),
            Value::Object(map) => map
                .into_iter()
                .map(|(key, value)| (self.mask(&key).into_owned(), self.mask_json(value)))
                .collect(),
            other => other,
        }
    }
}

/// The forms of a value in which it may be printed.
fn encoded(value: &str) -> Vec<String> {
    let mut forms = Vec::new();
    for shift in 0..3 {
        let mut bytes = vec![0; shift];
        bytes.extend_from_slice(value.as_bytes());
        // Only the characters that depend on the value alone, whatever stands around it.
        let (first, last) = ((shift * 8).div_ceil(6), bytes.len() * 8 / 6);
        for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
            let text = engine.encode(&bytes);
            forms.extend(text.get(first..last).map(String::from));
        }
    }
    forms.push(utf8_percent_encode(value, RESERVED).to_string());
    let json = serde_json::Value::String(value.to_owned()).to_string();
    forms.extend(json.get(1..json.len() - 1).map(String::from));
    forms.retain(|form| form.len() >= MIN_CHARS);
    forms
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::{STANDARD, URL_SAFE};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_form_of_a_value_is_hidden() {
        let mut masker = Masker::default();
        assert!(masker.add("p\"ss wörd/?"));
        for text in ["p\"ss wörd/?", "p%22ss%20w%C3%B6rd%2F%3F", r#"p\"ss wörd/?"#] {
            assert_eq!(masker.mask(&format!("<{text}>")), "<***>");
        }
    }

    #[test]
    fn each_line_of_a_value_is_hidden_and_short_ones_are_refused() {
        let mut masker = Masker::default();
        assert!(masker.add("-----BEGIN KEY-----\nabcdef\nx\n"));
        assert_eq!(masker.mask("key abcdef x"), "key *** x");
        assert!(!masker.add("abc"));
        assert_eq!(masker.mask("abc"), "abc");
    }

    proptest! {
        #[test]
        fn base64_of_anything_around_a_value_hides_it(
            value in "[ -~]{6,40}", before in prop::collection::vec(any::<u8>(), 0..10), after in prop::collection::vec(any::<u8>(), 0..10),
        ) {
            let mut masker = Masker::default();
            masker.add(&value);
            let bytes = [before, value.clone().into_bytes(), after].concat();
            for text in [STANDARD.encode(&bytes), URL_SAFE.encode(&bytes)] {
                let masked = masker.mask(&text);
                prop_assert!(masked.contains(REPLACEMENT), "{} shows {:?}", masked, value);
            }
        }

        #[test]
        fn what_is_masked_never_shows_the_value(value in "[a-z]{4,12}", text in "[a-z ]{0,60}", at in 0..60_usize) {
            let mut masker = Masker::default();
            masker.add(&value);
            let mut line = text;
            line.insert_str(at.min(line.len()), &value);
            prop_assert!(!masker.mask(&line).contains(&value));
        }
    }
}
