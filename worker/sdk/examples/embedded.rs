//! A worker inside a program that has a tokio runtime and an axum router of its own.
//!
//! ```sh
//! cargo run -p ktrdr-worker --example embedded      # stops on Ctrl-C
//! curl localhost:7000/hello localhost:7000/worker/health
//! ```

use anyhow::Result;
use axum::Router;
use axum::routing::get;
use ktrdr_worker::{Config, Context, Engine, OperationError, Worker};
use tokio::net::TcpListener;

struct Echo;

impl Engine for Echo {
    const NAME: &'static str = "echo";
    type Request = serde_json::Map<String, serde_json::Value>;
    type Output = Self::Request;

    async fn run(
        &self,
        _: Context,
        request: Self::Request,
    ) -> Result<Self::Output, OperationError> {
        Ok(request)
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let config = Config {
        worker_id: Some("echo-inside".parse()?),
        ..Config::from_env()?
    };
    let mut worker = Worker::builder()
        .engine(Echo)
        .config(config)
        .mounted_at("http://localhost:7000/worker")
        .start()
        .await?;

    let listener = TcpListener::bind("127.0.0.1:7000").await?;
    axum::serve(listener, app(&worker))
        .with_graceful_shutdown(async {
            let _ = tokio::signal::ctrl_c().await;
        })
        .await?;

    worker.stop().await?;
    Ok(())
}

fn app(worker: &Worker) -> Router {
    Router::new()
        .route("/hello", get(async || "hello"))
        .nest("/worker", worker.router())
}
