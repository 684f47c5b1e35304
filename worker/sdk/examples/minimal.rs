//! The least that an engine needs: a name, a request, a result, and `run`.
//!
//! ```sh
//! cargo run -p ktrdr-worker --example minimal
//! curl -X POST localhost:8000/api/v1/square/start -d '{"number": 7}'
//! ```

use std::process::ExitCode;

use ktrdr_worker::{Context, Engine, OperationError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

struct Square;

#[derive(Deserialize, JsonSchema)]
struct SquareRequest {
    number: i32,
}

#[derive(Serialize, JsonSchema)]
struct SquareOutput {
    square: i64,
}

impl Engine for Square {
    const NAME: &'static str = "square";
    type Request = SquareRequest;
    type Output = SquareOutput;

    async fn run(
        &self,
        _: Context,
        request: SquareRequest,
    ) -> Result<SquareOutput, OperationError> {
        Ok(SquareOutput {
            square: i64::from(request.number).pow(2),
        })
    }
}

fn main() -> ExitCode {
    ktrdr_worker::main(Square)
}

#[cfg(test)]
mod tests {
    use ktrdr_worker::testing::TestRun;
    use serde_json::json;

    #[tokio::test]
    async fn squares_a_number() {
        let output = TestRun::new()
            .run(&super::Square, json!({"number": 7}))
            .await
            .unwrap();

        assert_eq!(output.square, 49);
    }
}
