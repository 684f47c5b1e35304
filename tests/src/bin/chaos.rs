//! `scripts/chaos`: see [`ktrdr_tests::chaos`]. Called as `ktrdr-chaos stamp-worker …` it runs as
//! one of the workers.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use ktrdr_tests::chaos::stamp::StampEngine;
use ktrdr_tests::chaos::{Options, run};

/// Kills, freezes and restarts the programs of the system under load, and checks that nothing was
/// lost or done twice.
#[derive(Debug, Parser)]
#[command(name = "chaos")]
struct Arguments {
    /// How long load and faults last.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Decides the faults and the load. Random when it is not given.
    #[arg(long)]
    seed: Option<u64>,
    /// A cluster of three servers with three copies of everything instead of one server.
    #[arg(long)]
    cluster: bool,
    /// About how many operations are started a second. With --keyed: as many as it takes.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..), conflicts_with = "keyed")]
    rate: u32,
    /// So many operations with keys instead of those of many sorts: concurrency keys with limits of 1 to
    /// 3, and unique keys.
    #[arg(long, default_value_t = 0)]
    keyed: u32,
    /// Also a schedule with a slot every second.
    #[arg(long)]
    schedules: bool,
    /// Keep logs and stores even when nothing is wrong.
    #[arg(long)]
    keep: bool,
}

fn main() -> ExitCode {
    let mut words = std::env::args_os();
    let program = words.next().unwrap_or_default();

    if std::env::args_os()
        .nth(1)
        .is_some_and(|word| word == "stamp-worker")
    {
        let config = ktrdr_worker::Config::parse_from([program].into_iter().chain(words.skip(1)));
        return ktrdr_worker::Worker::builder()
            .engine(StampEngine)
            .config(config)
            .run();
    }

    let arguments = Arguments::parse();
    match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime.block_on(chaos(arguments)),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn chaos(arguments: Arguments) -> ExitCode {
    let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
    let mut options = Options {
        servers: if arguments.cluster { 3 } else { 1 },
        rate: arguments.rate,
        keyed: arguments.keyed as usize,
        schedules: arguments.schedules,
        ..Options::new(Duration::from_secs(arguments.seconds), seed)
    };
    if arguments.keyed > 0 {
        // Faults hold the clients up for about half of the time.
        let seconds = u32::try_from(arguments.seconds).unwrap_or(u32::MAX);
        options.rate = (arguments.keyed / seconds).max(1).saturating_mul(2);
        options.patience *= 2;
    }

    if arguments.keep {
        ktrdr_tests::scratch::keep_all();
    }
    println!(
        "seed {}: {} s of load and faults, then the check",
        options.seed, arguments.seconds
    );
    let mut terminated =
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(terminated) => terminated,
            Err(error) => {
                eprintln!("error: {error}");
                return ExitCode::FAILURE;
            }
        };

    // Everything that the run started ends when it is dropped.
    let report = tokio::select! {
        report = run(&options) => report,
        _ = tokio::signal::ctrl_c() => return ExitCode::from(130),
        _ = terminated.recv() => return ExitCode::from(143),
    };

    print!("{report}");

    if report.is_clean() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
