//! The wish that no operation of a worker type starts for a while.
//!
//! The problem: a queue is paused in its consumer, but consumers come and go: a queue is made by the
//! first start that needs it, and a broker may lose one. And a consumer that is paused for another
//! reason must go on.
//!
//! How it is solved: the wish is stored in the bucket of worker types, at the key [`pause_key`]. Each
//! write names the revision that it replaces. Backends bring every consumer of the type in line with
//! it, and resume those that nobody wanted paused.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::WorkerType;
use crate::time::Timestamp;

/// What stands at the key while the queues of a worker type are paused.
///
/// ```
/// use ktrdr_protocol::queue_pause::QueuePause;
///
/// let pause: QueuePause = serde_json::from_str(r#"{"until":null}"#)?;
/// assert!(pause.until.is_none());
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct QueuePause {
    /// When the queues go on by themselves; `None` when somebody must resume them.
    pub until: Option<Timestamp>,
}

impl QueuePause {
    /// Until when the consumers are paused. They need a time; this one is far enough.
    pub fn end(self) -> Timestamp {
        self.until
            .unwrap_or_else(|| Timestamp::from_millis(FAR_MILLIS))
    }

    /// Whether it is over.
    pub fn is_over(self, now: Timestamp) -> bool {
        self.until.is_some_and(|until| until <= now)
    }
}

/// 2200-01-01T00:00:00Z, in milliseconds.
const FAR_MILLIS: i64 = 7_258_118_400_000;

/// The key of the pause in the bucket `KTRDR_WORKER_TYPES`. No worker type can have this name,
/// because it has a dot in it.
pub fn pause_key(worker_type: &WorkerType) -> String {
    format!("{PAUSE_KEY}{worker_type}")
}

/// The worker type whose pause is at this key; `None` for another key.
pub fn worker_type_of_pause_key(key: &str) -> Option<&str> {
    key.strip_prefix(PAUSE_KEY)
}

const PAUSE_KEY: &str = "pause.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_without_an_end_is_never_over() {
        let pause = QueuePause { until: None };
        let now = Timestamp::now();

        assert!(!pause.is_over(now));
        assert_eq!(pause.end().to_string(), "2200-01-01T00:00:00.000Z");
        assert!(QueuePause { until: Some(now) }.is_over(now));
    }

    #[test]
    fn its_key_is_no_worker_type() {
        let key = pause_key(&WorkerType::new("data-processing").unwrap());

        assert_eq!(worker_type_of_pause_key(&key), Some("data-processing"));
        assert!(!crate::id::is_name(&key));
    }
}
