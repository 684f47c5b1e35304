//! Many workers: their cost while idle, whether a backend keeps up with their heartbeats, and
//! whether more workers do more work.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ktrdr_protocol::id::WorkerId;
use ktrdr_protocol::time::Timestamp;
use ktrdr_protocol::worker::{Capabilities, Heartbeat, WorkerStatus};

use super::Plan;
use super::load::{WINDOW, publish_all, starts};
use super::measure::{Spent, resident};
use super::plot::Curve;
use super::report::{Aim, Report, Row, median, number, sorted};
use super::world::{World, dummy};
use crate::process::WorkerProcess;
use crate::wait::{LIMIT, wait_for};

/// Workers that wait for work.
const IDLE: usize = 100;

/// Length of one operation in the scale-out case.
const STEP: Duration = Duration::from_millis(10);

pub(super) async fn idle(plan: &Plan, report: &mut Report) {
    report.section("Idle: one backend and 100 workers");

    let world = World::start().await;
    let mut workers = Vec::new();
    for i in 0..IDLE {
        workers.push(WorkerProcess::launch(
            &world.settings,
            "dummy",
            &format!("idle-{i}"),
        ));
        // Started all at once, they would compete for the cores.
        if i % 10 == 9 {
            world
                .backend
                .api
                .wait_for_worker(&format!("idle-{i}"), "AVAILABLE")
                .await;
        }
    }

    wait_for("all workers", LIMIT, async || {
        match world.backend.api.workers().await.len() {
            IDLE => Ok(()),
            count => Err(format!("{count} workers")),
        }
    })
    .await;

    tokio::time::sleep(Duration::from_secs(5)).await;
    let mut all = vec![("backend", world.backend.process.pid())];
    all.extend(
        workers
            .iter()
            .map(|worker| ("worker", worker.process.pid())),
    );
    let (spent, nats) = (
        Spent::begin(&all),
        Spent::begin(&[("nats", world.nats.pid())]),
    );
    tokio::time::sleep(Duration::from_secs(plan.pick(20, 60))).await;
    let part = |spent: &Spent| spent.cpu() / spent.seconds() * 100.0;
    report.add(
        Row::new(
            "CPU of the backend and all workers",
            part(&spent),
            "% of a core",
        )
        .aim(Aim::AtMost(1.0))
        .note(format!("nats-server {:.2} %", part(&nats))),
    );

    let megabytes = |pid: u32| resident(pid) / 1_048_576.0;
    report.add(
        Row::new(
            "resident memory of the backend",
            megabytes(world.backend.process.pid()),
            "MiB",
        )
        .aim(Aim::AtMost(25.0)),
    );

    let sizes = sorted(
        workers
            .iter()
            .map(|worker| megabytes(worker.process.pid()))
            .collect(),
    );
    report.add(
        Row::new(
            "resident memory of a worker, the largest",
            *sizes.last().expect("workers"),
            "MiB",
        )
        .aim(Aim::AtMost(15.0)),
    );

    drop(workers);
    world.shutdown().await;
}

fn heartbeat(i: usize, at: Timestamp) -> Heartbeat {
    Heartbeat {
        worker_id: WorkerId::new(format!("simulated-{i}")).expect("a valid name"),
        worker_type: dummy(),
        instance: format!("instance-{i}"),
        endpoint_url: format!("http://10.0.0.1:{}", 10_000 + i),
        status: if i.is_multiple_of(3) {
            WorkerStatus::Busy
        } else {
            WorkerStatus::Available
        },
        capabilities: Capabilities::default(),
        version: "0".to_owned(),
        schema_digest: None,
        registered_at: at,
        at,
        interval_seconds: 10.0,
        slots: 1,
        running: Vec::new(),
        last_pull_at: Some(at),
        finished: 0,
        fenced: 0,
        lost_slots: 0,
        refused_starts: Vec::new(),
        draining: false,
        leaving: false,
    }
}

