//! Saves checkpoints. When the worker is lost, the next attempt resumes from the newest one.
//!
//! ```sh
//! cargo run -p ktrdr-worker --example checkpoint
//! curl -X POST localhost:8000/api/v1/primes/start -d '{"below": 2000000}'
//! ```

use std::process::ExitCode;

use ktrdr_worker::{Context, Engine, OperationError, Progress};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

struct Primes;

#[derive(Deserialize, JsonSchema)]
struct PrimesRequest {
    below: u64,
}

/// Where a later attempt continues.
#[derive(Serialize, Deserialize, Clone, Copy)]
struct State {
    next: u64,
    found: u64,
}

impl Engine for Primes {
    const NAME: &'static str = "primes";
    type Request = PrimesRequest;
    type Output = u64;

    async fn run(&self, ctx: Context, request: PrimesRequest) -> Result<u64, OperationError> {
        ctx.blocking(move |ctx| count(ctx, request.below)).await
    }
}

fn count(ctx: &Context, below: u64) -> Result<u64, OperationError> {
    let mut state = ctx.last_checkpoint().unwrap_or(State { next: 2, found: 0 });

    while state.next < below {
        // Before the check: one more checkpoint is saved when the engine is asked to stop.
        ctx.checkpoint_with(|| state);
        ctx.check_cancelled()?;
        ctx.progress_with(|| Progress::ratio(state.next, below));

        state.found += u64::from(is_prime(state.next));
        state.next += 1;
    }
    Ok(state.found)
}

fn is_prime(number: u64) -> bool {
    (2..)
        .take_while(|divisor| divisor * divisor <= number)
        .all(|divisor| !number.is_multiple_of(divisor))
}

fn main() -> ExitCode {
    ktrdr_worker::main(Primes)
}

#[cfg(test)]
mod tests {
    use ktrdr_worker::OperationError;
    use ktrdr_worker::testing::TestRun;
    use serde_json::json;

    use super::Primes;

    #[tokio::test]
    async fn a_later_attempt_resumes_from_the_checkpoint() {
        let request = json!({"below": 1000});
        let first = TestRun::new().cancelled_at_checkpoint(500);
        let stopped = first.run(&Primes, request.clone()).await;
        assert_eq!(stopped, Err(OperationError::Cancelled));

        let second = first.next_attempt().saves_checkpoints(u64::MAX);
        let output = second.run(&Primes, request).await.unwrap();

        assert_eq!(output, 168);
        assert!(second.checkpoints() < 600, "it did not start again from 2");
    }
}
