//! One process of a program: its environment, its pipes, and how it ended.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use tokio::process::{ChildStdin, ChildStdout, Command};

use crate::printed::Printed;
use crate::spawner::{Process, ProcessPipes, Spawner};
use crate::start::{NOT_FOUND, NOT_STARTED, Pipes, Start};

/// A process. Dropping it kills it and everything that it has started.
#[derive(Debug)]
pub(crate) struct Child {
    process: Process,
    pub(crate) printed: Printed,
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
    /// When the system refuses. A program that cannot be started ends with the status 126 or 127.
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
            .stderr(Stdio::piped());

        let mut process = spawner.spawn(command).await?;
        let ProcessPipes {
            input,
            output,
            errors,
        } = process
            .pipes()
            .ok_or_else(|| io::Error::other("the process has no pipes"))?;
        let child = Self {
            printed: Printed::read(errors, slot, process.pid),
            process,
        };
        Ok((child, Ends { input, output }))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid
    }

    /// How it ended, if it has.
    pub(crate) fn exit_status(&mut self) -> Option<ExitStatus> {
        self.process.exit_status()
    }

    /// Waits for its end, and ends what it has left behind. Cancel safe.
    pub(crate) async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.process.wait().await
    }

    /// Sends a signal to it and to everything that it has started.
    pub(crate) fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Kills it with everything that it has started.
    pub(crate) fn kill(&self) {
        self.signal(Signal::KILL);
    }

    /// Waits until a process has ended that is not needed any more, and kills it if that takes too long.
    pub(crate) async fn retire(mut self, patience: Duration) {
        if tokio::time::timeout(patience, self.wait()).await.is_err() {
            self.kill();
            let _ = self.wait().await;
        }
    }
}

/// How a process ended, for people: `signal: 11 (SIGSEGV)`, `exit status: 3`.
pub(crate) fn reason(status: ExitStatus) -> String {
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    match (status.signal(), code) {
        // The kernel kills this way, too.
        (Some(9), _) => {
            format!("{status}; somebody else killed it, often the system because memory ran out")
        }
        (_, Some(NOT_FOUND)) => {
            format!("{status}; the program, or one that it calls, was not found")
        }
        (_, Some(NOT_STARTED)) => format!("{status}; the program could not be started"),
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
        // It says that there are messages: a library may look for their pipes then.
        if self.start.pipes == Pipes::Messages {
            environment.push(("KTRDR_EXEC".to_owned(), crate::message::VERSION.to_string()));
        }
        environment.push(("KTRDR_SLOT".to_owned(), slot.to_string()));
        if !self.gpus.is_empty() {
            let gpu = self.gpus[slot % self.gpus.len()].clone();
            environment.push(("CUDA_VISIBLE_DEVICES".to_owned(), gpu));
        }
        Child::start(&self.spawner, &self.start, slot, &environment).await
    }
}
