//! One worker from start to stop.
//!
//! The problem: a worker consists of tasks that depend on each other. A wrong order at the end
//! loses work or confuses backends: a heartbeat after the farewell would bring a stopped worker
//! back to life, and a worker that closes its connection first cannot hand its requests back.
//!
//! The solution: [`launch`] starts everything, and one function, [`Parts::run`], stops it in a
//! fixed order: no new requests; finish or hand back what runs; end the helpers; send the farewell.
//! The REST interface stays open until the program has stopped all its workers, so a stopping
//! worker still answers.
//!
//! Rejected: one cancellation token for all tasks. The tasks would race to their ends.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use ktrdr_bus::settings::AskedSettings;
use ktrdr_http::tokens::Tokens;
use tokio::sync::{Notify, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::announce::{heartbeat, service};
use crate::attempt::execute;
use crate::attempt::stop::StopReason;
use crate::http;
use crate::pulling::puller::Puller;
use crate::pulling::queue_pulls::ServedQueue;
use crate::pulling::queues;
use crate::worker::capabilities;
use crate::worker::core::Core;
use crate::worker::error::WorkerError;

/// How long a stopping worker waits, beyond the grace of its engines, for operations that were asked
/// to stop, and for their ends to be stored.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// A worker that runs, as the program sees it.
pub(crate) struct Launched {
    /// The worker's REST interface.
    pub(crate) router: Router,
    /// The queues that the worker serves; empty until it is ready.
    pub(crate) queues: watch::Receiver<Vec<ServedQueue>>,
}

/// Everything that [`Parts::run`] stops again.
struct Parts {
    core: Arc<Core>,
    asked: AskedSettings,
    shutdown_grace: Duration,
    operations: TaskTracker,
    stop_pulling: CancellationToken,
    pulling: JoinHandle<()>,
    /// Aborted when dropped: these tasks hold nothing that must be finished.
    helpers: JoinSet<()>,
    queues: watch::Sender<Vec<ServedQueue>>,
    refresh_queues: Arc<Notify>,
}

/// Says which settings are accepted but probably not meant.
fn warn_about_settings(core: &Core) {
    for (name, meant) in capabilities::misspelt(&core.capabilities) {
        tracing::warn!(
            name,
            meant,
            "WORKER_CAPABILITIES has an unknown name: it is shown but selects no operations"
        );
    }

    let data_dir = core.data_dir.root();
    if let Err(error) = std::fs::read_dir(data_dir) {
        tracing::warn!(
            data_dir = %data_dir.display(), %error,
            "the data directory cannot be read: operations that use files will fail. Create it, or set KTRDR_DATA_DIR"
        );
    }
}

/// Starts a worker on `tasks`. It runs until `stop` is cancelled, or until an error that waiting
/// cannot repair.
pub(crate) fn launch(
    core: Arc<Core>,
    asked: AskedSettings,
    shutdown_grace: Duration,
    tokens: Tokens,
    tasks: &mut JoinSet<Result<(), WorkerError>>,
    stop: CancellationToken,
) -> Launched {
    tracing::info!(
        worker_id = %core.worker_id, worker_type = %core.worker_type, endpoint_url = %core.endpoint_url,
        slots = core.slots, capabilities = ?core.capabilities, data_dir = %core.data_dir.root().display(),
        version = env!("CARGO_PKG_VERSION"), "worker started"
    );
    warn_about_settings(&core);

    let (queues, served_queues) = watch::channel(Vec::new());
    let refresh_queues = Arc::new(Notify::new());
    let operations = TaskTracker::new();
    let (puller, slots) = {
        let (core, operations) = (core.clone(), operations.clone());
        Puller::new(
            core.clone(),
            served_queues.clone(),
            refresh_queues.clone(),
            move |pulled| {
                operations.spawn(execute::run_pulled_request(core.clone(), pulled));
            },
        )
    };
    let stop_pulling = CancellationToken::new();
    let pulling = tokio::spawn(puller.run(stop_pulling.clone()));

    let mut helpers = JoinSet::new();
    helpers.spawn(log_end(
        "heartbeats",
        heartbeat::beat(core.clone(), served_queues.clone()),
    ));
    helpers.spawn(log_end(
        "cancels",
        service::listen_for_cancels(core.clone()),
    ));
    helpers.spawn(log_end("the NATS service", service::serve(core.clone())));

    let router = http::router(core.clone(), slots, operations.clone(), tokens);
    let parts = Parts {
        core,
        asked,
        shutdown_grace,
        operations,
        stop_pulling,
        pulling,
        helpers,
        queues,
        refresh_queues,
    };
    tasks.spawn(parts.run(stop));
    Launched {
        router,
        queues: served_queues,
    }
}

impl Parts {
    async fn run(mut self, stop: CancellationToken) -> Result<(), WorkerError> {
        let result = tokio::select! {
            () = stop.cancelled() => Ok(()),
            result = queues::follow(self.core.clone(), self.asked, self.queues, self.refresh_queues) => result,
        };

        self.stop_pulling.cancel();
        if let Err(error) = self.pulling.await {
            tracing::error!(%error, "the task that pulls requests failed");
        }

        self.operations.close();
        drain(&self.core, &self.operations, self.shutdown_grace).await;

        // A heartbeat after the farewell would bring this worker back to life.
        self.helpers.shutdown().await;
        heartbeat::farewell(&self.core).await;

        tracing::info!(worker_id = %self.core.worker_id, "worker stopped");
        result
    }
}

/// Lets operations finish for `grace`, then asks them to stop, and waits until each of them has
/// recorded how it ended.
async fn drain(core: &Core, operations: &TaskTracker, grace: Duration) {
    core.lost_slots.give_up();
    if !operations.is_empty() && !grace.is_zero() {
        tracing::info!(
            running = core.running.len(),
            ?grace,
            "waiting for operations to finish"
        );
        let _ = tokio::time::timeout(grace, operations.wait()).await;
    }

    core.running.stop_all(StopReason::Shutdown);
    let asked = Instant::now();
    let limit = core.stop_grace.saturating_add(STOP_TIMEOUT);
    let all_ended = tokio::time::timeout(limit, operations.wait()).await;
    if all_ended.is_err() {
        tracing::warn!(
            waited = ?asked.elapsed(),
            running = core.running.len(),
            "leaving operations behind; other workers take them over when their leases end"
        );
    }
}

/// Runs a background task and logs its end: none of them should end before the worker does.
async fn log_end<E: std::fmt::Display>(
    task: &'static str,
    work: impl Future<Output = Result<(), E>>,
) {
    match work.await {
        Ok(()) => tracing::debug!(task, "a background task ended"),
        Err(error) => tracing::error!(task, %error, "a background task failed"),
    }
}
