//! Starts processes, and leaves nothing of them behind.

use std::io;
use std::process::ExitStatus;
use std::sync::mpsc::{Receiver, Sender, channel};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::sync::oneshot;

use crate::guard::Guard;

/// Starts processes on a thread that lives as long as this: the system ends a process with the thread
/// that started it, and threads of a runtime come and go.
#[derive(Debug, Clone)]
pub(crate) struct Spawner {
    orders: Sender<Order>,
}

/// What the thread does.
enum Order {
    /// Starts a process.
    Start(Box<Start>),
    /// Notes that nothing is left of a process.
    Ended(u32),
}

struct Start {
    command: Command,
    /// For the process, which says when it has ended.
    orders: Sender<Order>,
    answer: oneshot::Sender<io::Result<Process>>,
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
                        Order::Start(start) => {
                            let process = Process::start(start.command, start.orders);
                            if let Ok(process) = &process {
                                guard.begins(process.pid);
                            }
                            // When nobody waits for the process any more, dropping it ends it.
                            let _ = start.answer.send(process);
                        }
                    }
                }
            })?;
        Ok(Self { orders })
    }

    /// Starts a process that leads a group of its own.
    ///
    /// # Errors
    /// When the system refuses.
    pub(crate) async fn spawn(&self, command: Command) -> io::Result<Process> {
        let gone = || io::Error::other("the thread that starts programs has ended");
        let (answer, answered) = oneshot::channel();
        let start = Start {
            command,
            orders: self.orders.clone(),
            answer,
        };
        self.orders
            .send(Order::Start(Box::new(start)))
            .map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

/// A process that leads a group. Dropping it kills the group.
#[derive(Debug)]
pub(crate) struct Process {
    process: tokio::process::Child,
    pub(crate) pid: u32,
    group: Pid,
    orders: Sender<Order>,
    /// Whether nothing is left of it. Its number may be that of another one then.
    is_over: bool,
}

/// Its ends of the pipes.
pub(crate) struct ProcessPipes {
    pub(crate) input: ChildStdin,
    pub(crate) output: ChildStdout,
    pub(crate) errors: ChildStderr,
}

impl Process {
    fn start(mut command: Command, orders: Sender<Order>) -> io::Result<Self> {
        // Also when the lines below fail.
        let process = command.process_group(0).kill_on_drop(true).spawn()?;
        let pid = process.id();
        let number = || io::Error::other("the process has no number");
        let pid = pid.ok_or_else(number)?;
        let group = i32::try_from(pid).ok().and_then(Pid::from_raw);
        Ok(Self {
            process,
            pid,
            group: group.ok_or_else(number)?,
            orders,
            is_over: false,
        })
    }

    /// Its pipes, once.
    pub(crate) fn pipes(&mut self) -> Option<ProcessPipes> {
        Some(ProcessPipes {
            input: self.process.stdin.take()?,
            output: self.process.stdout.take()?,
            errors: self.process.stderr.take()?,
        })
    }

    /// How it ended, if it has. Ends what it has left behind.
    pub(crate) fn exit_status(&mut self) -> Option<ExitStatus> {
        let status = self.process.try_wait().ok().flatten();
        if status.is_some() {
            self.end_group();
        }
        status
    }

    /// Waits for its end, and ends what it has left behind. Cancel safe.
    pub(crate) async fn wait(&mut self) -> io::Result<ExitStatus> {
        let status = self.process.wait().await?;
        self.end_group();
        Ok(status)
    }

    /// Sends a signal to it and to everything that it has started.
    pub(crate) fn signal(&self, signal: Signal) {
        if !self.is_over {
            // Fails when all of them have ended.
            let _ = kill_process_group(self.group, signal);
        }
    }

    /// Kills what is left of the group, for the last time.
    fn end_group(&mut self) {
        if !self.is_over {
            self.signal(Signal::KILL);
            self.is_over = true;
            let _ = self.orders.send(Order::Ended(self.pid));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end_group();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(words: [&str; 2]) -> (Process, Receiver<Order>) {
        let (orders, received) = channel();
        let mut command = Command::new(words[0]);
        command.arg(words[1]);
        (Process::start(command, orders).unwrap(), received)
    }

    /// The processes whose end was told.
    fn told(received: &Receiver<Order>) -> Vec<u32> {
        let orders = received.try_iter();
        orders
            .filter_map(|order| match order {
                Order::Ended(pid) => Some(pid),
                Order::Start(_) => None,
            })
            .collect()
    }

    #[tokio::test]
    async fn a_process_that_is_dropped_is_killed_and_the_guard_is_told() {
        let (process, received) = start(["sleep", "3600"]);
        let (pid, group) = (process.pid, process.group);

        drop(process);

        assert_eq!(told(&received), [pid]);
        // Until it is reaped, the group is there.
        while kill_process_group(group, Signal::KILL).is_ok() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn the_end_of_a_process_is_told_once() {
        let (mut process, received) = start(["true", ""]);

        let status = process.wait().await.unwrap();

        assert!(status.success());
        assert_eq!(process.exit_status(), Some(status));
        let pid = process.pid;
        drop(process);
        assert_eq!(told(&received), [pid]);
    }
}
