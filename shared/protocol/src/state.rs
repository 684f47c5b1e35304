//! The state machine of an operation: pure, no I/O.
//!
//! ```text
//!            ┌────────────── cancelled | failed
//! pending ───┤                          ┌── completed
//!            └── running (attempt n) ───┼── failed
//!    ▲             ▲        │           └── cancelled
//!    │             └────────┘ worker lost: the next worker takes over, attempt n+1
//!    └──────────────────────┘ released: handed back by a stopping worker, or to be retried
//! ```
//!
//! All events of an operation are in one subject, each accepted by JetStream only if it follows the last one its publisher
//! knew (`Nats-Expected-Last-Subject-Sequence`). So the log is linear already; this module says which successor makes sense,
//! and ignores what a faulty or hostile publisher put there without the header.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::{Event, EventKind};

/// Where an operation stands.
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
    /// Where it stands.
    pub status: Status,
    /// `started` events so far.
    pub attempt: u32,
    /// Stream sequence of the last accepted event; 0 before the first. What a successor must expect.
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
    /// Takes the event at `sequence` of the stream.
    ///
    /// # Errors
    /// [`Rejected`] when it changes nothing; the state is untouched then.
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
            // From pending the first attempt or one after a release; from running a takeover.
            EventKind::Started { .. } if event.attempt == self.attempt + 1 => {
                return Ok(State {
                    status: Status::Running,
                    attempt: event.attempt,
                    ..*self
                });
            }
            EventKind::Released { .. } if running && current => Status::Pending,
            EventKind::Completed { .. } if running && current => Status::Completed,
            // Not only from running: the worker that finds no attempt left closes what a lost one left behind, and a backend
            // closes a direct start whose worker died before claiming it.
            EventKind::Failed { .. } if current => Status::Failed,
            EventKind::Cancelled { .. } if current => Status::Cancelled,
            _ => return Err(Rejected::OutOfOrder),
        };
        Ok(State { status, ..*self })
    }
}

/// The log of one operation, folded message by message in stream order.
#[derive(Debug, Clone, Default)]
pub struct FoldedLog {
    /// Sequence of the last message on the subject, readable or not; 0 when there is none. What an append must expect.
    pub tail: u64,
    /// Where the operation stands.
    pub state: State,
    /// The last event that took effect.
    pub last: Option<Event>,
}

impl FoldedLog {
    /// Takes the next message; `None` for one that is no event. Whatever cannot take effect only moves the tail.
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
mod tests;
