//! Cancels that were requested and not confirmed: they are sent again, and after the cancel grace
//! the operation is closed without its worker.

use std::collections::{HashMap, HashSet};

use futures::StreamExt;
use ktrdr_protocol::cancel::CancelIntent;
use ktrdr_protocol::id::OperationId;
use ktrdr_protocol::state::Status;
use tokio::time::Instant;

use super::{SIDE_BY_SIDE, log_outcome};
use crate::projection::record::Record;
use crate::state::AppState;

/// The cancels that wait for a confirmation.
#[derive(Default)]
pub struct CancelWatch(HashMap<OperationId, WaitingCancel>);

struct WaitingCancel {
    /// The attempt that was asked last.
    attempt: u32,
    first_seen: Instant,
    last_sent: Instant,
}

impl CancelWatch {
    /// Looks at every cancel that is not confirmed.
    pub async fn round(&mut self, state: &AppState) {
        let now = Instant::now();
        let open = state.projection.cancelling();
        let ids: HashSet<&OperationId> = open.iter().map(|record| &record.id).collect();
        self.0.retain(|id, _| ids.contains(id));

        let due = open.iter().filter_map(|record| {
            let attempt = record.state.attempt;
            let waiting = self.0.entry(record.id.clone()).or_insert(WaitingCancel {
                attempt,
                first_seen: now,
                last_sent: now,
            });
            let is_taken_over = waiting.attempt != attempt;
            waiting.attempt = attempt;

            // One that its worker released while the cancel was on its way needs no confirmation.
            let is_pending = record.state.status == Status::Pending;
            let is_overdue = now.duration_since(waiting.first_seen) >= state.config.cancel_grace;
            let is_due =
                now.duration_since(waiting.last_sent) >= state.config.protocol.heartbeat_interval;
            if is_pending || is_overdue {
                Some((record, Step::Close))
            } else if is_taken_over || is_due {
                waiting.last_sent = now;
                Some((record, Step::SendAgain))
            } else {
                None
            }
        });
        let due: Vec<_> = due.collect();
        futures::stream::iter(due)
            .for_each_concurrent(SIDE_BY_SIDE, async |(record, step)| match step {
                Step::Close => {
                    let outcome = state.dispatch.force_cancel(record).await;
                    let done = "cancelled without the worker's confirmation";
                    log_outcome(record, done, outcome);
                }
                Step::SendAgain => send_again(state, record).await,
            })
            .await;
    }
}

/// What is done about a cancel that is not confirmed.
enum Step {
    /// The operation ends without its worker.
    Close,
    /// The worker is asked once more.
    SendAgain,
}

async fn send_again(state: &AppState, record: &Record) {
    // Without a name: the first intent says who asked.
    let intent = CancelIntent::new(record.id.clone(), None);
    let sent = state
        .dispatch
        .intend_cancel(&record.queue.worker_type, &intent)
        .await;
    if let Err(error) = sent {
        tracing::warn!(operation_id = %record.id, ?error, "a cancel could not be sent again");
    }
}
