//! TOML that users write: read whole, and every mistake told with its file, line, column and key.

use std::ops::Range;

use orchestrator_protocol::Error;
use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A text in TOML, with the places of all its keys and values.
#[derive(Debug)]
pub struct TomlText<'a> {
    file: &'a str,
    text: &'a str,
    table: Spanned<DeTable<'a>>,
}

impl<'a> TomlText<'a> {
    /// Reads a text; `file` is what it is called in messages.
    pub fn parse(file: &'a str, text: &'a str) -> Result<Self, Error> {
        match DeTable::parse(text) {
            Ok(table) => Ok(Self { file, text, table }),
            Err(error) => {
                let at = position(text, error.span().unwrap_or(0..0).start);
                Err(Error::invalid(format!("{file}:{at}: this is not TOML: {}", in_a_line(error.message()))))
            }
        }
    }

    /// What it holds, or where it is not of that shape.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Error> {
        toml::from_str(self.text).map_err(|error| {
            let span = error.span().unwrap_or(0..0);
            self.error(&self.key_at(span.start), span, &in_a_line(error.message()))
        })
    }

    /// An error about the value of a key such as `nodes[1].address`, or about what is nearest to it where
    /// the key is not there.
    pub fn refuse(&self, key: &str, problem: &str) -> Error {
        self.error(key, find(self.table.get_ref(), key).unwrap_or(0..0), problem)
    }

    fn error(&self, key: &str, span: Range<usize>, problem: &str) -> Error {
        let key = if key.is_empty() { "the file" } else { key };
        let at = position(self.text, span.start);
        Error::invalid(format!("{}:{at}: {key}: {problem}", self.file))
    }

    /// The key whose name or value is at a place of the text; empty for the file as a whole.
    fn key_at(&self, place: usize) -> String {
        let mut nearest = (usize::MAX, String::new());
        let mut look = |span: Range<usize>, key: &str| {
            // The value of a table with a header of its own is where the header is, so that the smallest
            // place is the right one, wherever it is in the tree.
            if span.start <= place && place < span.end.max(span.start + 1) && span.len() <= nearest.0 {
                nearest = (span.len(), key.to_owned());
            }
        };
        visit_table(self.table.get_ref(), "", &mut look);
        nearest.1
    }
}

/// Calls `look` with the places of all keys and values below a table.
fn visit_table(table: &DeTable<'_>, path: &str, look: &mut dyn FnMut(Range<usize>, &str)) {
    for (key, value) in table {
        let separator = if path.is_empty() { "" } else { "." };
        let path = format!("{path}{separator}{}", key.get_ref());
        look(key.span(), &path);
        visit_value(value, &path, look);
    }
}

fn visit_value(value: &Spanned<DeValue<'_>>, path: &str, look: &mut dyn FnMut(Range<usize>, &str)) {
    look(value.span(), path);
    match value.get_ref() {
        DeValue::Table(table) => visit_table(table, path, look),
        DeValue::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                visit_value(item, &format!("{path}[{index}]"), look);
            }
        }
        _ => {}
    }
}

/// Where the value of a key is, or of the longest beginning of the key that is there.
fn find(table: &DeTable<'_>, key: &str) -> Option<Range<usize>> {
    let is_end = |rest: &str| rest.is_empty() || rest.starts_with(['.', '[']);
    let (value, rest) = table.iter().find_map(|(name, value)| {
        let rest = key.strip_prefix(name.get_ref().as_ref())?;
        is_end(rest).then_some((value, rest))
    })?;
    Some(find_below(value, rest))
}

fn find_below(value: &Spanned<DeValue<'_>>, rest: &str) -> Range<usize> {
    let below = match value.get_ref() {
        DeValue::Table(table) => rest.strip_prefix('.').and_then(|rest| find(table, rest)),
        DeValue::Array(items) => rest
            .strip_prefix('[')
            .and_then(|rest| rest.split_once(']'))
            .and_then(|(index, rest)| Some(find_below(items.get(index.parse::<usize>().ok()?)?, rest))),
        _ => None,
    };
    below.unwrap_or_else(|| value.span())
}

/// A place in a text as `LINE:COLUMN`, both from 1.
fn position(text: &str, offset: usize) -> String {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |end| end + 1);
    format!("{}:{}", before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

fn in_a_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Fleet {
        #[expect(dead_code, reason = "only read")]
        ships: Vec<Ship>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only read")]
    struct Ship {
        name: String,
        #[serde(default)]
        masts: u8,
    }

    fn mistake(text: &str) -> String {
        match TomlText::parse("f.toml", text) {
            Ok(parsed) => parsed.read::<BTreeMap<String, Fleet>>().unwrap_err().message,
            Err(error) => error.message,
        }
    }

    #[test]
    fn mistakes_are_told_with_line_column_and_key() {
        for (text, expected) in [
            ("[a]\nships = [", "f.toml:2:10: this is not TOML: "),
            ("[a]\nships = []\nshps = []", "f.toml:3:1: a.shps: unknown field `shps`, expected `ships`"),
            (
                "[a]\n[[a.ships]]\nname = 'x'\n[[a.ships]]\nname = 7",
                "f.toml:5:8: a.ships[1].name: invalid type",
            ),
            ("[a]\n[[a.ships]]\nname = 'x'\nmasts = -1", "f.toml:4:9: a.ships[0].masts: invalid value"),
            (
                "[a]\n[[a.ships]]\nname = 'x'\n[[a.ships]]\nmasts = 1",
                "f.toml:4:1: a.ships[1]: missing field `name`",
            ),
            ("# ä\n['ä']\nships = 1", "f.toml:3:9: ä.ships: invalid type"),
        ] {
            let message = mistake(text);
            assert!(message.starts_with(expected), "{message}\nis not\n{expected}");
        }
    }

    #[test]
    fn a_key_is_found_or_what_is_nearest_to_it() {
        let text = "[a]\nships = [{name = 'x'}, {name = 'y', masts = 3}]\n";
        let parsed = TomlText::parse("f.toml", text).unwrap();
        let at = |key: &str| parsed.refuse(key, "no").message;
        assert_eq!(at("a.ships[1].masts"), "f.toml:2:45: a.ships[1].masts: no");
        assert_eq!(at("a.ships[0].masts"), "f.toml:2:10: a.ships[0].masts: no");
        assert_eq!(at("a.ships[7]"), "f.toml:2:9: a.ships[7]: no");
        assert_eq!(at("b"), "f.toml:1:1: b: no");
    }
}
