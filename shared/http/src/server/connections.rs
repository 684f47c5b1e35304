//! How many connections a process may hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::registry::Registry;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::metrics::{register_counter, register_gauge};

/// Connections, at most, however many descriptors there are. Each takes about 10 kB.
const MAX_CONNECTIONS: usize = 20_000;

/// Connections, at least, however few descriptors there are.
const MIN_CONNECTIONS: usize = 16;

/// Descriptors kept free for NATS, files and connections that are being refused.
const RESERVED: std::ops::RangeInclusive<usize> = 64..=1024;

/// The connections of a REST interface. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Connections(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    most: usize,
    places: Arc<Semaphore>,
    refused: AtomicU64,
}

impl Connections {
    /// At most `most`.
    pub fn new(most: usize) -> Self {
        Self(Arc::new(Shared {
            most,
            places: Arc::new(Semaphore::new(most)),
            refused: AtomicU64::new(0),
        }))
    }

    /// As many as this process has descriptors for. Raises its soft limit to the hard one first.
    pub fn for_this_process() -> Self {
        let descriptors = raise_descriptor_limit();
        let most = below(descriptors);
        tracing::info!(
            descriptors,
            connections = most,
            "limits of open files and connections"
        );
        Self::new(most)
    }

    /// How many there may be.
    pub fn most(&self) -> usize {
        self.0.most
    }

    /// A place for one more connection; `None` when all are taken.
    pub(super) fn enter(&self) -> Option<OwnedSemaphorePermit> {
        let place = Arc::clone(&self.0.places).try_acquire_owned().ok();
        if place.is_none() {
            self.0.refused.fetch_add(1, Ordering::Relaxed);
        }
        place
    }

    /// Adds the metrics to the page.
    pub fn register(&self, page: &mut Registry) {
        let open = self.0.most - self.0.places.available_permits();
        register_gauge(
            page,
            "ktrdr_http_connections",
            "Open connections of the REST interface.",
            open as f64,
        );
        register_counter(
            page,
            "ktrdr_http_connections_refused_total",
            "Connections refused because there were too many.",
            self.0.refused.load(Ordering::Relaxed),
        );
    }
}

/// How many connections fit into so many descriptors.
fn below(descriptors: usize) -> usize {
    let reserved = (descriptors / 8).clamp(*RESERVED.start(), *RESERVED.end());
    descriptors
        .saturating_sub(reserved)
        .clamp(MIN_CONNECTIONS, MAX_CONNECTIONS)
}

/// Raises the soft limit of open files to the hard one, and returns what it is then.
fn raise_descriptor_limit() -> usize {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::debug!(%error, "cannot raise the limit of open files");
        }
    }

    // No limit at all is none that could be reached.
    getrlimit(Resource::Nofile)
        .current
        .and_then(|limit| usize::try_from(limit).ok())
        .unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_left_for_nats_and_files() {
        assert_eq!(below(256), 192);
        assert_eq!(below(1024), 896);
        assert_eq!(below(10_000), 8976);
        assert_eq!(below(usize::MAX), MAX_CONNECTIONS);
        assert_eq!(below(32), MIN_CONNECTIONS);
    }
}
