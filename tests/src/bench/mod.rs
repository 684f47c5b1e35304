//! The program behind `scripts/bench`: every figure beside its own floor, measured in the same run
//! on the same nats-server.
//!
//! | module | measures |
//! |---|---|
//! | [`throughput`] | whole operations a second over the bus and over REST; what flushing costs |
//! | [`latency`] | one operation at a time |
//! | [`reads`] | one operation read over and over |
//! | [`signing`] | starts and operations with signatures beside those without |
//! | [`tokens`] | reads and starts with a file of tokens beside those without |
//! | [`exec`] | operations of programs in Python beside the Rust worker's and Celery's tasks |
//! | [`logs`] | engines that talk beside silent ones, and their neighbours |
//! | [`retained`] | lists, memory and replay by retained operations |
//! | [`fleet`] | idle workers, heartbeats, scale-out |
//! | [`archive`] | rows a second of the archive |
//! | [`curves`] | costs by size and by concurrency |
//! | [`engines`] | bars, epochs and rows a second |
//!
//! What it needs: [`world`] (the programs), [`load`], [`lives`] and [`http`] (clients that cost
//! little), [`prototype`] (the bare protocol), [`measure`] (CPU and memory), [`report`] and
//! [`plot`].

mod archive;
mod curves;
mod engines;
mod exec;
mod fleet;
mod http;
mod latency;
mod lives;
mod load;
mod logs;
mod measure;
mod plot;
mod prototype;
mod reads;
mod report;
mod retained;
mod signing;
mod throughput;
mod tokens;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, Subcommand};

use self::report::Report;
use crate::settings::repository;

/// The groups of cases; each can run alone.
const GROUPS: [&str; 15] = [
    "engines",
    "throughput",
    "latency",
    "reads",
    "tokens",
    "signing",
    "exec",
    "logs",
    "retained",
    "archive",
    "curves",
    "scale-out",
    "idle",
    "heartbeats",
    "fsync",
];

/// Measures the system beside its own physical floors.
#[derive(Debug, Parser)]
#[command(name = "ktrdr-bench")]
struct Args {
    /// The large cases too: a million operations, 10,000 workers.
    #[arg(long)]
    full: bool,
    /// Only these groups.
    #[arg(value_parser = GROUPS)]
    only: Vec<String>,
    /// The directory for results.json and the plots.
    #[arg(long)]
    output: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Inner>,
}

#[derive(Debug, Subcommand)]
enum Inner {
    /// The bare HTTP server that the backend is compared with.
    #[command(hide = true)]
    Serve { port: u16, bytes: PathBuf },
}

/// How much to measure.
#[derive(Debug)]
struct Plan {
    full: bool,
}

impl Plan {
    fn pick<T>(&self, quick: T, full: T) -> T {
        if self.full { full } else { quick }
    }
}

/// The whole program.
pub fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    if let Some(Inner::Serve { port, bytes }) = args.command {
        runtime.block_on(http::serve(
            port,
            std::fs::read(bytes).expect("the bytes").into(),
        ));
        return ExitCode::SUCCESS;
    }
    runtime.block_on(run(&args))
}

async fn run(args: &Args) -> ExitCode {
    let started = Instant::now();
    let plan = Plan { full: args.full };
    let mut report = Report::new(
        args.output
            .clone()
            .unwrap_or_else(|| repository().join("target/bench")),
    );
    let wanted = |name: &str| args.only.is_empty() || args.only.iter().any(|only| only == name);

    println!("load of the machine before: {}", measure::load_average());
    if wanted("engines") {
        engines::measure(&plan, &mut report).await;
    }
    if wanted("throughput") {
        throughput::measure(&plan, &mut report).await;
    }
    if wanted("latency") {
        latency::measure(&plan, &mut report).await;
    }
    if wanted("reads") {
        reads::measure(&plan, &mut report).await;
    }
    if wanted("tokens") {
        tokens::measure(&plan, &mut report).await;
    }
    if wanted("signing") {
        signing::measure(&plan, &mut report).await;
    }
    if wanted("exec") {
        exec::measure(&plan, &mut report).await;
    }
    if wanted("logs") {
        logs::measure(&plan, &mut report).await;
    }
    if wanted("retained") {
        retained::measure(&plan, &mut report).await;
    }
    if wanted("archive") {
        archive::measure(&plan, &mut report).await;
    }
    if wanted("curves") {
        curves::measure(&plan, &mut report).await;
    }
    if wanted("scale-out") {
        fleet::scale_out(&plan, &mut report).await;
    }
    if wanted("idle") {
        fleet::idle(&plan, &mut report).await;
    }
    if wanted("heartbeats") {
        fleet::heartbeats(&plan, &mut report).await;
    }
    if wanted("fsync") {
        throughput::fsync(&plan, &mut report).await;
    }
    println!(
        "\n{:.0} s; load of the machine after: {}",
        started.elapsed().as_secs_f64(),
        measure::load_average()
    );
    println!("{}", report.dir().join("results.json").display());
    let missed = report.missed();
    if !missed.is_empty() {
        println!("aims missed: {}", missed.join("; "));
    }

    ExitCode::SUCCESS
}
