//! Reports progress and metric points, and stops when it is asked to.
//!
//! ```sh
//! cargo run -p ktrdr-worker --example progress_and_cancel
//! curl -X POST localhost:8000/api/v1/countdown/start -d '{"seconds": 60, "task_id": "c1"}'
//! curl -X DELETE localhost:8000/api/v1/operations/c1
//! ```

use std::process::ExitCode;
use std::time::Duration;

use ktrdr_worker::{Context, Engine, OperationError, Progress};
use schemars::JsonSchema;
use serde::Deserialize;

struct Countdown;

#[derive(Deserialize, JsonSchema)]
struct CountdownRequest {
    seconds: u64,
}

impl Engine for Countdown {
    const NAME: &'static str = "countdown";
    type Request = CountdownRequest;
    type Output = u64;

    async fn run(&self, ctx: Context, request: CountdownRequest) -> Result<u64, OperationError> {
        for second in 0..request.seconds {
            let left = request.seconds - second;
            ctx.progress(
                Progress::ratio(second, request.seconds).step(format!("{left} seconds left")),
            );
            ctx.metric("seconds_left", left as f64);

            tokio::select! {
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
                () = ctx.cancelled() => return Err(OperationError::Cancelled),
            }
        }
        Ok(request.seconds)
    }
}

fn main() -> ExitCode {
    ktrdr_worker::main(Countdown)
}

#[cfg(test)]
mod tests {
    use ktrdr_worker::OperationError;
    use ktrdr_worker::testing::TestRun;
    use serde_json::json;

    use super::Countdown;

    #[tokio::test(start_paused = true)]
    async fn reports_progress_every_second() {
        let run = TestRun::new();

        let output = run.run(&Countdown, json!({"seconds": 4})).await.unwrap();

        assert_eq!(output, 4);
        assert_eq!(run.progress().percentage, 75.0);
        assert_eq!(run.metrics().len(), 4);
    }

    #[tokio::test]
    async fn stops_when_it_is_asked_to() {
        let run = TestRun::new();
        run.cancel();

        let result = run.run(&Countdown, json!({"seconds": 3600})).await;

        assert_eq!(result, Err(OperationError::Cancelled));
    }
}
