//! Decides what happens to an operation when its engine has ended. One table, no I/O.
//!
//! [`EngineOutcome`] is the end of the engine. [`Verdict`] is the decision about the operation. It
//! also depends on why the engine was asked to stop, and on the attempts that are left.
//! [`super::retry_delay`] computes when the next attempt may start.

use std::time::Duration;

use ktrdr_protocol::event::Failure;
use ktrdr_protocol::execution::ExecutionLimits;
use ktrdr_protocol::origin::Origin;
use ktrdr_protocol::rest::operation::AttemptOutcome;
use ktrdr_protocol::state::Status;
use serde_json::value::RawValue;
use tokio::task::{JoinError, JoinHandle};

use crate::attempt::retry_delay::{MAX_ASKED, retry_delay};
use crate::attempt::stop::StopReason;
use crate::engine::error::OperationError;
use crate::engine::panics::message;

/// The longest failure text that is recorded, in bytes.
const MAX_MESSAGE: usize = 8 * 1024;

/// The task of a running engine.
pub(crate) type EngineHandle = JoinHandle<Result<Box<RawValue>, OperationError>>;

/// How an engine ended.
#[derive(Debug)]
pub(crate) enum EngineOutcome {
    Completed(Box<RawValue>),
    Error(OperationError),
    Panicked(String),
    /// It was asked to stop and did not stop in time.
    Abandoned,
}

impl EngineOutcome {
    pub(crate) fn of(joined: Result<Result<Box<RawValue>, OperationError>, JoinError>) -> Self {
        match joined {
            Ok(Ok(result)) => Self::Completed(result),
            Ok(Err(error)) => Self::Error(error),
            Err(error) => match error.try_into_panic() {
                Ok(panic) => Self::Panicked(message(&*panic)),
                Err(_) => Self::Abandoned,
            },
        }
    }
}

/// What becomes of the operation.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// `completed`, then ack.
    Complete(Box<RawValue>),
    /// `failed`, then ack.
    Fail(Failure),
    /// `cancelled`, then ack.
    Cancel,
    /// `released`, then nak: the next worker takes it at once.
    HandBack,
    /// `released`, then nak with a delay.
    Retry { error: Failure, delay: Duration },
}

impl Verdict {
    /// The status of the operation afterwards.
    pub(crate) fn status(&self) -> Status {
        match self {
            Self::Complete(_) => Status::Completed,
            Self::Fail(_) => Status::Failed,
            Self::Cancel => Status::Cancelled,
            Self::HandBack | Self::Retry { .. } => Status::Pending,
        }
    }

    /// The label `outcome` of the Prometheus metrics.
    pub(crate) fn outcome_label(&self) -> &'static str {
        match self {
            Self::Complete(_) => "completed",
            Self::Fail(_) => "failed",
            Self::Retry { .. } => "retried",
            Self::Cancel => "cancelled",
            Self::HandBack => "released",
        }
    }

    pub(crate) fn attempt_outcome(&self) -> AttemptOutcome {
        match self {
            Self::Complete(_) => AttemptOutcome::Completed,
            Self::Fail(_) | Self::Retry { .. } => AttemptOutcome::Failed,
            Self::Cancel => AttemptOutcome::Cancelled,
            Self::HandBack => AttemptOutcome::Released,
        }
    }
}

