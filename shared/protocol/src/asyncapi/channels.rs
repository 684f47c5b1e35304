//! The channels: address, who writes, who reads.

use serde_json::{Map, Value, json};

use super::reference;
use crate::id::{InvalidName, OperationId, Queue, ScheduleId, WorkerId, WorkerType};
use crate::keys::KeyKind;
use crate::origin::Origin;
use crate::queue_list::queues_key;
use crate::queue_pause::pause_key;
use crate::schedule::{run_key, schedule_key};
use crate::subject::SubjectNames;
use crate::worker::{DRAIN, PREFIX_KEY, UNDRAIN, domain_key, version_key};

const BACKEND: &str = "backend";
const WORKER: &str = "worker";
const SERVER: &str = "nats-server";

/// What a worker does with a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    /// It publishes the messages.
    Send,
    /// It reads them.
    Receive,
    /// It receives requests, and answers with one of these messages.
    Answer(&'static [&'static str]),
}

/// One channel.
pub(super) struct Channel {
    /// Its name in the document.
    pub id: &'static str,
    /// `None` for the inboxes of those who ask.
    address: Option<String>,
    description: &'static str,
    /// The stream that keeps its messages.
    stream: Option<String>,
    writers: &'static [&'static str],
    readers: &'static [&'static str],
    messages: &'static [&'static str],
    /// The name of the operation, and what it is.
    worker: &'static [(&'static str, Action)],
}

/// The parameters of addresses, with what they are.
const PARAMETERS: [(&str, &str); 10] = [
    ("worker_type", "A worker type."),
    ("operation_id", "The id of an operation."),
    ("worker_id", "The id of a worker."),
    ("schedule_id", "The id of a schedule."),
    (
        "queue",
        "The name of a queue; `direct` for a start at a worker's own REST interface.",
    ),
    ("domain", "The path segment of a worker type's start route."),
    (
        "version",
        "Made by workers from their entry: the same for the same entry.",
    ),
    (
        "object",
        "The name of an object (operation id, a dot, attempt) in URL-safe Base64.",
    ),
    (
        "nuid",
        "Names the parts of one object; its description has it.",
    ),
    ("key", "The first 32 hex digits of the SHA-256 of a key."),
];

/// A name that stands for a parameter until the address is made.
fn stand_in(parameter: &str) -> String {
    format!("0-{parameter}-0")
}

/// The address with its parameters.
fn address(subject: String) -> String {
    PARAMETERS.iter().fold(subject, |subject, (name, _)| {
        subject.replace(&stand_in(name), &format!("{{{name}}}"))
    })
}

