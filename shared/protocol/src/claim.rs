//! What a worker does with a start request it was given, decided from the operation's log: pure, no I/O.
//!
//! The decision is a guess until it is published: the event it leads to expects the tail of the log that was read, so a
//! stale reading is refused by JetStream and decided anew.

use crate::event::EventKind;
use crate::id::OperationId;
use crate::state::FoldedLog;
use crate::time::Timestamp;

/// What to do with a start request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimDecision {
    /// Publish `started` for `attempt`, expecting `expected`.
    Start {
        /// Number of the attempt.
        attempt: u32,
        /// Sequence it must follow.
        expected: u64,
        /// Another attempt ran before, so a cancel may have been asked for and a checkpoint left.
        takeover: bool,
    },
    /// Publish `failed` ("worker lost"), expecting `expected`: no attempt is left.
    GiveUp {
        /// Attempts there were.
        attempts: u32,
        /// Sequence it must follow.
        expected: u64,
    },
    /// It waits for a retry that is not due: hand it back until then.
    NotBefore(Timestamp),
    /// Ended, or a second copy of the request: acknowledge and forget it.
    Drop(&'static str),
    /// This delivery is older than the one that is being served. Forget it and say nothing: an acknowledgement would take
    /// the request from the worker that has it.
    Outdated,
}

/// A start request as it reached a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeliveryInfo {
    /// Stream sequence of the request.
    pub start_sequence: u64,
    /// How many times the queue has delivered it, this time included.
    pub count: u64,
}

/// Decides what to do with a start request, given the operation's log. `now` is by the clock that the log's times are by: the
/// stream's. It matters only when [`waits_for_retry`].
///
/// JetStream gives a request to a second worker only after the lease of the first has run out or the request was handed
/// back, so a `started` on an earlier delivery of this very request means that its worker was lost.
pub fn decide(
    log: &FoldedLog,
    delivery: DeliveryInfo,
    max_attempts: u32,
    now: Timestamp,
) -> ClaimDecision {
    let expected = log.tail;
    let Some(event) = &log.last else {
        return ClaimDecision::Start {
            attempt: 1,
            expected,
            takeover: false,
        };
    };
    let next = ClaimDecision::Start {
        attempt: event.attempt.saturating_add(1),
        expected,
        takeover: true,
    };
    match &event.kind {
        EventKind::Completed { .. } | EventKind::Failed { .. } | EventKind::Cancelled { .. } => {
            ClaimDecision::Drop("the operation has ended")
        }
        // The same operation id was queued twice (a start repeated after the duplicate window, or by hand). The other copy
        // is being served; taking over here would run it twice.
        EventKind::Started {
            start_sequence: other,
            ..
        } if *other != delivery.start_sequence => {
            ClaimDecision::Drop("another copy of this start request is being run")
        }
        // Suspended with the request in hand, and woken up after somebody else had been given it.
        EventKind::Started {
            delivery: newer, ..
        } if *newer >= delivery.count => ClaimDecision::Outdated,
        EventKind::Started { .. } if event.attempt >= max_attempts => ClaimDecision::GiveUp {
            attempts: event.attempt,
            expected,
        },
        EventKind::Started { .. } => next,
        EventKind::Released {
            retry_at: Some(due),
            ..
        } if *due > now => ClaimDecision::NotBefore(*due),
        // A hand-back is nobody's fault and never uses up the last attempt.
        EventKind::Released { .. } => next,
    }
}

/// Whether the operation was handed back to be retried at some time.
pub fn waits_for_retry(log: &FoldedLog) -> bool {
    log.last.as_ref().is_some_and(|last| {
        matches!(
            last.kind,
            EventKind::Released {
                retry_at: Some(_),
                ..
            }
        )
    })
}

