//! Attacks on everything that reads names and messages of the bus, and headers.

use ktrdr_fuzz::Attack;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::cancel::CancelIntent;
use crate::event::{Event, EventKind};
use crate::id::{MAX_LEN, OperationId, WorkerId, WorkerType, is_name};
use crate::log_line::{LogBatch, LogLine};
use crate::metric::MetricBatch;
use crate::origin::Origin;
use crate::progress::{Progress, ProgressMessage};
use crate::queue_list::{MAX_QUEUES, QueueList, queues_key, worker_type_of_queues_key};
use crate::requirements::Requirements;
use crate::rest::metrics::Cursor;
use crate::schema_digest::SchemaDigest;
use crate::start_request::StartRequest;
use crate::subject::{SubjectNames, Topic};
use crate::time::Timestamp;
use crate::trace::TraceParent;
use crate::worker::{
    Heartbeat, MAX_CAPABILITIES, MAX_ENDPOINT_URL, OperationAnswer, OperationQuery,
    WorkerTypeEntry, domain_key, domain_of_key, version_key, worker_type_of_version_key,
};

const PROGRESS: &str = r#"{"percentage":45.5,"current_step":"half \"done\"","estimated_remaining_seconds":3,"rows":7,"é":[1,{"a":null}]}"#;

/// Reads a message; one that is accepted means the same when it is written and read again.
fn message<M: Serialize + DeserializeOwned>(bytes: &[u8]) -> Option<M> {
    let read: M = serde_json::from_slice(bytes).ok()?;
    let written = serde_json::to_vec(&read).expect("an accepted message can be written");
    let again: M = serde_json::from_slice(&written).expect("a written message can be read");
    // Not as a value: parameters keep numbers that are too large for one.
    assert_eq!(serde_json::to_vec(&again).ok(), Some(written));
    Some(read)
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

#[test]
fn names() {
    let seeds = ["import-2025_11", "a", "data_processing"];
    Attack::on("names").with(seeds).run(|bytes| {
        let Some(text) = text(bytes) else { return };
        for accepted in [
            OperationId::new(text).map(|id| id.to_string()),
            WorkerId::new(text).map(|id| id.to_string()),
            WorkerType::new(text).map(|id| id.to_string()),
        ] {
            match accepted {
                Ok(name) => assert!(name == text && is_name(text)),
                Err(error) => {
                    assert!(!is_name(text));
                    assert!(error.to_string().len() < 20 * MAX_LEN);
                }
            }
        }
    });
}

#[test]
fn subjects() {
    let names = SubjectNames::new("acme").expect("a prefix");
    let seeds = [
        "acme.start.dummy.any",
        "acme.op.dummy.op-1",
        "acme.cancel.training.x",
        "acme.start.dummy.cores8-mem16",
    ];
    Attack::on("subjects").with(seeds).run(|bytes| {
        let Some(subject) = text(bytes) else { return };
        let worker_type = |text| WorkerType::new(text).ok();
        let id = |text| OperationId::new(text).ok();
        // What holds valid names is built again as it was.
        let built = match names.parse(subject) {
            Some(Topic::Start {
                worker_type: kind,
                queue,
            }) => worker_type(kind)
                .zip(Origin::from_token(queue).ok())
                .map(|(kind, origin)| names.start(&kind, &origin)),
            Some(Topic::Operation {
                worker_type: kind,
                operation_id,
            }) => worker_type(kind)
                .zip(id(operation_id))
                .map(|(kind, id)| names.operation(&kind, &id)),
            Some(Topic::Cancel {
                worker_type: kind,
                operation_id,
            }) => worker_type(kind)
                .zip(id(operation_id))
                .map(|(kind, id)| names.cancel(&kind, &id)),
            // A digest does not lead back to its key.
            Some(Topic::Key { .. }) | None => None,
        };
        if let Some(built) = built {
            assert_eq!(built, subject);
        }
    });
}

#[test]
fn prefixes() {
    Attack::on("prefixes")
        .with(["ktrdr", "acme.prod", "a-b_c"])
        .run(|bytes| {
            let Some(text) = text(bytes) else { return };
            if let Ok(names) = SubjectNames::new(text) {
                assert_eq!(names.prefix(), text);
                assert!(text.split('.').all(is_name));
                assert!(is_name(&names.stream()));
            }
        });
}

#[test]
fn queues() {
    let seeds = [
        "any",
        "gpu",
        "cores8",
        "gpu-mem24",
        "gpu-cores16-mem64",
        "direct",
    ];
    Attack::on("queues").with(seeds).run(|bytes| {
        let Some(text) = text(bytes) else { return };
        if let Some(requirements) = Requirements::from_queue(text) {
            assert_eq!(requirements.queue().as_str(), text);
        }
        if let Ok(origin) = Origin::from_token(text) {
            assert_eq!(origin.as_str(), text);
        }
    });
}

#[test]
fn queue_lists() {
    let names = SubjectNames::new("acme").expect("a prefix");
    let dummy = WorkerType::new("dummy").expect("a worker type");
    let seeds = [
        r#"{"queues":[{"queue":"any","consumer":"dummy-any","lease_ms":30000},{"queue":"gpu-cores8","consumer":"dummy-gpu-cores8","lease_ms":1}]}"#,
        r#"{"queues":[],"later":{}}"#,
    ];
    Attack::on("queue lists").with(seeds).run(|bytes| {
        let Some(list) = message::<QueueList>(bytes) else {
            return;
        };
        let list = list.believed(&names, &dummy);
        assert!(list.queues.len() <= MAX_QUEUES);
        for listed in &list.queues {
            assert!(listed.lease_ms > 0 && list.names(&listed.queue));
            assert_eq!(listed.consumer, names.consumer(&dummy, &listed.queue));
        }
    });
}

#[test]
fn keys_of_the_catalogue() {
    let seeds = [
        "queues.data_processing",
        "domain.dummy",
        "version.dummy.0123456789abcdef",
        "installation.prefix",
        "dummy",
    ];
    Attack::on("keys of the catalogue")
        .with(seeds)
        .run(|bytes| {
            let Some(key) = text(bytes) else { return };
            // What holds a valid name is built again as it was.
            if let Some(kind) =
                worker_type_of_queues_key(key).and_then(|kind| WorkerType::new(kind).ok())
            {
                assert_eq!(queues_key(&kind), key);
            }
            if let Some(kind) =
                worker_type_of_version_key(key).and_then(|kind| WorkerType::new(kind).ok())
            {
                let version = key.splitn(3, '.').nth(2).expect("a version");
                assert_eq!(version_key(&kind, version), key);
            }
            if let Some(domain) = domain_of_key(key) {
                assert_eq!(domain_key(domain), key);
            }
            if let Ok(digest) = key.parse::<SchemaDigest>() {
                assert_eq!(digest.to_string(), key);
            }
        });
}

#[test]
fn events() {
    let head = r#""operation_id":"op-1","at":"2025-11-10T10:30:00.123Z","worker_id":"w-1","attempt":2,"claim_id":"c""#;
    let seeds = [
        format!(r#"{{"event":"started",{head},"start_sequence":7,"delivery":1}}"#),
        format!(
            r#"{{"event":"completed",{head},"result":{{"rows":[1,2,3]}},"progress":{PROGRESS}}}"#
        ),
        format!(
            r#"{{"event":"completed",{head},"result_ref":{{"bucket":"KTRDR_RESULTS","object":"op-1.2","size":900000}},"progress":{PROGRESS}}}"#
        ),
        format!(
            r#"{{"event":"failed",{head},"error":{{"code":"x","message":"why","permanent":true}},"progress":{PROGRESS}}}"#
        ),
        format!(r#"{{"event":"released",{head},"reason":"shutdown"}}"#),
        format!(r#"{{"event":"cancelled",{head},"forced":false}}"#),
    ];
    let read = seeds
        .iter()
        .filter(|seed| Event::decode(seed.as_bytes()).is_ok());
    assert!(read.count() >= 4, "the seeds are not events");

    Attack::on("events").with(seeds).run(|bytes| {
        let Ok(event) = Event::decode(bytes) else {
            return;
        };
        let written = event.encode().expect("an accepted event can be written");
        let again = Event::decode(&written).expect("a written event can be read");
        assert_eq!(again.encode().ok(), Some(written));
        assert!(is_name(event.operation_id.as_str()));
        if let EventKind::Completed { .. } = &event.kind {
            assert!(event.kind.is_terminal());
        }
    });
}

#[test]
fn start_requests() {
    let seeds = [
        r#"{"operation_id":"a","operation_type":"dummy","parameters":{"steps":3,"x":1e2},"created_at":"2025-11-10T10:30:00Z"}"#,
        r#"{"operation_id":"b","operation_type":"training","parameters":{},"created_at":"2025-11-10T10:30:00Z","schema_digest":"0123456789abcdef","execution":{"requirements":{"gpu":true,"cores":8,"memory_gb":16,"tpu":1},"timeout_seconds":60,"max_attempts":3,"nice":[{}]},"retry_of":"a","resume_from":"a","resume_ancestors":["x","y"]}"#,
    ];
    Attack::on("start requests").with(seeds).run(|bytes| {
        if let Some(request) = message::<StartRequest>(bytes) {
            assert!(request.parameters.get().trim_start().starts_with('{'));
            let unknown = &request.execution.unknown;
            assert!(unknown.len() <= 8 && unknown.iter().all(|name| name.chars().count() <= 64));
        }
    });
}

#[test]
fn heartbeats() {
    let seed = format!(
        r#"{{"worker_id":"w","worker_type":"dummy","instance":"i","endpoint_url":"http://h:1","status":"BUSY","capabilities":{{"gpu":false,"cores":8,"zone":"a"}},"version":"0.1.0","registered_at":"2025-11-10T10:30:00Z","at":"2025-11-10T10:30:00Z","interval_seconds":10.0,"slots":1,"running":[{{"operation_id":"op","attempt":1,"report":3,"progress":{PROGRESS}}}],"last_pull_at":null,"finished":1,"fenced":0,"leaving":false}}"#
    );
    Attack::on("heartbeats").with([seed]).run(|bytes| {
        let Some(mut heartbeat) = message::<Heartbeat>(bytes) else {
            return;
        };
        if let Ok(size) = heartbeat.check_parts() {
            assert!(heartbeat.endpoint_url.len() <= MAX_ENDPOINT_URL);
            assert!(size <= MAX_ENDPOINT_URL + MAX_CAPABILITIES + 1000);
        }
        for running in &mut heartbeat.running {
            let size = running
                .progress
                .shorten(Progress::KEPT_STEP, Progress::KEPT_FIELDS);
            assert!(size <= Progress::KEPT_FIELDS + 4 * Progress::KEPT_STEP + 3);
        }
    });
}

#[test]
fn progress() {
    let message_seed = format!(
        r#"{{"operation_id":"op","worker_id":"w","attempt":1,"at":"2025-11-10T10:30:00Z","report":3,"progress":{PROGRESS}}}"#
    );
    Attack::on("progress")
        .with([PROGRESS, &message_seed])
        .run(|bytes| {
            message::<Progress>(bytes);
            message::<ProgressMessage>(bytes);
        });
}

#[test]
fn metric_points() {
    let seed = r#"{"operation_id":"op","worker_id":"w","attempt":1,"points":[{"timestamp":"2025-11-10T10:30:00Z","name":"loss","value":0.5},{"timestamp":"2025-11-10T10:30:01Z","name":"loss","value":null}]}"#;
    Attack::on("metric points").with([seed]).run(|bytes| {
        if let Some(batch) = message::<MetricBatch>(bytes) {
            let values = batch.into_points().filter_map(|point| point.value);
            assert!(values.into_iter().all(f64::is_finite));
        }
    });
}

#[test]
fn log_lines() {
    let seed = r#"{"operation_id":"op","worker_id":"w","attempt":1,"lines":[{"timestamp":"2025-11-10T10:30:00Z","level":"warn","text":"\u001b[1;31mred\u001b[0m\r\n\ttwo","fields":{"rows":7,"é":["\u0000"]}},{"timestamp":"2025-11-10T10:30:01Z","level":"trace","text":""}]}"#;
    let is_harmless = |text: &str| {
        text.chars()
            .all(|c| c == '\n' || c == '\t' || !c.is_control())
    };
    Attack::on("log lines").with([seed]).run(|bytes| {
        let Some(batch) = message::<LogBatch>(bytes) else {
            return;
        };
        for line in batch.into_lines() {
            assert!(line.text.len() <= LogLine::MAX_TEXT && is_harmless(&line.text));
            // What is harmless stays as it is.
            assert_eq!(line.clone().bounded(), line);
        }
    });
}

#[test]
fn other_messages() {
    let seeds = [
        r#"{"operation_id":"op","requested_at":"2025-11-10T10:30:00Z","reason":"no longer needed"}"#.to_owned(),
        r#"{"operation_id":"op"}"#.to_owned(),
        format!(r#"{{"running":{{"operation_id":"op","attempt":1,"report":3,"progress":{PROGRESS}}}}}"#),
        r#"{"worker_type":"dummy","domain":"dummy","description":"d","request_schema":{"type":"object","properties":{"steps":{"type":"integer"}}},"result_schema":{},"version":"0.1.0","execution_defaults":{"timeout_seconds":60}}"#.to_owned(),
    ];
    Attack::on("other messages").with(seeds).run(|bytes| {
        message::<CancelIntent>(bytes);
        message::<OperationQuery>(bytes);
        message::<OperationAnswer>(bytes);
        message::<WorkerTypeEntry>(bytes);
    });
}

#[test]
fn times() {
    let seeds = [
        "\"2025-11-10T10:30:00Z\"",
        "\"2025-11-10T10:30:00.123456789+02:00\"",
        "\"1969-12-31T23:59:59.999Z\"",
        "\"9999-12-31T23:59:59-01:00\"",
        "\"0000-01-01T00:00:00+01:00\"",
    ];
    Attack::on("times").with(seeds).run(|bytes| {
        let Ok(time) = serde_json::from_slice::<Timestamp>(bytes) else {
            return;
        };
        let written = Value::String(time.to_string());
        assert_eq!(
            serde_json::from_value::<Timestamp>(written).ok(),
            Some(time)
        );
        // Arithmetic with made-up times does not overflow.
        let other = Timestamp::from_millis(i64::MIN / 2);
        let _ = (
            time.seconds_since(other),
            time.moved(other, time),
            time.after(other),
        );
    });
}

#[test]
fn trace_contexts() {
    let seeds = ["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"];
    Attack::on("trace contexts").with(seeds).run(|bytes| {
        let Some(text) = text(bytes) else { return };
        if let Some(trace) = TraceParent::parse(text) {
            assert_eq!(TraceParent::parse(trace.as_str()).as_ref(), Some(&trace));
            assert_eq!(trace.as_str().len(), 55);
            assert!(trace.as_str().is_ascii());
        }
    });
}

#[test]
fn cursors() {
    Attack::on("cursors")
        .with(["0-0", "17-3", "17-3-2", "18446744073709551615-1"])
        .run(|bytes| {
            let Some(text) = text(bytes) else { return };
            if let Ok(cursor) = text.parse::<Cursor>() {
                assert_eq!(cursor.to_string().parse(), Ok(cursor));
            }
        });
}
