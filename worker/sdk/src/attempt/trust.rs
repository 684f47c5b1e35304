//! Which start requests this worker believes, and what becomes of the others.
//!
//! The problem: with `KTRDR_VERIFY_KEYS`, a worker runs only what a trusted backend signed. Anybody
//! who may publish can put something else into its queue. It must not run, and it must not be
//! delivered for ever. If the message is the start request that made its operation exist, the
//! operation must end. If it is a copy beside a genuine request, that operation must not notice.
//!
//! How it is solved: a worker cannot tell a copy from the first request: only a backend knows all of
//! them. So a worker writes nothing into the operation's log. It names the message in its
//! heartbeats, and backends end the operation if this message is its first request and nobody runs
//! it. The worker hands the message back a few times, so that it sees the end in the log, and then
//! removes it from the queue.
//!
//! A signature of an unknown key may be of a backend whose new key this worker does not have yet.
//! Such a message is handed back for some ten minutes before it is reported: another worker may know
//! the key, or this one reads its file of keys again.
//!
//! Rejected: to end the operation from here. The log of an operation that waits is empty, so a
//! copy that is delivered first would end an operation whose genuine request is still in its queue.

use std::collections::VecDeque;
use std::time::Duration;

use async_nats::HeaderMap;
use ktrdr_bus::signing::{Received, Refusal};
use ktrdr_bus::telemetry::{Repeated, short};
use ktrdr_protocol::claim::DeliveryInfo;
use ktrdr_protocol::event::EventKind;
use ktrdr_protocol::id::Queue;
use ktrdr_protocol::origin::Origin;
use ktrdr_protocol::start_request::StartRequest;
use ktrdr_protocol::time::Timestamp;
use ktrdr_protocol::worker::{MAX_REFUSED_STARTS, RefusedStart};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::pulling::lease::Lease;
use crate::worker::core::Core;

/// Lines about start requests that are not believed.
static REFUSED: Repeated = Repeated::new();

/// Larger bodies are checked on a thread of their own: their digest takes a while.
const LARGE: usize = 64 * 1024;

/// Deliveries after which a message is removed from its queue.
const DELIVERIES: u64 = 4;

/// The same, while the key may become known.
const DELIVERIES_OF_UNKNOWN_KEY: u64 = 12;

/// The longest time between two deliveries.
const MAX_DELAY: Duration = Duration::from_secs(60);

/// How long heartbeats name a refused message.
const TOLD_FOR: Duration = Duration::from_secs(600);

/// What a signature is checked against beside the body.
pub(crate) struct Proof {
    pub(crate) headers: Option<HeaderMap>,
    pub(crate) stored_at: Timestamp,
}

/// The newest refused messages, for heartbeats.
#[derive(Debug, Default)]
pub(crate) struct RefusedStarts(Mutex<VecDeque<(Instant, RefusedStart)>>);

impl RefusedStarts {
    /// Those of the last minutes.
    pub(crate) fn list(&self) -> Vec<RefusedStart> {
        let mut told = self.0.lock();
        while told.front().is_some_and(|(at, _)| at.elapsed() >= TOLD_FOR) {
            told.pop_front();
        }
        told.iter().map(|(_, refused)| refused.clone()).collect()
    }

    fn note(&self, refused: RefusedStart) {
        let mut told = self.0.lock();
        told.retain(|(_, other)| other.start_sequence != refused.start_sequence);
        if told.len() >= MAX_REFUSED_STARTS {
            told.pop_front();
        }
        told.push_back((Instant::now(), refused));
    }
}

