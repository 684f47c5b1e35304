//! Whole operations a second: over the bus, over REST, and the cost of flushing every message to
//! disk.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Plan;
use super::http::{self, drive};
use super::lives::stored_lives_rate;
use super::load::{Message, WINDOW, confirmed_publish_rate, publish_all, raw_publish_rate, starts};
use super::measure::Spent;
use super::prototype::Prototype;
use super::report::{Aim, Report, Row, median, percentile};
use super::world::{Bare, NO_OP, World};
use crate::process::WorkerProcess;

/// Slots of the worker under load.
const SLOTS: usize = 256;

/// Starts of one request for many.
const MANY: u64 = 1000;

/// How often floor and figure are measured alternately; the median counts.
const ROUNDS: usize = 3;

/// Operations a second from the first publish to the last one shown as completed.
pub(super) async fn operations_rate(world: &World, count: usize, parameters: &str) -> f64 {
    rate_of(world, count, starts(&world.bus, count, parameters)).await
}

/// The same for `count` starts of any type.
pub(super) async fn rate_of(
    world: &World,
    count: usize,
    starts: impl IntoIterator<Item = Message>,
) -> f64 {
    let before = world.count("completed").await;
    let started = Instant::now();
    publish_all(&world.bus.client, WINDOW, starts).await;
    world.completed(before + count as u64).await;
    count as f64 / started.elapsed().as_secs_f64()
}

pub(super) async fn measure(plan: &Plan, report: &mut Report) {
    let world = World::start().await;
    let worker = world.worker("bench", SLOTS).await;
    report.section("Throughput (nats-server flushes every 2 minutes, its default)");
    let over_bus = on_the_bus(plan, report, &world, &worker).await;
    over_rest(plan, report, &world, &worker, over_bus).await;
    drop(worker);
    world.shutdown().await;
}

async fn on_the_bus(
    plan: &Plan,
    report: &mut Report,
    world: &World,
    worker: &WorkerProcess,
) -> f64 {
    let count = plan.pick(10_000, 100_000);
    let prototype = Prototype::start(&world.bus, &world.nats.url(), SLOTS).await;

    operations_rate(world, 2_000, NO_OP).await;
    prototype.rate(2_000).await;

    let (mut raw, mut confirmed, mut stored) = (Vec::new(), Vec::new(), Vec::new());
    let (mut bare, mut ours) = (Vec::new(), Vec::new());
    let (mut bare_costs, mut costs) = (String::new(), String::new());
    for _ in 0..ROUNDS {
        raw.push(raw_publish_rate(&world.bus, count).await);
        confirmed.push(confirmed_publish_rate(&world.bus, count).await);
        stored.push(stored_lives_rate(&world.bus, count / 2).await);
        let spent = Spent::begin(&[
            ("nats", world.nats.pid()),
            ("prototype", std::process::id()),
        ]);
        bare.push(prototype.rate(count).await);
        bare_costs = spent.each(count as f64);
        let spent = Spent::begin(&world.processes(worker));
        ours.push(operations_rate(world, count, NO_OP).await);
        costs = spent.each(count as f64);
    }

    prototype.stop().await;
    let (raw, confirmed, stored) = (median(raw), median(confirmed), median(stored));
    let (bare, ours) = (median(bare), median(ours));

    report.add(Row::new(
        "raw JetStream publish, 250 B, confirmations only counted",
        raw,
        "msg/s",
    ));
    report.add(Row::new(
        "raw JetStream publish, 250 B, through the client library",
        confirmed,
        "msg/s",
    ));
    report.add(
        Row::new(
            "the three messages of operations only stored, with their subjects, headers and checks",
            stored,
            "op/s",
        )
        .beside("raw / 3", raw / 3.0),
    );

    report.add(
        Row::new(
            "bare prototype of the protocol, whole operations",
            bare,
            "op/s",
        )
        .beside("raw / 3", raw / 3.0)
        .note(bare_costs),
    );

    report.add(
        Row::new("whole no-op operations, started on the bus", ours, "op/s")
            .beside("raw / 3", raw / 3.0)
            .aim(Aim::RatioAtLeast(0.75))
            .note(costs),
    );
    report.add(
        Row::new(
            "the same beside publishing through the client library",
            ours,
            "op/s",
        )
        .beside("confirmed / 3", confirmed / 3.0),
    );

    report.add(
        Row::new("the same beside storing its messages", ours, "op/s")
            .beside("only stored", stored),
    );
    report.add(Row::new("the same beside the prototype", ours, "op/s").beside("prototype", bare));

    ours
}