/// All channels.
pub(super) fn all(names: &SubjectNames) -> Result<Vec<Channel>, InvalidName> {
    let worker_type = WorkerType::new(stand_in("worker_type"))?;
    let operation = OperationId::new(stand_in("operation_id"))?;
    let worker = WorkerId::new(stand_in("worker_id"))?;
    let schedule = ScheduleId::new(stand_in("schedule_id"))?;
    let queue = Origin::Queued(Queue::new(stand_in("queue"))?);

    // A digest stands for the text of a key.
    let keys = |kind| names.keys_of(&worker_type, kind).replace('*', "{key}");

    let stream = names.stream();
    let mut channels = vec![
        Channel {
            id: "starts",
            description: "Start requests. Each makes an operation exist, and waits in the queue of its subject. \
                `direct` is no queue.",
            stream: Some(stream.clone()),
            writers: &[BACKEND, WORKER],
            readers: &[BACKEND, WORKER],
            messages: &["startRequest"],
            worker: &[
                ("takeStart", Action::Receive),
                ("recordDirectStart", Action::Send),
            ],
            ..at(names.start(&worker_type, &queue))
        },
        Channel {
            id: "events",
            description: "The log of one operation: its state changes in order. Each names the sequence that it \
                follows.",
            stream: Some(stream.clone()),
            writers: &[BACKEND, WORKER],
            readers: &[BACKEND, WORKER],
            messages: &[
                "started",
                "released",
                "moved",
                "completed",
                "failed",
                "cancelled",
                "tailQuestion",
            ],
            worker: &[
                ("appendEvent", Action::Send),
                ("watchEvents", Action::Receive),
            ],
            ..at(names.operation(&worker_type, &operation))
        },
        Channel {
            id: "cancels",
            description: "The wish that a running operation stops. It is heard live, and read again before it is \
                believed.",
            stream: Some(stream.clone()),
            writers: &[BACKEND, WORKER],
            readers: &[BACKEND, WORKER],
            messages: &["cancelIntent"],
            worker: &[
                ("hearCancel", Action::Receive),
                ("recordDirectCancel", Action::Send),
            ],
            ..at(names.cancel(&worker_type, &operation))
        },
        Channel {
            id: "uniqueKeys",
            description: "Who holds a unique key. Each entry names the sequence of the one that it replaces.",
            stream: Some(stream.clone()),
            writers: &[BACKEND],
            readers: &[BACKEND],
            messages: &["keyEntry"],
            ..at(keys(KeyKind::Unique))
        },
        Channel {
            id: "concurrencyKeys",
            description: "Who holds a concurrency key. Each entry names the sequence of the one that it replaces.",
            stream: Some(stream),
            writers: &[BACKEND, WORKER],
            readers: &[BACKEND, WORKER],
            messages: &["keyEntry"],
            worker: &[("readKey", Action::Receive), ("takePermit", Action::Send)],
            ..at(keys(KeyKind::Concurrency))
        },
        Channel {
            id: "metrics",
            description: "Metric points, in batches.",
            stream: Some(names.metrics_stream()),
            writers: &[WORKER],
            readers: &[BACKEND],
            messages: &["metricBatch"],
            worker: &[("sendMetrics", Action::Send)],
            ..at(names.metrics(&worker_type, &operation))
        },
        Channel {
            id: "logs",
            description: "Log lines of operations, in batches.",
            stream: Some(names.logs_stream()),
            writers: &[WORKER],
            readers: &[BACKEND],
            messages: &["logBatch"],
            worker: &[("sendLogs", Action::Send)],
            ..at(names.logs(&worker_type, &operation))
        },
        Channel {
            id: "progress",
            description: "The newest progress of a running attempt.",
            writers: &[WORKER],
            readers: &[BACKEND],
            messages: &["progress"],
            worker: &[("sendProgress", Action::Send)],
            ..at(names.progress(&worker_type, &operation))
        },
        Channel {
            id: "heartbeats",
            description: "What a worker says about itself: at an interval, after every change, and when it stops.",
            writers: &[WORKER],
            readers: &[BACKEND],
            messages: &["heartbeat"],
            worker: &[("beat", Action::Send)],
            ..at(names.heartbeat(&worker_type, &worker))
        },
        Channel {
            id: "heartbeatRequest",
            description: "Asks all workers for a heartbeat now.",
            writers: &[BACKEND],
            readers: &[WORKER],
            messages: &["empty"],
            worker: &[("hearHeartbeatRequest", Action::Receive)],
            ..at(names.heartbeat_request())
        },
    ];
    channels.extend(services(names, &worker));
    channels.extend(schedules(names, &schedule));
    channels.extend(worker_types(names, &worker_type, &schedule));
    channels.extend(checkpoints_and_results(names, &worker_type, &operation));
    Ok(channels)
}

/// The NATS service of a worker.
fn services(names: &SubjectNames, worker: &WorkerId) -> [Channel; 5] {
    let verb = |verb| Channel {
        writers: &[BACKEND],
        readers: &[WORKER],
        messages: &["empty"],
        ..at(names.worker(worker, verb))
    };
    [
        Channel {
            id: "workerOperation",
            description: "Asks a worker for the newest progress of an operation that it runs.",
            messages: &["operationQuery"],
            worker: &[(
                "answerOperation",
                Action::Answer(&["operationAnswer", "serviceError"]),
            )],
            ..verb("operation")
        },
        Channel {
            id: "workerHealth",
            description: "Asks a worker for its heartbeat. For people: `nats req`.",
            writers: &[],
            worker: &[(
                "answerHealth",
                Action::Answer(&["heartbeat", "serviceError"]),
            )],
            ..verb("health")
        },
        Channel {
            id: "workerDrain",
            description: "Tells a worker to finish what it runs and to take nothing more.",
            worker: &[(
                "answerDrain",
                Action::Answer(&["drainAnswer", "serviceError"]),
            )],
            ..verb(DRAIN)
        },
        Channel {
            id: "workerUndrain",
            description: "Tells a drained worker to go on.",
            worker: &[(
                "answerUndrain",
                Action::Answer(&["drainAnswer", "serviceError"]),
            )],
            ..verb(UNDRAIN)
        },
        Channel {
            id: ANSWERS,
            address: None,
            description: "The inbox of who asks: the reply subject of the request.",
            writers: &[WORKER],
            readers: &[BACKEND],
            messages: &[
                "operationAnswer",
                "heartbeat",
                "drainAnswer",
                "serviceError",
            ],
            ..at(String::new())
        },
    ]
}

