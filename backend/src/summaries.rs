//! How the operations of each worker type are summarised. The catalogue says it, and every operation of
//! the type looks here when it is shown, so a summary takes no memory.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use ktrdr_protocol::id::WorkerType;
use ktrdr_protocol::rest::summary::Summary;
use parking_lot::Mutex;

/// The summary of one worker type, shared by its queues.
pub type Shared = Arc<ArcSwap<Summary>>;

/// All worker types that have operations or schemas.
#[derive(Debug, Default)]
pub struct Summaries(Mutex<HashMap<WorkerType, Shared>>);

impl Summaries {
    /// The summary of this worker type. It follows what [`Summaries::set`] says later.
    pub fn of(&self, worker_type: &WorkerType) -> Shared {
        let mut all = self.0.lock();
        if let Some(known) = all.get(worker_type) {
            return Arc::clone(known);
        }
        Arc::clone(all.entry(worker_type.clone()).or_default())
    }

    /// Says how operations of this worker type are summarised from now on.
    pub fn set(&self, worker_type: &WorkerType, summary: Summary) {
        self.of(worker_type).store(Arc::new(summary));
    }
}
