//! What a worker does with a delivered start request: run it, drop it, or wait. Pure, no I/O.
//!
//! The problem: JetStream delivers a start request at least once. A worker may receive a request
//! that another worker already runs, has finished, or was lost with. It may also wake up after a
//! long suspension and still hold an old delivery. Exactly one worker may run the operation.
//!
//! The solution: the operation log decides. [`decide`] reads the log and proposes an event with the
//! tail that the event must follow. JetStream refuses the event if the log has grown since. The
//! worker then reads the log again and decides again, so a decision on an old reading can never
//! take effect.
//!
//! An operation that must not start before a time, or not after one, says so in its request. What is
//! not due is handed back, what has not started in time ends as failed.
//!
//! A backend that finds an operation in no queue puts it back: it appends `released` with the name of a
//! new copy of the request, and publishes that copy. From then on only a request of this name counts.
//! The event comes first: a copy that nothing has named yet is dropped. Moving an operation into another
//! queue (`moved`) is the same.
//!
//! Rejected: a lock per operation (it needs its own recovery when its holder is lost), and counting
//! deliveries as attempts (a delivery that nobody acted on would use up an attempt).

use crate::event::{EventKind, Failure};
use crate::id::{CopyId, OperationId};
use crate::start_request::StartRequest;
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
        /// Another attempt ran before. It may have left a checkpoint, and somebody may have asked
        /// to cancel the operation meanwhile.
        takeover: bool,
    },
    /// Publish `failed` ("worker lost"), expecting `expected`: no attempt is left.
    GiveUp {
        /// Number of the last attempt.
        attempts: u32,
        /// Sequence it must follow.
        expected: u64,
    },
    /// Publish `failed` ("expired"), expecting `expected`: its time to start has passed.
    Expire {
        /// Sequence it must follow.
        expected: u64,
    },
    /// The operation or its retry is not due yet: hand the request back until this time.
    NotBefore(Timestamp),
    /// The operation has ended, or another copy of the request runs: acknowledge the request. The
    /// text says which.
    Drop(&'static str),
    /// Another worker has a later delivery of the request. Send no acknowledgement: it would take
    /// the request away from that worker.
    Outdated,
}

/// What a start request says about claiming it.
#[derive(Debug, Clone, Copy)]
pub struct Terms<'a> {
    /// Its name, if it is a copy.
    pub copy: Option<&'a CopyId>,
    /// How many attempts there may be in all.
    pub max_attempts: u32,
    /// The first attempt must not start before this time.
    pub due: Option<Timestamp>,
    /// The first attempt must start before this time.
    pub deadline: Option<Timestamp>,
}

impl<'a> Terms<'a> {
    /// Those of a request that may start at any time.
    pub fn new(copy: Option<&'a CopyId>, max_attempts: u32) -> Self {
        Self {
            copy,
            max_attempts,
            due: None,
            deadline: None,
        }
    }

    /// Those of a request as it was stored at this time.
    pub fn of(request: &'a StartRequest, stored_at: Timestamp, max_attempts: u32) -> Self {
        Self {
            due: request.execution.due(stored_at),
            deadline: request.execution.deadline(stored_at),
            ..Self::new(request.copy_id(), max_attempts)
        }
    }

    /// Whether a time decides about the first attempt.
    pub fn has_times(&self) -> bool {
        self.due.is_some() || self.deadline.is_some()
    }
}

/// A start request as it reached a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeliveryInfo {
    /// Stream sequence of the request.
    pub start_sequence: u64,
    /// How many times the queue has delivered it, this time included.
    pub count: u64,
}

