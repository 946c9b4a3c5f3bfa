//! What a script can say to the engine, in a line that starts with `::`.
//!
//! `::progress 3/10 message`, `::progress 45% message`, `::progress message`, `::result {json}`,
//! `::mask VALUE`, `::fail MESSAGE`, `::fail permanent MESSAGE`; on standard output or standard error.
//! A known word is not a line of the log; any other line that starts with `::` is.

use crate::status::{Failure, Progress};

/// A word.
#[derive(Debug, Clone, PartialEq)]
pub enum Word {
    /// How far the script is.
    Progress(Progress),
    /// What it has to report.
    Result(serde_json::Value),
    /// A result that is not JSON, or too long: why.
    BadResult(String),
    /// A value that must not be seen.
    Mask(String),
    /// It has failed.
    Fail(Failure),
}

/// The longest result that is kept, in bytes.
pub const MAX_RESULT_BYTES: usize = 1024 * 1024;

/// The word that a line is, if it is one.
pub fn parse(line: &str) -> Option<Word> {
    let rest = line.strip_prefix("::")?;
    let (word, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    let rest = rest.trim_end_matches('\r');
    match word {
        "progress" => Some(Word::Progress(progress(rest.trim()))),
        "result" if rest.len() > MAX_RESULT_BYTES => Some(Word::BadResult(format!(
            "a result of {} bytes is longer than {MAX_RESULT_BYTES}",
            rest.len()
        ))),
        "result" => Some(match serde_json::from_str(rest) {
            Ok(value) => Word::Result(value),
            Err(error) => Word::BadResult(format!("a result is not JSON: {error}")),
        }),
        "mask" if !rest.is_empty() => Some(Word::Mask(rest.to_owned())),
        "fail" => {
            let rest = rest.trim();
            let permanent =
                rest.strip_prefix("permanent").filter(|rest| rest.is_empty() || rest.starts_with(' '));
            let message = permanent.unwrap_or(rest).trim().to_owned();
            Some(Word::Fail(Failure { permanent: permanent.is_some(), message }))
        }
        _ => None,
    }
}

fn progress(text: &str) -> Progress {
    let (head, message) = text.split_once(' ').unwrap_or((text, ""));
    let message = message.trim().to_owned();
    if let Some((done, total)) = head.split_once('/')
        && let (Ok(done), Ok(total)) = (done.parse::<u64>(), total.parse::<u64>())
        && total > 0
    {
        let fraction = Some((done as f64 / total as f64).min(1.0));
        return Progress { fraction, done: Some(done), total: Some(total), message };
    }
    if let Some(percent) = head.strip_suffix('%').and_then(|number| number.parse::<f64>().ok())
        && (0.0..=100.0).contains(&percent)
    {
        return Progress { fraction: Some(percent / 100.0), done: None, total: None, message };
    }
    Progress { fraction: None, done: None, total: None, message: text.to_owned() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn every_word_is_understood() {
        let progress = |fraction, done, total, message: &str| {
            Some(Word::Progress(Progress { fraction, done, total, message: message.into() }))
        };
        let fail =
            |permanent, message: &str| Some(Word::Fail(Failure { permanent, message: message.into() }));
        assert_eq!(parse("::progress 3/10 third step"), progress(Some(0.3), Some(3), Some(10), "third step"));
        assert_eq!(parse("::progress 45% nearly"), progress(Some(0.45), None, None, "nearly"));
        assert_eq!(parse("::progress installing now"), progress(None, None, None, "installing now"));
        assert_eq!(parse("::progress 3/0"), progress(None, None, None, "3/0"));
        assert_eq!(parse(r#"::result {"a": 1}"#), Some(Word::Result(json!({"a": 1}))));
        assert!(matches!(parse("::result {"), Some(Word::BadResult(_))));
        assert_eq!(parse("::mask s p a c e"), Some(Word::Mask("s p a c e".into())));
        assert_eq!(parse("::fail permanent no licence"), fail(true, "no licence"));
        assert_eq!(parse("::fail permanently broken"), fail(false, "permanently broken"));
        for line in ["progress 1/2", ":: progress", "::unknown x", "::mask", " ::result 1"] {
            assert_eq!(parse(line), None, "{line:?}");
        }
    }

    proptest! {
        #[test]
        fn no_line_makes_it_panic_and_only_marked_lines_are_words(line in ".{0,60}", marked in any::<bool>()) {
            let text = if marked { format!("::{line}") } else { line };
            prop_assert!(parse(&text).is_none() || text.starts_with("::"));
        }
    }
}
