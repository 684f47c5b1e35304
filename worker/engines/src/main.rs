//! The program `ktrdr-worker`: runs operations of the worker type in `WORKER_TYPE`.

use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use ktrdr_engines::backtesting::Backtesting;
use ktrdr_engines::data_processing::DataProcessing;
use ktrdr_engines::dummy::Dummy;
use ktrdr_engines::training::Training;
use ktrdr_worker::{Config, Worker};

/// Every operation allocates and frees many small objects on several threads. `docs/performance.md`
/// has the measured gain.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(version, about = "Runs KTRDR operations of one worker type")]
struct Args {
    /// The worker type to run.
    #[arg(long, env = "WORKER_TYPE")]
    worker_type: BuiltIn,
    #[command(flatten)]
    config: Config,
}

/// The worker types of the built-in engines.
#[derive(Clone, Copy, ValueEnum)]
#[value(rename_all = "snake_case")]
enum BuiltIn {
    Backtesting,
    DataProcessing,
    Dummy,
    Training,
}

fn main() -> ExitCode {
    let Args {
        worker_type,
        config,
    } = Args::parse();

    let worker = Worker::builder().config(config);
    let worker = match worker_type {
        BuiltIn::Backtesting => worker.engine(Backtesting),
        BuiltIn::DataProcessing => worker.engine(DataProcessing),
        BuiltIn::Dummy => worker.engine(Dummy),
        BuiltIn::Training => worker.engine(Training),
    };
    worker.run()
}
