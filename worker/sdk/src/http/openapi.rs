//! `GET /openapi.json` of a worker, and the router that takes a route only together with its
//! description and with what a request must bring.

use std::borrow::Cow;
use std::sync::Arc;

use axum::extract::{MatchedPath, State};
use axum::handler::Handler;
use axum::routing::{MethodRouter, delete, get, post};
use axum::{Extension, Json, Router, middleware};
use ktrdr_http::openapi::{DescribeHandler, Doc, Interface, OpenApiDocument, Route, StartRoute};
use ktrdr_http::query;
use ktrdr_http::tokens::{self, Access, Tokens};
use ktrdr_protocol::schema_text::SchemaText;

use super::HttpState;
use crate::worker::config::RestRoutes;

/// Descriptions of the routes: operation ids, summaries, error codes.
pub(super) mod docs {
    use ktrdr_http::openapi::Doc;
    use ktrdr_protocol::rest::ErrorCode;

    const OPERATIONS: &str = "Operations";
    const SYSTEM: &str = "System";

    pub(in super::super) const TAGS: [(&str, &str); 2] = [
        (
            OPERATIONS,
            "Operations that this worker has run since its process started.",
        ),
        (SYSTEM, "Health, Prometheus metrics, this document."),
    ];

    /// The tags of a worker that serves only its health.
    pub(in super::super) const HEALTH_TAGS: [(&str, &str); 1] = [TAGS[1]];

    pub(in super::super) const HEALTH: Doc = Doc {
        answer: "The process lives; `status` says whether all is well.",
        ..Doc::new(SYSTEM, "getHealth", "Whether the process lives")
    };

    pub(in super::super) const PROMETHEUS: Doc = Doc {
        answer: "Text format 0.0.4; docs/monitoring.md explains the names.",
        ..Doc::new(SYSTEM, "getPrometheus", "Get Prometheus metrics")
    };

    pub(in super::super) const OPENAPI: Doc = Doc {
        answer: "OpenAPI 3.1.",
        ..Doc::new(SYSTEM, "getOpenApi", "Get this document")
    };

    pub(in super::super) const LIST_OPERATIONS: Doc = Doc {
        answer: "One page of operations.",
        ..Doc::new(
            OPERATIONS,
            "listOperations",
            "List operations, newest first",
        )
    };

    pub(in super::super) const GET_OPERATION: Doc = Doc {
        answer: "The operation now.",
        errors: &[ErrorCode::OperationNotFound],
        ..Doc::new(OPERATIONS, "getOperation", "Get one operation")
    };

    pub(in super::super) const OPERATION_METRICS: Doc = Doc {
        answer: "Points after the cursor, oldest first.",
        errors: &[ErrorCode::OperationNotFound, ErrorCode::InvalidCursor],
        ..Doc::new(
            OPERATIONS,
            "getMetrics",
            "Get the metric points of an operation",
        )
    };

    pub(in super::super) const CANCEL_OPERATION: Doc = Doc {
        answer: "Cancelled or requested; `status` says which.",
        errors: &[
            ErrorCode::OperationNotFound,
            ErrorCode::AlreadyFinished,
            ErrorCode::NatsUnavailable,
        ],
        ..Doc::new(OPERATIONS, "cancelOperation", "Cancel an operation")
    };

    pub(in super::super) const DELETE_OPERATION: Doc = Doc {
        id: "deleteOperation",
        summary: "Cancel an operation (same as `/cancel`)",
        ..CANCEL_OPERATION
    };

    pub(in super::super) const START_OPERATION: Doc = Doc {
        details: "Runs the operation here and now. A backend's start route is the usual way: it queues the operation.",
        answer: "The operation runs, or was started here before with the same `task_id` and body.",
        errors: &[
            ErrorCode::TaskIdConflict,
            ErrorCode::IdempotencyMismatch,
            ErrorCode::NatsUnavailable,
            ErrorCode::WorkerBusy,
            ErrorCode::StorageFull,
        ],
        ..Doc::new(OPERATIONS, "start", "Start an operation on this worker")
    };
}

