//! The engines as plain functions, beside the least work that the same data allows; and the cost of
//! progress, metrics and cancel checks.

use std::hint::black_box;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use ktrdr_engines::backtesting::{BacktestRequest, backtest};
use ktrdr_engines::data_processing::DataProcessing;
use ktrdr_engines::training::{TrainingRequest, train};
use ktrdr_worker::Progress;
use ktrdr_worker::testing::TestRun;
use serde::Deserialize;
use serde_json::json;

use super::Plan;
use super::report::{Aim, Report, Row, median};
use crate::scratch::Scratch;

const BARS_PER_CHECK: f64 = 50.0;
const BARS_PER_PROGRESS: f64 = 500.0;
const POINTS_PER_RUN: f64 = 1_000.0;
const ROWS_PER_LOOK: f64 = 250.0;
const BACKTEST: &str = "backtest, from file to result";
const CLEANING: &str = "cleaning a CSV file";
const LIMIT: Aim = Aim::AtMost(3.0);

pub(super) async fn measure(plan: &Plan, report: &mut Report) {
    report.section("Engines (plain functions, no servers)");
    let scratch = Scratch::new("bench-engines");
    let costs = Costs::measure();
    let bars = plan.pick(300_000, 1_000_000);

    write_bars(&scratch.join("BENCH_1h.csv"), bars);
    let (dir, epochs) = (scratch.path().to_owned(), plan.pick(20, 100));

    // Engines compute on their own threads; on a runtime's thread they could not block.
    let computed = tokio::task::spawn_blocking(move || {
        let mut rows = backtesting(&dir, bars as f64, &costs);
        rows.extend(training(&dir, epochs, &costs));
        (rows, costs)
    });
    let (rows, costs) = computed.await.expect("no panic");

    for row in rows {
        report.add(row);
    }
    let cleaned = plan.pick(300_000, 2_000_000);
    cleaning(report, scratch.path(), cleaned, &costs).await;
    peers(report, scratch.path(), bars as f64, cleaned as f64);
}

/// One line of `scripts/lib/bench_peers.py`.
#[derive(Deserialize)]
struct Peer {
    work: String,
    package: String,
    seconds: f64,
}

/// The same files in the hands of well-known Python packages, when `scripts/bench` could install
/// them.
fn peers(report: &mut Report, dir: &Path, bars: f64, rows: f64) {
    let Some(python) = std::env::var_os("KTRDR_BENCH_PYTHON") else {
        println!(
            "  pandas, polars and backtesting.py: left out, because KTRDR_BENCH_PYTHON is not set"
        );
        return;
    };

    let script = crate::settings::repository().join("scripts/lib/bench_peers.py");
    let output = Command::new(python)
        .arg(script)
        .arg(dir)
        .stderr(Stdio::inherit())
        .output()
        .expect("Python starts");

    for line in output.stdout.split(|byte| *byte == b'\n') {
        let Ok(peer) = serde_json::from_slice::<Peer>(line) else {
            continue;
        };
        let (count, unit, ours) = match peer.work.as_str() {
            "cleaning" => (rows, "rows/s", CLEANING),
            _ => (bars, "bars/s", BACKTEST),
        };
        let name = format!("  {}: the same with {}", peer.work, peer.package);
        let mut row = Row::new(name, count / peer.seconds, unit);
        if let Some(value) = report.value(ours) {
            row = row.beside(format!("{ours}, this system"), value);
        }
        report.add(row);
    }
}

/// Seconds that one call of each reporting function takes.
struct Costs {
    check: f64,
    progress: f64,
    metric: f64,
}

impl Costs {
    fn measure() -> Self {
        let run = TestRun::new();
        let ctx = run.ctx();
        let each = |times: u32, call: &dyn Fn()| {
            let begun = Instant::now();
            (0..times).for_each(|_| call());
            begun.elapsed().as_secs_f64() / f64::from(times)
        };
        let check = each(1_000_000, &|| drop(black_box(ctx.check_cancelled())));
        let progress = each(300_000, &|| {
            ctx.progress_with(|| Progress::new(50.0).step("Bar 1/2").field("current_bar", 1));
        });
        let metric = each(50_000, &|| ctx.metric("equity", 1.0));

        run.metrics();

        Self {
            check,
            progress,
            metric,
        }
    }
}

/// A random walk that is the same every time.
fn write_bars(path: &Path, count: usize) {
    let mut writer = csv::Writer::from_path(path).expect("a file");
    writer
        .write_record(["timestamp", "open", "high", "low", "close", "volume"])
        .expect("a row");

    let (mut close, mut seed) = (100.0_f64, 1_u64);
    for i in 0..count {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let step = (seed >> 33) as f64 / f64::from(1_u32 << 31) - 0.5;
        let open = close;
        close = (open + step).max(1.0);
        let at =
            chrono::DateTime::from_timestamp(946_684_800 + 3600 * i as i64, 0).expect("a time");
        let time = at.format("%Y-%m-%dT%H:%M:%S").to_string();
        let price = |value: f64| format!("{value:.4}");
        let (high, low) = (open.max(close) + 0.1, open.min(close) - 0.1);
        let row = [
            time,
            price(open),
            price(high),
            price(low.max(0.5)),
            price(close),
            "1000".to_owned(),
        ];
        writer.write_record(&row).expect("a row");
    }

    writer.flush().expect("a file");
}

