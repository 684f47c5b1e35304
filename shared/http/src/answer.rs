//! Answers that are not made by [`axum::Json`], with the type of their document.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures::stream;
use http_body::{Frame, SizeHint};
use ktrdr_protocol::rest::ErrorCode;
use ktrdr_protocol::token_name::TokenName;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

use crate::error::ApiError;
use crate::metrics;
use crate::tokens::Principal;

/// Lists of at most this size, in bytes, are written at once.
const SMALL: usize = 256 * 1024;

/// Answers of at most this size, in bytes, take no share: there may be as many as requests.
const FREE: usize = 64 * 1024;

/// Bytes written in one go of an answer that is written piece by piece.
const PIECE: usize = 64 * 1024;

/// How long a large answer waits for others to be read.
const PATIENCE: Duration = Duration::from_secs(2);

/// Bytes in one permit of the semaphore, which counts to 2^32.
const UNIT: usize = 1024;

/// How many bytes of large answers may be on their way to clients at a time: a client that asks for
/// much and reads slowly takes memory for as long as it likes. The answers to one token take half of it
/// at most, so that others are served ([`Self::of`]).
#[derive(Debug, Clone)]
pub struct AnswerBudget {
    all: Arc<Semaphore>,
    size: usize,
    owners: Arc<Mutex<Owners>>,
    /// The part of one token.
    own: Option<Arc<Semaphore>>,
}

/// The parts of the tokens whose answers are on their way.
type Owners = HashMap<TokenName, Weak<Semaphore>>;

/// The part of the budget that one answer takes until it is dropped; small answers take none.
#[derive(Debug, Default)]
pub struct Share(Vec<Permit>);

/// A part of one semaphore. It keeps the semaphore.
type Permit = OwnedSemaphorePermit;

impl AnswerBudget {
    /// For so many bytes together.
    pub fn new(bytes: usize) -> Self {
        let size = bytes / UNIT;
        Self {
            all: Arc::new(Semaphore::new(size)),
            size,
            owners: Arc::default(),
            own: None,
        }
    }

    /// The same budget for answers to this client. Without tokens nobody can tell clients apart.
    #[must_use]
    pub fn of(&self, principal: &Principal) -> Self {
        let own = principal.token_name().map(|name| self.part_of(name));
        Self {
            own,
            ..self.clone()
        }
    }

    fn part_of(&self, name: &TokenName) -> Arc<Semaphore> {
        let mut owners = self.owners.lock();
        if let Some(part) = owners.get(name).and_then(Weak::upgrade) {
            return part;
        }
        // Those whose last answer was sent begin anew.
        owners.retain(|_, part| part.strong_count() > 0);
        let part = Arc::new(Semaphore::new(self.size / 2));
        owners.insert(name.clone(), Arc::downgrade(&part));
        part
    }

    /// What an answer of so many bytes takes of which semaphore. One that is larger than the part of a
    /// token takes all of it.
    fn parts(&self, bytes: usize) -> impl Iterator<Item = (Arc<Semaphore>, u32)> {
        let (units, most) = (
            units(bytes),
            u32::try_from(self.size / 2).unwrap_or(u32::MAX),
        );
        let own = self.own.clone().map(|own| (own, units.min(most)));
        // In this order: who waits for their own part takes nothing from others.
        own.into_iter().chain([(self.all.clone(), units)])
    }

    /// A share for an answer of about so many bytes to this client. Waits a moment until others have been
    /// read.
    ///
    /// # Errors
    /// 503 `overloaded`.
    pub async fn share(&self, principal: &Principal, bytes: usize) -> Result<Share, ApiError> {
        if bytes <= FREE {
            return Ok(Share::default());
        }
        // Boxed because it is rare: otherwise every request would have room for it.
        let own = self.of(principal);
        match own.try_share(bytes) {
            Some(share) => Ok(share),
            None => Box::pin(async move { own.wait(bytes).await }).await,
        }
    }

    async fn wait(&self, bytes: usize) -> Result<Share, ApiError> {
        let take = async {
            let mut permits = Vec::with_capacity(2);
            for (semaphore, units) in self.parts(bytes) {
                permits.push(semaphore.acquire_many_owned(units).await?);
            }
            Ok::<_, AcquireError>(Share(permits))
        };
        match tokio::time::timeout(PATIENCE, take).await {
            Ok(Ok(share)) => Ok(share),
            Ok(Err(_)) | Err(_) => Err(ApiError::new(
                ErrorCode::Overloaded,
                "Too many large answers are on their way. Try again, or ask for smaller pages",
            )),
        }
    }

    /// The same at once; `None` while others take too much.
    pub fn try_share(&self, bytes: usize) -> Option<Share> {
        if bytes <= FREE {
            return Some(Share::default());
        }
        let parts = self.parts(bytes);
        let permits = parts.map(|(semaphore, units)| semaphore.try_acquire_many_owned(units));
        permits.collect::<Result<_, _>>().ok().map(Share)
    }
}

