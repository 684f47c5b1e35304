//! Which fault hits which program and when. The seed decides it before anything starts.

use std::fmt;
use std::time::Duration;

/// Shortest and longest time between two faults, in milliseconds.
const GAP: (u64, u64) = (150, 900);

/// How long a program is left alone after a fault.
const REST: Duration = Duration::from_millis(700);

/// How long the servers of a cluster are left alone after a fault in one: a second fault could cost
/// the majority.
const CLUSTER_REST: Duration = Duration::from_secs(5);

/// A kind of program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// nats-server.
    Nats,
    /// ktrdr-backend.
    Backend,
    /// A worker.
    Worker,
    /// A person with all rights on the bus.
    Operator,
}

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// `kill -9`, and started again.
    Kill,
    /// SIGSTOP, then SIGCONT.
    Freeze,
    /// SIGTERM, and started again.
    Restart,
    /// The consumer of a queue is deleted.
    DeleteConsumer,
    /// A bucket or the stream of metrics is deleted.
    DeleteBucket,
    /// A stream gets other settings.
    ChangeSettings,
    /// A backend with default settings is started, for a while.
    StartStranger,
    /// Something else uses up what JetStream may store, for a while.
    FillStore,
}

/// One fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Time since the beginning.
    pub at: Duration,
    /// The kind of program.
    pub role: Role,
    /// Which program of this kind.
    pub index: usize,
    /// The kind of fault.
    pub action: Action,
    /// How long the program is away.
    pub away: Duration,
}

/// How many programs there are.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Servers.
    pub nats: usize,
    /// Backends.
    pub backends: usize,
    /// Workers.
    pub workers: usize,
    /// The lease: workers are frozen for longer.
    pub lease: Duration,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nats => "nats-server",
            Self::Backend => "backend",
            Self::Worker => "worker",
            Self::Operator => "operator",
        })
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kill => "killed",
            Self::Freeze => "frozen",
            Self::Restart => "restarted",
            Self::DeleteConsumer => "deleted a consumer",
            Self::DeleteBucket => "deleted a bucket",
            Self::ChangeSettings => "changed settings",
            Self::StartStranger => "started a backend with defaults",
            Self::FillStore => "filled the store",
        })
    }
}

/// The faults of a run of `length`, in order. The same arguments give the same faults. Each kind
/// comes once before any kind comes twice, all faults are over when the run ends, and no program
/// meets two at a time.
pub fn schedule(seed: u64, length: Duration, shape: &Shape) -> Vec<Fault> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let actions = [Action::Kill, Action::Freeze, Action::Restart];
    let mut first: Vec<(Role, Action)> = [Role::Nats, Role::Backend, Role::Worker]
        .into_iter()
        .flat_map(|role| actions.map(|a| (role, a)))
        .collect();

    rng.shuffle(&mut first);

    let mut busy: Vec<(Role, usize, Duration)> = Vec::new();
    let mut faults = Vec::new();
    let mut at = Duration::from_secs(1);
    while at + REST < length {
        let due = first.pop();
        let (role, action) = due.unwrap_or_else(|| {
            let role = match rng.u32(0..10) {
                0 => Role::Nats,
                1..3 => Role::Backend,
                _ => Role::Worker,
            };
            (role, actions[rng.usize(0..actions.len())])
        });
        let count = match role {
            Role::Nats => shape.nats,
            Role::Backend => shape.backends,
            Role::Worker => shape.workers,
            Role::Operator => continue,
        };
        let index = rng.usize(0..count);
        let away = away(&mut rng, role, action, shape.lease);
        let gap = Duration::from_millis(rng.u64(GAP.0..GAP.1));
        let free = busy.iter().all(|&(r, i, until)| {
            let same = r == role && (i == index || role == Role::Nats);
            !same || at >= until
        });
        let fits = at + away + REST <= length;
        if free && fits {
            let rest = if role == Role::Nats && shape.nats > 1 {
                CLUSTER_REST
            } else {
                REST
            };
            busy.push((role, index, at + away + rest));
            faults.push(Fault {
                at,
                role,
                index,
                action,
                away,
            });
        } else if let Some(kind) = due {
            // Its turn comes when the program has recovered.
            first.insert(0, kind);
        }
        at += gap;
    }

    faults
}

