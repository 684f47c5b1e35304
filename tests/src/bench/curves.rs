//! What an operation costs by the size of its payloads and by the number of operations at a time.

use super::Plan;
use super::http::Http;
use super::latency::over_rest_with;
use super::load::publish_all;
use super::plot::Curve;
use super::report::{Report, Row, number, percentile, sorted};
use super::throughput::operations_rate;
use super::world::{NO_OP, World};

pub(super) async fn measure(plan: &Plan, report: &mut Report) {
    report.section("Cost curves");
    by_size(plan, report).await;
    by_concurrency(plan, report).await;
}

/// The result carries the bytes: `completed` is the largest message of an operation.
async fn by_size(plan: &Plan, report: &mut Report) {
    let world = World::start().await;
    let worker = world.worker("bench", 64).await;
    let mut http = Http::open(world.address()).await;
    let (mut rates, mut raw, mut p50, mut p99) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());

    operations_rate(&world, 1_000, NO_OP).await;

    for bytes in [100_usize, 1_000, 10_000, 100_000] {
        let parameters = format!(r#"{{"steps":0,"result_bytes":{bytes}}}"#);
        let count = (plan.pick(60_000_000, 300_000_000) / (bytes + 10_000)).clamp(300, 6_000);
        let rate = operations_rate(&world, count, &parameters).await;
        let floor = raw_rate(&world, count, bytes).await;
        let took = sorted(over_rest_with(&mut http, plan.pick(150, 600), &parameters).await);
        let x = bytes as f64;
        rates.push((x, rate));
        raw.push((x, floor));
        p50.push((x, percentile(&took, 0.5)));
        p99.push((x, percentile(&took, 0.99)));
        report.add(
            Row::new(
                format!("whole operations with results of {} B", number(x)),
                rate,
                "op/s",
            )
            .beside("raw publish of such a message", floor)
            .note(format!(
                "one at a time over REST: p50 {} ms, p99 {} ms",
                number(p50[p50.len() - 1].1),
                number(p99[p99.len() - 1].1)
            )),
        );
    }

    let throughput = vec![
        ("operations".to_owned(), rates),
        ("raw messages".to_owned(), raw),
    ];
    let latency = vec![("p50".to_owned(), p50), ("p99".to_owned(), p99)];

    plot(
        report,
        "size",
        "size of the result",
        "bytes of result",
        throughput,
        latency,
    );

    drop(worker);
    world.shutdown().await;
}

async fn raw_rate(world: &World, count: usize, bytes: usize) -> f64 {
    super::load::raw_stream(&world.bus, "raw").await;
    let payload = bytes::Bytes::from(vec![b'x'; bytes + 250]);
    let messages = (0..count).map(|_| {
        (
            "raw.x".to_owned(),
            async_nats::HeaderMap::new(),
            payload.clone(),
        )
    });

    let took = publish_all(&world.bus.client, 256, messages).await;

    super::load::remove_stream(&world.bus, "raw").await;
    count as f64 / took.as_secs_f64()
}

async fn by_concurrency(plan: &Plan, report: &mut Report) {
    let world = World::start().await;
    let (mut rates, mut p50, mut p99) = (Vec::new(), Vec::new(), Vec::new());
    for slots in [1_usize, 4, 16, 64, 256] {
        let worker = world.worker(&format!("slots-{slots}"), slots).await;
        let count = (slots * 250).clamp(500, plan.pick(6_000, 30_000));
        let rate = operations_rate(&world, count, NO_OP).await;
        // As many clients as slots, each one operation at a time.
        let mut clients = tokio::task::JoinSet::new();
        let each = (plan.pick(400, 2_000) / slots).max(5);
        for _ in 0..slots {
            let mut http = Http::open(world.address()).await;
            clients.spawn(async move { over_rest_with(&mut http, each, NO_OP).await });
        }
        let took = sorted(clients.join_all().await.concat());
        let x = slots as f64;
        rates.push((x, rate));
        p50.push((x, percentile(&took, 0.5)));
        p99.push((x, percentile(&took, 0.99)));
        report.add(
            Row::new(
                format!("whole operations, one worker with {slots} slots"),
                rate,
                "op/s",
            )
            .note(format!(
                "as many clients over REST: p50 {} ms, p99 {} ms",
                number(p50[p50.len() - 1].1),
                number(p99[p99.len() - 1].1)
            )),
        );
        let mut worker = worker;
        worker.process.stop().await;
    }

    let latency = vec![("p50".to_owned(), p50), ("p99".to_owned(), p99)];
    let throughput = vec![("operations".to_owned(), rates)];

    plot(
        report,
        "concurrency",
        "concurrency",
        "slots of one worker",
        throughput,
        latency,
    );

    world.shutdown().await;
}

type Series = Vec<(String, Vec<(f64, f64)>)>;

fn plot(
    report: &Report,
    file: &str,
    by: &str,
    x: &'static str,
    throughput: Series,
    latency: Series,
) {
    let title = format!("Throughput by {by}");
    report.plot(&Curve {
        file: format!("throughput-by-{file}.svg"),
        title,
        x,
        y: "a second",
        series: throughput,
    });

    let title = format!("Latency over REST by {by}, start to end seen");
    report.plot(&Curve {
        file: format!("latency-by-{file}.svg"),
        title,
        x,
        y: "ms",
        series: latency,
    });
}
