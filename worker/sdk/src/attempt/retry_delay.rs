//! The delay before a failed attempt is retried. Pure, no I/O.
//!
//! It doubles with each attempt, so a service that is overloaded gets more and more time to
//! recover. The pauses between tries of a request to NATS are another thing:
//! [`ktrdr_bus::backoff`].

use std::time::Duration;

/// The delay before the second attempt when the request does not set one, in seconds.
const DEFAULT_RETRY_SECONDS: f64 = 1.0;

/// The longest delay, in seconds.
const MAX_RETRY_SECONDS: f64 = 3600.0;

/// The longest delay that an engine may ask for: a mistaken one, as a time in place of a number of seconds,
/// would keep its operation waiting for ever.
pub(crate) const MAX_ASKED: Duration = Duration::from_secs(24 * 3600);

/// The delay after failed attempt `attempt` (from 1): `base` seconds, doubled with each further
/// attempt, at most an hour. It is then shortened by up to a quarter, so that operations that
/// failed together do not come back together. `random` is in 0..1.
pub(crate) fn retry_delay(base: Option<f64>, attempt: u32, random: f64) -> Duration {
    let exponent = i32::try_from(attempt.saturating_sub(1).min(40)).unwrap_or(40);
    let seconds = base.unwrap_or(DEFAULT_RETRY_SECONDS).max(0.0) * 2f64.powi(exponent);
    let jittered = seconds.min(MAX_RETRY_SECONDS) * (1.0 - 0.25 * random);
    Duration::try_from_secs_f64(jittered).unwrap_or(Duration::from_secs(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retry_delay_doubles_up_to_an_hour_and_varies_by_a_quarter() {
        let seconds = |base, attempt, random| retry_delay(base, attempt, random).as_secs_f64();

        assert_eq!(seconds(None, 1, 0.0), 1.0);
        assert_eq!(seconds(Some(2.0), 3, 0.0), 8.0);
        assert_eq!(seconds(Some(2.0), 3, 1.0), 6.0);
        assert_eq!(seconds(Some(2.0), u32::MAX, 0.0), 3600.0);
        assert_eq!(seconds(Some(0.0), 5, 0.5), 0.0);
        assert_eq!(seconds(Some(f64::NAN), 1, 0.0), 0.0);
    }
}
