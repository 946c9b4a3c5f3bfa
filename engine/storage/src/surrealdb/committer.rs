//! Makes the commits of one store, one transaction at a time.
//!
//! A store is a writer with a name of its own. The row `meta:<writer>` holds how many commits it has
//! made, its epoch, and the token of its newest transaction. After a transaction without an answer the
//! committer raises the epoch and reads the token, in one step: if the token is the transaction's, it has
//! happened; if not, it never will, because every transaction looks at the epoch first. So what is lost
//! on the way can be found out, and nothing is done late or twice.

use std::sync::Arc;
use std::time::{Duration, Instant};

use surrealdb::types::{Array, RecordId, Value};
use tokio::sync::mpsc;

use super::Shared;
use super::link::{Link, Trouble, back_off};
use super::plan::{Known, Plan, Request};
use super::row::{count, key, list, number, object, record_id};
use crate::record::{Commit, Key, Revision};
use crate::store::StoreError;

/// A transaction of several commits is no larger than this, in bytes: well below what a server takes in one
/// request.
const BATCH_BYTES: usize = 1024 * 1024;
/// Between two questions whether a server that is away is back. How often it is asked is the link's.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);
/// How many entries of its log a writer keeps: how far another engine may be behind without listing again.
const LOG_KEPT: u64 = 8_192;
/// The log is cut after so many commits.
const LOG_CUT: u64 = 1_024;
/// How long a commit is tried again inside this process, where only other transactions can be in its way.
const EMBEDDED_PATIENCE: Duration = Duration::from_secs(60);

/// How much longer than for a small transaction a server may take for each record of a large one: so long
/// that it is never given up while it works.
const PER_RECORD: Duration = Duration::from_millis(20);

/// Who writes.
pub(super) struct Writer {
    /// The name, which no two stores that are open share.
    pub(super) name: String,
    /// How many commits it has made.
    commits: u64,
    epoch: u64,
    /// Entries of the log up to this one are removed.
    cut: u64,
}

/// Serves commits.
pub(super) struct Committer {
    shared: Arc<Shared>,
    writer: Writer,
    /// A transaction that nobody knows the outcome of.
    unsettled: Option<Unsettled>,
}

/// A transaction without an answer.
struct Unsettled {
    token: String,
    keys: Vec<Vec<Key>>,
}

/// What a transaction has answered.
enum Answer {
    Done,
    /// Some records are not what they were believed to be. These are there.
    Have(Vec<(Key, Revision)>),
    /// The writer is not known any more.
    Fenced,
}

/// What has become of a transaction without an answer.
enum Settled {
    Happened,
    NeverWill,
}

impl Committer {
    pub(super) fn new(shared: Arc<Shared>, writer: Writer) -> Self {
        Self { shared, writer, unsettled: None }
    }

