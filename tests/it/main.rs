//! All integration tests in one binary: one module for each behaviour.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests report by panicking")]

mod backends;
mod bus;
mod cancel;
mod dashboard;
mod ends;
mod events;
mod guide;
mod harness;
mod queues;
mod retry;
mod start;
mod takeover;