/// What the operator does in a run of `length`, in order. Each kind comes once before any comes twice.
/// Only a single server has a limit that can be reached.
pub fn mistakes(seed: u64, length: Duration, servers: usize) -> Vec<Fault> {
    const KINDS: [Action; 5] = [
        Action::DeleteConsumer,
        Action::DeleteBucket,
        Action::ChangeSettings,
        Action::StartStranger,
        Action::FillStore,
    ];
    // Other draws than those of the programs.
    let mut rng = fastrand::Rng::with_seed(seed ^ 0x5eed);
    let mut kinds = Vec::new();
    let mut faults = Vec::new();
    let mut at = Duration::from_millis(rng.u64(1_500..3_000));
    while at + REST < length {
        if kinds.is_empty() {
            kinds = KINDS.to_vec();
            kinds.retain(|kind| servers == 1 || *kind != Action::FillStore);
            rng.shuffle(&mut kinds);
        }
        let Some(action) = kinds.pop() else { break };
        let away = match action {
            Action::StartStranger | Action::FillStore => {
                Duration::from_millis(rng.u64(1_000..3_000))
            }
            _ => Duration::ZERO,
        };
        faults.push(Fault {
            at,
            role: Role::Operator,
            index: rng.usize(0..16),
            action,
            away,
        });
        at += away + Duration::from_millis(rng.u64(1_500..4_000));
    }
    faults
}

fn away(rng: &mut fastrand::Rng, role: Role, action: Action, lease: Duration) -> Duration {
    let lease = u64::try_from(lease.as_millis()).unwrap_or(u64::MAX);
    let millis = match (role, action) {
        // Longer than the lease: another worker takes over before this one wakes up.
        (Role::Worker, Action::Freeze) => rng.u64(lease * 6 / 5..lease * 3),
        (Role::Worker, _) => rng.u64(0..1500),
        (Role::Backend, Action::Freeze) => rng.u64(500..3000),
        (Role::Backend, _) => rng.u64(0..1500),
        (Role::Nats, Action::Freeze) => rng.u64(300..2000),
        (Role::Nats | Role::Operator, _) => rng.u64(0..1000),
    };
    Duration::from_millis(millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(nats: usize) -> Shape {
        Shape {
            nats,
            backends: 2,
            workers: 6,
            lease: Duration::from_secs(1),
        }
    }

    #[test]
    fn a_seed_is_a_schedule() {
        let length = Duration::from_secs(60);
        assert_eq!(
            schedule(7, length, &shape(1)),
            schedule(7, length, &shape(1))
        );
        assert_ne!(
            schedule(7, length, &shape(1)),
            schedule(8, length, &shape(1))
        );
    }

    #[test]
    fn every_kind_comes_and_no_program_meets_two_at_a_time() {
        for seed in 0..50 {
            let length = Duration::from_secs(60);
            let faults = schedule(seed, length, &shape(3));
            for role in [Role::Nats, Role::Backend, Role::Worker] {
                for action in [Action::Kill, Action::Freeze, Action::Restart] {
                    assert!(
                        faults.iter().any(|f| f.role == role && f.action == action),
                        "{role} {action} in {seed}"
                    );
                }
            }
            for (n, fault) in faults.iter().enumerate() {
                assert!(fault.at + fault.away <= length);
                let same = |other: &&Fault| {
                    other.role == fault.role
                        && (other.index == fault.index || fault.role == Role::Nats)
                };
                if let Some(next) = faults[n + 1..].iter().find(same) {
                    assert!(
                        next.at >= fault.at + fault.away + REST,
                        "{fault:?} {next:?}"
                    );
                }
            }
        }
    }
}
