//! How long a failed attempt waits before it is tried again.

use std::time::Duration;

/// The pause before the second attempt when the request does not say, in seconds.
const DEFAULT_SECONDS: f64 = 1.0;
/// The longest pause, in seconds.
const MAX_SECONDS: f64 = 3600.0;

/// The pause after failed attempt `attempt` (from 1): `base` seconds, doubled with each attempt, at most an hour, and then
/// shortened by up to a quarter so that operations that failed together do not come back together. `random` is in 0..1.
pub(crate) fn delay(base: Option<f64>, attempt: u32, random: f64) -> Duration {
    let exponent = i32::try_from(attempt.saturating_sub(1).min(40)).unwrap_or(40);
    let seconds = (base.unwrap_or(DEFAULT_SECONDS).max(0.0) * 2f64.powi(exponent)).min(MAX_SECONDS);
    Duration::try_from_secs_f64(seconds * (1.0 - 0.25 * random)).unwrap_or(Duration::from_secs(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_an_hour_and_varies_by_a_quarter() {
        let seconds = |base, attempt, random| delay(base, attempt, random).as_secs_f64();
        assert_eq!(seconds(None, 1, 0.0), 1.0);
        assert_eq!(seconds(Some(2.0), 3, 0.0), 8.0);
        assert_eq!(seconds(Some(2.0), 3, 1.0), 6.0);
        assert_eq!(seconds(Some(2.0), u32::MAX, 0.0), 3600.0);
        assert_eq!(seconds(Some(0.0), 5, 0.5), 0.0);
        assert_eq!(seconds(Some(f64::NAN), 1, 0.0), 0.0);
    }
}
