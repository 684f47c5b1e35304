//! Every route and layer on one screen.

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{delete, get, post};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{Any, CorsLayer};

use crate::middleware::{loaded, log_request, panic, request_id};
use crate::routes::{
    cancel, dashboard, events, fallback, health, history, metrics, operations, results, retry, start, stats,
    worker_types, workers,
};
use crate::state::AppState;

/// The whole REST interface.
pub fn router(state: AppState) -> Router {
    let api = Router::new()
        .route("/api/v1/operations", get(operations::list))
        .route("/api/v1/operations/{id}", get(operations::show).delete(cancel::cancel))
        .route("/api/v1/operations/{id}/cancel", delete(cancel::cancel))
        .route("/api/v1/operations/{id}/results", get(results::show))
        .route("/api/v1/operations/{id}/metrics", get(metrics::show))
        .route("/api/v1/operations/{id}/history", get(history::show))
        .route("/api/v1/operations/{id}/events", get(events::one))
        .route("/api/v1/events", get(events::all))
        .route("/api/v1/stats", get(stats::show))
        .route("/api/v1/operations/{id}/retry", post(retry::retry))
        .route("/api/v1/operations/{id}/resume", post(retry::resume))
        .route("/api/v1/workers", get(workers::list))
        .route("/api/v1/workers/{id}", get(workers::show))
        .route("/api/v1/worker-types", get(worker_types::list))
        .route("/api/v1/{domain}/start", post(start::start))
        // Matched routes only: what does not exist is said to be unknown at once.
        .route_layer(from_fn_with_state(state.clone(), loaded::layer));
    Router::new()
        .route("/", get(dashboard::index))
        .route("/dashboard/{file}", get(dashboard::file))
        .route("/health", get(health::health))
        .route("/ready", get(health::ready))
        .merge(api)
        .fallback(fallback::unknown_route)
        .method_not_allowed_fallback(fallback::method_not_allowed)
        // From the inside out: what comes later sees the request earlier.
        .layer(DefaultBodyLimit::max(state.config.max_body))
        .layer(CatchPanicLayer::custom(panic::answer))
        .layer(CorsLayer::permissive().expose_headers(Any))
        .layer(from_fn(log_request::layer))
        .layer(from_fn(request_id::layer))
        .with_state(state)
}
