//! Slots, and filling them: one request is pulled per free slot, from every queue this worker can serve.
//!
//! One task owns the slots, so "is one free?" has one answer for the queues, for direct starts and for shutdown. Nothing is
//! buffered: a request that arrives finds a free slot, or is handed back at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use async_nats::jetstream;
use ktrdr_protocol::claim;
use ktrdr_protocol::id::Queue;
use ktrdr_protocol::trace::{self, TraceParent};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::pulling::inbox::{Arrival, PullInbox};
use crate::pulling::lease::{Lease, hand_back};
use crate::worker::core::{Core, Counters};

/// The part of all slots that is asked for together.
const GATHER_PART: usize = 16;

/// How long a free slot waits for others to be asked for.
const GATHER: Duration = Duration::from_millis(1);

/// The right to run one operation; given back when dropped, whatever happens in between.
pub(crate) struct Slot {
    returns: mpsc::UnboundedSender<()>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let _ = self.returns.send(());
    }
}

/// A start request with a slot to run it in.
pub(crate) struct Delivery {
    pub(crate) slot: Slot,
    pub(crate) queue: Queue,
    pub(crate) payload: bytes::Bytes,
    pub(crate) delivery: claim::DeliveryInfo,
    pub(crate) lease: Lease,
    /// The trace that the start belongs to.
    pub(crate) trace: Option<TraceParent>,
}

/// Asks the puller for a slot that a direct start wants; `None` when all are taken or the worker is stopping.
#[derive(Clone)]
pub(crate) struct SlotRequests(mpsc::Sender<oneshot::Sender<Option<Slot>>>);

impl SlotRequests {
    /// A slot, if one is free.
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
    /// The consumer's `ack_wait`.
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
    inboxes: BTreeMap<Queue, Served>,
    /// No pulls before this moment: the last one was refused.
    pause_until: Option<Instant>,
    /// When free slots have waited long enough for others.
    look_again: Option<Instant>,
    refresh: Arc<tokio::sync::Notify>,
}

struct Served {
    settings: ServedQueue,
    inbox: PullInbox,
    /// Since when slots are free that were not asked for.
    short_since: Option<Instant>,
}

impl Served {
    fn new(settings: ServedQueue, inbox: PullInbox) -> Self {
        Self {
            settings,
            inbox,
            short_since: None,
        }
    }

    /// How many requests to ask for now, with so many of all slots free.
    ///
    /// Asking costs the server more than handing out a request. So a worker with many slots does not ask for each: only when
    /// half of its slots are not asked for (a request that waits in the server is always covered by the other half), and some
    /// of them together, though none waits for others longer than [`GATHER`].
    fn wanted(&mut self, free: usize, slots: usize) -> usize {
        let missing = free.saturating_sub(self.inbox.outstanding());
        if missing == 0 || self.inbox.outstanding() > slots / 2 {
            self.short_since = None;
            return 0;
        }
        let since = *self.short_since.get_or_insert_with(Instant::now);
        if missing < slots / GATHER_PART && since.elapsed() < GATHER {
            return 0;
        }
        self.short_since = None;
        missing
    }
}

