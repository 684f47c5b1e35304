//! Slots, and filling them: one request is pulled per free slot, from every queue this worker
//! serves.
//!
//! The problem: a worker has a fixed number of slots and serves several queues. It must never take
//! more requests than it has slots: a request that waits inside a worker waits although another
//! worker may be free. Queues, direct starts and shutdown compete for the same slots.
//!
//! The solution: one task owns the slots and all pulls, so "is a slot free?" has one answer. Every
//! queue may be asked for as many requests as there are free slots. When a slot is taken, surplus
//! pulls are taken back ([`PullInbox::close`]). A request that arrives without a free slot is
//! handed back at once. Queues of several priorities are asked in order first ([`super::levels`]).
//!
//! Rejected: a buffer of requests, because their leases would run while they wait. Rejected: one
//! task per queue, because a shared counter of free slots would race with the pulls.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::task::Poll;

use async_nats::jetstream;
use ktrdr_bus::oplog::stream_time;
use ktrdr_protocol::claim;
use ktrdr_protocol::id::Queue;
use ktrdr_protocol::priority::Priority;
use ktrdr_protocol::time::Timestamp;
use ktrdr_protocol::trace::{self, TraceParent};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::attempt::trust::Proof;
use crate::pulling::inbox::{Arrival, PullInbox};
use crate::pulling::lease::{Lease, hand_back};
use crate::pulling::levels::{Round, Rounds};
use crate::pulling::queue_pulls::{BATCH_DELAY, BATCH_FRACTION, QueuePulls, ServedQueue};
use crate::worker::core::Core;

/// The right to run one operation. Dropping it returns it to the puller.
pub(crate) struct Slot {
    returns: mpsc::UnboundedSender<()>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let _ = self.returns.send(());
    }
}

/// A start request with a slot to run it in.
pub(crate) struct PulledRequest {
    pub(crate) slot: Slot,
    pub(crate) queue: Queue,
    pub(crate) payload: bytes::Bytes,
    pub(crate) delivery: claim::DeliveryInfo,
    /// When the stream stored it.
    pub(crate) stored_at: Timestamp,
    pub(crate) lease: Lease,
    /// The trace that the start belongs to.
    pub(crate) trace: Option<TraceParent>,
    /// What its signature is checked against; `None` when this worker checks none.
    pub(crate) proof: Option<Box<Proof>>,
}

/// Asks the puller for slots on behalf of direct starts.
#[derive(Clone)]
pub(crate) struct SlotRequests(mpsc::Sender<oneshot::Sender<Option<Slot>>>);

impl SlotRequests {
    /// Takes a slot; `None` when all are taken, or the worker drains or is stopping.
    pub(crate) async fn take(&self) -> Option<Slot> {
        let (sender, receiver) = oneshot::channel();
        self.0.send(sender).await.ok()?;
        receiver.await.ok().flatten()
    }
}

/// Fills slots until stopped.
pub(crate) struct Puller<F> {
    core: Arc<Core>,
    queues: watch::Receiver<Vec<ServedQueue>>,
    draining: watch::Receiver<bool>,
    run: F,
    free: usize,
    returns: (mpsc::UnboundedSender<()>, mpsc::UnboundedReceiver<()>),
    requests: mpsc::Receiver<oneshot::Sender<Option<Slot>>>,
    pulls: BTreeMap<Queue, QueuePulls>,
    /// When a delayed pull must be sent.
    delayed_until: Option<Instant>,
    rounds: Rounds,
    /// The round through the priorities that is under way.
    round: Option<Round>,
    refresh: Arc<tokio::sync::Notify>,
}

impl<F: FnMut(PulledRequest)> Puller<F> {
    /// A puller that hands every request to `run`, and the handle for direct starts. It notifies
    /// `refresh` when a consumer seems to be gone.
    pub(crate) fn new(
        core: Arc<Core>,
        queues: watch::Receiver<Vec<ServedQueue>>,
        refresh: Arc<tokio::sync::Notify>,
        run: F,
    ) -> (Self, SlotRequests) {
        let (sender, requests) = mpsc::channel(16);
        let free = usize::try_from(core.slots).unwrap_or(1);
        let returns = mpsc::unbounded_channel();
        let puller = Self {
            draining: core.draining.subscribe(),
            core,
            queues,
            run,
            free,
            returns,
            requests,
            pulls: BTreeMap::new(),
            delayed_until: None,
            rounds: Rounds::default(),
            round: None,
            refresh,
        };
        (puller, SlotRequests(sender))
    }

