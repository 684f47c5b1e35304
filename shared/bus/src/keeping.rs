//! How long the streams keep their messages: longer than the retention, and as long as an operation
//! needs it.
//!
//! The problem: a stream drops messages by their age, and the age of a start request says nothing about
//! the end of its operation. An operation that waits or runs for longer than the retention would
//! vanish, and one that has just ended would be gone too early.
//!
//! How it is solved: retention counts from the end, and backends forget operations by that
//! ([`crate::stream_settings::StreamSettings::retention`]). The age limit of the streams (`max_age`) is
//! only derived: it is a quarter of the retention longer, and a backend raises it before an
//! operation that is still needed would reach it. When no operation needs it any more, it goes back.
//!
//! Rejected: to write what is old once more at the end of the log (carry over). Every program would
//! have to understand logs that begin in the middle, and a running attempt would have to write to
//! its own log while it runs.

use std::time::Duration;

/// The age limit while all operations end within a small part of the retention.
pub fn base_age(retention: Duration) -> Duration {
    retention.saturating_add(retention / 4)
}

/// The age limit that the streams need when the oldest operation that is still needed was created
/// so long ago; `None` when `now_limit` can stay.
///
/// It is raised an eighth of the retention ahead of time: so long may all backends be away. It is
/// lowered only by as much at a time, so it does not go back and forth.
pub fn wanted_age(retention: Duration, oldest: Duration, now_limit: Duration) -> Option<Duration> {
    // No age limit: nothing is dropped.
    if now_limit.is_zero() {
        return None;
    }
    let (quarter, eighth) = (retention / 4, retention / 8);
    let wanted = base_age(retention).max(oldest.saturating_add(quarter));
    let is_near = oldest.saturating_add(eighth) > now_limit || now_limit < base_age(retention);
    let is_far = now_limit > wanted.saturating_add(eighth);
    (is_near || is_far).then_some(wanted)
}

/// Whether operations that are over would stay in the stream for much longer than usual, because an
/// older one is still needed.
pub fn is_stretched(retention: Duration, oldest: Duration) -> bool {
    oldest > retention.saturating_add(retention / 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETENTION: Duration = Duration::from_secs(800);

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn short_operations_need_only_the_base() {
        assert_eq!(base_age(RETENTION), secs(1000));
        assert_eq!(wanted_age(RETENTION, secs(0), secs(1000)), None);
        assert_eq!(wanted_age(RETENTION, secs(850), secs(1000)), None);
        // A stream of an earlier version, or a retention that became longer.
        assert_eq!(wanted_age(RETENTION, secs(10), secs(800)), Some(secs(1000)));
    }

    #[test]
    fn it_is_raised_ahead_of_time_and_lowered_when_nothing_needs_it() {
        assert_eq!(
            wanted_age(RETENTION, secs(901), secs(1000)),
            Some(secs(1101))
        );
        assert_eq!(wanted_age(RETENTION, secs(1000), secs(1101)), None);
        assert_eq!(
            wanted_age(RETENTION, secs(5000), secs(1101)),
            Some(secs(5200))
        );
        assert_eq!(
            wanted_age(RETENTION, secs(800), secs(5200)),
            Some(secs(1000))
        );
    }

    #[test]
    fn an_operation_never_reaches_the_limit() {
        // A backend looks every 10 seconds at an operation that never ends.
        let mut limit = base_age(RETENTION);
        for age in (0..100_000).step_by(10) {
            if let Some(wanted) = wanted_age(RETENTION, secs(age), limit) {
                limit = wanted;
            }
            assert!(secs(age) < limit, "{age}: {limit:?}");
        }
    }

    #[test]
    fn without_a_limit_nothing_is_done() {
        assert_eq!(wanted_age(RETENTION, secs(5000), Duration::ZERO), None);
    }
}
