//! The checker of what several engines have made of tasks, whatever became of one of them.
//!
//! Three accounts are held against each other: the marks that scripts left on the machine, in the order in
//! which they were written; what the engines say of each task in the end; and what was seen in the store
//! in between, which is what was accepted of all that engines have tried to write. Scripts hold file locks
//! as long as anything of them is alive, so that an attempt that was killed without a word is seen too.

use std::collections::{BTreeMap, BTreeSet};

use orchestrator_protocol::task::{AttemptOutcome, Task, TaskStatus};

/// What a script wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// Its task.
    pub task: String,
    /// Its attempt's fence.
    pub fence: u64,
    /// Since the machine's boot, in hundredths of a second: for whoever reads a history.
    pub at_cs: u64,
    /// What happened.
    pub what: What,
}

/// What happens to a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// It began.
    Start {
        /// The number of its attempt.
        number: u32,
    },
    /// It was told to end.
    Told,
    /// It came to its end.
    End {
        /// Its exit code.
        code: i32,
    },
    /// It found that another had what only one may have.
    Overlap {
        /// `task` for another attempt of its task, else what both should hold.
        thing: String,
    },
}

/// What is said of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Its name.
    pub task: String,
    /// Its state.
    pub status: TaskStatus,
    /// Its newest fence.
    pub fence: u64,
    /// Its attempts.
    pub attempts: Vec<ToldAttempt>,
    /// Who reported its result: a task and a fence, as the script wrote them into it.
    pub result: Option<(String, u64)>,
}

/// What is said of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToldAttempt {
    /// Its number.
    pub number: u32,
    /// Its fence.
    pub fence: u64,
    /// How it ended.
    pub outcome: Option<AttemptOutcome>,
    /// The exit code of its script.
    pub exit_code: Option<i32>,
}

impl From<&Task> for Told {
    fn from(task: &Task) -> Self {
        let attempts = task.attempts.iter().map(|attempt| ToldAttempt {
            number: attempt.number,
            fence: attempt.fence,
            outcome: attempt.outcome,
            exit_code: attempt.exit_code,
        });
        let result = task.result.as_ref().map(|result| {
            let task = result["task"].as_str().unwrap_or_default().to_owned();
            (task, result["fence"].as_u64().unwrap_or_default())
        });
        Self {
            task: task.name.clone(),
            status: task.status,
            fence: task.fence,
            attempts: attempts.collect(),
            result,
        }
    }
}

/// A task as it was seen in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// How often it had been written.
    pub revision: u64,
    /// What was stored.
    pub told: Told,
}

/// How often a task may be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Starts {
    /// Not at all: it has no work of its own, or something that it waits for fails.
    Never,
    /// Exactly once, whatever becomes of its engine.
    Once,
    /// Once, and again for each attempt that was lost.
    AtLeastOnce,
    /// It was called off at some time.
    Any,
}

/// What one engine that nothing happens to would have made of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fate {
    /// Its final state.
    pub status: TaskStatus,
    /// How often it may be started.
    pub starts: Starts,
    /// What comes to its end before it begins.
    pub after: Vec<String>,
    /// What it has alone while it runs.
    pub holds: Vec<String>,
}

/// Everything that is known.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// What scripts wrote, in that order.
    pub marks: Vec<Mark>,
    /// What the engines say in the end.
    pub told: Vec<Told>,
    /// What was stored in between, in any order.
    pub sightings: Vec<Sighting>,
    /// The tasks whose submission was acknowledged, and what must become of each.
    pub fates: BTreeMap<String, Fate>,
}

/// Reads what scripts wrote: `start TASK FENCE UPTIME NUMBER`, `told TASK FENCE UPTIME`, `end TASK FENCE
/// UPTIME CODE`, `overlap TASK FENCE UPTIME THING`.
///
/// # Panics
/// When that is something else.
pub fn read(text: &str) -> Vec<Mark> {
    let mark = |line: &str| -> Option<Mark> {
        let words: Vec<&str> = line.split(' ').collect();
        let [what, task, fence, uptime, rest @ ..] = words.as_slice() else { return None };
        let what = match (*what, rest) {
            ("start", [number]) => What::Start { number: number.parse().ok()? },
            ("told", []) => What::Told,
            ("end", [code]) => What::End { code: code.parse().ok()? },
            ("overlap", [thing]) => What::Overlap { thing: (*thing).to_owned() },
            _ => return None,
        };
        let at_cs = uptime.replace('.', "").parse().ok()?;
        Some(Mark { task: (*task).to_owned(), fence: fence.parse().ok()?, at_cs, what })
    };
    text.lines().map(|line| mark(line).unwrap_or_else(|| panic!("not a mark: {line:?}"))).collect()
}

