//! All integration tests in one binary. Each module tests one behaviour, and its name says which.
//!
//! | question | modules |
//! |---|---|
//! | How is an operation started? | [`start`], [`direct_start`], [`queues`], [`worker_builder`] |
//! | How does it end, and how long is it kept? | [`retention`], [`failures`], [`stalls`], [`results`], [`cancel`], [`retry`] |
//! | What happens when a worker dies, freezes or stops? | [`takeover`], [`fencing`], [`lease`], [`checkpoints`], [`worker_shutdown`] |
//! | What happens when a setting changes? | [`settings_in_force`] |
//! | What if a queue or the stream loses something? | [`put_back`], [`lost_streams`] |
//! | What happens when NATS or a backend is away? | [`nats_outage`], [`backends`], [`readiness`], [`read_your_writes`], [`cluster`] |
//! | What if settings, clocks, limits or messages are wrong? | [`unusable_settings`], [`clocks`], [`limits`], [`malformed_messages`], [`forged_messages`], [`hostile_schemas`] |
//! | What do clients and operators see? | [`archive`], [`guide`], [`openapi`], [`client`], [`live_events`], [`dashboard`], [`logs`], [`prometheus_metrics`], [`figures`], [`nats_cli`] |
//! | What can others do who reach it? | [`browsers`], [`hostile_clients`], [`nats_security`], [`permissions`], [`signed_starts`], [`tokens`], [`narrowed_tokens`], [`tls`], [`worker_http`], [`secrets`], [`requesters`], [`revoked_tokens`] |
//! | Do programs of different versions work together? | [`interoperability`], [`wire_contract`] |
//! | Does everything hold together at random? | [`chaos`] |
//! | Are the documentation and the harness right? | [`documentation`], [`secure_deployment`], [`harness`] |
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests report by panicking"
)]

mod archive;
mod backends;
mod browsers;
mod cancel;
mod chaos;
mod checkpoints;
mod client;
mod clocks;
mod cluster;
mod dashboard;
mod dashboard_tokens;
mod direct_start;
mod documentation;
mod failures;
mod fencing;
mod figures;
mod forged_messages;
mod guide;
mod harness;
mod hostile_clients;
mod hostile_heartbeats;
mod hostile_schemas;
mod interoperability;
mod lease;
mod limits;
mod live_events;
mod logs;
mod lost_streams;
mod malformed_messages;
mod narrowed_tokens;
mod nats_cli;
mod nats_outage;
mod nats_security;
mod openapi;
mod permissions;
mod prometheus_metrics;
mod put_back;
mod queue_classes;
mod queues;
mod read_your_writes;
mod readiness;
mod requesters;
mod results;
mod retention;
mod retry;
mod revoked_tokens;
mod secrets;
mod secure_deployment;
mod settings_in_force;
mod signed_starts;
mod stalls;
mod start;
mod takeover;
mod tls;
mod tokens;
mod unusable_settings;
mod wire_contract;
mod worker_builder;
mod worker_http;
mod worker_shutdown;
