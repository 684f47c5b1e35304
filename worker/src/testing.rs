//! Runs one engine in a test: no NATS, no HTTP, no other process.
//!
//! ```
//! # use ktrdr_worker::{Context, Engine, OperationError, testing::TestRun};
//! # struct Echo;
//! # impl Engine for Echo {
//! #     const WORKER_TYPE: &'static str = "echo";
//! #     const DOMAIN: &'static str = "echo";
//! #     const SHORT: &'static str = "ec";
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

use ktrdr_shared::id::OperationId;
use ktrdr_shared::operation::{MetricPoint, Progress};
use tokio_util::sync::CancellationToken;

use crate::context::{Context, Inner};
use crate::data_dir::DataDir;
use crate::engine::Engine;
use crate::error::OperationError;
use crate::report::Report;

/// One attempt at an operation, with everything it reports kept for the test to look at.
pub struct TestRun {
    ctx: Context,
    report: Arc<Report>,
    cancel: CancellationToken,
}

impl Default for TestRun {
    fn default() -> Self {
        Self::new()
    }
}

impl TestRun {
    /// The first attempt at operation `test`, with the current directory as data directory.
    pub fn new() -> Self {
        Self::in_dir(".")
    }

    /// The same with another data directory.
    pub fn in_dir(data_dir: impl AsRef<Path>) -> Self {
        #[expect(clippy::expect_used, reason = "a constant that is a valid name")]
        let id = OperationId::new("test").expect("a valid name");
        let (report, cancel) = (Arc::new(Report::new()), CancellationToken::new());
        let ctx = Context::new(Inner {
            operation_id: id,
            attempt: 1,
            cancel: cancel.clone(),
            report: report.clone(),
            data_dir: DataDir::new(data_dir.as_ref()),
            checkpoint: None,
            checkpoint_interval: Duration::ZERO,
            owner: Box::new(|| Box::pin(std::future::ready(Ok(())))),
        });
        Self { ctx, report, cancel }
    }

    /// The next attempt after this one was lost: it finds this one's newest checkpoint.
    #[must_use]
    pub fn next_attempt(&self) -> Self {
        let (report, cancel) = (Arc::new(Report::new()), CancellationToken::new());
        let ctx = Context::new(Inner {
            operation_id: self.ctx.operation_id().clone(),
            attempt: self.ctx.attempt() + 1,
            cancel: cancel.clone(),
            report: report.clone(),
            data_dir: self.ctx.data_dir().clone(),
            checkpoint: self.report.take_checkpoint(),
            checkpoint_interval: Duration::ZERO,
            owner: Box::new(|| Box::pin(std::future::ready(Ok(())))),
        });
        Self { ctx, report, cancel }
    }

    /// The context, for engines whose work is a plain function.
    pub fn ctx(&self) -> &Context {
        &self.ctx
    }

    /// Decodes `request` as a worker would and runs the engine.
    ///
    /// # Errors
    /// The engine's own, or `invalid_request` when `request` does not decode.
    pub async fn run<E: Engine>(&self, engine: &E, request: serde_json::Value) -> Result<E::Output, OperationError> {
        let request = serde_json::from_value(request).map_err(|error| OperationError::invalid(error.to_string()))?;
        engine.run(self.ctx.clone(), request).await
    }

    /// Asks the engine to stop.
    pub fn cancel(&self) {
        self.cancel.cancel();
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
