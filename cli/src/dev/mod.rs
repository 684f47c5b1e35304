//! `ktrdr dev`: a whole system in the foreground, for development.
//!
//! It starts nats-server, a backend and one worker of each built-in type as child processes, with
//! ports of their own where the usual ones are taken, and prints what they log. Ctrl-C ends all of
//! them, workers first: they hand back what they run. When one of them ends by itself, so do the
//! others.
//!
//! | module | holds |
//! |---|---|
//! | [`mod@become_program`] | children that end with this process, whatever ends it |
//! | [`nats_server`] | finding or fetching nats-server |
//! | [`ports`] | free ports for them |
//! | [`process`] | one child process and its output |

mod become_program;
mod nats_server;
mod ports;
mod process;

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ktrdr_client::{Client, ListWorkers};
use tokio::signal::unix::{SignalKind, signal};

pub use self::become_program::become_program;
use self::ports::{Ports, Turn};
use self::process::Process;
use crate::args::DevArgs;
use crate::failure::Failure;
use crate::programs::find;
use crate::text::print;

/// The types that `ktrdr-worker` has built in, and the usual port of each.
const WORKERS: [(&str, u16); 4] = [
    ("data_processing", 5005),
    ("backtesting", 5003),
    ("training", 5004),
    ("dummy", 5006),
];

/// The configuration of nats-server that the repository runs everywhere.
const NATS_CONFIGURATION: &str = include_str!("../../../nats.conf");

/// How long everything may take to be ready.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// Runs a system until Ctrl-C, or until a part of it ends.
///
/// # Errors
/// [`Failure::Dev`] when a program is missing, does not get ready, or ends.
pub async fn run(options: DevArgs) -> Result<(), Failure> {
    let programs = Programs::find()?;
    let nats_server = nats_server::find()?;
    fs::create_dir_all(&options.data_dir).map_err(|source| Failure::File {
        path: options.data_dir.clone(),
        source,
    })?;
    let state = State::open(options.store.as_deref())?;
    process::tell_ignored();

    let mut system = System::default();
    let outcome = tokio::select! {
        outcome = system.run(&programs, &nats_server, &state.path, &options) => outcome,
        stopped = stop_signal() => stopped,
    };
    system.stop().await;
    outcome
}

/// Waits for Ctrl-C, or for whoever ends this process in order.
async fn stop_signal() -> Result<(), Failure> {
    let mut terminated = signal(SignalKind::terminate())?;
    let mut hung_up = signal(SignalKind::hangup())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted?,
        _ = terminated.recv() => {}
        _ = hung_up.recv() => {}
    }
    Ok(())
}

/// The programs of this release.
struct Programs {
    backend: PathBuf,
    worker: PathBuf,
}

impl Programs {
    /// Looks beside this program, then in PATH.
    fn find() -> Result<Self, Failure> {
        Ok(Self {
            backend: find("ktrdr-backend")?,
            worker: find("ktrdr-worker")?,
        })
    }
}

/// Where nats-server keeps its files.
struct State {
    path: PathBuf,
    is_temporary: bool,
}

impl State {
    fn open(store: Option<&Path>) -> Result<Self, Failure> {
        let (path, is_temporary) = match store {
            Some(path) => (path.to_owned(), false),
            None => {
                let name = format!("ktrdr-dev-{}", std::process::id());
                (std::env::temp_dir().join(name), true)
            }
        };
        // Nobody else reads the operations. A temporary directory is new: another user may have made one
        // of this name.
        fs::DirBuilder::new()
            .recursive(!is_temporary)
            .mode(0o700)
            .create(&path)
            .map_err(|source| Failure::File {
                path: path.clone(),
                source,
            })?;
        Ok(Self { path, is_temporary })
    }
}

