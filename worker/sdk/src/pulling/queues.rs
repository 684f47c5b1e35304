//! Which queues this worker serves, and its worker type's entry in the catalogue.
//!
//! The problem: queues come and go while the worker runs. It must hear of a new one at once, and it
//! should need no rights for that beyond its own worker type.
//!
//! How it is solved: backends keep a list of the queues of each worker type
//! ([`ktrdr_protocol::queue_list`]). The worker reads the list of its own type, and reads it again
//! when a change is announced on the list's subject, when a pull finds no consumer, at every
//! reconnect, every 30 seconds, and at least twice within the shortest lease. The list also says the
//! leases and the retention in force; what this worker was asked for does not count.
//!
//! Backends of version 0.1.0 write no lists. When there is none for a while, the worker makes the
//! queue `any` and lists the consumers itself, as workers of that version do, until there is one.
//! Streams and buckets are made by backends alone; without them the worker waits.
//!
//! Rejected: to take the list from the announcement. It is a live copy, also of a write that the
//! server then refuses.

use std::sync::Arc;
use std::time::Duration;

use async_nats::Subscriber;
use futures::StreamExt;
use ktrdr_bus::key_values::KeyValues;
use ktrdr_bus::queues::{self, QueueConsumer};
use ktrdr_bus::settings::AskedSettings;
use ktrdr_bus::telemetry::{Repeated, chain, short};
use ktrdr_bus::topology::{self, TopologyError};
use ktrdr_protocol::id::Queue;
use ktrdr_protocol::queue_list::QueueList;
use ktrdr_protocol::requirements::Requirements;
use ktrdr_protocol::worker::{WorkerTypeEntry, domain_key};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::pulling::puller::ServedQueue;
use crate::worker::core::Core;

/// How often the queues are read without any sign of a change, at least.
const REFRESH: Duration = Duration::from_secs(30);

/// Pause after NATS did not answer, and before the queues are read again after a change: a server
/// of a cluster may not have it yet.
const RETRY: Duration = Duration::from_secs(1);

/// Shortest time between two readings: many changes may come at once.
const MIN_GAP: Duration = Duration::from_millis(100);

/// How long the worker waits for backends to write the first list of its worker type. Backends
/// that write lists do it within milliseconds.
const LIST_PATIENCE: Duration = Duration::from_secs(2);

/// Registers this worker's type once a backend has made the streams, and keeps the list of queues that
/// it serves up to date. Returns only an error that waiting cannot repair.
///
/// # Errors
/// [`TopologyError`] when streams, consumers or buckets exist and cannot be used.
pub(crate) async fn follow(
    core: Arc<Core>,
    asked: AskedSettings,
    queues: watch::Sender<Vec<ServedQueue>>,
    refresh: Arc<Notify>,
) -> Result<(), TopologyError> {
    let list_changed = subscribe(&core, core.names.queue_list(&core.worker_type)).await?;
    let mut follower = Follower {
        core: &core,
        asked,
        untold: Repeated::new(),
        has_compared: false,
        queues: &queues,
        refresh: &refresh,
        list_changed,
        consumer_created: None,
    };
    loop {
        // A new connection starts again from the provisioning: its server may know nothing of us.
        if let Some(error) = core.connection.while_up(follower.follow_connected()).await {
            return Err(error);
        }
    }
}

async fn subscribe(core: &Core, subject: String) -> Result<Subscriber, TopologyError> {
    let what = format!("the subscription to {subject}");
    let subscribed = core.connection.client.subscribe(subject).await;
    subscribed.map_err(|error| TopologyError::Nats {
        what,
        source: error.into(),
    })
}

struct Follower<'a> {
    core: &'a Core,
    /// What this worker was asked for.
    asked: AskedSettings,
    /// Lines about not being ready.
    untold: Repeated,
    /// Whether the lease in force was compared with what was asked.
    has_compared: bool,
    queues: &'a watch::Sender<Vec<ServedQueue>>,
    refresh: &'a Notify,
    /// Says that the list of queues was written.
    list_changed: Subscriber,
    /// Says that a consumer was created; only there while no backend writes lists.
    consumer_created: Option<Subscriber>,
}

