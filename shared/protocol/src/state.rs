//! The state machine of an operation: pure, no I/O.
//!
//! ```text
//!            ┌────────────── cancelled | failed
//! pending ───┤                          ┌── completed
//!            └── running (attempt n) ───┼── failed
//!    ▲             ▲        │           └── cancelled
//!    │             └────────┘ worker lost: the next worker takes over, attempt n+1
//!    └──────────────────────┘ released: by a stopping worker, to be retried, or put back
//! ```
//!
//! A backend may also put back an operation that is pending, or move it into another queue: it stays
//! pending, and its log names another copy of the start request.
//!
//! The problem: several processes publish about one operation: its worker, the next worker, every
//! backend. All readers must agree on its state.
//!
//! The solution: all events of an operation are on one subject. JetStream accepts an event only if
//! it follows the last one that its publisher knew (`Nats-Expected-Last-Subject-Sequence`), so the
//! log is linear. This module says which event may follow which. A message that cannot follow, for
//! example one that a faulty program published without the header, changes nothing in any reader.
//!
//! Rejected: a stored state that writers update (readers and writers need the history for attempts
//! and fencing, and a log cannot lose an update).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::{Event, EventKind};

/// State of an operation.
///
/// ```
/// use ktrdr_protocol::state::Status;
///
/// assert!(!Status::Running.is_terminal());
/// assert_eq!(Status::Cancelled.to_string(), "cancelled");
/// ```
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Waits in its queue.
    Pending,
    /// A worker runs it.
    Running,
    /// Finished with a result.
    Completed,
    /// Finished with an error.
    Failed,
    /// Stopped at a user's request.
    Cancelled,
}

impl Status {
    /// All of them, in the order of the life cycle.
    pub const ALL: [Status; 5] = [
        Status::Pending,
        Status::Running,
        Status::Completed,
        Status::Failed,
        Status::Cancelled,
    ];

    /// Whether nothing may follow.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }

    /// As written in JSON and query parameters.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The part of an operation that decides which event may come next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    /// Its status after the last accepted event.
    pub status: Status,
    /// `started` events so far.
    pub attempt: u32,
    /// Stream sequence of the last accepted event; 0 before the first. The next event must expect
    /// it.
    pub last_sequence: u64,
}

/// Why an event changed nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// It was seen before, or is older than one that was.
    #[error("already seen")]
    Duplicate,
    /// The operation has ended.
    #[error("the operation has already ended")]
    Ended,
    /// It cannot follow the current state.
    #[error("it cannot follow the current state")]
    OutOfOrder,
}

impl Default for State {
    fn default() -> Self {
        Self {
            status: Status::Pending,
            attempt: 0,
            last_sequence: 0,
        }
    }
}

impl State {
    /// Applies the event at `sequence` of the stream.
    ///
    /// # Errors
    /// [`Rejected`] when the event cannot follow; the state is unchanged then.
    ///
    /// ```
    /// use ktrdr_protocol::event::{Event, EventKind};
    /// use ktrdr_protocol::id::{OperationId, WorkerId};
    /// use ktrdr_protocol::state::{Rejected, State, Status};
    ///
    /// let id = OperationId::generate();
    /// let worker = WorkerId::new("worker-1")?;
    /// let kind = EventKind::Started { start_sequence: 7, delivery: 1 };
    /// let started = Event::by_worker(&worker, "claim-1", &id, 1, kind);
    ///
    /// let mut state = State::default();
    /// assert_eq!(state.apply(8, &started), Ok(()));
    /// assert_eq!((state.status, state.attempt), (Status::Running, 1));
    /// assert_eq!(state.apply(8, &started), Err(Rejected::Duplicate));
    /// # Ok::<(), ktrdr_protocol::id::InvalidName>(())
    /// ```
    pub fn apply(&mut self, sequence: u64, event: &Event) -> Result<(), Rejected> {
        if sequence <= self.last_sequence {
            return Err(Rejected::Duplicate);
        }
        let next = self.successor(event)?;
        *self = State {
            last_sequence: sequence,
            ..next
        };
        Ok(())
    }

    fn successor(&self, event: &Event) -> Result<State, Rejected> {
        if self.status.is_terminal() {
            return Err(Rejected::Ended);
        }

        let running = self.status == Status::Running;
        let current = event.attempt == self.attempt;
        let status = match &event.kind {
            // From pending: the first attempt, or one after a release. From running: a takeover.
            EventKind::Started { .. } if event.attempt == self.attempt + 1 => {
                return Ok(State {
                    status: Status::Running,
                    attempt: event.attempt,
                    ..*self
                });
            }
            EventKind::Released { .. } if running && current => Status::Pending,
            EventKind::Released { copy: Some(_), .. } if current => Status::Pending,
            EventKind::Moved { .. } if current && self.status == Status::Pending => Status::Pending,
            EventKind::Completed { .. } if running && current => Status::Completed,
            // Not only from running. A worker that finds no attempt left closes the operation of a
            // lost worker, and a backend closes a direct start whose worker died before its claim.
            EventKind::Failed { .. } if current => Status::Failed,
            EventKind::Cancelled { .. } if current => Status::Cancelled,
            _ => return Err(Rejected::OutOfOrder),
        };

        Ok(State { status, ..*self })
    }
}

/// The summary of one operation log, folded message by message in stream order.
#[derive(Debug, Clone, Default)]
pub struct FoldedLog {
    /// Sequence of the last message on the subject, readable or not; 0 when there is none. The next
    /// event must expect it.
    pub tail: u64,
    /// State after the last event that took effect.
    pub state: State,
    /// The last event that took effect.
    pub last: Option<Event>,
}

impl FoldedLog {
    /// The log of which `event` is the last message, for an event that is known to follow the message
    /// before it: the state depends on nothing else.
    ///
    /// ```
    /// use ktrdr_protocol::event::{Event, EventKind};
    /// use ktrdr_protocol::id::{OperationId, WorkerId};
    /// use ktrdr_protocol::state::{FoldedLog, Status};
    ///
    /// let (id, worker) = (OperationId::generate(), WorkerId::new("worker-1")?);
    /// let kind = EventKind::Started { start_sequence: 7, delivery: 3 };
    /// let started = Event::by_worker(&worker, "claim-1", &id, 2, kind);
    ///
    /// let log = FoldedLog::ending_with(12, started);
    /// assert_eq!((log.tail, log.state.status, log.state.attempt), (12, Status::Running, 2));
    /// # Ok::<(), ktrdr_protocol::id::InvalidName>(())
    /// ```
    pub fn ending_with(sequence: u64, event: Event) -> Self {
        let status = match &event.kind {
            EventKind::Started { .. } => Status::Running,
            EventKind::Released { .. } | EventKind::Moved { .. } => Status::Pending,
            EventKind::Completed { .. } => Status::Completed,
            EventKind::Failed { .. } => Status::Failed,
            EventKind::Cancelled { .. } => Status::Cancelled,
        };
        Self {
            tail: sequence,
            state: State {
                status,
                attempt: event.attempt,
                last_sequence: sequence,
            },
            last: Some(event),
        }
    }

    /// Adds the next message; `None` for a message that is not an event. A message that cannot take
    /// effect moves only the tail.
    pub fn push(&mut self, sequence: u64, event: Option<Event>) {
        if let Some(event) = event
            && self.state.apply(sequence, &event).is_ok()
        {
            self.last = Some(event);
        }
        self.tail = self.tail.max(sequence);
    }
}

#[cfg(test)]
pub(crate) mod tests;
