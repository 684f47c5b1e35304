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
//! handed back at once.
//!
//! Rejected: a buffer of requests, because their leases would run while they wait. Rejected: one
//! task per queue, because a shared counter of free slots would race with the pulls.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use async_nats::jetstream;
use ktrdr_bus::oplog::stream_time;
use ktrdr_protocol::claim;
use ktrdr_protocol::id::Queue;
use ktrdr_protocol::trace::{self, TraceParent};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::attempt::trust::Proof;
use crate::pulling::inbox::{Arrival, PullInbox};
use crate::pulling::lease::{Lease, hand_back};
use crate::worker::core::Core;

/// A pull is delayed while it would ask for less than this fraction of all slots (one sixteenth).
const BATCH_FRACTION: usize = 16;

/// How long a pull may be delayed so that it can ask for more slots at once.
const BATCH_DELAY: Duration = Duration::from_millis(1);

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
    /// Takes a slot; `None` when all are taken or the worker is stopping.
    pub(crate) async fn take(&self) -> Option<Slot> {
        let (sender, receiver) = oneshot::channel();
        self.0.send(sender).await.ok()?;
        receiver.await.ok().flatten()
    }
}

/// A queue this worker serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServedQueue {
    pub(crate) queue: Queue,
    pub(crate) consumer: String,
    /// How long a delivered request belongs to this worker without an extension.
    pub(crate) lease: Duration,
}

/// Fills slots until stopped.
pub(crate) struct Puller<F> {
    core: Arc<Core>,
    queues: watch::Receiver<Vec<ServedQueue>>,
    run: F,
    free: usize,
    returns: (mpsc::UnboundedSender<()>, mpsc::UnboundedReceiver<()>),
    requests: mpsc::Receiver<oneshot::Sender<Option<Slot>>>,
    pulls: BTreeMap<Queue, QueuePulls>,
    /// When a delayed pull must be sent.
    delayed_until: Option<Instant>,
    refresh: Arc<tokio::sync::Notify>,
}

/// The pulls of one queue.
struct QueuePulls {
    settings: ServedQueue,
    inbox: PullInbox,
    /// Since when there are free slots without a pull.
    unpulled_since: Option<Instant>,
    /// No pull is sent before this moment, because the last one was refused.
    pause_until: Option<Instant>,
}

impl QueuePulls {
    fn new(settings: ServedQueue, inbox: PullInbox) -> Self {
        Self {
            settings,
            inbox,
            unpulled_since: None,
            pause_until: None,
        }
    }

    /// Whether no pull may be sent yet.
    fn is_paused(&mut self) -> bool {
        self.pause_until = self.pause_until.filter(|until| Instant::now() < *until);
        self.pause_until.is_some()
    }

    /// How many requests to ask for now, when `free` of all `slots` are free.
    ///
    /// A pull costs the server more than handing out a request, so a worker with many slots sends
    /// one pull for several of them. It asks only when at least half of its slots have no pull: a
    /// request that waits in the server is then covered by the other half. No free slot waits
    /// longer than [`BATCH_DELAY`].
    fn missing(&mut self, free: usize, slots: usize) -> usize {
        let missing = free.saturating_sub(self.inbox.outstanding());
        if missing == 0 || self.inbox.outstanding() > slots / 2 {
            self.unpulled_since = None;
            return 0;
        }

        let since = *self.unpulled_since.get_or_insert_with(Instant::now);
        if missing < slots / BATCH_FRACTION && since.elapsed() < BATCH_DELAY {
            return 0;
        }

        self.unpulled_since = None;
        missing
    }
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
            core,
            queues,
            run,
            free,
            returns,
            requests,
            pulls: BTreeMap::new(),
            delayed_until: None,
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
            if std::mem::take(&mut queues_changed) || self.pulls.len() != self.queues.borrow().len()
            {
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
                () = tokio::time::sleep_until(wake_at.unwrap_or_else(Instant::now)), if wake_at.is_some() => self.wake(),
            }
        }

        for (_, served) in std::mem::take(&mut self.pulls) {
            close(&self.core, served.inbox).await;
        }
    }

    /// Opens an inbox for every queue that is served and closes those that no longer are.
    async fn sync_queues(&mut self) {
        let wanted: Vec<ServedQueue> = self.queues.borrow_and_update().clone();
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

        let priority = u8::from(!self.core.capabilities.gpu);
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
            let Some(QueuePulls {
                settings, inbox, ..
            }) = self.pulls.remove(&queue)
            else {
                continue;
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
    }

    async fn reserve(&mut self, reply: oneshot::Sender<Option<Slot>>) {
        let slot = self.take_slot();
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
        [paused, self.delayed_until, overdue]
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
