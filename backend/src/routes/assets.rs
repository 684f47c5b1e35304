//! Serves the files of the pages (dashboard and API page), which the binary contains. The routes
//! are in `dashboard.rs` and `api_docs.rs`.
//!
//! The files are compiled in, so a backend is one file to deploy and the pages always match its
//! REST interface. All files of a page share one `ETag`: a browser asks each time and gets 304
//! until a new version runs. Rejected: a build step (bundler, minifier), because the files are
//! small and readable as they are.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::OnceLock;

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use ktrdr_http::openapi::{Describe, Description};

use crate::error::{ApiError, ErrorCode};

/// Content security policy: only files of this server, no inline scripts, no markup from text, no
/// framing.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// One file.
pub struct Asset {
    /// The name of the file.
    pub name: &'static str,
    /// The value of `Content-Type`.
    pub kind: &'static str,
    /// The text of the file.
    pub content: &'static str,
}

/// A file, or 304 when the client has it.
pub struct AssetAnswer(Response);

impl IntoResponse for AssetAnswer {
    fn into_response(self) -> Response {
        self.0
    }
}

impl Describe for AssetAnswer {
    fn describe(description: &mut Description<'_>) {
        description.text("*/*");
        description.empty(304, "The client has the newest version.");
    }
}

/// The same for a page.
pub struct HtmlPage(pub AssetAnswer);

impl IntoResponse for HtmlPage {
    fn into_response(self) -> Response {
        self.0.into_response()
    }
}

impl Describe for HtmlPage {
    fn describe(description: &mut Description<'_>) {
        AssetAnswer::describe(description);
        description.text("text/html");
    }
}

/// The files of one page.
pub struct Bundle {
    /// The name in error messages.
    pub name: &'static str,
    /// The files.
    pub assets: &'static [Asset],
    /// The entity tag of all files: they only work together.
    pub tag: OnceLock<String>,
}

/// `bundle! { static NAME = "directory": "file" "media type", … }`: files of
/// `backend/assets/<directory>`.
macro_rules! bundle {
    (static $bundle:ident = $directory:literal: $($name:literal $kind:literal,)*) => {
        static $bundle: Bundle = Bundle {
            name: $directory,
            assets: &[$($crate::routes::assets::Asset {
                name: $name,
                kind: $kind,
                content: include_str!(concat!("../../assets/", $directory, "/", $name)),
            }),*],
            tag: std::sync::OnceLock::new(),
        };

        #[cfg(test)]
        mod bundled {
            #[test]
            fn its_files_are_in_order() {
                super::$bundle.check();
            }
        }
    };
}
pub(super) use bundle;

impl Bundle {
    fn tag(&self) -> &str {
        self.tag.get_or_init(|| {
            let mut hasher = DefaultHasher::new();
            for asset in self.assets {
                asset.content.hash(&mut hasher);
            }
            format!("\"{:016x}\"", hasher.finish())
        })
    }

    /// Serves one of the files, or 304 when the client has it.
    pub fn serve(&self, name: &str, headers: &HeaderMap) -> Result<AssetAnswer, ApiError> {
        let Some(asset) = self.assets.iter().find(|asset| asset.name == name) else {
            return Err(ApiError::new(
                ErrorCode::UnknownRoute,
                format!("{} has no such file", self.name),
            ));
        };
        let tag = HeaderValue::from_str(self.tag()).map_err(ApiError::internal)?;
        let common = [
            (header::ETAG, tag),
            // The client asks each time, so that nobody sees a mix of old and new files after an
            // upgrade.
            (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
            (header::CONTENT_TYPE, HeaderValue::from_static(asset.kind)),
            (
                header::CONTENT_SECURITY_POLICY,
                HeaderValue::from_static(POLICY),
            ),
            (
                header::REFERRER_POLICY,
                HeaderValue::from_static("no-referrer"),
            ),
            (
                HeaderName::from_static("cross-origin-opener-policy"),
                HeaderValue::from_static("same-origin"),
            ),
        ];
        let known = headers
            .get(header::IF_NONE_MATCH)
            .and_then(|value| value.to_str().ok());
        if known.is_some_and(|known| {
            known
                .split(',')
                .any(|tag| tag.trim().trim_start_matches("W/") == self.tag())
        }) {
            return Ok(AssetAnswer(
                (StatusCode::NOT_MODIFIED, common).into_response(),
            ));
        }
        Ok(AssetAnswer((common, asset.content).into_response()))
    }

    /// Checks that every file that another one asks for exists, that none turns text into markup,
    /// and that the token of a tab goes with every request and is kept nowhere else.
    #[cfg(test)]
    pub fn check(&self) {
        let own = format!("\"/{}/", self.name);
        for Asset { name, content, .. } in self.assets {
            let imports = content
                .split("from './")
                .skip(1)
                .filter_map(|rest| rest.split('\'').next());
            let links = content
                .split(&own)
                .skip(1)
                .filter_map(|rest| rest.split('"').next());
            for wanted in imports.chain(links) {
                assert!(
                    self.assets.iter().any(|known| known.name == wanted),
                    "{name} asks for {wanted}"
                );
            }
            for forbidden in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "new Function",
                "localStorage",
                "document.cookie",
                "new EventSource",
                "XMLHttpRequest",
                "sendBeacon",
            ] {
                assert!(!content.contains(forbidden), "{name} uses {forbidden}");
            }
            assert!(
                *name == "token-fetch.js" || !content.contains(" fetch("),
                "{name} sends a request without the token"
            );
        }
    }
}
