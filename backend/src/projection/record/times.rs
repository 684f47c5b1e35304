//! The times that an operation waits for, or has waited since.

use ktrdr_protocol::state::Status;
use ktrdr_protocol::time::Timestamp;

use super::Record;

/// The times that a waiting operation waits for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Times {
    /// When it is to be moved into the queue of what is due.
    pub due: Option<Timestamp>,
    /// When it expires.
    pub deadline: Option<Timestamp>,
}

impl Record {
    /// The time before which a pending operation must not run again.
    pub fn retry_at(&self) -> Option<Timestamp> {
        let is_pending = self.state.status == Status::Pending;
        let rare = self.rare.as_ref().filter(|_| is_pending)?;
        rare.retry_at
    }

    /// The time before which its first attempt must not start.
    pub fn due(&self) -> Option<Timestamp> {
        self.execution()?.due(self.created_at)
    }

    /// Since when its first attempt could have started.
    pub fn waits_since(&self) -> Timestamp {
        self.due()
            .map_or(self.created_at, |due| due.max(self.created_at))
    }

    /// The time by which its first attempt must have started.
    pub fn deadline(&self) -> Option<Timestamp> {
        self.execution()?.deadline(self.created_at)
    }

    /// The times that it still waits for.
    pub fn times(&self) -> Times {
        let has_none = self.rare.is_none() && !self.queue.is_delayed();
        if self.state.status != Status::Pending || has_none {
            return Times::default();
        }
        Times {
            // One that was stored without a time has none to wait for.
            due: self
                .queue
                .is_delayed()
                .then(|| self.due().unwrap_or(self.created_at)),
            deadline: self.deadline().filter(|_| self.state.attempt == 0),
        }
    }
}
