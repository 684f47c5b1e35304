//! The list of the queues of one worker type. Backends write it, workers follow it.
//!
//! The problem: a worker must know which queues there are. If it asked the server, it would need
//! the right to list the consumers of all worker types, and to create its own.
//!
//! How it is solved: backends alone make and remove queues, and write their names into the bucket
//! of worker types, at the key [`queues_key`]. Each write names the revision that it replaces. A
//! consumer is made before its queue is listed, and the queue leaves the list before its consumer
//! is removed.
//!
//! Rejected: the list as a part of the worker type's own entry, which its workers may write.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;

use crate::id::{Queue, WorkerType};
use crate::subject::SubjectNames;

/// Most queues of one list that are believed. There are fewer classes; the rest is for queues of
/// earlier versions.
pub const MAX_QUEUES: usize = 1024;

/// The queues of a worker type, by name.
///
/// ```
/// use ktrdr_protocol::queue_list::QueueList;
///
/// let list: QueueList = serde_json::from_str(
///     r#"{"queues":[{"queue":"any","consumer":"training-any","lease_ms":30000}]}"#,
/// )?;
/// assert_eq!(list.queues[0].queue.as_str(), "any");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct QueueList {
    /// Ordered by name.
    #[serde(default)]
    pub queues: Vec<ListedQueue>,
    /// The retention in force, in milliseconds; `None` in a list of an earlier version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention_ms: Option<u64>,
}

/// One queue of a [`QueueList`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ListedQueue {
    /// The queue.
    pub queue: Queue,
    /// Its consumer on the operations stream.
    pub consumer: String,
    /// The lease of its requests, in milliseconds: the `ack_wait` of the consumer, or a shorter one
    /// that the consumer is about to get.
    pub lease_ms: u64,
}

impl QueueList {
    /// Whether it names this queue.
    pub fn names(&self, queue: &Queue) -> bool {
        self.find(queue).is_ok()
    }

    /// The lease of a queue.
    pub fn lease(&self, queue: &Queue) -> Option<Duration> {
        let place = self.find(queue).ok()?;
        Some(Duration::from_millis(self.queues[place].lease_ms))
    }

    /// Changes the retention.
    pub fn set_retention(&mut self, retention: Duration) {
        self.retention_ms = Some(millis(retention));
    }

    /// Adds a queue, or changes its lease.
    pub fn set(&mut self, names: &SubjectNames, of: &WorkerType, queue: &Queue, lease: Duration) {
        let listed = ListedQueue {
            queue: queue.clone(),
            consumer: names.consumer(of, queue),
            lease_ms: millis(lease),
        };
        match self.find(queue) {
            Ok(place) => self.queues[place] = listed,
            Err(place) => self.queues.insert(place, listed),
        }
    }

    /// Removes a queue.
    pub fn remove(&mut self, queue: &Queue) {
        self.queues.retain(|listed| listed.queue != *queue);
    }

    /// The queues that can be those of this worker type, sorted: the consumer has the name that it
    /// must have, and the lease has a length.
    #[must_use]
    pub fn believed(mut self, names: &SubjectNames, worker_type: &WorkerType) -> Self {
        self.queues.truncate(MAX_QUEUES);
        self.queues.retain(|listed| {
            listed.lease_ms > 0 && listed.consumer == names.consumer(worker_type, &listed.queue)
        });
        self.queues.sort_by(|a, b| a.queue.cmp(&b.queue));
        self.queues.dedup_by(|a, b| a.queue == b.queue);
        self
    }

    fn find(&self, queue: &Queue) -> Result<usize, usize> {
        self.queues
            .binary_search_by(|listed| listed.queue.cmp(queue))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The key of the list in the bucket `KTRDR_WORKER_TYPES`. No worker type can have this name,
/// because it has a dot in it.
pub fn queues_key(worker_type: &WorkerType) -> String {
    format!("{QUEUES_KEY}{worker_type}")
}

/// The worker type whose queues are listed at this key; `None` for another key.
pub fn worker_type_of_queues_key(key: &str) -> Option<&str> {
    key.strip_prefix(QUEUES_KEY)
}

const QUEUES_KEY: &str = "queues.";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::requirements::Requirements;

    fn queue(name: &str) -> Queue {
        Requirements::from_queue(name).unwrap().queue()
    }

    #[test]
    fn it_stays_sorted_and_has_each_queue_once() {
        let names = SubjectNames::new("ktrdr").unwrap();
        let dummy = WorkerType::new("dummy").unwrap();
        let mut list = QueueList::default();

        for (name, seconds) in [("gpu", 1), ("any", 1), ("cores8", 1), ("gpu", 2)] {
            list.set(&names, &dummy, &queue(name), Duration::from_secs(seconds));
        }
        list.remove(&queue("cores8"));

        let written = serde_json::to_value(&list).unwrap();
        assert_eq!(
            written,
            serde_json::json!({"queues": [
                {"queue": "any", "consumer": "dummy-any", "lease_ms": 1000},
                {"queue": "gpu", "consumer": "dummy-gpu", "lease_ms": 2000},
            ]})
        );
        assert_eq!(serde_json::from_value::<QueueList>(written).unwrap(), list);
        assert!(list.names(&queue("gpu")) && !list.names(&queue("cores8")));
    }

    #[test]
    fn a_consumer_of_another_type_is_not_believed() {
        let names = SubjectNames::new("ktrdr").unwrap();
        let dummy = WorkerType::new("dummy").unwrap();
        let text = r#"{"future": 1, "queues": [
            {"queue": "gpu", "consumer": "dummy-gpu", "lease_ms": 1, "more": true},
            {"queue": "any", "consumer": "training-any", "lease_ms": 1000},
            {"queue": "cores8", "consumer": "dummy-cores8", "lease_ms": 0},
            {"queue": "any", "consumer": "dummy-any", "lease_ms": 1000}
        ]}"#;

        let list: QueueList = serde_json::from_str(text).unwrap();
        let list = list.believed(&names, &dummy);

        let found: Vec<_> = list.queues.iter().map(|l| l.queue.as_str()).collect();
        assert_eq!(found, ["any", "gpu"]);
    }

    #[test]
    fn its_key_is_no_worker_type() {
        let key = queues_key(&WorkerType::new("data-processing").unwrap());

        assert_eq!(key, "queues.data-processing");
        assert_eq!(worker_type_of_queues_key(&key), Some("data-processing"));
        assert_eq!(worker_type_of_queues_key("domain.queues"), None);
        assert!(!crate::id::is_name(&key));
    }
}