async fn over_rest(
    plan: &Plan,
    report: &mut Report,
    world: &World,
    worker: &WorkerProcess,
    over_bus: f64,
) {
    let span = Duration::from_secs(plan.pick(2, 6));

    let bare = Bare::start(b"{}").await;
    let echo: Arc<[u8]> = http::post("/echo", NO_OP).into();
    let start: Arc<[u8]> = http::post("/api/v1/dummy/start", NO_OP).into();
    let (mut floors, mut rates, mut costs, mut latencies) =
        (Vec::new(), Vec::new(), String::new(), Vec::new());
    let many: Arc<[u8]> = http::post("/api/v1/dummy/start-many", &many_no_ops()).into();
    let (mut many_rates, mut many_costs, mut many_latencies) =
        (Vec::new(), String::new(), Vec::new());
    let (mut single_cpu, mut many_cpu, mut on_the_bus) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let request = echo.clone();
        floors.push(
            drive(bare.address, 64, span / 2, 200, move |_| request.clone())
                .await
                .rate,
        );
        let before = world.count("completed").await;
        let request = start.clone();
        let (started, spent) = (Instant::now(), Spent::begin(&world.processes(worker)));
        let load = drive(world.address(), 64, span, 202, move |_| request.clone()).await;
        world.completed(before + load.count).await;
        rates.push(load.count as f64 / started.elapsed().as_secs_f64());
        costs = spent.each(load.count as f64);
        single_cpu.push(spent.cpu_of("backend") / load.count as f64 * 1e6);
        latencies = load.latencies;

        let before = world.count("completed").await;
        let request = many.clone();
        let (started, spent) = (Instant::now(), Spent::begin(&world.processes(worker)));
        let load = drive(world.address(), 2, span, 200, move |_| request.clone()).await;
        let count = load.count * MANY;
        world.completed(before + count).await;
        many_rates.push(count as f64 / started.elapsed().as_secs_f64());
        many_costs = spent.each(count as f64);
        many_cpu.push(spent.cpu_of("backend") / count as f64 * 1e6);
        many_latencies = load.latencies;
        on_the_bus.push(operations_rate(world, count as usize, NO_OP).await);
    }

    let (floor, rate) = (median(floors), median(rates));
    report.add(Row::new(
        "bare axum POST echo, 64 connections",
        floor,
        "req/s",
    ));
    let lower = floor.min(over_bus);
    report.add(
        Row::new(
            "whole no-op operations, started over REST, 64 connections",
            rate,
            "op/s",
        )
        .beside(
            if floor < over_bus {
                "axum echo"
            } else {
                "over the bus"
            },
            lower,
        )
        .aim(Aim::RatioAtLeast(0.6))
        .note(costs),
    );

    report.add(Row::new(
        "  POST answered, p50",
        percentile(&latencies, 0.5),
        "ms",
    ));
    report.add(Row::new(
        "  POST answered, p99",
        percentile(&latencies, 0.99),
        "ms",
    ));
    report.add(
        Row::new(
            "whole no-op operations, started 1,000 at a time, 2 connections",
            median(many_rates),
            "op/s",
        )
        .beside("on the bus, between", median(on_the_bus))
        .aim(Aim::RatioAtLeast(0.9))
        .note(many_costs),
    );
    report.add(
        Row::new(
            "backend CPU for each operation, started 1,000 at a time",
            median(many_cpu),
            "µs",
        )
        .beside("started one at a time", median(single_cpu))
        .aim(Aim::RatioAtMost(0.5)),
    );
    report.add(Row::new(
        "  1,000 starts answered, p50",
        percentile(&many_latencies, 0.5),
        "ms",
    ));
}

/// The body of a request for [`MANY`] starts.
fn many_no_ops() -> String {
    let bodies = vec![NO_OP; MANY as usize].join(",");
    format!(r#"{{"operations":[{bodies}]}}"#)
}

/// The cost of acknowledging nothing before it is on the disk.
pub(super) async fn fsync(plan: &Plan, report: &mut Report) {
    report.section(
        "Throughput with sync_interval: always (every message flushed before it is acknowledged)",
    );
    let world = World::start_with("jetstream { sync_interval: always }\n").await;
    let worker = world.worker("bench", SLOTS).await;
    let raw_count = plan.pick(1_000, 10_000);
    let raw = raw_publish_rate(&world.bus, raw_count).await;

    report.add(Row::new(
        "raw JetStream publish, each flushed",
        raw,
        "msg/s",
    ));
    let count = ((raw * 2.0) as usize).clamp(100, plan.pick(2_000, 20_000));
    operations_rate(&world, 50, NO_OP).await;
    let rate = operations_rate(&world, count, NO_OP).await;
    let again = raw_publish_rate(&world.bus, raw_count).await;
    let floor = f64::midpoint(raw, again) / 3.0;

    report.add(
        Row::new("whole no-op operations, each message flushed", rate, "op/s")
            .beside("raw flushed / 3", floor),
    );
    drop(worker);
    world.shutdown().await;
}
