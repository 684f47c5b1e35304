//! Progress, metric points, log lines and checkpoints of a running engine.
//!
//! [`report`] is the mailbox between engine and SDK: the engine puts in, without waiting for NATS.
//! [`send`] empties it a few times a second and publishes. Its log lines are in [`log_lines`], and
//! [`send_logs`] publishes them. [`checkpoint`] writes and reads the
//! bucket of checkpoints.

pub(crate) mod checkpoint;
pub(crate) mod log_lines;
pub(crate) mod report;
pub(crate) mod send;
pub(crate) mod send_logs;
