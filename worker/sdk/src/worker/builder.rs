//! Runs one or several engines in this process: as a whole program, or inside another one.

mod identity;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use axum::{Router, middleware};
use clap::Parser;
use futures::FutureExt;
use ktrdr_bus::nats::{self, Connection};
use ktrdr_bus::oplog::OpLog;
use ktrdr_bus::settings::{BAD_SETTING, masked_urls, warn_about_unknown_variables};
use ktrdr_bus::shutdown;
use ktrdr_bus::signing::TrustedKeys;
use ktrdr_bus::telemetry::{self, Repeated, chain};
use ktrdr_http::browsers::{self, BrowserRules};
use ktrdr_http::tls::Tls;
use ktrdr_http::tokens::Tokens;
use ktrdr_protocol::id::WorkerId;
use ktrdr_protocol::time::Timestamp;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use self::identity::{Endpoint, Identity};
use crate::announce::heartbeat::describe;
use crate::attempt::permits::Permits;
use crate::attempt::trust::RefusedStarts;
use crate::dynamic::{DynEngine, EngineInfo};
use crate::engine::Engine;
use crate::engine::data_dir::DataDir;
use crate::engine::declaration;
use crate::engine::events;
use crate::engine::panics;
use crate::http;
use crate::pulling::queue_pulls::ServedQueue;
use crate::worker::capabilities::determine;
use crate::worker::config::Config;
use crate::worker::core::{Core, EngineRuntime};
use crate::worker::error::WorkerError;
use crate::worker::lifecycle::launch;
use crate::worker::metrics::{AttemptDurations, Counters};

/// How long open REST requests may take when everything else has stopped.
const HTTP_TIMEOUT: Duration = Duration::from_millis(250);

/// Runs one engine as a whole program: settings from flags and environment, logs, signals.
///
/// The `main` of a custom worker is this one line. See [`Worker::builder`] for more.
pub fn main<E: Engine>(engine: E) -> ExitCode {
    Worker::builder().engine(engine).run()
}

/// What to run, and how. Made by [`Worker::builder`].
#[must_use = "nothing runs before `run` or `start`"]
#[derive(Default)]
pub struct WorkerBuilder {
    engines: Vec<Arc<dyn DynEngine>>,
    config: Option<Config>,
    address: Address,
}

/// Where the REST interface is reached.
#[derive(Default)]
enum Address {
    /// At the configured host and port.
    #[default]
    Configured,
    /// At a listener of the caller.
    Listener(TcpListener),
    /// Wherever the caller serves [`Worker::router`].
    Mounted(String),
}

impl WorkerBuilder {
    /// Adds an engine. Each engine is a full worker with its own worker id, slots and heartbeats.
    pub fn engine<E: Engine>(self, engine: E) -> Self {
        self.dyn_engine(engine)
    }

    /// Adds an engine whose worker type is known only at run time; see [`crate::dynamic`].
    pub fn dyn_engine(mut self, engine: impl DynEngine) -> Self {
        self.engines.push(Arc::new(engine));
        self
    }

    /// Sets the settings. Without this, [`Self::run`] reads flags and environment, and
    /// [`Self::start`] uses [`Config::default`].
    pub fn config(mut self, config: Config) -> Self {
        self.config = Some(config);
        self
    }

    /// Serves the REST interface on a listener that is already bound, instead of binding the
    /// configured host and port.
    pub fn listener(mut self, listener: TcpListener) -> Self {
        self.address = Address::Listener(listener);
        self
    }

    /// Binds no address: the program serves [`Worker::router`] itself, and `url` is where others
    /// reach it. The router asks for tokens when there is a file of tokens; on which address it is
    /// served is up to the program.
    ///
    /// Set [`Config::worker_id`] too. The default has the process id in it here, so it changes
    /// with every start.
    pub fn mounted_at(mut self, url: impl Into<String>) -> Self {
        self.address = Address::Mounted(url.into());
        self
    }

    /// Runs as a whole program: starts logging, makes a runtime, stops on SIGTERM or SIGINT.
    pub fn run(self) -> ExitCode {
        self.run_prepared(async |builder| Ok(builder))
    }

