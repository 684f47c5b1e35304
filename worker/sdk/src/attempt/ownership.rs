//! Decides whether an attempt is still its worker's, and so whether a late worker may finish. No
//! other module decides it.
//!
//! The problem: a worker that was suspended, or cut off from NATS for longer than its lease, does
//! not notice that another worker has taken its operation over. It must not finish the operation
//! then, it must not extend a lease that now belongs to its successor, and its engine should stop
//! soon.
//!
//! The solution: the operation's log decides. [`OwnedAttempt`] knows the sequence of its own
//! `started` event. The attempt is lost as soon as another event of the operation follows it.
//!
//! - [`OwnedAttempt::end`] publishes the end of the attempt and expects that sequence, so JetStream
//!   refuses the end of a lost attempt.
//! - [`OwnedAttempt::verify`] reads the log from that sequence on.
//! - [`Guard`] verifies before every lease extension and whenever something is heard on the
//!   operation's subject, and stops the engine of a lost attempt.
//! - [`owner_check`] verifies on behalf of the engine, before an effect that others can see. No
//!   later step refuses that effect, so it asks the leader of the stream.
//!
//! Rejected: believing what is heard live on the operation's subject. The live copy of a publish
//! arrives before JetStream has stored it, and JetStream may still refuse it. Rejected: trusting
//! the lease. The server finds a request's lease by the request alone, so an extension sent by a
//! lost attempt succeeds and keeps its successor's lease.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use ktrdr_bus::oplog::{AppendError, ReadLogError};
use ktrdr_bus::telemetry::chain;
use ktrdr_protocol::event::{Event, EventKind};
use ktrdr_protocol::id::OperationId;
use ktrdr_protocol::state::FoldedLog;
use tokio::time::Instant;

use crate::attempt::stop::{Lost, StopReason};
use crate::engine::context::OwnerCheck;
use crate::engine::error::OperationError;
use crate::pulling::lease::Lease;
use crate::worker::core::Core;
use crate::worker::running::AttemptHandle;

/// Operations shorter than this are not watched. Watching costs a subscription each, and the end of
/// an attempt that was lost unnoticed is refused anyway.
const WATCH_AFTER: Duration = Duration::from_secs(1);

/// Pause before the log is read again, or the lease is extended again, after NATS did not answer.
const RETRY: Duration = Duration::from_millis(500);

/// A claimed attempt: the proof that this process owned the operation when it claimed it.
#[derive(Debug, Clone)]
pub(crate) struct OwnedAttempt {
    pub(crate) operation_id: OperationId,
    pub(crate) attempt: u32,
    /// Unique to this claim.
    pub(crate) claim_id: String,
    /// Sequence of the `started` event. Nobody else can publish its successor unnoticed.
    pub(crate) sequence: u64,
}

/// Why ownership was not confirmed.
#[derive(Debug)]
pub(crate) enum NotVerified {
    /// The log says that the attempt is lost.
    Lost(Lost),
    /// NATS did not answer: the attempt may be lost or not.
    Unknown(ReadLogError),
}

/// Why an end is not in the log.
#[derive(Debug)]
pub(crate) enum NotEnded {
    /// The attempt is lost, so its end was refused.
    Lost(Lost),
    /// The event itself cannot be stored: it is too large, or is not JSON.
    Unstorable(AppendError),
}

impl OwnedAttempt {
    /// Ends the attempt with `kind`: a terminal event, or `released`. Keeps trying through an
    /// outage of any length.
    ///
    /// # Errors
    /// [`NotEnded`] when the attempt is lost, or the event itself cannot be stored.
    pub(crate) async fn end(&self, core: &Core, kind: EventKind) -> Result<(), NotEnded> {
        let event = Event::by_worker(
            &core.worker_id,
            &self.claim_id,
            &self.operation_id,
            self.attempt,
            kind,
        );

        let mut expected = self.sequence;
        loop {
            let appended = core
                .oplog
                .append(&core.worker_type, &event, expected, Duration::MAX)
                .await;
            match appended {
                Ok(_) => return Ok(()),
                Err(AppendError::Conflict(log)) => {
                    self.check(&log).map_err(NotEnded::Lost)?;
                    // A message that is not a valid event moved the tail. The attempt is still
                    // ours.
                    expected = log.tail;
                }
                Err(error) => return Err(NotEnded::Unstorable(error)),
            }
        }
    }

