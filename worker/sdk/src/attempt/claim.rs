//! Claiming an operation: appending `started` to its log.
//!
//! The problem: JetStream may deliver one start request several times, to several workers, and a
//! worker may hold a request for so long that another one is given it. Exactly one of them may run
//! the operation.
//!
//! The solution: a worker runs an operation only after its `started` event was accepted, and the
//! event expects the sequence of the last event that the worker has seen. JetStream refuses every
//! other claim. The refused worker is given the newer log and decides again.
//! [`ktrdr_protocol::claim`] holds the decision, which is pure; this module does the I/O around it.
//!
//! Rejected: reading the log first. Nearly every request is new, and the read would cost each of
//! them a round trip. The first delivery therefore assumes an empty log, unless the request is a copy:
//! then its log has the event that names it. A request that is not due is handed back without a look at
//! the log.

use std::time::Duration;

use ktrdr_bus::oplog::{AppendError, ReadKeyError, ReadLogError};
use ktrdr_protocol::claim::{
    ClaimDecision, DeliveryInfo, Terms, decide, expired, waits_for_retry, worker_lost_message,
};
use ktrdr_protocol::event::{Event, EventKind, Failure};
use ktrdr_protocol::start_request::StartRequest;
use ktrdr_protocol::state::{FoldedLog, Status};
use ktrdr_protocol::time::Timestamp;

use crate::attempt::ownership::OwnedAttempt;
use crate::attempt::permits;
use crate::pulling::lease::Lease;
use crate::worker::core::Core;