    /// Serves commits until the channel is closed and empty.
    pub(super) async fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let mut next = requests.recv().await;
        while let Some(first) = next.take() {
            let mut size = first.size();
            let mut waiting = vec![first];
            while let Ok(another) = requests.try_recv() {
                size += another.size();
                if size > BATCH_BYTES {
                    next = Some(another);
                    break;
                }
                waiting.push(another);
            }
            self.serve(waiting).await;
            self.cut_log().await;
            if next.is_none() {
                next = requests.recv().await;
            }
        }
    }

    async fn serve(&mut self, waiting: Vec<Request>) {
        if let Some(reason) = self.shared.failure.get() {
            for request in waiting {
                request.answer(Err(StoreError::Failed { reason: reason.clone() }));
            }
            return;
        }
        let patience = self.shared.link.patience().unwrap_or(EMBEDDED_PATIENCE);
        let records: usize = waiting.iter().map(|request| request.operations.len()).sum();
        let patience = patience + PER_RECORD * u32::try_from(records).unwrap_or(u32::MAX);
        let deadline = Instant::now() + patience;
        let location = self.shared.link.location.clone();
        let away = |reason: &str| StoreError::Away { location: location.clone(), reason: reason.to_owned() };
        let mut plan = Plan::new(waiting, &Known::new());
        let mut conflicts = 0;
        loop {
            let trouble = match self.attempt(&plan).await {
                Ok(Answer::Done) => return self.acknowledge(plan),
                Ok(Answer::Have(have)) => {
                    let known = plan.learn(have);
                    plan = Plan::new(plan.into_waiting(), &known);
                    for (request, key) in std::mem::take(&mut plan.lost) {
                        request.answer(Err(StoreError::Conflict { key }));
                    }
                    if plan.accepted.is_empty() {
                        return;
                    }
                    continue;
                }
                Ok(Answer::Fenced) => match self.register_anew().await {
                    Ok(()) => continue,
                    // The transaction itself is known to have left nothing.
                    Err(Trouble::Conflict) => Trouble::Conflict,
                    Err(Trouble::Refused(reason) | Trouble::Lost(reason) | Trouble::Away(reason)) => {
                        Trouble::Away(reason)
                    }
                },
                Err(trouble) => trouble,
            };
            let is_late = Instant::now() >= deadline;
            match trouble {
                Trouble::Conflict if is_late => return plan.fail(|| away("others keep changing it")),
                Trouble::Conflict => {
                    conflicts += 1;
                    tokio::time::sleep(back_off(conflicts)).await;
                }
                Trouble::Away(reason) if is_late => return plan.fail(|| away(&reason)),
                Trouble::Away(_) => tokio::time::sleep(RETRY_INTERVAL).await,
                Trouble::Lost(reason) => match self.find_out(&reason, deadline + patience).await {
                    Err(unknown) => return plan.fail(|| unknown.error(&location)),
                    Ok(Settled::Happened) => return self.acknowledge(plan),
                    Ok(Settled::NeverWill) => {
                        if let Some(error) = TooMuch::new(&reason) {
                            return match plan.is_one() {
                                true => plan.fail(|| error.error(&location)),
                                false => self.serve_singly(plan).await,
                            };
                        }
                        if is_late {
                            return plan.fail(|| away(&reason));
                        }
                    }
                },
                Trouble::Refused(reason) => match self.find_out(&reason, deadline + patience).await {
                    Err(unknown) => return plan.fail(|| unknown.error(&location)),
                    Ok(Settled::Happened) => return self.acknowledge(plan),
                    Ok(Settled::NeverWill) if !plan.is_one() => return self.serve_singly(plan).await,
                    Ok(Settled::NeverWill) => {
                        let too_much = TooMuch::new(&reason);
                        return plan.fail(|| match &too_much {
                            Some(error) => error.error(&location),
                            None => {
                                StoreError::Database { location: location.clone(), reason: reason.clone() }
                            }
                        });
                    }
                },
            }
            // What was known may have changed.
            plan = Plan::new(plan.into_waiting(), &Known::new());
        }
    }

    /// Serves commits one after the other: the database refuses them together, and one of them may be to blame
    /// alone.
    async fn serve_singly(&mut self, plan: Plan) {
        for request in plan.into_waiting() {
            Box::pin(self.serve(vec![request])).await;
        }
    }

    /// Tries a transaction.
    async fn attempt(&mut self, plan: &Plan) -> Result<Answer, Trouble> {
        self.settle().await?;
        let (text, mut values) = plan.statement();
        let token = new_name();
        let keys = plan.keys();
        let writer = &self.writer;
        values.insert("me", Value::String(writer.name.clone()));
        values.insert("meta", Value::RecordId(meta(&writer.name)));
        values.insert("epoch", number(writer.epoch));
        values.insert("tx", Value::String(token.clone()));
        values.insert("k", number(keys.len() as u64));
        values.insert("log", self.log(&keys));
        let records: usize = plan.accepted.iter().map(|request| request.operations.len()).sum();
        let longer = PER_RECORD * u32::try_from(records).unwrap_or(u32::MAX);
        let result = self.shared.link.run(&text, values, longer).await.and_then(answer);
        if let Err(Trouble::Lost(_) | Trouble::Refused(_)) = &result {
            self.unsettled = Some(Unsettled { token, keys });
        }
        result
    }

    /// The entries of the log: only where there are others to read it.
    fn log(&self, commits: &[Vec<Key>]) -> Value {
        if !self.shared.link.is_shared() {
            return list([]);
        }
        let entry = |(n, keys): (usize, &Vec<Key>)| {
            let n = self.writer.commits + n as u64 + 1;
            let keys = list(keys.iter().map(|key| Value::RecordId(record_id(key))));
            let id = [Value::String(self.writer.name.clone()), number(n)];
            let id = Value::RecordId(RecordId::new("change", Array::from(id.to_vec())));
            Value::Object(object([("id", id), ("keys", keys)]))
        };
        list(commits.iter().enumerate().map(entry))
    }

    /// Tells the feed and the authors of a transaction that has happened.
    fn acknowledge(&mut self, plan: Plan) {
        let keys = plan.keys();
        let made = keys.len() as u64;
        self.writer.commits += made;
        let first = self.shared.feed.append(keys) - made + 1;
        for (sequence, request) in (first..).zip(plan.accepted) {
            let revisions = request.revisions();
            request.answer(Ok(Commit { sequence, revisions }));
        }
        for (request, key) in plan.outrun {
            request.answer(Err(StoreError::Conflict { key }));
        }
    }

    /// Finds out what has become of the transaction without an answer, which its authors still wait for.
    async fn find_out(&mut self, reason: &str, deadline: Instant) -> Result<Settled, Unknown> {
        let Some(unsettled) = self.unsettled.take() else { return Ok(Settled::NeverWill) };
        loop {
            match self.raise_epoch(&unsettled.token).await {
                Ok(settled) => return Ok(settled),
                Err(_) if self.shared.link.is_shared() && Instant::now() < deadline => {
                    tokio::time::sleep(RETRY_INTERVAL).await;
                }
                Err(_) => break,
            }
        }
        if self.shared.link.is_shared() {
            self.unsettled = Some(unsettled);
            return Err(Unknown::Outcome(reason.to_owned()));
        }
        // Inside this process it is the disk that does not answer.
        tracing::error!(reason, "the store failed");
        let reason = self.shared.failure.get_or_init(|| reason.to_owned());
        Err(Unknown::Disk(reason.clone()))
    }

    /// Finds out what has become of a transaction whose authors have been told that nobody knows.
    async fn settle(&mut self) -> Result<(), Trouble> {
        let Some(unsettled) = self.unsettled.take() else { return Ok(()) };
        match self.raise_epoch(&unsettled.token).await {
            Ok(Settled::NeverWill) => Ok(()),
            Ok(Settled::Happened) => {
                self.writer.commits += unsettled.keys.len() as u64;
                self.shared.feed.append(unsettled.keys);
                Ok(())
            }
            Err(trouble) => {
                self.unsettled = Some(unsettled);
                // The commit that is waiting now was not sent.
                Err(match trouble {
                    Trouble::Lost(reason) | Trouble::Refused(reason) => Trouble::Away(reason),
                    other => other,
                })
            }
        }
    }

    /// Keeps every transaction of this writer that is still on its way from being done; and whether the
    /// newest one that was done has this token.
    async fn raise_epoch(&mut self, token: &str) -> Result<Settled, Trouble> {
        let text = "{ IF !record::exists($meta) { RETURN NONE };
            RETURN (UPDATE ONLY $meta SET epoch += 1 RETURN AFTER); }";
        let values = object([("meta", Value::RecordId(meta(&self.writer.name)))]);
        let row = match self.shared.link.repeat(text, values).await? {
            // Another engine took it for gone, because it had not committed for long.
            Value::None => return Ok(Settled::NeverWill),
            Value::Object(row) => row,
            _ => return Err(Trouble::Refused("the writer's row is not what it should be".to_owned())),
        };
        let epoch = row.get("epoch").and_then(count);
        self.writer.epoch =
            epoch.ok_or_else(|| Trouble::Refused("the writer's row has no epoch".to_owned()))?;
        let is_newest = matches!(row.get("token"), Some(Value::String(newest)) if newest == token);
        Ok(if is_newest { Settled::Happened } else { Settled::NeverWill })
    }

    /// Goes on under a new name, after another engine has taken this writer for gone.
    async fn register_anew(&mut self) -> Result<(), Trouble> {
        let name = new_name();
        self.shared.own_names().insert(name.clone());
        self.writer = register(&self.shared.link, name).await?;
        Ok(())
    }

    /// Removes entries of the log that are too old to be of use.
    async fn cut_log(&mut self) {
        let Writer { name, commits, cut, .. } = &self.writer;
        if !self.shared.link.is_shared() || commits.saturating_sub(*cut) < LOG_KEPT + LOG_CUT {
            return;
        }
        let upto = commits - LOG_KEPT;
        let text = "DELETE change:[$me, $from_n]..=[$me, $upto_n] RETURN NONE";
        let values = object([
            ("me", Value::String(name.clone())),
            ("from_n", number(cut + 1)),
            ("upto_n", number(upto)),
        ]);
        match self.shared.link.repeat(text, values).await {
            Ok(_) => self.writer.cut = upto,
            Err(trouble) => tracing::warn!(?trouble, "the log of commits cannot be cut now"),
        }
    }
}