/// Decides what becomes of an operation. Only a queue can deliver a start request again; a direct
/// start has one attempt.
pub(crate) fn decide_verdict(
    outcome: EngineOutcome,
    reason: Option<StopReason>,
    limits: &ExecutionLimits,
    attempt: u32,
    origin: &Origin,
) -> Verdict {
    let queued = !origin.is_direct();
    let stalled = reason == Some(StopReason::Stalled);
    let (error, engine_delay) = match (outcome, reason) {
        // A result that comes after the time limit does not count.
        (_, Some(StopReason::Timeout)) => {
            let seconds = limits.timeout_seconds.unwrap_or_default();
            (
                failure(
                    "timeout",
                    format!("the attempt ran longer than its limit of {seconds} s"),
                    false,
                ),
                None,
            )
        }
        // The engine finished before it noticed that it should stop. The work is done, so it
        // counts.
        (EngineOutcome::Completed(result), _) => return Verdict::Complete(result),
        (_, Some(StopReason::Stalled)) => {
            let seconds = limits.stall_timeout_seconds.unwrap_or_default();
            (
                failure(
                    "stalled",
                    format!("the engine gave no sign of life for {seconds} s"),
                    false,
                ),
                None,
            )
        }
        (_, Some(StopReason::Cancel)) | (EngineOutcome::Error(OperationError::Cancelled), None) => {
            return Verdict::Cancel;
        }
        (_, Some(StopReason::Shutdown)) if queued => return Verdict::HandBack,
        (_, Some(StopReason::Shutdown)) => {
            let message = "the operation was started directly on a worker, and the worker stopped; start it through a backend instead";
            return Verdict::Fail(failure("worker_stopped", message.to_owned(), true));
        }
        (EngineOutcome::Error(OperationError::Permanent { code, message }), _) => {
            return Verdict::Fail(failure(&code, message, true));
        }
        (EngineOutcome::Error(OperationError::Failed { code, message }), _) => {
            (failure(&code, message, false), None)
        }
        (
            EngineOutcome::Error(OperationError::RetryAfter {
                code,
                message,
                delay,
            }),
            _,
        ) => (failure(&code, message, false), Some(delay)),
        (EngineOutcome::Panicked(message), _) => (
            failure("panic", format!("the engine panicked: {message}"), false),
            None,
        ),
        (EngineOutcome::Abandoned | EngineOutcome::Error(OperationError::Cancelled), _) => (
            failure(
                "worker_stopped",
                "the worker stopped before the engine ended".to_owned(),
                false,
            ),
            None,
        ),
    };
    // A worker whose engine hangs is no better than one that is lost.
    let retries = limits.retries_failures || engine_delay.is_some() || stalled;
    if queued && retries && attempt < limits.max_attempts {
        let delay = match engine_delay {
            Some(asked) => asked.min(MAX_ASKED),
            None => retry_delay(limits.retry_delay, attempt, fastrand::f64()),
        };
        Verdict::Retry { error, delay }
    } else {
        Verdict::Fail(error)
    }
}

fn failure(code: &str, mut message: String, permanent: bool) -> Failure {
    if message.len() > MAX_MESSAGE {
        let mut end = MAX_MESSAGE;
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        message.truncate(end);
        message.push('…');
    }
    Failure {
        code: code.to_owned(),
        message,
        permanent,
    }
}

#[cfg(test)]
mod tests {
    use ktrdr_protocol::execution::{ExecutionDefaults, ExecutionOptions};
    use ktrdr_protocol::requirements::Requirements;

    use super::*;

    fn queued() -> Origin {
        Origin::Queued(Requirements::default().queue())
    }

    fn once() -> ExecutionLimits {
        ExecutionOptions::default().limits(&ExecutionDefaults::default())
    }

    fn thrice() -> ExecutionLimits {
        let options = ExecutionOptions {
            max_attempts: Some(3),
            retry_delay: Some(2.0),
            ..ExecutionOptions::default()
        };
        options.limits(&ExecutionDefaults::default())
    }

    fn failed() -> EngineOutcome {
        EngineOutcome::Error(OperationError::failed("no"))
    }

    fn done() -> EngineOutcome {
        EngineOutcome::Completed(RawValue::NULL.to_owned())
    }

    fn code(verdict: Verdict) -> String {
        match verdict {
            Verdict::Fail(error) => error.code,
            other => panic!("not a failure: {other:?}"),
        }
    }

    #[test]
    fn a_result_completes() {
        assert!(matches!(
            decide_verdict(done(), None, &once(), 1, &queued()),
            Verdict::Complete(_)
        ));
    }

    #[test]
    fn a_result_that_was_ready_before_the_cancel_was_noticed_completes() {
        for reason in [StopReason::Cancel, StopReason::Shutdown] {
            assert!(matches!(
                decide_verdict(done(), Some(reason), &once(), 1, &queued()),
                Verdict::Complete(_)
            ));
        }
    }