/// What became of a claim.
#[derive(Debug)]
pub(crate) enum Claimed {
    /// This process owns a new attempt.
    Owned(OwnedAttempt),
    /// There is nothing to run: acknowledge the request. The text says why.
    NothingToRun(&'static str),
    /// The operation waits for a retry or for a permit, or its worker may still come back: hand the
    /// request back for this long.
    Later(Duration),
    /// Another worker was given the request since: say nothing about it.
    Outdated,
}

/// Why the outcome of a claim is unknown. Nothing may be said about the request then. It is
/// delivered again when the lease ends.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClaimError {
    #[error("the claim could not be stored")]
    Append(#[source] AppendError),
    #[error("the operation's log could not be read")]
    Read(#[from] ReadLogError),
    #[error("the holders of the operation's concurrency key could not be read")]
    Key(#[from] ReadKeyError),
    #[error("the stream's clock could not be read")]
    Clock(#[from] async_nats::client::RequestError),
}

/// What to do next with a claim.
enum Step {
    /// Append an event and expect this tail of the log.
    Append {
        attempt: u32,
        kind: EventKind,
        expected: u64,
    },
    /// Nothing is left to append.
    Done(Claimed),
}

/// Claims the operation of a start request, or finds out that there is nothing to run.
///
/// # Errors
/// [`ClaimError`] when NATS does not answer within the lease.
pub(crate) async fn claim(
    core: &Core,
    request: &StartRequest,
    delivery: DeliveryInfo,
    terms: Terms<'_>,
    lease: &Lease,
) -> Result<Claimed, ClaimError> {
    let patience = lease.duration();
    let claim_id = uuid::Uuid::new_v4().simple().to_string();
    let mut log = match (&request.copy, delivery.count) {
        (None, 1) => FoldedLog::default(),
        // Boxed because they are rare: every claim's future would have room for them.
        (None, _) => {
            let read = core.oplog.read(&core.worker_type, &request.operation_id);
            Box::pin(read).await?
        }
        (Some(copy), _) => {
            let id = &request.operation_id;
            let read = core.oplog.read_from(&core.worker_type, id, copy.named_at);
            Box::pin(read).await?
        }
    };

    // It belongs to the operation, so one is enough for all tries.
    let mut needs_permit = request.execution.concurrency.as_ref();
    loop {
        let (attempt, kind, expected) =
            match next_step(core, request, delivery, terms, &log).await? {
                Step::Append {
                    attempt,
                    kind,
                    expected,
                } => (attempt, kind, expected),
                Step::Done(claimed) => return Ok(claimed),
            };
        if let Some(limited) = needs_permit
            && matches!(kind, EventKind::Started { .. })
        {
            // Boxed because it is rare: every claim's future would have room for it.
            let taken = permits::take(core, &request.operation_id, limited, patience);
            if let Some(delay) = Box::pin(taken).await? {
                return Ok(Claimed::Later(delay));
            }
            needs_permit = None;
        }
        // An empty log means nothing to a worker that was suspended: the operation may have ended
        // meanwhile, and its log may be gone with its retention. If it still exists, its request
        // is delivered again.
        if expected == 0 && lease.is_stale() {
            return Ok(Claimed::Outdated);
        }
        let event = Event::by_worker(
            &core.worker_id,
            &claim_id,
            &request.operation_id,
            attempt,
            kind,
        );

        let appended = core
            .oplog
            .append(&core.worker_type, &event, expected, patience)
            .await;
        match appended {
            Ok(sequence) => return Ok(accepted(event, claim_id, sequence)),
            Err(AppendError::Conflict(newer)) => log = *newer,
            Err(error) => return Err(ClaimError::Append(error)),
        }
    }
}

/// Decides from the log what to do with the request.
async fn next_step(
    core: &Core,
    request: &StartRequest,
    delivery: DeliveryInfo,
    terms: Terms<'_>,
    log: &FoldedLog,
) -> Result<Step, ClaimError> {
    // Only retries and requests with times need this round trip. They cannot use this machine's clock: it
    // may be wrong by hours.
    let now = if terms.has_times() || waits_for_retry(log) {
        core.oplog.clock().await?
    } else {
        Timestamp::EPOCH
    };
    let decided = decide(log, delivery, terms, now);

    if matches!(
        decided,
        ClaimDecision::Start { .. } | ClaimDecision::GiveUp { .. }
    ) && log.state.status == Status::Running
        && let Some(delay) = core.connection.others_return_within()
    {
        // NATS was away for longer than the lease. The worker that runs the operation may be
        // healthy and about to reconnect.
        return Ok(Step::Done(Claimed::Later(delay)));
    }

    Ok(match decided {
        ClaimDecision::Drop(why) => Step::Done(Claimed::NothingToRun(why)),
        ClaimDecision::Outdated => Step::Done(Claimed::Outdated),
        ClaimDecision::NotBefore(due) => {
            let delay = due.after(now).max(Duration::from_millis(1));
            Step::Done(Claimed::Later(delay))
        }
        ClaimDecision::Expire { expected } => Step::Append {
            attempt: 0,
            kind: EventKind::Failed {
                error: expired(terms.deadline.unwrap_or(now)),
                progress: None,
            },
            expected,
        },
        ClaimDecision::GiveUp { attempts, expected } => Step::Append {
            attempt: attempts,
            kind: worker_lost(request, attempts),
            expected,
        },
        ClaimDecision::Start {
            attempt,
            expected,
            takeover,
        } => {
            // Only the worker that runs the operation hears a cancel intent live, and it may be
            // gone.
            if takeover
                && core
                    .oplog
                    .is_cancel_requested(&core.worker_type, &request.operation_id)
                    .await?
            {
                Step::Append {
                    attempt: attempt - 1,
                    kind: EventKind::Cancelled {
                        forced: false,
                        progress: None,
                        requested_by: None,
                        reason: None,
                    },
                    expected,
                }
            } else {
                Step::Append {
                    attempt,
                    kind: EventKind::Started {
                        start_sequence: delivery.start_sequence,
                        delivery: delivery.count,
                    },
                    expected,
                }
            }
        }
    })
}

/// The meaning of an appended event for the claim.
fn accepted(event: Event, claim_id: String, sequence: u64) -> Claimed {
    match event.kind {
        EventKind::Started { .. } => Claimed::Owned(OwnedAttempt {
            operation_id: event.operation_id,
            attempt: event.attempt,
            claim_id,
            sequence,
        }),
        EventKind::Failed { .. } if event.attempt == 0 => Claimed::NothingToRun("it has expired"),
        EventKind::Failed { .. } => Claimed::NothingToRun("its workers were lost too often"),
        _ => Claimed::NothingToRun("it was cancelled before this worker took over"),
    }
}

fn worker_lost(request: &StartRequest, attempts: u32) -> EventKind {
    EventKind::Failed {
        error: Failure {
            code: "worker_lost".to_owned(),
            message: worker_lost_message(&request.operation_id, attempts),
            permanent: true,
        },
        progress: None,
    }
}
