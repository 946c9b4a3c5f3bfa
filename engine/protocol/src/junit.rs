//! The results of an environment's newest run as JUnit XML, as CI systems read it.
//!
//! A node is a test suite. A test that came to an exit status and failed is a `failure`; one that came
//! to none is an `error`. An environment that is in error, or has failed with no test to show for it,
//! has a suite of its own with an `error`, so that it is never taken for one in which nothing failed.

use std::fmt::Write;

use crate::environment::{Environment, EnvironmentStatus, TestResult};

/// A replacement for what XML 1.0 cannot hold, not even escaped.
const UNPRINTABLE: char = '\u{fffd}';

/// The results as an XML document.
pub fn junit(environment: &Environment) -> String {
    let name = &environment.name;
    let mut suites = suites_by_node(&environment.results);
    let own = own_error(environment);
    suites.extend(own.iter().map(|result| (result.node.as_str(), vec![result])));
    let all: Vec<&TestResult> = suites.iter().flat_map(|(_, results)| results).copied().collect();
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    line(&mut xml, &format!("<testsuites{}{}>", attribute("name", name), counts(&all)));
    for (node, results) in &suites {
        line(&mut xml, &format!("  <testsuite{}{}>", attribute("name", node), counts(results)));
        for result in results {
            case(&mut xml, name, result);
        }
        line(&mut xml, "  </testsuite>");
    }
    line(&mut xml, "</testsuites>");
    xml
}

/// The results of each node, the nodes in the order of their first results.
fn suites_by_node(results: &[TestResult]) -> Vec<(&str, Vec<&TestResult>)> {
    let mut suites: Vec<(&str, Vec<&TestResult>)> = Vec::new();
    for result in results {
        match suites.iter_mut().find(|(node, _)| *node == result.node) {
            Some((_, of_node)) => of_node.push(result),
            None => suites.push((&result.node, vec![result])),
        }
    }
    suites
}

/// What is wrong with the environment itself, as a test that was not run.
fn own_error(environment: &Environment) -> Option<TestResult> {
    let has_failure = environment.results.iter().any(|result| !result.passed);
    let is_wrong = match environment.status {
        EnvironmentStatus::Error => true,
        EnvironmentStatus::Failed => !has_failure,
        // What was called off, or is removed again, may have failed before.
        _ => environment.error.is_some() && !has_failure,
    };
    is_wrong.then(|| TestResult {
        node: "environment".to_owned(),
        name: environment.status.to_string(),
        passed: false,
        exit_code: None,
        duration_ms: 0,
        output: String::new(),
        error: environment.error.clone(),
        result: None,
    })
}

fn line(xml: &mut String, text: &str) {
    xml.push_str(text);
    xml.push('\n');
}

/// How many tests there are, how many of them have not passed, and how long they took.
fn counts(results: &[&TestResult]) -> String {
    let failures = results.iter().filter(|result| outcome(result) == Some("failure")).count();
    let errors = results.iter().filter(|result| outcome(result) == Some("error")).count();
    let time = seconds(results.iter().map(|result| result.duration_ms).sum());
    let tests = results.len();
    format!(" tests=\"{tests}\" failures=\"{failures}\" errors=\"{errors}\" time=\"{time}\"")
}

/// The element that says how a test has not passed.
fn outcome(result: &TestResult) -> Option<&'static str> {
    match (result.passed, result.exit_code) {
        (true, _) => None,
        (false, Some(_)) => Some("failure"),
        (false, None) => Some("error"),
    }
}

fn case(xml: &mut String, environment: &str, result: &TestResult) {
    let class = attribute("classname", &format!("{environment}.{}", result.node));
    let name = attribute("name", &result.name);
    let time = seconds(result.duration_ms);
    line(xml, &format!("    <testcase{class}{name} time=\"{time}\">"));
    if let Some(element) = outcome(result) {
        let message = match (&result.error, result.exit_code) {
            (Some(error), _) => error.clone(),
            (None, Some(code)) => format!("exit status {code}"),
            (None, None) => "it did not run to its end".to_owned(),
        };
        let said = attribute("message", &message);
        line(xml, &format!("      <{element}{said}>{}</{element}>", escaped(&result.output, false)));
    } else if !result.output.is_empty() {
        line(xml, &format!("      <system-out>{}</system-out>", escaped(&result.output, false)));
    }
    line(xml, "    </testcase>");
}

fn seconds(ms: u64) -> String {
    format!("{}.{:03}", ms / 1000, ms % 1000)
}

fn attribute(name: &str, value: &str) -> String {
    format!(" {name}=\"{}\"", escaped(value, true))
}

