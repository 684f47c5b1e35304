//! State that all parts of one worker share.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::object_store::ObjectStore;
use ktrdr_bus::nats::Connection;
use ktrdr_bus::oplog::OpLog;
use ktrdr_bus::signing::TrustedKeys;
use ktrdr_bus::telemetry::Repeated;
use ktrdr_http::schema::{CompiledSchemas, LazySchema, Schema, UnusableSchema};
use ktrdr_http::tls::Tls;
use ktrdr_protocol::id::{WorkerId, WorkerType};
use ktrdr_protocol::schema_text::SchemaText;
use ktrdr_protocol::subject::SubjectNames;
use ktrdr_protocol::time::Timestamp;
use ktrdr_protocol::worker::Capabilities;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::attempt::permits::Permits;
use crate::attempt::trust::RefusedStarts;
use crate::dynamic::{DynEngine, EngineInfo};
use crate::engine::data_dir::DataDir;
use crate::pulling::lease::LeaseDurations;
use crate::reporting::log_lines::LogLimits;
use crate::reporting::send_logs::LogGate;
use crate::worker::config::RestRoutes;
use crate::worker::history::LocalOperations;
use crate::worker::lost_slots::LostSlots;
use crate::worker::metrics::{AttemptDurations, Counters};
use crate::worker::running::RunningAttempts;

/// The identity, the connection and the tables of one worker.
pub(crate) struct Core {
    pub(crate) engine: Arc<dyn DynEngine>,
    pub(crate) info: EngineInfo,
    /// See [`Self::compiled_schema`].
    pub(crate) schema: LazySchema,
    /// It, once it is compiled.
    pub(crate) compiled: CompiledSchemas,
    /// Where the engine runs. An engine that never awaits delays only other attempts.
    pub(crate) engines: EngineRuntime,
    pub(crate) worker_type: WorkerType,
    pub(crate) worker_id: WorkerId,
    /// Unique to the process. An earlier process with the same worker id had another one.
    pub(crate) instance: String,
    pub(crate) endpoint_url: String,
    /// What the REST interface serves.
    pub(crate) routes: RestRoutes,
    /// The TLS of the REST interface, if it has one.
    pub(crate) tls: Option<Tls>,
    pub(crate) capabilities: Capabilities,
    pub(crate) started_at: Timestamp,
    pub(crate) slots: u32,
    pub(crate) heartbeat_interval: Duration,
    /// The lease for direct starts, and for queues that this worker creates.
    pub(crate) default_lease: Duration,
    /// The leases of the queues that this worker serves.
    pub(crate) leases: LeaseDurations,
    /// How long an engine may take to stop once its attempt is over: after its time limit, a stall, a
    /// loss, or when the worker stops. Then its end is recorded without it.
    pub(crate) stop_grace: Duration,
    /// Shortest time between two checkpoints of an operation.
    pub(crate) checkpoint_interval: Duration,
    /// Whether checkpoints are also kept under keys without the worker type.
    pub(crate) old_checkpoint_keys: bool,
    /// What an operation may say.
    pub(crate) log_limits: LogLimits,
    /// Whether log lines can be stored now.
    pub(crate) log_gate: LogGate,
    pub(crate) data_dir: DataDir,
    pub(crate) names: SubjectNames,
    pub(crate) connection: Connection,
    pub(crate) oplog: OpLog,
    /// The bucket of large results of this worker type, once it was found.
    pub(crate) results: Mutex<Option<ObjectStore>>,
    /// Whose start requests it runs; `None` for everybody's.
    pub(crate) trusted: Option<Arc<TrustedKeys>>,
    /// The start requests that it refused lately.
    pub(crate) refused: RefusedStarts,
    /// What it knows of concurrency keys.
    pub(crate) permits: Permits,
    pub(crate) running: RunningAttempts,
    pub(crate) lost_slots: LostSlots,
    pub(crate) local: LocalOperations,
    pub(crate) counters: Counters,
    /// Durations of ended attempts, by outcome.
    pub(crate) attempt_durations: AttemptDurations,
    /// Whether it takes no more work, because somebody asked for that.
    pub(crate) draining: watch::Sender<bool>,
    /// Notified when the next heartbeat would differ from the last one.
    pub(crate) changed: Notify,
    /// When the worker last sent a pull.
    pub(crate) last_pull: Mutex<Option<Instant>>,
    /// Lines about heartbeats that cannot be sent.
    pub(crate) unsent_heartbeats: Repeated,
    /// Lines about a lease that is too short for the network.
    pub(crate) short_lease: Repeated,
}

impl Core {
    /// The compiled request schema. Compiled when it is needed first: most workers only ever pull
    /// requests that were checked against it, and a compiled schema takes a tenth of an idle worker's
    /// memory.
    ///
    /// # Errors
    /// The worker compiled it when it started, so this time it took too long.
    pub(crate) async fn compiled_schema(&self) -> Result<Schema, UnusableSchema> {
        let text = || SchemaText::of(&self.info.request_schema);
        self.compiled.get(&self.schema, text).await
    }

    /// Takes no more work, or takes it again. Returns whether that is new.
    pub(crate) fn drain(&self, draining: bool) -> bool {
        let is_new = self.draining.send_replace(draining) != draining;
        if is_new {
            self.changed.notify_one();
        }
        is_new
    }

    /// Whether no slot is free: each runs an operation, or is lost.
    pub(crate) fn is_busy(&self) -> bool {
        self.running.len() + self.lost_slots.count() as usize >= self.slots as usize
    }
}

/// Where an engine runs: on a runtime of its own, unless it never blocks.
pub(crate) enum EngineRuntime {
    /// On threads of its own. Dropping it does not wait for them, so an engine that never stops
    /// keeps its thread until the process ends.
    Own {
        /// `None` only while this is dropped.
        runtime: Option<tokio::runtime::Runtime>,
        handle: tokio::runtime::Handle,
    },
    /// On the threads of the worker itself.
    Shared,
}

impl EngineRuntime {
    pub(crate) fn new(slots: u32, never_blocks: bool) -> std::io::Result<Self> {
        if never_blocks {
            return Ok(Self::Shared);
        }
        let threads = usize::try_from(slots).unwrap_or(1).clamp(1, 16);
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            // Every slot may block a thread.
            .max_blocking_threads(usize::try_from(slots).unwrap_or(1).saturating_add(64))
            .thread_name("engine")
            .enable_all()
            .build()
            .map(|runtime| Self::Own {
                handle: runtime.handle().clone(),
                runtime: Some(runtime),
            })
    }

    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        match self {
            Self::Own { handle, .. } => handle.spawn(work),
            Self::Shared => tokio::spawn(work),
        }
    }
}

impl Drop for EngineRuntime {
    fn drop(&mut self) {
        if let Self::Own { runtime, .. } = self
            && let Some(runtime) = runtime.take()
        {
            runtime.shutdown_background();
        }
    }
}