/// The text of the failure of an operation whose workers were lost too often.
pub fn worker_lost_message(operation_id: &OperationId, attempts: u32) -> String {
    let times = if attempts == 1 {
        "once".to_owned()
    } else {
        format!("{attempts} times")
    };
    format!(
        "worker lost {times}: every worker that ran operation {operation_id} died or stopped answering"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Event, Failure, ReleaseReason, ResultPayload};
    use crate::id::WorkerId;
    use crate::state::State;

    const NOW: Timestamp = Timestamp::EPOCH;
    const SECOND: DeliveryInfo = DeliveryInfo {
        start_sequence: 5,
        count: 2,
    };

    fn log(attempt: u32, kind: EventKind) -> FoldedLog {
        let event = Event {
            operation_id: OperationId::new("o").unwrap(),
            at: NOW,
            worker_id: Some(WorkerId::new("w").unwrap()),
            attempt,
            claim_id: Some("c".into()),
            kind,
        };
        FoldedLog {
            tail: 9,
            state: State::default(),
            last: Some(event),
        }
    }

    #[test]
    fn an_untouched_request_is_claimed_as_attempt_1() {
        assert_eq!(
            decide(&FoldedLog::default(), SECOND, 3, NOW),
            ClaimDecision::Start {
                attempt: 1,
                expected: 0,
                takeover: false
            }
        );
    }

    #[test]
    fn a_redelivered_request_is_taken_over() {
        let last = log(
            2,
            EventKind::Started {
                start_sequence: 5,
                delivery: 1,
            },
        );
        assert_eq!(
            decide(&last, SECOND, 3, NOW),
            ClaimDecision::Start {
                attempt: 3,
                expected: 9,
                takeover: true
            }
        );
    }

    #[test]
    fn a_request_that_lost_its_last_attempt_is_given_up() {
        let last = log(
            3,
            EventKind::Started {
                start_sequence: 5,
                delivery: 1,
            },
        );
        assert_eq!(
            decide(&last, SECOND, 3, NOW),
            ClaimDecision::GiveUp {
                attempts: 3,
                expected: 9
            }
        );
    }

    #[test]
    fn a_second_copy_of_a_running_request_is_dropped() {
        let last = log(
            1,
            EventKind::Started {
                start_sequence: 4,
                delivery: 1,
            },
        );
        assert!(matches!(
            decide(&last, SECOND, 3, NOW),
            ClaimDecision::Drop(_)
        ));
    }

    #[test]
    fn a_delivery_older_than_the_one_being_served_is_left_alone() {
        let last = log(
            1,
            EventKind::Started {
                start_sequence: 5,
                delivery: 2,
            },
        );
        assert_eq!(
            decide(&last, DeliveryInfo { count: 1, ..SECOND }, 3, NOW),
            ClaimDecision::Outdated
        );
        assert_eq!(decide(&last, SECOND, 3, NOW), ClaimDecision::Outdated);
        assert!(matches!(
            decide(&last, DeliveryInfo { count: 3, ..SECOND }, 3, NOW),
            ClaimDecision::Start { attempt: 2, .. }
        ));
    }

    #[test]
    fn an_ended_operation_is_dropped() {
        let failure = Failure {
            code: "x".into(),
            message: "x".into(),
            permanent: false,
        };
        for kind in [
            EventKind::Completed {
                result: ResultPayload::Inline(serde_json::value::RawValue::NULL.to_owned()),
                progress: None,
            },
            EventKind::Failed {
                error: failure,
                progress: None,
            },
            EventKind::Cancelled {
                forced: false,
                progress: None,
            },
        ] {
            assert!(matches!(
                decide(&log(1, kind), SECOND, 3, NOW),
                ClaimDecision::Drop(_)
            ));
        }
    }

    #[test]
    fn a_released_request_is_run_again_even_after_its_last_attempt() {
        let last = log(
            3,
            EventKind::Released {
                reason: ReleaseReason::Shutdown,
                error: None,
                retry_at: None,
            },
        );
        assert_eq!(
            decide(&last, SECOND, 3, NOW),
            ClaimDecision::Start {
                attempt: 4,
                expected: 9,
                takeover: true
            }
        );
    }

    #[test]
    fn a_retry_that_is_not_due_waits() {
        let due = NOW.plus(std::time::Duration::from_secs(1));
        let last = log(
            1,
            EventKind::Released {
                reason: ReleaseReason::Retry,
                error: None,
                retry_at: Some(due),
            },
        );
        assert_eq!(decide(&last, SECOND, 3, NOW), ClaimDecision::NotBefore(due));
        assert!(matches!(
            decide(&last, SECOND, 3, due),
            ClaimDecision::Start { attempt: 2, .. }
        ));
    }
}
