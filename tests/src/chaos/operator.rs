//! Somebody with rights who makes mistakes: deletes consumers and buckets, changes settings by hand,
//! starts a backend that knows none of the settings.

use std::time::Duration;

use async_nats::jetstream::stream::Config;
use tokio::time::{Instant, sleep, sleep_until};

use super::agent::Observations;
use super::schedule::{Action, Fault};
use crate::bus::Bus;
use crate::process::BackendProcess;
use crate::settings::Settings;

/// The consumers that are deleted.
const CONSUMERS: [&str; 3] = ["dummy-any", "stamp-any", "data_processing-any"];

/// The streams that are deleted, or get other settings. Nothing in them is needed for an operation to
/// end once.
const STREAMS: [&str; 2] = ["KTRDR_METRICS", "KV_KTRDR_CHECKPOINTS"];

/// How often a request is repeated while the server is away.
const TRIES: usize = 20;

/// Makes these mistakes, whose times count from `began`.
pub async fn run(
    bus: &Bus,
    settings: &Settings,
    faults: Vec<Fault>,
    began: Instant,
) -> Observations {
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
                let stream = STREAMS[fault.index % STREAMS.len()];
                retried(async || bus.jetstream.delete_stream(stream).await.is_ok()).await
            }
            Action::ChangeSettings => {
                let stream = STREAMS[fault.index % STREAMS.len()];
                retried(async || shorten(bus, stream).await).await
            }
            Action::StartStranger => {
                stranger(settings, fault.away).await;
                true
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

async fn retried(act: impl AsyncFn() -> bool) -> bool {
    for _ in 0..TRIES {
        if act().await {
            return true;
        }
        sleep(Duration::from_millis(200)).await;
    }
    false
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