impl<F: FnMut(Delivery)> Puller<F> {
    /// A puller for `core` that hands every request to `run`, and the handle for direct starts. `refresh` is notified when
    /// a consumer seems to be gone.
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
            inboxes: BTreeMap::new(),
            pause_until: None,
            look_again: None,
            refresh,
        };
        (puller, SlotRequests(sender))
    }

    /// Pulls until `stop`, then takes all pulls back.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut link = self.core.connection.link.clone();
        let mut epoch = link.borrow_and_update().epoch;
        let mut unsynced = true;
        loop {
            if std::mem::take(&mut unsynced) || self.inboxes.len() != self.queues.borrow().len() {
                self.sync_queues().await;
            }
            // Looked at here and not where the change is noticed: another arm can be quicker, and this marks it as seen.
            let now = *link.borrow_and_update();
            if now.up && now.epoch != epoch {
                epoch = now.epoch;
                self.start_over().await;
                unsynced = true;
                continue;
            }
            if now.up {
                self.top_up().await;
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
                (queue, arrival) = next_arrival(&mut self.inboxes) => self.arrived(queue, arrival).await,
                Ok(()) = link.changed() => {}
                Ok(()) = self.queues.changed() => unsynced = true,
                () = tokio::time::sleep_until(wake_at.unwrap_or_else(Instant::now)), if wake_at.is_some() => self.wake(),
            }
        }
        for (_, served) in std::mem::take(&mut self.inboxes) {
            close(&self.core, served.inbox).await;
        }
    }

    /// Opens an inbox for every queue that is served and closes those that no longer are.
    async fn sync_queues(&mut self) {
        let wanted: Vec<ServedQueue> = self.queues.borrow_and_update().clone();
        let gone: Vec<Queue> = self
            .inboxes
            .keys()
            .filter(|queue| !wanted.iter().any(|w| w.queue == **queue))
            .cloned()
            .collect();
        for queue in gone {
            if let Some(served) = self.inboxes.remove(&queue) {
                close(&self.core, served.inbox).await;
            }
        }
        for settings in wanted {
            if let Some(served) = self.inboxes.get_mut(&settings.queue) {
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
                    self.inboxes
                        .insert(settings.queue.clone(), Served::new(settings, inbox));
                }
                Err(error) => tracing::error!(%error, "cannot listen for start requests"),
            }
        }
    }

    /// Brings the pulls of every queue to the number of free slots.
    async fn top_up(&mut self) {
        if self.pause_until.is_some_and(|until| Instant::now() < until) {
            return;
        }
        (self.pause_until, self.look_again) = (None, None);
        self.shrink().await;
        let priority = if self.core.capabilities.gpu { 0 } else { 1 };
        for served in self.inboxes.values_mut() {
            let wanted = served.wanted(self.free, self.core.slots as usize);
            let look_again = served.short_since.map(|since| since + GATHER);
            self.look_again = [self.look_again, look_again].into_iter().flatten().min();
            if wanted > 0 && served.inbox.pull(wanted, priority).await.is_ok() {
                *self.core.last_pull.lock() = Some(Instant::now());
                Counters::add(&self.core.counters.pulls);
            }
        }
    }

    /// Takes back the pulls of queues that ask for more than there are free slots: another queue or a direct start was
    /// faster. While slots are free, a few more may be asked for than that: taking pulls back costs far more than handing
    /// back a request, so a worker with many slots and queues does not do it for each.
    async fn shrink(&mut self) {
        let spare = if self.free > 0 {
            self.core.slots as usize / GATHER_PART
        } else {
            0
        };
        let over: Vec<Queue> = self
            .inboxes
            .iter()
            .filter(|(_, served)| served.inbox.outstanding() > self.free + spare)
            .map(|(queue, _)| queue.clone())
            .collect();
        for queue in over {
            let Some(Served {
                settings, inbox, ..
            }) = self.inboxes.remove(&queue)
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
                self.inboxes.insert(queue, Served::new(settings, inbox));
            }
        }
    }

    /// Forgets all pulls: they waited inside the server that was connected to. What had arrived before is still run.
    async fn start_over(&mut self) {
        let mut arrived = Vec::new();
        for (queue, served) in &mut self.inboxes {
            let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
            while let Poll::Ready(Some(arrival)) = served.inbox.poll_arrival(&mut cx) {
                arrived.push((queue.clone(), arrival));
            }
        }
        for (queue, arrival) in arrived {
            self.arrived(queue, Some(arrival)).await;
        }
        self.inboxes.clear();
        self.pause_until = None;
    }

    async fn reserve(&mut self, reply: oneshot::Sender<Option<Slot>>) {
        let slot = self.take_slot();
        if slot.is_some() {
            self.shrink().await;
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

    async fn arrived(&mut self, queue: Queue, arrival: Option<Arrival>) {
        match arrival {
            Some(Arrival::Request(message)) => {
                let message = jetstream::Message {
                    message,
                    context: self.core.connection.jetstream.clone(),
                };
                let Some(lease) = self.inboxes.get(&queue).map(|served| served.settings.lease)
                else {
                    return hand_back(message).await;
                };
                let delivery = match message.info() {
                    Ok(info) => claim::DeliveryInfo {
                        start_sequence: info.stream_sequence,
                        count: u64::try_from(info.delivered).unwrap_or(1),
                    },
                    Err(error) => {
                        tracing::warn!(%error, "a message that is no delivery arrived on a pull inbox; ignored");
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
                (self.run)(Delivery {
                    slot,
                    queue,
                    payload,
                    delivery,
                    lease: Lease::of(message, lease),
                    trace,
                });
            }
            Some(Arrival::Status {
                again_after: Some(pause),
            }) if !pause.is_zero() => {
                self.pause_until = Some(Instant::now() + pause);
                self.refresh.notify_one();
            }
            Some(Arrival::Status { .. }) => {}
            None => {
                self.inboxes.remove(&queue);
            }
        }
    }

    /// When something has to be done though nothing happens.
    fn wake_at(&self) -> Option<Instant> {
        let overdue = self
            .inboxes
            .values()
            .filter(|served| served.inbox.outstanding() > 0)
            .map(|served| served.inbox.overdue_at())
            .min();
        [self.pause_until, self.look_again, overdue]
            .into_iter()
            .flatten()
            .min()
    }

    /// The moment of [`Self::wake_at`] has come. What was due is forgotten: without a connection nothing can be done about it,
    /// and nothing must be due for ever.
    fn wake(&mut self) {
        let now = Instant::now();
        self.pause_until = self.pause_until.filter(|until| now < *until);
        self.look_again = None;
        self.renew_overdue(now);
    }

    /// Forgets pulls whose end should have been heard of; new ones follow.
    fn renew_overdue(&mut self, now: Instant) {
        self.inboxes.retain(|queue, served| {
            let overdue = served.inbox.outstanding() > 0 && now >= served.inbox.overdue_at();
            if overdue {
                tracing::warn!(%queue, "a pull was lost; asking again");
            }
            !overdue
        });
    }
}

/// Takes the pulls of an inbox back and hands back what they brought.
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

async fn next_arrival(inboxes: &mut BTreeMap<Queue, Served>) -> (Queue, Option<Arrival>) {
    std::future::poll_fn(|cx| {
        for (queue, served) in inboxes.iter_mut() {
            if let Poll::Ready(arrival) = served.inbox.poll_arrival(cx) {
                return Poll::Ready((queue.clone(), arrival));
            }
        }
        Poll::Pending
    })
    .await
}
