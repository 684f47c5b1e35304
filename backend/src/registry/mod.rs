//! Workers as their heartbeats tell them. Pure book-keeping with the clock passed in; [`crate::duties::listen`] feeds it.
//!
//! Decisions use the monotonic clock. Silence counts only while this backend could have heard something: from when it began
//! to listen, and not while NATS is away.

use std::collections::BTreeMap;
use std::time::Duration;

use ktrdr_http::metrics::{Counters, Page};
use ktrdr_protocol::id::{OperationId, WorkerId, WorkerType};
use ktrdr_protocol::requirements::Requirements;
use ktrdr_protocol::rest::worker::{CurrentOperation, WorkerDocument};
use ktrdr_protocol::time::Timestamp;
use ktrdr_protocol::worker::{Heartbeat, WorkerStatus};
use parking_lot::RwLock;
use tokio::time::Instant;

use crate::changes::{Change, Changes};

/// Missed heartbeats that make a worker unavailable.
const MISSED: u32 = 3;

/// Bounds for the interval a heartbeat states: a nonsensical one must not make a worker immortal or flicker.
const INTERVALS: (f64, f64) = (0.05, 3600.0);

/// Clocks less than this apart, in seconds, are the same to a user.
const SAME_CLOCK: f64 = 5.0;

#[derive(Debug)]
struct Worker {
    heartbeat: Heartbeat,
    heard: Instant,
    /// For how long it had been silent when heartbeats could not be heard for a while, if that made it unavailable: a break
    /// does not bring it back.
    silent_before: Duration,
    heard_at: Timestamp,
    /// The instance that went by this id before.
    replaced: Option<String>,
    /// What was last announced.
    status: WorkerStatus,
}

/// What is known of a worker by those who decide about its operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// Not listed: it left, was removed, or never was.
    Gone,
    /// Its heartbeats stopped.
    Silent,
    /// It beats, and says that it runs the operation, or does not.
    Alive {
        /// Whether the operation is among those it runs.
        runs_it: bool,
    },
}

#[derive(Debug, Default)]
struct Workers {
    known: BTreeMap<WorkerId, Worker>,
    /// Since when heartbeats could be heard without a break.
    listening_since: Option<Instant>,
    /// Since when they cannot, because NATS is away.
    deaf_since: Option<Instant>,
}

/// All workers.
#[derive(Debug)]
pub struct Registry {
    workers: RwLock<Workers>,
    heartbeats: Counters<2>,
    fenced: Counters<1>,
    remove_after: Duration,
    changes: Changes,
}

impl Worker {
    fn interval(&self) -> Duration {
        let seconds = self.heartbeat.interval_seconds;
        let seconds = if seconds.is_finite() {
            seconds.clamp(INTERVALS.0, INTERVALS.1)
        } else {
            INTERVALS.1
        };
        Duration::from_secs_f64(seconds)
    }

    fn status_after(&self, silence: Duration) -> WorkerStatus {
        if silence >= self.interval() * MISSED {
            WorkerStatus::TemporarilyUnavailable
        } else {
            self.heartbeat.status
        }
    }

    fn missed_after(&self, silence: Duration) -> u32 {
        let intervals = silence.as_secs_f64() / self.interval().as_secs_f64();
        // A beat that is a little late is not a failure yet.
        if intervals < f64::from(MISSED) {
            (intervals - 0.25).max(0.0) as u32
        } else {
            intervals as u32
        }
    }

    /// A time that the worker told, by this backend's clock. A worker whose clock is off must not look as if it had not asked
    /// for work for hours; within [`SAME_CLOCK`] the difference may as well be that of the way here.
    fn by_our_clock(&self, told: Timestamp) -> Timestamp {
        let beat = &self.heartbeat;
        let apart = self
            .heard_at
            .seconds_since(beat.at)
            .max(beat.at.seconds_since(self.heard_at));
        if apart < SAME_CLOCK {
            told
        } else {
            told.moved(beat.at, self.heard_at)
        }
    }

    fn document(&self, silence: Duration) -> WorkerDocument {
        let beat = &self.heartbeat;
        let current = |running: &ktrdr_protocol::worker::RunningOperation| CurrentOperation {
            operation_id: running.operation_id.clone(),
            attempt: running.attempt,
            progress: running.progress.clone(),
        };
        WorkerDocument {
            worker_id: beat.worker_id.clone(),
            worker_type: beat.worker_type.clone(),
            endpoint_url: beat.endpoint_url.clone(),
            status: self.status_after(silence),
            capabilities: beat.capabilities.clone(),
            last_health_check: self.heard_at,
            health_check_failures: self.missed_after(silence),
            current_operation_id: beat
                .running
                .first()
                .map(|running| running.operation_id.clone()),
            registered_at: self.by_our_clock(beat.registered_at),
            version: beat.version.clone(),
            instance: beat.instance.clone(),
            heartbeat_interval_seconds: beat.interval_seconds,
            slots: beat.slots,
            current_operations: beat.running.iter().map(current).collect(),
            last_pull_at: beat.last_pull_at.map(|at| self.by_our_clock(at)),
            finished: beat.finished,
            fenced: beat.fenced,
        }
    }
}

