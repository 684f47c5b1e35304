//! Which versions of worker types the listed workers have.

use std::collections::HashSet;

use ktrdr_protocol::id::WorkerType;
use ktrdr_protocol::schema_digest::SchemaDigest;
use ktrdr_protocol::worker::WorkerStatus;
use tokio::time::Instant;

use super::Registry;

impl Registry {
    /// The versions that listed workers have, silent ones included, each with its worker type and
    /// once.
    pub fn versions(&self) -> HashSet<(WorkerType, Option<SchemaDigest>)> {
        let workers = self.workers.read();
        let heartbeats = workers.known.values().map(|worker| &worker.heartbeat);
        heartbeats
            .map(|heartbeat| (heartbeat.worker_type.clone(), heartbeat.schema_digest))
            .collect()
    }

    /// Whether workers of the type are alive, and all of them have another request schema. A worker of
    /// the release before has none, and takes everything.
    pub fn lacks_version(
        &self,
        worker_type: &WorkerType,
        schema: SchemaDigest,
        now: Instant,
    ) -> bool {
        let workers = self.workers.read();
        let mut alive = workers
            .known
            .values()
            .filter(|worker| worker.heartbeat.worker_type == *worker_type)
            .filter(|worker| workers.status(worker, now) != WorkerStatus::TemporarilyUnavailable)
            .peekable();
        alive.peek().is_some()
            && alive.all(|worker| {
                let own = worker.heartbeat.schema_digest;
                own.is_some_and(|own| own != schema)
            })
    }
}
