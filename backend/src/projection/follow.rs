//! The loop that keeps the projection up to date: reads the stream from the first message it has not seen, through broker
//! outages of any length, and notices when the stream itself was replaced.

use std::time::Duration;

use async_nats::jetstream::consumer::{DeliverPolicy, push};
use async_nats::jetstream::stream::Info;
use futures::stream::TryReadyChunksError;
use futures::{StreamExt, TryStreamExt};
use ktrdr_bus::nats::Connection;
use ktrdr_bus::oplog::stream_time;
use ktrdr_bus::topology::{self, Role};

use super::Projection;
use super::decode::decode;
use crate::config::Config;

/// Most messages applied under one lock. A reader waits for at most one such batch.
const BATCH: usize = 512;

/// How often the stream is asked what it still holds.
const LOOK: Duration = Duration::from_secs(5);

/// Pause before reading is tried again.
const PAUSE: Duration = Duration::from_millis(500);

/// How often a stream that seems to have become shorter is set_measured at again before that is believed.
const SECOND_LOOKS: u32 = 6;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Follows the stream until the task is dropped.
pub async fn run(projection: &Projection, connection: &Connection, config: &Config) {
    let mut incarnation = None;
    loop {
        connection.up().await;
        if let Err(error) = follow(projection, connection, config, &mut incarnation).await {
            tracing::warn!(error = %error, sequence = projection.applied(), "reading the stream was interrupted; going on");
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// When the stream that was read was created: another time means another stream.
type Incarnation = Option<i128>;

async fn follow(
    projection: &Projection,
    connection: &Connection,
    config: &Config,
    incarnation: &mut Incarnation,
) -> Result<(), Error> {
    let names = &config.nats.subject_prefix;
    let mut link = connection.link.clone();
    link.mark_unchanged();
    let mut info = look(connection, config).await?;
    // A server that has just become the stream's leader may not have read its own log to the end. A stream that was emptied
    // and made anew has another time of creation, and one that a backup brought back stays as short as it is.
    for _ in 0..SECOND_LOOKS {
        if *incarnation != Some(info.created.unix_timestamp_nanos())
            || !replaced(projection, &info, incarnation)
        {
            break;
        }
        tokio::time::sleep(PAUSE).await;
        info = look(connection, config).await?;
    }
    if replaced(projection, &info, incarnation) {
        tracing::warn!("the stream is not the one that was read before; starting from nothing");
        projection.reset();
    }
    *incarnation = Some(info.created.unix_timestamp_nanos());
    note_room(projection, &info);
    projection.forget_before(info.state.first_sequence);
    let from = projection
        .applied()
        .max(info.state.first_sequence.saturating_sub(1))
        + 1;
    let target = info.state.last_sequence;
    projection.heard_of(target);
    let stream = connection
        .jetstream
        .get_stream_no_info(names.stream())
        .await?;
    let consumer = stream
        .create_consumer(push::OrderedConfig {
            deliver_subject: connection.client.new_inbox(),
            description: Some("KTRDR backend projection".to_owned()),
            deliver_policy: DeliverPolicy::ByStartSequence {
                start_sequence: from,
            },
            ..push::OrderedConfig::default()
        })
        .await?;
    if from > target {
        projection.caught_up();
    }
    tracing::info!(from, to = target, "reading the stream");
    // The consumer may be on a server that lags behind the stream's leader: its "nothing more" is not believed at once.
    let mut pending = consumer.cached_info().num_pending;
    let mut messages = consumer.messages().await?.try_ready_chunks(BATCH);
    let mut look_again = tokio::time::interval(LOOK);
    look_again.reset();
    loop {
        // All arms are cancel safe: a chunk is built within one poll, the others only tell that something is due.
        tokio::select! {
            chunk = messages.next() => {
                let Some(chunk) = chunk else { return Ok(()) };
                let (chunk, failure) = match chunk {
                    Ok(chunk) => (chunk, None),
                    Err(TryReadyChunksError(before, failure)) => (before, Some(failure)),
                };
                let mut batch = Vec::with_capacity(chunk.len());
                let mut newest = 0;
                for message in chunk {
                    let info = message.info()?;
                    let sequence = info.stream_sequence;
                    // The client's consumer, when it has to start anew before the first message, starts at the beginning.
                    if sequence <= projection.applied() {
                        return Ok(());
                    }
                    pending = info.pending;
                    newest = sequence + pending;
                    let stored_at = stream_time(info.published);
                    let async_nats::Message { subject, payload, .. } = message.message;
                    projection.room.add_message(sequence, subject.len(), payload.len());
                    batch.push(decode(names, sequence, stored_at, subject, &payload));
                }
                projection.heard_of(newest);
                projection.take(batch);
                if projection.applied() >= target {
                    projection.caught_up();
                }
                if let Some(failure) = failure {
                    return Err(failure.into());
                }
            }
            // A consumer does not survive its connection. Starting anew at once is faster than waiting for it to be missed.
            changed = link.changed() => {
                changed?;
                return Ok(());
            }
            _ = look_again.tick() => {
                let info = look(connection, config).await?;
                if replaced(projection, &info, incarnation) {
                    return Ok(());
                }
                note_room(projection, &info);
                projection.heard_of(info.state.last_sequence);
                projection.forget_before(info.state.first_sequence);
                // The last message was removed by hand, or has expired: nothing will ever be delivered under its sequence.
                if pending == 0 {
                    projection.caught_up();
                }
            }
        }
    }
}

fn note_room(projection: &Projection, info: &Info) {
    projection.room.set_measured(
        info.config.max_bytes,
        info.state.bytes,
        info.state.last_sequence,
    );
}

fn replaced(projection: &Projection, info: &Info, incarnation: &Incarnation) -> bool {
    let created = info.created.unix_timestamp_nanos();
    incarnation.is_some_and(|known| known != created)
        || info.state.last_sequence < projection.applied()
}

/// What the stream holds. One that has vanished is made anew, so that starts are accepted again.
async fn look(connection: &Connection, config: &Config) -> Result<Info, Error> {
    let names = &config.nats.subject_prefix;
    match connection.jetstream.get_stream(names.stream()).await {
        Ok(stream) => Ok(stream.cached_info().clone()),
        Err(error) => {
            use async_nats::jetstream::{ErrorCode, context::GetStreamErrorKind};
            let gone = matches!(error.kind(), GetStreamErrorKind::JetStream(ref e) if e.error_code() == ErrorCode::STREAM_NOT_FOUND);
            if !gone {
                return Err(error.into());
            }
            tracing::error!(
                stream = names.stream(),
                "the stream has vanished; making a new one"
            );
            topology::ensure(
                &connection.jetstream,
                names,
                &config.protocol,
                Role::Backend,
            )
            .await?;
            Ok(connection
                .jetstream
                .get_stream(names.stream())
                .await?
                .cached_info()
                .clone())
        }
    }
}
