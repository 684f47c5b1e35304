//! One operation at a time: from its start until the client sees its end.

use super::Plan;
use super::http::{Http, get, post};
use super::prototype::Prototype;
use super::report::{Aim, Report, Row, percentile, sorted};
use super::world::{NO_OP, World};

/// Milliseconds from `POST start` to the answer of a `GET` that waits for the end.
pub(super) async fn over_rest_with(http: &mut Http, count: usize, parameters: &str) -> Vec<f64> {
    let start = post("/api/v1/dummy/start", parameters);
    let mut took = Vec::with_capacity(count);
    for _ in 0..count {
        let begun = std::time::Instant::now();
        let (status, body) = http.call(&start).await;
        assert_eq!(status, 202, "{body:?}");
        let answer: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        let id = answer["operation_id"].as_str().expect("an id");
        let (status, body) = http
            .call(&get(&format!("/api/v1/operations/{id}?wait=30")))
            .await;
        took.push(begun.elapsed().as_secs_f64() * 1e3);
        assert!(
            status == 200
                && body
                    .windows(20)
                    .any(|part| part == b"\"status\":\"completed\""),
            "{body:?}"
        );
    }

    took
}

pub(super) async fn measure(plan: &Plan, report: &mut Report) {
    report.section("Latency, one operation at a time");
    let world = World::start().await;
    let worker = world.worker("bench", 4).await;
    let prototype = Prototype::start(&world.bus, &world.nats.url(), 4).await;
    let mut http = Http::open(world.address()).await;

    over_rest_with(&mut http, 50, NO_OP).await;
    prototype.closed_loop(50).await;

    let (mut floor, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..plan.pick(10, 40) {
        floor.extend(prototype.closed_loop(100).await);
        ours.extend(over_rest_with(&mut http, 100, NO_OP).await);
    }

    prototype.stop().await;
    let (floor, ours) = (sorted(floor), sorted(ours));
    report.add(Row::new(
        "bare prototype, start to end seen, p50",
        percentile(&floor, 0.5),
        "ms",
    ));
    report.add(
        Row::new(
            "REST start to `completed` seen by a waiting client, p50",
            percentile(&ours, 0.5),
            "ms",
        )
        .beside("prototype", percentile(&floor, 0.5))
        .aim(Aim::RatioAtMost(2.0))
        .note("two HTTP round trips more than the prototype"),
    );

    report.add(
        Row::new("the same, p99", percentile(&ours, 0.99), "ms")
            .beside("prototype", percentile(&floor, 0.99))
            .aim(Aim::AtMost(10.0)),
    );
    drop(worker);
    world.shutdown().await;
}
