//! The registry: the workers, as their heartbeats tell.
//!
//! The problem: workers announce themselves only by heartbeats on core NATS. Nothing says that one
//! has died, heartbeats are lost while NATS is unreachable, and clocks of other machines may be
//! wrong.
//!
//! How it is solved: a worker that missed three heartbeats counts as unavailable, and one that
//! stays silent is removed. Silence is measured by this backend's monotonic clock, and only while
//! heartbeats could arrive: not before the backend began to listen, and not while NATS is
//! unreachable. So an outage makes no healthy worker look dead, and it does not make a dead one
//! look alive. The clock is passed in, so tests need no waiting; [`crate::duties`] feeds the
//! registry.
//!
//! Rejected: storing the workers in a bucket. Each backend can hear all heartbeats itself, and
//! stored entries would outlive the workers.

mod bounds;
mod candidates;
mod contested;
mod document;
mod list;
mod metrics;
#[cfg(test)]
mod tests;
mod versions;

use std::collections::BTreeMap;
use std::time::Duration;

use ktrdr_bus::telemetry::Repeated;
use ktrdr_protocol::id::{OperationId, WorkerId, WorkerType};
use ktrdr_protocol::requirements::Requirements;
use ktrdr_protocol::rest::worker::WorkerDocument;
use ktrdr_protocol::time::Timestamp;
use ktrdr_protocol::worker::{Heartbeat, WorkerStatus};
use parking_lot::RwLock;
use tokio::time::Instant;

use self::bounds::BeyondBound;
pub use self::candidates::Candidates;
use self::contested::Contested;
pub use self::list::{PageBounds, Wanted};
use self::metrics::HeartbeatCounters;
use crate::changes::{Change, Changes};

/// Missed heartbeats that make a worker unavailable.
const MISSED_HEARTBEATS: u32 = 3;

/// Shortest heartbeat interval that is believed, in seconds: with a shorter one a worker would
/// flicker.
const MIN_INTERVAL: f64 = 0.05;

/// Longest heartbeat interval that is believed, in seconds: with a longer one a worker would never
/// count as silent.
const MAX_INTERVAL: f64 = 3600.0;

/// Clocks that differ by less, in seconds, count as equal: the time that a message takes is part of
/// the difference.
const CLOCK_TOLERANCE: f64 = 5.0;

/// Lines a minute about workers that come, go or change.
const CHANGE_LINES: u32 = 60;

#[derive(Debug)]
struct Worker {
    /// The newest heartbeat.
    heartbeat: Heartbeat,
    /// About how many bytes it takes.
    size: usize,
    /// When it arrived, by the monotonic clock.
    heard: Instant,
    /// When it arrived, by this backend's clock.
    heard_at: Timestamp,
    /// Silence before the last outage of the broker. Kept only if it had already made the worker
    /// unavailable, so that an outage does not make a dead worker look alive.
    silent_before: Duration,
    /// The instance that had this id before.
    replaced: Option<String>,
    /// The status that was announced last.
    status: WorkerStatus,
}

/// The registry's knowledge about the worker of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// Not listed: it has left, was removed, or was never here.
    Gone,
    /// Not listed, and may live: there are more workers than can be listed, or one of another type has
    /// its id.
    Unknown,
    /// Its heartbeats stopped.
    Silent,
    /// Its heartbeats arrive.
    Alive {
        /// Whether they name the operation among those that run.
        runs_it: bool,
    },
}

/// Why a heartbeat is not believed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unheard {
    /// Its id belongs to a worker of this other type.
    #[error("its worker_id belongs to a worker of type {0}; give each worker its own WORKER_ID")]
    TakenId(WorkerType),
    /// There is no room for it.
    #[error(transparent)]
    BeyondBound(#[from] BeyondBound),
}

