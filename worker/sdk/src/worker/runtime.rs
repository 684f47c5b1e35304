//! One worker process from start to stop.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use futures::FutureExt;
use ktrdr_bus::nats::{self, ConnectError};
use ktrdr_bus::oplog::OpLog;
use ktrdr_bus::shutdown;
use ktrdr_bus::telemetry;
use ktrdr_bus::telemetry::chain;
use ktrdr_bus::topology::TopologyError;
use ktrdr_protocol::id::{InvalidName, WorkerId, WorkerType};
use ktrdr_protocol::time::Timestamp;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::announce::{heartbeat, service};
use crate::attempt::execute;
use crate::attempt::stop::StopReason;
use crate::engine::Engine;
use crate::engine::data_dir::DataDir;
use crate::engine::erased::ErasedEngine;
use crate::http;
use crate::pulling::puller::Puller;
use crate::pulling::queues;
use crate::worker::capabilities::{InvalidCapabilities, determine};
use crate::worker::config::Config;
use crate::worker::core::{Core, Counters, EngineRuntime};

/// How long a stopping worker waits for operations that were asked to stop, and for their ends to be stored.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);

/// How long answers that are under way may take when everything else is done.
const HTTP_TIMEOUT: Duration = Duration::from_millis(250);

/// Why a worker could not run.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The engine's worker type is no valid name.
    #[error("the engine cannot be served")]
    Name(#[from] InvalidName),
    /// The stated capabilities do not fit.
    #[error(transparent)]
    Capabilities(#[from] InvalidCapabilities),
    /// NATS cannot be reached with these settings at all.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Streams, consumers or buckets exist and cannot be used.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// The HTTP interface cannot be served.
    #[error("cannot serve HTTP on {address}")]
    Http {
        /// Where.
        address: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The process could not be set up.
    #[error("cannot set up the process")]
    Process(#[source] std::io::Error),
}

/// Runs a worker as a whole program: settings from flags and environment, logs, signals. A custom worker's `main` is this
/// one line.
pub fn main<E: Engine>(engine: E) -> ExitCode {
    run_program(engine, Config::parse())
}

/// Like [`main`], with settings that were parsed elsewhere.
pub fn run_program<E: Engine>(engine: E, config: Config) -> ExitCode {
    telemetry::init(&config.log);
    // Two threads: everything here only waits, and engines that do not have a runtime of their own.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let result = runtime.map_err(WorkerError::Process).and_then(|runtime| {
        let result = runtime.block_on(async {
            let address = format!("{}:{}", config.host, config.port);
            let listener = TcpListener::bind(&address)
                .await
                .map_err(|source| WorkerError::Http { address, source })?;
            let stop = shutdown::on_signals().map_err(WorkerError::Process)?;
            run(engine, config, listener, stop).await
        });
        // An engine that was left behind must not hold up the end of the process.
        runtime.shutdown_background();
        result
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = chain(&error), "the worker cannot run");
            ExitCode::FAILURE
        }
    }
}

/// Runs a worker until `stop` is cancelled: waits for NATS however long, takes work, and hands back what it holds when it
/// stops.
///
/// # Errors
/// [`WorkerError`] when something is wrong that waiting cannot mend.
pub async fn run<E: Engine>(
    engine: E,
    config: Config,
    listener: TcpListener,
    stop: CancellationToken,
) -> Result<(), WorkerError> {
    let core = Arc::new(build_core(engine, &config, &listener).await?);
    tracing::info!(
        worker_id = %core.worker_id, worker_type = %core.worker_type, endpoint_url = %core.endpoint_url,
        slots = core.slots, capabilities = ?core.capabilities, data_dir = %config.data_dir.display(),
        version = env!("CARGO_PKG_VERSION"), "worker started"
    );
    let (queue_sender, queue_receiver) = watch::channel(Vec::new());
    let refresh = Arc::new(Notify::new());
    let operations = TaskTracker::new();
    let (puller, slots) = {
        let (core, operations) = (core.clone(), operations.clone());
        Puller::new(
            core.clone(),
            queue_receiver.clone(),
            refresh.clone(),
            move |pulled| {
                operations.spawn(execute::run_pulled_request(core.clone(), pulled));
            },
        )
    };
    let stop_pulling = CancellationToken::new();
    let pulling = tokio::spawn(puller.run(stop_pulling.clone()));
    // Aborted when dropped: these hold nothing that must be finished.
    let mut helpers = tokio::task::JoinSet::new();
    helpers.spawn(heartbeat::beat(core.clone(), queue_receiver).map_to_unit("heartbeats"));
    helpers.spawn(service::listen_for_cancels(core.clone()).map_to_unit("cancels"));
    helpers.spawn(service::serve(core.clone()).map_to_unit("the NATS service"));
    let close_http = CancellationToken::new();
    let http = http::serve(
        core.clone(),
        slots,
        operations.clone(),
        listener,
        close_http.clone(),
    )
    .fuse();
    tokio::pin!(http);
    let result = tokio::select! {
        () = stop.cancelled() => Ok(()),
        result = queues::follow(core.clone(), config.protocol.clone(), queue_sender, refresh) => result.map_err(WorkerError::from),
        result = &mut http => result.map_err(|source| WorkerError::Http { address: core.endpoint_url.clone(), source }),
    };
    // In this order: no new work; finish or hand back what is held; say farewell; go.
    stop_pulling.cancel();
    let finish = async {
        if let Err(error) = pulling.await {
            tracing::error!(%error, "the puller did not end in order");
        }
        operations.close();
        drain(&core, &operations, config.shutdown_grace).await;
    };
    // Meanwhile it still answers how far it is, and what is to be cancelled; starts are refused without a puller.
    tokio::select! {
        () = finish => {}
        () = async {
            let _ = (&mut http).await;
            std::future::pending().await
        } => {}
    }
    close_http.cancel();
    let _ = tokio::time::timeout(HTTP_TIMEOUT, http).await;
    // A heartbeat after the farewell would bring this worker back to life.
    helpers.shutdown().await;
    heartbeat::farewell(&core).await;
    tracing::info!("worker stopped");
    result
}

