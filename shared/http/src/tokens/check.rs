//! Finds the principal of a request, or refuses it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use ktrdr_protocol::rest::ErrorCode;
use ktrdr_protocol::time::Timestamp;
use ktrdr_protocol::token_name::TokenName;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::ending;
use super::file::{self, Digest, TokensError};
use super::options::TokenOptions;
use super::principal::{KnownToken, Principal};
use super::recent;
use super::scope::{Access, Scope};
use crate::error::ApiError;
use crate::metrics::register;

/// Longest token that is looked up, in bytes.
const MAX_TOKEN: usize = 512;

/// The tokens of one REST interface. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Tokens(Option<Arc<Shared>>);

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) path: PathBuf,
    /// Read by every request without a lock, replaced as a whole.
    pub(super) table: ArcSwap<Table>,
    refused: RefusedRequests,
}

/// All valid tokens by the digest of each.
pub(super) type Table = HashMap<Digest, Arc<KnownToken>>;

/// Why a request does not reach its handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It brings no token.
    #[error(
        "A token is needed: send the header Authorization: Bearer TOKEN. Whoever runs this server makes one with `ktrdr-backend token new`"
    )]
    Missing,
    /// The header is not a bearer token, or there are several.
    #[error("The header Authorization must be there once, as Bearer TOKEN")]
    Malformed,
    /// No entry has this token.
    #[error("The token is not known here: it is wrong, or it was removed")]
    Unknown,
    /// The token was valid once.
    #[error("The token has expired; ask whoever runs this server for another one")]
    Expired,
    /// The token does not allow it.
    #[error("The token does not have the scope {0}")]
    Scope(Scope),
}

/// Marks an answer to a request whose token is not valid. The server slows such answers down for
/// addresses that get many of them.
#[derive(Debug, Clone, Copy)]
pub struct RefusedToken;

impl Refused {
    const fn reason(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::Unknown => "unknown",
            Self::Expired => "expired",
            Self::Scope(_) => "scope",
        }
    }

    /// The challenge of RFC 6750, section 3.
    fn challenge(self) -> HeaderValue {
        match self {
            Self::Missing => HeaderValue::from_static("Bearer"),
            Self::Malformed => HeaderValue::from_static("Bearer error=\"invalid_request\""),
            Self::Unknown | Self::Expired => {
                HeaderValue::from_static("Bearer error=\"invalid_token\"")
            }
            Self::Scope(scope) => {
                let text = format!("Bearer error=\"insufficient_scope\", scope=\"{scope}\"");
                // The words of scopes are plain.
                HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("Bearer"))
            }
        }
    }

    /// The code of the answer.
    pub const fn code(self) -> ErrorCode {
        match self {
            Self::Scope(_) => ErrorCode::Forbidden,
            _ => ErrorCode::Unauthorized,
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let mut error = ApiError::new(self.code(), self.to_string());
        if let Self::Scope(scope) = self {
            error = error.with("scope", scope.as_str());
        }
        let mut answer = error.into_response();
        answer
            .headers_mut()
            .insert(WWW_AUTHENTICATE, self.challenge());
        if matches!(self, Self::Unknown | Self::Expired | Self::Malformed) {
            answer.extensions_mut().insert(RefusedToken);
        }
        answer
    }
}

impl Tokens {
    /// No tokens: everybody may do everything.
    pub const fn none() -> Self {
        Self(None)
    }

    /// The tokens of the configured file. Call [`Self::keep_current`] then.
    ///
    /// # Errors
    /// [`TokensError`] when there is a file and it cannot be used.
    pub fn load(options: &TokenOptions) -> Result<Self, TokensError> {
        match options.file() {
            None => Ok(Self::none()),
            Some(path) => Self::of_file(path),
        }
    }

    fn of_file(path: &Path) -> Result<Self, TokensError> {
        let (text, is_open) = file::read(path)?;
        let entries = file::parse(&text, path)?;
        super::reload::tell(path, entries.len(), is_open);
        let table = file::by_digest(entries)
            .into_iter()
            .map(|(digest, entry)| (digest, Arc::new(KnownToken::new(entry))))
            .collect();

        Ok(Self(Some(Arc::new(Shared {
            path: path.to_owned(),
            table: ArcSwap::from_pointee(table),
            refused: RefusedRequests::default(),
        }))))
    }

