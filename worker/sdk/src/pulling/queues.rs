//! Which queues this worker serves, and its worker type's entry in the catalogue.

use std::sync::Arc;
use std::time::Duration;

use async_nats::Subscriber;
use async_nats::jetstream::kv::Store;
use futures::{StreamExt, TryStreamExt};
use ktrdr_bus::settings::ProtocolOptions;
use ktrdr_bus::telemetry::{chain, short};
use ktrdr_bus::topology::{self, Role, TopologyError};
use ktrdr_protocol::requirements::Requirements;
use ktrdr_protocol::worker::{WorkerTypeEntry, domain_key};
use tokio::sync::{Notify, watch};

use crate::pulling::puller::ServedQueue;
use crate::worker::core::Core;

/// How often the queues are listed without any sign of a change.
const REFRESH: Duration = Duration::from_secs(30);

/// Pause after NATS did not answer.
const RETRY: Duration = Duration::from_secs(1);

/// Shortest time between two listings: many consumers may be created at once.
const MIN_GAP: Duration = Duration::from_millis(100);

/// Provisions what this worker needs, registers its worker type, and keeps the list of queues that
/// it serves up to date. Returns only an error that waiting cannot repair.
///
/// # Errors
/// [`TopologyError`] when streams, consumers or buckets exist and cannot be used.
pub(crate) async fn follow(
    core: Arc<Core>,
    options: ProtocolOptions,
    queues: watch::Sender<Vec<ServedQueue>>,
    refresh: Arc<Notify>,
) -> Result<(), TopologyError> {
    let mut consumer_created = core
        .connection
        .client
        .subscribe(core.names.consumer_created_advisory())
        .await
        .map_err(|error| TopologyError::Nats {
            what: "the advisory subscription".to_owned(),
            source: error.into(),
        })?;

    loop {
        // A new connection starts again from the provisioning: its server may know nothing of us.
        let follow = follow_connected(&core, &options, &queues, &refresh, &mut consumer_created);
        if let Some(error) = core.connection.while_up(follow).await {
            return Err(error);
        }
    }
}

/// Follows the queues over one connection. Resolves only with an error that waiting cannot repair.
async fn follow_connected(
    core: &Core,
    options: &ProtocolOptions,
    queues: &watch::Sender<Vec<ServedQueue>>,
    refresh: &Notify,
    consumer_created: &mut Subscriber,
) -> TopologyError {
    let mut provisioned = false;
    loop {
        let pause = match list_queues(core, options, &mut provisioned).await {
            Ok(found) => {
                publish_queues(queues, found);
                REFRESH
            }
            Err(error) if error.is_transient() => {
                tracing::warn!(
                    error = chain(&error),
                    "not ready to take work; trying again"
                );
                RETRY
            }
            Err(error) => return error,
        };

        tokio::time::sleep(MIN_GAP).await;
        // Cancel safe: notifications and messages that are not taken stay.
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            Some(_) = consumer_created.next() => {}
            () = refresh.notified() => {}
        }
    }
}

/// Passes the served queues on to the puller if they have changed.
fn publish_queues(queues: &watch::Sender<Vec<ServedQueue>>, found: Vec<ServedQueue>) {
    queues.send_if_modified(|known| {
        if *known == found {
            return false;
        }
        let names: Vec<_> = found.iter().map(|queue| queue.queue.as_str()).collect();
        tracing::info!(queues = names.join(","), "serving queues");
        *known = found;
        true
    });
}

/// Lists the queues that this worker can serve. Before the first listing it provisions streams and
/// buckets, and registers the worker type.
async fn list_queues(
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
    let ensured = topology::ensure_queue(
        jetstream,
        &core.names,
        &core.worker_type,
        &any,
        core.default_lease,
    )
    .await;
    if let Err(error) = ensured {
        // The stream itself may be gone.
        *provisioned = false;
        return Err(error);
    }

    let failed = |source: async_nats::Error| TopologyError::Nats {
        what: format!("the consumers of {}", core.names.stream()),
        source,
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

/// Puts this worker's type into the catalogue, unless the catalogue has the same entry already.
async fn publish_type(core: &Core) -> Result<(), TopologyError> {
    let bucket = core.names.worker_types_bucket();
    let failed = |source: async_nats::Error| TopologyError::Nats {
        what: format!("bucket {bucket}"),
        source,
    };
    let entry = WorkerTypeEntry {
        worker_type: core.worker_type.clone(),
        domain: core.info.domain.clone(),
        description: core.info.description.to_owned(),
        request_schema: core.info.request_schema.clone(),
        result_schema: core.info.result_schema.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        execution_defaults: core.info.execution_defaults,
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
        warn_when_domain_is_taken(store, entry);
        return Ok(());
    }
    let payload = serde_json::to_vec(&entry).map_err(|error| failed(error.into()))?;
    store
        .put(core.worker_type.as_str(), payload.into())
        .await
        .map_err(|error| failed(error.into()))?;
    tracing::info!(worker_type = %core.worker_type, domain = core.info.domain, "worker type registered");
    warn_when_domain_is_taken(store, entry);
    Ok(())
}

/// Looks, beside the work, whether backends have given the domain to another worker type. A worker
/// that may not read that says nothing; backends say it in any case.
fn warn_when_domain_is_taken(store: Store, entry: WorkerTypeEntry) {
    tokio::spawn(async move {
        let owner = store.get(domain_key(&entry.domain)).await.ok().flatten();
        let Some(owner) = owner.filter(|owner| **owner != *entry.worker_type.as_str().as_bytes())
        else {
            return;
        };
        tracing::warn!(
            worker_type = %entry.worker_type,
            domain = entry.domain,
            owner = %short(&String::from_utf8_lossy(&owner)),
            "the domain belongs to another worker type: backends have no start route for this one. Give it another domain"
        );
    });
}
