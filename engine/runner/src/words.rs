//! What a script can say to the engine, in a line that starts with `::`.
//!
//! `::progress 3/10 message`, `::progress 45% message`, `::progress message`, `::result {json}`,
//! `::mask VALUE`, `::fail MESSAGE`, `::fail permanent MESSAGE`; on standard output or standard error.
//! A known word is not a line of the log; any other line that starts with `::` is, and so is a result
//! that is not JSON.

use memchr::memmem;

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
    Mask(Vec<u8>),
    /// It has failed.
    Fail(Failure),
}

/// The longest result that is kept, in bytes.
pub const MAX_RESULT_BYTES: usize = 1024 * 1024;

/// The longest message that is kept, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 4 * 1024;

const PREFIX: &str = "::";
const PROGRESS: &str = "progress";
const RESULT: &str = "result";
const MASK: &str = "mask";
const FAIL: &str = "fail";
/// How a line that announces a value begins.
const ANNOUNCEMENT: &[u8] = b"::mask ";

/// The name of the word that a line begins with, if it is a known one.
pub fn name(line: &[u8]) -> Option<&'static str> {
    let rest = line.strip_prefix(PREFIX.as_bytes())?;
    [PROGRESS, RESULT, MASK, FAIL].into_iter().find(|name| {
        rest.strip_prefix(name.as_bytes())
            .is_some_and(|rest| rest.first().is_none_or(|next| matches!(next, b' ' | b'\r')))
    })
}

/// The word that a line is, if it is one.
pub fn parse(line: &[u8]) -> Option<Word> {
    let name = name(line)?;
    let rest = line[PREFIX.len() + name.len()..].trim_ascii();
    if name == MASK {
        return Some(Word::Mask(rest.to_owned()));
    }
    if rest.is_empty() && name != FAIL {
        return None;
    }
    if name == RESULT {
        return Some(result(rest));
    }
    let text = String::from_utf8_lossy(rest);
    match name {
        PROGRESS => Some(Word::Progress(progress(&text))),
        _ => {
            let permanent =
                text.strip_prefix("permanent").filter(|rest| rest.is_empty() || rest.starts_with(' '));
            let message = permanent.unwrap_or(&text).trim().to_owned();
            Some(Word::Fail(Failure { permanent: permanent.is_some(), message }))
        }
    }
}

/// The values that are announced in what was read, by lines that are whole in it. What is read of one
/// stream may need to be masked by what is announced on the other.
pub fn announced(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    memmem::find_iter(bytes, ANNOUNCEMENT).filter_map(|at| {
        let is_line_start = at == 0 || bytes[at - 1] == b'\n';
        let rest = &bytes[at + ANNOUNCEMENT.len()..];
        let end = memchr::memchr(b'\n', rest)?;
        is_line_start.then(|| rest[..end].trim_ascii())
    })
}

/// A message, cut to what is kept of it.
pub fn shorten(mut message: String) -> String {
    if message.len() > MAX_MESSAGE_BYTES {
        let end = (0..=MAX_MESSAGE_BYTES).rev().find(|at| message.is_char_boundary(*at));
        message.truncate(end.unwrap_or_default());
        message.push('…');
    }
    message
}

fn result(json: &[u8]) -> Word {
    if json.len() > MAX_RESULT_BYTES {
        return Word::BadResult(format!(
            "it has {} bytes, and at most {MAX_RESULT_BYTES} are kept",
            json.len()
        ));
    }
    match serde_json::from_slice(json) {
        Ok(value) => Word::Result(value),
        Err(error) => Word::BadResult(format!("it is not JSON: {error}")),
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
        let parse = |line: &str| parse(line.as_bytes());
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
        for line in [
            "progress 1/2",
            ":: progress",
            "::unknown x",
            "::maskx",
            " ::result 1",
            "::progress",
            "::result ",
        ] {
            assert_eq!(parse(line), None, "{line:?}");
        }
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        assert_eq!(shorten("kurz".into()), "kurz");
        let long = shorten("ä".repeat(MAX_MESSAGE_BYTES));
        assert!(long.len() <= MAX_MESSAGE_BYTES + "…".len() && long.ends_with("ä…"));
    }

    proptest! {
        #[test]
        fn no_line_makes_it_panic_and_only_known_words_are_words(
            word in "(::)?(progress|result|mask|fail|[a-z]{0,8})", rest in prop::collection::vec(any::<u8>(), 0..60),
        ) {
            let line = [word.as_bytes(), &rest].concat();
            prop_assert!(parse(&line).is_none() || name(&line).is_some());
            prop_assert!(name(&line).is_none() || line.starts_with(b"::"));
        }

        #[test]
        fn progress_is_read_back(done in any::<u64>(), total in 1..u64::MAX, message in "([a-z]{1,8}( [a-z]{1,8})?)?") {
            let Some(Word::Progress(progress)) = parse(format!("::progress {done}/{total} {message}").as_bytes()) else {
                return Err(TestCaseError::fail("not progress"));
            };
            prop_assert_eq!((progress.done, progress.total, progress.message), (Some(done), Some(total), message));
            prop_assert!(progress.fraction.is_some_and(|fraction| (0.0..=1.0).contains(&fraction)));
        }

        #[test]
        fn any_json_is_a_result(number in any::<i64>(), text in any::<String>()) {
            let value = json!({"number": number, "list": [text.clone()], text: null});
            prop_assert_eq!(parse(format!("::result {value}").as_bytes()), Some(Word::Result(value)));
        }

        /// What is announced in whole lines is found, whatever stands around it.
        #[test]
        fn announcements_are_found(lines in prop::collection::vec("(::mask )?[a-z:]{0,8}", 0..10)) {
            let text = lines.iter().map(|line| format!("{line}\n")).collect::<String>();
            let expected: Vec<&[u8]> = lines.iter().filter_map(|line| line.strip_prefix("::mask ")).map(str::as_bytes).collect();
            prop_assert_eq!(announced(text.as_bytes()).collect::<Vec<_>>(), expected);
        }
    }
}
