//! Cancels that were requested and not confirmed: they are sent again, and after the cancel grace
//! the operation is closed without its worker.

use std::collections::HashMap;

use ktrdr_protocol::cancel::CancelIntent;
use ktrdr_protocol::id::OperationId;
use ktrdr_protocol::state::Status;
use tokio::time::Instant;

use super::log_outcome;
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
        self.0
            .retain(|id, _| open.iter().any(|record| record.id == *id));

        for record in open {
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
                let outcome = state.dispatch.force_cancel(&record).await;
                log_outcome(
                    &record,
                    "cancelled without the worker's confirmation",
                    outcome,
                );
            } else if is_taken_over || is_due {
                waiting.last_sent = now;
                send_again(state, &record).await;
            }
        }
    }
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
