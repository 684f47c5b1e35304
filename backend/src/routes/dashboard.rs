//! `GET /` and `GET /dashboard/{file}`: the dashboard, from inside the binary. It uses nothing but the REST interface.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::LazyLock;

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::PathText;
use crate::error::{ApiError, Code};

/// Nothing from elsewhere, nothing inline, nothing built from text, and nobody may frame it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

struct Asset {
    name: &'static str,
    kind: &'static str,
    content: &'static str,
}

macro_rules! assets {
    ($($name:literal $kind:literal,)*) => {
        const ASSETS: &[Asset] = &[$(Asset {
            name: $name,
            kind: $kind,
            content: include_str!(concat!("../../assets/dashboard/", $name)),
        }),*];
    };
}

assets! {
    "index.html" "text/html; charset=utf-8",
    "style.css" "text/css; charset=utf-8",
    "icon.svg" "image/svg+xml",
    "api.js" "text/javascript; charset=utf-8",
    "app.js" "text/javascript; charset=utf-8",
    "chart.js" "text/javascript; charset=utf-8",
    "data.js" "text/javascript; charset=utf-8",
    "dom.js" "text/javascript; charset=utf-8",
    "form.js" "text/javascript; charset=utf-8",
    "format.js" "text/javascript; charset=utf-8",
    "live.js" "text/javascript; charset=utf-8",
    "metrics.js" "text/javascript; charset=utf-8",
    "operation.js" "text/javascript; charset=utf-8",
    "operations.js" "text/javascript; charset=utf-8",
    "overview.js" "text/javascript; charset=utf-8",
    "rows.js" "text/javascript; charset=utf-8",
    "start.js" "text/javascript; charset=utf-8",
    "workers.js" "text/javascript; charset=utf-8",
}

/// One tag for all files: they only fit together.
static TAG: LazyLock<String> = LazyLock::new(|| {
    let mut hasher = DefaultHasher::new();
    for asset in ASSETS {
        asset.content.hash(&mut hasher);
    }
    format!("\"{:016x}\"", hasher.finish())
});

/// The page.
pub async fn index(headers: HeaderMap) -> Result<Response, ApiError> {
    serve("index.html", &headers)
}

/// One of its files.
pub async fn file(PathText(name): PathText, headers: HeaderMap) -> Result<Response, ApiError> {
    serve(&name, &headers)
}

fn serve(name: &str, headers: &HeaderMap) -> Result<Response, ApiError> {
    let Some(asset) = ASSETS.iter().find(|asset| asset.name == name) else {
        return Err(ApiError::new(Code::UnknownRoute, "The dashboard has no such file"));
    };
    let tag = HeaderValue::from_str(&TAG).map_err(ApiError::internal)?;
    let common = [
        (header::ETAG, tag),
        // Kept, but asked for each time: after an upgrade nobody sees a mix of old and new files.
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (header::CONTENT_TYPE, HeaderValue::from_static(asset.kind)),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
    ];
    let known = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    if known.is_some_and(|known| known.split(',').any(|tag| tag.trim().trim_start_matches("W/") == *TAG)) {
        return Ok((StatusCode::NOT_MODIFIED, common).into_response());
    }
    Ok((common, asset.content).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_the_page_asks_for_is_there() {
        for asset in ASSETS {
            let imports = asset.content.split("from './").skip(1).filter_map(|rest| rest.split('\'').next());
            let links = asset.content.split("\"/dashboard/").skip(1).filter_map(|rest| rest.split('"').next());
            for name in imports.chain(links) {
                assert!(ASSETS.iter().any(|known| known.name == name), "{} asks for {name}", asset.name);
            }
        }
    }

    #[test]
    fn no_text_becomes_markup() {
        for asset in ASSETS {
            for forbidden in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"]
            {
                assert!(!asset.content.contains(forbidden), "{} uses {forbidden}", asset.name);
            }
        }
    }

    #[tokio::test]
    async fn a_known_version_is_not_sent_again() {
        let first = index(HeaderMap::new()).await.unwrap();
        assert_eq!(first.status(), 200);
        let headers = HeaderMap::from_iter([(header::IF_NONE_MATCH, first.headers()[header::ETAG].clone())]);
        assert_eq!(index(headers).await.unwrap().status(), 304);
        assert!(file(PathText("../Cargo.toml".to_owned()), HeaderMap::new()).await.is_err());
    }
}