    /// [`Self::run`] for a program that must do something first, with logs and a runtime: find out
    /// what its engine is, for example. `prepare` returns what to run. A signal stops it, too.
    ///
    /// An error of `prepare` ends the program with a failure, and is logged with its causes. The exit code is
    /// 2 when a setting cannot be used, and 1 after another failure.
    pub fn run_prepared(
        self,
        prepare: impl AsyncFnOnce(Self) -> Result<Self, anyhow::Error>,
    ) -> ExitCode {
        let config = self.config.clone().unwrap_or_else(Config::parse);
        let lines = events::events_layer(config.log_level.least());
        telemetry::init_beside(&config.log, lines, events::TARGET);
        warn_about_unknown_variables();

        // Two threads: everything here only waits, except engines that never block.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build();
        let result = runtime.map_err(WorkerError::Process).and_then(|runtime| {
            let result = runtime.block_on(async {
                let stop = shutdown::on_signals().map_err(WorkerError::Process)?;
                let prepared = tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    prepared = prepare(self.config(config)) => prepared?,
                };
                let mut worker = prepared.start().await?;
                tokio::select! {
                    () = stop.cancelled() => worker.stop().await,
                    result = worker.wait() => result,
                }
            });
            // An engine that was left behind must not delay the end of the process.
            runtime.shutdown_background();
            result
        });

        match result {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                tracing::error!(error = chain(&error), "the worker cannot run");
                match error.is_about_settings() {
                    true => ExitCode::from(BAD_SETTING),
                    false => ExitCode::FAILURE,
                }
            }
        }
    }

    /// Starts the workers on the current tokio runtime, for a program that has one. Installs no
    /// signal handlers, does not set up logging, and never exits the process. The panic hook that is
    /// there is kept, behind one that notes where engines panic.
    ///
    /// Does not wait until NATS is reachable: see [`Worker::ready`].
    ///
    /// # Errors
    /// [`WorkerError`] when an engine or a setting cannot be used.
    pub async fn start(self) -> Result<Worker, WorkerError> {
        let config = self.config.unwrap_or_default();
        let engines: Vec<_> = self
            .engines
            .into_iter()
            .map(|engine| (engine.info(), engine))
            .collect();
        panics::keep_places();
        refuse_duplicates(&engines)?;
        for (info, _) in &engines {
            declaration::validate(info)
                .await
                .map_err(|fault| WorkerError::declaration(info, fault))?;
        }

        let endpoint = Endpoint::of(self.address, &config).await?;
        let tokens = Tokens::load(&config.tokens)?;
        let several = engines.len() > 1;
        let mut identities = Vec::with_capacity(engines.len());
        for (info, _) in &engines {
            identities.push(Identity::of(info, &config, &endpoint, several)?);
        }
        let name = identities.first().ok_or(WorkerError::NoEngine)?;
        let connection = nats::connect(&config.nats, name.worker_id.as_str()).await?;

        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let mut router = Router::new();
        let (mut worker_ids, mut queues) = (Vec::new(), Vec::new());
        let mut cores = Vec::new();
        for ((info, engine), identity) in engines.into_iter().zip(identities) {
            let tls = endpoint.tls.clone();
            cores.push(build_core(
                engine,
                info,
                identity,
                &config,
                tls,
                &connection,
            )?);
        }
        for core in cores {
            let core = Arc::new(core);
            worker_ids.push(core.worker_id.clone());
            tracing::info!(
                worker_id = %core.worker_id,
                "Registering worker with backend at {}: over NATS, as soon as it can be reached",
                masked_urls(&config.nats.nats_url)
            );
            let launched = launch(
                core.clone(),
                config.protocol.streams,
                config.shutdown_grace,
                tokens.clone(),
                &mut tasks,
                stop.clone(),
            );
            queues.push(launched.queues);
            router = if several {
                router.nest(&format!("/{}", core.worker_type), launched.router)
            } else {
                launched.router
            };
        }
        let rules = BrowserRules::new(&config.browsers, &[&config.host, &endpoint.url])
            .served_by(endpoint.scheme);
        let router = router.layer(middleware::from_fn_with_state(
            Arc::new(rules),
            browsers::guard,
        ));

        let task = tokio::spawn(supervise(
            tasks,
            endpoint.listener,
            router.clone(),
            endpoint.tls,
            tokens,
            stop.clone(),
        ));
        Ok(Worker {
            worker_ids,
            queues,
            router,
            stop,
            task: Some(task),
        })
    }
}

