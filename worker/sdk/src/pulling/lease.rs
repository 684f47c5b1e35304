//! The lease on a start request: extending it, acknowledging the request, handing it back. No other
//! module sends acks.
//!
//! The problem: the server finds a request by its stream sequence alone. An ack, nak or extension
//! does not say which attempt sent it, so one from a lost attempt would hit the request that
//! another worker is working on.
//!
//! The solution: a caller of [`Lease::ack`], [`Lease::nak`] or [`Lease::extend`] knows from the log
//! that the attempt is still its own, or that the operation has ended (see [`crate::attempt`]). In
//! addition, a request is handed back only while the lease surely lasts and the connection is up.
//!
//! Rejected: acks that name the attempt. JetStream does not have them.

use std::collections::HashMap;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream::{self, AckKind};
use ktrdr_protocol::id::Queue;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

/// Longest delay of a request that is handed back. The server cannot read one of centuries, and delivers
/// the request again at once, over and over. What comes back too soon is handed back again.
const MAX_DELAY: Duration = Duration::from_secs(24 * 3600);

/// A lease that could not be extended.
#[derive(Debug, thiserror::Error)]
#[error("the lease on the start request could not be extended")]
pub(crate) struct ExtendError(#[source] async_nats::Error);

/// How long the leases of the queues last. A queue's lease may change while its requests are held.
#[derive(Debug, Default)]
pub(crate) struct LeaseDurations(Mutex<HashMap<Queue, watch::Sender<Duration>>>);

impl LeaseDurations {
    /// Takes what the list of queues says.
    pub(crate) fn set(&self, queue: &Queue, duration: Duration) {
        let mut known = self.0.lock();
        let Some(sender) = known.get(queue) else {
            known.insert(queue.clone(), watch::Sender::new(duration));
            return;
        };
        let is_changed = sender.send_if_modified(|known| {
            let is_changed = *known != duration;
            *known = duration;
            is_changed
        });
        if is_changed {
            tracing::info!(%queue, ?duration, "the lease has changed");
        }
    }

    /// The lease of a queue, and its changes. `unlisted` for a queue that was never listed.
    pub(crate) fn of(&self, queue: &Queue, unlisted: Duration) -> watch::Receiver<Duration> {
        let mut known = self.0.lock();
        known
            .entry(queue.clone())
            .or_insert_with(|| watch::Sender::new(unlisted))
            .subscribe()
    }
}

/// The lease on one start request. A direct start has a lease without a request, because no queue
/// would deliver it again.
pub(crate) struct Lease {
    message: Option<jetstream::Message>,
    duration: watch::Receiver<Duration>,
    /// When the last confirmed extension was sent; before the first one, when the request arrived.
    confirmed: Mutex<Instant>,
}

impl Lease {
    /// The lease of a delivered request. `duration` is that of its queue.
    pub(crate) fn of(message: jetstream::Message, duration: watch::Receiver<Duration>) -> Self {
        Self {
            message: Some(message),
            duration,
            confirmed: Mutex::new(Instant::now()),
        }
    }

    /// The lease of a direct start, for which nothing is ever sent.
    pub(crate) fn none(duration: Duration) -> Self {
        Self {
            message: None,
            duration: watch::Sender::new(duration).subscribe(),
            confirmed: Mutex::new(Instant::now()),
        }
    }

    /// Whether there is a request that can be handed back to its queue.
    pub(crate) fn is_queued(&self) -> bool {
        self.message.is_some()
    }

    /// How long the lease lasts without an extension.
    pub(crate) fn duration(&self) -> Duration {
        *self.duration.borrow()
    }

    /// Tells when the duration changes.
    pub(crate) fn changes(&self) -> watch::Receiver<Duration> {
        self.duration.clone()
    }

    /// When the lease should be extended next: after a third of its duration.
    pub(crate) fn extend_at(&self) -> Instant {
        *self.confirmed.lock() + self.duration() / 3
    }

    /// Whether the lease may have run out, because this process was suspended or cut off for too
    /// long. The log must be read before anything else is said about the request.
    pub(crate) fn is_stale(&self) -> bool {
        self.is_queued() && self.confirmed.lock().elapsed() >= self.duration()
    }

    /// Extends the lease and waits for the server's confirmation.
    ///
    /// # Errors
    /// [`ExtendError`] when the server did not confirm. The lease then ends when it would have
    /// ended before.
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

    /// Acknowledges the request. Does not wait for a confirmation: if the ack is lost, the request
    /// is delivered again, and the worker that receives it reads that the operation has ended.
    pub(crate) async fn ack(&self) {
        self.send(AckKind::Ack).await;
    }

    /// Hands the request back, to be delivered again after `delay`, or after a day when that is longer.
    ///
    /// Does nothing when the lease may have run out: another worker may have been given the
    /// request, and the nak would take it away. Without a connection it does nothing either,
    /// because the nak would wait in the client until it is too late. The request then comes again
    /// when the lease ends.
    pub(crate) async fn nak(&self, delay: Option<Duration>) {
        let connected = self
            .message
            .as_ref()
            .is_some_and(|message| is_connected(&message.context));
        if self.is_stale() || !connected {
            tracing::debug!("the request is not handed back; it comes again when the lease ends");
            return;
        }
        self.send(AckKind::Nak(delay.map(|delay| delay.min(MAX_DELAY))))
            .await;
    }

    /// Removes a message that is not a start request from the queue.
    pub(crate) async fn terminate(&self) {
        self.send(AckKind::Term).await;
    }

    async fn send(&self, kind: AckKind) {
        if let Some(message) = &self.message
            && let Err(error) = message.ack_with(kind).await
        {
            // The lease will run out, and the request will be delivered again.
            tracing::debug!(%error, "an ack could not be sent");
        }
    }
}

/// Hands a request back at once, because no slot is free for it.
pub(crate) async fn hand_back(message: jetstream::Message) {
    if is_connected(&message.context) {
        Lease::of(message, watch::Sender::new(Duration::ZERO).subscribe())
            .send(AckKind::Nak(None))
            .await;
    }
}

fn is_connected(context: &jetstream::Context) -> bool {
    context.client().connection_state() == State::Connected
}
