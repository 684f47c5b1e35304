//! What handlers and background duties share. Cheap to clone.

use std::sync::Arc;

use ktrdr_bus::nats::Connection;
use ktrdr_bus::oplog::OpLog;
use ktrdr_protocol::subject::SubjectNames;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::catalogue::Catalogue;
use crate::changes::Changes;
use crate::config::Config;
use crate::dispatch::Dispatch;
use crate::error::ApiError;
use crate::events::Hub;
use crate::projection::Projection;
use crate::registry::Registry;
use crate::request_metrics::RequestMetrics;
use crate::response_cache::ResponseCache;

/// Handles to everything; see the fields.
#[derive(Clone)]
pub struct AppState(Arc<Parts>);

/// What [`AppState`] points to.
pub struct Parts {
    /// Settings.
    pub config: Config,
    /// Subjects and streams.
    pub names: SubjectNames,
    /// NATS.
    pub connection: Connection,
    /// All operations.
    pub projection: Projection,
    /// Answers about what has ended.
    pub responses: ResponseCache,
    /// All workers.
    pub registry: Registry,
    /// Changes as they happen.
    pub changes: Changes,
    /// Who follows changes over HTTP.
    pub events: Hub,
    /// HTTP requests, counted and timed.
    pub requests: RequestMetrics,
    /// All worker types.
    pub catalogue: Catalogue,
    /// Publishes starts and cancels.
    pub dispatch: Dispatch,
    /// Requests that publish: they run to their end even when their client hangs up.
    pub publishing: TaskTracker,
    /// Set when the process has been asked to stop: requests that wait answer with what there is.
    pub stopping: CancellationToken,
}

impl AppState {
    /// Wires everything together; nothing runs yet.
    pub fn new(config: Config, connection: Connection, stopping: CancellationToken) -> Self {
        let names = config.nats.subject_prefix.clone();
        let changes = Changes::default();
        let log = OpLog::new(connection.jetstream.clone(), names.clone());
        Self(Arc::new(Parts {
            projection: Projection::new(names.clone(), changes.clone()),
            responses: ResponseCache::default(),
            registry: Registry::new(config.worker_remove_after, changes.clone()),
            changes,
            events: Hub::default(),
            requests: RequestMetrics::default(),
            catalogue: Catalogue::default(),
            dispatch: Dispatch::new(
                connection.clone(),
                names.clone(),
                log,
                config.protocol.lease,
            ),
            publishing: TaskTracker::new(),
            stopping,
            names,
            connection,
            config,
        }))
    }

    /// Whether reads can be answered: the projection has caught up and the worker types are known.
    pub fn is_loaded(&self) -> bool {
        self.projection.is_caught_up() && self.catalogue.is_loaded()
    }
}

impl AppState {
    /// For what cannot be done without NATS: the client shall know at once, and nothing shall be begun.
    ///
    /// # Errors
    /// 503 while there is no connection.
    pub fn need_nats(&self) -> Result<(), ApiError> {
        if self.connection.is_up() {
            Ok(())
        } else {
            Err(ApiError::nats_unavailable())
        }
    }

    /// Runs `work` to its end, also when the client that asked for it has hung up: what was published must be followed
    /// through, and what is half-published must not be left so.
    ///
    /// # Errors
    /// What `work` says; 500 when it panics.
    pub async fn detached<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, ApiError>> + Send + 'static,
    ) -> Result<T, ApiError> {
        match self.publishing.spawn(work.in_current_span()).await {
            Ok(outcome) => outcome,
            Err(error) => Err(ApiError::internal(error)),
        }
    }
}

impl std::ops::Deref for AppState {
    type Target = Parts;
    fn deref(&self) -> &Parts {
        &self.0
    }
}
