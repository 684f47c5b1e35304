//! Downloads a file. The engine has defaults for time limit and retries, and decides which failures
//! are worth another attempt.
//!
//! ```sh
//! cargo run -p ktrdr-worker --example http_download
//! curl -X POST localhost:8000/api/v1/download/start \
//!     -d '{"url": "http://localhost:8000/openapi.json", "file": "api.json"}'
//! ```

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use ktrdr_worker::{Context, Engine, NamedBy, OperationError};
use reqwest::StatusCode;
use schemars::JsonSchema;
use serde::Deserialize;

struct Download;

#[derive(Deserialize, JsonSchema)]
struct DownloadRequest {
    url: String,
    /// Where to put it in the data directory.
    file: String,
}

impl Engine for Download {
    const NAME: &'static str = "download";
    // A start request can set another value for each of these in `execution`.
    const TIMEOUT: Option<Duration> = Some(Duration::from_secs(300));
    const MAX_ATTEMPTS: Option<u32> = Some(5);
    const RETRY_DELAY: Option<Duration> = Some(Duration::from_secs(2));
    type Request = DownloadRequest;
    type Output = usize;

    async fn run(&self, ctx: Context, request: DownloadRequest) -> Result<usize, OperationError> {
        let output = ctx.output(&request.file, NamedBy::Request, false)?;

        let body = tokio::select! {
            body = fetch(&request.url) => body?,
            () = ctx.cancelled() => return Err(OperationError::Cancelled),
        };

        let len = body.len();
        ctx.blocking(move |_| Ok(output.write(|file| file.write_all(&body))?))
            .await?;
        Ok(len)
    }
}

async fn fetch(url: &str) -> Result<Vec<u8>, OperationError> {
    // No connection, or a broken one: `?` makes this a failure that is retried.
    let response = reqwest::get(url)
        .await
        .context("the server was not reached")?;

    match response.status() {
        StatusCode::TOO_MANY_REQUESTS => Err(OperationError::retry_after(
            "rate_limited",
            format!("{url} limits its rate"),
            Duration::from_secs(60),
        )),
        status if status.is_client_error() => Err(OperationError::permanent(
            "not_available",
            format!("{url} answered {status}"),
        )),
        status if !status.is_success() => {
            Err(OperationError::failed(format!("{url} answered {status}")))
        }
        _ => {
            let body = response.bytes().await.context("the download broke off")?;
            Ok(body.to_vec())
        }
    }
}

fn main() -> ExitCode {
    ktrdr_worker::main(Download)
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::http::StatusCode;
    use axum::routing::get;
    use ktrdr_worker::OperationError;
    use ktrdr_worker::testing::TestRun;
    use serde_json::json;

    use super::Download;

    async fn server() -> String {
        // `reqwest` may have been built with TLS for another crate; then it wants this.
        let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
        let routes = Router::new()
            .route("/file", get(async || "content"))
            .route("/busy", get(async || StatusCode::TOO_MANY_REQUESTS))
            .route("/down", get(async || StatusCode::BAD_GATEWAY));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, routes).await });
        format!("http://{address}")
    }

    #[tokio::test]
    async fn stores_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("{}/file", server().await);

        let run = TestRun::in_dir(&dir);
        let bytes = run.run(&Download, json!({"url": url, "file": "a"})).await;

        assert_eq!(bytes.unwrap(), 7);
        let stored = std::fs::read_to_string(dir.path().join("a")).unwrap();
        assert_eq!(stored, "content");
    }

    #[tokio::test]
    async fn failures_differ_in_whether_they_are_retried() {
        let server = server().await;
        let error = async |path: &str| {
            let request = json!({"url": format!("{server}{path}"), "file": "a"});
            TestRun::new().run(&Download, request).await.unwrap_err()
        };

        assert!(matches!(
            error("/busy").await,
            OperationError::RetryAfter { .. }
        ));
        assert!(matches!(
            error("/down").await,
            OperationError::Failed { .. }
        ));
        assert!(matches!(
            error("/gone").await,
            OperationError::Permanent { .. }
        ));
    }
}
