//! One process of a program: its pipes, what it prints, and how it ended.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use ktrdr_worker::{Context, LogLevel};
use parking_lot::Mutex;
use rustix::io::ioctl_fionread;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncRead;
use tokio::process::{ChildStdin, ChildStdout, Command};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::guard::Guard;
use crate::lines::{Lines, Overlong};
use crate::start::{Pipes, Start};

/// Longest line of the log, in bytes. A longer one becomes several.
pub(crate) const MAX_LOG_LINE: usize = 8 * 1024;

/// How many of the last lines, and how many of their bytes, are told when the program ends.
const LAST_LINES: usize = 20;
const LAST_BYTES: usize = 4 * 1024;

/// How long the last words of a process that has ended may take to arrive.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// How often, and after which pauses, the pipe of a process is looked at until what it has printed is
/// taken.
const SETTLE_TRIES: u32 = 50;
const SETTLE_PAUSE: Duration = Duration::from_millis(1);

/// Starts processes on a thread that lives as long as this: the system ends a process with the thread
/// that started it, and threads of a runtime come and go.
#[derive(Debug, Clone)]
pub(crate) struct Spawner {
    orders: Sender<Order>,
}

/// What the thread does.
enum Order {
    /// Starts a process.
    Start(
        Box<Command>,
        oneshot::Sender<io::Result<tokio::process::Child>>,
    ),
    /// Notes that nothing is left of a process.
    Ended(u32),
}

impl Spawner {
    /// A spawner for the current runtime.
    ///
    /// # Errors
    /// When there is no room for a thread, or for the guard of the processes.
    pub(crate) fn new() -> io::Result<Self> {
        let (orders, received): (_, Receiver<Order>) = channel();
        let runtime = tokio::runtime::Handle::current();
        let mut guard = Guard::start()?;
        std::thread::Builder::new()
            .name("programs".to_owned())
            .spawn(move || {
                let _entered = runtime.enter();
                while let Ok(order) = received.recv() {
                    match order {
                        Order::Ended(pid) => guard.ended(pid),
                        Order::Start(mut command, answer) => {
                            let started = command.spawn();
                            if let Some(pid) =
                                started.as_ref().ok().and_then(tokio::process::Child::id)
                            {
                                guard.begins(pid);
                            }
                            // A process that nobody waits for any more is killed.
                            if let Err(Ok(mut process)) = answer.send(started) {
                                let _ = process.start_kill();
                            }
                        }
                    }
                }
            })?;
        Ok(Self { orders })
    }

    async fn spawn(&self, command: Command) -> io::Result<tokio::process::Child> {
        let gone = || io::Error::other("the thread that starts programs has ended");
        let (answer, answered) = oneshot::channel();
        self.orders
            .send(Order::Start(Box::new(command), answer))
            .map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

/// A process. Dropping it kills it and everything that it has started.
#[derive(Debug)]
pub(crate) struct Child {
    process: tokio::process::Child,
    group: Option<Pid>,
    pub(crate) pid: u32,
    spawner: Spawner,
    log_task: Option<JoinHandle<()>>,
    /// Dropped with this: then nobody reads the log for much longer.
    _lives: oneshot::Sender<()>,
    log: Arc<Log>,
    /// The pipe of standard error.
    printed: OwnedFd,
}

/// Where the lines of a process go.
#[derive(Debug)]
pub(crate) struct Log {
    slot: usize,
    pid: u32,
    /// The operation that the process runs.
    operation: Mutex<Option<Context>>,
    last: Mutex<VecDeque<String>>,
}

impl Log {
    /// Logs a line, also among the log lines of the operation, and keeps it among the last ones.
    pub(crate) fn line(&self, line: &[u8]) {
        let line = String::from_utf8_lossy(line);
        let line = line.trim_end();
        let operation = self.operation.lock().clone();
        let operation_id = operation.as_ref().map(|ctx| ctx.operation_id().as_str());
        // Of no span: an event in the engine's span would be a second line of the operation.
        tracing::info!(
            parent: None,
            slot = self.slot,
            pid = self.pid,
            operation_id,
            "program: {line}"
        );
        if let Some(ctx) = &operation {
            ctx.log(LogLevel::Info, line);
        }

        let mut last = self.last.lock();
        last.push_back(line.to_owned());
        let mut bytes: usize = last.iter().map(String::len).sum();
        while last.len() > LAST_LINES || (bytes > LAST_BYTES && last.len() > 1) {
            bytes -= last.pop_front().map_or(0, |line| line.len());
        }
    }
}

/// The ends of the pipes to a process.
pub(crate) struct Ends {
    pub(crate) input: ChildStdin,
    pub(crate) output: ChildStdout,
}

impl Child {
    /// Starts a process for a slot.
    ///
    /// # Errors
    /// When the system refuses. A program that cannot be started ends with the status 127.
    pub(crate) async fn start(
        spawner: &Spawner,
        start: &Start,
        slot: usize,
        environment: &[(String, String)],
    ) -> io::Result<(Self, Ends)> {
        let mut command = Command::from(start.command());
        // The program has no business on the bus.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("NATS_") {
                command.env_remove(name);
            }
        }
        // Python then says at once what it prints, and where it crashed. Others do not know them.
        for name in ["PYTHONUNBUFFERED", "PYTHONFAULTHANDLER"] {
            if std::env::var_os(name).is_none() {
                command.env(name, "1");
            }
        }
        command
            .envs(environment.iter().cloned())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);

