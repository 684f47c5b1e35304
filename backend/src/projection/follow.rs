//! Keeps the projection up to date.
//!
//! The problem: the projection must show every message of the stream exactly once and in order,
//! through outages of any length, and it must notice when the stream itself was replaced: deleted
//! and created again, or restored from a backup.
//!
//! How it is solved: the stream is read by an ordered consumer from the first message that the
//! projection has not applied. Whatever interrupts the reading, it starts again from there, and
//! messages that were applied already are never applied twice. On every start, and every few
//! seconds, the stream is asked about itself. Another time of creation, or a last sequence below
//! the one that was applied, means another stream, and the projection starts from nothing.
//!
//! In a cluster, the consumer is on any of the servers. When that one is frozen, the others answer and
//! no message comes. So every second the follower looks whether it lags and gets nothing ([`Silence`]).
//! The client library notices after ten seconds, when it misses the consumer's heartbeats.
//!
//! Rejected: a durable consumer. Its position would be state outside of the memory it describes,
//! and each backend would need one of its own.

use std::time::Duration;

use async_nats::jetstream::Message;
use async_nats::jetstream::consumer::{DeliverPolicy, push};
use async_nats::jetstream::stream::Info;
use futures::stream::{TryReadyChunks, TryReadyChunksError};
use futures::{StreamExt, TryStreamExt};
use ktrdr_bus::nats::Connection;
use ktrdr_bus::oplog::{OpLog, stream_time};
use ktrdr_bus::topology;
use ktrdr_protocol::subject::SubjectNames;
use tokio::time::MissedTickBehavior;

use super::Projection;
use super::decode::decode;
use crate::settings_in_force::SettingsInForce;
use crate::stream_position::next_sequence;

/// Messages applied under one lock, at most. A request that reads waits for one such batch.
const MAX_BATCH: usize = 512;

/// How often the stream is asked about itself.
const INFO_INTERVAL: Duration = Duration::from_secs(5);

/// Pause before reading is tried again.
const PAUSE: Duration = Duration::from_millis(500);

/// How often a stream that seems to have become shorter is asked again before that is believed.
const REPLACEMENT_CHECKS: u32 = 6;

/// How often the follower looks whether messages come.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Looks without a new message, while there are some, after which reading starts again.
const SILENT_LOOKS: u32 = 3;

/// The same, at most: reading that starts again and again does not get on.
const MOST_SILENT_LOOKS: u32 = 60;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Follows the stream until the task is dropped.
pub async fn run(
    projection: &Projection,
    connection: &Connection,
    names: &SubjectNames,
    settings: &SettingsInForce,
) {
    let mut follower = Follower {
        projection,
        connection,
        names,
        settings,
        created: None,
        silence: Silence::default(),
    };
    loop {
        // A consumer does not survive its connection. Starting again at once is faster than to wait
        // until the client library misses it.
        if let Some(Err(error)) = connection.while_up(Box::pin(follower.follow())).await {
            projection.reader.note_failure(&*error);
            tracing::warn!(%error, sequence = projection.applied(), "reading the stream was interrupted; trying again");
            tokio::time::sleep(PAUSE).await;
        }
    }
}

struct Follower<'a> {
    projection: &'a Projection,
    connection: &'a Connection,
    names: &'a SubjectNames,
    settings: &'a SettingsInForce,
    /// When the stream that is read was created, in nanoseconds: its identity.
    created: Option<i128>,
    silence: Silence,
}

/// Whether messages come, look by look.
struct Silence {
    /// What was applied at the last look.
    applied: u64,
    /// Looks since then at which something was missing.
    looks: u32,
    /// Looks that are patience enough.
    patience: u32,
}

impl Default for Silence {
    fn default() -> Self {
        Self {
            applied: 0,
            looks: 0,
            patience: SILENT_LOOKS,
        }
    }
}

impl Silence {
    /// Notes one look. True when messages are missing and none has come for too long. The next silence is
    /// borne for twice as long, unless messages have come.
    fn is_too_long(&mut self, applied: u64, lag: u64) -> bool {
        if applied != self.applied || lag == 0 {
            *self = Self {
                applied,
                ..Self::default()
            };
            return false;
        }
        self.looks += 1;
        if self.looks < self.patience {
            return false;
        }
        self.looks = 0;
        self.patience = (self.patience * 2).min(MOST_SILENT_LOOKS);
        true
    }
}

/// The stream while it is read.
struct LiveStream {
    messages: TryReadyChunks<push::Ordered>,
    /// The last sequence when reading began. The projection is loaded once it has applied it.
    target: u64,
    /// Messages that the consumer has not delivered yet.
    pending: u64,
}

