//! The `dummy` engine: waits in steps of a given length, for trials and load tests.

use std::time::Duration;

use ktrdr_worker::Progress;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use ktrdr_worker::{Context, Engine, LogLevel, OperationError};

/// Largest size of a generated result, in bytes.
const MAX_RESULT_BYTES: usize = 64 * 1024 * 1024;

/// The `dummy` engine.
pub struct Dummy;

/// The simulated work.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("examples" = [{"steps": 10, "step_ms": 100}]))]
pub struct DummyRequest {
    /// Number of steps. 0 finishes at once.
    pub steps: u32,
    /// Milliseconds per step. 0 does not wait.
    pub step_ms: u64,
    /// Fail at this step (from 1).
    pub fail_at_step: Option<u32>,
    /// Panic at this step (from 1).
    pub panic_at_step: Option<u32>,
    /// Ignore a cancel.
    pub ignore_cancel: bool,
    /// Metric points per step.
    #[schemars(range(max = 10_000))]
    pub metrics_per_step: u32,
    /// Size of a filler text in the result, in bytes (at most 64 MiB).
    #[schemars(range(max = 67_108_864))]
    pub result_bytes: usize,
}

impl Default for DummyRequest {
    fn default() -> Self {
        Self {
            steps: 10,
            step_ms: 100,
            fail_at_step: None,
            panic_at_step: None,
            ignore_cancel: false,
            metrics_per_step: 1,
            result_bytes: 0,
        }
    }
}

/// The result.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(extend("x-ktrdr-verdict" = ["steps"]))]
pub struct DummyOutput {
    /// Steps done.
    pub steps: u32,
    /// A filler text of the requested size.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub filler: String,
}

impl Engine for Dummy {
    const NAME: &'static str = "dummy";
    const SHORT: Option<&'static str> = Some("dm");
    const DESCRIPTION: &'static str =
        "Waits in steps; can fail, panic or ignore a cancel. For trials and load.";
    const NEVER_BLOCKS: bool = true;
    type Request = DummyRequest;
    type Output = DummyOutput;

    async fn run(
        &self,
        ctx: Context,
        request: DummyRequest,
    ) -> Result<DummyOutput, OperationError> {
        if request.result_bytes > MAX_RESULT_BYTES {
            return Err(OperationError::invalid(format!(
                "result_bytes may be at most {MAX_RESULT_BYTES}"
            )));
        }

        let total = u64::from(request.steps);
        for step in 1..=request.steps {
            if !request.ignore_cancel {
                ctx.check_cancelled()?;
            }

            if request.step_ms > 0 {
                tokio::select! {
                    // Dropping either arm loses nothing.
                    () = tokio::time::sleep(Duration::from_millis(request.step_ms)) => {}
                    () = ctx.cancelled(), if !request.ignore_cancel => return Err(OperationError::Cancelled),
                }
            } else {
                // Yield to other tasks, even in millions of steps without a wait.
                tokio::task::consume_budget().await;
            }

            if request.fail_at_step == Some(step) {
                ctx.log(LogLevel::Warn, format!("failing at step {step}, as asked"));
                return Err(OperationError::failed(format!(
                    "failed at step {step}, as asked"
                )));
            }

            #[expect(clippy::panic, reason = "the request asks for a panic")]
            if request.panic_at_step == Some(step) {
                panic!("panicked at step {step}, as asked");
            }

            for _ in 0..request.metrics_per_step {
                ctx.metric("step", f64::from(step));
            }

            let left = (total - u64::from(step)).saturating_mul(request.step_ms) / 1000;

            ctx.progress(
                Progress::ratio(u64::from(step), total)
                    .step(format!("Step {step}/{total}"))
                    .remaining_seconds(Some(left))
                    .field("step", step)
                    .field("steps", total),
            );
        }

        Ok(DummyOutput {
            steps: request.steps,
            filler: "x".repeat(request.result_bytes),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ktrdr_worker::testing::TestRun;
    use serde_json::json;

    #[tokio::test]
    async fn counts_its_steps() {
        let run = TestRun::new();
        let output = run
            .run(
                &Dummy,
                json!({"steps": 3, "step_ms": 0, "metrics_per_step": 2}),
            )
            .await
            .unwrap();

        assert_eq!(output.steps, 3);
        assert_eq!(run.progress().percentage, 100.0);
        assert_eq!(run.metrics().len(), 6);
    }

    #[tokio::test]
    async fn fails_at_the_requested_step() {
        let error = TestRun::new()
            .run(&Dummy, json!({"step_ms": 0, "fail_at_step": 2}))
            .await
            .unwrap_err();
        assert_eq!(error, OperationError::failed("failed at step 2, as asked"));
    }

    #[tokio::test]
    async fn stops_when_cancelled() {
        let run = TestRun::new();
        run.cancel();
        assert_eq!(
            run.run(&Dummy, json!({"step_ms": 60_000}))
                .await
                .unwrap_err(),
            OperationError::Cancelled
        );
    }

    #[tokio::test]
    async fn a_mistyped_parameter_is_refused() {
        assert!(
            TestRun::new()
                .run(&Dummy, json!({"step": 3}))
                .await
                .is_err()
        );
    }
}
