//! `ktrdr-worker`: runs operations of the worker type that `WORKER_TYPE` names.

use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use ktrdr_engines::backtesting::Backtesting;
use ktrdr_engines::data_processing::DataProcessing;
use ktrdr_engines::dummy::Dummy;
use ktrdr_engines::training::Training;
use ktrdr_worker::Config;
use ktrdr_worker::run_program;

/// Many small pieces live and die with every operation, on several threads. What is known of its gain: docs/performance.md.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(version, about = "Runs KTRDR operations of one worker type")]
struct Args {
    /// What to run.
    #[arg(long, env = "WORKER_TYPE")]
    worker_type: BuiltIn,
    #[command(flatten)]
    config: Config,
}

/// The built-in engines by their worker types.
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

    match worker_type {
        BuiltIn::Backtesting => run_program(Backtesting, config),
        BuiltIn::DataProcessing => run_program(DataProcessing, config),
        BuiltIn::Dummy => run_program(Dummy, config),
        BuiltIn::Training => run_program(Training, config),
    }
}
