//! Pages of workers, and their numbers.

use std::collections::BTreeMap;

use ktrdr_protocol::id::{OperationId, WorkerId, WorkerType};
use ktrdr_protocol::rest::worker::WorkerDocument;
use ktrdr_protocol::worker::WorkerStatus;
use tokio::time::Instant;

use super::{Registry, Worker, Workers};

/// Seconds after which a free worker that has not pulled is not pulling.
const NOT_PULLING: f64 = 90.0;

/// Which workers to list.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted<'a> {
    /// Only workers of these types; `None` for all.
    pub types: Option<&'a [&'a str]>,
    /// Only workers in this status.
    pub status: Option<WorkerStatus>,
}

impl Wanted<'_> {
    fn matches(&self, worker: &Worker, status: WorkerStatus) -> bool {
        let worker_type = worker.heartbeat.worker_type.as_str();
        self.types.is_none_or(|types| types.contains(&worker_type))
            && self.status.is_none_or(|wanted| status == wanted)
    }
}

/// Where a page of workers begins and ends.
#[derive(Debug, Clone, Copy)]
pub struct PageBounds {
    /// How many to skip.
    pub offset: usize,
    /// How many to list, at most.
    pub limit: usize,
    /// The page ends after the worker that fills so many bytes.
    pub bytes: usize,
}

/// A page of workers.
#[derive(Debug)]
pub struct WorkerPage {
    /// By id.
    pub workers: Vec<WorkerDocument>,
    /// About how many bytes they take.
    pub bytes: usize,
    /// Whether further workers follow.
    pub has_more: bool,
}

impl Registry {
    /// Whether a worker of this type that is not silent says that it runs the operation.
    pub fn runs(&self, worker_type: &WorkerType, id: &OperationId, now: Instant) -> bool {
        let workers = self.workers.read();
        let is_heard = |worker: &&Worker| {
            worker.heartbeat.worker_type == *worker_type
                && workers.status(worker, now) != WorkerStatus::TemporarilyUnavailable
        };
        workers.known.values().filter(is_heard).any(|worker| {
            let mut running = worker.heartbeat.running.iter();
            running.any(|running| running.operation_id == *id)
        })
    }

    /// A page of the workers that match, by id. It ends after the worker that fills `bytes`.
    pub fn list(&self, wanted: &Wanted<'_>, page: PageBounds, now: Instant) -> WorkerPage {
        let workers = self.workers.read();
        let (selected, bytes, has_more) = workers.select(wanted, page, now);
        let document = |worker: &Worker| worker.document(workers.silence(worker, now));
        WorkerPage {
            workers: selected.into_iter().map(document).collect(),
            bytes,
            has_more,
        }
    }

    /// About how many bytes this page has.
    pub fn page_size(&self, wanted: &Wanted<'_>, page: PageBounds, now: Instant) -> usize {
        self.workers.read().select(wanted, page, now).1
    }

    /// How many workers of each of these types there are in each status. `None` counts all.
    pub fn counts(
        &self,
        types: Option<&[&str]>,
        now: Instant,
    ) -> BTreeMap<(WorkerType, WorkerStatus), u64> {
        let workers = self.workers.read();
        let mut counts = BTreeMap::new();
        let is_wanted = |worker: &&Worker| {
            let worker_type = worker.heartbeat.worker_type.as_str();
            types.is_none_or(|types| types.contains(&worker_type))
        };
        for worker in workers.known.values().filter(is_wanted) {
            let status = workers.status(worker, now);
            let key = (worker.heartbeat.worker_type.clone(), status);
            *counts.entry(key).or_default() += 1;
        }
        counts
    }

    /// The workers that are free, send heartbeats and do not pull, each with its type.
    pub fn not_pulling(&self, now: Instant) -> Vec<(WorkerId, WorkerType)> {
        let workers = self.workers.read();
        let deaf = workers.known.values().filter(|worker| {
            let beat = &worker.heartbeat;
            // Both times are by the worker's own clock.
            let last_pull = beat.last_pull_at.unwrap_or(beat.registered_at);
            workers.status(worker, now) == WorkerStatus::Available
                && beat.at.seconds_since(last_pull) > NOT_PULLING
        });
        deaf.map(|worker| {
            let beat = &worker.heartbeat;
            (beat.worker_id.clone(), beat.worker_type.clone())
        })
        .collect()
    }

    /// How many slots the workers of each type have lost.
    pub fn lost_slots(&self) -> BTreeMap<WorkerType, u64> {
        let workers = self.workers.read();
        let mut lost = BTreeMap::new();
        for worker in workers.known.values() {
            let worker_type = worker.heartbeat.worker_type.clone();
            *lost.entry(worker_type).or_default() += u64::from(worker.heartbeat.lost_slots);
        }
        lost
    }
}

impl Workers {
    /// The workers of a page, about how many bytes they take, and whether others follow.
    fn select(
        &self,
        wanted: &Wanted<'_>,
        page: PageBounds,
        now: Instant,
    ) -> (Vec<&Worker>, usize, bool) {
        let mut matching = self
            .known
            .values()
            .filter(|worker| wanted.matches(worker, self.status(worker, now)))
            .skip(page.offset);

        let (mut selected, mut bytes) = (Vec::new(), 0);
        while selected.len() < page.limit
            && bytes < page.bytes
            && let Some(worker) = matching.next()
        {
            bytes += worker.size;
            selected.push(worker);
        }
        (selected, bytes, matching.next().is_some())
    }
}
