//! The operations this process runs now, and how to ask one to stop.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use ktrdr_protocol::id::OperationId;
use ktrdr_protocol::worker::RunningOperation;
use parking_lot::RwLock;
use tokio_util::sync::CancellationToken;

use crate::reporting::report::Report;

/// Why an engine is asked to stop. The first reason stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StopReason {
    /// A user cancelled the operation.
    Cancel,
    /// It ran longer than its time limit.
    Timeout,
    /// The worker is stopping.
    Shutdown,
    /// Another attempt has taken over, or the operation has ended without this one.
    Fenced {
        /// The operation has ended.
        terminal: bool,
    },
}

/// One attempt that holds a slot.
pub(crate) struct Execution {
    pub(crate) operation_id: OperationId,
    /// 0 until it is claimed.
    attempt: AtomicU32,
    pub(crate) cancel: CancellationToken,
    pub(crate) report: Arc<Report>,
    stop: OnceLock<StopReason>,
}

impl Execution {
    pub(crate) fn new(operation_id: OperationId) -> Self {
        Self {
            operation_id,
            attempt: AtomicU32::new(0),
            cancel: CancellationToken::new(),
            report: Arc::new(Report::new()),
            stop: OnceLock::new(),
        }
    }

    pub(crate) fn attempt(&self) -> u32 {
        self.attempt.load(Ordering::Relaxed)
    }

    pub(crate) fn claimed(&self, attempt: u32) {
        self.attempt.store(attempt, Ordering::Relaxed);
    }

    /// Asks the engine to stop.
    pub(crate) fn stop(&self, reason: StopReason) {
        let _ = self.stop.set(reason);
        self.cancel.cancel();
    }

    /// Why it was asked to stop, if it was.
    pub(crate) fn stop_reason(&self) -> Option<StopReason> {
        self.stop.get().copied()
    }

    fn describe(&self) -> RunningOperation {
        let (report, progress) = self.report.numbered_progress();
        RunningOperation {
            operation_id: self.operation_id.clone(),
            attempt: self.attempt(),
            report,
            progress,
        }
    }
}

/// All executions of this process, oldest first.
///
/// Keyed by a number, not by the operation: after a lost lease an operation can be given to the very process that still
/// runs an earlier attempt of it.
#[derive(Default)]
pub(crate) struct Running {
    next: AtomicU64,
    table: RwLock<Table>,
}

#[derive(Default)]
struct Table {
    executions: BTreeMap<u64, Arc<Execution>>,
    /// All were asked to stop, and so is every one that still comes.
    stopping: Option<StopReason>,
}

impl Running {
    /// Enters an execution; the number it goes by.
    pub(crate) fn insert(&self, execution: Arc<Execution>) -> u64 {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut table = self.table.write();
        if let Some(reason) = table.stopping {
            execution.stop(reason);
        }
        table.executions.insert(number, execution);
        number
    }

    /// Takes an execution out.
    pub(crate) fn remove(&self, number: u64) {
        self.table.write().executions.remove(&number);
    }

    /// The newest execution of an operation.
    pub(crate) fn find(&self, id: &OperationId) -> Option<Arc<Execution>> {
        self.table
            .read()
            .executions
            .values()
            .rev()
            .find(|execution| execution.operation_id == *id)
            .cloned()
    }

    /// Asks every execution of an operation to stop; how many there were.
    pub(crate) fn stop(&self, id: &OperationId, reason: StopReason) -> usize {
        let table = self.table.read();
        table
            .executions
            .values()
            .filter(|execution| execution.operation_id == *id)
            .map(|execution| execution.stop(reason))
            .count()
    }

    /// Asks all of them to stop, also those that are only entered later: their request was on its way.
    pub(crate) fn stop_all(&self, reason: StopReason) {
        let mut table = self.table.write();
        table.stopping = Some(reason);
        table
            .executions
            .values()
            .for_each(|execution| execution.stop(reason));
    }

    /// The word on one operation.
    pub(crate) fn describe(&self, id: &OperationId) -> Option<RunningOperation> {
        self.find(id).map(|execution| execution.describe())
    }

    /// The word on all that are claimed, oldest first.
    pub(crate) fn describe_all(&self) -> Vec<RunningOperation> {
        self.table
            .read()
            .executions
            .values()
            .filter(|execution| execution.attempt() > 0)
            .map(|e| e.describe())
            .collect()
    }

    /// The operation that has been held longest.
    pub(crate) fn oldest(&self) -> Option<OperationId> {
        self.table
            .read()
            .executions
            .values()
            .next()
            .map(|execution| execution.operation_id.clone())
    }

    pub(crate) fn len(&self) -> usize {
        self.table.read().executions.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_entered_while_all_are_stopped_is_stopped_too() {
        let (running, id) = (Running::default(), OperationId::new("a").unwrap());
        let early = Arc::new(Execution::new(id.clone()));
        running.insert(early.clone());
        running.stop_all(StopReason::Shutdown);
        let late = Arc::new(Execution::new(id));
        running.insert(late.clone());
        assert_eq!(
            [early, late].map(|execution| execution.stop_reason()),
            [Some(StopReason::Shutdown); 2]
        );
    }
}
