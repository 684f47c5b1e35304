//! Keeps the queues: makes those that are needed, lists what exists, removes what nobody uses.
//!
//! The problem: consumers can be missing or be left over: a broker lost them, a backend was killed
//! between two steps, an operator or a backend of an earlier version made or removed one. And a
//! start may be published while its consumer is removed.
//!
//! How it is solved: rounds that compare what should be with what is. Every known worker type
//! should have the queue `any`. Every queue with an operation that has not ended should exist,
//! whoever started it. Every consumer of a queue should be listed, and nothing else. A round may be
//! repeated without harm, and all backends do it at the same time: the lists are written behind
//! their revision.
//!
//! Rejected: advisories of the server as the trigger. One that is missed would leave a fault
//! behind.
//!
//! | module | does |
//! |---|---|
//! | [`remove`] | removes the consumer of one queue without losing a start |
//! | [`idle`] | finds queues that nobody has used for a while |
//! | [`leases`] | gives the consumers the lease that is in force |

mod idle;
mod leases;
mod remove;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use ktrdr_bus::queues::{self, Listing, QueueConsumer};
use ktrdr_bus::stream_settings::StreamSettings;
use ktrdr_bus::telemetry::{Repeated, chain};
use ktrdr_bus::topology::TopologyError;
use ktrdr_protocol::id::{Queue, WorkerType};
use ktrdr_protocol::origin::Origin;
use ktrdr_protocol::queue_class;
use ktrdr_protocol::queue_list::QueueList;
use ktrdr_protocol::queue_name::QueueName;
use ktrdr_protocol::queue_pause::QueuePause;
use ktrdr_protocol::requirements::Requirements;
use tokio::sync::watch;
use tokio::time::Instant;

use self::idle::IdleWatch;
use self::leases::LeaseWatch;
use super::figures;
use crate::catalogue::CatalogueEntry;
use crate::projection::model::QueueState;
use crate::queues::lists::Known;
use crate::queues::room::Demand;
use crate::queues::{QueueError, is_any};
use crate::state::AppState;

/// How often the server is asked for the consumers.
const MOST_BETWEEN_ROUNDS: Duration = Duration::from_secs(10);

/// The same when queues are removed very soon.
const LEAST_BETWEEN_ROUNDS: Duration = Duration::from_millis(50);

/// How often this backend's own knowledge is looked through.
const TICK: Duration = Duration::from_secs(1);

/// Pause of a consumer that no removal needs. Unless somebody wanted it, the clock of the backend that
/// paused it was wrong.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Works until the task is dropped.
pub async fn run(state: &AppState) {
    let between = (state.config.queue_idle / 4).clamp(LEAST_BETWEEN_ROUNDS, MOST_BETWEEN_ROUNDS);
    let mut keeper = Keeper {
        state,
        idle: IdleWatch::default(),
        leases: LeaseWatch::default(),
        settings: state.settings.subscribe(),
        looked: None,
        failures: Repeated::new(),
        full: Repeated::new(),
    };
    let mut changes = state.settings.subscribe();
    loop {
        // All arms are cancel safe: a wake-up that was not received stays stored.
        tokio::select! {
            () = tokio::time::sleep(TICK.min(between)) => {}
            () = state.catalogue.changed.notified() => {}
            _ = changes.changed() => {}
        }
        if !state.connection.is_up() {
            continue;
        }

        keeper.make_needed().await;
        if keeper.is_due(between) {
            keeper.look_at_consumers().await;
        }
    }
}

/// A queue that should exist.
struct Needed {
    demand: Demand,
    worker_type: WorkerType,
    queue: Queue,
}

struct Keeper<'a> {
    state: &'a AppState,
    idle: IdleWatch,
    leases: LeaseWatch,
    /// Says that the settings in force have changed.
    settings: watch::Receiver<StreamSettings>,
    /// When the consumers were looked at, and over which connection to which stream.
    looked: Option<(Instant, (u64, u64))>,
    failures: Repeated,
    full: Repeated,
}

