//! Bad histories: each rule of the checker finds its own.

use super::*;

const MARKS: &str = "start a 1 1.00 1\ntold a 1 1.10\nstart a 2 2.00 2\nend a 2 2.50 0\n\
    start b 1 3.00 1\nend b 1 3.50 0\nstart c 1 4.00 1\nend c 1 4.10 4";

fn attempt(number: u32, fence: u64, outcome: AttemptOutcome, exit_code: Option<i32>) -> ToldAttempt {
    ToldAttempt { number, fence, outcome: Some(outcome), exit_code }
}

/// `a` has lost an attempt and completed, `b` came after it and holds the same, `c` has failed, and `d`
/// waited for that.
fn good() -> History {
    use AttemptOutcome::{Failed, Lost, Succeeded};
    let fate = |status, starts, after: &[&str], holds: &[&str]| Fate {
        status,
        starts,
        after: after.iter().map(|name| (*name).to_owned()).collect(),
        holds: holds.iter().map(|name| (*name).to_owned()).collect(),
    };
    let fates = [
        ("a", fate(TaskStatus::Completed, Starts::AtLeastOnce, &[], &["lock/x"])),
        ("b", fate(TaskStatus::Completed, Starts::Once, &["a"], &["lock/x"])),
        ("c", fate(TaskStatus::Failed, Starts::AtLeastOnce, &[], &[])),
        ("d", fate(TaskStatus::Cancelled, Starts::Never, &["c"], &[])),
    ];
    let told = |task: &str, status, fence, attempts: &[ToldAttempt]| Told {
        task: task.into(),
        status,
        fence,
        attempts: attempts.to_vec(),
        result: (status == TaskStatus::Completed).then(|| (task.to_owned(), fence)),
    };
    let lost = attempt(1, 1, Lost, None);
    let told_of_all = vec![
        told("a", TaskStatus::Completed, 2, &[lost.clone(), attempt(2, 2, Succeeded, Some(0))]),
        told("b", TaskStatus::Completed, 1, &[attempt(1, 1, Succeeded, Some(0))]),
        told("c", TaskStatus::Failed, 1, &[attempt(1, 1, Failed, Some(4))]),
        told("d", TaskStatus::Cancelled, 0, &[]),
    ];
    let running = ToldAttempt { outcome: None, ..attempt(1, 1, Lost, None) };
    let mut sightings = vec![
        Sighting { revision: 3, told: told("a", TaskStatus::Pending, 1, &[lost]) },
        Sighting { revision: 2, told: told("a", TaskStatus::Running, 1, &[running]) },
    ];
    sightings.extend(told_of_all.iter().map(|told| Sighting { revision: 5, told: told.clone() }));
    History {
        marks: read(MARKS),
        told: told_of_all,
        sightings,
        fates: fates.into_iter().map(|(name, fate)| (name.to_owned(), fate)).collect(),
    }
}

/// What is wrong with the good history after a change.
fn wrong_after(change: impl FnOnce(&mut History)) -> Vec<String> {
    let mut history = good();
    change(&mut history);
    check(&history)
}

/// With other marks.
fn wrong_with(marks: &str) -> Vec<String> {
    wrong_after(|history| history.marks = read(marks))
}

/// With something else told of the first task, in the end and in the store.
fn wrong_told(change: impl FnOnce(&mut Told)) -> Vec<String> {
    wrong_after(|history| {
        change(&mut history.told[0]);
        let told = history.told[0].clone();
        history.sightings.retain(|sighting| sighting.told.task != told.task);
        history.sightings.push(Sighting { revision: 5, told });
    })
}

/// With another last sighting of the first task.
fn wrong_seen(revision: u64, change: impl FnOnce(&mut Told)) -> Vec<String> {
    wrong_after(|history| {
        let mut told = history.told[0].clone();
        change(&mut told);
        history.sightings.push(Sighting { revision, told });
    })
}

fn assert_names(complaint: &str, wrong: &[String]) {
    assert!(wrong.iter().any(|line| line.contains(complaint)), "{complaint:?} not in {wrong:#?}");
}

#[test]
fn a_good_history_passes() {
    assert_eq!(check(&good()), Vec::<String>::new());
    assert_eq!(check(&History::default()), Vec::<String>::new());
    // An attempt that was handed back has left nothing but its fence.
    let handed_back = wrong_after(|history| {
        let told = Told { fence: 3, ..history.told[3].clone() };
        history.told[3] = told.clone();
        history.sightings.push(Sighting { revision: 6, told });
    });
    assert_eq!(handed_back, Vec::<String>::new());
}

#[test]
fn scripts_that_began_wrongly_are_found() {
    let and = |more: &str| wrong_with(&format!("{MARKS}\n{more}"));
    assert_names("a with fence 2 was started twice", &and("start a 2 5.00 2"));
    assert_names("a with fence 7 has left marks and never began", &and("end a 7 5.00 0"));
    assert_names("a with fence 2 ended twice", &and("end a 2 5.00 0"));
    assert_names("the engines know nothing of it", &and("start a 3 5.00 3"));
    assert_names("a began attempt 2 after 2", &and("start a 3 5.00 2"));
    assert_names("d was started 1 times, and should be Never", &and("start d 1 5.00 1"));
    assert_names("b was started 2 times, and should be Once", &and("start b 2 5.00 2"));
    assert_names("a was started 0 times, and should be AtLeastOnce", &wrong_with(""));
    assert_names(
        "a with fence 1 began after fence 2",
        &wrong_with("start a 2 1.00 2\nend a 2 1.00 0\nstart a 1 1.00 1"),
    );
    assert_names("b began before a had come to its end", &wrong_with("start b 1 1.00 1\nend b 1 1.00 0"));
    assert_names(
        "b began before a had come to its end",
        &wrong_with("start a 1 1.00 1\nend a 1 1.00 3\nstart b 1 1.00 1\nstart a 2 1.00 2\nend a 2 1.00 0"),
    );
}

