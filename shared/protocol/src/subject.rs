//! Every subject, stream, consumer and bucket name. No other code builds one from text.
//!
//! | subject | carries | stored in |
//! |---|---|---|
//! | `start.<worker_type>.<origin>` | start requests | operations stream |
//! | `op.<worker_type>.<operation_id>` | events: the operation log | operations stream |
//! | `cancel.<worker_type>.<operation_id>` | cancel intents | operations stream |
//! | `key.<worker_type>.<kind>.<digest>` | entries of a key: which operations hold it | operations stream |
//! | `metrics.<worker_type>.<operation_id>` | batches of metric points | metrics stream |
//! | `logs.<worker_type>.<operation_id>` | batches of log lines | log stream |
//! | `progress.<worker_type>.<operation_id>` | progress | not stored |
//! | `heartbeat.<worker_type>.<worker_id>` | heartbeats | not stored |
//! | `worker.<worker_id>.<verb>` | requests to one worker | not stored |
//!
//! The worker type comes first, so one wildcard selects everything about one worker type. The
//! operation id is a token of its own, so JetStream keeps one last sequence per operation log.
//! Every token is a checked [name](crate::id), so no token can contain a dot or a wildcard.

use crate::cancel::CancelIntent;
use crate::event::Event;
use crate::id::{OperationId, Queue, ScheduleId, WorkerId, WorkerType};
use crate::keys::{self, Key, KeyDigest, KeyEntry, KeyKind};
use crate::log_line::LogBatch;
use crate::metric::MetricBatch;
use crate::origin::Origin;
use crate::progress::ProgressMessage;
use crate::start_request::StartRequest;
use crate::worker::Heartbeat;

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
    /// An entry of a key.
    Key {
        /// The worker type.
        worker_type: &'a str,
        /// Kind and digest of the key.
        tokens: &'a str,
    },
}

/// A message whose body repeats names that are in its subject.
///
/// Permissions of the server are about subjects, so only the subject says who may have published a
/// message. [`SubjectNames::check`] refuses a body that says something else.
pub trait Addressed {
    /// The token of its subjects behind the prefix.
    const TOPIC: &'static str;

    /// The field that repeats the worker type, and its value; `None` when only the subject names
    /// it.
    fn worker_type(&self) -> Option<(&'static str, &WorkerType)> {
        None
    }

    /// The field that repeats the last token, and its value; `None` when only the subject has it.
    fn last_token(&self) -> Option<(&'static str, &str)> {
        None
    }

    /// Checks that the body agrees with its subject: the worker type, and what is behind it.
    ///
    /// # Errors
    /// [`SubjectMismatch::Field`] when it does not.
    fn agrees(&self, worker_type: &str, last: &str) -> Result<(), SubjectMismatch> {
        match (self.worker_type(), self.last_token()) {
            (Some((field, named)), _) if named.as_str() != worker_type => {
                Err(SubjectMismatch::Field(field))
            }
            (_, Some((field, named))) if named != last => Err(SubjectMismatch::Field(field)),
            _ => Ok(()),
        }
    }
}

/// Why a message is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SubjectMismatch {
    /// No message of this kind belongs on the subject.
    #[error("its subject is not one of ours")]
    Foreign,
    /// The body contradicts the subject.
    #[error("its {0} is not the one in its subject")]
    Field(&'static str),
}

impl Addressed for StartRequest {
    const TOPIC: &'static str = "start";

    fn worker_type(&self) -> Option<(&'static str, &WorkerType)> {
        Some(("operation_type", &self.operation_type))
    }
}

impl Addressed for Event {
    const TOPIC: &'static str = "op";

    fn last_token(&self) -> Option<(&'static str, &str)> {
        Some(("operation_id", self.operation_id.as_str()))
    }
}

impl Addressed for CancelIntent {
    const TOPIC: &'static str = "cancel";

    fn last_token(&self) -> Option<(&'static str, &str)> {
        Some(("operation_id", self.operation_id.as_str()))
    }
}

impl Addressed for MetricBatch {
    const TOPIC: &'static str = "metrics";

    fn last_token(&self) -> Option<(&'static str, &str)> {
        Some(("operation_id", self.operation_id.as_str()))
    }
}

impl Addressed for LogBatch {
    const TOPIC: &'static str = "logs";

    fn last_token(&self) -> Option<(&'static str, &str)> {
        Some(("operation_id", self.operation_id.as_str()))
    }
}

impl Addressed for ProgressMessage {
    const TOPIC: &'static str = "progress";

    fn last_token(&self) -> Option<(&'static str, &str)> {
        Some(("operation_id", self.operation_id.as_str()))
    }
}

impl Addressed for Heartbeat {
    const TOPIC: &'static str = "heartbeat";

