//! Every subject, stream, consumer and bucket name. No other code builds one from text.
//!
//! | subject | carries | stored in |
//! |---|---|---|
//! | `start.<worker_type>.<origin>` | start requests | operations stream |
//! | `op.<worker_type>.<operation_id>` | events: the operation log | operations stream |
//! | `cancel.<worker_type>.<operation_id>` | cancel intents | operations stream |
//! | `metrics.<worker_type>.<operation_id>` | batches of metric points | metrics stream |
//! | `progress.<worker_type>.<operation_id>` | progress | not stored |
//! | `heartbeat.<worker_type>.<worker_id>` | heartbeats | not stored |
//! | `worker.<worker_id>.<verb>` | requests to one worker | not stored |
//!
//! The worker type comes first, so one wildcard selects everything about one worker type. The
//! operation id is a token of its own, so JetStream keeps one last sequence per operation log.
//! Every token is a checked [name](crate::id), so no token can contain a dot or a wildcard.

use crate::id::{OperationId, Queue, WorkerId, WorkerType};
use crate::origin::Origin;

/// All names under one prefix (default `ktrdr`). Another prefix is another tenant with subjects and
/// streams of its own.
///
/// ```
/// use ktrdr_protocol::id::{OperationId, WorkerType};
/// use ktrdr_protocol::subject::SubjectNames;
///
/// let names = SubjectNames::new("ktrdr")?;
/// let subject = names.operation(&WorkerType::new("training")?, &OperationId::new("op-1")?);
/// assert_eq!(subject, "ktrdr.op.training.op-1");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubjectNames {
    prefix: String,
    upper: String,
}

/// A prefix that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid subject prefix {0:?}: use 1 to 64 of the characters A-Z a-z 0-9 _ -, several tokens separated by dots"
)]
pub struct InvalidPrefix(String);

/// The kind of a message and the ids in its subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topic<'a> {
    /// A start request.
    Start {
        /// The worker type.
        worker_type: &'a str,
        /// The queue.
        queue: &'a str,
    },
    /// A state change.
    Operation {
        /// The worker type.
        worker_type: &'a str,
        /// The operation.
        operation_id: &'a str,
    },
    /// A cancel intent.
    Cancel {
        /// The worker type.
        worker_type: &'a str,
        /// The operation.
        operation_id: &'a str,
    },
}

/// The priority group of every queue consumer.
pub const PRIORITY_GROUP: &str = "workers";

impl SubjectNames {
    /// All names under `prefix`.
    ///
    /// # Errors
    /// [`InvalidPrefix`] when a subject cannot begin with it.
    pub fn new(prefix: &str) -> Result<Self, InvalidPrefix> {
        if prefix.len() > 64 || !prefix.split('.').all(crate::id::is_name) {
            return Err(InvalidPrefix(prefix.to_owned()));
        }
        Ok(Self {
            prefix: prefix.to_owned(),
            upper: prefix.replace('.', "_").to_uppercase(),
        })
    }

    /// The prefix itself.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The stream of start requests, state changes and cancel intents: `KTRDR`.
    pub fn stream(&self) -> String {
        self.upper.clone()
    }

    /// The stream of metric batches: `KTRDR_METRICS`.
    pub fn metrics_stream(&self) -> String {
        format!("{}_METRICS", self.upper)
    }

    /// The KV bucket of the worker-type catalogue: `KTRDR_WORKER_TYPES`.
    pub fn worker_types_bucket(&self) -> String {
        format!("{}_WORKER_TYPES", self.upper)
    }

    /// The object store bucket of large results: `KTRDR_RESULTS`.
    pub fn results_bucket(&self) -> String {
        format!("{}_RESULTS", self.upper)
    }

    /// The KV bucket of checkpoints: `KTRDR_CHECKPOINTS`.
    pub fn checkpoints_bucket(&self) -> String {
        format!("{}_CHECKPOINTS", self.upper)
    }

    /// The subjects of [`Self::stream`].
    pub fn stream_subjects(&self) -> Vec<String> {
        ["start", "op", "cancel"]
            .iter()
            .map(|kind| format!("{}.{kind}.*.*", self.prefix))
            .collect()
    }

    /// The subjects of [`Self::metrics_stream`].
    pub fn metrics_subjects(&self) -> Vec<String> {
        vec![format!("{}.metrics.*.*", self.prefix)]
    }

    /// `start.<worker_type>.<origin>`: a queue's name, or `direct`.
    pub fn start(&self, worker_type: &WorkerType, origin: &Origin) -> String {
        format!("{}.start.{worker_type}.{origin}", self.prefix)
    }

    /// `op.<worker_type>.<operation_id>`.
    pub fn operation(&self, worker_type: &WorkerType, id: &OperationId) -> String {
        format!("{}.op.{worker_type}.{id}", self.prefix)
    }

