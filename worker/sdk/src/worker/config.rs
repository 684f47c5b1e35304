//! Settings of a worker process, each an environment variable and a flag.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use ktrdr_bus::settings::{NatsOptions, ProtocolOptions, parse_duration_or_zero};
use ktrdr_bus::telemetry::LogOptions;
use ktrdr_protocol::id::WorkerId;
use serde_json::{Map, Value};

/// Settings of a worker process.
#[derive(Debug, Clone, Parser)]
#[command(version, about = "Runs KTRDR operations of one worker type")]
pub struct Config {
    /// Address the worker's HTTP interface listens on.
    #[arg(long, env = "WORKER_HOST", default_value = "127.0.0.1")]
    pub host: String,
    /// Port of the worker's HTTP interface; 0 takes any free one. The guide's are 5003 (backtesting), 5004 (training) and
    /// 5005 (data_processing).
    #[arg(long, env = "WORKER_PORT", default_value_t = 0)]
    pub port: u16,
    /// Name of this worker, unique among those that run. Default: worker type, host name and port.
    #[arg(long, env = "WORKER_ID")]
    pub worker_id: Option<WorkerId>,
    /// How others reach the HTTP interface. Default: built from the address it listens on.
    #[arg(long, env = "WORKER_ENDPOINT_URL")]
    pub endpoint_url: Option<String>,
    /// JSON object laid over the detected capabilities, for example `{"cores":4,"zone":"a"}`. `gpu` can be switched off
    /// here, and on only for an engine that was built for one.
    #[arg(long, env = "WORKER_CAPABILITIES", default_value = "{}", value_parser = parse_object)]
    pub capabilities: Map<String, Value>,
    /// How many operations run at a time.
    #[arg(long, env = "WORKER_CONCURRENCY", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub concurrency: u32,
    /// Directory that requests may read from and write to.
    #[arg(long, env = "KTRDR_DATA_DIR", default_value = "data")]
    pub data_dir: PathBuf,
    /// Shortest time between two checkpoints of an operation: what a takeover has to do again at most, unless checkpoints are
    /// large: after each, an engine works for at least 20 times as long as it took, but with 0 as many are made as can be. Each
    /// is a message in the broker.
    #[arg(long, env = "KTRDR_CHECKPOINT_INTERVAL", default_value = "1s", value_parser = parse_duration_or_zero)]
    pub checkpoint_interval: Duration,
    /// How long a stopping worker lets its operations finish before it hands them back. 0: at once.
    #[arg(long, env = "WORKER_SHUTDOWN_GRACE", default_value = "0s", value_parser = parse_duration_or_zero)]
    pub shutdown_grace: Duration,
    /// How to reach NATS.
    #[command(flatten)]
    pub nats: NatsOptions,
    /// What backend and workers agree on.
    #[command(flatten)]
    pub protocol: ProtocolOptions,
    /// How to log.
    #[command(flatten)]
    pub log: LogOptions,
}

fn parse_object(text: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_str(text).map_err(|error| format!("must be a JSON object: {error}"))
}
