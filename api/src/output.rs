//! Output that was printed, as it is answered: a list, a stream of events, or bare lines.
//!
//! Without `follow` the answer is bounded: the last 1 000 lines, or as many as `tail` says, and at most
//! 8 MiB in all; what is left out for the second reason is said in the first entry. With `follow` it is a
//! stream, from the first line (or the last `tail` ones) to its end. With `Accept: text/plain` both are
//! bare lines; a stream of those that is not told to its end breaks off, so that it is never taken for
//! all.

use std::collections::VecDeque;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::sse::Event;
use axum::response::{IntoResponse, Response};
use futures::stream::{self, Stream};
use orchestrator_protocol::event::Item;
use orchestrator_protocol::request::Subscription;
use serde::Serialize;
use utoipa::ToSchema;

use crate::envelope::{ApiError, Envelope, prefers};
use crate::query::{Parameters, flag};
use crate::sse;
use crate::state::{Answers, AppState, LongPlace, Place};

/// How many lines an answer that is no stream has, unless asked otherwise, and at most.
const DEFAULT_TAIL: u64 = 1_000;
const MAX_TAIL: u64 = 10_000;
/// What an entry takes beside its text, about.
const ENTRY_BYTES: usize = 160;
const PLAIN: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// How much is missing.
#[derive(Debug, Clone, Copy, Default, Serialize, ToSchema)]
#[schema(as = MissingOutput)]
pub struct Missing {
    pub(crate) lines: u64,
    pub(crate) bytes: u64,
}

/// An entry of an output: a line, or the place of lines that are missing.
pub(crate) trait Entry: Serialize + Sized + Send + 'static {
    /// What an item of the protocol's stream is here; `None` of one that is no output.
    fn of(item: Item) -> Option<Self>;
    /// The line; or how much is missing.
    fn content(&self) -> Result<&str, Missing>;
    /// An entry in place of so much that was left out, of which this was the last.
    fn in_place_of(missing: Missing, last: &Self) -> Self;
}

/// How much there is of an entry.
fn extent(entry: &impl Entry) -> Missing {
    match entry.content() {
        Ok(line) => Missing { lines: 1, bytes: line.len() as u64 + 1 },
        Err(missing) => missing,
    }
}

/// What an entry takes in an answer, in bytes.
fn weight(entry: &impl Entry) -> usize {
    ENTRY_BYTES + entry.content().map_or(0, str::len)
}

/// What stands before an entry's line where only lines are wanted.
pub(crate) type Prefix<E> = fn(&E) -> &str;

/// Nothing stands before it.
pub(crate) fn no_prefix<E>(_: &E) -> &str {
    ""
}

/// An entry as a bare line.
fn bare<E: Entry>(entry: &E, prefix: Prefix<E>) -> String {
    match entry.content() {
        Ok(line) => match prefix(entry) {
            "" => format!("{line}\n"),
            name => format!("{name}: {line}\n"),
        },
        Err(Missing { lines, bytes }) => format!("[{lines} lines ({bytes} bytes) are missing here]\n"),
    }
}

/// How much of an output is wanted, by `tail` and `follow` of a query.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    pub tail: Option<u64>,
    pub follow: bool,
}

impl Wanted {
    /// What a query says of it.
    pub(crate) fn of(query: &mut Parameters) -> Self {
        let tail = query.one("tail", |value| positive(value, u64::MAX));
        let follow = query.one("follow", flag).unwrap_or(false);
        if !follow && tail.is_some_and(|tail| tail > MAX_TAIL) {
            query.refuse("tail", format!("it is at most {MAX_TAIL}; with follow=true all lines can be had"));
        }
        Self { tail: if follow { tail } else { tail.or(Some(DEFAULT_TAIL)) }, follow }
    }
}

/// A number from 1.
pub(crate) fn positive(value: &str, most: u64) -> Result<u64, String> {
    match value.parse() {
        Ok(number) if (1..=most).contains(&number) => Ok(number),
        _ => Err(format!("'{value}' is not a number from 1")),
    }
}

/// An answer with all that is there now.
pub(crate) async fn list<E: Entry>(
    state: &AppState,
    headers: &HeaderMap,
    subscription: Subscription,
    prefix: Prefix<E>,
) -> Result<Response, ApiError> {
    let entries = collected::<E>(state, subscription).await?;
    Ok(match prefers(headers, "text/plain") {
        true => plain(Body::from(entries.iter().map(|entry| bare(entry, prefix)).collect::<String>())),
        false => Envelope::new(entries).into_response(),
    })
}

