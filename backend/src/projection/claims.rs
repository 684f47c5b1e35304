//! The log line about a claim. Under load only some claims have one, so that lines cost neither time
//! nor disk.

use ktrdr_bus::telemetry::Repeated;
use ktrdr_protocol::event::EventKind;
use ktrdr_protocol::id::{OperationId, WorkerId};

use super::decode::Content;

/// Claims that have a line of their own at level info, per minute.
pub(super) const LINES_PER_MINUTE: u32 = 60;

/// A claim that is logged.
pub(super) struct Claim {
    operation_id: OperationId,
    worker_id: WorkerId,
    /// How many claims the line stands for at level info; `None` at level debug.
    claims: Option<u64>,
}

impl Claim {
    /// The claim that this message is, when a line of it is due. At level debug each one has a
    /// line.
    pub(super) fn of(content: &Content<'_>, lines: &Repeated) -> Option<Self> {
        let Content::Event { event, .. } = content else {
            return None;
        };
        let (EventKind::Started { .. }, Some(worker_id)) = (&event.kind, &event.worker_id) else {
            return None;
        };

        let claims = lines.note();
        if claims.is_none() && !tracing::enabled!(tracing::Level::DEBUG) {
            return None;
        }
        Some(Self {
            operation_id: event.operation_id.clone(),
            worker_id: worker_id.clone(),
            claims,
        })
    }

    pub(super) fn log(self) {
        let Self {
            operation_id,
            worker_id,
            claims,
        } = self;
        match claims {
            Some(claims) => {
                tracing::info!(%operation_id, %worker_id, claims, "Selected worker: {worker_id}");
            }
            None => tracing::debug!(%operation_id, %worker_id, "Selected worker: {worker_id}"),
        }
    }
}
