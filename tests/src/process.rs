//! The built programs as child processes, and signals for them.

use std::fs::File;
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::client::Client;
use crate::scratch::{Scratch, tail};
use crate::settings::Settings;
use crate::wait::{LIMIT, wait_for};

/// The signals for a process. `kill -9` is [`Process::kill`].
#[derive(Debug, Clone, Copy)]
pub enum Signal {
    /// SIGTERM: stop in order.
    Term,
    /// SIGINT: Ctrl-C.
    Int,
    /// SIGHUP: the terminal was closed.
    Hangup,
    /// SIGSTOP: freeze. To others it looks like a long pause of the machine.
    Stop,
    /// SIGCONT: wake up after [`Signal::Stop`].
    Cont,
}

/// A child process; killed and reaped when dropped. Standard output and error go to a file.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with its output appended to `log`, and without the settings in the
    /// environment of the test run.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn spawn(name: &str, mut command: Command, log: &Path) -> Self {
        for (key, _) in std::env::vars_os() {
            let key = key.to_string_lossy().into_owned();
            let ours = ["KTRDR_", "WORKER_", "NATS_", "RUST_LOG"]
                .iter()
                .any(|prefix| key.starts_with(prefix));
            // scripts/test finds processes that a test left behind by this mark.
            if ours
                && !key.starts_with("KTRDR_TEST_")
                && !command.get_envs().any(|(set, _)| set == key.as_str())
            {
                command.env_remove(key);
            }
        }

        let file = File::options()
            .create(true)
            .append(true)
            .open(log)
            .expect("a log file");
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a second handle"))
            .stderr(file);
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name}: {error}: {command:?}"));

        Self {
            name: name.to_owned(),
            child,
            log: log.to_owned(),
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The share of a core that it uses, measured over a quarter of a second.
    pub async fn cpu_share(&self) -> f64 {
        let (begun, before) = (Instant::now(), cpu_seconds(self.pid()));
        tokio::time::sleep(Duration::from_millis(250)).await;
        (cpu_seconds(self.pid()) - before) / begun.elapsed().as_secs_f64()
    }

    /// What it has printed so far.
    pub fn log(&self) -> String {
        std::fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// How it ended, if it has.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child of ours")
    }

    /// Whether it is alive; otherwise how it ended and its last log lines, for a failure message.
    ///
    /// # Errors
    /// That text.
    pub fn check_alive(&mut self) -> Result<(), String> {
        match self.exited() {
            None => Ok(()),
            Some(status) => Err(format!(
                "{} ended with {status}; its last words:\n{}",
                self.name,
                tail(&self.log, 30)
            )),
        }
    }

    /// Sends a signal, and after [`Signal::Stop`] waits until every thread stands still. Does
    /// nothing when the process has ended.
    ///
    /// # Panics
    /// When the signal cannot be sent.
    pub fn signal(&mut self, signal: Signal) {
        if self.exited().is_some() {
            return;
        }
        let word = match signal {
            Signal::Term => "TERM",
            Signal::Int => "INT",
            Signal::Hangup => "HUP",
            Signal::Stop => "STOP",
            Signal::Cont => "CONT",
        };

        // The shell's own `kill`: a shell is everywhere, and no unsafe code is needed.
        let status = Command::new("sh")
            .arg("-c")
            .arg(format!("kill -s {word} {}", self.pid()))
            .status();

        assert!(
            status.is_ok_and(|status| status.success()),
            "cannot send SIG{word} to {}",
            self.name
        );

        if matches!(signal, Signal::Stop) {
            // The kernel stops the threads one by one after `kill` has returned. A server can
            // answer many requests in that time.
            let deadline = Instant::now() + LIMIT;
            while !stands_still(self.pid()) {
                assert!(Instant::now() < deadline, "{} does not stop", self.name);
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits until it has ended by itself.
    ///
    /// # Panics
    /// When it has not within `limit`.
    pub async fn wait(&mut self, limit: Duration) -> ExitStatus {
        let name = self.name.clone();
        wait_for(&format!("the end of {name}"), limit, async || {
            self.exited().ok_or("it still runs".to_owned())
        })
        .await
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Panics
    /// When it has not ended within [`LIMIT`].
    pub async fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::Term);
        self.wait(LIMIT).await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "--- the last words of {} ({})\n{}",
                self.name,
                self.log.display(),
                tail(&self.log, 30)
            );
        }
        self.kill();
    }
}