    /// Reads the operation's log and checks that the attempt is still this process's own.
    ///
    /// # Errors
    /// [`NotVerified::Lost`] when it is not; [`NotVerified::Unknown`] when NATS does not answer.
    pub(crate) async fn verify(&self, core: &Core) -> Result<(), NotVerified> {
        let log = core
            .oplog
            .read_from(&core.worker_type, &self.operation_id, self.sequence)
            .await
            .map_err(NotVerified::Unknown)?;

        self.check(&log).map_err(NotVerified::Lost)
    }

    /// Like [`Self::verify`], but no copy of the stream that lags can confirm what is over: asks the
    /// leader first how far the log reaches.
    ///
    /// # Errors
    /// As [`Self::verify`].
    async fn verify_now(&self, core: &Core) -> Result<(), NotVerified> {
        let (worker_type, id) = (&core.worker_type, &self.operation_id);
        let tail = core.oplog.newest_tail(worker_type, id).await;
        let tail = tail.map_err(NotVerified::Unknown)?;
        if tail == self.sequence {
            return Ok(());
        }

        let reach = tail.max(self.sequence);
        let log = core.oplog.read_from(worker_type, id, reach).await;
        let log = log.map_err(NotVerified::Unknown)?;
        self.check(&log).map_err(NotVerified::Lost)
    }

    /// The rule itself: the attempt is ours for as long as our own `started` is the last event.
    fn check(&self, log: &FoldedLog) -> Result<(), Lost> {
        let is_ours = log.last.as_ref().is_some_and(|last| {
            matches!(last.kind, EventKind::Started { .. })
                && last.claim_id.as_deref() == Some(self.claim_id.as_str())
        });

        if is_ours {
            Ok(())
        } else {
            Err(Lost {
                terminal: log.state.status.is_terminal(),
            })
        }
    }

    /// Whether what was heard on the operation's subject is no news: an event of this attempt, or the
    /// empty message of somebody who asks how far the log reaches.
    fn is_no_news(&self, payload: &[u8]) -> bool {
        payload.is_empty() || self.published(payload)
    }

    fn published(&self, payload: &[u8]) -> bool {
        Event::decode(payload)
            .is_ok_and(|event| event.claim_id.as_deref() == Some(self.claim_id.as_str()))
    }
}

/// The check behind [`crate::Context::ensure_owner`]. Waits while NATS is away.
pub(crate) fn owner_check(
    core: Arc<Core>,
    handle: Arc<AttemptHandle>,
    owned: OwnedAttempt,
) -> OwnerCheck {
    Box::new(move || {
        let (core, handle, owned) = (core.clone(), handle.clone(), owned.clone());
        Box::pin(async move {
            loop {
                match owned.verify_now(&core).await {
                    Ok(()) => return Ok(()),
                    Err(NotVerified::Lost(lost)) => {
                        handle.stop(StopReason::Lost(lost));
                        return Err(OperationError::Cancelled);
                    }
                    Err(NotVerified::Unknown(_)) if handle.cancel.is_cancelled() => {
                        return Err(OperationError::Cancelled);
                    }
                    Err(NotVerified::Unknown(_)) => {
                        // The engine waits for NATS; it does not hang.
                        handle.report.alive();
                        tokio::time::sleep(RETRY).await;
                    }
                }
            }
        })
    })
}

/// Extends the lease of one attempt and watches its operation's subject, from the claim until the
/// end is recorded.
pub(crate) struct Guard<'a> {
    pub(crate) core: &'a Arc<Core>,
    pub(crate) handle: &'a Arc<AttemptHandle>,
    pub(crate) owned: &'a OwnedAttempt,
    pub(crate) lease: &'a Lease,
}

/// When the log is read again although nothing new was heard: a stream that lags may store an event
/// only after it was heard. Each further read comes after twice the pause.
#[derive(Clone, Copy)]
struct Recheck {
    at: Instant,
    next_pause: Duration,
}

impl Recheck {
    fn now() -> Self {
        Self {
            at: Instant::now(),
            next_pause: RETRY,
        }
    }

    /// The recheck after this one; none when its pause would be longer than the lease.
    fn following(self, lease: Duration) -> Option<Self> {
        let next = Self {
            at: Instant::now() + self.next_pause,
            next_pause: self.next_pause * 2,
        };
        (next.next_pause < lease).then_some(next)
    }
}

