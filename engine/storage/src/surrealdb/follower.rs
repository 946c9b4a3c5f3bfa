//! Learns of the commits of other engines that share the database.
//!
//! A live query tells that there is something new; where the transport has none, and when one was lost,
//! a look at intervals does. What is new stands in the log: each writer numbers its commits without gaps,
//! so that nothing is missed, in whatever order the transactions of several writers become visible.
//!
//! The client keeps every notification until it is taken, without a bound. So a look answers all that have come
//! by then, and what this store has written itself is left out of the query.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, Stream, StreamExt};
use surrealdb::types::{Object, RecordId, RecordIdKey, Value};

use super::Shared;
use super::link::{Link, Session, Trouble};
use super::row::{count, ids, key, number, object};
use crate::record::Key;

/// How long the server may take to begin a live query, where the next look does not come later anyway.
const SUBSCRIBE_PATIENCE: Duration = Duration::from_secs(2);
/// How many entries of a log are read at once.
const PIECE: u64 = 500;
/// The row that holds how many commits were made by writers that are gone.
pub(super) const RETIRED: &str = "retired";

/// How many commits each writer has made.
pub(super) type Progress = HashMap<String, u64>;

/// Reads how many commits each writer has made.
pub(super) async fn progress(link: &Link) -> Result<Progress, Trouble> {
    let Value::Array(rows) = link.read("SELECT VALUE [id, n] FROM meta", Object::new()).await? else {
        return Err(Trouble::Refused("the writers are no list".to_owned()));
    };
    let row = |row: Value| {
        let Value::Array(row) = row else { return None };
        let mut row = row.into_vec().into_iter();
        let Value::RecordId(RecordId { key: RecordIdKey::String(name), .. }) = row.next()? else {
            return None;
        };
        Some((name, count(&row.next()?)?))
    };
    let rows = rows.into_vec().into_iter().map(row).collect::<Option<_>>();
    rows.ok_or_else(|| Trouble::Refused("a writer's row is not what it should be".to_owned()))
}

type Hints = Pin<Box<dyn Stream<Item = surrealdb::Result<surrealdb::Notification<Value>>> + Send>>;

/// Follows the others.
pub(super) struct Follower {
    pub(super) shared: Arc<Shared>,
    /// Up to where each of them is in the feed.
    pub(super) seen: Progress,
    /// Between two looks.
    pub(super) poll_interval: Duration,
}

impl Follower {
    /// Follows until the task is ended.
    pub(super) async fn run(mut self) {
        let mut hints: Option<(Arc<Session>, Hints)> = None;
        loop {
            // First the live query, then the look: so nothing falls between the two.
            if let Ok(session) = self.shared.link.session().await
                && hints.as_ref().is_none_or(|(of, _)| !Arc::ptr_eq(of, &session))
            {
                // Of a connection that does not answer the look below tells.
                let patience = SUBSCRIBE_PATIENCE.max(self.poll_interval);
                let stream = tokio::time::timeout(patience, self.subscribe(&session)).await;
                hints = stream.ok().flatten().map(|stream| (session, stream));
            }
            if let Err(trouble) = self.look().await {
                tracing::debug!(?trouble, "what other engines have written cannot be read now");
            }
            let hint = async {
                match &mut hints {
                    Some((_, stream)) => next_hint(stream).await,
                    None => std::future::pending().await,
                }
            };
            if let Ok(Err(Over)) = tokio::time::timeout(self.poll_interval, hint).await {
                hints = None;
                tokio::time::sleep(self.poll_interval).await;
            }
        }
    }

    /// A live query on the rows of other writers, where there can be one. Should this store go on under another
    /// name, it is told of its own commits too, which does no harm.
    async fn subscribe(&self, session: &Session) -> Option<Hints> {
        let Session::Server(client) = session else { return None };
        let own = ids(self.shared.own_names().iter().map(|name| super::committer::meta(name)));
        let query = client.query("LIVE SELECT n FROM meta WHERE id NOT IN $own");
        let mut answer = query.bind(object([("own", own)])).await.ok()?;
        let stream = answer.stream::<Value>(0).ok()?;
        Some(Box::pin(stream))
    }

