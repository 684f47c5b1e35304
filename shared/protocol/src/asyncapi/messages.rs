//! The messages: payload and headers.

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::cancel::CancelIntent;
use crate::checkpoint::Checkpoint;
use crate::event::Wire;
use crate::keys::KeyEntry;
use crate::log_line::LogBatch;
use crate::metric::MetricBatch;
use crate::progress::ProgressMessage;
use crate::queue_list::QueueList;
use crate::queue_pause::QueuePause;
use crate::schedule::{Schedule, ScheduleRun};
use crate::signed_start::{KEY, SIGNATURE, TIME};
use crate::start_request;
use crate::trace;
use crate::worker::{DrainAnswer, Heartbeat, OperationAnswer, OperationQuery, WorkerTypeEntry};

/// A header with what it says.
type Header = (&'static str, &'static str);

const EXPECTED: Header = (
    "Nats-Expected-Last-Subject-Sequence",
    "The sequence in the stream of the message that this one follows on its subject; 0 for the first. \
     The stream refuses the message when another one came before it.",
);
const EXPECTED_OF_KEY: Header = (
    EXPECTED.0,
    "With a unique key: the sequence of the entry of the key.",
);
const EXPECTED_SUBJECT: Header = (
    "Nats-Expected-Last-Subject-Sequence-Subject",
    "With a unique key: the subject of its entries.",
);
const KV_OPERATION: Header = (
    "KV-Operation",
    "`DEL` or `PURGE`: the key was removed. The payload is empty then.",
);
const ROLLUP: Header = (
    "Nats-Rollup",
    "`sub`: earlier messages of the subject are removed.",
);

/// Headers without which a message is another one.
const REQUIRED: [(&str, &[&str]); 6] = [
    ("tailQuestion", &[EXPECTED.0]),
    ("removedKey", &[KV_OPERATION.0]),
    ("schedule", &["Nats-Schedule", "Nats-Schedule-Target"]),
    ("ring", &["Nats-Scheduler"]),
    (
        "serviceError",
        &["Nats-Service-Error", "Nats-Service-Error-Code"],
    ),
    ("startRequest", &["Nats-Msg-Id"]),
];

/// One message.
struct Message {
    name: &'static str,
    summary: &'static str,
    /// `None` when it has no payload, or one that is not JSON.
    payload: Option<Value>,
    content_type: Option<&'static str>,
    headers: Vec<Header>,
}

/// All messages by name.
pub(super) fn all(generator: &mut SchemaGenerator) -> Map<String, Value> {
    let mut messages = events(generator);
    messages.extend(operations(generator));
    messages.extend(workers(generator));
    messages.extend(schedules(generator));
    messages.extend(buckets(generator));
    messages
        .into_iter()
        .map(|message| (message.name.to_owned(), message.document()))
        .collect()
}

fn operations(generator: &mut SchemaGenerator) -> Vec<Message> {
    let id = "Makes a repeated publish harmless for two minutes: the operation id; of a copy, \
              `<operation id>/<copy>/<number>`.";
    vec![
        Message {
            headers: vec![
                ("Nats-Msg-Id", id),
                (
                    trace::HEADER,
                    "W3C trace context of the request that started it.",
                ),
                (
                    SIGNATURE,
                    "Ed25519 signature, in base64url without padding.",
                ),
                (KEY, "The public key of the signature, as an nkey."),
                (
                    TIME,
                    "The time of the signature, in milliseconds since 1970.",
                ),
                EXPECTED_OF_KEY,
                EXPECTED_SUBJECT,
            ],
            ..of::<start_request::Read>(generator, "startRequest", "Makes an operation exist.")
        },
        Message {
            headers: vec![(
                "Nats-Msg-Id",
                "Makes a repeated publish harmless: `cancel-<operation id>`, or one that is new to the stream.",
            )],
            ..of::<CancelIntent>(
                generator,
                "cancelIntent",
                "Asks for the end of an operation.",
            )
        },
        Message {
            headers: vec![EXPECTED],
            ..of::<KeyEntry>(generator, "keyEntry", "Names the holders of a key.")
        },
        Message {
            headers: vec![("Nats-Msg-Id", "Makes a repeated publish harmless.")],
            ..of::<MetricBatch>(generator, "metricBatch", "What an engine measured.")
        },
        Message {
            headers: vec![("Nats-Msg-Id", "Makes a repeated publish harmless.")],
            ..of::<LogBatch>(generator, "logBatch", "What an engine said.")
        },
        of::<ProgressMessage>(generator, "progress", "How far an attempt is."),
    ]
}

