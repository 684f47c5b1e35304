//! All integration tests in one binary: one module for each behaviour.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests report by panicking"
)]

mod backends;
mod bus;
mod cancel;
mod chaos;
mod clocks;
mod cluster;
mod dashboard;
mod docs;
mod ends;
mod events;
mod guide;
mod harness;
mod lease;
mod limits;
mod logs;
mod metrics;
mod nats_cli;
mod openapi;
mod queues;
mod retry;
mod settings;
mod start;
mod takeover;
