//! Bodies of requests: how large each may be, and all of them together.
//!
//! The problem: a body is in memory from its first byte until its request is answered. Thousands of
//! connections that each send half a megabyte and then wait would fill the memory.
//!
//! How it is solved: every byte that arrives is counted against one [`BodyBudget`]. The count is
//! given back when the [`BodyShare`] of the request is dropped. Beyond the budget a request is
//! refused, and what it has sent is discarded. Only bytes that have arrived count, so a client that
//! promises a large body and sends nothing keeps nobody out.

use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Body;
use axum::extract::{FromRef, FromRequest, Request};
use bytes::Bytes;
use futures::StreamExt;
use ktrdr_protocol::rest::Violation;
use schemars::JsonSchema;
use serde_json::{Map, Value};

use crate::error::ApiError;
use crate::openapi::{Describe, Description};
use crate::start_body::BodyError;

/// Of a body that is refused, this many times the limit is read and discarded, so that its sender
/// gets to read the answer.
const MAX_DISCARDED: usize = 32;

/// Largest [`OptionalBody`], in bytes.
const MAX_OPTIONAL: usize = 32 * 1024;

/// Largest [`NoBody`], in bytes: `{}` with white space.
const MAX_NOTHING: usize = 1024;

/// How many bytes of request bodies may be in memory at a time. Cheap to clone.
#[derive(Debug, Clone)]
pub struct BodyBudget(Arc<Budget>);

#[derive(Debug)]
struct Budget {
    most: usize,
    used: AtomicUsize,
}

/// The part of a [`BodyBudget`] that one request takes until it is dropped.
#[derive(Debug)]
pub struct BodyShare {
    budget: BodyBudget,
    bytes: usize,
}

impl BodyBudget {
    /// For so many bytes together.
    pub fn new(most: usize) -> Self {
        let used = AtomicUsize::new(0);
        Self(Arc::new(Budget { most, used }))
    }

    /// A share for a request that has sent nothing yet.
    fn begin(&self) -> BodyShare {
        BodyShare {
            budget: self.clone(),
            bytes: 0,
        }
    }
}

impl BodyShare {
    /// Takes more; returns whether there was room for it.
    fn grow(&mut self, bytes: usize) -> bool {
        let Budget { most, used } = &*self.budget.0;
        let before = used.fetch_add(bytes, Ordering::Relaxed);
        self.bytes += bytes;
        before.saturating_add(bytes) <= *most
    }

    /// Gives all back: the bytes are discarded.
    fn clear(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        self.budget.0.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for BodyShare {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Why a body could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReadBodyError {
    /// It is larger than the limit.
    #[error("the body is larger than {limit} bytes")]
    TooLarge {
        /// The limit, in bytes.
        limit: usize,
    },
    /// The bodies of other requests take all the room.
    #[error("the bodies of other requests take all the room")]
    Overloaded,
    /// The connection broke before the end of the body.
    #[error("the body could not be read to its end")]
    Broken,
}

/// Reads a body of at most `limit` bytes. The share is to be kept for as long as the bytes, or
/// copies of them, are.
///
/// The rest of a body that is refused is read and discarded, up to a bound. Many clients do not see
/// an answer that is sent while they are still sending, because their connection is then reset.
///
/// # Errors
/// [`ReadBodyError`].
pub async fn read_body(
    body: Body,
    limit: usize,
    budget: &BodyBudget,
) -> Result<(Bytes, BodyShare), ReadBodyError> {
    let mut chunks = body.into_data_stream();
    let (mut kept, mut seen) = (Vec::new(), 0_usize);
    let mut share = budget.begin();
    let mut refused = None;
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| ReadBodyError::Broken)?;
        seen = seen.saturating_add(chunk.len());

        if seen > limit {
            refused = Some(ReadBodyError::TooLarge { limit });
        } else if refused.is_none() && !share.grow(chunk.len()) {
            refused = Some(ReadBodyError::Overloaded);
        }
        if refused.is_none() {
            kept.extend_from_slice(&chunk);
            continue;
        }

        kept = Vec::new();
        share.clear();
        if seen > limit.saturating_mul(MAX_DISCARDED) {
            break;
        }
    }

    match refused {
        Some(why) => Err(why),
        None => Ok((kept.into(), share)),
    }
}

/// A body that a request may have: at most 32 KiB. One that is larger, cannot be read or finds no
/// room counts as empty.
pub struct OptionalBody {
    /// What was sent.
    pub bytes: Bytes,
    /// The room that it takes.
    pub share: BodyShare,
}

impl OptionalBody {
    /// The reason in `{"reason": "…"}`. Any other body is ignored, so that a cancel is never refused
    /// for its body.
    pub fn reason(&self) -> Option<String> {
        let body: Value = serde_json::from_slice(&self.bytes).ok()?;
        body.get("reason")?.as_str().map(str::to_owned)
    }
}

impl<S: Send + Sync> FromRequest<S> for OptionalBody
where
    BodyBudget: FromRef<S>,
{
    type Rejection = std::convert::Infallible;

    async fn from_request(request: Request, state: &S) -> Result<Self, Self::Rejection> {
        let budget = BodyBudget::from_ref(state);
        let (bytes, share) = read_body(request.into_body(), MAX_OPTIONAL, &budget)
            .await
            .unwrap_or_else(|_| (Bytes::new(), budget.begin()));
        Ok(Self { bytes, share })
    }
}

/// Of a route that takes no body: there is none, or it is `{}` or `null`. Another one would have no effect, and its
/// sender would not know.
#[derive(Debug)]
pub struct NoBody;

impl<S: Send + Sync> FromRequest<S> for NoBody
where
    BodyBudget: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, Self::Rejection> {
        let budget = BodyBudget::from_ref(state);
        let nothing = match read_body(request.into_body(), MAX_NOTHING, &budget).await {
            Ok((bytes, _share)) => bytes.trim_ascii().is_empty() || says_nothing(&bytes),
            Err(ReadBodyError::TooLarge { .. }) => false,
            Err(error @ (ReadBodyError::Overloaded | ReadBodyError::Broken)) => {
                return Err(error.into());
            }
        };
        if nothing {
            return Ok(Self);
        }
        let message = "this route takes no body; leave it out, or send {}".to_owned();
        let path = String::new();
        Err(BodyError::Violations(vec![Violation { path, message }]).into())
    }
}

