//! The pulls of one queue: how many requests to ask for, and when.

use std::time::Duration;

use ktrdr_protocol::id::Queue;
use ktrdr_protocol::priority::Priority;
use tokio::time::Instant;

use crate::pulling::inbox::PullInbox;

/// A pull is delayed while it would ask for less than this fraction of all slots (one sixteenth).
pub(crate) const BATCH_FRACTION: usize = 16;

/// How long a pull may be delayed so that it can ask for more slots at once.
pub(crate) const BATCH_DELAY: Duration = Duration::from_millis(1);

/// A queue this worker serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServedQueue {
    pub(crate) queue: Queue,
    /// The priority of its operations.
    pub(crate) priority: Priority,
    pub(crate) consumer: String,
    /// How long a delivered request belongs to this worker without an extension.
    pub(crate) lease: Duration,
}

/// The pulls of one queue.
pub(crate) struct QueuePulls {
    pub(crate) settings: ServedQueue,
    pub(crate) inbox: PullInbox,
    /// Since when there are free slots without a pull.
    pub(crate) unpulled_since: Option<Instant>,
    /// No pull is sent before this moment, because the last one was refused.
    pub(crate) pause_until: Option<Instant>,
}

impl QueuePulls {
    pub(crate) fn new(settings: ServedQueue, inbox: PullInbox) -> Self {
        Self {
            settings,
            inbox,
            unpulled_since: None,
            pause_until: None,
        }
    }

    /// Whether no pull may be sent yet.
    pub(crate) fn is_paused(&mut self) -> bool {
        self.pause_until = self.pause_until.filter(|until| Instant::now() < *until);
        self.pause_until.is_some()
    }

    /// How many requests to ask for now, when `free` of all `slots` are free.
    ///
    /// A pull costs the server more than handing out a request, so a worker with many slots sends
    /// one pull for several of them. It asks only when at least half of its slots have no pull: a
    /// request that waits in the server is then covered by the other half. No free slot waits
    /// longer than [`BATCH_DELAY`].
    pub(crate) fn missing(&mut self, free: usize, slots: usize) -> usize {
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