impl Guard<'_> {
    /// Guards the attempt until dropped. Once the attempt is lost, the engine is asked to stop and
    /// the lease is no longer extended.
    pub(crate) async fn keep(&self) -> Infallible {
        if let Some(lost) = self.keep_until_lost().await {
            tracing::warn!(
                terminal = lost.terminal,
                "the operation went on without this attempt; stopping the engine"
            );
            self.handle.stop(StopReason::Lost(lost));
        }
        std::future::pending().await
    }

    /// Resolves when the attempt is lost; with `None` when the subject can no longer be watched.
    async fn keep_until_lost(&self) -> Option<Lost> {
        // The lease is as old as the delivery: a claim that took long has used some of it.
        let mut extend_at = self.lease.extend_at();
        tokio::time::sleep_until(extend_at.min(Instant::now() + WATCH_AFTER)).await;

        let subject = self
            .core
            .names
            .operation(&self.core.worker_type, &self.owned.operation_id);
        let mut events = match self.core.connection.client.subscribe(subject).await {
            Ok(events) => events,
            Err(error) => {
                tracing::error!(%error, "cannot listen on the operation's subject");
                return None;
            }
        };
        let mut link = self.core.connection.link.clone();
        let mut durations = self.lease.changes();

        // Only a read finds what was published before the subscription, or during an interruption.
        let mut must_read = true;
        let mut recheck: Option<Recheck> = None;
        loop {
            // The log is read before every extension: the server finds a lease by the request
            // alone, so an extension sent by a lost attempt would keep its successor's lease for
            // ever. A live event proves nothing: it is heard before it is stored, and it may never
            // be stored.
            let extension_due = Instant::now() >= extend_at || self.lease.is_stale();
            let recheck_due = recheck.is_some_and(|recheck| Instant::now() >= recheck.at);
            if must_read || extension_due || recheck_due {
                // Boxed because it is rare, as every operation has a guard.
                let asked = Instant::now();
                match Box::pin(self.owned.verify(self.core)).await {
                    Ok(()) => {
                        self.check_lease(asked.elapsed());
                        must_read = false;
                        recheck =
                            recheck.and_then(|recheck| recheck.following(self.lease.duration()));
                    }
                    Err(NotVerified::Lost(lost)) => return Some(lost),
                    Err(NotVerified::Unknown(error)) => {
                        tracing::debug!(
                            error = chain(&error),
                            "cannot read whether the attempt still owns the operation; trying again"
                        );
                        tokio::time::sleep(RETRY).await;
                        continue;
                    }
                }
            }

            if extension_due {
                let pause = self.extend_lease().await;
                extend_at = Instant::now() + pause;
            }

            // Cancel safe: subscriptions and watches keep what was not taken from them.
            let wake_at = recheck.map_or(extend_at, |recheck| recheck.at.min(extend_at));
            tokio::select! {
                message = events.next() => match message {
                    Some(message) if self.owned.is_no_news(&message.payload) => {}
                    Some(_) => recheck = Some(Recheck::now()),
                    None => {
                        tracing::error!("the subscription on the operation's subject ended");
                        return None;
                    }
                },
                Ok(()) = link.changed() => must_read = true,
                // A shorter lease holds for this request, too.
                Ok(()) = durations.changed() => extend_at = extend_at.min(self.lease.extend_at()),
                () = tokio::time::sleep_until(wake_at) => {}
            }
        }
    }

    /// Warns when the server takes too long to answer for the lease of this attempt.
    fn check_lease(&self, round_trip: Duration) {
        let trips = &self.core.connection.round_trips;
        trips.note(round_trip);
        if self.lease.is_queued()
            && let Some(needed) = trips.needed_lease(self.lease.duration())
            && let Some(count) = self.core.short_lease.note()
        {
            tracing::warn!(
                ?round_trip, lease = ?self.lease.duration(), ?needed, count,
                "the lease is too short for this network: the operation may be taken over although it runs. Raise it with `ktrdr-backend configure --lease`"
            );
        }
    }

    /// Extends the lease; returns the pause before the next extension.
    async fn extend_lease(&self) -> Duration {
        let third = self.lease.duration() / 3;
        if self.lease.is_queued() {
            self.core.counters.extensions.inc();
        }

        match self.lease.extend().await {
            Ok(()) => third,
            Err(error) => {
                self.core.counters.failed_extensions.inc();
                tracing::warn!(
                    error = chain(&error),
                    "the lease could not be extended; trying again"
                );
                RETRY.min(third)
            }
        }
    }
}