#[derive(Debug, Default)]
struct Workers {
    known: BTreeMap<WorkerId, Worker>,
    contested: Contested,
    /// What all known workers count for.
    bytes: usize,
    /// Since when heartbeats could arrive without a break.
    listening_since: Option<Instant>,
    /// Since when they cannot, because NATS is unreachable.
    deaf_since: Option<Instant>,
}

/// All workers.
#[derive(Debug)]
pub struct Registry {
    workers: RwLock<Workers>,
    counters: HeartbeatCounters,
    remove_after: Duration,
    changes: Changes,
    lines: Lines,
}

/// Log lines that made-up heartbeats can cause.
#[derive(Debug)]
struct Lines {
    changed: Repeated,
    silent: Repeated,
    same_id: Repeated,
}

impl Worker {
    fn interval(&self) -> Duration {
        interval(&self.heartbeat)
    }

    fn status_after(&self, silence: Duration) -> WorkerStatus {
        if silence >= self.interval() * MISSED_HEARTBEATS {
            WorkerStatus::TemporarilyUnavailable
        } else {
            self.heartbeat.status
        }
    }

    fn missed_after(&self, silence: Duration) -> u32 {
        let intervals = silence.as_secs_f64() / self.interval().as_secs_f64();
        if intervals < f64::from(MISSED_HEARTBEATS) {
            // A heartbeat that is a little late is not a missed one.
            (intervals - 0.25).max(0.0) as u32
        } else {
            intervals as u32
        }
    }

    /// A time that the worker stated, by this backend's clock. Without it, a worker whose clock is
    /// wrong would look as if it had not asked for work for hours.
    fn by_our_clock(&self, stated: Timestamp) -> Timestamp {
        let worker_now = self.heartbeat.at;
        let difference = self
            .heard_at
            .seconds_since(worker_now)
            .max(worker_now.seconds_since(self.heard_at));
        if difference < CLOCK_TOLERANCE {
            stated
        } else {
            stated.moved(worker_now, self.heard_at)
        }
    }
}

/// How often the sender of the heartbeat sends one.
fn interval(heartbeat: &Heartbeat) -> Duration {
    let seconds = heartbeat.interval_seconds;
    let seconds = if seconds.is_finite() {
        seconds.clamp(MIN_INTERVAL, MAX_INTERVAL)
    } else {
        MAX_INTERVAL
    };
    Duration::from_secs_f64(seconds)
}

impl Workers {
    /// How long nothing was heard of a worker while its heartbeats could have arrived.
    fn silence(&self, worker: &Worker, now: Instant) -> Duration {
        let until = self.deaf_since.unwrap_or(now);
        let from = match self.listening_since {
            Some(since) => since.max(worker.heard),
            None => worker.heard,
        };
        worker.silent_before + until.saturating_duration_since(from)
    }

    /// Checks that no worker of another type has the id of this heartbeat. A worker that is silent
    /// gives its id up to a heartbeat, but to no farewell.
    fn check_id(&self, heartbeat: &Heartbeat, now: Instant) -> Result<(), Unheard> {
        match self.known.get(&heartbeat.worker_id) {
            Some(known)
                if known.heartbeat.worker_type != heartbeat.worker_type
                    && (heartbeat.leaving
                        || self.status(known, now) != WorkerStatus::TemporarilyUnavailable) =>
            {
                Err(Unheard::TakenId(known.heartbeat.worker_type.clone()))
            }
            _ => Ok(()),
        }
    }

    /// Removes a worker.
    fn remove(&mut self, id: &WorkerId) -> Option<Worker> {
        let removed = self.known.remove(id)?;
        self.bytes -= bounds::counted(removed.size);
        Some(removed)
    }

    /// The status that a worker has now.
    fn status(&self, worker: &Worker, now: Instant) -> WorkerStatus {
        worker.status_after(self.silence(worker, now))
    }
}