impl Workers {
    /// How long nothing was heard of a worker though it could have been.
    fn silence(&self, worker: &Worker, now: Instant) -> Duration {
        let now = self.deaf_since.unwrap_or(now);
        let from = self
            .listening_since
            .map_or(worker.heard, |since| since.max(worker.heard));
        worker.silent_before + now.saturating_duration_since(from)
    }
}

impl Registry {
    /// Knows nobody yet.
    pub fn new(remove_after: Duration, changes: Changes) -> Self {
        Self {
            workers: RwLock::default(),
            heartbeats: Counters::new(
                "ktrdr_heartbeats_total",
                "Heartbeats heard, by what they said.",
                ["worker_type", "status"],
            ),
            fenced: Counters::new(
                "ktrdr_fenced_finishes_total",
                "Ends that workers discarded because the operation had gone on without them.",
                ["worker_type"],
            ),
            remove_after,
            changes,
        }
    }

    /// Heartbeats can be heard from now on.
    pub fn listening(&self, now: Instant) {
        let mut guard = self.workers.write();
        let mut known = std::mem::take(&mut guard.known);
        for worker in known.values_mut() {
            let silence = guard.silence(worker, now);
            if worker.status_after(silence) == WorkerStatus::TemporarilyUnavailable {
                worker.silent_before = silence;
            }
        }
        *guard = Workers {
            known,
            listening_since: Some(now),
            deaf_since: None,
        };
    }

    /// Heartbeats cannot be heard any more.
    pub fn deaf(&self, now: Instant) {
        self.workers.write().deaf_since.get_or_insert(now);
    }

    /// How long heartbeats could be heard without a break.
    pub fn listening_for(&self, now: Instant) -> Duration {
        let workers = self.workers.read();
        match (workers.listening_since, workers.deaf_since) {
            (Some(since), None) => now.saturating_duration_since(since),
            _ => Duration::ZERO,
        }
    }

    /// Takes a heartbeat.
    pub fn hear(&self, heartbeat: Heartbeat, now: Instant) {
        let (worker_id, worker_type) = (heartbeat.worker_id.clone(), heartbeat.worker_type.clone());
        let leaving = heartbeat.leaving;
        let status = heartbeat.status;
        self.heartbeats.add(
            [
                worker_type.as_str(),
                if leaving {
                    "LEAVING"
                } else {
                    describe(Some(status))
                },
            ],
            1,
        );
        let changed = {
            let mut workers = self.workers.write();
            let known = workers.known.get(&worker_id);
            if let Some(known) =
                known.filter(|known| known.heartbeat.instance == heartbeat.instance)
            {
                // Heartbeats tell a sum; what was added before this backend listened is not counted.
                let more = heartbeat.fenced.saturating_sub(known.heartbeat.fenced);
                self.fenced.add([worker_type.as_str()], more);
            }
            if leaving {
                // The farewell of a process that a newer one with the same id has already replaced.
                if known.is_none_or(|known| known.heartbeat.instance != heartbeat.instance) {
                    return;
                }
                workers.known.remove(&worker_id);
                true
            } else {
                let replaced = known.and_then(|known| {
                    let same = known.heartbeat.instance == heartbeat.instance;
                    // One that was replaced and comes back was never gone.
                    if !same && known.replaced.as_ref() == Some(&heartbeat.instance) {
                        tracing::warn!(%worker_id, endpoints = ?[&known.heartbeat.endpoint_url, &heartbeat.endpoint_url],
                            "two workers have this id, and hide each other; give each its own WORKER_ID");
                    }
                    if same { known.replaced.clone() } else { Some(known.heartbeat.instance.clone()) }
                });
                let worker = Worker {
                    status,
                    heartbeat,
                    heard: now,
                    silent_before: Duration::ZERO,
                    heard_at: Timestamp::now(),
                    replaced,
                };
                workers
                    .known
                    .insert(worker_id.clone(), worker)
                    .is_none_or(|old| old.status != status)
            }
        };
        if changed {
            let status = (!leaving).then_some(status);
            tracing::info!(%worker_id, %worker_type, status = describe(status), "worker");
            self.changes.announce(Change::Worker {
                worker_id,
                worker_type,
            });
        }
    }

