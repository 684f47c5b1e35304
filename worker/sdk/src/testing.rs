//! Runs one engine in a test: no NATS, no HTTP, no other process.
//!
//! ```
//! # use ktrdr_worker::{Context, Engine, OperationError, testing::TestRun};
//! # #[derive(serde::Deserialize, schemars::JsonSchema)]
//! # struct EchoRequest { text: String }
//! # struct Echo;
//! # impl Engine for Echo {
//! #     const NAME: &'static str = "echo";
//! #     const DESCRIPTION: &'static str = "Answers what it was given.";
//! #     type Request = EchoRequest;
//! #     type Output = String;
//! #     async fn run(&self, ctx: Context, request: EchoRequest) -> Result<String, OperationError> {
//! #         ctx.metric("length", request.text.len() as f64);
//! #         Ok(request.text)
//! #     }
//! # }
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! let run = TestRun::new();
//! let output = run.run(&Echo, serde_json::json!({"text": "hello"})).await.unwrap();
//! assert_eq!(output, "hello");
//! assert_eq!(run.metrics()[0].value, Some(5.0));
//! // What a backend would refuse does not reach the engine.
//! let refused = run.run(&Echo, serde_json::json!({"txt": "hello"})).await.unwrap_err();
//! assert!(refused.to_string().contains("\"text\" is a required property"));
//! # });
//! ```

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use ktrdr_http::schema::Schema;
use ktrdr_http::start_body::StartBody;
use ktrdr_protocol::id::OperationId;
use ktrdr_protocol::log_line::{LogLevel, LogLine};
use ktrdr_protocol::metric::MetricPoint;
use ktrdr_protocol::progress::Progress;
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;

use crate::dynamic::DynEngine;
use crate::engine::Engine;
use crate::engine::context::{Context, Inner, Lineage};
use crate::engine::data_dir::{DataDir, FileError};
use crate::engine::erased::decode;
use crate::engine::error::OperationError;
use crate::reporting::log_lines::LogLimits;
use crate::reporting::report::Report;

/// One attempt at an operation. Everything that the engine reports is kept for the test.
pub struct TestRun {
    ctx: Context,
    report: Arc<Report>,
    cancel: CancellationToken,
    kill: CancellationToken,
    ended: CancellationToken,
    saved: Saved,
}

