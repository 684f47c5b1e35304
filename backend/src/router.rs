//! Every route and layer on one screen.

use std::sync::Arc;

use axum::{Extension, Router};
use ktrdr_http::tokens::{Access, Scope};

use crate::middleware::served::Served;
use crate::openapi::docs;
use crate::openapi::documents::Documents;
use crate::openapi::routes::Routes;
use crate::routes::{
    api_docs, by_filter, cancel, checkpoint, dashboard, events, fallback, health, history, logs,
    metrics, operations, priority, prometheus, queues, results, retry, schedules, start,
    start_many, stats, worker_types, workers,
};
use crate::state::AppState;

const READ: Access = Access::Needs(Scope::Read);
const START: Access = Access::Needs(Scope::Start);
const CANCEL: Access = Access::Needs(Scope::Cancel);
const METRICS: Access = Access::Needs(Scope::Metrics);
const ADMIN: Access = Access::Needs(Scope::Admin);

/// The whole REST interface.
pub fn router(state: AppState) -> Router {
    let (open, mut table) = Routes::always(&state.requests)
        .get("/", Access::Open, dashboard::index, docs::DASHBOARD)
        .files("/dashboard/{file}", dashboard::file)
        .get("/docs", Access::Open, api_docs::index, docs::DOCS)
        .files("/docs/{file}", api_docs::file)
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
        .patch(
            "/api/v1/operations/{id}",
            START,
            priority::change,
            docs::CHANGE_OPERATION,
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
        .get("/api/v1/operations/{id}/logs", READ, logs::show, docs::LOGS)
        .get(
            "/api/v1/operations/{id}/history",
            READ,
            history::show,
            docs::HISTORY,
        )
        .get(
            "/api/v1/operations/{id}/checkpoint",
            READ,
            checkpoint::show,
            docs::CHECKPOINT,
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
            "/api/v1/operations/cancel",
            CANCEL,
            by_filter::cancel,
            docs::CANCEL_BY_FILTER,
        )
        .post(
            "/api/v1/operations/retry",
            START,
            by_filter::retry,
            docs::RETRY_BY_FILTER,
        )
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
        .post(
            "/api/v1/workers/{id}/drain",
            ADMIN,
            workers::drain,
            docs::DRAIN_WORKER,
        )
        .post(
            "/api/v1/workers/{id}/undrain",
            ADMIN,
            workers::undrain,
            docs::UNDRAIN_WORKER,
        )
        .get(
            "/api/v1/schedules",
            READ,
            schedules::list,
            docs::LIST_SCHEDULES,
        )
        .get(
            "/api/v1/schedules/{id}",
            READ,
            schedules::show,
            docs::GET_SCHEDULE,
        )
        .put(
            "/api/v1/schedules/{id}",
            START,
            schedules::put,
            docs::PUT_SCHEDULE,
        )
        .delete(
            "/api/v1/schedules/{id}",
            START,
            schedules::delete,
            docs::DELETE_SCHEDULE,
        )
        .post(
            "/api/v1/schedules/{id}/pause",
            START,
            schedules::pause,
            docs::PAUSE_SCHEDULE,
        )
        .post(
            "/api/v1/schedules/{id}/resume",
            START,
            schedules::resume,
            docs::RESUME_SCHEDULE,
        )
        .post(
            "/api/v1/schedules/{id}/run",
            START,
            schedules::run,
            docs::RUN_SCHEDULE,
        )
        .get("/api/v1/queues", READ, queues::list, docs::LIST_QUEUES)
        .post(
            "/api/v1/queues/{worker_type}/pause",
            ADMIN,
            queues::pause,
            docs::PAUSE_QUEUES,
        )
        .post(
            "/api/v1/queues/{worker_type}/resume",
            ADMIN,
            queues::resume,
            docs::RESUME_QUEUES,
        )
        .get(
            "/api/v1/worker-types",
            READ,
            worker_types::list,
            docs::WORKER_TYPES,
        )
        .delete(
            "/api/v1/worker-types/{type}",
            ADMIN,
            worker_types::forget,
            docs::FORGET_WORKER_TYPE,
        )
        .post(
            "/api/v1/{domain}/start",
            START,
            start::start,
            docs::START_OPERATION,
        )
        .post(
            "/api/v1/{domain}/start-many",
            START,
            start_many::start_many,
            docs::START_MANY,
        )
        .into_parts();
    table.extend(described);
    let documents = Documents::new(table, state.tokens.are_needed());
    open.layer(Extension(Arc::new(documents)))
        .merge(api)
        .fallback(Served::unmatched(fallback::unknown_route))
        .method_not_allowed_fallback(Served::unmatched(fallback::method_not_allowed))
        .with_state(state)
}
