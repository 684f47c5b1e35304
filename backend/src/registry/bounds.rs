//! How much the registry holds. Whoever may publish heartbeats can make up workers, and fill the
//! parts of a heartbeat that have any size.

use ktrdr_protocol::id::WorkerId;
use ktrdr_protocol::progress::Progress;
use ktrdr_protocol::worker::{Heartbeat, PartTooLarge, RunningOperation};

use super::Workers;

/// Workers, at most. A new one beyond it is refused; known ones go on.
pub const MAX_WORKERS: usize = 10_000;

/// Bytes of the newest heartbeats of all workers, at most.
const MAX_BYTES: usize = 128 * 1024 * 1024;

/// Bytes that each worker counts for, at least. As [`MAX_WORKERS`] of these fit, others can never
/// take the room of a worker whose heartbeats are small.
const MIN_SIZE: usize = 4096;

/// Bytes of a worker without its parts of any size, about.
const FIELDS: usize = 1024;

/// Bytes of a running operation without its id and progress, about.
const OPERATION: usize = 160;

/// A heartbeat goes beyond a bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BeyondBound {
    /// There are too many workers.
    #[error("there are {MAX_WORKERS} workers already; a new one is listed when others have left")]
    Workers,
    /// A part of it has too many bytes.
    #[error(transparent)]
    Part(#[from] PartTooLarge),
    /// All heartbeats together have too many bytes.
    #[error("the heartbeats of all workers have more than {MAX_BYTES} bytes, and this one grows")]
    Bytes,
}

/// Shortens the progress in the heartbeat, and returns about how many bytes the worker takes.
///
/// # Errors
/// [`BeyondBound::Part`] when another part is too large.
pub fn shorten(heartbeat: &mut Heartbeat) -> Result<usize, BeyondBound> {
    let parts = heartbeat.check_parts()?;
    let operation = |running: &mut RunningOperation| {
        let progress = running
            .progress
            .shorten(Progress::KEPT_STEP, Progress::KEPT_FIELDS);
        OPERATION + running.operation_id.as_str().len() + progress
    };
    let running: usize = heartbeat.running.iter_mut().map(operation).sum();
    Ok(FIELDS + parts + running)
}

/// What a worker of this size counts for.
pub fn counted(size: usize) -> usize {
    size.max(MIN_SIZE)
}

impl Workers {
    /// Checks whether there is room for the heartbeat, which takes `size` bytes. A known worker
    /// whose heartbeat does not grow always goes on.
    pub(super) fn check_room(&self, id: &WorkerId, size: usize) -> Result<(), BeyondBound> {
        let known = self.known.get(id).map(|known| counted(known.size));
        if known.is_none() && self.known.len() >= MAX_WORKERS {
            return Err(BeyondBound::Workers);
        }

        // Small workers that may still come have their room.
        let others = self.known.len() - usize::from(known.is_some());
        let reserved = MAX_WORKERS.saturating_sub(others + 1) * MIN_SIZE;
        let before = known.unwrap_or_default();
        let has_room = self.bytes - before + counted(size) + reserved <= MAX_BYTES;
        if has_room || size <= before.max(MIN_SIZE) {
            Ok(())
        } else {
            Err(BeyondBound::Bytes)
        }
    }

    /// Whether a worker that is not listed may be there nevertheless.
    pub(super) fn may_miss_some(&self) -> bool {
        self.known.len() >= MAX_WORKERS
    }
}
