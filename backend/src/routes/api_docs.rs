//! `GET /openapi.json`, and the page that shows it: `GET /docs` and `GET /docs/{file}`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::{Extension, Json};
use serde_json::Value;

use super::PathText;
use super::assets::{Bundle, bundle};
use crate::error::ApiError;
use crate::openapi;
use crate::openapi::routes::Route;
use crate::state::AppState;

bundle! {
    static PAGE = "docs":
    "index.html" "text/html; charset=utf-8",
    "docs.css" "text/css; charset=utf-8",
    "docs.js" "text/javascript; charset=utf-8",
    "request-form.js" "text/javascript; charset=utf-8",
    "request.js" "text/javascript; charset=utf-8",
    "schema-facts.js" "text/javascript; charset=utf-8",
    "schema-tree.js" "text/javascript; charset=utf-8",
}

/// The document, with the worker types of this moment.
pub async fn openapi(
    State(state): State<AppState>,
    Extension(routes): Extension<Arc<Vec<Route>>>,
) -> Json<Value> {
    Json(openapi::document(&routes, &state.catalogue.all()))
}

/// The page.
pub async fn index(headers: HeaderMap) -> Result<Response, ApiError> {
    PAGE.serve("index.html", &headers)
}

/// One of its files.
pub async fn file(PathText(name): PathText, headers: HeaderMap) -> Result<Response, ApiError> {
    PAGE.serve(&name, &headers)
}
