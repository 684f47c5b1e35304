//! The engine's handle to the operation that it runs.

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

/// The engine's handle to its operation: identity, progress, metrics, checkpoints, cancellation.
/// Cheap to clone, and usable from any thread.
#[derive(Clone)]
pub struct Context {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) operation_id: OperationId,
    pub(crate) attempt: u32,
    /// The operations that the start request names as those to resume from.
    pub(crate) resumes: Vec<OperationId>,
    pub(crate) cancel: CancellationToken,
    pub(crate) report: Arc<Report>,
    pub(crate) data_dir: DataDir,
    pub(crate) lineage: Lineage,
    /// The checkpoint to resume from.
    pub(crate) checkpoint: Option<Box<RawValue>>,
    pub(crate) checkpoint_interval: Duration,
    pub(crate) owner: OwnerCheck,
}

/// What decides whether an earlier operation is of the same family.
pub(crate) struct Lineage {
    pub(crate) worker_type: &'static str,
    pub(crate) parameters: Box<RawValue>,
    /// Whether the operation retries or resumes another one, which had the same parameters.
    pub(crate) repeats: bool,
}

/// Checks that this attempt still owns its operation. The engine returns the error.
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

    /// The id of the operation.
    pub fn operation_id(&self) -> &OperationId {
        &self.inner.operation_id
    }

    /// Which attempt this is, from 1. Use it in temporary names: an earlier attempt may still be
    /// alive, and must not share a file with this one.
    pub fn attempt(&self) -> u32 {
        self.inner.attempt
    }

    /// The operations that this one continues, newest first; empty unless it is a resume. A
    /// checkpoint comes from a place that others can write to: an engine whose checkpoint names files
    /// of an operation uses them only if it is this operation or one of these.
    pub fn resumes(&self) -> &[OperationId] {
        &self.inner.resumes
    }

    /// The data directory. Read files of a request with [`DataDir::open`], and write them with
    /// [`Self::output`].
    pub fn data_dir(&self) -> &DataDir {
        &self.inner.data_dir
    }

    pub(crate) fn lineage(&self) -> &Lineage {
        &self.inner.lineage
    }

    /// Reports progress. The SDK sends the newest one a few times a second. A percentage below the
    /// last one is raised to it. Costs a lock and a move.
    pub fn progress(&self, progress: Progress) {
        self.inner.report.progress(progress);
    }

    /// Reports progress from a tight loop. `make` is called only when the last report is older than a
    /// tenth of a second, so it may build texts. Otherwise this costs a clock reading.
    pub fn progress_with(&self, make: impl FnOnce() -> Progress) {
        if self.inner.report.progress_is_due() {
            self.inner.report.progress(make());
        }
    }

    /// Records a metric point. A value that is not finite is stored as `null`. Points keep their
    /// order and are sent in batches.
    pub fn metric(&self, name: &str, value: f64) {
        self.inner.report.metric(name, value);
    }

    /// Says that the engine still works, for a step that takes longer than the stall timeout and
    /// reports nothing. Progress, metric points and checkpoints say it, too. Costs a clock reading.
    pub fn alive(&self) {
        self.inner.report.alive();
    }

    /// Whether the engine should stop.
    pub fn is_cancelled(&self) -> bool {
        self.inner.cancel.is_cancelled()
    }

    /// [`Self::is_cancelled`] for `?` in a loop.
    ///
    /// # Errors
    /// [`OperationError::Cancelled`] when the engine should stop.
    pub fn check_cancelled(&self) -> Result<(), OperationError> {
        if self.is_cancelled() {
            Err(OperationError::Cancelled)
        } else {
            Ok(())
        }
    }

    /// Resolves when the engine should stop; for `select!` in asynchronous engines.
    pub async fn cancelled(&self) {
        self.inner.cancel.cancelled().await;
    }

    /// Checks in the operation's log that this attempt still owns the operation. Waits while NATS is
    /// away.
    ///
    /// Call it right before an effect that others see, such as renaming an output file. A worker
    /// that was cut off or suspended for longer than its lease learns here that another attempt has
    /// taken over.
    ///
    /// # Errors
    /// [`OperationError::Cancelled`] when the attempt is lost, or the engine should stop for another
    /// reason.
    pub async fn ensure_owner(&self) -> Result<(), OperationError> {
        self.check_cancelled()?;
        (self.inner.owner)().await
    }

    /// [`Self::ensure_owner`] for code inside [`Self::blocking`].
    ///
    /// # Errors
    /// [`OperationError::Cancelled`], as there.
    pub fn ensure_owner_blocking(&self) -> Result<(), OperationError> {
        self.check_cancelled()?;
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => runtime.block_on((self.inner.owner)()),
            // Without a runtime there is no worker: this is a unit test of a plain function.
            Err(_) => Ok(()),
        }
    }

    /// Saves the state from which a later attempt can resume if this worker is lost. Only the newest
    /// checkpoint is kept. States above 512 KiB of JSON are not saved.
    ///
    /// `make` is called only when the last checkpoint is old enough: `KTRDR_CHECKPOINT_INTERVAL`, and
    /// 20 times as long as it took to make.
    pub fn checkpoint_with<T: Serialize>(&self, make: impl FnOnce() -> T) {
        let Ok(()) = self.try_checkpoint_with(|_| Ok::<T, Infallible>(make()));
    }

    /// [`Self::checkpoint_with`] for a checkpoint that refers to files, or that can fail. `make`
    /// receives its number (1, 2, …). Files of checkpoints before [`Self::saved_checkpoint`] can be
    /// removed. When the engine is asked to stop, this makes one more checkpoint if it is called
    /// again.
    ///
    /// # Errors
    /// The error of `make`. The checkpoint before then remains the newest.
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
            Ok(state) => (to_json(&state), Ok(())),
            Err(error) => (None, Err(error)),
        };
        report.checkpoint(state, begun.elapsed());
        result
    }

    /// The number of the newest saved checkpoint of this attempt; 0 before the first. No later
    /// attempt resumes from one before it.
    pub fn saved_checkpoint(&self) -> u64 {
        self.inner.report.saved_checkpoint()
    }

    /// The checkpoint of an earlier attempt; `None` when there is none, or when it cannot be read as
    /// a `T`.
    pub fn last_checkpoint<T: DeserializeOwned>(&self) -> Option<T> {
        let state = self.inner.checkpoint.as_ref()?;
        serde_json::from_str(state.get())
            .map_err(|error| tracing::warn!(%error, "the checkpoint cannot be read; starting from the beginning"))
            .ok()
    }

    /// Runs code that computes or blocks for long on a thread of its own. A panic in it continues in
    /// the caller.
    ///
    /// # Errors
    /// The error of `work`.
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

/// A checkpoint as JSON; `None`, with a log line, when it cannot be saved.
fn to_json(state: &impl Serialize) -> Option<Box<RawValue>> {
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