/// What is known of one connection.
#[derive(Default)]
struct Known {
    /// Whether streams and buckets exist and the worker type is registered.
    provisioned: bool,
    /// Whether a list of queues was found.
    listed: bool,
    /// Since when none was found.
    unlisted_since: Option<Instant>,
}

impl Follower<'_> {
    /// Follows the queues over one connection. Resolves only with an error that waiting cannot
    /// repair.
    async fn follow_connected(&mut self) -> TopologyError {
        let mut known = Known::default();
        let mut changed = false;
        loop {
            let pause = match self.find_queues(&mut known).await {
                Ok(Some(found)) => {
                    publish_queues(self.queues, found);
                    tokio::time::sleep(MIN_GAP).await;
                    if changed {
                        RETRY
                    } else {
                        refresh_after(self.queues)
                    }
                }
                Ok(None) => RETRY,
                Err(error) if error.is_transient() => {
                    // What was provisioned may be gone.
                    known.provisioned = false;
                    if let Some(count) = self.untold.note() {
                        tracing::warn!(
                            error = chain(&error),
                            count,
                            "not ready to take work; trying again"
                        );
                    }
                    RETRY
                }
                Err(error) => return error,
            };

            // Cancel safe: notifications and messages that are not taken stay.
            changed = tokio::select! {
                () = tokio::time::sleep(pause) => false,
                Some(_) = self.list_changed.next() => true,
                Some(_) = next(&mut self.consumer_created) => true,
                () = self.refresh.notified() => false,
            };
        }
    }

    /// The queues that this worker can serve; `None` while backends may still write the first list.
    /// Before the first reading it registers the worker type.
    async fn find_queues(
        &mut self,
        known: &mut Known,
    ) -> Result<Option<Vec<ServedQueue>>, TopologyError> {
        let core = self.core;
        let jetstream = &core.connection.jetstream;
        if !known.provisioned {
            if !topology::is_provisioned(jetstream, &core.names).await? {
                // Backends do it when they start. They write no lists either until they have.
                let since = *known.unlisted_since.get_or_insert_with(Instant::now);
                if since.elapsed() < LIST_PATIENCE {
                    return Ok(None);
                }
                // Those of version 0.1.0 leave no record of it. The stream itself may be of another
                // prefix.
                topology::in_force(jetstream, &core.names).await?;
            }
            publish_type(core).await?;
            known.provisioned = true;
        } else if !is_registered(core).await? {
            // The bucket was lost, and a backend has made it again.
            publish_type(core).await?;
        }

        if let Some(list) = queues::read_list(jetstream, &core.names, &core.worker_type).await? {
            (known.listed, known.unlisted_since) = (true, None);
            self.consumer_created = None;
            self.follow_settings(&list);
            return Ok(Some(served_of_list(core, list)));
        }
        if std::mem::take(&mut known.listed) {
            // The bucket was emptied, and the entry of the worker type may be gone, too.
            known.provisioned = false;
        }
        let since = *known.unlisted_since.get_or_insert_with(Instant::now);
        if since.elapsed() < LIST_PATIENCE {
            return Ok(None);
        }

        if self.consumer_created.is_none() {
            tracing::info!("no backend lists the queues of this worker type; asking the server");
            let created = core.names.consumer_created_advisory();
            self.consumer_created = Some(subscribe(core, created).await?);
        }
        list_consumers(core).await.map(Some)
    }
}

