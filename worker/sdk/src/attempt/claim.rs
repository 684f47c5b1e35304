//! Claiming, taking over, finishing: the only file of the SDK that publishes on an operation's subject.

use std::time::Duration;

use ktrdr_bus::oplog::{AppendError, ReadLogError};
use ktrdr_protocol::claim::{
    ClaimDecision, DeliveryInfo, decide, waits_for_retry, worker_lost_message,
};
use ktrdr_protocol::event::{Event, EventKind, Failure};
use ktrdr_protocol::id::OperationId;
use ktrdr_protocol::start_request::StartRequest;
use ktrdr_protocol::state::{FoldedLog, Status};
use ktrdr_protocol::time::Timestamp;

use crate::worker::core::Core;

/// What became of a start request.
#[derive(Debug)]
pub(crate) enum Claimed {
    /// This process holds the operation.
    Hold(Hold),
    /// There is nothing to run: acknowledge the request.
    Nothing(&'static str),
    /// It waits for a retry, or for its holder to come back: hand the request back for this long.
    Later(Duration),
    /// Somebody else was given the request since: say nothing.
    Outdated,
}

/// Why it is not known what became of a start request. Nothing may be said about it then; it will be delivered again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClaimError {
    #[error("the claim could not be stored")]
    Append(#[source] AppendError),
    #[error("what is known of the operation could not be read")]
    Read(#[from] ReadLogError),
    #[error("the stream does not say what time it is")]
    Clock(#[from] async_nats::client::RequestError),
}

/// The proof of owning an attempt: a successor of `sequence` can be published by nobody else.
#[derive(Debug, Clone)]
pub(crate) struct Hold {
    pub(crate) operation_id: OperationId,
    pub(crate) attempt: u32,
    /// Unique to this claim.
    pub(crate) claim_id: String,
    /// Sequence of the `started` event.
    sequence: u64,
}

/// How the end of an attempt was received.
#[derive(Debug)]
pub(crate) enum Ended {
    /// It is in the log.
    Accepted,
    /// Another attempt or a backend was first. `terminal`: the operation has ended.
    Fenced { terminal: bool },
}

/// Publishes this worker's events.
pub(crate) struct Claimer<'a> {
    pub(crate) core: &'a Core,
}

impl Claimer<'_> {
    /// Claims the operation of a start request, or finds out that there is nothing to run.
    ///
    /// # Errors
    /// [`ClaimError`] when NATS does not say within `patience`.
    pub(crate) async fn claim(
        &self,
        request: &StartRequest,
        delivery: DeliveryInfo,
        patience: Duration,
    ) -> Result<Claimed, ClaimError> {
        let started = EventKind::Started {
            start_sequence: delivery.start_sequence,
            delivery: delivery.count,
        };
        let claim_id = uuid::Uuid::new_v4().simple().to_string();
        // Nearly every request is untouched: reading first would cost each of them a round trip.
        let mut log = match delivery.count {
            1 => FoldedLog::default(),
            _ => {
                self.core
                    .oplog
                    .read(&self.core.worker_type, &request.operation_id)
                    .await?
            }
        };
        loop {
            let event = |attempt, kind| Event {
                operation_id: request.operation_id.clone(),
                at: Timestamp::now(),
                worker_id: Some(self.core.worker_id.clone()),
                attempt,
                claim_id: Some(claim_id.clone()),
                kind,
            };
            // A round trip that only retries need. This machine's own clock may be wrong by hours.
            let now = if waits_for_retry(&log) {
                self.core.oplog.clock().await?
            } else {
                Timestamp::EPOCH
            };
            let decided = decide(&log, delivery, request.execution.max_attempts(), now);
            if matches!(
                decided,
                ClaimDecision::Start { .. } | ClaimDecision::GiveUp { .. }
            ) && log.state.status == Status::Running
                && let Some(delay) = self.core.connection.others_return_within()
            {
                // NATS was away for longer than the lease. Whoever holds the operation may be about to say so.
                return Ok(Claimed::Later(delay));
            }
            let (event, expected) = match decided {
                ClaimDecision::Drop(why) => return Ok(Claimed::Nothing(why)),
                ClaimDecision::Outdated => return Ok(Claimed::Outdated),
                ClaimDecision::NotBefore(due) => {
                    return Ok(Claimed::Later(due.after(now).max(Duration::from_millis(1))));
                }
                ClaimDecision::GiveUp { attempts, expected } => {
                    let error = Failure {
                        code: "worker_lost".to_owned(),
                        message: worker_lost_message(&request.operation_id, attempts),
                        permanent: true,
                    };
                    (
                        event(
                            attempts,
                            EventKind::Failed {
                                error,
                                progress: None,
                            },
                        ),
                        expected,
                    )
                }
                ClaimDecision::Start {
                    attempt,
                    expected,
                    takeover,
                } => {
                    // The intent is heard live only by the worker that runs the operation; that one may be gone.
                    if takeover
                        && self
                            .core
                            .oplog
                            .cancel_intent(&self.core.worker_type, &request.operation_id)
                            .await?
                            .is_some()
                    {
                        (
                            event(
                                attempt - 1,
                                EventKind::Cancelled {
                                    forced: false,
                                    progress: None,
                                },
                            ),
                            expected,
                        )
                    } else {
                        (event(attempt, started.clone()), expected)
                    }
                }
            };
            let attempt = event.attempt;
            match self
                .core
                .oplog
                .append(&self.core.worker_type, &event, expected, patience)
                .await
            {
                Ok(sequence) => {
                    return Ok(match event.kind {
                        EventKind::Started { .. } => Claimed::Hold(Hold {
                            operation_id: event.operation_id,
                            attempt,
                            claim_id,
                            sequence,
                        }),
                        EventKind::Failed { .. } => {
                            Claimed::Nothing("its workers were lost too often")
                        }
                        _ => Claimed::Nothing("it was cancelled before this worker took over"),
                    });
                }
                Err(AppendError::Conflict(newer)) => log = *newer,
                Err(error) => return Err(ClaimError::Append(error)),
            }
        }
    }

    /// Ends the attempt with `kind`: a terminal event, or `released`. Keeps trying through an outage of any length.
    ///
    /// # Errors
    /// [`AppendError`] when the event itself cannot be stored (too large, not JSON).
    pub(crate) async fn end(&self, hold: &Hold, kind: EventKind) -> Result<Ended, AppendError> {
        let event = Event {
            operation_id: hold.operation_id.clone(),
            at: Timestamp::now(),
            worker_id: Some(self.core.worker_id.clone()),
            attempt: hold.attempt,
            claim_id: Some(hold.claim_id.clone()),
            kind,
        };
        let mut expected = hold.sequence;
        loop {
            match self
                .core
                .oplog
                .append(&self.core.worker_type, &event, expected, Duration::MAX)
                .await
            {
                Ok(_) => return Ok(Ended::Accepted),
                // Something that is no event of ours was put on the subject; the attempt is still ours.
                Err(AppendError::Conflict(log)) if owns(&log, hold) => expected = log.tail,
                Err(AppendError::Conflict(log)) => {
                    return Ok(Ended::Fenced {
                        terminal: log.state.status.is_terminal(),
                    });
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads whether the attempt is still this process's own; if not, whether the operation has ended.
    ///
    /// # Errors
    /// [`ReadLogError`] when NATS does not answer.
    pub(crate) async fn verify(&self, hold: &Hold) -> Result<Option<Ended>, ReadLogError> {
        let log = self
            .core
            .oplog
            .read_from(&self.core.worker_type, &hold.operation_id, hold.sequence)
            .await?;
        Ok(if owns(&log, hold) {
            None
        } else {
            Some(Ended::Fenced {
                terminal: log.state.status.is_terminal(),
            })
        })
    }
}

fn owns(log: &FoldedLog, hold: &Hold) -> bool {
    log.last.as_ref().is_some_and(|last| {
        matches!(last.kind, EventKind::Started { .. })
            && last.claim_id.as_deref() == Some(hold.claim_id.as_str())
    })
}
