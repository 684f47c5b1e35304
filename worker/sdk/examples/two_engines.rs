//! Two worker types in one process. Each engine is a full worker; they share the connection to NATS
//! and one HTTP listener.
//!
//! ```sh
//! WORKER_PORT=5010 cargo run -p ktrdr-worker --example two_engines
//! curl -X POST localhost:8000/api/v1/upper/start -d '{"text": "abc"}'
//! curl localhost:5010/upper/health localhost:5010/reverse/health
//! ```

use std::process::ExitCode;

use ktrdr_worker::{Context, Engine, OperationError, Worker};
use schemars::JsonSchema;
use serde::Deserialize;

#[derive(Deserialize, JsonSchema)]
struct TextRequest {
    text: String,
}

struct Upper;

impl Engine for Upper {
    const NAME: &'static str = "upper";
    type Request = TextRequest;
    type Output = String;

    async fn run(&self, _: Context, request: TextRequest) -> Result<String, OperationError> {
        Ok(request.text.to_uppercase())
    }
}

struct Reverse;

impl Engine for Reverse {
    const NAME: &'static str = "reverse";
    type Request = TextRequest;
    type Output = String;

    async fn run(&self, _: Context, request: TextRequest) -> Result<String, OperationError> {
        Ok(request.text.chars().rev().collect())
    }
}

fn main() -> ExitCode {
    Worker::builder().engine(Upper).engine(Reverse).run()
}

#[cfg(test)]
mod tests {
    use ktrdr_worker::testing::TestRun;
    use serde_json::json;

    #[tokio::test]
    async fn each_engine_is_tested_alone() {
        let (run, request) = (TestRun::new(), json!({"text": "abc"}));

        assert_eq!(
            run.run(&super::Upper, request.clone()).await.unwrap(),
            "ABC"
        );
        assert_eq!(run.run(&super::Reverse, request).await.unwrap(), "cba");
    }
}
