//! Settings of a worker, each an environment variable and a flag.

use std::path::PathBuf;
use std::time::Duration;

use clap::{CommandFactory, FromArgMatches, Parser, ValueEnum};
use ktrdr_bus::settings::{NatsOptions, ProtocolOptions, parse_duration_or_zero, parse_size};
use ktrdr_bus::signing::VerifyOptions;
use ktrdr_bus::telemetry::LogOptions;
use ktrdr_http::browsers::BrowserOptions;
use ktrdr_http::tls::TlsOptions;
use ktrdr_http::tokens::TokenOptions;
use ktrdr_protocol::id::WorkerId;
use ktrdr_protocol::log_line::LogLevel;
use serde_json::{Map, Value};

use crate::reporting::log_lines::LogLimits;
use crate::worker::error::WorkerError;

/// Settings of a worker. [`Config::default`] has the default of each.
#[derive(Debug, Clone, Parser)]
#[command(version, about = "Runs KTRDR operations of one worker type")]
pub struct Config {
    /// Address that the worker's REST interface listens on. An address that other machines reach
    /// needs `KTRDR_TOKENS_FILE`, or `KTRDR_INSECURE=true`.
    #[arg(long, env = "WORKER_HOST", default_value = "127.0.0.1")]
    pub host: String,
    /// Port of the worker's REST interface; 0 takes any free one. The compose file uses 5003
    /// (backtesting), 5004 (training), 5005 (`data_processing`) and 5006 (dummy).
    #[arg(long, env = "WORKER_PORT", default_value_t = 0)]
    pub port: u16,
    /// What the worker's REST interface serves. With `health` it has only `/health`, `/metrics` and
    /// `/openapi.json`: nobody can start, see or cancel operations at the worker itself. Backends
    /// need nothing of it.
    #[arg(long, env = "WORKER_HTTP", default_value = "full")]
    pub http: RestRoutes,
    /// Name of this worker, unique among all running workers. Default: worker type, host name and
    /// port.
    #[arg(long, env = "WORKER_ID")]
    pub worker_id: Option<WorkerId>,
    /// URL at which others reach the REST interface. Default: built from the address it listens on.
    #[arg(long, env = "WORKER_ENDPOINT_URL")]
    pub endpoint_url: Option<String>,
    /// JSON object that overrides detected capabilities, for example `{"cores":4,"zone":"a"}`. It
    /// can switch `gpu` off; it can switch it on only for an engine that uses a GPU.
    #[arg(long, env = "WORKER_CAPABILITIES", default_value = "{}", value_parser = parse_object)]
    pub capabilities: Map<String, Value>,
    /// How many operations run at the same time.
    #[arg(long, env = "WORKER_CONCURRENCY", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub concurrency: u32,
    /// Directory that requests may read from and write to.
    #[arg(long, env = "KTRDR_DATA_DIR", default_value = "data")]
    pub data_dir: PathBuf,
    /// Folder of the data directory that takes all outputs, relative to it; not a link. An output
    /// that a request names elsewhere goes below it. Default: outputs may be anywhere in the data
    /// directory.
    #[arg(long, env = "KTRDR_OUTPUT_DIR")]
    pub output_dir: Option<String>,
    /// Minimum time between two checkpoints of an operation. It bounds the work that is lost on a
    /// takeover. Large checkpoints are spaced further apart; 0 disables all spacing. Each
    /// checkpoint is a message to NATS.
    #[arg(long, env = "KTRDR_CHECKPOINT_INTERVAL", default_value = "1s", value_parser = parse_duration_or_zero)]
    pub checkpoint_interval: Duration,
    /// Whether checkpoints are also kept under the keys of version 0.1.0, which do not name the
    /// worker type. Workers of both versions then continue from each other's checkpoints. Set it to
    /// false once no worker of version 0.1.0 is left.
    #[arg(long, env = "KTRDR_OLD_CHECKPOINT_KEYS", default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub old_checkpoint_keys: bool,
    /// How long a stopping worker lets its operations finish before it hands them back. 0: it hands
    /// them back at once.
    #[arg(long, env = "WORKER_SHUTDOWN_GRACE", default_value = "0s", value_parser = parse_duration_or_zero)]
    pub shutdown_grace: Duration,
    /// How long an engine may take to stop by itself once its attempt is over: after its time limit,
    /// a stall, a loss, or when the worker stops. Raise it for an engine that needs longer to save a
    /// last checkpoint. An engine that can be killed has this time after a cancel, too, and is then
    /// killed.
    #[arg(long, env = "WORKER_STOP_GRACE", default_value = "5s", value_parser = parse_duration_or_zero)]
    pub stop_grace: Duration,
    /// The least important level of log lines of operations that is kept: `trace`, `debug`, `info`,
    /// `warn`, `error`, or `off` for no log lines. The logs of the worker itself are another thing
    /// (`RUST_LOG`).
    #[arg(long, env = "WORKER_LOG_LEVEL", default_value = "info")]
    pub log_level: KeptLevel,
    /// How many log lines one operation may say, in all its attempts. Of what follows, only the last 100 of each attempt are kept.
    #[arg(long, env = "WORKER_LOG_LINES", default_value_t = 100_000)]
    pub log_lines: u64,
    /// How many bytes of log lines one operation may say, in all its attempts, for example `16MiB`.
    #[arg(long, env = "WORKER_LOG_BYTES", default_value = "16MiB", value_parser = parse_bytes)]
    pub log_bytes: u64,
    /// Who may use the REST interface.
    #[command(flatten)]
    pub tokens: TokenOptions,
    /// Which names and web pages the REST interface answers.
    #[command(flatten)]
    pub browsers: BrowserOptions,
    /// Whether it speaks TLS.
    #[command(flatten)]
    pub tls: TlsOptions,
    /// Whose start requests it runs.
    #[command(flatten)]
    pub verify: VerifyOptions,
    /// How to reach NATS.
    #[command(flatten)]
    pub nats: NatsOptions,
    /// Settings that backend and workers share.
    #[command(flatten)]
    pub protocol: ProtocolOptions,
    /// How to log.
    #[command(flatten)]
    pub log: LogOptions,
}

