//! The lease on a start request: extending it, acknowledging it, handing it back. The only file that speaks acks.
//!
//! The server looks acks up by stream sequence alone: an ack, nak or extension of an attempt that was taken over would hit
//! the request another worker is working on. So whoever calls these knows that the operation's log is still its own, or has
//! ended: see [`crate::attempt::execute`].

use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream::{self, AckKind};
use parking_lot::Mutex;
use tokio::time::Instant;

/// A lease that could not be extended.
#[derive(Debug, thiserror::Error)]
#[error("the lease on the start request could not be extended")]
pub(crate) struct ExtendError(#[source] async_nats::Error);

/// The hold on one start request. Operations started directly on the worker have none: nobody would redeliver them.
pub(crate) struct Lease {
    message: Option<jetstream::Message>,
    duration: Duration,
    /// When the last extension that the server confirmed was sent, or the request was received.
    confirmed: Mutex<Instant>,
}

impl Lease {
    /// The lease that comes with a delivered request; `duration` is the consumer's `ack_wait`.
    pub(crate) fn of(message: jetstream::Message, duration: Duration) -> Self {
        Self {
            message: Some(message),
            duration,
            confirmed: Mutex::new(Instant::now()),
        }
    }

    /// No lease: the operation was started directly.
    pub(crate) fn none(duration: Duration) -> Self {
        Self {
            message: None,
            duration,
            confirmed: Mutex::new(Instant::now()),
        }
    }

    /// Whether a request stands behind it that can be handed back.
    pub(crate) fn is_queued(&self) -> bool {
        self.message.is_some()
    }

    /// How long it lasts without an extension.
    pub(crate) fn duration(&self) -> Duration {
        self.duration
    }

    /// When it should next be extended: a third of it after the last confirmed extension, or the delivery.
    pub(crate) fn extend_at(&self) -> Instant {
        *self.confirmed.lock() + self.duration / 3
    }

    /// Whether it may have run out: this process was stopped, or cut off, for too long. The log must be read before
    /// anything else is said about the request.
    pub(crate) fn is_stale(&self) -> bool {
        self.is_queued() && self.confirmed.lock().elapsed() >= self.duration
    }

    /// Extends it and waits for the server's confirmation.
    ///
    /// # Errors
    /// [`ExtendError`] when the server did not confirm; the lease goes on as it was.
    pub(crate) async fn extend(&self) -> Result<(), ExtendError> {
        let Some(message) = &self.message else {
            return Ok(());
        };
        let sent = Instant::now();
        message
            .double_ack_with(AckKind::Progress)
            .await
            .map_err(ExtendError)?;
        *self.confirmed.lock() = sent;
        Ok(())
    }

    /// Ends it: the request is done with. Not confirmed: should it be lost, the request comes again and is dropped by
    /// whoever reads that the operation has ended.
    pub(crate) async fn ack(&self) {
        self.say(AckKind::Ack).await;
    }

    /// Hands the request back, to be delivered again after `delay`. Left to the end of the lease when that may be near or
    /// over: another worker may have been given the request by then, and this would take it from that one. For the same
    /// reason it must not wait in the client until NATS is back.
    pub(crate) async fn nak(&self, delay: Option<Duration>) {
        let connected = self
            .message
            .as_ref()
            .is_some_and(|message| is_connected(&message.context));
        if self.is_stale() || !connected {
            tracing::debug!("the request is not handed back; it comes again when the lease ends");
            return;
        }
        self.say(AckKind::Nak(delay)).await;
    }

    /// Ends it for a message that is no start request and never will be.
    pub(crate) async fn terminate(&self) {
        self.say(AckKind::Term).await;
    }

    async fn say(&self, kind: AckKind) {
        if let Some(message) = &self.message
            && let Err(error) = message.ack_with(kind).await
        {
            // The connection is gone for good, or the lease will run out and redeliver the request.
            tracing::debug!(%error, "an ack could not be sent");
        }
    }
}

/// Hands a delivered message back at once, for a slot that was taken in the meantime.
pub(crate) async fn hand_back(message: jetstream::Message) {
    if is_connected(&message.context) {
        Lease::of(message, Duration::ZERO)
            .say(AckKind::Nak(None))
            .await;
    }
}

fn is_connected(context: &jetstream::Context) -> bool {
    context.client().connection_state() == State::Connected
}
