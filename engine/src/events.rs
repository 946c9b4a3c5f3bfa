//! Every change of every task, numbered, kept for a while, and handed to whoever listens.
//!
//! The newest events stay in memory, so that a listener who was cut off goes on where it was. One who
//! was away for longer, or who listened to another life of the engine, is told that it has missed
//! some. Nobody who listens slowly holds up those who report.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use chrono::Utc;
use orchestrator_protocol::event::{EventCursor, TaskEvent};
use orchestrator_protocol::task::{Progress, Task, TaskId};
use orchestrator_storage::Revision;
use tokio::sync::watch;
use uuid::Uuid;

/// How many events are kept. Each takes some 400 bytes.
const KEPT: usize = 16_384;

/// How many a listener takes over at once.
const BATCH: usize = 256;

/// What has happened. Dropping it ends all its listeners.
pub struct EventLog {
    shared: Arc<Shared>,
    /// The sequence of the newest event.
    newest: watch::Sender<u64>,
}

struct Shared {
    epoch: String,
    kept: Mutex<Kept>,
}

struct Kept {
    events: VecDeque<Entry>,
    /// The newest revision of each task of these events.
    told_by_id: HashMap<TaskId, Revision>,
    /// The sequence of the newest event.
    newest: u64,
    capacity: usize,
}

/// An event that is kept.
struct Entry {
    event: Arc<TaskEvent>,
    /// That of the task after the change, where the event is about a commit.
    revision: Option<Revision>,
}

/// What an event is about: the task, the revision that it has now, how far it is, and what went wrong.
type Change<'a> = (&'a Task, Option<Revision>, Option<Progress>, Option<String>);

impl Kept {
    /// Takes note of a revision of a task. Whether it, or a newer one, was told already: of two commits that
    /// are made shortly after each other the second may be reported first, and a commit may be reported
    /// by its author and by whoever follows the store.
    fn is_overtaken(&mut self, id: TaskId, revision: Revision) -> bool {
        let told = self.told_by_id.entry(id).or_default();
        let is_overtaken = *told >= revision;
        *told = revision.max(*told);
        is_overtaken
    }

    fn push(&mut self, entry: Entry) {
        if self.events.len() == self.capacity
            && let Some(Entry { event, revision }) = self.events.pop_front()
            && revision.is_some_and(|revision| self.told_by_id.get(&event.id) == Some(&revision))
        {
            self.told_by_id.remove(&event.id);
        }
        self.events.push_back(entry);
    }

    /// The sequence before that of the oldest event that is still here.
    fn before_oldest(&self) -> u64 {
        self.newest - self.events.len() as u64
    }
}

impl Default for EventLog {
    fn default() -> Self {
        Self::with_capacity(KEPT)
    }
}

impl EventLog {
    fn with_capacity(capacity: usize) -> Self {
        let kept =
            Mutex::new(Kept { events: VecDeque::new(), told_by_id: HashMap::new(), newest: 0, capacity });
        let epoch = Uuid::new_v4().simple().to_string();
        Self { shared: Arc::new(Shared { epoch, kept }), newest: watch::Sender::new(0) }
    }