impl Registry {
    /// Knows no workers yet. A worker that is silent for `remove_after` is removed.
    pub fn new(remove_after: Duration, changes: Changes) -> Self {
        Self {
            workers: RwLock::default(),
            counters: HeartbeatCounters::default(),
            remove_after,
            changes,
            lines: Lines {
                changed: Repeated::per_minute(CHANGE_LINES),
                silent: Repeated::per_minute(CHANGE_LINES),
                same_id: Repeated::new(),
            },
        }
    }

    /// Notes that heartbeats can arrive from now on.
    pub fn begin_listening(&self, now: Instant) {
        let mut workers = self.workers.write();
        let (mut known, bytes) = (std::mem::take(&mut workers.known), workers.bytes);
        let contested = std::mem::take(&mut workers.contested);
        for worker in known.values_mut() {
            let silence = workers.silence(worker, now);
            if worker.status_after(silence) == WorkerStatus::TemporarilyUnavailable {
                worker.silent_before = silence;
            }
        }
        *workers = Workers {
            known,
            contested,
            bytes,
            listening_since: Some(now),
            deaf_since: None,
        };
    }

    /// Notes that heartbeats can no longer arrive.
    pub fn stop_listening(&self, now: Instant) {
        self.workers.write().deaf_since.get_or_insert(now);
    }

    /// How long heartbeats could arrive without a break.
    pub fn listening_for(&self, now: Instant) -> Duration {
        let workers = self.workers.read();
        match (workers.listening_since, workers.deaf_since) {
            (Some(since), None) => now.saturating_duration_since(since),
            _ => Duration::ZERO,
        }
    }

    /// Takes a heartbeat or a farewell.
    ///
    /// # Errors
    /// [`Unheard`] when the id belongs to a worker of another type, or there is no room; nothing is
    /// changed then.
    pub fn hear(&self, mut heartbeat: Heartbeat, now: Instant) -> Result<(), Unheard> {
        let size = bounds::shorten(&mut heartbeat)?;
        if heartbeat.draining {
            heartbeat.status = WorkerStatus::Draining;
        }
        let worker_id = heartbeat.worker_id.clone();
        let worker_type = heartbeat.worker_type.clone();
        let status = (!heartbeat.leaving).then_some(heartbeat.status);

        let change = {
            let mut workers = self.workers.write();
            if let Err(taken) = workers.check_id(&heartbeat, now) {
                workers.contested.note(&heartbeat, now);
                return Err(taken);
            }
            if !heartbeat.leaving {
                workers.check_room(&worker_id, size)?;
            }
            self.counters.count(worker_type.as_str(), status);
            self.count_fenced(&workers, &heartbeat);
            if heartbeat.leaving {
                remove_left(&mut workers, &heartbeat).then_some(WorkerChange::Left)
            } else {
                self.note_same_id(&workers, &heartbeat);
                insert(&mut workers, heartbeat, size, now)
            }
        };

        if let Some(change) = change {
            self.log_change(&worker_id, &worker_type, change);
            self.changes.announce(Change::Worker {
                worker_id,
                worker_type,
            });
        }
        Ok(())
    }

    fn log_change(&self, worker_id: &WorkerId, worker_type: &WorkerType, change: WorkerChange) {
        match change {
            // As often as an operation begins or ends.
            WorkerChange::Status(status) => {
                let status = status_label(status);
                tracing::debug!(%worker_id, %worker_type, status, "worker changed");
            }
            WorkerChange::Registered => {
                if let Some(count) = self.lines.changed.note() {
                    tracing::info!(%worker_id, %worker_type, count, "Worker registered: {worker_id}");
                }
            }
            WorkerChange::Left => {
                if let Some(count) = self.lines.changed.note() {
                    tracing::info!(%worker_id, %worker_type, count, "Worker left: {worker_id}");
                }
            }
        }
    }

