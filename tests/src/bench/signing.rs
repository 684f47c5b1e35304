//! What signed starts cost: the same starts at a backend that signs and at one that does not, and the
//! same operations on a worker that checks signatures and on one that does not.

use std::sync::Arc;
use std::time::Duration;

use ktrdr_bus::signing::write_new_seed;

use super::Plan;
use super::http::{address_of, drive, post};
use super::measure::Spent;
use super::report::{Report, Row, median};
use super::tokens::{CONNECTIONS, ROUNDS, Side, compare};
use super::world::{NO_OP, World};
use crate::process::BackendProcess;
use crate::scratch::Scratch;

pub(super) async fn measure(plan: &Plan, report: &mut Report) {
    report.section("Signed starts: with and without signatures, in turns");
    let scratch = Scratch::new("signing");
    let seed = scratch.join("seed");
    let public = write_new_seed(&seed).expect("a key");
    let mut world = World::start().await;
    let settings = world
        .settings
        .clone()
        .with("KTRDR_SIGNING_KEY", seed.display().to_string());
    let signing = BackendProcess::start(&settings).await;
    let request: Arc<[u8]> = post("/api/v1/dummy/start", NO_OP).into();
    let span = Duration::from_millis(plan.pick(1_000, 4_000));

    let worker = world.worker("bench", 64).await;
    let sides = [
        Side {
            name: "signed",
            address: address_of(signing.api.base()),
            pid: signing.process.pid(),
            request: request.clone(),
        },
        Side {
            name: "not signed",
            address: world.address(),
            pid: world.backend.process.pid(),
            request: request.clone(),
        },
    ];
    report.add(compare("POST /dummy/start", &world, &sides, span, 202).await);
    drop(worker);

    let plain = world.settings.clone();
    let mut costs = [Vec::new(), Vec::new()];
    for round in 0..ROUNDS {
        let checks = round % 2 == 0;
        world.settings = if checks {
            plain.clone().with("KTRDR_VERIFY_KEYS", &public)
        } else {
            plain.clone()
        };
        let worker = world.worker(&format!("bench-{round}"), 64).await;
        let before = world.count("completed").await;
        let (same, spent) = (
            request.clone(),
            Spent::begin(&[("worker", worker.process.pid())]),
        );
        let load = drive(
            address_of(signing.api.base()),
            CONNECTIONS,
            span,
            202,
            move |_| same.clone(),
        )
        .await;
        world.completed(before + load.count).await;
        costs[usize::from(!checks)].push(spent.cpu() / load.count as f64 * 1e6);
    }
    let [with, without] = costs.map(median);
    report.add(
        Row::new(
            "CPU of a worker that checks signatures",
            with,
            "µs/operation",
        )
        .beside("that does not", without),
    );
    world.shutdown().await;
}
