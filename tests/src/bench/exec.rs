//! Operations a second of a program in Python, beside those of the dummy worker in Rust and beside tasks of
//! Celery: no-ops, eight at a time each.

use std::process::{Command, Stdio};

use ktrdr_protocol::id::WorkerType;
use serde::Deserialize;

use super::Plan;
use super::load::starts_of;
use super::report::{Aim, Report, Row, median};
use super::throughput::{operations_rate, rate_of};
use super::world::{NO_OP, World};
use crate::process::WorkerProcess;
use crate::settings::repository;

/// Slots of either worker; `scripts/lib/bench_celery.py` has as many processes.
const SLOTS: usize = 8;

/// How often the three take turns; the median counts.
const ROUNDS: usize = 3;

/// Operations of each worker before anything is measured.
const WARM_UP: usize = 500;

/// What `scripts/lib/bench_celery.py` prints.
#[derive(Deserialize)]
struct Celery {
    package: String,
    rate: f64,
}

pub(super) async fn measure(plan: &Plan, report: &mut Report) {
    report.section("Programs in Python: no-op operations, 8 at a time");
    let world = World::start().await;
    let dummy = world.worker("rust", SLOTS).await;
    let program = python_worker(&world).await;
    operations_rate(&world, WARM_UP, NO_OP).await;
    python_rate(&world, WARM_UP).await;

    let count = plan.pick(3_000, 15_000);
    let (mut rust, mut python) = (Vec::new(), Vec::new());
    let (mut peers, mut package) = (Vec::new(), String::new());
    for round in 0..ROUNDS {
        rust.push(operations_rate(&world, count, NO_OP).await);
        python.push(python_rate(&world, count).await);
        // What is missing in the first round stays missing.
        if peers.len() == round
            && let Some(celery) = celery(count)
        {
            peers.push(celery.rate);
            package = celery.package;
        }
    }
    drop((dummy, program));
    world.shutdown().await;

    let (rust, python) = (median(rust), median(python));
    report.add(Row::new("the Rust dummy worker, 8 slots", rust, "op/s"));
    report.add(
        Row::new(
            "ktrdr-worker --exec with the Python package, 8 slots",
            python,
            "op/s",
        )
        .beside("Rust dummy worker", rust),
    );
    if !peers.is_empty() {
        report.add(
            Row::new(
                "the same beside Celery, 8 prefork processes",
                python,
                "op/s",
            )
            .beside(package, median(peers))
            .aim(Aim::RatioAtLeast(2.0)),
        );
    }
}

/// A worker that runs `tests/data/exec/no_op.py`, one process per slot.
async fn python_worker(world: &World) -> WorkerProcess {
    let package = repository().join("clients/python/src");
    let job = repository().join("tests/data/exec/no_op.py");
    let settings = world
        .settings
        .clone()
        .with("WORKER_CONCURRENCY", SLOTS.to_string())
        .with("PYTHONPATH", package.display().to_string());
    // The words of the command are split as by a shell.
    let program = format!("'{}' '{}'", interpreter(), job.display());

    let command = ["ktrdr-worker", "--exec", &program];
    let worker = WorkerProcess::launch_program(&settings, &command, "no_op", "python");
    world
        .backend
        .api
        .wait_for_worker("python", "AVAILABLE")
        .await;

    worker
}

/// The same Python for both, so that only what is around it differs.
fn interpreter() -> String {
    std::env::var("KTRDR_BENCH_PYTHON").unwrap_or_else(|_| "python3".to_owned())
}

async fn python_rate(world: &World, count: usize) -> f64 {
    let no_op = WorkerType::new("no_op").expect("a valid name");

    rate_of(world, count, starts_of(&world.bus, no_op, count, "{}")).await
}

/// Tasks of Celery. Nothing when it or Redis is missing; then the script has said so.
fn celery(count: usize) -> Option<Celery> {
    let output = Command::new(interpreter())
        .arg(repository().join("scripts/lib/bench_celery.py"))
        .arg(count.to_string())
        .stderr(Stdio::inherit())
        .output()
        .expect("Python starts");

    serde_json::from_slice(&output.stdout).ok()
}
