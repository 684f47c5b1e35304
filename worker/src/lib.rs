//! The worker SDK: an [`Engine`] is all a new worker type has to write.
//!
//! Claiming, the lease, fencing, heartbeats, progress, cancellation, HTTP, shutdown are done here, once, for all of them.

pub mod context;
pub mod data_dir;
pub mod engine;
pub mod engines;
pub mod error;
mod report;
pub mod testing;

pub use context::Context;
pub use data_dir::DataDir;
pub use engine::Engine;
pub use error::OperationError;
pub use ktrdr_shared::operation::Progress;
