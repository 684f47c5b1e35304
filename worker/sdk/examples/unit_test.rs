//! Tests an engine with [`TestRun`]: no NATS, no HTTP, no other process.
//!
//! ```sh
//! cargo test -p ktrdr-worker --example unit_test
//! ```
//!
//! [`TestRun`]: ktrdr_worker::testing::TestRun

use std::process::ExitCode;

use ktrdr_worker::{Context, Engine, OperationError, Progress};
use schemars::JsonSchema;
use serde::Deserialize;

struct Mean;

#[derive(Deserialize, JsonSchema)]
struct MeanRequest {
    values: Vec<f64>,
}

impl Engine for Mean {
    const NAME: &'static str = "mean";
    type Request = MeanRequest;
    type Output = f64;

    async fn run(&self, ctx: Context, request: MeanRequest) -> Result<f64, OperationError> {
        if request.values.is_empty() {
            return Err(OperationError::invalid("`values` is empty"));
        }

        let mean = request.values.iter().sum::<f64>() / request.values.len() as f64;
        ctx.metric("mean", mean);
        ctx.progress(Progress::new(100.0));
        ctx.ensure_owner().await?;
        Ok(mean)
    }
}

fn main() -> ExitCode {
    ktrdr_worker::main(Mean)
}

#[cfg(test)]
mod tests {
    use ktrdr_worker::OperationError;
    use ktrdr_worker::testing::TestRun;
    use serde_json::json;

    use super::Mean;

    #[tokio::test]
    async fn returns_and_reports_the_mean() {
        let run = TestRun::new();

        let output = run.run(&Mean, json!({"values": [1, 2, 6]})).await;

        assert_eq!(output, Ok(3.0));
        assert_eq!(run.metrics()[0].value, Some(3.0));
        assert_eq!(run.progress().percentage, 100.0);
    }

    #[tokio::test]
    async fn a_request_without_values_fails_for_good() {
        let error = TestRun::new().run(&Mean, json!({"values": []})).await;

        assert!(matches!(error, Err(OperationError::Permanent { .. })));
    }

    #[tokio::test]
    async fn an_attempt_that_was_taken_over_has_no_result() {
        let run = TestRun::new().taken_over();

        let result = run.run(&Mean, json!({"values": [1]})).await;

        assert_eq!(result, Err(OperationError::Cancelled));
    }
}
