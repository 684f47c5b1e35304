//! A nats-server of a test's own: any port, private store, killed when dropped.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ktrdr_protocol::subject::SubjectNames;
use tokio::net::TcpStream;

use crate::bus::Bus;
use crate::process::{Process, Signal, free_port};
use crate::scratch::Scratch;
use crate::secure;
use crate::settings::repository;
use crate::wait::{LIMIT, wait_for};

/// A nats-server with JetStream, running or stopped. Port and store stay the same over a restart.
#[derive(Debug)]
pub struct NatsServer {
    process: Option<Process>,
    program: PathBuf,
    arguments: Vec<String>,
    port: u16,
    store: PathBuf,
    scratch: Scratch,
    /// Whether the test fails when the server has refused anything.
    secure: bool,
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        if self.secure && !std::thread::panicking() {
            let log = self.log();
            let refused = secure::violations(&log);
            assert!(refused.is_empty(), "the server refused {refused:#?}");
        }
    }
}

impl NatsServer {
    /// Starts a server with nats-server's defaults and JetStream.
    ///
    /// # Panics
    /// When there is no nats-server or it does not start.
    pub async fn start() -> Self {
        Self::start_with("").await
    }

    /// Starts a server with the test's own configuration, for limits, accounts or TLS. It must not
    /// name port or store.
    ///
    /// # Panics
    /// When there is no nats-server or it does not start.
    pub async fn start_with(configuration: &str) -> Self {
        let mut this = Self::launch(configuration);
        this.up().await;
        this
    }

    /// Starts a server whose store is in a directory of the test's choice.
    ///
    /// # Panics
    /// As [`Self::start_with`].
    pub async fn start_in(store: &Path, configuration: &str) -> Self {
        let mut this = Self::launch_in(Some(store), configuration);
        this.up().await;
        this
    }

    /// The same as [`Self::start_with`] without waiting: a member of a cluster answers only when
    /// enough members run.
    pub fn launch(configuration: &str) -> Self {
        Self::launch_in(None, configuration)
    }

    fn launch_in(store: Option<&Path>, configuration: &str) -> Self {
        let scratch = Scratch::new("nats");
        let mut arguments = vec!["--jetstream".to_owned(), "--addr=127.0.0.1".to_owned()];

        let store = store.map_or_else(|| scratch.join("store"), Path::to_owned);
        arguments.push(format!("--store_dir={}", store.display()));

        // A test that configures users of its own keeps them.
        let secure = secure::is_wanted() && !configuration.contains("users");
        let configuration = if secure {
            let users = secure::installation(&secure::WORKER_TYPES);
            format!("{configuration}\n{}", secure::configuration(&users))
        } else {
            configuration.to_owned()
        };

        if !configuration.is_empty() {
            std::fs::write(scratch.join("server.conf"), &configuration)
                .expect("a configuration file");
            arguments.push(format!(
                "--config={}",
                scratch.join("server.conf").display()
            ));
        }

        let mut this = Self {
            process: None,
            program: find_program(),
            arguments,
            port: free_port(),
            store,
            scratch,
            secure,
        };

        this.spawn();
        this
    }

    /// Starts it again after [`Self::stop`] or [`Self::kill`], at the same port, with the same
    /// store.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn run(&mut self) {
        self.spawn();
        self.up().await;
    }

    /// The program that [`Self::start`] runs.
    pub fn program() -> PathBuf {
        find_program()
    }

    /// Waits until it answers.
    ///
    /// # Panics
    /// When it does not.
    pub async fn up(&mut self) {
        let url = self.url();
        let process = self.process.as_mut().expect("just started");
        wait_for("nats-server to answer", LIMIT, async || {
            if let Err(ended) = process.check_alive() {
                panic!("{ended}");
            }

            let client = async_nats::connect(&url)
                .await
                .map_err(|error| error.to_string())?;

            // An account without JetStream, or one still being recovered, answers with an error.
            let jetstream = async_nats::jetstream::new(client);
            jetstream
                .query_account()
                .await
                .map(drop)
                .map_err(|error| error.to_string())
        })
        .await;
    }

    /// Waits until it listens, and returns its address. For a server that does not let everybody in.
    ///
    /// # Panics
    /// When it does not.
    pub async fn listens(&mut self) -> String {
        let process = self.process.as_mut().expect("just started");
        wait_for("nats-server to listen", LIMIT, async || {
            if let Err(ended) = process.check_alive() {
                panic!("{ended}");
            }
            TcpStream::connect(("127.0.0.1", self.port))
                .await
                .map(drop)
                .map_err(|error| error.to_string())
        })
        .await;

        self.url()
    }

    /// Starts it again at once with another configuration.
    ///
    /// # Panics
    /// When it was started without one.
    pub fn reconfigure(&mut self, configuration: &str) {
        let file = self.scratch.join("server.conf");
        assert!(file.exists(), "a server without a configuration");
        std::fs::write(file, configuration).expect("a configuration file");
        self.relaunch();
    }

    fn spawn(&mut self) {
        let mut command = Command::new(&self.program);

        command
            .args(&self.arguments)
            .arg("--port")
            .arg(self.port.to_string());
        self.process = Some(Process::spawn(
            "nats-server",
            command,
            &self.scratch.join("log"),
        ));
    }

    /// Starts it again and returns at once.
    pub fn relaunch(&mut self) {
        self.kill();
        self.spawn();
    }

    /// The process, while there is one.
    pub fn process(&mut self) -> Option<&mut Process> {
        self.process.as_mut()
    }

    /// Whether it lives.
    ///
    /// # Errors
    /// How it ended, and its last words.
    pub fn check_alive(&mut self) -> Result<(), String> {
        self.process
            .as_mut()
            .map_or(Err("stopped".to_owned()), Process::check_alive)
    }

    /// Where clients connect.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The directory of everything that it has stored.
    pub fn store(&self) -> PathBuf {
        self.store.clone()
    }

    /// A connection for the test, with the default prefix.
    pub async fn bus(&self) -> Bus {
        Bus::connect(
            &self.url(),
            SubjectNames::new("ktrdr").expect("a valid prefix"),
        )
        .await
    }

    /// Its process id; 0 when it is stopped.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().map_or(0, Process::pid)
    }

    /// What the server has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.scratch.join("log")).unwrap_or_default()
    }

    /// SIGTERM, and waits until it is gone.
    pub async fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.stop().await;
        }
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// `kill -9`, and starts again.
    pub async fn restart(&mut self) {
        self.kill();
        self.run().await;
    }

    /// Freezes the server ([`Signal::Stop`]) or wakes it ([`Signal::Cont`]).
    pub fn signal(&mut self, signal: Signal) {
        if let Some(process) = &mut self.process {
            process.signal(signal);
        }
    }
}

/// The path of nats-server: `$NATS_SERVER`, which scripts/test sets; else what scripts/get-nats finds
/// or fetches.
///
/// # Panics
/// When there is none.
pub fn find_program() -> PathBuf {
    if let Some(path) = std::env::var_os("NATS_SERVER") {
        return path.into();
    }
    let script = repository().join("scripts/get-nats");
    let output = Command::new(&script).stderr(Stdio::inherit()).output();
    let output = output.unwrap_or_else(|error| panic!("cannot run {}: {error}", script.display()));
    assert!(
        output.status.success(),
        "scripts/get-nats found no nats-server"
    );
    String::from_utf8_lossy(&output.stdout).trim().into()
}