const INTERFACE: Interface = Interface {
    title: "KTRDR worker",
    description: "One worker's own interface: its health, the operations it has run, and direct starts.",
    tags: &docs::TAGS,
    links: &[],
};

/// The same with [`RestRoutes::Health`].
const HEALTH_INTERFACE: Interface = Interface {
    description: "One worker's health. Operations are started, shown and cancelled by backends.",
    tags: &docs::HEALTH_TAGS,
    ..INTERFACE
};

/// The path of the document.
pub(super) const PATH: &str = "/openapi.json";

/// The document of this worker.
pub(super) async fn show(
    State(state): State<HttpState>,
    Extension(routes): Extension<Arc<Vec<Route>>>,
    path: MatchedPath,
) -> Json<OpenApiDocument> {
    let info = &state.core.info;
    let start = StartRoute {
        worker_type: state.core.worker_type.as_str(),
        path: Some(format!("/{}/start", info.domain)),
        description: &info.description,
        request_schema: SchemaText::of(&info.request_schema),
        result_schema: SchemaText::of(&info.result_schema),
    };
    // A worker that shares a listener, or whose router a program mounts, is served below a path.
    let base = match path.as_str().strip_suffix(PATH) {
        None | Some("") => "/",
        Some(prefix) => prefix,
    };
    let (interface, starts): (_, &[StartRoute<'_>]) = match state.core.routes {
        RestRoutes::Full => (&INTERFACE, &[start]),
        RestRoutes::Health => (&HEALTH_INTERFACE, &[]),
    };
    Json(ktrdr_http::openapi::document(
        interface,
        base,
        state.tokens.are_needed(),
        &routes,
        starts,
    ))
}

/// Routes with their descriptions.
pub(super) struct Routes {
    tokens: Tokens,
    router: Router<HttpState>,
    routes: Vec<Route>,
}

impl Routes {
    /// None yet. `tokens` says who may use them.
    pub(super) fn new(tokens: Tokens) -> Self {
        Self {
            tokens,
            router: Router::new(),
            routes: Vec::new(),
        }
    }

    /// Adds `GET path`.
    pub(super) fn get<H, T>(self, path: &'static str, access: Access, handler: H, doc: Doc) -> Self
    where
        H: Handler<T, HttpState> + DescribeHandler<T>,
        T: 'static,
    {
        let route = Route::new("get", path, access, &handler, doc);
        self.add(route, get(handler))
    }

    /// Adds `POST path`.
    pub(super) fn post<H, T>(
        self,
        path: impl Into<Cow<'static, str>>,
        access: Access,
        handler: H,
        doc: Doc,
    ) -> Self
    where
        H: Handler<T, HttpState> + DescribeHandler<T>,
        T: 'static,
    {
        let route = Route::new("post", path, access, &handler, doc);
        self.add(route, post(handler))
    }

    /// Adds `DELETE path`.
    pub(super) fn delete<H, T>(
        self,
        path: &'static str,
        access: Access,
        handler: H,
        doc: Doc,
    ) -> Self
    where
        H: Handler<T, HttpState> + DescribeHandler<T>,
        T: 'static,
    {
        let route = Route::new("delete", path, access, &handler, doc);
        self.add(route, delete(handler))
    }

    fn add(mut self, route: Route, handler: MethodRouter<HttpState>) -> Self {
        let check =
            middleware::from_fn_with_state((self.tokens.clone(), route.access), tokens::guard);
        let handler = match route.known_parameters() {
            Some(known) => handler.route_layer(middleware::from_fn_with_state(known, query::guard)),
            None => handler,
        };
        // The last layer is the first one that a request meets.
        let handler = handler.route_layer(check);
        self.router = self.router.route(&route.path, handler);
        self.routes.push(route);
        self
    }

    /// The router, and the descriptions of its routes.
    pub(super) fn into_parts(self) -> (Router<HttpState>, Vec<Route>) {
        (self.router, self.routes)
    }
}
