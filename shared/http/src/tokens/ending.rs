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