impl Drop for State {
    fn drop(&mut self) {
        if self.is_temporary {
            // What is left is in the directory for temporary files.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// What runs.
#[derive(Default)]
struct System {
    nats: Option<Process>,
    backend: Option<Process>,
    workers: Vec<Process>,
}

impl System {
    /// Starts everything and waits until a part of it ends.
    async fn run(
        &mut self,
        programs: &Programs,
        nats_server: &Path,
        state: &Path,
        options: &DevArgs,
    ) -> Result<(), Failure> {
        let turn = Turn::wait(2 * READY_WITHIN).await;
        let mut ports = Ports::default();
        let nats_port = ports.take(4222)?;
        let nats_url = format!("nats://127.0.0.1:{nats_port}");
        self.start_nats(nats_server, state, nats_port)?;

        let api_port = ports.take(8000)?;
        let api = format!("http://127.0.0.1:{api_port}");
        let mut command = process::command(&programs.backend);
        command
            .env("NATS_URL", &nats_url)
            .env("KTRDR_API_ADDR", format!("127.0.0.1:{api_port}"));
        self.backend = Some(Process::start("backend", command)?);

        for (worker_type, port) in WORKERS {
            let mut command = process::command(&programs.worker);
            command
                .env("NATS_URL", &nats_url)
                .env("WORKER_TYPE", worker_type)
                .env("WORKER_PORT", ports.take(port)?.to_string())
                .env("WORKER_CONCURRENCY", options.slots.to_string())
                .env("KTRDR_DATA_DIR", &options.data_dir);
            self.workers.push(Process::start(worker_type, command)?);
        }

        tokio::select! {
            ready = wait_until_ready(&api) => ready?,
            name = self.first_to_end() => return Err(ended(name)),
        }
        drop(turn);
        // The system runs on when nobody reads this.
        let _ = print(&format!(
            "\nThe dashboard and the REST interface: {api}\nNATS: {nats_url}\nFiles of the workers: {}\n\
             In another terminal: export KTRDR_URL={api} NATS_URL={nats_url}; ktrdr start dummy steps=3 --wait\n\
             Ctrl-C ends it.\n",
            options.data_dir.display()
        ));

        Err(ended(self.first_to_end().await))
    }

    fn start_nats(&mut self, program: &Path, state: &Path, port: u16) -> Result<(), Failure> {
        let configuration = state.join("nats.conf");
        fs::write(&configuration, NATS_CONFIGURATION)?;

        let mut command = process::command(program);
        command
            .arg("-c")
            .arg(&configuration)
            .args(["-a", "127.0.0.1"])
            .args(["-p", &port.to_string()])
            // Quoted, because the configuration reads a bare value that begins with a digit as a number.
            .env(
                "NATS_STORE_DIR",
                format!("\"{}\"", state.join("jetstream").display()),
            );
        self.nats = Some(Process::start(process::NATS_SERVER, command)?);
        Ok(())
    }

    /// Waits until one process ends, and tells its name.
    async fn first_to_end(&mut self) -> &'static str {
        let all = self
            .nats
            .iter_mut()
            .chain(&mut self.backend)
            .chain(&mut self.workers);
        let ends: Vec<_> = all.map(|process| Box::pin(process.ended())).collect();
        process::first(ends).await
    }

    /// Ends workers, then the backend, then nats-server: each sends its last messages.
    async fn stop(self) {
        process::stop_all(self.workers).await;
        process::stop_all(self.backend).await;
        process::stop_all(self.nats).await;
    }
}

fn ended(name: &str) -> Failure {
    Failure::Dev(format!("{name} has ended; its last lines above say why"))
}

/// Waits until a worker of each type has announced itself.
///
/// # Errors
/// [`Failure::Dev`] when that takes too long.
async fn wait_until_ready(api: &str) -> Result<(), Failure> {
    let client = Client::new(api)?.give_up_after(READY_WITHIN);
    let ready = async {
        loop {
            let workers = client.workers(&ListWorkers::default()).await?;
            let is_there = |worker_type: &str| {
                workers
                    .iter()
                    .any(|worker| worker.worker_type.as_str() == worker_type)
            };
            if WORKERS.iter().all(|(worker_type, _)| is_there(worker_type)) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let slow = |_| {
        let text = format!(
            "the system is not ready after {READY_WITHIN:?}; the lines of the workers above may say why"
        );
        Failure::Dev(text)
    };
    tokio::time::timeout(READY_WITHIN, ready)
        .await
        .map_err(slow)?
}