impl Follower<'_> {
    /// Reads until the stream was replaced or the consumer ended.
    async fn follow(&mut self) -> Result<(), Error> {
        self.look_at_the_clock().await;
        let info = self.settled_info().await?;
        self.accept_stream(&info);
        let mut stream = self.open(&info).await?;
        self.projection.reader.note_success();

        let mut info_due = tokio::time::interval(INFO_INTERVAL);
        info_due.reset();
        // A process that stood still looks once, not once for each second that it has missed.
        let mut look_due = tokio::time::interval(LOOK_INTERVAL);
        look_due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // All arms are cancel safe: a chunk is built within one poll, and the others only
            // signal.
            tokio::select! {
                chunk = stream.messages.next() => {
                    let Some(chunk) = chunk else { return Ok(()) };
                    let (chunk, failure) = match chunk {
                        Ok(chunk) => (chunk, None),
                        Err(TryReadyChunksError(before, failure)) => (before, Some(failure)),
                    };
                    if !self.apply(&chunk, &mut stream)? {
                        return Ok(());
                    }
                    if let Some(failure) = failure {
                        return Err(failure.into());
                    }
                }
                _ = look_due.tick() => {
                    let (applied, lag) = (self.projection.applied(), self.projection.lag());
                    if self.silence.is_too_long(applied, lag) && self.has_more(applied).await? {
                        return Err("the server does not deliver what the stream holds".into());
                    }
                }
                _ = info_due.tick() => {
                    self.look_at_the_clock().await;
                    let info = self.info().await?;
                    if self.is_replaced(&info) {
                        return Ok(());
                    }
                    self.note_info(&info);
                    // The last message was removed by hand or has expired: its sequence will never
                    // be delivered.
                    if stream.pending == 0 {
                        self.set_caught_up();
                    }
                }
            }
        }
    }

    /// The stream's own description, asked for again while it may be wrong.
    ///
    /// A server that has just become the stream's leader may not have read its own log to the end,
    /// and then reports too low a last sequence. A stream that was deleted and created again has
    /// another time of creation; one that was brought back from a backup stays as short as it is.
    async fn settled_info(&self) -> Result<Info, Error> {
        let mut info = self.info().await?;
        for _ in 0..REPLACEMENT_CHECKS {
            let is_same_stream = self.created == Some(info.created.unix_timestamp_nanos());
            if !is_same_stream || !self.is_replaced(&info) {
                break;
            }
            tokio::time::sleep(PAUSE).await;
            info = self.info().await?;
        }
        Ok(info)
    }

    /// The stream's own information. A stream that has vanished is created again, so that starts
    /// are accepted again.
    async fn info(&self) -> Result<Info, Error> {
        use async_nats::jetstream::{ErrorCode, context::GetStreamErrorKind};

        let name = self.names.stream();
        let jetstream = &self.connection.jetstream;
        let error = match jetstream.get_stream(&name).await {
            Ok(stream) => return Ok(stream.cached_info().clone()),
            Err(error) => error,
        };

        let has_vanished = matches!(error.kind(), GetStreamErrorKind::JetStream(ref e) if e.error_code() == ErrorCode::STREAM_NOT_FOUND);
        if !has_vanished {
            return Err(error.into());
        }
        tracing::error!(stream = name, "the stream has vanished; creating it again");
        // With the settings that were in force: what this backend was asked for may differ.
        topology::ensure(jetstream, self.names, &self.settings.get()).await?;
        Ok(jetstream.get_stream(&name).await?.cached_info().clone())
    }

    /// Whether the stream holds a message behind this one. The newest ones may have been removed.
    async fn has_more(&self, applied: u64) -> Result<bool, Error> {
        let next = next_sequence(self.connection, self.names.stream(), applied).await?;
        Ok(next.is_some())
    }

    /// Takes over the time of the server: only the stream's own clock says whose retention is over.
    async fn look_at_the_clock(&self) {
        let log = OpLog::new(self.connection.jetstream.clone(), self.names.clone());
        match log.clock().await {
            Ok(now) => self.projection.clock.set(now),
            // A stream that has vanished is noticed, and made again, by the next question.
            Err(error) => tracing::debug!(%error, "the stream's clock cannot be read"),
        }
    }

    /// The projection is loaded. What is over is forgotten first, so nobody sees it.
    fn set_caught_up(&self) {
        if !self.projection.is_caught_up() {
            self.projection.forget_over(self.settings.get().retention);
            self.projection.set_caught_up();
        }
    }

    /// Whether `info` describes another stream than the one that was read.
    fn is_replaced(&self, info: &Info) -> bool {
        let created = info.created.unix_timestamp_nanos();
        self.created.is_some_and(|known| known != created)
            || info.state.last_sequence < self.projection.applied()
    }

    /// Reads the stream that `info` describes from now on, from its beginning if it is another one.
    fn accept_stream(&mut self, info: &Info) {
        if self.is_replaced(info) {
            self.note_replacement(info);
            self.projection.reset();
        }
        let created = info.created.unix_timestamp_nanos();
        self.created = Some(created);
        self.projection.set_stream(created);
        self.note_info(info);
    }

    /// Says that what was read is gone, and how much.
    fn note_replacement(&self, info: &Info) {
        let (before, now) = (self.projection.applied(), info.state.last_sequence);
        if self.created == Some(info.created.unix_timestamp_nanos()) {
            self.projection.losses.tails.inc();
            tracing::warn!(
                last_sequence_before = before,
                last_sequence_now = now,
                lost = before.saturating_sub(now),
                "the stream has lost its newest messages: the server was restored from a copy, or its files are damaged; reading it from its beginning"
            );
        } else {
            self.projection.losses.streams.inc();
            tracing::warn!(
                last_sequence_before = before,
                last_sequence_now = now,
                "the stream was replaced by another one; reading it from its beginning"
            );
        }
    }

    /// Takes over what `info` says about the stream's size and its first and last messages.
    fn note_info(&self, info: &Info) {
        let state = &info.state;
        self.settings.note_stream(&info.config);
        self.projection
            .room
            .set_measured(info.config.max_bytes, state.bytes, state.last_sequence);
        self.projection.note_stream_end(state.last_sequence);
        let retention = self.settings.get().retention;
        // Not before: another start request with the id of an operation that is over may follow, and
        // would look like a new one.
        if self.projection.is_caught_up() {
            self.projection.forget_over(retention);
        }
        self.projection
            .forget_before(state.first_sequence, retention);
    }

    /// Begins to read from the first message that was not applied.
    async fn open(&self, info: &Info) -> Result<LiveStream, Error> {
        let target = info.state.last_sequence;
        let before_first = info.state.first_sequence.saturating_sub(1);
        let from = self.projection.applied().max(before_first) + 1;

        let stream = self
            .connection
            .jetstream
            .get_stream_no_info(self.names.stream())
            .await?;
        let consumer = stream
            .create_consumer(push::OrderedConfig {
                deliver_subject: self.connection.client.new_inbox(),
                description: Some("KTRDR backend projection".to_owned()),
                deliver_policy: DeliverPolicy::ByStartSequence {
                    start_sequence: from,
                },
                ..push::OrderedConfig::default()
            })
            .await?;
        if from > target {
            self.set_caught_up();
        }
        tracing::info!(from, to = target, "reading the stream");

        Ok(LiveStream {
            // The consumer may be on a server that lags behind the stream's leader, so "nothing
            // pending" is not believed at once.
            pending: consumer.cached_info().num_pending,
            messages: consumer.messages().await?.try_ready_chunks(MAX_BATCH),
            target,
        })
    }

    /// Applies messages. Returns false when they are not the ones that follow: reading must start
    /// anew.
    fn apply(&self, chunk: &[Message], stream: &mut LiveStream) -> Result<bool, Error> {
        let mut batch = Vec::with_capacity(chunk.len());
        let mut stream_end = 0;
        for message in chunk {
            let info = message.info()?;
            let sequence = info.stream_sequence;
            // When the client library recreates a consumer before its first message, the new one
            // starts from the beginning of the stream.
            if sequence <= self.projection.applied() {
                return Ok(false);
            }
            stream.pending = info.pending;
            stream_end = sequence + info.pending;
            let (subject, payload) = (message.subject.as_str(), &message.payload);
            self.projection
                .room
                .add_message(sequence, subject.len(), payload.len());
            let stored_at = stream_time(info.published);
            batch.push(decode(self.names, sequence, stored_at, subject, payload));
        }

        self.projection.note_stream_end(stream_end);
        self.projection.apply_batch(batch);
        if self.projection.applied() >= stream.target {
            self.set_caught_up();
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_silence_that_lasts_while_messages_are_missing_is_too_long() {
        let mut silence = Silence::default();
        let mut looks = |applied, lag, count: u32| {
            (0..count)
                .filter(|_| silence.is_too_long(applied, lag))
                .count()
        };

        // Nothing is missing; then messages come.
        assert_eq!(looks(7, 0, 100), 0);
        for applied in 8..20 {
            assert_eq!(looks(applied, 5, 2), 0);
        }
        // The first look notes where the projection is.
        assert_eq!(looks(20, 5, 1 + SILENT_LOOKS), 1);
        assert_eq!(looks(20, 5, SILENT_LOOKS * 2), 1);
        assert_eq!(looks(20, 5, SILENT_LOOKS * 4 - 1), 0);
        // A message has come.
        assert_eq!(looks(21, 5, 1 + SILENT_LOOKS), 1);
    }
}
