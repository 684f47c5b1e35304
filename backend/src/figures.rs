//! Figures that nobody sees in passing: how full streams and queues are, how old unfinished work is.
//!
//! The duty [`crate::duties`] looks every ten seconds and keeps what it found here. `/metrics` shows
//! it, however often it is asked: a page costs the server nothing.

use ktrdr_http::metrics::register_gauges;
use ktrdr_protocol::id::{Queue, WorkerType};
use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::registry::Registry;

/// Worker types, queues or streams on the page, at most.
const MAX_SHOWN: usize = 200;

/// What the last look found.
#[derive(Debug, Default)]
pub struct Figures {
    streams: Mutex<Vec<StreamFigures>>,
    queues: Mutex<Vec<QueueFigures>>,
    work: Mutex<Vec<WorkFigures>>,
}

/// A stream, or the stream behind a bucket.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamFigures {
    /// Its name.
    pub stream: String,
    /// Bytes that it holds.
    pub bytes: u64,
    /// Bytes that it may hold; `None` without a limit.
    pub max_bytes: Option<u64>,
    /// For how long it keeps messages, in seconds; `None` without a limit.
    pub max_age: Option<f64>,
    /// Whether it refuses messages when it is full, instead of dropping the oldest.
    pub refuses: bool,
}

/// The consumer of a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueFigures {
    /// The worker type.
    pub worker_type: WorkerType,
    /// The queue.
    pub queue: Queue,
    /// Start requests that no worker was given yet.
    pub undelivered: u64,
    /// Start requests that workers hold, or whose retry waits.
    pub unacknowledged: u64,
    /// How many of those there may be; `None` without a limit.
    pub unacknowledged_limit: Option<u64>,
}

/// The unfinished operations of one worker type.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkFigures {
    /// The worker type.
    pub worker_type: WorkerType,
    /// Age of the oldest operation that has not ended, in seconds.
    pub oldest_age: f64,
    /// The longest time since a running operation reported something new, in seconds.
    pub progress_age: f64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StreamLabels {
    stream: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QueueLabels {
    worker_type: String,
    queue: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TypeLabels {
    worker_type: String,
}

impl StreamFigures {
    fn labels(&self) -> StreamLabels {
        StreamLabels {
            stream: self.stream.clone(),
        }
    }
}

impl QueueFigures {
    fn labels(&self) -> QueueLabels {
        QueueLabels {
            worker_type: self.worker_type.to_string(),
            queue: self.queue.to_string(),
        }
    }
}

impl WorkFigures {
    fn labels(&self) -> TypeLabels {
        TypeLabels {
            worker_type: self.worker_type.to_string(),
        }
    }
}

impl Figures {
    /// Takes what the server says about the streams.
    pub fn set_streams(&self, mut streams: Vec<StreamFigures>) {
        streams.truncate(MAX_SHOWN);
        *self.streams.lock() = streams;
    }

    /// For how long a stream keeps messages, in seconds; `None` without a limit, or before the first
    /// look.
    pub fn max_age(&self, stream: &str) -> Option<f64> {
        let streams = self.streams.lock();
        let found = streams.iter().find(|found| found.stream == stream);
        found.and_then(|found| found.max_age)
    }

    /// Takes what the server says about the consumers of queues. Empty queues are left out, except
    /// those without requirements.
    pub fn set_queues(&self, mut queues: Vec<QueueFigures>) {
        queues.retain(|found| {
            found.undelivered + found.unacknowledged > 0 || found.queue.as_str() == "any"
        });
        queues.truncate(MAX_SHOWN);
        *self.queues.lock() = queues;
    }

    /// Takes how old unfinished work is.
    pub fn set_work(&self, mut work: Vec<WorkFigures>) {
        work.truncate(MAX_SHOWN);
        *self.work.lock() = work;
    }

    /// Adds all figures to the page.
    pub fn register(&self, page: &mut Registry) {
        self.register_streams(page);
        self.register_queues(page);
        self.register_work(page);
    }

    fn register_streams(&self, page: &mut Registry) {
        let streams = self.streams.lock().clone();
        register_gauges(
            page,
            "ktrdr_stream_bytes",
            "Bytes in each stream and bucket, at the last look.",
            streams
                .iter()
                .map(|found| (found.labels(), found.bytes as f64)),
        );
        let limits = streams
            .iter()
            .filter_map(|found| Some((found.labels(), found.max_bytes? as f64)));
        register_gauges(
            page,
            "ktrdr_stream_max_bytes",
            "Bytes that each stream and bucket may hold; left out without a limit.",
            limits,
        );
        let ages = streams
            .iter()
            .filter_map(|found| Some((found.labels(), found.max_age?)));
        register_gauges(
            page,
            "ktrdr_stream_max_age_seconds",
            "For how long each stream and bucket keeps messages; left out without a limit.",
            ages,
        );
    }

    fn register_queues(&self, page: &mut Registry) {
        let queues = self.queues.lock().clone();
        register_gauges(
            page,
            "ktrdr_queue_undelivered",
            "Start requests that no worker was given yet.",
            queues
                .iter()
                .map(|found| (found.labels(), found.undelivered as f64)),
        );
        register_gauges(
            page,
            "ktrdr_queue_unacknowledged",
            "Start requests that workers hold, or whose retry waits.",
            queues
                .iter()
                .map(|found| (found.labels(), found.unacknowledged as f64)),
        );
        let limits = queues
            .iter()
            .filter_map(|found| Some((found.labels(), found.unacknowledged_limit? as f64)));
        register_gauges(
            page,
            "ktrdr_queue_unacknowledged_limit",
            "How many of those there may be; left out without a limit.",
            limits,
        );
    }

    fn register_work(&self, page: &mut Registry) {
        let work = self.work.lock().clone();
        register_gauges(
            page,
            "ktrdr_unfinished_oldest_age_seconds",
            "Age of the oldest operation that has not ended; 0 when there is none.",
            work.iter().map(|found| (found.labels(), found.oldest_age)),
        );
        register_gauges(
            page,
            "ktrdr_running_progress_age_seconds",
            "Longest time since a running operation reported something new; 0 when none runs.",
            work.iter()
                .map(|found| (found.labels(), found.progress_age)),
        );
    }
}
