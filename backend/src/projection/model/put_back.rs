//! What putting back needs of the model: the copies of start requests, and the operations that a queue
//! may have lost.

use std::sync::Arc;

use ktrdr_protocol::id::OperationId;
use ktrdr_protocol::origin::Origin;
use ktrdr_protocol::start_request::StartRequest;
use ktrdr_protocol::state::Status;

use super::{Applied, Model, applied};
use crate::projection::counters::Transition;
use crate::projection::index::Selection;
use crate::projection::record::{CountingRequest, QueueInfo, Record};

impl Model {
    /// Takes the copy that puts an operation back, if its log has named it.
    pub(super) fn take_copy(
        &mut self,
        sequence: u64,
        origin: &Origin,
        request: &StartRequest,
    ) -> Option<Applied> {
        let copy = request.copy.as_ref()?;
        let worker_type = request.operation_type.as_str();
        let (number, record) = self
            .find_mut(worker_type, request.operation_id.as_str())
            .ok()?;
        if record.queue.origin != *origin || !Arc::make_mut(record).take_copy(sequence, copy) {
            return None;
        }
        let taken = applied(record, Transition::Other);
        self.missing.remove(number);
        Some(taken)
    }

    /// Notes whether the copy is missing that the log of an operation names.
    pub(super) fn note_missing(&mut self, number: u32, is_missing: bool) {
        if is_missing {
            self.missing.insert(number);
        } else if !self.missing.is_empty() {
            self.missing.remove(number);
        }
    }

    /// The ids of all operations that have not ended.
    pub fn open_ids(&self) -> Vec<OperationId> {
        let open = self.index.matching(Selection {
            statuses: &[Status::Pending, Status::Running],
            ..Selection::default()
        });
        open.iter()
            .filter_map(|number| Some(self.record(number)?.id.clone()))
            .collect()
    }

    /// The operations of a queue that have not ended, and whose start request the queue has delivered
    /// when it has delivered everything up to this sequence. Those of a missing copy follow.
    pub fn open_delivered(&self, queue: &QueueInfo, up_to: u64) -> Vec<Arc<Record>> {
        let is_delivered = |record: &Arc<Record>| match record.request() {
            CountingRequest::Stored(sequence) => sequence <= up_to,
            CountingRequest::Missing => false,
        };
        // Copies come after the first request, so everything that follows is not delivered.
        let delivered = self
            .index
            .open_in_queue(queue.number)
            .filter_map(|number| self.record(number))
            .take_while(|record| record.start_sequence <= up_to)
            .filter(is_delivered);
        let missing = self.missing.iter().filter_map(|number| self.record(number));
        let missing = missing.filter(|record| {
            record.queue.number == queue.number && !record.state.status.is_terminal()
        });
        delivered.chain(missing).collect()
    }
}
