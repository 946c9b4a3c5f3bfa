#![expect(clippy::unwrap_used, reason = "a test may panic")]

use chrono::TimeDelta;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;

fn id(number: u64) -> TaskId {
    TaskId(Uuid::from_u64_pair(0, number))
}

fn entry(number: u64, group: &str, priority: i32) -> Entry {
    Entry {
        id: id(number),
        revision: 1,
        group: group.into(),
        priority,
        not_before: None,
        lock: None,
        holder: id(number),
        waits_for: HashSet::new(),
        fits: true,
    }
}

fn now() -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::days(20_000)
}

fn drain(schedule: &mut Schedule) -> Vec<u64> {
    std::iter::from_fn(|| schedule.next(now())).map(|entry| entry.id.0.as_u64_pair().1).collect()
}

#[test]
fn groups_take_turns_at_equal_priority_and_priority_comes_first() {
    let mut schedule = Schedule::default();
    for number in 1..=5 {
        schedule.insert(entry(number, "huge", 0));
    }
    schedule.insert(entry(10, "small", 0));
    schedule.insert(entry(11, "huge", 1));
    assert_eq!(drain(&mut schedule), [11, 10, 1, 2, 3, 4, 5]);
}

#[test]
fn a_paused_or_full_group_hides_nobody() {
    let mut schedule = Schedule::new(HashMap::from([("full".into(), 1)]));
    schedule.insert(entry(1, "full", 9));
    schedule.insert(entry(2, "full", 9));
    schedule.insert(entry(3, "paused", 9));
    schedule.insert(entry(4, "free", 0));
    schedule.pause_group("paused", true);
    assert_eq!(drain(&mut schedule), [1, 4]);
    assert_eq!(schedule.obstacles(id(2)), Some(vec![Obstacle::GroupFull { limit: 1 }]));
    assert_eq!(schedule.obstacles(id(3)), Some(vec![Obstacle::GroupPaused]));
    schedule.stopped("full");
    schedule.pause_group("paused", false);
    assert_eq!(drain(&mut schedule), [3, 2]);
}

#[test]
fn a_lock_lets_in_the_tasks_of_one_holder() {
    let mut schedule = Schedule::default();
    let locked =
        |number, holder| Entry { lock: Some("infra".into()), holder: id(holder), ..entry(number, "g", 0) };
    schedule.insert(locked(1, 100));
    schedule.insert(locked(2, 200));
    schedule.insert(locked(3, 100));
    schedule.insert(entry(4, "g", 0));
    assert_eq!(drain(&mut schedule), [1, 3, 4]);
    let held = Obstacle::Lock { lock: "infra".into(), holder: id(100) };
    assert_eq!(schedule.obstacles(id(2)), Some(vec![held]));
    schedule.release("infra", id(100));
    assert_eq!(drain(&mut schedule), [2]);
}

#[test]
fn a_task_runs_after_its_dependencies_and_its_time() {
    let mut schedule = Schedule::default();
    schedule.insert(Entry { waits_for: HashSet::from([id(1), id(9)]), ..entry(2, "g", 5) });
    schedule.insert(entry(1, "g", 0));
    schedule.insert(Entry { not_before: Some(now() + TimeDelta::seconds(1)), ..entry(3, "g", 0) });
    assert_eq!(drain(&mut schedule), [1]);
    schedule.completed(id(1));
    assert_eq!(schedule.obstacles(id(2)), Some(vec![Obstacle::Dependencies(vec![id(9)])]));
    assert_eq!(schedule.dependents(id(9)), [id(2)]);
    schedule.completed(id(9));
    assert_eq!(drain(&mut schedule), [2]);
    assert_eq!(schedule.next_time(), Some(now() + TimeDelta::seconds(1)));
    assert_eq!(schedule.next(now() + TimeDelta::seconds(1)).unwrap().id, id(3));
    assert!(schedule.is_empty());
}

#[test]
fn what_is_for_other_engines_is_never_next_and_says_so() {
    let mut schedule = Schedule::default();
    schedule.insert(Entry { fits: false, ..entry(1, "g", 9) });
    schedule.insert(Entry { waits_for: HashSet::from([id(1)]), ..entry(2, "g", 0) });
    assert!(drain(&mut schedule).is_empty());
    assert_eq!(schedule.obstacles(id(1)), Some(vec![Obstacle::Engine]));
    assert_eq!(schedule.dependents(id(1)), [id(2)]);
    schedule.completed(id(1));
    assert_eq!(drain(&mut schedule), [2]);
}

#[test]
fn a_task_waits_until_all_its_old_scripts_have_ended_and_keeps_nobody_else() {
    let mut schedule = Schedule::default();
    schedule.insert(entry(1, "g", 9));
    schedule.stray_found(id(1), 1);
    schedule.stray_found(id(1), 3);
    schedule.stray_found(id(3), 1);
    schedule.insert(entry(2, "g", 0));
    // Learnt of only now, or again.
    schedule.insert(Entry { not_before: Some(now() - TimeDelta::seconds(1)), ..entry(3, "g", 5) });
    schedule.insert(Entry { revision: 2, ..entry(1, "g", 9) });
    assert_eq!(drain(&mut schedule), [2]);
    schedule.stray_ended(id(1), 3);
    assert_eq!(schedule.obstacles(id(1)), Some(vec![Obstacle::Stray]));
    assert!(drain(&mut schedule).is_empty());
    schedule.stray_ended(id(1), 1);
    schedule.stray_ended(id(3), 1);
    assert_eq!(drain(&mut schedule), [1, 3]);
}

