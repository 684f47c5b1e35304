//! What backend and workers share to use NATS: connection, topology, operation log, settings, logs, shutdown.
//!
//! | module | holds |
//! |---|---|
//! | [`settings`] | settings of both programs, each a flag and an environment variable |
//! | [`nats`] | the connection: credentials, TLS, reconnects, work that ends with a connection |
//! | [`backoff`] | growing pauses between tries |
//! | [`topology`] | streams, consumers and buckets, and how they are provisioned |
//! | [`oplog`] | appending to an operation's log under an expected sequence, and reading it back |
//! | [`metrics`] | the connection's metrics for Prometheus |
//! | [`telemetry`] | log set-up, and texts for log lines |
//! | [`shutdown`] | signals |

pub mod backoff;
pub mod metrics;
pub mod nats;
pub mod oplog;
pub mod settings;
pub mod shutdown;
pub mod telemetry;
pub mod topology;