/// An answer that goes on. `end` is the last event, made when all has been told.
pub(crate) async fn follow<E: Entry>(
    state: &AppState,
    headers: &HeaderMap,
    place: Place,
    subscription: Subscription,
    prefix: Prefix<E>,
    end: impl Future<Output = Result<Event, axum::Error>> + Send + 'static,
) -> Result<Response, ApiError> {
    let place = place.for_long(state)?;
    let answers = state.open(subscription).await.map_err(ApiError::in_query)?;
    let output = Output { answers, _place: place };
    Ok(match prefers(headers, "text/plain") {
        true => plain(Body::from_stream(lines::<E>(output, prefix))),
        false => sse::answer(state, events::<E>(output, end)),
    })
}

fn plain(body: Body) -> Response {
    ([(header::CONTENT_TYPE, PLAIN)], body).into_response()
}

/// All that is there now, within the bound of an answer; what is too much is dropped from its beginning.
async fn collected<E: Entry>(state: &AppState, subscription: Subscription) -> Result<Vec<E>, ApiError> {
    let collect = async {
        let mut answers = state.open(subscription).await.map_err(ApiError::in_query)?;
        let mut kept = Kept::within(state.limits().output_bytes);
        while let Some(item) = answers.next().await {
            kept.extend(E::of(item?));
        }
        Ok(kept.entries())
    };
    match tokio::time::timeout(state.limits().answer, collect).await {
        Ok(entries) => entries,
        Err(_) => Err(ApiError::unavailable("the engine took too long to read the output")),
    }
}

/// The newest entries, up to a number of bytes.
#[derive(Debug)]
struct Kept<E> {
    entries: VecDeque<E>,
    weight: usize,
    most: usize,
    /// What stands for those that were dropped.
    dropped: Option<E>,
}

impl<E: Entry> Kept<E> {
    fn within(most: usize) -> Self {
        Self { entries: VecDeque::new(), weight: 0, most, dropped: None }
    }

    fn extend(&mut self, entry: Option<E>) {
        let Some(entry) = entry else { return };
        self.weight += weight(&entry);
        self.entries.push_back(entry);
        while self.weight > self.most
            && let Some(oldest) = self.entries.pop_front()
        {
            self.weight -= weight(&oldest);
            let before = self.dropped.as_ref().map(extent).unwrap_or_default();
            let Missing { lines, bytes } = extent(&oldest);
            let missing = Missing { lines: before.lines + lines, bytes: before.bytes + bytes };
            self.dropped = Some(E::in_place_of(missing, &oldest));
        }
    }

    fn entries(self) -> Vec<E> {
        self.dropped.into_iter().chain(self.entries).collect()
    }
}

/// An output that is followed, and the place of whoever follows it.
struct Output {
    answers: Answers,
    _place: LongPlace,
}

/// Bare lines. It ends with an error, which breaks the answer off, where it is not told to its end.
fn lines<E: Entry>(
    output: Output,
    prefix: Prefix<E>,
) -> impl Stream<Item = Result<Bytes, orchestrator_protocol::Error>> {
    stream::unfold(Some(output), move |output| async move {
        let mut output = output?;
        loop {
            match output.answers.next().await? {
                Ok(item) => {
                    if let Some(entry) = E::of(item) {
                        return Some((Ok(Bytes::from(bare(&entry, prefix))), Some(output)));
                    }
                }
                Err(error) => return Some((Err(error), None)),
            }
        }
    })
}

/// Entries as events, and the last one.
fn events<E: Entry>(
    output: Output,
    end: impl Future<Output = Result<Event, axum::Error>> + Send + 'static,
) -> impl Stream<Item = Result<Event, axum::Error>> {
    stream::unfold(Some((output, end)), |open| async move {
        let (mut output, end) = open?;
        loop {
            return match output.answers.next().await {
                Some(Ok(item)) => {
                    let Some(entry) = E::of(item) else { continue };
                    let name = if entry.content().is_ok() { "line" } else { "dropped" };
                    Some((sse::event(name, &entry), Some((output, end))))
                }
                Some(Err(error)) => Some((sse::failure(error), None)),
                None => Some((end.await, None)),
            };
        }
    })
}
