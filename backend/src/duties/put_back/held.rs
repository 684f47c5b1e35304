//! Which start requests a queue holds, as far as its consumer tells. Pure.
//!
//! A consumer does not list the requests that it holds. It says up to which sequence it has delivered,
//! up to which sequence everything is acknowledged, and how many requests in between are not.

use std::sync::Arc;

use async_nats::jetstream::consumer::Info;

use crate::projection::record::{CountingRequest, Record};

/// What a consumer tells about the requests of its queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Everything up to this sequence was acknowledged.
    pub acknowledged: u64,
    /// Everything up to this sequence was delivered; the rest waits in the queue.
    pub delivered: u64,
    /// How many delivered requests are not acknowledged: those that workers have, those whose lease
    /// has ended, and retries that wait.
    pub unacknowledged: usize,
}

/// The operations that a queue may have lost.
#[derive(Debug, Default)]
pub struct Doubtful {
    /// No queue holds them: their request was acknowledged, or is not in the stream.
    pub gone: Vec<Arc<Record>>,
    /// The queue holds some of them at most: those that it may have lost, in the order in which they
    /// are to be put back.
    pub maybe: Vec<Arc<Record>>,
    /// How many of [`Self::maybe`] it has lost at least.
    pub lost: usize,
}

impl Held {
    /// What the server's description of a consumer tells.
    pub fn of(info: &Info) -> Self {
        Self {
            acknowledged: info.ack_floor.stream_sequence,
            delivered: info.delivered.stream_sequence,
            unacknowledged: info.num_ack_pending,
        }
    }

    /// Sorts the open operations of the queue. `may_run` says whether a worker may be running one:
    /// such a one is not in doubt.
    pub fn doubtful(&self, open: Vec<Arc<Record>>, may_run: impl Fn(&Record) -> bool) -> Doubtful {
        let mut found = Doubtful::default();
        let mut in_between = 0;
        for record in open {
            let sequence = match record.request() {
                CountingRequest::Stored(sequence) => sequence,
                CountingRequest::Missing => 0,
            };
            if sequence > self.delivered {
                continue;
            }

            let is_gone = sequence <= self.acknowledged;
            in_between += usize::from(!is_gone);
            if may_run(&record) {
                continue;
            }
            if is_gone {
                found.gone.push(record);
            } else {
                found.maybe.push(record);
            }
        }

        found.lost = in_between.saturating_sub(self.unacknowledged);
        if found.lost == 0 {
            found.maybe.clear();
        }
        // Retries that wait are the ones that a queue is most likely to hold.
        found
            .maybe
            .sort_by_key(|record| record.retry_at().is_some());
        found
    }
}

#[cfg(test)]
mod tests {
    use ktrdr_protocol::execution::ExecutionOptions;
    use ktrdr_protocol::id::{OperationId, WorkerType};
    use ktrdr_protocol::origin::Origin;
    use ktrdr_protocol::start_request::StartRequest;
    use serde_json::value::RawValue;

    use super::*;
    use crate::projection::record::QueueInfo;

    fn pending(sequence: u64) -> Arc<Record> {
        let worker_type = WorkerType::new("dummy").unwrap();
        let request = StartRequest::new(
            OperationId::new(format!("op-{sequence}")).unwrap(),
            worker_type.clone(),
            RawValue::from_string("{}".to_owned()).unwrap(),
            ExecutionOptions::default(),
        );
        let queue = QueueInfo::lone(worker_type, Origin::from_token("any").unwrap());
        Arc::new(Record::new(request, sequence, Arc::new(queue)))
    }

    fn sequences(records: &[Arc<Record>]) -> Vec<u64> {
        records.iter().map(|record| record.start_sequence).collect()
    }

    #[test]
    fn what_was_acknowledged_is_gone_and_what_was_not_delivered_waits() {
        let held = Held {
            acknowledged: 5,
            delivered: 10,
            unacknowledged: 1,
        };

        let found = held.doubtful(vec![pending(5), pending(7), pending(11)], |_| false);

        assert_eq!(sequences(&found.gone), [5]);
        assert_eq!((found.lost, found.maybe.len()), (0, 0));
    }

    #[test]
    fn in_between_only_the_number_tells() {
        let held = Held {
            acknowledged: 5,
            delivered: 10,
            unacknowledged: 2,
        };

        let open = vec![pending(6), pending(7), pending(8)];
        let found = held.doubtful(open, |record| record.start_sequence == 6);

        assert_eq!(found.lost, 1);
        assert_eq!(sequences(&found.maybe), [7, 8]);
    }

    #[test]
    fn a_copy_that_is_not_stored_is_held_by_no_queue() {
        let held = Held {
            acknowledged: 0,
            delivered: 10,
            unacknowledged: 1,
        };
        let mut record = pending(6);
        Arc::make_mut(&mut record).rare_mut().request = Some(CountingRequest::Missing);

        assert_eq!(sequences(&held.doubtful(vec![record], |_| false).gone), [6]);
    }
}
