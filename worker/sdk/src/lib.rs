//! The worker SDK: an [`Engine`] is all a new worker type has to write.
//!
//! Claiming, the lease, fencing, heartbeats, progress, cancellation, HTTP, shutdown are done here, once, for all of them.
//!
//! | module | holds |
//! |---|---|
//! | [`engine`], [`context`], [`error`] | what a worker author implements, is given, and answers |
//! | [`testing`] | running one engine in a test, without NATS |
//! | [`data_dir`] | the directory that requests may read from and write to |
//! | [`runtime`], [`config`] | one process from start to stop, and its settings |
//! | `pull`, `pull_inbox`, `queues` | slots, pulling one request per free slot, which queues are served |
//! | `claim` | claiming, taking over, finishing: all that is published on an operation's subject |
//! | `lease` | acks and lease extensions; `guard` keeps the lease and notices when the operation is lost |
//! | `execute`, `attempt`, `ownership`, `outcome`, `retry` | one operation from request to acknowledgement, and what becomes of it |
//! | `report`, `send_report`, `results`, `checkpoint` | progress, metrics, results and checkpoints on their way out |
//! | `heartbeat`, `service`, `cancels` | what the worker says about itself and hears from backends |
//! | `http`, `local` | the worker's own REST interface over what it has run |

mod attempt;
mod cancels;
mod capabilities;
mod checkpoint;
mod claim;
pub mod config;
pub mod context;
mod core;
pub mod data_dir;
pub mod engine;
mod erased;
pub mod error;
mod execute;
mod guard;
mod heartbeat;
mod http;
mod lease;
mod local;
mod outcome;
mod ownership;
mod pull;
mod pull_inbox;
mod queues;
mod report;
mod results;
mod retry;
mod running;
pub mod runtime;
mod send_report;
mod service;
pub mod testing;

pub use config::Config;
pub use context::Context;
pub use data_dir::DataDir;
pub use engine::Engine;
pub use error::OperationError;
pub use ktrdr_protocol::id::OperationId;
pub use ktrdr_protocol::progress::Progress;
pub use runtime::{WorkerError, main, run};