/// What a worker's own REST interface serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RestRoutes {
    /// All routes: also the operations that it has run, cancels and direct starts.
    Full,
    /// Only `/health`, `/metrics` and `/openapi.json`.
    Health,
}

/// The least important level of log lines that is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum KeptLevel {
    /// All of them.
    Trace,
    /// All but those of single steps.
    Debug,
    /// What happens, warnings, errors.
    Info,
    /// Warnings and errors.
    Warn,
    /// Errors.
    Error,
    /// None.
    Off,
}

impl KeptLevel {
    /// The level; `None` when no lines are kept.
    pub fn least(self) -> Option<LogLevel> {
        match self {
            Self::Trace => Some(LogLevel::Trace),
            Self::Debug => Some(LogLevel::Debug),
            Self::Info => Some(LogLevel::Info),
            Self::Warn => Some(LogLevel::Warn),
            Self::Error => Some(LogLevel::Error),
            Self::Off => None,
        }
    }
}

impl Default for Config {
    /// The default of every setting. Reads neither flags nor environment variables.
    fn default() -> Self {
        let command = Self::command().mut_args(|argument| argument.env(None::<&str>));
        #[expect(clippy::expect_used, reason = "the defaults are constants that parse")]
        let config = Self::from_arg_matches(&command.get_matches_from(["worker"]))
            .expect("defaults that parse");
        config
    }
}

impl Config {
    /// The settings of the environment variables, and defaults for the rest. For a program with
    /// command line arguments of its own.
    ///
    /// # Errors
    /// [`WorkerError::Settings`] when a variable cannot be read.
    pub fn from_env() -> Result<Self, WorkerError> {
        Self::try_parse_from(["worker"]).map_err(|error| WorkerError::Settings(error.to_string()))
    }

    pub(crate) fn log_limits(&self) -> LogLimits {
        LogLimits {
            level: self.log_level.least(),
            lines: self.log_lines,
            bytes: self.log_bytes,
        }
    }
}

fn parse_bytes(text: &str) -> Result<u64, String> {
    let bytes = parse_size(text)?;
    u64::try_from(bytes).map_err(|error| error.to_string())
}

fn parse_object(text: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_str(text).map_err(|error| format!("must be a JSON object: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_need_no_command_line() {
        let config = Config::default();

        assert_eq!(config.concurrency, 1);
        assert_eq!(config.checkpoint_interval, Duration::from_secs(1));
        assert_eq!(config.log_limits(), LogLimits::default());
        assert_eq!(config.nats.nats_url, "nats://127.0.0.1:4222");
    }
}