/// A test sees everything that its engine says.
const ALL_LINES: LogLimits = LogLimits {
    level: Some(LogLevel::Trace),
    lines: u64::MAX,
    bytes: u64::MAX,
};

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
        let report = Arc::new(Report::with_logs(ALL_LINES));
        let cancel = CancellationToken::new();
        let (kill, ended) = (CancellationToken::new(), CancellationToken::new());
        // The next attempt finds the same checkpoint unless this one saves a newer one.
        let saved = Arc::new(Mutex::new(checkpoint.clone()));
        let ctx = Context::new(Inner {
            operation_id,
            attempt,
            resumes,
            cancel: cancel.clone(),
            kill: Some(kill.clone()),
            ended: ended.clone(),
            runtime: None,
            report: report.clone(),
            span: tracing::Span::none(),
            data_dir: data_dir.reopened(),
            lineage: Lineage {
                worker_type: "test".into(),
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
            kill,
            ended,
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
        let report = Arc::new(Report::with_sink(
            ALL_LINES,
            Box::new(move |number, state| {
                let saves = saves(number, &cancel);
                if saves {
                    *saved.lock() = Some(state.to_owned());
                }
                saves
            }),
        ));
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

    /// Checks `request` as a backend would, decodes it as a worker would, runs the engine, and checks
    /// its result.
    ///
    /// # Errors
    /// The engine's error. `invalid_request` when `request` does not match its schema or cannot be
    /// decoded. `schema_unusable`, `result_not_json` and `result_mismatch` when a schema cannot be
    /// used or the result does not match its own: a NaN, for example, becomes `null`.
    pub async fn run<E: Engine>(
        &self,
        engine: &E,
        request: Value,
    ) -> Result<E::Output, OperationError> {
        let info = DynEngine::info(engine);
        let request = decode(&parameters(&info.request_schema, request)?)?;

        let output = Engine::run(engine, self.ctx.clone(), request).await;
        self.ended.cancel();
        let output = output?;
        check_result(&info.result_schema, &output)?;
        Ok(output)
    }

    /// [`Self::run`] for an engine that is known only at run time.
    ///
    /// # Errors
    /// As there.
    pub async fn run_dyn(
        &self,
        engine: &dyn DynEngine,
        request: Value,
    ) -> Result<Value, OperationError> {
        let info = engine.info();
        let request = parameters(&info.request_schema, request)?;

        let output = engine.run(self.ctx.clone(), &request).await;
        self.ended.cancel();
        let output: Value = serde_json::from_str(output?.get()).map_err(|error| {
            OperationError::permanent("result_not_json", format!("the result is no JSON: {error}"))
        })?;
        check_result(&info.result_schema, &output)?;
        Ok(output)
    }

    /// Asks the engine to stop.
    pub fn cancel(&self) {
        self.cancel.cancel();
    }

    /// Tells an engine that can be killed that its grace is over.
    pub fn kill(&self) {
        self.kill.cancel();
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

    /// All log lines since the last call, of every level. `tracing` events are not among them.
    pub fn log_lines(&self) -> Vec<LogLine> {
        self.report.logs.take()
    }
}

/// The parameters of a start body, if a backend would accept it.
fn parameters(schema: &Value, request: Value) -> Result<Box<RawValue>, OperationError> {
    let schema = compile(schema)?;
    let body = Bytes::from(request.to_string());
    StartBody::read(&body, Some(&schema))
        .map(|body| body.parameters)
        .map_err(|error| OperationError::invalid(error.to_string()))
}

fn compile(schema: &Value) -> Result<Schema, OperationError> {
    Schema::compile(schema).map_err(|error| {
        OperationError::permanent(
            "schema_unusable",
            format!("the schema is unusable: {error}"),
        )
    })
}

/// Checks a result against the schema that its type has.
fn check_result(schema: &Value, output: &impl Serialize) -> Result<(), OperationError> {
    let output = serde_json::to_value(output).map_err(|error| {
        OperationError::permanent("result_not_json", format!("the result is no JSON: {error}"))
    })?;
    let mismatch = |text: String| OperationError::permanent("result_mismatch", text);
    let violations = compile(schema)?
        .violations("", &output)
        .map_err(|error| mismatch(error.to_string()))?;
    match violations.first() {
        Some(first) => Err(mismatch(format!(
            "the result does not match its schema, at {:?}: {}",
            first.path, first.message
        ))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use schemars::JsonSchema;
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    struct Ratio;

    #[derive(Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct RatioRequest {
        of: u32,
        #[schemars(range(max = 10))]
        to: u32,
    }

    #[derive(Debug, Serialize, JsonSchema)]
    struct RatioOutput {
        ratio: f64,
    }

    impl Engine for Ratio {
        const NAME: &'static str = "ratio";
        type Request = RatioRequest;
        type Output = RatioOutput;

        async fn run(&self, _: Context, of: RatioRequest) -> Result<RatioOutput, OperationError> {
            let ratio = f64::from(of.of) / f64::from(of.to);
            Ok(RatioOutput { ratio })
        }
    }

    async fn refused(request: Value) -> String {
        match TestRun::new().run(&Ratio, request).await.unwrap_err() {
            OperationError::Permanent { code, message } => format!("{code}: {message}"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_thread_without_a_runtime_learns_that_the_attempt_is_lost() {
        let lost = TestRun::new().taken_over();
        assert_eq!(
            lost.ctx().ensure_owner_blocking(),
            Err(OperationError::Cancelled)
        );

        assert_eq!(TestRun::new().ctx().ensure_owner_blocking(), Ok(()));
    }

    #[tokio::test]
    async fn request_and_result_are_checked_against_their_schemas() {
        let run = TestRun::new();
        let fits = run.run(&Ratio, json!({"of": 1, "to": 2.0})).await.unwrap();
        assert!((fits.ratio - 0.5).abs() < 1e-12);

        let too_much = refused(json!({"of": 1, "to": 11, "x": 1})).await;
        assert!(too_much.starts_with("invalid_request: "), "{too_much}");
        for part in ["/to: 11 is greater than the maximum of 10", "'x'"] {
            assert!(too_much.contains(part), "{too_much}");
        }
        let no_object = refused(json!("1:2")).await;
        assert!(no_object.contains("must be a JSON object"), "{no_object}");
        let not_a_number = refused(json!({"of": 0, "to": 0})).await;
        assert!(
            not_a_number.starts_with("result_mismatch: ") && not_a_number.contains("/ratio"),
            "{not_a_number}"
        );
    }
}
