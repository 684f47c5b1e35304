//! The worker SDK: an [`Engine`] is all a new worker type has to write.
//!
//! Claiming, the lease, fencing, heartbeats, progress, cancellation, HTTP, shutdown are done here, once, for all of them.
//!
//! | folder | holds |
//! |---|---|
//! | `engine` | what a worker author implements ([`Engine`]), is given ([`Context`], [`DataDir`]), and returns ([`OperationError`]) |
//! | [`testing`] | running one engine in a test, without NATS |
//! | `worker` | one worker from start to stop, its settings ([`Config`]), what it runs and has run |
//! | `pulling` | which queues are served, one pull per free slot, the lease on a request |
//! | `attempt` | one attempt from a start request to its acknowledgement: claim, ownership, run, outcome, result |
//! | `reporting` | progress, metrics and checkpoints on their way out |
//! | `announce` | heartbeats, and what the worker hears from backends |
//! | `http` | the worker's own REST interface |

mod announce;
mod attempt;
mod engine;
mod http;
mod pulling;
mod reporting;
pub mod testing;
mod worker;

pub use engine::Engine;
pub use engine::context::Context;
pub use engine::data_dir::{DataDir, open_file};
pub use engine::error::OperationError;
pub use ktrdr_protocol::id::OperationId;
pub use ktrdr_protocol::progress::Progress;
pub use worker::capabilities::InvalidCapabilities;
pub use worker::config::Config;
pub use worker::runtime::{WorkerError, main, run, run_program};