/// One attempt, by its marks.
struct Run<'a> {
    task: &'a str,
    fence: u64,
    number: u32,
    /// The places of its first and its last mark.
    first: usize,
    last: usize,
    ended: Option<Ended>,
}

struct Ended {
    at: usize,
    code: i32,
}

/// The attempts of each task, in the order in which they began.
type Runs<'a> = BTreeMap<&'a str, Vec<Run<'a>>>;

/// Every way in which a history is wrong, in sentences.
pub fn check(history: &History) -> Vec<String> {
    let mut wrong = Vec::new();
    let runs = runs(&history.marks, &mut wrong);
    check_runs(&runs, &mut wrong);
    check_holds(&runs, &history.fates, &mut wrong);
    let mut told_by_task: BTreeMap<&str, &Told> = BTreeMap::new();
    for told in &history.told {
        if told_by_task.insert(&told.task, told).is_some() {
            wrong.push(format!("{} is in the queue twice", told.task));
        }
        if !history.fates.contains_key(&told.task) {
            wrong.push(format!("{} is in the queue and nobody submitted it", told.task));
        }
    }
    for (task, fate) in &history.fates {
        let Some(told) = told_by_task.get(task.as_str()) else {
            wrong.push(format!("{task} was acknowledged and is lost"));
            continue;
        };
        let own = runs.get(task.as_str()).map_or(&[][..], Vec::as_slice);
        check_fate(fate, told, own, &mut wrong);
        check_order(task, fate, own, &runs, &mut wrong);
        check_attempts(told, own, &mut wrong);
    }
    check_sightings(&history.sightings, &told_by_task, &mut wrong);
    wrong
}

/// Puts marks together.
fn runs<'a>(marks: &'a [Mark], wrong: &mut Vec<String>) -> Runs<'a> {
    let mut runs = Runs::new();
    for (at, mark) in marks.iter().enumerate() {
        let (task, fence) = (mark.task.as_str(), mark.fence);
        let of_task = runs.entry(task).or_default();
        let Some(run) = of_task.iter_mut().find(|run| run.fence == fence) else {
            match mark.what {
                What::Start { number } => {
                    of_task.push(Run { task, fence, number, first: at, last: at, ended: None });
                }
                _ => wrong.push(format!("{task} with fence {fence} has left marks and never began")),
            }
            continue;
        };
        run.last = at;
        match &mark.what {
            What::Start { .. } => wrong.push(format!("{task} with fence {fence} was started twice")),
            What::Told => {}
            What::End { .. } if run.ended.is_some() => {
                wrong.push(format!("{task} with fence {fence} ended twice"));
            }
            What::End { code } => run.ended = Some(Ended { at, code: *code }),
            What::Overlap { thing } if thing == "task" => {
                wrong.push(format!("another attempt of {task} was alive when that with fence {fence} began"));
            }
            What::Overlap { thing } => {
                wrong.push(format!("another task still held {thing} when {task} with fence {fence} began"));
            }
        }
    }
    runs
}

/// The attempts of a task come one after the other, and both their numbers and their fences grow.
fn check_runs(runs: &Runs<'_>, wrong: &mut Vec<String>) {
    for (task, runs) in runs {
        for pair in runs.windows(2) {
            let [earlier, later] = pair else { continue };
            if later.fence < earlier.fence {
                wrong.push(format!("{task} with fence {} began after fence {}", later.fence, earlier.fence));
            }
            if later.number <= earlier.number {
                wrong.push(format!("{task} began attempt {} after {}", later.number, earlier.number));
            }
        }
        for (earlier, later) in overlaps(&runs.iter().collect::<Vec<_>>()) {
            wrong.push(format!(
                "{task} with fence {} was at work after that with fence {} had begun",
                earlier.fence, later.fence
            ));
        }
    }
}

