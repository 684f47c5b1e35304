//! The messages that the programs write, recorded from a run that makes each kind at least once.
//!
//! `tests/data/wire/messages.jsonl` was recorded this way from programs of an earlier version and
//! is the wire contract. The test module `wire_contract` compares it with the types and the
//! programs of today. The page `tests/README.md` says how the file was made.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use futures::StreamExt;
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;
use tokio::task::JoinHandle;

use crate::bus::Bus;
use crate::client::Client;
use crate::nats::NatsServer;
use crate::process::{BackendProcess, Signal, WorkerProcess};
use crate::scratch::Scratch;
use crate::settings::{Settings, repository};
use crate::wait::{LIMIT, wait_for};

/// The sequence that is expected by a message which only asks for the last one.
const ASKS: &str = "9223372036854775807";

/// One message as it was written.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Message {
    /// `start_request`, `event`, `heartbeat`, …
    pub kind: String,
    /// Where it was published.
    pub subject: String,
    /// The names of its headers, sorted.
    pub headers: Vec<String>,
    /// The payload, byte for byte; `null` when it is empty.
    pub payload: Box<RawValue>,
}

impl Message {
    /// A message of a kind that two programs exchange; `None` for everything else on the bus.
    fn from_bus(message: &async_nats::Message) -> Option<Self> {
        let subject = message.subject.to_string();
        let kind = kind_of(&subject)?;

        // Nothing is stored of these: they ask the leader of the stream for the last sequence.
        let expects = "Nats-Expected-Last-Subject-Sequence";
        let asks = message.headers.as_ref().and_then(|all| all.get(expects));
        if message.payload.is_empty() && asks.is_some_and(|asked| asked.as_str() == ASKS) {
            return None;
        }

        // The client library of the bucket writes the headers of its entries.
        let own_headers = message
            .headers
            .iter()
            .filter(|_| !subject.starts_with("$KV."));
        let mut headers: Vec<String> = own_headers
            .flat_map(|headers| headers.iter().map(|(name, _)| name.to_string()))
            .collect();

        headers.sort();
        let text = std::str::from_utf8(&message.payload).ok()?;
        let text = if text.is_empty() { "null" } else { text };

        Some(Self {
            kind: kind.to_owned(),
            subject,
            headers,
            payload: RawValue::from_string(text.to_owned()).ok()?,
        })
    }

    /// The kind, the headers and the keys of the payload in their order, without values: two
    /// messages with the same shape differ only in what they say.
    ///
    /// Parameters, results, schemas and the state in a checkpoint belong to engines and are left
    /// out.
    pub fn shape(&self) -> String {
        let mut shape = format!("{} {:?} ", self.kind, self.headers);
        write_shape(self.payload.get(), &mut shape);
        if self.kind == "event" {
            let event: BTreeMap<String, serde_json::Value> =
                serde_json::from_str(self.payload.get()).unwrap_or_default();
            let _ = write!(shape, " {}", event.get("event").unwrap_or(&json!(null)));
        }
        shape
    }
}

fn kind_of(subject: &str) -> Option<&'static str> {
    let tokens: Vec<&str> = subject.split('.').collect();
    Some(match tokens[..] {
        ["ktrdr", "start", _, _] => "start_request",
        ["ktrdr", "op", _, _] => "event",
        ["ktrdr", "cancel", _, _] => "cancel_intent",
        ["ktrdr", "metrics", _, _] => "metric_batch",
        ["ktrdr", "progress", _, _] => "progress",
        ["ktrdr", "heartbeat", "request"] => "heartbeat_request",
        ["ktrdr", "heartbeat", _, _] => "heartbeat",
        ["ktrdr", "worker", _, "operation"] => "operation_query",
        ["$KV", "KTRDR_WORKER_TYPES", _] | ["$KV", "KTRDR_WORKER_TYPES", "version", _, _] => {
            "worker_type_entry"
        }
        ["$KV", "KTRDR_CHECKPOINTS", _] | ["$KV", "KTRDR_CHECKPOINTS", _, _] => "checkpoint",
        _ => return None,
    })
}

