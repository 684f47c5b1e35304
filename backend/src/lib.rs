//! The backend: validates requests, publishes them to JetStream, folds the stream into a
//! projection, and serves it.
//!
//! It runs no operations and needs nothing on disk: any number of backends may run side by side,
//! and each may be killed and started again at any time.
//!
//! Modules form layers: one uses only modules of the rows below its own. `tests/layers.rs` checks
//! this table.
//!
//! | module | holds |
//! |---|---|
//! | [`commands`] | the command line with its sub-commands |
//! | `router` | every route and layer on one screen |
//! | `routes` | the REST interface, one file per resource: extract, call, respond |
//! | `openapi` | the description of the REST interface |
//! | `middleware` | what happens to every request: its id, log lines, metrics, panics |
//! | `duties` | what runs beside the REST interface |
//! | `starts` | starts operations: what requests and schedules share |
//! | `state` | what handlers and duties share |
//! | `events` | live events: changes encoded once and sent to all clients that follow them |
//! | `dispatch` | the only code that publishes starts and cancels |
//! | `schedules` | operations that start by the clock |
//! | `queues` | makes queues, and lists them for workers |
//! | `followed_keys` | keys of the bucket of worker types that every backend follows |
//! | `stream_end` | waits for what the stream holds, for ids that are not known |
//! | `archive` | operations that have ended, for longer than the stream keeps them |
//! | `stored_results` | large results, read from the object store and checked |
//! | `response_cache` | rendered responses about operations that have ended |
//! | `projection` | every operation, folded from the stream |
//! | `registry` | the workers, as their heartbeats tell |
//! | `catalogue` | the worker types: domains and schemas |
//! | `summaries` | what operations are about, in one line |
//! | `changes` | announces changes of operations and workers inside the process |
//! | `log_lines` | reads the log lines of one operation page by page |
//! | `subject_pager` | reads the messages of one subject page by page: metric points and history |
//! | `result_buckets` | the object stores of large results |
//! | `refused` | reads messages of the bus, and counts those that are not believed |
//! | `settings_in_force` | the settings that live with the streams, as this backend has read them |
//! | `figures` | how full streams and queues are, and how old unfinished work is |
//! | `stream_position` | asks a stream where it ends, and what follows |
//! | `nats_answers` | whether NATS answers |
//! | `json_check` | checks that bytes which arrive piece by piece are one JSON value |
//! | `request_metrics` | HTTP requests, counted and timed |
//! | `held_requests` | how many requests may wait or follow events |
//! | `refused_starts` | start requests that workers refused because of their signature |
//! | `signatures` | the key that signs start requests, and the keys that are trusted |
//! | `idempotency` | the operation id behind an `Idempotency-Key` |
//! | `error` | every failure of a request in one shape; the only failure status codes |
//! | [`config`] | settings |

mod archive;
mod catalogue;
mod changes;
pub mod commands;
pub mod config;
mod dispatch;
mod duties;
mod error;
mod events;
mod figures;
mod followed_keys;
#[cfg(test)]
mod fuzz;
mod held_requests;
mod idempotency;
mod json_check;
mod log_lines;
mod middleware;
mod nats_answers;
mod openapi;
mod projection;
mod queues;
mod refused;
mod refused_starts;
mod registry;
mod request_metrics;
mod response_cache;
mod result_buckets;
mod router;
mod routes;
mod schedules;
mod settings_in_force;
mod signatures;
mod starts;
mod state;
mod stored_results;
mod stream_end;
mod stream_position;
mod subject_pager;
mod summaries;

use std::time::Duration;

use ktrdr_bus::nats::{self, ConnectError};
use ktrdr_bus::settings::warn_about_unknown_variables;
use ktrdr_bus::signing::KeyError;
use ktrdr_bus::topology::TopologyError;
use ktrdr_http::server;
use ktrdr_http::tls::TlsError;
use ktrdr_http::tokens::{ListenError, Tokens, TokensError};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use config::Config;

use crate::archive::{Archive, ArchiveError};
use crate::duties::DutyError;

/// How long messages that were published without waiting may take to leave when the backend stops.
const FLUSH_LIMIT: Duration = Duration::from_secs(1);

