//! Runs one engine in a test: no NATS, no HTTP, no other process.
//!
//! ```
//! # use ktrdr_worker::{Context, Engine, OperationError, testing::TestRun};
//! # struct Echo;
//! # impl Engine for Echo {
//! #     const NAME: &'static str = "echo";
//! #     const DESCRIPTION: &'static str = "Answers what it was given.";
//! #     type Request = String;
//! #     type Output = String;
//! #     async fn run(&self, ctx: Context, request: String) -> Result<String, OperationError> {
//! #         ctx.metric("length", request.len() as f64);
//! #         Ok(request)
//! #     }
//! # }
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! let run = TestRun::new();
//! let output = run.run(&Echo, serde_json::json!("hello")).await.unwrap();
//! assert_eq!(output, "hello");
//! assert_eq!(run.metrics()[0].value, Some(5.0));
//! # });
//! ```

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use ktrdr_protocol::id::OperationId;
use ktrdr_protocol::metric::MetricPoint;
use ktrdr_protocol::progress::Progress;
use parking_lot::Mutex;
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::engine::context::{Context, Inner, Lineage};
use crate::engine::data_dir::{DataDir, FileError};
use crate::engine::error::OperationError;
use crate::reporting::report::Report;

/// One attempt at an operation. Everything that the engine reports is kept for the test.
pub struct TestRun {
    ctx: Context,
    report: Arc<Report>,
    cancel: CancellationToken,
    saved: Saved,
}

/// The newest saved checkpoint.
type Saved = Arc<Mutex<Option<Box<RawValue>>>>;

impl Default for TestRun {
    fn default() -> Self {
        Self::new()
    }
}

impl TestRun {
    /// The first attempt at an operation with the id `test`. The data directory is the current
    /// directory.
    pub fn new() -> Self {
        Self::in_dir(".")
    }

    /// [`Self::new`] with another data directory.
    pub fn in_dir(data_dir: impl AsRef<Path>) -> Self {
        #[expect(clippy::expect_used, reason = "a constant that is a valid name")]
        let id = OperationId::new("test").expect("a valid name");
        Self::attempt_of(id, 1, Vec::new(), DataDir::new(data_dir.as_ref()), None)
    }

    fn attempt_of(
        operation_id: OperationId,
        attempt: u32,
        resumes: Vec<OperationId>,
        data_dir: DataDir,
        checkpoint: Option<Box<RawValue>>,
    ) -> Self {
        let (report, cancel) = (Arc::new(Report::new()), CancellationToken::new());
        // The next attempt finds the same checkpoint unless this one saves a newer one.
        let saved = Arc::new(Mutex::new(checkpoint.clone()));
        let ctx = Context::new(Inner {
            operation_id,
            attempt,
            resumes,
            cancel: cancel.clone(),
            report: report.clone(),
            data_dir: data_dir.reopened(),
            lineage: Lineage {
                worker_type: "test",
                parameters: Box::default(),
                repeats: false,
            },
            checkpoint,
            checkpoint_interval: Duration::ZERO,
            owner: Box::new(|| Box::pin(std::future::ready(Ok(())))),
        });
        Self {
            ctx,
            report,
            cancel,
            saved,
        }
    }

    /// The attempt after this one was lost. It resumes from this one's newest checkpoint.
    #[must_use]
    pub fn next_attempt(&self) -> Self {
        let ctx = &self.ctx;
        Self::attempt_of(
            ctx.operation_id().clone(),
            ctx.attempt() + 1,
            ctx.resumes().to_vec(),
            ctx.data_dir().clone(),
            self.newest_checkpoint(),
        )
    }

    /// The first attempt at another operation that resumes from this one's newest checkpoint.
    #[must_use]
    pub fn resumed_as(&self, id: OperationId) -> Self {
        let ancestors = self.ctx.resumes().iter().cloned();
        let resumes = std::iter::once(self.ctx.operation_id().clone())
            .chain(ancestors)
            .collect();
        let data_dir = self.ctx.data_dir().clone();
        Self::attempt_of(id, 1, resumes, data_dir, self.newest_checkpoint())
            .change(|inner| inner.lineage.repeats = true)
    }

