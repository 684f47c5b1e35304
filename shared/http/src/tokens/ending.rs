//! Ends answers that are still being sent when the token of their request is revoked.

use axum::body::{Body, HttpBody};
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;
use futures::{StreamExt, stream};

use super::principal::Principal;

/// The token of a request was revoked while its answer was sent.
#[derive(Debug, thiserror::Error)]
#[error("the token of this request was revoked")]
struct Revoked;

/// The answer to a request of `principal`. When its token is revoked before the answer was sent to
/// its end, a stream of events ends, and every other answer breaks the connection, so that no
/// client takes a part for the whole. An answer that is in memory as a whole stays as it is.
#[must_use]
pub fn until_revoked(answer: Response, principal: &Principal) -> Response {
    if principal.name().is_none() || answer.body().size_hint().exact().is_some() {
        return answer;
    }
    let content_type = answer.headers().get(CONTENT_TYPE);
    let has_events = content_type.is_some_and(|value| value == "text/event-stream");
    let principal = principal.clone();

    answer.map(|body| {
        let pieces = Some(body.into_data_stream());
        let pieces = stream::unfold((pieces, principal), move |(pieces, principal)| async move {
            let mut pieces = pieces?;
            // Dropping either arm loses nothing: a piece that is not ready stays in the stream.
            let piece = tokio::select! {
                biased;
                () = principal.until_revoked() => None,
                piece = pieces.next() => Some(piece?),
            };
            match piece {
                Some(piece) => Some((piece, (Some(pieces), principal))),
                None if has_events => None,
                None => Some((Err(axum::Error::new(Revoked)), (None, principal))),
            }
        });
        Body::from_stream(pieces)
    })
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;

    use axum::http::HeaderValue;
    use ktrdr_protocol::token_name::TokenName;

    use super::super::file::{Digest, Entry};
    use super::super::principal::KnownToken;
    use super::super::scope::Scopes;
    use super::*;

    fn token() -> (Arc<KnownToken>, Principal) {
        let entry = Entry {
            name: TokenName::new("leaver").unwrap(),
            digest: Digest::of(b"t"),
            scopes: Scopes::default(),
            types: None,
            expires: None,
        };
        let token = Arc::new(KnownToken::new(entry));
        (Arc::clone(&token), Principal::known(token))
    }

    /// One piece, and then nothing for ever.
    fn endless() -> Response {
        let piece = stream::iter([Ok::<_, Infallible>("piece")]);
        Response::new(Body::from_stream(piece.chain(stream::pending())))
    }

    #[tokio::test]
    async fn an_answer_that_is_being_sent_breaks_off() {
        let (token, principal) = token();
        let mut pieces = until_revoked(endless(), &principal)
            .into_body()
            .into_data_stream();
        assert_eq!(pieces.next().await.unwrap().unwrap(), "piece");

        token.revoked.cancel();

        assert!(pieces.next().await.unwrap().is_err());
        assert!(pieces.next().await.is_none());
    }

    #[tokio::test]
    async fn a_stream_of_events_ends() {
        let (token, principal) = token();
        let mut events = endless();
        let content_type = HeaderValue::from_static("text/event-stream");
        events.headers_mut().insert(CONTENT_TYPE, content_type);

        token.revoked.cancel();

        let mut pieces = until_revoked(events, &principal)
            .into_body()
            .into_data_stream();
        assert!(pieces.next().await.is_none());
    }

    #[tokio::test]
    async fn an_answer_in_memory_stays_whole() {
        let (token, principal) = token();
        token.revoked.cancel();

        let answer = until_revoked(Response::new(Body::from("whole")), &principal);

        let bytes = axum::body::to_bytes(answer.into_body(), 100).await.unwrap();
        assert_eq!(bytes, "whole");
    }
}
