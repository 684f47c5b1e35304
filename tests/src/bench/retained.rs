//! The cost of retained operations: lists, memory, and replaying all of them at the start.

use std::time::Instant;

use super::Plan;
use super::http::{Http, get};
use super::lives::whole_lives;
use super::load::{WINDOW, publish_all, raw_read_rate};
use super::measure::{anonymous, resident};
use super::plot::Curve;
use super::report::{Aim, Report, Row, median, number, percentile, sorted};
use super::world::World;
use crate::process::BackendProcess;

/// Lists are read in this many rounds, and the median of the rounds' percentiles counts. In a
/// single round, a few late answers in a row (during a write to disk, for example) would decide the
/// p99.
const ROUNDS: usize = 7;

/// Latencies of one page, in milliseconds.
async fn page(http: &mut Http, query: &str, times: usize) -> Vec<f64> {
    let request = get(&format!("/api/v1/operations?{query}"));
    let mut took = Vec::with_capacity(times);
    for _ in 0..times {
        let begun = Instant::now();
        let (status, _) = http.call(&request).await;
        took.push(begun.elapsed().as_secs_f64() * 1e3);
        assert_eq!(status, 200);
    }
    took
}

/// Median and p99 of these pages, each asked for `times` times in a round.
async fn pages(http: &mut Http, queries: &[String], times: usize) -> (f64, f64) {
    let (mut p50, mut p99) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let mut all = Vec::new();
        for query in queries {
            all.extend(page(http, query, times).await);
        }
        let all = sorted(all);
        p50.push(percentile(&all, 0.5));
        p99.push(percentile(&all, 0.99));
    }
    (median(p50), median(p99))
}

async fn json_per_operation(http: &mut Http) -> f64 {
    let (_, body) = http.call(&get("/api/v1/operations?limit=100")).await;
    let page: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
    let list = page["data"]["operations"].as_array().expect("a list");
    list.iter()
        .map(|operation| operation.to_string().len() as f64)
        .sum::<f64>()
        / list.len() as f64
}

pub(super) async fn measure(plan: &Plan, report: &mut Report) {
    report.section("Retained operations");
    let mut world = World::start().await;

    let base = anonymous(world.backend.process.pid());
    let sizes: &[u64] = plan.pick(
        &[1_000, 10_000, 100_000],
        &[1_000, 10_000, 100_000, 1_000_000],
    );
    let (mut stored, mut p50, mut p99, mut one) = (0, Vec::new(), Vec::new(), Vec::new());
    let mut http = Http::open(world.address()).await;
    for &size in sizes {
        let more = whole_lives(&world.bus.names, size - stored, 3 * stored);
        publish_all(&world.bus.client, WINDOW, more).await;
        stored = size;
        world.completed(size).await;
        let offset = size / 2;
        page(&mut http, "limit=100", 20).await;
        let queries = [
            "limit=100&operation_type=dummy&status=completed".to_owned(),
            format!("limit=100&operation_type=dummy&status=completed&offset={offset}"),
            "limit=100&status=failed".to_owned(),
            format!("limit=100&offset={}", size - 100),
        ];
        let x = size as f64;
        let (usual, late) = pages(&mut http, &queries, plan.pick(60, 200)).await;
        p50.push((x, usual));
        p99.push((x, late));
        let id = newest(&mut http).await;
        let request = get(&format!("/api/v1/operations/{id}"));
        let mut took = Vec::new();
        for _ in 0..300 {
            let begun = Instant::now();
            http.call(&request).await;
            took.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        one.push((x, percentile(&sorted(took), 0.5)));
        report.add(
            Row::new(
                format!("list with filter, page of 100, {} retained, p99", number(x)),
                late,
                "ms",
            )
            .aim(Aim::AtMost(5.0)),
        );
    }

    let tenth = p99
        .iter()
        .find(|(x, _)| *x == 10_000.0)
        .map_or(f64::NAN, |(_, y)| *y);
    let last = p99.last().map_or(f64::NAN, |(_, y)| *y);

    report.add(
        Row::new("the same at the largest, beside 10 k", last, "ms")
            .beside("10 k retained", tenth)
            .aim(Aim::RatioAtMost(2.0)),
    );
    let series = vec![
        ("list of 100, p50".to_owned(), p50),
        ("list of 100, p99".to_owned(), p99),
        ("one operation, p50".to_owned(), one),
    ];
    let (x, y) = ("retained operations", "ms");
    let title = "Latency of reads by retained operations".to_owned();

    report.plot(&Curve {
        file: "retained.svg".to_owned(),
        title,
        x,
        y,
        series,
    });

    replay(report, &mut world, &mut http, stored as f64, base).await;
    world.shutdown().await;
}

async fn newest(http: &mut Http) -> String {
    let (_, body) = http.call(&get("/api/v1/operations?limit=1")).await;
    let page: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
    page["data"]["operations"][0]["operation_id"]
        .as_str()
        .expect("an id")
        .to_owned()
}

async fn replay(report: &mut Report, world: &mut World, http: &mut Http, stored: f64, base: f64) {
    let json = json_per_operation(http).await;
    let live = (anonymous(world.backend.process.pid()) - base) / stored;
    let before = raw_read_rate(&world.bus, "KTRDR").await;

    world.backend.process.stop().await;
    let begun = Instant::now();
    let fresh = BackendProcess::start(&world.settings).await;
    let took = begun.elapsed().as_secs_f64();
    let after = raw_read_rate(&world.bus, "KTRDR").await;
    let note = format!(
        "{} operations in {took:.2} s, from the start of the process to ready",
        number(stored)
    );

    report.add(
        Row::new("replay at start", stored * 3.0 / took, "msg/s")
            .beside("raw ordered read", f64::midpoint(before, after))
            .aim(Aim::RatioAtLeast(0.6))
            .note(note),
    );
    let pid = fresh.process.pid();
    let memory = (anonymous(pid) - base) / stored;

    report.add(
        Row::new(
            "backend memory for each operation, after a replay",
            memory,
            "B",
        )
        .beside("its JSON", json)
        .aim(Aim::RatioAtMost(1.5))
        .note(format!("resident {} MB", number(resident(pid) / 1e6))),
    );

    report.add(
        Row::new("the same in the backend that saw them come", live, "B").beside("its JSON", json),
    );
    world.backend = fresh;
}
