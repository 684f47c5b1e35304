//! The cost of retained operations: lists, memory, and replaying all of them at the start.

use std::time::Instant;

use ktrdr_protocol::labels::Labels;

use super::Plan;
use super::http::{Http, get};
use super::lives::{labelled_lives, whole_lives};
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

/// Filters that find nearly all operations, few, and none, and ask for several sets.
fn other_filters() -> [String; 5] {
    [
        "limit=100&status=completed,failed,cancelled",
        "limit=100&worker_id=dummy-worker-host-3&status=completed",
        "limit=100&error_code=engine_error,timeout",
        "limit=100&operation_type=dummy&created_after=2020-01-01T00:00:00Z",
        "limit=100&order=oldest&created_before=2020-01-01T00:00:00Z",
    ]
    .map(str::to_owned)
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
        let (_, by_others) = pages(&mut http, &other_filters(), plan.pick(60, 200)).await;
        report.add(
            Row::new(
                format!(
                    "list by worker, codes, time or several statuses, {} retained, p99",
                    number(x)
                ),
                by_others,
                "ms",
            )
            .beside("by type and status", late)
            .aim(Aim::RatioAtMost(2.0)),
        );
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

    let unlabelled = replay(report, &mut world, &mut http, stored as f64, base).await;
    world.shutdown().await;
    with_labels(plan, report, stored, unlabelled).await;
}

/// Three labels on each operation: one that all have, one of a thousand values, one of its own.
async fn with_labels(plan: &Plan, report: &mut Report, count: u64, unlabelled: f64) {
    let world = World::start().await;
    let base = anonymous(world.backend.process.pid());
    let labels = |number: u64| {
        let mut labels = Labels::default();
        labels.add("kind", "night");
        labels.add("symbol", &format!("S{}", number % 1000));
        labels.add("run", &number.to_string());
        labels
    };
    let lives = labelled_lives(&world.bus.names, count, 0, labels);
    publish_all(&world.bus.client, WINDOW, lives).await;
    world.completed(count).await;

    let mut http = Http::open(world.address()).await;
    let times = plan.pick(60, 200);
    let of_type = ["limit=100&operation_type=dummy".to_owned()];
    let unselective = ["limit=100&label=kind:night&operation_type=dummy".to_owned()];
    let selective = ["limit=100&label=symbol:S7&label=kind:night".to_owned()];
    page(&mut http, "limit=100", 20).await;
    let (_, by_type) = pages(&mut http, &of_type, times).await;
    for (which, queries) in [
        ("one that all have, and by type", unselective),
        ("one of a thousand values, and one that all have", selective),
    ] {
        let (_, late) = pages(&mut http, &queries, times).await;
        let what = format!(
            "list by labels ({which}), {} retained, p99",
            number(count as f64)
        );
        report.add(
            Row::new(what, late, "ms")
                .beside("by type", by_type)
                .aim(Aim::RatioAtMost(2.0)),
        );
    }
    let memory = (anonymous(world.backend.process.pid()) - base) / count as f64;
    report.add(
        Row::new(
            "backend memory for three labels of each operation, one of its own",
            memory - unlabelled,
            "B",
        )
        .note(format!("beside {} B without labels", number(unlabelled))),
    );
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

/// Returns the memory for each operation in the backend that saw them come.
async fn replay(
    report: &mut Report,
    world: &mut World,
    http: &mut Http,
    stored: f64,
    base: f64,
) -> f64 {
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
    live
}
