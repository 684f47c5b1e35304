//! A cluster of three: the stream's leader is killed, a server stays away, each server is restarted
//! in turn, and no operation is lost.

use std::sync::Arc;
use std::time::Duration;

use ktrdr_protocol::subject::SubjectNames;
use ktrdr_tests::chaos::check::{self, check};
use ktrdr_tests::chaos::ledger::Ledger;
use ktrdr_tests::chaos::load::Load;
use ktrdr_tests::chaos::plans::Kinds;
use ktrdr_tests::{
    BackendProcess, Bus, Cluster, LIMIT, Scratch, Settings, WorkerProcess, wait_for,
};
use parking_lot::Mutex;
use tokio::time::Instant;

/// A cluster with backends and workers, under load.
struct Loaded {
    cluster: Cluster,
    bus: Bus,
    backends: Vec<BackendProcess>,
    _workers: Vec<WorkerProcess>,
    ledger: Arc<Mutex<Ledger>>,
    data: Scratch,
}

impl Loaded {
    async fn start() -> Self {
        let cluster = Cluster::start().await;
        let data = Scratch::new("data");
        std::fs::write(data.join("source.csv"), "n\n1\n2\n").unwrap();
        let settings = Settings::fast(cluster.url())
            .data_dir(data.path())
            .with("KTRDR_STREAM_REPLICAS", "3");
        let settings = Settings {
            log: "info,async_nats=warn".to_owned(),
            ..settings
        };

        let bus = Bus::connect(&cluster.url(), SubjectNames::new("ktrdr").unwrap()).await;
        let backends = vec![
            BackendProcess::start(&settings).await,
            BackendProcess::start(&settings).await,
        ];

        let crew = settings.with("WORKER_CONCURRENCY", "8");
        let workers = vec![
            WorkerProcess::start(&crew, "dummy", "w1").await,
            WorkerProcess::start(&crew, "dummy", "w2").await,
            WorkerProcess::launch_program(&crew, &["ktrdr-chaos", "stamp-worker"], "stamp", "s1"),
            WorkerProcess::start(&crew, "data_processing", "t1").await,
        ];

        for backend in &backends {
            for worker in ["w1", "w2", "s1", "t1"] {
                backend.api.wait_for_worker(worker, "AVAILABLE").await;
            }
        }

        Self {
            cluster,
            bus,
            backends,
            _workers: workers,
            ledger: Arc::default(),
            data,
        }
    }

    fn acknowledged(&self) -> usize {
        self.ledger.lock().acknowledged.len()
    }

    /// Waits until this many more starts have been acknowledged.
    async fn goes_on(&self, more: usize) {
        let wanted = self.acknowledged() + more;
        wait_for(
            &format!("{more} more starts to be acknowledged"),
            LIMIT,
            async || match self.acknowledged() {
                n if n >= wanted => Ok(()),
                n => Err(format!(
                    "{n} of {wanted}; refused: {:?}",
                    self.ledger.lock().refusals
                )),
            },
        )
        .await;
    }

    /// Waits until every copy of the stream is up to date again.
    async fn healed(&self) {
        wait_for("all copies to be current", LIMIT, async || {
            let stream = self
                .bus
                .jetstream
                .get_stream("KTRDR")
                .await
                .map_err(|error| error.to_string())?;
            let info = stream.cached_info().cluster.clone().ok_or("no cluster")?;
            let current = info
                .replicas
                .iter()
                .filter(|peer| peer.current && !peer.offline)
                .count();
            if info.leader.is_some() && current == 2 {
                Ok(())
            } else {
                Err(format!("{info:?}"))
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_loses_its_leader_a_server_and_each_in_turn_and_no_operation() {
    let mut loaded = Loaded::start().await;
    let apis: Vec<_> = loaded
        .backends
        .iter()
        .map(|backend| backend.api.clone())
        .collect();
    let load = Load {
        apis: apis.clone(),
        ledger: loaded.ledger.clone(),
        kinds: Kinds::Mixed,
        rate: 40,
        until: Instant::now() + Duration::from_secs(600),
        at_least: 0,
    };
    let until_stopped = tokio_util::sync::CancellationToken::new();
    let running = tokio::spawn(load.run_until(8, 1, until_stopped.clone()));
    loaded.goes_on(30).await;

    let leader = loaded
        .cluster
        .leader_of(&loaded.bus.jetstream, "KTRDR")
        .await;
    loaded.cluster.servers[leader].kill();
    loaded.goes_on(30).await;
    loaded.cluster.servers[leader].run().await;
    loaded.healed().await;

    // A server that stays away: two of three are enough.
    loaded.cluster.servers[0].stop().await;
    loaded.goes_on(60).await;
    loaded.cluster.servers[0].run().await;
    loaded.healed().await;

    for n in 0..3 {
        loaded.cluster.servers[n].stop().await;
        loaded.cluster.servers[n].run().await;
        loaded.healed().await;
        loaded.goes_on(10).await;
    }

    until_stopped.cancel();
    running.await.unwrap();
    check::drained(&loaded.bus, &apis[0], LIMIT * 2)
        .await
        .unwrap();
    let ledger = std::mem::take(&mut *loaded.ledger.lock());
    let verdict = check(&loaded.bus, &apis, &ledger, loaded.data.path()).await;
    println!(
        "{} acknowledged, refused: {:?}, {:?}",
        ledger.acknowledged.len(),
        ledger.refusals,
        verdict.totals
    );
    println!(
        "longest standstill {:?}, slowest operation {:?}",
        verdict.standstill, verdict.slowest
    );

    assert_eq!(verdict.violations, Vec::<String>::new());
    assert_eq!(
        (verdict.lost, verdict.totals.doubled, verdict.totals.open),
        (0, 0, 0)
    );
}