/// The unit in which Linux reports process times, independent of the kernel's own tick.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU seconds a process has used; 0 when it is gone.
pub fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat
        .rsplit_once(") ")
        .map_or(Vec::new(), |(_, rest)| rest.split(' ').collect());
    let ticks = |at: usize| {
        fields
            .get(at)
            .and_then(|field| field.parse::<f64>().ok())
            .unwrap_or_default()
    };

    // utime and stime are the fields 14 and 15; the state, field 3, is the first here.
    (ticks(11) + ticks(12)) / TICKS_PER_SECOND
}

/// The most memory that a process has had in physical memory so far, in bytes; 0 when it is gone.
pub fn peak_memory(pid: u32) -> u64 {
    memory(pid, "VmHWM:")
}

/// The memory that a process has in physical memory now, in bytes; 0 when it is gone.
pub fn resident_memory(pid: u32) -> u64 {
    memory(pid, "VmRSS:")
}

fn memory(pid: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|text| text.trim().strip_suffix(" kB"))
        .and_then(|number| number.parse::<u64>().ok())
        .unwrap_or_default()
        * 1024
}

/// Whether all threads of a process are stopped.
fn stands_still(pid: u32) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        // Without /proc, only the process as a whole can be checked.
        let state = Command::new("ps")
            .args(["-o", "state=", "-p", &pid.to_string()])
            .output();
        return state.is_ok_and(|output| output.stdout.trim_ascii_start().starts_with(b"T"));
    };

    threads.flatten().all(|thread| {
        // The state follows the program's name, which stands in parentheses and may hold any
        // character. A thread that has just ended counts as stopped.
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(") ")
            .is_none_or(|(_, rest)| rest.starts_with(['T', 't', 'X', 'Z']))
    })
}

/// The path of a program of this workspace, beside the test or program that is running.
///
/// # Panics
/// When it was not built.
pub fn program(name: &str) -> PathBuf {
    let running = std::env::current_exe().expect("the path of this program");
    let directory = running.parent().expect("a file is in a directory");

    // Tests are in target/<profile>/deps/, programs one above.
    let directory = if directory.ends_with("deps") {
        directory.parent().unwrap_or(directory)
    } else {
        directory
    };
    let path = directory.join(name);

    assert!(
        path.is_file(),
        "{} is missing: run `cargo build --workspace --bins` first, or scripts/test",
        path.display()
    );
    path
}

/// A port on which nobody listens, for as long as this process lives.
///
/// It lies below the ports that systems give to outgoing connections (32768 and above on Linux): a
/// connection of another test would take it before the program that it is meant for listens. A UDP
/// socket of the same number keeps other tests away from it.
///
/// # Panics
/// When there is none.
pub fn free_port() -> u16 {
    static HELD: Mutex<Vec<UdpSocket>> = Mutex::new(Vec::new());

    for _ in 0..1_000 {
        let port = fastrand::u16(10_000..32_000);
        let Ok(holder) = UdpSocket::bind(("127.0.0.1", port)) else {
            continue;
        };

        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            HELD.lock().push(holder);
            return port;
        }
    }

    panic!("1,000 ports between 10000 and 32000 were taken");
}

/// A `ktrdr-backend` process. Starts again on the same port after [`Process::kill`].
#[derive(Debug)]
pub struct BackendProcess {
    /// The process.
    pub process: Process,
    /// Its REST API.
    pub api: Client,
    settings: Settings,
    port: u16,
    scratch: Scratch,
}

impl BackendProcess {
    /// Starts a backend and waits until it is ready.
    pub async fn start(settings: &Settings) -> Self {
        let mut this = Self::launch(settings);
        this.ready().await;
        this
    }

    /// Starts a backend and returns at once.
    pub fn launch(settings: &Settings) -> Self {
        let (scratch, port) = (Scratch::new("backend"), free_port());
        let api = settings.client(format!("http://127.0.0.1:{port}"));
        Self {
            process: Self::spawn(settings, port, &scratch),
            api,
            settings: settings.clone(),
            port,
            scratch,
        }
    }

