//! What may stand after the `?` of a path, and what a path may name.
//!
//! A filter whose name is mistyped would silently show everything. So a parameter that a path does not
//! have is an error, and so is a bad value; all of them are told at once.

use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, Path};
use axum::http::Uri;
use axum::http::request::Parts;
use serde::Serialize;
use serde_json::json;

use crate::envelope::ApiError;
use crate::state::AppState;

/// The parameters of a request. Each is taken out by its name; what is left at the end is unknown.
#[derive(Debug)]
pub struct Parameters {
    pairs: Vec<(String, String)>,
    known: Vec<&'static str>,
    problems: Vec<Problem>,
}

/// What is wrong with a parameter.
#[derive(Debug, Serialize)]
struct Problem {
    parameter: String,
    problem: String,
}

impl Parameters {
    /// Those of a request's target.
    pub fn of(uri: &Uri) -> Self {
        let pairs = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
        Self { pairs, known: Vec::new(), problems: Vec::new() }
    }

    /// Takes every value of a parameter that may come several times.
    pub fn all<T>(&mut self, name: &'static str, read: impl Fn(&str) -> Result<T, String>) -> Vec<T> {
        self.known.push(name);
        let mut values = Vec::new();
        for (_, text) in self.pairs.extract_if(.., |(parameter, _)| parameter == name) {
            let value = if text.is_empty() { Err("it has no value".to_owned()) } else { read(&text) };
            match value {
                Ok(value) => values.push(value),
                Err(problem) => self.problems.push(Problem { parameter: name.to_owned(), problem }),
            }
        }
        values
    }

    /// Takes the value of a parameter that may come once.
    pub fn one<T>(&mut self, name: &'static str, read: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let mut values = self.all(name, read);
        if values.len() > 1 {
            self.refuse(name, "it may come once only");
        }
        values.pop()
    }

    /// Takes note of something that is wrong with a parameter.
    pub fn refuse(&mut self, name: &str, problem: impl Into<String>) {
        self.problems.push(Problem { parameter: name.to_owned(), problem: problem.into() });
    }

    /// Whether everything was understood.
    ///
    /// # Errors
    /// One that names all that was not.
    pub fn finish(mut self) -> Result<(), ApiError> {
        let unknown = match self.known.as_slice() {
            [] => "there is no such parameter: this path takes none".to_owned(),
            known => format!("there is no such parameter: use {}", known.join(", ")),
        };
        for (parameter, _) in std::mem::take(&mut self.pairs) {
            self.refuse(&parameter, unknown.as_str());
        }
        if self.problems.is_empty() {
            return Ok(());
        }
        let all: Vec<_> =
            self.problems.iter().map(|of| format!("{}: {}", of.parameter, of.problem)).collect();
        Err(ApiError::malformed(all.join("; ")).with_detail("parameters", json!(self.problems)))
    }
}

/// Any text.
pub fn text(value: &str) -> Result<String, String> {
    Ok(value.to_owned())
}

/// Yes or no.
pub fn flag(value: &str) -> Result<bool, String> {
    match value {
        "true" => Ok(true),
        "false" => Ok(false),
        other => Err(format!("'{other}' is neither true nor false")),
    }
}

/// Several of something, such as states, with commas between them.
pub fn several<T>(value: &str) -> Result<Vec<T>, String>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    value.split(',').map(|name| parsed(name.trim())).collect()
}

/// What can be read from a text, and what reading says when it cannot.
pub fn parsed<T>(value: &str) -> Result<T, String>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    value.parse().map_err(|error: T::Err| error.to_string())
}

/// The one thing that a path names.
pub(crate) async fn in_path<T>(parts: &mut Parts, state: &AppState) -> Result<T, ApiError>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    let name: Result<Path<String>, PathRejection> = Path::from_request_parts(parts, state).await;
    let Path(name) = name.map_err(|_| ApiError::malformed("the path is no UTF-8"))?;
    parsed(&name).map_err(ApiError::malformed)
}
