//! The backend: validates requests, publishes them to JetStream, folds the stream into a projection, and serves it.
//!
//! It runs no operations and keeps nothing on disk: any number of backends may run side by side, and each may be killed and
//! started again at any time.
//!
//! | module | holds |
//! |---|---|
//! | [`config`] | settings |
//! | `router` | every route and layer on one screen |
//! | `routes` | one file per resource: extract, call, respond |
//! | `openapi` | the document of the REST interface, from the routes and the worker types |
//! | `middleware` | request ids, the request log, the answer while nothing is loaded yet |
//! | `error` | everything that can go wrong, as the one error shape; the only failure status codes |
//! | `idempotency` | the id behind an `Idempotency-Key` |
//! | `dispatch` | the only code that publishes starts and cancels |
//! | `projection` | every operation, folded from the stream |
//! | `response_cache` | answers about operations that have ended, kept as they were written |
//! | `registry` | workers as heartbeats tell them |
//! | `catalogue` | worker types, domains, schemas |
//! | `subject_pager` | metrics and history: reads a subject of a stream page by page |
//! | `duties` | what runs beside the REST interface |
//! | `events` | changes as server-sent events: encoded once, shared by all who follow |
//! | `changes` | changes as they happen, for live event streams |

mod catalogue;
mod changes;
pub mod config;
mod dispatch;
mod duties;
mod error;
mod events;
mod idempotency;
mod middleware;
mod openapi;
mod projection;
mod registry;
mod request_metrics;
mod response_cache;
mod router;
mod routes;
mod state;
mod subject_pager;

use axum::serve::ListenerExt;
use ktrdr_bus::nats::{self, ConnectError};
use ktrdr_bus::topology::TopologyError;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use config::Config;

/// Why a backend ended that was not asked to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The NATS settings cannot work.
    #[error("the NATS settings cannot be used")]
    Connect(#[source] ConnectError),
    /// Streams or buckets exist that cannot be used.
    #[error("JetStream cannot be used as it is")]
    Topology(#[source] TopologyError),
    /// The REST interface failed.
    #[error("the REST interface failed")]
    Serve(#[source] std::io::Error),
    /// A background duty ended.
    #[error("a background duty ended: {0}")]
    Duty(String),
}

/// Serves on `listener` until `shutdown`, then answers what is in flight (requests that wait get the current state) and
/// returns, at the latest after the shutdown grace.
///
/// NATS may be away: the REST interface is up at once, `/ready` says 503, and the connection is waited for.
///
/// # Errors
/// [`RunError`].
pub async fn run(
    config: Config,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    for (name, value) in config.effective() {
        tracing::info!(setting = name, value, "in force");
    }
    for contradiction in config.contradictions() {
        tracing::warn!("{contradiction}");
    }
    let connection = nats::connect(&config.nats, "ktrdr-backend")
        .await
        .map_err(RunError::Connect)?;
    let client = connection.client.clone();
    let grace = config.shutdown_grace;
    let state = state::AppState::new(config, connection, shutdown.clone());
    let publishing = state.publishing.clone();
    let app = router::router(state.clone());
    if let Ok(address) = listener.local_addr() {
        tracing::info!(%address, "listening");
    }
    // Small answers must not wait for an acknowledgement of the previous one.
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
    });
    let stop = shutdown.clone();
    let serving =
        axum::serve(listener, app).with_graceful_shutdown(async move { stop.cancelled().await });
    let late = async {
        shutdown.cancelled().await;
        tokio::time::sleep(grace).await;
    };
    let serving = async {
        serving.await.map_err(RunError::Serve)?;
        // Those whose client has hung up are still publishing.
        publishing.close();
        publishing.wait().await;
        Ok(())
    };
    // Whichever ends first ends the backend. The duties live until the last request was answered: requests need them.
    let outcome = tokio::select! {
        served = serving => served,
        error = duties::run(state) => Err(error),
        () = late => {
            tracing::warn!(?grace, "requests in flight did not finish within the grace");
            Ok(())
        }
    };
    // Messages that were published without waiting must still leave; a broker that is away cannot hold this up.
    let _ = tokio::time::timeout(std::time::Duration::from_secs(1), client.flush()).await;
    tracing::info!("stopped");
    outcome
}
