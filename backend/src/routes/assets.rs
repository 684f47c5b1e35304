//! Pages and their files, from inside the binary.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::OnceLock;

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::error::{ApiError, Code};

/// Nothing from elsewhere, nothing inline, nothing built from text, and nobody may frame it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// One file.
pub struct Asset {
    /// Its name.
    pub name: &'static str,
    /// Its media type.
    pub kind: &'static str,
    /// Its text.
    pub content: &'static str,
}

/// The files of one page.
pub struct Bundle {
    /// What it is called in a message.
    pub name: &'static str,
    /// All of them.
    pub assets: &'static [Asset],
    /// One tag for all files: they only fit together.
    pub tag: OnceLock<String>,
}

/// `bundle! { static NAME = "directory": "file" "media type", … }`: files of `backend/assets/<directory>`.
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

    /// One of the files, or 304 when the client has it.
    pub fn serve(&self, name: &str, headers: &HeaderMap) -> Result<Response, ApiError> {
        let Some(asset) = self.assets.iter().find(|asset| asset.name == name) else {
            return Err(ApiError::new(
                Code::UnknownRoute,
                format!("{} has no such file", self.name),
            ));
        };
        let tag = HeaderValue::from_str(self.tag()).map_err(ApiError::internal)?;
        let common = [
            (header::ETAG, tag),
            // Kept, but asked for each time: after an upgrade nobody sees a mix of old and new files.
            (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
            (header::CONTENT_TYPE, HeaderValue::from_static(asset.kind)),
            (
                header::CONTENT_SECURITY_POLICY,
                HeaderValue::from_static(POLICY),
            ),
            (
                header::X_CONTENT_TYPE_OPTIONS,
                HeaderValue::from_static("nosniff"),
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
            return Ok((StatusCode::NOT_MODIFIED, common).into_response());
        }
        Ok((common, asset.content).into_response())
    }

    /// Every file that is asked for is there, and none turns text into markup.
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
            ] {
                assert!(!content.contains(forbidden), "{name} uses {forbidden}");
            }
        }
    }
}