    /// Pulls until `stop` is cancelled, then takes all pulls back.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut link = self.core.connection.link.clone();
        let mut epoch = link.borrow_and_update().epoch;
        let mut queues_changed = true;
        loop {
            if std::mem::take(&mut queues_changed) || self.pulls.len() != self.wanted_queues() {
                self.sync_queues().await;
            }

            // Read here and not in the select arm below: another arm can win, and this read marks
            // the change as seen.
            let now = *link.borrow_and_update();
            if now.up && now.epoch != epoch {
                epoch = now.epoch;
                self.discard_pulls().await;
                queues_changed = true;
                continue;
            }
            if now.up {
                self.pull_for_free_slots().await;
            }

            let wake_at = self.wake_at();
            // Every arm is cancel safe: channels and subscribers keep what was not taken from them.
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(()) = self.returns.1.recv() => {
                    self.free += 1;
                    while self.returns.1.try_recv().is_ok() {
                        self.free += 1;
                    }
                }
                Some(reply) = self.requests.recv() => self.reserve(reply).await,
                (queue, arrival) = next_arrival(&mut self.pulls) => self.handle_arrival(queue, arrival).await,
                Ok(()) = link.changed() => {}
                Ok(()) = self.queues.changed() => queues_changed = true,
                Ok(()) = self.draining.changed() => queues_changed = true,
                () = tokio::time::sleep_until(wake_at.unwrap_or_else(Instant::now)), if wake_at.is_some() => self.wake(),
            }
        }

        for (_, served) in std::mem::take(&mut self.pulls) {
            close(&self.core, served.inbox).await;
        }
    }

    /// How many queues to pull from. A worker that drains pulls from none.
    fn wanted_queues(&self) -> usize {
        if *self.draining.borrow() {
            0
        } else {
            self.queues.borrow().len()
        }
    }

    /// Opens an inbox for every queue that is served and closes those that no longer are.
    async fn sync_queues(&mut self) {
        let served = self.queues.borrow_and_update().clone();
        let wanted = if *self.draining.borrow_and_update() {
            Vec::new()
        } else {
            served
        };
        let gone: Vec<Queue> = self
            .pulls
            .keys()
            .filter(|queue| !wanted.iter().any(|w| w.queue == **queue))
            .cloned()
            .collect();
        for queue in gone {
            if let Some(served) = self.pulls.remove(&queue) {
                close(&self.core, served.inbox).await;
            }
        }

        for settings in wanted {
            if let Some(served) = self.pulls.get_mut(&settings.queue) {
                served.settings = settings;
                continue;
            }
            let stream = self.core.names.stream();
            match PullInbox::open(
                self.core.connection.client.clone(),
                &stream,
                &settings.consumer,
            )
            .await
            {
                Ok(inbox) => {
                    self.pulls
                        .insert(settings.queue.clone(), QueuePulls::new(settings, inbox));
                }
                Err(error) => tracing::error!(%error, "cannot listen for start requests"),
            }
        }
    }

    /// Sends pulls until every queue is asked for as many requests as there are free slots.
    async fn pull_for_free_slots(&mut self) {
        self.delayed_until = None;
        self.take_back_surplus().await;
        if !self.have_all_levels_answered().await {
            return;
        }

        let priority = self.pull_priority();
        for served in self.pulls.values_mut() {
            if served.is_paused() {
                continue;
            }
            let missing = served.missing(self.free, self.core.slots as usize);
            let delayed_until = served.unpulled_since.map(|since| since + BATCH_DELAY);
            self.delayed_until = [self.delayed_until, delayed_until]
                .into_iter()
                .flatten()
                .min();
            if missing > 0 && served.inbox.pull(missing, priority).await.is_ok() {
                *self.core.last_pull.lock() = Some(Instant::now());
                self.core.counters.pulls.inc();
            }
        }
    }

    /// GPU workers come first.
    fn pull_priority(&self) -> u8 {
        u8::from(!self.core.capabilities.gpu)
    }

    /// Asks the queues in the order of their priorities. True when pulls that wait may be opened: none of
    /// the queues has anything, or all have the same priority.
    async fn have_all_levels_answered(&mut self) -> bool {
        let levels: BTreeSet<Priority> = self
            .pulls
            .values()
            .map(|served| served.settings.priority)
            .collect();
        // Pulls that wait at all queues say that there is nothing in them.
        let waits_everywhere = self
            .pulls
            .values()
            .all(|served| served.inbox.outstanding() > 0 || served.pause_until.is_some());
        let is_asking = self.round.is_some();
        if levels.len() < 2 || self.free == 0 || (waits_everywhere && !is_asking) {
            self.round = None;
            return true;
        }

        let mut round = match self.round.take() {
            Some(round) => round,
            None => self.rounds.next(levels.into_iter().collect()),
        };
        loop {
            if self.is_unanswered(&round) {
                if round
                    .patience_ends()
                    .is_some_and(|ends| Instant::now() < ends)
                {
                    self.round = Some(round);
                    return false;
                }
                for queue in round.asked().to_vec() {
                    self.take_back(queue).await;
                }
            }
            let Some(level) = round.next_level() else {
                return true;
            };
            self.ask_level(level, &mut round).await;
        }
    }

    fn is_unanswered(&self, round: &Round) -> bool {
        round.asked().iter().any(|queue| {
            self.pulls
                .get(queue)
                .is_some_and(|served| served.inbox.outstanding() > 0)
        })
    }

    /// Asks the queues of one priority for what they have now.
    async fn ask_level(&mut self, level: Priority, round: &mut Round) {
        let priority = self.pull_priority();
        for (queue, served) in &mut self.pulls {
            // An open pull says that the queue has nothing.
            let is_open = served.inbox.outstanding() > 0;
            if served.settings.priority != level || is_open || served.is_paused() {
                continue;
            }
            if served.inbox.pull_now(self.free, priority).await.is_ok() {
                *self.core.last_pull.lock() = Some(Instant::now());
                self.core.counters.pulls.inc();
                round.note_asked(queue.clone());
            }
        }
    }

    /// Takes back the pulls of queues that are asked for more requests than there are free slots,
    /// because another queue or a direct start was faster.
    ///
    /// A small surplus is allowed while slots are free: taking pulls back costs far more than
    /// handing back a request.
    async fn take_back_surplus(&mut self) {
        let allowed_surplus = if self.free > 0 {
            self.core.slots as usize / BATCH_FRACTION
        } else {
            0
        };

        let surplus: Vec<Queue> = self
            .pulls
            .iter()
            .filter(|(_, served)| served.inbox.outstanding() > self.free + allowed_surplus)
            .map(|(queue, _)| queue.clone())
            .collect();
        for queue in surplus {
            self.take_back(queue).await;
        }
    }

    /// Takes back the pulls of a queue.
    async fn take_back(&mut self, queue: Queue) {
        let Some(QueuePulls {
            settings, inbox, ..
        }) = self.pulls.remove(&queue)
        else {
            return;
        };

        close(&self.core, inbox).await;
        let stream = self.core.names.stream();
        if let Ok(inbox) = PullInbox::open(
            self.core.connection.client.clone(),
            &stream,
            &settings.consumer,
        )
        .await
        {
            self.pulls.insert(queue, QueuePulls::new(settings, inbox));
        }
    }

    /// Discards all pulls after a reconnect: they waited inside the server of the old connection.
    /// Requests that had arrived before are still run.
    async fn discard_pulls(&mut self) {
        let mut arrived = Vec::new();
        for (queue, served) in &mut self.pulls {
            let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
            while let Poll::Ready(Some(arrival)) = served.inbox.poll_arrival(&mut cx) {
                arrived.push((queue.clone(), arrival));
            }
        }

        for (queue, arrival) in arrived {
            self.handle_arrival(queue, Some(arrival)).await;
        }

        self.pulls.clear();
        self.round = None;
    }

    async fn reserve(&mut self, reply: oneshot::Sender<Option<Slot>>) {
        let is_draining = *self.draining.borrow();
        let slot = if is_draining { None } else { self.take_slot() };
        if slot.is_some() {
            self.take_back_surplus().await;
        }
        // A caller that has left drops the slot, which returns it.
        let _ = reply.send(slot);
    }

    fn take_slot(&mut self) -> Option<Slot> {
        self.free = self.free.checked_sub(1)?;
        Some(Slot {
            returns: self.returns.0.clone(),
        })
    }

    async fn handle_arrival(&mut self, queue: Queue, arrival: Option<Arrival>) {
        match arrival {
            Some(Arrival::Request(message)) => {
                let message = jetstream::Message {
                    message,
                    context: self.core.connection.jetstream.clone(),
                };
                let Some(listed) = self.pulls.get(&queue).map(|served| served.settings.lease)
                else {
                    return hand_back(message).await;
                };
                let lease = self.core.leases.of(&queue, listed);

                let (delivery, stored_at) = match message.info() {
                    Ok(info) => {
                        let delivery = claim::DeliveryInfo {
                            start_sequence: info.stream_sequence,
                            count: u64::try_from(info.delivered).unwrap_or(1),
                        };
                        (delivery, stream_time(info.published))
                    }
                    Err(error) => {
                        tracing::warn!(%error, "ignoring a message on a pull inbox that is not a delivery");
                        return;
                    }
                };

                let Some(slot) = self.take_slot() else {
                    tracing::debug!(%queue, "no slot is free; handing the request back");
                    return hand_back(message).await;
                };

                let payload = message.payload.clone();
                let trace = message
                    .headers
                    .as_ref()
                    .and_then(|headers| headers.get(trace::HEADER));
                let trace = trace.and_then(|value| TraceParent::parse(value.as_str()));
                let proof = self.core.trusted.is_some().then(|| {
                    Box::new(Proof {
                        headers: message.headers.clone(),
                        stored_at,
                    })
                });
                (self.run)(PulledRequest {
                    slot,
                    queue,
                    payload,
                    delivery,
                    stored_at,
                    lease: Lease::of(message, lease),
                    trace,
                    proof,
                });
            }
            Some(Arrival::Status {
                retry_after: Some(pause),
            }) if !pause.is_zero() => {
                if let Some(served) = self.pulls.get_mut(&queue) {
                    served.pause_until = Some(Instant::now() + pause);
                }
                self.refresh.notify_one();
            }
            Some(Arrival::Status { .. }) => {}
            None => {
                self.pulls.remove(&queue);
            }
        }
    }

    /// The next moment at which the puller must act without being notified.
    fn wake_at(&self) -> Option<Instant> {
        let overdue = self
            .pulls
            .values()
            .filter(|served| served.inbox.outstanding() > 0)
            .map(|served| served.inbox.overdue_at())
            .min();
        let paused = self
            .pulls
            .values()
            .filter_map(|served| served.pause_until)
            .min();
        let unanswered = self.round.as_ref().and_then(Round::patience_ends);
        [paused, self.delayed_until, overdue, unanswered]
            .into_iter()
            .flatten()
            .min()
    }

    /// Clears what was due at [`Self::wake_at`], also without a connection: a moment that stayed
    /// due would make the loop spin.
    fn wake(&mut self) {
        let now = Instant::now();
        for served in self.pulls.values_mut() {
            served.is_paused();
        }
        self.delayed_until = None;
        self.discard_overdue(now);
    }

    /// Discards pulls that the server should have ended by now; new ones replace them.
    fn discard_overdue(&mut self, now: Instant) {
        self.pulls.retain(|queue, served| {
            let overdue = served.inbox.outstanding() > 0 && now >= served.inbox.overdue_at();
            if overdue {
                tracing::warn!(%queue, "a pull was lost; pulling again");
            }
            !overdue
        });
    }
}

/// Takes the pulls of an inbox back, and hands back the requests that arrived meanwhile.
async fn close(core: &Core, inbox: PullInbox) {
    for message in inbox.close().await {
        tracing::debug!("a request arrived while its pull was taken back; handing it back");
        hand_back(jetstream::Message {
            message,
            context: core.connection.jetstream.clone(),
        })
        .await;
    }
}

async fn next_arrival(pulls: &mut BTreeMap<Queue, QueuePulls>) -> (Queue, Option<Arrival>) {
    std::future::poll_fn(|cx| {
        for (queue, served) in pulls.iter_mut() {
            if let Poll::Ready(arrival) = served.inbox.poll_arrival(cx) {
                return Poll::Ready((queue.clone(), arrival));
            }
        }
        Poll::Pending
    })
    .await
}
