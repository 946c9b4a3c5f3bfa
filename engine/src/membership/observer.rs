//! Who still gives signs of life, as one observer sees it: pure, with the time as an argument.
//!
//! Every engine renews its lease by counting on. An observer takes note of when it saw a count for the
//! first time, by a clock of its own that only goes forward, and holds whoever has not counted on for
//! the lease time for lost. What clocks say elsewhere does not matter, nor does the time of day.
//!
//! An observer may itself be held up between a question and its answer. So it judges carefully: a count
//! is new when its answer has come, and still the same when the question was asked.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// What an engine says with each renewal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Beat {
    /// Which life of the engine it is.
    pub life: String,
    /// How often it has renewed its lease.
    pub counter: u64,
}

#[derive(Debug, Clone)]
struct Seen {
    beat: Beat,
    /// When the answer came that held it for the first time.
    since: Instant,
    /// When the newest question was asked whose answer still held it.
    confirmed: Instant,
}

/// What one observer has seen of the others.
#[derive(Debug, Clone)]
pub struct Observer {
    lost_after: Duration,
    seen_by_member: BTreeMap<String, Seen>,
}

impl Observer {
    /// An observer that has seen nobody. Whoever does not count on for `lost_after` is lost.
    pub fn new(lost_after: Duration) -> Self {
        Self { lost_after, seen_by_member: BTreeMap::new() }
    }

    /// Takes note of everybody's newest beats: the answer to a question asked at `asked` that came at
    /// `answered`. Who is not among them is forgotten.
    pub fn observe(&mut self, beats: BTreeMap<String, Beat>, asked: Instant, answered: Instant) {
        let members: BTreeSet<String> = beats.keys().cloned().collect();
        self.seen_by_member.retain(|member, _| members.contains(member));
        for (member, beat) in beats {
            match self.seen_by_member.get_mut(&member) {
                Some(seen) if seen.beat == beat => seen.confirmed = seen.confirmed.max(asked),
                _ => {
                    let seen = Seen { beat, since: answered, confirmed: answered };
                    self.seen_by_member.insert(member, seen);
                }
            }
        }
    }

    /// For how long a member has not counted on, as far as is known for sure; `None` for one that has not
    /// been seen.
    pub fn silence(&self, member: &str) -> Option<Duration> {
        let seen = self.seen_by_member.get(member)?;
        Some(seen.confirmed.saturating_duration_since(seen.since))
    }

    /// Whether a member is lost. One that has not been seen is not.
    pub fn is_lost(&self, member: &str) -> bool {
        self.silence(member).is_some_and(|silence| silence >= self.lost_after)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::membership::LeaseTimes;

    const LOST_AFTER: Duration = Duration::from_secs(10);

    fn beat(counter: u64) -> BTreeMap<String, Beat> {
        BTreeMap::from([("a".to_owned(), Beat { life: "1".into(), counter })])
    }

    #[test]
    fn who_does_not_count_on_is_lost_and_who_does_is_not() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut observer = Observer::new(LOST_AFTER);
        assert!(!observer.is_lost("a"), "nobody has looked");
        observer.observe(beat(1), at(0), at(0));
        observer.observe(beat(1), at(9), at(9));
        assert!(!observer.is_lost("a"));
        observer.observe(beat(2), at(10), at(10));
        observer.observe(beat(2), at(19), at(19));
        assert!(!observer.is_lost("a"));
        observer.observe(beat(2), at(20), at(20));
        assert!(observer.is_lost("a"));
        let other_life = BTreeMap::from([("a".to_owned(), Beat { life: "2".into(), counter: 2 })]);
        observer.observe(other_life, at(21), at(21));
        assert!(!observer.is_lost("a"), "another life of it has begun");
        observer.observe(BTreeMap::new(), at(40), at(40));
        observer.observe(beat(2), at(60), at(60));
        assert_eq!(observer.silence("a"), Some(Duration::ZERO), "it was forgotten and is new");
    }

    #[test]
    fn an_observer_that_was_held_up_itself_holds_nobody_for_lost() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut observer = Observer::new(LOST_AFTER);
        observer.observe(beat(1), at(0), at(0));
        // Asked at once, and the answer of then comes a minute later.
        observer.observe(beat(1), at(1), at(61));
        assert!(!observer.is_lost("a"));
        observer.observe(beat(2), at(61), at(121));
        observer.observe(beat(2), at(122), at(182));
        assert!(!observer.is_lost("a"), "it is 1 s for sure");
    }

    /// With the times that engines have agreed on, also where a look takes half a second.
    #[test]
    fn an_engine_that_falls_silent_is_lost_within_fifteen_seconds() {
        let times = LeaseTimes::default();
        let LeaseTimes { renew, lost, .. } = times;
        let trip = Duration::from_millis(250);
        for phase in (0..2_000).step_by(100).map(Duration::from_millis) {
            let (start, mut observer) = (Instant::now(), Observer::new(lost));
            let silent = start + phase + 20 * renew;
            let mut asked = start + phase;
            while !observer.is_lost("a") {
                let looked = asked + trip;
                let counter = (looked.min(silent) - start).as_millis() / renew.as_millis();
                observer.observe(beat(counter as u64), asked, looked + trip);
                asked = looked + trip + times.look();
                assert!(looked + trip <= silent + Duration::from_secs(15), "not lost, at phase {phase:?}");
            }
        }
    }

    proptest! {
        /// Whatever the delays: who is held for lost has in truth not counted on for the lease time, and
        /// who has stopped is found out soon after it.
        #[test]
        fn it_is_never_too_early_and_not_late(
            beats in prop::collection::vec(0..4_000_u64, 1..20),
            looks in prop::collection::vec((1..3_000_u64, 0..6_000_u64, 0..6_000_u64), 1..60),
        ) {
            let start = Instant::now();
            let at = |ms| start + Duration::from_millis(ms);
            // When each count was made, in milliseconds.
            let mut time = 0;
            let made: Vec<u64> = beats.iter().map(|pause| { time += pause; time }).collect();
            let mut observer = Observer::new(LOST_AFTER);
            let mut now = 0;
            let mut slowest = 0;
            for (pause, there, back) in looks {
                let asked = now + pause;
                let looked = asked + there;
                let answered = looked + back;
                now = answered;
                slowest = slowest.max(pause + there + back);
                let counter = made.iter().filter(|made| **made <= looked).count() as u64;
                if counter == 0 { continue }
                observer.observe(beat(counter), at(asked), at(answered));
                let quiet = looked - made[counter as usize - 1];
                if observer.is_lost("a") {
                    prop_assert!(quiet >= LOST_AFTER.as_millis() as u64, "lost after {quiet} ms");
                }
                let late = LOST_AFTER.as_millis() as u64 + 3 * slowest;
                if quiet >= late {
                    prop_assert!(observer.is_lost("a"), "not lost after {quiet} ms");
                }
            }
        }
    }
}
