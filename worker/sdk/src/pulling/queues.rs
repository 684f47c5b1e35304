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
use ktrdr_bus::queues::{self, QueueConsumer};
use ktrdr_bus::settings::AskedSettings;
use ktrdr_bus::telemetry::{Repeated, chain};
use ktrdr_bus::topology::{self, TopologyError};
use ktrdr_protocol::id::Queue;
use ktrdr_protocol::priority::Priority;
use ktrdr_protocol::queue_list::QueueList;
use ktrdr_protocol::queue_name::QueueName;
use ktrdr_protocol::requirements::Requirements;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::announce::worker_type::{self, Registration};
use crate::pulling::queue_pulls::ServedQueue;
use crate::worker::core::Core;
use crate::worker::error::WorkerError;

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
/// [`WorkerError`] when streams, consumers or buckets exist and cannot be used, or when the domain
/// belongs to another worker type.
pub(crate) async fn follow(
    core: Arc<Core>,
    asked: AskedSettings,
    queues: watch::Sender<Vec<ServedQueue>>,
    refresh: Arc<Notify>,
) -> Result<(), WorkerError> {
    let list_changed = subscribe(&core, core.names.queue_list(&core.worker_type)).await?;
    let mut follower = Follower {
        core: &core,
        asked,
        registration: Registration::default(),
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
    registration: Registration,
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
    async fn follow_connected(&mut self) -> WorkerError {
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
                Err(WorkerError::Topology(error)) if error.is_transient() => {
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
    ) -> Result<Option<Vec<ServedQueue>>, WorkerError> {
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
            self.registration.publish(core).await?;
            known.provisioned = true;
        } else if worker_type::is_registered(core).await? {
            self.registration.look_at_domain(core).await?;
        } else {
            // The bucket was lost, and a backend has made it again.
            self.registration.publish(core).await?;
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
        Ok(Some(list_consumers(core).await?))
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

/// The priority of a queue that this worker can serve: it meets the requirements in its name.
fn serves(core: &Core, queue: &Queue) -> Option<Priority> {
    let name = QueueName::parse(queue.as_str())?;
    let can_serve = !name.is_delayed && name.class.met_by(&core.capabilities);
    can_serve.then_some(name.priority)
}

fn served_of_list(core: &Core, list: QueueList) -> Vec<ServedQueue> {
    let served = list.queues.into_iter().filter_map(|listed| {
        Some(ServedQueue {
            priority: serves(core, &listed.queue)?,
            queue: listed.queue,
            consumer: listed.consumer,
            lease: Duration::from_millis(listed.lease_ms),
        })
    });
    served.collect()
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
        None,
    )
    .await?;

    let listing = queues::list(jetstream, &core.names).await?;
    let mut found: Vec<_> = listing
        .queues
        .into_iter()
        .filter(|found| found.worker_type == core.worker_type)
        .filter_map(|QueueConsumer { queue, info, .. }| {
            Some(ServedQueue {
                priority: serves(core, &queue)?,
                queue,
                consumer: info.name,
                lease: info.config.ack_wait,
            })
        })
        .collect();
    found.sort_by(|a, b| a.queue.cmp(&b.queue));
    Ok(found)
}
