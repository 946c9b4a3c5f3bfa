//! Shared pieces of the benchmarks: paired measurements.
//!
//! Machines are noisy, so what is reported is a ratio within one run: the two sides are measured
//! alternately, each pair gives a ratio, and the median of the ratios is shown with its spread.

use std::time::Duration;

/// The middle of some numbers, and what lies a quarter below and above it.
#[derive(Debug, Clone, Copy, PartialEq)]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spread_of_five_numbers() {
        assert_eq!(Spread::of(vec![5.0, 1.0, 4.0, 2.0, 3.0]), Spread { low: 2.0, median: 3.0, high: 4.0 });
    }
}
