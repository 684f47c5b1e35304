//! What putting back needs of the model: the copies of start requests, and the operations that a queue
//! may have lost.

use std::sync::Arc;

use ktrdr_protocol::id::OperationId;
use ktrdr_protocol::origin::Origin;
use ktrdr_protocol::start_request::StartRequest;
use ktrdr_protocol::state::Status;

use super::{Applied, Model, applied};
use crate::projection::counters::Transition;
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
        let (_, record) = self
            .find_mut(worker_type, request.operation_id.as_str())
            .ok()?;
        if record.queue.origin != *origin || !Arc::make_mut(record).take_copy(sequence, copy) {
            return None;
        }
        Some(applied(record, Transition::Other))
    }

    /// The ids of all operations that have not ended.
    pub fn open_ids(&self) -> Vec<OperationId> {
        let open = |status| self.list(None, Some(status), 0, usize::MAX, usize::MAX).1;
        let views = [Status::Pending, Status::Running]
            .into_iter()
            .flat_map(open);
        views.map(|view| view.record.id.clone()).collect()
    }

    /// The operations of a queue that have not ended, and whose start request the queue has delivered
    /// when it has delivered everything up to this sequence. Those of a missing copy are among them.
    /// Oldest first.
    pub fn open_delivered(&self, queue: &QueueInfo, up_to: u64) -> Vec<Arc<Record>> {
        let is_delivered = |record: &Arc<Record>| match record.request() {
            CountingRequest::Stored(sequence) => sequence <= up_to,
            CountingRequest::Missing => true,
        };
        // Copies come after the first request, so everything that follows is not delivered.
        self.index
            .open_in_queue(queue.number)
            .filter_map(|number| self.record(number))
            .take_while(|record| record.start_sequence <= up_to)
            .filter(is_delivered)
            .collect()
    }
}