/// The workers of this process, while they run.
///
/// Dropping it asks them to stop, and does not wait for that; [`Self::stop`] does.
#[derive(Debug)]
pub struct Worker {
    worker_ids: Vec<WorkerId>,
    queues: Vec<watch::Receiver<Vec<ServedQueue>>>,
    router: Router,
    stop: CancellationToken,
    /// There until its result was taken.
    task: Option<JoinHandle<Result<(), WorkerError>>>,
}

impl Worker {
    /// Begins the description of what to run.
    ///
    /// Several engines share the connection to NATS and one HTTP listener. Every engine is a full
    /// worker otherwise: it has [`Config::concurrency`] slots of its own, its own heartbeats, and
    /// its own worker id (a configured id is followed by `-` and the worker type). With one
    /// engine, its REST interface is at the root; with several, each is below `/{worker_type}`.
    pub fn builder() -> WorkerBuilder {
        WorkerBuilder::default()
    }

    /// Resolves when every worker has reached NATS, has registered its worker type, and takes
    /// requests.
    ///
    /// # Errors
    /// [`WorkerError::Stopped`] when a worker stops before that.
    pub async fn ready(&self) -> Result<(), WorkerError> {
        for queues in &self.queues {
            let mut queues = queues.clone();
            queues
                .wait_for(|served| !served.is_empty())
                .await
                .map_err(|_| WorkerError::Stopped)?;
        }
        Ok(())
    }

    /// The worker ids, in the order of the engines.
    pub fn worker_ids(&self) -> &[WorkerId] {
        &self.worker_ids
    }

    /// The REST interface, for a program that serves it itself ([`WorkerBuilder::mounted_at`]).
    pub fn router(&self) -> Router {
        self.router.clone()
    }

    /// Waits until the workers end by themselves, which they do only on an error.
    ///
    /// # Errors
    /// [`WorkerError`], the reason.
    pub async fn wait(&mut self) -> Result<(), WorkerError> {
        let Some(task) = &mut self.task else {
            return Ok(());
        };
        let joined = task.await;
        self.task = None;

        match joined {
            Ok(result) => result,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(WorkerError::Stopped),
            },
        }
    }

    /// Stops in order: takes no new requests, lets operations finish for
    /// [`Config::shutdown_grace`], hands the others back, says farewell, and returns.
    ///
    /// # Errors
    /// [`WorkerError`] when a worker had failed before.
    pub async fn stop(&mut self) -> Result<(), WorkerError> {
        self.stop.cancel();
        self.wait().await
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Serves HTTP until all workers have ended. The failure of one of them stops the others.
async fn supervise(
    mut workers: JoinSet<Result<(), WorkerError>>,
    listener: Option<TcpListener>,
    router: Router,
    tls: Option<Tls>,
    tokens: Tokens,
    stop: CancellationToken,
) -> Result<(), WorkerError> {
    let close_http = CancellationToken::new();
    let serving = async {
        match listener {
            Some(listener) => http::serve(listener, router, tls, close_http.clone()).await,
            None => close_http.cancelled().await,
        }
    };
    let http = async {
        tokio::select! {
            () = serving => {}
            () = tokens.keep_current() => {}
        }
    }
    .fuse();
    tokio::pin!(http);

    let mut result = Ok(());
    loop {
        let ended = tokio::select! {
            joined = workers.join_next() => match joined {
                None => break,
                Some(Ok(ended)) => ended,
                Some(Err(error)) => match error.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    Err(_) => Err(WorkerError::Stopped),
                },
            },
            () = &mut http => Ok(()),
        };
        stop.cancel();
        result = result.and(ended);
    }

    close_http.cancel();
    let _ = tokio::time::timeout(HTTP_TIMEOUT, http).await;
    result
}