    /// `cancel.<worker_type>.<operation_id>`.
    pub fn cancel(&self, worker_type: &WorkerType, id: &OperationId) -> String {
        format!("{}.cancel.{worker_type}.{id}", self.prefix)
    }

    /// All cancel intents of one worker type.
    pub fn cancels_of(&self, worker_type: &WorkerType) -> String {
        format!("{}.cancel.{worker_type}.*", self.prefix)
    }

    /// `metrics.<worker_type>.<operation_id>`.
    pub fn metrics(&self, worker_type: &WorkerType, id: &OperationId) -> String {
        format!("{}.metrics.{worker_type}.{id}", self.prefix)
    }

    /// `progress.<worker_type>.<operation_id>`.
    pub fn progress(&self, worker_type: &WorkerType, id: &OperationId) -> String {
        format!("{}.progress.{worker_type}.{id}", self.prefix)
    }

    /// All progress.
    pub fn all_progress(&self) -> String {
        format!("{}.progress.*.*", self.prefix)
    }

    /// `heartbeat.<worker_type>.<worker_id>`.
    pub fn heartbeat(&self, worker_type: &WorkerType, id: &WorkerId) -> String {
        format!("{}.heartbeat.{worker_type}.{id}", self.prefix)
    }

    /// All heartbeats.
    pub fn all_heartbeats(&self) -> String {
        format!("{}.heartbeat.*.*", self.prefix)
    }

    /// A backend that has just started asks every worker for a heartbeat. The subject is one token
    /// shorter than a heartbeat's, so it never matches one.
    pub fn heartbeat_request(&self) -> String {
        format!("{}.heartbeat.request", self.prefix)
    }

    /// `worker.<worker_id>.<verb>`: a request to one worker.
    pub fn worker(&self, id: &WorkerId, verb: &str) -> String {
        format!("{}.worker.{id}.{verb}", self.prefix)
    }

    /// The durable consumer of a queue: `<worker_type>-<queue>`.
    pub fn consumer(&self, worker_type: &WorkerType, queue: &Queue) -> String {
        format!("{worker_type}-{queue}")
    }

    /// The server's advisory that a consumer was created on the operations stream.
    pub fn consumer_created_advisory(&self) -> String {
        format!("$JS.EVENT.ADVISORY.CONSUMER.CREATED.{}.*", self.upper)
    }

    /// JetStream's subject for reading messages of `stream` directly, many with one request.
    pub fn direct_get(stream: &str) -> String {
        format!("$JS.API.DIRECT.GET.{stream}")
    }

    /// Parses a subject of [`Self::stream`]; `None` for any other subject.
    pub fn parse<'a>(&self, subject: &'a str) -> Option<Topic<'a>> {
        let rest = subject.strip_prefix(&self.prefix)?.strip_prefix('.')?;
        let mut tokens = rest.split('.');
        let (kind, worker_type, last) = (tokens.next()?, tokens.next()?, tokens.next()?);
        if tokens.next().is_some() {
            return None;
        }
        match kind {
            "start" => Some(Topic::Start {
                worker_type,
                queue: last,
            }),
            "op" => Some(Topic::Operation {
                worker_type,
                operation_id: last,
            }),
            "cancel" => Some(Topic::Cancel {
                worker_type,
                operation_id: last,
            }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_are_built_and_taken_apart_here() {
        let names = SubjectNames::new("ktrdr").unwrap();
        let worker_type = WorkerType::new("data_processing").unwrap();
        let id = OperationId::new("ABC123").unwrap();
        assert_eq!(names.stream(), "KTRDR");
        assert_eq!(
            names.operation(&worker_type, &id),
            "ktrdr.op.data_processing.ABC123"
        );
        assert_eq!(
            names.parse("ktrdr.op.data_processing.ABC123"),
            Some(Topic::Operation {
                worker_type: "data_processing",
                operation_id: "ABC123"
            })
        );
        for other in [
            "ktrdr",
            "ktrdr.op.a",
            "ktrdr.op.a.b.c",
            "other.op.a.b",
            "ktrdrx.op.a.b",
            "ktrdr.progress.a.b",
        ] {
            assert_eq!(names.parse(other), None, "{other}");
        }
    }

    #[test]
    fn another_prefix_is_another_stream() {
        let names = SubjectNames::new("acme.prod").unwrap();
        assert_eq!(names.stream(), "ACME_PROD");
        assert!(names.parse("acme.prod.start.dummy.any").is_some());
        for bad in ["", ".", "a.", "a..b", "a b", "*", "a.>"] {
            assert!(SubjectNames::new(bad).is_err(), "{bad}");
        }
    }
}