    #[test]
    fn any_error_after_a_cancel_is_cancelled() {
        assert!(matches!(
            decide_verdict(failed(), Some(StopReason::Cancel), &thrice(), 1, &queued()),
            Verdict::Cancel
        ));
        let cancelled = EngineOutcome::Error(OperationError::Cancelled);
        assert!(matches!(
            decide_verdict(cancelled, None, &once(), 1, &queued()),
            Verdict::Cancel
        ));
    }

    #[test]
    fn a_failure_is_final_unless_retries_were_asked_for() {
        assert_eq!(
            code(decide_verdict(failed(), None, &once(), 1, &queued())),
            "engine_error"
        );
        assert!(matches!(
            decide_verdict(failed(), None, &thrice(), 1, &queued()),
            Verdict::Retry { .. }
        ));
        assert!(matches!(
            decide_verdict(failed(), None, &thrice(), 3, &queued()),
            Verdict::Fail(_)
        ));
    }

    #[test]
    fn an_engine_may_ask_for_a_retry_itself() {
        let delay = Duration::from_secs(7);
        let outcome = EngineOutcome::Error(OperationError::retry_after("busy", "busy", delay));
        assert!(
            matches!(decide_verdict(outcome, None, &once(), 1, &queued()), Verdict::Retry { delay: d, .. } if d == delay)
        );
    }

    #[test]
    fn a_permanent_failure_is_never_retried() {
        let outcome = EngineOutcome::Error(OperationError::invalid("bad"));
        assert_eq!(
            code(decide_verdict(outcome, None, &thrice(), 1, &queued())),
            "invalid_request"
        );
    }

    #[test]
    fn a_panic_is_a_failure() {
        let panic = || EngineOutcome::Panicked("boom".into());
        assert_eq!(
            code(decide_verdict(panic(), None, &once(), 1, &queued())),
            "panic"
        );
        assert!(matches!(
            decide_verdict(panic(), None, &thrice(), 1, &queued()),
            Verdict::Retry { .. }
        ));
    }

    #[test]
    fn a_result_after_the_time_limit_does_not_count() {
        let limited = ExecutionLimits {
            timeout_seconds: Some(1.0),
            ..once()
        };
        assert_eq!(
            code(decide_verdict(
                done(),
                Some(StopReason::Timeout),
                &limited,
                1,
                &queued()
            )),
            "timeout"
        );
        let retried = ExecutionLimits {
            timeout_seconds: Some(1.0),
            ..thrice()
        };
        assert!(matches!(
            decide_verdict(
                EngineOutcome::Abandoned,
                Some(StopReason::Timeout),
                &retried,
                1,
                &queued()
            ),
            Verdict::Retry { .. }
        ));
    }

    #[test]
    fn a_stalled_attempt_is_tried_again_like_a_lost_one() {
        let limited = ExecutionLimits {
            stall_timeout_seconds: Some(1.0),
            ..once()
        };
        let stalled = |outcome, attempt| {
            decide_verdict(
                outcome,
                Some(StopReason::Stalled),
                &limited,
                attempt,
                &queued(),
            )
        };

        assert!(matches!(
            stalled(EngineOutcome::Abandoned, 1),
            Verdict::Retry { error, .. } if error.code == "stalled"
        ));
        assert_eq!(code(stalled(EngineOutcome::Abandoned, 3)), "stalled");
        assert!(matches!(stalled(done(), 1), Verdict::Complete(_)));
    }

    #[test]
    fn a_stopping_worker_hands_back_what_was_queued_and_fails_what_was_not() {
        for outcome in [failed(), EngineOutcome::Abandoned] {
            assert!(matches!(
                decide_verdict(outcome, Some(StopReason::Shutdown), &once(), 1, &queued()),
                Verdict::HandBack
            ));
        }
        assert_eq!(
            code(decide_verdict(
                failed(),
                Some(StopReason::Shutdown),
                &once(),
                1,
                &Origin::Direct
            )),
            "worker_stopped"
        );
    }

    #[test]
    fn a_direct_operation_is_not_retried() {
        assert!(matches!(
            decide_verdict(failed(), None, &thrice(), 1, &Origin::Direct),
            Verdict::Fail(_)
        ));
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        assert!(
            failure("x", "ü".repeat(MAX_MESSAGE), false).message.len()
                <= MAX_MESSAGE + '…'.len_utf8()
        );
    }
}