impl Share {
    /// Gives back what is beyond so many bytes: more was taken for reading than is sent.
    #[must_use]
    pub fn shrunk_to(mut self, bytes: usize) -> Self {
        for permit in &mut self.0 {
            let surplus = permit.num_permits().saturating_sub(units(bytes) as usize);
            drop(permit.split(surplus));
        }
        self
    }
}

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX)
}

/// JSON text that was written before, or is written piece by piece: a document of type `T`.
pub struct RenderedJson<T> {
    body: Body,
    document: PhantomData<fn() -> T>,
}

impl<T> RenderedJson<T> {
    /// `body` must be a document as `T` is written.
    pub fn new(body: impl Into<Body>) -> Self {
        Self {
            body: body.into(),
            document: PhantomData,
        }
    }

    /// The same with a share, which is kept until the client has read nearly all of a large text.
    /// What the text does not need of it is free at once.
    pub fn with_share(text: impl Into<Bytes>, share: Share) -> Self {
        let text = text.into();
        let share = share.shrunk_to(text.len());
        if text.len() <= FREE || share.0.is_empty() {
            return Self::new(text);
        }
        Self::new(Body::new(SharedText {
            text,
            sent: 0,
            _share: Arc::new(share),
        }))
    }

    /// A text that several answers share. `share` counts for it until the last of them is sent.
    pub fn shared(text: Bytes, share: Arc<Share>) -> Self {
        Self::new(Body::new(SharedText {
            text,
            sent: 0,
            _share: share,
        }))
    }

    /// Writes a document whose share was taken before.
    ///
    /// # Errors
    /// 500 when it cannot be written.
    pub fn write(document: &impl Serialize, share: Share) -> Result<Self, ApiError> {
        let text = serde_json::to_vec(document).map_err(ApiError::internal)?;
        Ok(Self::with_share(text, share))
    }
}

/// A text that is sent in pieces, because a connection takes a piece only when its client has read
/// those before. The pieces are copies: a slice would keep the whole text in memory.
struct SharedText {
    text: Bytes,
    sent: usize,
    _share: Arc<Share>,
}

impl http_body::Body for SharedText {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let rest = self.text.get(self.sent..).unwrap_or_default();
        let piece = rest.get(..PIECE).unwrap_or(rest);
        if piece.is_empty() {
            return Poll::Ready(None);
        }
        let piece = Bytes::copy_from_slice(piece);
        self.sent += piece.len();
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.sent >= self.text.len()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact((self.text.len() - self.sent) as u64)
    }
}

impl<T> RenderedJson<T> {
    /// A document with a long list, written as fast as the client reads it. `frame` is the document
    /// with an empty list, and this list is the first one in it. `bytes` is about the size of all.
    ///
    /// # Errors
    /// 500 when the frame cannot be written.
    pub fn list<I: Serialize + Send + Sync + 'static>(
        frame: &impl Serialize,
        items: Vec<I>,
        bytes: usize,
        share: Share,
    ) -> Result<Self, ApiError> {
        let frame = serde_json::to_string(frame).map_err(ApiError::internal)?;
        let (before, after) = frame
            .split_once("[]")
            .ok_or_else(|| ApiError::internal("a frame without an empty list"))?;
        let mut writer = ListWriter {
            items: items.into_iter(),
            text: Vec::with_capacity(bytes.min(SMALL) + 2 * frame.len()),
            after: Some(format!("]{after}")),
            is_first: true,
            share,
        };
        writer.text.extend_from_slice(before.as_bytes());
        writer.text.push(b'[');

        if bytes <= SMALL {
            let text = writer.piece(usize::MAX).map_err(ApiError::internal)?;
            return Ok(Self::with_share(text.unwrap_or_default(), writer.share));
        }
        let pieces = stream::try_unfold(writer, |mut writer| async move {
            let piece = writer.piece(PIECE).map_err(io::Error::other)?;
            Ok::<_, io::Error>(piece.map(|piece| (piece, writer)))
        });
        Ok(Self::new(Body::from_stream(pieces)))
    }
}

/// Writes a document with a list piece by piece.
struct ListWriter<I> {
    items: std::vec::IntoIter<I>,
    text: Vec<u8>,
    /// What follows the list; `None` when it was written.
    after: Option<String>,
    is_first: bool,
    share: Share,
}

impl<I: Serialize> ListWriter<I> {
    /// The next piece of at least `size` bytes; a shorter one is the last, and `None` follows it.
    fn piece(&mut self, size: usize) -> Result<Option<Bytes>, serde_json::Error> {
        while self.text.len() < size
            && let Some(item) = self.items.next()
        {
            if !std::mem::take(&mut self.is_first) {
                self.text.push(b',');
            }
            serde_json::to_writer(&mut self.text, &item)?;
        }
        if self.text.len() < size
            && let Some(after) = self.after.take()
        {
            self.text.extend_from_slice(after.as_bytes());
        }

        let text = std::mem::take(&mut self.text);
        Ok((!text.is_empty()).then(|| text.into()))
    }
}

