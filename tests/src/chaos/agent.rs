//! One program and the faults it meets; notices when the program dies by itself.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use super::schedule::{Action, Fault, Role};
use crate::nats::NatsServer;
use crate::process::{BackendProcess, Process, Signal, WorkerProcess};

/// How often an agent checks that its program is alive.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// How long a program may take to stop.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// A panic of the dummy engine, asked for by the load: its place and its message in the log.
const ENGINE_PANIC: [&str; 2] = ["engines/src/dummy.rs", "panicked at step"];

/// A program that takes part in the run.
pub enum Member {
    /// A server.
    Nats(NatsServer),
    /// A backend.
    Backend(BackendProcess),
    /// A worker.
    Worker(WorkerProcess),
}

/// What an agent did to its program and saw of it.
#[derive(Debug, Default)]
pub struct Observations {
    /// Which faults it met, how often.
    pub faults: BTreeMap<(Role, Action), u32>,
    /// Things that must not happen.
    pub problems: Vec<String>,
    /// Attempts that were fenced.
    pub fenced: usize,
    /// Log lines about a panic outside of an engine.
    pub panics: usize,
}

impl Member {
    fn process(&mut self) -> Option<&mut Process> {
        match self {
            Self::Nats(server) => server.process(),
            Self::Backend(backend) => Some(&mut backend.process),
            Self::Worker(worker) => Some(&mut worker.process),
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Nats(server) => format!("nats-server {}", server.url()),
            Self::Backend(backend) => format!("backend {}", backend.api.base()),
            Self::Worker(worker) => format!("worker {}", worker.id),
        }
    }

    fn check_alive(&mut self) -> Result<(), String> {
        match self {
            Self::Nats(server) => server.check_alive(),
            Self::Backend(backend) => backend.process.check_alive(),
            Self::Worker(worker) => worker.process.check_alive(),
        }
    }

    fn signal(&mut self, signal: Signal) {
        match self {
            Self::Nats(server) => server.signal(signal),
            Self::Backend(backend) => backend.process.signal(signal),
            Self::Worker(worker) => worker.process.signal(signal),
        }
    }

    fn kill(&mut self) {
        match self {
            Self::Nats(server) => server.kill(),
            Self::Backend(backend) => backend.process.kill(),
            Self::Worker(worker) => worker.process.kill(),
        }
    }

    fn relaunch(&mut self) {
        match self {
            Self::Nats(server) => server.relaunch(),
            Self::Backend(backend) => backend.relaunch(),
            Self::Worker(worker) => worker.relaunch(),
        }
    }

    fn log(&self) -> String {
        match self {
            Self::Nats(server) => server.log(),
            Self::Backend(backend) => backend.process.log(),
            Self::Worker(worker) => worker.process.log(),
        }
    }
}

/// Applies `faults`, whose times count from `began`, to `member`, and keeps it alive until `end`.
/// The program still runs afterwards.
pub async fn run(
    mut member: Member,
    faults: Vec<Fault>,
    began: Instant,
    end: CancellationToken,
) -> (Member, Observations) {
    let mut observations = Observations::default();
    for fault in faults {
        supervise(&mut member, began + fault.at, &mut observations).await;
        *observations
            .faults
            .entry((fault.role, fault.action))
            .or_default() += 1;
        apply(&mut member, &fault, &mut observations).await;
    }

    while !end.is_cancelled() {
        supervise(
            &mut member,
            Instant::now() + CHECK_INTERVAL,
            &mut observations,
        )
        .await;
    }

    let log = member.log();
    observations.fenced = log
        .lines()
        .filter(|line| line.contains("fenced: the operation went on without this attempt"))
        .count();
    observations.panics = log
        .lines()
        .filter(|line| {
            line.contains(" panicked at ") && !ENGINE_PANIC.iter().any(|ours| line.contains(ours))
        })
        .count();

    if observations.panics > 0 {
        observations
            .problems
            .push(format!("{} panicked", member.name()));
    }

    (member, observations)
}

async fn apply(member: &mut Member, fault: &Fault, observations: &mut Observations) {
    match fault.action {
        Action::Freeze => {
            member.signal(Signal::Stop);
            sleep(fault.away).await;
            member.signal(Signal::Cont);
        }
        Action::Kill => {
            member.kill();
            sleep(fault.away).await;
            member.relaunch();
        }
        Action::Restart => {
            stop(member, observations).await;
            sleep(fault.away).await;
            member.relaunch();
        }
        // The operator's, who is no program.
        Action::DeleteConsumer
        | Action::DeleteBucket
        | Action::ChangeSettings
        | Action::StartStranger
        | Action::FillStore => {}
    }
}

async fn stop(member: &mut Member, observations: &mut Observations) {
    let name = member.name();
    let Some(process) = member.process() else {
        return;
    };

    if process.exited().is_some() {
        return;
    }
    process.signal(Signal::Term);

    let deadline = Instant::now() + STOP_LIMIT;
    loop {
        match process.exited() {
            // SIGTERM before the program has set up its handlers ends it by the signal itself:
            // status without a code.
            Some(status) if status.success() || status.code().is_none() => return,
            Some(status) => {
                return observations
                    .problems
                    .push(format!("{name} was asked to stop and ended with {status}"));
            }
            None if Instant::now() > deadline => {
                observations.problems.push(format!(
                    "{name} was asked to stop and did not within {STOP_LIMIT:?}"
                ));
                return process.kill();
            }
            None => sleep(CHECK_INTERVAL / 4).await,
        }
    }
}

/// Waits until `until`. When the program dies unasked, notes a problem and starts it again.
async fn supervise(member: &mut Member, until: Instant, observations: &mut Observations) {
    loop {
        if let Err(ended) = member.check_alive() {
            // Another connection may have got the port as its client port meanwhile. It will give
            // it back.
            if !ended.to_lowercase().contains("address already in use") {
                observations
                    .problems
                    .push(format!("{} ended by itself: {ended}", member.name()));
            }
            sleep(CHECK_INTERVAL).await;
            member.relaunch();
        }
        if Instant::now() >= until {
            return;
        }
        let _ = timeout_at(until, sleep_until(Instant::now() + CHECK_INTERVAL)).await;
    }
}
