//! A worker inside the test process, for engines that the test controls.

use clap::Parser;
use ktrdr_bus::permissions::Role;
use ktrdr_protocol::id::WorkerType;
use ktrdr_worker::{Config, Engine, Worker};
use tokio::net::TcpListener;

use crate::client::Client;
use crate::settings::Settings;

/// A running worker; asked to stop when dropped.
#[derive(Debug)]
pub struct LocalWorker {
    /// Its own REST API.
    pub api: Client,
    /// Its worker id.
    pub id: String,
    worker: Worker,
}

impl LocalWorker {
    /// The settings of a worker, with further command line arguments (`["--concurrency", "4"]`).
    ///
    /// # Panics
    /// When the settings do not parse.
    pub fn config(settings: &Settings, id: &str, arguments: &[&str]) -> Config {
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
        Config::try_parse_from(own.iter().chain(arguments)).expect("settings that parse")
    }

    /// The arguments with which a worker connects as the user of its type, if it is to do so.
    fn user(settings: &Settings, worker_type: &str) -> Vec<String> {
        let worker_type = WorkerType::new(worker_type).expect("a worker type");
        let variables = settings.user_env(&Role::Worker(worker_type));
        let flags = variables.into_iter().map(|(variable, value)| {
            let flag = variable.to_ascii_lowercase().replace('_', "-");
            format!("--{flag}={value}")
        });
        let old_keys = settings
            .secure
            .then(|| "--old-checkpoint-keys=false".to_owned());
        flags.chain(old_keys).collect()
    }

    /// Starts a worker with further command line arguments.
    ///
    /// # Panics
    /// When the settings do not parse or no port is free.
    pub async fn start<E: Engine>(
        settings: &Settings,
        engine: E,
        id: &str,
        arguments: &[&str],
    ) -> Self {
        let user = Self::user(settings, E::NAME);
        let user = user.iter().map(String::as_str);
        let arguments: Vec<&str> = user.chain(arguments.iter().copied()).collect();
        let config = Self::config(settings, id, &arguments);

        let listener = TcpListener::bind(("127.0.0.1", 0))
            .await
            .expect("a free port");
        let api = settings.client(format!(
            "http://{}",
            listener.local_addr().expect("its address")
        ));
        let worker = Worker::builder()
            .engine(engine)
            .config(config)
            .listener(listener)
            .start()
            .await
            .expect("a worker that can run");

        Self {
            api,
            id: id.to_owned(),
            worker,
        }
    }

    /// Stops it in order, as SIGTERM would.
    ///
    /// # Panics
    /// When it fails.
    pub async fn stop(mut self) {
        self.worker.stop().await.expect("an orderly end");
    }
}