    /// Notices who has fallen silent, and removes who has been silent for too long.
    pub fn sweep(&self, now: Instant) {
        let mut changes = Vec::new();
        {
            let mut guard = self.workers.write();
            let workers = &mut *guard;
            let silences: Vec<(WorkerId, Duration)> = workers
                .known
                .iter()
                .map(|(id, worker)| (id.clone(), workers.silence(worker, now)))
                .filter(|(id, silence)| {
                    workers
                        .known
                        .get(id)
                        .is_some_and(|worker| worker.status_after(*silence) != worker.status)
                        || *silence >= self.remove_after
                })
                .collect();
            for (id, silence) in silences {
                let Some(worker) = workers.known.get_mut(&id) else {
                    continue;
                };
                let worker_type = worker.heartbeat.worker_type.clone();
                let status = if silence >= self.remove_after {
                    workers.known.remove(&id);
                    None
                } else {
                    worker.status = worker.status_after(silence);
                    Some(worker.status)
                };
                changes.push((id, worker_type, status));
            }
        }
        for (worker_id, worker_type, status) in changes {
            tracing::warn!(%worker_id, %worker_type, status = describe(status), "worker is silent");
            self.changes.announce(Change::Worker {
                worker_id,
                worker_type,
            });
        }
    }

    /// All workers, or those of one type or status, by id.
    pub fn list(
        &self,
        worker_type: Option<&str>,
        status: Option<WorkerStatus>,
        now: Instant,
    ) -> Vec<WorkerDocument> {
        let workers = self.workers.read();
        workers
            .known
            .values()
            .filter(|worker| {
                worker_type.is_none_or(|wanted| worker.heartbeat.worker_type.as_str() == wanted)
            })
            .map(|worker| worker.document(workers.silence(worker, now)))
            .filter(|worker| status.is_none_or(|wanted| worker.status == wanted))
            .collect()
    }

    /// One worker.
    pub fn get(&self, id: &str, now: Instant) -> Option<WorkerDocument> {
        let workers = self.workers.read();
        let worker = workers.known.get(id)?;
        Some(worker.document(workers.silence(worker, now)))
    }

    /// What is known of the worker that shall be running the operation.
    pub fn presence(
        &self,
        worker: &WorkerId,
        operation: &OperationId,
        attempt: u32,
        now: Instant,
    ) -> Presence {
        let workers = self.workers.read();
        let Some(known) = workers.known.get(worker) else {
            return Presence::Gone;
        };
        if known.status_after(workers.silence(known, now)) == WorkerStatus::TemporarilyUnavailable {
            return Presence::Silent;
        }
        let runs_it = known
            .heartbeat
            .running
            .iter()
            .any(|r| r.operation_id == *operation && r.attempt == attempt);
        Presence::Alive { runs_it }
    }

    /// How many workers of the type are not silent, and how many of these meet the requirements.
    pub fn able(
        &self,
        worker_type: &str,
        requirements: &Requirements,
        now: Instant,
    ) -> (usize, usize) {
        let workers = self.workers.read();
        let (mut alive, mut able) = (0, 0);
        for worker in workers
            .known
            .values()
            .filter(|w| w.heartbeat.worker_type.as_str() == worker_type)
        {
            if worker.status_after(workers.silence(worker, now))
                != WorkerStatus::TemporarilyUnavailable
            {
                alive += 1;
                able += usize::from(requirements.met_by(&worker.heartbeat.capabilities));
            }
        }
        (alive, able)
    }

    /// Writes what is known of the workers.
    pub fn write(&self, page: &mut Page, now: Instant) {
        let mut counts: BTreeMap<(WorkerType, &str), f64> = BTreeMap::new();
        for worker in self.list(None, None, now) {
            for status in [
                WorkerStatus::Available,
                WorkerStatus::Busy,
                WorkerStatus::TemporarilyUnavailable,
            ] {
                let count = counts
                    .entry((worker.worker_type.clone(), describe(Some(status))))
                    .or_default();
                *count += f64::from(u8::from(worker.status == status));
            }
        }
        let series = counts.iter().map(|((kind, status), count)| {
            (
                vec![("worker_type", kind.as_str()), ("status", *status)],
                *count,
            )
        });
        page.gauge("ktrdr_workers", "Workers listed, by status.", series);
        self.heartbeats.write(page);
        self.fenced.write(page);
    }

    /// How many workers of the type are not silent.
    pub fn alive(&self, worker_type: &str, now: Instant) -> usize {
        self.able(worker_type, &Requirements::default(), now).0
    }
}

fn describe(status: Option<WorkerStatus>) -> &'static str {
    match status {
        Some(WorkerStatus::Available) => "AVAILABLE",
        Some(WorkerStatus::Busy) => "BUSY",
        Some(WorkerStatus::TemporarilyUnavailable) => "TEMPORARILY_UNAVAILABLE",
        None => "removed",
    }
}

#[cfg(test)]
mod tests;
