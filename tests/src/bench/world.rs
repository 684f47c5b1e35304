//! The programs under measurement: release builds, as users run them.

use std::process::Command;
use std::time::Duration;

use ktrdr_protocol::execution::ExecutionOptions;
use ktrdr_protocol::id::{OperationId, WorkerType};
use ktrdr_protocol::start_request::StartRequest;
use ktrdr_protocol::subject::SubjectNames;
use ktrdr_protocol::time::Timestamp;
use serde_json::value::RawValue;

use crate::process::{BackendProcess, Process, WorkerProcess, free_port};
use crate::scratch::Scratch;
use crate::settings::Settings;
use crate::wait::{LIMIT, wait_for};
use crate::{NatsServer, bus::Bus};

/// An operation that completes at once.
pub(super) const NO_OP: &str = r#"{"steps":0}"#;

/// Production settings, independent of the environment.
pub(super) fn settings(nats: &NatsServer) -> Settings {
    Settings {
        heartbeat: Duration::from_secs(10),
        lease: Duration::from_secs(30),
        cancel_grace: Duration::from_secs(30),
        remove_after: Duration::from_secs(300),
        // At `info`, two log lines for each operation would be measured too.
        log: "warn".to_owned(),
        ..Settings::fast(nats.url())
    }
}

/// A nats-server, a backend, and the bench's own connection.
pub(super) struct World {
    pub(super) nats: NatsServer,
    pub(super) backend: BackendProcess,
    pub(super) bus: Bus,
    pub(super) settings: Settings,
}

impl World {
    /// nats-server with its default of flushing every two minutes.
    pub(super) async fn start() -> Self {
        Self::start_with("").await
    }

    pub(super) async fn start_with(configuration: &str) -> Self {
        let nats = NatsServer::start_with(configuration).await;
        let settings = settings(&nats);
        let bus = Bus::connect(
            &nats.url(),
            SubjectNames::new("ktrdr").expect("a valid prefix"),
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

    /// Starts a dummy worker with `concurrency` slots.
    pub(super) async fn worker(&self, id: &str, concurrency: usize) -> WorkerProcess {
        let settings = self
            .settings
            .clone()
            .with("WORKER_CONCURRENCY", concurrency.to_string());
        let worker = WorkerProcess::start(&settings, "dummy", id).await;

        self.backend.api.wait_for_worker(id, "AVAILABLE").await;

        // The backend learns the domain from the catalogue, not from the heartbeat.
        wait_for("the domain dummy", LIMIT, async || {
            let types = self.backend.api.try_get("/api/v1/worker-types").await?;
            if types.text.contains("\"dummy\"") {
                Ok(())
            } else {
                Err(types.text)
            }
        })
        .await;

        worker
    }

    /// The processes whose CPU time counts.
    pub(super) fn processes(&self, worker: &WorkerProcess) -> Vec<(&'static str, u32)> {
        vec![
            ("nats", self.nats.pid()),
            ("backend", self.backend.process.pid()),
            ("worker", worker.process.pid()),
        ]
    }

    pub(super) fn address(&self) -> std::net::SocketAddr {
        super::http::address_of(self.backend.api.base())
    }

    /// How many operations the backend shows with this status.
    pub(super) async fn count(&self, status: &str) -> u64 {
        let answer = self
            .backend
            .api
            .operations(&format!("status={status}&limit=1"))
            .await;
        answer
            .at("/data/total")
            .as_u64()
            .unwrap_or_else(|| panic!("no total: {answer}"))
    }

    /// Waits until the backend shows `count` completed operations.
    pub(super) async fn completed(&self, count: u64) {
        while self.count("completed").await < count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(super) async fn shutdown(mut self) {
        self.backend.process.stop().await;
        self.nats.stop().await;
    }
}

pub(super) fn dummy() -> WorkerType {
    WorkerType::new("dummy").expect("a valid name")
}

/// A start request as the backend would publish it.
pub(super) fn start_request(parameters: &str) -> StartRequest {
    StartRequest {
        operation_id: OperationId::generate(),
        operation_type: dummy(),
        parameters: RawValue::from_string(parameters.to_owned()).expect("parameters are JSON"),
        execution: ExecutionOptions::default(),
        created_at: Timestamp::now(),
        schema_digest: None,
        retry_of: None,
        resume_from: None,
        resume_ancestors: Vec::new(),
        schedule_id: None,
        requested_by: None,
        copy: None,
    }
}

/// The bare axum server as a process.
pub(super) struct Bare {
    pub(super) address: std::net::SocketAddr,
    process: Process,
    #[expect(dead_code, reason = "holds the log")]
    scratch: Scratch,
}

impl Bare {
    pub(super) fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub(super) async fn start(bytes: &[u8]) -> Self {
        let (scratch, port) = (Scratch::new("bare"), free_port());
        std::fs::write(scratch.join("bytes"), bytes).expect("a file");
        let mut command = Command::new(std::env::current_exe().expect("the path of this program"));
        command
            .arg("serve")
            .arg(port.to_string())
            .arg(scratch.join("bytes"));
        let process = Process::spawn("the bare server", command, &scratch.join("log"));
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));

        wait_for("the bare server", LIMIT, async || {
            tokio::net::TcpStream::connect(address)
                .await
                .map(drop)
                .map_err(|error| error.to_string())
        })
        .await;

        Self {
            address,
            process,
            scratch,
        }
    }
}