    /// Warns when two instances take turns: one that was replaced and comes back was never gone.
    fn note_same_id(&self, workers: &Workers, heartbeat: &Heartbeat) {
        let Some(known) = workers.known.get(&heartbeat.worker_id) else {
            return;
        };
        if known.replaced.as_ref() == Some(&heartbeat.instance)
            && known.heartbeat.instance != heartbeat.instance
            && let Some(count) = self.lines.same_id.note()
        {
            tracing::warn!(
                worker_id = %heartbeat.worker_id,
                endpoints = ?[&known.heartbeat.endpoint_url, &heartbeat.endpoint_url],
                count,
                "two workers have this id, and hide each other; give each its own WORKER_ID"
            );
        }
    }

    /// Counts the ends that the worker discarded since its last heartbeat. Heartbeats carry a sum,
    /// of which the part before this backend listened is not counted.
    fn count_fenced(&self, workers: &Workers, heartbeat: &Heartbeat) {
        let known = workers.known.get(&heartbeat.worker_id);
        if let Some(known) = known.filter(|known| known.heartbeat.instance == heartbeat.instance) {
            let ends = heartbeat.fenced.saturating_sub(known.heartbeat.fenced);
            if ends > 0 {
                self.counters
                    .count_fenced(heartbeat.worker_type.as_str(), ends);
            }
        }
    }

    /// Announces workers that have fallen silent, and removes those that were silent for too long.
    pub fn sweep(&self, now: Instant) {
        let mut silent = Vec::new();
        {
            let mut workers = self.workers.write();
            let changed: Vec<(WorkerId, Duration)> = workers
                .known
                .iter()
                .map(|(id, worker)| (id, worker, workers.silence(worker, now)))
                .filter(|(_, worker, silence)| {
                    worker.status_after(*silence) != worker.status || *silence >= self.remove_after
                })
                .map(|(id, _, silence)| (id.clone(), silence))
                .collect();

            for (id, silence) in changed {
                let Some(worker) = workers.known.get_mut(&id) else {
                    continue;
                };
                let worker_type = worker.heartbeat.worker_type.clone();
                let status = if silence >= self.remove_after {
                    workers.remove(&id);
                    REMOVED
                } else {
                    worker.status = worker.status_after(silence);
                    status_label(worker.status)
                };
                silent.push((id, worker_type, status));
            }
        }

        for (worker_id, worker_type, status) in silent {
            if let Some(count) = self.lines.silent.note() {
                let what = if status == REMOVED {
                    "it was silent for too long and is listed no more"
                } else {
                    "its heartbeats have stopped"
                };
                tracing::warn!(%worker_id, %worker_type, status, count, "Health check failed: {worker_id}: {what}");
            }
            self.changes.announce(Change::Worker {
                worker_id,
                worker_type,
            });
        }
        self.summarise();
    }

    /// Tells of changes since the last lines about them.
    fn summarise(&self) {
        if let Some(count) = self.lines.changed.summary() {
            tracing::info!(count, "workers changed");
        }
        if let Some(count) = self.lines.silent.summary() {
            tracing::warn!(count, "workers are silent");
        }
    }

    /// One worker.
    pub fn get(&self, id: &str, now: Instant) -> Option<WorkerDocument> {
        let workers = self.workers.read();
        let worker = workers.known.get(id)?;
        Some(worker.document(workers.silence(worker, now)))
    }

    /// One worker, if it is of this type: a worker of another type may have taken the id since.
    pub fn get_of(
        &self,
        worker_type: &WorkerType,
        id: &str,
        now: Instant,
    ) -> Option<WorkerDocument> {
        let found = self.get(id, now);
        found.filter(|worker| worker.worker_type == *worker_type)
    }

