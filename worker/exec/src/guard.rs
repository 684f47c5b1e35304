//! Ends what programs have started when the worker is killed.
//!
//! The problem: when a worker is killed, the system ends its programs ([`crate::start`]), but not what
//! these have started: a data loader, a compiler. Nobody is left who could.
//!
//! How it is solved: one small process for each worker waits at a pipe. The worker writes into it which
//! programs run. The pipe ends with the worker, however it ends, and then the guard kills the process
//! groups that are left.

use std::collections::BTreeSet;
use std::io::{self, BufRead, Write};
use std::os::unix::process::CommandExt;
use std::process::{ChildStdin, Command, ExitCode, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::signal::unix::{SignalKind, signal};

use crate::start::own_program;

/// The first argument of a process that is to be a guard.
pub(crate) const MARK: &str = "--guard-programs";

/// The worker's side. The guard ends with the pipe.
#[derive(Debug)]
pub(crate) struct Guard {
    pipe: ChildStdin,
}

impl Guard {
    /// Starts a guard.
    ///
    /// # Errors
    /// When the system refuses.
    pub(crate) fn start() -> io::Result<Self> {
        let mut guard = Command::new(own_program())
            .arg0("ktrdr-worker")
            .arg(MARK)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            // Ctrl-C is for the worker.
            .process_group(0)
            .spawn()?;
        let pipe = guard.stdin.take();
        let pipe = pipe.ok_or_else(|| io::Error::other("the guard has no pipe"))?;
        Ok(Self { pipe })
    }

    /// A program runs from now on.
    pub(crate) fn begins(&mut self, pid: u32) {
        self.write(&format!("+{pid}\n"));
    }

    /// Nothing is left of a program.
    pub(crate) fn ended(&mut self, pid: u32) {
        self.write(&format!("-{pid}\n"));
    }

    fn write(&mut self, line: &str) {
        if let Err(error) = self.pipe.write_all(line.as_bytes()) {
            tracing::debug!(%error, "the guard of the programs has ended");
        }
    }
}

/// Is the guard of the process that started this one.
pub(crate) fn stand() -> ExitCode {
    // What stops a whole service sends its signals to the guard, too. The worker still needs it then.
    let deaf = Deaf::new().inspect_err(|error| {
        let why = "the guard of the programs cannot ignore signals";
        let _ = writeln!(io::stderr(), "{why}: {error}");
    });

    let mut programs = BTreeSet::new();
    for line in io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        let (sign, number) = line.split_at(line.len().min(1));
        let Ok(pid) = number.parse::<i32>() else {
            continue;
        };
        match sign {
            "+" => programs.insert(pid),
            _ => programs.remove(&pid),
        };
    }

    for pid in programs.into_iter().filter_map(Pid::from_raw) {
        let _ = kill_process_group(pid, Signal::KILL);
    }
    drop(deaf);
    ExitCode::SUCCESS
}

/// While it lives, the signals that ask a process to stop do nothing.
struct Deaf {
    /// They arrive here, and nobody looks.
    _signals: Vec<tokio::signal::unix::Signal>,
    _runtime: tokio::runtime::Runtime,
}

impl Deaf {
    fn new() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()?;
        let entered = runtime.enter();
        let kinds = [
            SignalKind::terminate(),
            SignalKind::interrupt(),
            SignalKind::hangup(),
        ];
        let signals = kinds.into_iter().map(signal).collect::<io::Result<_>>()?;
        drop(entered);
        Ok(Self {
            _signals: signals,
            _runtime: runtime,
        })
    }
}
