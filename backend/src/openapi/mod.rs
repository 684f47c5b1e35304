//! `GET /openapi.json`: the document of this REST interface, made by [`ktrdr_http::openapi`].
//!
//! | module | holds |
//! |---|---|
//! | [`routes`] | the router that takes a route only together with its description |
//! | [`docs`] | operation id, summary and error codes of each route |
//! | [`documents`] | the document as text, made once for the same worker types |

pub mod docs;
pub mod documents;
pub mod routes;

use std::sync::Arc;

use ktrdr_http::openapi::{Interface, OpenApiDocument, Route, StartRoute};

use crate::catalogue::CatalogueEntry;

const INTERFACE: Interface = Interface {
    title: "KTRDR Workers",
    description: "Long-running operations over REST, carried by NATS JetStream. A worker type appears here as soon as one of \
        its workers is started.",
    tags: &docs::TAGS,
    links: &[
        ("operation", "getOperation"),
        ("results", "getResults"),
        ("metrics", "getMetrics"),
        ("history", "getHistory"),
        ("cancel", "cancelOperation"),
        ("retry", "retryOperation"),
    ],
};

/// The document for these routes and worker types. `tokens_needed` says whether requests need a
/// token.
pub fn document(
    tokens_needed: bool,
    routes: &[Route],
    entries: &[Arc<CatalogueEntry>],
) -> OpenApiDocument {
    // As requests are routed: a domain is one type's.
    let start_route = |entry: &Arc<CatalogueEntry>| {
        let has_domain = entry.domain_owner.is_none();
        has_domain.then(|| format!("/api/v1/{}/start", entry.published.domain))
    };
    let types: Vec<StartRoute<'_>> = entries
        .iter()
        .map(|entry| StartRoute {
            worker_type: entry.published.worker_type.as_str(),
            path: start_route(entry),
            description: &entry.published.description,
            request_schema: entry.published.request_schema.clone(),
            result_schema: entry.published.result_schema.clone(),
        })
        .collect();
    ktrdr_http::openapi::document(&INTERFACE, "/", tokens_needed, routes, &types)
}
