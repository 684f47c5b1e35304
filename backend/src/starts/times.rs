//! The times that a start asks for.

use std::time::Duration;

use ktrdr_http::start_body::BodyError;
use ktrdr_protocol::execution::ExecutionOptions;
use ktrdr_protocol::rest::Violation;
use ktrdr_protocol::time::Timestamp;

use crate::state::AppState;

/// Refuses times that contradict each other, and a start that is further ahead than the retention. A
/// start whose `expires_at` has passed is taken, and ends as expired: whoever repeats it later is
/// answered the same.
///
/// # Errors
/// All places.
pub(super) fn check(state: &AppState, execution: &ExecutionOptions) -> Result<(), BodyError> {
    let found = violations(
        execution,
        state.projection.now(),
        state.settings.get().retention,
    );
    if found.is_empty() {
        Ok(())
    } else {
        Err(BodyError::Violations(found))
    }
}

/// Refuses execution options with which each slot of a schedule would be refused, or would fail.
///
/// # Errors
/// The places in the start body: absolute times, and times that contradict each other.
pub fn check_repeated(state: &AppState, execution: &ExecutionOptions) -> Result<(), BodyError> {
    let absolute = [
        ("start_at", execution.start_at.is_some(), "delay_seconds"),
        (
            "expires_at",
            execution.expires_at.is_some(),
            "queue_timeout_seconds",
        ),
    ];
    let found = absolute.into_iter().filter(|(_, is_given, _)| *is_given);
    let found: Vec<Violation> = found
        .map(|(name, _, instead)| Violation {
            path: format!("/execution/{name}"),
            message: format!("is not taken: it would be the same for each slot; use {instead}"),
        })
        .collect();
    if !found.is_empty() {
        return Err(BodyError::Violations(found));
    }
    check(state, execution)
}

fn violations(execution: &ExecutionOptions, now: Timestamp, retention: Duration) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut refuse = |option: &str, message: String| {
        found.push(Violation {
            path: format!("/execution/{option}"),
            message,
        });
    };
    if execution.start_at.is_some() && execution.delay_seconds.is_some() {
        refuse("delay_seconds", "left out beside start_at".to_owned());
    }
    if execution.expires_at.is_some() && execution.queue_timeout_seconds.is_some() {
        refuse(
            "queue_timeout_seconds",
            "left out beside expires_at".to_owned(),
        );
    }

    let option = |time: Option<Timestamp>, time_name, seconds_name| match time {
        Some(_) => time_name,
        None => seconds_name,
    };
    let due = execution.due(now);
    if due.is_some_and(|due| due > now.plus(retention)) {
        let latest = now.plus(retention);
        refuse(
            option(execution.start_at, "start_at", "delay_seconds"),
            format!("further ahead than operations are kept: {latest} is the latest start now"),
        );
    }
    if let (Some(due), Some(deadline)) = (due, execution.deadline(now))
        && deadline <= due
    {
        refuse(
            option(execution.expires_at, "expires_at", "queue_timeout_seconds"),
            format!("it would expire before it may start, at {due}"),
        );
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::EPOCH;

    fn refused(execution: ExecutionOptions) -> Vec<String> {
        let found = violations(&execution, NOW, Duration::from_secs(60));
        found.into_iter().map(|violation| violation.path).collect()
    }

    #[test]
    fn times_are_given_once_in_order_and_within_the_retention() {
        let none = ExecutionOptions::default;
        let at = |seconds| Some(NOW.plus(Duration::from_secs(seconds)));

        assert!(refused(none()).is_empty());
        let good = ExecutionOptions {
            delay_seconds: Some(60.0),
            expires_at: at(61),
            ..none()
        };
        assert!(refused(good).is_empty());
        let twice = ExecutionOptions {
            start_at: at(1),
            delay_seconds: Some(1.0),
            expires_at: at(2),
            queue_timeout_seconds: Some(2.0),
            ..none()
        };
        let both = [
            "/execution/delay_seconds",
            "/execution/queue_timeout_seconds",
        ];
        assert_eq!(refused(twice), both);
        let far = ExecutionOptions {
            delay_seconds: Some(61.0),
            ..none()
        };
        assert_eq!(refused(far), ["/execution/delay_seconds"]);
        let never = ExecutionOptions {
            start_at: at(30),
            queue_timeout_seconds: Some(30.0),
            ..none()
        };
        assert_eq!(refused(never), ["/execution/queue_timeout_seconds"]);
    }
}
