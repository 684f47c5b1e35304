//! Whether a stream is still the one that it was.

use std::time::Duration;

use async_nats::jetstream::context::Context;

use crate::topology::{TopologyError, nats};

/// How often it is looked whether a stream was replaced.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Which stream it is: the time of its creation, in nanoseconds. A stream that was deleted and made
/// again has the same name and another identity.
///
/// # Errors
/// [`TopologyError`] when NATS does not answer, or there is no such stream.
pub async fn identity(jetstream: &Context, stream: &str) -> Result<i128, TopologyError> {
    let found = jetstream.get_stream(stream).await;
    let found = found.map_err(|error| nats(&format!("stream {stream}"), error))?;
    Ok(found.cached_info().created.unix_timestamp_nanos())
}

/// Resolves when the stream has another identity. Who watches the old one hears nothing of the new
/// one, and gets no error.
pub async fn replaced(jetstream: &Context, stream: &str, known: i128) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        if matches!(identity(jetstream, stream).await, Ok(found) if found != known) {
            tracing::warn!(stream, "the stream was deleted and made again");
            return;
        }
    }
}
