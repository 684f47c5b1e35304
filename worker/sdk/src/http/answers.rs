//! Answers to requests that match no route or whose handler panicked, and the log line of an
//! internal error.

use std::any::Any;

use axum::extract::{Request, State};
use axum::http::{Method, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use ktrdr_http::error::{ApiError, Cause};
use ktrdr_http::tokens::Access;
use ktrdr_protocol::rest::ErrorCode;

use super::{HEALTH, HttpState};
use crate::worker::config::RestRoutes;

pub(crate) fn unknown_route(uri: &Uri, served: RestRoutes) -> ApiError {
    let hint = match served {
        RestRoutes::Full => "GET /openapi.json lists the routes",
        RestRoutes::Health => {
            "this worker serves only /health, /metrics and /openapi.json (WORKER_HTTP=health); ask a backend about operations"
        }
    };
    let text = format!("There is nothing at {}; {hint}", uri.path());
    ApiError::new(ErrorCode::UnknownRoute, text)
}

pub(crate) async fn method_not_allowed(method: Method, uri: Uri) -> ApiError {
    let text = format!("{} does not take {method}", uri.path());
    ApiError::new(ErrorCode::MethodNotAllowed, text)
}

/// Answers requests whose token does not see the worker type of this worker as if nothing was
/// served here, except to probes.
pub(super) async fn hide_from_others(
    State(state): State<HttpState>,
    request: Request,
    next: Next,
) -> Response {
    // For an open route, so that it refuses nobody: the route itself checks the scope.
    let found = state.tokens.check(request.headers(), Access::Open);
    let is_hidden = found.is_ok_and(|principal| {
        principal.name().is_some() && !principal.sees(state.core.worker_type.as_str())
    });

    if is_hidden && request.uri().path() != HEALTH {
        return unknown_route(request.uri(), state.core.routes).into_response();
    }
    next.run(request).await
}

pub(crate) fn panicked(_: Box<dyn Any + Send>) -> Response {
    ApiError::new(
        ErrorCode::Internal,
        "Internal error; the worker's log has the cause",
    )
    .into_response()
}

/// Logs the cause of an internal error: the client does not see it.
pub(crate) async fn log_internal_error(request: Request, next: Next) -> Response {
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let response = next.run(request).await;

    if let Some(Cause(cause)) = response.extensions().get::<Cause>() {
        tracing::error!(%method, path = uri.path(), cause, "internal error");
    }
    response
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;

    use axum::routing::get;
    use axum::{Router, middleware};
    use parking_lot::Mutex;
    use tokio::net::TcpListener;

    use super::*;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
            self.0.lock().write(text)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn the_cause_of_an_internal_error_is_logged_and_not_sent() {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .finish();
        // For this thread, on which the server's task runs, too.
        let _guard = tracing::subscriber::set_default(subscriber);
        let router = Router::new()
            .route("/faulty", get(async || ApiError::internal("wrong wiring")))
            .layer(middleware::from_fn(log_internal_error));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async { axum::serve(listener, router).await });

        // `reqwest` may have been built with TLS for another crate; then it wants this.
        let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
        let response = reqwest::get(format!("http://{address}/faulty"))
            .await
            .unwrap();

        assert_eq!(response.status().as_u16(), 500);
        assert!(!response.text().await.unwrap().contains("wrong wiring"));
        let log = String::from_utf8(log.0.lock().clone()).unwrap();
        assert!(
            log.contains("/faulty") && log.contains("wrong wiring"),
            "{log}"
        );
    }
}