/// Why the outcome of a transaction stays unknown.
enum Unknown {
    /// The server did not come back in time.
    Outcome(String),
    /// It is not known what the disk holds.
    Disk(String),
}

impl Unknown {
    fn error(&self, location: &str) -> StoreError {
        match self {
            Self::Outcome(reason) => {
                StoreError::OutcomeUnknown { location: location.to_owned(), reason: reason.clone() }
            }
            Self::Disk(reason) => StoreError::Failed { reason: reason.clone() },
        }
    }
}

/// That there is no room for a commit.
enum TooMuch {
    OnDisk(String),
    InARequest(String),
}

impl TooMuch {
    /// Whether the database's words say so.
    fn new(words: &str) -> Option<Self> {
        if words.contains("disk space") || words.contains("No space left") {
            Some(Self::OnDisk(words.to_owned()))
        } else if words.contains("413 Payload Too Large") || words.contains("Message too long") {
            Some(Self::InARequest(words.to_owned()))
        } else {
            None
        }
    }

    fn error(&self, location: &str) -> StoreError {
        match self {
            Self::OnDisk(words) => StoreError::Full {
                location: location.to_owned(),
                source: std::io::Error::new(std::io::ErrorKind::StorageFull, words.clone()),
            },
            Self::InARequest(words) => {
                StoreError::Invalid { reason: format!("the server takes no request of this size: {words}") }
            }
        }
    }
}

