//! Every route and layer on one screen.

use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::{Extension, Router};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{Any, CorsLayer};

use crate::middleware::{loaded, log_request, measure, panic, request_id};
use crate::openapi::docs;
use crate::openapi::routes::Routes;
use crate::routes::{
    api_docs, cancel, dashboard, events, fallback, health, history, metrics, operations, prometheus, results, retry,
    start, stats, worker_types, workers,
};
use crate::state::AppState;

/// The whole REST interface.
pub fn router(state: AppState) -> Router {
    let (open, mut table) = Routes::always()
        .get("/", dashboard::index, docs::dashboard)
        .get("/dashboard/{file}", dashboard::file, docs::dashboard_file)
        .get("/docs", api_docs::index, docs::docs)
        .get("/docs/{file}", api_docs::file, docs::docs_file)
        .get("/openapi.json", api_docs::openapi, docs::openapi)
        .get("/health", health::health, docs::health)
        .get("/ready", health::ready, docs::ready)
        .get("/metrics", prometheus::show, docs::prometheus)
        .into_parts();
    let (api, described) = Routes::needing_nats()
        .get("/api/v1/operations", operations::list, docs::list_operations)
        .get("/api/v1/operations/{id}", operations::show, docs::show_operation)
        .delete("/api/v1/operations/{id}", cancel::cancel, docs::delete_operation)
        .delete("/api/v1/operations/{id}/cancel", cancel::cancel, docs::cancel_operation)
        .get("/api/v1/operations/{id}/results", results::show, docs::results)
        .get("/api/v1/operations/{id}/metrics", metrics::show, docs::operation_metrics)
        .get("/api/v1/operations/{id}/history", history::show, docs::history)
        .get("/api/v1/operations/{id}/events", events::one, docs::operation_events)
        .get("/api/v1/events", events::all, docs::all_events)
        .get("/api/v1/stats", stats::show, docs::stats)
        .post("/api/v1/operations/{id}/retry", retry::retry, docs::retry)
        .post("/api/v1/operations/{id}/resume", retry::resume, docs::resume)
        .get("/api/v1/workers", workers::list, docs::list_workers)
        .get("/api/v1/workers/{id}", workers::show, docs::show_worker)
        .get("/api/v1/worker-types", worker_types::list, docs::worker_types)
        .post("/api/v1/{domain}/start", start::start, docs::start)
        .into_parts();
    table.extend(described);
    // Matched routes only: what does not exist is said to be unknown at once.
    let api = api.route_layer(from_fn_with_state(state.clone(), loaded::layer));
    open.merge(api)
        .fallback(fallback::unknown_route)
        .method_not_allowed_fallback(fallback::method_not_allowed)
        // From the inside out: what comes later sees the request earlier.
        .layer(Extension(Arc::new(table)))
        .layer(DefaultBodyLimit::max(state.config.max_body))
        .layer(CatchPanicLayer::custom(panic::answer))
        .layer(CorsLayer::permissive().expose_headers(Any))
        .layer(from_fn_with_state(state.clone(), measure::layer))
        .layer(from_fn(log_request::layer))
        .layer(from_fn(request_id::layer))
        .with_state(state)
}