    /// The first attempt at another operation, in the same data directory.
    #[must_use]
    pub fn another(&self, id: OperationId) -> Self {
        Self::attempt_of(id, 1, Vec::new(), self.ctx.data_dir().clone(), None)
    }

    /// Puts outputs only below `folder`, as `KTRDR_OUTPUT_DIR` does.
    ///
    /// # Errors
    /// The error of [`DataDir::with_outputs_below`].
    pub fn outputs_below(self, folder: &str) -> Result<Self, FileError> {
        let data_dir = self.ctx.data_dir().clone().with_outputs_below(folder)?;
        Ok(self.change(|inner| inner.data_dir = data_dir))
    }

    /// Calls `hook` when the engine asks whether it still owns its operation, which is right before
    /// others see its output.
    #[must_use]
    pub fn before_publishing(self, hook: impl Fn() + Send + Sync + 'static) -> Self {
        self.change(|inner| {
            inner.owner = Box::new(move || {
                hook();
                Box::pin(std::future::ready(Ok(())))
            });
        })
    }

    /// The checkpoint that the next attempt resumes from.
    fn newest_checkpoint(&self) -> Option<Box<RawValue>> {
        self.report
            .take_checkpoint()
            .map(|(_, state)| state)
            .or_else(|| self.saved.lock().clone())
    }

    /// Makes a checkpoint at every opportunity, and saves the first `count` of them. Without this, one
    /// checkpoint is made, and none after it.
    #[must_use]
    pub fn saves_checkpoints(self, count: u64) -> Self {
        self.with_sink(move |number, _| number <= count)
    }

    /// Saves `count` checkpoints, and asks the engine to stop together with the last of them.
    #[must_use]
    pub fn cancelled_at_checkpoint(self, count: u64) -> Self {
        self.with_sink(move |number, cancel| {
            if number == count {
                cancel.cancel();
            }
            number <= count
        })
    }

    fn with_sink(
        mut self,
        saves: impl Fn(u64, &CancellationToken) -> bool + Send + Sync + 'static,
    ) -> Self {
        let (saved, cancel) = (self.saved.clone(), self.cancel.clone());
        let report = Arc::new(Report::with_sink(Box::new(move |number, state| {
            let saves = saves(number, &cancel);
            if saves {
                *saved.lock() = Some(state.to_owned());
            }
            saves
        })));
        self.report = report.clone();
        self.change(|inner| inner.report = report)
    }

    /// Sets the minimum time between two checkpoints; it is 0 without this.
    #[must_use]
    pub fn checkpoint_interval(self, interval: Duration) -> Self {
        self.change(|inner| inner.checkpoint_interval = interval)
    }

    /// Makes [`Context::ensure_owner`] fail, as if another attempt had taken over.
    #[must_use]
    pub fn taken_over(self) -> Self {
        let owner = || -> BoxFuture<'static, _> {
            Box::pin(std::future::ready(Err(OperationError::Cancelled)))
        };
        self.change(|inner| inner.owner = Box::new(owner))
    }

    fn change(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        self.ctx.change(change);
        self
    }

    /// The context of the attempt, to test a plain function that takes one.
    pub fn ctx(&self) -> &Context {
        &self.ctx
    }

    /// Decodes `request` as a worker would, and runs the engine.
    ///
    /// # Errors
    /// The engine's error, or `invalid_request` when `request` cannot be decoded.
    pub async fn run<E: Engine>(
        &self,
        engine: &E,
        request: serde_json::Value,
    ) -> Result<E::Output, OperationError> {
        let request = serde_json::from_value(request)
            .map_err(|error| OperationError::invalid(error.to_string()))?;
        engine.run(self.ctx.clone(), request).await
    }

    /// Asks the engine to stop.
    pub fn cancel(&self) {
        self.cancel.cancel();
    }

    /// How many checkpoints the engine made.
    pub fn checkpoints(&self) -> u64 {
        self.report.checkpoints_made()
    }

    /// The newest progress.
    pub fn progress(&self) -> Progress {
        self.report.latest_progress()
    }

    /// All metric points since the last call.
    pub fn metrics(&self) -> Vec<MetricPoint> {
        self.report.take_points().points
    }
}