/// Checks the signature of a request that was delivered by `queue`. Everything may be run by a
/// worker without trusted keys.
///
/// # Errors
/// [`Refusal`]: it must not be run.
pub(crate) async fn check(
    core: &Core,
    queue: &Queue,
    request: &StartRequest,
    body: &bytes::Bytes,
    proof: Option<Box<Proof>>,
) -> Result<(), Refusal> {
    let Some(keys) = core.trusted.clone() else {
        return Ok(());
    };
    let proof = proof.ok_or(Refusal::NotSigned)?;
    // Not the subject that the message came with: a queue could be made that delivers those of
    // other queues.
    let subject = core
        .names
        .start(&core.worker_type, &Origin::Queued(queue.clone()));
    let (operation_id, body) = (request.operation_id.clone(), body.clone());
    let is_large = body.len() > LARGE;
    let check = move || {
        keys.check(Received {
            subject: &subject,
            operation_id: &operation_id,
            body: &body,
            headers: proof.headers.as_ref(),
            stored_at: proof.stored_at,
        })
    };

    if is_large {
        let checked = tokio::task::spawn_blocking(check).await;
        checked.unwrap_or(Err(Refusal::WrongSignature))
    } else {
        check()
    }
}

/// Answers a request that must not be run.
pub(crate) async fn refuse(
    core: &Core,
    request: &StartRequest,
    delivery: DeliveryInfo,
    lease: &Lease,
    why: Refusal,
) {
    let id = &request.operation_id;
    core.counters.refused_starts.inc();
    if let Some(count) = REFUSED.note() {
        tracing::warn!(
            operation_id = %id,
            start_sequence = delivery.start_sequence,
            why = short(&why),
            count,
            "refused to run a start request"
        );
    }

    let mut is_running = false;
    if delivery.count > 1 {
        // Without an answer it is handed back, as if nothing had happened.
        if let Ok(log) = core.oplog.read(&core.worker_type, id).await {
            if log.state.status.is_terminal() {
                return lease.ack().await;
            }
            is_running = log.last.is_some_and(|last| {
                matches!(
                    last.kind,
                    EventKind::Started { start_sequence, .. } if start_sequence == delivery.start_sequence
                )
            });
        }
    }

    let deliveries = if matches!(why, Refusal::UnknownKey(_)) {
        DELIVERIES_OF_UNKNOWN_KEY
    } else {
        core.refused.note(refused(request, delivery, &why));
        core.changed.notify_one();
        DELIVERIES
    };
    if delivery.count < deliveries {
        return lease.nak(Some(delay(delivery.count))).await;
    }
    core.refused.note(refused(request, delivery, &why));
    core.changed.notify_one();

    // A worker without keys, or with other keys, runs this very request. If it is lost, nobody else
    // would see that.
    if is_running {
        lease.nak(Some(MAX_DELAY)).await;
    } else {
        lease.terminate().await;
    }
}

fn refused(request: &StartRequest, delivery: DeliveryInfo, why: &Refusal) -> RefusedStart {
    RefusedStart {
        operation_id: request.operation_id.clone(),
        start_sequence: delivery.start_sequence,
        why: short(why),
    }
}

/// 1 s, 4 s, 16 s, then a minute.
fn delay(count: u64) -> Duration {
    let exponent = u32::try_from(count.saturating_sub(1)).unwrap_or(u32::MAX);
    Duration::from_secs(4_u64.saturating_pow(exponent)).min(MAX_DELAY)
}

#[cfg(test)]
mod tests {
    use ktrdr_protocol::id::OperationId;

    use super::*;

    #[test]
    fn heartbeats_name_the_newest_refusals_once() {
        let refused = RefusedStarts::default();
        for start_sequence in [1, 2, 1]
            .into_iter()
            .chain(10..10 + MAX_REFUSED_STARTS as u64)
        {
            refused.note(RefusedStart {
                operation_id: OperationId::new("x").unwrap(),
                start_sequence,
                why: String::new(),
            });
        }

        let list = refused.list();
        assert_eq!(list.len(), MAX_REFUSED_STARTS);
        assert_eq!(list[0].start_sequence, 10);
    }

    #[test]
    fn a_refused_request_comes_back_ever_more_rarely() {
        let seconds = |count| delay(count).as_secs();
        assert_eq!(
            [seconds(1), seconds(2), seconds(3), seconds(4)],
            [1, 4, 16, 60]
        );
        assert_eq!(seconds(u64::MAX), 60);
    }
}