    /// Takes in what others have committed.
    async fn look(&mut self) -> Result<(), Trouble> {
        for (writer, commits) in progress(&self.shared.link).await? {
            if writer == RETIRED || self.shared.own_names().contains(&writer) {
                continue;
            }
            let mut seen = self.seen.get(&writer).copied().unwrap_or_default();
            while seen < commits {
                let upto = commits.min(seen + PIECE);
                let entries = read_log(&self.shared.link, &writer, seen + 1, upto).await?;
                if entries.len() as u64 == upto - seen {
                    self.shared.feed.append(entries);
                } else {
                    // The log was cut: whoever reads the feed lists again.
                    self.shared.feed.skip(upto - seen);
                }
                seen = upto;
                self.seen.insert(writer.clone(), seen);
            }
        }
        Ok(())
    }
}

/// There are no more hints.
#[derive(Debug, PartialEq, Eq)]
struct Over;

/// Waits for a hint, and takes along all that have come with it: one look answers them all.
async fn next_hint<T, E>(hints: &mut (impl Stream<Item = Result<T, E>> + Unpin)) -> Result<(), Over> {
    let mut hint = hints.next().await;
    while let Some(Ok(_)) = hint {
        match hints.next().now_or_never() {
            Some(next) => hint = next,
            None => return Ok(()),
        }
    }
    Err(Over)
}

/// The keys of each commit between two numbers of a writer, both inclusive.
async fn read_log(link: &Link, writer: &str, from: u64, upto: u64) -> Result<Vec<Vec<Key>>, Trouble> {
    let values = object([
        ("me", Value::String(writer.to_owned())),
        ("from_n", number(from)),
        ("upto_n", number(upto)),
    ]);
    let text = "SELECT VALUE keys FROM change:[$me, $from_n]..=[$me, $upto_n]";
    let Value::Array(entries) = link.read(text, values).await? else {
        return Err(Trouble::Refused("the log of commits is no list".to_owned()));
    };
    let entry = |entry: Value| {
        let Value::Array(keys) = entry else { return None };
        keys.into_vec().into_iter().map(key).collect::<Option<Vec<_>>>()
    };
    let entries = entries.into_vec().into_iter().map(entry).collect::<Option<_>>();
    entries.ok_or_else(|| Trouble::Refused("an entry of the log names no records".to_owned()))
}

/// Gives what is left of writers that have not committed for so long to [`RETIRED`]. One that is there
/// after all goes on under a new name.
pub(super) async fn retire(link: &Link, after: Duration) -> Result<(), Trouble> {
    let text = "{
    LET $old = (SELECT id, n FROM meta WHERE at < time::now() - $idle AND id != $retired);
    FOR $m IN $old {
        LET $name = record::id($m.id);
        FOR $t IN (SELECT * FROM tally WHERE w = $name) {
            UPSERT type::record('tally', ['', $t.t, $t.status, $t.grp]) SET n += $t.n, w = '', t = $t.t, status = $t.status, grp = $t.grp RETURN NONE;
            DELETE $t.id RETURN NONE;
        };
        DELETE change:[$name, 0]..=[$name, $m.n] RETURN NONE;
        UPSERT $retired SET n += $m.n RETURN NONE;
        DELETE $m.id RETURN NONE;
    };
    RETURN array::len($old);
    }";
    let values = object([
        ("idle", Value::Duration(after.into())),
        ("retired", Value::RecordId(super::committer::meta(RETIRED))),
    ]);
    link.repeat(text, values).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use futures::channel::mpsc;

    use super::*;

    #[test]
    fn one_look_answers_all_hints_that_have_come() {
        let (mut source, mut hints) = mpsc::channel::<Result<(), ()>>(10_000);
        for _ in 0..10_000 {
            assert!(source.try_send(Ok(())).is_ok());
        }
        assert_eq!(next_hint(&mut hints).now_or_never(), Some(Ok(())));
        assert_eq!(next_hint(&mut hints).now_or_never(), None, "nothing has come since");
        assert!(source.try_send(Ok(())).is_ok());
        assert_eq!(next_hint(&mut hints).now_or_never(), Some(Ok(())));
        assert!(source.try_send(Ok(())).is_ok() && source.try_send(Err(())).is_ok());
        assert_eq!(next_hint(&mut hints).now_or_never(), Some(Err(Over)), "the query has failed");
        drop(source);
        assert_eq!(next_hint(&mut hints).now_or_never(), Some(Err(Over)), "and has ended");
    }
}
