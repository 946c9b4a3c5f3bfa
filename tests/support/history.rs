//! The checker of histories: what scripts saw, held against what the engine says.
//!
//! Every script of the kill loop writes to one file when it starts and when it ends, and whether
//! another attempt of its task was alive at that moment. The checker knows nothing of engines; its own
//! tests give it bad histories.

pub mod several;

use std::collections::{BTreeMap, BTreeSet};

/// What a script wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// It began.
    Start {
        /// Its task.
        task: String,
        /// Its attempt's fence.
        fence: u64,
        /// Its process.
        pid: u32,
    },
    /// It came to its end.
    End {
        /// Its task.
        task: String,
        /// Its attempt's fence.
        fence: u64,
        /// Its process.
        pid: u32,
    },
    /// It found another attempt of its task alive.
    Overlap {
        /// Its task.
        task: String,
    },
}

/// What the engine says of a task in the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The task.
    pub task: String,
    /// Whether it completed.
    pub completed: bool,
    /// The exit code of its last attempt.
    pub exit_code: Option<i32>,
    /// The fences of its attempts that started something.
    pub fences: Vec<u64>,
    /// The lines that its last attempt printed.
    pub lines: Vec<String>,
}

/// What must be true of a history.
#[derive(Debug, Clone, Default)]
pub struct Expected {
    /// The tasks whose submission was acknowledged, with what each must have printed.
    pub acknowledged: BTreeMap<String, Vec<String>>,
    /// Whether runners were killed too, so that an attempt may have been lost.
    pub attempts_may_be_lost: bool,
}

/// Reads what scripts wrote: `start TASK FENCE PID`, `end TASK FENCE PID`, `overlap TASK`.
pub fn read(text: &str) -> Vec<Event> {
    text.lines()
        .map(|line| match line.split(' ').collect::<Vec<_>>().as_slice() {
            ["start", task, fence, pid] => Event::Start {
                task: (*task).into(),
                fence: fence.parse().unwrap(),
                pid: pid.parse().unwrap(),
            },
            ["end", task, fence, pid] => {
                Event::End { task: (*task).into(), fence: fence.parse().unwrap(), pid: pid.parse().unwrap() }
            }
            ["overlap", task] => Event::Overlap { task: (*task).into() },
            _ => panic!("not a line of a history: {line:?}"),
        })
        .collect()
}

/// Every way in which a history is wrong, in sentences.
pub fn check(events: &[Event], told: &[Told], expected: &Expected) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut starts: BTreeMap<(&str, u64), u32> = BTreeMap::new();
    let mut ends: BTreeSet<(&str, u64)> = BTreeSet::new();
    for event in events {
        match event {
            Event::Start { task, fence, pid } => {
                if starts.insert((task, *fence), *pid).is_some() {
                    wrong.push(format!("attempt {fence} of {task} was started twice"));
                }
            }
            Event::End { task, fence, pid } => {
                match starts.get(&(task.as_str(), *fence)) {
                    None => wrong.push(format!("attempt {fence} of {task} ended without a start")),
                    Some(started) if started != pid => {
                        wrong.push(format!(
                            "attempt {fence} of {task} started as {started} and ended as {pid}"
                        ));
                    }
                    Some(_) => {}
                }
                if !ends.insert((task, *fence)) {
                    wrong.push(format!("attempt {fence} of {task} ended twice"));
                }
            }
            Event::Overlap { task } => wrong.push(format!("two attempts of {task} were alive at once")),
        }
    }
    let told_by_task: BTreeMap<&str, &Told> = told.iter().map(|told| (told.task.as_str(), told)).collect();
    for (task, lines) in &expected.acknowledged {
        let Some(told) = told_by_task.get(task.as_str()) else {
            wrong.push(format!("{task} was acknowledged and is lost"));
            continue;
        };
        if !told.completed || told.exit_code != Some(0) {
            wrong.push(format!("{task} did not complete: exit code {:?}", told.exit_code));
        }
        if told.lines != *lines {
            wrong.push(format!("{task} printed {lines:?}, and its log says {:?}", told.lines));
        }
        let fences: Vec<u64> = starts.keys().filter(|(of, _)| of == task).map(|(_, fence)| *fence).collect();
        if fences.is_empty() {
            wrong.push(format!("{task} completed and never started"));
        }
        if !expected.attempts_may_be_lost && fences.len() > 1 {
            wrong.push(format!("{task} was started {} times, and no attempt was lost", fences.len()));
        }
        if let Some(unknown) = fences.iter().find(|fence| !told.fences.contains(fence)) {
            wrong.push(format!("attempt {unknown} of {task} started, and the engine knows nothing of it"));
        }
        let ended = ends.iter().filter(|(of, _)| of == task).count();
        // A lost attempt may have come to its end just before its runner was killed.
        if ended == 0 || (ended > 1 && !expected.attempts_may_be_lost) {
            wrong.push(format!("{task} came to its end {ended} times"));
        }
    }
    for told in told {
        if !expected.acknowledged.contains_key(&told.task) {
            wrong.push(format!("{} is in the queue and nobody submitted it", told.task));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> (Vec<Event>, Vec<Told>, Expected) {
        let lines = vec!["line 1".to_owned()];
        let told = Told {
            task: "a".into(),
            completed: true,
            exit_code: Some(0),
            fences: vec![1],
            lines: lines.clone(),
        };
        let expected =
            Expected { acknowledged: BTreeMap::from([("a".to_owned(), lines)]), attempts_may_be_lost: false };
        (read("start a 1 10\nend a 1 10"), vec![told], expected)
    }

    #[test]
    fn a_good_history_passes() {
        let (events, told, expected) = good();
        assert_eq!(check(&events, &told, &expected), Vec::<String>::new());
    }

    #[test]
    fn every_kind_of_bad_history_is_found() {
        let (events, told, expected) = good();
        let with = |more: &str| [events.clone(), read(more)].concat();
        let change = |change: fn(&mut Told)| {
            let mut told = told.clone();
            change(&mut told[0]);
            told
        };
        let cases: [(&str, Vec<Event>, Vec<Told>); 12] = [
            ("was started twice", with("start a 1 11"), told.clone()),
            ("was started 2 times", with("start a 2 11"), change(|told| told.fences = vec![1, 2])),
            ("the engine knows nothing of it", with("start a 2 11"), told.clone()),
            ("ended without a start", with("end b 1 10"), told.clone()),
            ("ended as 11", read("start a 1 10\nend a 1 11"), told.clone()),
            ("ended twice", with("end a 1 10"), told.clone()),
            ("alive at once", with("overlap a"), told.clone()),
            ("is lost", events.clone(), Vec::new()),
            ("did not complete", events.clone(), change(|told| told.exit_code = Some(1))),
            ("its log says", events.clone(), change(|told| told.lines.clear())),
            ("never started", Vec::new(), told.clone()),
            (
                "nobody submitted it",
                events.clone(),
                [told.clone(), change(|told| told.task = "b".into())].concat(),
            ),
        ];
        for (complaint, events, told) in cases {
            let wrong = check(&events, &told, &expected);
            assert!(wrong.iter().any(|line| line.contains(complaint)), "{complaint:?} not in {wrong:?}");
        }
    }
}
