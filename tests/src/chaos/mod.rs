//! A load with faults: real programs are killed, frozen and restarted while a client starts
//! operations. At the end, the stream, the backends, the queues and the files are compared with the
//! client's ledger.
//!
//! | module | holds |
//! |---|---|
//! | [`mod@schedule`] | the faults, drawn from the seed |
//! | [`agent`] | one program and the faults it meets |
//! | [`operator`] | mistakes of a person with rights on the bus |
//! | [`load`] | the client |
//! | [`plans`] | the operations that it starts |
//! | [`slots`] | a schedule with a slot every second |
//! | [`ledger`] | which starts were acknowledged or refused |
//! | [`stamp`] | an engine that writes its attempt into a file |
//! | [`history`] | the messages of one operation, and the rules that they must keep |
//! | [`check`] | the verdict |
//! | [`report`] | the table |

pub mod agent;
pub mod check;
pub mod history;
pub mod ledger;
pub mod load;
pub mod operator;
pub mod plans;
pub mod report;
pub mod schedule;
pub mod slots;
pub mod stamp;

use std::sync::Arc;
use std::time::Duration;

use ktrdr_protocol::subject::SubjectNames;
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use self::agent::{Member, Observations};
use self::ledger::Ledger;
use self::load::Load;
use self::plans::Kinds;
use self::report::Report;
use self::schedule::{Fault, Role, Shape, mistakes, schedule};
use crate::bus::Bus;
use crate::client::Client;
use crate::cluster::Cluster;
use crate::nats::NatsServer;
use crate::process::{BackendProcess, WorkerProcess};
use crate::scratch::{self, Scratch};
use crate::settings::Settings;
use crate::wait::{LIMIT, wait_for};

/// The server writes to disk before it acknowledges. Without this setting, `kill -9` of a single
/// server may lose messages.
pub const SYNC_ALWAYS: &str = "jetstream { sync_interval: always }\n";

/// The same for a server whose store can become full: see [`operator`].
const SMALL_STORE: &str = "jetstream { sync_interval: always, max_file_store: 256MB }\n";

/// The options of a run.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long load and faults last.
    pub length: Duration,
    /// Decides the faults and the load.
    pub seed: u64,
    /// Servers: 1, or 3 for a cluster with three copies of everything.
    pub servers: usize,
    /// About how many operations are started a second.
    pub rate: u32,
    /// So many operations with keys instead of those of many sorts; 0 for none.
    pub keyed: usize,
    /// Also a schedule with a slot every second.
    pub schedules: bool,
    /// How long all operations may take to end afterwards.
    pub patience: Duration,
}

impl Options {
    /// As a run without arguments has them: of many sorts, 30 a second, on one server.
    pub fn new(length: Duration, seed: u64) -> Self {
        Self {
            length,
            seed,
            servers: 1,
            rate: 30,
            keyed: 0,
            schedules: false,
            patience: Duration::from_secs(90),
        }
    }
}

const BACKENDS: usize = 2;
const CLIENTS: u32 = 12;

/// Four slots each, so that a worker that dies takes several operations with it.
const WORKERS: [(&str, &str); 7] = [
    ("dummy", "dummy-1"),
    ("dummy", "dummy-2"),
    ("dummy", "dummy-3"),
    ("dummy", "dummy-4"),
    ("stamp", "stamp-1"),
    ("stamp", "stamp-2"),
    ("data_processing", "table-1"),
];

/// The programs of a run before the faults begin.
struct System {
    members: Vec<(Role, usize, Member)>,
    bus: Bus,
    apis: Vec<Client>,
    settings: Settings,
    data: Scratch,
}

/// Runs load, faults and checks, and returns the report. Ends every program that it started, and
/// keeps the files when something is wrong.
///
/// # Panics
/// When the programs cannot even be started.
pub async fn run(options: &Options) -> Report {
    let system = start_system(options.servers).await;
    if options.schedules {
        slots::begin(&system.apis[0]).await;
    }
    let faults = draw_faults(options, &system);
    let System {
        members,
        bus,
        apis,
        settings,
        data,
    } = system;

    let began = Instant::now();
    let end = CancellationToken::new();
    let mut agents = JoinSet::new();
    for (role, index, member) in members {
        let own_faults = faults
            .iter()
            .filter(|fault| fault.role == role && fault.index == index)
            .cloned()
            .collect();
        agents.spawn(agent::run(member, own_faults, began, end.clone()));
    }

    let mistakes = mistakes(options.seed, options.length, options.servers);
    let mut problems = Vec::new();
    let (ledger, made) = tokio::join!(
        run_load(options, &apis, began, &mut problems),
        operator::run(&bus, &settings, mistakes, began, options.schedules),
    );
    let calm = Instant::now();
    if options.schedules
        && let Err(problem) = slots::end(&apis[0]).await
    {
        problems.push(problem);
    }
    if let Err(open) = check::drained(&bus, &apis[0], options.patience).await {
        problems.push(format!(
            "not everything ended within {:?}: {open}",
            options.patience
        ));
    }
    let drained = calm.elapsed();
    let mut verdict = check::check(&bus, &apis, &ledger, data.path()).await;
    if options.schedules {
        let (count, wrong) = slots::judge(&verdict.histories);
        verdict.slots = count;
        verdict.violations.extend(wrong);
    }

    end.cancel();
    // Dropped only after it is known whether their files are kept.
    let (_members, mut observations) = collect(agents, &mut problems).await;
    observations.faults.extend(made.faults);
    problems.extend(made.problems);
    verdict.violations.splice(0..0, problems);
    if !verdict.violations.is_empty() {
        scratch::keep_all();
    }

    Report {
        options: options.clone(),
        observations,
        ledger,
        verdict,
        drained,
    }
}

