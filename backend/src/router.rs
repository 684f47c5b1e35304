//! Every route and layer on one screen.

use std::sync::Arc;

use axum::handler::Handler;
use axum::{Extension, Router};
use tower_http::cors::CorsLayer;

use crate::middleware::served::Served;
use crate::openapi::docs;
use crate::openapi::routes::Routes;
use crate::routes::{
    api_docs, cancel, dashboard, events, fallback, health, history, metrics, operations,
    prometheus, results, retry, start, stats, worker_types, workers,
};
use crate::state::AppState;

/// The whole REST interface.
pub fn router(state: AppState) -> Router {
    let (open, mut table) = Routes::always(&state.requests)
        .get("/", dashboard::index, docs::dashboard)
        .get("/dashboard/{file}", dashboard::file, docs::dashboard_file)
        .get("/docs", api_docs::index, docs::docs)
        .get("/docs/{file}", api_docs::file, docs::docs_file)
        .get("/openapi.json", api_docs::openapi, docs::openapi)
        .get("/health", health::health, docs::health)
        .get("/ready", health::ready, docs::ready)
        .get("/metrics", prometheus::show, docs::prometheus)
        .into_parts();
    let (api, described) = Routes::needing_nats(&state.requests)
        .get(
            "/api/v1/operations",
            operations::list,
            docs::list_operations,
        )
        .get(
            "/api/v1/operations/{id}",
            operations::show,
            docs::show_operation,
        )
        .delete(
            "/api/v1/operations/{id}",
            cancel::cancel,
            docs::delete_operation,
        )
        .delete(
            "/api/v1/operations/{id}/cancel",
            cancel::cancel,
            docs::cancel_operation,
        )
        .get(
            "/api/v1/operations/{id}/results",
            results::show,
            docs::results,
        )
        .get(
            "/api/v1/operations/{id}/metrics",
            metrics::show,
            docs::operation_metrics,
        )
        .get(
            "/api/v1/operations/{id}/history",
            history::show,
            docs::history,
        )
        .get(
            "/api/v1/operations/{id}/events",
            events::one,
            docs::operation_events,
        )
        .get("/api/v1/events", events::all, docs::all_events)
        .get("/api/v1/stats", stats::show, docs::stats)
        .post("/api/v1/operations/{id}/retry", retry::retry, docs::retry)
        .post(
            "/api/v1/operations/{id}/resume",
            retry::resume,
            docs::resume,
        )
        .get("/api/v1/workers", workers::list, docs::list_workers)
        .get("/api/v1/workers/{id}", workers::show, docs::show_worker)
        .get(
            "/api/v1/worker-types",
            worker_types::list,
            docs::worker_types,
        )
        .post("/api/v1/{domain}/start", start::start, docs::start)
        .into_parts();
    table.extend(described);
    // A browser asks with OPTIONS what it may do from another origin; no route takes that method.
    let preflight = CorsLayer::permissive().vary([]);
    open.layer(Extension(Arc::new(table)))
        .merge(api)
        .fallback(Served::stray(
            fallback::unknown_route.layer(preflight.clone()),
        ))
        .method_not_allowed_fallback(Served::stray(fallback::method_not_allowed.layer(preflight)))
        .with_state(state)
}