    /// Reports that tasks were changed, by one commit, and the revisions that they have now. One that was
    /// changed again meanwhile, and reported so, is left out: the last event of a task is how it is.
    pub fn changed<'a>(&self, tasks: impl Iterator<Item = (&'a Task, Revision)>) {
        self.report(tasks.map(|(task, revision)| {
            let error = task.error.clone().or_else(|| task.last_error.clone());
            (task, Some(revision), task.progress.clone(), error)
        }));
    }

    /// Reports how far a task is.
    pub fn progressed(&self, task: &Task, progress: Progress) {
        self.report([(task, None, Some(progress), None)].into_iter());
    }

    fn report<'a>(&self, changes: impl Iterator<Item = Change<'a>>) {
        let time = Utc::now();
        let mut kept = self.shared.kept.lock().unwrap_or_else(PoisonError::into_inner);
        for (task, revision, progress, error) in changes {
            if revision.is_some_and(|revision| kept.is_overtaken(task.id, revision)) {
                continue;
            }
            kept.newest += 1;
            let event = TaskEvent {
                cursor: EventCursor { epoch: self.shared.epoch.clone(), sequence: kept.newest },
                time,
                id: task.id,
                name: task.name.clone(),
                group: task.group.clone(),
                parent: task.parent,
                status: task.status,
                attempt: task.attempt,
                progress,
                error,
            };
            kept.push(Entry { event: Arc::new(event), revision });
        }
        let newest = kept.newest;
        drop(kept);
        // Of two that report at once the later number stays.
        self.newest.send_if_modified(|seen| {
            let is_newer = newest > *seen;
            *seen = newest.max(*seen);
            is_newer
        });
    }

    /// Some changes will never be reported: whoever listens, or comes back, is told that some are missing.
    pub fn skip(&self) {
        let mut kept = self.shared.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.events.clear();
        kept.told_by_id.clear();
        kept.newest += 1;
        let newest = kept.newest;
        drop(kept);
        self.newest.send_if_modified(|seen| {
            let is_newer = newest > *seen;
            *seen = newest.max(*seen);
            is_newer
        });
    }

    /// Everything from now on.
    pub fn listen(&self) -> Listener {
        let newest = self.newest.subscribe();
        let position = self.shared.kept.lock().unwrap_or_else(PoisonError::into_inner).newest;
        Listener { shared: Arc::clone(&self.shared), newest, position, batch: VecDeque::new() }
    }

    /// Everything after an event, or `None` where some of it is not here any more.
    pub fn listen_after(&self, cursor: &EventCursor) -> Option<Listener> {
        let listener = self.listen();
        let before_oldest = self.shared.kept.lock().unwrap_or_else(PoisonError::into_inner).before_oldest();
        let is_known = cursor.epoch == self.shared.epoch
            && cursor.sequence <= listener.position
            && cursor.sequence >= before_oldest;
        is_known.then(|| Listener { position: cursor.sequence, ..listener })
    }
}

/// Why there is no next event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoEvent {
    /// Some have been missed; those from now on follow.
    Missed,
    /// There will be none.
    Closed,
}

/// One who listens.
pub struct Listener {
    shared: Arc<Shared>,
    newest: watch::Receiver<u64>,
    /// The sequence of the event that was taken over last.
    position: u64,
    /// What was taken over and not yet handed out.
    batch: VecDeque<Arc<TaskEvent>>,
}

impl Listener {
    /// Where it is: everything after this is still to come.
    pub fn cursor(&self) -> EventCursor {
        let sequence = self.position - self.batch.len() as u64;
        EventCursor { epoch: self.shared.epoch.clone(), sequence }
    }

