//! Looks at what would otherwise fill up or grow old in silence, every ten seconds, or more often when
//! the retention is short. It warns, and keeps the figures for `/metrics` ([`crate::figures`]).
//!
//! The figures of queues come from the duty [`super::queues`], which asks for all consumers anyway.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use async_nats::jetstream::stream::{DiscardPolicy, Info};
use ktrdr_bus::queues::Listing;
use ktrdr_bus::telemetry::{Repeated, chain};
use ktrdr_protocol::id::OperationId;
use ktrdr_protocol::subject::SubjectNames;
use ktrdr_protocol::time::Timestamp;
use tokio::time::Instant;

use crate::figures::{QueueFigures, StreamFigures, WorkFigures};
use crate::projection::model::UnfinishedWork;
use crate::state::AppState;

/// Pause between two looks, at most.
const INTERVAL: Duration = Duration::from_secs(10);

/// Pause between two looks, at least.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(20);

/// The part of a limit above which there is a warning.
const NEARLY_FULL: f64 = 0.8;

/// The part of the age at which the stream drops an operation, above which there is a warning.
const NEARLY_EXPIRED: f64 = 0.99;

/// How long a running operation may report nothing new before there is a warning. Some engines
/// report rarely.
const QUIET: Duration = Duration::from_secs(3600);

/// Works until the task is dropped.
pub async fn run(state: &AppState) {
    let mut watch = Watch {
        state,
        failures: Repeated::new(),
        warnings: Warnings::default(),
    };
    let mut streams_due = Instant::now();
    loop {
        if state.has_nats() && Instant::now() >= streams_due {
            watch.look_at_streams().await;
            streams_due = Instant::now() + INTERVAL;
        }
        // Before that, operations that have ended look as if they had not.
        if state.projection.is_caught_up() {
            watch.look_at_work().await;
        }
        watch.look_at_workers();
        tokio::time::sleep(pause(state.settings.get().retention)).await;
    }
}

/// The pause between two looks: several of them happen while an operation is about to expire.
fn pause(retention: Duration) -> Duration {
    (retention / 400).clamp(SHORTEST_INTERVAL, INTERVAL)
}

/// Takes what the server says about the consumers of queues, and warns about those that are nearly
/// full.
pub fn note_queues(state: &AppState, listing: &Listing, lines: &Repeated) {
    let queues: Vec<QueueFigures> = listing
        .queues
        .iter()
        .map(|found| QueueFigures {
            worker_type: found.worker_type.clone(),
            queue: found.queue.clone(),
            undelivered: found.info.num_pending,
            unacknowledged: found.info.num_ack_pending as u64,
            unacknowledged_limit: u64::try_from(found.info.config.max_ack_pending)
                .ok()
                .filter(|limit| *limit > 0),
        })
        .collect();

    for found in &queues {
        if is_nearly_full(found.unacknowledged, found.unacknowledged_limit)
            && let Some(count) = lines.note()
        {
            tracing::warn!(
                worker_type = %found.worker_type, queue = %found.queue,
                unacknowledged = found.unacknowledged, limit = found.unacknowledged_limit, count,
                "the queue nearly holds as many running operations and waiting retries as it may; it delivers nothing more then"
            );
        }
    }
    state.figures.set_queues(queues);
}

fn is_nearly_full(used: u64, limit: Option<u64>) -> bool {
    limit.is_some_and(|limit| used as f64 > NEARLY_FULL * limit as f64)
}

struct Watch<'a> {
    state: &'a AppState,
    failures: Repeated,
    warnings: Warnings,
}

/// What was told of.
#[derive(Default)]
struct Warnings {
    /// Lines about each stream.
    full: BTreeMap<String, Repeated>,
    expiring: Repeated,
    not_pulling: Repeated,
    /// The quiet operations.
    quiet: HashSet<OperationId>,
}