    pub(super) fn shared(&self) -> Option<&Shared> {
        self.0.as_deref()
    }

    /// Whether requests need a token.
    pub fn are_needed(&self) -> bool {
        self.0.is_some()
    }

    /// Who sent a request with these headers, if it may do what `access` stands for. An open route
    /// also takes a request whose token is not valid, as one without a token.
    ///
    /// # Errors
    /// [`Refused`], counted.
    pub fn check(&self, headers: &HeaderMap, access: Access) -> Result<Principal, Refused> {
        let Some(shared) = self.shared() else {
            return Ok(Principal::everybody());
        };
        let found = shared.find(headers);
        let checked = match access {
            Access::Open => return Ok(found.unwrap_or(Principal::nobody())),
            Access::Needs(scope) => found.and_then(|principal| {
                let may = principal.may(scope);
                may.then_some(principal).ok_or(Refused::Scope(scope))
            }),
        };
        if let Err(refused) = &checked {
            shared.refused.note(*refused);
        }
        checked
    }

    /// Whom something is done for that was asked for earlier, with the token of this name. Everybody when
    /// no tokens are needed now, or none were needed then.
    ///
    /// # Errors
    /// [`Refused`] when there is no such token any more, or when it may not do `scope` any more.
    pub fn on_behalf_of(
        &self,
        name: Option<&TokenName>,
        scope: Scope,
    ) -> Result<Principal, Refused> {
        let (Some(shared), Some(name)) = (self.shared(), name) else {
            return Ok(Principal::everybody());
        };
        let table = shared.table.load();
        let mut tokens = table.values();
        let known = tokens
            .find(|token| token.entry.name == *name)
            .ok_or(Refused::Unknown)?;
        if known.has_expired(Timestamp::now) {
            return Err(Refused::Expired);
        }
        let principal = Principal::known(known.clone());
        match principal.may(scope) {
            true => Ok(principal),
            false => Err(Refused::Scope(scope)),
        }
    }

    /// Adds the metrics to the page.
    pub fn register(&self, page: &mut Registry) {
        let refused = self.shared().map(|shared| shared.refused.0.clone());
        register(
            page,
            "ktrdr_http_refused_tokens_total",
            "Requests refused because of their token.",
            refused.unwrap_or_default(),
        );
    }
}

impl Shared {
    fn find(&self, headers: &HeaderMap) -> Result<Principal, Refused> {
        let token = bearer(headers)?;
        let known = recent::find(&self.table.load(), token).ok_or(Refused::Unknown)?;
        if known.has_expired(Timestamp::now) {
            return Err(Refused::Expired);
        }
        Ok(Principal::known(known))
    }
}

/// The token in the headers. Only there: what is in a query ends up in logs and histories.
fn bearer(headers: &HeaderMap) -> Result<&[u8], Refused> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = match (values.next(), values.next()) {
        (None, _) => return Err(Refused::Missing),
        (Some(value), None) => value.as_bytes(),
        (Some(_), Some(_)) => return Err(Refused::Malformed),
    };

    let (scheme, token) = value.split_at_checked(6).ok_or(Refused::Malformed)?;
    let is_bearer = scheme.eq_ignore_ascii_case(b"bearer") && token.starts_with(b" ");
    let token = token.trim_ascii();
    match is_bearer && (1..=MAX_TOKEN).contains(&token.len()) {
        true => Ok(token),
        false => Err(Refused::Malformed),
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    reason: &'static str,
}

/// Requests that were refused, by reason.
#[derive(Debug, Default)]
struct RefusedRequests(Family<Labels, Counter>);

impl RefusedRequests {
    fn note(&self, refused: Refused) {
        let labels = Labels {
            reason: refused.reason(),
        };
        self.0.get_or_create(&labels).inc();
    }
}

/// The check as axum middleware, for [`axum::middleware::from_fn_with_state`].
pub async fn guard(
    State((tokens, access)): State<(Tokens, Access)>,
    mut request: Request,
    next: Next,
) -> Response {
    match tokens.check(request.headers(), access) {
        Ok(principal) => {
            request.extensions_mut().insert(principal.clone());
            ending::until_revoked(next.run(request).await, &principal)
        }
        Err(refused) => refused.into_response(),
    }
}