/// Of attempts in the order in which they began: those pairs of which one had not ended when the other
/// began.
fn overlaps<'a>(runs: &[&'a Run<'a>]) -> Vec<(&'a Run<'a>, &'a Run<'a>)> {
    let mut overlaps = Vec::new();
    let mut longest: Option<&Run<'_>> = None;
    for run in runs {
        if let Some(earlier) = longest.filter(|earlier| earlier.last > run.first) {
            overlaps.push((earlier, *run));
        }
        longest = longest.filter(|earlier| earlier.last > run.last).or(Some(run));
    }
    overlaps
}

/// What one has alone nobody else has at the same time.
fn check_holds(runs: &Runs<'_>, fates: &BTreeMap<String, Fate>, wrong: &mut Vec<String>) {
    let mut by_thing: BTreeMap<&str, Vec<&Run<'_>>> = BTreeMap::new();
    for (task, fate) in fates {
        for thing in &fate.holds {
            by_thing.entry(thing).or_default().extend(runs.get(task.as_str()).into_iter().flatten());
        }
    }
    for (thing, mut runs) in by_thing {
        runs.sort_by_key(|run| run.first);
        let of_two_tasks = |(earlier, later): &(&Run<'_>, &Run<'_>)| earlier.task != later.task;
        for (earlier, later) in overlaps(&runs).into_iter().filter(of_two_tasks) {
            wrong.push(format!("{} and {} held {thing} at once", earlier.task, later.task));
        }
    }
}

