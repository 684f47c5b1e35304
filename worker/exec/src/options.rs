//! The settings of programs that a worker runs.

use std::path::PathBuf;

use clap::Args;
use ktrdr_bus::settings::parse_size;

/// Which program the worker runs, and within which bounds.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Programs in other languages (docs/exec.md)")]
pub struct ExecOptions {
    /// A program that does the work and says itself what it is, for example `"python job.py"`. It runs
    /// once per slot, and stays. Words are split as by a shell, but no shell runs.
    #[arg(
        long,
        env = "WORKER_EXEC",
        value_name = "COMMAND",
        conflicts_with = "exec_simple"
    )]
    pub exec: Option<String>,
    /// A program that knows nothing of workers. It is started for each operation, with the parameters
    /// on standard input; its last line is the result. `WORKER_TYPE` names the worker type.
    #[arg(long, env = "WORKER_EXEC_SIMPLE", value_name = "COMMAND")]
    pub exec_simple: Option<String>,
    /// File with the JSON Schema of the parameters, for `--exec-simple`. Default: any object.
    #[arg(
        long,
        env = "WORKER_EXEC_SCHEMA",
        value_name = "FILE",
        requires = "exec_simple"
    )]
    pub exec_schema: Option<PathBuf>,
    /// The address space that a program of one slot may take, for example `4GiB`. Beyond it the
    /// program gets no memory. Default: no limit. A program that uses CUDA needs far more address space
    /// than memory.
    #[arg(long, env = "WORKER_EXEC_MEMORY", value_name = "SIZE", value_parser = parse_memory)]
    pub exec_memory: Option<u64>,
    /// The GPUs for the slots, as `0,1`: each slot gets the next one in `CUDA_VISIBLE_DEVICES`, over and
    /// over. Default: the variable stays as it is.
    #[arg(
        long,
        env = "WORKER_EXEC_GPUS",
        value_name = "LIST",
        value_delimiter = ','
    )]
    pub exec_gpus: Vec<String>,
    /// After how many operations a program is replaced by a new one, against memory that it does not
    /// give back. 0: never.
    #[arg(
        long,
        env = "WORKER_EXEC_RECYCLE",
        value_name = "COUNT",
        default_value_t = 0
    )]
    pub exec_recycle: u64,
}

fn parse_memory(text: &str) -> Result<u64, String> {
    let size = parse_size(text)?;
    match u64::try_from(size) {
        Ok(size) if size > 0 => Ok(size),
        _ => Err("must be more than 0".to_owned()),
    }
}
