//! The engine's handle to the operation that it runs.

use std::borrow::Cow;
use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;

use ktrdr_protocol::id::OperationId;
use ktrdr_protocol::log_line::LogLevel;
use ktrdr_protocol::progress::Progress;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tracing::Span;

use crate::engine::data_dir::DataDir;
use crate::engine::error::OperationError;
use crate::engine::panics::located;
use crate::reporting::report::Report;

/// The largest checkpoint that is kept, in bytes of JSON.
const MAX_STATE: usize = 512 * 1024;

/// The engine's handle to its operation: identity, progress, metrics, log lines, checkpoints, cancellation.
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
    /// Cancelled when an engine that can be killed has not stopped within its grace.
    pub(crate) kill: Option<CancellationToken>,
    pub(crate) ended: CancellationToken,
    /// The runtime of the worker; none in a test of an engine.
    pub(crate) runtime: Option<Handle>,
    pub(crate) report: Arc<Report>,
    /// The span in which the engine runs.
    pub(crate) span: Span,
    pub(crate) data_dir: DataDir,
    pub(crate) lineage: Lineage,
    /// The checkpoint to resume from.
    pub(crate) checkpoint: Option<Box<RawValue>>,
    pub(crate) checkpoint_interval: Duration,
    pub(crate) owner: OwnerCheck,
}

/// What decides whether an earlier operation is of the same family.
pub(crate) struct Lineage {
    pub(crate) worker_type: Cow<'static, str>,
    pub(crate) parameters: Box<RawValue>,
    /// Whether the operation retries or resumes another one, which had the same parameters.
    pub(crate) repeats: bool,
}

/// Checks that this attempt still owns its operation. The engine returns the error.
pub(crate) type OwnerCheck =
    Box<dyn Fn() -> BoxFuture<'static, Result<(), OperationError>> + Send + Sync>;

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("operation_id", &self.inner.operation_id)
            .field("attempt", &self.inner.attempt)
            .finish_non_exhaustive()
    }
}

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

    /// Whether a report of progress is due: [`Self::progress_with`] would call its closure now. For code
    /// whose report cannot be made by a closure.
    pub fn progress_is_due(&self) -> bool {
        self.inner.report.progress_is_due()
    }

    /// Records a metric point. A value that is not finite is stored as `null`. Points keep their
    /// order and are sent in batches.
    pub fn metric(&self, name: &str, value: f64) {
        self.inner.report.metric(name, None, value);
    }

    /// Records a metric point that was measured at `step`: the number of an epoch, a row, a bar. Plots
    /// have it on their axis, so a later attempt that measures the same steps again draws over them.
    pub fn metric_at(&self, name: &str, step: impl Into<f64>, value: f64) {
        self.inner.report.metric(name, Some(step.into()), value);
    }

    /// Says something about the operation, for people: they read it with the operation, on the dashboard
    /// and with `ktrdr logs`. The lines are sent in batches. They never delay the engine: beyond what
    /// waits and what an operation may say (`WORKER_LOG_LINES`, `WORKER_LOG_BYTES`), lines are left out and
    /// counted. Lines below `WORKER_LOG_LEVEL` are not kept. Returns whether the line was kept.
    ///
    /// Of a text, the first 8 KiB are kept, and control characters other than line breaks and tabs are
    /// replaced. Events of `tracing` in the engine become such lines, too; see [`Self::span`].
    ///
    /// ```
    /// # use ktrdr_worker::{LogLevel, testing::TestRun};
    /// # let run = TestRun::new();
    /// # let ctx = run.ctx();
    /// ctx.log(LogLevel::Warn, format!("{} rows have no price", 3));
    /// # assert_eq!(run.log_lines()[0].text, "3 rows have no price");
    /// ```
    pub fn log(&self, level: LogLevel, text: impl AsRef<str>) -> bool {
        self.log_with(level, text, Map::new())
    }

    /// [`Self::log`] with values beside the text: at most 4 KiB of JSON, or none of them is kept.
    pub fn log_with(
        &self,
        level: LogLevel,
        text: impl AsRef<str>,
        fields: Map<String, Value>,
    ) -> bool {
        self.inner.report.log(level, text.as_ref(), fields)
    }

    /// The span in which the engine runs. `tracing` events in it become log lines of the operation. A
    /// thread or a task of the engine's own enters it: `ctx.span().in_scope(…)`,
    /// `….instrument(ctx.span().clone())`. [`Self::blocking`] does so by itself.
    pub fn span(&self) -> &Span {
        &self.inner.span
    }

    /// Says that the engine still works, for a step that takes longer than the stall timeout and
    /// reports nothing. Progress, metric points, log lines and checkpoints say it, too. Costs a clock reading.
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

    /// Resolves when the engine must return at once, because it did not stop within
    /// `WORKER_STOP_GRACE`. Only for an engine that says that it
    /// [can be killed](crate::dynamic::EngineInfo::can_be_killed); never resolves for others.
    pub async fn killed(&self) {
        match &self.inner.kill {
            Some(kill) => kill.cancelled().await,
            None => std::future::pending().await,
        }
    }

    /// Resolves when the attempt is over, whatever its end: `run` has returned, or nobody waits for it
    /// any more. A task that the engine has spawned, and that waits for [`Self::cancelled`], waits for
    /// this too, or it would never end.
    pub async fn ended(&self) {
        self.inner.ended.cancelled().await;
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

    /// [`Self::ensure_owner`] for code inside [`Self::blocking`], and for threads of the engine's own.
    ///
    /// # Errors
    /// [`OperationError::Cancelled`], as there.
    ///
    /// # Panics
    /// In asynchronous code, which must not block its thread: use [`Self::ensure_owner`] there.
    pub fn ensure_owner_blocking(&self) -> Result<(), OperationError> {
        self.check_cancelled()?;
        match &self.inner.runtime {
            Some(runtime) => runtime.block_on((self.inner.owner)()),
            // A test of an engine has no worker, and answers at once.
            None => futures::executor::block_on((self.inner.owner)()),
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
        let span = Span::current();
        match tokio::task::spawn_blocking(move || span.in_scope(|| located(|| work(&ctx)))).await {
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
