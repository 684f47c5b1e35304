//! How many requests are held open: those that wait for the end of an operation, and live events.
//!
//! Each keeps a connection for minutes or hours. A part of the connections stays free, so that
//! somebody who holds all others does not keep out short requests.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{ApiError, ErrorCode};

/// The requests that are held open. Cheap to clone.
#[derive(Debug, Clone)]
pub struct HeldRequests(Arc<Semaphore>);

impl HeldRequests {
    /// Three of four connections may be held.
    pub fn within(connections: usize) -> Self {
        Self(Arc::new(Semaphore::new(connections / 4 * 3)))
    }

    /// A place for one more, until it is dropped.
    ///
    /// # Errors
    /// 503 `overloaded` when all are taken.
    pub fn enter(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        Arc::clone(&self.0).try_acquire_owned().map_err(|_| {
            ApiError::new(
                ErrorCode::Overloaded,
                "Too many requests wait or follow live events. Ask without wait, or try again",
            )
        })
    }
}
