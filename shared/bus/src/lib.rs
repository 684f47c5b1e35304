//! How backend, workers and tools use NATS: connection, streams, operation log, settings, logs,
//! signals.
//!
//! The rules of the protocol are in [`ktrdr_protocol`], which does no I/O. This crate sends and
//! reads what those rules say, and knows no HTTP.
//!
//! | module | holds |
//! |---|---|
//! | [`settings`] | settings of both programs, each a flag and an environment variable |
//! | [`nats`] | the connection: credentials, TLS, reconnects, work that ends with a connection |
//! | [`secret_file`] | files that hold secrets |
//! | [`file_stamp`] | whether a file has changed since it was read |
//! | [`followed`] | when files that may change are read again |
//! | [`backoff`] | growing pauses between tries |
//! | [`stream_settings`] | the settings in force, which live with the streams |
//! | [`stream_identity`] | whether a stream is still the one that it was |
//! | [`topology`] | streams and buckets, and how they are provisioned |
//! | [`queues`] | the consumers of queues, and the lists of them |
//! | [`keeping`] | how long the streams keep their messages |
//! | [`key_values`] | reading and writing single keys of a bucket |
//! | [`permissions`] | what each program may publish and subscribe, and the configuration of nats-server for it |
//! | [`refusals`] | what the server refused for lack of a permission |
//! | [`no_room`] | why JetStream has no room for a message |
//! | [`oplog`] | appending to an operation's log behind an expected sequence, and reading it |
//! | [`round_trips`] | how long the server takes to answer, and whether the lease is long enough |
//! | [`metrics`] | the connection's metrics for Prometheus |
//! | [`signing`] | signatures of start requests: making and checking them |
//! | [`telemetry`] | log set-up, and texts for log lines |
//! | [`shutdown`] | signals |

pub mod backoff;
pub mod file_stamp;
pub mod followed;
pub mod keeping;
pub mod key_values;
pub mod metrics;
pub mod nats;
pub mod no_room;
pub mod oplog;
pub mod permissions;
pub mod queues;
pub mod refusals;
pub mod round_trips;
pub mod secret_file;
pub mod settings;
pub mod shutdown;
pub mod signing;
pub mod stream_identity;
pub mod stream_settings;
pub mod telemetry;
pub mod topology;