/// Decides what to do with a start request, given the operation's log. If the request is a copy, the
/// log must reach the event that names it ([`crate::start_request::NamedCopy::named_at`]).
///
/// `now` must come from the stream's clock, like the times in the log. It matters only when
/// [`waits_for_retry`] is true, or when the request [has times](Terms::has_times).
///
/// JetStream delivers a request to a second worker only when the lease of the first has run out or
/// the first released the request. A `started` event for an earlier delivery of the same request
/// therefore means that its worker was lost.
///
/// ```
/// use ktrdr_protocol::claim::{ClaimDecision, DeliveryInfo, Terms, decide};
/// use ktrdr_protocol::state::FoldedLog;
/// use ktrdr_protocol::time::Timestamp;
///
/// let first_delivery = DeliveryInfo { start_sequence: 7, count: 1 };
/// let terms = Terms::new(None, 3);
/// let decision = decide(&FoldedLog::default(), first_delivery, terms, Timestamp::now());
/// assert_eq!(decision, ClaimDecision::Start { attempt: 1, expected: 0, takeover: false });
/// ```
pub fn decide(
    log: &FoldedLog,
    delivery: DeliveryInfo,
    terms: Terms<'_>,
    now: Timestamp,
) -> ClaimDecision {
    let Terms {
        copy, max_attempts, ..
    } = terms;
    let expected = log.tail;
    let Some(event) = &log.last else {
        if copy.is_some() {
            return ClaimDecision::Drop("the operation's log does not name this copy");
        }
        return first_attempt(expected, terms, now);
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
        // The same operation id was queued twice: a start was repeated after the duplicate window,
        // or by hand. A worker runs the other copy; a takeover here would run the operation twice.
        EventKind::Started {
            start_sequence: other,
            ..
        } if *other != delivery.start_sequence => {
            ClaimDecision::Drop("another copy of this start request is being run")
        }
        // This worker was suspended with the request, and another worker has received it since.
        EventKind::Started {
            delivery: newer, ..
        } if *newer >= delivery.count => ClaimDecision::Outdated,
        EventKind::Started { .. } if event.attempt >= max_attempts => ClaimDecision::GiveUp {
            attempts: event.attempt,
            expected,
        },
        EventKind::Started { .. } => next,
        EventKind::Moved { copy: named, .. } if copy != Some(named) => {
            ClaimDecision::Drop("the operation was moved with another copy of this request")
        }
        // Names are never taken back, so an earlier copy has no part in the operation any more. A
        // release without a name says nothing about copies: workers of 0.1.0 know none.
        EventKind::Released {
            copy: Some(named), ..
        } if copy != Some(named) => {
            ClaimDecision::Drop("the operation was put back with another copy of this request")
        }
        EventKind::Released {
            retry_at: Some(due),
            ..
        }
        | EventKind::Moved {
            retry_at: Some(due),
            ..
        } if *due > now => ClaimDecision::NotBefore(*due),
        EventKind::Released { .. } | EventKind::Moved { .. } if event.attempt == 0 => {
            first_attempt(expected, terms, now)
        }
        // A release is not a failure of the worker, so it never uses up the last attempt.
        EventKind::Released { .. } | EventKind::Moved { .. } => next,
    }
}

/// What to do with an operation of which no attempt has started.
fn first_attempt(expected: u64, terms: Terms<'_>, now: Timestamp) -> ClaimDecision {
    match terms {
        Terms {
            deadline: Some(deadline),
            ..
        } if deadline <= now => ClaimDecision::Expire { expected },
        Terms { due: Some(due), .. } if due > now => ClaimDecision::NotBefore(due),
        _ => ClaimDecision::Start {
            attempt: 1,
            expected,
            takeover: false,
        },
    }
}

/// Whether the operation was released with a time before which it must not be retried.
pub fn waits_for_retry(log: &FoldedLog) -> bool {
    log.last.as_ref().is_some_and(|last| {
        matches!(
            last.kind,
            EventKind::Released {
                retry_at: Some(_),
                ..
            } | EventKind::Moved {
                retry_at: Some(_),
                ..
            }
        )
    })
}

/// The code of the failure of an operation that has not started in time.
pub const EXPIRED: &str = "expired";