/// Lets operations finish for `grace`, then asks them to stop, and waits until each has said how it ended.
async fn drain(core: &Core, operations: &TaskTracker, grace: Duration) {
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
    if tokio::time::timeout(STOP_TIMEOUT, operations.wait())
        .await
        .is_err()
    {
        tracing::warn!(
            waited = ?asked.elapsed(), running = core.running.len(),
            "leaving operations behind; other workers take them over when their leases end"
        );
    }
}

async fn build_core<E: Engine>(
    engine: E,
    config: &Config,
    listener: &TcpListener,
) -> Result<Core, WorkerError> {
    let engine: Arc<dyn ErasedEngine> = Arc::new(engine);
    let info = engine.info();
    let worker_type = WorkerType::new(info.worker_type)?;
    let address = listener.local_addr().map_err(WorkerError::Process)?;
    let host = host_name();
    let worker_id = match &config.worker_id {
        Some(id) => id.clone(),
        None => default_worker_id(&worker_type, &host, address.port())?,
    };
    let endpoint_url = config.endpoint_url.clone().unwrap_or_else(|| {
        let host = if address.ip().is_unspecified() {
            host.clone()
        } else {
            config.host.clone()
        };
        format!("http://{host}:{}", address.port())
    });
    let connection = nats::connect(&config.nats, worker_id.as_str()).await?;
    let names = config.nats.subject_prefix.clone();
    Ok(Core {
        capabilities: determine(&config.capabilities, info.uses_gpu)?,
        engine,
        engines: EngineRuntime::new(config.concurrency, info.never_blocks)
            .map_err(WorkerError::Process)?,
        info,
        worker_type,
        worker_id,
        instance: uuid::Uuid::new_v4().simple().to_string(),
        endpoint_url,
        started_at: Timestamp::now(),
        slots: config.concurrency,
        heartbeat_interval: config.protocol.heartbeat_interval,
        default_lease: config.protocol.lease,
        checkpoint_interval: config.checkpoint_interval,
        data_dir: DataDir::new(&config.data_dir),
        oplog: OpLog::new(connection.jetstream.clone(), names.clone()),
        names,
        connection,
        running: Default::default(),
        local: Default::default(),
        counters: Counters::default(),
        attempts: http::attempts(),
        changed: Notify::new(),
        last_pull: Mutex::new(None),
    })
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if name.trim().is_empty() {
        "localhost".to_owned()
    } else {
        name.trim().to_owned()
    }
}

/// `data-processing-worker-<host>-<port>`: the guide's style, and unique among the workers of one machine.
fn default_worker_id(
    worker_type: &WorkerType,
    host: &str,
    port: u16,
) -> Result<WorkerId, InvalidName> {
    let host: String = host
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .take(64)
        .collect();
    let kind: String = worker_type
        .as_str()
        .replace('_', "-")
        .chars()
        .take(48)
        .collect();
    WorkerId::new(format!("{kind}-worker-{host}-{port}"))
}

/// Reports how a background task ended; none of them should before the worker does.
trait MapToUnit {
    fn map_to_unit(self, what: &'static str) -> impl Future<Output = ()> + Send;
}

impl<F, E> MapToUnit for F
where
    F: Future<Output = Result<(), E>> + Send,
    E: std::fmt::Display,
{
    async fn map_to_unit(self, what: &'static str) {
        match self.await {
            Ok(()) => tracing::debug!(what, "ended"),
            Err(error) => tracing::error!(what, %error, "failed"),
        }
    }
}