/// Some clients send `null` when they are given no body.
fn says_nothing(bytes: &[u8]) -> bool {
    let body: Result<Value, _> = serde_json::from_slice(bytes);
    body.is_ok_and(|body| body.is_null() || body.as_object().is_some_and(Map::is_empty))
}

impl Describe for NoBody {
    fn describe(description: &mut Description<'_>) {
        description.no_body();
    }
}

/// A body that the handler reads itself, with [`read_body`] or [`BodyOf::read`]: a document of type `T`. So
/// it first decides whether the request may be answered at all.
pub struct BodyOf<T> {
    /// What arrives.
    pub body: Body,
    document: PhantomData<fn() -> T>,
}

impl<T, S: Send + Sync> FromRequest<S> for BodyOf<T> {
    type Rejection = std::convert::Infallible;

    async fn from_request(request: Request, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self {
            body: request.into_body(),
            document: PhantomData,
        })
    }
}

impl<T: JsonSchema> Describe for BodyOf<T> {
    fn describe(description: &mut Description<'_>) {
        description.json_body::<T>();
    }
}

/// A body that may be left out is not described.
impl Describe for OptionalBody {
    fn describe(_: &mut Description<'_>) {}
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;

    fn body(chunks: &[usize]) -> Body {
        let chunks: Vec<_> = chunks
            .iter()
            .map(|size| Ok::<_, std::io::Error>(vec![b'x'; *size]))
            .collect();
        Body::from_stream(stream::iter(chunks))
    }

    #[tokio::test]
    async fn a_body_beyond_its_limit_is_refused_however_it_is_cut() {
        let budget = BodyBudget::new(1000);

        for chunks in [&[10][..], &[4, 6], &[0, 10, 0]] {
            let (bytes, _share) = read_body(body(chunks), 10, &budget).await.unwrap();
            assert_eq!(bytes.len(), 10);
        }
        for chunks in [&[11][..], &[4, 7], &[10, 1], &[1000]] {
            let refused = read_body(body(chunks), 10, &budget).await.unwrap_err();
            assert_eq!(refused, ReadBodyError::TooLarge { limit: 10 });
        }
        assert_eq!(budget.0.used.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn all_bodies_together_have_a_bound_and_give_their_room_back() {
        let budget = BodyBudget::new(100);
        let (_, first) = read_body(body(&[40, 40]), 90, &budget).await.unwrap();

        let refused = read_body(body(&[10, 20, 10]), 90, &budget).await;
        assert_eq!(refused.unwrap_err(), ReadBodyError::Overloaded);
        let (_, _second) = read_body(body(&[20]), 90, &budget).await.unwrap();

        drop(first);
        let (_, _third) = read_body(body(&[80]), 90, &budget).await.unwrap();
    }
}