        let mut process = spawner.spawn(command).await?;
        let missing = || io::Error::other("the process has no pipes");
        let pid = process.id().ok_or_else(missing)?;
        let ends = Ends {
            input: process.stdin.take().ok_or_else(missing)?,
            output: process.stdout.take().ok_or_else(missing)?,
        };
        let errors = process.stderr.take().ok_or_else(missing)?;
        let log = Arc::new(Log {
            slot,
            pid,
            operation: Mutex::new(None),
            last: Mutex::default(),
        });
        let printed = errors.as_fd().try_clone_to_owned()?;
        let (lives, is_gone) = oneshot::channel();
        let child = Self {
            process,
            group: i32::try_from(pid).ok().and_then(Pid::from_raw),
            pid,
            spawner: spawner.clone(),
            log_task: Some(tokio::spawn(log_lines(errors, log.clone(), is_gone))),
            _lives: lives,
            log,
            printed,
        };
        Ok((child, ends))
    }

    /// Where its lines go.
    pub(crate) fn log(&self) -> Arc<Log> {
        self.log.clone()
    }

    /// From now on its lines are about this operation.
    pub(crate) fn begins(&self, operation: Option<&Context>) {
        *self.log.operation.lock() = operation.cloned();
        if operation.is_some() {
            self.log.last.lock().clear();
        }
    }

    /// Waits a moment until what it has printed is taken: the last lines before the end of an operation
    /// are lines of that operation.
    pub(crate) async fn settle(&self) {
        for _ in 0..SETTLE_TRIES {
            match ioctl_fionread(&self.printed) {
                Ok(0) | Err(_) => break,
                Ok(_) => tokio::time::sleep(SETTLE_PAUSE).await,
            }
        }
        // What was read is a line in a moment.
        tokio::task::yield_now().await;
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.process.try_wait().ok().flatten()
    }

    /// Waits for its end, and ends what it has left behind. Cancel safe.
    pub(crate) async fn wait(&mut self) -> io::Result<ExitStatus> {
        let status = self.process.wait().await;
        self.signal(Signal::KILL);
        status
    }

    /// Sends a signal to it and to everything that it has started.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(group) = self.group {
            // Fails when all of them have ended.
            let _ = kill_process_group(group, signal);
        }
    }

    /// Kills it with everything that it has started.
    pub(crate) fn kill(&self) {
        self.signal(Signal::KILL);
    }

    /// The last lines that it has printed, with an introduction; empty when there are none. Call it
    /// when the process has ended.
    pub(crate) async fn last_words(&mut self) -> String {
        if let Some(task) = self.log_task.take() {
            let _ = tokio::time::timeout(LAST_WORDS, task).await;
        }

        let last = self.log.last.lock();
        if last.is_empty() {
            return String::new();
        }
        let lines: Vec<&str> = last.iter().map(String::as_str).collect();
        format!("\nits last lines:\n{}", lines.join("\n"))
    }

    /// Waits until a process has ended that is not needed any more, and kills it if that takes too long.
    pub(crate) async fn retire(mut self, patience: Duration) {
        if tokio::time::timeout(patience, self.wait()).await.is_err() {
            self.kill();
            let _ = self.process.wait().await;
        }
    }
}

/// Logs what a process writes, until a moment after it has gone: what it has started may hold the pipe
/// for ever.
async fn log_lines(
    pipe: impl AsyncRead + Unpin,
    log: Arc<Log>,
    mut is_gone: oneshot::Receiver<()>,
) {
    let mut lines = Lines::new(pipe, MAX_LOG_LINE, Overlong::Cut);
    let mut log_all = async || {
        while let Ok(Some(line)) = lines.next().await {
            log.line(&line);
        }
    };

    // Reading lines is cancel safe.
    let is_at_end = tokio::select! {
        () = log_all() => true,
        _ = &mut is_gone => false,
    };
    if !is_at_end {
        let _ = tokio::time::timeout(LAST_WORDS, log_all()).await;
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
        // What comes now is of no operation.
        self.begins(None);
        let _ = self.spawner.orders.send(Order::Ended(self.pid));
    }
}

/// How a process ended, for people: `signal: 11 (SIGSEGV)`, `exit status: 3`.
pub(crate) fn reason(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        // The kernel kills this way, too.
        (Some(9), _) => {
            format!("{status}; somebody else killed it, often the system because memory ran out")
        }
        (_, Some(127)) => format!("{status}; the program, or one that it calls, was not found"),
        _ => status.to_string(),
    }
}

/// A program and what its processes have in common.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    pub(crate) start: Start,
    pub(crate) gpus: Vec<String>,
    pub(crate) spawner: Spawner,
}

impl Program {
    /// The program of this command line.
    ///
    /// # Errors
    /// When the words of the command line cannot be told apart, or there is none.
    pub(crate) fn new(
        command: &str,
        pipes: Pipes,
        memory: Option<u64>,
        gpus: &[String],
    ) -> anyhow::Result<Self> {
        let words = shlex::split(command).filter(|words| !words.is_empty());
        let words = words.ok_or_else(|| {
            anyhow::anyhow!("{command:?} is no command line: it is empty, or a quote is not closed")
        })?;
        let start = Start {
            words,
            pipes,
            memory,
        };
        Ok(Self {
            start,
            gpus: gpus.to_vec(),
            spawner: Spawner::new()?,
        })
    }

    /// Starts a process for a slot.
    ///
    /// # Errors
    /// When the system refuses.
    pub(crate) async fn start(
        &self,
        slot: usize,
        mut environment: Vec<(String, String)>,
    ) -> io::Result<(Child, Ends)> {
        environment.push(("KTRDR_EXEC".to_owned(), crate::message::VERSION.to_string()));
        environment.push(("KTRDR_SLOT".to_owned(), slot.to_string()));
        if !self.gpus.is_empty() {
            let gpu = self.gpus[slot % self.gpus.len()].clone();
            environment.push(("CUDA_VISIBLE_DEVICES".to_owned(), gpu));
        }
        Child::start(&self.spawner, &self.start, slot, &environment).await
    }
}
