//! Keeping an attempt alive from the claim until its end is recorded, and noticing when it is no longer this process's own.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use ktrdr_bus::telemetry::chain;
use ktrdr_protocol::event::Event;
use tokio::time::Instant;

use crate::attempt::claim::{Claimer, Ended, Hold};
use crate::pulling::lease::Lease;
use crate::worker::core::{Core, Counters};
use crate::worker::running::{Execution, StopReason};

/// Operations shorter than this are not watched: listening costs a subscription each, and an attempt that lost its
/// operation unheard is refused when it publishes its end.
const WATCH_AFTER: Duration = Duration::from_secs(1);
/// Pause after an extension that was not confirmed.
const RETRY: Duration = Duration::from_millis(500);

/// Extends the lease of one attempt and listens on its operation's subject.
pub(crate) struct Guard<'a> {
    pub(crate) core: &'a Arc<Core>,
    pub(crate) execution: &'a Arc<Execution>,
    pub(crate) hold: &'a Hold,
    pub(crate) lease: &'a Lease,
    pub(crate) claimer: &'a Claimer<'a>,
}

impl Guard<'_> {
    /// Keeps the attempt until dropped. Once it is lost the engine is asked to stop and nothing is extended any more.
    pub(crate) async fn keep(&self) -> Infallible {
        self.keep_until_lost().await;
        std::future::pending().await
    }

    async fn keep_until_lost(&self) {
        let third = self.lease.duration() / 3;
        // The lease is as old as the delivery: a claim that took long has used some of it.
        let mut extend_at = self.lease.extend_at();
        tokio::time::sleep_until(extend_at.min(Instant::now() + WATCH_AFTER)).await;
        let subject = self
            .core
            .names
            .operation(&self.core.worker_type, &self.hold.operation_id);
        let mut events = match self.core.connection.client.subscribe(subject).await {
            Ok(events) => events,
            Err(error) => {
                return tracing::error!(%error, "cannot listen on the operation's subject");
            }
        };
        let mut link = self.core.connection.link.clone();
        // What was published before the subscription, or while there was no connection, is only found by reading.
        let mut unsure = true;
        // Looked at again then, and how much later after that.
        let mut doubt: Option<(Instant, Duration)> = None;
        loop {
            // The server looks extensions up by the request alone: one of an attempt that was taken over would keep its
            // successor's alive for ever. So none is sent before the log was read. (What is heard is no proof: it is heard
            // before it is stored, and sometimes it never is.)
            let due = Instant::now() >= extend_at || self.lease.is_stale();
            if unsure || due || doubt.is_some_and(|(at, _)| Instant::now() >= at) {
                match self.claimer.verify(self.hold).await {
                    Ok(None) => {
                        unsure = false;
                        doubt = doubt
                            .map(|(_, pause)| (Instant::now() + pause, pause * 2))
                            .filter(|(_, pause)| *pause < self.lease.duration());
                    }
                    Ok(Some(lost)) => return self.lost(&lost),
                    Err(error) => {
                        tracing::debug!(
                            error = chain(&error),
                            "cannot tell yet whether the operation is still ours"
                        );
                        tokio::time::sleep(RETRY).await;
                        continue;
                    }
                }
            }
            if due {
                if self.lease.is_queued() {
                    Counters::add(&self.core.counters.extensions);
                }
                let pause = match self.lease.extend().await {
                    Ok(()) => third,
                    Err(error) => {
                        Counters::add(&self.core.counters.failed_extensions);
                        tracing::warn!(error = chain(&error), "trying again");
                        RETRY.min(third)
                    }
                };
                extend_at = Instant::now() + pause;
            }
            // Cancel safe: subscriptions and watches keep what was not taken from them.
            tokio::select! {
                message = events.next() => match message {
                    Some(message) if self.is_own(&message.payload) => {}
                    // A stream that lags stores it only later.
                    Some(_) => doubt = Some((Instant::now(), RETRY)),
                    None => return tracing::error!("the subscription on the operation's subject ended"),
                },
                Ok(()) = link.changed() => unsure = true,
                () = tokio::time::sleep_until(doubt.map_or(extend_at, |(at, _)| at.min(extend_at))) => {}
            }
        }
    }

    fn is_own(&self, payload: &[u8]) -> bool {
        Event::decode(payload)
            .is_ok_and(|event| event.claim_id.as_deref() == Some(self.hold.claim_id.as_str()))
    }

    fn lost(&self, ended: &Ended) {
        let Ended::Fenced { terminal } = ended else {
            return;
        };
        tracing::warn!(
            terminal,
            "the operation went on without this attempt; stopping the engine"
        );
        self.execution.stop(StopReason::Fenced {
            terminal: *terminal,
        });
    }
}
