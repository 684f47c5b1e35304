//! The worker's own REST interface (the guide's WorkerAPIBase): health, the operations this worker has run, a direct start.

mod answers;
mod operations;
mod prometheus;
mod start;

use std::future::IntoFuture;
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::routing::{delete, get, post};
use ktrdr_http::schema::Schema;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::CorsLayer;

pub(crate) use self::prometheus::attempts;
use crate::pulling::puller::SlotRequests;
use crate::worker::core::Core;

/// What handlers work with.
#[derive(Clone)]
pub(crate) struct HttpState {
    pub(crate) core: Arc<Core>,
    pub(crate) slots: SlotRequests,
    pub(crate) operations: TaskTracker,
    schema: Arc<OnceLock<Option<Schema>>>,
}

impl HttpState {
    /// The request schema. Prepared when the first start comes: most workers only ever take requests from the queue, and
    /// the memory that it costs is a tenth of an idle worker's.
    fn schema(&self) -> Option<&Schema> {
        let prepare = || {
            Schema::compile(&self.core.info.request_schema)
                .map_err(|error| {
                    tracing::error!(%error, "the request schema cannot be used; direct starts are not checked");
                })
                .ok()
        };
        self.schema.get_or_init(prepare).as_ref()
    }
}

/// Serves until `stop`.
///
/// # Errors
/// When the listener fails.
pub(crate) async fn serve(
    core: Arc<Core>,
    slots: SlotRequests,
    operations: TaskTracker,
    listener: TcpListener,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let start_path = format!("/{}/start", core.info.domain);
    let state = HttpState {
        core,
        slots,
        operations,
        schema: Arc::default(),
    };
    let router = Router::new()
        .route("/health", get(operations::health))
        .route("/metrics", get(prometheus::show))
        .route("/api/v1/operations", get(operations::list))
        .route(
            "/api/v1/operations/{id}",
            get(operations::get).delete(operations::cancel),
        )
        .route("/api/v1/operations/{id}/metrics", get(operations::metrics))
        .route("/api/v1/operations/{id}/cancel", delete(operations::cancel))
        .route(&start_path, post(start::start))
        .fallback(answers::not_found)
        .method_not_allowed_fallback(answers::wrong_method)
        .layer(CatchPanicLayer::custom(answers::panicked))
        .layer(CorsLayer::permissive())
        .with_state(state);
    axum::serve(listener, router)
        .with_graceful_shutdown(stop.cancelled_owned())
        .into_future()
        .await
}
