//! One child process and its output.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};

use super::become_program;
use crate::failure::Failure;
use crate::text::{complain, printable};

/// How long a process may take to stop after SIGTERM.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// The name under which nats-server writes.
pub const NATS_SERVER: &str = "nats-server";

/// What the programs log when the caller has not set `RUST_LOG`: not the many settings, which are the
/// usual ones here.
const LOG_FILTER: &str = "info,async_nats=warn,settings=warn";

/// Variables that `ktrdr` reads itself.
const OWN: [&str; 6] = [
    "KTRDR_CA",
    "KTRDR_DATA_DIR",
    "KTRDR_TOKEN",
    "KTRDR_URL",
    "KTRDR_WORKER_BIN",
    "NATS_SERVER",
];

/// A command that ends with this process, without the settings of the caller, which are meant for other
/// systems.
pub fn command(program: &Path) -> Command {
    let mut command = become_program::command(program);
    if std::env::var_os("RUST_LOG").is_none() {
        command.env("RUST_LOG", LOG_FILTER);
    }
    for name in settings_of_the_caller() {
        command.env_remove(name);
    }
    command
}

/// Names the settings of the caller that have no effect here.
pub fn tell_ignored() {
    let mut ignored: Vec<String> = settings_of_the_caller()
        .filter(|name| !OWN.contains(&name.as_str()))
        .collect();
    if ignored.is_empty() {
        return;
    }
    ignored.sort();
    let names = ignored.join(", ");
    complain(&format!(
        "ktrdr dev ignores settings of the environment: {}",
        printable(&names)
    ));
}

/// The variables of this process that programs of a system read.
fn settings_of_the_caller() -> impl Iterator<Item = String> {
    let is_setting = |name: &String| {
        ["KTRDR_", "WORKER_", "NATS_"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
    };
    std::env::vars_os()
        .map(|(name, _)| name.to_string_lossy().into_owned())
        .filter(is_setting)
}

/// A child process in a process group of its own: Ctrl-C reaches only its parent, which ends all of
/// them in order.
pub struct Process {
    name: &'static str,
    child: Child,
}

impl Process {
    /// Starts a process. What it writes stands on standard error, after its name.
    ///
    /// # Errors
    /// [`Failure::Dev`] when it cannot be started.
    pub fn start(name: &'static str, mut command: Command) -> Result<Self, Failure> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| Failure::Dev(format!("{name} cannot be started: {error}")))?;

        if let Some(output) = child.stdout.take() {
            tokio::spawn(print_lines(name, output));
        }
        if let Some(output) = child.stderr.take() {
            tokio::spawn(print_lines(name, output));
        }
        Ok(Self { name, child })
    }

    /// Waits until it ends, and tells its name.
    pub async fn ended(&mut self) -> &'static str {
        // An error says that there is no such process.
        let _ = self.child.wait().await;
        self.name
    }

    fn signal(&self, signal: Signal) {
        let Some(pid) = self.child.id().and_then(|id| Pid::from_raw(id as i32)) else {
            return;
        };
        // It may have ended in this moment.
        let _ = kill_process_group(pid, signal);
    }
}

/// Asks processes to stop, waits for them, and kills those that do not.
pub async fn stop_all(processes: impl IntoIterator<Item = Process>) {
    let mut processes: Vec<Process> = processes.into_iter().collect();
    for process in &processes {
        process.signal(Signal::TERM);
    }

    for process in &mut processes {
        let stopped = tokio::time::timeout(STOP_WITHIN, process.ended()).await;
        if stopped.is_err() {
            complain(&format!(
                "{} did not stop within {STOP_WITHIN:?}; killing it",
                process.name
            ));
            process.signal(Signal::KILL);
            process.ended().await;
        }
    }
}

/// The first of these futures.
pub async fn first<T>(mut futures: Vec<Pin<Box<impl Future<Output = T>>>>) -> T {
    std::future::poll_fn(|context| {
        for future in &mut futures {
            if let std::task::Poll::Ready(value) = future.as_mut().poll(context) {
                return std::task::Poll::Ready(value);
            }
        }
        std::task::Poll::Pending
    })
    .await
}

async fn print_lines(name: &str, output: impl AsyncRead + Unpin) {
    // Whatever a program writes, the pipe is read: it would stop when the pipe is full.
    let mut lines = BufReader::new(output).split(b'\n');
    while let Ok(Some(line)) = lines.next_segment().await {
        let line = String::from_utf8_lossy(&line);
        if !(name == NATS_SERVER && is_chatter(&line)) {
            complain(&format!("{name:<15} | {}", printable(&line)));
        }
    }
}

/// Whether nats-server says in this line what nobody asked for: its banner, its version, its limits.
/// Warnings and errors have other marks.
fn is_chatter(line: &str) -> bool {
    line.starts_with('[') && line.contains(" [INF] ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nats_server_says_in_passing_is_left_out() {
        let info = "[15896] 2026/11/27 14:22:56.313872 [INF] Starting nats-server";
        let error = "[15896] 2026/11/27 14:22:56.313872 [ERR] JetStream out of resources";
        let worker = "2026-11-27T14:22:56.3Z  INFO operation: [INF] is in its text";

        assert!(is_chatter(info));
        assert!(!is_chatter(error));
        assert!(!is_chatter(worker));
    }
}