/// What engines and operators fill as they like.
const OPAQUE: [&str; 7] = [
    "parameters",
    "result",
    "request_schema",
    "result_schema",
    "state",
    "capabilities",
    "progress",
];

/// Optional members that were added since the recording. Programs that do not know them ignore them,
/// so a shape leaves them out.
const ADDED: [&str; 7] = [
    "labels",
    "priority",
    "start_at",
    "delay_seconds",
    "expires_at",
    "queue_timeout_seconds",
    "schema_digest",
];

fn write_shape(json: &str, shape: &mut String) {
    if let Some(members) = members(json) {
        shape.push('{');
        for (name, value) in members {
            if ADDED.contains(&name.as_str()) {
                continue;
            }
            shape.push_str(&name);
            if !OPAQUE.contains(&name.as_str()) {
                write_shape(value.get(), shape);
            }
            shape.push(',');
        }
        shape.push('}');
    } else if let Ok(elements) = serde_json::from_str::<Vec<&RawValue>>(json) {
        shape.push('[');
        if let Some(first) = elements.first() {
            write_shape(first.get(), shape);
        }
        shape.push(']');
    }
}

/// The members of a JSON object in the order in which they are written; `None` when it is no
/// object.
fn members(json: &str) -> Option<Vec<(String, Box<RawValue>)>> {
    struct Members(Vec<(String, Box<RawValue>)>);

    impl<'de> Deserialize<'de> for Members {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Visitor;
            impl<'de> serde::de::Visitor<'de> for Visitor {
                type Value = Members;
                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("an object")
                }
                fn visit_map<A: serde::de::MapAccess<'de>>(
                    self,
                    mut map: A,
                ) -> Result<Members, A::Error> {
                    let mut members = Vec::new();
                    while let Some(member) = map.next_entry()? {
                        members.push(member);
                    }
                    Ok(Members(members))
                }
            }
            deserializer.deserialize_map(Visitor)
        }
    }

    serde_json::from_str(json)
        .ok()
        .map(|Members(members)| members)
}

/// The first message of each shape, in the order in which they were written.
pub fn one_of_each_shape(messages: Vec<Message>) -> Vec<Message> {
    let mut seen = std::collections::BTreeSet::new();
    messages
        .into_iter()
        .filter(|message| seen.insert(message.shape()))
        .collect()
}

/// Everything on the bus from now on, until it is stopped.
struct Recorder {
    bus: Bus,
    task: JoinHandle<Vec<Message>>,
}

/// A client's trace, to be passed on to the worker.
const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// Ends a recording; nobody else publishes it.
const END: &str = "ktrdr.end-of-recording";

impl Recorder {
    async fn start(bus: &Bus) -> Self {
        let mut subscriptions = Vec::new();
        for subject in ["ktrdr.>", "$KV.>"] {
            subscriptions.push(bus.subscribe(subject).await);
        }
        let task = tokio::spawn(async move {
            let mut all = futures::stream::select_all(subscriptions);
            let mut messages = Vec::new();
            while let Some(message) = all.next().await {
                if message.subject.as_str() == END {
                    break;
                }
                messages.extend(Message::from_bus(&message));
            }
            messages
        });

        Self {
            bus: bus.clone(),
            task,
        }
    }

    async fn stop(self) -> Vec<Message> {
        self.bus.publish(END, "").await;
        self.task.await.expect("a recorder that does not panic")
    }
}

/// A worker, a backend, and a recorder between them.
struct Session {
    settings: Settings,
    bus: Bus,
    backend: BackendProcess,
    recorder: Recorder,
    _data: Scratch,
    _nats: NatsServer,
}