/// A task ended as it would have on one engine.
fn check_fate(fate: &Fate, told: &Told, runs: &[Run<'_>], wrong: &mut Vec<String>) {
    let task = &told.task;
    if told.status != fate.status {
        wrong.push(format!("{task} is {}, and should be {}", told.status, fate.status));
    }
    let is_as_it_should = match fate.starts {
        Starts::Never => runs.is_empty(),
        Starts::Once => runs.len() == 1,
        Starts::AtLeastOnce => !runs.is_empty(),
        Starts::Any => true,
    };
    if !is_as_it_should {
        wrong.push(format!("{task} was started {} times, and should be {:?}", runs.len(), fate.starts));
    }
    if told.status != TaskStatus::Completed || fate.starts == Starts::Never {
        return;
    }
    let last = told.attempts.last();
    let has_succeeded = |attempt: &ToldAttempt| {
        attempt.outcome == Some(AttemptOutcome::Succeeded) && attempt.exit_code == Some(0)
    };
    if !last.is_some_and(has_succeeded) {
        wrong.push(format!("{task} is completed, and its last attempt has not succeeded: {last:?}"));
    }
    if told.result != Some((task.clone(), told.fence)) {
        wrong.push(format!("{task} has fence {}, and its result is of {:?}", told.fence, told.result));
    }
}

/// A task began after the successful end of each that it depends on.
fn check_order(task: &str, fate: &Fate, own: &[Run<'_>], runs: &Runs<'_>, wrong: &mut Vec<String>) {
    let Some(first) = own.first() else { return };
    for dependency in &fate.after {
        let last = runs.get(dependency.as_str()).and_then(|runs| runs.last());
        let ended = last.and_then(|run| run.ended.as_ref()).filter(|ended| ended.code == 0);
        if ended.is_none_or(|ended| ended.at > first.first) {
            wrong.push(format!("{task} began before {dependency} had come to its end"));
        }
    }
}

/// What is said of the attempts of a task is what its scripts did.
fn check_attempts(told: &Told, runs: &[Run<'_>], wrong: &mut Vec<String>) {
    let task = &told.task;
    let numbers: Vec<u32> = told.attempts.iter().map(|attempt| attempt.number).collect();
    if !numbers.iter().copied().eq((1..).take(numbers.len())) {
        wrong.push(format!("the attempts of {task} are numbered {numbers:?}"));
    }
    let fences: Vec<u64> = told.attempts.iter().map(|attempt| attempt.fence).collect();
    if !fences.is_sorted_by(|earlier, later| earlier < later) {
        wrong.push(format!("the fences of {task} do not grow: {fences:?}"));
    }
    let newest = fences.last().copied().unwrap_or_default();
    // What was handed back, having started nothing, leaves its fence behind.
    let may_be_ahead = told.status == TaskStatus::Cancelled && newest < told.fence;
    if newest != told.fence && !may_be_ahead {
        wrong.push(format!("{task} has fence {}, and its attempts have {fences:?}", told.fence));
    }
    for run in runs {
        match told.attempts.iter().find(|attempt| attempt.fence == run.fence) {
            None => wrong
                .push(format!("{task} with fence {} began, and the engines know nothing of it", run.fence)),
            Some(attempt) if attempt.number != run.number => wrong.push(format!(
                "{task} with fence {} began as attempt {} and is called {}",
                run.fence, run.number, attempt.number
            )),
            Some(_) => {}
        }
    }
    for (index, attempt) in told.attempts.iter().enumerate() {
        let fence = attempt.fence;
        let run = runs.iter().find(|run| run.fence == fence);
        match attempt.outcome {
            None => wrong.push(format!("{task} with fence {fence} has no outcome")),
            Some(AttemptOutcome::NotStarted) if run.is_some() => {
                wrong.push(format!("{task} with fence {fence} began, and is said not to have started"));
            }
            Some(AttemptOutcome::Succeeded) if index + 1 < told.attempts.len() => {
                wrong.push(format!("{task} with fence {fence} succeeded, and was tried again"));
            }
            Some(AttemptOutcome::Succeeded | AttemptOutcome::Failed) => {
                let ended = run.and_then(|run| run.ended.as_ref()).map(|ended| ended.code);
                if ended != attempt.exit_code {
                    wrong.push(format!(
                        "{task} with fence {fence} came to its end with {ended:?}, and is said to have with {:?}",
                        attempt.exit_code
                    ));
                }
            }
            Some(_) => {}
        }
    }
}

/// What was written of a task fits to what had been written before: nobody has written late.
fn check_sightings(sightings: &[Sighting], told: &BTreeMap<&str, &Told>, wrong: &mut Vec<String>) {
    let mut by_task: BTreeMap<&str, Vec<&Sighting>> = BTreeMap::new();
    for sighting in sightings {
        by_task.entry(&sighting.told.task).or_default().push(sighting);
    }
    for (task, mut sightings) in by_task {
        sightings.sort_by_key(|sighting| sighting.revision);
        for pair in sightings.windows(2) {
            let [earlier, later] = pair else { continue };
            check_step(task, earlier, later, wrong);
        }
        if let (Some(newest), Some(told)) = (sightings.last(), told.get(task))
            && newest.told != **told
        {
            wrong.push(format!("{task} is stored as {:?}, and told as {told:?}", newest.told));
        }
    }
    let seen: BTreeSet<&str> = sightings.iter().map(|sighting| sighting.told.task.as_str()).collect();
    for task in told.keys().filter(|task| !seen.contains(*task)) {
        wrong.push(format!("{task} is told, and was never seen in the store"));
    }
}

/// What one write, or several, have made of a task.
fn check_step(task: &str, earlier: &Sighting, later: &Sighting, wrong: &mut Vec<String>) {
    let (revision, earlier_revision) = (later.revision, earlier.revision);
    let (earlier, later) = (&earlier.told, &later.told);
    if revision == earlier_revision && earlier != later {
        wrong.push(format!("revision {revision} of {task} was written twice"));
    }
    if later.fence < earlier.fence {
        let (from, to) = (earlier.fence, later.fence);
        wrong.push(format!("fence {to} of {task} was written over {from}, in revision {revision}"));
    }
    if earlier.status.is_final() && later.status != earlier.status {
        let (from, to) = (earlier.status, later.status);
        wrong.push(format!("{task} was {from}, and became {to} in revision {revision}"));
    }
    for before in earlier.attempts.iter().filter(|attempt| attempt.outcome.is_some()) {
        let fence = before.fence;
        match later.attempts.iter().find(|attempt| attempt.fence == fence) {
            Some(after) if after == before => {}
            after => wrong.push(format!(
                "the end of {task} with fence {fence} was written again in revision {revision}: {before:?}, then {after:?}"
            )),
        }
    }
}

#[cfg(test)]
mod tests;
