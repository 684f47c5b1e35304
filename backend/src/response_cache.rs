//! Answers about operations that have ended, kept as they were written: the newest ones are asked for over and over, and what
//! has ended does not change.

use std::sync::Arc;

use axum::body::Bytes;
use parking_lot::Mutex;

use crate::projection::record::Record;

/// How many answers are kept, at the most.
const PLACES: usize = 1024;

/// Longer answers, in bytes, are written anew each time: together the others take a few megabytes at the most.
const LONGEST: usize = 4096;

/// The answers. Each operation has one place, which it shares with others: the last one asked for is there.
pub struct ResponseCache(Box<[Mutex<Option<Kept>>]>);

struct Kept {
    /// Held, so it cannot change in place and its address is nobody else's: the same address is the same operation in the same
    /// state.
    of: Arc<Record>,
    answer: Bytes,
}

impl Default for ResponseCache {
    fn default() -> Self {
        Self((0..PLACES).map(|_| Mutex::default()).collect())
    }
}

impl ResponseCache {
    /// The answer about this very record, if it is kept.
    pub fn find(&self, record: &Arc<Record>) -> Option<Bytes> {
        let place = self.place(record)?.lock();
        place
            .as_ref()
            .filter(|kept| Arc::ptr_eq(&kept.of, record))
            .map(|kept| kept.answer.clone())
    }

    /// Keeps an answer, if it is one that will be the same next time.
    pub fn keep(&self, record: &Arc<Record>, answer: &Bytes) {
        if record.state.status.is_terminal()
            && answer.len() <= LONGEST
            && let Some(place) = self.place(record)
        {
            // What was there is dropped after the lock.
            let _old = place.lock().replace(Kept {
                of: Arc::clone(record),
                answer: answer.clone(),
            });
        }
    }

    fn place(&self, record: &Arc<Record>) -> Option<&Mutex<Option<Kept>>> {
        // Addresses are multiples of a record's size, more or less.
        self.0
            .get(Arc::as_ptr(record).addr() / size_of::<Record>() % PLACES)
    }
}

#[cfg(test)]
mod tests {
    use ktrdr_protocol::execution::ExecutionOptions;
    use ktrdr_protocol::id::{OperationId, WorkerType};
    use ktrdr_protocol::origin::Origin;
    use ktrdr_protocol::start_request::StartRequest;
    use ktrdr_protocol::state::Status;
    use ktrdr_protocol::time::Timestamp;

    use super::*;
    use crate::projection::record::QueueInfo;

    fn record(status: Status) -> Arc<Record> {
        let worker_type = WorkerType::new("dummy").unwrap();
        let request = StartRequest {
            operation_id: OperationId::new("a").unwrap(),
            operation_type: worker_type.clone(),
            parameters: serde_json::value::RawValue::from_string("{}".into()).unwrap(),
            execution: ExecutionOptions::default(),
            created_at: Timestamp::EPOCH,
            retry_of: None,
            resume_from: None,
        };
        let queue = QueueInfo {
            number: 0,
            type_number: 0,
            worker_type,
            origin: Origin::from_token("any").unwrap(),
        };
        let mut record = Record::new(request, 1, Arc::new(queue));
        record.state.status = status;
        Arc::new(record)
    }

    #[test]
    fn what_has_ended_is_kept_until_it_is_another_record() {
        let written = ResponseCache::default();
        let mut ended = record(Status::Completed);
        written.keep(&ended, &Bytes::from_static(b"answer"));
        assert_eq!(written.find(&ended).as_deref(), Some(&b"answer"[..]));
        // As the projection changes a record: one that is held elsewhere is copied.
        Arc::make_mut(&mut ended).updated_at = Timestamp::from_millis(1);
        assert_eq!(written.find(&ended), None);
    }

    #[test]
    fn what_may_change_or_is_long_is_not_kept() {
        let written = ResponseCache::default();
        for status in [Status::Pending, Status::Running] {
            let open = record(status);
            written.keep(&open, &Bytes::from_static(b"answer"));
            assert_eq!(written.find(&open), None);
        }
        let ended = record(Status::Failed);
        written.keep(&ended, &vec![b'x'; LONGEST + 1].into());
        assert_eq!(written.find(&ended), None);
    }
}