/// A step of a random history.
#[derive(Debug, Clone)]
enum Step {
    Insert { group: u8, priority: i32, lock: Option<u8>, after: Option<u64> },
    Remove(u64),
    Next,
    Stop,
    Pause(u8, bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..4_u8, -1..2_i32, prop::option::of(0..2_u8), prop::option::of(1..40_u64))
            .prop_map(|(group, priority, lock, after)| Step::Insert { group, priority, lock, after }),
        1 => (1..40_u64).prop_map(Step::Remove),
        4 => Just(Step::Next),
        3 => Just(Step::Stop),
        1 => (0..4_u8, any::<bool>()).prop_map(|(group, paused)| Step::Pause(group, paused)),
    ];
    prop::collection::vec(step, 0..80)
}

proptest! {
    /// After any history: limits and locks were never exceeded, order within a group was kept, and
    /// once all obstacles are gone every task comes out exactly once.
    #[test]
    fn any_history_keeps_the_rules_and_loses_nobody(steps in steps()) {
        let limit = 2;
        let mut schedule = Schedule::new(HashMap::from([("0".to_owned(), limit)]));
        let mut model: BTreeMap<TaskId, Entry> = BTreeMap::new();
        let mut running: Vec<Entry> = Vec::new();
        let mut paused = [false; 4];
        let mut number = 0;
        let stop = |schedule: &mut Schedule, running: &mut Vec<Entry>, model: &mut BTreeMap<TaskId, Entry>| {
            if running.is_empty() { return }
            let entry = running.remove(0);
            schedule.stopped(&entry.group);
            if let Some(lock) = &entry.lock { schedule.release(lock, entry.holder) }
            schedule.completed(entry.id);
            for waiting in model.values_mut() { waiting.waits_for.remove(&entry.id); }
        };
        for step in steps {
            match step {
                Step::Insert { group, priority, lock, after } => {
                    number += 1;
                    let mut entry = entry(number, &group.to_string(), priority);
                    entry.lock = lock.map(|lock| lock.to_string());
                    entry.waits_for = after.map(id).into_iter().filter(|after| model.contains_key(after)).collect();
                    schedule.insert(entry.clone());
                    model.insert(entry.id, entry);
                }
                Step::Remove(number) => {
                    let removed = schedule.remove(id(number));
                    prop_assert_eq!(removed.is_some(), model.remove(&id(number)).is_some());
                    schedule.completed(id(number));
                    for waiting in model.values_mut() { waiting.waits_for.remove(&id(number)); }
                }
                Step::Stop => stop(&mut schedule, &mut running, &mut model),
                Step::Pause(group, pause) => {
                    paused[usize::from(group)] = pause;
                    schedule.pause_group(&group.to_string(), pause);
                }
                Step::Next => {
                    let may_run = |entry: &Entry| {
                        let full = entry.group == "0"
                            && running.iter().filter(|other| other.group == "0").count() >= limit as usize;
                        let locked = entry.lock.is_some() && running.iter().any(|other| other.lock == entry.lock);
                        entry.waits_for.is_empty() && !full && !locked && !paused[entry.group.parse::<usize>().unwrap()]
                    };
                    let candidates: Vec<_> = model.values().filter(|entry| may_run(entry)).cloned().collect();
                    match schedule.next(now()) {
                        None => prop_assert!(candidates.is_empty(), "hidden: {:?}", candidates),
                        Some(next) => {
                            prop_assert!(candidates.iter().any(|entry| entry.id == next.id), "{:?} may not run", next);
                            let top = candidates.iter().map(|entry| entry.priority).max().unwrap();
                            prop_assert_eq!(next.priority, top);
                            let oldest = candidates.iter().filter(|e| e.group == next.group && e.priority == top).map(|e| e.id).min();
                            prop_assert_eq!(Some(next.id), oldest);
                            model.remove(&next.id);
                            running.push(next);
                        }
                    }
                }
            }
            prop_assert_eq!(schedule.len(), model.len());
        }
        for group in 0..4_u8 { schedule.pause_group(&group.to_string(), false); }
        while !model.is_empty() || !running.is_empty() {
            while let Some(next) = schedule.next(now()) {
                prop_assert!(model.remove(&next.id).is_some());
                running.push(next);
            }
            prop_assert!(!running.is_empty(), "stuck with {:?}", model);
            stop(&mut schedule, &mut running, &mut model);
        }
    }

    /// Among groups that always have work, none gets two turns more than another.
    #[test]
    fn turns_are_even(groups in 1..6_usize, rounds in 1..20_usize) {
        let mut schedule = Schedule::default();
        let mut number = 0;
        for group in 0..groups {
            for _ in 0..rounds * groups + 1 {
                number += 1;
                schedule.insert(entry(number, &group.to_string(), 0));
            }
        }
        let mut turns = BTreeMap::<String, usize>::new();
        for _ in 0..rounds * groups {
            *turns.entry(schedule.next(now()).unwrap().group).or_default() += 1;
        }
        prop_assert!(turns.values().all(|count| *count == rounds), "{:?}", turns);
    }
}