impl<T> IntoResponse for RenderedJson<T> {
    fn into_response(self) -> Response {
        let mut response = Response::new(self.body);
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}

/// The page that Prometheus scrapes.
pub struct PrometheusText(pub String);

impl IntoResponse for PrometheusText {
    fn into_response(self) -> Response {
        ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], self.0).into_response()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const fn everybody() -> Principal {
        Principal::everybody()
    }

    async fn text(answer: RenderedJson<Value>) -> Value {
        let bytes = axum::body::to_bytes(answer.body, usize::MAX).await.unwrap();
        serde_json::from_slice(&bytes).unwrap()
    }

    #[tokio::test]
    async fn a_list_is_the_same_document_in_one_piece_and_in_many() {
        let budget = AnswerBudget::new(10_000_000);
        let frame = json!({"before": "[x]", "data": {"items": [], "other": []}, "last": 1});

        for items in [vec![], vec!["a".to_owned()], vec!["x".repeat(50_000); 7]] {
            let mut expected = frame.clone();
            expected["data"]["items"] = json!(items);
            for bytes in [0, SMALL + 1] {
                let share = budget.share(&everybody(), bytes).await.unwrap();
                let list = RenderedJson::list(&frame, items.clone(), bytes, share);
                assert_eq!(text(list.unwrap()).await, expected);
            }
        }
    }

    #[tokio::test]
    async fn a_large_text_is_the_same_and_keeps_its_share_until_it_is_sent() {
        use axum::body::HttpBody;

        let budget = AnswerBudget::new(1024 * 1024);
        let written = json!({"text": "x".repeat(900 * 1024)});
        let share = budget.share(&everybody(), 900 * 1024).await.unwrap();
        let mut answer = RenderedJson::<Value>::write(&written, share).unwrap();

        let length = written.to_string().len() as u64;
        assert_eq!(answer.body.size_hint().exact(), Some(length));
        let mut read = Vec::new();
        while !answer.body.is_end_stream() {
            assert!(budget.try_share(900 * 1024).is_none());
            let frame =
                std::future::poll_fn(|context| Pin::new(&mut answer.body).poll_frame(context));
            read.extend(frame.await.unwrap().unwrap().into_data().unwrap());
        }
        assert_eq!(serde_json::from_slice::<Value>(&read).unwrap(), written);

        drop(answer);
        assert!(budget.try_share(900 * 1024).is_some());
    }

    #[tokio::test]
    async fn what_an_answer_does_not_need_of_its_share_is_free_again() {
        let budget = AnswerBudget::new(1024 * 1024);
        let share = budget.share(&everybody(), 1024 * 1024).await.unwrap();
        let written = json!({"text": "x".repeat(100 * 1024)});

        let answer = RenderedJson::<Value>::write(&written, share).unwrap();

        assert!(budget.try_share(900 * 1024).is_some());
        assert!(budget.try_share(950 * 1024).is_none());
        drop(answer);
    }

    #[tokio::test]
    async fn the_answers_to_one_token_take_half_of_it_at_most() {
        let budget = AnswerBudget::new(1024 * 1024);
        let of = |name: &str| {
            let name = TokenName::new(name).unwrap();
            let part = budget.part_of(&name);
            AnswerBudget {
                own: Some(part),
                ..budget.clone()
            }
        };

        let first = of("slow").try_share(400 * 1024).unwrap();
        assert!(of("slow").try_share(200 * 1024).is_none());
        let other = of("other").try_share(500 * 1024).unwrap();
        drop((first, other));

        let large = of("slow").try_share(900 * 1024).unwrap();
        assert!(of("slow").try_share(100 * 1024).is_none());
        let large = large.shrunk_to(100 * 1024);
        assert!(of("slow").try_share(400 * 1024).is_some());
        drop(large);
        assert_eq!(budget.all.available_permits(), 1024);
    }

    #[tokio::test(start_paused = true)]
    async fn large_answers_wait_for_each_other_and_are_refused_in_the_end() {
        let budget = AnswerBudget::new(1024 * 1024);
        let first = budget.share(&everybody(), 800 * 1024).await.unwrap();

        assert!(
            budget.share(&everybody(), FREE).await.is_ok(),
            "a small one"
        );
        let refused = budget.share(&everybody(), 400 * 1024).await.unwrap_err();
        assert_eq!(refused.problem().code, ErrorCode::Overloaded);
        assert!(budget.try_share(400 * 1024).is_none());

        drop(first);
        assert!(budget.share(&everybody(), 400 * 1024).await.is_ok());
    }
}
