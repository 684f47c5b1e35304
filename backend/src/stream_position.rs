//! Asks the leader of a stream where it ends, and what follows a sequence.

use async_nats::jetstream::stream::RawMessageErrorKind;
use ktrdr_bus::nats::Connection;

/// The sequence of the first message behind `applied`, by the word of the stream's leader.
///
/// # Errors
/// When the leader does not answer.
pub async fn next_sequence(
    connection: &Connection,
    stream: String,
    applied: u64,
) -> Result<Option<u64>, async_nats::Error> {
    let stream = connection.jetstream.get_stream_no_info(stream).await?;
    let next = stream.raw_message_builder().sequence(applied + 1);
    match next.next_by_subject(">").send().await {
        Ok(message) => Ok(Some(message.sequence)),
        Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The last sequence of this stream; `None` when nobody answers.
pub async fn last_sequence(connection: &Connection, stream: String) -> Option<u64> {
    match connection.jetstream.get_stream(stream).await {
        Ok(stream) => Some(stream.cached_info().state.last_sequence),
        Err(error) => {
            tracing::debug!(%error, "a stream does not say where it ends");
            None
        }
    }
}