const ANSWERS: &str = "answers";

fn schedules(names: &SubjectNames, schedule: &ScheduleId) -> [Channel; 2] {
    let stream = Some(names.schedules_stream());
    [
        Channel {
            id: "schedules",
            description: "Tells the NATS server when to ring for a schedule.",
            stream: stream.clone(),
            writers: &[BACKEND],
            readers: &[SERVER],
            messages: &["schedule"],
            ..at(names.schedule(schedule))
        },
        Channel {
            id: "rings",
            description: "A slot of a schedule has come. Subscribers do not see it: it is stored only.",
            stream,
            writers: &[SERVER],
            readers: &[BACKEND],
            messages: &["ring"],
            ..at(names.ring(schedule))
        },
    ]
}

/// The keys of the bucket of worker types.
fn worker_types(
    names: &SubjectNames,
    worker_type: &WorkerType,
    schedule: &ScheduleId,
) -> Vec<Channel> {
    let bucket = names.worker_types_bucket();
    let key = |key: &str| Channel {
        stream: Some(SubjectNames::key_values_stream(&bucket)),
        writers: &[BACKEND],
        readers: &[BACKEND],
        ..at(SubjectNames::key_value(&bucket, key))
    };
    vec![
        Channel {
            id: "workerTypes",
            description: "The catalogue: one entry for each worker type. The newest version that a worker has counts.",
            writers: &[BACKEND, WORKER],
            readers: &[BACKEND, WORKER],
            messages: &["workerType", "removedKey"],
            worker: &[("publishType", Action::Send), ("readType", Action::Receive)],
            ..key(worker_type.as_str())
        },
        Channel {
            id: "workerTypeVersions",
            description: "Each version of a worker type, written once by the first worker that has it.",
            writers: &[BACKEND, WORKER],
            readers: &[BACKEND, WORKER],
            messages: &["workerType", "removedKey"],
            worker: &[
                ("publishVersion", Action::Send),
                ("readVersion", Action::Receive),
            ],
            ..key(&version_key(worker_type, "{version}"))
        },
        Channel {
            id: "domains",
            description: "Which worker type owns a domain.",
            readers: &[BACKEND, WORKER],
            messages: &["domainOwner", "removedKey"],
            worker: &[("readDomain", Action::Receive)],
            ..key(&domain_key("{domain}"))
        },
        Channel {
            id: "queueLists",
            description: "The queues of a worker type, which its workers follow.",
            readers: &[BACKEND, WORKER],
            messages: &["queueList"],
            worker: &[("followQueues", Action::Receive)],
            ..key(&queues_key(worker_type))
        },
        Channel {
            id: "pauses",
            description: "The wish that no operation of a worker type starts. Removed when it is over.",
            messages: &["queuePause", "removedKey"],
            ..key(&pause_key(worker_type))
        },
        Channel {
            id: "scheduleDefinitions",
            description: "Schedules, as they were put.",
            messages: &["scheduleDefinition", "removedKey"],
            ..key(&schedule_key(schedule))
        },
        Channel {
            id: "scheduleRuns",
            description: "What was decided last about the slots of a schedule.",
            messages: &["scheduleRun", "removedKey"],
            ..key(&run_key(schedule))
        },
        Channel {
            id: "installationPrefix",
            description: "Whose streams these are: the subject prefix of the backends that made them.",
            readers: &[BACKEND, WORKER],
            messages: &["prefix"],
            worker: &[("readPrefix", Action::Receive)],
            ..key(PREFIX_KEY)
        },
    ]
}

