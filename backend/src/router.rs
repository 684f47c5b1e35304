//! Every route and layer on one screen.

use std::sync::Arc;

use axum::{Extension, Router};
use ktrdr_http::tokens::{Access, Scope};

use crate::middleware::served::Served;
use crate::openapi::docs;
use crate::openapi::routes::Routes;
use crate::routes::{
    api_docs, cancel, dashboard, events, fallback, health, history, metrics, operations,
    prometheus, results, retry, start, stats, worker_types, workers,
};
use crate::state::AppState;

const READ: Access = Access::Needs(Scope::Read);
const START: Access = Access::Needs(Scope::Start);
const CANCEL: Access = Access::Needs(Scope::Cancel);
const METRICS: Access = Access::Needs(Scope::Metrics);

/// The whole REST interface.
pub fn router(state: AppState) -> Router {
    let (open, mut table) = Routes::always(&state.requests)
        .get("/", Access::Open, dashboard::index, docs::DASHBOARD)
        .get(
            "/dashboard/{file}",
            Access::Open,
            dashboard::file,
            docs::DASHBOARD_FILE,
        )
        .get("/docs", Access::Open, api_docs::index, docs::DOCS)
        .get(
            "/docs/{file}",
            Access::Open,
            api_docs::file,
            docs::DOCS_FILE,
        )
        .get("/openapi.json", READ, api_docs::openapi, docs::OPENAPI)
        .get("/health", Access::Open, health::health, docs::HEALTH)
        .get("/ready", Access::Open, health::ready, docs::READY)
        .get("/metrics", METRICS, prometheus::show, docs::PROMETHEUS)
        .into_parts();
    let (api, described) = Routes::needing_projection(&state.requests)
        .get(
            "/api/v1/operations",
            READ,
            operations::list,
            docs::LIST_OPERATIONS,
        )
        .get(
            "/api/v1/operations/{id}",
            READ,
            operations::show,
            docs::GET_OPERATION,
        )
        .delete(
            "/api/v1/operations/{id}",
            CANCEL,
            cancel::cancel,
            docs::DELETE_OPERATION,
        )
        .delete(
            "/api/v1/operations/{id}/cancel",
            CANCEL,
            cancel::cancel,
            docs::CANCEL_OPERATION,
        )
        .get(
            "/api/v1/operations/{id}/results",
            READ,
            results::show,
            docs::RESULTS,
        )
        .get(
            "/api/v1/operations/{id}/metrics",
            READ,
            metrics::show,
            docs::OPERATION_METRICS,
        )
        .get(
            "/api/v1/operations/{id}/history",
            READ,
            history::show,
            docs::HISTORY,
        )
        .get(
            "/api/v1/operations/{id}/events",
            READ,
            events::one,
            docs::OPERATION_EVENTS,
        )
        .get("/api/v1/events", READ, events::all, docs::ALL_EVENTS)
        .get("/api/v1/stats", READ, stats::show, docs::STATS)
        .post(
            "/api/v1/operations/{id}/retry",
            START,
            retry::retry,
            docs::RETRY,
        )
        .post(
            "/api/v1/operations/{id}/resume",
            START,
            retry::resume,
            docs::RESUME,
        )
        .get("/api/v1/workers", READ, workers::list, docs::LIST_WORKERS)
        .get(
            "/api/v1/workers/{id}",
            READ,
            workers::show,
            docs::GET_WORKER,
        )
        .get(
            "/api/v1/worker-types",
            READ,
            worker_types::list,
            docs::WORKER_TYPES,
        )
        .post(
            "/api/v1/{domain}/start",
            START,
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