fn refuse_duplicates(engines: &[(EngineInfo, Arc<dyn DynEngine>)]) -> Result<(), WorkerError> {
    for (index, (info, _)) in engines.iter().enumerate() {
        let is_taken = engines[..index]
            .iter()
            .any(|(earlier, _)| earlier.worker_type == info.worker_type);
        if is_taken {
            return Err(WorkerError::DuplicateEngine(info.worker_type.to_string()));
        }
        let same_domain = engines[..index]
            .iter()
            .find(|(earlier, _)| earlier.domain == info.domain);
        if let Some((earlier, _)) = same_domain {
            return Err(WorkerError::SharedDomain {
                first: earlier.worker_type.to_string(),
                second: info.worker_type.to_string(),
                domain: info.domain.to_string(),
            });
        }
    }
    Ok(())
}

fn build_core(
    engine: Arc<dyn DynEngine>,
    info: EngineInfo,
    identity: Identity,
    config: &Config,
    tls: Option<Tls>,
    connection: &Connection,
) -> Result<Core, WorkerError> {
    let names = config.nats.subject_prefix.clone();
    let oplog = OpLog::of_worker(
        connection.jetstream.clone(),
        names.clone(),
        &identity.worker_type,
    );
    let core = Core {
        capabilities: determine(&config.capabilities, info.uses_gpu)?,
        engine,
        engines: EngineRuntime::new(config.concurrency, info.never_blocks)
            .map_err(WorkerError::Process)?,
        info,
        schema: Default::default(),
        compiled: Default::default(),
        worker_type: identity.worker_type,
        worker_id: identity.worker_id,
        instance: uuid::Uuid::new_v4().simple().to_string(),
        endpoint_url: identity.endpoint_url,
        routes: config.http,
        tls,
        started_at: Timestamp::now(),
        slots: config.concurrency,
        heartbeat_interval: config.protocol.heartbeat_interval,
        default_lease: config.protocol.streams.or_default().lease,
        leases: Default::default(),
        stop_grace: config.stop_grace,
        checkpoint_interval: config.checkpoint_interval,
        old_checkpoint_keys: config.old_checkpoint_keys,
        log_limits: config.log_limits(),
        log_gate: Default::default(),
        data_dir: data_dir(config)?,
        oplog,
        results: Default::default(),
        trusted: trusted_keys(config)?,
        refused: RefusedStarts::default(),
        permits: Permits::default(),
        names,
        connection: connection.clone(),
        running: Default::default(),
        lost_slots: Default::default(),
        local: Default::default(),
        counters: Counters::default(),
        attempt_durations: AttemptDurations::default(),
        draining: watch::Sender::new(false),
        changed: Notify::new(),
        last_pull: Mutex::new(None),
        unsent_heartbeats: Repeated::new(),
        short_lease: Repeated::new(),
    };

    // Backends would refuse all its heartbeats.
    describe(&core)
        .check_parts()
        .map_err(|error| WorkerError::Settings(error.to_string()))?;
    Ok(core)
}

fn trusted_keys(config: &Config) -> Result<Option<Arc<TrustedKeys>>, WorkerError> {
    let Some(setting) = config.verify.verify_keys.as_deref() else {
        return Ok(None);
    };
    let keys = TrustedKeys::from_setting(setting, config.protocol.streams.or_default().retention)?;
    tracing::info!(keys = ?keys.names(), "running only what these keys signed");
    Ok(Some(Arc::new(keys)))
}

fn data_dir(config: &Config) -> Result<DataDir, WorkerError> {
    let whole = DataDir::new(&config.data_dir);
    match config.output_dir.as_deref() {
        None | Some("") => Ok(whole),
        Some(folder) => whole
            .with_outputs_below(folder)
            .map_err(|error| WorkerError::Settings(format!("KTRDR_OUTPUT_DIR: {error}"))),
    }
}

#[cfg(test)]
mod tests;
