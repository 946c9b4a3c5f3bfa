//! How long a failed task waits for its next attempt.

use std::time::Duration;

use orchestrator_protocol::task::RetryPolicy;

/// The wait after attempt `attempt` (1 for the first) has failed: `base * 2^(attempt-1)`, at most
/// `cap`, of which the last quarter is left to chance, so that tasks that failed together do not come
/// back together. `chance` is from 0 to 1.
pub fn delay(policy: &RetryPolicy, attempt: u32, chance: f64) -> Duration {
    let doublings = attempt.saturating_sub(1).min(63);
    let full = policy.base_ms.saturating_mul(1 << doublings).min(policy.cap_ms);
    let jitter = (full as f64 * 0.25 * chance.clamp(0.0, 1.0)) as u64;
    Duration::from_millis(full - jitter.min(full))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_wait_doubles_up_to_its_cap() {
        let policy = RetryPolicy { max_retries: 9, base_ms: 1_000, cap_ms: 60_000 };
        let waits: Vec<_> = (1..=8).map(|attempt| delay(&policy, attempt, 0.0).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
    }

    proptest! {
        #[test]
        fn the_wait_stays_between_three_quarters_and_all_of_it(
            base_ms in 0..1_000_000_u64, cap_ms in 0..1_000_000_u64, attempt in 0..u32::MAX, chance in 0.0..=1.0_f64,
        ) {
            let policy = RetryPolicy { max_retries: 3, base_ms, cap_ms };
            let full = delay(&policy, attempt, 0.0);
            let wait = delay(&policy, attempt, chance);
            prop_assert!(full.as_millis() <= u128::from(cap_ms));
            prop_assert!(wait <= full && wait.as_millis() * 4 + 4 >= full.as_millis() * 3);
        }

        #[test]
        fn a_later_attempt_never_waits_less(base_ms in 0..1_000_000_u64, attempt in 1..200_u32) {
            let policy = RetryPolicy { max_retries: 3, base_ms, cap_ms: u64::MAX / 2 };
            prop_assert!(delay(&policy, attempt + 1, 0.0) >= delay(&policy, attempt, 0.0));
        }
    }
}