/// Runs a backend and workers of the version in `programs` (those of this build when it is `None`)
/// through a script in which each kind of message is written, and returns all of them.
///
/// # Panics
/// When the programs do not do what the script expects.
pub async fn record(programs: Option<&Path>) -> Vec<Message> {
    let session = Session::start(programs).await;

    let worker = session.worker("dummy", "w1").await;

    session.complete_operations().await;
    session.fail_operations().await;
    session.cancel_operations().await;
    let mut answers = session.ask_the_worker().await;
    session.lose_and_release_operations(worker).await;
    session.resume_from_a_checkpoint().await;

    let mut messages = session.recorder.stop().await;
    messages.append(&mut answers);

    messages
}

impl Session {
    async fn start(programs: Option<&Path>) -> Self {
        let nats = NatsServer::start().await;
        let bus = nats.bus().await;
        let recorder = Recorder::start(&bus).await;

        let data = Scratch::new("wire");

        std::fs::copy(
            repository().join("data/GOOG_1d.csv"),
            data.join("GOOG_1d.csv"),
        )
        .expect("the example data");
        let settings = Settings {
            programs: programs.map(Path::to_owned),
            ..Settings::fast(nats.url())
                .data_dir(data.path())
                .with("KTRDR_CHECKPOINT_INTERVAL", "0s")
        };

        let backend = BackendProcess::start(&settings).await;

        Self {
            settings,
            bus,
            backend,
            recorder,
            _data: data,
            _nats: nats,
        }
    }

    fn api(&self) -> &Client {
        &self.backend.api
    }

    async fn worker(&self, worker_type: &str, id: &str) -> WorkerProcess {
        let worker = WorkerProcess::start(&self.settings, worker_type, id).await;
        self.api().wait_for_worker(id, "AVAILABLE").await;
        worker
    }

    /// Starts a dummy operation that runs until it is stopped, and waits for its first progress.
    async fn endless(&self, id: &str) {
        let body = json!({"task_id": id, "steps": 100_000, "step_ms": 20});
        self.api().started("dummy", &body).await;
        self.progress_of(id).await;
    }

    async fn progress_of(&self, id: &str) {
        self.api()
            .wait_for_operation(id, "progress", |operation| {
                operation.at("/data/progress/step").is_u64()
            })
            .await;
    }

    async fn complete_operations(&self) {
        let small = json!({"task_id": "small", "steps": 3, "step_ms": 50});
        let traced = self
            .api()
            .request(Method::POST, "/api/v1/dummy/start")
            .header("traceparent", TRACEPARENT)
            .json(&small);

        self.api().send(traced).await.expect(202);
        self.api().wait_for_status("small", "completed").await;

        let large = json!({"task_id": "large", "steps": 1, "step_ms": 1, "result_bytes": 400_000});
        self.api().started("dummy", &large).await;
        self.api().wait_for_status("large", "completed").await;
    }

    async fn fail_operations(&self) {
        let retried = json!({
            "task_id": "failing", "steps": 2, "step_ms": 1, "fail_at_step": 2,
            "execution": {"max_attempts": 2, "retry_delay": 0.01, "timeout_seconds": 60},
        });
        self.api().started("dummy", &retried).await;
        self.api().wait_for_status("failing", "failed").await;

        let again = self
            .api()
            .post("/api/v1/operations/failing/retry", &json!({}))
            .await
            .expect(202);
        let again = again.json["operation_id"].as_str().expect("an id");

        self.api().wait_for_status(again, "failed").await;

        // Checked by the engine, not by the schema: an error that no retry can cure.
        let invalid = json!({"task_id": "invalid", "symbol": "NONE", "timeframe": "1d"});
        let _trainer = self.worker("training", "t0").await;

        self.api().started("training", &invalid).await;
        self.api().wait_for_status("invalid", "failed").await;
    }