fn checkpoints_and_results(
    names: &SubjectNames,
    worker_type: &WorkerType,
    operation: &OperationId,
) -> [Channel; 4] {
    let checkpoints = names.checkpoints_bucket();
    let results = names.results_bucket_of(worker_type);
    let checkpoint = |key: &str| Channel {
        stream: Some(SubjectNames::key_values_stream(&checkpoints)),
        writers: &[WORKER],
        readers: &[BACKEND, WORKER],
        messages: &["checkpoint", "removedKey", "tailQuestion"],
        ..at(SubjectNames::key_value(&checkpoints, key))
    };
    let object = |subject| Channel {
        stream: Some(address(SubjectNames::objects_stream(&results))),
        writers: &[WORKER],
        readers: &[BACKEND],
        ..at(subject)
    };
    [
        Channel {
            id: "checkpoints",
            description: "The newest checkpoint of an operation. Removed when it completes.",
            worker: &[
                ("saveCheckpoint", Action::Send),
                ("loadCheckpoint", Action::Receive),
            ],
            ..checkpoint(&SubjectNames::checkpoint(worker_type, operation))
        },
        Channel {
            id: "checkpointsOf010",
            description: "The same for workers of version 0.1.0, while some of them may run.",
            worker: &[
                ("saveCheckpointOf010", Action::Send),
                ("loadCheckpointOf010", Action::Receive),
            ],
            ..checkpoint(operation.as_str())
        },
        Channel {
            id: "resultParts",
            description: "The parts of a large result, in order: JSON text, cut anywhere.",
            messages: &["resultPart"],
            worker: &[("storeResultPart", Action::Send)],
            ..object(SubjectNames::object_parts(&results, "{nuid}"))
        },
        Channel {
            id: "resultDescriptions",
            description: "The description of a large result, written when all its parts are stored.",
            messages: &["resultDescription"],
            worker: &[("describeResult", Action::Send)],
            ..object(SubjectNames::object_description(&results, "{object}"))
        },
    ]
}

/// A channel at a subject, with nothing else.
fn at(subject: String) -> Channel {
    Channel {
        id: "",
        address: Some(address(subject)),
        description: "",
        stream: None,
        writers: &[],
        readers: &[],
        messages: &[],
        worker: &[],
    }
}

impl Channel {
    /// The channel in the document.
    pub(super) fn document(&self) -> Value {
        let message = |name: &&str| {
            let reference = reference(format_args!("components/messages/{name}"));
            ((*name).to_owned(), reference)
        };
        let mut document = json!({
            "address": self.address,
            "description": self.description,
            "messages": self.messages.iter().map(message).collect::<Map<_, _>>(),
        });

        let parameters = self.parameters();
        if !parameters.is_empty() {
            document["parameters"] = Value::Object(parameters);
        }
        document["x-stream"] = json!(self.stream);
        document["x-writers"] = json!(self.writers);
        document["x-readers"] = json!(self.readers);
        document
    }

    fn parameters(&self) -> Map<String, Value> {
        let address = self.address.as_deref().unwrap_or_default();
        PARAMETERS
            .iter()
            .filter(|(name, _)| address.contains(&format!("{{{name}}}")))
            .map(|(name, what)| ((*name).to_owned(), json!({"description": what})))
            .collect()
    }

    /// What a worker does with it, by name.
    pub(super) fn operations(&self) -> impl Iterator<Item = (String, Value)> {
        self.worker.iter().map(|(name, action)| {
            let word = match action {
                Action::Send => "send",
                Action::Receive | Action::Answer(_) => "receive",
            };
            let mut operation = json!({
                "action": word,
                "channel": reference(format_args!("channels/{}", self.id)),
            });
            if let Action::Answer(messages) = action {
                let messages: Vec<Value> = messages
                    .iter()
                    .map(|name| reference(format_args!("channels/{ANSWERS}/messages/{name}")))
                    .collect();
                operation["reply"] = json!({
                    "channel": reference(format_args!("channels/{ANSWERS}")),
                    "messages": messages,
                });
            }
            ((*name).to_owned(), operation)
        })
    }
}
