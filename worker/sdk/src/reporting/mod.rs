//! Progress, metric points and checkpoints of a running engine.
//!
//! [`report`] is the mailbox between engine and SDK: the engine puts in, without waiting for NATS.
//! [`send`] empties it a few times a second and publishes. [`checkpoint`] writes and reads the
//! bucket of checkpoints.

pub(crate) mod checkpoint;
pub(crate) mod report;
pub(crate) mod send;
