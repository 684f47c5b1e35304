//! Reading one operation over and over, while others run.

use std::sync::Arc;
use std::time::Duration;

use super::Plan;
use super::http::{drive, get, post};
use super::load::{publish_all, starts};
use super::measure::Spent;
use super::report::{Aim, Report, Row, median, percentile};
use super::world::{Bare, NO_OP, World};

/// Operations a second that run meanwhile.
const BACKGROUND: u64 = 1_000;

pub(super) async fn measure(plan: &Plan, report: &mut Report) {
    report.section("Reads over REST, 64 connections, while 1,000 operations a second run");
    let world = World::start().await;
    let worker = world.worker("bench", 64).await;
    let mut http = super::http::Http::open(world.address()).await;
    let (_, started) = http.call(&post("/api/v1/dummy/start", NO_OP)).await;
    let started: serde_json::Value = serde_json::from_slice(&started).expect("JSON");
    let path = format!(
        "/api/v1/operations/{}",
        started["operation_id"].as_str().expect("an id")
    );
    let (_, bytes) = http.call(&get(&format!("{path}?wait=30"))).await;
    let bare = Bare::start(&bytes).await;
    let bus = world.bus.clone();
    let background = tokio::spawn(async move {
        let mut beat = tokio::time::interval(Duration::from_millis(20));
        loop {
            beat.tick().await;
            publish_all(
                &bus.client,
                1024,
                starts(&bus, (BACKGROUND / 50) as usize, NO_OP),
            )
            .await;
        }
    });

    let (floor_request, request): (Arc<[u8]>, Arc<[u8]>) =
        (get("/bytes").into(), get(&path).into());
    let span = Duration::from_millis(plan.pick(1_500, 4_000));
    let (mut floors, mut rates, mut latencies, mut cost) =
        (Vec::new(), Vec::new(), Vec::new(), String::new());
    let mut floor_cost = String::new();
    for _ in 0..3 {
        let same = floor_request.clone();
        let spent = Spent::begin(&[("bare", bare.pid()), ("client", std::process::id())]);
        let load = drive(bare.address, 64, span, 200, move |_| same.clone()).await;
        floor_cost = spent.each(load.count as f64);
        floors.push(load.rate);
        let same = request.clone();
        let spent = Spent::begin(&[
            ("backend", world.backend.process.pid()),
            ("client", std::process::id()),
        ]);
        let load = drive(world.address(), 64, span, 200, move |_| same.clone()).await;
        cost = spent.each(load.count as f64);
        rates.push(load.rate);
        latencies = load.latencies;
    }

    background.abort();
    report.add(
        Row::new("GET /operations/{id}", median(rates), "req/s")
            .beside(
                format!("bare axum, the same {} bytes", bytes.len()),
                median(floors),
            )
            .aim(Aim::RatioAtLeast(0.85))
            .note(format!("{cost}; {floor_cost}")),
    );

    report.add(Row::new(
        "  answered, p50",
        percentile(&latencies, 0.5),
        "ms",
    ));
    report.add(Row::new(
        "  answered, p99",
        percentile(&latencies, 0.99),
        "ms",
    ));
    drop(worker);
    world.shutdown().await;
}
