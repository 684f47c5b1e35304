//! What a file of tokens costs: the same requests to a backend with one and to a backend without, in
//! turns, on the same nats-server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::Plan;
use super::http::{Http, address_of, drive, get, post, with_token};
use super::measure::Spent;
use super::report::{Aim, Report, Row, median};
use super::world::{NO_OP, World};
use crate::process::BackendProcess;
use crate::tokens::TokensFile;

/// Entries of the file.
const TOKENS: usize = 1_000;

/// How often each backend has its turn.
pub(super) const ROUNDS: usize = 8;

/// Connections of the client.
pub(super) const CONNECTIONS: usize = 64;

/// One of the two backends, with the request that it gets.
pub(super) struct Side {
    pub(super) name: &'static str,
    pub(super) address: SocketAddr,
    pub(super) pid: u32,
    pub(super) request: Arc<[u8]>,
}

pub(super) async fn measure(plan: &Plan, report: &mut Report) {
    report.section("Tokens: a backend with a file of 1,000 tokens beside one without, in turns");
    let world = World::start().await;
    let worker = world.worker("bench", 64).await;
    let file = TokensFile::with_many(TOKENS);
    let guarded = BackendProcess::start(&world.settings.clone().tokens(&file)).await;
    let token = file.token("test");

    let mut http = Http::open(world.address()).await;
    let (_, started) = http.call(&post("/api/v1/dummy/start", NO_OP)).await;
    let started: serde_json::Value = serde_json::from_slice(&started).expect("JSON");
    let path = format!(
        "/api/v1/operations/{}",
        started["operation_id"].as_str().expect("an id")
    );
    http.call(&get(&format!("{path}?wait=30"))).await;
    let both = |request: Vec<u8>| {
        let with = Side {
            name: "with tokens",
            address: address_of(guarded.api.base()),
            pid: guarded.process.pid(),
            request: with_token(&request, &token).into(),
        };
        let without = Side {
            name: "without",
            address: world.address(),
            pid: world.backend.process.pid(),
            request: request.into(),
        };
        [with, without]
    };

    let read = both(get(&path));
    let span = Duration::from_millis(plan.pick(1_000, 4_000));
    let row = compare("GET /operations/{id}", &world, &read, span, 200).await;
    report.add(row);
    let start = both(post("/api/v1/dummy/start", NO_OP));
    let row = compare("POST /dummy/start", &world, &start, span, 202).await;
    report.add(row);
    drop(worker);
    world.shutdown().await;
}

pub(super) async fn compare(
    what: &str,
    world: &World,
    sides: &[Side; 2],
    span: Duration,
    status: u16,
) -> Row {
    let mut rates = [Vec::new(), Vec::new()];
    let mut costs = [Vec::new(), Vec::new()];
    for round in 0..ROUNDS {
        // Whoever is first has the caches of whoever was last, so they change places.
        let order = if round % 2 == 0 { [0, 1] } else { [1, 0] };
        for side in order {
            let Side {
                address,
                pid,
                request,
                ..
            } = &sides[side];
            let before = world.count("completed").await;
            let (same, spent) = (request.clone(), Spent::begin(&[("backend", *pid)]));
            let load = drive(*address, CONNECTIONS, span, status, move |_| same.clone()).await;
            costs[side].push(spent.cpu() / load.count as f64 * 1e6);
            rates[side].push(load.rate);
            if status == 202 {
                world.completed(before + load.count).await;
            }
        }
    }

    let [with, without] = rates.map(median);
    let [cost_with, cost_without] = costs.map(median);
    Row::new(format!("{what}, {}", sides[0].name), with, "req/s")
        .beside(sides[1].name, without)
        .aim(Aim::RatioAtLeast(0.97))
        .note(format!(
            "CPU of the backend: {cost_with:.2} and {cost_without:.2} µs each"
        ))
}