impl Keeper<'_> {
    /// Makes every queue that should exist and is not known to.
    async fn make_needed(&self) {
        let state = self.state;
        let mut needed = Vec::new();
        if state.catalogue.is_loaded() {
            let any = Requirements::default().queue();
            let types = state.catalogue.all();
            let settings = state.settings.get();
            // Before the queues: a worker that knows its queues finds the bucket of its results.
            for entry in &types {
                let worker_type = &entry.published.worker_type;
                let provided =
                    state
                        .results
                        .provide(&state.connection, &state.names, &settings, worker_type);
                if let Err(error) = provided.await {
                    // The queues are needed all the same.
                    self.note_failure(&error);
                    break;
                }
            }
            let any_of = |entry: &Arc<CatalogueEntry>| Needed {
                demand: Demand::Certain,
                worker_type: entry.published.worker_type.clone(),
                queue: any.clone(),
            };
            needed.extend(types.iter().map(any_of));
        }
        // Before that, operations that have ended look as if they had not.
        if state.projection.is_caught_up() {
            needed.extend(self.open_queues());
        }

        for needed in needed {
            let Needed {
                demand,
                worker_type,
                queue,
            } = needed;
            match state.queues.repair(&worker_type, &queue, demand).await {
                // The lack of room is logged where it is noticed.
                Ok(()) | Err(QueueError::NoRoom(_)) => {}
                // The others would wait for the same server.
                Err(QueueError::Topology(error)) => return self.note_failure(&error),
            }
        }
    }

    /// The queues with operations that have not ended, those first for which there is a worker.
    fn open_queues(&self) -> Vec<Needed> {
        let (now, registry) = (Instant::now(), &self.state.registry);
        let needed = |found: QueueState| {
            let Origin::Queued(queue) = &found.info.origin else {
                return None;
            };
            let name = found.info.name.filter(|name| !name.is_delayed)?;
            if found.pending + found.running == 0 {
                return None;
            }

            let worker_type = found.info.worker_type.clone();
            let candidates = registry.candidates(worker_type.as_str(), &name.class, now);
            Some(Needed {
                demand: if candidates.able > 0 {
                    Demand::Certain
                } else {
                    Demand::Possible
                },
                worker_type,
                queue: queue.clone(),
            })
        };

        let mut open: Vec<Needed> = self
            .state
            .projection
            .queues()
            .into_iter()
            .filter_map(needed)
            .collect();
        open.sort_by_key(|needed| needed.demand);
        open
    }

    fn is_due(&mut self, between: Duration) -> bool {
        let queues = &self.state.queues;
        let (now, lease_due) = (Instant::now(), self.leases.due());
        // A sender that is gone ends the backend elsewhere.
        let is_changed = self.settings.has_changed().unwrap_or_default();
        self.settings.mark_unchanged();
        is_changed
            || lease_due.is_some_and(|due| now >= due)
            || queues.lists.take_news()
            || self
                .looked
                .is_none_or(|(when, epoch)| when.elapsed() >= between || epoch != queues.epoch())
    }

    /// Compares the server's consumers with the lists, and removes queues that nobody needs.
    async fn look_at_consumers(&mut self) {
        let epoch = self.state.queues.epoch();
        // Read before the consumers: a list that is written meanwhile is not overwritten.
        let listed = self.state.queues.lists.all();
        let listing = match self.ask_server().await {
            Ok(listing) => listing,
            Err(error) => return self.note_failure(&error),
        };
        self.looked = Some((Instant::now(), epoch));
        figures::note_queues(self.state, &listing, &self.full);

        let (state, failures) = (self.state, &self.failures);
        let failed = |error: &TopologyError| note_failure(failures, error);
        self.leases.round(state, &listing, &listed, failed).await;
        self.list_queues(&listing, listed).await;
        self.make_room(&listing).await;
        self.remove_idle(&listing).await;
    }

    /// All consumers. Also measures how many there may be, and mends what a rare race has left.
    async fn ask_server(&self) -> Result<Listing, TopologyError> {
        let (state, names) = (self.state, &self.state.names);
        let jetstream = &state.connection.jetstream;
        let failed = |source: async_nats::Error| TopologyError::Nats {
            what: format!("stream {}", names.stream()),
            source,
        };
        let stream = jetstream
            .get_stream(names.stream())
            .await
            .map_err(|error| failed(error.into()))?;
        let stream = stream.cached_info();
        let mut listing = queues::list(jetstream, names).await?;
        state
            .queues
            .room
            .set_measured(listing.consumers, stream.config.max_consumers);

        let mut broken = Vec::new();
        for found in &listing.queues {
            match self.mend(found, stream.state.last_sequence).await {
                Ok(true) => broken.push(found.info.name.clone()),
                Ok(false) => {}
                // One that cannot be mended must not hold up those of other types.
                Err(error) if state.connection.is_up() => self.note_failure(&error),
                Err(error) => return Err(error),
            }
        }
        listing
            .queues
            .retain(|found| !broken.contains(&found.info.name));
        Ok(listing)
    }

    /// Mends what is wrong with one consumer. True when it was of a stream that was replaced, which ended
    /// at `last_sequence`: it is removed then.
    async fn mend(&self, found: &QueueConsumer, last_sequence: u64) -> Result<bool, TopologyError> {
        let (state, names) = (self.state, &self.state.names);
        let (jetstream, consumer) = (&state.connection.jetstream, &found.info.name);
        if starts_behind(&found.info.config, last_sequence) {
            tracing::warn!(
                consumer,
                "the queue is of a stream that was replaced; removing it"
            );
            queues::remove(jetstream, names, consumer).await?;
            state.queues.note_removed(&found.worker_type, &found.queue);
            return Ok(true);
        }

        if queues::is_bounded_too_low(&found.info.config) {
            queues::raise_bound(jetstream, names, &found.info).await?;
        }
        self.keep_to_pause(found).await?;
        Ok(false)
    }

    /// Pauses a consumer whose queue should be, and resumes one that nobody wanted paused. This backend may
    /// not have heard of the newest pause, or of its end: the leader says what is wanted.
    async fn keep_to_pause(&self, found: &QueueConsumer) -> Result<(), TopologyError> {
        let (state, names) = (self.state, &self.state.names);
        let (jetstream, consumer) = (&state.connection.jetstream, &found.info.name);
        let is_as_wanted = |wanted: Option<QueuePause>| match wanted.map(QueuePause::end) {
            None => found.info.pause_remaining <= Some(LONGEST_PAUSE),
            Some(end) => queues::is_paused_until(&found.info.config, end),
        };
        if is_as_wanted(state.queues.lists.pauses.of(&found.worker_type)) {
            return Ok(());
        }

        let newest = state.queues.newest_pause(&found.worker_type).await;
        let newest = newest.map_err(|source| TopologyError::Nats {
            what: format!("the pause of the queues of {}", found.worker_type),
            source: source.into(),
        })?;
        match newest.map(QueuePause::end) {
            _ if is_as_wanted(newest) => Ok(()),
            None => queues::resume(jetstream, names, consumer).await,
            Some(end) => queues::pause(jetstream, names, consumer, end).await,
        }
    }

    /// Writes the lists that do not name exactly the consumers that exist.
    async fn list_queues(&self, listing: &Listing, listed: HashMap<WorkerType, Known>) {
        let (names, settings) = (&self.state.names, self.state.settings.get());
        let pauses = &self.state.queues.lists.pauses;
        let mut wanted: BTreeMap<&WorkerType, QueueList> =
            listed.keys().map(|of| (of, QueueList::default())).collect();
        for found in &listing.queues {
            // One that is paused for a short time is about to be removed, or comes back.
            let is_leaving = found.info.paused
                && found.info.pause_remaining <= Some(LONGEST_PAUSE)
                && pauses.of(&found.worker_type).is_none();
            if !is_leaving {
                let list = wanted.entry(&found.worker_type).or_default();
                // The list never names a longer lease than the consumer has (see `leases`).
                let lease = found.info.config.ack_wait.min(settings.lease);
                list.set(names, &found.worker_type, &found.queue, lease);
            }
        }

        for (worker_type, mut list) in wanted {
            list.set_retention(settings.retention);
            let known = listed.get(worker_type).cloned().unwrap_or_default();
            if known.list == list {
                continue;
            }
            let lists = &self.state.queues.lists;
            match lists.replace(worker_type, known.revision, list).await {
                Ok(true) => tracing::debug!(%worker_type, "listed the queues"),
                // Another backend wrote it; the next round compares again.
                Ok(false) => tracing::debug!(%worker_type, "another list came first"),
                Err(error) => self.note_failure(&error),
            }
        }
    }

    /// Removes queues while they take the consumers that backends need: those of earlier versions
    /// first, and empty ones first. Their operations lose nothing: each queue is made again, from
    /// its oldest operation that has not ended, as soon as there is room.
    async fn make_room(&self, listing: &Listing) {
        let room = &self.state.queues.room;
        let mut surplus = listing.consumers.saturating_sub(room.for_all_queues());
        if surplus == 0 {
            return;
        }

        let mut removable: Vec<&QueueConsumer> = listing
            .queues
            .iter()
            .filter(|found| found.info.num_ack_pending == 0 && !is_any(&found.queue))
            .collect();
        removable.sort_by_key(|found| {
            let is_class = QueueName::parse(found.queue.as_str())
                .is_some_and(|name| queue_class::is_class(&name.class));
            (is_class, found.info.num_pending > 0)
        });
        tracing::warn!(
            consumers = listing.consumers,
            limit = room.limit(),
            surplus,
            "queues take too many consumers; removing some of them"
        );
        for found in removable {
            if surplus == 0 {
                break;
            }
            if self.remove(found, remove::Reason::Room).await {
                surplus -= 1;
            }
        }
    }

    async fn remove_idle(&mut self, listing: &Listing) {
        let idle = if self.state.queues.room.check(Demand::Possible).is_ok() {
            self.state.config.queue_idle
        } else {
            self.state.config.queue_idle.min(MOST_BETWEEN_ROUNDS)
        };
        for found in self.idle.round(self.state, listing, idle) {
            self.remove(found, remove::Reason::Idle).await;
        }
    }

    async fn remove(&self, found: &QueueConsumer, reason: remove::Reason) -> bool {
        match remove::remove(self.state, found, reason).await {
            Ok(is_removed) => is_removed,
            Err(error) => {
                self.note_failure(&*error);
                false
            }
        }
    }

    fn note_failure(&self, error: &(dyn std::error::Error + 'static)) {
        note_failure(&self.failures, error);
    }
}

fn note_failure(failures: &Repeated, error: &(dyn std::error::Error + 'static)) {
    if let Some(count) = failures.note() {
        tracing::warn!(
            error = chain(error),
            count,
            "the queues could not be looked after; trying again"
        );
    }
}

/// Whether a consumer begins behind the end of the stream: it was meant for another stream.
fn starts_behind(config: &async_nats::jetstream::consumer::Config, last_sequence: u64) -> bool {
    use async_nats::jetstream::consumer::DeliverPolicy;
    matches!(config.deliver_policy, DeliverPolicy::ByStartSequence { start_sequence }
        if start_sequence > last_sequence.saturating_add(1))
}