async fn start_system(server_count: usize) -> System {
    let data = source_table();
    let servers = match server_count {
        1 => vec![NatsServer::start_with(SMALL_STORE).await],
        _ => Cluster::start_with(SYNC_ALWAYS).await.into_servers(),
    };

    let urls: Vec<String> = servers.iter().map(NatsServer::url).collect();
    let settings = Settings {
        log: "info,async_nats=warn".to_owned(),
        ..Settings::fast(urls.join(","))
            .data_dir(data.path())
            .with("KTRDR_STREAM_REPLICAS", servers.len().to_string())
    };
    let names = SubjectNames::new(&settings.prefix).expect("a valid prefix");
    let bus = Bus::connect(&settings.nats_url, names).await;

    let mut backends: Vec<_> = (0..BACKENDS)
        .map(|_| BackendProcess::launch(&settings))
        .collect();
    for backend in &mut backends {
        backend.ready().await;
    }
    let apis: Vec<_> = backends.iter().map(|backend| backend.api.clone()).collect();
    let workers = start_workers(&settings, &apis).await;

    let members = numbered(Role::Nats, servers, Member::Nats)
        .chain(numbered(Role::Backend, backends, Member::Backend))
        .chain(numbered(Role::Worker, workers, Member::Worker))
        .collect();
    System {
        members,
        bus,
        apis,
        settings,
        data,
    }
}

/// A data directory with the table that the `data_processing` operations read.
fn source_table() -> Scratch {
    let data = Scratch::new("data");
    let rows: String = (0..2000)
        .map(|n| format!("{n},{}\n", n * 7919 % 1000))
        .collect();
    std::fs::write(data.join("source.csv"), format!("n,x\n{rows}"))
        .expect("a file in our directory");
    data
}

async fn start_workers(settings: &Settings, apis: &[Client]) -> Vec<WorkerProcess> {
    let settings = settings.clone().with("WORKER_CONCURRENCY", "4");
    let workers = WORKERS
        .iter()
        .map(|&(worker_type, id)| match worker_type {
            "stamp" => WorkerProcess::launch_program(
                &settings,
                &["ktrdr-chaos", "stamp-worker"],
                worker_type,
                id,
            ),
            _ => WorkerProcess::launch(&settings, worker_type, id),
        })
        .collect();

    for api in apis {
        wait_for("all workers", LIMIT, async || {
            match api.workers().await.len() {
                n if n == WORKERS.len() => Ok(()),
                n => Err(n.to_string()),
            }
        })
        .await;
    }
    workers
}

/// Programs of one role, numbered as the schedule numbers them.
fn numbered<P>(
    role: Role,
    programs: Vec<P>,
    member: fn(P) -> Member,
) -> impl Iterator<Item = (Role, usize, Member)> {
    programs
        .into_iter()
        .enumerate()
        .map(move |(index, program)| (role, index, member(program)))
}

fn draw_faults(options: &Options, system: &System) -> Vec<Fault> {
    let count = |role: Role| {
        let of_role = system.members.iter().filter(|(one, ..)| *one == role);
        of_role.count()
    };
    let shape = Shape {
        nats: count(Role::Nats),
        backends: count(Role::Backend),
        workers: count(Role::Worker),
        lease: system.settings.lease,
    };
    schedule(options.seed, options.length, &shape)
}

/// Runs the clients until the time is over, and returns their ledger.
async fn run_load(
    options: &Options,
    apis: &[Client],
    began: Instant,
    problems: &mut Vec<String>,
) -> Ledger {
    let ledger = Arc::new(Mutex::new(Ledger::default()));
    let load = Load {
        apis: apis.to_vec(),
        ledger: ledger.clone(),
        kinds: match options.keyed {
            0 => Kinds::Mixed,
            _ => Kinds::Keyed,
        },
        rate: options.rate,
        until: began + options.length,
        at_least: options.keyed,
    };

    // With keys, it may take twice as long as planned until there are enough.
    let longer = if options.keyed > 0 { 2 } else { 1 };
    let limit = options.length * longer + Duration::from_secs(90);
    let ended = timeout(limit, load.run(CLIENTS, options.seed)).await;
    if ended.is_err() {
        problems.push("the clients did not come to an end".to_owned());
    }

    std::mem::take(&mut *ledger.lock())
}

/// Waits for the agents, and adds up their observations. Returns the programs, which still run.
async fn collect(
    mut agents: JoinSet<(Member, Observations)>,
    problems: &mut Vec<String>,
) -> (Vec<Member>, Observations) {
    let mut members = Vec::new();
    let mut all = Observations::default();
    while let Some(joined) = agents.join_next().await {
        match joined {
            Ok((member, one)) => {
                members.push(member);
                for (kind, count) in one.faults {
                    *all.faults.entry(kind).or_default() += count;
                }
                all.fenced += one.fenced;
                problems.extend(one.problems);
            }
            Err(error) => problems.push(format!("the agent of a program failed: {error}")),
        }
    }
    (members, all)
}