#[test]
fn what_was_done_at_once_is_found() {
    let late = MARKS.replace("told a 1 1.10\nstart a 2 2.00 2", "start a 2 2.00 2\ntold a 1 2.10");
    assert_names("a with fence 1 was at work after that with fence 2 had begun", &wrong_with(&late));
    // Also when there was another one in between.
    let long = "start a 1 1.00 1\nstart a 2 1.00 2\nend a 2 1.00 0\nstart a 3 1.00 3\nend a 1 1.00 0";
    assert_names("a with fence 1 was at work after that with fence 3 had begun", &wrong_with(long));
    let held = "start a 1 1.00 1\nend a 1 1.00 0\nstart a 2 1.00 2\nstart b 1 1.00 1\nend a 2 1.00 0";
    assert_names("a and b held lock/x at once", &wrong_with(held));
    let and = |more: &str| wrong_with(&format!("{MARKS}\n{more}"));
    assert_names(
        "another attempt of a was alive when that with fence 2 began",
        &and("overlap a 2 5.00 task"),
    );
    assert_names("another task still held lock/x when a with fence 2 began", &and("overlap a 2 5.00 lock/x"));
}

#[test]
fn tasks_that_ended_otherwise_are_found() {
    assert_names("a is Failed, and should be Completed", &wrong_told(|a| a.status = TaskStatus::Failed));
    assert_names(
        "its last attempt has not succeeded",
        &wrong_told(|a| a.attempts[1].outcome = Some(AttemptOutcome::Lost)),
    );
    assert_names("its result is of None", &wrong_told(|a| a.result = None));
    assert_names("its result is of Some", &wrong_told(|a| a.result = Some(("a".into(), 1))));
    assert_names("its result is of Some", &wrong_told(|a| a.result = Some(("b".into(), 2))));
    assert_names("a was acknowledged and is lost", &wrong_after(|history| drop(history.told.remove(0))));
    assert_names(
        "b is in the queue twice",
        &wrong_after(|history| history.told.push(history.told[1].clone())),
    );
    assert_names(
        "e is in the queue and nobody submitted it",
        &wrong_after(|history| history.told.push(Told { task: "e".into(), ..history.told[1].clone() })),
    );
}

#[test]
fn attempts_that_are_told_wrongly_are_found() {
    assert_names("the attempts of a are numbered [1, 3]", &wrong_told(|a| a.attempts[1].number = 3));
    assert_names("a with fence 2 began as attempt 2", &wrong_told(|a| a.attempts[1].number = 3));
    assert_names("the fences of a do not grow: [2, 2]", &wrong_told(|a| a.attempts[0].fence = 2));
    assert_names("a has fence 9, and its attempts have [1, 2]", &wrong_told(|a| a.fence = 9));
    assert_names("a with fence 1 has no outcome", &wrong_told(|a| a.attempts[0].outcome = None));
    assert_names(
        "a with fence 1 began, and is said not to have started",
        &wrong_told(|a| a.attempts[0].outcome = Some(AttemptOutcome::NotStarted)),
    );
    assert_names(
        "a with fence 1 succeeded, and was tried again",
        &wrong_told(|a| a.attempts[0] = attempt(1, 1, AttemptOutcome::Succeeded, Some(0))),
    );
    assert_names(
        "a with fence 1 came to its end with None, and is said to have with Some(1)",
        &wrong_told(|a| a.attempts[0] = attempt(1, 1, AttemptOutcome::Failed, Some(1))),
    );
    assert_names(
        "a with fence 2 came to its end with Some(0), and is said to have with Some(7)",
        &wrong_told(|a| a.attempts[1].exit_code = Some(7)),
    );
}

#[test]
fn what_was_written_late_is_found() {
    assert_names(
        "fence 1 of a was written over 2, in revision 6",
        &wrong_seen(6, |a| (a.fence, a.status) = (1, TaskStatus::Completed)),
    );
    assert_names(
        "a was Completed, and became Running in revision 6",
        &wrong_seen(6, |a| a.status = TaskStatus::Running),
    );
    assert_names(
        "the end of a with fence 1 was written again in revision 6",
        &wrong_seen(6, |a| a.attempts[0] = attempt(1, 1, AttemptOutcome::Succeeded, Some(0))),
    );
    assert_names(
        "the end of a with fence 1 was written again in revision 6",
        &wrong_seen(6, |a| a.attempts.truncate(0)),
    );
    assert_names("revision 5 of a was written twice", &wrong_seen(5, |a| a.result = None));
    assert_names("a is stored as", &wrong_seen(6, |a| a.result = None));
    assert_names(
        "d is told, and was never seen in the store",
        &wrong_after(|history| history.sightings.retain(|sighting| sighting.told.task != "d")),
    );
}
