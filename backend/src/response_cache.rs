//! Rendered responses about operations that have ended.
//!
//! The problem: clients ask for the newest operations over and over. Most of them have ended and
//! will not change any more, and rendering one costs several times as much as finding it.
//!
//! How it is solved: the bytes of the response are kept under the operation's id and the sequence
//! of its last event, which together name one state of the operation. The cache is bounded in
//! bytes, and evicts the responses that are asked for least. A look-up allocates nothing.
//!
//! Rejected: a field in the record, which would make each of perhaps millions of operations larger;
//! and keeping responses of operations that have not ended, since each event would make them
//! useless.

use std::hash::{Hash, Hasher};

use axum::body::Bytes;
use ktrdr_protocol::id::OperationId;
use ktrdr_protocol::time::Timestamp;
use quick_cache::sync::Cache;
use quick_cache::{Equivalent, Weighter};

use crate::projection::record::Record;

/// Bytes of all responses together, at most.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// Longer responses, in bytes, are rendered each time.
const MAX_RESPONSE_BYTES: usize = 4096;

/// Responses that are expected to be kept at a time.
const EXPECTED_RESPONSES: usize = 2048;

/// Responses by operation and state.
pub struct ResponseCache(Cache<StoredKey, Bytes, ByBytes>);

/// One state of one operation.
#[derive(PartialEq, Eq)]
struct Key<'a> {
    id: &'a str,
    last_sequence: u64,
    /// A stream that replaces another one counts from 1 again, so the same id may end at the same
    /// sequence once more, but not in the same millisecond.
    completed_at: Option<Timestamp>,
}

struct StoredKey {
    id: OperationId,
    last_sequence: u64,
    completed_at: Option<Timestamp>,
}

#[derive(Clone)]
struct ByBytes;

impl<'a> Key<'a> {
    /// The state of an operation that has ended; `None` while it may still change.
    fn of(record: &'a Record) -> Option<Self> {
        record.state.status.is_terminal().then(|| Self {
            id: record.id.as_str(),
            last_sequence: record.state.last_sequence,
            completed_at: record.completed_at,
        })
    }
}

impl StoredKey {
    fn borrowed(&self) -> Key<'_> {
        Key {
            id: self.id.as_str(),
            last_sequence: self.last_sequence,
            completed_at: self.completed_at,
        }
    }
}

impl Hash for Key<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id.hash(state);
        self.last_sequence.hash(state);
    }
}

impl Hash for StoredKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.borrowed().hash(state);
    }
}

impl PartialEq for StoredKey {
    fn eq(&self, other: &Self) -> bool {
        self.borrowed() == other.borrowed()
    }
}

impl Eq for StoredKey {}

impl Equivalent<StoredKey> for Key<'_> {
    fn equivalent(&self, stored: &StoredKey) -> bool {
        *self == stored.borrowed()
    }
}

impl Weighter<StoredKey, Bytes> for ByBytes {
    fn weight(&self, _: &StoredKey, response: &Bytes) -> u64 {
        response.len() as u64
    }
}

impl Default for ResponseCache {
    fn default() -> Self {
        Self(Cache::with_weighter(EXPECTED_RESPONSES, MAX_BYTES, ByBytes))
    }
}

impl ResponseCache {
    /// The response about the operation in this very state, if it is kept.
    pub fn find(&self, record: &Record) -> Option<Bytes> {
        self.0.get(&Key::of(record)?)
    }

    /// Keeps a response, if it is short and will be the same next time.
    pub fn keep(&self, record: &Record, response: &Bytes) {
        if response.len() > MAX_RESPONSE_BYTES {
            return;
        }
        if let Some(key) = Key::of(record) {
            let key = StoredKey {
                id: record.id.clone(),
                last_sequence: key.last_sequence,
                completed_at: key.completed_at,
            };
            self.0.insert(key, response.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ktrdr_protocol::execution::ExecutionOptions;
    use ktrdr_protocol::id::WorkerType;
    use ktrdr_protocol::origin::Origin;
    use ktrdr_protocol::start_request::StartRequest;
    use ktrdr_protocol::state::Status;

    use super::*;
    use crate::projection::record::QueueInfo;

    fn record(status: Status) -> Record {
        let worker_type = WorkerType::new("dummy").unwrap();
        let request = StartRequest {
            operation_id: OperationId::new("a").unwrap(),
            operation_type: worker_type.clone(),
            parameters: serde_json::value::RawValue::from_string("{}".into()).unwrap(),
            execution: ExecutionOptions::default(),
            created_at: Timestamp::EPOCH,
            schema_digest: None,
            retry_of: None,
            resume_from: None,
            resume_ancestors: Vec::new(),
            schedule_id: None,
            requested_by: None,
            copy: None,
        };
        let queue = QueueInfo::lone(worker_type, Origin::from_token("any").unwrap());
        let mut record = Record::new(request, 1, Arc::new(queue));
        record.state.status = status;
        record.completed_at = status.is_terminal().then_some(Timestamp::EPOCH);
        record
    }

    #[test]
    fn what_has_ended_is_kept_until_it_is_another_record() {
        let responses = ResponseCache::default();
        let ended = record(Status::Completed);

        responses.keep(&ended, &Bytes::from_static(b"answer"));

        assert_eq!(responses.find(&ended).as_deref(), Some(&b"answer"[..]));
        let mut other_id = ended.clone();
        other_id.id = OperationId::new("b").unwrap();
        assert_eq!(responses.find(&other_id), None);
        let mut later = ended.clone();
        later.state.last_sequence += 1;
        assert_eq!(responses.find(&later), None);
        let mut in_another_stream = ended;
        in_another_stream.completed_at = Some(Timestamp::from_millis(1));
        assert_eq!(responses.find(&in_another_stream), None);
    }

    #[test]
    fn what_may_change_or_is_long_is_not_kept() {
        let responses = ResponseCache::default();

        for status in [Status::Pending, Status::Running] {
            let open = record(status);
            responses.keep(&open, &Bytes::from_static(b"answer"));
            assert_eq!(responses.find(&open), None);
        }

        let ended = record(Status::Failed);
        responses.keep(&ended, &vec![b'x'; MAX_RESPONSE_BYTES + 1].into());
        assert_eq!(responses.find(&ended), None);
    }

    #[test]
    fn all_responses_together_are_bounded() {
        let responses = ResponseCache::default();
        let mut ended = record(Status::Completed);
        let response = Bytes::from(vec![b'x'; MAX_RESPONSE_BYTES]);

        for sequence in 0..4 * MAX_BYTES / MAX_RESPONSE_BYTES as u64 {
            ended.state.last_sequence = sequence;
            responses.keep(&ended, &response);
        }

        assert!(responses.0.weight() <= MAX_BYTES);
        assert!(responses.0.weight() > MAX_BYTES / 2);
    }
}
