//! All integration tests in one binary. Each module tests one behaviour, and its name says which.
//!
//! | question | modules |
//! |---|---|
//! | How is an operation started? | [`start`], [`many`], [`direct_start`], [`queues`], [`times`], [`priorities`], [`keys`], [`paused_queues`], [`drained_workers`], [`schedules`], [`schedule_slots`], [`worker_builder`] |
//! | How does it end, and how long is it kept? | [`retention`], [`failures`], [`stalls`], [`results`], [`cancel`], [`retry`] |
//! | What happens when a worker dies, freezes or stops? | [`takeover`], [`fencing`], [`lease`], [`checkpoints`], [`worker_shutdown`] |
//! | What happens when a setting changes? | [`settings_in_force`] |
//! | What if a queue or the stream loses something? | [`put_back`], [`lost_streams`] |
//! | What happens when NATS or a backend is away? | [`nats_outage`], [`full_disk`], [`backends`], [`readiness`], [`read_your_writes`], [`cluster`], [`lagging_servers`] |
//! | What if settings, clocks, limits or messages are wrong? | [`unusable_settings`], [`clocks`], [`limits`], [`malformed_messages`], [`no_body`], [`forged_messages`], [`hostile_schemas`] |
//! | What do clients and operators see? | [`lists`], [`archive`], [`guide`], [`openapi`], [`openapi_page`], [`client`], [`client_control`], [`python_client`], [`command_line`], [`command_line_control`], [`command_line_details`], [`command_line_waits`], [`closed_output`], [`live_events`], [`operation_logs`], [`dashboard`], [`dashboard_bulk`], [`dashboard_control`], [`dashboard_layout`], [`dashboard_logs`], [`dashboard_schedules`], [`dashboard_views`], [`logs`], [`prometheus_metrics`], [`figures`], [`nats_cli`] |
//! | What can others do who reach it? | [`browsers`], [`hostile_clients`], [`nats_security`], [`permissions`], [`signed_starts`], [`tokens`], [`narrowed_tokens`], [`tls`], [`worker_http`], [`secrets`], [`requesters`], [`revoked_tokens`] |
//! | Which worker types are there? | [`worker_types`], [`dynamic_engines`] |
//! | What about programs in other languages? | [`exec`], [`exec_simple`], [`python_package`] |
//! | Do programs of different versions work together? | [`interoperability`], [`protocol`], [`wire_contract`], [`worker_versions`] |
//! | Does everything hold together at random? | [`chaos`] |
//! | Are the documentation and the harness right? | [`documentation`], [`image_build`], [`cookbook`], [`secure_deployment`], [`harness`] |
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
mod client_control;
mod clocks;
mod closed_output;
mod cluster;
mod command_line;
mod command_line_control;
mod command_line_details;
mod command_line_waits;
mod cookbook;
mod dashboard;
mod dashboard_bulk;
mod dashboard_control;
mod dashboard_layout;
mod dashboard_logs;
mod dashboard_schedules;
mod dashboard_tokens;
mod dashboard_views;
mod direct_start;
mod documentation;
mod drained_workers;
mod dynamic_engines;
mod exec;
mod exec_simple;
mod failures;
mod fencing;
mod figures;
mod forged_messages;
mod full_disk;
mod guide;
mod harness;
mod hostile_clients;
mod hostile_heartbeats;
mod hostile_schemas;
mod image_build;
mod interoperability;
mod key_entries;
mod keys;
mod lagging_servers;
mod lease;
mod limits;
mod lists;
mod live_events;
mod logs;
mod lost_streams;
mod malformed_messages;
mod many;
mod narrowed_tokens;
mod nats_cli;
mod nats_outage;
mod nats_security;
mod no_body;
mod openapi;
mod openapi_page;
mod operation_logs;
mod paused_queues;
mod permissions;
mod permits;
mod priorities;
mod prometheus_metrics;
mod protocol;
mod put_back;
mod python_client;
mod python_package;
mod queue_classes;
mod queues;
mod read_your_writes;
mod readiness;
mod requesters;
mod results;
mod retention;
mod retry;
mod revoked_tokens;
mod schedule_slots;
mod schedules;
mod secrets;
mod secure_deployment;
mod settings_in_force;
mod signed_starts;
mod stalls;
mod start;
mod takeover;
mod times;
mod tls;
mod tokens;
mod unusable_settings;
mod wire_contract;
mod worker_builder;
mod worker_http;
mod worker_shutdown;
mod worker_types;
mod worker_versions;