/// The events of an operation's log: which fields of the flat form each of them has.
fn events(generator: &mut SchemaGenerator) -> Vec<Message> {
    let flat = Wire::json_schema(generator);
    let always = ["operation_id", "attempt", "at", "claim"];
    let event = |name, summary, required: &[&str], optional: &[&str]| Message {
        name,
        summary,
        payload: Some(event_schema(
            &flat,
            name,
            &[&always[..], required].concat(),
            optional,
        )),
        content_type: None,
        headers: vec![EXPECTED],
    };

    let mut completed = event(
        "completed",
        "The operation has ended with a result.",
        &["worker_id"],
        &["result", "result_ref", "progress"],
    );
    if let Some(schema) = &mut completed.payload {
        schema["oneOf"] = json!([{"required": ["result"]}, {"required": ["result_ref"]}]);
    }
    vec![
        event(
            "started",
            "A worker has claimed the operation: an attempt begins.",
            &["worker_id", "start_sequence", "delivery"],
            &[],
        ),
        event(
            "released",
            "The operation is pending again.",
            &["reason"],
            &["worker_id", "error", "retry_at", "copy"],
        ),
        event(
            "moved",
            "The operation waits in another queue.",
            &["queue", "copy"],
            &["retry_at"],
        ),
        completed,
        event(
            "failed",
            "The operation has ended with an error.",
            &["error"],
            &["worker_id", "progress"],
        ),
        event(
            "cancelled",
            "The operation was cancelled.",
            &[],
            &[
                "worker_id",
                "forced",
                "requested_by",
                "cancel_reason",
                "progress",
            ],
        ),
    ]
}

/// The schema of one event, with the fields that it has.
fn event_schema(flat: &Schema, name: &str, required: &[&str], optional: &[&str]) -> Value {
    let field = |name: &&str| {
        let path = format!("/properties/{name}");
        let schema = flat.pointer(&path).cloned().unwrap_or_default();
        ((*name).to_owned(), never_null(schema))
    };
    let mut properties = Map::from_iter([("event".to_owned(), json!({"const": name}))]);
    properties.extend(required.iter().chain(optional).map(field));

    let required: Vec<&str> = std::iter::once("event")
        .chain(required.iter().copied())
        .collect();
    json!({"type": "object", "properties": properties, "required": required})
}

/// The schema of a field that is absent when it says nothing, and never null.
fn never_null(mut schema: Value) -> Value {
    let Some(members) = schema.as_object_mut() else {
        return schema;
    };
    members.remove("default");

    if let Some(Value::Array(types)) = members.get("type")
        && let [one, Value::String(other)] = &types[..]
        && other == "null"
    {
        let one = one.clone();
        members.insert("type".to_owned(), one);
    }
    if let Some(Value::Array(mut schemas)) = members.remove("anyOf") {
        schemas.retain(|schema| schema["type"] != "null");
        members.insert("allOf".to_owned(), Value::Array(schemas));
    }
    schema
}

fn workers(generator: &mut SchemaGenerator) -> Vec<Message> {
    vec![
        of::<Heartbeat>(generator, "heartbeat", "A worker about itself."),
        Message {
            headers: vec![(trace::HEADER, "W3C trace context of the request that asks.")],
            ..of::<OperationQuery>(generator, "operationQuery", "Which operation is meant.")
        },
        of::<OperationAnswer>(generator, "operationAnswer", "The operation as it is now."),
        of::<DrainAnswer>(generator, "drainAnswer", "Whether the worker takes work."),
        Message {
            headers: vec![
                ("Nats-Service-Error", "What was wrong, for people."),
                ("Nats-Service-Error-Code", "400 or 500, as in HTTP."),
            ],
            ..without_payload("serviceError", "The request was not understood.")
        },
        Message {
            headers: vec![EXPECTED],
            ..without_payload(
                "tailQuestion",
                "Asks the leader of the stream for the last message of the subject: it expects a sequence \
                 that no message has, so it is always refused, and the refusal names the last one.",
            )
        },
        without_payload(
            "empty",
            "The subject says everything; the payload is empty.",
        ),
        Message {
            headers: vec![EXPECTED],
            ..of::<WorkerTypeEntry>(generator, "workerType", "A worker type with its schemas.")
        },
        Message {
            headers: vec![EXPECTED],
            ..of::<QueueList>(generator, "queueList", "The queues of a worker type.")
        },
        Message {
            headers: vec![EXPECTED],
            ..of::<QueuePause>(generator, "queuePause", "No operation of the type starts.")
        },
    ]
}

