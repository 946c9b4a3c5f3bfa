//! Shared pieces of the benchmarks: paired measurements.
//!
//! Machines are noisy, so what is reported is a ratio within one run: the two sides are measured
//! alternately, each pair gives a ratio, and the median of the ratios is shown with its spread.
//!
//! - Here: numbers and their spread, and what of a benchmark is to be run.
//! - [`process`]: what a process takes of the machine.
//! - [`tasks`]: queues, tasks, and the cycle that each of them goes through.
//! - [`backend`]: the backends of storage; `server`: the program behind one of them.
#![expect(clippy::unwrap_used, reason = "a benchmark may panic")]

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub mod backend;
pub mod process;
#[cfg(feature = "surrealdb")]
pub mod server;
pub mod tasks;

/// The middle of some numbers, and what lies a quarter below and above it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// A quarter is below.
    pub low: f64,
    /// The middle.
    pub median: f64,
    /// A quarter is above.
    pub high: f64,
}

impl Spread {
    /// Of at least one number.
    pub fn of(mut numbers: Vec<f64>) -> Self {
        numbers.sort_by(f64::total_cmp);
        let at = |part: f64| {
            numbers.get(((numbers.len() - 1) as f64 * part).round() as usize).copied().unwrap_or(f64::NAN)
        };
        Self { low: at(0.25), median: at(0.5), high: at(0.75) }
    }

    /// Of durations, in microseconds.
    pub fn of_micros(durations: &[Duration]) -> Self {
        Self::of(durations.iter().map(|duration| duration.as_secs_f64() * 1e6).collect())
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let precision = f.precision().unwrap_or(2);
        write!(f, "{:.precision$} ({:.precision$}–{:.precision$})", self.median, self.low, self.high)
    }
}

/// The ratios of pairs: the second over the first.
pub fn ratios(pairs: &[(Duration, Duration)]) -> Spread {
    Spread::of(pairs.iter().map(|(first, second)| second.as_secs_f64() / first.as_secs_f64()).collect())
}

/// How long something takes, and how long it takes when it takes long, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Tail {
    /// Half take longer.
    pub median: f64,
    /// One in a hundred takes longer.
    pub p99: f64,
    /// None takes longer.
    pub longest: f64,
}

impl Tail {
    /// Of at least one duration.
    pub fn of(mut durations: Vec<Duration>) -> Self {
        durations.sort();
        let at = |part: f64| {
            let rank = ((durations.len() - 1) as f64 * part).ceil() as usize;
            durations.get(rank).map_or(f64::NAN, |duration| duration.as_secs_f64() * 1e3)
        };
        Self { median: at(0.5), p99: at(0.99), longest: at(1.0) }
    }
}

impl std::fmt::Display for Tail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.2} / {:.2} / {:.1}", self.median, self.p99, self.longest)
    }
}

/// What of a benchmark is to be run.
///
/// Without arguments all of it. `report` runs the report, or the parts of it that are named after it; any
/// other argument is Criterion's, whose groups are run then. Without Cargo's own `--bench` each group is
/// run once, to see that it works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parts {
    /// The report, and the names of its parts; none is all of them.
    pub report: Option<Vec<String>>,
    /// Criterion's groups.
    pub groups: bool,
    /// Whether anything is measured.
    pub is_bench: bool,
}

impl Parts {
    /// What the arguments of this process ask for.
    pub fn of_process() -> Self {
        Self::of(std::env::args().skip(1))
    }

    fn of(arguments: impl Iterator<Item = String>) -> Self {
        let mut arguments: Vec<String> = arguments.collect();
        let given = arguments.len();
        arguments.retain(|argument| argument != "--bench");
        let is_bench = arguments.len() < given;
        match arguments.split_first() {
            None => Self { report: is_bench.then(Vec::new), groups: true, is_bench },
            Some((first, parts)) if first == "report" => {
                Self { report: Some(parts.to_vec()), groups: false, is_bench: true }
            }
            Some(_) => Self { report: None, groups: true, is_bench },
        }
    }

    /// Makes sure that the parts of the report that are asked for are among those that there are.
    ///
    /// # Panics
    /// When one is not.
    pub fn expect(&self, known: &[&str]) {
        for part in self.report.iter().flatten() {
            assert!(known.contains(&part.as_str()), "the report has no part {part}, only {known:?}");
        }
    }

    /// Whether this part of the report is to be run.
    pub fn reports(&self, part: &str) -> bool {
        self.report.as_ref().is_some_and(|parts| parts.is_empty() || parts.iter().any(|name| name == part))
    }

    /// How many tasks are stored where many are: `ORCHESTRATOR_BENCH_TASKS`, or 100 000.
    ///
    /// # Panics
    /// When that is not a number, or too small to be many.
    pub fn tasks(&self) -> usize {
        let default = if self.is_bench { 100_000 } else { 200 };
        let given = std::env::var("ORCHESTRATOR_BENCH_TASKS").ok();
        let tasks = given.map_or(default, |tasks| tasks.parse().unwrap());
        assert!(tasks >= 200, "ORCHESTRATOR_BENCH_TASKS is {tasks}: at least 200 are needed");
        tasks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spread_of_five_numbers() {
        assert_eq!(Spread::of(vec![5.0, 1.0, 4.0, 2.0, 3.0]), Spread { low: 2.0, median: 3.0, high: 4.0 });
    }

    #[test]
    fn the_tail_of_two_hundred_durations() {
        let tail = Tail::of((1..=200).rev().map(Duration::from_millis).collect());
        assert_eq!(tail, Tail { median: 101.0, p99: 199.0, longest: 200.0 });
        assert_eq!(tail.to_string(), "101.00 / 199.00 / 200.0");
    }

    #[test]
    fn arguments_say_what_is_run() {
        let parts = |text: &str| Parts::of(text.split_whitespace().map(str::to_owned));
        let all = parts("--bench");
        assert!(all.groups && all.reports("filesystem") && all.is_bench);
        let one = parts("report filesystem --bench");
        assert!(!one.groups && one.reports("filesystem") && !one.reports("surrealdb-server"));
        let filter = parts("commit --bench");
        assert!(filter.groups && filter.is_bench && !filter.reports("filesystem"));
        let trial = parts("");
        assert!(trial.groups && !trial.is_bench && !trial.reports("filesystem"));
    }
}