    async fn cancel_operations(&self) {
        self.endless("cancelled").await;
        let cancel = self
            .api()
            .request(Method::DELETE, "/api/v1/operations/cancelled/cancel")
            .json(&json!({"reason": "no longer needed"}));
        self.api().send(cancel).await.expect(200);
        self.api().wait_for_status("cancelled", "cancelled").await;

        let requirements = json!({"gpu": true, "cores": 4, "memory_gb": 8});
        let pending = json!({"task_id": "pending", "execution": {"requirements": requirements}});

        self.api().started("dummy", &pending).await;
        self.api().cancel("pending").await.expect(200);
        self.api().wait_for_status("pending", "cancelled").await;

        let deaf = json!({"task_id": "deaf", "steps": 150, "step_ms": 20, "ignore_cancel": true});
        self.api().started("dummy", &deaf).await;
        self.progress_of("deaf").await;
        self.api().cancel("deaf").await.expect(200);
        let forced = self.api().wait_for_status("deaf", "cancelled").await;
        assert_eq!(forced["forced"], true, "{forced}");
        self.api().wait_for_worker("w1", "AVAILABLE").await;
    }

    /// The answers to a query for an operation that the worker runs, and for one that it does not.
    async fn ask_the_worker(&self) -> Vec<Message> {
        self.endless("asked").await;
        self.api()
            .get("/api/v1/operations/asked?force_refresh=true")
            .await
            .expect(200);

        let mut answers = Vec::new();
        for id in ["asked", "unknown"] {
            let query = json!({"operation_id": id}).to_string();
            let answer = self
                .bus
                .client
                .request("ktrdr.worker.w1.operation", query.into())
                .await
                .expect("an answer of the worker");
            let text = String::from_utf8_lossy(&answer.payload).into_owned();
            answers.push(Message {
                kind: "operation_answer".to_owned(),
                subject: "_INBOX".to_owned(),
                headers: Vec::new(),
                payload: RawValue::from_string(text).expect("JSON"),
            });
        }

        self.api().cancel("asked").await.expect(200);
        self.api().wait_for_status("asked", "cancelled").await;

        answers
    }

    async fn lose_and_release_operations(&self, mut worker: WorkerProcess) {
        // Started directly, and nobody takes it over: a backend closes it.
        let direct = json!({"task_id": "direct", "steps": 100_000, "step_ms": 20});
        worker.api.post("/dummy/start", &direct).await.expect(200);
        self.progress_of("direct").await;
        worker.process.kill();
        let lost = self.api().wait_for_status("direct", "failed").await;
        assert_eq!(lost["error"]["code"], "worker_lost", "{lost}");

        // Killed, taken over, and released by a worker that stops.
        worker.restart().await;
        self.endless("moving").await;
        worker.process.signal(Signal::Stop);
        let mut second = WorkerProcess::start(&self.settings, "dummy", "w2").await;
        self.bus.wait_for_takeover("dummy", "moving").await;
        worker.process.kill();
        self.progress_of("moving").await;
        second.process.stop().await;
        self.bus
            .wait_for_events("dummy", "moving", &["started", "started", "released"])
            .await;
        self.api().cancel("moving").await.expect(200);
        self.api().wait_for_status("moving", "cancelled").await;
    }

    async fn resume_from_a_checkpoint(&self) {
        let _trainer = self.worker("training", "t1").await;
        let training = json!({
            "task_id": "trained", "symbol": "GOOG", "timeframe": "1d", "epochs": 5000,
            "hidden_layers": [1], "model_file": "models/trained.json",
        });

        self.api().started("training", &training).await;
        let bucket = self
            .bus
            .jetstream
            .get_key_value("KTRDR_CHECKPOINTS")
            .await
            .expect("the bucket");
        wait_for("a checkpoint", LIMIT, async || {
            match bucket.get("trained").await.map_err(|e| e.to_string())? {
                Some(_) => Ok(()),
                None => Err("none".to_owned()),
            }
        })
        .await;

        self.api().cancel("trained").await.expect(200);
        self.api().wait_for_status("trained", "cancelled").await;

        let resumed = self
            .api()
            .post("/api/v1/operations/trained/resume", &json!({}))
            .await
            .expect(202);
        let id = resumed.json["operation_id"].as_str().expect("an id");

        self.api()
            .wait_for_operation(id, "progress", |operation| {
                operation.at("/data/progress/percentage").as_f64() > Some(0.0)
            })
            .await;
        self.api().cancel(id).await.expect(200);
        self.api().wait_for_status(id, "cancelled").await;
    }
}