/// The failure of an operation of which no attempt has started by this time.
pub fn expired(deadline: Timestamp) -> Failure {
    Failure {
        code: EXPIRED.to_owned(),
        message: format!("no attempt had started by {deadline}, when it expired"),
        permanent: false,
    }
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
mod put_back;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Event, ReleaseReason, ResultPayload};
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
            decide(&FoldedLog::default(), SECOND, Terms::new(None, 3), NOW),
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
            decide(&last, SECOND, Terms::new(None, 3), NOW),
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
            decide(&last, SECOND, Terms::new(None, 3), NOW),
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
            decide(&last, SECOND, Terms::new(None, 3), NOW),
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
            decide(
                &last,
                DeliveryInfo { count: 1, ..SECOND },
                Terms::new(None, 3),
                NOW
            ),
            ClaimDecision::Outdated
        );
        assert_eq!(
            decide(&last, SECOND, Terms::new(None, 3), NOW),
            ClaimDecision::Outdated
        );
        assert!(matches!(
            decide(
                &last,
                DeliveryInfo { count: 3, ..SECOND },
                Terms::new(None, 3),
                NOW
            ),
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
                requested_by: None,
                reason: None,
            },
        ] {
            assert!(matches!(
                decide(&log(1, kind), SECOND, Terms::new(None, 3), NOW),
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
                copy: None,
            },
        );
        assert_eq!(
            decide(&last, SECOND, Terms::new(None, 3), NOW),
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
                copy: None,
            },
        );
        assert_eq!(
            decide(&last, SECOND, Terms::new(None, 3), NOW),
            ClaimDecision::NotBefore(due)
        );
        assert!(matches!(
            decide(&last, SECOND, Terms::new(None, 3), due),
            ClaimDecision::Start { attempt: 2, .. }
        ));
    }

    fn put_back(copy: &str) -> FoldedLog {
        let kind = EventKind::Released {
            reason: ReleaseReason::Retry,
            error: None,
            retry_at: None,
            copy: Some(CopyId::new(copy).unwrap()),
        };
        log(1, kind)
    }

    #[test]
    fn only_the_copy_that_the_log_named_last_is_claimed() {
        let (first, second) = (CopyId::new("c1").unwrap(), CopyId::new("c2").unwrap());
        let decided = |copy| decide(&put_back("c2"), SECOND, Terms::new(copy, 3), NOW);

        assert!(matches!(decided(None), ClaimDecision::Drop(_)));
        assert!(matches!(decided(Some(&first)), ClaimDecision::Drop(_)));
        assert!(matches!(
            decided(Some(&second)),
            ClaimDecision::Start { attempt: 2, .. }
        ));
    }

    #[test]
    fn a_copy_without_the_event_that_names_it_is_dropped() {
        let copy = CopyId::new("c1").unwrap();
        let decided = decide(
            &FoldedLog::default(),
            SECOND,
            Terms::new(Some(&copy), 3),
            NOW,
        );
        assert!(matches!(decided, ClaimDecision::Drop(_)));
    }

    #[test]
    fn a_copy_that_its_worker_gave_back_without_naming_it_still_counts() {
        let (copy, kind) = (
            CopyId::new("c1").unwrap(),
            EventKind::Released {
                reason: ReleaseReason::Shutdown,
                error: None,
                retry_at: None,
                copy: None,
            },
        );
        assert!(matches!(
            decide(&log(1, kind), SECOND, Terms::new(Some(&copy), 3), NOW),
            ClaimDecision::Start { attempt: 2, .. }
        ));
    }

    #[test]
    fn only_a_first_attempt_has_to_begin_within_its_times() {
        let (early, late) = (NOW, NOW.plus(std::time::Duration::from_secs(9)));
        let terms = Terms {
            due: Some(NOW.plus(std::time::Duration::from_secs(3))),
            deadline: Some(late),
            ..Terms::new(None, 3)
        };
        let decided = |log: &FoldedLog, now| decide(log, SECOND, terms, now);
        let waiting = FoldedLog::default();
        let released = EventKind::Released {
            reason: ReleaseReason::Shutdown,
            error: None,
            retry_at: None,
            copy: None,
        };

        assert!(matches!(
            decided(&waiting, early),
            ClaimDecision::NotBefore(_)
        ));
        assert_eq!(
            decided(&waiting, late),
            ClaimDecision::Expire { expected: 0 }
        );
        assert!(matches!(
            decided(&log(1, released), late),
            ClaimDecision::Start { attempt: 2, .. }
        ));
    }

    #[test]
    fn only_the_copy_that_a_move_named_is_claimed() {
        let copy = CopyId::new("c1").unwrap();
        let moved = log(
            0,
            EventKind::Moved {
                queue: crate::id::Queue::new("any-p1").unwrap(),
                retry_at: None,
                copy: copy.clone(),
            },
        );

        let decided = |copy| decide(&moved, SECOND, Terms::new(copy, 3), NOW);
        assert!(matches!(decided(None), ClaimDecision::Drop(_)));
        assert!(matches!(
            decided(Some(&copy)),
            ClaimDecision::Start { attempt: 1, .. }
        ));
    }
}