pub(super) async fn heartbeats(plan: &Plan, report: &mut Report) {
    report.section("Heartbeating workers, every 10 s each, simulated by one process");

    for count in plan.pick(vec![1_000], vec![1_000, 10_000]) {
        let world = World::start().await;
        let spent = Spent::begin(&[("backend", world.backend.process.pid())]);
        let (mut lost, mut wrong) = (0, 0);
        let rounds = plan.pick(2, 3);
        for _ in 0..rounds {
            let round = Instant::now();
            for i in 0..count {
                let beat = heartbeat(i, Timestamp::now());
                let subject = world.bus.names.heartbeat(&dummy(), &beat.worker_id);
                let payload = serde_json::to_vec(&beat).expect("JSON");
                world
                    .bus
                    .client
                    .publish(subject, payload.into())
                    .await
                    .expect("a connection");
                // Spread over the interval, like the heartbeats of real workers.
                let due = Duration::from_secs(10).mul_f64(i as f64 / count as f64);
                tokio::time::sleep(due.saturating_sub(round.elapsed())).await;
            }
            world.bus.client.flush().await.expect("a connection");
            tokio::time::sleep(
                Duration::from_secs(10)
                    .saturating_sub(round.elapsed())
                    .max(STEP * 20),
            )
            .await;
            let shown = world.backend.api.workers().await;
            let states: BTreeMap<&str, &str> = shown
                .iter()
                .filter_map(|worker| {
                    Some((worker["worker_id"].as_str()?, worker["status"].as_str()?))
                })
                .collect();
            for i in 0..count {
                let wanted = if i.is_multiple_of(3) {
                    "BUSY"
                } else {
                    "AVAILABLE"
                };
                match states.get(format!("simulated-{i}").as_str()) {
                    None => lost += 1,
                    Some(status) if *status != wanted => wrong += 1,
                    Some(_) => {}
                }
            }
        }
        let missed = f64::from(lost + wrong);
        let cpu = spent.cpu() / spent.seconds() * 100.0;
        report.add(
            Row::new(
                format!("{} workers: states missed or wrong", number(count as f64)),
                missed,
                "states",
            )
            .aim(Aim::AtMost(0.0))
            .note(format!("of {}", count * rounds)),
        );
        report.add(Row::new(
            format!("{} workers: CPU of the backend", number(count as f64)),
            cpu,
            "% of a core",
        ));
        world.shutdown().await;
    }
}

pub(super) async fn scale_out(plan: &Plan, report: &mut Report) {
    report.section("Scale-out: operations of 10 ms, one slot each");

    let world = World::start().await;
    let parameters = format!(
        r#"{{"steps":1,"step_ms":{},"metrics_per_step":0}}"#,
        STEP.as_millis()
    );
    let mut workers: Vec<WorkerProcess> = Vec::new();
    let (mut points, mut perfect, mut one) = (Vec::new(), Vec::new(), f64::NAN);
    for count in [1, 2, 4, 8, 16] {
        while workers.len() < count {
            workers.push(world.worker(&format!("scale-{}", workers.len()), 1).await);
        }
        let operations = count * plan.pick(150, 600);
        let mut rates = Vec::new();
        for _ in 0..plan.pick(2, 3) {
            let before = world.count("completed").await;
            let begun = Instant::now();
            publish_all(
                &world.bus.client,
                WINDOW,
                starts(&world.bus, operations, &parameters),
            )
            .await;
            world.completed(before + operations as u64).await;
            rates.push(operations as f64 / begun.elapsed().as_secs_f64());
        }
        let rate = median(rates);
        if count == 1 {
            one = rate;
        }
        let ideal = one * count as f64;
        let row =
            Row::new(format!("{count} workers"), rate, "op/s").beside("perfect scaling", ideal);
        report.add(if count > 1 {
            row.aim(Aim::RatioAtLeast(0.9))
        } else {
            row
        });
        points.push((count as f64, rate));
        perfect.push((count as f64, ideal));
    }

    let series = vec![
        ("measured".to_owned(), points),
        ("perfect".to_owned(), perfect),
    ];
    let title = "Operations of 10 ms a second by number of workers".to_owned();

    report.plot(&Curve {
        file: "scale-out.svg".to_owned(),
        title,
        x: "workers",
        y: "operations a second",
        series,
    });

    drop(workers);
    world.shutdown().await;
}