    /// The next event. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Result<Arc<TaskEvent>, NoEvent> {
        loop {
            if let Some(event) = self.batch.pop_front() {
                return Ok(event);
            }
            // Seen before the look, so that what comes in between wakes it again.
            let is_closed = self.newest.has_changed().is_err();
            self.newest.borrow_and_update();
            if self.take_over()? {
                continue;
            }
            if is_closed || self.newest.changed().await.is_err() && !self.take_over()? {
                return Err(NoEvent::Closed);
            }
        }
    }

    /// Takes over what has come. Whether that was anything.
    fn take_over(&mut self) -> Result<bool, NoEvent> {
        let kept = self.shared.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let before_oldest = kept.before_oldest();
        if self.position < before_oldest {
            self.position = kept.newest;
            return Err(NoEvent::Missed);
        }
        let seen = (self.position - before_oldest) as usize;
        self.batch.extend(kept.events.range(seen..).take(BATCH).map(|entry| Arc::clone(&entry.event)));
        self.position += self.batch.len() as u64;
        Ok(!self.batch.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use orchestrator_protocol::task::{Work, Workflow};

    use super::*;

    fn report(log: &EventLog, names: &[&str]) {
        let tasks: Vec<Task> =
            names.iter().map(|name| Task::new(*name, Work::Workflow(Workflow::default()), "g")).collect();
        log.changed(tasks.iter().map(|task| (task, 1)));
    }

    async fn heard(listener: &mut Listener, count: usize) -> Vec<(String, u64)> {
        let mut heard = Vec::new();
        for _ in 0..count {
            if let Ok(event) = listener.next().await {
                heard.push((event.name.clone(), event.cursor.sequence));
            }
        }
        heard
    }

    #[tokio::test]
    async fn each_place_is_one_to_go_on_from_also_inside_a_commit() {
        let log = EventLog::default();
        let mut whole = log.listen();
        assert_eq!(whole.cursor().sequence, 0);
        report(&log, &["a", "b", "c"]);
        report(&log, &["d"]);
        let all = heard(&mut whole, 4).await;
        assert_eq!(all, [("a".into(), 1), ("b".into(), 2), ("c".into(), 3), ("d".into(), 4)]);
        for place in 0..=4 {
            let cursor = EventCursor { sequence: place, ..whole.cursor() };
            let mut listener = log.listen_after(&cursor).into_iter().next();
            let rest = match &mut listener {
                Some(listener) => heard(listener, 4 - place as usize).await,
                None => Vec::new(),
            };
            assert_eq!(rest, all[place as usize..], "{place}");
            assert_eq!(listener.map(|listener| listener.cursor()), Some(whole.cursor()));
        }
    }

    #[tokio::test]
    async fn a_cursor_counts_what_was_handed_out_and_not_what_was_taken_over() {
        let log = EventLog::default();
        let mut listener = log.listen();
        report(&log, &["a", "b", "c"]);
        heard(&mut listener, 1).await;
        assert_eq!(listener.cursor().sequence, 1);
    }

    #[tokio::test]
    async fn what_is_not_here_any_more_or_never_was_is_missed() {
        let log = EventLog::with_capacity(2);
        let mut slow = log.listen();
        let start = slow.cursor();
        report(&log, &["a", "b", "c"]);
        assert_eq!(slow.next().await.map(|event| event.name.clone()), Err(NoEvent::Missed));
        report(&log, &["d"]);
        assert_eq!(heard(&mut slow, 1).await, [("d".into(), 4)], "it goes on with what is new");

        let after = |sequence| log.listen_after(&EventCursor { sequence, ..start.clone() }).is_some();
        assert_eq!([0, 1, 2, 3, 4, 5].map(after), [false, false, true, true, true, false]);
        let other = EventCursor { epoch: "other".into(), sequence: 3 };
        assert!(log.listen_after(&other).is_none());
    }

    #[tokio::test]
    async fn what_was_skipped_is_missed() {
        let log = EventLog::default();
        let mut listener = log.listen();
        report(&log, &["a"]);
        heard(&mut listener, 1).await;
        let place = listener.cursor();
        log.skip();
        assert_eq!(listener.next().await.map(|event| event.name.clone()), Err(NoEvent::Missed));
        assert!(log.listen_after(&place).is_none());
        report(&log, &["b"]);
        assert_eq!(heard(&mut listener, 1).await, [("b".into(), 3)]);
    }

    #[tokio::test]
    async fn a_change_that_two_report_is_told_once() {
        let log = EventLog::default();
        let mut listener = log.listen();
        let task = Task::new("a", Work::Workflow(Workflow::default()), "g");
        log.changed([(&task, 1)].into_iter());
        log.changed([(&task, 1)].into_iter());
        log.changed([(&task, 2)].into_iter());
        drop(log);
        let all = heard(&mut listener, 3).await;
        assert_eq!(all, [("a".into(), 1), ("a".into(), 2)]);
    }

    #[tokio::test]
    async fn the_end_comes_after_the_last_event() {
        let log = EventLog::default();
        let mut listener = log.listen();
        report(&log, &["a"]);
        drop(log);
        assert_eq!(heard(&mut listener, 1).await, [("a".into(), 1)]);
        assert_eq!(listener.next().await.map(|event| event.name.clone()), Err(NoEvent::Closed));
    }

    #[tokio::test]
    async fn what_was_overtaken_is_left_out_and_no_more_is_remembered_than_events() {
        let log = EventLog::with_capacity(2);
        let mut listener = log.listen();
        let tasks = ["a", "b", "c"].map(|name| Task::new(name, Work::Workflow(Workflow::default()), "g"));
        let [a, b, c] = &tasks;
        log.changed([(a, 2)].into_iter());
        log.changed([(a, 1), (b, 1)].into_iter());
        assert_eq!(heard(&mut listener, 2).await, [("a".into(), 1), ("b".into(), 2)]);
        log.changed([(c, 1), (c, 2)].into_iter());
        let kept = log.shared.kept.lock().unwrap_or_else(PoisonError::into_inner);
        assert_eq!(kept.told_by_id, HashMap::from([(c.id, 2)]));
    }
}