/// A text as XML holds it. A reader takes an end of a line in an attribute for a blank, and a carriage
/// return anywhere for an end of a line, unless they are escaped.
fn escaped(text: &str, in_attribute: bool) -> String {
    let mut xml = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => xml.push_str("&amp;"),
            '<' => xml.push_str("&lt;"),
            '>' => xml.push_str("&gt;"),
            '"' if in_attribute => xml.push_str("&quot;"),
            '\n' | '\t' if !in_attribute => xml.push(character),
            '\n' | '\t' | '\r' => {
                // Writing to a text cannot fail.
                let _ = write!(xml, "&#{};", u32::from(character));
            }
            '\0'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => xml.push(UNPRINTABLE),
            other => xml.push(other),
        }
    }
    xml
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use serde_json::json;

    use super::*;

    fn environment(status: &str, error: Option<&str>, results: &[TestResult]) -> Environment {
        serde_json::from_value(json!({
            "id": "01890a5d-ac96-774b-bcce-b302099a8057", "name": "etcd", "status": status,
            "request": { "config": { "type": "single_taskserv", "taskserv": "etcd" } },
            "engine": "one", "results": results, "error": error,
            "created_at": "2026-01-31T12:00:00Z", "expires_at": "2026-02-01T12:00:00Z",
        }))
        .unwrap()
    }

    fn result(node: &str, name: &str, exit_code: Option<i32>) -> TestResult {
        TestResult {
            node: node.into(),
            name: name.into(),
            passed: exit_code == Some(0),
            exit_code,
            duration_ms: 1_250,
            output: String::new(),
            error: None,
            result: None,
        }
    }

    #[test]
    fn nodes_are_suites_and_everything_is_counted() {
        let results = [
            TestResult { output: "3 members\n".into(), ..result("etcd-01", "verify etcd", Some(0)) },
            TestResult { output: "lost <one>".into(), ..result("etcd-02", "verify etcd", Some(7)) },
            TestResult {
                error: Some("it took longer than 5 s".into()),
                ..result("etcd-01", "writes \"go on\"", None)
            },
        ];
        let expected = r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="etcd" tests="3" failures="1" errors="1" time="3.750">
  <testsuite name="etcd-01" tests="2" failures="0" errors="1" time="2.500">
    <testcase classname="etcd.etcd-01" name="verify etcd" time="1.250">
      <system-out>3 members
</system-out>
    </testcase>
    <testcase classname="etcd.etcd-01" name="writes &quot;go on&quot;" time="1.250">
      <error message="it took longer than 5 s"></error>
    </testcase>
  </testsuite>
  <testsuite name="etcd-02" tests="1" failures="1" errors="0" time="1.250">
    <testcase classname="etcd.etcd-02" name="verify etcd" time="1.250">
      <failure message="exit status 7">lost &lt;one&gt;</failure>
    </testcase>
  </testsuite>
</testsuites>
"#;
        assert_eq!(junit(&environment("failed", Some("2 of 3 tests failed"), &results)), expected);
    }

    #[test]
    fn what_went_wrong_without_a_test_is_no_pass() {
        let passed = [result("etcd-01", "verify etcd", Some(0))];
        let failed = [result("etcd-01", "verify etcd", Some(1))];
        for (status, error, results, errors) in [
            ("passed", None, &passed[..], 0),
            ("cleaned", None, &passed, 0),
            ("failed", Some("1 of 1 tests failed"), &failed, 0),
            ("cleaned", Some("1 of 1 tests failed"), &failed, 0),
            ("error", Some("there is no image 'nowhere'"), &[], 1),
            ("error", None, &passed, 1),
            ("error", Some("it cannot be removed"), &failed, 1),
            ("failed", None, &[], 1),
            ("cleaned", Some("there is no image 'nowhere'"), &[], 1),
        ] {
            let xml = junit(&environment(status, error, results));
            let (_, head) = xml.split_once("<testsuites ").unwrap();
            assert!(head.lines().next().unwrap().contains(&format!("errors=\"{errors}\"")), "{xml}");
            assert_eq!(xml.contains("<error "), errors > 0, "{xml}");
            let is_told = error.is_none_or(|error| xml.contains(&escaped(error, true)));
            assert!(errors == 0 || is_told, "{xml}");
        }
    }

    #[test]
    fn what_xml_cannot_hold_is_replaced_and_what_it_would_change_is_escaped() {
        let text = "a\0\u{1b}[31m\u{fffe}]]>\r\n\t'\"&\u{e9}\u{1f600}";
        assert_eq!(
            escaped(text, false),
            "a\u{fffd}\u{fffd}[31m\u{fffd}]]&gt;&#13;\n\t'\"&amp;\u{e9}\u{1f600}"
        );
        assert_eq!(
            escaped(text, true),
            "a\u{fffd}\u{fffd}[31m\u{fffd}]]&gt;&#13;&#10;&#9;'&quot;&amp;\u{e9}\u{1f600}"
        );
    }
}