    fn spawn(settings: &Settings, port: u16, scratch: &Scratch) -> Process {
        let mut command = settings.command("ktrdr-backend");
        command
            .envs(settings.backend_env())
            .env("KTRDR_API_ADDR", format!("127.0.0.1:{port}"));
        command
            .envs(settings.extra.clone())
            .current_dir(scratch.path());
        Process::spawn("ktrdr-backend", command, &scratch.join("log"))
    }

    /// Waits until `/ready` says so.
    pub async fn ready(&mut self) {
        let (api, process) = (self.api.clone(), &mut self.process);
        wait_for("the backend to be ready", LIMIT, async || {
            if let Err(ended) = process.check_alive() {
                panic!("{ended}");
            }
            api.is_ready().await
        })
        .await;
    }

    /// Starts it again, at the same address, and waits until it is ready.
    pub async fn restart(&mut self) {
        self.relaunch();
        self.ready().await;
    }

    /// Starts it again, at the same address, and returns at once.
    pub fn relaunch(&mut self) {
        self.process.kill();
        self.process = Self::spawn(&self.settings, self.port, &self.scratch);
    }
}

/// A `ktrdr-worker` process. Starts again with the same id and port after [`Process::kill`].
#[derive(Debug)]
pub struct WorkerProcess {
    /// The process.
    pub process: Process,
    /// Its own REST API.
    pub api: Client,
    /// Its worker id.
    pub id: String,
    worker_type: String,
    command: Vec<String>,
    settings: Settings,
    port: u16,
    scratch: Scratch,
}

impl WorkerProcess {
    /// Starts a worker and returns when its own REST API answers.
    pub async fn start(settings: &Settings, worker_type: &str, id: &str) -> Self {
        let mut this = Self::launch(settings, worker_type, id);
        this.up().await;
        this
    }

    /// Starts a worker and returns at once.
    pub fn launch(settings: &Settings, worker_type: &str, id: &str) -> Self {
        Self::launch_program(settings, &["ktrdr-worker"], worker_type, id)
    }

    /// The same with another program of this workspace, and its arguments.
    pub fn launch_program(
        settings: &Settings,
        command: &[&str],
        worker_type: &str,
        id: &str,
    ) -> Self {
        let (scratch, port) = (Scratch::new(id), free_port());
        let command: Vec<String> = command.iter().map(|&word| word.to_owned()).collect();
        let process = Self::spawn(settings, &command, (worker_type, id), port, &scratch);
        let api = settings.client(format!("http://127.0.0.1:{port}"));
        let (id, worker_type, settings) = (id.to_owned(), worker_type.to_owned(), settings.clone());

        Self {
            process,
            api,
            id,
            worker_type,
            command,
            settings,
            port,
            scratch,
        }
    }

    fn spawn(
        settings: &Settings,
        words: &[String],
        (worker_type, id): (&str, &str),
        port: u16,
        scratch: &Scratch,
    ) -> Process {
        let mut command = settings.command(&words[0]);
        command.args(&words[1..]);
        command
            .envs(settings.worker_env(worker_type))
            .env("WORKER_TYPE", worker_type)
            .env("WORKER_ID", id);
        command
            .env("WORKER_PORT", port.to_string())
            .envs(settings.extra.clone())
            .current_dir(scratch.path());
        Process::spawn(id, command, &scratch.join("log"))
    }

    async fn up(&mut self) {
        let (api, process) = (self.api.clone(), &mut self.process);
        wait_for("the worker's /health", LIMIT, async || {
            if let Err(ended) = process.check_alive() {
                panic!("{ended}");
            }
            let answer = api.try_get("/health").await?;
            if answer.status == 200 {
                Ok(())
            } else {
                Err(answer.to_string())
            }
        })
        .await;
    }

    /// Starts it again, with the same id and at the same address.
    pub async fn restart(&mut self) {
        self.relaunch();
        self.up().await;
    }

    /// Starts it again, with the same id and at the same address, and returns at once.
    pub fn relaunch(&mut self) {
        self.process.kill();
        let worker = (self.worker_type.as_str(), self.id.as_str());
        self.process = Self::spawn(
            &self.settings,
            &self.command,
            worker,
            self.port,
            &self.scratch,
        );
    }
}
