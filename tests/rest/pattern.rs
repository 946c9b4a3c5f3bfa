//! What the page shows, compared to what came.
//!
//! In a text `…` stands for anything. In JSON a text that is only `…` stands for any value, a member
//! named `…` for any others, and `…` at the end of a list for any further elements.

use serde_json::Value;

const ANYTHING: &str = "…";

/// Whether a text is as a pattern says.
pub fn fits(pattern: &str, text: &str) -> bool {
    let parts: Vec<&str> = pattern.split(ANYTHING).collect();
    let [first, middle @ .., last] = parts.as_slice() else { return pattern == text };
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    for part in middle {
        let Some((_, after)) = rest.split_once(part) else { return false };
        rest = after;
    }
    rest.ends_with(last)
}

/// The first place where a value is not as a pattern says, and how.
pub fn difference(pattern: &Value, value: &Value) -> Option<String> {
    compare(pattern, value).map(|(path, what)| format!("at '{path}': {what}"))
}

fn compare(pattern: &Value, value: &Value) -> Option<(String, String)> {
    let here = || Some((String::new(), format!("{pattern} is expected, and there is {value}")));
    let inside = |key: &str, pattern: &Value, value: &Value| {
        compare(pattern, value).map(|(path, what)| (format!(".{key}{path}"), what))
    };
    match (pattern, value) {
        (Value::String(pattern), _) if pattern == ANYTHING => None,
        (Value::String(pattern), Value::String(text)) if fits(pattern, text) => None,
        (Value::Object(wanted), Value::Object(found)) => {
            let absent = wanted.keys().find(|key| *key != ANYTHING && !found.contains_key(*key));
            let is_open = wanted.contains_key(ANYTHING);
            let surplus = found.keys().find(|key| !is_open && !wanted.contains_key(*key));
            if let Some(key) = absent {
                return Some((format!(".{key}"), "it is missing".to_owned()));
            }
            if let Some(key) = surplus {
                return Some((format!(".{key}"), "nobody expects it".to_owned()));
            }
            wanted
                .iter()
                .filter(|(key, _)| *key != ANYTHING)
                .find_map(|(key, of)| inside(key, of, &found[key]))
        }
        (Value::Array(wanted), Value::Array(found)) => {
            let (wanted, is_open) = match wanted.split_last() {
                Some((last, others)) if last == ANYTHING => (others, true),
                _ => (wanted.as_slice(), false),
            };
            if found.len() < wanted.len() || (!is_open && found.len() > wanted.len()) {
                return here();
            }
            wanted
                .iter()
                .zip(found)
                .enumerate()
                .find_map(|(at, (of, value))| inside(&at.to_string(), of, value))
        }
        _ if pattern == value => None,
        _ => here(),
    }
}

#[test]
fn a_pattern_says_what_it_leaves_open() {
    for (pattern, text) in [("a", "a"), ("…", ""), ("a…", "ab"), ("…b", "ab"), ("a…c…", "abcd"), ("…a…", "a")]
    {
        assert!(fits(pattern, text), "{pattern} {text}");
    }
    for (pattern, text) in [("a", "ab"), ("a…", "ba"), ("…b", "ba"), ("a…c…d", "abd"), ("a…a", "a")]
    {
        assert!(!fits(pattern, text), "{pattern} {text}");
    }
    let differs = |pattern: Value, value: Value| difference(&pattern, &value);
    use serde_json::json;
    for (pattern, value) in [
        (json!({"a": 1, "…": "…"}), json!({"a": 1, "b": 2})),
        (json!([1, "…"]), json!([1])),
        (json!([1, "…"]), json!([1, 2, 3])),
        (json!({"a": "…"}), json!({"a": {"b": 1}})),
        (json!({"a": "x…"}), json!({"a": "xyz"})),
    ] {
        assert_eq!(differs(pattern, value), None);
    }
    for (pattern, value, place) in [
        (json!({"a": 1}), json!({"a": 2}), ".a"),
        (json!({"a": 1}), json!({"a": 1, "b": 2}), ".b"),
        (json!({"a": 1, "b": "…"}), json!({"a": 1}), ".b"),
        (json!({"a": [{"b": 1}]}), json!({"a": [{"b": 2}]}), ".a.0.b"),
        (json!([1]), json!([1, 2]), "''"),
        (json!([1, "…"]), json!([]), "''"),
        (json!("x…"), json!("y"), "''"),
    ] {
        assert!(differs(pattern.clone(), value).unwrap().contains(place), "{pattern}");
    }
}
