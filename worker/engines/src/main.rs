//! The program `ktrdr-worker`: runs operations of the worker type in `WORKER_TYPE`, or those of a program
//! in another language.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, ValueEnum};
use ktrdr_engines::backtesting::Backtesting;
use ktrdr_engines::data_processing::DataProcessing;
use ktrdr_engines::dummy::Dummy;
use ktrdr_engines::training::Training;
use ktrdr_exec::{ExecEngine, ExecOptions, SimpleEngine};
use ktrdr_worker::dynamic::DynEngine;
use ktrdr_worker::{Config, Worker, WorkerBuilder};

/// Every operation allocates and frees many small objects on several threads. `docs/performance.md`
/// has the measured gain.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(
    name = "ktrdr-worker",
    version,
    about = "Runs KTRDR operations of one worker type"
)]
struct Args {
    /// The worker type to run: `backtesting`, `data_processing`, `dummy` or `training`; with
    /// `--exec-simple` the type that the program serves. With `--exec` the program says it itself.
    #[arg(long, env = "WORKER_TYPE", required_unless_present = "exec")]
    worker_type: Option<String>,
    #[command(flatten)]
    config: Config,
    #[command(flatten)]
    exec: ExecOptions,
    /// Checks whether the program of `--exec` follows docs/exec.md, and runs no worker: with these
    /// parameters, a JSON object that it should complete in about two seconds. Needs no NATS.
    #[arg(long, value_name = "REQUEST", requires = "exec")]
    exec_check: Option<String>,
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
    // First of all: a worker may have started this process to become its program.
    if let Some(ended) = ktrdr_exec::helper_process() {
        return ended;
    }

    let Args {
        worker_type,
        exec: options,
        exec_check,
        config,
    } = Args::parse();
    let (slots, data_dir) = (config.concurrency, config.data_dir.clone());
    let worker = Worker::builder().config(config);
    let worker_type = worker_type.unwrap_or_default();

    match (&options.exec, &options.exec_simple) {
        (Some(command), _) => {
            if let Some(request) = exec_check {
                return check(command, &options, &data_dir, &request);
            }
            worker.run_prepared(async |worker| {
                let engine = ExecEngine::start(command, &options, slots).await?;
                let described = engine.info().worker_type().to_owned();
                anyhow::ensure!(
                    worker_type.is_empty() || worker_type == described,
                    "WORKER_TYPE is {worker_type}, and the program describes the worker type {described}; leave WORKER_TYPE out, or change one of them"
                );
                Ok(worker.dyn_engine(engine))
            })
        }
        (None, Some(command)) => worker.run_prepared(async |worker| {
            let engine = SimpleEngine::new(worker_type, command, &options, slots)
                .with_context(|| format!("cannot run the program `{command}`"))?;
            Ok(worker.dyn_engine(engine))
        }),
        (None, None) => built_in(worker, &worker_type).run(),
    }
}

fn built_in(worker: WorkerBuilder, worker_type: &str) -> WorkerBuilder {
    match BuiltIn::from_str(worker_type, false) {
        Ok(BuiltIn::Backtesting) => worker.engine(Backtesting),
        Ok(BuiltIn::DataProcessing) => worker.engine(DataProcessing),
        Ok(BuiltIn::Dummy) => worker.engine(Dummy),
        Ok(BuiltIn::Training) => worker.engine(Training),
        Err(_) => Args::command()
            .error(
                ErrorKind::InvalidValue,
                format!("invalid value '{worker_type}' for '--worker-type <WORKER_TYPE>' [possible values: backtesting, data_processing, dummy, training; any with --exec-simple]"),
            )
            .exit(),
    }
}

/// Checks a program, and prints what was found.
fn check(command: &str, options: &ExecOptions, data_dir: &Path, request: &str) -> ExitCode {
    let request = match serde_json::from_str(request) {
        Ok(request) => request,
        Err(error) => Args::command()
            .error(
                ErrorKind::InvalidValue,
                format!("--exec-check is no JSON: {error}"),
            )
            .exit(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => {
            let report = runtime.block_on(ktrdr_exec::check::check(
                command, options, data_dir, &request,
            ));
            for line in &report.lines {
                print(line);
            }
            if report.is_good {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(error) => {
            print(&format!("FAILED the check has no runtime: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Prints a line of the report. Whoever reads it may have read enough; the exit code tells the rest.
fn print(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}
