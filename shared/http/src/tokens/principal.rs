//! Who sent a request.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use ktrdr_protocol::id::WorkerType;
use ktrdr_protocol::time::Timestamp;
use ktrdr_protocol::token_name::TokenName;
use tokio_util::sync::CancellationToken;

use super::file::Entry;
use super::scope::Scope;
use crate::error::ApiError;
use crate::openapi::{Describe, Description};

/// Who sent a request, and what it may do. An extension of every request that reaches a handler,
/// and an extractor. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Principal(Kind);

#[derive(Debug, Clone)]
enum Kind {
    /// There are no tokens, so everybody may do everything.
    Everybody,
    /// There are tokens, and the request brought none. Such a request only reaches open routes.
    Nobody,
    Known(Arc<KnownToken>),
}

/// An entry of the file of tokens, as long as it is there and unchanged.
#[derive(Debug)]
pub(super) struct KnownToken {
    pub(super) entry: Entry,
    /// Cancelled when the entry is gone, has changed, or has expired.
    pub(super) revoked: CancellationToken,
}

impl KnownToken {
    pub(super) fn new(entry: Entry) -> Self {
        Self {
            entry,
            revoked: CancellationToken::new(),
        }
    }

    /// Whether the token is no longer valid at `now`.
    pub(super) fn has_expired(&self, now: impl FnOnce() -> Timestamp) -> bool {
        self.entry.expires.is_some_and(|expires| expires <= now())
    }
}

impl Principal {
    /// Everybody, when there are no tokens: may do everything.
    pub const fn everybody() -> Self {
        Self(Kind::Everybody)
    }

    /// A request without a token, when there are tokens: may do nothing.
    pub const fn nobody() -> Self {
        Self(Kind::Nobody)
    }

    pub(super) fn known(token: Arc<KnownToken>) -> Self {
        Self(Kind::Known(token))
    }

    /// The name of the token; `None` when there are no tokens, or when the request brought none.
    pub fn name(&self) -> Option<&str> {
        match &self.0 {
            Kind::Known(token) => Some(token.entry.name.as_str()),
            Kind::Everybody | Kind::Nobody => None,
        }
    }

    /// The same as messages carry it.
    pub fn token_name(&self) -> Option<&TokenName> {
        match &self.0 {
            Kind::Known(token) => Some(&token.entry.name),
            Kind::Everybody | Kind::Nobody => None,
        }
    }

    /// Whether it may do what `scope` stands for.
    pub fn may(&self, scope: Scope) -> bool {
        match &self.0 {
            Kind::Everybody => true,
            Kind::Nobody => false,
            Kind::Known(token) => token.entry.scopes.allow(scope),
        }
    }

    /// Whether it may know of this worker type and of what belongs to it.
    pub fn sees(&self, worker_type: &str) -> bool {
        self.types()
            .is_none_or(|types| types.iter().any(|one| one.as_str() == worker_type))
    }

    /// The only worker types that it sees; `None` when it sees all.
    pub fn types(&self) -> Option<&[WorkerType]> {
        match &self.0 {
            Kind::Everybody => None,
            Kind::Nobody => Some(&[]),
            Kind::Known(token) => token.entry.types.as_deref(),
        }
    }

    /// Whether it may read everything. Open routes show figures only then.
    pub fn reads_everything(&self) -> bool {
        self.may(Scope::Read) && self.types().is_none()
    }

    /// Whether the token was removed or changed, or has expired.
    pub fn is_revoked(&self) -> bool {
        match &self.0 {
            Kind::Everybody | Kind::Nobody => false,
            Kind::Known(token) => token.revoked.is_cancelled() || token.has_expired(Timestamp::now),
        }
    }

    /// Refuses a request whose token was revoked since it was checked. For everything that is done
    /// after a wait.
    ///
    /// # Errors
    /// 401 `unauthorized`.
    pub fn check_still_valid(&self) -> Result<(), ApiError> {
        if self.is_revoked() {
            Err(ApiError::token_revoked())
        } else {
            Ok(())
        }
    }

    /// Resolves when the token was removed or changed, or has expired; at the latest two seconds
    /// after that. For everything that goes on after its request was checked: event streams,
    /// requests that wait, downloads. Cancel safe.
    pub async fn until_revoked(&self) {
        match &self.0 {
            Kind::Everybody | Kind::Nobody => std::future::pending().await,
            Kind::Known(token) => token.revoked.cancelled().await,
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Principal {
    type Rejection = ApiError;

    /// A request without a principal has gone around the check. It is refused, not let through.
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let principal = parts.extensions.get::<Self>().cloned();
        principal.ok_or_else(|| ApiError::internal("the request was not checked for a token"))
    }
}

/// Clients do not see it.
impl Describe for Principal {
    fn describe(_: &mut Description<'_>) {}
}
