//! What the backend and the workers must agree on: names, messages, the state machine, stream set-up.
//!
//! Both programs depend on this crate and never on each other. A line belongs here when both of them need it:
//!
//! | module | holds |
//! |---|---|
//! | [`id`] | the single-token names: operation, worker, worker type, queue |
//! | [`time`] | wall-clock timestamps as they travel (RFC 3339, UTC, milliseconds) |
//! | [`progress`] | how far an operation is |
//! | [`operation`] | start request, execution options, metric points, the operation document of the REST APIs |
//! | [`event`] | the life-cycle events on an operation's subject |
//! | [`state`] | the state machine: pure, no I/O |
//! | [`claim`] | what a worker does with a start request, decided from the last event: pure, no I/O |
//! | [`requirements`] | requirements ↔ queue token, and who may serve it |
//! | [`worker`] | capabilities, heartbeat, worker record, worker-type catalogue entry |
//! | [`subject`] | every subject, stream, consumer and bucket name |
//! | [`topology`] | streams, consumers and buckets, and how they are provisioned |
//! | [`oplog`] | appending to an operation's log under an expected sequence, and reading it back |
//! | [`problem`], [`start_body`], [`schema`] | the one error shape of both REST APIs, the body of a start request, and what it must match |
//! | [`prometheus`] | counters, histograms, and the page that is scraped |
//! | [`trace`] | the trace that an operation belongs to |
//! | [`config`], [`nats`], [`telemetry`], [`shutdown`] | settings, connection, logs and signals shared by both programs |

pub mod claim;
pub mod config;
pub mod event;
pub mod id;
pub mod nats;
pub mod operation;
pub mod oplog;
pub mod problem;
pub mod progress;
pub mod prometheus;
pub mod requirements;
pub mod schema;
pub mod shutdown;
pub mod start_body;
pub mod state;
pub mod subject;
pub mod telemetry;
pub mod time;
pub mod topology;
pub mod trace;
pub mod worker;
