//! What log lines cost: the steps of an engine that says a line each beside those of a silent one, and the
//! operations of a quiet neighbour while others talk as fast as they can.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::Plan;
use super::http::{drive, post};
use super::report::{Report, Row, median};
use super::tokens::{CONNECTIONS, ROUNDS};
use super::world::{NO_OP, World};
use crate::client::Client;
use crate::local_worker::LocalWorker;
use crate::talk::TalkEngine;
use crate::wait::{LIMIT, wait_for};

/// Operations that talk at a time.
const TALKERS: usize = 4;

/// So many lines are never said.
const WITHOUT_END: u64 = 1 << 40;

pub(super) async fn measure(plan: &Plan, report: &mut Report) {
    report.section("Log lines: engines that talk, and their neighbours");
    let world = World::start().await;
    // No limit of an attempt ends the talking.
    let arguments = [
        "--concurrency",
        "4",
        "--log-lines",
        "1000000000",
        "--log-bytes",
        "1TiB",
    ];
    let talkers = LocalWorker::start(&world.settings, TalkEngine, "talkers", &arguments).await;
    let api = &world.backend.api;
    api.wait_for_worker("talkers", "AVAILABLE").await;
    wait_for("the domain talk", LIMIT, async || {
        let types = api.try_get("/api/v1/worker-types").await?;
        match types.text.contains("\"talk\"") {
            true => Ok(()),
            false => Err(types.text),
        }
    })
    .await;

    let steps = plan.pick(200_000, 2_000_000);
    let mut rates = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (rates, silent) in rates.iter_mut().zip([false, true]) {
            rates.push(steps_per_second(api, steps, silent).await);
        }
    }
    let [talking, silent] = rates.map(median);
    report.add(
        Row::new(
            "an engine that says a line in each step",
            talking,
            "steps/s",
        )
        .beside("that says nothing", silent),
    );

    let worker = world.worker("bench", 64).await;
    let span = Duration::from_millis(plan.pick(1_000, 4_000));
    let mut rates = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (rates, silent) in rates.iter_mut().zip([false, true]) {
            let ids = talk(api, silent).await;
            rates.push(operations_per_second(&world, span).await);
            for id in ids {
                api.cancel(&id).await.expect(200);
                api.wait_for_status(&id, "cancelled").await;
            }
        }
    }
    let [beside_talkers, beside_silent] = rates.map(median);
    report.add(
        Row::new(
            "no-op operations beside 4 engines that talk",
            beside_talkers,
            "operations/s",
        )
        .beside("beside 4 that say nothing", beside_silent),
    );
    drop(worker);
    talkers.stop().await;
    world.shutdown().await;
}

/// How fast an engine makes these steps.
async fn steps_per_second(api: &Client, steps: u64, silent: bool) -> f64 {
    let id = api
        .started("talk", &json!({"lines": steps, "silent": silent}))
        .await;
    api.wait_for_status(&id, "completed").await;
    let answer = api.get(&format!("/api/v1/operations/{id}/results")).await;
    let seconds = answer.at("/data/seconds").as_f64();
    steps as f64 / seconds.expect("how long it took")
}

/// Starts operations that talk until they are cancelled.
async fn talk(api: &Client, silent: bool) -> Vec<String> {
    let body: Value = json!({"lines": WITHOUT_END, "silent": silent});
    let mut ids = Vec::new();
    for _ in 0..TALKERS {
        ids.push(api.running("talk", &body).await);
    }
    ids
}

async fn operations_per_second(world: &World, span: Duration) -> f64 {
    let request: Arc<[u8]> = post("/api/v1/dummy/start", NO_OP).into();
    let before = world.count("completed").await;
    let begun = std::time::Instant::now();
    let load = drive(world.address(), CONNECTIONS, span, 202, move |_| {
        request.clone()
    })
    .await;
    world.completed(before + load.count).await;
    load.count as f64 / begun.elapsed().as_secs_f64()
}