impl Follower<'_> {
    /// Takes over the leases and the retention that the list names.
    fn follow_settings(&mut self, list: &QueueList) {
        for listed in &list.queues {
            let lease = Duration::from_millis(listed.lease_ms);
            self.core.leases.set(&listed.queue, lease);
        }
        if let (Some(trusted), Some(retention)) = (&self.core.trusted, list.retention_ms) {
            trusted.set_retention(Duration::from_millis(retention));
        }

        let in_force = list.queues.first().map(|listed| listed.lease_ms);
        let (Some(in_force), false) = (in_force.map(Duration::from_millis), self.has_compared)
        else {
            return;
        };
        self.has_compared = true;
        if let Some(asked) = self.asked.lease.filter(|asked| *asked != in_force) {
            tracing::warn!(
                ?in_force,
                ?asked,
                "this worker follows the lease in force, which lives with the streams, not its own KTRDR_LEASE. To change it: ktrdr-backend configure --lease … --apply"
            );
        }
    }
}

/// When the queues are read again without any sign of a change: a lease that is shortened must be
/// known before the longer one is over.
fn refresh_after(queues: &watch::Sender<Vec<ServedQueue>>) -> Duration {
    let shortest = queues.borrow().iter().map(|served| served.lease).min();
    shortest.map_or(REFRESH, |lease| (lease / 2).clamp(MIN_GAP, REFRESH))
}

/// The next message; waits for ever without a subscription.
async fn next(subscriber: &mut Option<Subscriber>) -> Option<async_nats::Message> {
    match subscriber {
        Some(subscriber) => subscriber.next().await,
        None => std::future::pending().await,
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

/// Whether this worker can serve a queue: it meets the requirements in its name.
fn serves(core: &Core, queue: &Queue) -> bool {
    Requirements::from_queue(queue.as_str()).is_some_and(|needs| needs.met_by(&core.capabilities))
}

fn served_of_list(core: &Core, list: QueueList) -> Vec<ServedQueue> {
    let served = list
        .queues
        .into_iter()
        .filter(|listed| serves(core, &listed.queue));
    served
        .map(|listed| ServedQueue {
            queue: listed.queue,
            consumer: listed.consumer,
            lease: Duration::from_millis(listed.lease_ms),
        })
        .collect()
}

/// Makes the queue `any` and lists the consumers of queues that this worker can serve: the way of
/// the version before.
async fn list_consumers(core: &Core) -> Result<Vec<ServedQueue>, TopologyError> {
    let jetstream = &core.connection.jetstream;
    let any = Requirements::default().queue();
    queues::ensure(
        jetstream,
        &core.names,
        &core.worker_type,
        &any,
        core.default_lease,
        None,
    )
    .await?;

    let listing = queues::list(jetstream, &core.names).await?;
    let mut found: Vec<_> = listing
        .queues
        .into_iter()
        .filter(|found| found.worker_type == core.worker_type && serves(core, &found.queue))
        .map(|QueueConsumer { queue, info, .. }| ServedQueue {
            queue,
            consumer: info.name,
            lease: info.config.ack_wait,
        })
        .collect();
    found.sort_by(|a, b| a.queue.cmp(&b.queue));
    Ok(found)
}

/// Whether the catalogue has an entry of this worker's type, in whatever version.
async fn is_registered(core: &Core) -> Result<bool, TopologyError> {
    let bucket = core.names.worker_types_bucket();
    let what = format!("bucket {bucket}");
    let store = KeyValues::new(core.connection.jetstream.clone(), bucket);
    match store.read(core.worker_type.as_str()).await {
        // An operator has removed the entry on purpose when there is a note about it.
        Ok(found) => Ok(found.is_some()),
        Err(error) => Err(TopologyError::Nats {
            what,
            source: error.into(),
        }),
    }
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

    let store = KeyValues::new(core.connection.jetstream.clone(), bucket.as_str());
    let known = store
        .read(core.worker_type.as_str())
        .await
        .map_err(|error| failed(error.into()))?;

    if known
        .and_then(|found| found.value)
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
fn warn_when_domain_is_taken(store: KeyValues, entry: WorkerTypeEntry) {
    tokio::spawn(async move {
        let found = store.read(&domain_key(&entry.domain)).await.ok().flatten();
        let owner = found.and_then(|found| found.value);
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