/// The median of three runs, in seconds.
fn time(mut work: impl FnMut()) -> f64 {
    let mut once = || {
        let begun = Instant::now();
        work();
        begun.elapsed().as_secs_f64()
    };
    median((0..3).map(|_| once()).collect())
}

fn backtesting(dir: &Path, bars: f64, costs: &Costs) -> Vec<Row> {
    let request: BacktestRequest = serde_json::from_value(json!({
        "symbol": "BENCH", "timeframe": "1h", "strategy": {"type": "sma_cross", "fast": 10, "slow": 50},
    }))
    .expect("a request");
    let took = time(|| {
        let run = TestRun::in_dir(dir);
        black_box(backtest(run.ctx(), &request).expect("a backtest"));
    });

    // The same file, the same two averages, no account, no rules, no checks of the data.
    let bare = time(|| {
        let mut reader = csv::Reader::from_path(dir.join("BENCH_1h.csv")).expect("the bars");
        let mut record = csv::ByteRecord::new();
        let (mut closes, mut crossings) = (Vec::<f64>::new(), 0_u64);
        while reader.read_byte_record(&mut record).expect("a row") {
            let cell = |at: usize| {
                std::str::from_utf8(&record[at])
                    .expect("text")
                    .parse::<f64>()
                    .expect("a number")
            };
            black_box((cell(1), cell(2), cell(3), cell(5)));
            closes.push(cell(4));
        }
        let (mut fast, mut slow, mut above) = (0.0, 0.0, false);
        for i in 0..closes.len() {
            fast += closes[i] - if i >= 10 { closes[i - 10] } else { 0.0 };
            slow += closes[i] - if i >= 50 { closes[i - 50] } else { 0.0 };
            let now = fast / 10.0 > slow / 50.0;
            crossings += u64::from(now != above);
            above = now;
        }
        black_box(crossings);
    });

    let watched = bars / BARS_PER_CHECK * costs.check
        + bars / BARS_PER_PROGRESS * costs.progress
        + 2.0 * POINTS_PER_RUN * costs.metric;

    vec![
        Row::new(BACKTEST, bars / took, "bars/s")
            .beside("bare loop over the same file", bars / bare),
        Row::new(
            "  progress, metrics and cancellation checks",
            watched / took * 100.0,
            "% of it",
        )
        .aim(LIMIT),
    ]
}

fn training(dir: &Path, epochs: u32, costs: &Costs) -> Vec<Row> {
    let data = crate::settings::repository().join("data/GOOG_1d.csv");
    std::fs::copy(data, dir.join("GOOG_1d.csv")).expect("the repository's data");
    let request: TrainingRequest =
        serde_json::from_value(json!({"symbol": "GOOG", "timeframe": "1d", "epochs": epochs}))
            .expect("a request");
    let mut batches = 0.0;
    let took = time(|| {
        let run = TestRun::in_dir(dir);
        let output = train(run.ctx(), &request).expect("a training");
        let output = serde_json::to_value(&output).expect("JSON");
        batches = output["train"]["rows"].as_f64().unwrap_or(1_700.0) / request.batch_size as f64;
        black_box(output);
    });

    let epochs = f64::from(epochs);
    let watched =
        epochs * (batches * (costs.check + costs.progress) + 4.0 * costs.metric + costs.progress);

    vec![
        Row::new("training on 2,148 bars", epochs / took, "epochs/s")
            .note(format!("{batches:.0} batches an epoch")),
        Row::new(
            "  progress, metrics and cancellation checks",
            watched / took * 100.0,
            "% of it",
        )
        .aim(LIMIT),
    ]
}

async fn cleaning(report: &mut Report, dir: &Path, rows: usize, costs: &Costs) {
    write_bars(&dir.join("rows.csv"), rows);

    let mut took = Vec::new();
    for _ in 0..3 {
        let begun = Instant::now();
        let request =
            json!({"source_file": "rows.csv", "operations": ["clean"], "output_file": "clean.csv"});
        TestRun::in_dir(dir)
            .run(&DataProcessing, request)
            .await
            .expect("a clean file");
        took.push(begun.elapsed().as_secs_f64());
    }

    let took = median(took);
    let bare = time(|| {
        let mut reader = csv::Reader::from_path(dir.join("rows.csv")).expect("the rows");
        let mut writer = csv::Writer::from_path(dir.join("copy.csv")).expect("a file");
        writer
            .write_byte_record(reader.byte_headers().expect("a header"))
            .expect("a row");
        let mut record = csv::ByteRecord::new();
        while reader.read_byte_record(&mut record).expect("a row") {
            writer.write_byte_record(&record).expect("a row");
        }
        writer.flush().expect("a file");
    });

    let rows = rows as f64;

    report.add(Row::new(CLEANING, rows / took, "rows/s").beside("csv read and write", rows / bare));
    let watched = rows / ROWS_PER_LOOK * (costs.check + costs.progress);
    report.add(
        Row::new(
            "  progress, metrics and cancellation checks",
            watched / took * 100.0,
            "% of it",
        )
        .aim(LIMIT),
    );
}