/// Why a backend ended that was not asked to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Certificate or key cannot be used.
    #[error("the TLS settings cannot be used")]
    Tls(#[from] TlsError),
    /// The listener may not be served.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The listener has no address.
    #[error("the listener has no address")]
    Address(#[source] std::io::Error),
    /// The file of tokens cannot be used.
    #[error(transparent)]
    Tokens(#[from] TokensError),
    /// The NATS settings cannot work.
    #[error("the NATS settings cannot be used")]
    Connect(#[source] ConnectError),
    /// The signing key or a trusted key cannot be used.
    #[error("the keys for signed starts cannot be used")]
    Key(#[source] KeyError),
    /// The file of the archive can never be used.
    #[error("the archive cannot be used")]
    Archive(#[source] ArchiveError),
    /// Streams or buckets exist that cannot be used.
    #[error("JetStream cannot be used as it is")]
    Topology(#[source] TopologyError),
    /// A background duty ended.
    #[error("a background duty ended: {0}")]
    Duty(String),
}

impl RunError {
    /// Whether a setting cannot be used, so that starting the backend again does not help.
    pub fn is_about_settings(&self) -> bool {
        match self {
            Self::Tls(_) | Self::Listen(_) | Self::Tokens(_) | Self::Connect(_) | Self::Key(_) => {
                true
            }
            Self::Archive(error) => error.is_wrong_file(),
            Self::Topology(error) => !error.is_transient(),
            Self::Address(_) | Self::Duty(_) => false,
        }
    }
}

impl From<DutyError> for RunError {
    fn from(error: DutyError) -> Self {
        match error {
            DutyError::Topology(error) => Self::Topology(error),
            DutyError::Ended(why) => Self::Duty(why),
        }
    }
}

/// Serves on `listener` until `shutdown`. Then requests in flight are answered (those that wait get
/// the current state), and this returns, at the latest after the shutdown grace.
///
/// NATS may be unreachable: the REST interface is up at once, `/ready` answers 503, and the backend
/// waits for the connection.
///
/// # Errors
/// [`RunError`] when the backend cannot continue.
pub async fn run(
    config: Config,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    log_settings(&config);
    let tls = config.tls.load()?;
    let address = listener.local_addr().map_err(RunError::Address)?;
    config.tokens.check_address(address, tls.is_some())?;
    let tokens = Tokens::load(&config.tokens)?;
    let archive = config
        .archive
        .as_ref()
        .map(|path| Archive::open(path, config.archive_retention))
        .transpose()
        .map_err(RunError::Archive)?;
    let connection = nats::connect(&config.nats, "ktrdr-backend")
        .await
        .map_err(RunError::Connect)?;
    let client = connection.client.clone();
    let grace = config.shutdown_grace;
    let parts = (tokens.clone(), tls, archive);
    let state =
        state::AppState::new(config, parts, connection, shutdown.clone()).map_err(RunError::Key)?;

    let serving = serve(state.clone(), listener, shutdown.clone());
    let grace_is_over = async {
        shutdown.cancelled().await;
        tokio::time::sleep(grace).await;
    };
    // The first to end ends the backend. Requests need the duties, so these live until the last
    // request was answered.
    let outcome = tokio::select! {
        () = serving => Ok(()),
        error = duties::run(state) => Err(error.into()),
        () = tokens.keep_current() => Ok(()),
        () = grace_is_over => {
            tracing::warn!(?grace, "requests in flight did not finish within the grace");
            Ok(())
        }
    };

    // Messages that were published without waiting must still leave. A broker that is unreachable
    // cannot delay the end.
    let _ = tokio::time::timeout(FLUSH_LIMIT, client.flush()).await;
    tracing::info!("stopped");
    outcome
}

fn log_settings(config: &Config) {
    for (name, value) in config.effective() {
        // The target lets a filter leave these many lines out, as `ktrdr dev` does.
        tracing::info!(target: "settings", setting = name, value, "setting");
    }
    warn_about_unknown_variables();
    for contradiction in config.contradictions() {
        tracing::warn!("{contradiction}");
    }
}

/// Answers requests until `shutdown`, and those in flight to their end.
async fn serve(state: state::AppState, listener: TcpListener, shutdown: CancellationToken) {
    let publishing = state.publishing.clone();
    let connections = state.connections.clone();
    let tls = state.tls.clone();
    let scheme = state.config.tls.scheme();
    let app = router::router(state);
    if let Ok(address) = listener.local_addr() {
        tracing::info!(url = %format_args!("{scheme}://{address}"), "listening");
    }
    server::serve(listener, app, &connections, tls, shutdown).await;

    // Requests whose client has hung up may still be publishing.
    publishing.close();
    publishing.wait().await;
}
