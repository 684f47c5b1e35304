//! A nats-server, a backend and workers with short times: the usual set-up of a test.

use ktrdr_protocol::subject::SubjectNames;
use ktrdr_worker::Engine;

use crate::bus::Bus;
use crate::client::Client;
use crate::engines::{Gate, GateEngine};
use crate::local_worker::LocalWorker;
use crate::nats::NatsServer;
use crate::process::{BackendProcess, WorkerProcess};
use crate::settings::Settings;

/// A nats-server with one backend process in front. Workers are started by the test.
pub struct Stack {
    /// The server.
    pub nats: NatsServer,
    /// The backend.
    pub backend: BackendProcess,
    /// The test's own connection.
    pub bus: Bus,
    /// What backend and workers have in common.
    pub settings: Settings,
}

impl Stack {
    /// Starts nats-server and backend, and waits until the backend is ready.
    pub async fn start() -> Self {
        Self::start_with(|settings| settings).await
    }

    /// The same with settings changed by the test.
    ///
    /// # Panics
    /// When something does not start.
    pub async fn start_with(change: impl FnOnce(Settings) -> Settings) -> Self {
        let nats = NatsServer::start().await;
        let settings = change(Settings::fast(nats.url()));
        let bus = Bus::connect(
            &nats.url(),
            SubjectNames::new(&settings.prefix).expect("a valid prefix"),
        )
        .await;
        let backend = BackendProcess::start(&settings).await;

        Self {
            nats,
            backend,
            bus,
            settings,
        }
    }

    /// The backend's REST API.
    pub fn api(&self) -> &Client {
        &self.backend.api
    }

    /// Starts a worker process and waits until the backend shows it as available.
    pub async fn worker(&self, worker_type: &str, id: &str) -> WorkerProcess {
        let worker = WorkerProcess::start(&self.settings, worker_type, id).await;
        self.api().wait_for_worker(id, "AVAILABLE").await;
        worker
    }

    /// Starts a worker inside the test process, with further command line arguments, and waits
    /// until the backend shows it as available.
    pub async fn local_worker<E: Engine>(
        &self,
        engine: E,
        id: &str,
        arguments: &[&str],
    ) -> LocalWorker {
        let worker = LocalWorker::start(&self.settings, engine, id, arguments).await;
        self.api().wait_for_worker(id, "AVAILABLE").await;
        worker
    }

    /// Starts a worker of type `gate`, and returns it with its gate, closed.
    pub async fn gate_worker(&self, id: &str) -> (LocalWorker, Gate) {
        let (engine, gate) = GateEngine::new();
        (self.local_worker(engine, id, &[]).await, gate)
    }
}