/// What a transaction's result says.
fn answer(result: Value) -> Result<Answer, Trouble> {
    let broken = || Trouble::Refused("a transaction's result is not what it should be".to_owned());
    let Value::Object(result) = result else { return Err(broken()) };
    let mut result = result.into_inner();
    if result.contains_key("done") {
        return Ok(Answer::Done);
    }
    if result.contains_key("fenced") {
        return Ok(Answer::Fenced);
    }
    let Some(Value::Array(have)) = result.remove("have") else { return Err(broken()) };
    let pair = |pair: Value| {
        let Value::Array(pair) = pair else { return None };
        let mut pair = pair.into_vec().into_iter();
        Some((key(pair.next()?)?, count(&pair.next()?)?))
    };
    let have = have.into_vec().into_iter().map(pair).collect::<Option<_>>();
    Ok(Answer::Have(have.ok_or_else(broken)?))
}

/// The row of a writer.
pub(super) fn meta(writer: &str) -> RecordId {
    RecordId::new("meta", writer)
}

/// A name that nobody else has.
pub(super) fn new_name() -> String {
    format!("{:032x}", rand::random::<u128>())
}

/// Makes a writer known to the database, and keeps earlier transactions of its name from being done.
pub(super) async fn register(link: &Link, name: String) -> Result<Writer, Trouble> {
    let text = "UPSERT ONLY $meta SET n = n ?? 0, epoch = (epoch ?? 0) + 1, at = time::now() RETURN AFTER";
    let row = link.repeat(text, object([("meta", Value::RecordId(meta(&name)))])).await?;
    let Value::Object(row) = row else {
        return Err(Trouble::Refused("the writer's row is not what it should be".to_owned()));
    };
    let field = |name: &str| row.get(name).and_then(count);
    match (field("n"), field("epoch")) {
        (Some(commits), Some(epoch)) => Ok(Writer { name, commits, epoch, cut: 0 }),
        _ => Err(Trouble::Refused("the writer's row lacks a number".to_owned())),
    }
}
