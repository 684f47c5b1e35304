//! `GET /openapi.json`, and the page that shows it: `GET /docs` and `GET /docs/{file}`.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::HeaderMap;
use ktrdr_http::answer::RenderedJson;
use ktrdr_http::openapi::OpenApiDocument;
use ktrdr_http::tokens::Principal;

use super::PathText;
use super::assets::{AssetAnswer, Bundle, HtmlPage, bundle};
use crate::catalogue::CatalogueEntry;
use crate::error::ApiError;
use crate::openapi::documents::Documents;
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

/// The document, with the worker types of this moment that the client sees.
pub async fn openapi(
    State(state): State<AppState>,
    principal: Principal,
    Extension(documents): Extension<Arc<Documents>>,
) -> Result<RenderedJson<OpenApiDocument>, ApiError> {
    let sees = |entry: &CatalogueEntry| principal.sees(entry.published.worker_type.as_str());
    let (text, share) = documents.text(&state.catalogue.all(), sees).await?;

    Ok(RenderedJson::shared(text, share))
}

/// The page.
pub async fn index(headers: HeaderMap) -> Result<HtmlPage, ApiError> {
    PAGE.serve("index.html", &headers).map(HtmlPage)
}

/// One of its files.
pub async fn file(PathText(name): PathText, headers: HeaderMap) -> Result<AssetAnswer, ApiError> {
    PAGE.serve(&name, &headers)
}
