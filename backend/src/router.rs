//! Every route and layer on one screen.

use std::sync::Arc;

use axum::{Extension, Router};

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
        .get("/", dashboard::index, docs::DASHBOARD)
        .get("/dashboard/{file}", dashboard::file, docs::DASHBOARD_FILE)
        .get("/docs", api_docs::index, docs::DOCS)
        .get("/docs/{file}", api_docs::file, docs::DOCS_FILE)
        .get("/openapi.json", api_docs::openapi, docs::OPENAPI)
        .get("/health", health::health, docs::HEALTH)
        .get("/ready", health::ready, docs::READY)
        .get("/metrics", prometheus::show, docs::PROMETHEUS)
        .into_parts();
    let (api, described) = Routes::needing_projection(&state.requests)
        .get(
            "/api/v1/operations",
            operations::list,
            docs::LIST_OPERATIONS,
        )
        .get(
            "/api/v1/operations/{id}",
            operations::show,
            docs::GET_OPERATION,
        )
        .delete(
            "/api/v1/operations/{id}",
            cancel::cancel,
            docs::DELETE_OPERATION,
        )
        .delete(
            "/api/v1/operations/{id}/cancel",
            cancel::cancel,
            docs::CANCEL_OPERATION,
        )
        .get(
            "/api/v1/operations/{id}/results",
            results::show,
            docs::RESULTS,
        )
        .get(
            "/api/v1/operations/{id}/metrics",
            metrics::show,
            docs::OPERATION_METRICS,
        )
        .get(
            "/api/v1/operations/{id}/history",
            history::show,
            docs::HISTORY,
        )
        .get(
            "/api/v1/operations/{id}/events",
            events::one,
            docs::OPERATION_EVENTS,
        )
        .get("/api/v1/events", events::all, docs::ALL_EVENTS)
        .get("/api/v1/stats", stats::show, docs::STATS)
        .post("/api/v1/operations/{id}/retry", retry::retry, docs::RETRY)
        .post(
            "/api/v1/operations/{id}/resume",
            retry::resume,
            docs::RESUME,
        )
        .get("/api/v1/workers", workers::list, docs::LIST_WORKERS)
        .get("/api/v1/workers/{id}", workers::show, docs::GET_WORKER)
        .get(
            "/api/v1/worker-types",
            worker_types::list,
            docs::WORKER_TYPES,
        )
        .post(
            "/api/v1/{domain}/start",
            start::start,
            docs::START_OPERATION,
        )
        .into_parts();
    table.extend(described);
    open.layer(Extension(Arc::new(table)))
        .merge(api)
        .fallback(Served::unmatched(fallback::unknown_route))
        .method_not_allowed_fallback(Served::unmatched(fallback::method_not_allowed))
        .with_state(state)
}
