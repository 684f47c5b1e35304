//! What an engine sees of the operation it runs.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;

use ktrdr_protocol::id::OperationId;
use ktrdr_protocol::progress::Progress;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;

use crate::engine::data_dir::DataDir;
use crate::engine::error::OperationError;
use crate::reporting::report::Report;

/// The largest checkpoint that is kept, in bytes of JSON.
const MAX_STATE: usize = 512 * 1024;

/// The engine's handle to its operation: who it is, progress, metrics, cancellation. Cheap to clone; usable from any thread.
#[derive(Clone)]
pub struct Context {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) operation_id: OperationId,
    pub(crate) attempt: u32,
    pub(crate) cancel: CancellationToken,
    pub(crate) report: Arc<Report>,
    pub(crate) data_dir: DataDir,
    /// What an earlier attempt left.
    pub(crate) checkpoint: Option<Box<RawValue>>,
    pub(crate) checkpoint_interval: Duration,
    pub(crate) owner: OwnerCheck,
}

/// Answers whether this attempt is still the operation's own; an error is for the engine to return.
pub(crate) type OwnerCheck =
    Box<dyn Fn() -> BoxFuture<'static, Result<(), OperationError>> + Send + Sync>;

impl Context {
    /// A context for one attempt. Engines never need this; tests use [`crate::testing`].
    pub(crate) fn new(inner: Inner) -> Self {
        Self {
            inner: Arc::new(inner),
        }
    }

    /// For tests, which say how their context differs before they use it.
    pub(crate) fn change(&mut self, change: impl FnOnce(&mut Inner)) {
        if let Some(inner) = Arc::get_mut(&mut self.inner) {
            change(inner);
        }
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
        if self.is_cancelled() {
            Err(OperationError::Cancelled)
        } else {
            Ok(())
        }
    }

    /// Resolves when the engine shall stop; for `select!` in asynchronous engines.
    pub async fn cancelled(&self) {
        self.inner.cancel.cancelled().await;
    }

    /// Makes sure that this attempt is still the operation's own, by reading the operation's log. Call it right before an
    /// effect that others see, such as giving an output file its name: a worker that was cut off or suspended for longer
    /// than its lease finds out here that another attempt has taken over. Waits while NATS is away.
    ///
    /// # Errors
    /// [`OperationError::Cancelled`] when the engine shall stop, because it was taken over or cancelled.
    pub async fn ensure_owner(&self) -> Result<(), OperationError> {
        self.check_cancelled()?;
        (self.inner.owner)().await
    }

    /// [`Self::ensure_owner`] for code inside [`Self::blocking`].
    ///
    /// # Errors
    /// The same.
    pub fn ensure_owner_blocking(&self) -> Result<(), OperationError> {
        self.check_cancelled()?;
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => runtime.block_on((self.inner.owner)()),
            // Outside of any runtime there is no worker: a plain function under test.
            Err(_) => Ok(()),
        }
    }

    /// Saves where a later attempt may go on, should this worker be lost. `make` is called only when the last checkpoint is
    /// old enough (`KTRDR_CHECKPOINT_INTERVAL`, and 20 times as long as it took to make it), so it may copy and
    /// serialise; the newest one counts. States above 512 KiB of JSON are not kept.
    pub fn checkpoint_with<T: Serialize>(&self, make: impl FnOnce() -> T) {
        let Ok(()) = self.try_checkpoint_with(|_| Ok::<T, Infallible>(make()));
    }

    /// [`Self::checkpoint_with`] for a checkpoint that can fail to be made, or that refers to files: `make` is given its number
    /// (from 1, growing), and [`Self::saved_checkpoint`] tells which files are needed no longer. One more is made when the
    /// engine is asked to stop, if it looks then, before it returns.
    ///
    /// # Errors
    /// That of `make`; the checkpoint before remains the newest.
    pub fn try_checkpoint_with<T: Serialize, E>(
        &self,
        make: impl FnOnce(u64) -> Result<T, E>,
    ) -> Result<(), E> {
        let report = &self.inner.report;
        let Some(number) =
            report.next_checkpoint(self.inner.checkpoint_interval, self.is_cancelled())
        else {
            return Ok(());
        };
        let begun = Instant::now();
        let (state, result) = match make(number) {
            Ok(state) => (written(&state), Ok(())),
            Err(error) => (None, Err(error)),
        };
        report.checkpoint(state, begun.elapsed());
        result
    }

    /// The number of the newest checkpoint of this attempt that is known to be saved; 0 when none is. Those before it will not
    /// be asked for again.
    pub fn saved_checkpoint(&self) -> u64 {
        self.inner.report.saved_checkpoint()
    }

    /// What an earlier attempt saved, if there was one and it fits `T`.
    pub fn last_checkpoint<T: DeserializeOwned>(&self) -> Option<T> {
        let state = self.inner.checkpoint.as_ref()?;
        serde_json::from_str(state.get())
            .map_err(|error| tracing::warn!(%error, "the checkpoint does not fit; starting from the beginning"))
            .ok()
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
        let span = tracing::Span::current();
        match tokio::task::spawn_blocking(move || span.in_scope(|| work(&ctx))).await {
            Ok(result) => result,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(OperationError::failed(
                    "the worker stopped before the work had begun",
                )),
            },
        }
    }
}

/// A checkpoint as it is saved, unless it cannot be.
fn written(state: &impl Serialize) -> Option<Box<RawValue>> {
    match serde_json::value::to_raw_value(state) {
        Ok(state) if state.get().len() > MAX_STATE => {
            tracing::warn!(
                bytes = state.get().len(),
                limit = MAX_STATE,
                "a checkpoint is too large; not saved"
            );
            None
        }
        Ok(state) => Some(state),
        Err(error) => {
            tracing::warn!(%error, "a checkpoint cannot be written as JSON; not saved");
            None
        }
    }
}
