//! Somebody with rights who makes mistakes: deletes consumers and buckets, changes settings by hand,
//! starts a backend that knows none of the settings, fills the store with something else.

use std::time::Duration;

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::{DeleteStreamErrorKind, PublishErrorKind};
use async_nats::jetstream::stream::Config;
use tokio::time::{Instant, sleep, sleep_until};

use super::agent::Observations;
use super::schedule::{Action, Fault};
use crate::bus::Bus;
use crate::process::BackendProcess;
use crate::settings::Settings;

/// The consumers that are deleted.
const CONSUMERS: [&str; 3] = ["dummy-any", "stamp-any", "data_processing-any"];

/// The streams that are deleted. Nothing in them is needed for an operation to end once. The last one is
/// there only when there are schedules.
const STREAMS: [&str; 6] = [
    "KTRDR_METRICS",
    "KV_KTRDR_CHECKPOINTS",
    "OBJ_KTRDR_RESULTS_of_dummy",
    "KV_KTRDR_WORKER_TYPES",
    "KTRDR_LOGS",
    "KTRDR_SCHEDULES",
];

/// Those of them that get other settings.
const CHANGED: [&str; 2] = [STREAMS[0], STREAMS[1]];

/// The stream that fills the store.
const BALLAST: &str = "BALLAST";

/// Bytes of its messages, as many as a message may have.
const BALLAST_BYTES: usize = 1_000_000;

/// Its messages, at most: more than the store holds.
const MAX_BALLAST: usize = 400;

/// How often a request is repeated while the server is away.
const TRIES: usize = 20;

/// Makes these mistakes, whose times count from `began`.
pub async fn run(
    bus: &Bus,
    settings: &Settings,
    faults: Vec<Fault>,
    began: Instant,
    has_schedules: bool,
) -> Observations {
    let streams = match has_schedules {
        true => &STREAMS[..],
        false => &STREAMS[..STREAMS.len() - 1],
    };
    let mut observations = Observations::default();
    for fault in faults {
        sleep_until(began + fault.at).await;
        let is_done = match fault.action {
            Action::DeleteConsumer => {
                let consumer = CONSUMERS[fault.index % CONSUMERS.len()];
                retried(async || {
                    let stream = bus.names.stream();
                    let deleted = bus.jetstream.delete_consumer_from_stream(consumer, stream);
                    deleted.await.is_ok()
                })
                .await
            }
            Action::DeleteBucket => {
                let stream = streams[fault.index % streams.len()];
                retried(async || is_gone(bus, stream).await).await
            }
            Action::ChangeSettings => {
                let stream = CHANGED[fault.index % CHANGED.len()];
                retried(async || shorten(bus, stream).await).await
            }
            Action::StartStranger => {
                stranger(settings, fault.away).await;
                true
            }
            Action::FillStore => {
                let is_full = fill(bus).await;
                sleep(fault.away).await;
                let is_empty = retried(async || is_gone(bus, BALLAST).await).await;
                if !is_empty {
                    let problem = "the operator could not make room again";
                    observations.problems.push(problem.to_owned());
                }
                is_full
            }
            Action::Kill | Action::Freeze | Action::Restart => false,
        };
        if is_done {
            let kind = (fault.role, fault.action);
            *observations.faults.entry(kind).or_default() += 1;
        }
    }
    observations
}

/// Deletes a stream, and tells whether it is gone. An earlier try may have deleted it, and its answer
/// was lost.
async fn is_gone(bus: &Bus, stream: &str) -> bool {
    match bus.jetstream.delete_stream(stream).await {
        Ok(_) => true,
        Err(error) => match error.kind() {
            DeleteStreamErrorKind::JetStream(refusal) => {
                refusal.error_code() == ErrorCode::STREAM_NOT_FOUND
            }
            _ => false,
        },
    }
}

async fn retried(act: impl AsyncFn() -> bool) -> bool {
    for _ in 0..TRIES {
        if act().await {
            return true;
        }
        sleep(Duration::from_millis(200)).await;
    }
    false
}

/// Uses up what the server may store. True when it refuses more.
async fn fill(bus: &Bus) -> bool {
    let config = Config {
        name: BALLAST.to_owned(),
        subjects: vec!["ballast".to_owned()],
        ..Config::default()
    };
    if !retried(async || bus.jetstream.create_stream(&config).await.is_ok()).await {
        return false;
    }
    for size in [BALLAST_BYTES, BALLAST_BYTES / 100] {
        for _ in 0..MAX_BALLAST {
            let Ok(sent) = bus.jetstream.publish("ballast", vec![0; size].into()).await else {
                return false;
            };
            match sent.await {
                Ok(_) => {}
                // The server itself refuses; otherwise it is away.
                Err(error) if error.kind() == PublishErrorKind::Other => break,
                Err(_) => return false,
            }
        }
    }
    true
}

/// Keeps messages for a shorter time.
async fn shorten(bus: &Bus, name: &str) -> bool {
    let Ok(stream) = bus.jetstream.get_stream(name).await else {
        return false;
    };
    let before = stream.cached_info().config.clone();
    let max_age = Duration::from_secs(3_600);
    let changed = Config {
        max_age,
        duplicate_window: before.duplicate_window.min(max_age),
        ..before
    };
    bus.jetstream.update_stream(&changed).await.is_ok()
}

/// A backend with nothing but the address of NATS.
async fn stranger(settings: &Settings, life: Duration) {
    let plain = Settings {
        heartbeat: Duration::from_secs(10),
        lease: Duration::from_secs(30),
        cancel_grace: Duration::from_secs(30),
        ..Settings::fast(settings.nats_url.clone())
    };
    let backend = BackendProcess::launch(&plain);
    sleep(life).await;
    drop(backend);
}
