//! Which queues this worker serves, and its entry in the catalogue.

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use ktrdr_bus::settings::ProtocolOptions;
use ktrdr_bus::telemetry::chain;
use ktrdr_bus::topology::{self, Role, TopologyError};
use ktrdr_protocol::requirements::Requirements;
use ktrdr_protocol::worker::WorkerTypeEntry;
use tokio::sync::{Notify, watch};

use crate::pulling::puller::ServedQueue;
use crate::worker::core::Core;

/// How often the queues are looked for without any sign of change.
const REFRESH: Duration = Duration::from_secs(30);
/// Pause after NATS did not answer.
const RETRY: Duration = Duration::from_secs(1);
/// Shortest time between two looks: many consumers may be created at a time.
const MIN_GAP: Duration = Duration::from_millis(100);

/// Provisions what this worker needs, registers its type, and keeps the list of queues it serves up to date. Returns only
/// with an error that waiting cannot mend.
pub(crate) async fn follow(
    core: Arc<Core>,
    options: ProtocolOptions,
    queues: watch::Sender<Vec<ServedQueue>>,
    refresh: Arc<Notify>,
) -> Result<(), TopologyError> {
    let advisories = core
        .connection
        .client
        .subscribe(core.names.consumer_created_advisory())
        .await;
    let mut advisories = advisories.map_err(|error| TopologyError::Nats {
        what: "the advisory subscription".to_owned(),
        source: error.into(),
    })?;
    core.connection.up().await;
    let mut link = core.connection.link.clone();
    // What happened up to here is covered by the first look.
    link.mark_unchanged();
    let mut provisioned = false;
    loop {
        core.connection.up().await;
        let pause = match look(&core, &options, &mut provisioned).await {
            Ok(found) => {
                queues.send_if_modified(|known| {
                    let changed = *known != found;
                    if changed {
                        let names: Vec<_> =
                            found.iter().map(|queue| queue.queue.as_str()).collect();
                        tracing::info!(queues = names.join(","), "serving");
                        known.clone_from(&found);
                    }
                    changed
                });
                REFRESH
            }
            Err(error) if error.is_transient() => {
                tracing::warn!(
                    error = chain(&error),
                    "not ready to take work; trying again"
                );
                RETRY
            }
            Err(error) => return Err(error),
        };
        tokio::time::sleep(MIN_GAP).await;
        // Cancel safe: notifications and messages that are not taken stay.
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            Some(_) = advisories.next() => {}
            () = refresh.notified() => {}
            // Another server may know nothing of us.
            Ok(()) = link.changed() => provisioned = false,
        }
    }
}

async fn look(
    core: &Core,
    options: &ProtocolOptions,
    provisioned: &mut bool,
) -> Result<Vec<ServedQueue>, TopologyError> {
    let jetstream = &core.connection.jetstream;
    if !*provisioned {
        topology::ensure(jetstream, &core.names, options, Role::Worker).await?;
        publish_type(core).await?;
        *provisioned = true;
    }
    let any = Requirements::default().queue();
    if let Err(error) = topology::ensure_queue(
        jetstream,
        &core.names,
        &core.worker_type,
        &any,
        core.default_lease,
    )
    .await
    {
        // The stream itself may be gone.
        *provisioned = false;
        return Err(error);
    }
    let what = || format!("the consumers of {}", core.names.stream());
    let failed = |error: async_nats::Error| TopologyError::Nats {
        what: what(),
        source: error,
    };
    let stream = jetstream
        .get_stream_no_info(core.names.stream())
        .await
        .map_err(|error| failed(error.into()))?;
    let consumers: Vec<_> = stream
        .consumers()
        .try_collect()
        .await
        .map_err(|error| failed(error.into()))?;
    let mut found: Vec<_> = consumers
        .into_iter()
        .filter_map(|info| {
            let (worker_type, queue) = topology::queue_of(&core.names, &info.config)?;
            let serves = worker_type == core.worker_type
                && Requirements::from_queue(queue.as_str())
                    .is_some_and(|needs| needs.met_by(&core.capabilities));
            serves.then_some(ServedQueue {
                queue,
                consumer: info.name,
                lease: info.config.ack_wait,
            })
        })
        .collect();
    found.sort_by(|a, b| a.queue.cmp(&b.queue));
    Ok(found)
}

/// Puts this worker's type into the catalogue, unless the same entry is there already.
async fn publish_type(core: &Core) -> Result<(), TopologyError> {
    let bucket = core.names.worker_types_bucket();
    let failed = |source: async_nats::Error| TopologyError::Nats {
        what: format!("bucket {bucket}"),
        source,
    };
    let entry = WorkerTypeEntry {
        worker_type: core.worker_type.clone(),
        domain: core.info.domain.to_owned(),
        description: core.info.description.to_owned(),
        request_schema: core.info.request_schema.clone(),
        result_schema: core.info.result_schema.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let store = core
        .connection
        .jetstream
        .get_key_value(&bucket)
        .await
        .map_err(|error| failed(error.into()))?;
    let known = store
        .get(core.worker_type.as_str())
        .await
        .map_err(|error| failed(error.into()))?;
    if known
        .and_then(|bytes| serde_json::from_slice::<WorkerTypeEntry>(&bytes).ok())
        .as_ref()
        == Some(&entry)
    {
        return Ok(());
    }
    let payload = serde_json::to_vec(&entry).map_err(|error| failed(error.into()))?;
    store
        .put(core.worker_type.as_str(), payload.into())
        .await
        .map_err(|error| failed(error.into()))?;
    tracing::info!(worker_type = %core.worker_type, domain = core.info.domain, "worker type registered");
    Ok(())
}