fn schedules(generator: &mut SchemaGenerator) -> Vec<Message> {
    let headers = [
        ("Nats-Schedule", "The cron line, of six fields."),
        ("Nats-Schedule-Target", "The subject of its rings."),
        ("Nats-Schedule-Time-Zone", "The IANA name of a time zone."),
    ];
    vec![
        Message {
            headers: headers.to_vec(),
            ..without_payload("schedule", "A schedule of the NATS server.")
        },
        Message {
            headers: vec![
                ("Nats-Scheduler", "The subject of the schedule."),
                ("Nats-Schedule-Next", "When the server will ring next."),
            ],
            ..without_payload("ring", "A slot has come: look which ones are due.")
        },
        Message {
            headers: vec![EXPECTED],
            ..of::<Schedule>(generator, "scheduleDefinition", "A schedule as it was put.")
        },
        Message {
            headers: vec![EXPECTED],
            ..of::<ScheduleRun>(
                generator,
                "scheduleRun",
                "What was decided about its slots.",
            )
        },
    ]
}

fn buckets(generator: &mut SchemaGenerator) -> Vec<Message> {
    let text = |name, summary| Message {
        name,
        summary,
        payload: Some(json!({"type": "string"})),
        content_type: Some("text/plain"),
        headers: vec![EXPECTED],
    };
    vec![
        text("domainOwner", "The name of the worker type."),
        text("prefix", "The subject prefix."),
        Message {
            headers: vec![EXPECTED],
            ..of::<Checkpoint>(generator, "checkpoint", "What an engine stored.")
        },
        Message {
            headers: vec![KV_OPERATION, ROLLUP, EXPECTED],
            ..without_payload("removedKey", "The key was removed.")
        },
        Message {
            content_type: Some("application/octet-stream"),
            ..without_payload("resultPart", "Up to 128 KiB of the result.")
        },
        Message {
            headers: vec![ROLLUP],
            payload: Some(object_description()),
            ..without_payload("resultDescription", "As NATS object stores have it.")
        },
    ]
}

/// The description of an object, as NATS defines it (ADR-20).
fn object_description() -> Value {
    json!({
        "type": "object",
        "required": ["name", "bucket", "nuid", "size", "chunks", "digest"],
        "properties": {
            "name": {"type": "string", "description": "Operation id, a dot, attempt."},
            "bucket": {"type": "string"},
            "nuid": {"type": "string", "description": "Names its parts."},
            "size": {"type": "integer", "minimum": 0, "description": "Bytes."},
            "chunks": {"type": "integer", "minimum": 0, "description": "How many parts it has."},
            "digest": {"type": "string", "description": "`SHA-256=` and the digest in URL-safe Base64."},
        },
        "additionalProperties": true,
    })
}

/// A message with the schema of this type.
fn of<T: JsonSchema>(
    generator: &mut SchemaGenerator,
    name: &'static str,
    summary: &'static str,
) -> Message {
    Message {
        payload: Some(generator.subschema_for::<T>().into()),
        ..without_payload(name, summary)
    }
}

fn without_payload(name: &'static str, summary: &'static str) -> Message {
    Message {
        name,
        summary,
        payload: None,
        content_type: None,
        headers: Vec::new(),
    }
}

impl Message {
    fn document(self) -> Value {
        let mut document = json!({"name": self.name, "summary": self.summary});
        if let Some(content_type) = self.content_type {
            document["contentType"] = json!(content_type);
        }
        if !self.headers.is_empty() {
            let properties: Map<String, Value> = self
                .headers
                .iter()
                .map(|(name, what)| {
                    let schema = json!({"type": "string", "description": what});
                    ((*name).to_owned(), schema)
                })
                .collect();
            document["headers"] = json!({"type": "object", "properties": properties});
            let required = REQUIRED.iter().find(|(name, _)| *name == self.name);
            if let Some((_, names)) = required {
                document["headers"]["required"] = json!(names);
            }
        }
        if let Some(payload) = self.payload {
            document["payload"] = payload;
        }
        document
    }
}
