//! The worker's own REST interface (the guide's WorkerAPIBase): health, the operations that this
//! worker has run, and direct starts.

mod answers;
mod openapi;
mod operations;
mod prometheus;
mod start;

use std::sync::Arc;

use axum::extract::FromRef;
use axum::http::Uri;
use axum::{Extension, Router, middleware};
use ktrdr_http::answer::AnswerBudget;
use ktrdr_http::body::BodyBudget;
use ktrdr_http::error::ApiError;
use ktrdr_http::schema::Schema;
use ktrdr_http::server::{self, Connections};
use ktrdr_http::tls::Tls;
use ktrdr_http::tokens::{Access, Scope, Tokens};
use ktrdr_protocol::rest::summary::Summary;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_http::catch_panic::CatchPanicLayer;

use self::openapi::{Routes, docs};
use crate::pulling::puller::SlotRequests;
use crate::worker::config::RestRoutes;
use crate::worker::core::Core;

/// Bytes of large answers that may be on their way to clients at a time.
const MAX_ANSWERS: usize = 32 * 1024 * 1024;

/// Bytes of request bodies that may be in memory at a time.
const MAX_BODIES: usize = 32 * 1024 * 1024;

/// The state that the handlers share.
#[derive(Clone)]
pub(crate) struct HttpState {
    pub(crate) core: Arc<Core>,
    pub(crate) slots: SlotRequests,
    pub(crate) operations: TaskTracker,
    tokens: Tokens,
    answers: AnswerBudget,
    bodies: BodyBudget,
    /// How its operations are summarised.
    summary: Arc<Summary>,
}

impl FromRef<HttpState> for BodyBudget {
    fn from_ref(state: &HttpState) -> Self {
        state.bodies.clone()
    }
}

impl HttpState {
    /// The compiled request schema.
    ///
    /// # Errors
    /// 503 `schema_unusable`. The worker compiled it when it started, so this time it took too long.
    async fn schema(&self) -> Result<Schema, ApiError> {
        self.core
            .compiled_schema()
            .await
            .map_err(|reason| ApiError::schema_unusable(self.core.worker_type.as_str(), &reason))
    }
}

const READ: Access = Access::Needs(Scope::Read);
const START: Access = Access::Needs(Scope::Start);
const CANCEL: Access = Access::Needs(Scope::Cancel);
const METRICS: Access = Access::Needs(Scope::Metrics);

/// Probes ask here, without a token or with any.
const HEALTH: &str = "/health";

/// The routes of one worker.
pub(crate) fn router(
    core: Arc<Core>,
    slots: SlotRequests,
    operations: TaskTracker,
    tokens: Tokens,
) -> Router {
    let start_path = format!("/{}/start", core.info.domain);
    let served = core.routes;
    let summary = Summary::of_schema(&core.info.request_schema);
    let state = HttpState {
        core,
        slots,
        operations,
        tokens,
        answers: AnswerBudget::new(MAX_ANSWERS),
        bodies: BodyBudget::new(MAX_BODIES),
        summary: Arc::new(summary),
    };

    let health = Routes::new(state.tokens.clone())
        .get(HEALTH, Access::Open, operations::health, docs::HEALTH)
        .get("/metrics", METRICS, prometheus::show, docs::PROMETHEUS)
        .get(openapi::PATH, READ, openapi::show, docs::OPENAPI);
    let routes = match served {
        RestRoutes::Full => with_operations(health, start_path),
        RestRoutes::Health => health,
    };

    let (routes, table) = routes.into_parts();
    routes
        .layer(Extension(Arc::new(table)))
        .fallback(async move |uri: Uri| answers::unknown_route(&uri, served))
        .method_not_allowed_fallback(answers::method_not_allowed)
        .layer(middleware::from_fn_with_state(
            state.clone(),
            answers::hide_from_others,
        ))
        .layer(middleware::from_fn(answers::log_internal_error))
        .layer(CatchPanicLayer::custom(answers::panicked))
        .with_state(state)
}

/// Adds everything that is about operations.
fn with_operations(routes: Routes, start_path: String) -> Routes {
    routes
        .get(
            "/api/v1/operations",
            READ,
            operations::list,
            docs::LIST_OPERATIONS,
        )
        .get(
            "/api/v1/operations/{id}",
            READ,
            operations::get,
            docs::GET_OPERATION,
        )
        .delete(
            "/api/v1/operations/{id}",
            CANCEL,
            operations::cancel,
            docs::DELETE_OPERATION,
        )
        .get(
            "/api/v1/operations/{id}/metrics",
            READ,
            operations::metrics,
            docs::OPERATION_METRICS,
        )
        .delete(
            "/api/v1/operations/{id}/cancel",
            CANCEL,
            operations::cancel,
            docs::CANCEL_OPERATION,
        )
        .post(start_path, START, start::start, docs::START_OPERATION)
}

/// Serves `router` until `stop` is cancelled and open requests have been answered.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    tls: Option<Tls>,
    stop: CancellationToken,
) {
    let connections = Connections::for_this_process();
    server::serve(listener, router, &connections, tls, stop).await;
}
