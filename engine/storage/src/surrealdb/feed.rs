//! What this store has learnt of commits, its own and those of others, numbered in the order learnt.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::record::{Key, Sequence};
use crate::store::Changes;

/// The most that is kept, in commits and keys together; who is further behind lists again.
const KEPT: usize = 65_536;

/// The newest commits and their numbers.
pub(super) struct Feed {
    learnt: Mutex<Learnt>,
    newest: watch::Sender<Sequence>,
}

struct Learnt {
    newest: Sequence,
    /// Changes after this one are known.
    floor: Sequence,
    commits: VecDeque<(Sequence, Vec<Key>)>,
    size: usize,
}

impl Feed {
    /// Of a store that holds so many commits already.
    pub(super) fn new(newest: Sequence) -> Self {
        let learnt = Learnt { newest, floor: newest, commits: VecDeque::new(), size: 0 };
        Self { learnt: Mutex::new(learnt), newest: watch::Sender::new(newest) }
    }

    fn learnt(&self) -> MutexGuard<'_, Learnt> {
        self.learnt.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Numbers commits; the number of the last one.
    pub(super) fn append(&self, commits: impl IntoIterator<Item = Vec<Key>>) -> Sequence {
        let mut learnt = self.learnt();
        for keys in commits {
            learnt.newest += 1;
            learnt.size += keys.len() + 1;
            let sequence = learnt.newest;
            learnt.commits.push_back((sequence, keys));
        }
        while learnt.size > KEPT && learnt.commits.len() > 1 {
            if let Some((sequence, keys)) = learnt.commits.pop_front() {
                learnt.floor = sequence;
                learnt.size -= keys.len() + 1;
            }
        }
        self.newest.send_replace(learnt.newest);
        learnt.newest
    }

    /// Takes note of commits whose keys are not known any more.
    pub(super) fn skip(&self, commits: u64) {
        let mut learnt = self.learnt();
        learnt.newest += commits;
        learnt.floor = learnt.newest;
        learnt.commits.clear();
        learnt.size = 0;
        self.newest.send_replace(learnt.newest);
    }

    pub(super) fn sequence(&self) -> Sequence {
        self.learnt().newest
    }

    pub(super) fn watch(&self) -> watch::Receiver<Sequence> {
        self.newest.subscribe()
    }

    /// Whole commits after a sequence, until there are `limit` keys.
    pub(super) fn changes(&self, after: Sequence, limit: usize) -> Changes {
        let learnt = self.learnt();
        if after > learnt.newest || after < learnt.floor {
            return Changes::Gone { upto: learnt.newest };
        }
        let start = usize::try_from(after - learnt.floor).unwrap_or(usize::MAX);
        let (mut upto, mut found) = (after, Vec::new());
        for (sequence, keys) in learnt.commits.iter().skip(start) {
            found.extend(keys.iter().map(|key| (*sequence, key.clone())));
            upto = *sequence;
            if found.len() >= limit.max(1) {
                break;
            }
        }
        Changes::Since { upto, keys: found }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Table;

    fn keys(count: usize) -> Vec<Key> {
        (0..count).map(|n| Key::new(Table::Task, n.to_string())).collect()
    }

    #[test]
    fn who_is_too_far_behind_is_told_so() {
        let feed = Feed::new(7);
        assert!(matches!(feed.changes(6, 1), Changes::Gone { upto: 7 }));
        assert!(matches!(feed.changes(7, 1), Changes::Since { upto: 7, keys } if keys.is_empty()));
        assert_eq!(feed.append([keys(2), keys(1)]), 9);
        assert!(matches!(feed.changes(7, 1), Changes::Since { upto: 8, keys } if keys.len() == 2));
        assert_eq!(feed.append([keys(KEPT - 4)]), 10);
        assert!(matches!(feed.changes(7, 1), Changes::Gone { upto: 10 }));
        assert!(matches!(feed.changes(8, 1), Changes::Since { upto: 9, .. }));
        feed.skip(5);
        assert!(matches!(feed.changes(10, 1), Changes::Gone { upto: 15 }));
        assert!(matches!(feed.changes(15, 1), Changes::Since { upto: 15, .. }));
        assert_eq!(*feed.watch().borrow(), 15);
    }
}