    /// What is known about the worker of this type that should run this attempt.
    pub fn presence(
        &self,
        worker_type: &WorkerType,
        worker: &WorkerId,
        operation: &OperationId,
        attempt: u32,
        now: Instant,
    ) -> Presence {
        let workers = self.workers.read();
        let known = workers.known.get(worker);
        let of_type = |known: &&Worker| known.heartbeat.worker_type == *worker_type;
        let Some(known) = known.filter(of_type) else {
            let may_live =
                workers.may_miss_some() || workers.contested.lives(worker_type, worker, now);
            return if may_live {
                Presence::Unknown
            } else {
                Presence::Gone
            };
        };
        if workers.status(known, now) == WorkerStatus::TemporarilyUnavailable {
            return Presence::Silent;
        }

        let runs_it = known
            .heartbeat
            .running
            .iter()
            .any(|running| running.operation_id == *operation && running.attempt == attempt);
        Presence::Alive { runs_it }
    }

    /// How many workers of the type could run an operation with these requirements.
    pub fn candidates(
        &self,
        worker_type: &str,
        requirements: &Requirements,
        now: Instant,
    ) -> Candidates {
        let workers = self.workers.read();
        let mut candidates = Candidates::default();
        for worker in workers.known.values() {
            let is_candidate = worker.heartbeat.worker_type.as_str() == worker_type
                && workers.status(worker, now) != WorkerStatus::TemporarilyUnavailable;
            if is_candidate {
                candidates.count(&worker.heartbeat, requirements);
            }
        }
        candidates
    }

    /// How many workers of the type are not silent.
    pub fn alive(&self, worker_type: &str, now: Instant) -> usize {
        self.candidates(worker_type, &Requirements::default(), now)
            .alive
    }
}

/// Removes the worker that said farewell; returns whether it was listed. The farewell of an
/// instance that a newer one with the same id has replaced removes nothing.
fn remove_left(workers: &mut Workers, farewell: &Heartbeat) -> bool {
    let is_listed = workers
        .known
        .get(&farewell.worker_id)
        .is_some_and(|known| known.heartbeat.instance == farewell.instance);
    if is_listed {
        workers.remove(&farewell.worker_id);
    }
    is_listed
}

/// What a heartbeat has changed, as others see it.
#[derive(Debug, Clone, Copy)]
enum WorkerChange {
    /// The worker is listed now, or its heartbeats are back.
    Registered,
    /// It said farewell.
    Left,
    /// It has begun or ended work.
    Status(WorkerStatus),
}

/// Lists the worker of this heartbeat; `None` when it was listed with the same status.
fn insert(
    workers: &mut Workers,
    heartbeat: Heartbeat,
    size: usize,
    now: Instant,
) -> Option<WorkerChange> {
    let known = workers.known.get(&heartbeat.worker_id);
    let replaced = known.and_then(|known| replaced_by(known, &heartbeat));
    let worker_id = heartbeat.worker_id.clone();
    let status = heartbeat.status;
    let worker = Worker {
        status,
        heartbeat,
        size,
        heard: now,
        heard_at: Timestamp::now(),
        silent_before: Duration::ZERO,
        replaced,
    };

    let before = workers.remove(&worker_id);
    workers.bytes += bounds::counted(size);
    workers.known.insert(worker_id, worker);
    match before.map(|before| before.status) {
        None | Some(WorkerStatus::TemporarilyUnavailable) => Some(WorkerChange::Registered),
        Some(before) if before != status => Some(WorkerChange::Status(status)),
        Some(_) => None,
    }
}

/// The instance that had the worker's id before this heartbeat.
fn replaced_by(known: &Worker, heartbeat: &Heartbeat) -> Option<String> {
    if known.heartbeat.instance == heartbeat.instance {
        return known.replaced.clone();
    }

    Some(known.heartbeat.instance.clone())
}

/// The word for a worker that is listed no more, in place of a status.
const REMOVED: &str = "removed";

/// The word for a status in metrics and logs.
fn status_label(status: WorkerStatus) -> &'static str {
    match status {
        WorkerStatus::Available => "AVAILABLE",
        WorkerStatus::Busy => "BUSY",
        WorkerStatus::Draining => "DRAINING",
        WorkerStatus::TemporarilyUnavailable => "TEMPORARILY_UNAVAILABLE",
    }
}
