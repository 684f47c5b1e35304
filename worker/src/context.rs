//! What an engine sees of the operation it runs.

use std::sync::Arc;

use ktrdr_shared::id::OperationId;
use ktrdr_shared::operation::Progress;
use tokio_util::sync::CancellationToken;

use crate::data_dir::DataDir;
use crate::error::OperationError;
use crate::report::Report;

/// The engine's handle to its operation: who it is, progress, metrics, cancellation. Cheap to clone; usable from any thread.
#[derive(Clone)]
pub struct Context {
    inner: Arc<Inner>,
}

struct Inner {
    operation_id: OperationId,
    attempt: u32,
    cancel: CancellationToken,
    report: Arc<Report>,
    data_dir: DataDir,
}

impl Context {
    /// A context for one attempt. Engines never need this; tests use [`crate::testing`].
    pub(crate) fn new(
        operation_id: OperationId,
        attempt: u32,
        cancel: CancellationToken,
        report: Arc<Report>,
        data_dir: DataDir,
    ) -> Self {
        Self { inner: Arc::new(Inner { operation_id, attempt, cancel, report, data_dir }) }
    }

    /// The operation.
    pub fn operation_id(&self) -> &OperationId {
        &self.inner.operation_id
    }

    /// Which attempt this is, from 1. Temporary names of two attempts must differ: the earlier one may still be alive.
    pub fn attempt(&self) -> u32 {
        self.inner.attempt
    }

    /// Where the data is; every path in a request goes through [`DataDir::resolve`].
    pub fn data_dir(&self) -> &DataDir {
        &self.inner.data_dir
    }

    /// Reports progress. Costs a lock and a move; the SDK sends the newest one a few times a second. A percentage below the
    /// last one is raised to it.
    pub fn progress(&self, progress: Progress) {
        self.inner.report.progress(progress);
    }

    /// Reports progress from a tight loop: `make` is called only when the last report is old enough to be worth replacing
    /// (a tenth of a second), so it may build texts and counters. Costs a clock reading otherwise.
    pub fn progress_with(&self, make: impl FnOnce() -> Progress) {
        if self.inner.report.progress_is_due() {
            self.inner.report.progress(make());
        }
    }

    /// Records a measured value; one that is not finite is stored as `null`. Points keep their order and are sent in batches.
    pub fn metric(&self, name: &str, value: f64) {
        self.inner.report.metric(name, value);
    }

    /// Whether the engine shall stop.
    pub fn is_cancelled(&self) -> bool {
        self.inner.cancel.is_cancelled()
    }

    /// For `?` in a loop.
    ///
    /// # Errors
    /// [`OperationError::Cancelled`] once the engine shall stop.
    pub fn check_cancelled(&self) -> Result<(), OperationError> {
        if self.is_cancelled() { Err(OperationError::Cancelled) } else { Ok(()) }
    }

    /// Resolves when the engine shall stop; for `select!` in asynchronous engines.
    pub async fn cancelled(&self) {
        self.inner.cancel.cancelled().await;
    }

    /// Runs code that computes or blocks for long on a thread of its own.
    ///
    /// # Errors
    /// What `work` returns. A panic in it goes on in the caller and fails the operation.
    pub async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Context) -> Result<T, OperationError> + Send + 'static,
    ) -> Result<T, OperationError> {
        let ctx = self.clone();
        match tokio::task::spawn_blocking(move || work(&ctx)).await {
            Ok(result) => result,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(OperationError::failed("the worker stopped before the work had begun")),
            },
        }
    }
}
