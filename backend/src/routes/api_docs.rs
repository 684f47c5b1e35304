//! `GET /openapi.json`, and the page that shows it: `GET /docs` and `GET /docs/{file}`.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::HeaderMap;
use ktrdr_http::answer::RenderedJson;
use ktrdr_http::openapi::{OpenApiDocument, Route};
use ktrdr_http::tokens::Principal;

use super::PathText;
use super::assets::{AssetAnswer, Bundle, HtmlPage, bundle};
use crate::error::ApiError;
use crate::openapi;
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

/// Bytes of the document without worker types, about.
const FIXED: usize = 256 * 1024;

/// The document, with the worker types of this moment that the client sees.
pub async fn openapi(
    State(state): State<AppState>,
    principal: Principal,
    Extension(routes): Extension<Arc<Vec<Route>>>,
) -> Result<RenderedJson<OpenApiDocument>, ApiError> {
    let tokens_needed = state.tokens.are_needed();
    let mut types = state.catalogue.all();
    types.retain(|entry| principal.sees(entry.published.worker_type.as_str()));
    // A request schema is there twice: alone, and as part of the start body.
    let bytes = FIXED + types.iter().map(|entry| 2 * entry.size()).sum::<usize>();
    let share = state.answers.share(bytes).await?;

    let document = openapi::document(tokens_needed, &routes, &types);
    RenderedJson::write(&document, share)
}

/// The page.
pub async fn index(headers: HeaderMap) -> Result<HtmlPage, ApiError> {
    PAGE.serve("index.html", &headers).map(HtmlPage)
}

/// One of its files.
pub async fn file(PathText(name): PathText, headers: HeaderMap) -> Result<AssetAnswer, ApiError> {
    PAGE.serve(&name, &headers)
}
