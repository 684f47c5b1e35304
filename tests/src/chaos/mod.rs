//! A load with faults: real programs are killed, frozen and restarted while a client starts
//! operations. At the end, the stream, the backends, the queues and the files are compared with the
//! client's ledger.
//!
//! | module | holds |
//! |---|---|
//! | [`mod@schedule`] | what goes wrong, to whom, and when: from the seed |
//! | [`agent`] | one program and what is done to it |
//! | [`load`] | the client |
//! | [`ledger`] | what the client was told |
//! | [`stamp`] | an engine whose effect tells which attempt had it |
//! | [`history`] | what the stream says about one operation, and what may never be in it |
//! | [`check`] | the verdict |
//! | [`report`] | the table |

pub mod agent;
pub mod check;
pub mod history;
pub mod ledger;
pub mod load;
pub mod report;
pub mod schedule;
pub mod stamp;

use std::sync::Arc;
use std::time::Duration;

use ktrdr_protocol::subject::SubjectNames;
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use self::agent::{Member, Observations};
use self::load::Load;
use self::report::Report;
use self::schedule::{Role, Shape, schedule};
use crate::bus::Bus;
use crate::cluster::Cluster;
use crate::nats::NatsServer;
use crate::process::{BackendProcess, WorkerProcess};
use crate::scratch::{self, Scratch};
use crate::settings::Settings;
use crate::wait::{LIMIT, wait_for};

/// The server writes to disk before it acknowledges. Without this setting, `kill -9` of a single
/// server may lose messages.
pub const SYNC_ALWAYS: &str = "jetstream { sync_interval: always }\n";

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
    /// How long all operations may take to end afterwards.
    pub patience: Duration,
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

/// Runs load, faults and checks, and returns the report. Ends every program that it started, and
/// keeps the files when something is wrong.
///
/// # Panics
/// When the programs cannot even be started.
pub async fn run(options: &Options) -> Report {
    let data = Scratch::new("data");
    let rows: String = (0..2000)
        .map(|n| format!("{n},{}\n", n * 7919 % 1000))
        .collect();
    std::fs::write(data.join("source.csv"), format!("n,x\n{rows}"))
        .expect("a file in our directory");
    let mut servers = match options.servers {
        1 => vec![NatsServer::start_with(SYNC_ALWAYS).await],
        _ => Cluster::start_with(SYNC_ALWAYS).await.into_servers(),
    };
    let urls: Vec<String> = servers.iter().map(NatsServer::url).collect();
    let replicas = servers.len().to_string();
    let settings = Settings::fast(urls.join(","))
        .data_dir(data.path())
        .with("KTRDR_STREAM_REPLICAS", replicas);
    let settings = Settings {
        log: "info,async_nats=warn".to_owned(),
        ..settings
    };
    let crew = settings.clone().with("WORKER_CONCURRENCY", "4");
    let bus = Bus::connect(
        &urls.join(","),
        SubjectNames::new(&settings.prefix).expect("a valid prefix"),
    )
    .await;

    let mut backends: Vec<_> = (0..BACKENDS)
        .map(|_| BackendProcess::launch(&settings))
        .collect();
    for backend in &mut backends {
        backend.ready().await;
    }
    let workers: Vec<_> = WORKERS
        .iter()
        .map(|&(worker_type, id)| match worker_type {
            "stamp" => WorkerProcess::launch_program(
                &crew,
                &["ktrdr-chaos", "stamp-worker"],
                worker_type,
                id,
            ),
            _ => WorkerProcess::launch(&crew, worker_type, id),
        })
        .collect();
    let apis: Vec<_> = backends.iter().map(|backend| backend.api.clone()).collect();
    for api in &apis {
        wait_for("all workers", LIMIT, async || {
            match api.workers().await.len() {
                n if n == WORKERS.len() => Ok(()),
                n => Err(n.to_string()),
            }
        })
        .await;
    }

    let shape = Shape {
        nats: servers.len(),
        backends: BACKENDS,
        workers: WORKERS.len(),
        lease: settings.lease,
    };
    let faults = schedule(options.seed, options.length, &shape);
    let began = Instant::now();
    let end = CancellationToken::new();
    let mut agents = JoinSet::new();
    let members = servers
        .drain(..)
        .map(Member::Nats)
        .enumerate()
        .map(|(n, member)| (Role::Nats, n, member));
    let members = members.chain(
        backends
            .into_iter()
            .enumerate()
            .map(|(n, b)| (Role::Backend, n, Member::Backend(b))),
    );
    let members = members.chain(
        workers
            .into_iter()
            .enumerate()
            .map(|(n, w)| (Role::Worker, n, Member::Worker(w))),
    );
    for (role, index, member) in members {
        let mine = faults
            .iter()
            .filter(|fault| fault.role == role && fault.index == index)
            .cloned()
            .collect();
        agents.spawn(agent::run(member, mine, began, end.clone()));
    }
    let ledger = Arc::new(Mutex::new(ledger::Ledger::default()));
    let load = Load {
        apis: apis.clone(),
        ledger: ledger.clone(),
        rate: options.rate,
        until: began + options.length,
    };
    let mut problems = Vec::new();
    if timeout(
        options.length + Duration::from_secs(90),
        load.run(CLIENTS, options.seed),
    )
    .await
    .is_err()
    {
        problems.push("the clients did not come to an end".to_owned());
    }
    let calm = Instant::now();
    if let Err(open) = check::drained(&bus, &apis[0], options.patience).await {
        problems.push(format!(
            "not everything ended within {:?}: {open}",
            options.patience
        ));
    }
    let drained = calm.elapsed();
    let ledger = std::mem::take(&mut *ledger.lock());
    let mut verdict = check::check(&bus, &apis, &ledger, data.path()).await;
    end.cancel();
    let mut observations = Observations::default();
    // Dropped only after it is known whether their files are kept.
    let mut members = Vec::new();
    while let Some(joined) = agents.join_next().await {
        match joined {
            Ok((member, one)) => {
                members.push(member);
                for (kind, count) in one.faults {
                    *observations.faults.entry(kind).or_default() += count;
                }
                observations.fenced += one.fenced;
                problems.extend(one.problems);
            }
            Err(error) => problems.push(format!("the agent of a program failed: {error}")),
        }
    }
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