impl Watch<'_> {
    async fn look_at_streams(&mut self) {
        let names = &self.state.names;
        let mut streams = vec![
            names.stream(),
            names.metrics_stream(),
            names.logs_stream(),
            SubjectNames::key_values_stream(&names.worker_types_bucket()),
            SubjectNames::key_values_stream(&names.checkpoints_bucket()),
            SubjectNames::objects_stream(&names.results_bucket()),
        ];
        for entry in self.state.catalogue.all() {
            let bucket = names.results_bucket_of(&entry.published.worker_type);
            streams.push(SubjectNames::objects_stream(&bucket));
        }

        let mut found = Vec::with_capacity(streams.len());
        for name in streams {
            match self.state.connection.jetstream.get_stream(&name).await {
                Ok(stream) => found.push(figures_of(name, stream.cached_info())),
                // Others bring back what is missing.
                Err(error) => {
                    if let Some(count) = self.failures.note() {
                        tracing::warn!(
                            stream = name,
                            error = chain(&error),
                            count,
                            "cannot see how full the stream is"
                        );
                    }
                }
            }
        }

        for stream in &found {
            self.warnings.about_full(stream);
        }
        self.state.figures.set_streams(found);
    }

    async fn look_at_work(&mut self) {
        let now = Timestamp::now();
        let unfinished = self.state.projection.unfinished(now, Instant::now());
        let figures = unfinished.iter().map(|work| WorkFigures {
            worker_type: work.worker_type.clone(),
            oldest_age: work.oldest_age(now),
            progress_age: work
                .quietest
                .as_ref()
                .map_or(0.0, |(_, age)| age.as_secs_f64()),
        });
        self.state.figures.set_work(figures.collect());
        self.warnings.about_quiet(&unfinished);

        let stream = self.state.names.stream();
        let known = self.state.figures.max_age(&stream);
        // The age limit may have been raised since the last look at the streams.
        if known.is_some_and(|known| is_expiring(&unfinished, now, known))
            && let Ok(stream) = self.state.connection.jetstream.get_stream(stream).await
        {
            let limit = stream.cached_info().config.max_age.as_secs_f64();
            self.warnings.about_expiring(&unfinished, now, limit);
        }
    }

    fn look_at_workers(&mut self) {
        let not_pulling = self.state.registry.not_pulling(Instant::now());
        if let Some((worker_id, worker_type)) = not_pulling.first()
            && let Some(count) = self.warnings.not_pulling.note()
        {
            tracing::warn!(
                %worker_id, %worker_type, workers = not_pulling.len(), count,
                "a worker is free and asks for no work, although it sends heartbeats. Look at its log, and restart it"
            );
        }
    }
}

impl Warnings {
    /// A stream that soon refuses messages.
    fn about_full(&mut self, found: &StreamFigures) {
        // One that drops its oldest messages is full by design.
        if !found.refuses || !is_nearly_full(found.bytes, found.max_bytes) {
            return;
        }
        let lines = self.full.entry(found.stream.clone()).or_default();
        if let Some(count) = lines.note() {
            tracing::warn!(
                stream = found.stream,
                bytes = found.bytes,
                max_bytes = found.max_bytes,
                count,
                "the stream is nearly full; it refuses messages when it is. Raise its limit or lower the retention with `ktrdr-backend configure`"
            );
        }
    }

    /// Operations that the stream drops at the age of `limit` seconds, and that have not ended.
    fn about_expiring(&mut self, unfinished: &[UnfinishedWork], now: Timestamp, limit: f64) {
        for work in unfinished {
            if let Some((id, _)) = &work.oldest
                && is_expiring(std::slice::from_ref(work), now, limit)
                && let Some(count) = self.expiring.note()
            {
                tracing::warn!(
                    operation_id = %id, worker_type = %work.worker_type,
                    age_seconds = work.oldest_age(now), limit_seconds = limit, count,
                    "an operation that has not ended is about to leave the stream: no backend has raised the age limit of the streams"
                );
            }
        }
    }

    /// An operation that has reported nothing for long. Each is told of once.
    fn about_quiet(&mut self, unfinished: &[UnfinishedWork]) {
        let quiet: Vec<_> = unfinished
            .iter()
            .filter_map(|work| work.quietest.as_ref())
            .filter(|(_, age)| *age > QUIET)
            .collect();
        self.quiet
            .retain(|known| quiet.iter().any(|(id, _)| id == known));

        for (id, age) in quiet {
            if self.quiet.insert(id.clone()) {
                tracing::warn!(
                    operation_id = %id, silent_for = ?age,
                    "the operation runs and has reported nothing new for long; its engine may hang. A stall timeout ends such an attempt"
                );
            }
        }
    }
}

/// Whether the stream, which keeps messages for `limit` seconds (0: for ever), is about to drop one of
/// these operations.
fn is_expiring(unfinished: &[UnfinishedWork], now: Timestamp, limit: f64) -> bool {
    let is_old = |work: &UnfinishedWork| work.oldest_age(now) > NEARLY_EXPIRED * limit;
    limit > 0.0 && unfinished.iter().any(is_old)
}

fn figures_of(name: String, info: &Info) -> StreamFigures {
    StreamFigures {
        stream: name,
        bytes: info.state.bytes,
        max_bytes: u64::try_from(info.config.max_bytes)
            .ok()
            .filter(|limit| *limit > 0),
        max_age: (!info.config.max_age.is_zero()).then_some(info.config.max_age.as_secs_f64()),
        refuses: info.config.discard == DiscardPolicy::New,
    }
}

#[cfg(test)]
mod tests;
