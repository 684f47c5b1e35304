//! A worker inside the test process, for engines that the test controls.

use clap::Parser;
use ktrdr_worker::{Config, Engine, WorkerError};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::client::Client;
use crate::settings::Settings;

/// A running worker; asked to stop when dropped.
#[derive(Debug)]
pub struct LocalWorker {
    /// Its own REST API.
    pub api: Client,
    /// Its worker id.
    pub id: String,
    stop: CancellationToken,
    task: Option<JoinHandle<Result<(), WorkerError>>>,
}

impl LocalWorker {
    /// Starts a worker with further command line arguments (`["--concurrency", "4"]`).
    ///
    /// # Panics
    /// When the settings do not parse or no port is free.
    pub async fn start<E: Engine>(
        settings: &Settings,
        engine: E,
        id: &str,
        arguments: &[&str],
    ) -> Self {
        let (lease, heartbeat) = (
            format!("{:?}", settings.lease),
            format!("{:?}", settings.heartbeat),
        );
        let data_dir = settings.data_dir.display().to_string();
        let own = [
            "worker",
            "--nats-url",
            &settings.nats_url,
            "--subject-prefix",
            &settings.prefix,
            "--lease",
            &lease,
            "--heartbeat-interval",
            &heartbeat,
            "--data-dir",
            &data_dir,
            "--worker-id",
            id,
        ];

        let config =
            Config::try_parse_from(own.iter().chain(arguments)).expect("settings that parse");
        let listener = TcpListener::bind(("127.0.0.1", 0))
            .await
            .expect("a free port");
        let api = Client::new(format!(
            "http://{}",
            listener.local_addr().expect("its address")
        ));
        let stop = CancellationToken::new();
        let task = tokio::spawn(ktrdr_worker::run(engine, config, listener, stop.clone()));

        Self {
            api,
            id: id.to_owned(),
            stop,
            task: Some(task),
        }
    }

    /// Stops it in order, as SIGTERM would.
    ///
    /// # Panics
    /// When it fails.
    pub async fn stop(mut self) {
        self.stop.cancel();
        if let Some(task) = self.task.take() {
            task.await.expect("no panic").expect("an orderly end");
        }
    }
}

impl Drop for LocalWorker {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