    fn worker_type(&self) -> Option<(&'static str, &WorkerType)> {
        Some(("worker_type", &self.worker_type))
    }

    fn last_token(&self) -> Option<(&'static str, &str)> {
        Some(("worker_id", self.worker_id.as_str()))
    }
}

/// The durable consumer of rings, which all backends share.
pub const SCHEDULES_CONSUMER: &str = "schedules";

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

    /// The stream of start requests, state changes, cancel intents and keys: `KTRDR`.
    pub fn stream(&self) -> String {
        self.upper.clone()
    }

    /// The stream of metric batches: `KTRDR_METRICS`.
    pub fn metrics_stream(&self) -> String {
        format!("{}_METRICS", self.upper)
    }

    /// The stream of log lines: `KTRDR_LOGS`.
    pub fn logs_stream(&self) -> String {
        format!("{}_LOGS", self.upper)
    }

    /// The KV bucket of the worker-type catalogue: `KTRDR_WORKER_TYPES`.
    pub fn worker_types_bucket(&self) -> String {
        format!("{}_WORKER_TYPES", self.upper)
    }

    /// The subject on which the list of a worker type's queues is written:
    /// `$KV.KTRDR_WORKER_TYPES.queues.<worker_type>`.
    pub fn queue_list(&self, worker_type: &WorkerType) -> String {
        let key = crate::queue_list::queues_key(worker_type);
        format!("$KV.{}.{key}", self.worker_types_bucket())
    }

    /// The object store bucket of large results of all worker types: `KTRDR_RESULTS`. Version 0.1.0
    /// knows no other.
    pub fn results_bucket(&self) -> String {
        format!("{}_RESULTS", self.upper)
    }

    /// The object store bucket of large results of one worker type: `KTRDR_RESULTS_of_training`. The
    /// small letters keep it apart from the names of every other prefix.
    pub fn results_bucket_of(&self, worker_type: &WorkerType) -> String {
        format!("{}_RESULTS_of_{worker_type}", self.upper)
    }

    /// The KV bucket of checkpoints: `KTRDR_CHECKPOINTS`.
    pub fn checkpoints_bucket(&self) -> String {
        format!("{}_CHECKPOINTS", self.upper)
    }

    /// The subjects of [`Self::stream`].
    pub fn stream_subjects(&self) -> Vec<String> {
        vec![
            self.all_starts(),
            self.all_operations(),
            self.all_cancels(),
            self.all_keys(),
        ]
    }

    /// The subjects of [`Self::metrics_stream`].
    pub fn metrics_subjects(&self) -> Vec<String> {
        vec![format!("{}.metrics.*.*", self.prefix)]
    }

    /// The subjects of [`Self::logs_stream`].
    pub fn logs_subjects(&self) -> Vec<String> {
        vec![format!("{}.logs.*.*", self.prefix)]
    }

    /// `start.<worker_type>.<origin>`: a queue's name, or `direct`.
    pub fn start(&self, worker_type: &WorkerType, origin: &Origin) -> String {
        format!("{}.start.{worker_type}.{origin}", self.prefix)
    }

    /// The start requests of one worker type.
    pub fn starts_of(&self, worker_type: &WorkerType) -> String {
        format!("{}.start.{worker_type}.*", self.prefix)
    }

    /// All start requests.
    pub fn all_starts(&self) -> String {
        format!("{}.start.*.*", self.prefix)
    }

    /// `op.<worker_type>.<operation_id>`.
    pub fn operation(&self, worker_type: &WorkerType, id: &OperationId) -> String {
        format!("{}.op.{worker_type}.{id}", self.prefix)
    }

    /// The events of all operations.
    pub fn all_operations(&self) -> String {
        format!("{}.op.*.*", self.prefix)
    }

    /// The events of one worker type.
    pub fn operations_of(&self, worker_type: &WorkerType) -> String {
        format!("{}.op.{worker_type}.*", self.prefix)
    }

    /// `cancel.<worker_type>.<operation_id>`.
    pub fn cancel(&self, worker_type: &WorkerType, id: &OperationId) -> String {
        format!("{}.cancel.{worker_type}.{id}", self.prefix)
    }

    /// All cancel intents.
    pub fn all_cancels(&self) -> String {
        format!("{}.cancel.*.*", self.prefix)
    }

    /// All cancel intents of one worker type.
    pub fn cancels_of(&self, worker_type: &WorkerType) -> String {
        format!("{}.cancel.{worker_type}.*", self.prefix)
    }

    /// `key.<worker_type>.<kind>.<digest>`: who holds a key.
    pub fn key(&self, worker_type: &WorkerType, kind: KeyKind, key: &Key) -> String {
        self.key_with(worker_type, kind, KeyDigest::of(key))
    }

    /// The same for a key of which only the digest is known.
    pub fn key_with(&self, worker_type: &WorkerType, kind: KeyKind, digest: KeyDigest) -> String {
        let tokens = keys::tokens_of(kind, digest);
        format!("{}.key.{worker_type}.{tokens}", self.prefix)
    }

    /// All keys.
    pub fn all_keys(&self) -> String {
        format!("{}.key.*.*.*", self.prefix)
    }

    /// All keys of one kind and worker type.
    pub fn keys_of(&self, worker_type: &WorkerType, kind: KeyKind) -> String {
        let kind = kind.as_str();
        format!("{}.key.{worker_type}.{kind}.*", self.prefix)
    }

    /// `metrics.<worker_type>.<operation_id>`.
    pub fn metrics(&self, worker_type: &WorkerType, id: &OperationId) -> String {
        format!("{}.metrics.{worker_type}.{id}", self.prefix)
    }

    /// All metric batches of one worker type.
    pub fn metrics_of(&self, worker_type: &WorkerType) -> String {
        format!("{}.metrics.{worker_type}.*", self.prefix)
    }

    /// `logs.<worker_type>.<operation_id>`.
    pub fn logs(&self, worker_type: &WorkerType, id: &OperationId) -> String {
        format!("{}.logs.{worker_type}.{id}", self.prefix)
    }

    /// All log lines of one worker type.
    pub fn logs_of(&self, worker_type: &WorkerType) -> String {
        format!("{}.logs.{worker_type}.*", self.prefix)
    }

    /// `progress.<worker_type>.<operation_id>`.
    pub fn progress(&self, worker_type: &WorkerType, id: &OperationId) -> String {
        format!("{}.progress.{worker_type}.{id}", self.prefix)
    }

    /// All progress.
    pub fn all_progress(&self) -> String {
        format!("{}.progress.*.*", self.prefix)
    }

    /// All progress of one worker type.
    pub fn progress_of(&self, worker_type: &WorkerType) -> String {
        format!("{}.progress.{worker_type}.*", self.prefix)
    }

    /// `heartbeat.<worker_type>.<worker_id>`.
    pub fn heartbeat(&self, worker_type: &WorkerType, id: &WorkerId) -> String {
        format!("{}.heartbeat.{worker_type}.{id}", self.prefix)
    }

    /// All heartbeats.
    pub fn all_heartbeats(&self) -> String {
        format!("{}.heartbeat.*.*", self.prefix)
    }

    /// All heartbeats of one worker type.
    pub fn heartbeats_of(&self, worker_type: &WorkerType) -> String {
        format!("{}.heartbeat.{worker_type}.*", self.prefix)
    }

    /// A backend that has just started asks every worker for a heartbeat. The subject is one token
    /// shorter than a heartbeat's, so it never matches one.
    pub fn heartbeat_request(&self) -> String {
        format!("{}.heartbeat.request", self.prefix)
    }

    /// The requests of one verb to any worker.
    pub fn worker_requests(&self, verb: &str) -> String {
        format!("{}.worker.*.{verb}", self.prefix)
    }

    /// `worker.<worker_id>.<verb>`: a request to one worker.
    pub fn worker(&self, id: &WorkerId, verb: &str) -> String {
        format!("{}.worker.{id}.{verb}", self.prefix)
    }

    /// Whether workers answer requests on this subject, which may hold wildcards: those of backends,
    /// and those of NATS services.
    pub fn is_asked_of_workers(&self, subject: &str) -> bool {
        let rest = subject.strip_prefix(&self.prefix);
        rest.is_some_and(|rest| rest.starts_with(".worker.")) || subject.starts_with("$SRV.")
    }

    /// The durable consumer of a queue: `<worker_type>-<queue>`.
    pub fn consumer(&self, worker_type: &WorkerType, queue: &Queue) -> String {
        format!("{worker_type}-{queue}")
    }

    /// The stream of schedules: `KTRDR_SCHEDULES`.
    pub fn schedules_stream(&self) -> String {
        format!("{}_SCHEDULES", self.upper)
    }

    /// `schedule.<schedule_id>`: tells the server when to ring for a schedule.
    pub fn schedule(&self, id: &ScheduleId) -> String {
        format!("{}.schedule.{id}", self.prefix)
    }

    /// All schedules.
    pub fn all_schedules(&self) -> String {
        format!("{}.schedule.*", self.prefix)
    }

    /// `ring.<schedule_id>`: a slot of the schedule has come.
    pub fn ring(&self, id: &ScheduleId) -> String {
        format!("{}.ring.{id}", self.prefix)
    }

    /// All rings.
    pub fn all_rings(&self) -> String {
        format!("{}.ring.*", self.prefix)
    }

    /// The schedule of a subject of [`Self::all_schedules`]; `None` for any other subject.
    pub fn schedule_of(&self, subject: &str) -> Option<ScheduleId> {
        self.below("schedule", subject)
    }

    /// The schedule of a subject of [`Self::all_rings`]; `None` for any other subject.
    pub fn schedule_of_ring(&self, subject: &str) -> Option<ScheduleId> {
        self.below("ring", subject)
    }

    fn below(&self, kind: &str, subject: &str) -> Option<ScheduleId> {
        let rest = subject.strip_prefix(&self.prefix)?.strip_prefix('.')?;
        let id = rest.strip_prefix(kind)?.strip_prefix('.')?;
        ScheduleId::new(id).ok()
    }

    /// The server's advisory that a consumer was created on the operations stream.
    pub fn consumer_created_advisory(&self) -> String {
        format!("$JS.EVENT.ADVISORY.CONSUMER.CREATED.{}.*", self.upper)
    }

    /// JetStream's subject for reading messages of `stream` directly, many with one request.
    pub fn direct_get(stream: &str) -> String {
        format!("$JS.API.DIRECT.GET.{stream}")
    }

    /// The object that holds the large result of an attempt: `<operation_id>.<attempt>`. An attempt
    /// that was lost cannot overwrite the result of its successor.
    pub fn result_object(id: &OperationId, attempt: u32) -> String {
        format!("{id}.{attempt}")
    }

    /// The stream behind an object store.
    pub fn objects_stream(bucket: &str) -> String {
        format!("OBJ_{bucket}")
    }

    /// The subject of an object's description. `name` is the object's name in URL-safe Base64.
    pub fn object_description(bucket: &str, name: &str) -> String {
        format!("$O.{bucket}.M.{name}")
    }

    /// The subject of an object's parts. `nuid` is in the object's description.
    pub fn object_parts(bucket: &str, nuid: &str) -> String {
        format!("$O.{bucket}.C.{nuid}")
    }

    /// The stream behind a bucket of key-values.
    pub fn key_values_stream(bucket: &str) -> String {
        format!("KV_{bucket}")
    }

    /// The subject on which the value of a key is written.
    pub fn key_value(bucket: &str, key: &str) -> String {
        format!("$KV.{bucket}.{key}")
    }

    /// The key of an operation's checkpoint: `<worker_type>.<operation_id>`.
    pub fn checkpoint(worker_type: &WorkerType, id: &OperationId) -> String {
        format!("{worker_type}.{id}")
    }

    /// Checks that the body of a message agrees with the subject on which it came. Returns the
    /// worker type of the subject.
    ///
    /// # Errors
    /// [`SubjectMismatch`] when it does not: the message must not be believed.
    ///
    /// ```
    /// use ktrdr_protocol::cancel::CancelIntent;
    /// use ktrdr_protocol::id::OperationId;
    /// use ktrdr_protocol::subject::{SubjectMismatch, SubjectNames};
    ///
    /// let names = SubjectNames::new("ktrdr")?;
    /// let intent = CancelIntent::new(OperationId::new("op-1")?, None);
    /// assert_eq!(names.check("ktrdr.cancel.training.op-1", &intent), Ok("training"));
    /// assert_eq!(
    ///     names.check("ktrdr.cancel.training.op-2", &intent),
    ///     Err(SubjectMismatch::Field("operation_id"))
    /// );
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn check<'a, M: Addressed>(
        &self,
        subject: &'a str,
        message: &M,
    ) -> Result<&'a str, SubjectMismatch> {
        let (topic, worker_type, last) = self.tokens(subject).ok_or(SubjectMismatch::Foreign)?;
        if topic != M::TOPIC {
            return Err(SubjectMismatch::Foreign);
        }
        message.agrees(worker_type, last)?;
        Ok(worker_type)
    }

    /// The topic, the worker type, and what is behind it: one token, and two of a key. `None` when
    /// there are more or fewer.
    fn tokens<'a>(&self, subject: &'a str) -> Option<(&'a str, &'a str, &'a str)> {
        let rest = subject.strip_prefix(&self.prefix)?.strip_prefix('.')?;
        let mut tokens = rest.splitn(3, '.');
        let (topic, worker_type, last) = (tokens.next()?, tokens.next()?, tokens.next()?);
        let dots = usize::from(topic == KeyEntry::TOPIC);
        (last.matches('.').count() == dots).then_some((topic, worker_type, last))
    }

    /// Parses a subject of [`Self::stream`]; `None` for any other subject.
    pub fn parse<'a>(&self, subject: &'a str) -> Option<Topic<'a>> {
        let (kind, worker_type, last) = self.tokens(subject)?;
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
            "key" => Some(Topic::Key {
                worker_type,
                tokens: last,
            }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
